/* tokenizer_charsmap.c: SentencePiece's character maps (normalization_rule.cc of
 * google/sentencepiece; the trie is a Darts double array as darts-clone 0.32 lays it out) and its
 * whole normalizer.
 *
 * The same table is read in two ways. SentencePiece replaces the longest prefix it holds. Hugging
 * Face's Precompiled looks up each grapheme cluster of fewer than 6 bytes, then each character, and
 * takes the shortest prefix in the place of the whole; ids depend on it. */
#include <string.h>
#include <utf8proc.h>
#include "data/tokenizers/tokenizers_int.h"

static u32 unit_at(const struct charsmap *m, u32 i) {
    const u8 *p = m->units + 4 * (i64)i;
    return (u32)p[0] | (u32)p[1] << 8 | (u32)p[2] << 16 | (u32)p[3] << 24;
}
static u32 unit_offset(u32 unit) { return unit >> 10 << ((unit & 512) >> 6); }

int charsmap_open(struct charsmap *m, struct bytes blob, const char *where, struct err *e) {
    const u8 *p = (const u8 *)blob.data;
    i64 size =
        blob.size < 4 ? -1 : (i64)(p[0] | (u32)p[1] << 8 | (u32)p[2] << 16 | (u32)p[3] << 24);
    if (size < 4 || size % 4 || size > blob.size - 4)
        return err_input(e, "%s: the character map of %lld bytes says that its trie has %lld",
                         where, (long long)blob.size, (long long)size);
    *m = (struct charsmap){p + 4, size / 4, {blob.data + 4 + size, blob.size - 4 - size}};
    return 0;
}

/* Length of a key that `text` starts with, the longest or the shortest, and its replacement; 0:
 * none. */
static i64 map_prefix(const struct charsmap *m, struct bytes text, bool longest,
                      struct bytes *with) {
    u32 unit = unit_at(m, 0), at = unit_offset(unit);
    i64 found = 0;
    for (i64 i = 0; i < text.size; i++) {
        u8 c = (u8)text.data[i];
        at ^= c;
        if (at >= m->units_count || (!longest && !c)) break;
        unit = unit_at(m, at);
        if ((unit & 0x800000ff) != c) break;
        at ^= unit_offset(unit);
        if (at >= m->units_count) break;
        if (!(unit >> 8 & 1)) continue;
        i64 value = unit_at(m, at) & 0x7fffffff;
        if (value >= m->replacements.size) break;
        const char *from = m->replacements.data + value;
        *with = (struct bytes){from, (i64)strnlen(from, (size_t)(m->replacements.size - value))};
        found = i + 1;
        if (!longest) break;
    }
    return found;
}

static int map_cluster(const struct charsmap *m, struct bytes cluster, struct text *out,
                       struct err *e) {
    struct bytes with;
    if (cluster.size < 6 && map_prefix(m, cluster, false, &with))
        return text_add(out, with.data, with.size, e);
    for (i64 at = 0, next = 0; at < cluster.size; at = next) {
        code_at(cluster.data, &next);
        struct bytes one = {cluster.data + at, next - at};
        if (map_prefix(m, one, false, &with)) one = with;
        if (text_add(out, one.data, one.size, e)) return -1;
    }
    return 0;
}

int charsmap_graphemes(const struct charsmap *m, struct bytes in, struct text *out, struct err *e) {
    utf8proc_int32_t state = 0;
    i64 from = 0, at = 0;
    i32 before = (i32)code_at(in.data, &at);
    while (at < in.size) {
        i64 next = at;
        i32 code = (i32)code_at(in.data, &next);
        if (utf8proc_grapheme_break_stateful(before, code, &state)) {
            if (map_cluster(m, (struct bytes){in.data + from, at - from}, out, e)) return -1;
            from = at;
        }
        before = code;
        at = next;
    }
    return map_cluster(m, (struct bytes){in.data + from, in.size - from}, out, e);
}

/* ---- SentencePiece's own normalizer (normalizer.cc) ------------------------------------------ */

/* What stands at the start of `in` after the map: bytes taken. */
static i64 mapped(const struct norm *n, struct bytes in, struct bytes *to) {
    const struct added_token *kept = n->keep->count ? added_at(n->keep, in.data, in.size) : NULL;
    i64 size = kept ? kept->content.size : 0;
    if (!size && n->map && (size = map_prefix(n->map, in, true, to))) return size;
    if (!size) code_at(in.data, &size);
    *to = (struct bytes){in.data, size};
    return size;
}

static const char mark[] = "\xe2\x96\x81";

static int add_escaped(const struct norm *n, struct bytes b, struct text *out, struct err *e) {
    static const struct pattern space = {.literal = {" ", 1}};
    void *none = NULL;
    if (n->escape && memchr(b.data, ' ', (size_t)b.size))
        return text_replace(&space, (struct bytes){mark, 3}, b, out, &none, e);
    return text_add(out, b.data, b.size, e);
}

static bool text_ends(const struct text *t, i64 from, struct bytes b) {
    return t->size - from >= b.size && !memcmp(t->data + t->size - b.size, b.data, (size_t)b.size);
}

int normalize_sentencepiece(const struct norm *n, struct bytes in, struct text *out, bool starts,
                            struct err *e) {
    struct bytes to, space = n->escape ? (struct bytes){mark, 3} : (struct bytes){" ", 1};
    i64 at = 0, size = 0, from = out->size;
    for (; n->squeeze && at < in.size; at += size) {
        size = mapped(n, (struct bytes){in.data + at, in.size - at}, &to);
        if (to.size != 1 || *to.data != ' ') break;
    }
    if (at == in.size) return 0;
    if (n->prefix && !n->suffix && (starts || !n->once) && text_add(out, space.data, space.size, e))
        return -1;
    for (bool spaced = n->squeeze; at < in.size; at += size) {
        struct bytes rest = {in.data + at, in.size - at};
        if (!n->map && !n->keep->count && !n->squeeze) /* by far the most common: Llama 2 */
            to = rest, size = rest.size;
        else
            size = mapped(n, rest, &to);
        while (spaced && to.size && *to.data == ' ') to = (struct bytes){to.data + 1, to.size - 1};
        if (!to.size) continue;
        if (add_escaped(n, to, out, e)) return -1;
        spaced = n->squeeze && to.data[to.size - 1] == ' ';
    }
    while (n->squeeze && text_ends(out, from, space)) out->size -= space.size;
    return n->prefix && n->suffix ? text_add(out, space.data, space.size, e) : 0;
}
