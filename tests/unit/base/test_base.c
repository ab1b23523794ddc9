/* Errors, memory, faults, half precision, threads, option tables, UTF-8. */
#include "base/base.h"
#include <pthread.h>
#include <pty.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static void test_err(void **unused) {
    (void)unused;
    struct err e = {0};
    assert_int_equal(err_input(&e, "file %s: bad", "a.json"), -1);
    err_hint(&e, "fix it");
    assert_int_equal(err_failed(&e, "second"), -1);
    err_detail(&e, "detail of the second");
    err_frame(&e, "while loading %d", 1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_string_equal(e.primary, "file a.json: bad");
    assert_string_equal(e.hint, "fix it");
    assert_string_equal(e.detail, "");
    assert_string_equal(e.frame[0], "while loading 1");
    for (int i = 0; i < 20; i++) err_frame(&e, "more");
    assert_int_equal(e.frames, COUNT(e.frame));
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    e.frames = 1;
    err_print(&e, out);
    fclose(out);
    assert_string_equal(text, "error: file a.json: bad\n  while loading 1\n  hint: fix it\n");
    free(text);
    struct err cut = {0};
    err_input(&cut, "%2000s", "x");
    assert_int_equal(strlen(cut.primary), sizeof cut.primary - 1);
    assert_int_equal(err_failed(NULL, "nobody listens"), -1);
}

static void test_mem(void **unused) {
    (void)unused;
    struct err e = {0};
    for (i64 size = 0; size < 300; size++) {
        u8 *p = mem_new(size, &e);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (i64 i = 0; i < size; i++) assert_int_equal(p[i], 0);
        memset(p, 1, (size_t)size);
        p = mem_grow(p, size, size + 100, &e);
        for (i64 i = 0; i < size + 100; i++) assert_int_equal(p[i], i < size);
        mem_free(p);
    }
    mem_free(NULL);
    static const i64 bad[][2] = {
        {-1, 1}, {1, -1}, {INT64_MAX, 2}, {INT64_MAX / 8 + 1, 8}, {INT64_MAX, 1}};
    for (i64 i = 0; i < COUNT(bad); i++) {
        e = (struct err){0};
        assert_null(mem_new_array(bad[i][0], bad[i][1], &e));
        assert_int_equal(e.code, ERR_FAILED);
    }
    assert_true(mem_peak_rss() > 0 && mem_available() > 0);
}

/* ---- control groups: a machine of files */
static char machine[] = "/tmp/hone-machine-XXXXXX";
static void fact(const char *path, const char *text) {
    char file[256], folder[256];
    struct err e = {0};
    snprintf(file, sizeof file, "%s/%s", machine, path);
    snprintf(folder, sizeof folder, "%s", file);
    *strrchr(folder, '/') = 0;
    if (dir_make(folder, &e) || file_write(file, text, (i64)strlen(text), &e))
        fail_msg("%s", e.primary);
}
#define GROUP "sys/fs/cgroup/"
#define V1    GROUP "memory/"
enum { MIB = 1 << 20 };

