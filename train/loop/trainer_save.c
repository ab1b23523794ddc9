/* trainer_save.c: a checkpoint from a trainer and back. What a checkpoint consists of and how it is
 * made crash-safe is in checkpoints/; this file says what goes in: the weights (or the adapter) as
 * a folder that transformers (or PEFT) loads, and state.h5. */
#include "train/loop/loop.h"

#include <jansson.h>
#include <string.h>

static int state_write(struct trainer *t, const char *folder, const char *digest, struct err *e) {
    char *path = path_join(NULL, folder, "state.h5", e);
    struct state_writer *w = path ? state_create(path, e) : NULL;
    mem_free(path);
    if (!w) return -1;
    const int rc =
        optimizer_save(&t->optimizer, w, e) || state_put_i64(w, "tokens_seen", t->tokens_seen, e) ||
        state_put_i64(w, "samples_seen", samples_seen(t, t->optimizer.step), e) ||
        state_put_i64(w, "reduction_groups", t->r->reduction_groups, e) ||
        (t->digest_version > 1 && state_put_i64(w, "digest_version", t->digest_version, e)) ||
        state_put_text(w, "state_sha256", digest, e);
    return state_finish(w, !rc, e) || rc ? -1 : 0;
}

/* A tokenizer that is not the base's own travels with what was trained on it. */
static int tokenizer_write(const struct trainer *t, const char *folder, struct err *e) {
    const struct recipe *r = t->r;
    if (t->tokens_folder)
        return folder_copy_tokenizer(t->tokens_folder, folder, e) ||
                       trainer_roles_save(t, folder, e)
                   ? -1
                   : 0;
    if (r->recipe_version < 2 || !r->tokenizer || !r->model_name_or_path ||
        path_is_gguf(r->tokenizer) || (r->use_peft && !path_is_dir(r->tokenizer)))
        return 0;
    return folder_copy_tokenizer(r->tokenizer, folder, e);
}

/* A template that is not the tokenizer's own travels too, and that one's named templates do not:
 * rows with tools were trained by this one as well. Where its answers end is in
 * generation_config.json. */
static int template_write(const struct trainer *t, const char *folder, struct err *e) {
    const struct recipe *r = t->r;
    struct answer_end end;
    if (!t->chat) return 0;
    if (r->chat_template && template_save(folder, t->chat, e)) return -1;
    if (r->recipe_version < 2 || r->use_peft || (!r->chat_template && strcmp(r->task, "sft")))
        return 0;
    return answer_end(&end, t->chat, NULL, t->tokenizer, e) || answer_end_save(folder, &end, e) ? -1
                                                                                                : 0;
}

/* A multimodal model's text part, trained: the rest is not here, so the folder says that it is a
 * text model. */
static int config_unwrap(const struct model *m, const char *folder, struct err *e) {
    if (!m->config.wrapped) return 0;
    char *path = path_join(NULL, folder, "config.json", e);
    json_t *all = path ? json_open(path, e) : NULL, *text, *value;
    if (!all) return mem_free(path), -1;
    static const char *const shared[] = {"bos_token_id", "eos_token_id", "pad_token_id",
                                         "torch_dtype",  "dtype",        "tie_word_embeddings"};
    text = json_object_get(all, "text_config");
    for (int i = 0; i < COUNT(shared); i++)
        if ((value = json_object_get(all, shared[i])) && !json_object_get(text, shared[i]))
            json_object_set(text, shared[i], value);
    json_object_set_new(text, "model_type", json_string(m->config.family->model_type));
    json_object_set_new(text, "architectures", json_pack("[s]", m->config.family->architecture));
    const int rc = json_save(text, path, 2, e);
    json_decref(all), mem_free(path);
    return rc;
}

int trainer_left_out(const struct trainer *t, struct err *e) {
    struct text names = {0};
    if (t->r->use_peft || quiet || !path_is_dir(t->model_folder)) return 0;
    const int rc = folder_uncopied(t->model_folder, NULL, &names, e);
    if (names.size)
        show(stderr, "note: of %s these are not copied to checkpoints: %s\n", t->model_folder,
             names.data);
    return text_free(&names), rc;
}

static int config_reshape(const struct model *m, const char *folder, struct err *e) {
    if (!m->untied && !m->grown) return 0;
    return folder_reshaped(folder, m->untied, m->grown ? m->config.vocab_size : 0, e);
}

