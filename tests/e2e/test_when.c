/* test_when.c: when a run evaluates, saves and ends, which rows it reads, and what `hone import`
 * and `hone inspect` say of recipes of others. */
#include "tests/e2e/tiny_run.h"

#define RUN                                                                                        \
    "train %s/full.yaml dataset.0.path=%s/sft.jsonl tokenizer=" TINY_TOKENIZER " packing=false "   \
    "global_batch_size=4 micro_batch_size=4 --quiet "

static i64 documents_of(const char *path) {
    struct err e = {0};
    struct dataset *d = dataset_open(path, &e);
    if (!d) fail_msg("%s", e.primary);
    const i64 n = dataset_info(d)->documents;
    dataset_close(d);
    return n;
}

/* "1 3 4": the steps of the log that were evaluated, or the checkpoints. */
static const char *evaluated(const char *run) {
    static char line[256];
    struct log_rows rows = log_of(run);
    size_t n = 0;
    *line = 0;
    for (i64 i = 0; i < rows.count; i++)
        if (rows.row[i].evaluated)
            n += (size_t)snprintf(line + n, sizeof line - n, "%s%lld", n ? " " : "",
                                  (long long)rows.row[i].step);
    log_rows_free(&rows);
    return line;
}
static const char *saved(const char *run) {
    static char line[256];
    struct checkpoint_list list = {0};
    struct err e = {0};
    size_t n = 0;
    *line = 0;
    assert_int_equal(0, checkpoint_list(run, &list, &e));
    for (i64 i = 0; i < list.count; i++)
        n += (size_t)snprintf(line + n, sizeof line - n, "%s%lld", n ? " " : "",
                              (long long)list.step[i]);
    mem_free(list.step);
    return line;
}

static void test_rows(void **state) {
    (void)state;
    hone(0, RUN "max_steps=1 val_set_size=20 output_dir=%s", tiny, tiny, at("a"));
    const i64 all = 118; /* rows of sft.jsonl */
    assert_int_equal(documents_of(at("sft.h5")), all);
    assert_int_equal(documents_of(at("a/data/eval-0.h5")), 20);
    assert_int_equal(documents_of(at("a/data/train-0.h5")), all - 20);
    hone(0, RUN "max_steps=2 val_set_size=20 output_dir=%s resume_from_checkpoint=auto", tiny, tiny,
         at("a"));
    hone(0, RUN "max_steps=1 val_set_size=0.5 max_samples=50 output_dir=%s", tiny, tiny, at("b"));
    const i64 held = documents_of(at("b/data/eval-0.h5"));
    assert_in_range(held, 10, 40);
    assert_int_equal(documents_of(at("b/data/train-0.h5")), 50 - held);
    static const struct {
        const char *rows;
        i64 count;
    } slices[] = {{"[:5]", 5}, {"[:10%]", 12}, {"[-7:]", 7}, {"[25%:50%]", 29}, {"[116:]", 2}};
    for (i64 i = 0; i < COUNT(slices); i++) {
        hone(0, RUN "max_steps=1 dataset.rows='%s' output_dir=%s", tiny, tiny, slices[i].rows,
             at("s%d", (int)i));
        assert_int_equal(documents_of(at("s%d/data/train-0.h5", (int)i)), slices[i].count);
    }
    /* a folder: its files are one after the other */
    shell("mkdir %s/folder; head -10 %s/sft.jsonl > %s/folder/a.jsonl; head -20 %s/sft.jsonl > "
          "%s/folder/b.jsonl",
          tiny, tiny, tiny, tiny, tiny);
    hone(0,
         "train %s/full.yaml dataset=%s/folder tokenizer=" TINY_TOKENIZER
         " packing=false --quiet max_steps=1 dataset.rows='[5:15]' output_dir=%s",
         tiny, tiny, at("f1"));
    assert_int_equal(documents_of(at("f1/data/train-0.h5")), 10);
    hone(0,
         "train %s/full.yaml dataset=%s/folder tokenizer=" TINY_TOKENIZER
         " packing=false --quiet max_steps=1 val_set_size=4 output_dir=%s",
         tiny, tiny, at("f2"));
    assert_int_equal(documents_of(at("f2/data/train-0.h5")), 26);
    assert_int_equal(documents_of(at("f2/data/eval-0.h5")), 4);
    hone(2, RUN "max_steps=1 dataset.0.rows=5 output_dir=%s", tiny, tiny, at("c"));
    expect(complained(), "rows: found '5'");
    hone(2, RUN "max_steps=1 val_set_size=500 output_dir=%s", tiny, tiny, at("c"));
    expect(complained(), "val_set_size: 500 rows held out of 118 leave none to train");
    hone(2, RUN "max_steps=1 val_set_size=5 eval_dataset=%s output_dir=%s", tiny, tiny,
         at("sft.jsonl"), at("c"));
    expect(complained(), "both val_set_size and eval_dataset");
}

