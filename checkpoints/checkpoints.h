/* checkpoints.h: weights, adapters, training state and the folders that hold them. checkpoints'
 * only public header.
 *
 * Reading is strict: a file that breaks a rule of its format is refused with the file, the tensor
 * and the bytes. Writing is exact: safetensors files equal, byte for byte, what the reference
 * library writes. */
#ifndef HONE_CHECKPOINTS_H
#define HONE_CHECKPOINTS_H

#include "base/base.h"

/* ==== safetensors: safetensors.c, safetensors_write.c ==== */
/* Format: github.com/huggingface/safetensors. 8 bytes of header length (little endian), JSON
 * header, data. */
enum { STORED_RANK = 8 };
struct stored {       /* one tensor of a file, or one to be written */
    const char *name; /* as on disk: "model.layers.0.mlp.down_proj.weight" */
    const char *type; /* the file's own spelling: "BF16". Set by reading, ignored by writing */
    enum dtype dtype; /* DTYPE_COUNT: hone does not compute with it ("BOOL", "F8_E4M3") */
    int rank;         /* 0 to STORED_RANK */
    i64 dim[STORED_RANK];
    const u8 *data; /* row major, aligned to the element; the file's, or the caller's to write */
    i64 bytes;
    /* Of few bits: the tensor that scales its values, in blocks of a matrix (scaled.c) or NULL */
    const struct stored *scale;
    i64 block[2];
    bool foreign_scale; /* it has scales of a kind that is not read */
    bool part;          /* it scales another tensor, or holds its codes: no tensor of a model */
    char sha256[65];    /* of the data: set by safetensors_write, empty after reading */
};
struct safetensors {
    struct stored *tensor; /* sorted by name */
    i64 count;
    struct map *map; /* one per shard */
    i64 maps;
    struct arena memory;
};
/* `path`: a .safetensors file, or an index (.json) whose weight_map names the shards beside it.
 * Data stays mapped until safetensors_close, which is also right after a failed open. */
int safetensors_open(struct safetensors *s, const char *path, struct err *e);
void safetensors_close(struct safetensors *s);
/* Gives the memory of a tensor's pages back; they are read again when they are needed again.
 * Peak memory is the model, not the model plus the file. */
void safetensors_forget(const struct safetensors *s, const struct stored *t);
/* NULL if missing. */
const struct stored *safetensors_find(const struct safetensors *s, const char *name);
/* As find, but a missing tensor or an element type that hone does not compute with is an error
 * naming it. */
const struct stored *safetensors_need(const struct safetensors *s, const char *name, struct err *e);
/* Writes FOLDER/STEM.safetensors, or, if the tensors exceed `shard_bytes`, shards in the order
 * given (each closed before it would exceed the limit) and STEM.safetensors.index.json, named as
 * transformers names them. Sets sha256. */
#define SHARD_BYTES 5000000000 /* the default of transformers */
int safetensors_write(const char *folder, const char *stem, struct stored *tensor, i64 count,
                      i64 shard_bytes, struct err *e);

/* ==== values of tensors: stored.c, scaled.c ==== */
/* Whether stored_read can: floating-point types, the blocks of GGUF that gguf_types decodes, and
 * what scaled.c reads. */
bool stored_readable(const struct stored *s);
/* Elements [begin, begin + count) as `d`, F32 or BF16, rounded once. The tensor is readable. */
void stored_read(const struct stored *s, i64 begin, i64 count, enum dtype d, void *to);