static void test_control_groups(void **unused) {
    (void)unused;
    assert_non_null(mkdtemp(machine));
    fact("proc/meminfo", "MemTotal: 9000 kB\nMemFree: 1 kB\nMemAvailable:  1048576 kB\n");
    assert_int_equal(mem_available_under(machine), 1024 * MIB); /* no groups */
    fact("proc/self/cgroup", "0::/job/step\n");
    assert_int_equal(mem_available_under(machine), 1024 * MIB); /* not mounted here */
    fact(GROUP "job/step/memory.max", "max\n");
    fact(GROUP "job/step/memory.current", "104857600\n");
    assert_int_equal(mem_available_under(machine), 1024 * MIB); /* no limit */
    fact(GROUP "job/memory.max", "314572800\n"), fact(GROUP "job/memory.current", "209715200\n");
    assert_int_equal(mem_available_under(machine), 100 * MIB); /* the parent's limit */
    fact(GROUP "job/memory.stat", "anon 1\ninactive_file 20971520\nactive_file 31457280\n");
    assert_int_equal(mem_available_under(machine), 150 * MIB); /* file pages are given back */
    fact(GROUP "job/step/memory.high", "146800640\n");
    assert_int_equal(mem_available_under(machine), 40 * MIB); /* the tighter of both groups */
    fact(GROUP "job/step/memory.max", "52428800\n");
    assert_int_equal(mem_available_under(machine), 0); /* over the limit */
    fact("proc/self/cgroup", "0::/elsewhere/this\n"), fact(GROUP "memory.max", "134217728\n");
    assert_int_equal(mem_available_under(machine), 128 * MIB); /* a container: its mount */
    fact("proc/self/cgroup", "12:cpu,cpuacct:/x\n5:hugetlb,memory:/batch/7\n0::/none\n");
    fact(V1 "batch/7/memory.limit_in_bytes", "9223372036854771712\n");
    assert_int_equal(mem_available_under(machine), 128 * MIB); /* v1's way to say none */
    fact(V1 "batch/memory.limit_in_bytes", "83886080\n");
    fact(V1 "batch/memory.usage_in_bytes", "41943040\n");
    fact(V1 "batch/memory.stat", "inactive_file 1\ntotal_inactive_file 10485760\n");
    assert_int_equal(mem_available_under(machine), 50 * MIB);
    assert_int_equal(dir_remove(machine, &(struct err){0}), 0);
}

/* ---- text that must not drive a terminal */
static void shown(const char *bytes, i64 size, bool lines, const char *wanted) {
    char *text = NULL;
    size_t got = 0;
    FILE *f = open_memstream(&text, &got);
    show_bytes(f, bytes, size, lines);
    fclose(f);
    assert_string_equal(text, wanted);
    free(text);
}

static void test_shown(void **unused) {
    (void)unused;
    shown("a\033[31mX\a\177", 9, false, "a\\u001b[31mX\\u0007\\u007f");
    shown("\302\233A \342\200\256B \303\251 \346\227\245", 15, false,
          "\\u009bA \\u202eB \303\251 \346\227\245");
    shown("a\nb\tc\r", 6, true, "a\nb\tc\\u000d");
    shown("a\nb\0", 4, false, "a\\u000ab\\u0000");
    shown("\377a\303", 3, true, "\\xffa\\xc3");
    static const char cut[] = "a\360\237\230";
    for (int i = 0; i < 5; i++) assert_int_equal(utf8_whole(cut, i), i64_min(i, 1));
    assert_int_equal(utf8_whole("\303\251", 2), 2);
    struct err e = {0};
    char path[700], *text = NULL, name[601];
    size_t size = 0;
    memset(name, 'n', 600), name[600] = 0;
    for (int i = 0; i < 600; i += 2) memcpy(name + i, "\303\251", 2);
    err_input(&e, "cannot read 'x\033]0;title\a'\nerror: forged"), err_detail(&e, "a%s", name);
    FILE *f = open_memstream(&text, &size);
    err_print(&e, f), fclose(f);
    snprintf(path, sizeof path,
             "error: cannot read 'x\\u001b]0;title\\u0007'\\u000aerror: forged\n"
             "  a%.*s\n",
             510, name); /* cut between characters */
    assert_string_equal(text, path);
    free(text);
    f = open_memstream(&text, &size);
    show(f, "%s\033%s", name, "\n"), show(f, "%0*d\033", 3000, 7), fclose(f);
    assert_int_equal(size, 600 + 6 + 1 + 3000 + 6);
    free(text);
}

