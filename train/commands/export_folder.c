/* export_folder.c: a model as a Hugging Face folder, in the types its own files have.
 *
 * The base's files are the pattern: each of their tensors is written again under its name, with its
 * shape and type. What the model holds is taken from it; what it does not (another part of a
 * multimodal model, a buffer) is the file's own bytes. So an untouched model comes out as it went
 * in, config.json and tokenizer included. With an adapter the template is the one that it was
 * trained with, and generation_config.json names the special token that ends its answers. Values of
 * 8 or 4 bits with scales beside them are written in bf16 and without `quantization_config`: hone
 * does not write those types. A GGUF file has no types that a folder could have: bf16, or f32 where
 * asked for. */
#include "train/commands/commands.h"

#include <stdlib.h>
#include <string.h>

static int name_order(const void *a, const void *b) {
    return strcmp(((const struct stored *)a)->name, ((const struct stored *)b)->name);
}
static struct stored *named(const struct stored_list *list, const char *name) {
    const struct stored key = {.name = name};
    return list->count ? bsearch(&key, list->tensor, (size_t)list->count, sizeof key, name_order)
                       : NULL;
}

struct convert {
    const float *from;
    u8 *to;
    enum dtype type;
};
static void convert_range(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct convert *c = arg;
    for (i64 i = begin; i < end; i++) {
        const float x = c->from[i];
        if (c->type == F64)
            ((double *)c->to)[i] = (double)x;
        else
            ((u16 *)c->to)[i] = c->type == F16 ? f16_of_f32(x) : bf16_of_f32(x);
    }
}

/* The f32 tensor `t` in another type. */
static int convert(struct stored *t, enum dtype d, struct arena *a, struct err *e) {
    const i64 n = t->bytes / 4;
    if (d == F32) return 0;
    struct convert job = {(const float *)t->data, arena_new(a, n * dtype_size(d) + 1, e), d};
    if (!job.to) return -1;
    pool_run(n, convert_range, &job);
    t->data = job.to, t->dtype = d, t->bytes = n * dtype_size(d);
    return 0;
}

static bool is_plain(enum dtype d) { return d == F32 || d == BF16 || d == F16 || d == F64; }

/* Beside a tensor of few bits: its scales and tables, which its values no longer need. */
static bool is_scale(const struct stored *t) {
    const char *name = t->name;
    static const char *const end[] = {"_scale_inv", "_blocks",        "_scales",          ".absmax",
                                      ".quant_map", ".nested_absmax", ".nested_quant_map"};
    const size_t n = strlen(name);
    for (int i = 0; i < COUNT(end); i++) {
        const size_t k = strlen(end[i]);
        if (n > k && !strcmp(name + n - k, end[i])) return true;
    }
    return t->part || strstr(name, ".quant_state.bitsandbytes") != NULL;
}

/* The type of a tensor that the file does not have: of a head that was tied the embedding's; else
 * that of values which the file has in another form. */
static enum dtype type_beside(const struct stored *head, bool untied,
                              const struct safetensors *file, bool *coded) {
    const bool is_head =
        ends_with(head->name, "lm_head.weight") || ends_with(head->name, "embed_out.weight");
    for (i64 i = 0; untied && is_head && i < file->count; i++) {
        const struct stored *t = &file->tensor[i];
        const bool table = strstr(t->name, "embed_tokens.weight") ||
                           strstr(t->name, "embed_in.weight") || strstr(t->name, "wte.weight") ||
                           strstr(t->name, "word_embeddings.weight");
        if (table && is_plain(t->dtype)) return t->dtype;
    }
    return *coded = true, BF16;
}

/* Goes through the file's tensors; `coded`: some had few bits. */
static int as_file(struct stored_list *out, const struct stored_list *model,
                   const struct safetensors *file, bool untied, bool *coded, struct err *e) {
    u8 *done = mem_new(model->count + 1, e);
    int rc = done ? 0 : -1;
    for (i64 i = 0; !rc && i < file->count; i++) {
        const struct stored *t = &file->tensor[i], *ours = named(model, t->name);
        struct stored *to = stored_add(out, e);
        if (!to) rc = -1;
        if (rc) break;
        *to = ours ? *ours : *t;
        if (ours) done[ours - model->tensor] = 1;
        if (ours && !is_plain(t->dtype)) *coded = true;
        if (ours)
            rc = convert(to, is_plain(t->dtype) ? t->dtype : BF16, &out->arena, e);
        else if (is_scale(t))
            continue;
        else if (t->dtype == DTYPE_COUNT)
            rc = err_input(e, "tensor %.200s has type %s, which hone does not write", t->name,
                           t->type);
        out->count++;
    }
    for (i64 i = 0; !rc && i < model->count; i++) { /* whose values the file has in another form */
        struct stored *to = done[i] ? NULL : stored_add(out, e);
        if (done[i]) continue;
        if (!to) rc = -1;
        if (rc) break;
        *to = model->tensor[i];
        rc = convert(to, type_beside(to, untied, file, coded), &out->arena, e), out->count++;
    }
    mem_free(done);
    return rc;
}

