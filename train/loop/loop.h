/* loop.h: the trainer: optimizer, schedule, one step, checkpoints, evaluation; what a run may write
 * to. */
#ifndef HONE_LOOP_H
#define HONE_LOOP_H

#include "train/engine/engine.h"
#include "train/log/log.h"

/* ---- optimizer (optimizer.c, optimizer_state.c) */
enum { GROUP_LEVELS = 17, SLOT_USES = 4 }; /* 2^16 reduction groups */
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
    double ratio[LR_GROUPS];      /* LoRA+: learning rates over the schedule's */
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
/* SHA-256 of step, masters (or weights, where there are none), m, v: of the definition `version`
 * (checkpoints/README.md). */
int optimizer_digest(const struct optimizer *o, i64 version, char hex[65], struct err *e);
/* Version 2's rows of the trainable parameters from `first` on: what a rank that has them adds. */
int optimizer_rows(const struct optimizer *o, i64 first, i64 count, struct state_rows *rows,
                   struct err *e);
i64 optimizer_bytes(const struct optimizer *o); /* states, and room for computing them */
i64 optimizer_gradient_bytes(const struct optimizer *o);
int optimizer_save(const struct optimizer *o, struct state_writer *w, struct err *e);
int optimizer_load(struct optimizer *o, struct state_reader *r, struct err *e);

/* ---- Muon (muon.c): a matrix [rows, cols], in place; `sum`: room for a number on the device; its
 * memory in o->work; what the rate is multiplied by */
int muon_direction(struct optimizer *o, float *matrix, i64 rows, i64 cols, double *sum,
                   struct err *e);
i64 muon_work(i64 rows, i64 cols);
double muon_rate(const struct optim_args *a, i64 rows, i64 cols);

/* ---- learning-rate schedule (schedule.c) ----------------------------------------------------- */
struct schedule {
    enum { LR_CONSTANT, LR_LINEAR, LR_COSINE, LR_WSD } kind;
    enum { DECAY_LINEAR, DECAY_COSINE, DECAY_1_SQRT } decay_type; /* of wsd */
    double lr, min_lr_ratio;
    i64 warmup, decay, total; /* optimizer steps; decay: of wsd */
    bool quadratic;           /* warm-up, as Axolotl's get_cosine_schedule_with_quadratic_warmup */
};
int schedule_of_recipe(struct schedule *s, const struct recipe *r, i64 total_steps, struct err *e);
double schedule_lr(const struct schedule *s,
                   i64 step); /* the rate that optimizer step `step`, from 0, uses */

/* ---- objectives (objectives.c, objective_NAME.c): README.md says how to add one */
enum { EARLIER_PASSES = 4, FROZEN_MODELS = 4 };
struct objective_model { /* beside the trained one; it reads, and is not trained */
    const char *name;
    /* Which text of the task's keys names its folder: an offset in their struct, or -1. Where there
     * is none, it is what the trained model starts from. */
    i64 path;
};
struct objective_step { /* a step as its objective sees it; arrays are [tokens], as in `batches` */
    const void *with;   /* the task's keys */
    const struct step_batches *batches;
    /* -log p of each target, 0 where there is none: in each earlier pass, then in that which trains
     */
    const float *loss[EARLIER_PASSES + 1];
    float *weight; /* d objective / d (-log p) of each token */
};
/* What a sample is made of: changes how the loader makes samples (rows, packing). */
typedef int rows_fn(struct loader_config *c, const struct recipe *r, struct err *e);
/* Fills `weight`, from the losses of earlier passes if there are any. The step is given whole, so
 * nothing depends on how it is cut into micro-batches. */
typedef int weights_fn(const struct objective_step *s, struct err *e);
/* After the training pass: what the log calls `loss`, and the values of `metrics`. */
typedef int measure_fn(const struct objective_step *s, double *loss, double *metric, struct err *e);
struct objective {
    struct task task; /* first: recipe_tasks points at it */
    const struct objective_model
        *models; /* frozen ones; ends with a row without name; NULL: none */
    /* Which models give losses before the training pass, a pass each, without dropout: names, ""
     * for the trained one; ends with NULL. NULL: no such pass */
    const char *const *passes;
    rows_fn *rows; /* NULL: as the recipe says */
    weights_fn *weights;
    measure_fn *measure;
    const char *const *metrics; /* names, ends with NULL; NULL: none (log.h) */
};
const struct objective *objective_find(const char *name); /* whose task has this name */

