/* test_cuda.c: the CUDA kernels, on the CPU (tests/shim). For each op and sample of OP_LIST, in f32
 * and bf16: with `portable` numerics the kernel gives the CPU's bits; with `fast` it is within the
 * op's bound of the reference; both give the same bits whatever the order of threads and blocks,
 * and whether stores are seen at once or as late as CUDA allows; they write every byte of their
 * results and none outside, read nothing that nobody wrote, and no two threads race. The same file
 * with tests/gpu/real.c in the shim's place is the test on a real GPU (`make gpu-test`). */
#include "ops/linear_xent.h"
#include "ops/ops_int.h"
#include "tests/unit/ops/ops_harness.h"
#include "tests/shim/shim_test.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { GAP = 256 }; /* bytes at both ends of a buffer that a kernel must leave alone */

/* A call whose views are copies, in device memory, of a trial's. */
struct twin {
    struct op_call call;
    u8 *block[OP_IN + OP_OUT + 1 + VIEW_PARTS];
};

static void *device_room(struct twin *t, int slot, i64 bytes) {
    t->block[slot] = device_new(bytes + 2 * GAP, &(struct err){0});
    assert_non_null(t->block[slot]);
    return t->block[slot] + GAP;
}
static void *device_twin(struct twin *t, int slot, const struct view *v) {
    return v->data && v->rank ? device_room(t, slot, view_bytes(v)) : NULL;
}
static void parts_twin(struct twin *t, struct view *v) {
    for (int k = 1; k <= VIEW_PARTS; k++) {
        const i64 bytes = view_slot_bytes(v, k);
        void **at = view_slot(v, k), *host = *at;
        if (!bytes) continue;
        *at = device_room(t, OP_IN + OP_OUT + k, bytes);
        device_write(*at, host, bytes, &(struct err){0});
    }
}

static void twin_open(struct twin *t, const struct trial *from) {
    struct err e = {0};
    *t = (struct twin){.call = from->call};
    struct op_arg arg[OP_IN];
    const int outs = op_args(from->call.op->out, arg);
    for (int i = 0; i < OP_IN; i++) {
        struct view *v = &t->call.in[i];
        void *host = v->data;
        if ((v->data = device_twin(t, i, v))) device_write(v->data, host, view_bytes(v), &e);
        parts_twin(t, v);
    }
    for (int i = 0; i < OP_OUT; i++) {
        struct view *v = &t->call.out[i];
        void *host = v->data;
        if (!(v->data = device_twin(t, OP_IN + i, v))) continue;
        if (i < outs && (arg[i].in_place || arg[i].accumulate))
            device_write(v->data, host, view_bytes(v), &e);
        else
            shim_forget(v->data, view_bytes(v));
    }
    const i64 scratch = op_scratch(&t->call);
    t->call.scratch = NULL;
    if (scratch) {
        t->call.scratch = t->block[OP_IN + OP_OUT] = device_new(scratch, &e);
        shim_forget(t->call.scratch, scratch);
    }
}

static void twin_close(struct twin *t) {
    for (int i = 0; i < COUNT(t->block); i++) device_free(t->block[i]);
}

/* The results and the bytes around them, in host memory. */
static u8 *result_read(const struct view *v) {
    struct err e = {0};
    u8 *host = malloc((size_t)view_bytes(v) + 2 * GAP);
    assert_int_equal(0, device_read(host, (u8 *)v->data - GAP, view_bytes(v) + 2 * GAP, &e));
    return host;
}

/* What is wrong with the results, or NULL. `bits`: they must equal `cpu` bit for bit. */
static const char *compare(const struct twin *t, const struct trial *cpu, const struct trial *ref,
                           enum dtype p, bool bits, double *worst) {
    const struct op *op = t->call.op;
    static char text[200];
    text[0] = 0;
    for (int o = 0; o < OP_OUT && !text[0]; o++) {
        if (!t->call.out[o].data) continue;
        u8 *block = result_read(&t->call.out[o]), *data = block + GAP;
        struct view copy = t->call.out[o];
        const struct view *a = &copy, *b = &cpu->call.out[o], *r = &ref->call.out[o];
        const i64 bytes = view_bytes(a), unwritten = shim_unwritten(a->data, bytes);
        const bool is_bf16 = p == BF16 || a->dtype == BF16;
        const double eps = is_bf16 ? 0x1p-8 : 0x1p-23,
                     bound = is_bf16 ? op->bound.bf16 : op->bound.f32;
        copy.data = data;
        if (unwritten)
            snprintf(text, sizeof text, "output %d: %lld of %lld bytes are not written", o,
                     (long long)unwritten, (long long)bytes);
        for (i64 i = 0; i < GAP; i++)
            if (data[-1 - i] || data[bytes + i])
                snprintf(text, sizeof text, "wrote outside of output %d", o);
        double top = 0;
        for (i64 i = 0; r->rank && i < view_count(r); i++)
            if (fabs(view_at(r, i)) > top && fabs(view_at(r, i)) < 1e30) top = fabs(view_at(r, i));
        const i64 size = bytes / i64_max(1, view_count(a));
        for (i64 i = 0; i < view_count(a) && !text[0]; i++) {
            const double x = view_at(a, i), y = view_at(b, i), z = r->rank ? view_at(r, i) : y;
            const bool same = !memcmp(data + i * size, (u8 *)b->data + i * size, (size_t)size);
            const double off =
                same || (x < -1e30 && z < -1e30) ? 0 : fabs(x - z) / (bound * eps * top);
            if (off > *worst) *worst = off;
            if (bits ? !same : !(off <= 1))
                snprintf(text, sizeof text,
                         "output %d[%lld] is %.9g (%a), the CPU %.9g (%a), the reference %.9g", o,
                         (long long)i, x, x, y, y, z);
        }
        free(block);
    }
    return text[0] ? text : NULL;
}

