/* h5_checksum.c: what the reader and the writer of HDF5 share.
 *
 * Checksums are Bob Jenkins' lookup3 ("hashlittle", 2006, public domain) with a start value of 0,
 * as the HDF5 file format specification says (2012, section III.A and after). */
#include "base/h5_int.h"

const int h5_size[H5_UNKNOWN] = {1, 2, 4, 8, 8, 4, 8, 1};

static u32 turn(u32 x, int by) { return x << by | x >> (32 - by); }

static u32 word(const u8 *p, i64 n) { /* up to four bytes, little endian, zeros after them */
    u32 x = 0;
    for (i64 i = 0; i < n && i < 4; i++) x |= (u32)p[i] << 8 * i;
    return x;
}

static void mix(u32 s[3]) {
    static const int by[6] = {4, 6, 8, 16, 19, 4};
    for (int i = 0; i < 6; i++) {
        u32 *a = &s[i % 3], *b = &s[(i + 1) % 3], *c = &s[(i + 2) % 3];
        *a -= *c, *a ^= turn(*c, by[i]), *c += *b;
    }
}

u32 h5_checksum(const void *data, i64 size) {
    const u8 *p = data;
    u32 s[3];
    for (int i = 0; i < 3; i++) s[i] = 0xdeadbeef + (u32)size;
    for (; size > 12; size -= 12, p += 12) {
        for (int i = 0; i < 3; i++) s[i] += word(p + 4 * i, 4);
        mix(s);
    }
    if (!size) return s[2];
    for (int i = 0; i < 3; i++) s[i] += size > 4 * i ? word(p + 4 * i, size - 4 * i) : 0;
    static const int by[7] = {14, 11, 25, 16, 4, 14, 24};
    for (int i = 0; i < 7; i++) {
        u32 *to = &s[(i + 2) % 3], from = s[(i + 1) % 3];
        *to ^= from, *to -= turn(from, by[i]);
    }
    return s[2];
}

int h5_size_bytes(u64 chunk) {
    int log2 = 0;
    while (log2 < 63 && chunk >> (log2 + 1)) log2++;
    int bytes = 1 + (log2 + 8) / 8;
    return bytes > 8 ? 8 : bytes;
}

u64 h5_take(struct h5_span *s, int bytes) {
    u64 value = 0;
    if (s->left < bytes) return s->bad = true, s->left = 0, 0;
    for (int i = 0; i < bytes; i++) value |= (u64)s->at[i] << 8 * i;
    s->at += bytes, s->left -= bytes;
    return value;
}

struct h5_span h5_cut(struct h5_span *s, i64 bytes) {
    struct h5_span part = {s->at, bytes, false};
    if (bytes < 0 || bytes > s->left) {
        s->bad = true, s->left = 0;
        return (struct h5_span){s->at, 0, true};
    }
    s->at += bytes, s->left -= bytes;
    return part;
}
