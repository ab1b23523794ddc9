/* tokenizer_normalize.c: the normalizers of a tokenizer.json, and the repair of broken UTF-8 that
 * comes first.
 *
 * Unicode forms: utf8proc decomposes and composes; the canonical ordering between is ours, because
 * utf8proc's is quadratic in a run of combining marks and text is hostile. */
#include <pthread.h>
#include <string.h>
#include <utf8proc.h>
#include "data/tokenizers/tokenizers_int.h"

i64 utf8_subpart(const u8 *s, i64 size, bool *ok) {
    u8 c = s[0], low = 0x80, high = 0xbf;
    i64 need = c < 0x80 ? 0 : c < 0xc2 ? -1 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : c < 0xf5 ? 3 : -1;
    *ok = need == 0;
    if (need <= 0) return 1;
    if (c == 0xe0) low = 0xa0;
    if (c == 0xed) high = 0x9f;
    if (c == 0xf0) low = 0x90;
    if (c == 0xf4) high = 0x8f;
    for (i64 i = 1; i <= need; i++, low = 0x80, high = 0xbf)
        if (i >= size || s[i] < low || s[i] > high) return i;
    *ok = true;
    return need + 1;
}

int utf8_repair(struct text *out, struct bytes in, struct err *e) {
    const u8 *s = (const u8 *)in.data;
    i64 from = 0, at = 0;
    if (!in.size) return 0; /* and perhaps no pointer */
    while (at < in.size) {
        bool ok;
        i64 n = utf8_subpart(s + at, in.size - at, &ok);
        if (!ok) {
            if (text_add(out, s + from, at - from, e) || text_add(out, "\xef\xbf\xbd", 3, e))
                return -1;
            from = at + n;
        }
        at += n;
    }
    return text_add(out, s + from, at - from, e);
}

struct codes {
    i32 *item, *spare;
    i64 count, capacity;
};

static int codes_reserve(struct codes *c, i64 more, struct err *e) {
    if (c->count + more <= c->capacity) return 0;
    i64 n = i64_max(c->count + more, 2 * c->capacity);
    void *p = mem_grow(c->item, c->capacity * 4, n * 4, e);
    if (!p) return -1;
    c->item = p;
    c->capacity = n;
    return 0;
}

static int combining(i32 code) {
    return code < 0x300 ? 0 : utf8proc_get_property(code)->combining_class;
}

/* Stable counting sort by combining class of each run of marks (Unicode 15, D109). */
static int order_marks(struct codes *c, struct err *e) {
    for (i64 i = 0, end; i < c->count; i = end) {
        end = i + 1;
        bool sorted = true;
        if (!combining(c->item[i])) continue;
        for (; end < c->count && combining(c->item[end]); end++)
            if (combining(c->item[end]) < combining(c->item[end - 1])) sorted = false;
        if (sorted) continue;
        if (!c->spare && !(c->spare = mem_new_array(c->count, 4, e))) return -1;
        i64 start[257] = {0};
        for (i64 k = i; k < end; k++) start[combining(c->item[k]) + 1]++;
        for (int k = 0; k < 256; k++) start[k + 1] += start[k];
        for (i64 k = i; k < end; k++) c->spare[start[combining(c->item[k])]++] = c->item[k];
        memcpy(c->item + i, c->spare, (size_t)(end - i) * 4);
    }
    return 0;
}

static int unicode_form(struct bytes in, int options, struct codes *c, struct text *out,
                        struct err *e) {
    for (i64 at = 0; at < in.size;) {
        i32 code = (i32)code_at(in.data, &at);
        int last = 0;
        if (codes_reserve(c, 20, e)) return -1; /* no decomposition is longer than 18 */
        utf8proc_ssize_t n = utf8proc_decompose_char(
            code, c->item + c->count, c->capacity - c->count, (utf8proc_option_t)options, &last);
        if (n < 0) return err_failed(e, "cannot normalise: %s", utf8proc_errmsg(n));
        c->count += n;
    }
    if (order_marks(c, e)) return -1;
    i64 n = utf8proc_normalize_utf32(c->item, c->count, (utf8proc_option_t)options);
    if (n < 0) return err_failed(e, "cannot normalise: %s", utf8proc_errmsg(n));
    for (i64 i = 0; i < n; i++) {
        char u[4];
        if (text_add(out, u, utf8_put((u32)c->item[i], u), e)) return -1;
    }
    return 0;
}

