/* base.h: the ground every folder stands on, and base's only public header.
 *
 * Scalars, errors, memory, dtypes, the thread pool, random numbers, files, JSON, SHA-256,
 * instruction sets, option tables, progress. Nothing here knows about tensors, models or data.
 * Functions that can fail return 0 or -1 (or a pointer or NULL) and take `struct err *` last; the
 * caller owns it; the first error wins. */
#ifndef HONE_BASE_H
#define HONE_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t i32;
typedef int64_t i64;

#define COUNT(array)      ((i64)(sizeof(array) / sizeof((array)[0])))
#define PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

static inline i64 i64_min(i64 a, i64 b) { return a < b ? a : b; }
static inline i64 i64_max(i64 a, i64 b) { return a > b ? a : b; }
static inline i64 round_up(i64 n, i64 step) { return (n + step - 1) / step * step; }

/* ---- errors (err.c) -------------------------------------------------------------------------- */
/* Fixed storage, so that reporting never allocates. `code` is the exit code main will use: 1
 * for a failed check or a failure while training, 2 for usage or bad input. A primary line says
 * what was found and where; detail what was expected; hint what to do; frames what the program
 * was doing, innermost first. */
enum { ERR_FAILED = 1, ERR_INPUT = 2, ERR_STOPPED = 3 /* as asked; what was done is saved */ };
struct err {
    int code; /* 0: no error */
    int frames;
    bool refused; /* a later error came and was refused: its detail and hint are too */
    bool starved; /* memory or descriptors ran out: what was being read may well be right */
    char primary[512];
    char detail[512];
    char hint[512];
    char frame[8][192];
};
int err_set(struct err *e, int code, const char *fmt, ...)
    PRINTF(3, 4);                                                 /* -1; no effect if already set */
int err_input(struct err *e, const char *fmt, ...) PRINTF(2, 3);  /* err_set with ERR_INPUT */
int err_failed(struct err *e, const char *fmt, ...) PRINTF(2, 3); /* err_set with ERR_FAILED */
int err_memory(struct err *e, const char *fmt, ...) PRINTF(2, 3); /* err_failed, and starved */
/* "cannot WHAT PATH: strerror(errno)"; ERR_INPUT for paths and permissions, else ERR_FAILED */
int err_system(struct err *e, const char *what, const char *path);
int err_detail(struct err *e, const char *fmt, ...)
    PRINTF(2, 3); /* -1, so that it can end a return */
int err_hint(struct err *e, const char *fmt, ...) PRINTF(2, 3);  /* -1 */
int err_frame(struct err *e, const char *fmt, ...) PRINTF(2, 3); /* -1; "while loading model X" */
void err_print(const struct err *e, FILE *to);                   /* shown: see below */

/* ---- text for people (show.c, escape.c) ------------------------------------------------------ */
/* What comes from a file must not drive a terminal: control characters and malformed UTF-8 are
 * written as \u001b and \xff. `lines`: newline and tab stay. */
void show_bytes(FILE *to, const char *bytes, i64 size, bool lines);
void show(FILE *to, const char *fmt, ...) PRINTF(2, 3); /* fprintf; newline and tab stay */
/* What a model wrote: shown where `to` is a terminal, else exactly these bytes. */
void show_generated(FILE *to, const char *bytes, i64 size);

/* ---- memory (mem.c) -------------------------------------------------------------------------- */
/* All heap memory of the program comes from here, so that tests can make the n-th allocation
 * fail (HONE_FAULT=alloc:N). mem_new zeroes. Alignment is 64 bytes everywhere. Free with
 * mem_free (NULL is fine). */
