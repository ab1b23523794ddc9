/* parquet_column.c: the entries of one column of one row group, page by page.
 *
 * One page (about 1 MB as others write them) and the dictionary are decompressed at a time. Sizes
 * are what the page's header says, or the page is refused. */
#include "data/datasets/parquet.h"
#include <lz4.h>
#include <snappy-c.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

enum codec { UNCOMPRESSED, SNAPPY, GZIP, LZO, BROTLI, LZ4_HADOOP, ZSTD, LZ4_RAW, CODECS };
static const char *const codec_name[CODECS] = {
    "none", "snappy", "gzip", "LZO", "brotli", "LZ4 (Hadoop's form)", "zstd", "LZ4"};

int parquet_wrong(const struct column *c, struct err *e, const char *fmt, ...) {
    char what[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return err_input(e, "'%s': column '%s', row group %lld: %s", c->file->path, c->node->path,
                     (long long)c->group, what);
}

/* ---- compression ----------------------------------------------------------------------------- */

/* zlib's own allocator, as base/byte_stream.c */
static void *zlib_alloc(void *arg, unsigned count, unsigned size) {
    (void)arg;
    return mem_new_array(count, size, &(struct err){0});
}
static void zlib_free(void *arg, void *p) {
    (void)arg;
    mem_free(p);
}

static bool gunzip(const u8 *from, i64 size, u8 *to, i64 room) {
    z_stream z = {.zalloc = zlib_alloc, .zfree = zlib_free};
    z.next_in = (u8 *)(uintptr_t)from, z.avail_in = (unsigned)size;
    z.next_out = to, z.avail_out = (unsigned)room;
    if (inflateInit2(&z, 15 + 32) != Z_OK) return false; /* gzip or zlib */
    const int r = inflate(&z, Z_FINISH);
    const bool whole = r == Z_STREAM_END && !z.avail_out;
    inflateEnd(&z);
    return whole;
}

static bool decompress(int codec, const u8 *from, i64 size, char *to, i64 room) {
    size_t made = (size_t)room;
    switch (codec) {
    case UNCOMPRESSED: return size == room && (memcpy(to, from, (size_t)size), true);
    case SNAPPY:
        return snappy_uncompressed_length((const char *)from, (size_t)size, &made) == SNAPPY_OK &&
               made == (size_t)room &&
               snappy_uncompress((const char *)from, (size_t)size, to, &made) == SNAPPY_OK;
    case GZIP: return gunzip(from, size, (u8 *)to, room);
    case ZSTD: return ZSTD_decompress(to, (size_t)room, from, (size_t)size) == (size_t)room;
    case LZ4_RAW:
        return LZ4_decompress_safe((const char *)from, to, (int)size, (int)room) == (int)room;
    }
    return false;
}

/* More than this many times its size no page becomes, so a header cannot ask for more memory. */
static i64 ratio(int codec) {
    return codec == SNAPPY    ? 64
           : codec == LZ4_RAW ? 256
           : codec == GZIP    ? 1100
           : codec == ZSTD    ? 40000 /* a block of 128 KiB takes 4 bytes */
                              : 1;
}

static bool codec_known(int codec) {
    return codec == UNCOMPRESSED || codec == SNAPPY || codec == GZIP || codec == ZSTD ||
           codec == LZ4_RAW;
}

static int codec_wrong(const struct column *c, struct err *e) {
    const bool named = c->codec >= 0 && c->codec < CODECS;
    if (named)
        parquet_wrong(c, e, "is compressed with %s, which is not read", codec_name[c->codec]);
    else
        parquet_wrong(c, e, "is compressed by codec %d, which is not known", c->codec);
    err_detail(e, "what is read: snappy, gzip, zstd, LZ4_RAW and no compression");
    return err_hint(e,
                    "write it anew: pyarrow.parquet.write_table(table, FILE, compression='zstd')");
}

/* Replaces `out` with the page's bytes; empty ones may have been compressed or not. */
static int unpack(const struct column *c, const u8 *from, i64 size, i64 room, bool packed,
                  struct text *out, struct err *e) {
    static const char empty[1];
    out->size = 0;
    if (!room && (!packed || !size)) return text_add(out, empty, 0, e);
    if (room / ratio(packed ? c->codec : UNCOMPRESSED) > size)
        return parquet_wrong(c, e, "a page of %lld bytes cannot have %lld", (long long)size,
                             (long long)room);
    if (room > out->capacity) {
        mem_free(out->data);
        *out = (struct text){0};
        if (!(out->data = mem_new(room + 1, e))) return -1;
        out->capacity = room + 1;
    }
    if (!out->data && text_add(out, empty, 0, e)) return -1;
    if (!decompress(packed ? c->codec : UNCOMPRESSED, from, size, out->data, room))
        return parquet_wrong(c, e, "a page is not valid %s of %lld bytes",
                             packed ? codec_name[c->codec] : "data", (long long)room);
    out->size = room;
    return 0;
}

/* ---- pages ----------------------------------------------------------------------------------- */

enum page_type { DATA_PAGE, INDEX_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 };
struct page {
    i64 type, size, packed_size, crc, values, encoding, definition_encoding, repetition_encoding;
    i64 definition_size, repetition_size;
    bool has_crc, compressed, counted;
};

/* The header of a data page (v1, v2) or a dictionary page: members have other numbers in v2. */
static void page_detail(struct thrift *t, struct page *p, int kind) {
    static const size_t member[3][7] = {
        {offsetof(struct page, values), offsetof(struct page, encoding),
         offsetof(struct page, definition_encoding), offsetof(struct page, repetition_encoding)},
        {offsetof(struct page, values), offsetof(struct page, encoding)},
        {offsetof(struct page, values), 0, 0, offsetof(struct page, encoding),
         offsetof(struct page, definition_size), offsetof(struct page, repetition_size)}};
    p->counted = true;
    for (struct thrift_field f = {0}; thrift_field(t, &f);)
        if (kind == 2 && f.id == 7)
            p->compressed = thrift_int(t, &f);
        else if (f.id >= 1 && f.id <= 7 && member[kind][f.id - 1])
            *(i64 *)(void *)((char *)p + member[kind][f.id - 1]) = thrift_int(t, &f);
        else
            thrift_skip(t, &f);
}

static int page_header(struct column *c, struct page *p, struct err *e) {
    struct thrift t = {c->at, c->end, false};
    *p = (struct page){.type = -1,
                       .encoding = -1,
                       .definition_encoding = E_RLE,
                       .repetition_encoding = E_RLE,
                       .compressed = true};
    for (struct thrift_field f = {0}; thrift_field(&t, &f);) {
        const int kind = f.id == 5 ? 0 : f.id == 7 ? 1 : f.id == 8 ? 2 : -1;
        if (f.id == 1)
            p->type = thrift_int(&t, &f);
        else if (f.id == 2)
            p->size = thrift_int(&t, &f);
        else if (f.id == 3)
            p->packed_size = thrift_int(&t, &f);
        else if (f.id == 4)
            p->has_crc = true, p->crc = thrift_int(&t, &f);
        else if (kind >= 0 && thrift_struct(&t, &f))
            page_detail(&t, p, kind);
        else if (kind < 0)
            thrift_skip(&t, &f);
    }
    if (t.bad || p->size < 0 || p->packed_size < 0 || p->packed_size > t.end - t.at ||
        (p->type != INDEX_PAGE && (!p->counted || p->values < 0)))
        return parquet_wrong(c, e, "a page header is malformed");
    if (p->size > DOCUMENT_LIMIT)
        return parquet_wrong(c, e, "a page of more than %d bytes", DOCUMENT_LIMIT);
    c->at = t.at;
    if (p->has_crc && (u32)crc32(0, c->at, (unsigned)p->packed_size) != (u32)p->crc)
        return parquet_wrong(c, e, "a page's checksum is wrong"),
               err_hint(e, "download or copy the file again");
    return 0;
}

static int dictionary_read(struct column *c, const struct page *p, struct err *e) {
    const i64 size = c->node->type == P_BYTE_ARRAY ? 4 : 1;
    if (c->has_dictionary || c->chunk_values == 0)
        return parquet_wrong(c, e, "a dictionary that does not belong there");
    if ((p->encoding != E_PLAIN && p->encoding != E_PLAIN_DICTIONARY) || c->node->type == P_BOOLEAN)
        return parquet_wrong(c, e, "a dictionary of encoding %lld", (long long)p->encoding);
    if (unpack(c, c->at, p->packed_size, p->size, true, &c->dictionary, e)) return -1;
    if (p->values > p->size / size)
        return parquet_wrong(c, e, "a dictionary of more values than bytes");
    if (!(c->entry = mem_new_array(p->values + 1, sizeof *c->entry, e))) return -1;
    const u8 *begin = (const u8 *)c->dictionary.data, *at = begin, *end = begin + p->size;
    for (struct value v; c->entries < p->values; c->entries++) {
        c->entry[c->entries] = at - begin;
        if (!value_plain(c->node->type, c->node->size, &at, end, &v))
            return parquet_wrong(c, e, "a dictionary that ends inside its values");
    }
    return c->has_dictionary = true, 0;
}

static int bits_for(int most) {
    int bits = 0;
    while (most >> bits) bits++;
    return bits;
}

/* Levels of a page of version 1: four bytes of size, then runs. Takes them from *at. */
static bool levels_begin(struct hybrid *h, int most, i64 encoding, const u8 **at, const u8 *end) {
    if (!most) return true;
    if (encoding != E_RLE || end - *at < 4) return false;
    const u8 *p = *at;
    const u32 size = p[0] | (u32)p[1] << 8 | (u32)p[2] << 16 | (u32)p[3] << 24;
    if (size > (u64)(end - p - 4)) return false;
    hybrid_begin(h, p + 4, size, bits_for(most));
    return *at = p + 4 + size, true;
}

static const char *encoding_name(i64 encoding) {
    static const char *const name[] = {"PLAIN",
                                       "1",
                                       "PLAIN_DICTIONARY",
                                       "RLE",
                                       "BIT_PACKED",
                                       "DELTA_BINARY_PACKED",
                                       "DELTA_LENGTH_BYTE_ARRAY",
                                       "DELTA_BYTE_ARRAY",
                                       "RLE_DICTIONARY",
                                       "BYTE_STREAM_SPLIT"};
    return encoding >= 0 && encoding < COUNT(name) ? name[encoding] : "unknown";
}

static int data_begin(struct column *c, const struct page *p, const u8 *at, const u8 *end,
                      struct err *e) {
    const bool coded = p->encoding == E_PLAIN_DICTIONARY || p->encoding == E_DICTIONARY;
    if (p->values > c->chunk_values)
        return parquet_wrong(c, e, "its pages have more values than it");
    if (coded && !c->has_dictionary)
        return parquet_wrong(c, e, "values of a dictionary that there is not");
    c->values.type = c->node->type, c->values.width = c->node->size;
    c->values.encoding =
        p->encoding >= 0 && p->encoding <= E_SPLIT ? (enum encoding)p->encoding : E_BIT_PACKED;
    if (!values_begin(&c->values, at, end - at))
        return parquet_wrong(c, e, "a page of encoding %s (%lld) that is malformed or not read",
                             encoding_name(p->encoding), (long long)p->encoding);
    c->left = p->values, c->chunk_values -= p->values;
    return 0;
}

static int data_read(struct column *c, const struct page *p, struct err *e) {
    if (unpack(c, c->at, p->packed_size, p->size, true, &c->page, e)) return -1;
    const u8 *at = (const u8 *)c->page.data, *end = at + p->size;
    if (!levels_begin(&c->repetition, c->node->repeated, p->repetition_encoding, &at, end) ||
        !levels_begin(&c->definition, c->node->definition, p->definition_encoding, &at, end))
        return parquet_wrong(c, e, "levels of a page are malformed, or in the BIT_PACKED encoding");
    return data_begin(c, p, at, end, e);
}

/* Version 2: the levels come first and are never compressed. */
static int data_v2_read(struct column *c, const struct page *p, struct err *e) {
    const i64 r = p->repetition_size, d = p->definition_size;
    if (r < 0 || d < 0 || r > p->packed_size || d > p->packed_size - r || r + d > p->size)
        return parquet_wrong(c, e, "levels of a page are malformed");
    if (unpack(c, c->at + r + d, p->packed_size - r - d, p->size - r - d, p->compressed, &c->page,
               e))
        return -1;
    hybrid_begin(&c->repetition, c->at, r, bits_for(c->node->repeated));
    hybrid_begin(&c->definition, c->at + r, d, bits_for(c->node->definition));
    const u8 *at = (const u8 *)c->page.data;
    return data_begin(c, p, at, at + c->page.size, e);
}

/* Goes on to the next page that has entries; 0 at the end of the chunk, too. */
static int page_next(struct column *c, struct err *e) {
    struct page p;
    while (!c->left && c->chunk_values) {
        if (c->at == c->end) return parquet_wrong(c, e, "its pages have fewer values than it");
        if (page_header(c, &p, e)) return -1;
        const int r = p.type == DATA_PAGE         ? data_read(c, &p, e)
                      : p.type == DATA_PAGE_V2    ? data_v2_read(c, &p, e)
                      : p.type == DICTIONARY_PAGE ? dictionary_read(c, &p, e)
                      : p.type == INDEX_PAGE      ? 0
                                             : parquet_wrong(c, e, "a page of an unknown type");
        if (r) return -1;
        c->at += p.packed_size;
    }
    return 0;
}

/* ---- entries --------------------------------------------------------------------------------- */

int column_next(struct column *c, struct err *e) {
    c->next_repetition = 0, c->next_definition = -1;
    if (!c->left && page_next(c, e)) return -1;
    if (!c->left) return 0;
    const i64 r = c->node->repeated ? hybrid_next(&c->repetition) : 0,
              d = c->node->definition ? hybrid_next(&c->definition) : 0;
    if (r < 0 || d < 0 || r > c->node->repeated || d > c->node->definition)
        return parquet_wrong(c, e, "levels of a page are malformed");
    c->left--, c->next_repetition = (int)r, c->next_definition = (int)d;
    return 0;
}

int column_begin(struct column *c, const struct parquet *file, const struct schema_node *node,
                 i64 group, const struct chunk *chunk, struct err *e) {
    column_free(c);
    c->file = file, c->node = node, c->group = group, c->codec = chunk->codec;
    c->at = file->map.data + chunk->offset, c->end = c->at + chunk->size;
    c->chunk_values = chunk->values;
    if (!codec_known(c->codec)) return codec_wrong(c, e);
    if (column_next(c, e)) return -1;
    return c->next_repetition ? parquet_wrong(c, e, "it begins inside a row") : 0;
}

void column_free(struct column *c) {
    text_free(&c->page), text_free(&c->dictionary);
    text_free(&c->values.before), text_free(&c->values.made);
    mem_free(c->entry);
    *c = (struct column){0};
}

int column_value(struct column *c, struct value *out, struct err *e) {
    int r = values_next(&c->values, out, e);
    const bool coded =
        c->values.encoding == E_PLAIN_DICTIONARY || c->values.encoding == E_DICTIONARY;
    if (r > 0 && coded) {
        const i64 i = out->integer;
        const u8 *begin = (const u8 *)c->dictionary.data, *end = begin + c->dictionary.size;
        const u8 *at = i < c->entries ? begin + c->entry[i] : NULL;
        r = at && value_plain(c->node->type, c->node->size, &at, end, out);
    }
    return r > 0 ? 0 : r ? -1 : parquet_wrong(c, e, "a value is malformed");
}
