/* engine.h: a model that is used, not trained: opening one, continuing texts. */
#ifndef HONE_ENGINE_H
#define HONE_ENGINE_H

#include "data/datasets/datasets.h"
#include "recipes/models/models.h"
#include "recipes/models/pass.h"
#include "train/recipe/recipe.h"

/* Sets numerics_now: "auto", "portable" or "fast", which needs a GPU. */
int numerics_choose(const char *name, struct err *e);
const struct packing *packing_of_recipe(const struct recipe *r); /* NULL: none */

/* ---- a model for use (loaded.c, tokenizer_gguf.c) */
/* Loads MODEL (folder or checkpoint), and onto it the sum of adapters (none: a LoRA checkpoint
 * names its base itself), each "DIR" or "DIR=WEIGHT". */
#define ADAPTER_HELP "a PEFT adapter, DIR or DIR=WEIGHT; several add up"
struct loaded {
    struct model model;
    struct lora_config lora;
    struct tokenizer *tokenizer; /* NULL if the folder has none and none was given */
    char *base;                  /* the folder that the base weights came from */
    char *adapter;               /* that of the first adapter; NULL: none */
};
int loaded_open(struct loaded *l, const char *path, const struct text_list *adapters,
                const char *tokenizer, enum dtype d, bool trainable, struct err *e);
/* The same with the base held as `quantize` says instead of --quantize. */
int loaded_open_as(struct loaded *l, const char *path, const struct text_list *adapters,
                   const char *tokenizer, const char *quantize, enum dtype d, bool trainable,
                   struct err *e);
void loaded_close(struct loaded *l);
int precision_parse(const char *text, enum dtype *d, struct err *e);
/* tokenizer_open, and the vocabulary within a .gguf (tokenizer_gguf.c). */
struct tokenizer *tokenizer_of_file(const char *path, struct err *e);
struct chat *chat_of_file(const char *chosen, const char *path, struct err *e); /* chat_open */
bool tokenizer_is_at(const char *path); /* a .gguf or a folder that holds a tokenizer */
/* Do a tokenizer's or a dataset's ids all lie within the model's vocabulary? */
int tokenizer_fits(const struct tokenizer *t, const struct model *m, const char *model,
                   struct err *e);
/* The chat template that a user names (NULL: none), or the one beside the tokenizer; *out NULL if
 * there is none and none was named. */
int chat_find(struct chat **out, const char *chosen, const struct tokenizer *t, struct err *e);
int dataset_fits(const struct dataset *d, const struct model *m, struct err *e);

/* ---- continuing texts (generate.c, stream.c) */
struct sampling {
    double temperature, top_p, min_p;
    i64 top_k, seed, max_new_tokens;
    bool ignore_eos;
    double repetition_penalty; /* 1 or 0: off */
    const struct ids *stops;   /* ids that end a text besides the model's own; may be NULL */
    i64 *full; /* counts texts that ended because the model has no more positions; may be NULL */
};
typedef int token_fn(void *arg, u32 id); /* told every id at once; >0: stop, -1: an error */
struct sequence {                        /* one text of several that are continued together */
    const u32 *prompt;
    i64 count;
    i64 stream;     /* of random numbers: the text depends on it, the seed, and the prompt alone */
    struct ids out; /* the new ids, appended */
    token_fn *each; /* may be NULL */
    void *arg;
    i64 base, room; /* the generator's own: where it lies in the cache, and its rows there */
    u32 next;
    bool done;
};
/* One line for the user, with `full` of struct sampling; nothing for 0. */
void positions_note(const struct model *m, i64 full);
/* Continues `count` prompts in one cache, a step of all in one pass. Each text is bit for bit what
 * it is alone. */
int generate_batch(struct model *m, struct sequence *list, i64 count, const struct sampling *s,
                   struct err *e);
/* Continues `prompt`; appends the new ids. */
int generate_ids(struct model *m, const u32 *prompt, i64 count, const struct sampling *s,
                 struct ids *out, token_fn *each, void *arg, struct err *e);
/* Text as its ids come (stream.c): bytes of an unfinished character, and what may become a stop
 * string, wait. */
struct stream {
    const struct tokenizer *t;
    const struct text_list *stop; /* strings that end the text and are no part of it; may be NULL */
    FILE *to;                     /* NULL: nothing is printed */
    bool stopped;
    struct ids ids;
    struct text text;
    i64 printed;
    struct err *e;
};
int stream_token(void *arg, u32 id); /* a token_fn for a struct stream */
void stream_end(struct stream *s);   /* prints what waited */
void stream_free(struct stream *s);
int generate_text(struct model *m, const struct tokenizer *t, const char *prompt,
                  const struct sampling *s, struct text *out, struct err *e);

#endif