void *mem_new(i64 bytes, struct err *e);
void *mem_new_array(i64 count, i64 size, struct err *e); /* overflow checked */
void *mem_grow(void *old, i64 old_bytes, i64 bytes, struct err *e);
char *mem_text(const char *text, struct err *e); /* strdup */
char *mem_printf(struct err *e, const char *fmt, ...) PRINTF(2, 3);
void mem_free(void *p);
i64 mem_peak_rss(void); /* bytes, of this process, now */
/* Bytes that this process can still have: MemAvailable, or less where a control group (v1 or v2)
 * limits it. `root` goes before /proc and /sys: "" is this machine, a test has its own. */
i64 mem_available(void);
i64 mem_available_under(const char *root); /* cgroup.c */

/* An arena: many small allocations with one lifetime. Zero-initialise; arena_free gives everything
 * back. */
struct arena {
    struct arena_block *block;
};
void *arena_new(struct arena *a, i64 bytes, struct err *e); /* zeroed, 64-byte aligned */
char *arena_text(struct arena *a, const char *text, struct err *e);
char *arena_printf(struct arena *a, struct err *e, const char *fmt, ...) PRINTF(3, 4);
i64 arena_bytes(const struct arena *a); /* that it takes from the heap */
void arena_free(struct arena *a);

/* A growing string, NUL-terminated, which may hold NULs. Zero-initialise. */
struct text {
    char *data;
    i64 size, capacity;
};
int text_add(struct text *t, const void *bytes, i64 size, struct err *e);
int text_printf(struct text *t, struct err *e, const char *fmt, ...) PRINTF(3, 4);
int text_f64(struct text *t, double x,
             struct err *e); /* shortest that reads back equal, as Python's repr (json.c) */
void text_free(struct text *t);
bool ends_with(const char *text, const char *end);

/* ---- fault injection (fault.c) --------------------------------------------------------------- */
/* HONE_FAULT=KIND:N makes the N-th call (from 1) of a kind fail with errno as noted;
 * HONE_FAULT=kill-KIND:N raises SIGKILL there instead. Tests only; costs one branch. Kinds:
 * alloc, open, read, write (ENOSPC), fsync, rename, mkdir. */
enum fault {
    FAULT_ALLOC,
    FAULT_OPEN,
    FAULT_READ,
    FAULT_WRITE,
    FAULT_FSYNC,
    FAULT_RENAME,
    FAULT_MKDIR,
    FAULT_COUNT
};
bool fault_hit(enum fault kind);
int fault_arm(
    const char *spec); /* tests: arms anew, as HONE_FAULT would; NULL disarms; -1 if malformed */

/* ---- dtypes (dtype.c) ------------------------------------------------------------------------ */

enum dtype { F32, BF16, F16, F64, I32, I64, U8, U16, U32, I8, DTYPE_COUNT };
struct dtype_info {
    const char *name;        /* "f32": what recipes and messages say */
    const char *safetensors; /* "F32"; NULL: not in files */
    int size;                /* bytes */
};
extern const struct dtype_info dtype_info[DTYPE_COUNT];
int dtype_of_safetensors(const char *name);                /* -1 if unknown */
char *shape_text(char out[192], int rank, const i64 *dim); /* "[4, 32]"; returns out */
static inline i64 dtype_size(enum dtype d) { return dtype_info[d].size; }
static inline float bf16_to_f32(u16 h) {
    union {
        u32 u;
        float f;
    } v = {.u = (u32)h << 16};
    return v.f;
}
static inline u16 bf16_of_f32(float x) { /* round to nearest even; NaN stays NaN */
    union {
        float f;
        u32 u;
    } v = {.f = x};
    if ((v.u & 0x7fffffffu) > 0x7f800000u) return (u16)(v.u >> 16 | 0x40);
    return (u16)((v.u + 0x7fff + (v.u >> 16 & 1)) >> 16);
}
float f16_to_f32(u16 h);
u16 f16_of_f32(float x);

/* ---- instruction sets (isa.c) ---------------------------------------------------------------- */
/* Kernels are compiled once per row; isa_best is the best this machine has, isa_now the one in
 * use. */
