/* test_cuda_shim.c: the shim's own test: it finds each mistake of tests/shim/probes.cu, nothing in
 * the right twins, under several orders of threads and both times at which stores are seen, and
 * what is not ordered gives other bits too; lanes, barriers, copies and tensor instructions
 * compute what CUDA's do; and machines without driver, device or memory, kernels that die, and what
 * kernels report of their data, give the messages that a user sees. */
#include "tests/shim/probes.h"
#include "tests/shim/shim_test.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct probe_memory memory;
static float host[PROBE_FLOATS];

static void memory_new(void) {
    struct err e = {0};
    const i64 bytes = sizeof host;
    for (int i = 0; i < PROBE_FLOATS; i++) host[i] = (float)i;
    assert_int_equal(device_open("cuda", &e), 0);
    float *in = device_new(bytes, &e), *raw = device_new(bytes, &e);
    memory = (struct probe_memory){device_new(bytes, &e), in, raw, device_new(500, &e),
                                   malloc(sizeof host)};
    assert_int_equal(device_write(in, host, bytes, &e), 0);
    memcpy(memory.host, host, sizeof host);
    shim_forget(raw, bytes);
}
static void memory_free(void) {
    device_free(memory.out), device_free((void *)memory.in), device_free((void *)memory.raw);
    device_free((void *)memory.odd);
    free(memory.host);
    device_close();
}

static void probe_run(const struct probe *p, bool right, unsigned seed) {
    struct err e = {0};
    memory_new();
    shim_seed = seed;
    assert_int_equal(device_zero(memory.out, sizeof host, &e), 0);
    assert_int_equal(probe_launch(p, right, &memory, &e), 0);
    assert_int_equal(device_read(host, memory.out, sizeof host, &e), 0);
    char first[512];
    snprintf(first, sizeof first, "%s", shim_first());
    const long long findings = shim_findings();
    memory_free();
    if (right && findings) fail_msg("%s, right: %s", p->name, first);
    if (!right && !findings) fail_msg("%s, wrong: not found", p->name);
    if (!right && !strstr(first, p->finding)) fail_msg("%s, wrong: %s", p->name, first);
    for (int i = 0; i < PROBE_FLOATS; i++)
        if (!p->finding && host[i] != 1) fail_msg("%s: thread %d has another value", p->name, i);
}
/* Under ten orders of threads, half of them with late stores: the right one gives the same bits and
 * no finding in all of them, the wrong one a finding in all of them. */
static void test_probe(void **state) {
    const struct probe *p = *state;
    static float want[PROBE_FLOATS];
    int other = 0;
    for (unsigned seed = 1; seed <= 10; seed++) {
        shim_late = seed % 2;
        probe_run(p, true, seed);
        if (seed == 1) memcpy(want, host, sizeof want);
        if (memcmp(want, host, sizeof want)) fail_msg("%s, right: other bits", p->name);
        if (!p->finding) continue;
        probe_run(p, false, seed);
        other += memcmp(want, host, sizeof want) != 0;
    }
    shim_late = 0;
    if (p->bits && !other) fail_msg("%s, wrong: the same bits in every order", p->name);
}

/* ---- what a user is told ---- */
static void told(const struct err *e, int code, const char *primary, const char *more) {
    assert_int_equal(e->code, code);
    assert_string_equal(e->primary, primary);
    if (more && strcmp(e->detail, more) && strcmp(e->hint, more))
        fail_msg("%s: detail '%s', hint '%s'", primary, e->detail, e->hint);
}

