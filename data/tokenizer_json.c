/* tokenizer_json.c: a tokenizer.json (Hugging Face tokenizers, version 1.0) into a struct
 * tokenizer: the model, the added tokens and the post-processor's template. Normalizers,
 * pre-tokenizers and decoders: tokenizer_stages.c.
 *
 * `truncation` and `padding` describe a caller's wishes, not the tokenizer, and are not applied.
 * What is not known is refused by name: ids that are nearly right are worse than none. */
#include <stdlib.h>
#include <string.h>
#include "data/data_int.h"

static const char *kind_of(const json_t *j) {
    static const char *const name[] = {"an object", "an array", "text",  "an integer",
                                       "a number",  "true",     "false", "null"};
    return j ? name[json_typeof(j)] : "nothing";
}

int json_bytes(const json_t *o, const char *key, const char *where, struct bytes *out,
               struct err *e) {
    const json_t *j = json_object_get(o, key);
    *out = (struct bytes){"", 0};
    if (!json_is_string(j))
        return err_input(e, "%s: \"%s\" must be text, but is %s", where, key, kind_of(j));
    *out = (struct bytes){json_string_value(j), (i64)json_string_length(j)};
    return 0;
}

const char *json_kind(const json_t *o, const char *where, struct err *e) {
    struct bytes type;
    if (!json_is_object(o))
        return err_input(e, "%s must be an object, but is %s", where, kind_of(o)), NULL;
    return json_bytes(o, "type", where, &type, e) ? NULL : type.data;
}

/* ---- model ----------------------------------------------------------------------------------- */
static int read_vocab(struct tokenizer *t, json_t *vocab, struct err *e) {
    if (!json_is_object(vocab))
        return err_input(e, "%s: model: \"vocab\" must be an object, but is %s", t->path,
                         kind_of(vocab));
    for (void *i = json_object_iter(vocab); i; i = json_object_iter_next(vocab, i)) {
        const json_t *id = json_object_iter_value(i);
        struct bytes text = {json_object_iter_key(i), (i64)json_object_iter_key_len(i)};
        if (!json_is_integer(id))
            return err_input(e, "%s: the id of token \"%.60s\" must be an integer, but is %s",
                             t->path, text.data, kind_of(id));
        if (vocab_add(&t->vocab, text, json_integer_value(id), t->path, e)) return -1;
    }
    if (!t->vocab.used) return err_input(e, "%s: the vocabulary is empty", t->path);
    return 0;
}

/* "left right" (old) or ["left", "right"]. */
static int merge_parts(const struct tokenizer *t, const json_t *j, i64 rank, struct bytes part[2],
                       struct err *e) {
    const json_t *left = json_array_get(j, 0), *right = json_array_get(j, 1);
    if (json_is_array(j) && json_array_size(j) == 2 && json_is_string(left) &&
        json_is_string(right)) {
        part[0] = (struct bytes){json_string_value(left), (i64)json_string_length(left)};
        part[1] = (struct bytes){json_string_value(right), (i64)json_string_length(right)};
        return 0;
    }
    const char *s = json_is_string(j) ? json_string_value(j) : NULL;
    const char *end = s ? s + json_string_length(j) : NULL;
    const char *cut = s ? memchr(s, ' ', (size_t)(end - s)) : NULL;
    if (!cut || memchr(cut + 1, ' ', (size_t)(end - cut - 1))) {
        if (s)
            err_input(e, "%s: merge %lld is \"%.80s\"", t->path, (long long)rank, s);
        else
            err_input(e, "%s: merge %lld is %s", t->path, (long long)rank, kind_of(j));
        return err_detail(e, "a merge is [\"left\", \"right\"] or \"left right\" with one space");
    }
    part[0] = (struct bytes){s, cut - s};
    part[1] = (struct bytes){cut + 1, end - cut - 1};
    return 0;
}

static int merge_token(const struct tokenizer *t, struct bytes text, i64 rank, i64 *id,
                       struct err *e) {
    if ((*id = vocab_find(&t->vocab, text.data, text.size)) >= 0) return 0;
    return err_input(e, "%s: merge %lld names \"%.*s\", which is not in the vocabulary", t->path,
                     (long long)rank, (int)i64_min(text.size, 60), text.data);
}

static int read_merge(struct tokenizer *t, const json_t *j, i64 rank, struct text *joined,
                      struct err *e) {
    struct bytes part[2] = {{"", 0}, {"", 0}};
    i64 id[3];
    joined->size = 0;
    if (merge_parts(t, j, rank, part, e) || merge_token(t, part[0], rank, &id[0], e) ||
        merge_token(t, part[1], rank, &id[1], e) ||
        text_add(joined, part[0].data, part[0].size, e) ||
        text_add(joined, part[1].data, part[1].size, e) ||
        merge_token(t, (struct bytes){joined->data, joined->size}, rank, &id[2], e))
        return -1;
    bpe_add_merge(&t->bpe, (u32)id[0], (u32)id[1], (u32)rank, (u32)id[2]);
    return 0;
}

