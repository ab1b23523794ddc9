/* data_int.h: what the files of data/ share among themselves. */
#ifndef HONE_DATA_INT_H
#define HONE_DATA_INT_H

#include <jansson.h>
#include "data/tokenizers/tokenizers.h"

/* ==== tokenizers ============================================================================== */

struct work;

/* ---- vocabulary (tokenizer_vocab.c): text <-> id, ids may have holes ------------------------- */
#define VOCAB_LIMIT                                                                                \
    ((i64)1 << 22) /* ids below this: a file cannot make us allocate without bound */
struct vocab {
    struct text pool;    /* every token's bytes */
    struct vocab_token { /* by id */
        i64 at;          /* in pool */
        i32 size;        /* -1: no such token */
        bool added;      /* not one of the model's */
    } * token;
    i64 count, capacity; /* largest id + 1 */
    u32 *slot;           /* open addressing: id + 1, 0 is free */
    i64 slots, used, longest;
    bool adding; /* tokens from now on are not the model's */
};
/* -1 and an error starting with `where` if the id or the text is taken, or the id is out of range.
 */
int vocab_add(struct vocab *v, struct bytes text, i64 id, const char *where, struct err *e);
i64 vocab_find(const struct vocab *v, const char *text, i64 size);  /* id or -1 */
i64 vocab_model(const struct vocab *v, const char *text, i64 size); /* of the model's tokens only */
bool vocab_text(const struct vocab *v, i64 id, struct bytes *out);
void vocab_free(struct vocab *v);
u64 bytes_hash(const char *data, i64 size);

/* ---- the GPT-2 byte alphabet (byte_alphabet.c) ----------------------------------------------- */
u32 byte_to_code(u8 byte);  /* the printable code point of a byte */
int byte_of_code(i64 code); /* its inverse, or -1 */
int bytes_show(struct text *out, const char *data, i64 size, struct err *e); /* appends */

/* ---- patterns (pretokenize_scan.c, pretokenize_regex.c) -------------------------------------- */
enum char_class { CLASS_OTHER, CLASS_LETTER, CLASS_NUMBER, CLASS_SPACE, CLASS_NEWLINE };
enum { /* a class, and any of these */
       CLASS_MASK = 7,
       CLASS_WORD = 1 << 3,              /* Rust's \w */
       CLASS_UPPER = 1 << 4,             /* Lu, Lt */
       CLASS_LOWER = 1 << 5,             /* Ll */
       CLASS_CASELESS = 1 << 6,          /* Lm, Lo, M */
       CLASS_MARK = 1 << 7,              /* M */
       CLASS_NONSPACING = 1 << 8,        /* Mn */
       CLASS_PUNCTUATION = 1 << 9,       /* P */
       CLASS_SYMBOL = 1 << 10,           /* S */
       CLASS_BERT_PUNCTUATION = 1 << 11, /* P or ASCII's S */
       CLASS_NUMERIC = 1 << 12,          /* N */
       CLASS_WHITE = 1 << 13,            /* White_Space */
       CLASS_CONTROL = 1 << 14,          /* Cc, Cf, Co but \t \n \r: what BERT drops */
       CLASS_HAN = 1 << 15,              /* the script */
};
void classes_start(void); /* builds the table once; thread safe */
extern u16 class_of_code[0x110000];
i64 code_at(const char *text, i64 *at); /* code point of valid UTF-8; advances */
/* The end of the word that begins at `at` < size. Text is valid UTF-8. */
typedef i64 scan_fn(const char *text, i64 size, i64 at);
/* A hand-written scanner for exactly this pattern, or NULL. `gaps`: one will do that also ends
 * where no match begins, so that what lies between two matches is a word. */
scan_fn *scan_find(const char *pattern, bool gaps);
/* Does every word that has a letter from a to z end in front of white space, and none go on behind
 * a newline but with '/'? So it is for all scanners but those that find one kind of thing and the
 * gaps between; NULL: no. */
bool scan_ends_at_blanks(scan_fn *scan);
extern const char pattern_gpt2[], pattern_llama3[], pattern_qwen2[], pattern_cl100k[];
extern const char pattern_o200k[], pattern_tekken[], pattern_kimi[], pattern_deepseek3[],
    pattern_deepseek3_digits[], pattern_deepseek3_cjk[];

