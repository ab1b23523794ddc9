/* test_save.c: a save that is killed, or in which anything fails, leaves the old checkpoint or the
 * new one, whole. */
#include "tests/unit/checkpoints/save_fixture.h"
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static char *root(void) {
    static char path[256];
    snprintf(path, sizeof path, "%s/checkpoints", run);
    return path;
}

/* There is checkpoint 1, or 1 and 2, whole, and nothing else; returns the newest. */
static i64 whole(void) {
    struct err e = {0};
    struct text notes = {0};
    char *path, **name;
    i64 step = -1, count;
    assert_int_equal(checkpoint_latest(run, &path, &step, &notes, &e), 1);
    assert_true(step == 1 || step == 2);
    assert_int_equal(notes.size, 0);
    ok(manifest_verify(path, true, &e), &e);
    mem_free(path);
    text_free(&notes);
    ok(dir_list(root(), &name, &count, &e), &e);
    for (i64 i = 0; i < count; i++) assert_memory_equal(name[i], "step-", 5);
    assert_int_equal(count, step);
    names_free(name, count);
    return step;
}

static const char *const kind[] = {"open", "write", "fsync", "rename", "mkdir", "read", "alloc"};

/* After a kill: what was left is cleaned up, a whole checkpoint is there, and the run goes on. */
static bool recover(bool save_again) {
    struct err e = {0};
    ok(checkpoint_clean(run, &e), &e);
    bool after = whole() == 2;
    if (!after && save_again) {
        ok(save(2, "", &e), &e);
        assert_int_equal(whole(), 2);
    }
    ok(dir_remove(step_path(2), &e), &e);
    return after;
}

static void killed(void **state) {
    (void)state;
    int kills = 0, after = 0;
    for (i64 k = 0; k < COUNT(kind); k++)
        for (int n = 1, status = SIGKILL; WIFSIGNALED(status); n++) {
            char spec[32];
            snprintf(spec, sizeof spec, "kill-%s:%d", kind[k], n);
            pid_t child = fork();
            if (!child) {
                struct err e = {0};
                fault_arm(spec);
                _exit(save(2, "", &e) ? 1 : 0);
            }
            waitpid(child, &status, 0);
            bool renamed = recover(true);
            if (WIFSIGNALED(status))
                kills++, after += renamed;
            else
                assert_int_equal(status, 0);
        }
    print_message("%d kills, %d of them after the rename\n", kills, after);
    assert_true(kills > 60 && after >= 2);
}

/* Is the child entering a system call? Those for memory do not count: how many there are depends on
 * what the heap has seen, most of all under the address sanitizer, and they leave files alone. */
static bool enters_call(pid_t child) {
    struct __ptrace_syscall_info at;
    if (ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof at, &at) <= 0) return false;
    return at.op == PTRACE_SYSCALL_INFO_ENTRY && at.entry.nr != SYS_mmap &&
           at.entry.nr != SYS_munmap && at.entry.nr != SYS_madvise && at.entry.nr != SYS_brk;
}

/* Runs a save under ptrace and kills it as it enters its n-th system call, HDF5's own included.
 * Returns false when the save ended before; *denied where calls cannot be traced. */
static bool kill_at_call(int n, bool *denied) {
    pid_t child = fork();
    if (!child) {
        struct err e = {0};
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL)) _exit(77);
        raise(SIGSTOP);
        _exit(save(2, "", &e) ? 1 : 0);
    }
    int status, calls = 0;
    waitpid(child, &status, 0);
    if (WIFSTOPPED(status)) ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_TRACESYSGOOD);
    while (WIFSTOPPED(status)) { /* a call stops at entry and at exit */
        calls += enters_call(child);
        if (calls == n) break;
        ptrace(PTRACE_SYSCALL, child, NULL, NULL);
        waitpid(child, &status, 0);
    }
    *denied = !calls;
    if (!WIFSTOPPED(status)) return *denied ? false : (assert_int_equal(status, 0), false);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    return true;
}

static void killed_at_every_call(void **state) {
    (void)state;
    bool denied = false;
    int n = 1, after = 0;
    for (; kill_at_call(n, &denied); n++) after += recover(n % 16 == 0);
    if (denied) skip();
    recover(false);
    print_message("%d system calls, %d of them after the rename\n", n - 1, after);
    assert_true(n > 100 && after > 2);
}

static void failed(void **state) {
    (void)state;
    int failures = 0;
    for (i64 k = 0; k < COUNT(kind); k++)
        for (int n = 1;; n++) {
            char spec[32];
            struct err e = {0}, why = {0};
            snprintf(spec, sizeof spec, "%s:%d", kind[k], n);
            fault_arm(spec);
            int status = save(2, "", &why);
            fault_arm(NULL);
            assert_int_equal(status != 0, why.code != 0);
            /* nothing temporary is left; an error after the rename leaves the new one */
            i64 step = whole();
            assert_true(status || step == 2);
            if (step == 2) ok(dir_remove(step_path(2), &e), &e);
            if (!status) break;
            failures++;
        }
    print_message("%d failures\n", failures);
    assert_true(failures > 60);
}

