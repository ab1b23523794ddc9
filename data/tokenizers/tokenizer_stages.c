/* tokenizer_stages.c: the lists of normalizers, pre-tokenizers and decoders in a tokenizer.json.
 * Sequences are flattened; what several components share becomes one stage (Digits is a Split,
 * ByteLevel a prefix, a Split and the byte alphabet). Each kind is a row of a table; a name without
 * a row is refused. */
#include <openssl/evp.h>
#include <string.h>
#include "data/tokenizers/tokenizers_int.h"

struct reader { /* one list being read */
    struct tokenizer *t;
    const char *what, *nested; /* "normalizer", the key of a Sequence's members */
    char where[600];           /* "FILE: normalizer 'Replace'" */
    const struct component {
        const char *type;
        int (*read)(struct reader *r, const json_t *j, struct err *e);
        int kind; /* for `read` */
    } * table;
    i64 count, capacity; /* stages so far */
    int kind;
};

static int keep(struct reader *r, const json_t *j, const char *key, struct bytes *out,
                struct err *e) {
    struct bytes b;
    if (json_bytes(j, key, r->where, &b, e)) return -1;
    char *copy = arena_new(&r->t->arena, b.size + 1, e);
    if (!copy) return -1;
    memcpy(copy, b.data, (size_t)b.size);
    *out = (struct bytes){copy, b.size};
    return 0;
}

static int keep_one_character(struct reader *r, const json_t *j, const char *key, struct bytes *out,
                              struct err *e) {
    i64 at = 0;
    if (keep(r, j, key, out, e)) return -1;
    if (out->size && (code_at(out->data, &at), at == out->size)) return 0;
    return err_input(e, "%s: \"%s\" is \"%s\"; expected one character", r->where, key, out->data);
}

/* {"String": literal} or {"Regex": pattern}. */
static int read_pattern(struct reader *r, const json_t *j, struct pattern *p, enum pattern_use use,
                        struct err *e) {
    const json_t *pattern = json_object_get(j, "pattern");
    struct bytes regex;
    if (json_object_get(pattern, "String")) {
        if (keep(r, pattern, "String", &p->literal, e)) return -1;
        return p->literal.size ? 0 : err_input(e, "%s: the pattern is empty", r->where);
    }
    if (!json_object_get(pattern, "Regex"))
        return err_input(e, "%s: \"pattern\" must be {\"String\": ...} or {\"Regex\": ...}",
                         r->where);
    if (json_bytes(pattern, "Regex", r->where, &regex, e)) return -1;
    return pattern_compile(p, regex.data, r->where, use, e);
}

static int take(struct reader *r, struct err *e) { /* a place for one more stage */
    if (r->count < r->capacity) return 0;
    return err_input(e, "%s: more than %lld %s stages", r->where, (long long)r->capacity, r->what);
}

static int read_list(struct reader *r, const json_t *j, struct err *e) {
    if (!j || json_is_null(j)) return 0;
    snprintf(r->where, sizeof r->where, "%.500s: %s", r->t->path, r->what);
    const char *type = json_kind(j, r->where, e);
    if (!type) return -1;
    if (!strcmp(type, "Sequence")) {
        const json_t *list = json_object_get(j, r->nested);
        if (!json_is_array(list))
            return err_input(e, "%s: a Sequence without \"%s\"", r->where, r->nested);
        for (size_t i = 0; i < json_array_size(list); i++)
            if (read_list(r, json_array_get(list, i), e)) return -1;
        return 0;
    }
    for (const struct component *c = r->table; c->type; c++) {
        if (strcmp(c->type, type)) continue;
        snprintf(r->where, sizeof r->where, "%.500s: %s '%s'", r->t->path, r->what, c->type);
        r->kind = c->kind;
        return c->read(r, j, e);
    }
    char known[400] = "Sequence";
    for (const struct component *c = r->table; c->type; c++) {
        strcat(known, ", ");
        strcat(known, c->type);
    }
    err_input(e, "%s '%.60s' is not supported", r->where, type);
    return err_detail(e, "supported: %s", known);
}

