/* h5.c: HDF5 for state files: quiet errors, element types, and the zstd filter.
 *
 * Filter 32015 is the number registered for zstd, so that h5py with hdf5plugin reads our files;
 * Debian packages no plugin, so the filter is registered in the process. The filter only
 * decompresses here (state.c compresses chunks itself, in parallel), but HDF5 wants both
 * directions. */
#include "checkpoints/checkpoints_int.h"
#include <string.h>
#include <zstd.h>

/* HDF5 owns *buf. Returns the bytes in use, 0 for failure. A frame may not
 * claim more than 64 MiB: far above any chunk of ours, far below what would hurt. */
static size_t zstd_filter(unsigned flags, size_t count, const unsigned *value, size_t size,
                          size_t *capacity, void **buf) {
    bool reverse = flags & H5Z_FLAG_REVERSE;
    unsigned long long bound =
        reverse ? ZSTD_getFrameContentSize(*buf, size) : ZSTD_compressBound(size);
    if (bound > 64 << 20) return 0;
    void *out = H5allocate_memory(bound ? bound : 1, false);
    if (!out) return 0;
    size_t n = reverse ? ZSTD_decompress(out, bound, *buf, size)
                       : ZSTD_compress(out, bound, *buf, size, count ? (int)value[0] : 1);
    if (ZSTD_isError(n) || (reverse && n != bound)) return H5free_memory(out), 0;
    H5free_memory(*buf);
    *buf = out;
    *capacity = bound;
    return n;
}

int h5_start(struct err *e) {
    static const H5Z_class2_t filter = {H5Z_CLASS_T_VERS, ZSTD_FILTER, 1,    1,
                                        "zstd",           NULL,        NULL, zstd_filter};
    if (H5open() < 0 || H5Eset_auto2(H5E_DEFAULT, NULL, NULL) < 0 || H5Zregister(&filter) < 0)
        return err_failed(e, "the HDF5 library does not start");
    return 0;
}

hid_t h5_type(enum dtype dtype) {
    return dtype == F32   ? H5T_IEEE_F32LE
           : dtype == F64 ? H5T_IEEE_F64LE
           : dtype == I64 ? H5T_STD_I64LE
           : dtype == U8  ? H5T_STD_U8LE
                          : -1;
}

/* The innermost entry of HDF5's error stack says what went wrong, for a failed system call in the
 * system's words between quotes, after much else. */
static herr_t innermost(unsigned n, const H5E_error2_t *entry, void *text) {
    static const char mark[] = "error message = '";
    if (n || !entry->desc) return 0;
    const char *system = strstr(entry->desc, mark);
    if (system)
        system += sizeof mark - 1, snprintf(text, 256, "%.*s", (int)strcspn(system, "'"), system);
    else
        snprintf(text, 256, "%s", entry->desc);
    return 0;
}

int hdf5_failed(struct err *e, const char *what, const char *name, const char *path) {
    char why[256] = "no reason given";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost, why);
    err_failed(e, "cannot %s %.150s of %s", what, name, path);
    return err_detail(e, "HDF5: %s", why);
}