static void test_open(void **state) {
    static const struct {
        const char *fault, *device, *primary, *more;
    } row[] = {
        {NULL, "gpu", "--device is 'gpu'", "expected cpu, cuda or cuda:N"},
        {NULL, "cuda:", "--device is 'cuda:'", "expected cpu, cuda or cuda:N"},
        {NULL, "cuda:1x", "--device is 'cuda:1x'", "expected cpu, cuda or cuda:N"},
        {NULL, "cuda:-1", "--device is 'cuda:-1'", "expected cpu, cuda or cuda:N"},
        {NULL, "cuda:1", "--device cuda:1: this machine has 1 GPU", "expected cuda:0"},
        {"no-driver", "cuda", "CUDA is off: this machine has no NVIDIA driver (libcuda.so.1)",
         "`hone doctor` lists what was looked for; --device cpu needs none"},
        {"old-driver", "cuda",
         "CUDA is off: the driver supports CUDA 12.4, this program was built with 13.0 and needs "
         "driver 580 or newer",
         "update the driver, or build hone with nvcc of CUDA 12 on PATH; --device cpu needs none"},
        {"old-driver:11080", "cuda",
         "CUDA is off: the driver supports CUDA 11.8, this program was built with 13.0 and needs "
         "driver 580 or newer",
         "update the driver, or build hone with nvcc of CUDA 11 on PATH; --device cpu needs none"},
        {"no-device", "cuda", "CUDA is off: no usable GPU: no CUDA-capable device is detected",
         NULL},
        {"old-gpu", "cuda", "--device cuda:0: the CPU, as a GPU is sm_70",
         "expected sm_80 (Ampere) or newer"},
        {"no-code", "cuda",
         "--device cuda:0: the CPU, as a GPU is sm_90, and its driver can load none of this "
         "program's code",
         "the program has code for sm_80 and sm_90, and PTX for newer GPUs: no kernel image is "
         "available for execution on the device"},
        {"old-ptx", "cuda",
         "--device cuda:0: the CPU, as a GPU is sm_90, and its driver can load none of this "
         "program's code",
         "update the driver, or build hone with a newer CUDA toolkit"},
    };
    (void)state;
    for (int i = 0; i < COUNT(row); i++) {
        struct err e = {0};
        shim_fault_arm(row[i].fault);
        assert_int_equal(device_open(row[i].device, &e), -1);
        told(&e, ERR_INPUT, row[i].primary, row[i].more);
        assert_int_equal(device_now(), DEVICE_CPU);
        if (row[i].fault && !strncmp(row[i].primary, "CUDA is off", 11))
            assert_string_equal(device_text(), row[i].primary);
    }
    shim_fault_arm(NULL);
    assert_string_equal(device_text(), "the CPU, as a GPU, sm_90, 2 multiprocessors, 8.0 GiB");
}

static void test_memory(void **state) {
    (void)state;
    struct err e = {0};
    shim_fault_arm("memory:1024");
    assert_int_equal(device_open("cuda", &e), 0);
    assert_int_equal(device_available(), 1 << 20);
    void *some = device_new(1 << 18, &e);
    assert_non_null(some);
    assert_null(device_new(2 << 20, &e));
    told(&e, ERR_FAILED, "no memory on the GPU for 2.0 MiB; 0.8 MiB are free", NULL);
    e = (struct err){0}; /* the device goes on */
    void *more = device_new(1 << 18, &e);
    assert_non_null(more);
    assert_int_equal(device_sync(&e), 0);
    device_free(more), device_free(some);
    assert_int_equal(device_available(), 1 << 20);
    device_close();
    shim_fault_arm(NULL);
}

static const struct probe *right_one(void) { return &probe_table[0]; }

static void test_launch(void **state) {
    static const char *const hint =
        "the last checkpoint is intact; --sync names the operation that fails";
    (void)state;
    struct err e = {0};
    shim_fault_arm(NULL);
    memory_new();
    shim_fault_arm("launch:2");
    assert_int_equal(probe_launch(right_one(), true, &memory, &e), 0);
    assert_int_equal(probe_launch(right_one(), true, &memory, &e), -1);
    told(&e, ERR_FAILED, "CUDA: probe_kernel: invalid argument (cudaErrorInvalidValue)", hint);
    e = (struct err){0};
    assert_int_equal(probe_launch(right_one(), true, &memory, &e), 0);
    assert_int_equal(device_sync(&e), 0);
    shim_fault_arm(NULL);
    memory_free();
}