static int weights_write(struct trainer *t, const char *folder, const struct stored_list *list,
                         struct err *e) {
    if (!t->r->use_peft)
        return folder_copy(t->model_folder, folder, e) ||
                       carried_copied(&t->carried, t->model_folder, folder, e) ||
                       config_unwrap(&t->model, folder, e) ||
                       config_reshape(&t->model, folder, e) ||
                       folder_dtype(folder, t->model.weights.dtype, e) ||
                       safetensors_write(folder, "model", list->tensor, list->count, SHARD_BYTES, e)
                   ? -1
                   : 0;
    char *path = path_join(NULL, folder, "adapter_config.json", e);
    const int rc =
        !path || lora_config_write(&t->lora, path, e) ||
        safetensors_write(folder, "adapter_model", list->tensor, list->count, SHARD_BYTES, e);
    return mem_free(path), rc ? -1 : 0;
}

static i64 save_bytes(const struct trainer *t, const struct stored_list *list, bool with_state) {
    i64 bytes = (with_state ? optimizer_bytes(&t->optimizer) : 0) + (1 << 20);
    for (i64 i = 0; i < list->count; i++) bytes += list->tensor[i].bytes;
    return bytes;
}

i64 trainer_checkpoint_bytes(const struct trainer *t, struct err *e) {
    struct stored_list list;
    const int rc = model_stored(&t->model, t->r->use_peft, &list, e);
    const i64 bytes = rc ? -1 : save_bytes(t, &list, !t->r->save_only_model);
    return stored_free(&list), bytes;
}

int trainer_save(struct trainer *t, const char digest[65], struct err *e) {
    struct checkpoint c = {0};
    const bool with_state = !t->r->save_only_model || t->whole_save;
    struct stored_list list;
    const int listed = model_stored(&t->model, t->r->use_peft, &list, e);
    struct manifest m = {.step = t->optimizer.step,
                         .digest_version = t->digest_version,
                         .numerics_version = NUMERICS_VERSION};
    strcpy(m.numerics_level, numerics_now == NUMERICS_FAST ? "R2" : "R4"); /* ops/NUMERICS.md */
    for (int i = 0; build_info && build_info[i]; i += 2)
        if (!strcmp(build_info[i], "version"))
            snprintf(m.hone_version, sizeof m.hone_version, "%s", build_info[i + 1]);
    memcpy(m.parent, t->parent, sizeof m.parent);
    int rc = listed || checkpoint_begin(&c, t->run_dir, t->optimizer.step,
                                        save_bytes(t, &list, with_state), e);
    if (!rc) {
        memcpy(m.state_sha256, digest, sizeof m.state_sha256);
        rc = weights_write(t, c.temporary, &list, e) || tokenizer_write(t, c.temporary, e) ||
             template_write(t, c.temporary, e) ||
             (with_state && state_write(t, c.temporary, digest, e));
        if (rc)
            checkpoint_abort(&c, e);
        else
            rc = checkpoint_commit(&c, &m, list.tensor, list.count, e);
    }
    char *path = rc ? NULL : checkpoint_path(t->run_dir, t->optimizer.step, e);
    if (!rc) rc = !path || manifest_sha256(path, t->parent, e);
    mem_free(path), stored_free(&list);
    return rc ? err_frame(e, "while saving step %lld", (long long)t->optimizer.step) : 0;
}

static int weights_read(struct trainer *t, const char *folder, struct err *e) {
    if (!t->r->use_peft) {
        struct model_folder f = {0};
        const int rc = folder_open(&f, folder, e) || model_load(&t->model, &f.weights, folder, e);
        folder_close(&f);
        return rc ? -1 : 0;
    }
    struct lora_config c = {0};
    struct safetensors s = {0};
    const int rc = adapter_open(folder, &c, &s, e) || lora_load(&t->model, &s, folder, e);
    safetensors_close(&s), lora_config_free(&c);
    return rc ? -1 : 0;
}

int trainer_load(struct trainer *t, const char *folder, struct err *e) {
    char digest[65];
    struct manifest m;
    if (manifest_verify(folder, false, e) || manifest_read(folder, &m, e) ||
        weights_read(t, folder, e))
        return -1;
    char *path = path_join(NULL, folder, "state.h5", e);
    if (path && !path_exists(path)) {
        err_input(e, "%s was saved with save_only_model: true: no run can go on from it", folder);
        err_hint(e, "model_name_or_path (an adapter: adapter_name_or_path) begins a new run with "
                    "its weights");
        return mem_free(path), -1;
    }
    struct state_reader *r = path ? state_open(path, e) : NULL;
    int rc = !r || optimizer_load(&t->optimizer, r, e) ||
             state_get_i64(r, "tokens_seen", &t->tokens_seen, e) ||
             optimizer_digest(&t->optimizer, m.digest_version, digest, e) ||
             manifest_sha256(folder, t->parent, e);
    state_close(r), mem_free(path);
    if (!rc && strcmp(digest, m.state_sha256))
        rc = err_failed(e, "%s: the state's digest is %.16s..., but its manifest says %.16s...",
                        folder, digest, m.state_sha256);
    return rc ? err_frame(e, "while loading checkpoint %s", folder) : 0;
}
