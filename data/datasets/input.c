/* input.c: the bytes of a text file, decompressed by its name, as UTF-8.
 *
 * A byte order mark is not text. One of UTF-16 says that the file is UTF-16 (PowerShell and Excel
 * write such files): it is converted while it is read, and lines and offsets are those of the
 * converted text. UTF-16 without a mark is named, not guessed: half of all texts would read as
 * something. */
#include "data/datasets/readers.h"
#include <string.h>

enum { COMPACT = 1 << 20, SAMPLE = 64 };

int input_open(struct input *in, const char *path, struct err *e) {
    *in = (struct input){.path = path, .line = 1};
    if (byte_stream_open(&in->stream, path, e)) return -1;
    in->opened = true;
    return 0;
}

void input_close(struct input *in) {
    if (in->opened) byte_stream_close(&in->stream);
    text_free(&in->buffer), text_free(&in->raw);
    *in = (struct input){0};
}

void input_facts(struct input *in, struct source_facts *f) {
    f->bytes = in->stream.bytes;
    sha256_end(&in->stream.sha256, f->sha256);
    in->stream.sha256.context = NULL;
}

/* Every second byte of the beginning is 0: 1 if the later ones, 2 if the earlier ones. */
static int zeros(const u8 *p, i64 size) {
    i64 even = 0, odd = 0, n = i64_min(size, SAMPLE) / 2;
    for (i64 i = 0; i < n; i++) even += !p[2 * i], odd += !p[2 * i + 1];
    return n < 2 ? 0 : odd == n && !even ? 1 : even == n && !odd ? 2 : 0;
}

/* Looks at how the file begins, all of which is in the buffer. */
static int input_begin(struct input *in, struct err *e) {
    const u8 *p = (const u8 *)in->buffer.data;
    const i64 n = in->buffer.size;
    const bool little = n >= 2 && p[0] == 0xff && p[1] == 0xfe;
    const bool big = n >= 2 && p[0] == 0xfe && p[1] == 0xff;
    in->encoding = UTF8;
    if (n >= 4 &&
        ((little && !p[2] && !p[3]) || (!p[0] && !p[1] && p[2] == 0xfe && p[3] == 0xff))) {
        err_input(e, "%s: is UTF-32, by its byte order mark", in->path);
        return err_hint(e, "convert it: iconv -f UTF-32 -t UTF-8 '%s' > FILE", in->path);
    }
    const int without = zeros(p, n);
    if (without) {
        err_input(e, "%s: is UTF-16 without a byte order mark: every second byte is 0", in->path);
        return err_hint(e, "convert it: iconv -f UTF-16%s -t UTF-8 '%s' > FILE",
                        without == 1 ? "LE" : "BE", in->path);
    }
    if (n >= 3 && !memcmp(p, "\xef\xbb\xbf", 3)) input_take(in, 3);
    if (!little && !big) return 0;
    in->encoding = little ? UTF16LE : UTF16BE;
    in->buffer.size = 0;
    return text_add(&in->raw, p + 2, n - 2, e);
}

static u32 unit(const struct input *in, i64 i) {
    const u8 *p = (const u8 *)in->raw.data + 2 * i;
    return in->encoding == UTF16LE ? (u32)(p[0] | p[1] << 8) : (u32)(p[1] | p[0] << 8);
}