/* Of the fast kernels too: the hash of all results is that of the run before. */
static u64 results_hash(const struct twin *t) {
    u64 hash = 14695981039346656037ull;
    struct err e = {0};
    for (int o = 0; o < OP_OUT; o++) {
        const struct view *v = &t->call.out[o];
        if (!v->data) continue;
        u8 *bytes = malloc((size_t)view_bytes(v));
        assert_int_equal(device_read(bytes, v->data, view_bytes(v), &e), 0);
        for (i64 i = 0; i < view_bytes(v); i++) hash = (hash ^ bytes[i]) * 1099511628211ull;
        free(bytes);
    }
    return hash;
}

static void sample_run(const struct op *op, const struct sample *s, int index) {
    for (int p = 0; p < 2; p++) {
        const enum dtype precision = p ? BF16 : F32;
        struct trial ref, cpu;
        struct err e = {0};
        trial_open(&ref, op, s, F64, precision);
        op->ref(&ref.call);
        trial_open(&cpu, op, s, precision, precision);
        struct trial given; /* before the CPU kernel changed what it adds to */
        trial_open(&given, op, s, precision, precision);
        assert_int_equal(op->cpu[isa_now()](&cpu.call, &e), 0);
        assert_int_equal(device_open("cuda", &e), 0);
        u64 hash = 0;
        for (int mode = 0; mode < 4; mode++) {
            numerics_now = mode < 2 ? NUMERICS_PORTABLE : NUMERICS_FAST;
            shim_seed = (u32)(mode + 1) * 77, shim_late = mode % 2;
            struct twin t;
            double worst = 0;
            twin_open(&t, &given);
            int rc = op_run(&t.call, &e) || device_sync(&e);
            if (rc) err_print(&e, stderr);
            assert_int_equal(rc, 0);
            const char *wrong = compare(&t, &cpu, &ref, precision, mode < 2, &worst);
            const u64 before = hash;
            hash = results_hash(&t);
            if (!wrong && mode % 2 && hash != before) wrong = "another run gave other bits";
            const long long findings = shim_findings();
            if (wrong || findings) {
                fprintf(stderr, "%s (cuda, %s, %s, sample %d): %s; %lld findings\n", op->name,
                        dtype_info[precision].name, mode < 2 ? "portable" : "fast", index,
                        wrong ? wrong : "results are right", findings);
                fail();
            }
            twin_close(&t);
        }
        device_close();
        trial_close(&given), trial_close(&cpu), trial_close(&ref);
    }
}

/* Runs a call that is told to be wrong, in `words`, or, NULL, is not; out[absent] is not wanted. It
 * neither reads nor writes what it must not. */
static void told(const struct op *op, const struct trial *given, bool late, bool fast, int absent,
                 const char *words) {
    struct twin t;
    struct err e = {0};
    assert_int_equal(device_open("cuda", &e), 0);
    shim_late = late;
    numerics_now = fast ? NUMERICS_FAST : NUMERICS_PORTABLE;
    twin_open(&t, given);
    if (absent >= 0) t.call.out[absent].data = NULL;
    assert_int_equal(op_run(&t.call, &e), 0);
    assert_int_equal(device_sync(&e), words ? -1 : 0);
    if (words && !strstr(e.primary, words))
        fail_msg("%s: '%s' does not say '%s'", op->name, e.primary, words);
    assert_int_equal(shim_findings(), 0);
    twin_close(&t);
    device_close();
}