static void test_tokens(void **state) {
    (void)state;
    hone(2, RUN "max_steps=1 eos_token=\"'<nowhere>'\" output_dir=%s", tiny, tiny, at("t"));
    expect(complained(), "eos_token: '<nowhere>' is no token of " TINY_TOKENIZER);
    hone(2, RUN "max_steps=1 eos_token=a output_dir=%s", tiny, tiny, at("t"));
    expect(complained(), "eos_token: 'a' is another token than that of " TINY_TOKENIZER);
    hone(0, RUN "max_steps=1 eos_token='<|endoftext|>' unk_token=a output_dir=%s", tiny, tiny,
         at("t"));
    hone(2, RUN "max_steps=1 output_router_logits=true output_dir=%s", tiny, tiny, at("t2"));
    expect(complained(), "output_router_logits: a olmo2 model has no balancing loss");
}

static void test_order(void **state) {
    (void)state;
    hone(0, RUN "max_steps=1 shuffle=false seed=1 output_dir=%s", tiny, tiny, at("o1"));
    hone(0, RUN "max_steps=1 shuffle=false seed=2 output_dir=%s", tiny, tiny, at("o2"));
    struct log_rows a = log_of(at("o1")), b = log_of(at("o2"));
    assert_string_equal(a.row[a.count - 1].batch, b.row[b.count - 1].batch);
    log_rows_free(&a), log_rows_free(&b);
}

static void test_moments(void **state) {
    (void)state; /* 40 rows, 10 steps an epoch */
    const char *eval = at("eval.jsonl"), *epochs = "max_steps=0 num_train_epochs=2 max_samples=40";
    shell("head -12 %s > %s", at("sft.jsonl"), eval);
    hone(0, RUN "%s eval_dataset.0.path=%s eval_strategy=epoch save_strategy=epoch output_dir=%s",
         tiny, tiny, epochs, eval, at("m1"));
    assert_string_equal(evaluated(at("m1")), "0 10 20");
    assert_string_equal(saved(at("m1")), "10 20");
    hone(0, RUN "%s eval_dataset.0.path=%s evals_per_epoch=2 saves_per_epoch=4 output_dir=%s", tiny,
         tiny, epochs, eval, at("m2"));
    assert_string_equal(evaluated(at("m2")), "0 5 10 15 20");
    assert_string_equal(saved(at("m2")), "3 6 9 12 15 18 20");
    hone(0, RUN "%s eval_dataset.0.path=%s eval_strategy=no save_steps=0.4 output_dir=%s", tiny,
         tiny, epochs, eval, at("m3"));
    assert_string_equal(evaluated(at("m3")), "");
    assert_string_equal(saved(at("m3")), "8 16 20");
    hone(0, RUN "%s save_strategy=no save_steps=3 warmup_steps=0.1 output_dir=%s", tiny, tiny,
         epochs, at("m4"));
    assert_string_equal(saved(at("m4")), "20");
    struct log_rows rows = log_of(at("m4"));
    assert_true(rows.row[2].lr == 3e-3 && rows.row[1].lr == 1.5e-3); /* two steps of warm-up */
    log_rows_free(&rows);
    hone(2, RUN "%s load_best_model_at_end=true output_dir=%s", tiny, tiny, epochs, at("m5"));
    expect(complained(), "load_best_model_at_end needs evaluations");
}

#define STILL "learning_rate=0 eval_dataset.0.path=%s/eval.jsonl eval_steps=1 max_steps=8 "

