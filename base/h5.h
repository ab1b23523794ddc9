/* h5.h: HDF5 files without the HDF5 library: datasets and training states are written and read by
 * h5_write.c and h5_read.c. The only header of base that is not for everybody.
 *
 * Why not the library: after a failed write it cannot close its file and crashes in its exit
 * handler, it follows addresses of damaged files out of bounds, and it is not thread safe. Of its
 * format we need little: groups, arrays that are contiguous or in zstd chunks, and attributes.
 *
 * What we write is HDF5 1.10 (superblock 3): every header and index carries a checksum, links and
 * attributes lie in object headers, chunks have a fixed array as index. Other HDF5 programs read it
 * (tests/unit/base/test_h5.c asks the library). What we read is that, and what hone wrote before
 * through the library: superblock 0 with symbol tables (training states) and superblock 3
 * (datasets). Anything else is refused, by name.
 *
 * Reading is for hostile files: an address or a size is believed only if it lies in the file, and
 * what a file can make us read or allocate is bounded by its own size. */
#ifndef HONE_H5_H
#define HONE_H5_H

#include "base/base.h"

enum { H5_RANK = 8 };
enum h5_type { H5_U8, H5_U16, H5_U32, H5_U64, H5_I64, H5_F32, H5_F64, H5_TEXT, H5_UNKNOWN };
extern const int h5_size[H5_UNKNOWN]; /* bytes of an element; of H5_TEXT 1 */

struct h5_piece { /* of an array's data: where it lies in the file */
    u64 at, size;
};
struct h5_attribute {
    struct h5_attribute *next;
    const char *name;
    enum h5_type type;
    i64 size; /* bytes of data: of a text with the NUL that ends it */
    const u8 *data;
};
struct h5_array {
    const char *name; /* from the root: "master/lm_head.weight" */
    enum h5_type type;
    int rank;
    i64 dim[H5_RANK];
    bool chunked, shuffled; /* shuffled: bytes in planes before compression */
    int level;              /* of zstd: what is noted in the file */
    i64 chunk[H5_RANK];
    /* Contiguous: one, or none where there are no elements. Chunked: one per chunk of the grid, the
     * last dimension fastest; reading: see h5_pieces. */
    const struct h5_piece *piece;
    i64 pieces;
    const char *sha256; /* becomes an attribute; NULL: none */
    /* Of an array that is read: */
    struct h5_attribute *attribute;
    bool indexed; /* h5_pieces knows its kind of chunk index */
    int index;    /* which kind, at `index_at` */
    u64 index_at;
};

/* ---- writing (h5_write.c). Data is appended first; the superblock comes last. */
struct h5_writer;
struct h5_writer *h5_create(const char *path, struct err *e);
int h5_append(struct h5_writer *w, const void *data, i64 size, struct h5_piece *piece,
              struct err *e);
int h5_add(struct h5_writer *w, const struct h5_array *a, struct err *e);
/* h5_append and h5_add of a whole array, contiguous: [rows], or [rows, columns] where columns > 1.
 */
int h5_put_array(struct h5_writer *w, const char *name, enum h5_type type, i64 rows, i64 columns,
                 const void *data, struct err *e);
/* Attributes of the root group. */
int h5_put_i64(struct h5_writer *w, const char *name, i64 value, struct err *e);
int h5_put_f64(struct h5_writer *w, const char *name, double value, struct err *e);
int h5_put_text(struct h5_writer *w, const char *name, const char *value, struct err *e);
/* Ends the file and syncs it. Without `keep`, or on an error, it is removed, and the result is -1.
 * Frees `w`; NULL gives -1. */
int h5_finish(struct h5_writer *w, bool keep, struct err *e);

/* ---- reading (h5_read.c). Errors are ERR_INPUT with the file, and the place as the detail. */
struct h5_file;
struct h5_file *h5_open(const char *path, struct err *e);
void h5_close(struct h5_file *f);
int h5_fd(const struct h5_file *f);
i64 h5_bytes(const struct h5_file *f);
const struct h5_attribute *h5_root(const struct h5_file *f);
const struct h5_attribute *h5_attribute(const struct h5_attribute *list, const char *name);
bool h5_has(const struct h5_file *f, const char *name); /* an array of this name */
/* The array's type, shape and attributes, which live as long as the file: 0; 1 if there is none. */
int h5_find(struct h5_file *f, const char *name, struct h5_array *a, struct err *e);
/* All pieces of an array, a->pieces of them; free with mem_free. */
struct h5_piece *h5_pieces(struct h5_file *f, struct h5_array *a, struct err *e);
int h5_read(struct h5_file *f, u64 at, i64 size, void *to, struct err *e);
/* "'PATH': a damaged or truncated HDF5 file", with the detail. -1. */
int h5_bad(struct h5_file *f, struct err *e, const char *fmt, ...) PRINTF(3, 4);

#endif
