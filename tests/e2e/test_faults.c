/* test_faults.c: every system call that changes a file, made to fail once and from then on for
 * good, in every command that leaves files (trace_faults.h does it, from outside of the program).
 *
 * Whatever the call: the exit code is 1 or 2, never a signal; the message says the cause; what has
 * its final name is whole, equal to that of an undisturbed run; nothing temporary stays. A run goes
 * on with resume_from_checkpoint=auto to the same state.
 *
 * `make test` tries a few places of each command; HONE_SLOW=1 (part `faults` of `make test-all`)
 * all of them. HONE_FAULTS=NAME runs one command, HONE_FAULTS=NAME:KIND:N[+] one fault of it, and
 * shows what is said. */
#include "tests/e2e/trace_faults.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <cmocka.h>

static char root[64], row[80], err[80];

/* A command, what it leaves (names, apart by blanks), and for runs the folder that must reach the
 * same state when `again` is run. */
static const struct job {
    const char *name, *run, *leaves, *trains, *again;
} jobs[] = {
    {"train", "exec hone train tiny.yaml output_dir=new --quiet --threads 1", "", "new",
     "hone train tiny.yaml output_dir=new --quiet --threads 1 resume_from_checkpoint=auto"},
    {"resume",
     "exec hone train tiny.yaml output_dir=run max_steps=4 resume_from_checkpoint=auto --quiet "
     "--threads 1",
     "", "run",
     "hone train tiny.yaml output_dir=run max_steps=4 resume_from_checkpoint=auto --quiet "
     "--threads 1"},
    {"lora", "exec hone train lora.yaml output_dir=new --quiet --threads 1", "", "new",
     "hone train lora.yaml output_dir=new --quiet --threads 1 resume_from_checkpoint=auto"},
    {"tokenize",
     "exec hone tokenize text.txt --tokenizer tok.json --document-separator . --validation 0.5 "
     "--output new.h5 --validation-output new-val.h5 --quiet",
     "new.h5 new-val.h5", NULL, NULL},
    {"tokenizer", "exec hone tokenizer train text.txt --output new.json --vocab-size 270 --quiet",
     "new.json", NULL, NULL},
    {"merge", "exec hone export model --adapter adapter --output new --quiet", "new", NULL, NULL},
    {"gguf", "exec hone export model --format gguf --type q8_0 --output new.gguf --quiet",
     "new.gguf", NULL, NULL},
    {"report", "exec hone report run --output new.html", "new.html", NULL, NULL},
    {"forward", "exec hone forward model --ids ids.safetensors --out new.safetensors",
     "new.safetensors", NULL, NULL},
    {"verify", "exec hone verify run --replay --quiet", "run", NULL, NULL},
    {"generate", "exec hone generate model --prompt 'the cat' --max-new-tokens 4 --json > new.out",
     NULL, NULL, NULL},
    {"encode", "echo '{\"text\": \"a\"}' | hone encode tok.json > new.out", NULL, NULL, NULL},
};
enum { JOBS = sizeof jobs / sizeof *jobs };

static int shell(const char *folder, const char *script) {
    char command[2048];
    snprintf(command, sizeof command, "cd %s && { %s; } > %s/out 2>&1 < /dev/null", folder, script,
             root);
    const int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static struct text text_of(const char *path) {
    struct text t = {0};
    struct err e = {0};
    if (file_read(&t, path, &e)) fail_msg("%s", e.primary);
    return t;
}

/* ---- what lies in a folder: "PATH SHA-256" lines ----------------------------------------------
 */

static void tree_add(struct text *out, const char *folder, const char *inside) {
    char **name, path[1024], under[512], hex[65];
    i64 count;
    struct err e = {0};
    struct stat st;
    if (dir_list(folder, &name, &count, &e)) fail_msg("%s", e.primary);
    for (i64 i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, name[i]);
        snprintf(under, sizeof under, "%s%s%s", inside, *inside ? "/" : "", name[i]);
        const bool is_folder = !lstat(path, &st) && S_ISDIR(st.st_mode);
        strcpy(hex, "folder");
        if (!is_folder && sha256_file(path, hex, &e)) fail_msg("%s", e.primary);
        text_printf(out, &e, "%s %s\n", under, hex);
        if (is_folder) tree_add(out, path, under);
    }
    names_free(name, count);
}

