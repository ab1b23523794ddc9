/* foreign_tools.c: the other tools: how their files are known, what they do where a recipe says
 * nothing and we do otherwise, and rows of keys: of objectives and of several GPUs, of logging
 * services, of torchtune and mlx-lm, of items of lists of data. */
#include "train/recipe/foreign_rows.h"

const struct tool foreign_tools[] = {
    {TOOL_AXOLOTL, "Axolotl",
     "base_model sequence_len datasets sample_packing val_set_size saves_per_epoch "
     "evals_per_epoch dataset_prepared_path num_epochs lr_scheduler optimizer tokenizer_type "
     "wandb_entity wandb_watch train_on_inputs lora_target_linear pretraining_dataset"},
    {TOOL_FACTORY, "LLaMA-Factory",
     "stage finetuning_type cutoff_len dataset_dir preprocessing_num_workers plot_loss lora_rank "
     "overwrite_cache lora_target do_train max_samples template val_size neat_packing"},
    {TOOL_TRL, "TRL",
     "dataset_name dataset_mixture dataset_mixer dataset_splits dataset_train_split "
     "dataset_test_split hub_model_id hub_strategy model_revision gradient_checkpointing_kwargs "
     "use_liger_kernel do_eval log_level torch_dtype dataset_num_proc push_to_hub "
     "per_device_eval_batch_size run_name logging_strategy attn_implementation"},
    {TOOL_SWIFT, "ms-swift",
     "tuner_type train_type rlhf_type split_dataset_ratio load_from_cache_file target_modules "
     "command model_author attn_impl freeze_vit padding_free torch_dtype dataset_num_proc "
     "sleep_level "
     "recompute_granularity use_hf infer_backend"},
    {TOOL_TORCHTUNE, "torchtune", "checkpointer max_steps_per_epoch optimizer_in_bwd"},
    {TOOL_MLX, "mlx-lm",
     "fine_tune_type lora_parameters iters num_layers steps_per_report steps_per_eval "
     "adapter_path val_batches save_every grad_checkpoint test_batches resume_adapter_file"},
    {0},
};

/* Where a tool's files are silent. Ours are in recipe_keys.c. */
#define HF (TR | LF | SW)
const struct tool_default foreign_defaults[] = {
    {AX | HF | TT | MX, "task", "sft", NULL},
    {AX | HF | TT | MX, "packing", "false", NULL},
    {AX | HF | TT, "packing_strategy", "bfd", "packing"}, /* none of them cuts a sample */
    {AX | SW, "truncation", "drop", NULL},
    {AX | TR | SW, "precision", "bf16", NULL},
    {AX, "lr_scheduler_type", "cosine", NULL},
    {AX, "max_seq_length", "512", NULL},
    {AX, "warmup_ratio", "0.03", NULL}, /* there at most 100 steps */
    {AX, "micro_batch_size", "1", NULL},
    {AX, "bnb_4bit_use_double_quant", "true", "load_in_4bit"},
    {AX, "save_strategy", "epoch", NULL},
    {AX, "eval_strategy", "epoch", "val_set_size"},
    {AX, "eval_strategy", "epoch", "eval_dataset"},
    {LF, "bnb_4bit_use_double_quant", "true", "load_in_4bit"},
    {LF, "use_peft", "true", NULL},
    {LF, "learning_rate", "5e-5", NULL},
    {LF, "max_seq_length", "2048", NULL},
    {LF, "lora_r", "8", "use_peft"},
    {TR, "learning_rate", "2e-5", NULL},
    {TR, "max_seq_length", "1024", NULL},
    {TR, "lora_dropout", "0.05", "use_peft"},
    {TR, "lora_target_modules", "q_proj,v_proj", "use_peft"},
    {TR, "assistant_only_loss", "false", NULL},
    {SW, "use_peft", "true", NULL},
    {SW, "learning_rate", "1e-4", "use_peft"},
    {SW, "learning_rate", "1e-5", NULL},
    {SW, "lora_r", "8", "use_peft"},
    {SW, "lora_dropout", "0.05", "use_peft"},
    {SW, "lr_scheduler_type", "cosine", NULL},
    {SW, "warmup_ratio", "0.05", NULL},
    {SW, "weight_decay", "0.1", NULL},
    {SW, "adam_beta2", "0.95", NULL},
    {SW, "micro_batch_size", "1", NULL},
    {SW | TT, "max_seq_length", "2048", NULL}, /* there as long as the model allows */
    {HF, "num_train_epochs", "3", NULL},
    {HF, "save_strategy", "steps", NULL},
    {TR | LF, "eval_strategy", "no", NULL},
    {TT, "max_grad_norm", "0", NULL},
    {TT, "save_strategy", "epoch", NULL},
    {TT, "weight_decay", "0.01", NULL},
    {TT, "lr_scheduler_type", "constant", NULL},
    {MX, "use_peft", "true", NULL},
    {MX, "completion_only_loss", "false", NULL},
    {MX, "assistant_only_loss", "false", NULL},
    {MX, "seed", "0", NULL},
    {MX, "optim", "adam", NULL},
    {MX, "learning_rate", "1e-5", NULL},
    {MX, "lr_scheduler_type", "constant", NULL},
    {MX, "max_grad_norm", "0", NULL},
    {MX, "weight_decay", "0.01", NULL},
    {MX, "max_seq_length", "2048", NULL},
    {MX, "micro_batch_size", "4", NULL},
    {MX, "max_steps", "1000", NULL},
    {MX, "eval_steps", "200", "eval_dataset"},
    {MX, "save_steps", "100", NULL},
    {MX, "lora_r", "8", "use_peft"},
    {MX, "lora_alpha", "160", "use_peft"},
    {0},
};

