/* data.h: tokenizers, sources, tokenised datasets and the order in which training sees them. data's
 * only public header. */
#ifndef HONE_DATA_H
#define HONE_DATA_H

#include "base/base.h"

/* A growing list of token ids. Zero-initialise; ids_free. */
struct ids {
    u32 *item;
    i64 count, capacity;
};
int ids_add(struct ids *ids, u32 id, struct err *e);
void ids_free(struct ids *ids);

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
 * folder that holds one: tokenizer.json, else tokenizer.model, spiece.model, tiktoken.model or a
 * *.tiktoken. In a folder special tokens also come from tokenizer_config.json, added_tokens.json,
 * special_tokens_map.json, config.json, generation_config.json where present. */
struct tokenizer *tokenizer_open(const char *path, struct err *e);
bool tokenizer_exists(const char *folder); /* whether it holds one of those files */
void tokenizer_free(struct tokenizer *t);
i64 tokenizer_size(const struct tokenizer *t); /* largest id + 1, added tokens included */
i64 tokenizer_id(const struct tokenizer *t, const char *token); /* -1 if it is not a token */
bool tokenizer_has(const struct tokenizer *t, u32 id); /* models may have more ids than tokens */
i64 tokenizer_bos(const struct tokenizer *t);          /* -1 if there is none; eos likewise */
i64 tokenizer_eos(const struct tokenizer *t);
const char *tokenizer_sha256(const struct tokenizer *t); /* of the tokenizer.json bytes, hex */
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
struct part {
    const char *data; /* may hold NULs */
    i64 size;
};
struct tokenizer_parts {
    const char *name;    /* of the file: starts messages, becomes tokenizer_path */
    const char *model;   /* GGUF's names: "gpt2" byte-level BPE, "llama" SentencePiece BPE, "t5"
                            SentencePiece Unigram, "bert" WordPiece; "tiktoken": "gpt2" by ranks */
    const char *pre;     /* gpt2, tiktoken: GGUF's tokenizer.ggml.pre; NULL: "default" */
    const char *pattern; /* instead of pre: one regular expression; NULL: none */
    i64 count;           /* tokens; the id is the place */
    const struct part *token; /* [count] size -1: none has this id */
    const float *score;       /* [count] llama, t5 */
    const i32 *type;          /* [count] enum token_type; NULL: all normal */
    i64 merges_count;
    const struct part *merge;    /* [merges_count] gpt2: "left right" */
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
    const json_t *added;  /* more tokens to cut out, as "added_tokens" of a tokenizer.json */
    struct part charsmap; /* SentencePiece's precompiled_charsmap */
    const char *sha256;   /* of the file, 64 digits; NULL: computed from the parts */
};
struct tokenizer *tokenizer_from_parts(const struct tokenizer_parts *p, struct err *e);
/* What GGUF calls the pre-tokenizer of a tokenizer.json (tokenizer_parts.pre); NULL: an error. */
const char *tokenizer_pre_name(const json_t *file, const char *where, struct err *e);

/* Trains a byte-level BPE (GPT-2 byte alphabet, the given split pattern) and writes a
 * tokenizer.json that Hugging Face tokenizers loads. Deterministic: highest count first, ties by
 * lowest pair of ids. */
struct bpe_training {
    const char *pattern;               /* "gpt2", "llama3", "olmo2" (= llama3 pattern) */
    i64 vocab_size;                    /* 256 bytes + merges + special tokens */
    const char *const *special_tokens; /* take the first ids */
    i64 special_tokens_count;
    const char *const *files; /* text or JSONL sources, as source_open reads them */
    i64 files_count;
};
int bpe_train(const struct bpe_training *job, const char *path, struct err *e);

/* ==== chat templates (jinja*.c, chat.c) ======================================================= */
/* The part of Jinja2 that chat templates use, with transformers' settings. What is not
 * supported is refused by name and line, when the template is read where that can be seen, else
 * when rendering comes there. No template hangs, overflows or takes more than 256 MiB. */
struct template;
struct template *template_new(const char *source, i64 size, const char *name, struct err *e);
void template_free(struct template *t);
/* A rendering also of the first `messages` messages, with or without the generation prompt: the
 * first `at` bytes of the whole, then `tail`. */
struct turn {
    i64 messages;
    bool prompt, found;
    i64 at;
    struct text tail; /* text_free */
};
/* Renders the whole; turns in the order of `messages`. 1: not with this template (jinja_turns.c),
 * and `out` and turns are of no use. */
int template_render_turns(const struct template *t, const json_t *variables, i64 now,
                          struct text *out, struct turn *turn, i64 count, struct err *e);