static void test_best(void **state) {
    (void)state;
    hone(0,
         "train %s/full.yaml dataset.0.path=%s/sft.jsonl tokenizer=" TINY_TOKENIZER
         " packing=false global_batch_size=4 micro_batch_size=4 " STILL
         "early_stopping_patience=2 load_best_model_at_end=true save_total_limit=1 output_dir=%s",
         tiny, tiny, tiny, at("e1"));
    expect(said(), "stopped early: 2 evaluations in a row were not better");
    expect(said(), "best: step 1, validation loss ");
    assert_string_equal(evaluated(at("e1")), "0 1 2 3");
    assert_string_equal(saved(at("e1")), "3");
    assert_int_equal(manifest_of(at("e1/best")).step, 1);
    hone(0, "eval %s --data %s/sft.h5", at("e1/best"), tiny);
    hone(0, "verify %s", at("e1"));
    /* in two parts: it stops where the whole one did, and is not gone on with */
    hone(0,
         RUN STILL "early_stopping_patience=2 save_steps=1 lr_scheduler_type=constant "
                   "max_steps=2 output_dir=%s",
         tiny, tiny, tiny, at("e2"));
    for (int i = 0; i < 2; i++) {
        hone(0,
             RUN STILL "early_stopping_patience=2 save_steps=1 lr_scheduler_type=constant "
                       "output_dir=%s resume_from_checkpoint=auto",
             tiny, tiny, tiny, at("e2"));
        assert_string_equal(saved(at("e2")), "1 2 3");
    }
    /* another bar, and nothing is better than 1e9 less */
    hone(0,
         RUN STILL "learning_rate=1e-3 early_stopping_patience=1 "
                   "early_stopping_threshold=1e9 output_dir=%s",
         tiny, tiny, tiny, at("e3"));
    assert_string_equal(saved(at("e3")), "2");
    hone(0, RUN STILL "learning_rate=1e-3 save_strategy=best output_dir=%s", tiny, tiny, tiny,
         at("e4"));
    assert_string_equal(saved(at("e4")), "1 2 3 4 5 6 7 8");
    hone(1, RUN STILL "loss_watchdog_threshold=0.01 loss_watchdog_patience=2 output_dir=%s", tiny,
         tiny, tiny, at("e5"));
    expect(complained(), "the loss was above loss_watchdog_threshold, 0.01, for 2 steps");
    assert_string_equal(saved(at("e5")), "2");
}

static void test_only_model(void **state) {
    (void)state;
    hone(0, RUN "max_steps=2 save_only_model=true output_dir=%s", tiny, tiny, at("w"));
    assert_false(path_exists(at("w/checkpoints/step-000002/state.h5")));
    hone(0, "verify %s", at("w"));
    hone(0, "eval %s --data %s/sft.h5", at("w/checkpoints/step-000002"), tiny);
    hone(2, RUN "max_steps=4 save_only_model=true output_dir=%s resume_from_checkpoint=auto", tiny,
         tiny, at("w"));
    expect(complained(), "was saved with save_only_model: true: no run can go on from it");
}

/* Texts that are gone matter to a run that begins, not to one that goes on. */
static void test_gone(void **state) {
    (void)state;
    static const char two[] = "train %s/full.yaml tokenizer=" TINY_TOKENIZER " packing=false "
                              "dataset.0.path=%s/one.jsonl dataset.1.path=%s/two.jsonl --quiet "
                              "output_dir=%s/gone max_steps=%d %s";
    shell("cp %s/sft.jsonl %s/one.jsonl; cp %s/sft.jsonl %s/two.jsonl", tiny, tiny, tiny, tiny);
    hone(0, two, tiny, tiny, tiny, tiny, 1, "");
    shell("rm %s/one.jsonl %s/two.jsonl", tiny, tiny);
    hone(0, two, tiny, tiny, tiny, tiny, 2, "resume_from_checkpoint=auto");
    shell("rm -r %s/gone", tiny);
    hone(2, two, tiny, tiny, tiny, tiny, 1, "");
    expect(complained(), "two.jsonl is not here");
    expect(complained(), "2 problems, all of them above");
}

static i64 planned(const char *more) {
    hone(0,
         "train %s/full.yaml packing=false dataset.0.path=%s/few.h5 max_steps=2 output_dir=%s %s",
         tiny, tiny, at("planned"), more);
    const char *peak = strstr(said(), "planned peak ");
    assert_non_null(peak);
    assert_int_equal(0, dir_remove(at("planned"), &(struct err){0}));
    return strtoll(peak + 13, NULL, 10);
}

