/* trainer_models.c: the frozen models of an objective: a reference, a teacher.
 *
 * One that no key names is what the trained model starts from. Where an adapter is trained, that is
 * mostly the same weights read without it, which costs no memory. It is not where training changes
 * the base's own tensors: PiSSA takes the adapter's first values out of them, modules_to_save
 * trains them. Then the base is opened a second time. */
#include "train/loop/loop.h"

#include <string.h>

static bool base_is_kept(const struct recipe *r) {
    return r->use_peft && !r->lora_modules_to_save.count && !r->trainable_token_indices.count &&
           strcmp(r->init_lora_weights, "pissa");
}

static int open_own(struct trainer *t, struct frozen *f, const char *path, struct err *e) {
    const i64 vocab = t->model.config.vocab_size;
    struct holding as = holding_of_recipe(t->r);
    as.random = t->random;
    if (!(f->model = f->own = mem_new(sizeof *f->own, e)) ||
        model_open_as(f->own, path, t->model.weights.dtype, false, &as, e) ||
        model_place(f->own, e) || model_rope(f->own, t->r->max_seq_length, e))
        return err_frame(e, "while opening the %s model", f->name);
    if (f->own->config.vocab_size == vocab) return 0;
    err_input(e, "%s: the %s model has %lld tokens, the trained one %lld", path, f->name,
              (long long)f->own->config.vocab_size, (long long)vocab);
    return err_hint(e, "both must have the same tokenizer");
}

int trainer_models(struct trainer *t, struct err *e) {
    const struct recipe *r = t->r;
    const struct objective_model *m = t->objective->models;
    for (; m && m->name; m++) {
        if (t->others == FROZEN_MODELS)
            return err_failed(e, "task %s has more than %d models", r->task, FROZEN_MODELS);
        struct frozen *f = &t->other[t->others++];
        f->name = m->name;
        if (m->path >= 0) memcpy(&f->path, (const char *)r->task_with + m->path, sizeof f->path);
        if (!f->path && base_is_kept(r)) {
            f->model = &t->model, f->bare = true;
            continue;
        }
        const char *path = f->path ? f->path : r->model_name_or_path;
        if (!path) {
            err_input(e, "task %s needs a %s model", r->task, f->name);
            return err_hint(e,
                            "a model that the recipe describes is random: name one to start from");
        }
        if (open_own(t, f, path, e)) return -1;
    }
    const char *const *pass = t->objective->passes;
    for (i64 i = 0; pass && pass[i]; i++) {
        if (i == EARLIER_PASSES)
            return err_failed(e, "task %s has more than %d passes", r->task, EARLIER_PASSES);
        if (*pass[i] && !trainer_frozen(t, pass[i]))
            return err_failed(e, "task %s has no model '%s' for a pass", r->task, pass[i]);
    }
    return 0;
}

void trainer_models_close(struct trainer *t) {
    for (i64 i = 0; i < t->others; i++)
        if (t->other[i].own) model_free(t->other[i].own), mem_free(t->other[i].own);
    t->others = 0;
}

const struct frozen *trainer_frozen(const struct trainer *t, const char *name) {
    for (i64 i = 0; i < t->others; i++)
        if (!strcmp(t->other[i].name, name)) return &t->other[i];
    return NULL;
}
