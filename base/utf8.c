/* utf8.c: UTF-8 as RFC 3629 defines it: no overlong forms, no surrogates, nothing past U+10FFFF. */
#include "base/base.h"

/* Length of the well-formed sequence at `data`, its code point in *code; 0 if malformed. */
static int sequence(const u8 *data, i64 size, u32 *code) {
    if (size < 1) return 0;
    u8 lead = data[0];
    *code = lead;
    if (lead < 0x80) return 1;
    int length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || size < length) return 0;
    u32 value = lead & (0xffu >> (length + 1));
    for (int i = 1; i < length; i++) {
        if ((data[i] & 0xc0) != 0x80) return 0;
        value = value << 6 | (data[i] & 0x3f);
    }
    *code = value;
    if (length == 3 && (value < 0x800 || (value >= 0xd800 && value < 0xe000))) return 0;
    if (length == 4 && (value < 0x10000 || value > 0x10ffff)) return 0;
    return length;
}

i64 utf8_bad(const char *data, i64 size) {
    u32 code;
    for (i64 at = 0; at < size;) {
        int length = sequence((const u8 *)data + at, size - at, &code);
        if (!length) return at;
        at += length;
    }
    return -1;
}

i64 utf8_whole(const char *data, i64 size) {
    for (i64 least = size - 3; size > least && size > 0; size--) {
        const i64 bad = utf8_bad(data, size);
        if (bad < 0 || bad < size - 3) break;
    }
    return size;
}

int utf8_next(const char *data, i64 size, i64 *at) {
    u32 code;
    int length = sequence((const u8 *)data + *at, size - *at, &code);
    *at += length ? length : 1;
    return length ? (int)code : -1;
}

int utf8_put(u32 code, char out[4]) {
    if (code < 0x80) return out[0] = (char)code, 1;
    int length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (int i = length - 1; i > 0; i--, code >>= 6) out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)((0xf00u >> length & 0xff) | code);
    return length;
}
