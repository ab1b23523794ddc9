/* tokenizers.h: text to token ids and back; learning a tokenizer. */
#ifndef HONE_TOKENIZERS_H
#define HONE_TOKENIZERS_H

#include "base/base.h"

/* A growing list of token ids. Zero-initialise; ids_free. */
struct ids {
    u32 *item;
    i64 count, capacity;
};
int ids_add(struct ids *ids, u32 id, struct err *e);
void ids_free(struct ids *ids);

struct bytes { /* text with a length: tokens may hold NULs */
    const char *data;
    i64 size;
};

struct spans { /* ranges of bytes, ascending. Zero-initialise; spans_free */
    struct span {
        i64 begin, end;
    } * item;
    i64 count, capacity;
};
int spans_push(struct spans *s, i64 begin, i64 end, struct err *e);
int spans_add(struct spans *s, i64 begin, i64 end, struct err *e); /* an empty one is left out */
void spans_free(struct spans *s);

/* ==== tokenizers (README.md has the files) ==================================================== */
struct tokenizer;
/* `path` is a tokenizer.json, a SentencePiece .model, a tiktoken rank file (plain or .gz), or a
 * folder that holds one: tokenizer.json, else tokenizer.model, spiece.model, tiktoken.model,
 * vocab.json with merges.txt, or a *.tiktoken. In a folder special tokens also come from
 * tokenizer_config.json, added_tokens.json, special_tokens_map.json, config.json,
 * generation_config.json where present (tokenizer_folder.c). */
struct tokenizer *tokenizer_open(const char *path, struct err *e);
bool tokenizer_exists(const char *folder); /* whether it holds one of those files */
void tokenizer_free(struct tokenizer *t);
i64 tokenizer_size(const struct tokenizer *t); /* largest id + 1, added tokens included */
i64 tokenizer_id(const struct tokenizer *t, const char *token); /* -1 if it is not a token */
bool tokenizer_special(const struct tokenizer *t, u32 id);      /* left out of texts for people */
bool tokenizer_has(const struct tokenizer *t, u32 id); /* models may have more ids than tokens */
i64 tokenizer_bos(const struct tokenizer *t);          /* -1 if there is none; eos likewise */
i64 tokenizer_eos(const struct tokenizer *t);
/* Of the tokenizer.json bytes, hex; with merges.txt or tokens of other files: of all that. */
const char *tokenizer_sha256(const struct tokenizer *t);
/* The whole as a tokenizer.json, other files' tokens included; a new reference. */
json_t *tokenizer_json(const struct tokenizer *t, struct err *e);
const char *tokenizer_path(const struct tokenizer *t);   /* of the tokenizer.json */
int tokenizer_encode(const struct tokenizer *t, const char *text, i64 size, bool add_special_tokens,
                     struct ids *out, struct err *e); /* appends; thread safe */
/* The same, and for each id the bytes of the text that it comes from, also appended; those of
 * tokens that the post-processor adds are empty. What they are where a normalizer changes the text
 * is said at the head of tokenizer_offsets.c. */
int tokenizer_encode_offsets(const struct tokenizer *t, const char *text, i64 size,
                             bool add_special_tokens, struct ids *out, struct spans *offsets,
                             struct err *e);
int tokenizer_decode(const struct tokenizer *t, const u32 *ids, i64 count, bool skip_special_tokens,
                     struct text *out, struct err *e); /* appends; unknown id: error */
/* A vocabulary as GGUF files, SentencePiece models and rank files hold it (tokenizer_parts.c). All
 * is copied. Zero-initialise; NULL or 0: absent. */
