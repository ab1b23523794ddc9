/* byte_alphabet.c: GPT-2's alphabet: a printable character for each of the 256 bytes. */
#include "data/tokenizers/tokenizers_int.h"

u32 byte_to_code(
    u8 b) { /* the bytes without a printable Latin-1 character follow from 256 on, in order */
    if ((b >= 33 && b <= 126) || (b >= 161 && b != 173)) return b;
    return 256 + (b <= 32 ? b : b == 173 ? 67u : b - 127 + 33u);
}
int byte_of_code(i64 c) {
    if (c < 256) return c >= 0 && byte_to_code((u8)c) == c ? (int)c : -1;
    if (c > 323) return -1;
    return (int)(c <= 288 ? c - 256 : c == 323 ? 173 : c - 289 + 127);
}
int bytes_show(struct text *out, const char *data, i64 size, struct err *e) {
    for (i64 i = 0; i < size; i++) {
        char u[4];
        if (text_add(out, u, utf8_put(byte_to_code((u8)data[i]), u), e)) return -1;
    }
    return 0;
}