/* ==== GGUF: gguf.c, gguf_value.c, gguf_blocks.c, gguf_write.c ==== */
/* Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little endian. */
enum gguf_kind { /* of metadata values; numbers are the format's */
                 GGUF_U8,
                 GGUF_I8,
                 GGUF_U16,
                 GGUF_I16,
                 GGUF_U32,
                 GGUF_I32,
                 GGUF_F32,
                 GGUF_BOOL,
                 GGUF_TEXT,
                 GGUF_LIST,
                 GGUF_U64,
                 GGUF_I64,
                 GGUF_F64,
                 GGUF_KINDS
};
struct gguf_value {
    const char *key;
    enum gguf_kind kind, item; /* item: of a list's members */
    i64 count;                 /* members of a list; 1 */
    const u8 *data;            /* the file's bytes: little endian, any alignment; a text or a list
                                  begins behind its length */
    i64 bytes;
};
struct gguf {
    struct stored *tensor; /* in the file's order; dim[0] is the slowest, as in every stored */
    i64 count;
    struct gguf_value *value; /* in the file's order */
    i64 values;
    i64 alignment; /* of tensor data */
    u32 version;
    struct map map;
    struct map *part; /* of a split model: those of the other files */
    i64 parts;        /* of the split, this one included; 0: it is not split */
    struct arena memory;
};
/* The file of part `i`, from 0, of a split model that `path`, "NAME-00001-of-00003.gguf", is a part
 * of: new text; NULL: it is none, or an error. */
char *gguf_part_path(const char *path, i64 i, i64 *parts, struct err *e);
/* Of a split model all parts are read; `path` is the first. Tensors stay mapped until gguf_close,
 * which is also right after a failed open. */
int gguf_open(struct gguf *g, const char *path, struct err *e);
void gguf_close(struct gguf *g);
const struct gguf_value *gguf_find(const struct gguf *g, const char *key); /* NULL if missing */
/* Typed values. Missing: the default. Of another kind: an error naming `where` and the key. */
i64 gguf_i64(const struct gguf *g, const char *key, i64 otherwise, const char *where,
             struct err *e);
double gguf_f64(const struct gguf *g, const char *key, double otherwise, const char *where,
                struct err *e);
bool gguf_bool(const struct gguf *g, const char *key, bool otherwise, const char *where,
               struct err *e);
/* A copy in `a`; a text with a NUL byte is an error. */
const char *gguf_text(const struct gguf *g, const char *key, const char *otherwise, struct arena *a,
                      const char *where, struct err *e);
/* A list of that many numbers (count -1: any) as f64, or of texts; NULL without an error: missing.
 */
double *gguf_numbers(const struct gguf *g, const char *key, i64 *count, struct arena *a,
                     const char *where, struct err *e);
struct gguf_text { /* not NUL-terminated; in the file */
    const char *data;
    i64 size;
};
struct gguf_text *gguf_texts(const struct gguf *g, const char *key, i64 *count, struct arena *a,
                             const char *where, struct err *e);
/* Element types as GGUF files name and number them. */
struct gguf_type {
    const char *name; /* "Q4_K"; stored.type of what is read */
    int number;
    enum dtype dtype;   /* DTYPE_COUNT: blocks */
    int elements, size; /* of a block: elements, bytes. Rows are whole blocks */
    /* NULL: not read, not written. `n`: blocks */
    void (*decode)(const u8 *from, i64 n, float *to);
    void (*encode)(const float *from, i64 n, u8 *to);
};
extern const struct gguf_type gguf_types[];
const struct gguf_type *gguf_type_of(const char *name); /* NULL: none of that name */
/* Metadata to be written, in the order it is put. Zero-initialise; free also after a failure. */
struct gguf_writer {
    struct text head;
    i64 values;
};
int gguf_put_u32(struct gguf_writer *w, const char *key, i64 x, struct err *e);
int gguf_put_f32(struct gguf_writer *w, const char *key, double x, struct err *e);
int gguf_put_bool(struct gguf_writer *w, const char *key, bool x, struct err *e);
int gguf_put_text(struct gguf_writer *w, const char *key, const char *x, struct err *e);
int gguf_put_texts(struct gguf_writer *w, const char *key, const struct gguf_text *x, i64 count,
                   struct err *e);
int gguf_put_f32s(struct gguf_writer *w, const char *key, const float *x, i64 count, struct err *e);
int gguf_put_i32s(struct gguf_writer *w, const char *key, const i32 *x, i64 count, struct err *e);
/* All values of a file whose keys begin so, as they are, but for those that begin as one of `but`:
 * texts, each with its NUL, the last one empty. */
int gguf_put_like(struct gguf_writer *w, const struct gguf *g, const char *prefix, const char *but,
                  struct err *e);
