/* h5_int.h: what the files of HDF5 share. */
#ifndef HONE_H5_INT_H
#define HONE_H5_INT_H

#include "base/h5.h"

/* The numbers of the format's messages in object headers. */
enum {
    MESSAGE_NIL = 0,
    MESSAGE_SPACE = 1,
    MESSAGE_LINK_INFO = 2,
    MESSAGE_TYPE = 3,
    MESSAGE_FILL = 5,
    MESSAGE_LINK = 6,
    MESSAGE_EXTERNAL = 7,
    MESSAGE_LAYOUT = 8,
    MESSAGE_GROUP_INFO = 10,
    MESSAGE_FILTERS = 11,
    MESSAGE_ATTRIBUTE = 12,
    MESSAGE_CONTINUATION = 16,
    MESSAGE_SYMBOLS = 17,
    MESSAGE_ATTRIBUTE_INFO = 21,
};
enum { FILTER_SHUFFLE = 2, FILTER_ZSTD = 32015 }; /* the second as registered with The HDF Group */
enum { LAYOUT_CONTIGUOUS = 1, LAYOUT_CHUNKED = 2 };
enum { INDEX_NONE = 0, INDEX_FIXED = 3, INDEX_TREE = 100 }; /* 100: the version 1 B-tree */
enum { H5_DEEP = 16, H5_NAME = 1024 }; /* groups in groups; bytes of a whole name */
#define H5_NOWHERE UINT64_MAX

u32 h5_checksum(const void *data, i64 size); /* h5_checksum.c */
/* Bytes that hold the size of a compressed chunk in an index; `chunk`: of one uncompressed. */
int h5_size_bytes(u64 chunk);

/* A range of bytes that is read from its start; reading beyond the end sets `bad` and gives 0. */
struct h5_span {
    const u8 *at;
    i64 left;
    bool bad;
};
u64 h5_take(struct h5_span *s, int bytes);
struct h5_span h5_cut(struct h5_span *s, i64 bytes);

struct h5_node { /* an array, by its whole name */
    char *name;
    u64 at;
};
struct h5_file {
    int fd;
    char *path;
    i64 size, budget; /* budget: bytes of structure that may still be read */
    struct arena arena;
    struct h5_attribute *root;
    struct h5_node *node; /* sorted by name */
    i64 nodes, room;
};

struct h5_link {
    struct h5_link *next;
    const char *name;
    u64 at;
};
struct h5_object { /* an object header, read */
    bool has_space, has_type, has_layout, is_group;
    struct h5_array array;
    u64 tree, heap; /* of a group with a symbol table */
    struct h5_link *link;
    struct h5_attribute *attribute;
    i64 attributes;
};
/* `size` bytes of structure at `at`, in the file's arena; NULL with an error. */
const u8 *h5_structure(struct h5_file *f, u64 at, i64 size, const char *what, struct err *e);
int h5_object(struct h5_file *f, u64 at, struct h5_object *o, struct err *e); /* h5_object.c */
int h5_message(struct h5_file *f, struct h5_object *o, int type, int flags, struct h5_span s,
               struct err *e); /* h5_message.c */
/* h5_tree.c: version 1 B-trees of groups and chunks. */
int h5_symbols(struct h5_file *f, struct h5_object *o, struct err *e);
int h5_chunk_tree(struct h5_file *f, const struct h5_array *a, struct h5_piece *piece,
                  struct err *e);

#endif
