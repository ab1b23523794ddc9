/* test_foreign.c: recipes of other tools: what their keys mean here, what is told, what is refused,
 * and that all of it is one report. */
#include "tests/unit/train/foreign_fixture.h"

#include <jansson.h>

static void test_axolotl(void **state) {
    (void)state;
    struct recipe r;
    expect(&r, AXOLOTL
           "datasets:\n  - path: some/data\n    type: chat_template\n    split: "
           "train[:20%]\n    field_messages: conversations\n    message_property_mappings:\n"
           "      role: from\n      content: value\n  - {path: json, data_files: [a.jsonl], "
           "ds_type: json, type: completion}\nval_set_size: 0.05\nevals_per_epoch: "
           "4\nsaves_per_epoch: 1\noptimizer: adamw_torch_4bit\nspecial_tokens:\n  "
           "pad_token: <|end_of_text|>\nplugins:\n  - "
           "axolotl.integrations.liger.LigerPlugin\nchat_template: gemma3\n");
    assert_string_equal(r.tool, "Axolotl");
    assert_string_equal(r.task, "sft");
    assert_string_equal(r.optim, "adamw_8bit");
    assert_string_equal(r.lr_scheduler_type, "cosine"); /* Axolotl's default */
    assert_true(r.bnb_4bit_use_double_quant && r.use_peft && r.gradient_checkpointing);
    assert_true(r.packing && r.save_ratio == 0.25 && r.eval_ratio == 0.0625);
    assert_int_equal(r.dataset.count, 2);
    assert_string_equal(r.dataset.item[0].rows, "[:20%]");
    assert_string_equal(r.dataset.item[1].path, "a.jsonl");
    assert_string_equal(r.dataset.item[0].split, "train");
    assert_string_equal(r.eval_dataset.item[1].split, "validation");
    assert_null(r.chat_template);
    assert_non_null(strstr(r.notes.data, "is read as the tokenizer's own template"));
    assert_string_equal(told(&r, "valu"), "empty");
    assert_string_equal(told(&r, "wandb_watch"), "empty");
    assert_non_null(told(&r, "special_tokens.pad_token"));
    assert_non_null(told(&r, "plugins"));
    assert_non_null(told(&r, "dataset.ds_type"));
    assert_non_null(told(&r, "dataset.field_messages"));
    recipe_free(&r);
    expect(&r, AXOLOTL "datasets: [{path: d.jsonl, type: alpaca}]\nevals_per_epoch: 4\n"
                       "val_set_size: 0\n");
    assert_true(r.eval_ratio == 0 && !strcmp(r.save_strategy, "epoch"));
    recipe_free(&r);
}

static void test_all_at_once(void **state) {
    (void)state;
    struct recipe r;
    struct err e = {0};
    read_text(&r,
              AXOLOTL "datasets: [{path: d, type: chat_template.x, fieldd: y, shards: 3}]\n"
                      "rl: dpo\nfsdp: [full_shard]\nprocessor_type: AutoProcessor\nplugins: "
                      "[axolotl.integrations.liger.LigerPlugin, my.Plugin]\nlr_scheduler: rex\n"
                      "seed: many\nexpert_parallel_size: 1\nembedding_lr: 9\nnonsense: 1\n",
              NULL, 0);
    static const char *const all[] = {
        "'rl: dpo' (Axolotl) changes the result: another objective",
        "'fsdp: full_shard' (Axolotl) changes the result: several GPUs",
        "'processor_type: AutoProcessor' (Axolotl) changes the result: a model that sees",
        "'plugins: my.Plugin' (Axolotl) changes the result: a plugin",
        "'dataset.shards: 3' (Axolotl) changes the result: not supported",
        "'embedding_lr: 9' (Axolotl) changes the result: not supported",
        "unknown key 'nonsense'",
        "unknown key 'fieldd'",
        "seed = 'many'; expected an integer",
        "lr_scheduler_type = 'rex'; expected a known choice"};
    for (i64 i = 0; i < COUNT(all); i++)
        if (!refused(&r, all[i])) fail_msg("not reported: %s", all[i]);
    assert_int_equal(r.problems, COUNT(all));
    assert_int_equal(recipe_judge(&r, "x.yaml", &e), -1);
    assert_non_null(strstr(e.primary, "x.yaml: 10 problems"));
    recipe_free(&r);
}

