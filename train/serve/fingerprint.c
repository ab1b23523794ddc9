/* fingerprint.c: what an answer came from, as one name: SHA-256 of the program, the model's and the
 * adapter's files, tokenizer, template, and how weights and products are held. With the request and
 * its seed it says which bits an answer must have. A thread of its own reads the files, so that a
 * large model is served at once; the first answers wait for it. */
#include "train/serve/serve_int.h"

#include <string.h>

static void put(struct sha256 *s, const char *text) {
    sha256_add(s, text ? text : "", text ? (i64)strlen(text) + 1 : 1);
}

static bool counts(const char *name) {
    return ends_with(name, ".safetensors") || ends_with(name, ".gguf") ||
           !strcmp(name, "config.json") || !strcmp(name, "adapter_config.json");
}

static int file_put(struct sha256 *s, const char *name, const char *path, struct err *e) {
    char hex[65];
    if (sha256_file(path, hex, e)) return -1;
    put(s, name), put(s, hex);
    return 0;
}

/* A folder's weights and shapes, or a file and the other parts of a split one. */
static int folder_put(struct sha256 *s, const char *path, struct err *e) {
    char **name = NULL;
    i64 count = 0;
    const char *slash = strrchr(path, '/'), *file = slash ? slash + 1 : path,
               *part = strstr(file, "-00001-of-");
    if (!path_is_dir(path) && !part) return file_put(s, "model", path, e);
    char *folder = path_is_dir(path) ? mem_text(path, e)
                   : slash           ? mem_printf(e, "%.*s", (int)(slash - path), path)
                                     : mem_text(".", e);
    int rc = !folder || dir_list(folder, &name, &count, e);
    for (i64 i = 0; !rc && i < count; i++) {
        if (part ? strncmp(name[i], file, (size_t)(part - file)) || !ends_with(name[i], ".gguf")
                 : !counts(name[i]))
            continue;
        char *one = path_join(NULL, folder, name[i], e);
        rc = !one || file_put(s, part ? "part" : name[i], one, e);
        mem_free(one);
    }
    names_free(name, count), mem_free(folder);
    return rc ? -1 : 0;
}

static int files_sum(const char *path, char hex[65], struct err *e) {
    struct sha256 s = {0};
    if (!path) return *hex = 0, 0;
    if (sha256_begin(&s, e)) return -1;
    const int rc = folder_put(&s, path, e);
    sha256_end(&s, hex);
    return rc;
}

static int name_give(struct fingerprint *f, int lane, const char *base, const char *adapter,
                     struct err *e) {
    const struct serve_model *m = f->m;
    struct sha256 s = {0};
    char hex[65];
    if (sha256_begin(&s, e)) return -1;
    for (const char *const *fact = build_info; fact && fact[0]; fact += 2)
        if (word_listed("version commit diff numerics_version", fact[0]))
            put(&s, fact[0]), put(&s, fact[1]);
    put(&s, numerics_now == NUMERICS_PORTABLE ? "portable" : "fast");
    put(&s, m->precision), put(&s, globals.quantize);
    put(&s, m->chat ? chat_sha256(m->chat) : NULL), put(&s, tokenizer_sha256(m->l->tokenizer));
    put(&s, base), put(&s, adapter);
    sha256_end(&s, hex);
    snprintf(f->text[lane], sizeof f->text[lane], "hone-%.32s", hex);
    return 0;
}

static int compute(struct fingerprint *f, struct err *e) {
    char base[65], adapter[65];
    return files_sum(f->m->l->base, base, e) || files_sum(f->m->l->adapter, adapter, e) ||
           name_give(f, 0, base, adapter, e) || name_give(f, 1, base, "", e);
}

static void *run(void *arg) {
    struct fingerprint *f = arg;
    isa_float_mode();
    compute(f, &f->err);
    return NULL;
}

int fingerprint_start(struct fingerprint *f, const struct serve_model *m, struct err *e) {
    *f = (struct fingerprint){.m = m};
    pthread_mutex_init(&f->lock, NULL);
    if (pthread_create(&f->thread, NULL, run, f)) return err_memory(e, "cannot start a thread");
    f->started = true;
    return 0;
}

const char *fingerprint_wait(struct fingerprint *f, i64 lane) {
    pthread_mutex_lock(&f->lock);
    if (f->started && !f->joined) pthread_join(f->thread, NULL), f->joined = true;
    pthread_mutex_unlock(&f->lock);
    return *f->text[lane] ? f->text[lane] : NULL;
}

void fingerprint_stop(struct fingerprint *f) {
    if (f->started) fingerprint_wait(f, 0);
}
