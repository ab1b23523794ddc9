/* fuzz_recipe.c: any bytes as a recipe, a script, a lock or a log: an answer, never a crash.
 *
 * clang -fsanitize=fuzzer,address,undefined; without libFuzzer (-DFUZZ_ALONE) it runs the files
 * named on its command line. The first byte chooses the reader. */
#include "train/log/log.h"
#include "train/loop/loop.h"

#include <stdlib.h>
#include <unistd.h>

static char dir[] = "/tmp/hone-fuzz-XXXXXX";
static void dir_gone(void) { dir_remove(dir, &(struct err){0}); }

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    static char yaml[64], log[64], lock[64], script[64];
    struct err e = {0};
    struct recipe r;
    struct log_rows rows;
    if (!yaml[0]) {
        if (!mkdtemp(dir) || atexit(dir_gone)) return 0;
        snprintf(yaml, sizeof yaml, "%s/r.yaml", dir),
            snprintf(log, sizeof log, "%s/log.jsonl", dir);
        snprintf(lock, sizeof lock, "%s/recipe.lock", dir);
        snprintf(script, sizeof script, "%s/run.sh", dir);
    }
    if (!size) return 0;
    const char *path = data[0] % 4 == 1   ? lock
                       : data[0] % 4 == 2 ? log
                       : data[0] % 4 == 3 ? script
                                          : yaml;
    FILE *f = fopen(path, "wb");
    if (!f) return 0;
    fwrite(data + 1, 1, size - 1, f);
    fclose(f);
    char sha256[65],
        *words[] = {"dataset.0.path=x", "model.a.b=1", "sequence_len=8", "dataset.path=y",
                    "--lora-r",         "4",           "--deepspeed",    "--optim={a: 1}"};
    if ((path == yaml || path == script) &&
        !recipe_read(&r, path, words, data[0] % 8 < 4 ? 0 : COUNT(words), &e)) {
        struct err ignored = {0};
        struct text out = {0};
        if (recipe_missing(&r, &ignored) || recipe_import(&r, path, &out, &ignored) || !out.size)
            abort();
        text_free(&out), recipe_free(&r);
    }
    if (path == lock && !lock_read(&r, dir, sha256, &e)) recipe_free(&r);
    if (path == log && !log_read(&rows, log, &e)) {
        log_rows_free(&rows);
        struct err ignored = {0};
        log_verify(log, &ignored);
        struct log_start s = {.run_dir = dir, .run_id = "f", .lock_sha256 = "", .resume_step = 2};
        log_close(log_open(&s, &ignored), &ignored);
    }
    return 0;
}

#ifdef FUZZ_ALONE
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        struct text t = {0};
        struct err e = {0};
        if (file_read(&t, argv[i], &e)) return err_print(&e, stderr), 2;
        LLVMFuzzerTestOneInput((const u8 *)t.data, (size_t)t.size);
        text_free(&t);
    }
    return 0;
}
#endif
