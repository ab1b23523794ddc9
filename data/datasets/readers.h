/* readers.h: what the files that read files share: bytes as UTF-8 text (input.c), and rows out of
 * JSON (json_rows.c), CSV (csv.c) and Parquet (parquet*.c), all as the same JSON objects, so that
 * what a row means (rows.c) need not know where it was read. */
#ifndef HONE_READERS_H
#define HONE_READERS_H

#include "data/datasets/datasets_int.h"
#include <jansson.h>

/* ---- input.c: the bytes of a text file, decompressed, as UTF-8 ------------------------------- */
enum { DOCUMENT_LIMIT = 1 << 30 }; /* bytes; also what a decompression bomb can take */
struct input {
    const char *path;
    struct byte_stream stream;
    bool opened;
    enum { ENCODING_UNKNOWN, UTF8, UTF16LE, UTF16BE } encoding;
    struct text raw;    /* of UTF-16: bytes not yet converted */
    struct text buffer; /* not yet taken, from `at` on */
    i64 at;
    i64 offset, line; /* of buffer.data[at] in the text: bytes from 0, lines from 1 */
};
int input_open(struct input *in, const char *path, struct err *e);
void input_close(struct input *in);
/* Adds what follows to the buffer; nothing new at the end (in->stream.ended). */
int input_fill(struct input *in, struct err *e);
void input_take(struct input *in, i64 size); /* counts lines */
/* Byte i from here, INPUT_END, or INPUT_ERROR. */
enum { INPUT_END = -1, INPUT_ERROR = -2 };
int input_peek(struct input *in, i64 i, struct err *e);
/* Up to the separator ("": to the end): `size` bytes, `whole` with it. 1, 0 at the end, -1. */
int input_row(struct input *in, const char *separator, i64 *size, i64 *whole, struct err *e);
/* `size` bytes from here are valid UTF-8, or an error that names line and byte. */
int input_utf8(const struct input *in, i64 size, struct err *e);
void input_facts(struct input *in, struct source_facts *f); /* at the end: bytes and SHA-256 */

/* ---- rows ------------------------------------------------------------------------------------ */
struct file_row {
    bool skip;    /* in: pass over it; json stays NULL */
    json_t *json; /* an object; the caller's */
    i64 line;     /* where it begins, from 1; of Parquet: the row, from 1 */
    bool inexact; /* it holds an integer that is read as a real */
    bool passed;  /* it is broken, and reading can go on behind it */
};
/* Each gives 1 and the next row, 0 at the end, or -1 and an error that names file and place. */
struct json_rows {
    struct input *in;
    enum { AT_BEGIN, AT_LINES, AT_FIRST, AT_NEXT, AT_AFTER } at; /* lines; or where in an array */
    i64 rows, nulled; /* read so far; NaN and Infinity, which became null */
    const struct source_options *options;
    i64 behind;     /* bytes of an object around the array that follow it */
    json_t *around; /* its keys, that of the array with a text; NULL: there is none. The owner's */
};
int json_rows_next(struct json_rows *r, struct file_row *row, struct err *e);

struct csv_rows {
    struct input *in;
    char delimiter;
    struct text_list header;
    i64 header_room;
    struct text field; /* the one being read */
};
int csv_rows_next(struct csv_rows *r, struct file_row *row, struct err *e);
void csv_rows_free(struct csv_rows *r);

struct parquet;
struct parquet *parquet_open(const char *path, struct err *e); /* path: borrowed */
void parquet_close(struct parquet *p);
int parquet_next(struct parquet *p, struct file_row *row, struct err *e);
i64 parquet_nulled(const struct parquet *p); /* values that JSON has no form for: became null */
int parquet_facts(const struct parquet *p, struct source_facts *f, struct err *e);

#endif
