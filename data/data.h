/* data.h: tokenizers, sources, tokenised datasets and the order in which training sees them. data's only public
 * header. */
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

/* ==== tokenizers (tokenizer.c, tokenizer_json.c, pretokenize.c, bpe.c, bpe_train.c) ======================== */
struct tokenizer;
/* `path` is a tokenizer.json or a folder that holds one (then special-token names also come from
 * tokenizer_config.json / special_tokens_map.json / config.json / generation_config.json where present). */
struct tokenizer *tokenizer_open(const char *path, struct err *e);
void tokenizer_free(struct tokenizer *t);
i64 tokenizer_size(const struct tokenizer *t);                       /* largest id + 1, added tokens included */
i64 tokenizer_id(const struct tokenizer *t, const char *token);      /* -1 if it is not a token */
i64 tokenizer_bos(const struct tokenizer *t);                        /* -1 if there is none; eos likewise */
i64 tokenizer_eos(const struct tokenizer *t);
const char *tokenizer_sha256(const struct tokenizer *t);             /* of the tokenizer.json bytes, hex */
const char *tokenizer_path(const struct tokenizer *t);               /* of the tokenizer.json */
int tokenizer_encode(const struct tokenizer *t, const char *text, i64 size, bool add_special_tokens,
                     struct ids *out, struct err *e);                /* appends; thread safe */
int tokenizer_decode(const struct tokenizer *t, const u32 *ids, i64 count, bool skip_special_tokens,
                     struct text *out, struct err *e);               /* appends; unknown id: error */
/* Trains a byte-level BPE (GPT-2 byte alphabet, the given split pattern) and writes a tokenizer.json that Hugging Face
 * tokenizers loads. Deterministic: highest count first, ties by lowest pair of ids. */
struct bpe_training {
    const char *pattern;      /* "gpt2", "llama3", "olmo2" (= llama3 pattern) */
    i64 vocab_size;           /* 256 bytes + merges + special tokens */
    const char *const *special_tokens; /* take the first ids */
    i64 special_tokens_count;
    const char *const *files; /* text or JSONL sources, as source_open reads them */
    i64 files_count;
};
int bpe_train(const struct bpe_training *job, const char *path, struct err *e);

/* ==== sources and datasets (source.c, dataset_write.c, dataset.c, order.c, loader.c) ======================= */

#endif