/* Each thing that the runtime refuses, and the last that it takes. `most`: of sm_90. */
static void test_limits(void **state) {
    enum { MOST = 232448, PLACE = 2048 }; /* dynamic memory begins at a multiple of 128 */
    static const char *const memory_text = "invalid argument (cudaErrorInvalidValue)",
                             *const shape_text = "invalid configuration argument "
                                                 "(cudaErrorInvalidConfiguration)",
                             *const registers_text = "too many resources requested for launch "
                                                     "(cudaErrorLaunchOutOfResources)",
                             *const stranger_text = "invalid device function "
                                                    "(cudaErrorInvalidDeviceFunction)";
    static const struct {
        enum probe_shape kernel;
        bool opt_in;
        int grid[3], block[3], shared;
        const char *text; /* NULL: it runs */
        const char *why;
    } row[] = {
        {PROBE_IDLE, false, {1, 65535, 1}, {32, 1, 1}, 0, NULL, NULL},
        {PROBE_IDLE, false, {1, 65536, 1}, {32, 1, 1}, 0, shape_text, "a grid is at most"},
        {PROBE_IDLE, false, {1, 1, 65536}, {32, 1, 1}, 0, shape_text, "a grid is at most"},
        {PROBE_IDLE, false, {0, 1, 1}, {32, 1, 1}, 0, shape_text, "a grid is at most"},
        {PROBE_IDLE, false, {1, 1, 1}, {1024, 1, 1}, 0, NULL, NULL},
        {PROBE_IDLE, false, {1, 1, 1}, {1056, 1, 1}, 0, shape_text, "at most 1024 threads"},
        {PROBE_IDLE, false, {1, 1, 1}, {4, 1, 128}, 0, shape_text, "64 along z"},
        {PROBE_IDLE, false, {1, 1, 1}, {48, 1, 1}, 0, shape_text, "whole warps"},
        {PROBE_IDLE, false, {1, 1, 1}, {32, 1, 1}, 48 << 10, NULL, NULL},
        {PROBE_IDLE,
         false,
         {1, 1, 1},
         {32, 1, 1},
         (48 << 10) + 1,
         memory_text,
         "opted in to 49152"},
        {PROBE_IDLE, true, {1, 1, 1}, {32, 1, 1}, MOST, NULL, NULL},
        {PROBE_IDLE, true, {1, 1, 1}, {32, 1, 1}, MOST + 1, memory_text, "has 232448 for a block"},
        /* static memory counts */
        {PROBE_FIXED, false, {1, 1, 1}, {32, 1, 1}, (48 << 10) - PLACE, NULL, NULL},
        {PROBE_FIXED,
         false,
         {1, 1, 1},
         {32, 1, 1},
         (48 << 10) - PLACE + 1,
         memory_text,
         "opted in"},
        {PROBE_FIXED, false, {1, 1, 1}, {32, 1, 1}, 48 << 10, memory_text, "static and dynamic"},
        {PROBE_FIXED, true, {1, 1, 1}, {32, 1, 1}, 48 << 10, NULL, NULL},
        {PROBE_FIXED, true, {1, 1, 1}, {32, 1, 1}, MOST - PLACE, NULL, NULL},
        {PROBE_FIXED, true, {1, 1, 1}, {32, 1, 1}, MOST - PLACE + 1, memory_text, "has 232448"},
        /* a smaller launch takes nothing back; the opening of the device does */
        {PROBE_FIXED, true, {1, 1, 1}, {32, 1, 1}, 64, NULL, NULL},
        {PROBE_FIXED, false, {1, 1, 1}, {32, 1, 1}, MOST - PLACE, NULL, NULL},
        /* 100 registers are 104 */
        {PROBE_GREEDY, false, {1, 1, 1}, {512, 1, 1}, 0, NULL, NULL},
        {PROBE_GREEDY, false, {1, 1, 1}, {640, 1, 1}, 0, registers_text, "66560 registers"},
        {PROBE_STRANGER,
         false,
         {1, 1, 1},
         {32, 1, 1},
         0,
         stranger_text,
         "not in tests/shim/kernels"},
    };
    struct err e = {0};
    (void)state;
    shim_gpu("");
    assert_int_equal(device_open("cuda", &e), 0);
    for (int i = 0; i < COUNT(row); i++) {
        struct recording *r = NULL;
        const bool kept = row[i].grid[1] > 1000; /* recorded and never run: that would take long */
        e = (struct err){0};
        assert_int_equal(kept && device_record_begin(&e), 0);
        const int rc = probe_launch_shape(row[i].kernel, row[i].opt_in, row[i].grid, row[i].block,
                                          row[i].shared, &e);
        assert_int_equal(kept && device_record_end(&r, &(struct err){0}), 0);
        device_record_free(r);
        if (!rc != !row[i].text || (rc && !strstr(e.primary, row[i].text)) ||
            (rc && !strstr(shim_refusal(), row[i].why)))
            fail_msg("row %d: '%s', '%s'", i, e.primary, shim_refusal());
        if (*shim_first()) fail_msg("row %d: %s", i, shim_first());
        assert_int_equal(device_sync(&e), 0);
    }
    device_close();
}