/* Axolotl's types of datasets; those that write prompts of their own are prompt_style here. */
#define ROW_TYPES                                                                                  \
    "chat_template=auto chat_template.*=auto sharegpt=auto sharegpt.*=auto instruction=auto "      \
    "completion=auto pretrain=auto input_output=auto auto=auto tokens=tokens text=text "           \
    "jsonl=jsonl json=jsonl csv=csv tsv=tsv parquet=parquet alpaca=>prompt_style "                 \
    "alpaca:chat=>prompt_style alpaca:chatml=>prompt_style alpaca:phi=>prompt_style "              \
    "alpaca_instruct.load_no_prompt=>prompt_style alpaca_chat.load_no_prompt=>prompt_style "       \
    "alpaca_chat.load_concise=>prompt_style alpaca_chat.load_qa=>prompt_style "                    \
    "alpaca_chat.load_camel_ai=>prompt_style alpaca_w_system=>prompt_style "                       \
    "alpaca_w_system.load_instruct=>prompt_style alpaca_w_system.load_open_orca=>prompt_style "    \
    "alpaca_w_system.load_open_orca_chatml=>prompt_style gpteacher=>prompt_style "                 \
    "jeopardy=>prompt_style oasst=>prompt_style summarizetldr=>prompt_style "                      \
    "alpaca:instruct=>prompt_style:alpaca alpaca_instruct=>prompt_style:alpaca "                   \
    "alpaca_instruct.load=>prompt_style:alpaca alpaca_chat=>prompt_style:alpaca:chat "             \
    "alpaca_chat.load=>prompt_style:alpaca:chat "                                                  \
    "alpaca_w_system.load=>prompt_style:alpaca_w_system "                                          \
    "alpaca_w_system.load_chat=>prompt_style:alpaca_w_system alpaca*=!other gpteacher:*=!other "   \
    "jeopardy:*=!other oasst:*=!other summarizetldr:*=!other context_qa*=!other "                  \
    "creative_acr*=!other metharme=!other pygmalion=!other orcamini=!other llama2_chat=!other "    \
    "reflection*=!other explainchoice*=!other concisechoice*=!other *_dpo=!objective "             \
    "*.dpo*=!objective bradley_terry.*=!objective chatml.*=!objective llama3.*=!objective "        \
    "user_defined.*=!objective user_defined=!other *.transform=!objective "                        \
    "stepwise_supervised=!objective *.*=!plugin "                                                  \
    "*="