/* Characters that NFC leaves alone whatever stands around them: no mark, composed already, never
 * the second of a composition. Most text that is not ASCII is made of them. */
static u8 inert[0x110000 / 8];

static void inert_build(void) {
    static u8 second[0x110000 / 8];
    i32 parts[32], last = 0;
    for (int pass = 0; pass < 2; pass++)
        for (i32 c = 0; c < 0x110000; c++) {
            const utf8proc_property_t *p = utf8proc_get_property(c);
            const bool hangul = c >= 0xac00 && c <= 0xd7a3, jamo = c >= 0x1161 && c <= 0x11c2;
            i64 n = 1;
            if (p->decomp_seqindex != UINT16_MAX && !p->decomp_type && !hangul)
                n = utf8proc_decompose_char(c, parts, 32, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
                                            &last);
            if (!pass && n > 1)
                for (i64 i = 1; i < n; i++) second[parts[i] / 8] |= (u8)(1 << parts[i] % 8);
            if (pass && n > 1)
                n = utf8proc_normalize_utf32(parts, n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
            const bool changes = p->decomp_seqindex != UINT16_MAX && !p->decomp_type && !hangul &&
                                 (n != 1 || parts[0] != c);
            if (pass && !changes && !p->combining_class && !jamo && !(second[c / 8] >> c % 8 & 1))
                inert[c / 8] |= (u8)(1 << c % 8);
        }
}

static bool form_changes(struct bytes in, enum norm_kind kind) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const u8 *s = (const u8 *)in.data;
    u64 eight;
    if (kind == NORM_NFC) pthread_once(&once, inert_build);
    for (i64 i = 0; i < in.size;) {
        if (i + 8 <= in.size && (memcpy(&eight, s + i, 8), !(eight & 0x8080808080808080u))) {
            i += 8;
        } else if (s[i] < 0x80) {
            i++;
        } else {
            if (kind != NORM_NFC) return true;
            const i64 c = code_at(in.data, &i);
            if (!(inert[c / 8] >> c % 8 & 1)) return true;
        }
    }
    return false;
}

