/* tokenizer_spm.c: a SentencePiece .model: a protocol buffer (sentencepiece_model.proto of
 * google/sentencepiece), read strictly: lengths are checked, unknown fields are passed over, groups
 * and broken varints are refused.
 *
 * Alone, the file is read as SentencePiece reads it. In a model folder (there is a
 * tokenizer_config.json) it is read as transformers does: control tokens and user-defined symbols
 * are cut out of the text first, and what lies between begins with a space of its own unless
 * "legacy" is false. */
#include <string.h>
#include "data/tokenizers/tokenizers_int.h"

struct proto {
    const u8 *at, *end;
    const char *where;
};
struct field {
    i64 number;
    u64 value;          /* varint, or the bits of a fixed one */
    struct bytes bytes; /* length-delimited */
    int wire;
};

static int varint(struct proto *p, u64 *out, struct err *e) {
    *out = 0;
    for (int shift = 0; p->at < p->end && shift < 64; shift += 7) {
        u8 c = *p->at++;
        *out |= (u64)(c & 127) << shift;
        if (c < 128) return 0;
    }
    return err_input(e, "%s: a number is cut off", p->where);
}

/* 1: a field, 0: the end, -1: an error. */
static int field_next(struct proto *p, struct field *f, struct err *e) {
    u64 key, size;
    if (p->at == p->end) return 0;
    if (varint(p, &key, e)) return -1;
    *f = (struct field){.number = (i64)(key >> 3), .wire = (int)(key & 7)};
    if (f->wire == 0) return varint(p, &f->value, e) ? -1 : 1;
    if (f->wire == 2 && varint(p, &size, e)) return -1;
    if (f->wire != 1 && f->wire != 2 && f->wire != 5)
        return err_input(e, "%s: field %lld has wire type %d; this is no SentencePiece model",
                         p->where, (long long)f->number, f->wire);
    if (f->wire != 2) size = f->wire == 1 ? 8 : 4;
    if (size > (u64)(p->end - p->at))
        return err_input(e, "%s: field %lld says %llu bytes, but %lld are left", p->where,
                         (long long)f->number, (unsigned long long)size,
                         (long long)(p->end - p->at));
    f->bytes = (struct bytes){(const char *)p->at, (i64)size};
    for (u64 i = 0; f->wire != 2 && i < size; i++) f->value |= (u64)p->at[i] << 8 * i;
    p->at += size;
    return 1;
}

static struct proto inside(const struct field *f, const char *where) {
    const u8 *data = (const u8 *)f->bytes.data;
    return (struct proto){data, data + f->bytes.size, where};
}

struct spm {
    struct tokenizer_parts parts;
    struct bytes *token;
    float *score;
    i32 *type;
    i64 capacity, model, unk, bos, eos;
    bool byte_fallback;
};

static int piece_read(struct spm *s, const struct field *from, const char *where, struct err *e) {
    struct proto p = inside(from, where);
    struct field f;
    struct bytes text = {"", 0};
    float score = 0;
    u64 type = TOKEN_NORMAL;
    int more;
    while ((more = field_next(&p, &f, e)) > 0) {
        if (f.number == 1 && f.wire == 2) text = (struct bytes){f.bytes.data, f.bytes.size};
        if (f.number == 2 && f.wire == 5) {
            u32 bits = (u32)f.value;
            memcpy(&score, &bits, 4);
        }
        if (f.number == 3 && f.wire == 0) type = f.value;
    }
    const i64 id = s->parts.count;
    if (more) return -1;
    if (!text.size || utf8_bad(text.data, text.size) >= 0)
        return err_input(e, "%s: piece %lld is empty or no UTF-8", where, (long long)id);
    if (type < TOKEN_NORMAL || type > TOKEN_BYTE)
        return err_input(e, "%s: piece %lld has type %llu; expected 1 to 6", where, (long long)id,
                         (unsigned long long)type);
    if (id == s->capacity) {
        i64 n = i64_max(4096, 2 * s->capacity);
        void *token = mem_grow(s->token, id * (i64)sizeof *s->token, n * (i64)sizeof *s->token, e);
        if (token) s->token = token;
        void *scores = token ? mem_grow(s->score, id * 4, n * 4, e) : NULL;
        if (scores) s->score = scores;
        void *types = scores ? mem_grow(s->type, id * 4, n * 4, e) : NULL;
        if (!types) return -1;
        s->type = types;
        s->capacity = n;
    }
    s->token[id] = text, s->score[id] = score, s->type[id] = (i32)type;
    if (type == TOKEN_UNKNOWN) s->unk = id;
    s->parts.count++;
    return 0;
}

