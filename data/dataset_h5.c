/* dataset_h5.c: HDF5 files through a driver of our own, and the few attribute and array calls
 * datasets need.
 *
 * The driver is HDF5's virtual file layer over pread and pwrite. It exists for three reasons.
 * HDF5's own drivers keep neither errno nor path, so a full disk is reported as "unable to write".
 * After a failed write the library cannot close the file: it retries the flush, fails again and
 * complains at exit; this driver remembers the first failure and swallows what follows. And fault
 * injection reaches every read and write. It takes no locks: a dataset is written under another
 * name and renamed, so no reader ever meets a writer.
 *
 * Files are written in the format whose superblock, object headers and indices carry checksums
 * (HDF5 1.10, superblock 3) and only such files are opened: a damaged file is then refused by a
 * checksum and not by luck. */
#include "data/dataset_int.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the driver ------------------------------------------------------------------------------ */

struct driver_file {
    H5FD_t base; /* HDF5's part comes first */
    struct h5 *h;
    haddr_t end; /* of what HDF5 has allocated */
};

static H5FD_t *driver_open(const char *name, unsigned flags, hid_t fapl, haddr_t limit) {
    (void)name, (void)flags, (void)limit;
    struct h5 *const *h = H5Pget_driver_info(fapl);
    struct driver_file *f = h ? mem_new(sizeof *f, &(*h)->err) : NULL;
    if (f) f->h = *h;
    return f ? &f->base : NULL;
}
static herr_t driver_close(H5FD_t *base) {
    mem_free(base);
    return 0;
}
/* No metadata accumulator: HDF5 1.10 crashes in it when a forged file gives an undefined address.
 */
static herr_t driver_query(const H5FD_t *base, unsigned long *flags) {
    (void)base;
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_AGGREGATE_SMALLDATA;
    return 0;
}
static haddr_t driver_get_eoa(const H5FD_t *base, H5FD_mem_t type) {
    (void)type;
    return ((const struct driver_file *)base)->end;
}
static herr_t driver_set_eoa(H5FD_t *base, H5FD_mem_t type, haddr_t end) {
    (void)type;
    ((struct driver_file *)base)->end = end;
    return 0;
}
static haddr_t driver_get_eof(const H5FD_t *base, H5FD_mem_t type) {
    (void)type;
    return (haddr_t)((const struct driver_file *)base)->h->size;
}
static herr_t driver_read(H5FD_t *base, H5FD_mem_t type, hid_t plist, haddr_t at, size_t size,
                          void *out) {
    struct h5 *h = ((struct driver_file *)base)->h;
    (void)type, (void)plist;
    for (size_t done = 0; done < size;) {
        ssize_t n = fault_hit(FAULT_READ)
                        ? -1
                        : pread(h->fd, (char *)out + done, size - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_system(&h->err, "read", h->path);
        if (n == 0) return -1; /* HDF5 was led beyond the end */
        done += (size_t)n;
    }
    return 0;
}
static herr_t driver_write(H5FD_t *base, H5FD_mem_t type, hid_t plist, haddr_t at, size_t size,
                           const void *data) {
    struct h5 *h = ((struct driver_file *)base)->h;
    (void)plist;
    if (type == H5FD_MEM_DRAW) h->raw_at = (i64)at, h->raw_size = (i64)size;
    for (size_t done = 0; done < size && !h->err.code;) {
        ssize_t n = fault_hit(FAULT_WRITE)
                        ? -1
                        : pwrite(h->fd, (const char *)data + done, size - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            int saved = errno;
            err_system(&h->err, "write", h->path);
            if (saved == ENOSPC)
                err_detail(&h->err, "%lld bytes are free there; %lld were written",
                           (long long)disk_free(h->path), (long long)h->size);
            break;
        }
        done += (size_t)n;
    }
    h->size = i64_max(h->size, (i64)(at + size));
    return 0;
}
static herr_t driver_truncate(H5FD_t *base, hid_t plist, hbool_t closing) {
    struct driver_file *f = (struct driver_file *)base;
    (void)plist, (void)closing;
    if (!f->h->writable || f->h->err.code || (i64)f->end == f->h->size) return 0;
    if (ftruncate(f->h->fd, (off_t)f->end)) err_system(&f->h->err, "resize", f->h->path);
    f->h->size = (i64)f->end;
    return 0;
}

static const H5FD_class_t driver = {
    .name = "hone",
    .maxaddr = INT64_MAX,
    .fc_degree = H5F_CLOSE_STRONG,
    .fapl_size = sizeof(struct h5 *),
    .open = driver_open,
    .close = driver_close,
    .query = driver_query,
    .get_eoa = driver_get_eoa,
    .set_eoa = driver_set_eoa,
    .get_eof = driver_get_eof,
    .read = driver_read,
    .write = driver_write,
    .truncate = driver_truncate,
    .fl_map = H5FD_FLMAP_DICHOTOMY,
};

/* ---- files ----------------------------------------------------------------------------------- */

int h5_failed(struct h5 *h, const char *what, struct err *e) {
    if (h->err.code && !e->code) *e = h->err;
    return err_input(e, "'%s': %s", h->path, what);
}

static int h5_start(struct h5 *h, const char *path, bool writable, int flags, struct err *e) {
    *h = (struct h5){.path = path, .fd = -1, .writable = writable, .file = H5I_INVALID_HID};
    if (zstd_filter_register(e)) return -1;
    if (!writable) return (h->fd = file_source(path, e)) < 0 ? -1 : 0;
    if (!fault_hit(FAULT_OPEN)) h->fd = open(path, flags | O_CLOEXEC, 0666);
    return h->fd < 0 ? err_system(e, "create", path) : 0;
}

static int h5_finish(struct h5 *h, struct err *e) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), create = H5Pcreate(H5P_FILE_CREATE),
          id = H5FDregister(&driver);
    H5Pset_driver(access, id, &h);
    H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
    H5Pset_obj_track_times(create, false); /* the same input gives the same bytes */
    h->file = h->writable ? H5Fcreate(h->path, H5F_ACC_TRUNC, create, access)
                          : H5Fopen(h->path, H5F_ACC_RDONLY, access);
    H5Pclose(access), H5Pclose(create), H5FDunregister(id);
    if (h->file >= 0) return 0;
    h5_failed(h, "a damaged or truncated HDF5 file", e);
    h5_close(h, e);
    return -1;
}