struct pattern {
    scan_fn *scan;        /* this, */
    u16 set;              /* or one character of these classes, */
    struct bytes literal; /* or this, */
    void *regex;          /* or this (pcre2_code) */
};
enum pattern_use { PATTERN_REGEX, PATTERN_COVER, PATTERN_GAPS }; /* which scanners will do */
int pattern_compile(struct pattern *p, const char *regex, const char *where, enum pattern_use use,
                    struct err *e);
void pattern_free(struct pattern *p);
/* A pcre2_code, or NULL with PCRE2's error and the place of it (regex_compile.c). */
void *regex_memory(void); /* a pcre2_general_context, or NULL */
void *regex_compile(const char *regex, int *code, i64 *at);
bool regex_is_script(const char *name, i64 size); /* of Unicode, as PCRE2 spells it */
/* Oniguruma's spelling of a pattern to PCRE2's; appends. */
int regex_translate(const char *regex, struct text *out, const char *where, struct err *e);
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

/* ---- normalizers (tokenizer_normalize.c) ----------------------------------------------------- */
enum norm_kind {
    NORM_NFC,
    NORM_NFD,
    NORM_NFKC,
    NORM_NFKD,
    NORM_LOWERCASE,
    NORM_PREPEND,
    NORM_REPLACE,
    NORM_STRIP,
    NORM_STRIP_ACCENTS,
    NORM_BERT,
    NORM_BYTES,
    NORM_CHARSMAP,
    NORM_SENTENCEPIECE
};
struct norm {
    enum norm_kind kind;
    struct pattern pattern;
    struct bytes content;
    bool left, right;                           /* STRIP */
    bool clean, chinese, accents, lower;        /* BERT */
    struct charsmap *map;                       /* CHARSMAP, SENTENCEPIECE (or NULL) */
    const struct added_set *keep;               /* SENTENCEPIECE: symbols that stay as they are, */
    bool prefix, once, squeeze, suffix, escape; /* a dummy prefix, only at the start, or suffix;
                                                   runs of spaces become one */
};
/* A SentencePiece normalizer's table (tokenizer_charsmap.c): u32 size, a Darts double array of that
 * many bytes, NUL-terminated replacements. Borrows `blob`. */
struct charsmap {
    const u8 *units;
    i64 units_count;
    struct bytes replacements;
};
int charsmap_open(struct charsmap *m, struct bytes blob, const char *where, struct err *e);
int charsmap_graphemes(const struct charsmap *m, struct bytes in, struct text *out, struct err *e);
int normalize_sentencepiece(const struct norm *n, struct bytes in, struct text *out, bool starts,
                            struct err *e);
int text_replace(const struct pattern *p, struct bytes with, struct bytes in, struct text *out,
                 void **scratch, struct err *e); /* appends */
/* out points into `in` or into a buffer; *starts becomes false if the first character is gone. */
int normalize(const struct norm *list, i64 count, struct bytes in, struct text buffer[2],
              void **scratch, struct bytes *out, bool *starts, struct err *e);
/* Appends `in` with each maximal malformed subpart replaced by U+FFFD (Unicode 15, table 3-7;
 * WHATWG; Python). */
int utf8_repair(struct text *out, struct bytes in, struct err *e);
/* Length of the maximal subpart at `s` that could still have become a character, 1 at least; *ok:
 * it did. */
i64 utf8_subpart(const u8 *s, i64 size, bool *ok);

/* ---- added tokens (tokenizer_added.c) -------------------------------------------------------- */
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
/* The longest token that `text` starts with, or NULL. */
const struct added_token *added_at(const struct added_set *s, const char *text, i64 left);
struct added_match {
    i64 begin, end;
    u32 id;
};
/* Leftmost-longest. `done`: end of what earlier matches took; *at: where to look from, advanced. */
bool added_next(const struct added_set *s, struct bytes text, i64 done, i64 *at,
                struct added_match *m);

/* ---- pre-tokenizers (pretokenize.c) ---------------------------------------------------------- */
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
int pretokenize(struct work *w, i64 stage, struct bytes text, bool first, struct err *e);

