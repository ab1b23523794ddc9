/* test_kills.c: kills and signals at random moments of a tiny run, which is then resumed, again and
 * again, until it is through. After each: every checkpoint that has its name is whole, the log
 * reads and its chain holds. At each end: the same state, weights, log and samples as without a
 * signal.
 *
 * `make test` sends a few. HONE_KILLS=1000 is the campaign of `make test-all` (part kills): the
 * k-th signal is a function of k, build/all/kills.next is where it goes on after an interruption,
 * and it prints how many of each there were. */
#include "tests/e2e/tiny_run.h"

#include <sys/resource.h>

enum { STEPS = 12, EVERY = 2, FEW = 10 }; /* a few: one of each */
static const int number[] = {SIGKILL, SIGTERM, SIGINT,  SIGHUP,  SIGPIPE,
                             SIGQUIT, SIGUSR1, SIGALRM, SIGSTOP, SIGKILL};
static const char *const name[] = {"KILL", "TERM", "INT",  "HUP",  "PIPE",
                                   "QUIT", "USR1", "ALRM", "STOP", "KILL"};
static i64 sent[COUNT(number)], late, ends;
static char final[130];
static double whole; /* seconds of the undisturbed run */

static const char *words(const char *run) {
    static char line[1024];
    snprintf(line, sizeof line,
             "train %s/full.yaml precision=bf16 dataset.0.path=%s/packed.h5 max_steps=%d "
             "save_steps=%d eval_dataset.0.path=%s/packed.h5 eval_batches=1 eval_steps=5 "
             "tokenizer=" TINY_TOKENIZER " sample_prompts=First sample_tokens=3 output_dir=%s "
             "save_total_limit=3 --quiet",
             tiny, tiny, STEPS, EVERY, tiny, run);
    return line;
}

/* The state's digest and the weights'. Not the manifest: a stopped run has one checkpoint more, so
 * that the next has another parent. */
static const char *end_of(const char *run) {
    static char both[130], path[600];
    snprintf(path, sizeof path, "%s/checkpoints/step-%06d", run, STEPS);
    const struct manifest m = manifest_of(path);
    snprintf(path, sizeof path, "%s/checkpoints/step-%06d/model.safetensors", run, STEPS);
    snprintf(both, sizeof both, "%s %s", m.state_sha256, sha_of(path));
    return both;
}

/* What stands there under its own name is whole. */
static void nothing_half_written(const char *run) {
    struct checkpoint_list list = {0};
    struct log_rows rows = {0};
    struct err e = {0};
    char path[600];
    if (path_is_dir(run) && checkpoint_list(run, &list, &e)) fail_msg("%s", e.primary);
    for (i64 i = 0; i < list.count; i++) {
        char *folder = checkpoint_path(run, list.step[i], &e);
        if (!folder || manifest_verify(folder, true, &e)) fail_msg("%s: %s", folder, e.primary);
        mem_free(folder);
    }
    mem_free(list.step);
    snprintf(path, sizeof path, "%s/log.jsonl", run);
    if (path_exists(path) && log_read(&rows, path, &e)) fail_msg("%s", e.primary);
    log_rows_free(&rows);
}

static void wait_for(double seconds) {
    const struct timespec t = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&t, NULL);
}

/* Signal k while the run goes on from where it was; its exit code. */
static int disturb(const char *run, i64 k) {
    const struct rng r = {12, RNG_TEST, 0, (u32)k};
    const i64 i = k % COUNT(number);
    char line[1200];
    snprintf(line, sizeof line, "exec ./hone %s resume_from_checkpoint=auto", words(run));
    const pid_t pid = shell_start(line);
    wait_for(whole * rng_uniform_f64(&r, 0) * (rng_uniform_f64(&r, 1) < 0.5 ? 0.3 : 1.1));
    kill(pid, number[i]);
    if (number[i] == SIGSTOP) { /* another signal while it is stopped, half of the times */
        wait_for(whole * 0.05);
        if (rng_uniform_f64(&r, 2) < 0.5)
            kill(pid, rng_uniform_f64(&r, 3) < 0.5 ? SIGTERM : SIGKILL);
        kill(pid, SIGCONT);
    }
    if ((number[i] == SIGTERM || number[i] == SIGINT) && rng_uniform_f64(&r, 4) < 0.3)
        kill(pid, number[i]); /* twice: at once */
    const int code = shell_end(pid);
    const bool good = code == 0 || code == ERR_STOPPED || code == -number[i] ||
                      (number[i] == SIGSTOP && (code == -SIGKILL || code == -SIGTERM));
    if (!good) fail_msg("signal %lld, %s: exit %d: %s", (long long)k, name[i], code, complained());
    sent[i]++, late += code == 0;
    return code;
}

static void ended(const char *run) {
    if (strcmp(final, end_of(run)))
        fail_msg("%s: the end differs from that of the undisturbed run", run);
    logs_equal(at("whole"), run);
    assert_string_equal(text_of(at("whole/samples.jsonl")), text_of(at("run/samples.jsonl")));
    hone(0, "verify %s", run);
    assert_int_equal(0, dir_remove(run, &(struct err){0}));
    ends++;
}

static void signals_at_random_moments(void **state) {
    (void)state;
    static const char place[] = "build/all/kills.next";
    const i64 most = getenv("HONE_KILLS") ? atoll(getenv("HONE_KILLS")) : FEW;
    const bool campaign = getenv("HONE_KILLS") != NULL;
    struct text from = {0};
    struct err e = {0};
    char run[512];
    strcpy(run, at("run"));
    if (campaign && path_exists(place) && file_read(&from, place, &e)) fail_msg("%s", e.primary);
    i64 k = from.data ? atoll(from.data) : 0;
    text_free(&from);
    for (; k < most; k++) {
        const int code = disturb(run, k);
        nothing_half_written(run);
        if (code == 0) ended(run);
        char next[32];
        const int size = snprintf(next, sizeof next, "%lld\n", (long long)k + 1);
        if (campaign && (dir_make("build/all", &e) || file_write(place, next, size, &e)))
            fail_msg("%s", e.primary);
    }
    if (path_exists(run)) {
        hone(0, "%s resume_from_checkpoint=auto", words(run));
        ended(run);
    }
    if (campaign) {
        i64 all = 0;
        for (i64 i = 0; i < COUNT(number); i++)
            printf("%s %lld  ", name[i], (long long)sent[i]), all += sent[i];
        printf("\n%lld signals, %lld runs to the same end; %lld came when the run was through\n",
               (long long)all, (long long)ends, (long long)late);
        unlink(place);
    }
}

static int set_up(void **state) {
    if (tiny_folder(state)) return -1;
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    tiny_data();
    tiny_recipe(at("full.yaml"));
    const double begin = clock_seconds();
    hone(0, "%s", words(at("whole")));
    whole = clock_seconds() - begin;
    strcpy(final, end_of(at("whole")));
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(signals_at_random_moments)};
    return cmocka_run_group_tests_name("kills", tests, set_up, tiny_remove);
}