static struct text tree(const char *folder) {
    struct text t = {0};
    text_add(&t, "", 0, NULL);
    tree_add(&t, folder, "");
    return t;
}

/* Whether a line is in a tree: starts at a line's start. */
static bool line_in(const char *lines, const char *line) {
    for (const char *at = lines; (at = strstr(at, line)); at++)
        if (at == lines || at[-1] == '\n') return true;
    return false;
}

/* Whether a path is one of the names, or lies under one. */
static bool path_in(const char *names, const char *path) {
    for (const char *at = names; at && *at; at += strcspn(at, " "), at += *at == ' ') {
        const size_t n = strcspn(at, " ");
        if (!strncmp(at, path, n) && (path[n] == '/' || !path[n])) return true;
    }
    return false;
}

/* Files that are not as before and not as an undisturbed run leaves them. `any`: a name, or NULL,
 * under which everything may be. */
static int tree_check(const struct job *j, const char *before, const char *whole, const char *now) {
    int bad = 0;
    for (const char *at = now; *at; at += strcspn(at, "\n") + 1) {
        char line[700], path[700];
        snprintf(line, sizeof line, "%.*s\n", (int)strcspn(at, "\n"), at);
        snprintf(path, sizeof path, "%.*s", (int)strcspn(at, " "), at);
        if (line_in(before, line)) continue;
        if (j->trains && path_in(j->trains, path)) continue;
        if (!j->leaves && !strcmp(path, "new.out")) continue; /* standard output */
        if (j->leaves && path_in(j->leaves, path) &&
            (line_in(whole, line) || !strcmp(path, "run/verify.jsonl"))) /* it has times */
            continue;
        print_error("  left behind: %s", line), bad++;
    }
    for (const char *at = before; *at; at += strcspn(at, "\n") + 1) {
        char line[700], path[700];
        snprintf(line, sizeof line, "%.*s\n", (int)strcspn(at, "\n"), at);
        snprintf(path, sizeof path, "%.*s ", (int)strcspn(at, " "), at);
        if (!line_in(now, path)) print_error("  gone: %s", line), bad++;
    }
    return bad;
}

/* A folder is left whole or not at all: if it is there, so is all of it. */
static int leaves_check(const struct job *j, const char *whole, const char *now) {
    int bad = 0;
    if (!j->leaves || !strcmp(j->leaves, "run")) return 0;
    for (const char *at = whole; *at; at += strcspn(at, "\n") + 1) {
        char line[700], top[700], name[700];
        snprintf(line, sizeof line, "%.*s\n", (int)strcspn(at, "\n"), at);
        snprintf(name, sizeof name, "%.*s", (int)strcspn(at, " /"), at);
        snprintf(top, sizeof top, "%.*s ", (int)strcspn(at, " /"), at);
        if (!path_in(j->leaves, name)) continue;
        if (line_in(now, top) && !line_in(now, line)) print_error("  lacks: %s", line), bad++;
    }
    return bad;
}

/* ---- one fault ------------------------------------------------------------------------------- */

/* The last checkpoint's digest of weights and optimizer state. */
static void state_of(const char *run, char hex[65]) {
    char script[512];
    snprintf(script, sizeof script,
             "grep -h -o '\"state_sha256\": \"[0-9a-f]*\"' \"$(ls -d %s/checkpoints/step-* | tail "
             "-n 1)/manifest.json\" | cut -d'\"' -f4",
             run);
    char path[128];
    if (shell(row, script)) fail_msg("%s has no checkpoint", run);
    snprintf(path, sizeof path, "%s/out", root);
    struct text t = text_of(path);
    snprintf(hex, 65, "%.64s", t.data);
    text_free(&t);
}

static void fresh(void) {
    if (shell(root, "rm -rf row && cp -r fixture row")) fail_msg("cannot copy the fixture");
}

