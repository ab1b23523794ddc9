/* recipe_keys.c: every recipe key as a row: what it is called, what it may be, what it means.
 *
 * The rows feed parsing, `hone help train`, the lock and the comparison on resume, so a key is
 * added here, as a member of struct recipe, and nowhere else. Names are TRL's and PEFT's, the
 * field's most shared vocabulary, except micro_batch_size and max_seq_length, which say more than
 * per_device_train_batch_size and max_length. Other tools' spellings are aliases: taken, with a
 * note that names ours. */
#include "data/datasets/datasets.h"
#include "ops/ops.h"
#include "train/recipe/recipe_int.h"

#define AT(member) offsetof(struct recipe, member)
#define BOOL(k, d, h)                                                                              \
    { #k, OPT_BOOL, AT(k), d, 0, 0, NULL, h }
#define INT(k, d, lo, hi, h)                                                                       \
    { #k, OPT_INT, AT(k), d, lo, hi, NULL, h }
#define FLOAT(k, d, lo, hi, h)                                                                     \
    { #k, OPT_FLOAT, AT(k), d, lo, hi, NULL, h }
#define TEXT(k, d, h)                                                                              \
    { #k, OPT_TEXT, AT(k), d, 0, 0, NULL, h }
#define CHOICE(k, d, c, h)                                                                         \
    { #k, OPT_CHOICE, AT(k), d, 0, 0, c, h }
#define INTS(k, d, lo, hi, h)                                                                      \
    { #k, OPT_INT_LIST, AT(k), d, lo, hi, NULL, h }
#define TEXTS(k, d, h)                                                                             \
    { #k, OPT_TEXT_LIST, AT(k), d, 0, 0, NULL, h }

const struct option recipe_options[] = {
    TEXT(task, "pretrain", "what to train for: the tasks are listed below"),
    TEXT(model_name_or_path, NULL, "folder of the model to start from"),
    TEXT(tokenizer, NULL, "tokenizer.json or its folder (default: the model's own)"),
    TEXT(bos_token, NULL, "what the tokenizer's token for beginnings must be (default: any)"),
    TEXT(eos_token, NULL, "what the tokenizer's token for ends must be (default: any)"),
    TEXT(unk_token, NULL, "a token that the tokenizer must have (default: none)"),
    CHOICE(precision, "fp32", "fp32 bf16",
           "type of weights and activations; sums, moments and master weights are f32 in both"),
    BOOL(master_weights, "true",
         "false: bf16 weights are updated by stochastic rounding, without f32 copies"),
    CHOICE(numerics, "auto", "auto portable fast",
           "portable: the same bits on every processor; fast: tensor cores (auto: fast on a GPU)"),
    INT(seed, "42", 0, 9007199254740991.0,
        "seed of initialisation, data order, dropout and sampling"),
    INT(recipe_version, "2", 1, 2,
        "what the keys mean: 1 is what they meant to runs before there were versions"),

    INT(max_seq_length, "512", 1, 1 << 24, "most tokens in a sample"),
    BOOL(packing, "true", "true: several documents make a sample; false: one document a sample"),
    CHOICE(packing_strategy, "auto", "auto bfd bfd_split wrapped",
           "bfd: whole documents, best fit first; bfd_split: those that are too long are cut up; "
           "wrapped: one stream of tokens, cut into full samples (auto: pretrain; others bfd)"),
    CHOICE(truncation, "right", "right left drop split error",
           "a document of more than max_seq_length tokens: its end is cut off, its beginning, all "
           "of it is left out, it becomes several, or the run ends before it begins"),
    BOOL(drop_last, "false",
         "leave out the last samples of an epoch where they do not fill a batch"),
    BOOL(document_mask, "true", "with packing: tokens see only their own document"),
    BOOL(completion_only_loss, "true", "sft: train on completions, not on prompts"),
    BOOL(assistant_only_loss, "true", "conversations: train only on what the assistant says"),
    INT(max_samples, "0", 0, 1e15, "rows read of each dataset, from the front; 0: all"),
    FLOAT(val_set_size, "0", 0, 1e15,
          "rows of dataset that are held out as eval_dataset: below 1 a share, else how many"),
    BOOL(shuffle, "true", "false: the samples are trained in the order of the data"),
    TEXT(chat_template, NULL,
         "conversations: chatml, llama3, alpaca, a file, or the template itself (default: the "
         "tokenizer's own)"),

    TEXTS(chat_template_kwargs, NULL,
          "conversations: variables for the chat template: {enable_thinking: false}"),
    TEXT(template_date, NULL,
         "the day that chat templates are told, YYYY-MM-DD (default: the one on which the run "
         "began)"),
    TEXTS(columns, NULL,
          "names of the columns in the files, ours first: {prompt: question, completion: answer}"),
    TEXT(default_system, NULL,
         "conversations without a system message get this one, if the template has a place for it"),
    CHOICE(on_bad_row, "error", "error skip",
           "rows that cannot be used: stop, or leave them out and count them"),
    INT(min_sample_len, "0", 0, 1 << 24, "rows of fewer tokens are left out and counted"),
    BOOL(dataset_exact_deduplication, "false",
         "rows whose tokens and targets were there already are left out and counted"),

    TEXTS(special_tokens, NULL,
          "special tokens that the tokenizer gets: {eos_token: <|im_end|>}, or [<|im_start|>]"),
    TEXTS(add_tokens, NULL, "other tokens that it gets; the model gets rows for both"),
    CHOICE(model_dropout, "refuse", "refuse ignore",
           "dropouts of the model's config.json, which hone does not apply: refuse them, or train "
           "without"),
    BOOL(use_peft, "false", "train a LoRA adapter and keep the base frozen"),
    INT(lora_r, "16", 1, 65536, "rank of the adapter"),
    FLOAT(lora_alpha, "32", 1e-6, 1e6,
          "scale of the adapter: its output is multiplied by alpha / r"),
    FLOAT(lora_dropout, "0", 0, 1, "fraction of the adapter's inputs that training drops"),
    TEXTS(lora_target_modules, "all-linear",
          "modules with an adapter: ends of their paths, a regular expression, or all-linear"),
    TEXTS(lora_target_parameters, NULL,
          "tensors of experts with an adapter: [mlp.experts.down_proj]"),
    TEXTS(lora_exclude_modules, NULL,
          "modules without an adapter: ends of their paths, or a regular expression"),
    TEXTS(lora_layers_to_transform, NULL, "numbers of the layers with an adapter (default: all)"),
    TEXTS(lora_rank_pattern, NULL,
          "other ranks for some modules, by the end of their path: [down_proj=8]"),
    TEXTS(lora_alpha_pattern, NULL, "other alphas for some modules: [down_proj=16]"),
    TEXTS(lora_modules_to_save, NULL, "modules that are trained and saved whole: [lm_head]"),
    BOOL(use_rslora, "false", "rsLoRA: the scale of the adapter is alpha / sqrt(r)"),
    BOOL(use_dora, "false", "DoRA: also train a magnitude for each row of an adapted weight"),
    FLOAT(loraplus_lr_ratio, "1", 1, 1e6,
          "LoRA+: the learning rate of B and of vectors is that of A times this"),
    FLOAT(loraplus_lr_embedding, "0", 0, 1e6,
          "LoRA+: learning rate of embedding adapters (1e-6 if loraplus_lr_ratio is set; 0: as A)"),
    CHOICE(init_lora_weights, "true", "true gaussian pissa",
           "true: A is Kaiming uniform; gaussian: A is normal with deviation 1/r; B is 0 in both. "
           "pissa: A and B are the weight's largest singular values, which the weight loses"),
    INTS(trainable_token_indices, NULL, 0, 1e9,
         "ids whose rows of the embedding are trained beside the adapter: [32000, 32001]"),
    TEXT(adapter_name_or_path, NULL,
         "an adapter to train on from: all that says what it is, but dropout, is its own"),
    BOOL(load_in_4bit, "false",
         "QLoRA: load the linear weights of the frozen base as 4-bit numbers"),
    CHOICE(bnb_4bit_quant_type, "nf4", "nf4 fp4", "4-bit data type"),
    BOOL(bnb_4bit_use_double_quant, "false", "also store the scales of 4-bit blocks in 8 bits"),
    CHOICE(bnb_4bit_compute_dtype, "auto", "auto float32 bfloat16",
           "type that 4-bit weights are decoded to; it must be that of precision"),
    CHOICE(quantize, NULL, packing_choices,
           "how the linear weights of the frozen base are packed (default: as load_in_4bit says)"),

    INT(micro_batch_size, "8", 1, 1 << 20,
        "samples computed at once; changes memory and speed, never the result"),
    INT(gradient_accumulation_steps, "1", 1, 1 << 20, "micro-batches in an optimizer step"),
    INT(global_batch_size, NULL, 1, 1 << 30,
        "samples in an optimizer step (default: micro x accumulation)"),
    INT(reduction_groups, "1", 1, 1 << 16,
        "sums that a step's gradient is made of: a power of two; at most so many ranks can share a "
        "step"),
    FLOAT(num_train_epochs, "1", 1e-9, 1e9, "passes over the data, if max_steps is 0"),
    INT(max_steps, "0", -1, 1e15, "optimizer steps; 0: from num_train_epochs"),

    CHOICE(optim, "adamw",
           "adamw adamw_8bit adam lion sgd adagrad rmsprop adafactor adafactor_torch muon",
           "optimizer; adamw_8bit: moments of 4,096 elements or more in 8 bits, blocks of 256"),
    TEXTS(optim_args, NULL, "arguments of the optimizer, listed below: momentum=0.9,nesterov=true"),
    FLOAT(learning_rate, "3e-4", 0, 1e3, "highest learning rate of the schedule"),
    FLOAT(weight_decay, "0", 0, 1e3,
          "weight decay of matrices; decoupled in adamw and lion, an L2 penalty in the others"),
    FLOAT(adam_beta1, "0.9", 0, 0.999999999, "decay of the mean of gradients (adam, adamw, lion)"),
    FLOAT(adam_beta2, "0.999", 0, 0.999999999,
          "decay of the mean of squared gradients; lion: of the mean that is kept (often 0.99)"),
    FLOAT(adam_epsilon, "1e-8", 0, 1, "added to the square root (adam, adamw)"),
    FLOAT(max_grad_norm, "1", 0, 1e9, "clip the gradient's global norm to this; 0: do not clip"),
    FLOAT(max_grad_value, "0", 0, 1e9,
          "then clip each element of the gradient to [-this, this]; 0: do not clip"),
    CHOICE(lr_scheduler_type, "linear", "constant linear cosine wsd",
           "learning rate after warm-up"),
    INT(warmup_steps, "0", 0, 1e15,
        "steps in which the learning rate rises from 0; below 1: a share of all steps"),
    FLOAT(warmup_ratio, "0", 0, 1, "warm-up as a fraction of all steps"),
    BOOL(lr_quadratic_warmup, "false", "the learning rate rises by the square of the steps"),
    FLOAT(min_lr_ratio, "0", 0, 1, "last learning rate, as a fraction of learning_rate"),
    INT(wsd_decay_steps, "0", 0, 1e15, "wsd: steps of decay at the end"),
    FLOAT(wsd_decay_ratio, "0", 0, 1, "wsd: decay as a fraction of all steps (default: 0.1)"),
    CHOICE(wsd_decay_type, "cosine", "linear cosine 1-sqrt", "wsd: shape of the decay"),
    FLOAT(router_aux_loss_coef, "-1", -1, 1e6,
          "mixtures of experts: factor of the balancing loss; negative: as config.json says"),
    BOOL(output_router_logits, "false",
         "mixtures of experts: with the balancing loss, by config.json's factor"),
    BOOL(gradient_checkpointing, "false",
         "recompute blocks in the backward pass: less memory, same bits"),

    TEXT(output_dir, NULL, "run folder (default: runs/ and the recipe's name)"),
    INT(logging_steps, "1", 1, 1e15,
        "steps between printed lines; the log has every step; below 1: a share of all steps"),
    FLOAT(logging_ratio, "0", 0, 1, "logging_steps as a share of all steps"),
    INT(eval_steps, "0", 0, 1e15,
        "steps between evaluations on eval_dataset; 0: none; below 1: a share of all steps"),
    FLOAT(eval_ratio, "0", 0, 1, "eval_steps as a share of all steps"),
    FLOAT(evals_per_epoch, "0", 0, 1e9, "evaluations in each of num_train_epochs; 0: not so given"),
    CHOICE(eval_strategy, "auto", "auto no steps epoch",
           "when to evaluate; steps: without eval_steps as logging_steps; auto: as the keys above "
           "say, and at the beginning and the end"),
    INT(eval_batches, "0", 0, 1e15, "micro-batches in an evaluation; 0: all"),
    INT(save_steps, "0", 0, 1e15,
        "steps between checkpoints; 0: only save_at and the end; below 1: a share of all steps"),
    FLOAT(save_ratio, "0", 0, 1, "save_steps as a share of all steps"),
    FLOAT(saves_per_epoch, "0", 0, 1e9, "checkpoints in each of num_train_epochs; 0: not so given"),
    CHOICE(save_strategy, "auto", "auto no steps epoch best",
           "when to save; steps: without save_steps each 500; best: when an evaluation is the best "
           "so far; auto: as the keys above say; the end is always saved"),
    BOOL(save_only_model, "false",
         "checkpoints without the optimizer's state: smaller, and no run can go on from them"),
    BOOL(load_best_model_at_end, "false",
         "keep the checkpoint of the best evaluation whatever save_total_limit says, and name it "
         "OUTPUT_DIR/best"),
    CHOICE(metric_for_best_model, "eval_loss", "eval_loss loss",
           "which evaluation is the best: that of the least loss on eval_dataset"),
    INT(early_stopping_patience, "0", 0, 1e15,
        "stop after so many evaluations in a row that were not better than the best; 0: never"),
    FLOAT(early_stopping_threshold, "0", 0, 1e9, "how much less a better loss must be"),
    FLOAT(loss_watchdog_threshold, "0", 0, 1e9,
          "stop a run whose loss is above this for loss_watchdog_patience steps; 0: never"),
    INT(loss_watchdog_patience, "3", 1, 1e15, "steps in a row for loss_watchdog_threshold"),
    INTS(save_at, NULL, 0, 1e15, "more steps that are saved: 0,1,2,4"),
    INT(save_total_limit, "0", 0, 1e9, "checkpoints kept; 0: all"),
    TEXTS(report_to, "jsonl", "jsonl (always written), tensorboard, csv"),
    TEXTS(sample_prompts, NULL, "texts continued at each evaluation, for the report"),
    INT(sample_tokens, "64", 1, 65536, "tokens that each of sample_prompts is continued by"),
    TEXT(resume_from_checkpoint, NULL, "auto (the run folder's last), or a checkpoint's folder"),
    {0},
};

const struct option data_item_options[] = {
    {"path", OPT_TEXT, offsetof(struct data_item, path), NULL, 0, 0, NULL,
     "file, glob, folder or downloaded dataset repository"},
    {"type", OPT_CHOICE, offsetof(struct data_item, type), "auto", 0, 0,
     "auto tokens text jsonl json csv tsv parquet", "tokens: made by hone tokenize"},
    {"weight", OPT_FLOAT, offsetof(struct data_item, weight), "1", 1e-9, 1e9, NULL,
     "relative share of the samples drawn (all 1: each sample comes once an epoch)"},
    {"split", OPT_TEXT, offsetof(struct data_item, split), NULL, 0, 0, NULL, "part of it"},
    {"rows", OPT_TEXT, offsetof(struct data_item, rows), NULL, 0, 0, NULL,
     "a slice of its rows: [:500], [:1%], [10%:20%]"},
    {"columns", OPT_TEXT_LIST, offsetof(struct data_item, columns), NULL, 0, 0, NULL,
     "names of its columns"},
    {"name", OPT_TEXT, offsetof(struct data_item, name), NULL, 0, 0, NULL,
     "configuration of a dataset repository"},
    {"prompt_style", OPT_CHOICE, offsetof(struct data_item, prompt_style), NULL, 0, 0,
     prompt_style_choices,
     "what is written around the columns of a row, as Axolotl's types of that name do; no "
     "template"},
    {"drop_system_message", OPT_BOOL, offsetof(struct data_item, drop_system_message), "false", 0,
     0, NULL, "conversations: a first message of the system is dropped"},
    {0},
};

const struct key_help recipe_structured[] = {
    {"model", "mapping", "config.json of a new model, instead of model_name_or_path"},
    {"dataset", "list",
     "items, whose keys are listed below, or one path: a file, a glob, a folder"},
    {"eval_dataset", "list", "held-out data, in the same form"},
    {"include", "file",
     "another recipe, by a path relative to this one; keys of this one win, mappings are merged"},
    {0},
};

const struct key_section recipe_sections[] = {
    {"task", "What is trained"},
    {"max_seq_length", "Samples"},
    {"use_peft", "Adapter"},
    {"micro_batch_size", "Batches and length"},
    {"optim", "Optimizer and schedule"},
    {"output_dir", "Run folder, log and checkpoints"},
    {0},
};

#define SCHEDULES                                                                                  \
    "constant_with_warmup=constant cosine_with_min_lr=cosine warmup_stable_decay=wsd *="
#define OPTIMIZERS                                                                                 \
    "adamw_torch=adamw adamw_torch_fused=adamw adamw_hf=adamw paged_adamw_32bit=adamw "            \
    "paged_adamw=adamw adamw_bnb_8bit=adamw_8bit paged_adamw_8bit=adamw_8bit lion_32bit=lion "     \
    "paged_lion_32bit=lion *="
#define AXOLOTL "Axolotl"
#define FACTORY "LLaMA-Factory"
#define UNSLOTH "Unsloth"
const struct key_alias recipe_aliases[] = {
    {"lora_model_dir", "adapter_name_or_path", NULL, AXOLOTL},
    {"base_model", "model_name_or_path", NULL, AXOLOTL},
    {"pretrained_checkpoint", "model_name_or_path", NULL, "Megatron Bridge"},
    {"checkpoint_dir", "model_name_or_path", NULL, "LitGPT"},
    {"tokenizer_name_or_path", "tokenizer", NULL, "TRL"},
    {"tokenizer_config", "tokenizer", NULL, AXOLOTL},
    {"datasets", "dataset", NULL, AXOLOTL},
    {"dataset_name", "dataset", NULL, "TRL"},
    {"train_dataset", "dataset", NULL, "TRL"},
    {"test_datasets", "eval_dataset", NULL, AXOLOTL},
    {"stage", "task", "pt=pretrain *=", FACTORY},
    {"adapter", "use_peft", "lora=true qlora=true", AXOLOTL},
    {"quantization_bit", "load_in_4bit", "4=true 8=>quantize:q8_0", FACTORY},
    {"double_quantization", "bnb_4bit_use_double_quant", NULL, FACTORY},
    {"use_bnb_nested_quant", "bnb_4bit_use_double_quant", NULL, "TRL"},
    {"bnb_4bit_compute_dtype", "bnb_4bit_compute_dtype",
     "bf16=bfloat16 fp32=float32 torch.bfloat16=bfloat16 torch.float32=float32 *=", AXOLOTL},
    {"finetuning_type", "use_peft", "lora=true full=false", FACTORY},
    {"tuner_type", "use_peft", "lora=true full=false", "ms-swift"},
    {"fine_tune_type", "use_peft", "lora=true full=false", "mlx-lm"},
    {"training_type", "use_peft", "lora=true full=false", UNSLOTH},
    {"lora_rank", "lora_r", NULL, FACTORY},
    {"r", "lora_r", NULL, "PEFT"},
    {"lora_target", "lora_target_modules", "all=all-linear *=", FACTORY},
    {"target_modules", "lora_target_modules", NULL, UNSLOTH},
    {"lora_target_linear", "lora_target_modules", "true=all-linear false=", AXOLOTL},
    {"init_lora_weights", "init_lora_weights",
     "pissa_niter_4=pissa pissa_niter_16=pissa *=", "PEFT"},
    {"pissa_init", "init_lora_weights", "true=pissa false=true", FACTORY},
    {"peft_use_rslora", "use_rslora", NULL, AXOLOTL},
    {"peft_use_dora", "use_dora", NULL, AXOLOTL},
    {"modules_to_save", "lora_modules_to_save", NULL, "PEFT"},
    {"additional_target", "lora_modules_to_save", NULL, FACTORY},
    {"target_parameters", "lora_target_parameters", NULL, "PEFT"},
    {"exclude_modules", "lora_exclude_modules", NULL, "PEFT"},
    {"layers_to_transform", "lora_layers_to_transform", NULL, "PEFT"},
    {"rank_pattern", "lora_rank_pattern", NULL, "PEFT"},
    {"alpha_pattern", "lora_alpha_pattern", NULL, "PEFT"},
    {"bf16", "precision", "true=bf16 auto=bf16 full=bf16 false=fp32", "TRL"},
    {"gradient_checkpointing", "gradient_checkpointing", "offload=true unsloth=true *=", AXOLOTL},
    {"eval_strategy", "eval_strategy", "false=no *=", "transformers"},
    {"save_strategy", "save_strategy", "false=no *=", "transformers"},
    {"lr", "learning_rate", NULL, "torchtune"},
    {"lr_scheduler", "lr_scheduler_type", SCHEDULES, AXOLOTL},
    {"lr_scheduler_type", "lr_scheduler_type", SCHEDULES, "transformers"},
    {"optim", "optim", OPTIMIZERS, "transformers"},
    {"optimizer", "optim", OPTIMIZERS, AXOLOTL},
    {"num_warmup_steps", "warmup_steps", NULL, "torchtune"},
    {"lr_warmup_steps", "warmup_steps", NULL, "LitGPT"},
    {"lr_warmup_iters", "warmup_steps", NULL, "Megatron"},
    {"min_lr_rate", "min_lr_ratio", NULL, "transformers"},
    {"cosine_min_lr_ratio", "min_lr_ratio", NULL, AXOLOTL},
    {"num_decay_steps", "wsd_decay_steps", NULL, "transformers"},
    {"adam_eps", "adam_epsilon", NULL, "PyTorch"},
    {"per_device_train_batch_size", "micro_batch_size", NULL, "TRL"},
    {"batch_size", "micro_batch_size", NULL, "torchtune"},
    {"grad_accumulation_steps", "gradient_accumulation_steps", NULL, "mlx-lm"},
    {"max_length", "max_seq_length", NULL, "TRL"},
    {"sequence_len", "max_seq_length", NULL, AXOLOTL},
    {"cutoff_len", "max_seq_length", NULL, FACTORY},
    {"seq_length", "max_seq_length", NULL, "Megatron"},
    {"sample_packing", "packing", NULL, AXOLOTL},
    {"neat_packing", "packing", NULL, FACTORY},
    {"train_on_inputs", "completion_only_loss", "true=false false=true", AXOLOTL},
    {"train_on_prompt", "completion_only_loss", "true=false false=true", FACTORY},
    {"train_on_input", "completion_only_loss", "true=false false=true", "torchtune"},
    {"train_on_completions", "completion_only_loss", NULL, UNSLOTH},
    {"mask_prompt", "completion_only_loss", NULL, "LitGPT"},
    {"enable_thinking", "chat_template_kwargs",
     "true=enable_thinking=true false=enable_thinking=false", "ms-swift"},
    {"template", "chat_template", "llama3=llama3 alpaca=alpaca *=", FACTORY},
    {"num_epochs", "num_train_epochs", NULL, AXOLOTL},
    {"epochs", "num_train_epochs", NULL, "torchtune"},
    {"iters", "max_steps", NULL, "mlx-lm"},
    {"train_iters", "max_steps", NULL, "Megatron"},
    {"log_every_n_steps", "logging_steps", NULL, "torchtune"},
    {"log_interval", "logging_steps", NULL, "LitGPT"},
    {"steps_per_report", "logging_steps", NULL, "mlx-lm"},
    {"save_every_n_steps", "save_steps", NULL, "torchtune"},
    {"save_interval", "save_steps", NULL, "LitGPT"},
    {"save_every", "save_steps", NULL, "mlx-lm"},
    {"steps_per_eval", "eval_steps", NULL, "mlx-lm"},
    {"val_batches", "eval_batches", NULL, "mlx-lm"},
    {"clip_grad_norm", "max_grad_norm", NULL, "torchtune"},
    {"moe_aux_loss_coef", "router_aux_loss_coef", NULL, FACTORY},
    {"max_norm", "max_grad_norm", NULL, "LitGPT"},
    {"clip_grad", "max_grad_norm", NULL, "Megatron"},
    {"clip_grad_value", "max_grad_value", NULL, "PyTorch"},
    {"grad_checkpoint", "gradient_checkpointing", NULL, "mlx-lm"},
    {"enable_activation_checkpointing", "gradient_checkpointing", NULL, "torchtune"},
    {"disable_gradient_checkpointing", "gradient_checkpointing", "true=false false=true", FACTORY},
    {"resume_from_checkpoint", "resume_from_checkpoint", "true=auto false= *=", "TRL"},
    {"resume", "resume_from_checkpoint", "true=auto false= *=", "LitGPT"},
    {"out_dir", "output_dir", NULL, "LitGPT"},
    {0},
};

const struct key_absent recipe_absent[] = {
    {"task", "dpo"},
    {"task", "orpo"},
    {"task", "kto"},
    {"task", "simpo"},
    {"task", "ipo"},
    {"task", "rm"},
    {"task", "grpo"},
    {"task", "ppo"},
    {"precision", "fp8"},
    {"precision", "fp16"},
    {0},
};

bool recipe_given(const struct recipe *r, const char *key) {
    const struct option *o = option_find(recipe_options, key);
    return o && r->where && r->where[o - recipe_options];
}