static int read_merges(struct tokenizer *t, const json_t *merges, struct err *e) {
    if (!json_is_array(merges))
        return err_input(e, "%s: model: \"merges\" must be an array, but is %s", t->path,
                         kind_of(merges));
    i64 count = (i64)json_array_size(merges), rank = 0;
    struct text joined = {0};
    int rc = bpe_reserve(&t->bpe, count, e);
    for (i64 i = 0; !rc && i < count; i++) {
        const json_t *j = json_array_get(merges, (size_t)i);
        if (json_is_string(j) && !strncmp(json_string_value(j), "#version", 8)) continue;
        rc = read_merge(t, j, rank++, &joined, e);
    }
    text_free(&joined);
    return rc;
}

static int read_model(struct tokenizer *t, const json_t *m, struct err *e) {
    if (!json_is_object(m))
        return err_input(e, "%s: \"model\" must be an object, but is %s", t->path, kind_of(m));
    const char *type = json_text(m, "type", "BPE", t->path, e);
    if (e->code) return -1;
    if (strcmp(type, "BPE")) {
        err_input(e, "%s: model '%s' is not supported", t->path, type);
        return err_detail(e, "supported: BPE");
    }
    static const char *const affix[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (int i = 0; i < 2; i++) {
        const char *s = json_text(m, affix[i], "", t->path, e);
        if (e->code) return -1;
        if (*s) return err_input(e, "%s: model: %s \"%s\" is not supported", t->path, affix[i], s);
    }
    if (read_vocab(t, json_object_get(m, "vocab"), e) ||
        read_merges(t, json_object_get(m, "merges"), e))
        return -1;
    t->bpe.fuse_unk = json_bool(m, "fuse_unk", false, t->path, e);
    t->bpe.byte_fallback = json_bool(m, "byte_fallback", false, t->path, e);
    t->bpe.ignore_merges = json_bool(m, "ignore_merges", false, t->path, e);
    const json_t *unk = json_object_get(m, "unk_token");
    struct bytes text;
    t->bpe.unk_id = -1;
    if (e->code) return -1;
    if (!unk || json_is_null(unk)) return 0;
    if (json_bytes(m, "unk_token", t->path, &text, e)) return -1;
    if ((t->bpe.unk_id = vocab_find(&t->vocab, text.data, text.size)) >= 0) return 0;
    return err_input(e, "%s: unk_token \"%.60s\" is not in the vocabulary", t->path, text.data);
}

/* ---- added tokens ---------------------------------------------------------------------------- */
static int added_register(struct tokenizer *t, struct bytes content, i64 id, struct err *e) {
    i64 known = vocab_find(&t->vocab, content.data, content.size);
    if (!content.size) return err_input(e, "%s: added token %lld is empty", t->path, (long long)id);
    if (known >= 0 && known != id)
        return err_input(e, "%s: token \"%.60s\" has id %lld in added_tokens, but %lld elsewhere",
                         t->path, content.data, (long long)id, (long long)known);
    return known >= 0 ? 0 : vocab_add(&t->vocab, content, id, t->path, e);
}

/* Tokens with `normalized` are looked for in normalised text, by their own normalised form. */
static int added_pattern(struct tokenizer *t, struct added_token *a, struct text buffer[2],
                         struct err *e) {
    struct bytes content = a->content;
    void *scratch = NULL;
    int rc =
        a->normalized ? normalize(t->norm, t->norms, content, buffer, &scratch, &content, e) : 0;
    scratch_free(scratch);
    char *copy = rc ? NULL : arena_new(&t->arena, content.size + 1, e);
    if (!copy) return -1;
    memcpy(copy, content.data, (size_t)content.size);
    a->content = (struct bytes){copy, content.size};
    return 0;
}

static int read_added_token(struct tokenizer *t, const json_t *j, struct text buffer[2],
                            struct err *e) {
    struct added_token a = {0};
    if (!json_is_object(j))
        return err_input(e, "%s: an added token must be an object, but is %s", t->path, kind_of(j));
    if (json_bytes(j, "content", t->path, &a.content, e)) return -1;
    i64 id = json_i64(j, "id", -1, t->path, e);
    a.special = json_bool(j, "special", false, t->path, e);
    a.normalized = json_bool(j, "normalized", !a.special, t->path, e);
    a.single_word = json_bool(j, "single_word", false, t->path, e);
    a.lstrip = json_bool(j, "lstrip", false, t->path, e);
    a.rstrip = json_bool(j, "rstrip", false, t->path, e);
    if (e->code || added_register(t, a.content, id, e) || added_pattern(t, &a, buffer, e))
        return -1;
    a.id = (u32)id;
    struct added_set *s = &t->added[a.normalized];
    if (a.content.size) s->token[s->count++] = a;
    return 0;
}

static int read_added(struct tokenizer *t, const json_t *list, struct err *e) {
    if (list && !json_is_null(list) && !json_is_array(list))
        return err_input(e, "%s: \"added_tokens\" must be an array, but is %s", t->path,
                         kind_of(list));
    i64 count = (i64)json_array_size(list);
    struct text buffer[2] = {0};
    int rc = 0;
    for (int i = 0; i < 2; i++)
        if (!(t->added[i].token = mem_new_array(count + 1, sizeof *t->added[i].token, e)))
            return -1;
    for (i64 i = 0; !rc && i < count; i++)
        rc = read_added_token(t, json_array_get(list, (size_t)i), buffer, e);
    for (int i = 0; i < 2; i++) text_free(&buffer[i]);
    if (rc || !(t->special = mem_new(t->vocab.count, e))) return -1;
    for (int k = 0; k < 2; k++) {
        added_sort(&t->added[k]);
        for (i64 i = 0; i < t->added[k].count; i++)
            t->special[t->added[k].token[i].id] = t->added[k].token[i].special;
    }
    return 0;
}

/* ---- post-processor: only what it puts around one text matters here -------------------------- */
static int template_token(struct tokenizer *t, const json_t *post, const json_t *piece,
                          struct ids *to, struct err *e) {
    struct bytes name;
    if (json_bytes(piece, "id", t->path, &name, e)) return -1;
    const json_t *ids =
        json_object_get(json_object_get(json_object_get(post, "special_tokens"), name.data), "ids");
    if (!json_array_size(ids))
        return err_input(e, "%s: post_processor: no ids for special token \"%.60s\"", t->path,
                         name.data);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *j = json_array_get(ids, i);
        struct bytes text;
        if (!json_is_integer(j) || !vocab_text(&t->vocab, json_integer_value(j), &text))
            return err_input(
                e, "%s: post_processor: special token \"%.60s\" has an id that no token has",
                t->path, name.data);
        if (ids_add(to, (u32)json_integer_value(j), e)) return -1;
    }
    return 0;
}