/* The line of progress names files, too. It is written to terminals only. */
static void test_progress(void **unused) {
    (void)unused;
    char got[256] = "";
    int fd, status;
    const pid_t pid = forkpty(&fd, NULL, NULL, &(struct winsize){.ws_row = 9, .ws_col = 12});
    if (!pid) {
        quiet = false;
        progress_line("a\033[31mb"), progress_line("%s", "0123456789\303\251 cut");
        _exit(0);
    }
    assert_true(pid > 0);
    for (size_t n = 0; n + 1 < sizeof got;) { /* Linux ends a terminal with an error */
        const ssize_t more = read(fd, got + n, sizeof got - 1 - n);
        if (more <= 0) break;
        n += (size_t)more;
    }
    assert_int_equal(pid, waitpid(pid, &status, 0));
    assert_string_equal(got, "\r\033[Ka\\u001b[31mb\r\033[K0123456789");
    close(fd);
}

static void test_arena_and_text(void **unused) {
    (void)unused;
    struct arena a = {0};
    struct err e = {0};
    u8 *part[200];
    for (i64 i = 0; i < 200; i++) {
        part[i] = arena_new(&a, i * i, &e);
        assert_int_equal((uintptr_t)part[i] % 64, 0);
        for (i64 k = 0; k < i * i; k++) assert_int_equal(part[i][k], 0);
        memset(part[i], (int)i, (size_t)(i * i));
        char *text = arena_printf(&a, &e, "number %d", (int)i);
        assert_string_equal(arena_text(&a, text, &e), text);
    }
    for (i64 i = 0; i < 200; i++)
        for (i64 k = 0; k < i * i; k++) assert_int_equal(part[i][k], (u8)i);
    assert_null(arena_new(&a, INT64_MAX, &e));
    assert_null(arena_new(&a, -5, &e));
    arena_free(&a);
    struct text t = {0};
    e = (struct err){0};
    for (int i = 0; i < 1000; i++)
        assert_int_equal(text_printf(&t, &e, "%03d", i) || text_add(&t, "\0", 1, &e), 0);
    assert_int_equal(t.size, 4000);
    assert_memory_equal(t.data + 3996, "999\0", 5);
    text_free(&t);
}

static void test_fault(void **unused) {
    (void)unused;
    assert_int_equal(fault_arm("alloc"), -1);
    assert_int_equal(fault_arm("alloc:0"), -1);
    assert_int_equal(fault_arm("alloc:2x"), -1);
    assert_int_equal(fault_arm("nothing:2"), -1);
    assert_false(fault_hit(FAULT_ALLOC));
    assert_int_equal(fault_arm("alloc:2"), 0);
    struct err e = {0};
    void *p = mem_new(1, &e);
    assert_non_null(p);
    assert_null(mem_new(1, &e));
    assert_string_equal(e.primary, "out of memory: 1 bytes wanted");
    mem_free(p);
    p = mem_new(1, &e);
    assert_non_null(p);
    mem_free(p);
    fault_arm(NULL);
}

static void test_half(void **unused) {
    (void)unused;
    for (u32 h = 0; h < 65536; h++) {
        float x = f16_to_f32((u16)h);
        if (x == x)
            assert_int_equal(f16_of_f32(x), h);
        else
            assert_true((h & 0x7c00) == 0x7c00 && (f16_of_f32(x) & 0x7fff) > 0x7c00);
        if ((h & 0x7fff) >= 0x7bff) continue; /* halfway to the next: to even; just past: up */
        union {
            float f;
            u32 u;
        } mid = {.f = (x + f16_to_f32((u16)(h + 1))) * 0.5f}, past = mid;
        past.u++;
        assert_int_equal(f16_of_f32(mid.f), h + (h & 1));
        assert_int_equal(f16_of_f32(past.f), h + 1);
    }
    assert_true(f16_to_f32(0x3c00) == 1 && f16_to_f32(1) == 0x1p-24f &&
                f16_of_f32(65520) == 0x7c00);
    assert_true(f16_of_f32(65519) == 0x7bff && f16_of_f32(0x1p-25f) == 0);
    assert_int_equal(bf16_of_f32(bf16_to_f32(0x3f81)), 0x3f81);
    assert_int_equal(dtype_of_safetensors("BF16"), BF16);
    assert_int_equal(dtype_of_safetensors("F8"), -1);
}

