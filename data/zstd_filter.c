/* zstd_filter.c: HDF5 filter 32015, "Zstandard", registered in this process.
 *
 * Each chunk is one zstd frame that states its content size; cd_values[0] is the level. That is the
 * format of the filter registered with The HDF Group, so hdf5plugin and any build of it read our
 * files. Debian packages no such plugin, and a plugin found at run time would be one more thing to
 * install. */
#include "data/dataset_int.h"
#include <pthread.h>
#include <zstd.h>

static const size_t content_limit =
    64 << 20; /* bytes of one chunk: a frame's own claim is not trusted further */

static size_t zstd_filter(unsigned flags, size_t count, const unsigned value[], size_t bytes,
                          size_t *capacity, void **buffer) {
    size_t bound, size;
    if (flags & H5Z_FLAG_REVERSE) {
        unsigned long long content = ZSTD_getFrameContentSize(*buffer, bytes);
        if (content >= ZSTD_CONTENTSIZE_ERROR || content > content_limit) return 0;
        bound = (size_t)content;
    } else {
        bound = ZSTD_compressBound(bytes);
    }
    void *out = H5allocate_memory(bound ? bound : 1, false);
    if (!out) return 0;
    if (flags & H5Z_FLAG_REVERSE)
        size = ZSTD_decompress(out, bound, *buffer, bytes);
    else
        size = ZSTD_compress(out, bound, *buffer, bytes, count ? (int)value[0] : 3);
    if (ZSTD_isError(size)) return H5free_memory(out), 0;
    H5free_memory(*buffer);
    *buffer = out, *capacity = bound;
    return size;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool registered;

static void filter_register(void) {
    static const H5Z_class2_t class = {
        H5Z_CLASS_T_VERS, H5_ZSTD, 1, 1, "Zstandard compression: http://www.zstd.net", NULL, NULL,
        zstd_filter};
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* we report errors, not the library */
    registered = H5Zregister(&class) >= 0;
}

int zstd_filter_register(struct err *e) {
    pthread_once(&once, filter_register);
    return registered ? 0 : err_failed(e, "HDF5 refuses the zstd filter");
}
