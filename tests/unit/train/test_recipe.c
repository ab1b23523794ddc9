/* test_recipe.c: recipes that are read, recipes that are refused with the exact words, and the
 * lock. */
#include "train/recipe/recipe.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[64], file[128];
#define BASE "model_name_or_path: m\ndataset: [{path: d.h5}]\n" /* lines 1 and 2 */

static void put(const char *name, const char *text) {
    struct err e = {0};
    char path[160];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (file_write(path, text, (i64)strlen(text), &e)) fail_msg("%s", e.primary);
}

static int load(struct recipe *r, const char *text, struct err *e, const char *word) {
    put("r.yaml", text);
    char *words[] = {(char *)word};
    return recipe_load(r, file, words, word != NULL, e);
}

static void expect(struct recipe *r, const char *text, const char *word) {
    struct err e = {0};
    if (load(r, text, &e, word)) fail_msg("%s (%s)", e.primary, word ? word : text);
}

/* `message` follows "FILE:" unless it begins with '='. */
static void refuse(const char *text, const char *word, const char *message) {
    struct err e = {0};
    struct recipe r;
    char full[600];
    snprintf(full, sizeof full, "%s%s%s", *message == '=' ? "" : file, *message == '=' ? "" : ":",
             message + (*message == '='));
    if (!load(&r, text, &e, word)) fail_msg("taken: %s %s", text, word ? word : "");
    if (strncmp(e.primary, full, strlen(full)))
        fail_msg("found    '%s'\nexpected '%s'", e.primary, full);
    assert_int_equal(e.code, ERR_INPUT);
}

static void test_defaults(void **state) {
    (void)state;
    struct recipe r;
    expect(&r, BASE, NULL);
    assert_string_equal(r.task, "pretrain");
    assert_string_equal(r.dataset.item[0].path, "d.h5");
    assert_string_equal(r.dataset.item[0].type, "auto");
    assert_true(r.dataset.item[0].weight == 1 && r.learning_rate == 3e-4 && r.adam_beta2 == 0.999);
    assert_int_equal(r.global_batch_size, 8);
    assert_string_equal(r.output_dir, "runs/r");
    assert_string_equal(r.lora_target_modules.item[0], "all-linear");
    assert_null(r.notes.data);
    assert_false(recipe_given(&r, "learning_rate"));
    recipe_free(&r);
}

static void test_everything(void **state) {
    (void)state;
    struct recipe r;
    expect(&r,
           "task: sft\nmodel:\n  model_type: olmo2\n  hidden_size: 256\n  rms_norm_eps: 1e-6\n  "
           "tie: true\n  name: '12'\n"
           "  list: [1, 2.5, ~]\ntokenizer: tok\ndataset:\n  - {path: a.h5, weight: 0.25, type: "
           "tokens}\n  - b.jsonl\n"
           "eval_dataset: c.h5\nmicro_batch_size: 4\nglobal_batch_size: 12\nsave_at: [0, 1, 2, 4]\n"
           "sample_prompts:\n  - \"ROMEO:, what\"\n  - x\nreport_to: [jsonl, csv]\nlearning_rate: "
           "1.5e-3\npacking: false\n"
           "max_steps: -1\nwarmup_ratio: 0.1\nlr_scheduler_type: wsd\nreduction_groups: "
           "4\neval_steps: 5\nseed: 7\n",
           NULL);
    assert_int_equal(json_integer_value(json_object_get(r.model, "hidden_size")), 256);
    assert_true(json_real_value(json_object_get(r.model, "rms_norm_eps")) == 1e-6);
    assert_true(json_is_true(json_object_get(r.model, "tie")));
    assert_true(json_is_string(json_object_get(r.model, "name")));
    assert_true(json_is_null(json_array_get(json_object_get(r.model, "list"), 2)));
    assert_int_equal(r.dataset.count, 2);
    assert_string_equal(r.dataset.item[1].path, "b.jsonl");
    assert_string_equal(r.eval_dataset.item[0].path, "c.h5");
    assert_int_equal(r.gradient_accumulation_steps, 3);
    assert_int_equal(r.save_at.count, 4);
    assert_int_equal(r.save_at.item[3], 4);
    assert_string_equal(r.sample_prompts.item[0], "ROMEO:, what");
    assert_int_equal(r.max_steps, 0);
    assert_true(recipe_given(&r, "learning_rate"));
    recipe_free(&r);
}