/* ---- rows of data (trainer_rows.c) */
struct row_settings { /* what `struct row_rules` borrows; row_settings_close */
    json_t *columns, *kwargs;
};
int row_settings_open(struct row_settings *s, const struct text_list *columns,
                      const struct text_list *kwargs, struct err *e);
void row_settings_close(struct row_settings *s);
/* Chat templates are told this day, YYYY-MM-DD, at midnight; NULL: today. `c` may be NULL: then the
 * day is only looked at. */
int chat_day(struct chat *c, const char *day, struct err *e);

/* ---- tokenised.c: what a run tokenised when it began ----------------------------------------- */
/* The dataset at `path` against the files that `item` now means: other ones are an error, some that
 * were edited, added or removed are named. `role`: train or eval. */
int tokenised_check(const char *path, const struct data_item *item, const char *role,
                    struct err *e);

/* ---- the trainer (trainer.c, trainer_step.c, trainer_data.c, trainer_models.c, trainer_save.c) */
enum use { USE_EVAL, USE_COUNT /* what the balancing loss needs to know */, USE_TRAIN };
enum { DATASETS = 16 };
struct frozen {
    const char *name, *path;   /* path: NULL where no key names it */
    struct model *model, *own; /* own: opened for it alone, or NULL */
    bool bare;                 /* the trained model, read as if it had no adapter */
};
struct trainer {
    const struct recipe *r;
    const char *run_dir;
    struct tokenizer *tokenizer;
    struct chat *chat; /* NULL: the recipe names none and the tokenizer has none */
    struct dataset *dataset[DATASETS], *eval_dataset[DATASETS];
    double weight[DATASETS];
    struct loader *loader, *eval_loader;
    const struct objective *objective;
    struct model model; /* the trained one */
    struct frozen other[FROZEN_MODELS];
    i64 others;
    struct lora_config lora;
    struct optimizer optimizer;
    struct schedule schedule;
    struct pass_cache passes;                       /* one for each size of micro-batch and use */
    struct graph_memory memory;                     /* of all of them */
    struct balance balance;                         /* of the step, where the model is `balanced` */
    float *loss[EARLIER_PASSES + 1], *token_weight; /* [room] of struct objective_step */
    double held_out;                                /* of trainer_slices: 0: not known yet */
    i64 room, rows;                                 /* rows: of a sample */
    i64 total_steps, tokens_seen;
    bool random;        /* the weights are numbers without meaning */
    struct text *notes; /* gets what is said of the data; NULL: it goes to standard error */
    struct dataset_probe *probe, *eval_probe; /* [DATASETS], or NULL */
    bool whole_save;           /* with the optimizer's state, whatever save_only_model says */
    i64 digest_version;        /* of the run's log and checkpoints */
    char parent[65];           /* SHA-256 of the last checkpoint's manifest */
    char *tokens_folder;       /* of the tokenizer with the recipe's own tokens; NULL: none */
    char *model_folder;        /* whose config and tokenizer files checkpoints carry */
    struct lock_files carried; /* those files, as they were when the program began */
    struct arena arena;
};
struct trainer_opening {
    /* Where raw text is tokenised to and where a new model's config is written */
    const char *run_dir;
    i64 digest_version; /* 0 for a new run, else that of what it goes on with */
    /* What `hone check` wants: as the members of struct trainer */
    bool random;
    struct text *notes;
    struct dataset_probe *probe, *eval_probe;
};
/* Opens everything that a recipe names. On an error `t` has what was open until then. */
int trainer_open(struct trainer *t, const struct recipe *r, const struct trainer_opening *how,
                 struct err *e);
void trainer_close(struct trainer *t);
struct step_result {
    double loss, lr, grad_norm;
    double aux_loss; /* of a model that is `balanced`: part of the loss, times aux_coef */
    double metric[LOG_METRICS]; /* of the objective */
    i64 tokens;
    char batch[65];
};
int trainer_step(struct trainer *t, struct step_result *out, struct err *e);
/* The first micro-batch of the first step, as if it were all of one, without an update: for its
 * time. *tokens: those that it has without padding. */
int trainer_try(struct trainer *t, i64 *tokens, struct err *e);
int trainer_eval(struct trainer *t, double *loss, i64 *tokens,
                 struct err *e); /* mean over trained tokens of eval_dataset */
