/* test_objective.c: what a trainer does for an objective that asks for more than pretraining does:
 * earlier passes of the trained and of a frozen model, keys of its own, weights of tokens, columns
 * of the log. The objective is put into the table by this test. */
#include "train/commands/commands.h"
#include <jansson.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OLD  "tests/golden/old_run/"
#define BASE "tests/golden/models/llama"
enum { MOST = 512 };

/* The likelihood of texts, times `strength`; with `contrast` each token by how much worse the
 * reference is than the mean of the step. */
struct keys {
    double strength;
    bool contrast;
    const char *judge_path;
};
#define KEY(k) offsetof(struct keys, k)
static const struct option options[] = {
    {"strength", OPT_FLOAT, KEY(strength), "1", 0, 100, NULL, "factor of the loss"},
    {"contrast", OPT_BOOL, KEY(contrast), "false", 0, 0, NULL, "weights by the judge"},
    {"judge_path", OPT_TEXT, KEY(judge_path), NULL, 0, 0, NULL, "folder of the judge"},
    {0},
};
static const struct objective_model models[] = {{"judge", KEY(judge_path)}, {0}};
static const char *const passes[] = {"", "judge", NULL};
static const char *const metrics[] = {"own_loss", "judge_loss", NULL};
static float own[MOST], judge[MOST], trained[MOST]; /* of the last step */

static double mean(const struct step_batches *b, const float *loss) {
    double sum = 0;
    for (i64 i = 0; i < b->tokens; i++)
        if (b->targets[i] >= 0) sum += (double)loss[i];
    return sum / (double)b->trained;
}
static int weights(const struct objective_step *s, struct err *e) {
    (void)e;
    const struct keys *k = s->with;
    const struct step_batches *b = s->batches;
    const float each = (float)(k->strength / (double)b->trained);
    const double middle = mean(b, s->loss[1]);
    assert_in_range(b->tokens, 1, MOST);
    for (i64 i = 0; i < b->tokens; i++)
        s->weight[i] = k->contrast ? each * (float)((double)s->loss[1][i] / middle) : each;
    return 0;
}
static int measure(const struct objective_step *s, double *loss, double *metric, struct err *e) {
    (void)e;
    const size_t bytes = (size_t)s->batches->tokens * 4;
    memcpy(own, s->loss[0], bytes), memcpy(judge, s->loss[1], bytes);
    memcpy(trained, s->loss[2], bytes);
    *loss = mean(s->batches, s->loss[2]);
    metric[0] = mean(s->batches, s->loss[0]), metric[1] = mean(s->batches, s->loss[1]);
    return 0;
}
static const struct objective judged = {
    .task = {"judged", "by a judge", options, sizeof(struct keys)},
    .models = models,
    .passes = passes,
    .weights = weights,
    .measure = measure,
    .metrics = metrics,
};

/* Pairs: a sample is two documents, the first to be made likelier, the second less likely; by a
 * factor that falls with what they differ by already. */
static int pair_rows(struct loader_config *c, const struct recipe *r, struct err *e) {
    (void)r, (void)e;
    c->rows = 2, c->packing = false;
    return 0;
}
static double row_loss(const struct objective_step *s, i64 row, const float *loss) {
    const struct sample_row *of = &s->batches->row[row];
    double sum = 0;
    for (i64 i = 0; i < of->tokens; i++) sum += (double)loss[of->at + i];
    return sum / (double)of->trained;
}
static double pair_margin(const struct objective_step *s, i64 pair, const float *loss) {
    return row_loss(s, 2 * pair + 1, loss) - row_loss(s, 2 * pair, loss);
}
static int pair_weights(const struct objective_step *s, struct err *e) {
    (void)e;
    assert_int_equal(s->batches->rows, 2 * s->batches->samples);
    for (i64 i = 0; i < s->batches->rows; i++) {
        const struct sample_row *row = &s->batches->row[i];
        const double margin = pair_margin(s, i / 2, s->loss[0]), factor = 1 / (1 + margin * margin);
        assert_int_equal(row->sample, i / 2);
        for (i64 k = 0; k < row->tokens; k++)
            s->weight[row->at + k] = (float)((i % 2 ? -1 : 1) * factor / (double)row->trained);
    }
    return 0;
}
static int pair_measure(const struct objective_step *s, double *loss, double *metric,
                        struct err *e) {
    (void)metric, (void)e;
    *loss = 0;
    for (i64 i = 0; i < s->batches->samples; i++) *loss -= pair_margin(s, i, s->loss[1]);
    return 0;
}
static const char *const own_pass[] = {"", NULL};
static const struct objective paired = {
    .task = {"paired", "of two documents", NULL, 0},
    .passes = own_pass,
    .rows = pair_rows,
    .weights = pair_weights,
    .measure = pair_measure,
};

