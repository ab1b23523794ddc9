/* parquet_thrift.c: Thrift's compact protocol, as much as Parquet's footers and page headers need.
 *
 * https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md. Nothing is
 * read past the end, lists are no longer than the bytes that are left, and nesting is bounded. */
#include "data/datasets/parquet.h"

enum { NESTING = 32 };

static int byte(struct thrift *t) {
    if (t->bad || t->at == t->end) return t->bad = true, 0;
    return *t->at++;
}

static u64 unsigned_varint(struct thrift *t) {
    u64 value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        const u64 b = (u64)byte(t);
        if (shift == 63 && b > 1) break;
        value |= (b & 127) << shift;
        if (!(b & 128)) return value;
    }
    return t->bad = true, 0;
}

i64 thrift_varint(struct thrift *t) {
    const u64 v = unsigned_varint(t);
    return (i64)(v >> 1 ^ (0 - (v & 1)));
}

bool thrift_field(struct thrift *t, struct thrift_field *f) {
    const int b = byte(t), delta = b >> 4;
    f->type = (enum thrift_type)(b & 15);
    if (t->bad || f->type == T_STOP) return false;
    const i64 id = delta ? f->id + delta : thrift_varint(t);
    if (f->type > T_STRUCT || id < 0 || id > 32767) t->bad = true;
    f->id = (int)id;
    return !t->bad;
}

i64 thrift_int(struct thrift *t, const struct thrift_field *f) {
    switch (f->type) {
    case T_TRUE: return 1;
    case T_FALSE: return 0;
    case T_BYTE: return (signed char)byte(t);
    case T_I16:
    case T_I32:
    case T_I64: return thrift_varint(t);
    default: return t->bad = true, 0;
    }
}

const u8 *thrift_bytes(struct thrift *t, const struct thrift_field *f, i64 *size) {
    const u64 n = f->type == T_BINARY ? unsigned_varint(t) : 0;
    const u8 *from = t->at;
    *size = 0;
    if (f->type != T_BINARY || n > (u64)(t->end - t->at)) t->bad = true;
    if (t->bad) return from;
    t->at += n, *size = (i64)n;
    return from;
}

static i64 list_begin(struct thrift *t, enum thrift_type *type) {
    const int b = byte(t);
    const u64 n = b >> 4 == 15 ? unsigned_varint(t) : (u64)(b >> 4);
    *type = (enum thrift_type)(b & 15);
    if (n > (u64)(t->end - t->at)) t->bad = true;
    return t->bad ? 0 : (i64)n;
}

i64 thrift_list(struct thrift *t, const struct thrift_field *f, enum thrift_type type) {
    enum thrift_type found;
    if (f->type != T_LIST) t->bad = true;
    const i64 n = t->bad ? 0 : list_begin(t, &found);
    if (n && found != type) t->bad = true;
    return t->bad ? 0 : n;
}

bool thrift_struct(struct thrift *t, const struct thrift_field *f) {
    if (f->type != T_STRUCT) t->bad = true;
    return !t->bad;
}

static void skip(struct thrift *t, enum thrift_type type, bool item, int depth) {
    struct thrift_field f = {.type = type};
    enum thrift_type key, value;
    i64 size;
    if (depth > NESTING) t->bad = true;
    if (t->bad) return;
    switch (type) {
    case T_TRUE:
    case T_FALSE:
        if (item) byte(t); /* in a list each has a byte */
        return;
    case T_BYTE: byte(t); return;
    case T_I16:
    case T_I32:
    case T_I64: unsigned_varint(t); return;
    case T_DOUBLE:
        if (t->end - t->at < 8) t->bad = true;
        if (!t->bad) t->at += 8;
        return;
    case T_BINARY: thrift_bytes(t, &f, &size); return;
    case T_LIST:
    case T_SET:
        for (i64 n = list_begin(t, &value); n && !t->bad; n--) skip(t, value, true, depth + 1);
        return;
    case T_MAP: {
        u64 n = unsigned_varint(t);
        const int b = n ? byte(t) : 0;
        key = (enum thrift_type)(b >> 4), value = (enum thrift_type)(b & 15);
        for (; n && !t->bad; n--) skip(t, key, true, depth + 1), skip(t, value, true, depth + 1);
        return;
    }
    case T_STRUCT:
        for (f = (struct thrift_field){0}; thrift_field(t, &f);) skip(t, f.type, false, depth + 1);
        return;
    case T_STOP: break;
    }
    t->bad = true;
}

void thrift_skip(struct thrift *t, const struct thrift_field *f) { skip(t, f->type, false, 0); }
