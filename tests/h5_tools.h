/* h5_tools.h: what tests and fuzzers of HDF5 files share: golden files, checksums made right again
 * after a change, and the zstd filter with which the HDF5 library reads our files. */
#ifndef HONE_H5_TOOLS_H
#define HONE_H5_TOOLS_H

#include "base/h5_int.h"
#include <string.h>
#include <zstd.h>

/* A file of tests/golden/hdf5, decompressed; empty on an error. */
static inline struct text h5_golden(const char *path) {
    struct text packed = {0}, out = {0};
    struct err e = {0};
    if (file_read(&packed, path, &e)) return out;
    const size_t size = (size_t)ZSTD_getFrameContentSize(packed.data, (size_t)packed.size);
    out.data = mem_new((i64)size + 1, &e);
    out.size = (i64)ZSTD_decompress(out.data, size, packed.data, (size_t)packed.size);
    text_free(&packed);
    return out;
}

static inline void h5_seal(u8 *file, i64 file_size, i64 begin, i64 size) {
    if (size < 0 || size > file_size || begin + size + 4 > file_size) return;
    const u32 sum = h5_checksum(file + begin, size);
    memcpy(file + begin + size, &sum, 4);
}

/* Makes the checksums of superblock, object headers and chunk indices right, as an attacker would.
 */
static inline void h5_reseal(u8 *file, i64 size) {
    h5_seal(file, size, 0, 44);
    for (i64 i = 0; i + 48 < size; i++)
        if (!memcmp(file + i, "OHDR", 4)) {
            const int flags = file[i + 5], width = 1 << (flags & 3);
            const i64 at = i + 6 + (flags & 32 ? 16 : 0) + (flags & 16 ? 4 : 0);
            u64 body = 0;
            for (int k = 0; k < width && at + k < size; k++) body |= (u64)file[at + k] << 8 * k;
            if (body < (u64)size) h5_seal(file, size, i, at + width + (i64)body - i);
        } else if (!memcmp(file + i, "FAHD", 4)) {
            u64 count;
            memcpy(&count, file + i + 8, 8);
            h5_seal(file, size, i, 24);
            if (count < (u64)size && !memcmp(file + i + 28, "FADB", 4))
                h5_seal(file, size, i + 28, 14 + (i64)count * file[i + 6]);
        }
}

/* Reads all that can be read of a file. 0; -1 where some of it was refused, which must say why. */
static inline int h5_use(const char *path, void (*bad)(const char *why)) {
    struct err e = {0};
    struct h5_file *f = h5_open(path, &e);
    int refused = f ? 0 : -1;
    if (!f && (!e.code || !e.primary[0])) bad("refused without a word");
    for (i64 i = 0; f && i < f->nodes; i++) {
        struct h5_array a;
        struct h5_piece *piece = NULL;
        u8 byte;
        e = (struct err){0};
        if (h5_find(f, f->node[i].name, &a, &e) || !(piece = h5_pieces(f, &a, &e))) refused = -1;
        if (refused && !piece && (!e.code || !e.primary[0])) bad("refused without a word");
        for (i64 k = 0; piece && k < a.pieces; k++)
            if (h5_read(f, piece[k].at + piece[k].size - 1, 1, &byte, &e))
                bad("a piece that is not inside the file");
        mem_free(piece);
    }
    h5_close(f);
    return refused;
}

#ifdef HONE_H5_LIBRARY /* the HDF5 library, asked by tests only */
#include <hdf5.h>
static inline size_t h5_unpack(unsigned flags, size_t count, const unsigned *values, size_t size,
                               size_t *room, void **data) {
    const size_t full = (size_t)ZSTD_getFrameContentSize(*data, size);
    void *out = H5allocate_memory(full, false);
    (void)count, (void)values;
    if (!(flags & H5Z_FLAG_REVERSE) || ZSTD_decompress(out, full, *data, size) != full)
        return H5free_memory(out), 0;
    H5free_memory(*data);
    *data = out, *room = full;
    return full;
}
static inline void h5_library_start(void) {
    static const H5Z_class2_t filter = {H5Z_CLASS_T_VERS, FILTER_ZSTD, 1,    1,
                                        "zstd",           NULL,        NULL, h5_unpack};
    H5Zregister(&filter);
}
#endif

#endif