/* Rows that no trainer can run. */
static const char *const strange[] = {"", "stranger", NULL}, *const five[] = {"", "", "",
                                                                              "", "", NULL};
static const struct objective_model crowd[] = {{"a", -1}, {"b", -1}, {"c", -1},
                                               {"d", -1}, {"e", -1}, {0}};
static const struct objective wrong[] = {
    {.task = {"wrong_pass", "", options, sizeof(struct keys)}, .models = models, .passes = strange},
    {.task = {"wrong_count", "", NULL, 0}, .passes = five},
    {.task = {"wrong_models", "", NULL, 0}, .models = crowd}};

extern const struct objective objective_pretrain, objective_sft;
static const struct task *const table[] = {
    &objective_pretrain.task, &objective_sft.task, &judged.task,   &paired.task,
    &wrong[0].task,           &wrong[1].task,      &wrong[2].task, NULL};

static char folder[] = "/tmp/hone-objective-XXXXXX";

/* ---- a run, as far as it goes */
struct bed {
    struct recipe r;
    struct trainer t;
};
static void bed_open(struct bed *b, const char *const *words) {
    struct err e = {0};
    char *list[24] = {"precision=fp32", "numerics=portable", "lora_dropout=0", "optim=adamw"},
         out[80];
    i64 n = 4;
    snprintf(out, sizeof out, "output_dir=%s/run", folder);
    for (list[n++] = out; *words; words++) list[n++] = (char *)*words;
    if (recipe_load(&b->r, OLD "lora.yaml", list, n, &e) ||
        trainer_open(&b->t, &b->r, &(struct trainer_opening){.run_dir = b->r.output_dir}, &e))
        fail_msg("%s %s", e.primary, e.detail);
}
static void bed_close(struct bed *b) { trainer_close(&b->t), recipe_free(&b->r); }
static struct step_result step(struct bed *b) {
    struct step_result out;
    struct err e = {0};
    if (trainer_step(&b->t, &out, &e)) fail_msg("%s", e.primary);
    return out;
}
static const char *state_of(struct bed *b) {
    static char ring[4][65];
    static int turn;
    struct err e = {0};
    assert_int_equal(optimizer_digest(&b->t.optimizer, 2, ring[++turn % 4], &e), 0);
    return ring[turn % 4];
}
#define WORDS(...)                                                                                 \
    (const char *const[]) { __VA_ARGS__, NULL }

/* ---- what it must do */

/* Passes of other models and of the trained one, without an effect on weights, change no bit. */
static void passes_change_nothing(void **state) {
    (void)state;
    for (int full = 0; full < 2; full++) {
        const char *peft = full ? "use_peft=false" : "use_peft=true";
        struct bed a, b;
        bed_open(&a, WORDS("task=sft", peft)), bed_open(&b, WORDS("task=judged", peft));
        for (int i = 0; i < 4; i++) {
            const struct step_result x = step(&a), y = step(&b);
            assert_true(x.loss == y.loss && x.grad_norm == y.grad_norm && x.lr == y.lr);
            assert_true(y.metric[0] == y.loss); /* the trained model's, before the step */
            assert_memory_equal(own, trained, sizeof own);
            assert_int_equal(y.metric[1] == y.loss, i == 0); /* then the two part */
        }
        assert_string_equal(state_of(&a), state_of(&b));
        assert_true(a.t.others == 0 && b.t.others == 1);
        bed_close(&a), bed_close(&b);
    }
}