/* ---- normalizers ----------------------------------------------------------------------------- */
static int norm_add(struct reader *r, struct norm **n, struct err *e) {
    if (take(r, e)) return -1;
    *n = &r->t->norm[r->t->norms++];
    (*n)->kind = (enum norm_kind)r->kind;
    r->count++;
    return 0;
}
static int norm_plain(struct reader *r, const json_t *j, struct err *e) {
    struct norm *n;
    (void)j;
    return norm_add(r, &n, e);
}
static int norm_prepend(struct reader *r, const json_t *j, struct err *e) {
    struct norm *n;
    return norm_add(r, &n, e) || keep(r, j, "prepend", &n->content, e);
}
static int norm_replace(struct reader *r, const json_t *j, struct err *e) {
    struct norm *n;
    return norm_add(r, &n, e) || read_pattern(r, j, &n->pattern, PATTERN_REGEX, e) ||
           keep(r, j, "content", &n->content, e);
}
static int norm_strip(struct reader *r, const json_t *j, struct err *e) {
    struct norm *n;
    if (norm_add(r, &n, e)) return -1;
    n->left = json_bool(j, "strip_left", true, r->where, e);
    n->right = json_bool(j, "strip_right", true, r->where, e);
    return e->code ? -1 : 0;
}
static int norm_bert(struct reader *r, const json_t *j, struct err *e) {
    struct norm *n;
    if (norm_add(r, &n, e)) return -1;
    n->clean = json_bool(j, "clean_text", true, r->where, e);
    n->chinese = json_bool(j, "handle_chinese_chars", true, r->where, e);
    n->lower = json_bool(j, "lowercase", true, r->where, e);
    n->accents = n->lower;
    if (json_object_get(j, "strip_accents") && !json_is_null(json_object_get(j, "strip_accents")))
        n->accents = json_bool(j, "strip_accents", false, r->where, e);
    return e->code ? -1 : 0;
}

/* libcrypto passes over blanks and takes '=' anywhere: only what is base64 is handed to it. */
i64 base64_decode(const char *in, i64 size, char *out) {
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (size % 4 || size > INT32_MAX) return -1;
    const i64 pad = size && in[size - 1] == '=' ? 1 + (in[size - 2] == '=') : 0;
    for (i64 i = 0; i < size - pad; i++)
        if (!in[i] || !strchr(digit, in[i])) return -1;
    return EVP_DecodeBlock((u8 *)out, (const u8 *)in, (int)size) - pad;
}

static int norm_precompiled(struct reader *r, const json_t *j, struct err *e) {
    struct norm *n;
    struct bytes b;
    if (norm_add(r, &n, e) || json_bytes(j, "precompiled_charsmap", r->where, &b, e)) return -1;
    char *blob = arena_new(&r->t->arena, b.size + 4, e);
    if (!blob || !(n->map = arena_new(&r->t->arena, sizeof *n->map, e))) return -1;
    i64 size = base64_decode(b.data, b.size, blob);
    if (size < 0) return err_input(e, "%s: \"precompiled_charsmap\" is not base64", r->where);
    return charsmap_open(n->map, (struct bytes){blob, size}, r->where, e);
}

int read_norms(struct tokenizer *t, const json_t *j, struct err *e) {
    static const struct component table[] = {
        {"NFC", norm_plain, NORM_NFC},
        {"NFD", norm_plain, NORM_NFD},
        {"NFKC", norm_plain, NORM_NFKC},
        {"NFKD", norm_plain, NORM_NFKD},
        {"Lowercase", norm_plain, NORM_LOWERCASE},
        {"Prepend", norm_prepend, NORM_PREPEND},
        {"Replace", norm_replace, NORM_REPLACE},
        {"Strip", norm_strip, NORM_STRIP},
        {"StripAccents", norm_plain, NORM_STRIP_ACCENTS},
        {"BertNormalizer", norm_bert, NORM_BERT},
        {"ByteLevel", norm_plain, NORM_BYTES},
        {"Precompiled", norm_precompiled, NORM_CHARSMAP},
        {NULL, NULL, 0},
    };
    struct reader r = {.t = t,
                       .what = "normalizer",
                       .nested = "normalizers",
                       .table = table,
                       .capacity = STAGE_LIMIT};
    t->norm = arena_new(&t->arena, STAGE_LIMIT * (i64)sizeof *t->norm, e);
    return t->norm && !read_list(&r, j, e) ? 0 : -1;
}

/* ---- pre-tokenizers -------------------------------------------------------------------------- */
static int stage_add(struct reader *r, struct stage s, struct stage **out, struct err *e) {
    if (take(r, e)) return -1;
    *out = &r->t->stage[r->t->stages++];
    **out = s;
    r->count++;
    return 0;
}

static int stage_bytelevel(struct reader *r, const json_t *j, struct err *e) {
    bool prefix = json_bool(j, "add_prefix_space", true, r->where, e);
    bool regex = json_bool(j, "use_regex", true, r->where, e);
    struct stage *s, space = {.kind = STAGE_PREFIX, .prefix = {" ", 1}, .when = PREFIX_ALWAYS};
    if (e->code || (prefix && stage_add(r, space, &s, e))) return -1;
    if (regex &&
        (stage_add(r, (struct stage){.kind = STAGE_SPLIT, .behaviour = SPLIT_ISOLATED}, &s, e) ||
         pattern_compile(&s->pattern, pattern_gpt2, r->where, PATTERN_COVER, e)))
        return -1;
    return stage_add(r, (struct stage){.kind = STAGE_BYTES}, &s, e);
}