static void test_factory(void **state) {
    (void)state;
    struct recipe r;
    expect(&r, "model_name_or_path: m\ntrust_remote_code: true\nstage: sft\ndo_train: true\n"
               "finetuning_type: lora\nlora_rank: 8\nlora_target: q_proj,v_proj\ndataset: "
               "one.json,two.json\ntemplate: qwen3_nothink\ncutoff_len: 2048\nmax_samples: 1000\n"
               "preprocessing_num_workers: 16\noutput_dir: o\nplot_loss: true\nsave_only_model: "
               "false\nreport_to: none\nlearning_rate: 1.0e-4\nquantization_bit: 8\n"
               "ddp_timeout: 180000000\nresume_from_checkpoint: null\n");
    assert_string_equal(r.tool, "LLaMA-Factory");
    assert_int_equal(r.dataset.count, 2);
    assert_string_equal(r.dataset.item[1].path, "two.json");
    assert_int_equal(r.lora_target_modules.count, 2);
    assert_true(!r.packing && r.lora_alpha == 16 && r.max_samples == 1000);
    assert_true(r.num_train_epochs == 3 && r.save_steps == 500);
    assert_string_equal(r.quantize, "q8_0");
    assert_string_equal(r.eval_strategy, "no");
    recipe_free(&r);
    expect(&r, "model_name_or_path: m\nstage: sft\nfinetuning_type: lora\ndataset: d\nlora_rank: "
               "8\ncutoff_len: 8\nlora_target: all\nadapter_name_or_path: a\n");
    assert_string_equal(r.adapter_name_or_path, "a");
    assert_false(recipe_given(&r, "lora_r") || recipe_given(&r, "lora_alpha"));
    assert_string_equal(told(&r, "lora_r"), "the adapter that is trained on has its own");
    recipe_free(&r);
    read_text(&r,
              "model_name_or_path: m\nstage: dpo\nfinetuning_type: lora\ndataset: d\n"
              "cutoff_len: 8\nplot_loss: true\npref_beta: 0.1\n",
              NULL, 0);
    assert_true(refused(&r, "'stage: dpo' (LLaMA-Factory) changes the result: another objective"));
    assert_true(refused(&r, "'pref_beta: 0.1'"));
    recipe_free(&r);
}

/* dataset_info.json says what the names of data sets mean. */
static void test_factory_names(void **state) {
    (void)state;
    struct recipe r;
    struct err e = {0};
    char path[160], text[512];
    static const char info[] =
        "{\"one\": {\"file_name\": \"a.json\", \"formatting\": \"sharegpt\", \"num_samples\": 7, "
        "\"columns\": {\"messages\": \"talk\"}, \"tags\": {\"role_tag\": \"who\"}}, "
        "\"hub\": {\"hf_hub_url\": \"org/data\"}, \"pairs\": {\"file_name\": \"p\", \"ranking\": "
        "true}, \"seen\": {\"file_name\": \"s\", \"columns\": {\"images\": \"i\"}}}";
    snprintf(path, sizeof path, "%s/dataset_info.json", folder);
    assert_int_equal(file_write(path, info, (i64)strlen(info), &e), 0);
    snprintf(text, sizeof text,
             "model_name_or_path: m\nstage: sft\nfinetuning_type: lora\ncutoff_len: 8\n"
             "dataset_dir: %s\ndataset: one,hub,other.json\n",
             folder);
    expect(&r, text);
    snprintf(path, sizeof path, "%s/a.json", folder);
    assert_string_equal(r.dataset.item[0].path, path);
    assert_string_equal(r.dataset.item[0].rows, "[:7]");
    assert_int_equal(r.dataset.item[0].columns.count, 2);
    assert_string_equal(r.dataset.item[0].columns.item[1], "role_tag=who");
    assert_string_equal(r.dataset.item[1].path, "org/data");
    assert_string_equal(r.dataset.item[2].path, "other.json");
    recipe_free(&r);
    char *words[] = {"--dataset", "x.json,y.json"};
    read_text(&r, text, words, 2);
    assert_null(r.problem);
    assert_int_equal(r.dataset.count, 2);
    assert_string_equal(r.dataset.item[1].path, "y.json");
    recipe_free(&r);
    snprintf(text, sizeof text,
             "model_name_or_path: m\nstage: sft\nfinetuning_type: lora\ncutoff_len: 8\n"
             "dataset_dir: %s\ndataset: pairs,seen\n",
             folder);
    read_text(&r, text, NULL, 0);
    assert_true(refused(&r, "'dataset: pairs' (LLaMA-Factory) changes the result: another obj"));
    assert_true(refused(&r, "'dataset: seen' (LLaMA-Factory) changes the result: a model that"));
    recipe_free(&r);
}