const struct foreign foreign_items[] = {
    NONE(0, "dataset.ds_type", "the file's name and content say it"),
    NONE(0, "dataset.name dataset.subset dataset.config", "the path given is that subset"),
    NONE(0, "dataset.revision", HUB),
    NONE(0, "dataset.trust_remote_code", "no code of a dataset is run"),
    NONE(0, "dataset.conversation", "chat_template says how turns are written"),
    NONE(0, "dataset.preprocess_shards", LOADER),
    SAME(0, "dataset.type", "type", ROW_TYPES),
    SAME(TT, "dataset._component_", "path",
         "*alpaca_cleaned_dataset=yahma/alpaca-cleaned *.alpaca_dataset=tatsu-lab/alpaca "
         "*samsum_dataset=Samsung/samsum *slimorca_dataset=Open-Orca/SlimOrca-Dedup "
         "*cnn_dailymail_articles_dataset=ccdv/cnn_dailymail *wikitext_dataset=Salesforce/wikitext "
         "*stack_exchange*=!objective *preference*=!objective *grpo*=!objective "
         "*hh_rlhf*=!objective *multimodal*=!vision *vqa*=!vision *llava*=!vision "
         "*cauldron*=!vision *=-"),
    SAME(0, "dataset.source", "path", NULL),
    SAME(0, "dataset.id", "path", NULL),
    SAME(0, "dataset.field_messages", "columns.messages",
         "messages=- conversations=- conversation=- *="),
    SAME(0, "dataset.message_property_mappings.role", "columns.role", "role=- from=- *="),
    SAME(0, "dataset.message_property_mappings.content", "columns.content", "content=- value=- *="),
    SAME(0, "dataset.message_field_role", "columns.role", "role=- from=- *="),
    SAME(0, "dataset.message_field_content", "columns.content", "content=- value=- *="),
    REFUSE(0, "dataset.message_field_training", OTHER, "another name of `train` in messages",
           "train weight"),
    SAME(0, "dataset.field_system", "columns.system", "system=- *="),
    SAME(0, "dataset.field_tools", "columns.tools", "tools=- *="),
    SAME(0, "dataset.field_instruction", "columns.instruction", "instruction=- *="),
    SAME(0, "dataset.field_input", "columns.input", "input=- *="),
    SAME(0, "dataset.field_output", "columns.output", "output=- *="),
    SAME(0, "dataset.field_human", "columns.prompt", "prompt=- *="),
    SAME(0, "dataset.field_model", "columns.completion", "completion=- *="),
    SAME(0, "dataset.field", "columns.text", "text=- *="),
    SAME(0, "dataset.text_column", "columns.text", "text=- *="),
    SAME(0, "dataset.column_map.input", "columns.instruction", "instruction=- *="),
    SAME(0, "dataset.column_map.output", "columns.output", "output=- *="),
    REFUSE(0, "dataset.field_thinking", OTHER, "another name of thoughts in messages",
           "reasoning_content thinking"),
    NONE(0, "dataset.template_thinking_key", "the template reads the message's own keys"),
    REFUSE(0, "dataset.transform._component_ dataset.image_tag", VISION, NULL, NULL),
    REFUSE(0, "dataset.split_thinking", OTHER, "thoughts would be cut out of answers", NULL),
    REFUSE(0, "dataset.shards", OTHER, "only a part would be read: rows: '[:10%]'", NULL),
    REFUSE(0, "dataset.input_transform", OTHER, "rows would be changed by code", NULL),
    REFUSE(0,
           "dataset.field_chosen dataset.field_rejected dataset.step_separator "
           "dataset.max_completion_length dataset.train_on_last_step_only",
           OBJECTIVE, NULL, NULL),
    REFUSE(0, "dataset.roles_to_train", OTHER, "whose turns are trained", "assistant gpt model"),
    REFUSE(0, "dataset.train_on_eos dataset.train_on_eot", OTHER, "which ends of turns are trained",
           "turn"),
    REFUSE(0, "dataset.roles.system", OTHER, "other names of roles", "system"),
    REFUSE(0, "dataset.roles.user", OTHER, "other names of roles", "user human"),
    REFUSE(0, "dataset.roles.assistant", OTHER, "other names of roles", "assistant gpt model"),
    REFUSE(0, "dataset.roles.tool", OTHER, "other names of roles", "tool"),
    {0},
};

