/* parquet.h: what the files of the Parquet reader share.
 *
 * A file is row groups, a row group is one chunk of pages for each column, and a footer (Thrift,
 * compact protocol) says where they lie. A column is a leaf of a tree of groups and lists; each of
 * its entries has a definition level (how far down the tree it is there) and a repetition level (in
 * which list it goes on), from which rows are put together (Dremel, Melnik et al., 2010). Format:
 * https://github.com/apache/parquet-format (2.10). */
#ifndef HONE_PARQUET_H
#define HONE_PARQUET_H

#include "data/datasets/readers.h"

/* ---- parquet_thrift.c: Thrift's compact protocol, within bounds ------------------------------ */
struct thrift {
    const u8 *at, *end;
    bool bad; /* set by the first malformed item; what is read afterwards is 0 */
};
enum thrift_type {
    T_STOP,
    T_TRUE,
    T_FALSE,
    T_BYTE,
    T_I16,
    T_I32,
    T_I64,
    T_DOUBLE,
    T_BINARY,
    T_LIST,
    T_SET,
    T_MAP,
    T_STRUCT
};
struct thrift_field {
    int id;
    enum thrift_type type;
};
/* The next field of a struct: false at its end, or where it is malformed. Begin with {0}. */
bool thrift_field(struct thrift *t, struct thrift_field *f);
i64 thrift_int(struct thrift *t, const struct thrift_field *f); /* any integer, or a bool */
const u8 *thrift_bytes(struct thrift *t, const struct thrift_field *f, i64 *size);
/* Begins a list of `type`: how many items there are, at most one for each byte left. */
i64 thrift_list(struct thrift *t, const struct thrift_field *f, enum thrift_type type);
bool thrift_struct(struct thrift *t, const struct thrift_field *f); /* its fields follow */
void thrift_skip(struct thrift *t, const struct thrift_field *f);
i64 thrift_varint(struct thrift *t); /* zigzag */

/* ---- parquet_meta.c: the footer -------------------------------------------------------------- */
enum parquet_type {
    P_BOOLEAN,
    P_INT32,
    P_INT64,
    P_INT96,
    P_FLOAT,
    P_DOUBLE,
    P_BYTE_ARRAY,
    P_FIXED,
    P_GROUP
};
enum repetition { REQUIRED, OPTIONAL, REPEATED };
enum meaning { /* of a leaf */
               PLAIN_VALUE,
               UTF8_TEXT,
               UNSIGNED,
               NO_JSON /* decimals, UUIDs, intervals, half floats: there is no JSON for them */
};
struct schema_node {
    char *name;
    enum parquet_type type;
    i64 size; /* P_FIXED: bytes */
    enum repetition repetition;
    enum meaning meaning;
    bool list;    /* a LIST or MAP group: it is what its one, repeated child is */
    bool wrapper; /* that child, if it only holds the element */
    i64 children;
    i64 last; /* the nodes behind it, up to here, are in it; nodes are in depth-first order */
    int definition, repeated; /* levels: optional or repeated nodes down to it; repeated ones */
    i64 leaf;                 /* the first column in it */
    i64 leaves;
    char *path; /* of a leaf: a.b.c */
};
struct chunk { /* a column of a row group */
    i64 offset, size, values;
    int codec;
};
struct parquet_meta {
    struct schema_node *node;
    i64 nodes, leaves;
    i64 *leaf; /* [leaves] their nodes */
    i64 groups, rows;
    i64 *group_rows;     /* [groups] */
    struct chunk *chunk; /* [groups][leaves] */
    struct arena arena;
};
int parquet_meta_read(struct parquet_meta *m, const u8 *file, i64 size, const char *path,
                      struct err *e);

/* ---- parquet_decode.c: levels and values of a page ------------------------------------------- */
struct hybrid { /* runs, and groups of 8 packed in bits */
    const u8 *at, *end;
    int width;
    i64 run, packed; /* left of either */
    u32 value;
    const u8 *bits; /* of the packed ones */
    i64 bit;
};
void hybrid_begin(struct hybrid *h, const u8 *data, i64 size, int width);
i64 hybrid_next(struct hybrid *h); /* -1: malformed, or at the end */

struct delta { /* DELTA_BINARY_PACKED */
    const u8 *at, *end;
    i64 mini, minis; /* values of a miniblock; miniblocks of a block */
    i64 left;        /* values */
    u64 value, least;
    i64 in_mini, in_block; /* left: values, miniblocks */
    const u8 *widths, *bits;
    int width;
    i64 bit;
    bool first, bad;
};
void delta_begin(struct delta *d, const u8 *data, i64 size);
bool delta_next(struct delta *d, i64 *value);
const u8 *delta_end(const struct delta *d); /* what follows; NULL: malformed. Reads on a copy. */

struct value {
    i64 integer;
    double real;
    const u8 *bytes; /* good until the next value of the column */
    i64 size;
};
enum encoding {
    E_PLAIN = 0,
    E_PLAIN_DICTIONARY = 2,
    E_RLE = 3,
    E_BIT_PACKED = 4,
    E_DELTA = 5,
    E_DELTA_LENGTH = 6,
    E_DELTA_BYTES = 7,
    E_DICTIONARY = 8,
    E_SPLIT = 9
};
struct values { /* of one page */
    enum parquet_type type;
    enum encoding encoding;
    i64 width; /* bytes of a fixed one */
    const u8 *at, *end;
    i64 index; /* E_SPLIT and booleans: the next one */
    struct hybrid hybrid;
    struct delta delta, suffix;
    struct text before, made; /* E_DELTA_BYTES: the last one; E_SPLIT: the bytes put together */
};
/* false: this encoding does not go with the type, or its beginning is malformed. */
bool values_begin(struct values *v, const u8 *data, i64 size);
/* A value as it lies there, or with E_DICTIONARY its number in out->integer. 1, 0: malformed, -1:
 * out of memory. */
int values_next(struct values *v, struct value *out, struct err *e);
bool value_plain(enum parquet_type type, i64 width, const u8 **at, const u8 *end,
                 struct value *out); /* not of booleans */

/* ---- parquet_column.c: the entries of one column of one row group ---------------------------- */
struct column {
    const struct parquet *file;
    const struct schema_node *node;
    i64 group;
    const u8 *at, *end; /* pages not yet read */
    i64 chunk_values;   /* entries not yet in a page */
    int codec;
    struct text page, dictionary; /* decompressed */
    i64 *entry;                   /* [entries] where each value of the dictionary begins */
    i64 entries;
    i64 left; /* entries of the page */
    bool levels_r, levels_d;
    struct hybrid repetition, definition;
    struct values values;
    bool has_dictionary;
    int next_repetition; /* of the entry that is next; 0 at the end */
    int next_definition; /* -1: there is none */
};
int column_begin(struct column *c, const struct parquet *file, const struct schema_node *node,
                 i64 group, const struct chunk *chunk, struct err *e);
void column_free(struct column *c);
/* The value of the next entry, which has one (next_definition is the leaf's); once each. It is good
 * until column_next, which goes on to the entry behind. */
int column_value(struct column *c, struct value *out, struct err *e);
int column_next(struct column *c, struct err *e);

struct parquet {
    const char *path;
    struct map map;
    struct parquet_meta meta;
    struct column *column;        /* [leaves] */
    i64 group, row_of_group, row; /* the next row */
    i64 entries, bytes;           /* of the row that is being read */
    i64 nulled;
    bool inexact;
};
int parquet_wrong(const struct column *c, struct err *e, const char *fmt, ...) PRINTF(3, 4);

#endif