/* Memory is planned for the samples that a step can have, and for those of an evaluation. */
static void test_planned(void **state) {
    (void)state;
    assert_int_equal(0, shell("head -n 3 %s > %s", at("sft.jsonl"), at("few.jsonl")));
    hone(0, "tokenize %s --tokenizer " TINY_TOKENIZER " --output %s --quiet", at("few.jsonl"),
         at("few.h5"));
    char eval[600];
    snprintf(eval, sizeof eval, "global_batch_size=96 micro_batch_size=96 eval_dataset.0.path=%s",
             at("sft.h5"));
    const i64 few = planned("global_batch_size=3 micro_batch_size=3");
    assert_int_equal(few, planned("global_batch_size=96 micro_batch_size=96"));
    assert_true(planned("global_batch_size=96 micro_batch_size=96 recipe_version=1") > 4 * few);
    assert_true(planned(eval) > 2 * few);
}

static void test_others(void **state) {
    (void)state;
    const char text[] = "base_model: org/model\ndatasets: [{path: org/data, type: alpaca}]\n"
                        "adapter: lora\nsequence_len: 64\nnum_epochs: 1\nval_set_size: 0.1\n"
                        "lora_r: 4\nlora_alpha: 8\nmicro_batch_size: 2\nlearning_rate: 1e-4\n"
                        "wandb_project:\ntf32: true\n";
    put(at("ax.yaml"), text, (i64)strlen(text));
    hone(0, "import %s", at("ax.yaml"));
    expect(said(), "max_seq_length: 64  # line 4\n");
    hone(0, "inspect %s", at("ax.yaml"));
    expect(complained(), "model_name_or_path: org/model is not here");
    expect(complained(), "dataset: org/data is not here");
    expect(complained(), "then dataset.path=PATH");
    hone(2, "train %s", at("ax.yaml"));
    expect(complained(), "2 problems, all of them above");
    hone(1, "import %s rl=dpo --fsdp full_shard", at("ax.yaml"));
    expect(said(), "# NOT CARRIED OVER, and it changes the result: 2\n");
    hone(2, "import %s", at("nothing.yaml"));
    hone(2, "train %s base_model=recipes/data/stories260K dataset.path=%s output_dir=%s",
         at("ax.yaml"), at("sft.jsonl"), at("no"));
    expect(complained(), "sft.jsonl:1: the row has no 'instruction'"); /* type: alpaca says so */
    /* what is printed runs */
    static const char rows[] = "{\"instruction\": \"say\", \"input\": \"x\", \"output\": \"y\"}\n"
                               "{\"instruction\": \"say it\", \"output\": \"it\"}\n";
    put(at("alpaca.jsonl"), rows, sizeof rows - 1);
    hone(0, "import %s base_model=%s dataset.path=%s val_set_size=0 sequence_len=256",
         at("ax.yaml"), "recipes/data/stories260K", at("alpaca.jsonl"));
    const char *ours = said();
    put(at("ours.yaml"), ours, (i64)strlen(ours));
    hone(0, "train %s --max_steps 1 --output_dir %s --quiet", at("ours.yaml"), at("ours"));
}

/* `hone inspect` of another tool's recipe: whatever is wrong is in one report. */
static void test_all_wrong(void **state) {
    (void)state;
    const char text[] = "base_model: org/model\ndatasets:\n  - {path: org/data, type: alpaca, "
                        "shards: 3}\nsequence_len: 64\nval_set_size: 0.1\nlearning_rate: fast\n"
                        "rl: dpo\nfsdp: [full_shard]\nplugins: [my.Plugin]\nprocessor_type: P\n"
                        "nonsense: 1\nwarmup_steps: 3\nwarmup_ratio: 0.1\n";
    static const char *const all[] = {
        "'dataset.shards: 3' (Axolotl) changes the result",
        "learning_rate = 'fast'; expected a number",
        "'rl: dpo' (Axolotl) changes the result: another objective",
        "'fsdp: full_shard' (Axolotl) changes the result: several GPUs",
        "'plugins: my.Plugin' (Axolotl) changes the result: a plugin",
        "'processor_type: P' (Axolotl) changes the result: a model that sees",
        "unknown key 'nonsense'",
        "both warmup_steps and warmup_ratio",
        "model_name_or_path: org/model is not here",
        "dataset: org/data is not here",
        ": 10 problems, all of them above"};
    put(at("wrong.yaml"), text, (i64)strlen(text));
    hone(2, "inspect %s", at("wrong.yaml"));
    for (int i = 0; i < COUNT(all); i++) expect(complained(), all[i]);
}