/* Converts the whole characters of `raw`. Half a pair of surrogates is an error. */
static int convert(struct input *in, struct err *e) {
    const i64 n = in->raw.size / 2;
    i64 i = 0;
    char put[4];
    for (; i < n; i++) {
        u32 code = unit(in, i);
        const bool high = code >= 0xd800 && code < 0xdc00, low = code >= 0xdc00 && code < 0xe000;
        if (high && i + 1 == n) break;
        const u32 next = high ? unit(in, i + 1) : 0;
        if (low || (high && (next < 0xdc00 || next >= 0xe000))) {
            i64 line = in->line;
            for (i64 k = in->at; k < in->buffer.size; k++) line += in->buffer.data[k] == '\n';
            return err_input(e, "%s:%lld: invalid UTF-16: half a pair of surrogates (0x%04x)",
                             in->path, (long long)line, code);
        }
        if (high) code = 0x10000 + ((code - 0xd800) << 10) + (next - 0xdc00), i++;
        if (text_add(&in->buffer, put, utf8_put(code, put), e)) return -1;
    }
    in->raw.size -= 2 * i;
    memmove(in->raw.data, in->raw.data + 2 * i, (size_t)in->raw.size);
    if (!in->stream.ended || !in->raw.size) return 0;
    return err_input(e, "%s: is UTF-16, and ends inside a character", in->path);
}

int input_fill(struct input *in, struct err *e) {
    const i64 left = in->buffer.size - in->at;
    if (in->at >= COMPACT && in->at > left) {
        memmove(in->buffer.data, in->buffer.data + in->at, (size_t)left);
        in->buffer.size = left, in->at = 0;
    }
    if (left >= DOCUMENT_LIMIT) {
        err_input(e, "%s:%lld: a document of more than %d bytes", in->path, (long long)in->line,
                  DOCUMENT_LIMIT);
        return err_hint(e,
                        "split the file, or give document_separator if it holds several documents");
    }
    const bool converts = in->encoding == UTF16LE || in->encoding == UTF16BE;
    if (byte_stream_read(&in->stream, converts ? &in->raw : &in->buffer, e)) return -1;
    if (in->encoding == ENCODING_UNKNOWN) {
        while (in->buffer.size < SAMPLE && !in->stream.ended)
            if (byte_stream_read(&in->stream, &in->buffer, e)) return -1;
        if (in->buffer.size && input_begin(in, e)) return -1;
    }
    return (in->encoding == UTF16LE || in->encoding == UTF16BE) && in->raw.size ? convert(in, e)
                                                                                : 0;
}

void input_take(struct input *in, i64 size) {
    const char *p = in->buffer.data + in->at, *end = p + size;
    for (; p < end && (p = memchr(p, '\n', (size_t)(end - p))); p++) in->line++;
    in->at += size, in->offset += size;
}

int input_peek(struct input *in, i64 i, struct err *e) {
    while (in->at + i >= in->buffer.size) {
        if (in->stream.ended) return INPUT_END;
        if (input_fill(in, e)) return INPUT_ERROR;
    }
    return (unsigned char)in->buffer.data[in->at + i];
}

int input_row(struct input *in, const char *separator, i64 *size, i64 *whole, struct err *e) {
    const i64 n = (i64)strlen(separator);
    i64 seen = 0;
    for (;;) {
        const char *data = in->buffer.data + in->at, *hit = NULL;
        const i64 have = in->buffer.size - in->at;
        if (n && have) hit = memmem(data + seen, (size_t)(have - seen), separator, (size_t)n);
        if (hit) return *size = hit - data, *whole = *size + n, 1;
        if (in->stream.ended) return *size = *whole = have, have > 0;
        seen = i64_max(0, have - n + 1);
        if (input_fill(in, e)) return -1;
    }
}

int input_utf8(const struct input *in, i64 size, struct err *e) {
    const char *text = in->buffer.data + in->at;
    i64 bad = utf8_bad(text, size), line = in->line, column = 1;
    if (bad < 0) return 0;
    for (i64 i = 0; i < bad; i++)
        line += text[i] == '\n', column = text[i] == '\n' ? 1 : column + 1;
    err_input(
        e, "%s:%lld: invalid UTF-8: byte 0x%02x at byte %lld of the line (byte %lld of the text)",
        in->path, (long long)line, (unsigned char)text[bad], (long long)column,
        (long long)(in->offset + bad));
    return err_hint(e, "convert the file, for instance with: iconv -f latin1 -t utf-8");
}
