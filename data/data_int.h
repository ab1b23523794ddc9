/* data_int.h: what the files of data/ share among themselves. */
#ifndef HONE_DATA_INT_H
#define HONE_DATA_INT_H

#include <jansson.h>
#include "data/data.h"

/* ==== tokenizers ============================================================================== */

struct bytes { /* text with a length: tokens may hold NULs */
    const char *data;
    i64 size;
};

/* ---- vocabulary (tokenizer_vocab.c): text <-> id, ids may have holes --------------------------
 */
#define VOCAB_LIMIT                                                                                \
    ((i64)1 << 22) /* ids below this: a file cannot make us allocate without bound */
struct vocab {
    struct text pool;    /* every token's bytes */
    struct vocab_token { /* by id */
        i64 at, size;    /* in pool; size -1: no such token */
    } * token;
    i64 count, capacity; /* largest id + 1 */
    u32 *slot;           /* open addressing: id + 1, 0 is free */
    i64 slots, used, longest;
};
/* -1 and an error starting with `where` if the id or the text is taken, or the id is out of range.
 */
int vocab_add(struct vocab *v, struct bytes text, i64 id, const char *where, struct err *e);
i64 vocab_find(const struct vocab *v, const char *text, i64 size); /* id or -1 */
bool vocab_text(const struct vocab *v, i64 id, struct bytes *out);
void vocab_free(struct vocab *v);
u64 bytes_hash(const char *data, i64 size);

/* ---- the GPT-2 byte alphabet (pretokenize.c) ---------------------------------------------------
 */
u32 byte_to_code(u8 byte);  /* the printable code point of a byte */
int byte_of_code(i64 code); /* its inverse, or -1 */
int bytes_show(struct text *out, const char *data, i64 size, struct err *e); /* appends */

/* ---- patterns (pretokenize_scan.c, pretokenize_regex.c) ----------------------------------------
 */
enum char_class { CLASS_OTHER, CLASS_LETTER, CLASS_NUMBER, CLASS_SPACE, CLASS_NEWLINE };
void classes_start(void);          /* builds the table once; thread safe */
extern u8 class_of_code[0x110000]; /* enum char_class | CLASS_WORD for Rust's \w */
#define CLASS_MASK 7
#define CLASS_WORD 8
i64 code_at(const char *text, i64 *at); /* code point of valid UTF-8; advances */
/* The end of the word that begins at `at` < size. Text is valid UTF-8. */
typedef i64 scan_fn(const char *text, i64 size, i64 at);
scan_fn *
scan_find(const char *pattern); /* a hand-written scanner for exactly this pattern, or NULL */
extern const char pattern_gpt2[], pattern_llama3[], pattern_qwen2[];

struct pattern {
    scan_fn *scan;        /* this, */
    struct bytes literal; /* or this, */
    void *regex;          /* or this (pcre2_code) */
};
int pattern_compile(struct pattern *p, const char *regex, const char *where, bool fast,
                    struct err *e);
void pattern_free(struct pattern *p);
struct search { /* one pass over one text; zero-initialise, set text and size */
    const char *text;
    i64 size, from, last_end;
    bool matched;
    void **scratch; /* PCRE2 match data, kept by the caller between searches; scratch_free */
};
/* Next non-overlapping match: 1 and its range, 0 at the end, -1 on error. Empty matches are
 * reported, but never directly after a match (as Oniguruma's iterator does). */
int pattern_next(const struct pattern *p, struct search *s, i64 *begin, i64 *end, struct err *e);
void scratch_free(void *scratch);

/* ---- normalizers (tokenizer_normalize.c) -------------------------------------------------------
 */
enum norm_kind {
    NORM_NFC,
    NORM_NFD,
    NORM_NFKC,
    NORM_NFKD,
    NORM_LOWERCASE,
    NORM_PREPEND,
    NORM_REPLACE
};
struct norm {
    enum norm_kind kind;
    struct pattern pattern;
    struct bytes content;
};
int text_replace(const struct pattern *p, struct bytes with, struct bytes in, struct text *out,
                 void **scratch, struct err *e); /* appends */
int normalize(const struct norm *list, i64 count, struct bytes in, struct text buffer[2],
              void **scratch, struct bytes *out,
              struct err *e); /* out points into `in` or into a buffer */
/* Appends `in` with each maximal malformed subpart replaced by U+FFFD (Unicode 15, table 3-7;
 * WHATWG; Python). */
int utf8_repair(struct text *out, struct bytes in, struct err *e);

/* ---- added tokens (tokenizer_added.c) ----------------------------------------------------------
 */
struct added_token {
    struct bytes content; /* the pattern to look for: normalised content for set 1 */
    u32 id;
    bool single_word, lstrip, rstrip, normalized, special;
};
struct added_set {
    struct added_token *token; /* sorted: first byte, longest first */
    i64 count;
    i32 first[257]; /* tokens starting with byte b: [first[b], first[b+1]) */
    u8 pair[8192];  /* bitmap of the first two bytes; one-byte tokens set all seconds */
};
void added_sort(struct added_set *s);
struct added_match {
    i64 begin, end;
    u32 id;
};
/* Leftmost-longest. `done`: end of what earlier matches took; *at: where to look from, advanced. */
bool added_next(const struct added_set *s, struct bytes text, i64 done, i64 *at,
                struct added_match *m);