static void test_overrides(void **state) {
    (void)state;
    struct recipe r;
    const char *text = "model: {hidden_size: 1, rope: {theta: 2}}\ndataset: [{path: a}, {path: b, "
                       "split: x}]\nlr: 1e-3\n";
    char *words[] = {"model.hidden_size=256",   "model.rope.theta=5e5",
                     "model.new.deep=on",       "dataset.1.path=c",
                     "dataset.2.path=d",        "learning_rate=2e-3",
                     "save_at=1,2,3",           "per_device_train_batch_size=2",
                     "report_to=[jsonl]",       "micro_batch_size=3",
                     "sample_prompts=\"a, b\"", "optim="};
    struct err e = {0};
    put("r.yaml", text);
    if (recipe_load(&r, file, words, COUNT(words), &e)) fail_msg("%s", e.primary);
    assert_int_equal(json_integer_value(json_object_get(r.model, "hidden_size")), 256);
    assert_true(json_real_value(json_object_get(json_object_get(r.model, "rope"), "theta")) == 5e5);
    assert_string_equal(json_string_value(json_object_get(json_object_get(r.model, "new"), "deep")),
                        "on");
    assert_int_equal(r.dataset.count, 3);
    assert_string_equal(r.dataset.item[1].path, "c");
    assert_string_equal(r.dataset.item[1].split, "x");
    assert_string_equal(r.dataset.item[2].path, "d");
    assert_true(r.learning_rate == 2e-3);
    assert_int_equal(r.save_at.count, 3);
    assert_int_equal(r.micro_batch_size, 3);
    assert_int_equal(r.sample_prompts.count, 1);
    recipe_free(&r);
    expect(&r, BASE "learning_rate: 1\n", "learning_rate=");
    assert_true(r.learning_rate == 3e-4);
    recipe_free(&r);
    expect(&r, "model: a\n", "dataset.0.path=x");
    assert_string_equal(r.dataset.item[0].path, "x");
    recipe_free(&r);
    refuse(BASE, "dataset.5.path=x", "=command line: 'dataset.5.path': '5' is no place in a list");
    refuse(BASE, "dataset.a.path=x", "=command line: 'dataset.a.path': 'a' is no place in a list");
    refuse(BASE, "dataset.0.pth=x", "=command line: unknown key 'pth'; did you mean 'path'?");
    refuse(BASE, "learning_rate", "=command line: 'learning_rate' is not key=value");
    refuse(BASE, "learning_rte=1",
           "=command line: unknown key 'learning_rte'; did you mean 'learning_rate'?");
    refuse(BASE "seed: 1\n", "seed.x=1", "=command line: 'seed.x': there is nothing below 'seed'");
    refuse(BASE, "include=x", "=command line: 'include' belongs into a recipe");
}