static int trainer_read(struct spm *s, const struct field *from, const char *where, struct err *e) {
    struct proto p = inside(from, where);
    struct field f;
    int more;
    while ((more = field_next(&p, &f, e)) > 0) {
        if (f.wire) continue;
        if (f.number == 3) s->model = (i64)f.value;
        if (f.number == 24) s->parts.whitespace_suffix = f.value;
        if (f.number == 41) s->bos = (i32)f.value;
        if (f.number == 42) s->eos = (i32)f.value;
    }
    return more;
}

static int normalizer_read(struct spm *s, const struct field *from, const char *where,
                           struct err *e) {
    struct proto p = inside(from, where);
    struct field f;
    int more;
    while ((more = field_next(&p, &f, e)) > 0) {
        if (f.number == 2 && f.wire == 2)
            s->parts.charsmap = (struct bytes){f.bytes.data, f.bytes.size};
        if (f.wire) continue;
        if (f.number == 3) s->parts.add_space_prefix = f.value;
        if (f.number == 4) s->parts.remove_extra_whitespaces = f.value;
        if (f.number == 5) s->parts.escape_whitespaces = f.value;
    }
    return more;
}

static int model_read(struct spm *s, struct bytes file, const char *where, struct err *e) {
    struct proto p = {(const u8 *)file.data, (const u8 *)file.data + file.size, where};
    struct field f;
    int more;
    while ((more = field_next(&p, &f, e)) > 0) {
        if (f.wire != 2) continue;
        if ((f.number == 1 && piece_read(s, &f, where, e)) ||
            (f.number == 2 && trainer_read(s, &f, where, e)) ||
            (f.number == 3 && normalizer_read(s, &f, where, e)))
            return -1;
    }
    if (more) return -1;
    if (!s->parts.count) return err_input(e, "%s: there are no pieces", where);
    if (s->model != 1 && s->model != 2)
        return err_input(e, "%s: SentencePiece model type %lld (%s) is not supported", where,
                         (long long)s->model,
                         s->model == 3   ? "word"
                         : s->model == 4 ? "char"
                                         : "unknown"),
               err_detail(e, "supported: 1 (unigram), 2 (bpe)");
    for (i64 id = 0; s->model == 2 && id < s->parts.count; id++)
        if (s->type[id] == TOKEN_UNUSED)
            return err_input(
                e, "%s: piece %lld of a BPE model is of the type UNUSED, which is not supported",
                where, (long long)id);
    return s->unk >= 0 ? 0 : err_input(e, "%s: no piece is of the type UNKNOWN", where);
}

static i64 known(const struct spm *s, i64 id) { return id < s->parts.count ? id : -1; }

int sentencepiece_read(struct tokenizer *t, struct bytes file, bool in_folder, const json_t *config,
                       const json_t *added, struct err *e) {
    struct spm s = {.model = 1, .unk = -1, .bos = 1, .eos = 2};
    s.parts = (struct tokenizer_parts){.name = t->path,
                                       .sha256 = t->sha256,
                                       .add_space_prefix = true,
                                       .remove_extra_whitespaces = true,
                                       .escape_whitespaces = true};
    int rc = model_read(&s, file, t->path, e);
    struct tokenizer_parts *p = &s.parts;
    p->model = s.model == 1 ? "t5" : "llama";
    p->token = s.token, p->score = s.score, p->type = s.type;
    p->unk = s.unk, p->bos = known(&s, s.bos), p->eos = known(&s, s.eos), p->sep = p->cls = -1;
    p->cut_added = in_folder;
    p->added = added;
    if (!rc) {
        p->add_bos = json_bool(config, "add_bos_token", s.model == 2, t->path, e);
        p->add_eos = json_bool(config, "add_eos_token", false, t->path, e);
        p->prefix_once = !json_bool(config, "legacy", true, t->path, e);
        rc = e->code || parts_build(t, p, e);
    }
    mem_free(s.token), mem_free(s.score), mem_free(s.type);
    return rc ? -1 : 0;
}
