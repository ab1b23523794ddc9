/* tokenizer_parts.c: a tokenizer from a bare vocabulary: what GGUF files hold, and what
 * SentencePiece models and rank files are once read. Merges of the latter two are not written down:
 * the adjacent pair is merged whose union has the best score or the lowest rank, so every way to
 * put a token together from two others is a merge, with the token's own rank. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "data/tokenizers/tokenizers_int.h"

static const char mark[] = "\xe2\x96\x81";

static enum token_type type_of(const struct tokenizer_parts *p, i64 id) {
    return p->type ? (enum token_type)p->type[id] : TOKEN_NORMAL;
}
static bool is_piece(enum token_type type) { /* made by merging, or found by the path */
    return type == TOKEN_NORMAL || type == TOKEN_USER_DEFINED;
}
static bool is_model(const struct tokenizer_parts *p, const char *name) {
    return !strcmp(p->model, name);
}

/* GGUF writes BERT's pieces as SentencePiece would: U+2581 in front of words, not ## of the rest.
 */
static int bert_text(struct bytes in, struct text *out, struct err *e) {
    bool name = in.size > 1 && in.data[0] == '[' && in.data[in.size - 1] == ']';
    bool word = in.size >= 3 && !memcmp(in.data, mark, 3);
    if (!name && !word && text_add(out, "##", 2, e)) return -1;
    return text_add(out, in.data + (word ? 3 : 0), in.size - (word ? 3 : 0), e);
}

static int add_tokens(struct tokenizer *t, const struct tokenizer_parts *p, struct err *e) {
    struct text shown = {0};
    int rc = 0;
    for (i64 id = 0; !rc && id < p->count; id++) {
        struct bytes text = {p->token[id].data, p->token[id].size};
        enum token_type type = type_of(p, id);
        if (text.size < 0) continue;
        if (type < TOKEN_NORMAL || type > TOKEN_BYTE)
            return err_input(e, "%s: token %lld has type %d; expected 1 to 6", t->path,
                             (long long)id, (int)type);
        shown.size = 0;
        if (is_model(p, "tiktoken"))
            rc = bytes_show(&shown, text.data, text.size, e);
        else if (is_model(p, "bert") && type == TOKEN_NORMAL)
            rc = bert_text(text, &shown, e);
        if (shown.size) text = (struct bytes){shown.data, shown.size};
        t->vocab.adding = !is_piece(type) && type != TOKEN_BYTE;
        if (type == TOKEN_BYTE) t->byte_fallback = true;
        rc = rc || vocab_add(&t->vocab, text, id, t->path, e);
    }
    text_free(&shown);
    if (!rc && !t->vocab.used) rc = err_input(e, "%s: the vocabulary is empty", t->path);
    return rc ? -1 : 0;
}

/* ---- merges ---------------------------------------------------------------------------------- */
struct merges {
    struct merge *item;
    i64 count, capacity;
};

static int merges_add(struct merges *m, struct merge x, struct err *e) {
    if (m->count == m->capacity) {
        i64 n = i64_max(1 << 16, 2 * m->capacity), size = (i64)sizeof *m->item;
        void *p = mem_grow(m->item, m->capacity * size, n * size, e);
        if (!p) return -1;
        m->item = p;
        m->capacity = n;
    }
    m->item[m->count++] = x;
    return 0;
}

/* rank [count]: of each token that merging can make; NO_RANK: none. */
#define NO_RANK UINT32_MAX
static int merges_of_ranks(struct tokenizer *t, const u32 *rank, i64 count, struct err *e) {
    struct merges m = {0};
    int rc = 0;
    for (i64 id = 0; !rc && id < count; id++) {
        struct bytes b;
        if (rank[id] == NO_RANK || !vocab_text(&t->vocab, id, &b)) continue;
        for (i64 at = 1; !rc && at < b.size; at++) {
            if (((u8)b.data[at] & 0xc0) == 0x80) continue;
            i64 left = vocab_model(&t->vocab, b.data, at), right = -1;
            if (left >= 0 && rank[left] != NO_RANK)
                right = vocab_model(&t->vocab, b.data + at, b.size - at);
            if (right >= 0 && rank[right] != NO_RANK)
                rc = merges_add(&m, (struct merge){(u64)left << 32 | (u64)right, rank[id], (u32)id},
                                e);
        }
    }
    rc = rc || bpe_reserve(&t->bpe, m.count, e);
    for (i64 i = 0; !rc && i < m.count; i++)
        bpe_add_merge(&t->bpe, (u32)(m.item[i].pair >> 32), (u32)m.item[i].pair, m.item[i].rank,
                      m.item[i].id);
    mem_free(m.item);
    return rc ? -1 : 0;
}