static void test_isa(void **unused) {
    (void)unused;
    struct err e = {0};
    assert_int_equal(isa_force("plain", &e), 0);
    assert_int_equal(isa_now(), ISA_plain);
    assert_int_equal(isa_force(isa_name[isa_best()], &e), 0);
    assert_int_equal(isa_force("sse9", &e), -1);
    assert_string_equal(e.primary, "'sse9' is not an instruction set");
}

struct count {
    i64 n;
    atomic_int seen[1000];
    atomic_int calls;
};

static void nested(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    assert_true(begin == 0 && end == 17);
    atomic_fetch_add(&((struct count *)arg)->calls, 1);
}

static void count(void *arg, i64 begin, i64 end, int worker) {
    struct count *c = arg;
    int threads = pool_threads();
    if (threads > 1 && c->n > 1) {
        assert_int_equal(begin, c->n * worker / threads);
        assert_int_equal(end, c->n * (worker + 1) / threads);
        pool_run(17, nested, c);
    }
    for (i64 i = begin; i < end; i++) atomic_fetch_add(&c->seen[i], 1);
}

static void test_pool(void **unused) {
    (void)unused;
    static const int threads[] = {1, 2, 3, 8};
    static const i64 sizes[] = {0, 1, 2, 3, 7, 8, 9, 1000};
    for (i64 t = 0; t < COUNT(threads); t++) {
        struct err e = {0};
        assert_int_equal(pool_start(threads[t], &e), 0);
        assert_int_equal(pool_threads(), threads[t]);
        for (i64 k = 0; k < COUNT(sizes) * 20; k++) {
            struct count c = {.n = sizes[k % COUNT(sizes)]};
            pool_run(c.n, count, &c);
            for (i64 i = 0; i < 1000; i++) assert_int_equal(c.seen[i], i < c.n);
            if (threads[t] > 1) assert_int_equal(c.calls, c.n > 1 ? i64_min(c.n, threads[t]) : 0);
        }
        pool_stop();
    }
    struct err e = {0};
    assert_int_equal(pool_start(-1, &e), -1);
}

static void add_all(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    atomic_fetch_add((_Atomic i64 *)arg, end - begin);
}

static void *outsider(void *arg) {
    for (int i = 0; i < 300; i++) pool_run(100, add_all, arg);
    return NULL;
}

static void test_pool_callers(void **unused) { /* several threads call at once */
    (void)unused;
    struct err e = {0};
    _Atomic i64 sum = 0;
    pthread_t other[2];
    assert_int_equal(pool_start(3, &e), 0);
    for (int i = 0; i < 2; i++) pthread_create(&other[i], NULL, outsider, &sum);
    outsider(&sum);
    for (int i = 0; i < 2; i++) pthread_join(other[i], NULL);
    pool_stop();
    assert_int_equal(sum, 3 * 300 * 100);
}