/* A graph holds a launch that opted in while it was recorded; small launches after it, also in the
 * graph, take nothing away. After another opening of the device a kernel opts in again. */
static void test_limits_recorded(void **state) {
    static const int one[3] = {1, 1, 1}, warp[3] = {32, 1, 1};
    struct recording *r = NULL;
    struct err e = {0};
    (void)state;
    for (int opening = 0; opening < 2; opening++) {
        shim_gpu("");
        assert_int_equal(device_open("cuda", &e), 0);
        assert_int_equal(device_record_begin(&e), 0);
        assert_int_equal(probe_launch_shape(PROBE_FIXED, true, one, warp, 200 << 10, &e), 0);
        assert_int_equal(probe_launch_shape(PROBE_FIXED, true, one, warp, 1 << 10, &e), 0);
        assert_int_equal(device_record_end(&r, &e), 0);
        assert_int_equal(probe_launch_shape(PROBE_FIXED, true, one, warp, 2 << 10, &e), 0);
        assert_int_equal(device_replay(r, &e) || device_sync(&e), 0);
        assert_int_equal(probe_launch_shape(PROBE_FIXED, false, one, warp, 200 << 10, &e), 0);
        device_record_free(r);
        device_close();
    }
}

/* Other GPUs have other limits. shim_dry lists what is refused, and nothing runs. */
static void test_limits_dry(void **state) {
    static const int one[3] = {1, 1, 1}, warp[3] = {32, 1, 1};
    struct err e = {0};
    (void)state;
    shim_dry = 1, shim_gpu("sm_80");
    assert_int_equal(device_open("cuda", &e), 0);
    assert_string_equal(device_text(),
                        "the CPU, as a GPU, sm_80, 108 multiprocessors, 32768.0 GiB");
    float *p = device_new((i64)1 << 40, &e); /* addresses alone */
    assert_non_null(p);
    assert_int_equal(device_zero(p, (i64)1 << 40, &e), 0);
    for (int i = 0; i < 3; i++) {
        const int kib[] = {160, 164, 164};
        assert_int_equal(probe_launch_shape(PROBE_FIXED, true, one, warp, kib[i] << 10, &e), 0);
    }
    assert_string_equal(shim_refused(0),
                        "fixed_kernel(int): grid 1x1x1, block 32x1x1, shared memory 2000 static + "
                        "167936 dynamic, 32 registers, sm_80: 169984 bytes of shared memory; this "
                        "GPU has 166912 for a block");
    assert_null(shim_refused(1)); /* once */
    device_free(p);
    device_close();
    shim_refused_forget();
    shim_dry = 0, shim_gpu("");
}