static int template_read(struct tokenizer *t, const json_t *post, struct ids *before,
                         struct ids *after, struct err *e) {
    const json_t *single = json_object_get(post, "single");
    bool text_seen = false;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *token = json_object_get(json_array_get(single, i), "SpecialToken");
        const json_t *text = json_object_get(json_array_get(single, i), "Sequence");
        struct bytes id;
        if (token) {
            if (template_token(t, post, token, text_seen ? after : before, e)) return -1;
        } else if (text && !text_seen && !json_bytes(text, "id", t->path, &id, e) &&
                   !strcmp(id.data, "A"))
            text_seen = true;
        else
            return err_input(e,
                             "%s: post_processor: piece %zu of \"single\" is neither a special "
                             "token nor the text A",
                             t->path, i);
    }
    return text_seen
               ? 0
               : err_input(e, "%s: post_processor: \"single\" does not hold the text A", t->path);
}

static int add_ids(struct ids *to, const struct ids *more, struct err *e) {
    for (i64 i = 0; i < more->count; i++)
        if (ids_add(to, more->item[i], e)) return -1;
    return 0;
}

/* A second template goes around the first. */
static int read_template(struct tokenizer *t, const json_t *post, struct err *e) {
    struct ids before = {0}, after = {0};
    int rc = template_read(t, post, &before, &after, e) || add_ids(&before, &t->prefix, e) ||
             add_ids(&t->suffix, &after, e);
    ids_free(&after);
    if (rc) {
        ids_free(&before);
        return -1;
    }
    ids_free(&t->prefix);
    t->prefix = before;
    return 0;
}

static int read_post(struct tokenizer *t, const json_t *post, struct err *e) {
    if (!post || json_is_null(post)) return 0;
    char where[600];
    snprintf(where, sizeof where, "%.500s: post_processor", t->path);
    const char *type = json_kind(post, where, e);
    if (!type) return -1;
    if (!strcmp(type, "ByteLevel")) return 0; /* concerns offsets alone */
    if (!strcmp(type, "TemplateProcessing")) return read_template(t, post, e);
    if (strcmp(type, "Sequence")) {
        err_input(e, "%s: post_processor '%s' is not supported", t->path, type);
        return err_detail(e, "supported: ByteLevel, Sequence, TemplateProcessing");
    }
    const json_t *list = json_object_get(post, "processors");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (read_post(t, json_array_get(list, i), e)) return -1;
    return 0;
}

int tokenizer_read(struct tokenizer *t, const json_t *j, struct err *e) {
    bool bytes = false;
    if (!json_is_object(j))
        return err_input(e, "%s: must hold an object, but holds %s", t->path, kind_of(j));
    if (read_model(t, json_object_get(j, "model"), e) ||
        read_norms(t, json_object_get(j, "normalizer"), e) ||
        read_stages(t, json_object_get(j, "pre_tokenizer"), &bytes, e) ||
        read_decoders(t, json_object_get(j, "decoder"), e) ||
        read_added(t, json_object_get(j, "added_tokens"), e) ||
        read_post(t, json_object_get(j, "post_processor"), e))
        return -1;
    bpe_finish(&t->bpe, &t->vocab, bytes);
    return 0;
}
