/* tiny.c: see tiny.h. The program is started as a process, because kills, exit codes and what is on
 * the disk afterwards are part of what is proven. */
#include "tests/tiny.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RING = 32 };
static char folder[64];
struct text tiny_output;
extern char **environ;

int tiny_open(void **state) {
    (void)state;
    struct err e = {0};
    isa_float_mode();
    snprintf(folder, sizeof folder, "/tmp/hone-tiny-%s",
             "XX"
             "XX"
             "XX");
    return mkdtemp(folder) ? pool_start(2, &e) : -1;
}

int tiny_close(void **state) {
    (void)state;
    struct err e = {0};
    text_free(&tiny_output);
    pool_stop();
    return dir_remove(folder, &e);
}

const char *tiny_path(const char *fmt, ...) {
    static char path[RING][512];
    static int next;
    char name[256], *to = path[next++ % RING];
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    snprintf(to, sizeof path[0], "%s/%s", folder, name);
    return to;
}

void tiny_fail_unless(int rc, const struct err *e) {
    if (!rc) return;
    err_print(e, stderr);
    fail_msg("%s", e->primary);
}

/* ---- the program */

static int spawn(const char *command, const char *to) {
    posix_spawn_file_actions_t files;
    char *argv[] = {"sh", "-c", (char *)command, NULL};
    pid_t pid;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 1, to, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    posix_spawn_file_actions_adddup2(&files, 1, 2);
    const int rc = posix_spawn(&pid, "/bin/sh", &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    assert_int_equal(rc, 0);
    return pid;
}

int tiny_wait(int pid) {
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int run(const char *command) {
    struct err e = {0};
    const char *out = tiny_path("output");
    const int code = tiny_wait(spawn(command, out));
    tiny_output.size = 0;
    text_free(&tiny_output);
    tiny_fail_unless(file_read(&tiny_output, out, &e), &e);
    return code;
}

#define COMMAND(before)                                                                            \
    char command[4096] = before;                                                                   \
    va_list args;                                                                                  \
    va_start(args, fmt);                                                                           \
    vsnprintf(command + sizeof before - 1, sizeof command - sizeof before, fmt, args);             \
    va_end(args)

int hone(const char *fmt, ...) {
    COMMAND("exec ./hone ");
    return run(command);
}

void hone_ok(const char *fmt, ...) {
    COMMAND("exec ./hone ");
    const int code = run(command);
    if (code) fail_msg("exit code %d of: %s\n%s", code, command + 5, tiny_output.data);
}

void tiny_sh(const char *fmt, ...) {
    COMMAND("");
    const int code = run(command);
    if (code) fail_msg("exit code %d of: %s\n%s", code, command, tiny_output.data);
}

int tiny_start(const char *fmt, ...) {
    COMMAND("exec ./hone ");
    return spawn(command, "/dev/null");
}

/* ---- runs */

const char *tiny_manifest(const char *run, i64 step) {
    static char hex[RING][65];
    static int next;
    struct err e = {0};
    char *to = hex[next++ % RING];
    tiny_fail_unless(
        manifest_sha256(tiny_path("%s/checkpoints/step-%06lld", run, (long long)step), to, &e), &e);
    return to;
}

static bool same_text(const char *a, const char *b) { return a && b ? !strcmp(a, b) : a == b; }

void tiny_same_logs(const char *run, const char *other) {
    struct log_rows a = {0}, b = {0};
    struct err e = {0};
    tiny_fail_unless(log_read(&a, tiny_path("%s/log.jsonl", run), &e) ||
                         log_read(&b, tiny_path("%s/log.jsonl", other), &e),
                     &e);
    assert_int_equal(a.count, b.count);
    for (i64 i = 0; i < a.count; i++) {
        const struct log_row *x = &a.row[i], *y = &b.row[i];
        if (x->step == y->step && x->tokens == y->tokens && !memcmp(&x->loss, &y->loss, 8) &&
            !memcmp(&x->lr, &y->lr, 8) && !memcmp(&x->grad_norm, &y->grad_norm, 8) &&
            !memcmp(&x->eval_loss, &y->eval_loss, 8) && same_text(x->batch, y->batch) &&
            (!x->state || !y->state || !strcmp(x->state, y->state)))
            continue;
        fail_msg("step %lld of %s: loss %a, gradient norm %a; of %s: step %lld, %a, %a",
                 (long long)x->step, run, x->loss, x->grad_norm, other, (long long)y->step, y->loss,
                 y->grad_norm);
    }
    log_rows_free(&a), log_rows_free(&b);
}

/* ---- golden models in the process */

void tiny_batch_of(struct tiny_batch *b, const struct stored *ids, const struct stored *labels) {
    struct err e = {0};
    *b = (struct tiny_batch){.rows = ids->dim[0], .length = ids->dim[1]};
    b->tokens = b->rows * b->length;
    i32 **list[] = {&b->ids, &b->targets, &b->position, &b->begin, &b->last};
    for (int i = 0; i < COUNT(list); i++)
        assert_non_null(*list[i] = arena_new(&b->arena, b->tokens * 4, &e));
    for (i64 i = 0; i < b->tokens; i++) {
        const i64 t = i % b->length, *label = (const i64 *)(labels ? labels : ids)->data;
        b->ids[i] = (i32)((const i64 *)ids->data)[i];
        b->targets[i] = t + 1 < b->length && label[i + 1] >= 0 ? (i32)label[i + 1] : -100;
        b->trained += b->targets[i] >= 0;
        b->position[i] = (i32)t, b->begin[i] = (i32)(i - t), b->last[i] = (i32)i;
    }
    b->scale = (float)(1 / (double)b->trained);
}

void tiny_batch_free(struct tiny_batch *b) { arena_free(&b->arena); }

void tiny_graph_new(struct tiny_graph *t, struct model *m, const struct tiny_batch *b,
                    struct tiny_options o) {
    struct err e = {0};
    *t = (struct tiny_graph){.g = graph_new(&e)};
    assert_non_null(t->g);
    tiny_fail_unless(model_rope(m, b->length, &e), &e);
    t->g->recompute = o.recompute;
    t->build = (struct build){.g = t->g, .m = m};
    struct tensor *hidden = model_hidden(&t->build, b->tokens);
    struct tensor *targets = graph_input(t->g, "labels", I32, DIMS(b->tokens));
    struct tensor *scale = graph_input(t->g, "scale", F32, DIMS(1));
    t->loss = model_loss(&t->build, hidden, targets, scale);
    graph_keep(t->loss);
    if (o.backward) graph_backward(t->g, t->loss);
    tiny_fail_unless(graph_plan(t->g, o.eager, &e), &e);
    t->build.ids->view.data = b->ids, t->build.position->view.data = b->position;
    t->build.begin->view.data = b->begin, t->build.last->view.data = b->last;
    targets->view.data = b->targets, scale->view.data = (void *)&b->scale;
}

double tiny_loss(struct tiny_graph *t, const struct tiny_batch *b) {
    struct err e = {0};
    tiny_fail_unless(graph_run(t->g, &e), &e);
    const float *loss = (float *)(t->g->memory + t->loss->offset);
    double sum = 0;
    for (i64 i = 0; i < b->tokens; i++)
        if (b->targets[i] >= 0) sum += (double)loss[i];
    return sum / (double)b->trained;
}