int h5_create(struct h5 *h, const char *path, struct err *e) {
    return h5_start(h, path, true, O_RDWR | O_CREAT | O_TRUNC, e) || h5_finish(h, e) ? -1 : 0;
}

int h5_open(struct h5 *h, const char *path, struct err *e) {
    static const u8 signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
    u8 head[9] = {0};
    struct stat info;
    if (path_is_dir(path)) return err_input(e, "'%s' is a folder, not a dataset", path);
    if (h5_start(h, path, false, O_RDONLY, e)) return -1;
    ssize_t n = fault_hit(FAULT_READ) ? -1 : pread(h->fd, head, sizeof head, 0);
    if (n < 0 || fstat(h->fd, &info))
        err_system(e, "read", path);
    else if (n < (ssize_t)sizeof head || memcmp(head, signature, 8))
        err_input(e, "'%s' is not an HDF5 file", path),
            err_hint(e, "make a dataset with: hone tokenize");
    else if (head[8] < 2)
        err_input(e, "'%s': HDF5 superblock version %d has no checksum", path, head[8]),
            err_detail(e, "expected version 2 or later"),
            err_hint(e, "with h5py write it with libver='latest'");
    if (e->code) return h5_close(h, e), -1;
    h->size = info.st_size;
    return h5_finish(h, e);
}

int h5_close(struct h5 *h, struct err *e) {
    if (h->file >= 0 && H5Fclose(h->file) < 0) h5_failed(h, "HDF5 cannot finish the file", e);
    h->file = H5I_INVALID_HID;
    if (h->err.code && !e->code) *e = h->err;
    if (h->fd >= 0 && h->writable && !e->code) file_sync(h->fd, h->path, e);
    if (h->fd >= 0) close(h->fd);
    h->fd = -1;
    return e->code ? -1 : 0;
}

/* ---- attributes ------------------------------------------------------------------------------ */

static int attribute_put(struct h5 *h, const char *name, hid_t type, hid_t memory,
                         const void *value, struct err *e) {
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t a = H5Acreate2(h->file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    herr_t r = a < 0 ? -1 : H5Awrite(a, memory, value);
    if (a >= 0) H5Aclose(a);
    H5Sclose(space);
    return r < 0 ? h5_failed(h, "HDF5 cannot write an attribute", e) : 0;
}

int h5_put_i64(struct h5 *h, const char *name, i64 value, struct err *e) {
    return attribute_put(h, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value, e);
}

int h5_put_text(struct h5 *h, const char *name, const char *value, struct err *e) {
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(value) + 1);
    int r = attribute_put(h, name, type, type, value, e);
    H5Tclose(type);
    return r;
}

static hid_t attribute_open(struct h5 *h, const char *name, struct err *e) {
    hid_t a = H5Aexists(h->file, name) > 0 ? H5Aopen(h->file, name, H5P_DEFAULT) : -1;
    if (a >= 0) return a;
    h5_failed(h, "is not a hone dataset", e);
    err_detail(e, "it has no attribute '%s'", name);
    return -1;
}

static int attribute_wrong(struct h5 *h, const char *name, const char *want, struct err *e) {
    h5_failed(h, "is not a hone dataset", e);
    return err_detail(e, "its attribute '%s' is not %s", name, want);
}

