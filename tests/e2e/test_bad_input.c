/* test_bad_input.c: bad input as a user meets it: ./hone is run on it, and must say the right
 * thing.
 *
 * The tables are tests/bad/NAME.rows; a row is
 *
 *   = what is wrong
 *     shell lines that break the fixture         (indented by two blanks)
 *   $ hone COMMAND ...                           the command, also shell
 *   ? 1                                          exit code, 2 if not given
 *   > part of the message                        on standard error; several must come in this order
 *   + GLOB                                       a path that may appear or change
 *   ! san | root                                 left out under sanitizers; only as root
 *
 * Each row starts from a fresh copy of the fixture (tests/bad/fixture.sh: model, adapter,
 * tokenizers, datasets, runs). After it, every file must be what it was before the command, none
 * more and none less, but for `+`. A crash, a sanitizer's report or a hang fails the row. The
 * second half of the file makes the n-th allocation, read, write, ... of each command fail instead.
 *
 * HONE_BAD=TEXT runs only rows whose name holds TEXT and shows what they print. Rejected: a C
 * table, in which YAML in shell in C strings is unreadable. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <setjmp.h>
#include <stdarg.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
// cmocka needs the headers above
#include <cmocka.h>
#include "base/base.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif
#else
enum { SANITIZED = 0 };
#endif
enum { LINES = 32, SECONDS = SANITIZED ? 240 : 60 };

static char root[64]; /* in memory where that is possible; holds fixture/, row/ and err */
static const char *only;
static char build[512]; /* where hone and this test were built */

struct row {
    const char *name, *run, *say[LINES], *may[LINES];
    int code, says, mays;
    bool san, super; /* what `!` said */
    struct text make;
};

/* ---- running --------------------------------------------------------------------------------- */

