/* peak.c: the most this machine can do now, measured, so that a speed can be told as a fraction of
 * it. Other programs and the clock change it from moment to moment: measure it right before or
 * after what it is compared with, and take the best of several. */
#include "ops/peak.h"

#include <string.h>

struct spin {
    enum isa isa;
    i64 rounds;
    bool pair;
    double flops; /* of one worker; all do the same */
};
static void spin_task(void *arg, i64 begin, i64 end, int worker) {
    struct spin *s = arg;
    static double (*const spin[])(i64, bool) = {
#define X(isa) peak_spin_##isa,
        ISA_LIST(X)
#undef X
    };
    for (i64 i = begin; i < end; i++) {
        const double flops = spin[s->isa](s->rounds, s->pair);
        if (worker == 0) s->flops = flops;
    }
}

/* The best of a few runs of work that was queued on a GPU, in seconds. */
static double gpu_seconds(int (*work)(void *arg, struct err *e), void *arg, struct err *e) {
    double best = 1e30;
    for (int i = 0; i < 5; i++) {
        const double start = clock_seconds();
        if (work(arg, e) || device_sync(e)) return 1e30;
        const double seconds = clock_seconds() - start;
        if (seconds < best) best = seconds;
    }
    return best;
}
static int gpu_product(void *arg, struct err *e) { return op_run(arg, e); }

static double gpu_peak_gflops(enum dtype d) {
    enum { N = 8192 };
    static double known[DTYPE_COUNT];
    const enum numerics numerics = numerics_now;
    const struct lora_attr attr = {0};
    struct err e = {0};
    struct op_call c = {.op = &op_linear, .attr = &attr};
    if (known[d] > 0) return known[d];
    numerics_now = NUMERICS_FAST;
    for (int i = 0; i < 2; i++) c.in[i] = (struct view){NULL, d, 2, {N, N}};
    int rc = 0;
    for (int i = 0; i < 2; i++) rc |= !(c.in[i].data = device_new(view_bytes(&c.in[i]), &e));
    rc = rc || op_shape(&c, &e) || !(c.out[0].data = device_new(view_bytes(&c.out[0]), &e));
    const i64 scratch = rc ? 0 : op_scratch(&c);
    if (scratch) rc = !(c.scratch = device_new(scratch, &e));
    const double seconds = rc ? 1e30 : gpu_seconds(gpu_product, &c, &e);
    for (int i = 0; i < 2; i++) device_free(c.in[i].data);
    device_free(c.out[0].data), device_free(c.scratch);
    numerics_now = numerics;
    return known[d] = 2.0 * N * N * N / seconds * 1e-9;
}

static int gpu_copy(void *arg, struct err *e) {
    u8 *const *block = arg;
    return device_copy(block[0], block[1], 1 << 30, e);
}
static double gpu_copy_gbs(struct err *e) {
    static double known;
    if (known > 0) return known;
    u8 *block[2] = {device_new(1 << 30, e), device_new(1 << 30, e)};
    const double seconds = block[0] && block[1] ? gpu_seconds(gpu_copy, block, e) : 1e30;
    device_free(block[0]), device_free(block[1]);
    return known = 2.0 * (1 << 30) / seconds * 1e-9;
}

double bench_peak_gflops(enum dtype d) {
    if (device_now() == DEVICE_CUDA) return gpu_peak_gflops(d);
    struct spin s = {.isa = isa_now(), .rounds = 1000, .pair = d == BF16};
    const int workers = pool_threads();
    double best = 0;
    for (double end = clock_seconds() + 0.05; clock_seconds() < end;) {
        const double start = clock_seconds();
        pool_run(workers, spin_task, &s);
        const double seconds = clock_seconds() - start, rate = s.flops * workers / seconds * 1e-9;
        if (rate > best) best = rate;
        if (seconds < 0.004) s.rounds *= 2;
    }
    return best;
}

struct copy {
    u8 *to;
    const u8 *from;
};
static void copy_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct copy *c = arg;
    memcpy(c->to + begin, c->from + begin, (size_t)(end - begin));
}

double bench_copy_gbs(struct err *e) {
    if (device_now() == DEVICE_CUDA) return gpu_copy_gbs(e);
    const i64 size = 128 << 20;
    u8 *block = mem_new(2 * size, e);
    if (!block) return -1;
    memset(block, 1,
           (size_t)(2 * size)); /* real pages, or all of them would be one page of zeros */
    const struct copy c = {block, block + size};
    double best = 0;
    for (int i = 0; i < 5; i++) {
        const double start = clock_seconds();
        pool_run(size, copy_task, (void *)&c);
        const double seconds = clock_seconds() - start, rate = 2 * (double)size / seconds * 1e-9;
        if (rate > best) best = rate;
    }
    mem_free(block);
    return best;
}