static void test_others(void **state) {
    (void)state;
    struct recipe r;
    expect(&r, "model_name_or_path: m\nmodel_revision: main\ntorch_dtype: bfloat16\n"
               "dataset_mixture:\n  datasets:\n    - {id: a, config: default, split: train_sft, "
               "columns: [messages], weight: 0.5}\n    - {id: b, weight: 1}\n  test_split_size: "
               "1000\n  seed: 0\nlr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs:\n  "
               "min_lr_rate: 0.1\neval_strategy: 'no'\nsave_strategy: epoch\nreport_to:\n- wandb\n-"
               " tensorboard\nwarmup_steps: 0.03\nlogging_steps: 0.1\nlog_level: info\n");
    assert_string_equal(r.tool, "TRL");
    assert_string_equal(r.dataset.item[0].rows, "[:50%]");
    assert_null(r.dataset.item[1].rows);
    assert_true(r.val_set_size == 1000 && r.min_lr_ratio == 0.1 && r.warmup_ratio == 0.03);
    assert_true(r.logging_ratio == 0.1 && !r.assistant_only_loss && r.learning_rate == 2e-5);
    assert_int_equal(r.report_to.count, 1);
    assert_non_null(told(&r, "report_to"));
    recipe_free(&r);
    expect(&r, "output_dir: /tmp/x\ntokenizer:\n  _component_: t.llama3_tokenizer\n  max_seq_len: "
               "null\nmodel:\n  _component_: torchtune.models.llama3.qlora_llama3_8b\n  "
               "lora_attn_modules: ['q_proj', 'output_proj']\n  apply_lora_to_mlp: True\n  "
               "lora_rank: 8\n  lora_alpha: 16\ncheckpointer:\n  _component_: x\n  checkpoint_dir: "
               "/tmp/m\n  checkpoint_files: [a, b]\n  output_dir: ${output_dir}\ndataset:\n  "
               "_component_: torchtune.datasets.alpaca_cleaned_dataset\n  packed: False\n  split: "
               "train[:95%]\nseed: null\nshuffle: True\nbatch_size: 2\noptimizer:\n  _component_: "
               "torch.optim.AdamW\n  lr: 3e-4\n  fused: True\nlr_scheduler:\n  _component_: "
               "torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup\n  "
               "num_warmup_steps: 100\nloss:\n  _component_: "
               "torchtune.modules.loss.LinearCrossEntropyLoss\nepochs: 1\nmax_steps_per_epoch: "
               "null\ndtype: bf16\nprofiler:\n  enabled: False\n  output_dir: ${output_dir}/p\n");
    assert_string_equal(r.tool, "torchtune");
    assert_true(r.use_peft && r.load_in_4bit && r.warmup_steps == 100 && r.learning_rate == 3e-4);
    assert_string_equal(r.model_name_or_path, "/tmp/m");
    assert_string_equal(r.dataset.item[0].path, "yahma/alpaca-cleaned");
    assert_string_equal(r.dataset.item[0].rows, "[:95%]");
    assert_int_equal(r.lora_target_modules.count, 5);
    assert_string_equal(r.lora_target_modules.item[1], "o_proj");
    recipe_free(&r);
    expect(&r, "model: m\ntrain: true\nfine_tune_type: lora\ndata: folder\nnum_layers: -1\n"
               "iters: 600\nval_batches: -1\nlora_parameters: {keys: [self_attn.q_proj], rank: 4, "
               "scale: 20.0, dropout: 0.0}\n");
    assert_true(r.lora_alpha == 80 && r.lora_r == 4 && r.max_steps == 600 && !r.eval_batches);
    assert_string_equal(r.eval_dataset.item[0].path, "folder/valid.jsonl");
    assert_int_equal(r.lora_layers_to_transform.count, 0);
    recipe_free(&r);
    expect(&r, "model: recipes/data/stories260K\nfine_tune_type: lora\ndata: d\nnum_layers: 2\n"
               "iters: 6\n"); /* of 5 layers */
    assert_int_equal(r.lora_layers_to_transform.count, 2);
    assert_string_equal(r.lora_layers_to_transform.item[0], "3");
    recipe_free(&r);
    read_text(&r, "model: nowhere\nfine_tune_type: lora\ndata: d\niters: 6\n", NULL, 0);
    assert_true(refused(&r, "'num_layers: 16' (mlx-lm) changes the result"));
    recipe_free(&r);
}