static void losses_of(struct model *m, const struct batch *b, float *to) {
    struct err e = {0};
    struct pass p = {0};
    const struct pass_plan plan = {.model = m, .tokens = b->tokens, .gives = PASS_LOSS};
    const struct pass_inputs in = {.places = {b->ids, b->position, b->begin, b->last},
                                   .targets = b->targets};
    if (pass_open(&p, &plan, &e) || pass_bind(&p, &in, &e) || pass_run(&p, &e) ||
        pass_read(&p, to, &e))
        fail_msg("%s", e.primary);
    pass_close(&p);
}

/* The judge's losses are those of the model that it should be, however it comes about. */
static void judges(void **state) {
    (void)state;
    static const struct {
        const char *words[4];
        bool own;
    } row[] = {
        {{"use_peft=true"}, false}, /* read without the adapter: no memory */
        {{"use_peft=true", "use_dora=true"}, false},
        {{"use_peft=true", "lora_modules_to_save=lm_head"}, true},
        {{"use_peft=true", "init_lora_weights=pissa"}, true},
        {{"use_peft=true", "judge_path=" BASE}, true},
        {{"use_peft=false"}, true},
    };
    float want[MOST] = {0};
    i64 shared = 0;
    for (i64 i = 0; i < COUNT(row); i++) {
        struct bed b;
        struct err e = {0};
        const char *const *w = row[i].words;
        bed_open(&b, WORDS("task=judged", w[0], w[1] ? w[1] : "seed=42", "learning_rate=0.03"));
        for (int n = 0; n < 3; n++) step(&b);
        if (i == 0) { /* the base, by itself, on the samples of that step */
            struct model m;
            const struct step_batches *s;
            i64 at = 0;
            assert_int_equal(model_open(&m, BASE, F32, false, &e), 0);
            assert_int_equal(model_rope(&m, b.r.max_seq_length, &e), 0);
            assert_int_equal(loader_step(b.t.loader, 2, &s, &e), 0);
            for (i64 k = 0; k < s->count; at += s->batch[k++].tokens)
                losses_of(&m, &s->batch[k], want + at);
            model_free(&m);
        }
        assert_memory_equal(judge, want, sizeof want);
        assert_memory_not_equal(judge, own, sizeof own);
        assert_int_equal(b.t.other[0].own != NULL, row[i].own);
        const i64 bytes = trainer_plan_bytes(&b.t, &e);
        assert_true(bytes > 0);
        if (i == 0) shared = bytes;
        if (i == 4) { /* its weights are planned for, its files in the lock */
            i64 weights_bytes = 0;
            struct lock_files files = {0};
            for (i64 p = 0; p < b.t.other[0].own->weights.params; p++)
                weights_bytes += param_bytes(b.t.other[0].own->weights.param[p]);
            assert_int_equal(bytes - shared, weights_bytes);
            assert_int_equal(lock_files_of(&b.t, &files, &e), 0);
            i64 found = 0;
            size_t k;
            json_t *file;
            json_array_foreach(files.list, k, file) found +=
                !strcmp(json_string_value(json_object_get(file, "path")), BASE "/config.json");
            assert_int_equal(found, 2);
            lock_files_free(&files);
        }
        bed_close(&b);
    }
}

/* Weights are d objective / d loss: twice the weight is twice the gradient, and weights that an
 * earlier pass of the whole step gave do not depend on how the step is cut. */
static void weights_counted(void **state) {
    (void)state;
    struct bed a, b;
    bed_open(&a, WORDS("task=judged")), bed_open(&b, WORDS("task=judged", "strength=2"));
    assert_true(2 * step(&a).grad_norm == step(&b).grad_norm);
    bed_close(&a), bed_close(&b);
    char first[65] = "";
    for (int micro = 1; micro <= 4; micro *= 2) {
        char words[32];
        snprintf(words, sizeof words, "micro_batch_size=%d", micro);
        bed_open(&a, WORDS("task=judged", "contrast=true", "global_batch_size=4", words));
        for (int i = 0; i < 3; i++) step(&a);
        if (!*first) strcpy(first, state_of(&a));
        assert_string_equal(state_of(&a), first);
        bed_close(&a);
    }
    bed_open(&a, WORDS("task=judged"));
    for (int i = 0; i < 3; i++) step(&a);
    assert_string_not_equal(state_of(&a), first);
    bed_close(&a);
}

