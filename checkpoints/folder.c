/* folder.c: a model as Hugging Face folders hold it.
 *
 * config.json says what the model is, model.safetensors (or shards with an index) holds the
 * weights, and a handful of files carry the tokenizer and how to talk to the model. What hone does
 * not change it copies byte for byte: a tokenizer.json that went through a parser and a printer is
 * no longer the file whose hash a run recorded. */
#include "checkpoints/checkpoints_int.h"
#include <jansson.h>
#include <string.h>

static const char *const companion[] = {
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    /* of the tokenizer, from here on */
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "vocab.json",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tiktoken.model",
    "chat_template.json",
    "chat_template.jinja",
};
enum { OF_TOKENIZER = 4 };

static char *weights_path(struct arena *a, const char *folder, struct err *e) {
    static const char *const name[] = {"model.safetensors", "model.safetensors.index.json"};
    for (i64 i = 0; i < COUNT(name); i++) {
        char *path = path_join(a, folder, name[i], e);
        if (!path || path_exists(path)) return path;
    }
    err_input(e, "%s holds no model.safetensors and no model.safetensors.index.json", folder);
    char *pickle = path_join(a, folder, "pytorch_model.bin", e);
    if (pickle && path_exists(pickle))
        err_hint(e, "pytorch_model.bin is a Python pickle, which hone does not run: save the model "
                    "as safetensors");
    return NULL;
}

bool path_is_gguf(const char *path) {
    const size_t n = strlen(path);
    return n > 5 && !strcmp(path + n - 5, ".gguf") && !path_is_dir(path);
}

static int file_open(struct model_folder *f, const char *path, struct err *e) {
    struct safetensors *s = &f->weights;
    if (gguf_open(&f->gguf, path, e) ||
        !(s->tensor = mem_new_array(f->gguf.count + 1, sizeof *s->tensor, e)))
        return err_frame(e, "opening model %s", path);
    s->count = f->gguf.count;
    memcpy(s->tensor, f->gguf.tensor, (size_t)s->count * sizeof *s->tensor);
    return safetensors_index(s, path, e);
}

/* Rows and columns of a float8 weight to one scale. */
static int scale_blocks(const json_t *config, i64 block[2], const char *path, struct err *e) {
    const json_t *q = json_object_get(config, "quantization_config"),
                 *size = json_object_get(q, "weight_block_size");
    for (int i = 0; i < 2; i++) {
        const json_t *n = json_array_get(size, (size_t)i);
        block[i] = n ? json_integer_value(n) : 128;
        if (block[i] < 1 || block[i] > 1 << 20)
            return err_input(e, "%s: weight_block_size is not two sizes from 1", path);
    }
    return 0;
}

int folder_open(struct model_folder *f, const char *path, struct err *e) {
    *f = (struct model_folder){.path = mem_text(path, e)};
    if (!f->path) return -1;
    if (path_is_gguf(path)) return file_open(f, path, e);
    if (!path_is_dir(path)) return err_input(e, "%s is not a folder", path);
    struct arena a = {0};
    char *config = path_join(&a, path, "config.json", e), *weights = NULL;
    int status = config && (f->config = json_open(config, e)) ? 0 : -1;
    if (!status && !json_is_object(f->config))
        status = err_input(e, "%s is not a JSON object", config);
    if (!status) weights = weights_path(&a, path, e);
    i64 block[2];
    status = weights && !scale_blocks(f->config, block, config, e) &&
                     !safetensors_open(&f->weights, weights, e)
                 ? safetensors_link(&f->weights, block, weights, e)
                 : -1;
    arena_free(&a);
    if (status) hub_hint(path, e);
    return status ? err_frame(e, "opening model %s", path) : 0;
}

void folder_close(struct model_folder *f) {
    json_decref(f->config);
    safetensors_close(&f->weights);
    gguf_close(&f->gguf);
    mem_free(f->path);
    *f = (struct model_folder){0};
}

const char *folder_companion(i64 i) { return i < COUNT(companion) ? companion[i] : NULL; }

static int file_copy(const char *source, const char *target, struct err *e) {
    struct text bytes = {0};
    const int rc = file_read(&bytes, source, e) ||
                   (path_exists(target) ? file_replace(target, bytes.data, bytes.size, e)
                                        : file_write(target, bytes.data, bytes.size, e));
    return text_free(&bytes), rc ? -1 : 0;
}