/* Command lines as other tools have them, and the two ways to name the one data set. */
static void test_command_line(void **state) {
    (void)state;
    struct recipe r;
    char *words[] = {"--learning_rate", "2e-5", "--bf16", "--lora-r=4",
                     "--save_at",       "1",    "2",      "dataset.path=here.jsonl",
                     "--eval_strategy", "no",   "seed=7"};
    read_text(&r, AXOLOTL "datasets: [{path: some/data, type: alpaca}]\n", words, COUNT(words));
    if (r.problem) fail_msg("%s", r.problem->err.primary);
    assert_true(r.learning_rate == 2e-5 && r.lora_r == 4 && r.seed == 7);
    assert_string_equal(r.precision, "bf16");
    assert_int_equal(r.save_at.count, 2);
    assert_string_equal(r.dataset.item[0].path, "here.jsonl");
    recipe_free(&r);
    struct err e = {0};
    read_text(&r, AXOLOTL "datasets: [{path: some/data, type: alpaca}]\n", NULL, 0);
    assert_int_equal(recipe_missing(&r, &e), 0);
    assert_int_equal(r.problems, 2);
    assert_true(refused(&r, "dataset: some/data is not here"));
    assert_non_null(strstr(r.last_problem->err.hint, "dataset.path=PATH"));
    recipe_free(&r);
}