static void test_aliases(void **state) {
    (void)state;
    struct recipe r;
    expect(&r,
           "base_model: m\ndatasets:\n  - path: a\nadapter: lora\nlora_r: 8\nlora_target_linear: "
           "true\nsequence_len: 64\n"
           "sample_packing: true\ntrain_on_inputs: false\nnum_epochs: 2\noptimizer: "
           "adamw_torch\nlr_scheduler: cosine\n"
           "bf16: auto\nload_in_4bit: "
           "false\nload_in_8bit:\nresume_from_checkpoint:\nmicro_batch_size: 2\n",
           NULL); /* Axolotl */
    assert_true(r.use_peft && r.packing && r.completion_only_loss && r.num_train_epochs == 2);
    assert_string_equal(r.precision, "bf16");
    assert_string_equal(r.optim, "adamw");
    assert_string_equal(r.lora_target_modules.item[0], "all-linear");
    assert_non_null(
        strstr(r.notes.data, "r.yaml:1: 'base_model' (Axolotl) is read as 'model_name_or_path'\n"));
    recipe_free(&r);
    expect(&r,
           "model_name_or_path: m\nstage: sft\ndataset: a\nfinetuning_type: lora\nlora_rank: "
           "8\nlora_target: all\n"
           "cutoff_len: 64\ntrain_on_prompt: true\nper_device_train_batch_size: "
           "2\nresume_from_checkpoint: true\n",
           NULL); /* LLaMA-Factory */
    assert_true(r.use_peft && !r.completion_only_loss && r.lora_r == 8);
    assert_string_equal(r.task, "sft");
    assert_string_equal(r.resume_from_checkpoint, "auto");
    recipe_free(&r);
    expect(&r, BASE "lora_r: 4\n", NULL);
    assert_non_null(strstr(r.notes.data, "'lora_r' has no effect without 'use_peft: true'"));
    recipe_free(&r);
    refuse(BASE "max_seq_length: 8\ncutoff_len: 16\n", NULL,
           "4: 'cutoff_len' is another name of 'max_seq_length', already given at ");
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } rows[] = {
        {BASE "learning_rat: 1\n", "3: unknown key 'learning_rat'; did you mean 'learning_rate'?"},
        {BASE "zzzzzzzzzzzzzz: 1\n", "3: unknown key 'zzzzzzzzzzzzzz'"},
        {BASE "datset: x\n", "3: unknown key 'datset'; did you mean 'dataset'?"},
        {BASE "load_in_8bit: true\n", "3: quantize: q8_0 needs use_peft: true"},
        {BASE "deepspeed: z3.json\n", "3: 'deepspeed: z3.json' changes the result: several GPUs"},
        {BASE "load_in_4bit: true\n", "3: load_in_4bit needs use_peft: true"},
        {BASE "use_peft: true\nloraplus_lr_embedding: 1e-5\n",
         "4: loraplus_lr_embedding without loraplus_lr_ratio"},
        {BASE "use_peft: true\nload_in_4bit: true\nbnb_4bit_compute_dtype: bf16\n",
         "5: bnb_4bit_compute_dtype: bfloat16 with precision: fp32"},
        {BASE "task: dpo\n", "3: 'task: dpo' is not available in this version"},
        {BASE "precision: fp8\n", "3: 'precision: fp8' is not available in this version"},
        {BASE "adapter: x\n", "3: 'adapter: x' has no counterpart"},
        {BASE "report_to: [pigeon]\n",
         "3: 'report_to': found 'pigeon', expected jsonl, tensorboard or csv"},
        {BASE "learning_rate: fast\n", "3: learning_rate = 'fast'; expected a number"},
        {BASE "learning_rate: [1]\n", "3: 'learning_rate': found a list, expected one value"},
        {BASE "save_at: {a: 1}\n", "3: 'save_at': found a mapping, expected a list"},
        {BASE "save_at: [[1]]\n", "3: 'save_at': found a list, expected a number"},
        {BASE "lora_r: 1.5\n", "3: lora_r = '1.5'; expected an integer"},
        {BASE "lora_r: 0\n", "3: lora_r = 0 is out of range: 1 to 65536"},
        {BASE "packing: maybe\n", "3: packing = 'maybe'; expected true or false"},
        {BASE "optim: adamm\n", "3: optim = 'adamm'; expected a known choice"},
        {BASE "dataset: [x]\n", "3: duplicate key 'dataset', already given at "},
        {BASE "model: {a: 1}\n", "1: both 'model' and 'model_name_or_path'"},
        {BASE "model: [a]\n", "3: 'model' is a mapping, as in config.json"},
        {"dataset: x\n", "= no model"},
        {"model: m\n", "= no dataset"},
        {"model: m\ndataset: [{weight: 1}]\n", "2: 'dataset.0' has no path"},
        {"model: m\ndataset: [{path: a, weight: -1}]\n",
         "2: weight = -1 is out of range: 1e-09 to 1000000000"},
        {"model: m\ndataset: [[a]]\n",
         "2: 'dataset.0': found a list, expected a path or a mapping"},
        {"model: {a: 1}\ndataset: x\nuse_peft: true\n",
         "3: use_peft adapts a trained model: give model_name_or_path"},
        {BASE "micro_batch_size: 4\nglobal_batch_size: 6\n",
         "4: global_batch_size 6 is not a multiple of micro_batch_size 4"},
        {BASE "micro_batch_size: 4\nglobal_batch_size: 8\ngradient_accumulation_steps: 3\n",
         "4: global_batch_size 8 is not micro_batch_size 4 x gradient_accumulation_steps 3"},
        {BASE "reduction_groups: 3\n", "3: reduction_groups 3 is not a power of two"},
        {BASE "reduction_groups: 16\n",
         "3: global_batch_size 8 does not divide into 16 reduction_groups"},
        {BASE "warmup_steps: 3\nwarmup_ratio: 0.1\n", "4: both warmup_steps and warmup_ratio"},
        {BASE "master_weights: false\n", "3: master_weights: false goes with precision: bf16 only"},
        {BASE "eval_steps: 3\n", "3: eval_steps needs an eval_dataset"},
        {BASE "include: nothing.yaml\n", ""},
        {BASE "include: [a]\n", "3: 'include' names one file"},
        {"- a\n- b\n", "1: a recipe is a mapping of keys to values"},
        {"", "= empty"},
        {"# only this\n", "= empty"},
        {"a: b: c\n", "1:5: mapping values are not allowed in this context"},
        {"a: [1\n", ""},
        {"a: \"\\0\"\n", "1: a value holds a zero byte"},
        {"? [a]\n: 1\n", "1: a key must be a plain word"},
        {BASE "---\na: 1\n", "4: a second YAML document"},
        {"a: &x [*x]\n", "1: too many or too deeply nested values"},
        {"a: \xff\n", ""},
    };
    for (i64 i = 0; i < COUNT(rows); i++) {
        struct err e = {0};
        struct recipe r;
        char full[600];
        const char *m = rows[i].message;
        snprintf(full, sizeof full, "%s:%s", file, m + (*m == '='));
        if (!load(&r, rows[i].text, &e, NULL)) fail_msg("taken: %s", rows[i].text);
        if (*m && strncmp(e.primary, full, strlen(full)))
            fail_msg("found    '%s'\nexpected '%s'", e.primary, full);
        assert_int_equal(e.code, ERR_INPUT);
    }
}