struct scored {
    float score;
    u32 id;
};
static int by_score(const void *a, const void *b) {
    float x = ((const struct scored *)a)->score, y = ((const struct scored *)b)->score;
    return x > y ? -1 : x < y;
}

/* Equal scores are equal ranks: the leftmost pair wins. */
static int merges_of_scores(struct tokenizer *t, const struct tokenizer_parts *p, struct err *e) {
    struct scored *s = mem_new_array(p->count, sizeof *s, e);
    u32 *rank = s ? mem_new_array(p->count, sizeof *rank, e) : NULL, n = 0;
    i64 count = 0;
    int rc = rank ? 0 : -1;
    for (i64 id = 0; !rc && id < p->count; id++) {
        rank[id] = NO_RANK;
        if (isnan(p->score[id]))
            rc =
                err_input(e, "%s: the score of token %lld is not a number", t->path, (long long)id);
        if (is_piece(type_of(p, id))) s[count++] = (struct scored){p->score[id], (u32)id};
    }
    if (!rc && count) qsort(s, (size_t)count, sizeof *s, by_score);
    for (i64 i = 0; !rc && i < count; i++) {
        n += i && s[i].score != s[i - 1].score;
        rank[s[i].id] = n;
    }
    rc = rc || merges_of_ranks(t, rank, p->count, e);
    mem_free(s), mem_free(rank);
    return rc ? -1 : 0;
}

static int merges_of_ids(struct tokenizer *t, const struct tokenizer_parts *p, struct err *e) {
    u32 *rank = mem_new_array(p->count, sizeof *rank, e);
    if (!rank) return -1;
    for (i64 id = 0; id < p->count; id++)
        rank[id] = type_of(p, id) == TOKEN_NORMAL ? (u32)id : NO_RANK;
    int rc = merges_of_ranks(t, rank, p->count, e);
    mem_free(rank);
    return rc;
}

static int merges_of_text(struct tokenizer *t, const struct tokenizer_parts *p, struct err *e) {
    struct text joined = {0};
    int rc = bpe_reserve(&t->bpe, p->merges_count, e);
    for (i64 i = 0; !rc && i < p->merges_count; i++) {
        const struct bytes m = p->merge[i];
        const char *cut = m.size > 1 ? memchr(m.data + 1, ' ', (size_t)m.size - 1) : NULL;
        struct bytes part[2] = {{m.data, cut ? cut - m.data : 0},
                                {cut ? cut + 1 : "", cut ? m.data + m.size - cut - 1 : 0}};
        rc = cut ? read_merge(t, part, i, &joined, e)
                 : err_input(e, "%s: merge %lld is \"%.*s\"; expected two tokens", t->path,
                             (long long)i, (int)i64_min(m.size, 60), m.data);
    }
    text_free(&joined);
    return rc ? -1 : 0;
}

/* ---- the kinds of model ---------------------------------------------------------------------- */
static int read_json(struct tokenizer *t, const char *decoder, const char *norm, const char *pre,
                     bool *bytes, struct err *e) {
    const char *text[3] = {norm, pre, decoder};
    int rc = 0;
    for (int i = 0; !rc && i < 3; i++) {
        json_t *j = text[i] ? json_parse(text[i], (i64)strlen(text[i]), t->path, e) : NULL;
        rc = text[i] && !j ? -1
             : i == 0      ? read_norms(t, j, e)
             : i == 1      ? read_stages(t, j, bytes, e)
                           : read_decoders(t, j, e);
        json_decref(j);
    }
    return rc ? -1 : 0;
}

static int build_bytes(struct tokenizer *t, const struct tokenizer_parts *p, bool *bytes,
                       struct err *e) {
    struct pre pre = {0};
    t->model = bpe_word;
    if (is_model(p, "tiktoken") ? merges_of_ids(t, p, e) : merges_of_text(t, p, e)) return -1;
    int rc = pre_find(p->pre ? p->pre : "default", p->pattern, t->path, &pre, e) ||
             read_json(t, "{\"type\": \"ByteLevel\"}", NULL, NULL, bytes, e) ||
             read_norms(t, pre.normalizer, e) || read_stages(t, pre.pre_tokenizer, bytes, e);
    json_decref(pre.normalizer), json_decref(pre.pre_tokenizer);
    t->bpe.ignore_merges = pre.ignore_merges || is_model(p, "tiktoken");
    if (!rc && is_model(p, "tiktoken") && !*bytes)
        rc = err_input(e, "%s: not every byte has a rank", t->path);
    return rc ? -1 : 0;
}

