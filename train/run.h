/* run.h: what surrounds the training loop: the recipe and its lock, the learning-rate schedule, the
 * log with its hash chain, TensorBoard event files, and the report.
 *
 * Each format is specified at the head of the file that owns it (recipe_source.c, lock.c, log.c,
 * tensorboard.c, report.c). */
#ifndef HONE_RUN_H
#define HONE_RUN_H

#include "base/base.h"

/* Facts fixed when the program was built: name, value, name, value, ..., NULL. At least "version",
 * "commit", "diff" (SHA-256 of uncommitted changes, or "clean"), "compiler", "flags",
 * "numerics_version". */
extern const char *const build_info[] __attribute__((weak));

/* ---- recipe (recipe_keys.c, recipe_tree.c, recipe_source.c, recipe.c, recipe_print.c) -------- */
struct data_item {
    const char *path;  /* file or folder, relative to the working directory */
    const char *type;  /* auto, tokens, text, jsonl */
    const char *split; /* part of the file, or NULL: the whole */
    double weight;     /* relative share of the samples drawn */
};
struct data_list {
    struct data_item *item;
    i64 count;
};
struct optim_args { /* optims.c: which optimizer takes which */
    double momentum, dampening, alpha, eps, lr_decay;
    double eps1, eps2, clip_threshold, decay_rate, ns_a, ns_b, ns_c, adamw_lr;
    i64 ns_steps;
    const char *adjust_lr_fn;
    bool nesterov, centered, amsgrad, scale_parameter, relative_step, warmup_init;
};
/* Every member is resolved: defaults filled in, batch sizes consistent. Text belongs to the arena.
 */
struct recipe {
    const char *task;
    const char *model_name_or_path; /* NULL: `model` describes a new one */
    json_t *model;                  /* config.json as given in the recipe, or NULL */
    const char *tokenizer;          /* tokenizer.json or its folder; NULL: the model's own */
    struct data_list dataset, eval_dataset;
    bool use_peft;
    i64 lora_r;
    double lora_alpha, lora_dropout;
    struct text_list lora_target_modules, lora_target_parameters, lora_exclude_modules,
        lora_modules_to_save, lora_rank_pattern, lora_alpha_pattern, lora_layers_to_transform;
    double loraplus_lr_ratio, loraplus_lr_embedding;
    bool use_rslora, use_dora;
    const char *init_lora_weights;
    bool load_in_4bit, bnb_4bit_use_double_quant;
    const char *bnb_4bit_quant_type, *bnb_4bit_compute_dtype;
    const char *precision, *numerics;
    bool master_weights;
    i64 max_seq_length;
    bool packing, document_mask, completion_only_loss, assistant_only_loss;
    const char *chat_template; /* NULL: the tokenizer's own */
    i64 micro_batch_size, gradient_accumulation_steps, global_batch_size, reduction_groups;
    double num_train_epochs;
    i64 max_steps; /* 0: from num_train_epochs */
    const char *optim;
    double learning_rate, weight_decay, adam_beta1, adam_beta2, adam_epsilon, max_grad_norm;
    double max_grad_value;
    struct text_list optim_args;
    struct optim_args optim_with; /* what it says, and defaults */
    const char *lr_scheduler_type;
    i64 warmup_steps;
    double warmup_ratio, min_lr_ratio;
    i64 wsd_decay_steps;
    double wsd_decay_ratio;
    const char *wsd_decay_type;
    bool gradient_checkpointing;
    double router_aux_loss_coef;
    i64 logging_steps, eval_steps, eval_batches, save_steps, save_total_limit;
    struct int_list save_at;
    i64 seed;
    const char *output_dir;
    struct text_list report_to, sample_prompts;
    i64 sample_tokens;
    const char *resume_from_checkpoint; /* NULL, "auto" or a checkpoint folder */
    struct text notes;                  /* lines for the user: aliases taken, keys without effect */
    struct arena arena;
    const char **where; /* per row of recipe_options: "FILE:LINE" where it was given, or NULL */
};
extern const struct option recipe_options[];
/* Reads a recipe, what it includes, and `key=value` overrides (dotted keys reach into model,
 * dataset and eval_dataset). On failure nothing needs freeing. Errors are ERR_INPUT and name file,
 * line and key. */
int recipe_load(struct recipe *r, const char *path, char *const *overrides, i64 count,
                struct err *e);
int recipe_of_json(struct recipe *r, const json_t *j, const char *name, struct err *e);
json_t *recipe_json(const struct recipe *r,
                    struct err *e); /* every key, resolved; the caller owns it */
void recipe_free(struct recipe *r);
bool recipe_given(const struct recipe *r, const char *key); /* written by the user, not a default */
int recipe_optim(struct recipe *r, const char *where, struct err *e); /* resolves optim_args */
void optims_help(FILE *to);
int recipe_help(FILE *to); /* the table, as `hone help train` prints it */

/* ---- lock (lock.c): runs/NAME/recipe.lock ---------------------------------------------------- */
struct lock_files { /* zero-initialise; lock_files_free */
    json_t *list;
};
/* Hashes a file, or every file of a folder (not of its sub-folders). `role`: model, tokenizer,
 * template, data. */