/* A sample of two rows: pairs stay together, however the step is cut. */
static void pairs_of(const char *version) {
    char first[65] = "";
    i64 documents = 0;
    for (int micro = 1; micro <= 4; micro *= 2) {
        struct bed b;
        struct err e = {0};
        char words[32];
        snprintf(words, sizeof words, "micro_batch_size=%d", micro);
        bed_open(&b, WORDS("task=sft", "global_batch_size=4", version, words));
        documents = loader_samples(b.t.loader);
        const i64 bytes = trainer_plan_bytes(&b.t, &e);
        bed_close(&b);
        bed_open(&b, WORDS("task=paired", "global_batch_size=4", version, words));
        assert_int_equal(loader_samples(b.t.loader), documents / 2);
        const i64 pairs_bytes = trainer_plan_bytes(&b.t, &e);
        if (version[15] == '2' && micro == documents) /* there are no more than were alone */
            assert_int_equal(pairs_bytes, bytes);
        else
            assert_true(pairs_bytes > bytes); /* a pair's tokens */
        double loss[12];
        for (int i = 0; i < COUNT(loss); i++) loss[i] = step(&b).loss;
        if (version[15] == '1') /* steps of version 2 are not all of one size */
            assert_true(loss[11] < loss[0]);
        if (!*first) strcpy(first, state_of(&b));
        assert_string_equal(state_of(&b), first);
        bed_close(&b);
    }
}

static void pairs(void **state) {
    (void)state;
    pairs_of("recipe_version=1"), pairs_of("recipe_version=2");
}

static void refused(const char *const *words, const char *primary, const char *more) {
    struct recipe r;
    struct trainer t = {0};
    struct err e = {0};
    char *list[8];
    i64 n = 0;
    for (; *words; words++) list[n++] = (char *)*words;
    int rc = recipe_load(&r, OLD "lora.yaml", list, n, &e);
    if (!rc)
        rc = trainer_open(&t, &r, &(struct trainer_opening){.run_dir = folder}, &e),
        trainer_close(&t), recipe_free(&r);
    assert_int_equal(rc, -1);
    assert_int_equal(e.code, ERR_INPUT);
    if (!strstr(e.primary, primary)) fail_msg("'%s' is not in '%s'", primary, e.primary);
    if (!strstr(e.hint, more) && !strstr(e.detail, more))
        fail_msg("'%s' is not in '%s', '%s'", more, e.hint, e.detail);
}

static void keys_of_a_task(void **state) {
    (void)state;
    struct recipe r;
    struct err e = {0};
    char *words[] = {"task=judged", "strength=3"};
    refused(WORDS("strength=2"), "'strength' is a key of task: judged, and the task is sft",
            "set task: judged");
    refused(WORDS("task=judged", "strenght=2"), "unknown key 'strenght'; did you mean 'strength'?",
            "");
    refused(WORDS("task=judged", "strength=200"), "strength = 200 is out of range: 0 to 100", "");
    refused(WORDS("task=judgde"), "task = 'judgde'; expected a known choice",
            "did you mean 'judged'?");
    refused(WORDS("task=judged", "judge_path=tests/golden/none"), "tests/golden/none", "");
    refused(WORDS("task=judged", "judge_path=" OLD "full/checkpoints/step-000004"),
            "the judge model has ", "the same tokenizer");
    assert_int_equal(recipe_load(&r, OLD "lora.yaml", words, 2, &e), 0);
    assert_true(((const struct keys *)r.task_with)->strength == 3);
    json_t *j = recipe_json(&r, &e);
    assert_true(json_real_value(json_object_get(j, "strength")) == 3); /* so the lock has it */
    assert_true(json_is_false(json_object_get(j, "contrast")));
    struct recipe again;
    assert_int_equal(recipe_of_json(&again, j, "lock", &e), 0);
    assert_true(((const struct keys *)again.task_with)->strength == 3);
    json_decref(j), recipe_free(&again), recipe_free(&r);
    words[0] = "task=sft";
    assert_int_equal(recipe_load(&r, OLD "lora.yaml", words, 1, &e), 0);
    j = recipe_json(&r, &e);
    assert_null(json_object_get(j, "strength"));
    json_decref(j), recipe_free(&r);
}

