/* parquet_decode.c: levels and values of a page, one at a time.
 *
 * Nothing is unpacked ahead: a page may say that it holds two billion values in ten bytes (a run),
 * and costs what is asked of it. Encodings:
 * https://github.com/apache/parquet-format/blob/master/Encodings.md */
#include "data/datasets/parquet.h"
#include <string.h>

static u64 little(const u8 *p, i64 size) {
    u64 v = 0;
    for (i64 i = 0; i < size; i++) v |= (u64)p[i] << 8 * i;
    return v;
}

/* `width` bits from bit `at` on, the lowest first. */
static u64 bits_at(const u8 *p, i64 at, int width) {
    u64 v = 0;
    for (int got = 0; got < width;) {
        const int shift = (int)(at % 8), n = 8 - shift < width - got ? 8 - shift : width - got;
        v |= (u64)(p[at / 8] >> shift & ((1u << n) - 1)) << got;
        got += n, at += n;
    }
    return v;
}

static bool varint(const u8 **at, const u8 *end, u64 *out) {
    struct thrift t = {*at, end, false};
    u64 value = 0;
    for (int shift = 0; shift < 64 && t.at < t.end; shift += 7) {
        const u64 b = *t.at++;
        if (shift == 63 && b > 1) return false;
        value |= (b & 127) << shift;
        if (!(b & 128)) return *at = t.at, *out = value, true;
    }
    return false;
}

/* ---- runs and packed bits -------------------------------------------------------------------- */

void hybrid_begin(struct hybrid *h, const u8 *data, i64 size, int width) {
    *h = (struct hybrid){.at = data, .end = data + size, .width = width};
}

i64 hybrid_next(struct hybrid *h) {
    while (!h->run && !h->packed) {
        u64 header;
        if (!varint(&h->at, h->end, &header) || header >> 1 > INT32_MAX) return -1;
        const i64 count = (i64)(header >> 1),
                  bytes = header & 1 ? count * h->width : (h->width + 7) / 8;
        const i64 left = h->end - h->at;
        /* The last group of 8 may be cut where its values end (as Arrow reads it). */
        if (bytes > left && (!(header & 1) || bytes - left >= h->width)) return -1;
        if (header & 1) {
            h->bits = h->at, h->bit = 0, h->at += i64_min(bytes, left);
            h->packed = bytes > left ? left * 8 / h->width : count * 8;
        } else {
            h->value = (u32)little(h->at, bytes), h->run = count, h->at += bytes;
        }
    }
    if (h->run) return h->run--, h->value;
    const i64 value = (i64)bits_at(h->bits, h->bit, h->width);
    h->bit += h->width, h->packed--;
    return value;
}

/* ---- deltas ---------------------------------------------------------------------------------- */

static bool delta_block(struct delta *d) {
    u64 least;
    if (!varint(&d->at, d->end, &least) || d->end - d->at < d->minis) return false;
    d->least = least >> 1 ^ (0 - (least & 1));
    d->widths = d->at, d->at += d->minis, d->in_block = d->minis;
    return true;
}

static bool delta_mini(struct delta *d) {
    if (!d->in_block && !delta_block(d)) return false;
    d->width = d->widths[d->minis - d->in_block--];
    const i64 bytes = d->mini / 8 * d->width;
    if (d->width > 64 || bytes > d->end - d->at) return false;
    d->bits = d->at, d->at += bytes, d->bit = 0, d->in_mini = d->mini;
    return true;
}

void delta_begin(struct delta *d, const u8 *data, i64 size) {
    u64 block = 0, minis = 0, count = 0, first = 0;
    *d = (struct delta){.at = data, .end = data + size, .first = true};
    d->bad = !varint(&d->at, d->end, &block) || !varint(&d->at, d->end, &minis) ||
             !varint(&d->at, d->end, &count) || !varint(&d->at, d->end, &first) || !minis ||
             minis > 1 << 16 || block > 1 << 24 || block % 128 || block % minis ||
             block / minis % 32 || !block || count > INT32_MAX;
    if (d->bad) return;
    d->mini = (i64)(block / minis), d->minis = (i64)minis, d->left = (i64)count;
    d->value = first >> 1 ^ (0 - (first & 1));
}

bool delta_next(struct delta *d, i64 *value) {
    if (d->bad || !d->left) return false;
    d->left--;
    if (d->first) return d->first = false, *value = (i64)d->value, true;
    if (!d->in_mini && !delta_mini(d)) return d->bad = true, false;
    d->value += d->least + bits_at(d->bits, d->bit, d->width);
    d->bit += d->width, d->in_mini--;
    return *value = (i64)d->value, true;
}

const u8 *delta_end(const struct delta *d) {
    struct delta copy = *d;
    if (copy.bad) return NULL;
    copy.left -= copy.first && copy.left, copy.first = false;
    for (; copy.left > 0; copy.left -= copy.mini) /* a miniblock at a time */
        if (!delta_mini(&copy)) return NULL;
    return copy.at;
}

/* ---- values ---------------------------------------------------------------------------------- */

static i64 width_of(enum parquet_type type, i64 size) {
    switch (type) {
    case P_INT32:
    case P_FLOAT: return 4;
    case P_INT64:
    case P_DOUBLE: return 8;
    case P_INT96: return 12;
    case P_FIXED: return size;
    default: return 0;
    }
}

