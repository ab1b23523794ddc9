/* checkpoints_int.h: what the files of this folder share. */
#ifndef HONE_CHECKPOINTS_INT_H
#define HONE_CHECKPOINTS_INT_H

#include "checkpoints/checkpoints.h"
#include "base/h5.h"

/* Reads one file's bytes, which must outlive `s`, and appends its tensors; `file` names it in
 * messages. Fuzzed. */
int safetensors_parse(struct safetensors *s, const u8 *data, i64 size, const char *file,
                      struct err *e);
/* After the last file: sorts by name, refuses a name that two shards hold. */
int safetensors_index(struct safetensors *s, const char *path, struct err *e);
/* Finds the scales of tensors of few bits; `block`: rows and columns to a scale of float8. */
int safetensors_link(struct safetensors *s, const i64 block[2], const char *path, struct err *e);
bool is_float8(const struct stored *t);
bool scaled_readable(const struct stored *t);
void scaled_read(const struct stored *t, i64 begin, i64 count, float *to);
int gguf_parse(struct gguf *g, const u8 *data, i64 size, const char *file, struct err *e);
int shape_count(int rank, const i64 *dim, i64 *count);    /* elements; -1 if they overflow 2^56 */
bool name_is_plain(const char *name);                     /* a file name without folder parts */
json_t *manifest_json(const char *folder, struct err *e); /* parsed, format and lists checked */
int seal_verify(const char *folder, struct err *e);       /* manifest.json: text and its SHA-256 */
int file_sync_path(const char *path, struct err *e);

/* ---- state.c, state_read.c ---- */
enum {
    STATE_CHUNK = 1 << 20, /* bytes, at most, of a chunk before compression */
    STATE_SLOTS = 16,      /* chunks packed at once */
    STATE_SLOT = 3 * STATE_CHUNK + STATE_CHUNK / 8
};
#define STATE_FORMAT "hone-state-1"
/* How an array is cut: chunk dimensions, and the walk over pieces in memory order. */
struct state_cut {
    i64 chunk[STORED_RANK];
    int at;          /* the dimension that is cut */
    i64 elements;    /* of the array */
    i64 inner, rows; /* elements of one index of dim[at]; indices per chunk */
    i64 per, pieces; /* pieces along dim[at]; in all */
};
int state_cut(struct state_cut *c, enum dtype dtype, int rank, const i64 *dim);
enum h5_type state_type(enum dtype dtype); /* H5_UNKNOWN if state files do not hold it */

/* Whether the whole of `text` matches: 1, 0, or -1 for a pattern that PCRE2 refuses. */
int lora_regex(const char *pattern, const char *text, struct err *e);

#endif