static int keep_charsmap(struct tokenizer *t, const struct tokenizer_parts *p, struct norm *n,
                         struct err *e) {
    if (!p->charsmap.size) return 0;
    char *copy = arena_new(&t->arena, p->charsmap.size, e);
    if (!copy || !(n->map = arena_new(&t->arena, sizeof *n->map, e))) return -1;
    memcpy(copy, p->charsmap.data, (size_t)p->charsmap.size);
    return charsmap_open(n->map, (struct bytes){copy, p->charsmap.size}, t->path, e);
}

/* User-defined symbols of a model that is read as SentencePiece reads it. */
static int find_users(struct tokenizer *t, const struct tokenizer_parts *p, struct err *e) {
    i64 count = 0;
    for (i64 id = 0; id < p->count; id++)
        count += !p->cut_added && p->token[id].size > 0 && type_of(p, id) == TOKEN_USER_DEFINED;
    if (!count) return 0;
    if (!(t->user.token = mem_new_array(count, sizeof *t->user.token, e))) return -1;
    for (i64 id = 0; id < p->count; id++) {
        struct bytes b;
        if (type_of(p, id) == TOKEN_USER_DEFINED && vocab_text(&t->vocab, id, &b))
            t->user.token[t->user.count++] = (struct added_token){.content = b, .id = (u32)id};
    }
    added_sort(&t->user);
    return 0;
}

static int read_scores(struct tokenizer *t, const struct tokenizer_parts *p, struct err *e) {
    double *score = mem_new_array(p->count, sizeof *score, e);
    if (!score) return -1;
    for (i64 id = 0; id < p->count; id++)
        score[id] = !is_piece(type_of(p, id))              ? NAN
                    : type_of(p, id) == TOKEN_USER_DEFINED ? INFINITY
                                                           : (double)p->score[id];
    t->model = unigram_word;
    t->unigram.single = true;
    int rc = unigram_build(t, score, p->count, e);
    mem_free(score);
    return rc;
}