static void test_bomb(void **state) {
    (void)state;
    refuse("a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c "
           "[*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
           "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n",
           NULL, "1: too many or too deeply nested values");
}

static void test_include(void **state) {
    (void)state;
    struct recipe r;
    put("base.yaml",
        "model: {hidden_size: 1, layers: 2}\nlearning_rate: 1\nseed: 5\ndataset: [a, b]\n");
    expect(&r, "include: base.yaml\nmodel: {layers: 9}\nlr: 2\ndataset: c\n", "seed=6");
    assert_int_equal(json_integer_value(json_object_get(r.model, "hidden_size")), 1);
    assert_int_equal(json_integer_value(json_object_get(r.model, "layers")), 9);
    assert_true(r.learning_rate == 2 && r.seed == 6);
    assert_int_equal(r.dataset.count, 1);
    recipe_free(&r);
    put("base.yaml", "include: r.yaml\n");
    struct err e = {0};
    assert_int_equal(load(&r, "include: base.yaml\n", &e, NULL), -1);
    assert_non_null(strstr(e.primary, "r.yaml: includes itself"));
    put("base.yaml", "learning_rat: 1\n");
    e = (struct err){0};
    assert_int_equal(load(&r, BASE "include: base.yaml\n", &e, NULL), -1);
    assert_non_null(strstr(e.primary, "base.yaml:1: unknown key 'learning_rat'"));
    assert_non_null(strstr(e.frame[0], "r.yaml:3"));
}

static void test_help(void **state) {
    (void)state;
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    assert_int_equal(recipe_help(f), 0);
    fclose(f);
    for (const struct option *o = recipe_options; o->key; o++)
        assert_non_null(strstr(text, o->key));
    assert_non_null(strstr(text, "sequence_len"));
    free(text);
}