/* ---- models (model.c, bpe.c, unigram.c, wordpiece.c) ----------------------------------------- */
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
    bool fuse_unk, ignore_merges;
    struct bytes prefix, suffix; /* of symbols that continue a word, of the one that ends it */
    i64 single_id[256];          /* of a byte (bytes) or an ASCII character (otherwise), or -1 */
};
int bpe_reserve(struct bpe *b, i64 merges, struct err *e);
void bpe_add_merge(struct bpe *b, u32 left, u32 right, u32 rank,
                   u32 id); /* a repeated pair: the last one counts */
struct tokenizer;
void bpe_finish(struct tokenizer *t, bool bytes);
void bpe_free(struct bpe *b);

struct unigram {
    double *score;  /* by id; NaN: not a piece */
    double unknown; /* score of an unknown character */
    u64 *edge;      /* trie, open addressing: node << 8 | byte, then the child; 0: free */
    i64 edges, slots;
    i64 nodes;
    u32 *piece;  /* by node: id + 1, 0: none */
    bool single; /* path scores are kept in f32, as SentencePiece does */
};
int unigram_build(struct tokenizer *t, const double *score, i64 count, struct err *e);
void unigram_free(struct unigram *u);

struct wordpiece {
    struct bytes prefix; /* of pieces that continue a word */
    i64 longest;         /* characters; a longer word is unknown */
};

/* Appends one word's ids to w->out. */
typedef int model_fn(struct work *w, struct bytes word, struct err *e);
model_fn bpe_word, unigram_word, wordpiece_word, wordlevel_word;
/* Where a word may be cut into smaller ones that can be cached: between two characters that no
 * token holds side by side. */
struct cuts {
    bool on;
    bool marks;      /* before U+2581 only */
    u8 joined[8192]; /* bitmap of (last byte, first byte) of neighbours within a token */
};
void cuts_find(struct tokenizer *t);
int word_encode(struct work *w, struct bytes word, struct err *e);
/* Ids of the <0xNN> pieces of every byte, or false if one is missing or they are not in use. */
bool fallback_bytes(const struct tokenizer *t, struct bytes text);

/* ---- decoders (tokenizer_decode.c) ----------------------------------------------------------- */
enum decoder_kind {
    DECODE_BYTES,
    DECODE_REPLACE,
    DECODE_FALLBACK,
    DECODE_FUSE,
    DECODE_STRIP,
    DECODE_METASPACE,
    DECODE_WORDPIECE,
    DECODE_BPE
};
struct decoder {
    enum decoder_kind kind;
    struct pattern pattern; /* REPLACE */
    struct bytes content;   /* REPLACE: with; STRIP: the character; METASPACE: the replacement;
                               WORDPIECE: the prefix; BPE: the suffix */
    i64 start, stop;        /* STRIP; METASPACE: start 1 drops the mark in the first token */
    bool cleanup;           /* WORDPIECE */
};

/* ---- the whole ------------------------------------------------------------------------------- */
struct tokenizer {
    struct arena arena; /* texts and lists below */
    char *path;         /* of the file; starts messages */
    char sha256[65];
    i64 bos, eos;
    struct vocab vocab;        /* the model's tokens and the added ones */
    struct added_set added[2]; /* looked for in raw text; in normalised text */
    json_t *extra;             /* added tokens that other files of the folder name; may be NULL */
    bool map_first;            /* special_tokens_map.json goes before tokenizer_config.json */
    u8 *special;               /* by id: skipped when decoding without special tokens */
    struct norm *norm;
    struct stage *stage;
    struct decoder *decoder;
    i64 norms, stages, decoders;
    bool decodes; /* there is a decoder, if only an empty Sequence: tokens are not joined by spaces
                   */
    struct ids prefix, suffix; /* the post-processor's template around the text */
    model_fn *model;
    struct bpe bpe;
    struct unigram unigram;
    struct wordpiece wordpiece;
    struct added_set user; /* symbols of a SentencePiece model that are never divided or joined */
    struct cuts cuts;
    bool byte_fallback;
    i64 unk_id;           /* or -1 */
    i64 fallback_id[256]; /* of <0xNN>, or -1 */
    struct work_pool *pool;
};
struct cached_word { /* two to a set: the younger, the older */
    u8 size, count;  /* size 0: free */
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
    i64 symbols, heaps;    /* capacities */
    struct text path;      /* unigram */
    struct spans *offsets; /* tokenizer_offsets.c: wanted, or NULL; then `place` is meant, too */
    struct place {
        const char *text;        /* that is cut now */
        const struct span *from; /* of each of its bytes: what of the input it comes from */
    } place;
    struct spans align[3 + STAGE_LIMIT];
};
enum { ALIGN_CLEAN, ALIGN_NORM, ALIGN_STAGE = 3 }; /* whose spans: of clean, norm, stage */
/* tokenizer_offsets.c. Spans of a text made from `in`, a part of w->place.text, into `to`: */
int offsets_start(struct work *w, struct bytes raw, struct bytes text, struct err *e);
/* `lead` bytes put before it, each match of p (or NULL) replaced by `with` bytes; */
int offsets_replaced(struct work *w, const struct pattern *p, i64 with, i64 lead, struct bytes in,
                     struct spans *to, struct err *e);