struct whole { /* of an undisturbed run */
    struct text before, after;
    char state[65];
    int calls[TRACE_KINDS];
};

static bool verbose;

static int message_check(const struct trace_fault *f, const struct trace_result *r) {
    struct text t = text_of(err);
    const char *cause = strerror(trace_kind[f->kind].error);
    int bad = 0;
    if (r->code > 2 || r->code < 0) print_error("  exit code %d\n", r->code), bad++;
    if (r->code && (!strstr(t.data, "error: ") || !strstr(t.data, cause)))
        print_error("  the message does not say '%s'\n", cause), bad++;
    if (!r->code) print_error("  exit code 0\n"), bad++;
    if (strstr(t.data, "Sanitizer") || strstr(t.data, "runtime error:"))
        print_error("  a sanitizer spoke\n"), bad++;
    if (verbose || bad) print_error("%s", t.data);
    text_free(&t);
    return bad;
}

static int again_check(const struct job *j, const struct whole *w) {
    char hex[65], script[512];
    snprintf(script, sizeof script, "%s || { rm -rf %s; exit 1; }", j->again, j->trains);
    int code = shell(row, j->again);
    if (code) { /* nothing to go on from: begins anew */
        snprintf(script, sizeof script, "[ ! -e %s/checkpoints/step-* ] && rm -rf %s && ${0+%.*s}",
                 j->trains, j->trains, (int)(strstr(j->again, " resume") - j->again), j->again);
        code = shell(row, script);
    }
    if (code) {
        char path[128];
        snprintf(path, sizeof path, "%s/out", root);
        struct text t = text_of(path);
        print_error("  then it does not go on (%d): %s", code, t.data);
        text_free(&t);
        return 1;
    }
    state_of(j->trains, hex);
    if (strcmp(hex, w->state)) print_error("  goes on to another state\n");
    return strcmp(hex, w->state) != 0;
}

/* The number of checks that failed; -1: the system does not allow tracing. */
static int fault_try(const struct job *j, const struct whole *w, const struct trace_fault *f,
                     struct trace_result *r) {
    fresh();
    *r = trace_run(row, j->run, err, f);
    if (r->denied) return -1;
    if (!r->hits)
        return r->code ? (print_error("%s: exit code %d without a fault\n", j->name, r->code), 1)
                       : 0;
    int bad = message_check(f, r);
    struct text now = tree(row);
    bad += tree_check(j, w->before.data, w->after.data, now.data);
    bad += leaves_check(j, w->after.data, now.data);
    text_free(&now);
    if (j->again && !bad) bad += again_check(j, w);
    if (bad || verbose)
        print_error("%s %s:%s:%d%s at %s (exit %d)\n", bad ? "WRONG" : "right", j->name,
                    trace_kind[f->kind].name, f->n, f->forever ? "+" : "", r->path, r->code);
    return bad;
}

/* ---- the campaign ---------------------------------------------------------------------------- */

static void whole_run(const struct job *j, struct whole *w) {
    struct err e = {0};
    fresh();
    w->before = tree(row);
    const struct trace_fault none = {TRACE_WRITE, 0, false, 0};
    const struct trace_result r = trace_run(row, j->run, err, &none);
    if (r.denied) return;
    if (r.code) {
        struct text t = text_of(err);
        fail_msg("%s: exit %d: %s", j->name, r.code, t.data);
    }
    w->after = tree(row);
    if (j->trains) state_of(j->trains, w->state);
    (void)e;
}

/* All places under HONE_SLOW; else few, other ones in each kind and command. */
static int next_place(int n, int calls) {
    if (getenv("HONE_SLOW")) return n + 1;
    return n < calls ? calls : calls + 1;
}