static int normalize_form(enum norm_kind kind, struct bytes in, struct text *out, struct err *e) {
    static const int options[] = {
        [NORM_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [NORM_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        [NORM_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [NORM_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    if (!form_changes(in, kind)) return text_add(out, in.data, in.size, e);
    struct codes c = {0};
    int rc = unicode_form(in, options[kind], &c, out, e);
    mem_free(c.item);
    mem_free(c.spare);
    return rc;
}

/* Rust's char::to_lowercase: utf8proc's simple mapping, but U+0130 becomes two characters. */
static int normalize_lowercase(struct bytes in, struct text *out, struct err *e) {
    for (i64 at = 0; at < in.size;) {
        char u[6];
        i32 code = (i32)code_at(in.data, &at);
        int n = utf8_put((u32)(code == 0x130 ? 'i' : utf8proc_tolower(code)), u);
        if (code == 0x130) n += utf8_put(0x307, u + n);
        if (text_add(out, u, n, e)) return -1;
    }
    return 0;
}

static struct bytes strip(const struct norm *n, struct bytes in) {
    i64 at = 0, end = in.size;
    while (n->left && at < end && class_of_code[code_at(in.data, &(i64){at})] & CLASS_WHITE)
        code_at(in.data, &at);
    for (i64 k = end; n->right && k > at; end = k) {
        do --k;
        while (((u8)in.data[k] & 0xc0) == 0x80);
        if (!(class_of_code[code_at(in.data, &(i64){k})] & CLASS_WHITE)) break;
    }
    return (struct bytes){in.data + at, end - at};
}

/* Leaves out the characters of these classes. */
static int without(u16 classes, struct bytes in, struct text *out, struct err *e) {
    i64 from = 0;
    for (i64 at = 0, next = 0; at < in.size; at = next) {
        if (!(class_of_code[code_at(in.data, &next)] & classes)) continue;
        if (text_add(out, in.data + from, at - from, e)) return -1;
        from = next;
    }
    return text_add(out, in.data + from, in.size - from, e);
}

/* The blocks BERT puts spaces around: not all of Han, and the sixth begins late as its original
 * does. */
static bool chinese(i64 c) {
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) ||
           (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b73f) ||
           (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

static int bert_characters(const struct norm *n, struct bytes in, struct text *out, struct err *e) {
    for (i64 at = 0, next = 0; at < in.size; at = next) {
        i64 code = code_at(in.data, &next);
        u16 class = class_of_code[code];
        if (n->clean && (!code || code == 0xfffd || class & CLASS_CONTROL)) continue;
        bool space = n->clean && class & CLASS_WHITE, apart = n->chinese && chinese(code);
        if ((apart && text_add(out, " ", 1, e)) ||
            text_add(out, space ? " " : in.data + at, space ? 1 : next - at, e) ||
            (apart && text_add(out, " ", 1, e)))
            return -1;
    }
    return 0;
}

static int normalize_bert(const struct norm *n, struct bytes in, struct text *out, struct err *e) {
    struct text a = {0}, b = {0};
    int rc = bert_characters(n, in, &a, e);
    if (!rc && n->accents) {
        rc = normalize_form(NORM_NFD, (struct bytes){a.data, a.size}, &b, e);
        a.size = 0;
        rc = rc || without(CLASS_NONSPACING, (struct bytes){b.data, b.size}, &a, e);
    }
    struct bytes done = {a.data, a.size};
    if (!rc) rc = n->lower ? normalize_lowercase(done, out, e) : text_add(out, a.data, a.size, e);
    text_free(&a);
    text_free(&b);
    return rc ? -1 : 0;
}

/* Whether the normalizer takes away the first character: the rest no longer begins the text. */
static bool loses_start(const struct norm *n, struct bytes in, void **scratch, bool *loses,
                        struct err *e) {
    i64 next = 0, begin, end;
    u16 class = class_of_code[code_at(in.data, &next)];
    u8 first = (u8)in.data[0];
    *loses = false;
    if (n->kind == NORM_STRIP) *loses = n->left && class & CLASS_WHITE;
    if (n->kind == NORM_STRIP_ACCENTS) *loses = class & CLASS_MARK;
    if (n->kind == NORM_BERT)
        *loses = (n->clean && (!first || class & CLASS_CONTROL ||
                               !memcmp(in.data, "\xef\xbf\xbd", (size_t)i64_min(in.size, 3)))) ||
                 (n->accents && class & CLASS_NONSPACING);
    if (n->kind == NORM_REPLACE && !n->content.size) {
        struct search s = {.text = in.data, .size = in.size, .scratch = scratch};
        int found = pattern_next(&n->pattern, &s, &begin, &end, e);
        if (found < 0) return false;
        *loses = found && !begin && end;
    }
    return true;
}

int normalize(const struct norm *list, i64 count, struct bytes in, struct text buffer[2],
              void **scratch, struct bytes *out, bool *starts, struct err *e) {
    int used = 0;
    for (i64 i = 0; i < count && in.size; i++) {
        const struct norm *n = &list[i];
        struct text *to = &buffer[used];
        to->size = 0;
        int rc = 0;
        bool loses;
        if (!loses_start(n, in, scratch, &loses, e)) return -1;
        *starts &= !loses;
        switch (n->kind) {
        case NORM_LOWERCASE: rc = normalize_lowercase(in, to, e); break;
        case NORM_REPLACE: rc = text_replace(&n->pattern, n->content, in, to, scratch, e); break;
        case NORM_STRIP: in = strip(n, in); continue;
        case NORM_STRIP_ACCENTS: rc = without(CLASS_MARK, in, to, e); break;
        case NORM_BERT: rc = normalize_bert(n, in, to, e); break;
        case NORM_BYTES: rc = bytes_show(to, in.data, in.size, e); break;
        case NORM_CHARSMAP: rc = charsmap_graphemes(n->map, in, to, e); break;
        case NORM_SENTENCEPIECE: rc = normalize_sentencepiece(n, in, to, *starts, e); break;
        case NORM_PREPEND:
            rc = text_add(to, n->content.data, n->content.size, e) ||
                 text_add(to, in.data, in.size, e);
            break;
        default:
            if (!form_changes(in, n->kind)) continue;
            rc = normalize_form(n->kind, in, to, e);
        }
        if (rc) return -1;
        in = (struct bytes){to->data, to->size};
        used = !used;
    }
    *out = in;
    return 0;
}
