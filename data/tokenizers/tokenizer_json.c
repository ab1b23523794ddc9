/* tokenizer_json.c: a tokenizer.json (Hugging Face tokenizers, version 1.0) into a struct
 * tokenizer: the model, the added tokens and the post-processor's template. Normalizers,
 * pre-tokenizers and decoders: tokenizer_stages.c.
 *
 * `truncation` and `padding` describe a caller's wishes, not the tokenizer, and are not applied.
 * What is not known is refused by name: ids that are nearly right are worse than none. */
#include <stdlib.h>
#include <string.h>
#include "data/tokenizers/tokenizers_int.h"

/* ---- model ----------------------------------------------------------------------------------- */
static int read_vocab(struct tokenizer *t, json_t *vocab, struct err *e) {
    if (!json_is_object(vocab))
        return err_input(e, "%s: model: \"vocab\" must be an object, but is %s", t->path,
                         json_kind_of(vocab));
    for (void *i = json_object_iter(vocab); i; i = json_object_iter_next(vocab, i)) {
        const json_t *id = json_object_iter_value(i);
        struct bytes text = {json_object_iter_key(i), (i64)json_object_iter_key_len(i)};
        if (!json_is_integer(id))
            return err_input(e, "%s: the id of token \"%.60s\" must be an integer, but is %s",
                             t->path, text.data, json_kind_of(id));
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
            err_input(e, "%s: merge %lld is %s", t->path, (long long)rank, json_kind_of(j));
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

int read_merge(struct tokenizer *t, const struct bytes part[2], i64 rank, struct text *joined,
               struct err *e) {
    i64 id[3], drop = i64_min(t->bpe.prefix.size, part[1].size);
    joined->size = 0;
    if (merge_token(t, part[0], rank, &id[0], e) || merge_token(t, part[1], rank, &id[1], e) ||
        text_add(joined, part[0].data, part[0].size, e) ||
        text_add(joined, part[1].data + drop, part[1].size - drop, e) ||
        merge_token(t, (struct bytes){joined->data, joined->size}, rank, &id[2], e))
        return -1;
    bpe_add_merge(&t->bpe, (u32)id[0], (u32)id[1], (u32)rank, (u32)id[2]);
    return 0;
}

static int read_merges(struct tokenizer *t, const json_t *merges, struct err *e) {
    if (!json_is_array(merges))
        return err_input(e, "%s: model: \"merges\" must be an array, but is %s", t->path,
                         json_kind_of(merges));
    i64 count = (i64)json_array_size(merges), rank = 0;
    struct text joined = {0};
    int rc = bpe_reserve(&t->bpe, count, e);
    for (i64 i = 0; !rc && i < count; i++) {
        const json_t *j = json_array_get(merges, (size_t)i);
        if (json_is_string(j) && !strncmp(json_string_value(j), "#version", 8)) continue;
        struct bytes part[2] = {{"", 0}, {"", 0}};
        rc = merge_parts(t, j, rank, part, e) || read_merge(t, part, rank, &joined, e);
        rank++;
    }
    text_free(&joined);
    return rc;
}

/* [["piece", score], ...], the index being the id. */
static int read_scores(struct tokenizer *t, const json_t *vocab, struct err *e) {
    if (!json_is_array(vocab))
        return err_input(e, "%s: model: \"vocab\" must be an array, but is %s", t->path,
                         json_kind_of(vocab));
    i64 count = (i64)json_array_size(vocab);
    double *score = mem_new_array(count + 1, sizeof *score, e);
    int rc = score ? 0 : -1;
    for (i64 i = 0; !rc && i < count; i++) {
        const json_t *row = json_array_get(vocab, (size_t)i), *piece = json_array_get(row, 0),
                     *x = json_array_get(row, 1);
        struct bytes text = {json_string_value(piece), (i64)json_string_length(piece)};
        score[i] = json_number_value(x);
        rc = json_array_size(row) == 2 && json_is_string(piece) && json_is_number(x)
                 ? vocab_add(&t->vocab, text, i, t->path, e)
                 : err_input(e, "%s: piece %lld is not [\"text\", score]", t->path, (long long)i);
    }
    if (!rc && !t->vocab.used) rc = err_input(e, "%s: the vocabulary is empty", t->path);
    if (!rc) rc = unigram_build(t, score, count, e);
    mem_free(score);
    return rc;
}

static int keep_text(struct tokenizer *t, const json_t *m, const char *key, const char *otherwise,
                     struct bytes *out, struct err *e) {
    const char *s = json_text(m, key, otherwise, t->path, e);
    if (e->code) return -1;
    char *copy = arena_text(&t->arena, s, e);
    *out = (struct bytes){copy, (i64)strlen(s)};
    return copy ? 0 : -1;
}

/* "unk_token": text; a model may do without. */
static int read_unknown(struct tokenizer *t, const json_t *m, struct err *e) {
    const json_t *unk = json_object_get(m, "unk_token");
    struct bytes text;
    t->unk_id = -1;
    if (!unk || json_is_null(unk)) return 0;
    if (json_bytes(m, "unk_token", t->path, &text, e)) return -1;
    if ((t->unk_id = vocab_find(&t->vocab, text.data, text.size)) >= 0) return 0;
    return err_input(e, "%s: unk_token \"%.60s\" is not in the vocabulary", t->path, text.data);
}

static int read_bpe(struct tokenizer *t, const json_t *m, struct err *e) {
    t->bpe.fuse_unk = json_bool(m, "fuse_unk", false, t->path, e);
    t->bpe.ignore_merges = json_bool(m, "ignore_merges", false, t->path, e);
    return e->code || keep_text(t, m, "continuing_subword_prefix", "", &t->bpe.prefix, e) ||
           keep_text(t, m, "end_of_word_suffix", "", &t->bpe.suffix, e) ||
           read_vocab(t, json_object_get(m, "vocab"), e) ||
           read_merges(t, json_object_get(m, "merges"), e) || read_unknown(t, m, e);
}

static int read_unigram(struct tokenizer *t, const json_t *m, struct err *e) {
    struct bytes text;
    const json_t *unk = json_object_get(m, "unk_id");
    if (read_scores(t, json_object_get(m, "vocab"), e)) return -1;
    t->unk_id = json_is_null(unk) ? -1 : json_i64(m, "unk_id", -1, t->path, e);
    if (e->code || t->unk_id == -1 || vocab_text(&t->vocab, t->unk_id, &text))
        return e->code ? -1 : 0;
    return err_input(e, "%s: unk_id %lld is not in the vocabulary", t->path, (long long)t->unk_id);
}

static int read_wordpiece(struct tokenizer *t, const json_t *m, struct err *e) {
    t->wordpiece.longest = json_i64(m, "max_input_chars_per_word", 100, t->path, e);
    return e->code || keep_text(t, m, "continuing_subword_prefix", "##", &t->wordpiece.prefix, e) ||
           read_vocab(t, json_object_get(m, "vocab"), e) || read_unknown(t, m, e);
}

static int read_wordlevel(struct tokenizer *t, const json_t *m, struct err *e) {
    return read_vocab(t, json_object_get(m, "vocab"), e) || read_unknown(t, m, e);
}

/* Files from before models had a "type" are told by what they hold, as Hugging Face does. */
static const char *model_type(const json_t *m) {
    if (json_object_get(m, "merges")) return "BPE";
    if (json_is_array(json_object_get(m, "vocab"))) return "Unigram";
    return json_object_get(m, "max_input_chars_per_word") ? "WordPiece" : "WordLevel";
}

static int read_model(struct tokenizer *t, const json_t *m, struct err *e) {
    static const struct {
        const char *type;
        int (*read)(struct tokenizer *t, const json_t *m, struct err *e);
        model_fn *model;
    } table[] = {{"BPE", read_bpe, bpe_word},
                 {"Unigram", read_unigram, unigram_word},
                 {"WordPiece", read_wordpiece, wordpiece_word},
                 {"WordLevel", read_wordlevel, wordlevel_word}};
    if (!json_is_object(m))
        return err_input(e, "%s: \"model\" must be an object, but is %s", t->path, json_kind_of(m));
    const char *type = json_text(m, "type", model_type(m), t->path, e);
    for (int i = 0; !e->code && i < COUNT(table); i++) {
        if (strcmp(table[i].type, type)) continue;
        t->model = table[i].model;
        t->byte_fallback = json_bool(m, "byte_fallback", false, t->path, e);
        return e->code || table[i].read(t, m, e) ? -1 : 0;
    }
    if (e->code) return -1;
    err_input(e, "%s: model '%s' is not supported", t->path, type);
    return err_detail(e, "supported: BPE, Unigram, WordPiece, WordLevel");
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
    int rc = a->normalized ? normalize(t->norm, t->norms, content, buffer, &scratch, &content,
                                       &(bool){false}, e)
                           : 0;
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
        return err_input(e, "%s: an added token must be an object, but is %s", t->path,
                         json_kind_of(j));
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

int read_added(struct tokenizer *t, const json_t *list, struct err *e) {
    if (list && !json_is_null(list) && !json_is_array(list))
        return err_input(e, "%s: \"added_tokens\" must be an array, but is %s", t->path,
                         json_kind_of(list));
    i64 count = (i64)json_array_size(list);
    t->vocab.adding = true;
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

/* RobertaProcessing and BertProcessing: "cls": ["<s>", 0] before, "sep": ["</s>", 2] after. */
static int read_cls_sep(struct tokenizer *t, const json_t *post, const char *where, struct err *e) {
    static const char *const key[] = {"cls", "sep"};
    for (int i = 0; i < 2; i++) {
        const json_t *pair = json_object_get(post, key[i]), *id = json_array_get(pair, 1);
        struct bytes text;
        if (!json_is_integer(id) || !vocab_text(&t->vocab, json_integer_value(id), &text))
            return err_input(e, "%s: \"%s\" is not [\"token\", id] with the id of a token", where,
                             key[i]);
        if (ids_add(i ? &t->suffix : &t->prefix, (u32)json_integer_value(id), e)) return -1;
    }
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
    if (!strcmp(type, "RobertaProcessing") || !strcmp(type, "BertProcessing"))
        return read_cls_sep(t, post, where, e);
    if (strcmp(type, "Sequence")) {
        err_input(e, "%s: post_processor '%s' is not supported", t->path, type);
        return err_detail(e, "supported: BertProcessing, ByteLevel, RobertaProcessing, Sequence, "
                             "TemplateProcessing");
    }
    const json_t *list = json_object_get(post, "processors");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (read_post(t, json_array_get(list, i), e)) return -1;
    return 0;
}

/* When the vocabulary, the stages and the added tokens are there. */
void tokenizer_finish(struct tokenizer *t, bool bytes) {
    for (int i = 0; i < 256; i++) {
        char piece[8];
        snprintf(piece, sizeof piece, "<0x%02X>", (unsigned)i);
        t->fallback_id[i] = vocab_model(&t->vocab, piece, 6);
    }
    bpe_finish(t, bytes);
    cuts_find(t);
}

/* Those of the file, then those that other files of its folder name. The tokenizer with them is
 * another one than without: its hash says so. */
static int read_all_added(struct tokenizer *t, const json_t *own, const char *folder,
                          struct err *e) {
    if (own && !json_is_null(own) && !json_is_array(own)) return read_added(t, own, e);
    if (folder && !(t->extra = extras_of_folder(t, folder, own, e))) return -1;
    if (!json_array_size(t->extra)) return read_added(t, own, e);
    json_t *all = own ? json_copy((json_t *)(uintptr_t)own) : json_array();
    char *text = json_dumps(t->extra, JSON_COMPACT | JSON_SORT_KEYS);
    struct text both = {0};
    int rc = !all || !text || json_array_extend(all, t->extra)
                 ? err_memory(e, "out of memory")
                 : text_printf(&both, e, "%s%s", t->sha256, text) ||
                       sha256_bytes(both.data, both.size, t->sha256, e) || read_added(t, all, e);
    json_decref(all), free(text), text_free(&both);
    return rc ? -1 : 0;
}

int tokenizer_read(struct tokenizer *t, const json_t *j, const char *folder, struct err *e) {
    bool bytes = false;
    if (!json_is_object(j))
        return err_input(e, "%s: must hold an object, but holds %s", t->path, json_kind_of(j));
    if (read_model(t, json_object_get(j, "model"), e) ||
        read_norms(t, json_object_get(j, "normalizer"), e) ||
        read_stages(t, json_object_get(j, "pre_tokenizer"), &bytes, e) ||
        read_decoders(t, json_object_get(j, "decoder"), e) ||
        read_all_added(t, json_object_get(j, "added_tokens"), folder, e) ||
        read_post(t, json_object_get(j, "post_processor"), e))
        return -1;
    tokenizer_finish(t, bytes);
    return 0;
}
