/* loaded.c: a model for use, however it is given: a Hugging Face folder, a checkpoint of a full
 * run, a checkpoint of a LoRA run (whose adapter_config.json names its base), or a base and
 * adapters. */
#include "train/engine/engine.h"

#include <stdlib.h>
#include <string.h>

int precision_parse(const char *text, enum dtype *d, struct err *e) {
    if (!strcmp(text, "fp32") || !strcmp(text, "f32")) return *d = F32, 0;
    if (!strcmp(text, "bf16")) return *d = BF16, 0;
    err_input(e, "precision is '%s'", text);
    return err_detail(e, "expected fp32 or bf16");
}

int numerics_choose(const char *name, struct err *e) {
    const bool gpu = device_now() == DEVICE_CUDA;
    numerics_now = gpu && strcmp(name, "portable") ? NUMERICS_FAST : NUMERICS_PORTABLE;
    if (gpu || strcmp(name, "fast")) return 0;
    err_input(e, "numerics: fast is what a GPU computes, and --device is cpu");
    return err_hint(e, "--device cuda, or numerics: portable, which is the same everywhere");
}

void recipe_numerics(struct recipe *r) {
    if (!strcmp(r->numerics, "auto")) r->numerics = globals.numerics;
    if (!strcmp(r->numerics, "auto"))
        r->numerics = device_now() == DEVICE_CUDA ? "fast" : "portable";
}

struct holding holding_of_recipe(const struct recipe *r) {
    char name[16];
    snprintf(name, sizeof name, "%s%s", r->bnb_4bit_quant_type,
             r->bnb_4bit_use_double_quant ? "-double" : "");
    return (struct holding){.packing = r->load_in_4bit ? packing_find(name)
                                       : r->quantize
                                           ? packing_find(r->quantize) /* NULL: auto, none */
                                           : NULL,
                            .tied = r->recipe_version < 2};
}

int run_recipe(struct recipe *r, const char *checkpoint, struct err *e) {
    char *run = path_join(NULL, checkpoint, "../..", e), sha256[65],
         *lock = run ? path_join(NULL, run, "recipe.lock", e) : NULL;
    const int found = !lock ? -1 : !path_exists(lock) ? 0 : lock_read(r, run, sha256, e) ? -1 : 1;
    mem_free(run), mem_free(lock);
    return found;
}

/* How the base is held: as the run had it that the first adapter comes from, but packed as
 * `quantize` says, if that is not "auto". */
static int holding_choose(struct holding *as, const char *quantize, const char *adapter,
                          struct err *e) {
    struct recipe r;
    *as = (struct holding){0};
    const int found = adapter ? run_recipe(&r, adapter, e) : 0;
    if (found > 0) *as = holding_of_recipe(&r), recipe_free(&r);
    if (strcmp(quantize, "auto")) as->packing = packing_find(quantize); /* NULL: none */
    return found < 0 ? -1 : 0;
}

int tokenizer_fits(const struct tokenizer *t, const struct model *m, const char *model,
                   struct err *e) {
    if (tokenizer_size(t) <= m->config.vocab_size) return 0;
    err_input(e, "%s has %lld entries, but the model's vocabulary is %lld", tokenizer_path(t),
              (long long)tokenizer_size(t), (long long)m->config.vocab_size);
    return err_hint(e,
                    "use the tokenizer that came with %s; a recipe gives it more tokens by "
                    "special_tokens or add_tokens",
                    model);
}

int chat_find(struct chat **out, const char *chosen, const struct tokenizer *t, struct err *e) {
    struct err none = {0};
    const char *path = t ? tokenizer_path(t) : NULL;
    *out = chosen || path ? chat_of_file(chosen, path, chosen ? e : &none) : NULL;
    if (*out || (!chosen && !none.starved)) return 0;
    if (!chosen) *e = none;
    return -1;
}

int dataset_fits(const struct dataset *d, const struct model *m, struct err *e) {
    const struct dataset_info *i = dataset_info(d);
    if (i->vocab_size <= m->config.vocab_size) return 0;
    err_input(e, "%s was made with a vocabulary of %lld, but the model's is %lld", i->path,
              (long long)i->vocab_size, (long long)m->config.vocab_size);
    return err_hint(e, "make it again with the model's tokenizer: hone tokenize");
}

/* A folder, or FOLDER=WEIGHT. */
static int adapter_named(const char *text, char **folder, double *weight, struct err *e) {
    const char *equals = path_is_dir(text) ? NULL : strrchr(text, '=');
    char *end = NULL;
    *weight = equals ? strtod(equals + 1, &end) : 1;
    *folder = equals ? mem_printf(e, "%.*s", (int)(equals - text), text) : mem_text(text, e);
    if (!*folder) return -1;
    if (!equals || (end > equals + 1 && !*end && *weight - *weight == 0)) return 0;
    err_input(e, "--adapter %s: '%s' is no weight", text, equals + 1);
    return err_detail(e, "expected DIR or DIR=NUMBER");
}