/* A kernel that dies takes the device with it: everything after it fails too. */
static void test_death(void **state) {
    static const struct {
        const char *fault, *text, *hint;
    } row[] = {
        {"kernel:2", "unspecified launch failure (cudaErrorLaunchFailure)",
         "the last checkpoint is intact; --sync names the operation that fails"},
        {"timeout:2", "the launch timed out and was terminated (cudaErrorLaunchTimeout)",
         "the driver stopped a kernel that ran too long (a display's watchdog?); the last "
         "checkpoint is intact"},
    };
    (void)state;
    for (int i = 0; i < COUNT(row); i++) {
        struct err e = {0};
        char primary[200];
        shim_fault_arm(NULL);
        memory_new();
        shim_fault_arm(row[i].fault);
        assert_int_equal(probe_launch(right_one(), true, &memory, &e), 0);
        assert_int_equal(device_sync(&e), 0);
        (void)probe_launch(right_one(), true, &memory, &e); /* may say so, or the wait does */
        e = (struct err){0};
        assert_int_equal(device_sync(&e), -1);
        snprintf(primary, sizeof primary, "CUDA: waiting for the GPU: %s", row[i].text);
        told(&e, ERR_FAILED, primary, row[i].hint);
        e = (struct err){0};
        assert_int_equal(device_read(host, memory.out, sizeof host, &e), -1);
        snprintf(primary, sizeof primary, "CUDA: copying from the GPU: %s", row[i].text);
        told(&e, ERR_FAILED, primary, row[i].hint);
        e = (struct err){0};
        assert_null(device_new(64, &e));
        shim_fault_arm(NULL);
        memory_free();
    }
}

/* What kernels report of their data: once, at the next wait, in the words of the CPU kernels. */
static void test_fault_report(void **state) {
    static const char *const other = "the data was made with another tokenizer than the model's";
    static const struct {
        enum bad kind;
        int code;
        const char *primary, *hint;
    } row[] = {
        {BAD_TOKEN, ERR_INPUT, "token id -7 at position 5000000000 is outside the table of 40 rows",
         other},
        {BAD_TARGET, ERR_INPUT,
         "target id -7 at position 5000000000 is outside the vocabulary of 40", other},
        {BAD_POSITION, ERR_FAILED, "position -7 is outside the rotary table of 40 positions", NULL},
        {BAD_CACHE, ERR_FAILED,
         "operation kv_store: row 5000000000 goes to -7 of a cache of 40 rows", NULL},
        {BAD_KEYS, ERR_FAILED, "operation attention: query 5000000000 asks for key -7 of 40", NULL},
        {BAD_SEQUENCE, ERR_FAILED, "operation attention: query 5000000000 is of sequence -7 of 40",
         NULL},
        {BAD_BEGIN, ERR_FAILED,
         "operation attention: query 5000000000 begins at -7; expected a multiple of 40", NULL},
        {BAD_PAGE, ERR_FAILED, "operation attention: query 5000000000 asks for page -7 of 40",
         NULL},
    };
    (void)state;
    struct err e = {0};
    assert_int_equal(device_open("cuda", &e), 0);
    for (int i = 0; i < COUNT(row); i++) {
        e = (struct err){0};
        assert_int_equal(probe_fault((int)row[i].kind, -7, 5000000000, 40, &e), 0);
        assert_int_equal(probe_fault((int)BAD_TOKEN, 1, 2, 3, &e), 0); /* the first stays, whole */
        assert_int_equal(device_sync(&e), -1);
        told(&e, row[i].code, row[i].primary, row[i].hint);
        e = (struct err){0};
        assert_int_equal(device_sync(&e), 0);
    }
    device_close();
}