static int build_sentencepiece(struct tokenizer *t, const struct tokenizer_parts *p, bool *bytes,
                               struct err *e) {
    char decoder[400];
    const bool space = p->add_space_prefix || p->remove_extra_whitespaces;
    snprintf(
        decoder, sizeof decoder,
        "{\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": {\"String\": "
        "\"%s\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}, "
        "{\"type\": "
        "\"Strip\", \"content\": \" \", \"start\": %d, \"stop\": %d}]}",
        mark, space && !p->whitespace_suffix, space && p->whitespace_suffix);
    if (!p->score) return err_input(e, "%s: there are no scores", t->path);
    if (find_users(t, p, e) || read_json(t, decoder, NULL, NULL, bytes, e)) return -1;
    t->norms = 1;
    t->norm[0] = (struct norm){.kind = NORM_SENTENCEPIECE,
                               .keep = &t->user,
                               .prefix = p->add_space_prefix,
                               .once = p->prefix_once,
                               .squeeze = p->remove_extra_whitespaces,
                               .suffix = p->whitespace_suffix,
                               .escape = p->escape_whitespaces};
    if (keep_charsmap(t, p, &t->norm[0], e)) return -1;
    t->bpe.fuse_unk = true;
    if (is_model(p, "t5")) return read_scores(t, p, e);
    t->model = bpe_word;
    return merges_of_scores(t, p, e);
}

static int build_bert(struct tokenizer *t, const struct tokenizer_parts *p, bool *bytes,
                      struct err *e) {
    (void)p;
    t->model = wordpiece_word;
    t->wordpiece = (struct wordpiece){{"##", 2}, 100};
    return read_json(t, "{\"type\": \"WordPiece\", \"prefix\": \"##\"}",
                     "{\"type\": \"BertNormalizer\"}", "{\"type\": \"BertPreTokenizer\"}", bytes,
                     e);
}

/* ---- added tokens, and the whole ------------------------------------------------------------- */
static int add_added(struct tokenizer *t, const struct tokenizer_parts *p, struct err *e) {
    json_t *list = json_array();
    int rc = list ? 0 : -1;
    for (i64 id = 0; !rc && p->cut_added && id < p->count; id++) {
        enum token_type type = type_of(p, id);
        struct bytes b;
        if (type != TOKEN_CONTROL && type != TOKEN_USER_DEFINED && id != p->unk) continue;
        bool named = false; /* `added` says it better */
        for (size_t i = 0; !named && i < json_array_size(p->added); i++) {
            const json_t *other = json_object_get(json_array_get(p->added, i), "id");
            named = json_is_integer(other) && json_integer_value(other) == id;
        }
        if (named || !vocab_text(&t->vocab, id, &b)) continue;
        json_t *content = json_stringn(b.data, (size_t)b.size);
        rc = json_array_append_new(list, json_pack("{s:I, s:o, s:b, s:b}", "id", (json_int_t)id,
                                                   "content", content, "special",
                                                   type != TOKEN_USER_DEFINED, "normalized", 0));
    }
    for (size_t i = 0; !rc && i < json_array_size(p->added); i++)
        rc = json_array_append(list, json_array_get(p->added, i));
    if (rc) err_input(e, "%s: an added token is not UTF-8, or memory ran out", t->path);
    rc = rc || read_added(t, list, e);
    for (i64 id = 0; !rc && id < p->count; id++)
        if (type_of(p, id) == TOKEN_CONTROL) t->special[id] = 1;
    json_decref(list);
    return rc ? -1 : 0;
}

static int add_around(struct tokenizer *t, const struct tokenizer_parts *p, struct err *e) {
    const bool bert = is_model(p, "bert");
    const i64 first = bert ? p->cls : p->bos, last = bert ? p->sep : p->eos;
    struct bytes b;
    if ((p->add_bos || bert) && vocab_text(&t->vocab, first, &b) &&
        ids_add(&t->prefix, (u32)first, e))
        return -1;
    return (p->add_eos || bert) && vocab_text(&t->vocab, last, &b)
               ? ids_add(&t->suffix, (u32)last, e)
               : 0;
}

static int parts_sha256(struct tokenizer *t, const struct tokenizer_parts *p, struct err *e) {
    struct sha256 s;
    if (p->sha256) return memmove(t->sha256, p->sha256, sizeof t->sha256), 0;
    if (sha256_begin(&s, e)) return -1;
    sha256_add(&s, p->model, (i64)strlen(p->model));
    if (p->pre) sha256_add(&s, p->pre, (i64)strlen(p->pre));
    for (i64 i = 0; i < p->count; i++) {
        sha256_add(&s, &p->token[i].size, sizeof p->token[i].size);
        if (p->token[i].size > 0) sha256_add(&s, p->token[i].data, p->token[i].size);
    }
    if (p->score) sha256_add(&s, p->score, p->count * (i64)sizeof *p->score);
    if (p->type) sha256_add(&s, p->type, p->count * (i64)sizeof *p->type);
    for (i64 i = 0; i < p->merges_count; i++) {
        sha256_add(&s, &p->merge[i].size, sizeof p->merge[i].size);
        sha256_add(&s, p->merge[i].data, p->merge[i].size);
    }
    sha256_end(&s, t->sha256);
    return 0;
}

int parts_build(struct tokenizer *t, const struct tokenizer_parts *p, struct err *e) {
    static const struct {
        const char *model;
        int (*build)(struct tokenizer *t, const struct tokenizer_parts *p, bool *bytes,
                     struct err *e);
    } table[] = {{"gpt2", build_bytes},
                 {"tiktoken", build_bytes},
                 {"llama", build_sentencepiece},
                 {"t5", build_sentencepiece},
                 {"bert", build_bert}};
    bool bytes = false;
    for (int i = 0; i < COUNT(table); i++) {
        if (strcmp(table[i].model, p->model)) continue;
        t->unk_id = p->unk >= 0 && p->unk < p->count && p->token[p->unk].size >= 0 ? p->unk : -1;
        t->bos = p->bos, t->eos = p->eos;
        if (add_tokens(t, p, e) || table[i].build(t, p, &bytes, e) || add_added(t, p, e) ||
            add_around(t, p, e) || parts_sha256(t, p, e))
            return -1;
        tokenizer_finish(t, bytes);
        return 0;
    }
    err_input(e, "%s: tokenizer model '%.60s' is not supported", t->path, p->model);
    return err_detail(e, "supported: gpt2, llama, t5, bert, tiktoken");
}

struct tokenizer *tokenizer_from_parts(const struct tokenizer_parts *p, struct err *e) {
    struct tokenizer *t = tokenizer_new(e);
    if (t && (t->path = mem_text(p->name, e)) && !parts_build(t, p, e)) return t;
    err_frame(e, "while reading the tokenizer of %s", p->name);
    tokenizer_free(t);
    return NULL;
}