const struct foreign foreign_tool_keys[] = {
    /* ---- objectives and methods */
    SAME(LF, "stage", "task",
         "pt=pretrain sft=sft dpo=!objective kto=!objective rm=!objective ppo=!objective"),
    SAME(0, "command", "task",
         "sft=sft pt=pretrain infer=!untrained export=!untrained deploy=!untrained eval=!untrained "
         "app=!untrained sample=!untrained rollout=!untrained *=!objective"), /* of scripts */
    NONE(0, "program", "the program that the script starts"),
    REFUSE(0, "nproc_per_node", GPUS, NULL, "1"),
    REFUSE(0,
           "rl rl_beta rlhf_type beta dpo_beta max_prompt_length max_completion_length pref_beta "
           "pref_loss pref_ftx rpo_alpha orpo_alpha kto_desirable_weight kto_undesirable_weight "
           "ref_model reward_model process_reward_model center_rewards_coefficient num_labels "
           "problem_type reward_funcs num_generations trl vllm use_vllm ebft mixture_of_depths "
           "teacher_model",
           OBJECTIVE, NULL, NULL),
    REFUSE(0, "loss_type", OBJECTIVE, NULL, "nll chunked_nll"),
    REFUSE(0, "task_type", OBJECTIVE, NULL, "causal_lm"),
    REFUSE(0, "qat", OBJECTIVE, "quantisation-aware training", NULL),
    REFUSE(TT, "quantizer", OBJECTIVE, "quantisation-aware training", NULL),
    REFUSE(0, "use_eaft use_eaft_loss use_dft_loss use_asft_loss", OBJECTIVE, "weights of tokens",
           NULL),
    NONE(0, "eaft_alpha eaft_k", "of use_eaft"),
    NONE(0, "asft_alpha", "of use_asft_loss"),
    REFUSE(0, "relora", OBJECTIVE, "adapters would be merged and begun again", NULL),
    NONE(0, "relora_prune_ratio relora_cpu_offload", "of relora"),
    REFUSE(0, "jagged_restart_steps", OBJECTIVE, "the schedule would begin again", NULL),
    NONE(0, "jagged_restart_warmup_steps jagged_restart_anneal_steps", "of jagged_restart_steps"),
    REFUSE(0, "lisa_n_layers", OBJECTIVE, "only some layers would be trained", NULL),
    NONE(0, "lisa_step_interval lisa_layers_attribute", "of lisa_n_layers"),
    REFUSE(0, "use_galore use_apollo use_badam use_adam_mini", OBJECTIVE, "another optimizer",
           NULL),
    NONE(0, "temperature top_k top_p max_new_tokens", "of generation"),
    NONE(TT, "enable_kv_cache", "of generation"),
    NONE(TT, "limit", "of evaluation"),
    REFUSE(TT,
           "forward_batch_size max_generated_tokens ppo_epochs ppo_batch_size grpo_samples "
           "num_steps inference postprocessing training debug_logging_enabled "
           "debug_num_samples_per_step min_response_length penalise_no_eos reward_penalty "
           "stop_token_ids whiten_rewards gamma lmbda kl_coeff loss.value_coeff "
           "loss.value_clip_range dataset.column dataset.add_eos dataset.partition "
           "reward_functions policy_model reward_and_value_model ref_policy_checkpointer "
           "value_checkpointer reward_checkpointer orchestration early_exit_loss layer_dropout",
           OBJECTIVE, NULL, NULL),
    NONE(TT, "name", "output_dir names the run"),
    REFUSE(
        SW,
        "lmbda rollout sft_alpha steps_per_generation dynamic_sample overlong_filter epsilon "
        "epsilon_high num_iterations importance_sampling_level advantage_estimator vllm_mode "
        "gkd_logits_topk teacher teacher_kl_coef teacher_deepspeed teacher_model_server gym_env "
        "use_gym_env multi_turn_scheduler max_turns log_rollout_offpolicy_metrics async_generate "
        "reward_weights scale_rewards kl_in_reward desirable_weight undesirable_weight tau_neg "
        "tau_pos delta response_length generation_batch_size log_entropy top_entropy_quantile "
        "reward_model_plugin move_model_batches enable_dft_loss loss_weights chord_sft_dataset "
        "chord_mu_peak chord_mu_valley chord_mu_warmup_steps chord_mu_decay_steps "
        "chord_enable_phi_function chord_sft_per_device_train_batch_size fipo_clip_range "
        "fipo_clip_high_only fipo_decay_rate fipo_safety_threshold mtp_num_layers train",
        OBJECTIVE, NULL, NULL),
    SAME(SW, "tuner_type", "use_peft", "lora=true full=false lora_llm=!vision *=!objective"),
    SAME(SW, "train_type", "use_peft", "lora=true full=false lora_llm=!vision *=!objective"),
    NONE(SW,
         "init_weights llamapro_num_new_blocks lora_ga_batch_size lora_ga_iters "
         "lora_ga_max_length lora_ga_direction lora_ga_scale lora_ga_stable_gamma "
         "reft_intervention_type",
         "of another tuner_type"),
    REFUSE(SW, "lisa_activated_layers", OBJECTIVE, "only some layers would be trained", NULL),
    REFUSE(SW, "fp8_recipe fp8_format fp8_param_gather", PLUGIN, "products in 8 bits", NULL),
    REFUSE(SW,
           "expert_tensor_parallel_size decoder_first_pipeline_num_layers "
           "decoder_last_pipeline_num_layers nnodes",
           GPUS, NULL, "1"),
    REFUSE(SW, "colocate_groups hostfile config_file", GPUS, NULL, NULL),
    NONE(SW,
         "node_rank machine_rank master_addr master_port overlap_grad_reduce "
         "overlap_param_gather",
         RANKS),
    REFUSE(SW, "max_pixels", VISION, NULL, NULL),
    NONE(SW,
         "vllm_gpu_memory_utilization vllm_max_model_len vllm_tensor_parallel_size "
         "vllm_server_host vllm_server_port sleep_level offload_model vllm_enable_lora "
         "vllm_server_pass_dataset vllm_enforce_eager offload_teacher_model",
         "of use_vllm"),
    NONE(SW,
         "offload_optimizer optimizer_cpu_offload optimizer_offload_fraction attention_backend "
         "recompute_granularity recompute_method recompute_num_layers cross_entropy_loss_fusion "
         "gradient_accumulation_fusion moe_grouped_gemm moe_shared_expert_overlap "
         "moe_permute_fusion masked_softmax_fusion cross_entropy_fusion_impl offload_bridge "
         "recompute_modules use_logits_to_keep",
         SPEED),
    NONE(SW, "check_model", HUB),
    NONE(SW, "predict_with_generate", "that measure is not taken"),
    NONE(SW, "load_data_args", "of an adapter that is used"),
    REFUSE(SW, "infer_backend", UNTRAINED, "hone generate", NULL),
    REFUSE(SW, "device_groups", GPUS, NULL, NULL),
    REFUSE(0, "deepspeed_config distributed_type fsdp_transformer_layer_cls_to_wrap", GPUS, NULL,
           NULL),
    NONE(0, "use_precision_aware_optimizer", SPEED),
    SAME(SW, "moe_aux_loss_coeff", "router_aux_loss_coef", NULL),
    SAME(SW, "lr_warmup_fraction", "warmup_ratio", NULL),
    SAME(SW, "no_save_optim", "save_only_model", NULL),
    NONE(SW, "no_save_rng", "it is a function of seed and step"),
    NONE(SW, "merge_lora", "hone export merges"),
    NONE(SW, "finetune", "a model that is given is started from"),
    NONE(LF, "galore_layerwise galore_target galore_rank galore_scale galore_update_interval",
         "of use_galore"),
    NONE(LF, "apollo_layerwise apollo_target apollo_rank apollo_scale apollo_scale_type",
         "of use_apollo"),
    NONE(LF, "badam_mode badam_switch_mode badam_switch_interval badam_verbose", "of use_badam"),
    NONE(LF, "oft_block_size oft_target", "of finetuning_type: oft"),
    NONE(LF, "freeze_trainable_modules", "of finetuning_type: freeze"),
    REFUSE(0, "use_llama_pro", OBJECTIVE, "only added layers would be trained", NULL),
    REFUSE(0, "reinit_weights", OBJECTIVE, "the weights would be drawn anew", NULL),
    REFUSE(0, "neftune_noise_alpha", OBJECTIVE, "noise on embeddings", NULL),
    REFUSE(0, "label_smoothing_factor", OBJECTIVE, "another loss", NULL),
    REFUSE(0, "diffusion", PLUGIN, "another way to train and to generate", NULL),
    REFUSE(0, "llmcompressor", PLUGIN, "weights would be made sparse", NULL),
    REFUSE(0, "use_onebitllms", PLUGIN, "weights of 1.58 bits", NULL),
    REFUSE(0, "external_plugins custom_register_path use_kt kt_optimize_rule", PLUGIN, NULL, NULL),
    NONE(0, "cpu_infer chunk_size", "of use_kt"),

    /* ---- several GPUs */
    REFUSE(0,
           "deepspeed fsdp fsdp_config fsdp_cpu_offload tensor_parallel_plan "
           "expert_parallel_num_nvl_bytes expert_parallel_token_capacity sequence_parallel use_ray "
           "ray_run_name placement_strategy resources_per_worker use_distributed_state_dict",
           GPUS, NULL, NULL),
    REFUSE(0,
           "context_parallel_size context_parapllel_size tensor_parallel_size tensor_parallel_dim "
           "tensor_model_parallel_size pipeline_model_parallel_size expert_model_parallel_size "
           "expert_parallel_size dp_shard_size dp_replicate_size data_parallel_replicate_dim "
           "sequence_parallel_degree sequence_parallel_size ray_num_workers",
           GPUS, NULL, "1"),
    REFUSE(0, "data_parallel_shard_dim", GPUS, NULL, "1 -1"),
    REFUSE(AX, "gpu_count", GPUS, "machines are rented elsewhere", NULL),
    REFUSE(AX, "node_count", GPUS, "machines are rented elsewhere", "1"),

    /* ---- services */
    NONE(0,
         "wandb_project wandb_name wandb_entity wandb_watch wandb_log_model wandb_run_id use_wandb "
         "use_mlflow mlflow_tracking_uri mlflow_experiment_name hf_mlflow_log_artifacts use_comet "
         "trackio_project_name trackio_run_name trackio_space_id use_swanlab swanlab_project "
         "swanlab_experiment_name swanlab_description swanlab_mode swanlab_workspace "
         "swanlab_log_model swanlab_log_completions swanlab_completion_log_interval "
         "swanlab_completion_max_buffer project_name use_otel_metrics otel_metrics_host "
         "otel_metrics_port log_completions",
         LOGS),

    /* ---- the alignment handbook: its mixture becomes a list of data (foreign_shapes.c) */
    NONE(TR, "dataset_mixture.seed", "seed says it"),
    NONE(TR, "dataset_splits", "the paths given are those parts"),

    /* ---- torchtune */
    NONE(TT,
         "tokenizer._component_ tokenizer.merges_file tokenizer.merges_path tokenizer.vocab_path "
         "checkpointer._component_ checkpointer.checkpoint_files "
         "checkpointer.checkpoint_files.filename_format checkpointer.checkpoint_files.max_filename "
         "checkpointer.model_type",
         READ),
    SAME(TT, "tokenizer.path", "tokenizer", NULL),
    SAME(TT, "tokenizer.max_seq_len", "max_seq_length", NULL),
    REFUSE(TT, "tokenizer.prompt_template", OTHER, "chat_template: FILE is a template", NULL),
    REFUSE(TT,
           "tokenizer.image_size tokenizer.max_num_tiles model.decoder_trainable "
           "model.encoder_trainable model.fusion_trainable model.image_size",
           VISION, NULL, NULL),
    SAME(TT, "model._component_", "use_peft",
         "*vision*=!vision *clip*=!vision *flamingo*=!vision *llama4*=!vision *.lora_*=true "
         "*.qlora_*=true *=-"),
    SAME(TT, "model.lora_rank", "lora_r", NULL),
    SAME(TT, "model.lora_alpha", "lora_alpha", NULL),
    SAME(TT, "model.lora_dropout", "lora_dropout", NULL),
    SAME(TT, "model.use_dora", "use_dora", NULL),
    SAME(TT, "model.quantize_base", "load_in_4bit", NULL),
    NONE(TT,
         "model.vocab_size model.num_layers model.num_heads model.num_kv_heads model.embed_dim "
         "model.intermediate_dim model.max_seq_len model.attn_dropout model.norm_eps "
         "model.rope_base model.head_dim",
         READ),
    NONE(TT, "use_flex", SPEED),
    NONE(TT, "apply_chat_template", "of evaluation"),
    NONE(TT,
         "dataloader.parallel_method dataloader.num_workers dataloader.pin_memory "
         "dataloader.prefetch_factor",
         LOADER),
    SAME(TT, "dataloader.packed", "packing", NULL),
    SAME(TT, "dataloader.shuffle", "shuffle", NULL),
    REFUSE(TT, "dataloader.collate_fn", VISION, NULL, "torchtune.data.padded_collate_sft"),
    REFUSE(TT, "collate_fn", VISION, NULL, "torchtune.data.padded_collate_sft"),
    SAME(TT, "base_model_path", "model_name_or_path", NULL),
    SAME(TT, "checkpointer.checkpoint_dir", "model_name_or_path", NULL),
    NONE(TT, "checkpointer.recipe_checkpoint", "resume_from_checkpoint: auto finds it"),
    SAME(TT, "checkpointer.adapter_checkpoint", "adapter_name_or_path", NULL),
    NONE(TT, "checkpointer.output_dir", "output_dir says it"),
    NONE(TT, "checkpointer.safe_serialization", "nothing else is written"),
    SAME(TT, "checkpointer.keep_last_n_checkpoints", "save_total_limit", NULL),
    SAME(TT, "optimizer._component_", "optim",
         "torch.optim.AdamW=adamw *PagedAdamW=adamw *PagedAdamW8bit=adamw_8bit "
         "*AdamW8bit=adamw_8bit torch.optim.Adam=adam torch.optim.SGD=sgd"),
    SAME(TT, "optimizer.lr", "learning_rate", NULL),
    SAME(TT, "optimizer.weight_decay", "weight_decay", NULL),
    NONE(TT, "optimizer.fused", SPEED),
    SAME(TT, "lr_scheduler._component_", "lr_scheduler_type",
         "*get_cosine_schedule_with_warmup=cosine"),
    SAME(TT, "lr_scheduler.num_warmup_steps", "warmup_steps", NULL),
    REFUSE(TT, "loss._component_", OBJECTIVE, NULL,
           "*.LinearCrossEntropyLoss *.CEWithChunkedOutputLoss torch.nn.CrossEntropyLoss"),
    REFUSE(TT,
           "loss.beta loss.label_smoothing loss.kl_coeff loss.epsilon teacher_checkpointer "
           "ref_checkpointer kd_loss kd_ratio",
           OBJECTIVE, NULL, NULL),
    SAME(TT, "dataset.packed", "packing", NULL),
    SAME(TT, "dataset.train_on_input", "completion_only_loss", "true=false false=true"),
    SAME(TT, "dataset.column_map.input", "columns.instruction", NULL),
    SAME(TT, "dataset.column_map.output", "columns.output", NULL),
    NONE(TT, "dataset_val.packed", EVAL),
    SAME(TT, "run_val_every_n_steps", "eval_steps", NULL),
    SAME(TT, "save_adapter_weights_only", "save_only_model", NULL),
    NONE(TT, "metric_logger", LOGS),
    NONE(TT, "profiler", "hone --profile"),
    NONE(TT, "save_every_n_epochs", "save_strategy: epoch"),
    NONE(TT, "cudnn_deterministic_mode", "every run repeats its bits"),
    REFUSE(TT, "tasks", UNTRAINED, "hone eval", NULL),
    REFUSE(TT, "prompt", UNTRAINED, "hone generate", NULL),

    /* ---- mlx-lm */
    NONE(MX, "train", "that is what hone train does"),
    NONE(MX, "test test_batches", "hone eval tests"),
    SAME(MX, "adapter_path", "output_dir", NULL),
    SAME(MX, "lora_parameters.rank", "lora_r", NULL),
    SAME(MX, "lora_parameters.dropout", "lora_dropout", NULL),
    SAME(MX, "lora_parameters.keys", "lora_target_modules", NULL),
    SAME(MX, "val_batches", "eval_batches", "-1=0 *="),
    SAME(MX, "optimizer", "optim", "adam=adam adamw=adamw muon=muon sgd=sgd adafactor=adafactor"),
    {0},
};