/* as bytes_show makes it. */
int offsets_shown(struct work *w, struct bytes in, struct spans *to, struct err *e);
int offsets_add(struct work *w, struct bytes token, struct err *e); /* a token that is this text */
int normalize_offsets(struct work *w, struct bytes *text, bool *starts, struct err *e);
int word_encode_offsets(struct work *w, struct bytes word, struct err *e);
/* Appends the ids of valid text behind a place where encoding can begin anew
 * (tokenizer_prefix.c). */
int encode_from(struct work *w, struct bytes text, i64 at, i64 done, struct ids *out,
                struct err *e);
struct work *work_take(const struct tokenizer *t, struct err *e);
void work_give(const struct tokenizer *t, struct work *w);
int tokenizer_read(struct tokenizer *t, const json_t *j, const char *folder /* or NULL */,
                   struct err *e); /* tokenizer_json.c */
/* tokenizer_folder.c: new lists */
json_t *added_of_folder(const char *folder, const json_t *config, struct err *e);
/* tokenizer_pair.c: vocab.json and merges.txt as a tokenizer.json; a new reference. */
json_t *tokenizer_of_pair(const char *folder, const json_t *vocab, struct err *e);
json_t *extras_of_folder(struct tokenizer *t, const char *folder, const json_t *own, struct err *e);
int read_merge(struct tokenizer *t, const struct bytes part[2], i64 rank, struct text *joined,
               struct err *e);
int read_added(struct tokenizer *t, const json_t *list, struct err *e);
struct tokenizer *tokenizer_new(struct err *e); /* tokenizer.c */
int parts_build(struct tokenizer *t, const struct tokenizer_parts *p, struct err *e);
/* The stages of a name in GGUF's tokenizer.ggml.pre (tokenizer_pre.c), as a tokenizer.json has
 * them; new references. */
struct pre {
    json_t *normalizer, *pre_tokenizer; /* normalizer: or NULL */
    bool ignore_merges;
};
int pre_find(const char *name, const char *pattern, const char *where, struct pre *out,
             struct err *e); /* pattern: this instead of a name, or NULL */
/* Files other than tokenizer.json; `config`: the folder's tokenizer_config.json or an empty object,
 * `added`: its added tokens or NULL. */
int sentencepiece_read(struct tokenizer *t, struct bytes file, bool in_folder, const json_t *config,
                       const json_t *added, struct err *e);
int tiktoken_read(struct tokenizer *t, struct bytes file, const json_t *config, json_t *added,
                  struct err *e);
void tokenizer_finish(struct tokenizer *t, bool bytes);
int read_norms(struct tokenizer *t, const json_t *j, struct err *e); /* tokenizer_stages.c */
int read_stages(struct tokenizer *t, const json_t *j, bool *bytes, struct err *e);
int read_decoders(struct tokenizer *t, const json_t *j, struct err *e);
int json_bytes(const json_t *o, const char *key, const char *where, struct bytes *out,
               struct err *e);
const char *json_kind(const json_t *o, const char *where, struct err *e);
const char *json_kind_of(const json_t *j);              /* "an object", ... */
i64 base64_decode(const char *in, i64 size, char *out); /* bytes written, or -1 */

#endif