/* Those from `first` on. `alone`: the target keeps none of them that the source lacks. */
static int copy_from(i64 first, const char *from, const char *to, bool alone, struct err *e) {
    struct arena a = {0};
    int status = 0;
    for (i64 i = first; i < COUNT(companion) && !status; i++) {
        char *source = path_join(&a, from, companion[i], e),
             *target = path_join(&a, to, companion[i], e);
        status = !source || !target             ? -1
                 : path_exists(source)          ? file_copy(source, target, e)
                 : alone && path_exists(target) ? dir_remove(target, e)
                                                : 0;
    }
    arena_free(&a);
    return status ? err_frame(e, "copying the files of %s", from) : 0;
}

int folder_copy(const char *from, const char *to, struct err *e) {
    return copy_from(0, from, to, false, e);
}

int folder_copy_tokenizer(const char *from, const char *to, struct err *e) {
    if (path_is_dir(from)) return copy_from(OF_TOKENIZER, from, to, true, e);
    const char *slash = strrchr(from, '/'), *name = slash ? slash + 1 : from;
    struct text file = {0};
    if (copy_from(OF_TOKENIZER, "/dev/null", to, true, e) || file_read(&file, from, e)) return -1;
    const bool json = file.size && file.data[0] != '\n' && ends_with(name, ".json");
    char *target = path_join(NULL, to,
                             json                           ? "tokenizer.json"
                             : ends_with(name, ".model")    ? "tokenizer.model"
                             : ends_with(name, ".tiktoken") ? name
                                                            : "tiktoken.model",
                             e);
    const int rc = target ? file_replace(target, file.data, file.size, e) : -1;
    return text_free(&file), mem_free(target), rc;
}

/* Weights in any form, and what hone itself leaves beside them. */
static bool known_apart(const char *name) {
    static const char *const end[] = {".safetensors",
                                      ".safetensors.index.json",
                                      ".bin",
                                      ".pt",
                                      ".bin.index.json",
                                      ".pth",
                                      ".gguf",
                                      ".msgpack",
                                      ".onnx"};
    static const char *const own[] = {"manifest.json", "state.h5"};
    bool known = *name == '.';
    for (int i = 0; i < COUNT(end); i++) known |= ends_with(name, end[i]);
    for (int i = 0; i < COUNT(own); i++) known |= !strcmp(name, own[i]);
    for (int i = 0; i < COUNT(companion); i++) known |= !strcmp(name, companion[i]);
    return known;
}

int folder_uncopied(const char *folder, const char *to, struct text *names, struct err *e) {
    char **list = NULL;
    i64 count = 0;
    int rc = dir_list(folder, &list, &count, e);
    for (i64 i = 0; !rc && i < count; i++) {
        const int has = known_apart(list[i]) ? 1 : to ? path_has(to, list[i], e) : 0;
        rc = has < 0 ||
             (!has && text_printf(names, e, "%s%.100s", names->size ? ", " : "", list[i]));
    }
    names_free(list, count);
    return rc ? -1 : 0;
}

int folder_reshaped(const char *folder, bool untied, i64 vocab_size, struct err *e) {
    char *path = path_join(NULL, folder, "config.json", e);
    json_t *all = path ? json_open(path, e) : NULL, *text = json_object_get(all, "text_config");
    json_t *const part[] = {all, text};
    int rc = all ? 0 : -1;
    for (int i = 0; !rc && i < 2; i++) { /* of a multimodal model both */
        if (!part[i]) continue;
        if (untied) rc |= json_object_set_new(part[i], "tie_word_embeddings", json_false());
        if (vocab_size && (json_object_get(part[i], "vocab_size") || (i == 0) == !text))
            rc |= json_object_set_new(part[i], "vocab_size", json_integer(vocab_size));
    }
    if (rc && all) err_memory(e, "out of memory");
    rc = rc || json_save(all, path, 2, e);
    json_decref(all), mem_free(path);
    return rc ? -1 : 0;
}

int folder_dtype(const char *folder, enum dtype d, struct err *e) {
    struct arena a = {0};
    char *path = path_join(&a, folder, "config.json", e);
    json_t *config = path ? json_open(path, e) : NULL;
    const char *key = json_object_get(config, "dtype") ? "dtype" : "torch_dtype";
    const char *name = d == BF16 ? "bfloat16" : "float32";
    const char *found = json_string_value(json_object_get(config, key));
    int status = config ? 0 : -1;
    const bool coded = !json_object_del(config, "quantization_config"); /* it was: no more */
    if (config && (coded || !found || strcmp(found, name)))
        status = json_object_set_new(config, key, json_string(name))
                     ? err_memory(e, "out of memory")
                     : json_save(config, path, 2, e);
    json_decref(config);
    arena_free(&a);
    return status;
}