/* A GGUF file's configuration becomes config.json. */
static int config_put(const char *to, struct model_folder *f, struct err *e) {
    struct config c;
    const struct gguf_arch *arch;
    char *path = path_join(NULL, to, "config.json", e);
    const int rc = !path || folder_config(f, &c, &arch, e) || json_save(f->config, path, 2, e);
    return mem_free(path), rc ? -1 : 0;
}

static bool tokenizer_lies_in(const struct tokenizer *t, const char *folder) {
    const size_t n = strlen(folder);
    const char *path = t ? tokenizer_path(t) : "";
    return !strncmp(path, folder, n) && path[n] == '/' && !strchr(path + n + 1, '/');
}

/* Named templates are a folder of their own; what else is left behind is said. */
static int folder_rest(const char *to, const char *from, struct err *e) {
    static const char named[] = "additional_chat_templates";
    struct text left = {0};
    char *source = path_join(NULL, from, named, e),
         *target = source ? path_join(NULL, to, named, e) : NULL;
    char **names = NULL;
    i64 count = 0;
    int rc = target ? 0 : -1;
    if (!rc && path_is_dir(source)) rc = dir_make(target, e) || dir_list(source, &names, &count, e);
    for (i64 i = 0; !rc && i < count; i++) {
        struct text file = {0};
        char *one = path_join(NULL, source, names[i], e),
             *copy = one ? path_join(NULL, target, names[i], e) : NULL;
        rc = !copy || (ends_with(names[i], ".jinja") &&
                       (file_read(&file, one, e) || file_write(copy, file.data, file.size, e)));
        text_free(&file), mem_free(one), mem_free(copy);
    }
    rc = rc || folder_uncopied(from, to, &left, e);
    if (!rc && left.size && !quiet)
        show(stderr, "note: of %s these are not copied: %s\n", from, left.data);
    names_free(names, count), text_free(&left), mem_free(source), mem_free(target);
    return rc ? -1 : 0;
}

/* The template that the model was trained with, and where its answers end. */
static int answers_put(const char *to, const struct loaded *l, struct err *e) {
    struct chat *chat = NULL;
    struct answer_end end;
    const bool of_base =
        !l->adapter && !path_is_gguf(l->base); /* its files are copied as they are */
    int rc = l->tokenizer && !of_base ? loaded_chat(&chat, NULL, l, e) : 0;
    const bool own = l->adapter && tokenizer_lies_in(l->tokenizer, l->adapter);
    if (!rc && own) rc = folder_copy_tokenizer(l->adapter, to, e);
    if (!rc && chat)
        rc = (template_differs(to, chat, e) && template_save(to, chat, e)) || e->code ||
             answer_end(&end, chat, NULL, l->tokenizer, e) || answer_end_save(to, &end, e);
    chat_free(chat);
    return rc ? -1 : 0;
}

int export_folder(const char *to, const struct loaded *l, const char *precision, struct err *e) {
    struct model_folder f = {0};
    struct stored_list model = {0}, out = {0};
    enum dtype d = F32;
    const bool own = !strcmp(precision, "auto");
    bool coded = false;
    int rc = folder_open(&f, l->base, e) || (!own && precision_parse(precision, &d, e)) ||
             model_stored(&l->model, false, &model, e) || dir_make(to, e);
    if (!rc && model.count > 1)
        qsort(model.tensor, (size_t)model.count, sizeof *model.tensor, name_order);
    const bool file = own && !f.gguf.version;
    if (!rc && f.gguf.version && own) d = BF16;
    rc = rc || (f.gguf.version ? config_put(to, &f, e)
                               : folder_copy(l->base, to, e) || folder_rest(to, l->base, e));
    if (!rc && file) rc = as_file(&out, &model, &f.weights, l->model.untied, &coded, e);
    for (i64 i = 0; !rc && !file && i < model.count; i++)
        rc = convert(&model.tensor[i], d, &model.arena, e);
    if (!rc && (!file || coded)) rc = folder_dtype(to, file ? BF16 : d, e);
    const struct model *m = &l->model;
    if (!rc && (m->untied || m->grown))
        rc = folder_reshaped(to, m->untied, m->grown ? m->config.vocab_size : 0, e);
    struct stored_list *list = file ? &out : &model;
    rc = rc || answers_put(to, l, e) ||
         safetensors_write(to, "model", list->tensor, list->count, SHARD_BYTES, e);
    stored_free(&out), stored_free(&model), folder_close(&f);
    return rc ? -1 : 0;
}