static void faults_of(void **state) {
    const struct job *j = *state;
    const char *only = getenv("HONE_FAULTS");
    struct whole w = {0};
    int bad = 0, tried = 0;
    verbose = only && strchr(only, ':');
    if (only && (strlen(j->name) != strcspn(only, ":") || strncmp(only, j->name, strlen(j->name))))
        return;
    whole_run(j, &w);
    if (!w.after.data) skip();
    for (int kind = 0; kind < TRACE_KINDS; kind++)
        for (int forever = 0; forever < 2; forever++) {
            if (!j->leaves && (kind == TRACE_OPEN || kind == TRACE_CLOSE))
                continue; /* the shell's */
            int calls = 1 << 30;
            for (int n = 1; n <= calls; n = next_place(n, calls)) {
                struct trace_fault f = {(enum trace_kind)kind, n, forever, 0};
                struct trace_result r;
                char name[64];
                snprintf(name, sizeof name, "%s:%s:%d%s", j->name, trace_kind[kind].name, n,
                         forever ? "+" : "");
                if (only && strchr(only, ':') && strcmp(only, name)) continue;
                const int wrong = fault_try(j, &w, &f, &r);
                if (wrong < 0) skip();
                if (!r.hits) break;
                bad += wrong != 0, tried++;
                if (calls == 1 << 30 && !getenv("HONE_SLOW")) calls = r.calls;
                if (!getenv("HONE_SLOW") && forever) break;
            }
        }
    text_free(&w.before), text_free(&w.after);
    print_message("%s: %d faults\n", j->name, tried);
    if (bad) fail_msg("%d of %d faults of %s", bad, tried, j->name);
}

/* A run on a medium that is read-only can be verified; what was found is shown, not noted. */
static void verify_read_only(void **state) {
    (void)state;
    const struct trace_fault f = {TRACE_OPEN, 1, true, EROFS};
    fresh();
    struct text before = tree(row);
    const struct trace_result r = trace_run(row, "exec hone verify run", err, &f);
    if (r.denied) skip();
    struct text t = text_of(err), after = tree(row);
    assert_int_equal(r.code, 0);
    assert_true(r.hits > 0);
    assert_non_null(strstr(t.data, "run/verify.jsonl cannot be written (Read-only file system)"));
    assert_string_equal(before.data, after.data);
    text_free(&t), text_free(&before), text_free(&after);
}

/* ---- the fixture ----------------------------------------------------------------------------- */

static int fixture_make(void **state) {
    char repository[512], command[1200], path[8192];
    (void)state;
    if (!getcwd(repository, sizeof repository)) return -1;
    snprintf(root, sizeof root, "/dev/shm/hone-faults-XXXXXX");
    if (!mkdtemp(root)) snprintf(root, sizeof root, "/tmp/hone-faults-XXXXXX");
    if (!path_exists(root) && !mkdtemp(root)) return -1;
    snprintf(row, sizeof row, "%s/row", root), snprintf(err, sizeof err, "%s/err", root);
    snprintf(path, sizeof path, "%s:%s", repository, getenv("PATH"));
    setenv("PATH", path, 1), setenv("LC_ALL", "C", 1);
    setenv("ASAN_OPTIONS", "allocator_may_return_null=1:detect_leaks=0", 1);
    unsetenv("HONE_FAULT");
    snprintf(command, sizeof command,
             "mkdir fixture && cd fixture && sh -e %s/tests/bad/fixture.sh %s", repository,
             repository);
    if (shell(root, command)) return -1;
    return shell(root,
                 "cd fixture && rm -rf sharded other.h5 other.json model.gguf lora-run && "
                 "printf 'save_steps: 1\\nsample_prompts: [the cat]\\nsample_tokens: 4\\n"
                 "report_to: [jsonl, tensorboard, csv]\\n' > more && "
                 "{ grep -v '^save_steps' tiny.yaml; cat more; } > t && mv t tiny.yaml && rm more");
}

static int fixture_remove(void **state) {
    (void)state;
    return dir_remove(root, &(struct err){0});
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct CMUnitTest tests[JOBS + 1] = {cmocka_unit_test(verify_read_only)};
    for (int i = 0; i < JOBS; i++)
        tests[i + 1] =
            (struct CMUnitTest){jobs[i].name, faults_of, NULL, NULL, (void *)(uintptr_t)&jobs[i]};
    return cmocka_run_group_tests(tests, fixture_make, fixture_remove);
}
