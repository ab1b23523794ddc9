/* engine.h: a model that is used, not trained: opening one, continuing texts. */
#ifndef HONE_ENGINE_H
#define HONE_ENGINE_H

#include "data/datasets/datasets.h"
#include "recipes/models/models.h"
#include "recipes/models/pass.h"
#include "train/recipe/recipe.h"

/* `numerics: auto` of a recipe becomes what --numerics says, or the device's. */
void recipe_numerics(struct recipe *r);
/* Sets numerics_now: "auto", "portable" or "fast", which needs a GPU. */
int numerics_choose(const char *name, struct err *e);
/* How a run holds the models that it opens. */
struct holding holding_of_recipe(const struct recipe *r);

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
/* The recipe of the run that a checkpoint is of: RUN/checkpoints/step-000100 belongs to
 * RUN/recipe.lock. 1: the caller frees it; 0: it is of none; -1. */
int run_recipe(struct recipe *r, const char *checkpoint, struct err *e);
/* "fp32" or "bf16"; "auto": DTYPE_COUNT, by which loaded_open takes what the files have. */
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
/* The same of a loaded model: that of the adapter's or the checkpoint's folder goes before the one
 * beside the tokenizer (answers.c). */
int loaded_chat(struct chat **out, const char *chosen, const struct loaded *l, struct err *e);
int dataset_fits(const struct dataset *d, const struct model *m, struct err *e);

/* ---- how a model answers (answers.c) */
struct answer_end {   /* what the template puts after an answer */
    i64 id;           /* if it is one token; -1: it is not */
    bool special;     /* that token is a special one: no text */
    const char *text; /* "": it puts nothing. The template's */
};
/* `row` as of chat_stop; without a template: nothing. */
int answer_end(struct answer_end *end, const struct chat *c, const json_t *row,
               const struct tokenizer *t, struct err *e);
/* Makes a special token one of "eos_token_id" in FOLDER/generation_config.json. */
int answer_end_save(const char *folder, const struct answer_end *end, struct err *e);
/* FOLDER/chat_template.jinja: the template in use. Does the folder have another one, or none? */
bool template_differs(const char *folder, const struct chat *c, struct err *e);
int template_save(const char *folder, const struct chat *c, struct err *e);
enum { STOP_STRINGS = 32 };
struct generation { /* generation_config.json, or what a GGUF file says. NAN, -1: it does not say */
    double temperature, top_k, top_p, min_p, repetition_penalty, max_new_tokens;
    int do_sample;
    struct ids eos;
    char *stop[STOP_STRINGS];
    int stops;
    struct text unused; /* names of keys that would change texts, and that hone does not follow */
    struct arena arena;
};
/* Of the adapter's folder, else of the base. Free also after a failure. */
int generation_read(struct generation *g, const struct loaded *l, struct err *e);
void generation_free(struct generation *g);

/* ---- continuing texts (engine.c, pool.c, generate.c, stream.c) */
struct sampling {
    double temperature, top_p, min_p;
    i64 top_k, seed, max_new_tokens;
    bool ignore_eos;
    double repetition_penalty; /* 1 or 0: off */
    const struct ids *stops;   /* ids that end a text besides the model's own; may be NULL */
    i64 *full; /* counts texts that ended because the model has no more positions; may be NULL */
    /* Ids that are guessed ahead, at most DRAFTS, from what the text has already (draft.c): a pass
     * gives several where guesses are right. The text is the same bits. Not with a penalty. */
    i64 draft;
};
enum { DRAFTS = 15 };
typedef int token_fn(void *arg, u32 id); /* told every id at once; >0: stop, -1: an error */
/* Told the logits [V] of the id that follows the one at `place` of the text. */
typedef void logits_fn(void *arg, i64 place, const float *logits);
struct page_list {
    i32 *item; /* by place in the text: each holds ATTENTION_PAGE positions */
    i64 count, room;
};
struct sequence { /* one text of several that are continued together */
    const u32 *prompt;
    i64 count;
    i64 stream;     /* of random numbers: the text depends on it, the seed, and the prompt alone */
    struct ids out; /* the new ids, appended */
    token_fn *each; /* may be NULL */
    void *arg;
    const struct sampling *how; /* its settings; NULL: what generate_batch is given */
    logits_fn *logits;  /* may be NULL: told those of each place, in order, before the id, */
    i64 logits_from;    /* from here on: 0: those of the prompt too */
    struct err *wrong;  /* not NULL: what ends this text alone, as logits that are no numbers do */
    struct {            /* the engine's own, from engine_add to engine_remove */
        struct ids ids; /* the prompt and the answer */
        struct page_list pages;
        i64 known, room; /* positions whose states are in its pages; ids at most */
        i64 upto, told;  /* known after this step; the place whose logits are told next */
        i32 slot;        /* of sequence states; -1: none */
        i64 row;         /* in this step's pass, its first; -1: it waits */
        i64 drafted;     /* the last of `ids` in a step: guesses */
        int kind;        /* model_rope_kind */
        bool done;
    } own;
};
/* One line for the user, with `full` of struct sampling; nothing for 0. */
void positions_note(const struct model *m, i64 full);
/* An engine keeps the states of the texts that it continues in a pool of pages (pool.h). Texts come
 * and go between steps, each with settings of its own; each is bit for bit what it is alone,
 * whatever else the engine does or did. */