static int adapter_load(struct loaded *l, const char *text, struct err *e) {
    struct lora_config more = {0}, *c = l->model.lora ? &more : &l->lora;
    struct safetensors s = {0};
    char *folder = NULL;
    double weight;
    const int rc = adapter_named(text, &folder, &weight, e) || adapter_open(folder, c, &s, e) ||
                   lora_stack(&l->model, c, &s, folder, weight, e);
    safetensors_close(&s), lora_config_free(&more), mem_free(folder);
    return rc ? -1 : 0;
}

/* An adapter folder alone: its base is what adapter_config.json says. */
static int base_of(struct loaded *l, const char *adapter, struct err *e) {
    struct lora_config c = {0};
    char *path = path_join(NULL, adapter, "adapter_config.json", e);
    int rc = path ? lora_config_read(&c, path, e) : -1;
    if (!rc && !c.base_model_name_or_path) {
        rc = err_input(e, "%s does not say which model it adapts", path);
        err_hint(e, "give the base: hone ... BASE --adapter %s", adapter);
    }
    if (!rc && !(l->base = mem_text(c.base_model_name_or_path, e))) rc = -1;
    if (!rc && !path_is_dir(l->base) && !(path_exists(l->base) && path_is_gguf(l->base))) {
        rc = err_input(e, "the base model '%s' that %s names is not a folder here", l->base, path);
        err_hint(e, "give the base: hone ... BASE --adapter %s", adapter);
    }
    lora_config_free(&c), mem_free(path);
    return rc;
}

/* The tokenizer that is named, the adapter's own, or the base's. Training scripts save tokenizers
 * with adapters that have a padding token more than the model has rows: then the base's. */
static int tokenizer_find(struct loaded *l, const char *named, struct err *e) {
    struct err unfit = {0};
    if (!named && l->adapter && path_is_dir(l->adapter) && tokenizer_exists(l->adapter)) {
        if (!(l->tokenizer = tokenizer_of_file(l->adapter, e))) return -1;
        if (!tokenizer_fits(l->tokenizer, &l->model, l->base, &unfit)) return 0;
        if (!quiet) show(stderr, "note: %s: that of %s is used\n", unfit.primary, l->base);
        tokenizer_free(l->tokenizer), l->tokenizer = NULL;
    }
    const char *from = named ? named : l->base;
    if ((named || tokenizer_is_at(from)) && !(l->tokenizer = tokenizer_of_file(from, e))) return -1;
    return l->tokenizer ? tokenizer_fits(l->tokenizer, &l->model, l->base, e) : 0;
}

int loaded_open_as(struct loaded *l, const char *path, const struct text_list *adapters,
                   const char *tokenizer, const char *quantize, enum dtype d, bool trainable,
                   struct err *e) {
    struct holding as;
    *l = (struct loaded){0};
    const i64 count = adapters ? adapters->count : 0;
    double weight;
    if (!path_is_dir(path) && !(path_exists(path) && path_is_gguf(path))) {
        err_input(e, path_exists(path) ? "%s is not a folder" : "%s does not exist", path);
        return err_hint(e, "a model is a folder with config.json and model.safetensors, such as "
                           "runs/NAME/checkpoints/step-000100, or a .gguf file");
    }
    const int own = count ? 0 : path_has(path, "adapter_config.json", e);
    if (own < 0) return -1;
    if (own ? base_of(l, path, e) : !(l->base = mem_text(path, e))) return -1;
    if (count && adapter_named(adapters->item[0], &l->adapter, &weight, e)) return -1;
    if (own && !(l->adapter = mem_text(path, e))) return -1;
    if (holding_choose(&as, quantize, l->adapter, e) ||
        model_open_as(&l->model, l->base, d, trainable && !l->adapter, &as, e))
        return -1;
    if (*l->model.config.note && !quiet)
        show(stderr, "note: %s: %s\n", l->base, l->model.config.note);
    if (own && adapter_load(l, path, e)) return -1;
    for (i64 i = 0; i < count; i++)
        if (adapter_load(l, adapters->item[i], e)) return -1;
    return tokenizer_find(l, tokenizer, e) || model_place(&l->model, e) ? -1 : 0;
}

int loaded_open(struct loaded *l, const char *path, const struct text_list *adapters,
                const char *tokenizer, enum dtype d, bool trainable, struct err *e) {
    const char *quantize = globals.quantize ? globals.quantize : "auto";
    return loaded_open_as(l, path, adapters, tokenizer, quantize, d, trainable, e);
}

void loaded_close(struct loaded *l) {
    model_free(&l->model);
    lora_config_free(&l->lora);
    tokenizer_free(l->tokenizer);
    mem_free(l->base), mem_free(l->adapter);
    *l = (struct loaded){0};
}
