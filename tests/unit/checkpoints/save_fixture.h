/* save_fixture.h: what the tests of manifests and saving share: the folder as a run, and a whole
 * small save. */
#ifndef HONE_SAVE_FIXTURE_H
#define HONE_SAVE_FIXTURE_H

#include "tests/unit/checkpoints/fixture.h"

static const char *const run = folder;

static int state_make(const char *to, i64 step, struct err *e) {
    float m[300] = {(float)step};
    char *path = mem_printf(e, "%s/state.h5", to);
    struct state_writer *w = path ? state_create(path, e) : NULL;
    bool made = w && !state_add(w, "m", F32, 2, (i64[]){3, 100}, m, e) &&
                !state_put_i64(w, "step", step, e);
    int status = state_finish(w, made, e);
    mem_free(path);
    return status;
}

/* Saves a small model: two tensors, config.json and generation_config.json, state.h5. */
static int save(i64 step, const char *parent, struct err *e) {
    static float a[6], b[1000];
    a[0] = b[999] = (float)step;
    struct stored t[] = {
        {.name = "b.weight",
         .dtype = F32,
         .rank = 1,
         .dim = {1000},
         .data = (u8 *)b,
         .bytes = 4000},
        {.name = "a.weight", .dtype = F32, .rank = 2, .dim = {2, 3}, .data = (u8 *)a, .bytes = 24}};
    struct manifest m = {.numerics_level = "R4", .numerics_version = 1, .hone_version = "0.1.0"};
    struct checkpoint c;
    snprintf(m.parent, sizeof m.parent, "%s", parent);
    memset(m.state_sha256, 'a', 64);
    if (checkpoint_begin(&c, run, step, 10000, e)) return -1;
    if (folder_copy("tests/golden/models/llama", c.temporary, e) ||
        safetensors_write(c.temporary, "model", t, 2, SHARD_BYTES, e) ||
        state_make(c.temporary, step, e))
        return checkpoint_abort(&c, e);
    return checkpoint_commit(&c, &m, t, 2, e);
}

static char *step_path(i64 step) {
    static char path[256];
    snprintf(path, sizeof path, "%s/checkpoints/step-%06lld", run, (long long)step);
    return path;
}

static int set_up(void **state) {
    struct err e = {0};
    return folder_make(state) || save(1, "", &e);
}

#endif