int lock_files_add(struct lock_files *files, const char *role, const char *path, struct err *e);
/* One file under another name than its path. */
int lock_files_add_as(struct lock_files *files, const char *role, const char *path,
                      const char *name, struct err *e);
void lock_files_free(struct lock_files *files);
/* Writes RUN_DIR/recipe.lock (created if missing) and gives its SHA-256. */
int lock_write(const char *run_dir, const struct recipe *r, const struct lock_files *files,
               char sha256[65], struct err *e);
int lock_read(struct recipe *r, const char *run_dir, char sha256[65], struct err *e);
/* May this recipe with these files continue the run? Refuses a change that would alter the result,
 * naming key, old and new value; changes that are allowed, and a different machine or build, become
 * lines of `notes`. */
int lock_compare(const char *run_dir, const struct recipe *now, const struct lock_files *files,
                 struct text *notes, struct err *e);

/* Are the files of RUN/model those that the run began with (carried.c)? `code`: of the error. */
int lock_carried(const char *run_dir, int code, struct err *e);
bool carried_is(const json_t *item); /* an entry of the lock's "files" about RUN/model */
int carried_list(const char *folder, struct lock_files *files, struct err *e);
/* `files`: the lock's; `expected`: where it lists none, RUN/model must be what checkpoints hold. */
int carried_check(const char *run, const json_t *files, bool expected, int code, struct err *e);

/* ---- learning-rate schedule (schedule.c) ----------------------------------------------------- */
struct schedule {
    enum { LR_CONSTANT, LR_LINEAR, LR_COSINE, LR_WSD } kind;
    enum { DECAY_LINEAR, DECAY_COSINE, DECAY_1_SQRT } decay_type; /* of wsd */
    double lr, min_lr_ratio;
    i64 warmup, decay, total; /* optimizer steps; decay: of wsd */
};
int schedule_of_recipe(struct schedule *s, const struct recipe *r, i64 total_steps, struct err *e);
double schedule_lr(const struct schedule *s,
                   i64 step); /* the rate that optimizer step `step`, from 0, uses */

/* ---- log (log.c): runs/NAME/log.jsonl, and log.csv and tensorboard/ derived from it ---------- */
struct log_row {
    i64 step;   /* optimizer steps done: the first update gives 1; 0 may carry the evaluation before
                   it */
    i64 tokens; /* trained so far */
    bool trained, evaluated, balanced;
    double loss, lr, grad_norm; /* where trained; loss: mean over the step's trained tokens, nats */
    double eval_loss;           /* where evaluated; nats a token */
    double aux_loss;            /* where balanced: of a mixture; `loss` has it, times its factor */
    const char *batch, *state;  /* SHA-256 in hex: of the step's token ids; of the state after it;
                                   NULL if not taken */
    double seconds; /* wall time since the run began, without the time between stop and resume */
    double tokens_per_second;
    i64 peak_bytes; /* peak resident memory so far */
};
struct log_start {
    const char *run_dir, *run_id;
    const char *lock_sha256;
    i64 resume_step; /* -1: a new run; 0: from the start; else the step of the checkpoint that goes
                        on */
    bool csv, tensorboard; /* report_to */
    double time;           /* seconds since 1970, stamped on event files */
};
struct log;
struct log_rows { /* zero-initialise; log_rows_free */
    struct log_row *row;
    i64 count;
    const char *run_id, *lock_sha256; /* of the header line */
    char head[65];                    /* SHA-256 of the last line */
    i64 bytes; /* of whole lines; what follows in the file was torn off by a crash */
    struct arena arena;
};
struct log *log_open(const struct log_start *start, struct err *e);
int log_step(struct log *log, const struct log_row *row, struct err *e);
int log_sync(struct log *log, struct err *e); /* to the disk: before a checkpoint is published */
const char *
log_head(const struct log *log); /* SHA-256 of the last line: what a checkpoint may vouch for */
int log_close(struct log *log, struct err *e); /* frees in any case */
int log_read(struct log_rows *rows, const char *path, struct err *e);
/* Follows the hash chain; the error names the first bad line. A torn last line is an error here. */
int log_verify(const char *path, struct err *e);
/* Whether a run can go on from `step` with the log it has. */
int log_check(const char *run_dir, i64 step, struct err *e);
void log_rows_free(struct log_rows *rows);

/* ---- TensorBoard event files (tensorboard.c) ------------------------------------------------- */
struct tb;
struct tb_scalar {
    const char *tag;
    double value;
};
struct tb *tb_open(const char *dir, double time,
                   struct err *e); /* creates `dir` and a new event file in it */
int tb_scalars(struct tb *tb, double time, i64 step, const struct tb_scalar *scalar, i64 count,
               struct err *e);
int tb_close(struct tb *tb, struct err *e); /* frees in any case */

/* ---- report (report.c, report_parts.c, report/) ---------------------------------------------- */
/* One self-contained HTML page of one run, or of several side by side. Charts by Chart.js, inlined
 * from the Debian package libjs-chart.js. */
int report_write(char *const *run_dirs, i64 count, const char *out_path, struct err *e);

#endif
