/* recipe.h: recipes, their keys and optimizers, and the lock that says what a run was made from.
 * Each format is specified at the head of the file that owns it (recipe_source.c, lock.c). */
#ifndef HONE_RECIPE_H
#define HONE_RECIPE_H

#include "ops/ops.h"
#include "train/train.h"

/* ---- recipe (recipe_keys.c, recipe_tree.c, recipe_source.c, recipe.c, recipe_print.c) -------- */
struct data_item {
    const char *path;         /* file, glob or folder, relative to the working directory */
    const char *type;         /* auto, tokens, or what the files are */
    const char *split;        /* part of it, or NULL: the whole; of a folder with splits, train */
    const char *rows;         /* "[:500]", "[:1%]", "[10%:]" of a text, or NULL: all */
    const char *name;         /* configuration of a dataset repository, or NULL: its default */
    double weight;            /* relative share of the samples drawn */
    struct text_list columns; /* as the recipe's; none: those */
    const char *prompt_style; /* NULL: rows are read as what they are */
    bool drop_system_message;
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
/* What is wrong with a recipe is collected, so that one report has all of it. */
enum { PROBLEMS_KEPT = 100 }; /* more are only counted */
struct problem {
    struct err err;
    const char *key; /* ours, or as it was given */
    struct problem *next;
};
struct told { /* a key without effect here */
    const char *where, *key, *value, *why;
    struct told *next;
};
/* Every member is resolved: defaults filled in, batch sizes consistent. Text belongs to the arena.
 */
struct recipe {
    i64 recipe_version; /* what the keys mean: README.md, "Versions" */
    const char *task;
    void *task_with;                /* its own keys: struct task */
    const char *model_name_or_path; /* NULL: `model` describes a new one */
    json_t *model;                  /* config.json as given in the recipe, or NULL */
    const char *tokenizer;          /* tokenizer.json or its folder; NULL: the model's own */
    struct data_list dataset, eval_dataset;
    const char *model_dropout;
    struct text_list special_tokens, add_tokens;
    bool use_peft;
    i64 lora_r;
    double lora_alpha, lora_dropout;
    struct text_list lora_target_modules, lora_target_parameters, lora_exclude_modules,
        lora_modules_to_save, lora_rank_pattern, lora_alpha_pattern, lora_layers_to_transform;
    double loraplus_lr_ratio, loraplus_lr_embedding;
    bool use_rslora, use_dora;
    const char *init_lora_weights, *adapter_name_or_path;
    struct int_list trainable_token_indices;
    bool load_in_4bit, bnb_4bit_use_double_quant;
    const char *bnb_4bit_quant_type, *bnb_4bit_compute_dtype, *quantize;
    const char *precision, *numerics;
    bool master_weights;
    i64 max_seq_length;
    bool packing, document_mask, completion_only_loss, assistant_only_loss;
    const char *packing_strategy, *truncation;
    bool drop_last;
    const char *chat_template;                      /* NULL: the tokenizer's own */
    struct text_list chat_template_kwargs, columns; /* NAME=VALUE, OURS=THEIRS */
    const char *template_date, *default_system, *on_bad_row;
    i64 min_sample_len;
    bool dataset_exact_deduplication;
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
    double warmup_ratio, min_lr_ratio; /* the first: also warmup_steps below 1 */
    i64 wsd_decay_steps;
    double wsd_decay_ratio;
    const char *wsd_decay_type;
    bool gradient_checkpointing;
    double router_aux_loss_coef;
    i64 logging_steps, eval_steps, eval_batches, save_steps, save_total_limit;
    struct int_list save_at;
    /* Shares of all steps, 0: not so given; steps below 1 go there */
    double logging_ratio, eval_ratio, save_ratio;
    double saves_per_epoch, evals_per_epoch;
    const char *save_strategy, *eval_strategy;
    bool save_only_model, load_best_model_at_end;
    const char *metric_for_best_model;
    i64 early_stopping_patience;
    double early_stopping_threshold, loss_watchdog_threshold;
    i64 loss_watchdog_patience;
    i64 max_samples;
    double val_set_size; /* below 1: a share; else rows */
    bool shuffle, lr_quadratic_warmup, output_router_logits;
    const char *bos_token, *eos_token, *unk_token;
    i64 seed;
    const char *output_dir;
    struct text_list report_to, sample_prompts;
    i64 sample_tokens;
    const char *resume_from_checkpoint; /* NULL, "auto" or a checkpoint folder */
    struct text notes;                  /* lines for the user: aliases taken, keys without effect */
    unsigned tools;                     /* whose words the file being read has: foreign.c */
    bool neat;                          /* it says neat_packing */
    bool local;       /* the item of a list of data that is being read is a folder */
    const char *tool; /* that one's name; NULL: our own */
    struct problem *problem, *last_problem;
    i64 problems;
    struct told *told, *last_told;
    i64 told_count;
    struct node *gathered; /* while a file is read: recipe_source.c */
    struct arena arena;
    const char **where; /* per row of recipe_options: "FILE:LINE" where it was given, or NULL */
};
extern const struct option recipe_options[];
/* Reads a recipe, what it includes, and `key=value` overrides (dotted keys reach into model,
 * dataset and eval_dataset). On failure nothing needs freeing. Errors are ERR_INPUT and name file,
 * line and key. */
int recipe_load(struct recipe *r, const char *path, char *const *overrides, i64 count,
                struct err *e);
/* As recipe_load, but what is wrong is left in r->problem: -1 only where nothing could be read. The
 * caller frees it. */
int recipe_read(struct recipe *r, const char *path, char *const *overrides, i64 count,
                struct err *e);
/* Paths that the recipe names and that are not here are added to r->problem: `hone inspect`. */
int recipe_missing(struct recipe *r, struct err *e);
/* Fails if there are problems: one as it is; several are shown, then counted. */
int recipe_judge(const struct recipe *r, const char *name, struct err *e);
/* Our recipe as YAML, with what has no effect and what could not be carried as comments
 * (import.c). */
int recipe_import(const struct recipe *r, const char *name, struct text *out, struct err *e);
int recipe_of_json(struct recipe *r, const json_t *j, const char *name, struct err *e);
json_t *recipe_json(const struct recipe *r,
                    struct err *e); /* every key, resolved; the caller owns it */
void recipe_free(struct recipe *r);
bool recipe_given(const struct recipe *r, const char *key); /* written by the user, not a default */
/* A list of NAME=VALUE as an object, which the caller owns. `values`: they are numbers, true, false
 * or JSON where they look so; else texts. `key` starts messages. NULL: an error. */
json_t *recipe_pairs(const struct text_list *list, bool values, const char *key, struct err *e);
/* Refuses keys that say what an adapter is beside adapter_name_or_path. */
int recipe_adapter_keys(const struct recipe *r, struct err *e);
int recipe_optim(struct recipe *r, const char *where, struct err *e); /* resolves optim_args */
void optims_help(FILE *to);
int recipe_help(FILE *to); /* the table, as `hone help train` prints it */

/* ---- optimizers by name (optims.c) */
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

/* ---- tasks by name (tasks.c): what a recipe knows of the objectives */
struct task {
    const char *name, *help;
    const struct option *options; /* keys of its own; NULL: none */
    i64 size;                     /* of the struct that these fill */
};
/* Ends with NULL. The table is in train/loop/objectives.c (head of tasks.c: why); tests put another
 * in its place. */
extern const struct task *const *recipe_tasks;
const struct task *task_find(const char *name);
/* The key of any task, and whose it is (may be NULL); NULL: of none. */
const struct option *task_option(const char *key, const struct task **whose);
void task_names(char *out, size_t size); /* "pretrain sft" */
void tasks_help(FILE *to);

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
/* What was read already and cannot be read again. */
int lock_files_add_hash(struct lock_files *files, const char *role, const char *name, i64 bytes,
                        const char *sha256, struct err *e);
void lock_files_free(struct lock_files *files);
/* Writes RUN_DIR/recipe.lock (created if missing) and gives its SHA-256. */
int lock_write(const char *run_dir, const struct recipe *r, const struct lock_files *files,
               char sha256[65], struct err *e);
int lock_read(struct recipe *r, const char *run_dir, char sha256[65], struct err *e);
/* What the run's keys mean; *version stays if there is no lock yet. */
int lock_recipe_version(const char *run_dir, i64 *version, struct err *e);
/* The day that the run's chat template was told; r->template_date stays if there is none yet. */
int lock_template_date(const char *run_dir, struct recipe *r, struct err *e);
/* May this recipe with these files continue the run? Refuses a change that would alter the result,
 * naming key, old and new value; changes that are allowed, and a different machine or build, become
 * lines of `notes`. */
int lock_compare(const char *run_dir, const struct recipe *now, const struct lock_files *files,
                 struct text *notes, struct err *e);

/* Are the files of RUN/model those that the run began with (carried.c)? `code`: of the error. */
int lock_carried(const char *run_dir, int code, struct err *e);
bool carried_is(const json_t *item); /* an entry of the lock's "files" about RUN/model */
int carried_list(const char *folder, struct lock_files *files, struct err *e);
/* The copies in a checkpoint that is being made, `folder`, before saving changes its config.json:
 * are they what the files of `from` were, which carried_list found when the program began? */
int carried_copied(const struct lock_files *were, const char *from, const char *folder,
                   struct err *e);
/* `files`: the lock's; `expected`: where it lists none, RUN/model must be what checkpoints hold. */
int carried_check(const char *run, const json_t *files, bool expected, int code, struct err *e);

#endif