void gguf_writer_free(struct gguf_writer *w);
struct gguf_tensor {
    struct stored from; /* named as in the file; readable, finite */
    const struct gguf_type *type;
};
/* Creates `path`, encodes, fsyncs. */
int gguf_write(const char *path, const struct gguf_writer *w, const struct gguf_tensor *tensor,
               i64 count, struct err *e);

/* ==== Hugging Face folders: folder.c ==== */
struct model_folder {
    char *path;
    json_t *config;             /* config.json, parsed; NULL: a GGUF file's metadata say it */
    struct safetensors weights; /* over all shards; or a GGUF file's tensors, and its maps */
    struct gguf gguf;           /* version 0: a folder. Its data are weights' */
};
/* A folder or a .gguf file. */
bool path_is_gguf(const char *path); /* by its name */
/* Call folder_close also after a failure. */
int folder_open(struct model_folder *f, const char *path, struct err *e);
void folder_close(struct model_folder *f);
/* Copies byte for byte what belongs to a model besides its weights: config.json,
 * generation_config.json, tokenizer files, chat template. Files that `from` lacks are skipped. */
const char *folder_companion(i64 i); /* the i-th name of those; NULL: no more */
int folder_copy(const char *from, const char *to, struct err *e);
/* The same of a tokenizer alone: a folder's files, or one file; files of another tokenizer that the
 * target holds are removed. */
int folder_copy_tokenizer(const char *from, const char *to, struct err *e);
/* Names, between commas, of what a folder holds besides weights and what folder_copy takes and the
 * folder that it was copied to (NULL: none other is) lacks. */
int folder_uncopied(const char *folder, const char *to, struct text *names, struct err *e);
/* Makes config.json of a folder name the type its weights have (`dtype`, or `torch_dtype` where the
 * file does not use the new spelling), and no quantisation: transformers converts what it loads to
 * that type. A file that says so already keeps its bytes. */
int folder_dtype(const char *folder, enum dtype d, struct err *e);
/* Makes config.json say that the LM head has weights of its own; how many tokens there are (0: as
 * it says). */
int folder_reshaped(const char *folder, bool untied, i64 vocab_size, struct err *e);

/* ==== PEFT LoRA adapters: peft.c, peft_keys.c ==== */
/* Files of PEFT 0.21: adapter_config.json, adapter_model.safetensors. Every setting that hone
 * would not honour is refused by name, never ignored. */
struct lora_pattern { /* values for the modules whose path ends in a match of a key */
    struct text_list key;
    double *value; /* [key.count] */
};
struct lora_config {
    i64 r;
    double lora_alpha, lora_dropout;
    struct text_list target_modules;    /* matches what equals an item or ends in "." and an item */
    const char *target_regex;           /* or a pattern for the whole path, or "all-linear" */
    struct text_list target_parameters; /* of a mixture: "mlp.experts.down_proj"; matched alike */
    struct text_list exclude_modules;   /* the same for what is left out */
    const char *exclude_regex;
    struct text_list layers_to_transform;            /* numbers of layers; none: all */
    struct lora_pattern rank_pattern, alpha_pattern; /* in place of r and lora_alpha */
    struct text_list modules_to_save;                /* trained whole and saved whole */
    bool use_rslora;                                 /* scale alpha / sqrt(r) */
    bool fan_in_fan_out; /* written: the layers are transformers' Conv1D. Says nothing of A and B */
    bool use_dora;       /* magnitudes of rows, trained apart (Liu et al., 2024) */
    const char *init_lora_weights;   /* "true", "false", "gaussian", "pissa": how A and B started */
    struct text_list layers_pattern; /* what stands before the number of a layer; none: anything */
    bool biases;                     /* biases of the base were trained: they are in the file */
    bool ensure_weight_tying;        /* what is saved of a tied embedding is the LM head too */
    struct lora_tokens {    /* rows of an embedding that were trained, and replace its own */
        const char *module; /* the end of its path; NULL: the model's embedding */
        i64 *id;            /* [count], in the order of the file's rows */
        i64 count;
    } * tokens;
    i64 tokens_count;
    const char *base_model_name_or_path; /* NULL: not stated */
    struct arena memory;                 /* owns the texts that lora_config_read set */
};
double lora_scale(const struct lora_config *c); /* alpha / r, or alpha / sqrt(r) */
bool lora_is_pissa(const struct lora_config *c);
/* The same of a module, and its rank. */
int lora_of(const struct lora_config *c, const char *module, i64 *r, double *scale, struct err *e);
/* Free also after a failure. */
int lora_config_read(struct lora_config *c, const char *path, struct err *e);
/* What is written of PiSSA is the plain adapter of twice the ranks and the same scales that its
 * tensors are converted to. */