/* When a recipe of another tool evaluates, saves and stops: in its own words, shown and done. */
static void test_their_moments(void **state) {
    (void)state;
    char eval[600], forty[600];
    snprintf(eval, sizeof eval, "%s", at("eval.jsonl"));
    snprintf(forty, sizeof forty, "%s", at("forty.jsonl"));
    shell("head -12 %s > %s; head -40 %s > %s", at("sft.jsonl"), eval, at("sft.jsonl"), forty);
    static const struct {
        const char *name, *text, *shown, *evaluated, *saved;
    } of[] = {
        {"axolotl",
         "base_model: recipes/data/stories260K\ndatasets: [{path: %s}]\ntest_datasets: [{path: "
         "%s}]\nsequence_len: 300\nmicro_batch_size: 4\nnum_epochs: 1\nevals_per_epoch: 2\n"
         "saves_per_epoch: 5\nlearning_rate: 1e-3\nsave_only_model: true\n",
         "\"eval_ratio\": 0.5", "0 5 10", "2 4 6 8 10"},
        {"trl",
         "model_name_or_path: recipes/data/stories260K\ndataset_name: %s\neval_dataset: %s\n"
         "max_length: 300\nper_device_train_batch_size: 4\nper_device_eval_batch_size: 4\n"
         "num_train_epochs: 1\neval_strategy: steps\neval_steps: 0.3\nsave_steps: 0.5\n"
         "do_eval: true\nlearning_rate: 1e-3\nbf16: false\n",
         "\"eval_ratio\": 0.3", "0 3 6 9 10", "5 10"},
        {"factory",
         "model_name_or_path: recipes/data/stories260K\nstage: pt\nfinetuning_type: full\n"
         "dataset: %s\neval_dataset: %s\ncutoff_len: 300\nper_device_train_batch_size: 4\n"
         "packing: false\nnum_train_epochs: 1\neval_strategy: steps\neval_steps: 2\n"
         "save_steps: 2\nload_best_model_at_end: true\nearly_stopping_patience: 1\n"
         "early_stopping_threshold: 1000\nlearning_rate: 1e-3\n",
         "\"early_stopping_patience\": 1", "0 2 4", "2 4"},
    };
    for (int i = 0; i < COUNT(of); i++) {
        char text[2048];
        snprintf(text, sizeof text, of[i].text, forty, eval);
        put(at("%s.yaml", of[i].name), text, (i64)strlen(text));
        hone(0, "inspect %s", at("%s.yaml", of[i].name));
        expect(said(), of[i].shown);
        hone(0, "train %s output_dir=%s", at("%s.yaml", of[i].name), at("run-%s", of[i].name));
        assert_string_equal(evaluated(at("run-%s", of[i].name)), of[i].evaluated);
        assert_string_equal(saved(at("run-%s", of[i].name)), of[i].saved);
    }
    assert_false(path_exists(at("run-axolotl/checkpoints/step-000004/state.h5")));
    assert_true(path_exists(at("run-trl/checkpoints/step-000005/state.h5")));
    assert_int_equal(manifest_of(at("run-factory/best")).step, 4);
}

static int setup(void **state) {
    if (tiny_folder(state)) return -1;
    tiny_data();
    tiny_recipe(at("full.yaml"));
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),          cmocka_unit_test(test_order),
        cmocka_unit_test(test_tokens),        cmocka_unit_test(test_moments),
        cmocka_unit_test(test_best),          cmocka_unit_test(test_only_model),
        cmocka_unit_test(test_others),        cmocka_unit_test(test_gone),
        cmocka_unit_test(test_planned),       cmocka_unit_test(test_all_wrong),
        cmocka_unit_test(test_their_moments),
    };
    return cmocka_run_group_tests(tests, setup, tiny_remove);
}