#define ISA_LIST(X) X(plain) X(avx2) X(avx512) X(avx512bf16)
enum isa {
#define X(name) ISA_##name,
    ISA_LIST(X)
#undef X
        ISA_COUNT
};
extern const char *const isa_name[ISA_COUNT];
enum isa isa_best(void);
enum isa isa_now(void);
int isa_force(const char *name,
              struct err *e); /* "plain", "avx2", "avx512", "avx512bf16"; refused if missing */
void isa_float_mode(
    void); /* FTZ and DAZ, round to nearest: each thread calls it first (NUMERICS.md 1) */

/* ---- threads (pool.c) ------------------------------------------------------------------------ */
/* Static ranges over [0, n): worker w of W gets [n*w/W, n*(w+1)/W). How work is cut may depend
 * on the shape and on W, never on timing; results must not depend on it at all. Nested calls,
 * and calls while another thread's call is under way, run on the calling thread alone, as
 * fn(arg, 0, n, its own number or 0): scratch memory indexed by worker belongs to the call
 * (reached through arg), never to the program. Empty ranges are not called. */
typedef void pool_fn(void *arg, i64 begin, i64 end, int worker);
int pool_start(int threads, struct err *e); /* 0: one per core. Call once; pool_stop joins */
void pool_stop(void);
int pool_threads(void);
void pool_run(i64 n, pool_fn *fn, void *arg);

/* ---- random numbers (philox.c) --------------------------------------------------------------- */
/* Philox 4x32-10 (Salmon et al., 2011) as a function of position: no state to save. `purpose`
 * keeps uses apart. */
enum purpose { RNG_INIT = 1, RNG_ORDER, RNG_DROPOUT, RNG_SAMPLE, RNG_ROUND, RNG_REPLAY, RNG_TEST };
struct rng {
    u64 seed;
    u32 purpose, step;
    u32 stream; /* tensor id, or sequence number */
};
void philox(const u32 key[2], const u32 counter[4],
            u32 out[4]); /* the bare function: known-answer tests */
/* key = seed; counter = index, stream, purpose << 26 | step mod 2^26 */
void rng_block(const struct rng *r, u64 index, u32 out[4]);
float rng_uniform(const struct rng *r,
                  u64 index); /* (0,1): (x>>9 + 0.5) * 2^-23 of word index%4 of block index/4 */
double rng_uniform_f64(const struct rng *r, u64 index);
float rng_normal(const struct rng *r,
                 u64 index); /* Box-Muller in f64 with base's own log, sin, cos */

/* ---- portable math in f64 (math.c) ----------------------------------------------------------- */
/* For tables, initialisation, schedules, references. 2 ulp or better. */
double m_exp(double), m_log(double), m_sin(double), m_cos(double), m_pow(double, double),
    m_tanh(double), m_erf(double);

/* ---- singular values (svd.c) ----------------------------------------------------------------- */
/* The r <= min(rows, cols) largest of w [rows, cols], descending, with their vectors, u [r, rows]
 * and v [r, cols]. */
int svd_top(const float *w, i64 rows, i64 cols, i64 r, double *values, double *u, double *v,
            struct err *e);

/* ---- files (file.c) -------------------------------------------------------------------------- */

struct map { /* a file mapped read-only */
    const u8 *data;
    i64 size;
};
/* Opens a regular file for reading. Refuses devices, pipes, sockets and folders, and never waits
 * for them. The names of descriptors that the caller handed over (/dev/stdin, /dev/fd/N) may be
 * streams. -1: an error. */
int file_source(const char *path, struct err *e);
/* Opens a file that only the program writes, with open's `flags` (created: 0666). A link is
 * refused: it would lead out of the folder. -1: an error. */
