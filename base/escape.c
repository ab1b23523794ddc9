/* escape.c: bytes on their way to a person, so that they cannot drive the terminal.
 *
 * Messages quote file names, JSON strings and templates. An escape sequence in them could clear the
 * screen, or hide and forge lines. Control characters (C0, DEL, C1), the characters that turn the
 * direction of writing, and malformed UTF-8 are therefore written as \u001b or \xff. Nothing here
 * allocates: err_print must work when memory has run out. */
#include "base/base.h"

#include <unistd.h>

static bool drives(int code) {
    return code < 32 || (code >= 0x7f && code < 0xa0) || (code >= 0x2028 && code <= 0x202e) ||
           (code >= 0x2066 && code <= 0x2069);
}

void show_bytes(FILE *to, const char *bytes, i64 size, bool lines) {
    i64 plain = 0; /* what is not written yet begins here */
    for (i64 at = 0; at < size;) {
        const i64 from = at;
        const int code = utf8_next(bytes, size, &at);
        if (code >= 0 && (!drives(code) || (lines && (code == '\n' || code == '\t')))) continue;
        fwrite(bytes + plain, 1, (size_t)(from - plain), to);
        if (code < 0)
            fprintf(to, "\\x%02x", (unsigned)(u8)bytes[from]);
        else
            fprintf(to, "\\u%04x", (unsigned)code);
        plain = at;
    }
    if (size > plain) fwrite(bytes + plain, 1, (size_t)(size - plain), to);
}

void show_generated(FILE *to, const char *bytes, i64 size) {
    if (isatty(fileno(to)))
        show_bytes(to, bytes, size, true);
    else
        fwrite(bytes, 1, (size_t)size, to);
}
