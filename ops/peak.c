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

double bench_peak_gflops(enum dtype d) {
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
