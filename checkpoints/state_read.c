/* state_read.c: reading training state back.
 *
 * Nothing is converted or guessed: an array must have the type and shape the trainer expects, and
 * its bytes the hash it was written with. HDF5 itself does not withstand hostile files, so a
 * checkpoint's state is opened only after its manifest verified. */
#include "checkpoints/checkpoints_int.h"
#include <string.h>

struct state_reader {
    hid_t file;
    char *path;
};

static hid_t attribute_open(struct state_reader *r, hid_t on, const char *name, H5T_class_t class,
                            struct err *e) {
    hid_t a = H5Aexists(on, name) > 0 ? H5Aopen(on, name, H5P_DEFAULT) : -1;
    if (a < 0) return err_input(e, "%s has no attribute %.150s", r->path, name), -1;
    hid_t type = H5Aget_type(a);
    hid_t space = H5Aget_space(a);
    bool fits = H5Tget_class(type) == class && H5Sget_simple_extent_npoints(space) == 1 &&
                (class != H5T_STRING || H5Tis_variable_str(type) == 0);
    H5Tclose(type);
    H5Sclose(space);
    if (fits) return a;
    H5Aclose(a);
    err_input(e, "%s: attribute %.150s is not one %s", r->path, name,
              class == H5T_STRING    ? "text"
              : class == H5T_INTEGER ? "whole number"
                                     : "number");
    return -1;
}

static int number_get(struct state_reader *r, const char *name, H5T_class_t class, hid_t type,
                      void *to, struct err *e) {
    hid_t a = attribute_open(r, r->file, name, class, e);
    if (a < 0) return -1;
    int status = H5Aread(a, type, to) < 0 ? hdf5_failed(e, "read attribute", name, r->path) : 0;
    H5Aclose(a);
    return status;
}
int state_get_i64(struct state_reader *r, const char *name, i64 *value, struct err *e) {
    return number_get(r, name, H5T_INTEGER, H5T_STD_I64LE, value, e);
}
int state_get_f64(struct state_reader *r, const char *name, double *value, struct err *e) {
    return number_get(r, name, H5T_FLOAT, H5T_IEEE_F64LE, value, e);
}

static char *text_get(struct state_reader *r, hid_t on, const char *name, struct err *e) {
    hid_t a = attribute_open(r, on, name, H5T_STRING, e);
    if (a < 0) return NULL;
    hid_t type = H5Aget_type(a);
    char *text = mem_new((i64)H5Tget_size(type) + 1, e);
    if (text && H5Aread(a, type, text) < 0) {
        hdf5_failed(e, "read attribute", name, r->path);
        mem_free(text);
        text = NULL;
    }
    H5Tclose(type);
    H5Aclose(a);
    return text;
}
char *state_get_text(struct state_reader *r, const char *name, struct err *e) {
    return text_get(r, r->file, name, e);
}

/* H5Lexists needs every group on the way to exist: it is asked for each prefix. */
bool state_has(struct state_reader *r, const char *name) {
    char part[512];
    if (strlen(name) >= sizeof part) return false;
    for (const char *slash = name; slash; slash = strchr(slash + 1, '/')) {
        const char *end = strchr(slash + 1, '/');
        size_t n = end ? (size_t)(end - name) : strlen(name);
        memcpy(part, name, n);
        part[n] = 0;
        if (H5Lexists(r->file, part, H5P_DEFAULT) <= 0) return false;
    }
    return true;
}

static hid_t set_open(struct state_reader *r, const char *name, struct err *e) {
    hid_t set = state_has(r, name) ? H5Dopen2(r->file, name, H5P_DEFAULT) : -1;
    if (set < 0) err_input(e, "%s has no array %.200s", r->path, name);
    return set;
}