bool template_generation(const struct template *t); /* has {% generation %} */
/* Appends the text that the members of `variables` give. `now`: what strftime_now says, in seconds
 * since 1970. `generation` (may be NULL) gets the ranges of `out` inside {% generation %}. On an
 * error `out` is as it was. Thread safe. */
int template_render(const struct template *t, const json_t *variables, i64 now, struct text *out,
                    struct spans *generation, struct err *e);

/* The chat template of a tokenizer (chat.c). `chosen` (may be NULL): a built-in one (chatml,
 * llama3, alpaca), the name of one that the folder has, a file, or a template's text. `path` (may
 * be NULL): a folder, or a tokenizer.json in one; see the head of chat.c. `config` (may be NULL):
 * what goes before the folder's files, as a tokenizer_config.json has it. */
struct chat;
struct chat *chat_open(const char *chosen, const char *path, const json_t *config, struct err *e);
void chat_free(struct chat *c);
const char *chat_sha256(const struct chat *c);            /* of the template's text, hex */
const char *chat_source(const struct chat *c, i64 *size); /* the template's text */
/* What the template puts after an answer, "" if nothing. `row` (may be NULL) as below. */
const char *chat_stop(const struct chat *c, const json_t *row);
/* Appends the text of `messages`, a JSON list of {role, content, ...}; `row` may hold "tools",
 * "documents" and "chat_template_kwargs". `prompt`: add what comes before an answer. `generation`
 * as in template_render. The text is complete: encode it without adding special tokens. */
int chat_render(const struct chat *c, const json_t *row, const json_t *messages, bool prompt,
                struct text *out, struct spans *generation, struct err *e);

/* ==== sources (source.c, source_stream.c) ===================================================== */
/* A source yields documents from a text file, JSON lines or a JSON array, plain, gzip (.gz, any
 * number of members) or zstd (.zst, any number of frames). JSON rows are {"text"}; {"prompt",
 * "completion"}; {"instruction", "input", "output"} or {"instruction", "instances": [{"input",
 * "output"}]} (self-instruct); or conversations: {"messages": [{"role", "content", ...}]},
 * {"conversations": [{"from", "value"}]} (ShareGPT), {"prompt", "completion"} that are lists of
 * messages, each with "system", "tools", "documents" and "chat_template_kwargs" if wanted.
 * Instructions get the template of Stanford Alpaca without its preamble. */
enum split { SPLIT_ALL, SPLIT_TRAIN, SPLIT_VALIDATION };
struct source_options {
    /* "text" or "jsonl". NULL: by the file's name, .txt, .jsonl or .json, then .gz or .zst */
    const char *type;
    /* Text: what ends a document, "\n\n" for blocks. NULL or "": the file is one document */
    const char *document_separator;
    bool completion_only_loss; /* prompts are read but not trained */
    bool assistant_only_loss;  /* conversations: only what the assistant says is trained */
    /* Conversations need it; NULL: they are refused. Borrowed. */
    const struct chat *chat;
    bool chat_instructions; /* {"instruction", "output"} rows are conversations, too */
    /* Which part is yielded; the two never share a row. [0, 1) of rows are held out, by a hash of
     * (seed, row); of a file that is one document the last bytes, in whole lines. */
    enum split split;
    double validation_fraction;
    u64 seed;
};
/* A document is one text in at most two segments, which are tokenised apart so that their border is
 * exact; or (segments 0) a conversation, which is tokenised whole, as it will be when the model is
 * used, and of which the spans are trained: each token that lies in one, if only in part. */
struct segment {
    i64 size; /* bytes */
    bool trained;
};
struct document {
    const char *text; /* valid UTF-8, may hold NULs; valid until the next source_next */
    i64 size, row;    /* bytes; row of the source it came from, from 0 */
    int segments;
    struct segment segment[2];
    const struct span *span; /* [spans], valid as text is */
    i64 spans;
    bool unstopped; /* the template puts nothing after the last answer: it wants an eos */
};
struct source_facts {
    i64 bytes, documents; /* of the file as it is stored; yielded so far */
    i64 conversations;    /* of the documents */
    char sha256[65];      /* of the stored bytes; "" until the end was reached */
};
struct source;
struct source *source_open(const char *path, const struct source_options *options, struct err *e);
/* 1: a document, 0: the end, -1: an error, which names file and line. */
int source_next(struct source *s, struct document *out, struct err *e);
const struct source_facts *source_facts(const struct source *s);
void source_close(struct source *s);

/* ==== tokenised datasets (dataset*.c, zstd_filter.c) ========================================== */
/* One HDF5 file, described in data/README.md. */

struct beginning;
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