/* The kernels of embedding, rope and kv_store leave out what is out of range, and say so. */
static void test_bad_index(void **state) {
    static const struct rope_attr turn = {8, 8, false};
    static const struct {
        const struct op *op;
        bool gradient;
        const char *primary;
    } row[] = {
        {&op_embedding, false, "token id 9 at position 1 is outside the table of 4 rows"},
        {&op_embedding_back, true, "token id 9 at position 1 is outside the table of 4 rows"},
        {&op_kv_store, true, "operation kv_store: row 1 goes to 9 of a cache of 4 rows"},
        {&op_rope, false, "position 9 is outside the rotary table of 4 positions"},
    };
    (void)state;
    for (int i = 0; i < COUNT(row); i++) {
        const i32 index[3] = {2, 9, 0};
        struct err e = {0};
        assert_int_equal(device_open("cuda", &e), 0);
        struct view x = {.data = device_new(3 * 32, &e), .dtype = F32, .rank = 2, .dim = {3, 8}},
                    ids = {.data = device_new(sizeof index, &e),
                           .dtype = I32,
                           .rank = 1,
                           .dim = {3}},
                    table = {
                        .data = device_new(4 * 32, &e), .dtype = F32, .rank = 2, .dim = {4, 8}};
        assert_int_equal(device_write(ids.data, index, sizeof index, &e), 0);
        struct op_call c = {.op = row[i].op, .attr = &turn, .in = {x, ids}, .out = {table}};
        if (!row[i].gradient) c.out[0] = x;
        if (c.op == &op_embedding) c.in[0] = ids, c.in[1] = table;
        if (c.op == &op_rope) c.in[2] = table, c.out[0] = x, c.out[0].data = device_new(3 * 32, &e);
        assert_int_equal(op_shape(&c, &e), 0);
        assert_int_equal(op_run(&c, &e), 0);
        assert_int_equal(device_sync(&e), -1);
        assert_string_equal(e.primary, row[i].primary);
        assert_int_equal(shim_findings(), 0);
        if (c.op == &op_rope) device_free(c.out[0].data);
        device_free(x.data), device_free(ids.data), device_free(table.data);
        device_close();
    }
}

/* Recorded work runs when it is replayed, and nobody waits while it is recorded. */
static void test_record(void **state) {
    (void)state;
    struct err e = {0};
    struct recording *r = NULL;
    memory_new();
    assert_int_equal(device_zero(memory.out, sizeof host, &e), 0);
    assert_int_equal(device_record_begin(&e), 0);
    assert_int_equal(probe_launch(right_one(), true, &memory, &e), 0);
    assert_int_equal(shim_findings(), 0);
    (void)device_sync(&e);
    assert_non_null(strstr(shim_first(), "while it is captured"));
    assert_int_equal(shim_findings(), 1);
    e = (struct err){0};
    assert_int_equal(device_record_end(&r, &e), 0);
    for (int replay = 0; replay < 2; replay++) {
        assert_int_equal(device_read(host, memory.out, sizeof host, &e), 0);
        for (int i = 0; i < PROBE_FLOATS; i++)
            assert_true(host[i] == (float)(replay ? i / 64 * 64 + 63 - i % 64 : 0));
        assert_int_equal(device_replay(r, &e), 0);
    }
    device_record_free(r);
    device_free(memory.host); /* no device memory: found, not freed */
    assert_non_null(strstr(shim_first(), "cudaFree of what cudaMalloc did not give"));
    (void)shim_findings();
    memory_free();
}

/* Code of the host that takes a device pointer for its own, or uses one that was freed. */
static void test_host_touches(void **state) {
    (void)state;
    for (int freed = 0; freed < 2; freed++) {
        const pid_t child = fork();
        if (!child) {
            struct err e = {0};
            signal(SIGSEGV, SIG_DFL);
            if (device_open("cuda", &e)) _exit(1);
            volatile float *p = device_new(64, &e);
            if (freed) device_free((void *)p);
            p[0] = 1;
            _exit(0);
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    }
}

int main(void) {
    static struct CMUnitTest tests[64];
    int n = 0;
    struct err e = {0};
    isa_float_mode();
    shim_check = shim_quiet = 1;
    if (pool_start(1, &e)) return 1;
    for (int i = 0; i < probe_count; i++)
        tests[n++] =
            (struct CMUnitTest){probe_table[i].name, test_probe, 0, 0, (void *)&probe_table[i]};
    static const struct CMUnitTest rest[] = {
        cmocka_unit_test(test_open),         cmocka_unit_test(test_memory),
        cmocka_unit_test(test_launch),       cmocka_unit_test(test_death),
        cmocka_unit_test(test_fault_report), cmocka_unit_test(test_bad_index),
        cmocka_unit_test(test_record),       cmocka_unit_test(test_host_touches),
        cmocka_unit_test(test_limits),       cmocka_unit_test(test_limits_recorded),
        cmocka_unit_test(test_limits_dry),
    };
    for (int i = 0; i < COUNT(rest); i++) tests[n++] = rest[i];
    const int failed = _cmocka_run_group_tests("shim", tests, (size_t)n, NULL, NULL);
    pool_stop();
    return failed;
}