/* Queries that ask for keys that there are not. */
static void test_bad_keys(void **state) {
    (void)state;
    const struct op *ops[] = {&op_attention, &op_attention_back};
    struct sample *s = calloc(1, sizeof *s);
    for (int n = 0; n < 12; n++) {
        const struct op *op = ops[n % 2];
        const int begin = n % 2 ? 6 : 3;
        struct trial given;
        memset(s, 0, sizeof *s);
        assert_true(op->sample(4, s)); /* 150 queries, heads of 64 */
        trial_open(&given, op, s, BF16, BF16);
        view_put(&given.call.in[begin + n / 2 % 2], 77, n % 4 < 2 ? 151 : 1 << 30);
        if (n >= 8) view_put(&given.call.in[begin], 77, -3);
        told(op, &given, n / 2 % 2, n / 4 % 2, -1, "query 77 asks for key ");
        trial_close(&given);
    }
    free(s);
}

/* The same of a page table: a sequence, a page that there are not; a begin within a key block. */
static void test_bad_pages(void **state) {
    (void)state;
    static const struct {
        int at;
        i32 value;
        const char *words;
    } wrong[] = {{8, 3, "query 0 is of sequence 3 of 3"},
                 {7, 14, "asks for page 14 of 14"},
                 {7, -1, "asks for page -1 of 14"},
                 {3, 32, "query 0 begins at 32; expected a multiple of 64"}};
    struct sample *s = calloc(1, sizeof *s);
    int first = 0; /* sample with pages; the second is of few queries, the fifth of many */
    for (; memset(s, 0, sizeof *s), op_attention.sample(first, s) && !s->in[7].present; first++) {
    }
    for (int n = 0; n < 16; n++) {
        const bool many = n >= 8;
        const int at = wrong[n % 4].at;
        struct trial given;
        memset(s, 0, sizeof *s);
        assert_true(op_attention.sample(first + (many ? 4 : 1), s) && s->in[7].present);
        trial_open(&given, &op_attention, s, BF16, BF16);
        view_put(&given.call.in[at], at == 7 ? (many ? 8 : 1) : 0, wrong[n % 4].value);
        told(&op_attention, &given, n % 2, n / 4 % 2, -1, wrong[n % 4].words);
        trial_close(&given);
    }
    free(s);
}

/* Gradients of attention that nobody wants are not written. */
static void test_absent(void **state) {
    (void)state;
    struct sample *s = calloc(1, sizeof *s);
    for (int n = 0; n < 6; n++) {
        struct trial given;
        memset(s, 0, sizeof *s);
        assert_true(op_attention_back.sample(4, s)); /* 150 queries, heads of 64 */
        trial_open(&given, &op_attention_back, s, BF16, BF16);
        told(&op_attention_back, &given, n % 2, n < 3, n % 3, NULL);
        trial_close(&given);
    }
    free(s);
}

/* `hone inspect ops` says the same: no operation without a CUDA kernel. */
static void test_complete(void **state) {
    (void)state;
    for (int i = 0; i < op_count; i++)
        if (!op_table[i]->cuda)
            fprintf(stderr, "%s has no CUDA kernel\n", op_table[i]->name), fail();
}

static bool large; /* the samples of the benchmark too: on a real GPU */

static void test_op(void **state) {
    const struct op *op = *state;
    struct sample *s = calloc(1, sizeof *s);
    for (int k = 0; memset(s, 0, sizeof *s), op->sample(k, s); k++)
        if (s->bench == BENCH_NO || (large && s->bench == BENCH)) sample_run(op, s, k);
    free(s);
}

/* With an argument: the tests of that operation alone, or `large`. */
int main(int argc, char **argv) {
    static struct CMUnitTest tests[128];
    static void *ops[128];
    static char names[128][48];
    int n = 0;
    struct err e = {0};
    isa_float_mode();
    shim_check = 1;
    xent_logits_cuda = 0; /* several chunks in a small sample */
    if (argc > 1 && !strcmp(argv[1], "large")) large = true, argc--;
    if (pool_start(0, &e)) return 1;
    if (argc < 2)
        tests[n++] = (struct CMUnitTest){"every op has a CUDA kernel", test_complete, 0, 0, 0};
    for (int i = 0; i < op_count; i++) {
        if (!op_table[i]->cuda || (argc > 1 && strcmp(argv[1], op_table[i]->name))) continue;
        ops[n] = (void *)op_table[i];
        snprintf(names[n], sizeof names[n], "cuda: %s", op_table[i]->name);
        tests[n] = (struct CMUnitTest){names[n], test_op, 0, 0, ops[n]};
        n++;
    }
    if (argc < 2 || !strcmp(argv[1], "attention"))
        tests[n++] = (struct CMUnitTest){"cuda: keys out of range", test_bad_keys, 0, 0, 0};
    if (argc < 2 || !strcmp(argv[1], "attention"))
        tests[n++] = (struct CMUnitTest){"cuda: bad page tables", test_bad_pages, 0, 0, 0};
    if (argc < 2 || !strcmp(argv[1], "attention"))
        tests[n++] = (struct CMUnitTest){"cuda: gradients not wanted", test_absent, 0, 0, 0};
    const int failed = _cmocka_run_group_tests("cuda", tests, (size_t)n, NULL, NULL);
    pool_stop();
    return failed;
}