static void wrong_rows(void **state) {
    (void)state;
    static const char *const what[] = {"task wrong_pass has no model 'stranger' for a pass",
                                       "task wrong_count has more than 4 passes",
                                       "task wrong_models has more than 4 models"};
    for (int i = 0; i < COUNT(what); i++) {
        struct recipe r;
        struct trainer t = {0};
        struct err e = {0};
        char task[40], *words[] = {task};
        snprintf(task, sizeof task, "task=%s", wrong[i].task.name);
        assert_int_equal(recipe_load(&r, OLD "lora.yaml", words, 1, &e), 0);
        assert_int_equal(trainer_open(&t, &r, &(struct trainer_opening){.run_dir = folder}, &e),
                         -1);
        assert_string_equal(e.primary, what[i]);
        trainer_close(&t), recipe_free(&r);
    }
}

/* A model that the recipe describes has no folder to read its start from. */
static void no_start(void **state) {
    (void)state;
    struct recipe r;
    struct trainer t = {0};
    struct err e = {0};
    char out[80], *words[] = {"task=judged", out};
    snprintf(out, sizeof out, "output_dir=%s/none", folder);
    assert_int_equal(recipe_load(&r, OLD "run.yaml", words, 2, &e), 0);
    assert_int_equal(trainer_open(&t, &r, &(struct trainer_opening){.run_dir = r.output_dir}, &e),
                     -1);
    assert_string_equal(e.primary, "task judged needs a judge model");
    trainer_close(&t), recipe_free(&r);
}

extern const struct command command_train, command_verify, command_report;

static void command(const struct command *c, char **words) {
    struct err e = {0};
    int n = 0;
    while (words[n]) n++;
    if (c->run(n, words, &e)) fail_msg("%s %s", e.primary, e.detail);
}

/* A whole run of it: log, resume, verify with replay, report. */
static void a_run(void **state) {
    (void)state;
    char run[80], out[120], page[120], log[120], csv[120];
    struct err e = {0};
    struct text t = {0};
    struct log_rows rows;
    snprintf(run, sizeof run, "%s/whole", folder), snprintf(out, sizeof out, "output_dir=%s", run);
    snprintf(log, sizeof log, "%s/log.jsonl", run), snprintf(csv, sizeof csv, "%s/log.csv", run);
    snprintf(page, sizeof page, "%s/page.html", folder);
    char *words[] = {OLD "lora.yaml",
                     "task=judged",
                     "contrast=true",
                     "report_to=csv,tensorboard",
                     "lr_scheduler_type=constant",
                     "max_steps=4",
                     out,
                     NULL,
                     NULL};
    command(&command_train, words);
    words[5] = "max_steps=6", words[7] = "resume_from_checkpoint=auto";
    command(&command_train, words);
    command(&command_verify, (char *[]){run, "--replay", "--from", "2", NULL});
    assert_int_equal(log_read(&rows, log, &e), 0);
    assert_int_equal(rows.metrics, 2);
    assert_string_equal(rows.metric[1], "judge_loss");
    assert_int_equal(rows.count, 6);
    assert_true(rows.row[0].metric[0] == rows.row[0].metric[1]);
    assert_true(rows.row[5].metric[0] < rows.row[5].metric[1]);
    log_rows_free(&rows);
    assert_int_equal(file_read(&t, csv, &e), 0);
    assert_non_null(strstr(t.data, "aux_loss,own_loss,judge_loss,seconds,"));
    text_free(&t), t = (struct text){0};
    command(&command_report, (char *[]){run, "--output", page, NULL});
    assert_int_equal(file_read(&t, page, &e), 0);
    assert_non_null(strstr(t.data, "\"metrics\":{\"own_loss\":["));
    text_free(&t);
}

static int set_up(void **state) {
    (void)state;
    isa_float_mode();
    recipe_tasks = table, quiet = true;
    globals.numerics = "portable";
    return mkdtemp(folder) ? 0 : -1;
}
static int tear_down(void **state) {
    (void)state;
    return dir_remove(folder, &(struct err){0});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passes_change_nothing),
        cmocka_unit_test(judges),
        cmocka_unit_test(weights_counted),
        cmocka_unit_test(pairs),
        cmocka_unit_test(keys_of_a_task),
        cmocka_unit_test(wrong_rows),
        cmocka_unit_test(no_start),
        cmocka_unit_test(a_run),
    };
    return cmocka_run_group_tests_name("objectives", tests, set_up, tear_down);
}