static int read_behaviour(struct reader *r, const json_t *j, enum behaviour *to, struct err *e) {
    static const char *const name[] = {"Removed", "Isolated", "MergedWithPrevious",
                                       "MergedWithNext", "Contiguous"};
    struct bytes behaviour;
    if (json_bytes(j, "behavior", r->where, &behaviour, e)) return -1;
    for (int i = 0; i < COUNT(name); i++)
        if (!strcmp(name[i], behaviour.data)) return *to = (enum behaviour)i, 0;
    return err_input(e, "%s: unknown behavior \"%.40s\"", r->where, behaviour.data);
}

static int stage_split(struct reader *r, const json_t *j, struct err *e) {
    struct stage *s;
    if (stage_add(r, (struct stage){.kind = STAGE_SPLIT}, &s, e) ||
        read_behaviour(r, j, &s->behaviour, e))
        return -1;
    s->invert = json_bool(j, "invert", false, r->where, e);
    enum pattern_use use = s->behaviour == SPLIT_ISOLATED               ? PATTERN_GAPS
                           : s->behaviour == SPLIT_REMOVED && s->invert ? PATTERN_COVER
                                                                        : PATTERN_REGEX;
    return e->code || read_pattern(r, j, &s->pattern, use, e) ? -1 : 0;
}

static int split_at(struct reader *r, int classes, enum behaviour behaviour, struct err *e) {
    struct stage *s,
        split = {.kind = STAGE_SPLIT, .behaviour = behaviour, .pattern = {.set = (u16)classes}};
    return stage_add(r, split, &s, e);
}

static int stage_digits(struct reader *r, const json_t *j, struct err *e) {
    bool each = json_bool(j, "individual_digits", false, r->where, e);
    return e->code ? -1 : split_at(r, CLASS_NUMERIC, each ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS, e);
}

static int stage_punctuation(struct reader *r, const json_t *j, struct err *e) {
    enum behaviour behaviour = SPLIT_ISOLATED;
    if (json_object_get(j, "behavior") && read_behaviour(r, j, &behaviour, e)) return -1;
    return split_at(r, CLASS_BERT_PUNCTUATION, behaviour, e);
}

static int stage_bert(struct reader *r, const json_t *j, struct err *e) {
    (void)j;
    return split_at(r, CLASS_WHITE, SPLIT_REMOVED, e) ||
           split_at(r, CLASS_BERT_PUNCTUATION, SPLIT_ISOLATED, e);
}

/* \w+|[^\w\s]+, which is what is left between white space, cut where \w begins and ends. */
static int stage_whitespace(struct reader *r, const json_t *j, struct err *e) {
    (void)j;
    return split_at(r, CLASS_WHITE, SPLIT_REMOVED, e) ||
           (r->kind && split_at(r, CLASS_WORD, SPLIT_CONTIGUOUS, e));
}

static int stage_delimiter(struct reader *r, const json_t *j, struct err *e) {
    struct stage *s;
    return stage_add(r, (struct stage){.kind = STAGE_SPLIT, .behaviour = SPLIT_REMOVED}, &s, e) ||
           keep_one_character(r, j, "delimiter", &s->pattern.literal, e);
}

/* prepend_scheme, or add_prefix_space in files from before there were schemes. */
static int metaspace_when(struct reader *r, const json_t *j, enum prefix_when *when,
                          struct err *e) {
    static const char *const name[] = {"never", "first", "always"};
    bool old = json_bool(j, "add_prefix_space", true, r->where, e);
    const char *scheme = json_text(j, "prepend_scheme", old ? "always" : "never", r->where, e);
    if (e->code) return -1;
    for (int i = 0; i < COUNT(name); i++)
        if (!strcmp(name[i], scheme)) return *when = (enum prefix_when)i, 0;
    return err_input(e, "%s: prepend_scheme is \"%.40s\"; expected always, first or never",
                     r->where, scheme);
}

static int stage_metaspace(struct reader *r, const json_t *j, struct err *e) {
    struct stage *s, *split;
    if (stage_add(r, (struct stage){.kind = STAGE_PREFIX, .spaces = true}, &s, e) ||
        keep_one_character(r, j, "replacement", &s->prefix, e) || metaspace_when(r, j, &s->when, e))
        return -1;
    if (!json_bool(j, "split", true, r->where, e)) return e->code ? -1 : 0;
    struct stage words = {.kind = STAGE_SPLIT,
                          .behaviour = SPLIT_MERGED_WITH_NEXT,
                          .pattern = {.literal = s->prefix}};
    return e->code ? -1 : stage_add(r, words, &split, e);
}

/* A final ByteLevel needs no mapped text: the model starts from bytes, if it knows all 256. */
static bool all_bytes_known(const struct vocab *v) {
    for (int i = 0; i < 256; i++) {
        char u[4];
        if (vocab_find(v, u, utf8_put(byte_to_code((u8)i), u)) < 0) return false;
    }
    return true;
}