int file_own(const char *path, int flags, struct err *e);
/* May `path` be read as file_source would? For libraries that open files themselves. */
int file_regular(const char *path, struct err *e);
int map_open(struct map *m, const char *path, struct err *e);
void map_close(struct map *m);
int file_read(struct text *out, const char *path, struct err *e); /* whole file, NUL-terminated */
int file_write(const char *path, const void *data, i64 size,
               struct err *e); /* create, write, fsync, close */
int file_replace(const char *path, const void *data, i64 size,
                 struct err *e); /* temporary, fsync, rename, fsync folder */
int file_write_all(int fd, const void *data, i64 size, const char *path, struct err *e);
int file_sync(int fd, const char *path, struct err *e);
int dir_make(const char *path, struct err *e); /* like mkdir -p */
int dir_sync(const char *path, struct err *e);
int dir_remove(const char *path, struct err *e); /* like rm -r; missing is fine */
int path_rename(const char *from, const char *to, struct err *e);
bool path_exists(const char *path);
bool path_is_dir(const char *path);
/* FOLDER/NAME, of any length: the system says which is too long. In an arena, or, with `a` NULL, to
 * be freed with mem_free. NULL: no memory. In file.c. */
char *path_join(struct arena *a, const char *folder, const char *name, struct err *e);
int path_has(const char *folder, const char *name, struct err *e); /* is it there? 1, 0, or -1 */
/* The path without links, "." and "..": of a file that is not there yet, that of the nearest folder
 * that is, and the rest. NULL: an error. Free with mem_free. */
char *path_resolve(const char *path, struct err *e);        /* paths.c */
int path_same(const char *a, const char *b, struct err *e); /* 1: one file, 0: two, -1: an error */
/* Outputs must be apart from each other and from every input: by device and inode where both are
 * there, else by resolved path. An output that is there must be a regular file. An input that is a
 * folder refuses outputs that would replace one of the files directly in it. An input that is not
 * there is no harm: some may be texts as well as names. */
int paths_apart(const char *const *output, i64 outputs, const char *const *input, i64 inputs,
                struct err *e);
/* The hub's cache keeps a repository as FOLDER/snapshots/REVISION beside refs/ and blobs/: how many
 * there are (0: it is no such folder), and one of them. hub_hint: where FOLDER could not be opened,
 * says which to name instead; -1 if there is an error. In paths.c. */
i64 hub_snapshots(const char *folder, char *path, size_t room);
int hub_hint(const char *folder, struct err *e);
i64 path_size(const char *path); /* -1 if missing */
i64 disk_free(const char *path);
int dir_list(const char *path, char ***names, i64 *count,
             struct err *e); /* sorted; free with names_free */
void names_free(char **names, i64 count);

/* ---- SHA-256 (sha256.c, libcrypto) ----------------------------------------------------------- */
/* The newest definition of the digests of batches and of states, which new runs use: README.md of
 * data/datasets and of checkpoints. 1: one stream over everything. */
enum { DIGEST_VERSION = 2 };

struct sha256 {
    void *context;
};
int sha256_begin(struct sha256 *s, struct err *e);
void sha256_add(struct sha256 *s, const void *data, i64 size);
void sha256_end(struct sha256 *s, char hex[65]);
int sha256_bytes(const void *data, i64 size, char hex[65], struct err *e);
int sha256_file(const char *path, char hex[65], struct err *e);

/* ---- the bytes of a file, decompressed by its name (byte_stream.c) --------------------------- */
struct byte_stream {
    const char *path;
    int fd;
    bool ended;           /* the file was read to its end and its last member or frame was whole */
    bool partial;         /* in the middle of a member or frame */
    bool pending;         /* the decoder may give more without further input */
    i64 bytes;            /* read from the file */
    struct sha256 sha256; /* of them */
    void *gzip, *zstd;    /* z_stream, ZSTD_DStream; both NULL: plain */
    u8 *in;               /* a block of the file, */
    size_t in_at, in_end; /* of which this much is left */
};
int byte_stream_open(struct byte_stream *s, const char *path, struct err *e);
/* Appends some bytes; nothing at the end. */
int byte_stream_read(struct byte_stream *s, struct text *out, struct err *e);
void byte_stream_close(struct byte_stream *s);