/* Runs shell text in root/FOLDER; standard error goes to root/err. The exit code; 128 + signal. */
static int shell(const char *folder, const char *script) {
    char path[256], err[256];
    int status;
    snprintf(path, sizeof path, "%s/%s", root, folder), snprintf(err, sizeof err, "%s/err", root);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        const int null = open("/dev/null", O_RDWR);
        const int to = open(err, O_WRONLY | O_CREAT | O_TRUNC, 0666);
        dup2(null, 0), dup2(null, 1), dup2(to, 2);
        setpgid(0, 0);
        if (!chdir(path)) execl("/bin/sh", "sh", "-c", script, (char *)NULL);
        _exit(126);
    }
    const double start = clock_seconds();
    while (waitpid(child, &status, WNOHANG) != child) {
        if (clock_seconds() - start > SECONDS) kill(-child, SIGKILL);
        usleep(1000);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static struct text said(void) {
    char path[256];
    struct text t = {0};
    struct err e = {0};
    snprintf(path, sizeof path, "%s/err", root);
    if (file_read(&t, path, &e)) fail_msg("%s", e.primary);
    return t;
}

/* ---- what lies in the folder: "PATH SHA-256" lines, sorted ----------------------------------- */

static void tree_add(struct text *out, const char *folder, const char *inside) {
    char **name, path[1024], hex[65] = "folder";
    i64 count;
    struct err e = {0};
    struct stat st;
    if (dir_list(folder, &name, &count, &e)) fail_msg("%s", e.primary);
    for (i64 i = 0; i < count; i++) {
        char under[512];
        snprintf(path, sizeof path, "%s/%s", folder, name[i]);
        snprintf(under, sizeof under, "%s%s%s", inside, *inside ? "/" : "", name[i]);
        strcpy(hex, "other");
        if (!lstat(path, &st) && S_ISREG(st.st_mode) && sha256_file(path, hex, &e))
            fail_msg("%s", e.primary);
        text_printf(out, &e, "%s %s\n", under, S_ISDIR(st.st_mode) ? "folder" : hex);
        if (S_ISDIR(st.st_mode)) tree_add(out, path, under);
    }
    names_free(name, count);
}

static struct text tree(const char *folder) {
    char path[256];
    struct text t = {0};
    struct err e = {0};
    snprintf(path, sizeof path, "%s/%s", root, folder);
    if (text_add(&t, "", 0, &e)) fail_msg("%s", e.primary);
    tree_add(&t, path, "");
    return t;
}

/* Lines of `a` that `b` lacks and no glob covers; the number of them. */
static int lines_missing(const char *a, const char *b, const struct row *r, const char *what) {
    int bad = 0;
    for (const char *at = a; *at;) {
        const size_t size = strcspn(at, "\n");
        char line[768], path[768];
        snprintf(line, sizeof line, "%.*s\n", (int)size, at);
        snprintf(path, sizeof path, "%.*s", (int)strcspn(line, " "), line);
        const char *found = b;
        while ((found = strstr(found, line)) && found != b && found[-1] != '\n') found++;
        bool covered = found != NULL;
        for (int i = 0; i < r->mays; i++) covered |= !fnmatch(r->may[i], path, 0);
        if (!covered) print_error("  %s %s\n", path, what), bad++;
        at += size + 1;
    }
    return bad;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static bool sanitizer_spoke(const char *text) {
    return strstr(text, "Sanitizer") || strstr(text, "runtime error:");
}

/* What is wrong with how a command ended, or NULL. */
static const char *verdict(const struct row *r, int code, const char *text) {
    const char *at = text;
    if (sanitizer_spoke(text)) return "a sanitizer spoke";
    if (code == 128 + SIGKILL) return "killed: it hung";
    if (code != r->code) return "another exit code";
    if (!strstr(text, "error: ")) return "no message";
    for (int i = 0; i < r->says; i++)
        if (!(at = strstr(at, r->say[i]))) return r->say[i];
    return NULL;
}

static int row_run(const struct row *r) {
    if ((r->san && SANITIZED) || (r->super && geteuid()) || (only && !strstr(r->name, only)))
        return 0;
    struct err e = {0};
    struct text make = {0};
    text_printf(&make, &e, "rm -rf ../row && cp -r ../fixture ../row && cd ../row && set -e\n%s%s",
                "PATH=../tools:$PATH\n", r->make.data ? r->make.data : "");
    if (shell("fixture", make.data)) {
        struct text t = said();
        print_error("%s: cannot be prepared: %s\n", r->name, t.data);
        return text_free(&t), text_free(&make), 1;
    }
    struct text before = tree("row");
    const int code = shell("row", r->run);
    struct text after = tree("row"), t = said();
    const char *wrong = verdict(r, code, t.data);
    int bad = wrong != NULL;
    if (only || wrong) print_error("%s\n  $ %s\n%s  (exit %d)\n", r->name, r->run, t.data, code);
    if (wrong) print_error("  WRONG: %s\n", wrong);
    int files = lines_missing(before.data, after.data, r, "was changed or removed");
    files += lines_missing(after.data, before.data, r, "was left behind or changed");
    if (files) print_error("  WRONG files: %s\n", r->name);
    text_free(&before), text_free(&after), text_free(&t), text_free(&make);
    return bad + (files != 0);
}

static void row_line(struct row *r, char *line) {
    struct err e = {0};
    char *rest = line + 2;
    switch (line[0]) {
    case ' ': text_printf(&r->make, &e, "%s\n", rest); break;
    case '$': r->run = rest; break;
    case '?': r->code = atoi(rest); break;
    case '>': r->say[r->says++] = rest; break;
    case '+': r->may[r->mays++] = rest; break;
    case '!': r->san |= !strcmp(rest, "san"), r->super |= !strcmp(rest, "root"); break;
    }
    assert_true(!e.code && r->says < LINES && r->mays < LINES);
}

static void rows_run(void **state) {
    struct text t = {0};
    struct err e = {0};
    struct row r = {0};
    int bad = 0, rows = 0;
    if (file_read(&t, *state, &e)) fail_msg("%s", e.primary);
    for (char *line = t.data, *end; line; line = end ? end + 1 : NULL) {
        if ((end = strchr(line, '\n'))) *end = 0;
        if (end && *line != '=') {
            if (*line && *line != '#') row_line(&r, line);
            continue;
        }
        if (r.run) bad += row_run(&r), rows++;
        text_free(&r.make);
        r = (struct row){.name = line + 2, .code = 2};
    }
    text_free(&t);
    if (bad) fail_msg("%d of %d rows of %s", bad, rows, (char *)*state);
}

/* ---- faults ---------------------------------------------------------------------------------- */

/* A command that works. Made to fail at any system call or allocation it must say so and leave
 * nothing but what `may` names; if that is there, `after` must find it whole (the folder was
 * renamed into place, and syncing its parent failed) or, for a run, must bring it to its end. */
struct job {
    const char *name, *run, *may, *after;
};
static const struct job jobs[] = {
    {"train", "hone train tiny.yaml output_dir=new --quiet", "new*",
     "find . -name '*.new' | grep . >&2 && exit 9; [ -e new/log.jsonl ] && "
     "resume=resume_from_checkpoint=auto; hone train tiny.yaml output_dir=new $resume --quiet && "
     "hone verify new --quiet && grep '\"step\"' new/log.jsonl | tail -n 1 | grep -q "
     "'\"step\":3,'"},
    {"resume",
     "hone train tiny.yaml output_dir=run resume_from_checkpoint=auto max_steps=4 --quiet", "run*",
     "hone verify run --quiet && hone train tiny.yaml output_dir=run resume_from_checkpoint=auto "
     "max_steps=4 --quiet && grep '\"step\"' run/log.jsonl | tail -n 1 | grep -q '\"step\":4,'"},
    {"lora", "hone train lora.yaml output_dir=new --quiet", "new*", NULL},
    {"tokenize", "hone tokenize text.txt --tokenizer tok.json --output new.h5", "new.h5",
     "[ ! -e new.h5 ] || hone inspect new.h5 --tokens 1000"},
    {"validation",
     "hone tokenize text.txt --tokenizer tok.json --document-separator . --validation 0.5 "
     "--output new.h5 --validation-output val.h5",
     "*.h5", "hone inspect val.h5 && { [ ! -e new.h5 ] || hone inspect new.h5 --tokens 1000; }"},
    {"tokenizer", "hone tokenizer train text.txt --output new.json --vocab-size 260", "new.json",
     "[ ! -e new.json ] || echo '{\"text\": \"a\"}' | hone encode new.json"},
    {"export", "hone export model --adapter adapter --adapter adapter=0.5 --output new", "", NULL},
    {"forward", "hone forward model --ids ids.safetensors --out old.safetensors --grad", "", NULL},
    {"report", "hone report run --output new.html", "new.html",
     "[ ! -e new.html ] || tail -n 1 new.html | grep -q '</html>'"},
    {"generate", "hone generate model --prompt hello --max-new-tokens 4", "", NULL},
    {"verify", "hone verify run --replay", "run/verify.jsonl", NULL},
    {"eval", "hone eval model --data val.h5", "", NULL},
    {"inspect", "hone inspect model --tensors", "", NULL},
};

static int fault_run(const struct job *j, const char *kind, int n, bool *done) {
    char command[1024];
    struct row r = {.name = j->name, .may = {j->may}, .mays = *j->may != 0};
    snprintf(command, sizeof command, "rm -rf ../row && cp -r ../fixture ../row");
    assert_int_equal(shell("fixture", command), 0);
    struct text before = tree("row");
    snprintf(command, sizeof command, "HONE_FAULT=%s:%d; export HONE_FAULT; %s", kind, n, j->run);
    int code = shell("row", command);
    struct text t = said(), after = tree("row");
    *done = code == 0;
    int bad = sanitizer_spoke(t.data) || code > 2 || (code && !strstr(t.data, "error: "));
    if (code) {
        bad += lines_missing(before.data, after.data, &r, "was changed or removed");
        bad += lines_missing(after.data, before.data, &r, "was left behind or changed");
    }
    if (bad || only) print_error("%s\n%s  (exit %d)\n", command, t.data, code);
    text_free(&before), text_free(&t), text_free(&after);
    if (!bad && code && j->after && (code = shell("row", j->after))) {
        t = said();
        print_error("%s\nthen %s\n%s  (exit %d)\n", command, j->after, t.data, code), bad++;
        text_free(&t);
    }
    return bad;
}

/* `make test` tries a few places of each kind, HONE_SLOW=1 all of the first 64, then ever fewer. */
static int next_fault(int n) {
    if (getenv("HONE_SLOW")) return n < 64 ? n + 1 : n + n / 8;
    return n < 3 ? n + 1 : n + n;
}

static void faults_run(void **state) {
    const char *kind = *state;
    int bad = 0;
    if (only && strncmp(only, "fault", 5)) return;
    for (int i = 0; i < COUNT(jobs); i++) {
        if (only && only[5] == '-' && strcmp(only + 6, jobs[i].name)) continue;
        bool done = false;
        for (int n = 1; !done; n = next_fault(n)) bad += fault_run(&jobs[i], kind, n, &done);
    }
    if (bad) fail_msg("%d faults of kind %s", bad, kind);
}

/* ---- mutations ------------------------------------------------------------------------------- */

/* A few random changes of a file's bytes: overwritten, inserted, removed, or the end cut off. */
static void file_mutate(const char *path, const struct rng *r) {
    static const char common[] = "0123456789-.[]{}\",:e\0\377\200\177 n";
    struct text old = {0}, fresh = {0};
    struct err e = {0};
    if (file_read(&old, path, &e)) fail_msg("%s", e.primary);
    i64 from = 0;
    for (u64 k = 1; k < 4 && from < old.size; k++) {
        const i64 at =
            from + (i64)(rng_uniform_f64(r, 4 * k) * (double)i64_min(old.size - from, 4096));
        const char byte =
            common[(i64)(rng_uniform_f64(r, 4 * k + 1) * (double)(sizeof common - 1))];
        const double how = rng_uniform_f64(r, 4 * k + 2);
        text_add(&fresh, old.data + from, at - from, &e);
        from = at;
        if (how < 0.8) text_add(&fresh, &byte, 1, &e);
        if (how < 0.5 || how >= 0.7) from += 1 + (how >= 0.9 ? 16 : 0);
        if (how >= 0.97) from = old.size;
    }
    if (from < old.size) text_add(&fresh, old.data + from, old.size - from, &e);
    if (e.code || file_write(path, fresh.data, fresh.size, &e)) fail_msg("%s", e.primary);
    text_free(&old), text_free(&fresh);
}

/* A model with random damage works or is refused: no crash, no hang, no silence, and what it left
 * behind is whole or nothing. */
static void mutations_run(void **state) {
    static const char generate[] = "hone generate model --adapter adapter --prompt 'the cat' "
                                   "--max-new-tokens 4",
                      sharded[] = "hone generate sharded --prompt 'the cat' --max-new-tokens 4",
                      gguf[] = "hone export model.gguf --output new --tokens 8 --max-kl 1e9";
    static const struct {
        const char *file, *command;
    } job[] = {{"model/config.json", generate},
               {"model/model.safetensors", generate},
               {"model/tokenizer.json", generate},
               {"adapter/adapter_config.json", generate},
               {"adapter/adapter_model.safetensors", generate},
               {"sharded/model.safetensors.index.json", sharded},
               {"sharded/config.json", sharded},
               {"model.gguf", gguf}};
    const int count = getenv("HONE_SLOW") ? 1000 : 48;
    int bad = 0;
    (void)state;
    for (int i = 0; i < count && (!only || !strcmp(only, "mutations")); i++) {
        char path[256];
        const int k = i % (int)COUNT(job);
        const struct rng r = {11, RNG_TEST, 0, (u32)i};
        assert_int_equal(shell("fixture", "rm -rf ../row && cp -r ../fixture ../row"), 0);
        snprintf(path, sizeof path, "%s/row/%s", root, job[k].file);
        file_mutate(path, &r);
        const int code = shell("row", job[k].command);
        struct text t = said();
        snprintf(path, sizeof path, "%s/row/new", root);
        if (code > 2 || sanitizer_spoke(t.data) || (code && !strstr(t.data, "error: ")) ||
            (job[k].command == gguf && path_exists(path) != !code))
            print_error("mutation %d of %s\n%s  (exit %d)\n", i, job[k].file, t.data, code), bad++;
        text_free(&t);
    }
    if (bad) fail_msg("%d of %d mutations", bad, count);
}

/* ---- the fixture ----------------------------------------------------------------------------- */

static int fixture_make(void **state) {
    char repository[512], command[1200], program[1100], path[8192];
    (void)state;
    assert_non_null(getcwd(repository, sizeof repository));
    snprintf(root, sizeof root, "/dev/shm/hone-bad-XXXXXX");
    if (!mkdtemp(root)) snprintf(root, sizeof root, "/tmp/hone-bad-XXXXXX");
    assert_true(path_exists(root) || mkdtemp(root));
    snprintf(program, sizeof program, "%s/%s/..", *build == '/' ? "" : repository, build);
    snprintf(path, sizeof path, "%s:%s", program, getenv("PATH"));
    setenv("PATH", path, 1), setenv("LC_ALL", "C", 1);
    setenv("ASAN_OPTIONS", "allocator_may_return_null=1", 1);
    unsetenv("HONE_FAULT");
    snprintf(command, sizeof command, "%s/fixture", root);
    assert_int_equal(mkdir(command, 0777), 0);
    snprintf(command, sizeof command, "%s/row", root);
    assert_int_equal(mkdir(command, 0777), 0);
    snprintf(command, sizeof command, "sh -e '%s/tests/bad/fixture.sh' '%s'", repository,
             repository);
    const int code = shell("fixture", command);
    struct text t = said();
    if (code) print_error("the fixture cannot be made: %s\n", t.data);
    text_free(&t);
    return code;
}

static int fixture_remove(void **state) {
    struct err e = {0};
    (void)state;
    return dir_remove(root, &e);
}

#define ROWS(name)                                                                                 \
    { #name, rows_run, NULL, NULL, "tests/bad/" #name ".rows" }
#define FAULTS(kind)                                                                               \
    { "faults: " #kind, faults_run, NULL, NULL, #kind }
int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        ROWS(program), ROWS(weights),  ROWS(config),
        ROWS(data),    ROWS(recipe),   ROWS(adapter),
        ROWS(runs),    FAULTS(write),  FAULTS(open),
        FAULTS(fsync), FAULTS(rename), FAULTS(mkdir),
        FAULTS(read),  FAULTS(alloc),  {"mutations", mutations_run, NULL, NULL, NULL}};
    (void)argc;
    snprintf(build, sizeof build, "%.*s", (int)(strrchr(argv[0], '/') - argv[0]), argv[0]);
    only = getenv("HONE_BAD");
    return cmocka_run_group_tests(tests, fixture_make, fixture_remove);
}