struct options {
    bool flag;
    i64 rank;
    double rate;
    const char *path, *optim;
    struct int_list at;
    struct text_list names;
};
#define ROW(key, type, ...)                                                                        \
    { #key, type, offsetof(struct options, key), __VA_ARGS__ }
static const struct option table[] = {
    ROW(flag, OPT_BOOL, "false", 0, 0, NULL, "a flag"),
    ROW(rank, OPT_INT, "8", 1, 64, NULL, "a rank"),
    ROW(rate, OPT_FLOAT, "1e-05", 0, 1, NULL, "a rate"),
    ROW(path, OPT_TEXT, NULL, 0, 0, NULL, "a path"),
    ROW(optim, OPT_CHOICE, "adamw", 0, 0, "adamw lion sgd", "an optimizer"),
    ROW(at, OPT_INT_LIST, "0,1,2", 0, 0, NULL, "steps"),
    ROW(names, OPT_TEXT_LIST, NULL, 0, 0, NULL, "names"),
    {0},
};

static void expect(const char *key, const char *value, const char *printed, const char *primary) {
    struct options o;
    struct arena a = {0};
    struct err e = {0};
    struct text t = {0};
    assert_int_equal(option_defaults(table, &o, &a, &e), 0);
    int result = option_set(table, &o, key, value, "r.yaml:3", &a, &e);
    if (primary) {
        assert_int_equal(result, -1);
        assert_int_equal(e.code, ERR_INPUT);
        assert_string_equal(e.primary, primary);
    } else {
        assert_int_equal(result, 0);
        assert_int_equal(option_print(option_find(table, key), &o, &t, &e), 0);
        assert_string_equal(t.data, printed);
    }
    text_free(&t);
    arena_free(&a);
}

static void test_options(void **unused) {
    (void)unused;
    expect("flag", "True", "true", NULL);
    expect("rank", "16", "16", NULL);
    expect("rate", "2e-5", "2e-05", NULL);
    expect("path", "a b/c", "a b/c", NULL);
    expect("path", NULL, "", NULL);
    expect("optim", "sgd", "sgd", NULL);
    expect("at", "4, 5 ,6", "4,5,6", NULL);
    expect("at", "", "", NULL);
    expect("names", "q_proj, v_proj", "q_proj,v_proj", NULL);
    expect("flag", "maybe", NULL, "r.yaml:3: flag = 'maybe'; expected true or false");
    expect("rank", "65", NULL, "r.yaml:3: rank = 65 is out of range: 1 to 64");
    expect("rank", "1.5", NULL, "r.yaml:3: rank = '1.5'; expected an integer");
    expect("rank", "99999999999999999999", NULL,
           "r.yaml:3: rank = '99999999999999999999'; expected an integer of 64 bits");
    expect("rate", "nan", NULL, "r.yaml:3: rate = 'nan'; expected a number");
    expect("optim", "adam", NULL, "r.yaml:3: optim = 'adam'; expected a known choice");
    expect("optim", "adamw lion", NULL, "r.yaml:3: optim = 'adamw lion'; expected a known choice");
    expect("at", "1,x", NULL, "r.yaml:3: at = 'x'; expected an integer");
    expect("rnak", "1", NULL, "r.yaml:3: unknown key 'rnak'");
    assert_string_equal(option_nearest(table, "rnak"), "rank");
    assert_null(option_nearest(table, "temperature"));
    assert_int_equal(edit_distance("kitten", "sitting"), 3);
    assert_int_equal(edit_distance("ab", "ba"), 1);
    assert_int_equal(edit_distance("", "abc"), 3);
}

static void test_utf8(void **unused) {
    (void)unused;
    for (u32 c = 0; c <= 0x10ffff; c++) {
        char bytes[4];
        int size = utf8_put(c, bytes);
        i64 at = 0;
        bool surrogate = c >= 0xd800 && c < 0xe000;
        assert_int_equal(utf8_next(bytes, size, &at), surrogate ? -1 : (int)c);
        assert_int_equal(at, surrogate ? 1 : size);
        if (size > 1) assert_int_equal(utf8_bad(bytes, size - 1), 0);
    }
    static const char *const bad[] = {"ab\x80",
                                      "ab\xc0\x80",
                                      "ab\xc1\xbf",
                                      "ab\xe0\x9f\xbf",
                                      "ab\xed\xa0\x80",
                                      "ab\xf0\x8f\xbf\xbf",
                                      "ab\xf4\x90\x80\x80",
                                      "ab\xf5\x80\x80\x80",
                                      "ab\xff",
                                      "ab\xc3("};
    for (i64 i = 0; i < COUNT(bad); i++) assert_int_equal(utf8_bad(bad[i], (i64)strlen(bad[i])), 2);
    assert_int_equal(utf8_bad("h\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 10), -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_err),
        cmocka_unit_test(test_mem),
        cmocka_unit_test(test_control_groups),
        cmocka_unit_test(test_shown),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_arena_and_text),
        cmocka_unit_test(test_half),
        cmocka_unit_test(test_isa),
        cmocka_unit_test(test_fault),
        cmocka_unit_test(test_pool),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_pool_callers),
        cmocka_unit_test(test_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