enum token_type { /* the numbers of SentencePiece and GGUF */
                  TOKEN_NORMAL = 1,
                  TOKEN_UNKNOWN,
                  TOKEN_CONTROL,
                  TOKEN_USER_DEFINED,
                  TOKEN_UNUSED,
                  TOKEN_BYTE
};
struct tokenizer_parts {
    const char *name;    /* of the file: starts messages, becomes tokenizer_path */
    const char *model;   /* GGUF's names: "gpt2" byte-level BPE, "llama" SentencePiece BPE, "t5"
                            SentencePiece Unigram, "bert" WordPiece; "tiktoken": "gpt2" by ranks */
    const char *pre;     /* gpt2, tiktoken: GGUF's tokenizer.ggml.pre; NULL: "default" */
    const char *pattern; /* instead of pre: one regular expression; NULL: none */
    i64 count;           /* tokens; the id is the place */
    const struct bytes *token; /* [count] size -1: none has this id */
    const float *score;        /* [count] llama, t5 */
    const i32 *type;           /* [count] enum token_type; NULL: all normal */
    i64 merges_count;
    const struct bytes *merge;   /* [merges_count] gpt2: "left right" */
    i64 bos, eos, unk, sep, cls; /* ids; -1: none. A zeroed struct says 0: set them */
    bool add_bos, add_eos;       /* around the text when special tokens are asked for */
    bool add_space_prefix;       /* llama, t5: a text begins with a space */
    bool remove_extra_whitespaces;
    bool escape_whitespaces; /* llama, t5: a space is U+2581 */
    bool whitespace_suffix;  /* the added space ends the text instead */
    bool prefix_once;        /* the space is added to the start of the text only, not after each
                                added token */
    /* Control and user-defined tokens are cut out of the text first, as Hugging Face does (set it
     * for GGUF). Else as SentencePiece does: control tokens are not found in text, user-defined
     * symbols are part of it. */
    bool cut_added;
    const json_t *added;   /* more tokens to cut out, as "added_tokens" of a tokenizer.json */
    struct bytes charsmap; /* SentencePiece's precompiled_charsmap */
    const char *sha256;    /* of the file, 64 digits; NULL: computed from the parts */
};
struct tokenizer *tokenizer_from_parts(const struct tokenizer_parts *p, struct err *e);
/* What GGUF calls the pre-tokenizer of a tokenizer.json (tokenizer_parts.pre); NULL: an error. */
const char *tokenizer_pre_name(const json_t *file, const char *where, struct err *e);

/* Trains a byte-level BPE (GPT-2 byte alphabet, the given split pattern) and writes a
 * tokenizer.json that Hugging Face tokenizers loads. Deterministic: highest count first, ties by
 * lowest pair of ids. */
typedef int text_fn(void *arg, const char *text, i64 size, struct err *e);
/* Calls `each` for every text of a file, in order. */
typedef int texts_fn(const char *path, text_fn *each, void *arg, struct err *e);
struct bpe_training {
    const char *pattern;               /* "gpt2", "llama3", "olmo2" (= llama3 pattern) */
    i64 vocab_size;                    /* 256 bytes + merges + special tokens */
    const char *const *special_tokens; /* take the first ids */
    i64 special_tokens_count;
    const char *const *files;
    i64 files_count;
    texts_fn *texts; /* reads one of them: source_texts (datasets.h) */
};
int bpe_train(const struct bpe_training *job, const char *path, struct err *e);

/* ---- what datasets and conversations see of a tokenizer */
struct beginning;
enum { ENCODER_AROUND = 8 };
/* What turns text into ids: a tokenizer, or anything else that has a vocabulary. */
struct encoder {
    const void *arg;
    /* Appends the ids; thread safe. */
    int (*encode)(const void *arg, const char *text, i64 size, struct ids *out, struct err *e);
    i64 vocab_size, bos, eos; /* -1: has none */
    const char *sha256;       /* 64 hex digits: names the encoder */
    /* May be NULL. Compares encodings of the text's beginnings with `all`, that of the whole, in
     * time linear in size + count; false: it cannot for this text. */
    bool (*prefixes)(const void *arg, const char *text, i64 size, const struct ids *all,
                     struct beginning *list, i64 count, struct err *e);
    /* May be NULL: it has no tokens with names. The id of one (-1: none), as tokenizer_id; whether
     * an id is a special token. */
    i64 (*token)(const void *arg, const char *name);
    bool (*special)(const void *arg, u32 id);
    /* What it puts around a text that a model is to continue: `hone generate` does. */
    u32 before[ENCODER_AROUND], after[ENCODER_AROUND];
    int before_count, after_count;
};
/* The first `at` bytes of a text, encoded alone: `same` ids as the whole text begins with, and
 * whether others follow them. */
struct beginning {
    i64 at, same;
    bool more;
};
bool tokenizer_prefixes(const void *tokenizer, const char *text, i64 size, const struct ids *all,
                        struct beginning *list, i64 count, struct err *e); /* `prefixes` of one */
struct encoder encoder_of(const struct tokenizer *t); /* adds no special tokens; borrows t */

#endif