int lora_config_write(const struct lora_config *c, const char *path, struct err *e);
void lora_config_free(struct lora_config *c);
/* Whether `module` ("model.layers.0.mlp.up_proj") is a target: 1, 0, or -1 for a pattern that PCRE2
 * refuses. "all-linear" matches everything: the model offers only its linear layers, without the
 * output layer. */
int lora_match(const struct lora_config *c, const char *module, struct err *e);
/* Whether a stacked tensor of experts is one of target_parameters. */
bool lora_targets(const struct lora_config *c, const char *tensor);
/* Whether a tensor of the model belongs to a module of modules_to_save. */
bool lora_saves(const struct lora_config *c, const char *tensor);
/* [r, in], [out, r]; of embeddings [r, V], [D, r]; DoRA's magnitudes [out]; the weight beside them,
 * which PEFT saves where the embedding is adapted; a whole tensor of modules_to_save. */
enum lora_part {
    LORA_A,
    LORA_B,
    LORA_EMBED_A,
    LORA_EMBED_B,
    LORA_MAGNITUDE,
    LORA_BASE,
    LORA_TOKENS, /* [ids, D]: rows of struct lora_tokens */
    LORA_SAVED
};
/* The key of a part on disk. `name` is the module for A and B, the tensor ("lm_head.weight") for
 * SAVED. */
char *lora_key(struct arena *a, const char *name, enum lora_part part, struct err *e);
int lora_key_parse(const char *key, enum lora_part *part, char **name, struct arena *a,
                   struct err *e);
/* Whether a whole tensor of an adapter's file that is not in modules_to_save replaces the base's:
 * an embedding or LM head, which PEFT saves where the vocabulary grew, or a bias. */
bool lora_replaces(const struct lora_config *c, const char *tensor);
/* Opens a folder and checks that every key is understood, every A has its B, and their ranks are r.
 * Free both also after failure. */
int adapter_open(const char *folder, struct lora_config *c, struct safetensors *s, struct err *e);

/* ==== training state: state.c, state_read.c ==== */
/* An HDF5 file: named arrays (F32, F64, I64 or U8; rank 1 to 8) cut into chunks of at most 1 MiB,
 * compressed with zstd, each with the SHA-256 of its bytes as attribute; scalars as attributes of
 * the root. Equal contents give equal files. */
struct state_writer;
struct state_writer *state_create(const char *path, struct err *e);
/* '/' in a name makes groups. */
int state_add(struct state_writer *w, const char *name, enum dtype dtype, int rank, const i64 *dim,
              const void *data, struct err *e);
int state_put_i64(struct state_writer *w, const char *name, i64 value, struct err *e);
int state_put_f64(struct state_writer *w, const char *name, double value, struct err *e);
/* Under 64 KB. */
int state_put_text(struct state_writer *w, const char *name, const char *value, struct err *e);
/* Closes and fsyncs; with `keep` false drops the file and returns -1. Frees `w` in any case; NULL
 * is fine. */
int state_finish(struct state_writer *w, bool keep, struct err *e);
struct state_reader;
struct state_reader *state_open(const char *path, struct err *e);
void state_close(struct state_reader *r);
/* Whether there is an array of that name. */
bool state_has(struct state_reader *r, const char *name);
int state_shape(struct state_reader *r, const char *name, enum dtype *dtype, int *rank,
                i64 dim[STORED_RANK], struct err *e);
/* Reads into `to`; the array must have just this type and shape, and its bytes the recorded
 * SHA-256. */
int state_get(struct state_reader *r, const char *name, enum dtype dtype, int rank, const i64 *dim,
              void *to, struct err *e);
