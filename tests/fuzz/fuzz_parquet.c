/* fuzz_parquet.c: libFuzzer target for Parquet files, built with clang
 * -fsanitize=fuzzer,address,undefined.
 *
 * The input is the file. A mutation rarely keeps a footer whole, so a first byte of 1 to 3 makes
 * the rest a part of one: pages of a column behind a footer of ours. Reading gives rows, the same
 * twice, or an error. */
#include "data/datasets/parquet.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

enum { ROWS = 3000 };
static char path[64];

static void check(bool holds) {
    if (!holds) abort();
}

static void fuzz_files_remove(void) { unlink(path); }

/* ---- a file around the bytes of one column's pages */

static void put_varint(struct text *t, u64 v) {
    struct err e = {0};
    for (; v > 127; v >>= 7) text_add(t, &(u8){(u8)(v | 128)}, 1, &e);
    text_add(t, &(u8){(u8)v}, 1, &e);
}
static void put_int(struct text *t, i64 v) { put_varint(t, (u64)v << 1 ^ (u64)(v >> 63)); }
static void put(struct text *t, const char *bytes, i64 size) {
    text_add(t, bytes, size, &(struct err){0});
}
static void put_name(struct text *t, const char *name) {
    put_varint(t, strlen(name)), put(t, name, (i64)strlen(name));
}

/* The second byte: how values are made; `rows` of them. */
static void wrap(struct text *out, const u8 *data, i64 size, bool listed) {
    const int type = data[0] % 8, codec = data[0] >> 3 & 7;
    const i64 rows = data[1], body = size - 2;
    put(out, "PAR1", 4), put(out, (const char *)data + 2, body);
    const i64 footer = out->size;
    put(out, "\x15\x02\x19", 3);                                /* version; the schema */
    put(out, listed ? "\x4c" : "\x2c", 1), put(out, "\x48", 1); /* its elements; the root */
    put_name(out, "r"), put(out, "\x15\x02\0", 3);
    if (listed) put(out, "\x35\x02\x18", 3), put_name(out, "l"), put(out, "\x15\x02\x15\x06\0", 5);
    if (listed) put(out, "\x35\x04\x18", 3), put_name(out, "m"), put(out, "\x15\x02\0", 3);
    put(out, "\x15", 1), put_int(out, type), put(out, "\x15\x10\x15\x02\x18", 5);
    put_name(out, "c"), put(out, "\0\x16", 2), put_int(out, rows);
    put(out, "\x19\x1c\x19\x1c\x3c\x15", 6), put_int(out, type); /* a group, its column, metadata */
    put(out, listed ? "\x29\x38" : "\x29\x18", 2);
    if (listed) put_name(out, "l"), put_name(out, "m");
    put_name(out, "c"), put(out, "\x15", 1), put_int(out, codec), put(out, "\x16", 1);
    put_int(out, rows + (listed ? 8 : 0)), put(out, "\x26", 1), put_int(out, body);
    put(out, "\x26", 1), put_int(out, 4), put(out, "\0\0\x26", 3), put_int(out, rows);
    put(out, "\0\0", 2);
    const u32 length = (u32)(out->size - footer);
    put(out, (const char *)&length, 4), put(out, "PAR1", 4);
}

/* Rows, or -1; a digest of them. */
static i64 read_all(char hex[65], bool *wrapped) {
    struct err e = {0};
    struct sha256 sum = {0};
    struct parquet *p = sha256_begin(&sum, &e) ? NULL : parquet_open(path, &e);
    *wrapped = p != NULL;
    i64 rows = 0;
    int r = p ? 1 : -1;
    while (r > 0 && rows < ROWS) {
        struct file_row row = {0};
        if ((r = parquet_next(p, &row, &e)) <= 0) break;
        check(json_is_object(row.json) && row.line == ++rows);
        char *text = json_dumps(row.json, 0);
        check(text != NULL), sha256_add(&sum, text, (i64)strlen(text));
        free(text), json_decref(row.json);
    }
    check((r < 0) == (e.code != 0));
    sha256_end(&sum, hex), parquet_close(p);
    return r < 0 ? -1 : rows;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    char first[65], again[65];
    bool wrapped;
    struct text file = {0};
    if (!path[0]) {
        snprintf(path, sizeof path, "/dev/shm/hone-fuzz-parquet-%d", getpid());
        atexit(fuzz_files_remove);
    }
    const bool make = size > 3 && data[0] >= 1 && data[0] <= 3;
    if (make)
        wrap(&file, data + 1, (i64)size - 1, data[0] == 3);
    else if (size)
        put(&file, (const char *)data, (i64)size);
    FILE *to = fopen(path, "w");
    if (!to || fwrite(file.data ? file.data : "", 1, (size_t)file.size, to) != (size_t)file.size ||
        fclose(to))
        abort();
    const i64 rows = read_all(first, &wrapped);
    if (make && data[1] % 8 < 7) check(wrapped); /* our footer is right */
    check(read_all(again, &wrapped) == rows && (rows < 0 || !strcmp(first, again)));
    text_free(&file);
    return 0;
}
