/* commands.h: what several commands share. A command is `command_NAME` of its cmd_NAME.c, which
 * main.c lists. */
#ifndef HONE_COMMANDS_H
#define HONE_COMMANDS_H

#include "train/log/log.h"
#include "train/loop/loop.h"

/* ---- generate and chat (cmd_generate.c) */
/* Flags that hone generate and hone chat share. */
struct generate_flags {
    const char *prompt, *prompts, *precision, *activations, *tokenizer, *chat_template, *system;
    double temperature, top_p, min_p, repetition_penalty;
    i64 top_k, seed, max_new_tokens, batch_size, draft;
    struct text_list stop, adapter;
    bool greedy, ignore_eos;
};
#define GENERATE_ROW(key, type, otherwise, low, high, help)                                        \
    { #key, type, offsetof(struct generate_flags, key), otherwise, low, high, NULL, help }
#define GENERATE_ROWS                                                                              \
    GENERATE_ROW(adapter, OPT_TEXT_EACH, NULL, 0, 0, ADAPTER_HELP), GENERATE_SHARED_ROWS
#define GENERATE_SHARED_ROWS                                                                       \
    GENERATE_ROW(tokenizer, OPT_TEXT, NULL, 0, 0, "tokenizer, if the model folder has none"),      \
        GENERATE_ROW(precision, OPT_TEXT, "auto", 0, 0, "fp32, bf16, or auto: as the files"),      \
        {"activations",                                                                            \
         OPT_CHOICE,                                                                               \
         offsetof(struct generate_flags, activations),                                             \
         "auto",                                                                                   \
         0,                                                                                        \
         0,                                                                                        \
         "auto float int8",                                                                        \
         "in products with GGUF blocks: as they are, or as whole numbers (faster); auto: int8 "    \
         "for "                                                                                    \
         "GGUF files"},                                                                            \
        GENERATE_ROW(temperature, OPT_FLOAT, "0.8", 0, 100,                                        \
                     "0: greedy. What generation_config.json says goes before these defaults"),    \
        GENERATE_ROW(top_k, OPT_INT, "0", 0, 1 << 24, "keep the k most likely; 0: all"),           \
        GENERATE_ROW(top_p, OPT_FLOAT, "0.95", 0, 1, "keep the most likely that sum to this"),     \
        GENERATE_ROW(min_p, OPT_FLOAT, "0", 0, 1,                                                  \
                     "drop what is less likely than this times the most likely"),                  \
        GENERATE_ROW(repetition_penalty, OPT_FLOAT, "1", 0.01, 100,                                \
                     "above 1: ids of prompt and answer become less likely"),                      \
        GENERATE_ROW(stop, OPT_TEXT_EACH, NULL, 0, 0,                                              \
                     "a text that ends the answer, commas and all; each --stop adds one"),         \
        GENERATE_ROW(draft, OPT_INT, "0", 0, 15,                                                   \
                     "guess so many tokens ahead, from what the text has already: the same text, " \
                     "sooner where it repeats itself"),                                            \
        GENERATE_ROW(seed, OPT_INT, "42", 0, 0, "the same seed gives the same text"),              \
        GENERATE_ROW(greedy, OPT_BOOL, "false", 0, 0, "the most likely token each time"),          \
        GENERATE_ROW(ignore_eos, OPT_BOOL, "false", 0, 0, "go on after an end-of-text token")
/* What the flags name, opened; how it answers. */
struct talker {
    struct loaded l;
    struct chat *chat; /* NULL: there is no template */
    struct generation generation;
    struct ids stops; /* ids that end any text of it */
    struct arena arena;
};
/* Fills the flags that were not given with what generation_config.json says, and says so. */
int talker_open(struct talker *t, struct generate_flags *f, const struct args *a, struct err *e);
/* Of flags as they were given: what they are for a text of which something is said of sampling. */
int talker_asked(const struct talker *t, struct generate_flags *f, const struct args *a,
                 struct err *e);
void talker_close(struct talker *t);
/* What ends an answer to `row` (NULL: to any): ids and texts, those of all texts included. The ids
 * are the caller's, the texts the talker's. */
int answer_stops(struct talker *t, const struct generate_flags *f, const json_t *row,
                 struct ids *ids, struct text_list *texts, struct err *e);
struct sampling sampling_of(const struct generate_flags *f, const struct ids *stops, i64 *full);

/* ---- train (early_stop.c): what the evaluations and losses of a run so far say */
struct judge { /* zero-initialise */
    double best;
    i64 best_step;    /* of the least validation loss; 0: none yet */
    i64 worse, above; /* evaluations in a row, steps in a row */
    enum { VERDICT_NONE, VERDICT_EARLY, VERDICT_LOSS } verdict;
};
void judge_row(struct judge *j, const struct recipe *r, const struct log_row *row);
/* The rows of RUN/log.jsonl up to a step. */
int judge_log(struct judge *j, const struct recipe *r, const char *run_dir, i64 step,
              struct err *e);
/* Why the run ended before its last step, and which checkpoint is the best; -1: it failed. */
int judge_say(const struct judge *j, const struct recipe *r, const char *run_dir, struct err *e);
bool keeps_best(const struct recipe *r); /* the best evaluation's checkpoint is to be there */
int best_keep(const char *run_dir, i64 step, struct err *e); /* that checkpoint as RUN/best */

/* ---- bench (bench_tokenizer.c) */
int bench_tokenizer(const char *tokenizer, const char *text, const char *peers, struct err *e);

/* ---- GGUF (gguf_vocabulary.c, gguf_export.c) */
/* Tokens, merges or scores and special ids of l->tokenizer, a tokenizer.json. */
int gguf_put_tokenizer(struct gguf_writer *w, const struct loaded *l, struct err *e);
/* All templates by name, and the special token that ends answers. */
int gguf_put_templates(struct gguf_writer *w, const struct chat *c, const struct tokenizer *t,
                       struct err *e);
/* Writes `m`, a model of l's family, as a GGUF file whose matrices are `type` ("q8_0"). */
int gguf_export(const char *path, const struct loaded *l, struct model *m, const char *type,
                struct err *e);
/* Writes the adapter of `m` alone. */
int gguf_export_adapter(const char *path, struct model *m, struct err *e);
/* Writes l's model as a Hugging Face folder: "fp32", "bf16", or "auto", each tensor in the type
 * that l's base has it in (export_folder.c). */
int export_folder(const char *to, const struct loaded *l, const char *precision, struct err *e);
/* FOLDER/Modelfile for Ollama: `from`, and `adapter` if not NULL, as they are to be named in it. */
int modelfile_write(const char *folder, const struct loaded *l, const char *from,
                    const char *adapter, struct err *e);

#endif
