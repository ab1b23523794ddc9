/* foreign_keys.c: keys of Axolotl, LLaMA-Factory, TRL and the alignment handbook, ms-swift,
 * torchtune and mlx-lm, those that mean the same a row: what they mean here (recipe_int.h, struct
 * foreign). Spellings
 * that mean the same in every tool are in recipe_keys.c, keys of lists of data in foreign_tools.c.
 * The tools' own sources are what the rows follow: Axolotl 067b021, LLaMA-Factory ff6d4d1, TRL
 * f2cd577, ms-swift 3602360, torchtune bd2a0fc, mlx-lm d78bf58. */
#include "train/recipe/foreign_rows.h"

#define OWN_TEMPLATES                                                                              \
    "tokenizer_default=~ tokenizer_default_fallback_*=~ jinja=- chatml=chatml llama3=llama3 "      \
    "alpaca=alpaca llava=!vision pixtral=!vision qwen2_vl=!vision llama3_2_vision=!vision "        \
    "gemma*=~ mistral*=~ phi*=~ qwen*=~ deepseek*=~ llama4=~ cohere=~ command_a*=~ aya=~ "         \
    "jamba=~ falcon*=~ nemotron*=~ exaone*=~ *="
#define FACTORY_TEMPLATES                                                                          \
    "chatml=chatml llama3=llama3 alpaca=alpaca *_vl*=!vision *vl=!vision llava*=!vision "          \
    "*_vision*=!vision moss_vl=!vision qwen*=~ gemma*=~ llama*=~ mistral*=~ ministral*=~ "         \
    "phi*=~ deepseek*=~ glm*=~ gpt_oss=~ gpt=~ smollm*=~ olmo=~ falcon*=~ granite*=~ "             \
    "seed_oss=~ kimi*=~ cohere=~ yi=~ internlm*=~ minicpm*=~ *="