int h5_get_i64(struct h5 *h, const char *name, i64 *value, struct err *e) {
    hid_t a = attribute_open(h, name, e);
    if (a < 0) return -1;
    hid_t type = H5Aget_type(a), space = H5Aget_space(a);
    bool good = H5Tget_class(type) == H5T_INTEGER && H5Tget_size(type) == 8 &&
                H5Sget_simple_extent_npoints(space) == 1 &&
                H5Aread(a, H5T_NATIVE_INT64, value) >= 0;
    H5Tclose(type), H5Sclose(space), H5Aclose(a);
    return good ? 0 : attribute_wrong(h, name, "one 64-bit integer", e);
}

int h5_get_text(struct h5 *h, const char *name, i64 size, char *value, struct err *e) {
    hid_t a = attribute_open(h, name, e);
    if (a < 0) return -1;
    hid_t type = H5Aget_type(a), space = H5Aget_space(a);
    bool good = H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0 &&
                (i64)H5Tget_size(type) == size + 1 && H5Sget_simple_extent_npoints(space) == 1 &&
                H5Aread(a, type, value) >= 0 && !value[size] && (i64)strlen(value) == size;
    H5Tclose(type), H5Sclose(space), H5Aclose(a);
    char want[64];
    snprintf(want, sizeof want, "a text of %lld characters", (long long)size);
    return good ? 0 : attribute_wrong(h, name, want, e);
}

/* ---- arrays ---------------------------------------------------------------------------------- */

hid_t h5_put_tokens(struct h5 *h, int width, i64 count) {
    hsize_t size = (hsize_t)count, max = H5S_UNLIMITED, chunk = (hsize_t)(DATASET_CHUNK / width);
    hid_t create = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(1, &size, &max);
    H5Pset_chunk(create, 1, &chunk);
    H5Pset_filter(create, H5_ZSTD, H5Z_FLAG_MANDATORY, 1, &(unsigned){DATASET_LEVEL});
    H5Pset_obj_track_times(create, false);
    hid_t d = H5Dcreate2(h->file, "tokens", width == 2 ? H5T_STD_U16LE : H5T_STD_U32LE, space,
                         H5P_DEFAULT, create, H5P_DEFAULT);
    H5Pclose(create), H5Sclose(space);
    return d;
}

int h5_put_array(struct h5 *h, const char *name, hid_t type, i64 rows, i64 columns,
                 const void *data, struct err *e) {
    hsize_t size[2] = {(hsize_t)rows, (hsize_t)columns};
    hid_t create = H5Pcreate(H5P_DATASET_CREATE),
          space = H5Screate_simple(columns > 1 ? 2 : 1, size, NULL);
    H5Pset_obj_track_times(create, false);
    hid_t d = H5Dcreate2(h->file, name, type, space, H5P_DEFAULT, create, H5P_DEFAULT);
    herr_t r = d < 0 ? -1 : H5Dwrite(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data);
    if (d >= 0) H5Dclose(d);
    H5Pclose(create), H5Sclose(space);
    return r < 0 ? h5_failed(h, "HDF5 cannot write an array", e) : 0;
}

static int array_wrong(struct h5 *h, const char *name, const char *why, struct err *e) {
    h5_failed(h, "is not a readable hone dataset", e);
    return err_detail(e, "/%s: %s", name, why);
}

/* The number of rows, after checking that type and shape are as we write them and that the file can
 * hold them. */
static i64 array_rows(const struct h5 *h, hid_t d, hid_t type, i64 columns, const char **why) {
    hid_t found = H5Dget_type(d), space = H5Dget_space(d), create = H5Dget_create_plist(d);
    hsize_t size[2] = {0, 0};
    int rank = columns > 1 ? 2 : 1;
    bool shape = H5Sget_simple_extent_ndims(space) == rank &&
                 H5Sget_simple_extent_dims(space, size, NULL) == rank && size[0] &&
                 (rank == 1 || size[1] == (hsize_t)columns);
    bool laid = H5Pget_layout(create) == H5D_CONTIGUOUS && !H5Pget_external_count(create);
    *why = H5Tequal(found, type) <= 0 ? "unexpected element type"
           : !shape                   ? "unexpected shape"
           : !laid                    ? "not contiguous"
           : size[0] > (hsize_t)(h->size / ((i64)H5Tget_size(type) * columns))
               ? "larger than the file"
               : NULL;
    H5Tclose(found), H5Sclose(space), H5Pclose(create);
    return (i64)size[0];
}

int h5_get_array(struct h5 *h, const char *name, hid_t type, i64 columns, struct arena *a,
                 void **data, i64 *rows, struct err *e) {
    hid_t d = H5Lexists(h->file, name, H5P_DEFAULT) > 0 ? H5Dopen2(h->file, name, H5P_DEFAULT) : -1;
    const char *why = NULL;
    if (d < 0) return array_wrong(h, name, "missing or damaged", e);
    *rows = array_rows(h, d, type, columns, &why), *data = NULL;
    if (!why && (*data = arena_new(a, *rows * (i64)H5Tget_size(type) * columns + 1, e)) &&
        H5Dread(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, *data) < 0)
        why = "damaged data";
    H5Dclose(d);
    return why ? array_wrong(h, name, why, e) : *data ? 0 : -1;
}
