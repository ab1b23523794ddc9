/* gguf_value.c: metadata of a GGUF file by key, typed. Writers disagree about integer kinds (u32,
 * i32, u64), so any integer is taken where one is expected; a number where a text is expected is
 * not. */
#include "checkpoints/checkpoints_int.h"
#include <string.h>

static const char *const kind_name[GGUF_KINDS] = {
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "text", "list", "u64", "i64", "f64"};
static const int kind_size[GGUF_KINDS] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

const struct gguf_value *gguf_find(const struct gguf *g, const char *key) {
    for (i64 i = 0; i < g->values; i++)
        if (!strcmp(g->value[i].key, key)) return &g->value[i];
    return NULL;
}

static int kind_wrong(const struct gguf_value *v, const char *wanted, const char *where,
                      struct err *e) {
    return err_input(e, "%s: %.150s is %s%s; expected %s", where, v->key,
                     v->kind == GGUF_LIST ? "a list of " : "of kind ",
                     kind_name[v->kind == GGUF_LIST ? v->item : v->kind], wanted);
}

static bool is_integer(enum gguf_kind k) { return k <= GGUF_I32 || k == GGUF_U64 || k == GGUF_I64; }

static i64 integer_at(enum gguf_kind kind, const u8 *from) {
    u64 x = 0;
    const int size = kind_size[kind];
    memcpy(&x, from, (size_t)size); /* little endian, as every machine this runs on */
    const bool is_signed =
        kind == GGUF_I8 || kind == GGUF_I16 || kind == GGUF_I32 || kind == GGUF_I64;
    if (is_signed && size < 8 && x >> (8 * size - 1)) x |= ~(u64)0 << 8 * size;
    return (i64)x;
}

static double number_at(enum gguf_kind kind, const u8 *from) {
    float x;
    double d;
    if (kind == GGUF_F32) return memcpy(&x, from, 4), (double)x;
    if (kind == GGUF_F64) return memcpy(&d, from, 8), d;
    return (double)integer_at(kind, from);
}

i64 gguf_i64(const struct gguf *g, const char *key, i64 otherwise, const char *where,
             struct err *e) {
    const struct gguf_value *v = gguf_find(g, key);
    if (!v) return otherwise;
    if (!is_integer(v->kind)) return kind_wrong(v, "an integer", where, e), otherwise;
    const i64 n = integer_at(v->kind, v->data);
    if (v->kind == GGUF_U64 && n < 0) {
        err_input(e, "%s: %.150s is %llu, which is too large", where, key, (unsigned long long)n);
        return otherwise;
    }
    return n;
}

double gguf_f64(const struct gguf *g, const char *key, double otherwise, const char *where,
                struct err *e) {
    const struct gguf_value *v = gguf_find(g, key);
    if (!v) return otherwise;
    if (v->kind == GGUF_TEXT || v->kind == GGUF_LIST || v->kind == GGUF_BOOL)
        return kind_wrong(v, "a number", where, e), otherwise;
    return number_at(v->kind, v->data);
}

bool gguf_bool(const struct gguf *g, const char *key, bool otherwise, const char *where,
               struct err *e) {
    const struct gguf_value *v = gguf_find(g, key);
    if (!v) return otherwise;
    if (v->kind != GGUF_BOOL) return kind_wrong(v, "a truth value", where, e), otherwise;
    return v->data[0] != 0;
}

const char *gguf_text(const struct gguf *g, const char *key, const char *otherwise, struct arena *a,
                      const char *where, struct err *e) {
    const struct gguf_value *v = gguf_find(g, key);
    if (!v) return otherwise;
    if (v->kind != GGUF_TEXT) return kind_wrong(v, "a text", where, e), NULL;
    if (memchr(v->data, 0, (size_t)v->bytes))
        return err_input(e, "%s: %.150s holds a NUL byte", where, key), NULL;
    char *text = arena_new(a, v->bytes + 1, e);
    return text ? memcpy(text, v->data, (size_t)v->bytes) : NULL;
}

double *gguf_numbers(const struct gguf *g, const char *key, i64 *count, struct arena *a,
                     const char *where, struct err *e) {
    const struct gguf_value *v = gguf_find(g, key);
    *count = 0;
    if (!v) return NULL;
    if (v->kind != GGUF_LIST || !kind_size[v->item])
        return kind_wrong(v, "a list of numbers", where, e), NULL;
    double *list = arena_new(a, (v->count + 1) * (i64)sizeof *list, e);
    for (i64 i = 0; list && i < v->count; i++)
        list[i] = v->item == GGUF_BOOL ? (double)v->data[i]
                                       : number_at(v->item, v->data + i * kind_size[v->item]);
    return list ? (*count = v->count, list) : NULL;
}

struct gguf_text *gguf_texts(const struct gguf *g, const char *key, i64 *count, struct arena *a,
                             const char *where, struct err *e) {
    const struct gguf_value *v = gguf_find(g, key);
    *count = 0;
    if (!v) return NULL;
    if (v->kind != GGUF_LIST || v->item != GGUF_TEXT)
        return kind_wrong(v, "a list of texts", where, e), NULL;
    struct gguf_text *list = arena_new(a, (v->count + 1) * (i64)sizeof *list, e);
    const u8 *at = v->data;
    for (i64 i = 0; list && i < v->count; i++) { /* lengths were checked when the file was opened */
        list[i].size = integer_at(GGUF_I64, at);
        list[i].data = (const char *)at + 8;
        at += 8 + list[i].size;
    }
    return list ? (*count = v->count, list) : NULL;
}