int state_get_i64(struct state_reader *r, const char *name, i64 *value, struct err *e);
int state_get_f64(struct state_reader *r, const char *name, double *value, struct err *e);
/* The caller frees it (mem_free). */
char *state_get_text(struct state_reader *r, const char *name, struct err *e);

/* ==== the digest of a training state: state_digest.c ==== */
struct state_row { /* a tensor, by name */
    const char *name;
    char sha256[65]; /* of its elements: row major, little endian */
};
struct state_rows { /* zero-initialise; state_rows_free */
    struct state_row *row;
    i64 count, room;
    struct arena arena;
};
int state_row_add(struct state_rows *rows, const char *name, const void *data, i64 bytes,
                  struct err *e);
/* Adds the rows that somebody else has. */
int state_rows_join(struct state_rows *rows, const struct state_rows *more, struct err *e);
/* Of all rows, in any order, after so many steps. Sorts them; two of one name are an error. */
int state_rows_digest(struct state_rows *rows, i64 step, char hex[65], struct err *e);
void state_rows_free(struct state_rows *rows);

/* ==== manifests: manifest.c, manifest_verify.c ==== */
/* manifest.json: what a checkpoint consists of and where it comes from. */
struct manifest {
    i64 step;
    char parent[65]; /* SHA-256 of the manifest.json of the checkpoint before it; "" for none */
    char state_sha256[65]; /* the trainer's digest of weights and optimizer state */
    i64 digest_version;    /* by which; 0: DIGEST_VERSION when it is written */
    char numerics_level[16];
    i64 numerics_version;
    char hone_version[64];
};
/* Lists every file of the folder with size and SHA-256, and the tensors (sha256 must be set). */
int manifest_write(const char *folder, const struct manifest *m, const struct stored *tensor,
                   i64 count, struct err *e);
int manifest_read(const char *folder, struct manifest *m, struct err *e);
/* Every listed file is there, unchanged, and no other is (but README.md and .gitattributes).
 * `deep`: the tensors too. The error names the file or tensor. */
int manifest_verify(const char *folder, bool deep, struct err *e);
int manifest_sha256(const char *folder, char hex[65], struct err *e);

/* ==== checkpoints of a run: save.c, run.c ==== */
/* RUN/checkpoints/step-000100. Written as .tmp-step-000100-PID and renamed when complete: at any
 * moment, power cut included, a checkpoint is there whole or not at all. */
struct checkpoint {
    i64 step, bytes;
    char *root, *temporary, *path; /* write files into `temporary` */
    struct arena memory;
};
/* `bytes`: about how much will be written; less free space is an error at once. A checkpoint of
 * that step that verifies is never replaced: an error; one that does not is removed at commit. */
int checkpoint_begin(struct checkpoint *c, const char *run, i64 step, i64 bytes, struct err *e);
/* fsync, manifest, rename. `m->step` is the checkpoint's. Ends `c` in any case; on failure as
 * checkpoint_abort does. */
int checkpoint_commit(struct checkpoint *c, const struct manifest *m, const struct stored *tensor,
                      i64 count, struct err *e);
/* Removes the temporary folder; adds to the error how much was to be saved and is free. -1. */
int checkpoint_abort(struct checkpoint *c, struct err *e);
/* At start: removes what a killed save left behind. */
int checkpoint_clean(const char *run, struct err *e);
struct checkpoint_list {
    i64 *step; /* ascending */
    i64 count;
};
/* Free with mem_free(list->step). */
int checkpoint_list(const char *run, struct checkpoint_list *list, struct err *e);
/* The caller frees it (mem_free). */
char *checkpoint_path(const char *run, i64 step, struct err *e);
/* The newest checkpoint that verifies: 1 with *path (mem_free) and *step, 0 if there is none, -1
 * for an error. What is wrong with newer ones is appended to `notes`, a line each. */
int checkpoint_latest(const char *run, char **path, i64 *step, struct text *notes, struct err *e);
/* Removes all but the newest `keep`, at least 1. */
int checkpoint_prune(const char *run, i64 keep, struct err *e);
/* Verifies every checkpoint and that each names the one before it as parent (the first may name
 * another run's). */
int checkpoint_verify_chain(const char *run, bool deep, i64 *count, struct err *e);

#endif
