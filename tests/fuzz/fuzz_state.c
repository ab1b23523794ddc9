/* fuzz_state.c: libFuzzer target for training states and for HDF5 in general: base/h5_read.c and
 * checkpoints/state_read.c.
 *
 * The first byte picks how the others are spent: 0: they are the file; 1 and 2: they are changes,
 * four bytes each (three of position, one of value), to a state of today, whose checksums are made
 * right again, or to one that hone wrote through the HDF5 library. What is found in a file must lie
 * in it; an array that is read whole has the hash that is written beside it. */
#include "checkpoints/checkpoints_int.h"
#include "tests/h5_tools.h"
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static char path[64];
static struct text today, old;

static void fuzz_files_remove(void) { unlink(path); }
static void bad(const char *why) {
    fprintf(stderr, "%s\n", why);
    abort();
}

static void fuzz_begin(void) {
    struct err e = {0};
    static float data[300000];
    snprintf(path, sizeof path, "/dev/shm/hone-fuzz-%d-state.h5", getpid());
    atexit(fuzz_files_remove);
    struct state_writer *w = state_create(path, &e);
    if (!w || state_add(w, "a", F32, 1, (i64[]){300000}, data, &e) ||
        state_add(w, "group/b", I64, 2, (i64[]){2, 3}, data, &e) ||
        state_add(w, "group/none", F32, 2, (i64[]){0, 3}, data, &e) ||
        state_put_text(w, "recipe", "seed: 1", &e) || state_put_i64(w, "step", 7, &e) ||
        state_finish(w, true, &e) || file_read(&today, path, &e))
        abort();
    old = h5_golden("tests/golden/hdf5/state.h5.zst");
    if (!old.size) abort();
}

static void changed(const struct text *good, const u8 *data, size_t size, bool reseal) {
    struct err e = {0};
    u8 *copy = mem_new(good->size, &e);
    memcpy(copy, good->data, (size_t)good->size);
    for (; size >= 4; data += 4, size -= 4)
        copy[(data[0] | data[1] << 8 | data[2] << 16) % good->size] = data[3];
    if (reseal) h5_reseal(copy, good->size);
    file_write(path, copy, good->size, &e);
    mem_free(copy);
}

static void state_use(void) {
    struct err e = {0};
    struct state_reader *r = state_open(path, &e);
    struct h5_file *f = r ? h5_open(path, &e) : NULL;
    for (i64 i = 0; f && i < f->nodes; i++) {
        enum dtype dtype;
        int rank;
        i64 dim[STORED_RANK], n;
        e = (struct err){0};
        if (state_shape(r, f->node[i].name, &dtype, &rank, dim, &e)) continue;
        if (shape_count(rank, dim, &n) || n > 1 << 12) continue; /* large ones take too long */
        u8 *data = mem_new(n * dtype_size(dtype) + 1, &e);
        if (state_get(r, f->node[i].name, dtype, rank, dim, data, &e) && !e.code) abort();
        mem_free(data);
    }
    i64 step;
    mem_free(r ? state_get_text(r, "recipe", &e) : NULL);
    if (r) state_get_i64(r, "step", &step, &e);
    h5_close(f), state_close(r);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    struct err e = {0};
    if (!today.size) fuzz_begin();
    if (!size) return 0;
    if (data[0] % 3 == 0)
        file_write(path, data + 1, (i64)size - 1, &e);
    else
        changed(data[0] % 3 == 1 ? &today : &old, data + 1, size - 1, data[0] % 3 == 1);
    h5_use(path, bad);
    state_use();
    return 0;
}