/* A fixed value out of its bytes. */
static void value_of(enum parquet_type type, i64 width, const u8 *p, struct value *out) {
    const u64 word = little(p, i64_min(width, 8));
    const u32 half = (u32)word;
    float f;
    *out = (struct value){.bytes = p, .size = width, .integer = (i64)word};
    if (type == P_INT32) out->integer = (i32)half;
    if (type == P_FLOAT) memcpy(&f, &half, 4), out->real = (double)f;
    if (type == P_DOUBLE) memcpy(&out->real, &word, 8);
}

bool value_plain(enum parquet_type type, i64 width, const u8 **at, const u8 *end,
                 struct value *out) {
    if (type == P_BYTE_ARRAY) {
        if (end - *at < 4) return false;
        const i64 size = (i64)little(*at, 4);
        if (size > end - *at - 4) return false;
        *out = (struct value){.bytes = *at + 4, .size = size};
        return *at += 4 + size, true;
    }
    const i64 size = width_of(type, width);
    if (end - *at < size || !size) return false;
    value_of(type, size, *at, out);
    return *at += size, true;
}

bool values_begin(struct values *v, const u8 *data, i64 size) {
    const enum parquet_type t = v->type;
    const i64 width = width_of(t, v->width);
    v->at = data, v->end = data + size, v->index = 0, v->before.size = 0;
    switch (v->encoding) {
    case E_PLAIN: return true;
    case E_PLAIN_DICTIONARY:
    case E_DICTIONARY:
        if (!size) return hybrid_begin(&v->hybrid, data, 0, 0), true; /* all null */
        return hybrid_begin(&v->hybrid, data + 1, size - 1, data[0]), data[0] <= 32;
    case E_RLE: {
        const i64 n = size < 4 ? 0 : (i64)little(data, 4);
        if (t != P_BOOLEAN || n > i64_max(size - 4, 0)) return false;
        return hybrid_begin(&v->hybrid, data + i64_min(size, 4), n, 1), true;
    }
    case E_DELTA: return delta_begin(&v->delta, data, size), t == P_INT32 || t == P_INT64;
    case E_DELTA_LENGTH:
        delta_begin(&v->delta, data, size);
        v->at = delta_end(&v->delta);
        return (v->at || !size) && t == P_BYTE_ARRAY;
    case E_DELTA_BYTES: {
        delta_begin(&v->delta, data, size);
        const u8 *next = delta_end(&v->delta);
        if (!next) return !size;
        delta_begin(&v->suffix, next, v->end - next);
        v->at = delta_end(&v->suffix);
        return v->at && (t == P_BYTE_ARRAY || t == P_FIXED);
    }
    case E_SPLIT: return width && size % width == 0;
    case E_BIT_PACKED: break;
    }
    return false;
}

static int next_delta_bytes(struct values *v, struct value *out, struct err *e) {
    i64 prefix, size;
    if (!v->at || !delta_next(&v->delta, &prefix) || !delta_next(&v->suffix, &size)) return 0;
    if (prefix < 0 || prefix > v->before.size || size < 0 || size > v->end - v->at) return 0;
    if (v->type == P_FIXED && prefix + size != v->width) return 0;
    v->before.size = prefix;
    if (text_add(&v->before, v->at, size, e)) return -1;
    v->at += size;
    *out = (struct value){.bytes = (const u8 *)v->before.data, .size = v->before.size};
    return 1;
}

static int next_split(struct values *v, struct value *out, struct err *e) {
    const i64 width = width_of(v->type, v->width), count = (v->end - v->at) / width;
    if (v->index == count) return 0;
    v->made.size = 0;
    for (i64 i = 0; i < width; i++)
        if (text_add(&v->made, v->at + i * count + v->index, 1, e)) return -1;
    v->index++;
    value_of(v->type, width, (const u8 *)v->made.data, out);
    return 1;
}

int values_next(struct values *v, struct value *out, struct err *e) {
    i64 size;
    *out = (struct value){0};
    switch (v->encoding) {
    case E_PLAIN:
        if (v->type != P_BOOLEAN) return value_plain(v->type, v->width, &v->at, v->end, out);
        if (v->index == 8 * (v->end - v->at)) return 0;
        out->integer = (i64)bits_at(v->at, v->index++, 1);
        return 1;
    case E_PLAIN_DICTIONARY:
    case E_DICTIONARY:
    case E_RLE: return (out->integer = hybrid_next(&v->hybrid)) >= 0;
    case E_DELTA:
        if (!delta_next(&v->delta, &out->integer)) return 0;
        if (v->type == P_INT32) out->integer = (i32)(u32)out->integer;
        return 1;
    case E_DELTA_LENGTH:
        if (!v->at || !delta_next(&v->delta, &size) || size < 0 || size > v->end - v->at) return 0;
        *out = (struct value){.bytes = v->at, .size = size};
        return v->at += size, 1;
    case E_DELTA_BYTES: return next_delta_bytes(v, out, e);
    case E_SPLIT: return next_split(v, out, e);
    case E_BIT_PACKED: break;
    }
    return 0;
}
