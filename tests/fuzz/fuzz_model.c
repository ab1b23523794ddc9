/* fuzz_model.c: libFuzzer target for model folders. The input is a config.json, a zero byte and a
 * model.safetensors. A model that opens must also compute: three tokens through the decoder, in the
 * plain instruction set, whatever its sizes are. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "recipes/models/models.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static char folder[64], config_path[96], weights_path[96];
static void fuzz_files_remove(void) { unlink(config_path), unlink(weights_path), rmdir(folder); }

static void file_put(const char *path, const u8 *data, size_t size) { /* no fsync: speed */
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f)) abort();
}

static void fuzz_begin(void) {
    struct err e = {0};
    snprintf(folder, sizeof folder, "/dev/shm/hone-fuzz-XXXXXX");
    if (!mkdtemp(folder) || isa_force("plain", &e) || pool_start(1, &e)) abort();
    snprintf(config_path, sizeof config_path, "%s/config.json", folder);
    snprintf(weights_path, sizeof weights_path, "%s/model.safetensors", folder);
    isa_float_mode();
    atexit(fuzz_files_remove);
}

static void model_compute(struct model *m) {
    static i32 ids[3] = {0, 0, 0}, position[3] = {0, 1, 2}, begin[3] = {0, 0, 0};
    struct err e = {0};
    struct graph *g = model_rope(m, 3, &e) ? NULL : graph_new(&e);
    if (!g) return;
    struct build b = {.g = g, .m = m};
    struct tensor *logits = model_logits(&b, model_hidden(&b, 3));
    graph_keep(logits);
    const struct places p = {.ids = ids, .position = position, .begin = begin, .last = position};
    if (!graph_plan(g, false, &e) && !model_bind(&b, &p, &e)) graph_run(g, &e);
    graph_free(g);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    struct err e = {0};
    struct model m = {0};
    const u8 *zero = size ? memchr(data, 0, size) : NULL;
    if (!zero) return 0;
    if (!*folder) fuzz_begin();
    file_put(config_path, data, (size_t)(zero - data));
    file_put(weights_path, zero + 1, size - (size_t)(zero - data) - 1);
    const int status = model_open(&m, folder, F32, false, &e);
    if ((status != 0) != (e.code != 0)) abort();
    if (!status && config_parameters(&m.config) < 1000000) model_compute(&m);
    model_free(&m);
    return 0;
}