/* A full disk: the error says how much was needed, the checkpoint before stays. */
static void full_disk(void **state) {
    (void)state;
    struct err e = {0};
    fault_arm("write:9");
    assert_int_equal(save(2, "", &e), -1);
    fault_arm(NULL);
    assert_non_null(strstr(e.primary, "No space left on device"));
    bool said = false;
    for (int i = 0; i < e.frames; i++)
        said |= !!strstr(e.frame[i], "saving step 2, about 10000 bytes");
    assert_true(said);
    assert_int_equal(whole(), 1);
    struct checkpoint c;
    e = (struct err){0};
    assert_int_equal(checkpoint_begin(&c, run, 2, (i64)1 << 60, &e), -1);
    assert_memory_equal(e.primary, "saving step 2 needs 1152921504606846976 bytes, but ", 51);
    assert_int_equal(whole(), 1);
    for (int kib = 0; kib < 8; kib++) {
        int status;
        pid_t child = fork();
        if (!child) {
            struct rlimit limit = {(rlim_t)kib << 10, (rlim_t)kib << 10};
            signal(SIGXFSZ, SIG_IGN);
            setrlimit(RLIMIT_FSIZE, &limit);
            e = (struct err){0};
            _exit(save(2, "", &e) && e.code ? 0 : 1);
        }
        waitpid(child, &status, 0);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == 0)
            assert_int_equal(whole(), 1);
        else if (whole() == 2)
            ok(dir_remove(step_path(2), &(struct err){0}), &(struct err){0});
    }
}

/* Without memory, nobody can tell whether a checkpoint is whole: neither is it passed over for an
 * older one, nor does it make room. */
static void starved(void **state) {
    (void)state;
    struct err e = {0};
    ok(save(2, "", &e), &e);
    for (int n = 1, found = -1; found < 0; n++) {
        struct err why = {0};
        struct text notes = {0};
        struct checkpoint c;
        char spec[32], *path;
        i64 step = -1;
        snprintf(spec, sizeof spec, "alloc:%d", n);
        fault_arm(spec);
        found = checkpoint_latest(run, &path, &step, &notes, &why);
        fault_arm(NULL);
        assert_true(found < 0 ? why.code && why.starved : found == 1 && step == 2 && !notes.size);
        mem_free(path), text_free(&notes);
        fault_arm(spec);
        assert_int_equal(checkpoint_begin(&c, run, 2, 0, &(struct err){0}), -1);
        fault_arm(NULL);
        assert_int_equal(whole(), 2);
    }
    ok(dir_remove(step_path(2), &e), &e);
}

static void existing(void **state) {
    (void)state;
    struct err e = {0};
    char path[300];
    assert_int_equal(save(1, "", &e), -1);
    assert_non_null(strstr(e.primary, "step-000001 exists already and is intact"));
    e = (struct err){0};
    ok(save(2, "", &e), &e);
    snprintf(path, sizeof path, "%s/config.json", step_path(2));
    ok(file_write(path, "{}", 2, &e), &e);
    struct text notes = {0};
    char *latest;
    i64 step;
    assert_int_equal(checkpoint_latest(run, &latest, &step, &notes, &e), 1);
    assert_int_equal(step, 1);
    assert_memory_equal(notes.data, "step 2 is not usable: ", 22);
    assert_non_null(
        strstr(notes.data, "step-000002/config.json has 2 bytes; the manifest says 557\n"));
    text_free(&notes);
    mem_free(latest);
    ok(save(2, "", &e), &e); /* a broken one makes room */
    assert_int_equal(whole(), 2);
    ok(dir_remove(step_path(2), &e), &e);
}

static void pruned(void **state) {
    (void)state;
    struct err e = {0};
    struct checkpoint_list list;
    char path[300];
    for (i64 step = 2; step <= 5; step++) ok(save(step, "", &e), &e);
    snprintf(path, sizeof path, "%s/step-7", root());
    ok(dir_make(path, &e), &e); /* not ours: left alone */
    ok(checkpoint_prune(run, 2, &e), &e);
    ok(checkpoint_list(run, &list, &e), &e);
    assert_int_equal(list.count, 2);
    assert_true(list.step[0] == 4 && list.step[1] == 5);
    mem_free(list.step);
    ok(checkpoint_prune(run, 0, &e), &e);
    ok(checkpoint_list(run, &list, &e), &e);
    assert_int_equal(list.count, 1);
    mem_free(list.step);
    assert_true(path_is_dir(path));
}

static void none(void **state) {
    (void)state;
    struct err e = {0};
    struct text notes = {0};
    char *path;
    i64 step;
    assert_int_equal(checkpoint_latest("/nowhere", &path, &step, &notes, &e), 0);
    ok(checkpoint_clean("/nowhere", &e), &e);
    struct checkpoint c;
    assert_int_equal(checkpoint_begin(&c, "/proc/nowhere", 1, 0, &e), -1);
    assert_non_null(strstr(e.primary, "/proc/nowhere"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed),  cmocka_unit_test(killed_at_every_call),
        cmocka_unit_test(failed),  cmocka_unit_test(full_disk),
        cmocka_unit_test(starved), cmocka_unit_test(existing),
        cmocka_unit_test(pruned),  cmocka_unit_test(none),
    };
    return cmocka_run_group_tests(tests, set_up, folder_remove);
}