struct dataset_job {
    const char *const *sources; /* paths, read in this order */
    i64 sources_count;
    struct source_options options;
    struct encoder encoder;
    bool add_bos, add_eos; /* around each document, if the encoder has them; eos counts as text */
    const char *path;      /* of the dataset; replaced only by a complete new one */
};
int dataset_build(const struct dataset_job *job, struct err *e);

struct dataset;
struct dataset_info {
    const char *path;
    i64 tokens, documents, trained; /* trained: tokens that may be targets */
    i64 vocab_size, bos, eos;       /* -1: none */
    const char *tokenizer_sha256;
    const char *sha256;      /* of tokens, documents and spans: the identity of the content */
    const char *sources;     /* JSON text: [{"file", "sha256", "bytes", "documents"}] */
    bool sources_unchecked;  /* an older version wrote the file, without a hash of `sources` */
    const u64 *documents_at; /* [documents + 1] first token of each, then `tokens` */
};
/* Verifies what it reads, now and later. Open datasets may be read by several threads. */
struct dataset *dataset_open(const char *path, struct err *e);
void dataset_close(struct dataset *d);
const struct dataset_info *dataset_info(const struct dataset *d);
int dataset_check_tokenizer(const struct dataset *d, const char *tokenizer_sha256, i64 vocab_size,
                            struct err *e);
int dataset_read(struct dataset *d, i64 first, i64 count, u32 *out, struct err *e);
/* out [count]: 1 where the token may be a target, else 0. */
void dataset_trained(const struct dataset *d, i64 first, i64 count, u8 *out);
i64 dataset_document(const struct dataset *d, i64 token); /* the document that holds a token */

/* What counting alone scores on `valid`, in nats per target (trained tokens after the first of
 * their document): an add-one unigram model of `train`, and its bigram model interpolated with it,
 * at the best of a grid of weights (fitted on valid, so the comparison favours the baseline). */
struct ngram {
    double unigram, bigram, lambda; /* lambda: the weight of the bigram */
    i64 targets;
};
int dataset_ngram(struct dataset *train, struct dataset *valid, struct ngram *out, struct err *e);

/* ==== order and loader (order.c, loader.c, loader_sample.c) =================================== */

/* A pseudorandom permutation of [0, count), computed by position. */
struct order {
    u64 count, seed;
    u32 epoch, stream, half_bits;
};
struct order order_new(u64 count, u64 seed, u32 epoch, u32 stream); /* epoch < 2^26 */
u64 order_at(const struct order *o, u64 sample);                    /* sample < count */

struct loader_config {
    struct dataset *const *datasets;
    i64 datasets_count;
    const double *weights; /* [datasets_count] shares; NULL: laid end to end, each epoch has all */
    bool packing;          /* samples are blocks of the token stream; else one document each */
    bool document_mask;    /* packing: attention, positions and targets stay within documents */
    bool shuffle;
    bool one_pass; /* evaluation: in order, every token once, the last step may be short */
    i64 max_seq_length, global_batch_size, micro_batch_size; /* tokens; samples; samples */
    u64 seed;
};
/* A micro-batch: samples laid end to end, each padded to a multiple of LOADER_PAD tokens. Padding
 * is documents of its own, of at most max_seq_length tokens: ids 0, targets -100. */
enum { LOADER_PAD = 32 };
struct batch {
    i64 samples, tokens, trained; /* trained: targets >= 0 */
    const i32 *ids;               /* [tokens] */
    const i32 *targets;  /* [tokens] next token; -100: not trained, last, masked: next document's */
    const i32 *position; /* [tokens] from 0 in the sample (masked: in the document) */
    const i32 *begin;    /* [tokens] attention sees [begin, last] of this micro-batch */
    const i32 *last;     /* [tokens] */
    const i32 *real;     /* [tokens] 0: padding */
};
struct step_batches {
    i64 step, samples, tokens, trained; /* of the whole step */
    i64 count;                          /* of micro-batches */
    const struct batch *batch;
    /* SHA-256 over the samples in order of (ids, targets) without padding, little-endian i32: the
     * same for any micro_batch_size */
    char digest[65];
};
struct loader;
/* Step s takes global samples [s B, (s + 1) B): a pure function of the configuration and s. A
 * thread prepares step s + 1 while s is in use. The datasets must stay open; *out is good until the
 * next call. */
struct loader *loader_open(const struct loader_config *c, struct err *e);
int loader_step(struct loader *l, i64 step, const struct step_batches **out, struct err *e);
i64 loader_samples(const struct loader *l);            /* in one epoch */
i64 loader_steps(const struct loader *l);              /* in one epoch, rounded up */
double loader_epoch(const struct loader *l, i64 step); /* epochs done before step */
void loader_close(struct loader *l);

#endif