/* Scripts, as ms-swift publishes its examples. */
static void test_script(void **state) {
    (void)state;
    struct recipe r;
    struct err e = {0};
    char script[160];
    static const char text[] =
        "# 17 GB\nnproc=2\n\nCUDA_VISIBLE_DEVICES=0 \\\nswift sft \\\n    --model some/model \\\n"
        "    --tuner_type lora --dataset 'some/data#1000' \"b.jsonl\" \\\n    --learning_rate=1e-4 "
        "\\\n    --target_modules all-linear \\\n    --packing true --attn_impl flash_attn # end\n"
        "swift infer --model x --stream true\n";
    snprintf(script, sizeof script, "%s/train.sh", folder);
    assert_int_equal(file_write(script, text, (i64)strlen(text), &e), 0);
    if (recipe_read(&r, script, NULL, 0, &e) || r.problem)
        fail_msg("%s", r.problem ? r.problem->err.primary : e.primary);
    assert_string_equal(r.tool, "ms-swift");
    assert_string_equal(r.model_name_or_path, "some/model");
    assert_int_equal(r.dataset.count, 2);
    assert_string_equal(r.dataset.item[0].rows, "[:1000]");
    assert_string_equal(r.dataset.item[1].path, "b.jsonl");
    assert_true(r.learning_rate == 1e-4 && r.packing && r.weight_decay == 0.1);
    assert_string_equal(r.task, "sft");
    recipe_free(&r);
    static const char many[] = "NPROC_PER_NODE=4 swift rlhf --rlhf_type dpo --model m --dataset d "
                               "--gradient_accumulation_steps $(expr 16 / 4)\n";
    assert_int_equal(file_write(script, many, (i64)strlen(many), &e), 0);
    assert_int_equal(recipe_read(&r, script, NULL, 0, &e), 0);
    assert_true(refused(&r, "'nproc_per_node: 4' (ms-swift) changes the result: several GPUs"));
    assert_true(refused(&r, "'command: rlhf' (ms-swift) changes the result: another objective"));
    assert_true(refused(&r, "gradient_accumulation_steps = '$(expr 16 / 4)'; expected an integer"));
    recipe_free(&r);
    assert_int_equal(file_write(script, "ls\n", 3, &e), 0);
    assert_int_equal(recipe_read(&r, script, NULL, 0, &e), -1);
    assert_non_null(strstr(e.primary, "train.sh: no command with flags"));
}

/* What is printed is a recipe of ours that says the same. */
static void test_import(void **state) {
    (void)state;
    struct recipe r, again;
    struct err e = {0};
    struct text out = {0};
    expect(&r, AXOLOTL "datasets: [{path: 'a: b', type: alpaca}, {path: c, split: 'train[:5]'}]\n"
                       "val_set_size: 20\nevals_per_epoch: 2\nlora_modules_to_save: [lm_head]\n"
                       "chat_template: jinja\nchat_template_jinja: \"{% for m in messages %}\\n\"\n"
                       "save_strategy: 'no'\nloss_watchdog_threshold: 5\n");
    assert_int_equal(recipe_import(&r, "a.yaml", &out, &e), 0);
    assert_non_null(strstr(out.data, "# a.yaml, of Axolotl, as a recipe of hone\n"));
    assert_non_null(strstr(out.data, "lora_r: 32  # line "));
    assert_non_null(strstr(out.data, "task: sft  # default of Axolotl\n"));
    assert_non_null(strstr(out.data, "#   tf32: true (products of f32 keep f32's bits)\n"));
    assert_null(strstr(out.data, "NOT CARRIED OVER"));
    expect(&again, out.data);
    assert_null(again.tool);
    json_t *a = recipe_json(&r, &e), *b = recipe_json(&again, &e);
    if (!json_equal(a, b)) fail_msg("%s", out.data);
    json_decref(a), json_decref(b);
    text_free(&out), recipe_free(&r), recipe_free(&again);
    read_text(&r, AXOLOTL "datasets: d\nrl: dpo\n", NULL, 0);
    assert_int_equal(recipe_import(&r, "a.yaml", &out, &e), 0);
    assert_non_null(strstr(out.data, "# NOT CARRIED OVER, and it changes the result: 1\n"));
    text_free(&out), recipe_free(&r);
}