/* ---- JSON (json.c, Jansson: duplicate keys refused, NUL allowed in strings) ------------------ */

typedef struct json_t json_t;
json_t *json_open(const char *path, struct err *e); /* errors name file:line:column */
json_t *json_parse(const char *data, i64 size, const char *name, struct err *e);
int json_save(const json_t *j, const char *path, int indent,
              struct err *e); /* file_replace; keys keep their order */
/* Typed members. Missing: the default. Wrong type: an error naming `where`, the key, what was
 * found. */
i64 json_i64(const json_t *o, const char *key, i64 otherwise, const char *where, struct err *e);
double json_f64(const json_t *o, const char *key, double otherwise, const char *where,
                struct err *e);
bool json_bool(const json_t *o, const char *key, bool otherwise, const char *where, struct err *e);
const char *json_text(const json_t *o, const char *key, const char *otherwise, const char *where,
                      struct err *e);
int json_text_add(struct text *out, const char *bytes, i64 size,
                  struct err *e); /* quoted, escaped JSON string */
/* What --json prints: made with json_pack of these where a value may be no JSON. */
json_t *json_name(const char *text);      /* a path, say: U+FFFD for what is not UTF-8 */
json_t *json_finite(double x);            /* or null */
int json_print(json_t *j, struct err *e); /* a line on standard output, 9 digits; takes j */

/* ---- UTF-8 (utf8.c) -------------------------------------------------------------------------- */

i64 utf8_bad(const char *data, i64 size);   /* offset of the first malformed byte, or -1 */
i64 utf8_whole(const char *data, i64 size); /* of a text that was cut: without half a character */
int utf8_next(const char *data, i64 size,
              i64 *at);              /* code point, or -1 and one byte taken if malformed */
int utf8_put(u32 code, char out[4]); /* bytes written */

/* ---- option tables (option.c): recipe keys and flags are rows -------------------------------- */
/* A row binds a key to a member of a struct, with type, range, default and help. Feeds parsing,
 * help, the lock. */
enum option_type {
    OPT_BOOL,
    OPT_INT,
    OPT_FLOAT,
    OPT_TEXT,
    OPT_CHOICE,
    OPT_INT_LIST,
    OPT_TEXT_LIST,
    OPT_TEXT_EACH /* a text_list: each time it is given, one more */
};
struct option {
    const char *key;
    enum option_type type;
    size_t offset;
    const char *otherwise; /* default, as text; NULL: unset */
    double min, max;       /* numbers; both 0: unlimited */
    const char *choices;   /* OPT_CHOICE: "adamw lion sgd"; stored as the text */
    const char *help;
};
struct int_list {
    i64 *item;
    i64 count;
};
struct text_list {
    char **item;
    i64 count;
};
/* Members: bool, i64, double, const char *, const char *, struct int_list, struct text_list. Text
 * goes to `a`. */
int option_defaults(const struct option *table, void *to, struct arena *a, struct err *e);
int option_set(const struct option *table, void *to, const char *key, const char *value,
               const char *where, struct arena *a, struct err *e); /* lists: comma separated */
const struct option *option_find(const struct option *table, const char *key);
const char *option_nearest(const struct option *table,
                           const char *key); /* by edit distance; NULL if none is near */
int option_print(const struct option *o, const void *from, struct text *out,
                 struct err *e); /* canonical value text */
int edit_distance(const char *a, const char *b);

/* ---- time and progress (progress.c) ---------------------------------------------------------- */

double clock_seconds(void); /* monotonic */
void progress_line(const char *fmt, ...)
    PRINTF(1, 2); /* rewrites one line on stderr, only if it is a terminal */
void progress_end(void);
extern bool quiet; /* --quiet: no progress, no chatter */

#endif
