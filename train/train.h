/* train.h: the parts of the program itself: flags, commands, the trainer, generation, evaluation.
 * What surrounds the loop (recipes, logs, reports) is in run.h. */
#ifndef HONE_TRAIN_H
#define HONE_TRAIN_H

#include "data/data.h"
#include "recipes/models/models.h"
#include "recipes/models/pass.h"
#include "train/run.h"

enum { NUMERICS_VERSION = 1 };

/* ---- commands (main.c, args.c) */
struct globals {
    i64 threads;
    const char *isa, *device, *numerics, *quantize;
    bool eager, json, quiet, profile, sync;
};
extern struct globals globals;
struct command {
    const char *name, *usage, *help;                  /* one line each */
    int (*run)(int argc, char **argv, struct err *e); /* argv[0] is the command's first argument */
    const struct option *options; /* its flags, for help; NULL: none, or a recipe's keys */
};
extern const struct command commands[]; /* ends with a row without name */
/* `--key value`, `--key=value`, `key=value` and `--flag` by the table; everything else is
 * positional. '-' and '_' are the same in keys. `rest`: the positional arguments (they point into
 * argv). */
struct args {
    char **rest;
    i64 count;
    struct arena arena;
};
/* A row of a command's table: the member of ROW_OF, a struct of flags, that has the key's name. */
#define ROW(key, type, otherwise, low, high, help)                                                 \
    { #key, type, offsetof(ROW_OF, key), otherwise, low, high, NULL, help }
int args_parse(struct args *a, int argc, char **argv, const struct option *table, void *to,
               struct err *e);
void args_free(struct args *a);
int args_need(const struct args *a, i64 low, i64 high, const char *usage, struct err *e);

/* ---- outputs apart from inputs (outputs.c) */
enum { OUTPUT_NAMES = 4 };
struct outputs { /* names may be NULL; those that are no files are no harm */
    const char *output[OUTPUT_NAMES], *input[OUTPUT_NAMES];
    const char *const *source;
    i64 sources;
    const struct text_list *adapter; /* DIR or DIR=WEIGHT */
};
int outputs_apart(const struct outputs *o, struct err *e);
int inputs_apart(const struct recipe *r, struct err *e); /* from the run's own files */
int report_apart(char *const *run, i64 count, const char *output, struct err *e);

/* Sets numerics_now: "auto", "portable" or "fast", which needs a GPU. */
int numerics_choose(const char *name, struct err *e);
void quant_of_recipe(const struct recipe *r); /* sets load_quant */

/* ---- optimizer (optims.c, optimizer.c) */
struct optim { /* a row of optims.c */
    const char *name;
    enum update_rule rule; /* FORM_MUON: of matrices; the rest follows UPDATE_ADAMW */
    enum optim_form {      /* what a gradient becomes before the rule */
                      FORM_PLAIN,
                      FORM_CODED,   /* itself; m and v of large tensors in 8 bits */
                      FORM_FACTORS, /* ops/adafactor.c, as transformers bounds it */
                      FORM_FACTORS_TORCH,
                      FORM_MUON /* muon.c */
    } form;
    const struct option *args; /* of struct optim_args: what `optim_args` may say */
};
const struct optim *optim_find(const char *name); /* NULL: adamw */
enum { GROUP_LEVELS = 17, SLOT_USES = 4 };        /* 2^16 reduction groups */
enum {
    STATE_MASTER,
    STATE_M,
    STATE_V,
    STATE_EXTRA,
    STATE_M_ABSMAX,
    STATE_V_ABSMAX,
    STATE_ROW,
    STATE_COL,
    STATE_PARTS
};
struct moments { /* of one trainable parameter; all f32 of its size, on the device */
    struct param *p;
    i64 count;
    enum update_rule rule;
    bool muon;
    float *master; /* the parameter's own memory in fp32; NULL: bf16 without masters */
    /* m, v, extra: as the rule has them, f32, or m and v u8 with an absmax for each 256
     * (ops/quant8.c); row, col: of Adafactor. master: where it has memory of its own */
    struct view state[STATE_PARTS];
    float *grad[SLOT_USES]; /* accumulators of the current reduction group, one per use */
    float *sum[SLOT_USES][GROUP_LEVELS]; /* finished groups: NUMERICS.md 6 */
};
struct of_step { /* what updates need of their step: hyper of update.c, and of adafactor.c */
    i32 step;
    float factor[7], momentum[HYPER];
    float hyper[][HYPER]; /* of each parameter */
};
struct optimizer {
    struct moments *of;
    i64 count;
    const struct optim *kind;
    struct optim_args with;
    double beta1, beta2, eps, weight_decay, max_grad_norm, max_grad_value;
    double ratio[PACES];          /* LoRA+: learning rates over the schedule's */
    struct view decoded[2], maps; /* coded: room for a part of m and v; maps [2, 256]: of m, v */
    u64 seed;                     /* of stochastic rounding, where a parameter has no master */
    i64 step;                     /* updates done */
    double *norms; /* [count, and count of the weights], sums of squares, on the device */
    struct of_step *now, *now_host;
    double learning_rate;
    void *work; /* of muon.c */
    i64 work_bytes;
    void *scratch;
    i64 scratch_bytes;
};
int optimizer_new(struct optimizer *o, struct model *m, const struct recipe *r, struct err *e);
void optimizer_free(struct optimizer *o);
int optimizer_bind(struct optimizer *o, struct graph *g,
                   struct err *e); /* points the graph's slots at accumulators */
int optimizer_call(struct optimizer *o, struct op_call *c, struct err *e); /* shape, scratch, run */
int optimizer_zero(struct optimizer *o, struct err *e); /* before each reduction group */
int optimizer_group_done(struct optimizer *o, i64 group, struct err *e);
/* The rate that a step has where the schedule says `lr`: Adafactor may have a schedule of its own.
 */
double optimizer_rate(const struct optimizer *o, double lr);
/* Adds up uses and groups, clips, updates. grad_norm: before clipping. */
int optimizer_update(struct optimizer *o, i64 groups, double lr, double *grad_norm, struct err *e);
int optimizer_digest(const struct optimizer *o, char hex[65],
                     struct err *e); /* SHA-256 of step, masters (or bf16 weights), m, v */
i64 optimizer_bytes(const struct optimizer *o);
int optimizer_save(const struct optimizer *o, struct state_writer *w, struct err *e);
int optimizer_load(struct optimizer *o, struct state_reader *r, struct err *e);

/* ---- Muon (muon.c): a matrix [rows, cols], in place; `sum`: room for a number on the device; its
 * memory in o->work; what the rate is multiplied by */
int muon_direction(struct optimizer *o, float *matrix, i64 rows, i64 cols, double *sum,
                   struct err *e);
i64 muon_work(i64 rows, i64 cols);
double muon_rate(const struct optim_args *a, i64 rows, i64 cols);

/* ---- the trainer (trainer.c, trainer_data.c, trainer_save.c) */
enum use { USE_EVAL, USE_COUNT /* what the balancing loss needs to know */, USE_TRAIN };
enum { PASSES = 6, DATASETS = 16 };
struct trainer {
    const struct recipe *r;
    const char *run_dir;
    struct tokenizer *tokenizer;
    struct chat *chat; /* NULL: the recipe names none and the tokenizer has none */
    struct dataset *dataset[DATASETS], *eval_dataset[DATASETS];
    double weight[DATASETS];
    struct loader *loader, *eval_loader;
    struct model model;
    struct lora_config lora;
    struct optimizer optimizer;
    struct schedule schedule;
    struct pass pass[PASSES]; /* of micro-batches of one size each */
    enum use pass_use[PASSES];
    struct graph_memory memory; /* of all of them */
    struct balance balance;     /* of the step, where the model is `balanced` */
    i64 pass_next;
    i64 total_steps, tokens_seen;
    char parent[65];           /* SHA-256 of the last checkpoint's manifest */
    char *model_folder;        /* whose config and tokenizer files checkpoints carry */
    struct lock_files carried; /* those files, as they were when the program began */
    struct arena arena;
};
/* The files of model_folder: hashed; those copied into a checkpoint, compared (carried.c) */
int carried_begin(struct trainer *t, struct err *e);
int carried_copied(const struct trainer *t, const char *folder, struct err *e);
/* Opens everything that a recipe names. `run_dir` is where raw text is tokenised to and where a new
 * model's config is written. */
int trainer_open(struct trainer *t, const struct recipe *r, const char *run_dir, struct err *e);
void trainer_close(struct trainer *t);
struct step_result {
    double loss, lr, grad_norm;
    double aux_loss; /* of a model that is `balanced`: part of the loss, times aux_coef */
    i64 tokens;
    char batch[65];
};
int trainer_step(struct trainer *t, struct step_result *out, struct err *e);
int trainer_eval(struct trainer *t, double *loss, i64 *tokens,
                 struct err *e); /* mean over trained tokens of eval_dataset */
/* A checkpoint at the current step; `digest`: optimizer_digest. */
int trainer_save(struct trainer *t, const char digest[65], struct err *e);
int trainer_load(struct trainer *t, const char *checkpoint, struct err *e); /* weights and state */
/* Refuses, with the plan and what would fit, a step that does not. */
i64 trainer_plan_bytes(
    struct trainer *t,
    struct err *e); /* weights, optimizer, gradients, activations of a full micro-batch */
i64 trainer_micro_batch(const struct recipe *r); /* samples: divides a reduction group */
/* The opening steps that trainer_open consists of */
int trainer_data(struct trainer *t, struct err *e);
int trainer_model(struct trainer *t, struct err *e);
int lock_files_of(const struct trainer *t, struct lock_files *files, struct err *e);

/* ---- evaluation and generation (evaluate.c, generate.c) */
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
void loaded_close(struct loaded *l);
int precision_parse(const char *text, enum dtype *d, struct err *e);
/* tokenizer_open, and the vocabulary within a .gguf (tokenizer_gguf.c). */
struct tokenizer *tokenizer_of_file(const char *path, struct err *e);
struct chat *chat_of_file(const char *chosen, const char *path, struct err *e); /* chat_open */
int bench_tokenizer(const char *tokenizer, const char *text, const char *peers,
                    struct err *e);     /* bench_tokenizer.c */
bool tokenizer_is_at(const char *path); /* a .gguf or a folder that holds a tokenizer */
/* Do a tokenizer's or a dataset's ids all lie within the model's vocabulary? */
int tokenizer_fits(const struct tokenizer *t, const struct model *m, const char *model,
                   struct err *e);
/* The chat template that a user names (NULL: none), or the one beside the tokenizer; *out NULL if
 * there is none and none was named. */
int chat_find(struct chat **out, const char *chosen, const struct tokenizer *t, struct err *e);
int dataset_fits(const struct dataset *d, const struct model *m, struct err *e);

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
/* Flags that hone generate and hone chat share. */
struct generate_flags {
    const char *prompt, *prompts, *precision, *tokenizer, *chat_template, *system;
    double temperature, top_p, min_p, repetition_penalty;
    i64 top_k, seed, max_new_tokens, batch_size;
    struct text_list stop, adapter;
    bool greedy, ignore_eos;
};
#define GENERATE_ROW(key, type, otherwise, low, high, help)                                        \
    { #key, type, offsetof(struct generate_flags, key), otherwise, low, high, NULL, help }
#define GENERATE_ROWS                                                                              \
    GENERATE_ROW(adapter, OPT_TEXT_EACH, NULL, 0, 0, ADAPTER_HELP),                                \
        GENERATE_ROW(tokenizer, OPT_TEXT, NULL, 0, 0, "tokenizer, if the model folder has none"),  \
        GENERATE_ROW(precision, OPT_TEXT, "fp32", 0, 0, "fp32 or bf16"),                           \
        GENERATE_ROW(temperature, OPT_FLOAT, "0.8", 0, 100, "0: greedy"),                          \
        GENERATE_ROW(top_k, OPT_INT, "0", 0, 1 << 24, "keep the k most likely; 0: all"),           \
        GENERATE_ROW(top_p, OPT_FLOAT, "0.95", 0, 1, "keep the most likely that sum to this"),     \
        GENERATE_ROW(min_p, OPT_FLOAT, "0", 0, 1,                                                  \
                     "drop what is less likely than this times the most likely"),                  \
        GENERATE_ROW(repetition_penalty, OPT_FLOAT, "1", 0.01, 100,                                \
                     "above 1: ids of prompt and answer become less likely"),                      \
        GENERATE_ROW(stop, OPT_TEXT_LIST, NULL, 0, 0, "texts that end the answer: A,B"),           \
        GENERATE_ROW(seed, OPT_INT, "42", 0, 0, "the same seed gives the same text"),              \
        GENERATE_ROW(greedy, OPT_BOOL, "false", 0, 0, "the most likely token each time"),          \
        GENERATE_ROW(ignore_eos, OPT_BOOL, "false", 0, 0, "go on after an end-of-text token")
/* Opens what the flags name. `stops`: the end-of-text ids of generation_config.json. */
int generate_open(struct loaded *l, const struct generate_flags *f, const char *model,
                  struct ids *stops, struct err *e);
struct sampling sampling_of(const struct generate_flags *f, const struct ids *stops, i64 *full);
int generate_text(struct model *m, const struct tokenizer *t, const char *prompt,
                  const struct sampling *s, struct text *out, struct err *e);
/* Sum of -log p over the trained targets of a one-pass loader, in f64, and their number. */
int evaluate_loss(struct model *m, struct loader *l, i64 max_steps, double *sum, i64 *tokens,
                  struct err *e);
/* A graph for forward passes without gradients, its inputs set to one sequence of `count` ids at
 * positions 0... */
int forward_loss(struct model *m, const struct batch *b, float *loss,
                 struct err *e); /* loss [tokens] */

/* ---- GGUF (gguf_vocabulary.c, gguf_export.c) */
/* Tokens, merges or scores, special ids and chat template of l->tokenizer, a tokenizer.json. */
int gguf_put_tokenizer(struct gguf_writer *w, const struct loaded *l, struct err *e);
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

/* ---- commands, a file each */
int cmd_train(int, char **, struct err *), cmd_tokenize(int, char **, struct err *),
    cmd_tokenizer(int, char **, struct err *);
int cmd_generate(int, char **, struct err *), cmd_export(int, char **, struct err *),
    cmd_inspect(int, char **, struct err *);
int cmd_verify(int, char **, struct err *), cmd_report(int, char **, struct err *),
    cmd_forward(int, char **, struct err *);
int cmd_chat(int, char **, struct err *);
int cmd_encode(int, char **, struct err *), cmd_decode(int, char **, struct err *),
    cmd_render(int, char **, struct err *), cmd_bench(int, char **, struct err *);
int cmd_doctor(int, char **, struct err *), cmd_help(int, char **, struct err *),
    cmd_eval(int, char **, struct err *);
extern const struct option tokenize_options[], tokenizer_options[], generate_options[],
    chat_options[], export_options[], verify_options[], report_options[], forward_options[],
    codec_options[], bench_options[], eval_options[], inspect_options[];

#endif