const struct foreign foreign_keys[] = {
    /* ---- the model */
    NONE(0, "trust_remote_code", "no code of a model is run"),
    NONE(0, "model_type use_fast_tokenizer", READ),
    NONE(AX,
         "tokenizer_type cls_model_config base_model_config is_llama_derived_model "
         "is_falcon_derived_model is_mistral_derived_model tokenizer_use_fast tokenizer_legacy",
         READ),
    NONE(AX, "base_model_ignore_patterns revision_of_model", HUB),
    NONE(AX, "model_quantization_config model_quantization_config_kwargs",
         "weights in MXFP4 are decoded"),
    NONE(0, "model_revision use_hf hf_use_auth_token token hub_token", HUB),
    NONE(0, "low_cpu_mem_usage", SPEED),
    NONE(0, "device_map device", "--device says where"),
    REFUSE(AX, "tokenizer_use_mistral_common", PLUGIN,
           "conversations would be written by the package mistral-common", NULL),
    REFUSE(AX, "processor_type", VISION, "images or sound would be read beside the text", NULL),
    REFUSE(AX, "skip_prepare_dataset", VISION, "rows would be prepared by a processor", NULL),
    REFUSE(AX, "freeze_mm_modules", VISION, NULL, NULL),
    REFUSE(0,
           "image_size image_resize_algorithm image_max_pixels image_min_pixels video_max_pixels "
           "video_fps video_maxlen media_dir freeze_vision_tower freeze_multi_modal_projector "
           "freeze_language_model vit_lr aligner_lr vit_gradient_checkpointing",
           VISION, NULL, NULL),
    NONE(SW, "freeze_vit freeze_aligner", "there is none"),
    REFUSE(SW, "freeze_llm", VISION, "the language model would not be trained", NULL),
    REFUSE(AX, "gptq", PLUGIN, "a base in GPTQ's codes", NULL),
    NONE(AX, "gptq_groupsize gptq_model_v1 gptq_disable_exllama", "of a base in GPTQ's codes"),
    NONE(AX, "torchdistx_path", SPEED),
    NEAR(AX, "quantize_moe_experts",
         "experts stay as the model's files have them: more memory, no rounding"),
    NEAR(AX, "resize_token_embeddings_to_32x",
         "the vocabulary keeps its size: rows that no token has change nothing"),
    NONE(AX, "mean_resizing_embeddings", "new rows are drawn as transformers does"),
    SAME(AX, "model_config.output_router_logits", "output_router_logits", NULL),
    SAME(AX, "tokens", "add_tokens", NULL),
    NONE(AX, "tokens.pad_token special_tokens.pad_token", "what pads is neither seen nor trained"),
    SAME(AX, "tokens.bos_token", "bos_token", NULL),
    SAME(AX, "tokens.eos_token", "eos_token", NULL),
    SAME(AX, "tokens.unk_token", "unk_token", NULL),
    SAME(AX, "special_tokens.bos_token", "bos_token", NULL),
    SAME(AX, "special_tokens.eos_token", "eos_token", NULL),
    SAME(AX, "special_tokens.unk_token", "unk_token", NULL),
    SAME(AX, "special_tokens.additional_special_tokens", "special_tokens.additional_special_tokens",
         NULL),
    NONE(0, "pad_token", "what pads is neither seen nor trained"),
    NONE(AX, "eot_tokens", "the template says where a turn ends, and that is trained"),
    SAME(LF, "new_special_tokens", "special_tokens", NULL),
    NONE(LF, "resize_vocab", "the vocabulary grows where tokens are added"),

    /* ---- types and kernels */
    NONE(AX | TR | LF, "torch_dtype", "precision says it; sums and master weights are f32"),
    NONE(TR, "dtype", "precision says it; sums and master weights are f32"),
    SAME(TT, "dtype", "precision", "bf16=bf16 fp32=fp32 fp16=!other"),
    SAME(SW, "torch_dtype", "precision", "bfloat16=bf16 float32=fp32 auto= float16=!other"),
    SAME(AX, "bfloat16", "precision", "true=bf16 false="),
    SAME(LF, "pure_bf16", "precision", "true=bf16 false="),
    NONE(LF, "infer_dtype", "precision says it"),
    REFUSE(0, "fp16", OTHER, "IEEE half precision; bf16: true has as many bits", NULL),
    REFUSE(AX, "float16", OTHER, "IEEE half precision; bf16: true has as many bits", NULL),
    REFUSE(0, "fp8", PLUGIN, "products in 8 bits, by torchao or Transformer Engine", NULL),
    NONE(0, "fp8_backend fp8_enable_fsdp_float8_all_gather", "of fp8"),
    NONE(0, "tf32", "products of f32 keep f32's bits"),
    NONE(0,
         "bf16_full_eval bnb_4bit_quant_storage gradient_checkpointing_kwargs use_reentrant_gc "
         "activation_offloading torch_compile torch_compile_backend torch_compile_mode "
         "use_liger_kernel",
         SPEED),
    SAME(0, "load_in_8bit", "quantize", "true=q8_0 false="),
    SAME(AX | LF, "bnb_config_kwargs.bnb_4bit_use_double_quant", "bnb_4bit_use_double_quant", NULL),
    SAME(LF, "quantization_bit", "load_in_4bit", "4=true 8=>quantize:q8_0"),
    REFUSE(LF, "quantization_method", OTHER, "other codes for the base", "bnb bitsandbytes"),
    SAME(LF, "quantization_type", "bnb_4bit_quant_type", NULL),
    NONE(LF, "quantization_device_map", "--device says where"),
    REFUSE(SW, "quant_method", OTHER, "other codes for the base", "bnb"),
    SAME(SW, "quant_bits", "load_in_4bit", "4=true 8=>quantize:q8_0"),
    NONE(0, "attn_implementation attn_impl", "there is one attention, exact"),
    NONE(LF, "flash_attn", "there is one attention, exact"),
    NONE(AX,
         "flash_attention sdp_attention xformers_attention flex_attention eager_attention "
         "flash_optimum",
         "there is one attention, exact"),
    NONE(AX,
         "flash_attn_cross_entropy flash_attn_rms_norm flash_attn_fuse_mlp flash_attn_fuse_qkv "
         "flex_attn_compile_kwargs fused_attn_kernel gemma4_hybrid_attn_impl liger_rms_norm "
         "liger_rms_norm_gated liger_layer_norm liger_glu_activation liger_swiglu liger_rope "
         "liger_cross_entropy liger_fused_linear_cross_entropy cut_cross_entropy "
         "chunked_cross_entropy lora_mlp_kernel lora_qkv_kernel lora_o_kernel "
         "lora_embedding_kernel use_kernels use_scattermoe use_sonicmoe use_dsv4_kernels "
         "use_glm_dsa_kernels experts_implementation llama4_linearized_experts tiled_mlp "
         "experimental_skip_move_to_device nvfp4_merge_aware",
         SPEED),
    REFUSE(AX, "s2_attention", OTHER, "shifted sparse attention", NULL),
    REFUSE(LF, "shift_attn", OTHER, "shifted sparse attention", NULL),
    NONE(TT,
         "enable_activation_offloading ac_mode ac_option compile optimizer_in_bwd low_cpu_ram "
         "memory_efficient_fsdp_wrap",
         SPEED),
    NONE(LF, "enable_liger_kernel use_unsloth use_unsloth_gc", SPEED),
    NONE(SW, "experts_impl", SPEED),
    REFUSE(AX, "dsv4_fp4_grouped_mode", PLUGIN, "products in 4 bits", NULL),
    NONE(TT, "log_peak_memory_stats", LOGS),
    REFUSE(AX, "plugins", PLUGIN, NULL,
           "*.CutCrossEntropyPlugin *.LigerPlugin *.KernelsPlugin *.FusedKernelsPlugin"),

    /* ---- data */
    SAME(AX, "pretraining_dataset", "dataset", NULL),
    SAME(AX, "batch_size", "global_batch_size", NULL),
    NONE(0,
         "dataset_prepared_path dataset_processes dataset_num_proc dataset_keep_in_memory "
         "preprocessing_num_workers preprocessing_batch_size dataloader_num_workers "
         "dataloader_pin_memory dataloader_prefetch_factor dataloader_persistent_workers "
         "overwrite_cache load_from_cache_file tokenized_path streaming buffer_size lazy_tokenize "
         "remove_unused_columns",
         LOADER),
    NONE(AX, "streaming_multipack_buffer_size", LOADER),
    NONE(AX, "push_dataset_to_hub", HUB),
    NONE(0, "ignore_data_skip", "a run goes on where it stopped"),
    NONE(LF, "dataset_dir", "its dataset_info.json is read, or paths are given whole"),
    NONE(TR, "dataset_config", "the path given is that subset"),
    NONE(TR, "dataset_train_split", "the path given is that part"),
    NONE(TR, "dataset_test_split", "eval_dataset names it"),
    NONE(TR, "dataset_kwargs.add_special_tokens dataset_kwargs.append_concat_token",
         "the template writes them"),
    NONE(TR, "dataset_kwargs.skip_prepare_dataset", LOADER),
    SAME(TR, "dataset_text_field", "columns.text", "text=- *="),
    NONE(0, "eval_sample_packing eval_packing eval_batch_size per_device_eval_batch_size", EVAL),
    NONE(TT, "batch_size_val", EVAL),
    NONE(0, "pad_to_sequence_len pad_to_multiple_of padding_free", "what pads is not computed"),
    NONE(0,
         "sample_packing_eff_est sample_packing_seq_len_multiplier sample_packing_group_size "
         "sample_packing_bin_size total_num_tokens",
         SPEED),
    NEAR(0, "group_by_length",
         "the samples keep the order that the seed gives: what pads is not computed, so lengths "
         "need no groups"),
    NEAR(AX, "sample_packing_sequentially",
         "samples are packed where they fit best, not as they follow each other"),
    SAME(AX, "curriculum_sampling", "shuffle", "true=false false=true"),
    SAME(AX, "max_packed_sequence_len", "packing", "*=>packing:true"),
    NONE(AX, "shuffle_merged_datasets", "the samples of all datasets are drawn in one order"),
    SAME(AX, "pretrain_multipack_attn", "document_mask", NULL),
    SAME(AX, "excess_length_strategy", "truncation",
         "drop=drop truncate=right raise=error error=error"),
    SAME(SW, "truncation_strategy", "truncation", "delete=drop left=left right=right split=split"),
    SAME(TR, "packing_strategy", "packing_strategy", "ffd=bfd bfd-requeue=bfd_split *="),
    SAME(TR, "truncation_mode", "truncation", "keep_start=right keep_end=left"),
    REFUSE(LF, "mix_strategy", OTHER, "how often each dataset is drawn from", "concat"),
    REFUSE(LF, "interleave_probs", OTHER, "how often each dataset is drawn from: weight", NULL),
    REFUSE(LF, "mask_history", OTHER, "only last answers would be trained", NULL),
    SAME(SW, "system", "default_system", NULL),
    NEAR(AX, "default_system_message",
         "no template of Axolotl's has the sentence that this would replace; default_system is a "
         "system message for conversations without one"),
    REFUSE(SW, "model_author model_name", OTHER, "names written into the rows of self-cognition",
           NULL),
    REFUSE(SW, "loss_scale", OTHER, "weights of tokens", "default"),
    REFUSE(SW, "add_non_thinking_prefix", OTHER, "texts before answers", NULL),
    REFUSE(SW, "agent_template", OTHER, "how tools are written: the template says it", NULL),
    SAME(SW, "use_chat_template", "chat_template", "true=- false=!other"),
    REFUSE(AX, "roles_to_train", OTHER, "whose turns are trained", "assistant gpt model"),
    REFUSE(AX, "train_on_eos train_on_eot", OTHER, "which ends of turns are trained", "turn"),
    SAME(AX, "chat_template", "chat_template", OWN_TEMPLATES),
    SAME(AX, "chat_template_jinja", "chat_template", NULL),
    SAME(TR, "chat_template_path", "chat_template", NULL),
    SAME(LF | SW, "template", "chat_template", FACTORY_TEMPLATES),
    NONE(LF, "include_num_input_tokens_seen", LOGS),
    SAME(LF, "val_size", "val_set_size", NULL),
    SAME(SW, "split_dataset_ratio", "val_set_size", NULL),
    SAME(SW, "val_dataset", "eval_dataset", NULL),
    SAME(LF, "disable_shuffling", "shuffle", "true=false false=true"),
    SAME(SW, "train_dataloader_shuffle", "shuffle", NULL),
    NONE(SW, "dataset_shuffle", "shuffle says it"),
    SAME(0, "dataloader_drop_last", "drop_last", NULL),

    /* ---- adapters */
    SAME(AX, "lora_model_dir", "adapter_name_or_path", NULL),
    SAME(SW, "adapters", "adapter_name_or_path", NULL),
    SAME(MX, "resume_adapter_file", "adapter_name_or_path", NULL),
    SAME(LF, "finetuning_type", "use_peft",
         "lora=true full=false freeze=!objective oft=!objective"),
    SAME(LF, "loraplus_lr_ratio", "loraplus_lr_ratio", NULL),
    NONE(LF, "pissa_iter", "its singular values are exact"),
    NONE(LF, "pissa_convert", "the adapter is saved as it was trained"),
    SAME(AX, "peft_layers_to_transform", "lora_layers_to_transform", NULL),
    SAME(AX, "peft_init_lora_weights", "init_lora_weights",
         "pissa_niter_*=pissa true=true gaussian=gaussian pissa=pissa"),
    NONE(AX, "peft_autocast_adapter_dtype lora_on_cpu", SPEED),
    NONE(AX, "lora_fan_in_fan_out", READ),
    NONE(TR, "lora_task_type", "it is CAUSAL_LM"),
    REFUSE(AX, "peft.loftq_config.loftq_bits", OBJECTIVE, "the adapter begins as LoftQ has it",
           NULL),
    REFUSE(AX, "unfrozen_parameters", OBJECTIVE, "only some weights would be trained", NULL),
    REFUSE(0, "freeze_parameters", OBJECTIVE, "some weights would not be trained", NULL),
    REFUSE(0, "freeze_trainable_layers", OBJECTIVE, "some layers would not be trained", NULL),
    REFUSE(0, "freeze_extra_modules", OBJECTIVE, NULL, NULL),

    /* ---- steps, rates, saving */
    SAME(AX, "optimizer", "optim", FOREIGN_OPTIMIZERS),
    SAME(AX | SW, "optim", "optim", FOREIGN_OPTIMIZERS),
    SAME(LF, "use_muon", "optim", "true=muon false="),
    SAME(0, "lr_scheduler_kwargs.min_lr_rate", "min_lr_ratio", NULL),
    SAME(0, "lr_scheduler_kwargs.num_decay_steps", "wsd_decay_steps", NULL),
    SAME(0, "lr_scheduler_kwargs.decay_type", "wsd_decay_type", NULL),
    REFUSE(AX, "cosine_constant_lr_ratio", OTHER, "where the cosine ends", NULL),
    NONE(AX, "eta_min", "Axolotl reads no such key"),
    REFUSE(AX, "embedding_lr embedding_lr_scale", OTHER, "another rate for embeddings", NULL),
    REFUSE(0, "greater_is_better", OTHER, "the largest loss would be the best", NULL),
    SAME(LF, "neat_packing", "packing", "true=true false=-"),
    NONE(0, "logging_strategy logging_first_step", "the log has every step"),
    NONE(0, "logging_dir disable_tqdm log_level strict debug", LOGS),
    NONE(0, "do_train", "that is what hone train does"),
    NONE(0, "do_eval", "eval_strategy and eval_dataset say it"),
    REFUSE(0, "do_predict", UNTRAINED, "hone generate, hone eval", NULL),
    NONE(LF, "predict_with_generate", "of do_predict"),
    SAME(0, "evaluation_strategy", "eval_strategy", NULL),
    NONE(0, "overwrite_output_dir", "a run folder is gone on with, or another is named"),
    NONE(0, "save_safetensors", "nothing else is written"),
    NONE(0, "plot_loss", "hone report draws it"),
    SAME(AX, "auto_resume_from_checkpoints", "resume_from_checkpoint", "true=auto false="),
    SAME(0, "report_to", "report_to", FOREIGN_REPORTS),
    SAME(AX, "use_tensorboard", "report_to", "true=tensorboard false="),
    NONE(0, "run_name", "output_dir names the run"),
    NONE(0,
         "push_to_hub hub_model_id hub_strategy hub_model_revision hub_private_repo hub_revision",
         HUB),
    NONE(AX, "full_finetune", "use_peft says it"),
    NONE(AX, "test_value", LOGS),
    NONE(0,
         "eval_table_size eval_max_new_tokens eval_causal_lm_metrics do_causal_lm_eval "
         "do_bench_eval compute_accuracy",
         "that measure is not taken"),
    NONE(0,
         "ddp_timeout ddp_find_unused_parameters ddp_backend ddp ddp_bucket_cap_mb local_rank "
         "accelerator_config fsdp_version custom_sharded_layers",
         RANKS),
    NONE(0, "average_tokens_across_devices", "every trained token of a step counts the same"),
    {0},
};