/* A checkpoint at the current step; `digest`: optimizer_digest of the run's version. */
int trainer_save(struct trainer *t, const char digest[65], struct err *e);
int trainer_load(struct trainer *t, const char *checkpoint, struct err *e); /* weights and state */
/* A note of what the model's folder holds besides what checkpoints take along. */
int trainer_left_out(const struct trainer *t, struct err *e);
/* What a run needs of the device's memory. */
struct trainer_bytes {
    i64 weights, gradients, optimizer; /* of frozen models, too */
    i64 step, eval; /* activations of the largest micro-batch that a step, an evaluation can have:
                       both in the same memory; eval 0: there is none */
    i64 left;       /* what the device has for activations */
    i64 fits; /* the largest micro_batch_size whose activations fit, at most a reduction group's
                       samples; 0: none */
};
/* `most`: looks for `fits`, too. */
int trainer_bytes(struct trainer *t, bool most, struct trainer_bytes *b, struct err *e);
/* Their sum. Refuses, with the plan and what would fit, what does not. */
i64 trainer_plan_bytes(struct trainer *t, struct err *e);
i64 trainer_checkpoint_bytes(const struct trainer *t, struct err *e); /* at most, about */
i64 trainer_micro_batch(const struct recipe *r); /* samples: divides a reduction group */
/* The opening steps that trainer_open consists of */
int trainer_data(struct trainer *t, struct err *e);
int trainer_model(struct trainer *t, struct err *e);
/* Are bos_token, eos_token and unk_token of the recipe the tokenizer's (trainer_slices.c)? */
int trainer_tokens_named(const struct trainer *t, struct err *e);
/* Which rows of a text are read: slice, max_samples, split (trainer_slices.c). */
int trainer_slices(struct trainer *t, const struct data_item *item, struct source_options *o,
                   struct err *e);
/* The recipe's own tokens: the tokenizer with them; rows for them; their roles in a checkpoint. */
int trainer_tokens(struct trainer *t, struct err *e);
int trainer_tokens_fit(struct trainer *t, struct err *e);
/* May some rows of an embedding be trained by this recipe's optimizer? */
int trainer_rows_may(const struct trainer *t, struct err *e);
int trainer_roles_save(const struct trainer *t, const char *folder, struct err *e);
int trainer_models(struct trainer *t, struct err *e); /* the objective's frozen ones */
void trainer_models_close(struct trainer *t);
/* The pass of a use over so many tokens; `of`: a frozen model, NULL: the trained one. */
struct pass_plan trainer_plan(struct trainer *t, i64 tokens, enum use use, const struct frozen *of);
struct pass *trainer_pass(struct trainer *t, i64 tokens, enum use use, const struct frozen *of,
                          struct err *e);
/* Runs it on a micro-batch, before which the step had `first` tokens; `weight`: with USE_TRAIN. */
struct pass *trainer_run(struct trainer *t, const struct batch *b, enum use use,
                         const struct frozen *of, i64 first, const float *weight, struct err *e);
/* The model of an objective's pass: NULL for "". */
const struct frozen *trainer_frozen(const struct trainer *t, const char *name);
/* samples.c: the members of a loader's configuration that say what a sample is. */
void samples_of_recipe(const struct recipe *r, struct loader_config *c);
/* Are samples drawn from the datasets by their weights, or is each one's turn once an epoch? */
bool samples_weighted(const struct recipe *r);
double samples_epoch_steps(const struct trainer *t); /* with recipe_version 1 a fraction */
i64 samples_seen(const struct trainer *t, i64 step); /* in the first so many steps */
/* Of a micro-batch of at most `micro`: where a step ends with an epoch, no more than that has. */
i64 samples_at_once(const struct trainer *t, i64 micro);
/* "note: ...", to where the trainer's notes go. */
void trainer_note(struct trainer *t, const char *fmt, ...) PRINTF(2, 3);
void samples_note(const struct trainer *t); /* on stderr, for each dataset what is left out */
int lock_files_of(const struct trainer *t, struct lock_files *files, struct err *e);

/* ---- when.c: after which steps a run saves, evaluates, prints; checkpoints of good evaluations
 * come on top */
bool save_at(const struct trainer *t, i64 step);
bool eval_at(const struct trainer *t, i64 step);
bool log_at(const struct trainer *t, i64 step);

/* ---- evaluation (evaluate.c) */
/* Sum of -log p over the trained targets of a one-pass loader, in f64, and their number, which must
 * be above 0. max_steps: of the loader, 0: all. `plan`: of each batch, without its tokens. */
int evaluate_loss(struct pass_cache *c, const struct pass_plan *plan, struct loader *l,
                  i64 max_steps, double *sum, i64 *tokens, struct err *e);

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

#endif