static int set_shape(hid_t set, enum dtype *dtype, int *rank, i64 dim[STORED_RANK]) {
    static const enum dtype held[] = {F32, F64, I64, U8};
    hid_t type = H5Dget_type(set), space = H5Dget_space(set);
    hsize_t size[STORED_RANK];
    *dtype = DTYPE_COUNT;
    for (i64 i = 0; i < COUNT(held); i++)
        if (H5Tequal(type, h5_type(held[i])) > 0) *dtype = held[i];
    *rank = H5Sget_simple_extent_ndims(space);
    int status = *rank < 1 || *rank > STORED_RANK || *dtype == DTYPE_COUNT ? -1 : 0;
    if (!status) status = H5Sget_simple_extent_dims(space, size, NULL) == *rank ? 0 : -1;
    for (int d = 0; !status && d < *rank; d++) dim[d] = (i64)size[d];
    H5Tclose(type);
    H5Sclose(space);
    return status;
}

int state_shape(struct state_reader *r, const char *name, enum dtype *dtype, int *rank,
                i64 dim[STORED_RANK], struct err *e) {
    hid_t set = set_open(r, name, e);
    if (set < 0) return -1;
    int status = set_shape(set, dtype, rank, dim);
    H5Dclose(set);
    return status
               ? err_input(e, "%s: array %.200s has a type or shape that state files do not hold",
                           r->path, name)
               : 0;
}

static int set_read(struct state_reader *r, hid_t set, const char *name, enum dtype dtype,
                    i64 count, void *to, struct err *e) {
    char hex[65];
    if (count && H5Dread(set, h5_type(dtype), H5S_ALL, H5S_ALL, H5P_DEFAULT, to) < 0)
        return hdf5_failed(e, "read array", name, r->path);
    char *written = text_get(r, set, "sha256", e);
    int status = written ? sha256_bytes(to, count * dtype_size(dtype), hex, e) : -1;
    if (!status && strcmp(written, hex)) {
        err_failed(e, "%s: array %.200s is damaged", r->path, name);
        status = err_detail(e, "SHA-256 written %.64s, read %s", written, hex);
    }
    mem_free(written);
    return status;
}

int state_get(struct state_reader *r, const char *name, enum dtype dtype, int rank, const i64 *dim,
              void *to, struct err *e) {
    enum dtype found_dtype;
    int found_rank;
    i64 found[STORED_RANK], count;
    char a[192], b[192];
    if (state_shape(r, name, &found_dtype, &found_rank, found, e)) return -1;
    if (found_dtype != dtype || found_rank != rank ||
        memcmp(found, dim, (size_t)rank * sizeof *dim))
        return err_input(e, "%s: array %.150s is %s %s, expected %s %s", r->path, name,
                         dtype_info[found_dtype].name, shape_text(a, found_rank, found),
                         dtype_info[dtype].name, shape_text(b, rank, dim));
    if (shape_count(rank, dim, &count))
        return err_input(e, "%s: array %.150s is too large", r->path, name);
    hid_t set = set_open(r, name, e);
    int status = set < 0 ? -1 : set_read(r, set, name, dtype, count, to, e);
    if (set >= 0) H5Dclose(set);
    return status;
}

struct state_reader *state_open(const char *path, struct err *e) {
    struct state_reader *r = h5_start(e) ? NULL : mem_new(sizeof *r, e);
    if (!r) return NULL;
    r->file = -1;
    if (!(r->path = mem_text(path, e))) return state_close(r), NULL;
    if (!path_exists(path)) return err_input(e, "%s is missing", path), state_close(r), NULL;
    if (file_regular(path, e)) return state_close(r), NULL;
    if (fault_hit(FAULT_OPEN) || (r->file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT)) < 0)
        return hdf5_failed(e, "open", "state file", path), state_close(r), NULL;
    char *format = text_get(r, r->file, "format", e);
    bool ours = format && !strcmp(format, STATE_FORMAT);
    if (format && !ours) err_input(e, "%s has format %.100s; expected " STATE_FORMAT, path, format);
    mem_free(format);
    return ours ? r : (state_close(r), NULL);
}

void state_close(struct state_reader *r) {
    if (!r) return;
    if (r->file >= 0) H5Fclose(r->file);
    mem_free(r->path);
    mem_free(r);
}