/* ---- lock ------------------------------------------------------------------------------------ */
static void test_lock_round_trip(void **state) {
    (void)state;
    struct err e = {0};
    struct recipe r, back;
    struct lock_files files = {0};
    char sha[65], sha2[65], run[96];
    snprintf(run, sizeof run, "%s/run", dir);
    expect(&r,
           "model: {rms_norm_eps: 1e-5, big: 9007199254740993, s: \"\\u00e9\\n\"}\ndataset: "
           "[{path: a, weight: 0.1}]\n"
           "micro_batch_size: 2\nglobal_batch_size: 6\nlr: 0.0003\nsave_at: [0, "
           "1]\nsample_prompts: [\"a, b\", '']\n",
           NULL);
    assert_int_equal(lock_files_add(&files, "data", file, &e), 0);
    assert_int_equal(lock_write(run, &r, &files, sha, &e), 0);
    if (lock_read(&back, run, sha2, &e)) fail_msg("%s", e.primary);
    assert_string_equal(sha, sha2);
    json_t *a = recipe_json(&r, &e), *b = recipe_json(&back, &e);
    assert_true(json_equal(a, b));
    assert_true(back.learning_rate == 3e-4);
    assert_int_equal(back.gradient_accumulation_steps, 3);
    json_decref(a), json_decref(b);
    recipe_free(&back);
    char lock[128]; /* a lock is a recipe, too */
    snprintf(lock, sizeof lock, "%s/recipe.lock", run);
    char *words[] = {"output_dir=elsewhere"};
    if (recipe_load(&back, lock, words, 1, &e)) fail_msg("%s", e.primary);
    assert_string_equal(back.output_dir, "elsewhere");
    assert_string_equal(back.sample_prompts.item[0], "a, b");
    assert_int_equal(json_integer_value(json_object_get(back.model, "big")), 9007199254740993);
    recipe_free(&back), recipe_free(&r), lock_files_free(&files);
}

static int compare(const char *text, const char *word, struct text *notes, struct err *e) {
    struct recipe now;
    struct lock_files files = {0};
    char run[96], data[128];
    snprintf(run, sizeof run, "%s/run", dir), snprintf(data, sizeof data, "%s/data", dir);
    expect(&now, text, word);
    assert_int_equal(lock_files_add(&files, "data", data, e), 0);
    int rc = lock_compare(run, &now, &files, notes, e);
    recipe_free(&now), lock_files_free(&files);
    return rc;
}

static void test_lock_compare(void **state) {
    (void)state;
    struct err e = {0};
    struct recipe r;
    struct text notes = {0};
    struct lock_files files = {0};
    char sha[65], run[96], data[128];
    snprintf(run, sizeof run, "%s/run", dir), snprintf(data, sizeof data, "%s/data", dir);
    dir_make(data, &e);
    put("data/a", "one"), put("data/b", "two");
    const char *text =
        BASE "micro_batch_size: 4\ngradient_accumulation_steps: 2\nmax_steps: 8\nlr: 1e-3\n";
    expect(&r, text, NULL);
    assert_int_equal(lock_files_add(&files, "data", data, &e), 0);
    assert_int_equal(json_array_size(files.list), 2);
    assert_int_equal(lock_write(run, &r, &files, sha, &e), 0);
    recipe_free(&r), lock_files_free(&files);

    assert_int_equal(compare(text, NULL, &notes, &e), 0);
    assert_null(notes.data);
    assert_int_equal(compare(text, "max_steps=16", &notes, &e), 0);
    assert_string_equal(notes.data, "max_steps: 8 in the run so far, 16 from here on; the learning "
                                    "rate follows the new length\n");
    text_free(&notes);
    static const char *const same[] = {"save_steps=3", "output_dir=x", "eval_batches=2",
                                       "resume_from_checkpoint=auto"};
    for (i64 i = 0; i < COUNT(same); i++) assert_int_equal(compare(text, same[i], &notes, &e), 0);
    const char *resplit =
        BASE "micro_batch_size: 2\ngradient_accumulation_steps: 4\nmax_steps: 8\nlr: 1e-3\n";
    assert_int_equal(compare(resplit, NULL, &notes, &e), 0); /* R3: the same bits */
    assert_int_equal(compare(text, "lr=2e-3", &notes, &e), -1);
    assert_string_equal(
        e.primary, "cannot resume: 'learning_rate' was 0.001 when the run began and is 0.002 now");
    e = (struct err){0};
    assert_int_equal(compare(text, "tokenizer=x", &notes, &e), -1);
    assert_string_equal(
        e.primary, "cannot resume: 'tokenizer' was (unset) when the run began and is \"x\" now");
    e = (struct err){0};
    put("data/b", "TWO");
    assert_int_equal(compare(text, NULL, &notes, &e), -1);
    assert_non_null(strstr(e.primary, "/data/b changed since the run began"));
    e = (struct err){0};
    remove(strcat(data, "/b"));
    assert_int_equal(compare(text, NULL, &notes, &e), -1);
    assert_non_null(strstr(e.primary, "/data/b was part of the run and is not now"));
    text_free(&notes);
}