/* ---- pre-tokenizers (pretokenize.c) ------------------------------------------------------------
 */
enum behaviour {
    SPLIT_REMOVED,
    SPLIT_ISOLATED,
    SPLIT_MERGED_WITH_PREVIOUS,
    SPLIT_MERGED_WITH_NEXT,
    SPLIT_CONTIGUOUS
};
enum prefix_when { PREFIX_NEVER, PREFIX_FIRST, PREFIX_ALWAYS };
struct stage {
    enum { STAGE_SPLIT, STAGE_PREFIX, STAGE_BYTES } kind;
    struct pattern pattern; /* SPLIT */
    enum behaviour behaviour;
    bool invert;
    struct bytes
        prefix; /* PREFIX: put before pieces that lack it; replaces every space first if spaces */
    enum prefix_when when;
    bool spaces;
};
#define STAGE_LIMIT 16
struct work;
int pretokenize(struct work *w, i64 stage, struct bytes text, bool first, struct err *e);

/* ---- the BPE model (bpe.c) ---------------------------------------------------------------------
 */
struct merge {
    u64 pair; /* left << 32 | right */
    u32 rank, id;
};
struct bpe {
    struct merge *merge; /* open addressing; id UINT32_MAX: free */
    i64 merges, slots;
    int shift;
    bool bytes; /* words are raw bytes: the last pre-tokenizer was ByteLevel and all 256 are tokens
                 */
    bool cut;   /* words may be cut before U+2581: no merge crosses */
    bool fuse_unk, byte_fallback, ignore_merges;
    i64 single_id[256];   /* of a byte (bytes) or an ASCII character (otherwise), or -1 */
    i64 fallback_id[256]; /* of <0xNN>, or -1 */
    i64 unk_id;           /* or -1 */
};
int bpe_reserve(struct bpe *b, i64 merges, struct err *e);
void bpe_add_merge(struct bpe *b, u32 left, u32 right, u32 rank,
                   u32 id); /* a repeated pair: the last one counts */
void bpe_finish(struct bpe *b, const struct vocab *v, bool bytes);
void bpe_free(struct bpe *b);
int bpe_word(struct work *w, struct bytes word, struct err *e);

/* ---- decoders (tokenizer_decode.c) -------------------------------------------------------------
 */
enum decoder_kind {
    DECODE_BYTES,
    DECODE_REPLACE,
    DECODE_FALLBACK,
    DECODE_FUSE,
    DECODE_STRIP,
    DECODE_METASPACE
};
struct decoder {
    enum decoder_kind kind;
    struct pattern pattern; /* REPLACE */
    struct bytes content;   /* REPLACE: with; STRIP: the character; METASPACE: the replacement */
    i64 start, stop;        /* STRIP; METASPACE: start 1 drops the mark in the first token */
};

/* ---- the whole ---------------------------------------------------------------------------------
 */
struct tokenizer {
    struct arena arena; /* texts and lists below */
    char *path;         /* of the file; starts messages */
    char sha256[65];
    i64 bos, eos;
    struct vocab vocab;        /* the model's tokens and the added ones */
    struct added_set added[2]; /* looked for in raw text; in normalised text */
    u8 *special;               /* by id: skipped when decoding without special tokens */
    struct norm *norm;
    struct stage *stage;
    struct decoder *decoder;
    i64 norms, stages, decoders;
    struct ids prefix, suffix; /* the post-processor's template around the text */
    struct bpe bpe;
    struct work_pool *pool;
};
struct cached_word {
    u8 size, count; /* size 0: free */
    char bytes[30];
    u32 id[8];
};
#define CACHE_BITS                                                                                 \
    15 /* 2 MiB a thread: on GPT-2 and 7 MB of English 13 and 17 bits differed by under 5 % */
struct work { /* one thread's buffers; kept in the tokenizer's pool between calls */
    struct work *next;
    const struct tokenizer *t;
    struct ids *out;
    struct text clean, norm[2], stage[STAGE_LIMIT], shown;
    void *scratch;
    struct cached_word *cache;
    struct symbol *symbol;
    u64 *heap;
    i64 symbols, heaps; /* capacities */
};
struct work *work_take(const struct tokenizer *t, struct err *e);
void work_give(const struct tokenizer *t, struct work *w);
int tokenizer_read(struct tokenizer *t, const json_t *j, struct err *e); /* tokenizer_json.c */
int read_norms(struct tokenizer *t, const json_t *j, struct err *e);     /* tokenizer_stages.c */
int read_stages(struct tokenizer *t, const json_t *j, bool *bytes, struct err *e);
int read_decoders(struct tokenizer *t, const json_t *j, struct err *e);
int json_bytes(const json_t *o, const char *key, const char *where, struct bytes *out,
               struct err *e);
const char *json_kind(const json_t *o, const char *where, struct err *e);

/* ==== sources and datasets ==================================================================== */

#endif