/* Damaged recipes: an answer, and where nothing is wrong, what is printed says the same. */
static void test_damaged(void **state) {
    (void)state;
    static const char *const seeds[] = {
        AXOLOTL
        "datasets: [{path: a, type: alpaca, split: 'train[:5]'}]\nval_set_size: 0.1\n"
        "special_tokens: {eos_token: x}\nreport_to: [wandb, csv]\nplugins: [a.LigerPlugin]\n",
        "model_name_or_path: m\nstage: sft\nfinetuning_type: lora\ndataset: a,b\ncutoff_len: 8\n"
        "neat_packing: true\nquantization_bit: 4\nlora_target: all\nwarmup_steps: 0.5\n",
        "model: {_component_: x.lora_y, lora_attn_modules: [q_proj], lora_rank: 4}\noutput_dir: o\n"
        "checkpointer: {checkpoint_dir: '${output_dir}/m'}\ndataset: {_component_: "
        "torchtune.datasets.alpaca_dataset, split: 'train[:5%]'}\noptimizer: {lr: 1e-4}\n"};
    struct rng rng = {.seed = 13, .purpose = RNG_ORDER};
    u64 turn = 0;
    i64 same = 0;
    for (i64 i = 0; i < 1200; i++) {
        char text[2048];
        struct recipe r, again;
        struct err e = {0};
        struct text out = {0};
        i64 size = (i64)strlen(seeds[i % COUNT(seeds)]);
        memcpy(text, seeds[i % COUNT(seeds)], (size_t)size);
        for (i64 k = 0; k < i % 4 && i >= COUNT(seeds); k++) { /* the first as they are */
            const i64 at = (i64)(rng_uniform_f64(&rng, turn++) * (double)size);
            const char to = "0a:{}[],'\n -~#_\"x"[(i64)(rng_uniform_f64(&rng, turn++) * 17)];
            if (i % 3)
                text[at] = to;
            else
                memmove(text + at, text + at + 1, (size_t)(--size - at));
        }
        assert_int_equal(file_write(file, text, size, &e), 0);
        if (recipe_read(&r, file, NULL, 0, &e)) continue;
        if (recipe_import(&r, "r", &out, &e)) fail_msg("%s", e.primary);
        if (i < COUNT(seeds) && r.problem) fail_msg("%s", r.problem->err.primary);
        if (!r.problem) {
            expect(&again, out.data);
            json_t *a = recipe_json(&r, &e), *b = recipe_json(&again, &e);
            if (!json_equal(a, b)) fail_msg("%.*s\n%s", (int)size, text, out.data);
            json_decref(a), json_decref(b), recipe_free(&again), same++;
        }
        text_free(&out), recipe_free(&r);
    }
    assert_true(same > 300); /* of them those that are not changed */
}

/* Ours stay ours, whatever spellings they use. */
static void test_own(void **state) {
    (void)state;
    struct recipe r;
    expect(&r, "model_name_or_path: m\ndataset: d\nsequence_len: 8\nnum_epochs: 2\n"
               "recipe_version: 2\n");
    assert_null(r.tool);
    assert_true(r.packing && !strcmp(r.task, "pretrain"));
    recipe_free(&r);
    expect(&r, "model_name_or_path: m\ndataset: {path: d, split: train}\nlr: 1\n");
    assert_null(r.tool);
    assert_string_equal(r.dataset.item[0].split, "train");
    recipe_free(&r);
    expect(&r, "model_name_or_path: m\ndataset: {path: d, name: en, type: csv}\nlr: 1\n");
    assert_string_equal(r.dataset.item[0].name, "en");
    assert_string_equal(r.dataset.item[0].type, "csv");
    recipe_free(&r);
    expect(&r, AXOLOTL "datasets: [{path: tests/golden, name: en, split: train}, {path: d, name: "
                       "en, split: train}]\n"); /* one is here */
    assert_string_equal(r.dataset.item[0].name, "en");
    assert_string_equal(r.dataset.item[0].split, "train");
    assert_null(r.dataset.item[1].name);
    assert_null(r.dataset.item[1].split);
    recipe_free(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_axolotl), cmocka_unit_test(test_all_at_once),
        cmocka_unit_test(test_factory), cmocka_unit_test(test_factory_names),
        cmocka_unit_test(test_others),  cmocka_unit_test(test_command_line),
        cmocka_unit_test(test_import),  cmocka_unit_test(test_script),
        cmocka_unit_test(test_own),     cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