struct engine;
struct engine_plan { /* zeros are defaults */
    i64 bytes;       /* of states, at most; 0: 9 tenths of the memory that is left */
    i64 positions;   /* that will be wanted at once, if that is known: room is made for them */
    /* states.h. AUTO: where keys and values of `positions` (0: of the longest text that the model
     * takes) would not fit. */
    enum { LATENT_AUTO, LATENT_NEVER, LATENT_ALWAYS } latent;
    i64 chunk; /* ids of prompts in a step, at most; 0: all. Longer ones take several steps */
    bool bare; /* the model as if it had no adapter */
};
struct engine_count {
    i64 computed, reused; /* positions whose states passes made; that were in the pool already */
    i64 passes, preempted, evicted, pages;
    i64 drafted, accepted; /* ids that were guessed; those that were right */
    i64 most;              /* pages that there can be */
};
/* The model's weights must stay as they are until it is closed. */
struct engine *engine_open(struct model *m, const struct engine_plan *plan, struct err *e);
void engine_close(struct engine *g);
struct model *engine_model(const struct engine *g);
/* Room for so many positions, as far as `bytes` allows. What is not reserved is taken when texts
 * want it and nothing can be evicted. */
int engine_reserve(struct engine *g, i64 positions, struct err *e);
/* Joins the others with the next step; the memory of q and its prompt stays the caller's. */
int engine_add(struct engine *g, struct sequence *q, struct err *e);
/* One pass: the next id of each text, or, where the pool has no room, of those that came first. How
 * many go on. -1: an error; the texts cannot go on then, but be removed. */
i64 engine_step(struct engine *g, struct err *e);
void engine_remove(struct engine *g, struct sequence *q); /* its states stay known */
/* Takes back the ids of the answer from place `count` on, which counts the prompt's too. */
void engine_rollback(struct engine *g, struct sequence *q, i64 count);
struct engine_count engine_counted(const struct engine *g);
/* Adds, steps until all have ended, removes. Those without settings have `s`. */
int engine_generate(struct engine *g, struct sequence *list, i64 count, const struct sampling *s,
                    struct err *e);

/* The same with an engine of its own. */
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
    struct ids ids;   /* what came */
    struct text text; /* of it */
    i64 printed;
    struct err *e;
    /* The ids before it, where the text goes on with theirs: decoders drop the space that a text
     * begins with, and this one begins before. None: it is a text of its own. */
    struct ids before;
    struct text head; /* of `before` */
};
/* A continuation of these ids. */
int stream_begin(struct stream *s, const u32 *before, i64 count, struct err *e);
int stream_token(void *arg, u32 id); /* a token_fn for a struct stream */
void stream_end(struct stream *s);   /* prints what waited */
void stream_free(struct stream *s);
/* A text to go on from; of an empty one the token that texts begin or end with. Appends. */
int prompt_encode(const struct tokenizer *t, const char *text, i64 size, struct ids *out,
                  struct err *e);
int generate_text(struct model *m, const struct tokenizer *t, const char *prompt,
                  const struct sampling *s, struct text *out, struct err *e);

#endif