static void test_lock_replaced(void **state) {
    (void)state;
    struct err e = {0};
    struct recipe r;
    struct lock_files files = {0};
    char first[65], second[65], third[65], path[160];
    expect(&r, BASE, NULL);
    assert_int_equal(lock_write(dir, &r, &files, first, &e), 0);
    assert_int_equal(lock_write(dir, &r, &files, third, &e), 0);
    assert_string_equal(first, third);
    snprintf(path, sizeof path, "%s/recipe.lock.%.8s", dir, first);
    assert_false(path_exists(path));
    r.max_steps = 99;
    assert_int_equal(lock_write(dir, &r, &files, second, &e), 0);
    assert_int_equal(sha256_file(path, third, &e), 0);
    assert_string_equal(first, third);
    recipe_free(&r);
#define FORMAT "{\"format\":\"hone recipe lock 1\""
#define REST   ",\"environment\":{},\"files\":[]}"
    static const char *const bad[] = {"",
                                      "[]",
                                      "{}",
                                      "{\"format\":1}",
                                      (FORMAT "}"),
                                      (FORMAT ",\"recipe\":{}" REST),
                                      (FORMAT ",\"recipe\":{\"lr\":{}}" REST)};
    for (i64 i = 0; i < COUNT(bad); i++) {
        e = (struct err){0};
        put("recipe.lock", bad[i]);
        assert_int_equal(lock_read(&r, dir, third, &e), -1);
        assert_int_equal(e.code, ERR_INPUT);
        assert_non_null(strstr(e.primary, "recipe.lock"));
    }
}

static void test_faults(void **state) {
    (void)state;
    static const char *const kinds[] = {"alloc", "open", "read", "write", "fsync", "rename"};
    put("r.yaml",
        "include: b.yaml\nlr: 1\nsave_at: [1, 2]\nsample_prompts: [a, b]\nsequence_len: 4\n");
    put("b.yaml", "model: {a: [1, {b: c}]}\ndataset: [x, {path: y}]\n");
    char *words[] = {"model.a=4", "dataset.1.weight=2"};
    for (i64 k = 0; k < COUNT(kinds); k++)
        for (int n = 1, failed = 1; failed && n < 200; n++) {
            struct err e = {0};
            struct recipe r;
            struct lock_files files = {0};
            char spec[32], sha[65];
            snprintf(spec, sizeof spec, "%s:%d", kinds[k], n);
            fault_arm(spec);
            failed = recipe_load(&r, file, words, 2, &e) != 0;
            if (!failed) {
                failed = lock_write(dir, &r, &files, sha, &e) != 0;
                recipe_free(&r);
            }
            fault_arm(NULL);
            assert_int_equal(failed, e.code != 0);
        }
}

static int setup(void **state) {
    (void)state;
    strcpy(dir, "/tmp/hone-recipe-XXXXXX");
    if (!mkdtemp(dir)) return -1;
    snprintf(file, sizeof file, "%s/r.yaml", dir);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    struct err e = {0};
    return dir_remove(dir, &e);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
/* The recipes of the model families: each kind for each family, and all keys are known. */
static void family_recipes(void **state) {
    (void)state;
    static const char *const family[] = {"llama", "mistral", "qwen",     "gemma",   "phi",
                                         "olmo",  "mixtral", "qwen-moe", "deepseek"},
                             *const kind[] = {"lora", "qlora", "full"};
    for (int f = 0; f < COUNT(family); f++)
        for (int k = 0; k < COUNT(kind); k++) {
            struct recipe r = {0};
            struct err e = {0};
            char path[128];
            snprintf(path, sizeof path, "recipes/families/%s-%s.yaml", family[f], kind[k]);
            if (recipe_load(&r, path, NULL, 0, &e)) fail_msg("%s: %s", path, e.primary);
            assert_int_equal(r.use_peft, k < 2);
            assert_int_equal(r.load_in_4bit, k == 1);
            assert_int_equal(r.notes.size, 0);
            assert_true(r.model_name_or_path && !strncmp(r.model_name_or_path, "models/", 7));
            recipe_free(&r);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(family_recipes),
        TEST(test_defaults),
        TEST(test_everything),
        TEST(test_overrides),
        TEST(test_aliases),
        TEST(test_refused),
        TEST(test_bomb),
        TEST(test_include),
        TEST(test_help),
        TEST(test_lock_round_trip),
        TEST(test_lock_compare),
        TEST(test_lock_replaced),
        TEST(test_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