int read_stages(struct tokenizer *t, const json_t *j, bool *bytes, struct err *e) {
    static const struct component table[] = {
        {"ByteLevel", stage_bytelevel, 0},
        {"Split", stage_split, 0},
        {"Digits", stage_digits, 0},
        {"Punctuation", stage_punctuation, 0},
        {"Metaspace", stage_metaspace, 0},
        {"Whitespace", stage_whitespace, 1},
        {"WhitespaceSplit", stage_whitespace, 0},
        {"BertPreTokenizer", stage_bert, 0},
        {"CharDelimiterSplit", stage_delimiter, 0},
        {NULL, NULL, 0},
    };
    struct reader r = {.t = t,
                       .what = "pre_tokenizer",
                       .nested = "pretokenizers",
                       .table = table,
                       .capacity = STAGE_LIMIT};
    t->stage = arena_new(&t->arena, STAGE_LIMIT * (i64)sizeof *t->stage, e);
    if (!t->stage || read_list(&r, j, e)) return -1;
    *bytes = t->model == bpe_word && !t->bpe.prefix.size && !t->bpe.suffix.size && t->stages &&
             t->stage[t->stages - 1].kind == STAGE_BYTES && all_bytes_known(&t->vocab);
    t->stages -= *bytes;
    return 0;
}

/* ---- decoders -------------------------------------------------------------------------------- */
static int decoder_add(struct reader *r, struct decoder **d, struct err *e) {
    if (take(r, e)) return -1;
    *d = &r->t->decoder[r->t->decoders++];
    (*d)->kind = (enum decoder_kind)r->kind;
    r->count++;
    return 0;
}
static int decoder_plain(struct reader *r, const json_t *j, struct err *e) {
    struct decoder *d;
    (void)j;
    return decoder_add(r, &d, e);
}
static int decoder_replace(struct reader *r, const json_t *j, struct err *e) {
    struct decoder *d;
    return decoder_add(r, &d, e) || read_pattern(r, j, &d->pattern, PATTERN_REGEX, e) ||
           keep(r, j, "content", &d->content, e);
}
static int decoder_strip(struct reader *r, const json_t *j, struct err *e) {
    struct decoder *d;
    if (decoder_add(r, &d, e) || keep_one_character(r, j, "content", &d->content, e)) return -1;
    d->start = json_i64(j, "start", 0, r->where, e);
    d->stop = json_i64(j, "stop", 0, r->where, e);
    if (e->code) return -1;
    return d->start < 0 || d->stop < 0
               ? err_input(e, "%s: start and stop must not be negative", r->where)
               : 0;
}
static int decoder_metaspace(struct reader *r, const json_t *j, struct err *e) {
    struct decoder *d;
    enum prefix_when when;
    if (decoder_add(r, &d, e) || keep_one_character(r, j, "replacement", &d->content, e) ||
        metaspace_when(r, j, &when, e))
        return -1;
    d->start = when != PREFIX_NEVER;
    return 0;
}
static int decoder_wordpiece(struct reader *r, const json_t *j, struct err *e) {
    struct decoder *d;
    if (decoder_add(r, &d, e) || keep(r, j, "prefix", &d->content, e)) return -1;
    d->cleanup = json_bool(j, "cleanup", true, r->where, e);
    return e->code ? -1 : 0;
}
static int decoder_bpe(struct reader *r, const json_t *j, struct err *e) {
    struct decoder *d;
    if (decoder_add(r, &d, e) || keep(r, j, "suffix", &d->content, e)) return -1;
    return d->content.size ? 0 : err_input(e, "%s: \"suffix\" is empty", r->where);
}

int read_decoders(struct tokenizer *t, const json_t *j, struct err *e) {
    static const struct component table[] = {
        {"ByteLevel", decoder_plain, DECODE_BYTES},
        {"Replace", decoder_replace, DECODE_REPLACE},
        {"ByteFallback", decoder_plain, DECODE_FALLBACK},
        {"Fuse", decoder_plain, DECODE_FUSE},
        {"Strip", decoder_strip, DECODE_STRIP},
        {"Metaspace", decoder_metaspace, DECODE_METASPACE},
        {"WordPiece", decoder_wordpiece, DECODE_WORDPIECE},
        {"BPEDecoder", decoder_bpe, DECODE_BPE},
        {NULL, NULL, 0},
    };
    struct reader r = {
        .t = t, .what = "decoder", .nested = "decoders", .table = table, .capacity = STAGE_LIMIT};
    t->decoder = arena_new(&t->arena, STAGE_LIMIT * (i64)sizeof *t->decoder, e);
    t->decodes = json_is_object(j);
    return t->decoder && !read_list(&r, j, e) ? 0 : -1;
}
