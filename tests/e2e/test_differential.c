/* test_differential.c: random tiny recipes, and whatever must not change their bits.
 *
 *     test_differential                     recipes 0 to 23: what `make test` runs
 *     test_differential FROM COUNT [FILE [ISA]]  others; FILE keeps the next number, so that a
 *         campaign that was stopped goes on; ISA: the highest instruction set that is drawn
 *
 * A number is a recipe: a model (a family of golden/models as it is, or another one of its kind
 * with random sizes and random weights), precision, full or LoRA, DoRA and QLoRA, optimizer,
 * schedule, data, packing. It is trained once plainly: one thread, the whole batch at once, nothing
 * beside the steps. Then again in WAYS other ways: threads, instruction set, cut into
 * micro-batches, recomputation, eager, evaluation, samples up to beyond the model's last position,
 * checkpoints, reports, stopped and resumed. State, weights and every trained line of the log must
 * have the same bits; an error must be the same error.
 *
 * Runs are in this process, so that a sanitizer sees the whole program. A recipe that the program
 * refuses (DoRA with PiSSA, blocks of 64 in rows of 12) is drawn again from the same number. Not
 * varied, because they are part of the result: seed, order and packing of the data,
 * reduction_groups, master_weights. */
#include "tests/e2e/tiny_run.h"

#include <dirent.h>
#include <jansson.h>

extern const struct command command_train, command_tokenize;

enum { WAYS = 2, IN_TEST = 24, LONGEST = 40, FAMILIES = 64, WORDS = 96 };

struct draw {
    struct rng rng;
    u64 taken;
};
static i64 pick(struct draw *d, i64 below) {
    return (i64)(rng_uniform_f64(&d->rng, d->taken++) * (double)below);
}
static i64 between(struct draw *d, i64 low, i64 high) { return low + pick(d, high - low + 1); }
static bool one_in(struct draw *d, i64 n) { return pick(d, n) == 0; }
#define ONE_OF(d, ...)                                                                             \
    ((const char *const[]){__VA_ARGS__})[pick(d, COUNT(((const char *const[]){__VA_ARGS__})))]

static void say(struct text *t, const char *fmt, ...) PRINTF(2, 3);
static void say(struct text *t, const char *fmt, ...) {
    char word[4096];
    FORMAT(word, fmt);
    assert_int_equal(0, text_printf(t, &(struct err){0}, "%s%s", t->size ? " " : "", word));
}

/* ---- the recipe */

static char families_here[FAMILIES][48];
static int family_total;

static int by_name(const void *a, const void *b) { return strcmp(a, b); }
static void families_find(void) {
    DIR *dir = opendir("tests/golden/models");
    assert_non_null(dir);
    for (struct dirent *f; (f = readdir(dir));)
        if (*f->d_name != '.' && !strchr(f->d_name, '.') && family_total < FAMILIES)
            snprintf(families_here[family_total++], sizeof *families_here, "%.40s", f->d_name);
    closedir(dir);
    qsort(families_here, (size_t)family_total, sizeof *families_here,
          by_name); /* a number is the same recipe everywhere */
}

struct drawn {
    struct text words; /* of the command line, without those of a way */
    bool adapter, experts;
    i64 steps, global, length, positions, longest;
};

static void resize(struct draw *d, json_t *j, const char *key, i64 value) {
    if (json_object_get(j, key) && !one_in(d, 3)) json_object_set_new(j, key, json_integer(value));
}
/* Another model of the kind: sizes that its file has as keys. What does not go together is refused
 * and drawn again. */
static void model_resize(struct draw *d, json_t *j) {
    const i64 heads = 2 * between(d, 1, 3), kv = one_in(d, 2) ? heads : heads / 2;
    json_object_set_new(j, "vocab_size", json_integer(between(d, 128, 150)));
    if (json_object_get(j, "num_key_value_heads") && one_in(d, 2)) {
        json_object_set_new(j, "num_attention_heads", json_integer(heads));
        json_object_set_new(j, "num_key_value_heads", json_integer(kv));
        if (!json_object_get(j, "head_dim"))
            json_object_set_new(j, "hidden_size", json_integer(heads * 2 * between(d, 2, 8)));
    }
    resize(d, j, "intermediate_size", between(d, 9, 60));
    resize(d, j, "moe_intermediate_size", between(d, 5, 30));
    resize(d, j, "num_hidden_layers", between(d, 1, 3));
    resize(d, j, "n_layer", between(d, 1, 3));
    resize(d, j, "max_position_embeddings", between(d, 20, 60));
    resize(d, j, "n_positions", between(d, 20, 60));
    if (one_in(d, 3)) json_object_set_new(j, "tie_word_embeddings", json_boolean(pick(d, 2)));
}

static i64 size_of(const json_t *j, const char *key, i64 otherwise) {
    const json_t *x = json_object_get(j, key);
    return json_is_integer(x) ? json_integer_value(x) : otherwise;
}

/* recipe.yaml: the model. Its number of positions goes to *r. */
static void model_draw(struct draw *d, struct drawn *r) {
    struct err e = {0};
    const char *name = families_here[pick(d, family_total)];
    char path[128];
    snprintf(path, sizeof path, "tests/golden/models/%s/config.json", name);
    json_t *j = json_open(path, &e);
    if (!j) fail_msg("%s", e.primary);
    r->adapter = one_in(d, 2);
    const bool other = !r->adapter && !one_in(d, 3);
    if (other) model_resize(d, j);
    char *config = json_dumps(j, JSON_COMPACT);
    struct text yaml = {0};
    assert_int_equal(
        0, other ? text_printf(&yaml, &e, "model: %s\n", config)
                 : text_printf(&yaml, &e, "model_name_or_path: tests/golden/models/%s\n", name));
    put(at("recipe.yaml"), yaml.data, yaml.size);
    r->positions = size_of(j, "max_position_embeddings", size_of(j, "n_positions", 2048));
    r->longest = i64_min(r->positions, LONGEST);
    if (strstr(name, "dynamic") && one_in(d, 2)) /* trained beyond: its tables go by the length */
        r->longest = r->positions += 24;
    r->experts = json_object_get(j, "num_experts_per_tok") != NULL;
    free(config), json_decref(j), text_free(&yaml);
}

static void adapter_draw(struct draw *d, struct text *w) {
    say(w, "use_peft=true lora_r=%lld lora_alpha=%lld", (long long)between(d, 1, 5),
        (long long)between(d, 1, 16));
    if (one_in(d, 2)) say(w, "lora_dropout=0.%lld", (long long)between(d, 1, 5));
    if (one_in(d, 3)) say(w, "use_dora=true");
    if (one_in(d, 3)) say(w, "load_in_4bit=true bnb_4bit_quant_type=%s", ONE_OF(d, "nf4", "fp4"));
    if (strstr(w->data, "4bit") && one_in(d, 2)) say(w, "bnb_4bit_use_double_quant=true");
    if (one_in(d, 4)) say(w, "init_lora_weights=%s", ONE_OF(d, "gaussian", "pissa"));
    if (one_in(d, 4)) say(w, "use_rslora=true");
    if (one_in(d, 4)) say(w, "loraplus_lr_ratio=%lld", (long long)between(d, 2, 16));
    if (one_in(d, 3))
        say(w, "lora_target_modules=%s",
            ONE_OF(d, "q_proj,v_proj", "embed_tokens,v_proj", "lm_head,q_proj",
                   "lm_head,embed_tokens", "down_proj"));
    if (one_in(d, 6)) say(w, "lora_modules_to_save=lm_head");
}

static void steps_draw(struct draw *d, struct drawn *r) {
    struct text *w = &r->words;
    r->steps = between(d, 2, 4), r->global = (i64[]){1, 2, 4, 6, 8}[pick(d, 5)];
    r->length = between(d, 5, r->longest);
    say(w, "max_steps=%lld global_batch_size=%lld max_seq_length=%lld seed=%lld",
        (long long)r->steps, (long long)r->global, (long long)r->length, (long long)pick(d, 1000));
    if (r->global % 2 == 0 && one_in(d, 3)) say(w, "reduction_groups=2");
    say(w, "optim=%s learning_rate=%s",
        ONE_OF(d, "adamw", "adamw", "adamw_8bit", "adam", "lion", "sgd", "adagrad", "rmsprop",
               "adafactor", "adafactor_torch", "muon"),
        ONE_OF(d, "1e-3", "3e-4", "5e-3"));
    say(w, "lr_scheduler_type=%s", ONE_OF(d, "constant", "linear", "cosine", "wsd"));
    if (one_in(d, 2)) say(w, "warmup_steps=%lld", (long long)between(d, 1, 2));
    if (one_in(d, 2)) say(w, "weight_decay=0.1");
    if (one_in(d, 3)) say(w, "max_grad_norm=%s", ONE_OF(d, "0", "0.1"));
    if (one_in(d, 6)) say(w, "max_grad_value=1e-3");
}

static void recipe_draw(struct draw *d, struct drawn *r) {
    struct text *w = &r->words;
    *r = (struct drawn){0};
    model_draw(d, r), steps_draw(d, r);
    say(w, "tokenizer=tests/golden/interop/families/tokenizer.json");
    if (one_in(d, 2)) say(w, "precision=bf16");
    if (strstr(w->data, "bf16") && one_in(d, 3)) say(w, "master_weights=false");
    const bool sft = one_in(d, 3);
    say(w, sft ? "task=sft dataset.0.path=%s/sft.h5" : "dataset.0.path=%s/train.h5", tiny);
    if (one_in(d, 4))
        say(w, "dataset.1.path=%s/sft.h5 dataset.1.weight=0.%lld", tiny,
            (long long)between(d, 1, 9));
    if (one_in(d, 3)) say(w, "packing=false");
    if (one_in(d, 3)) say(w, "document_mask=false");
    if (r->experts && one_in(d, 2))
        say(w, "router_aux_loss_coef=0.%lld", (long long)between(d, 1, 3));
    if (r->adapter) adapter_draw(d, w);
}

/* ---- a way to train it */

struct leg { /* what may differ from one leg of a run to the next */
    struct text words;
    i64 threads, isa;
    bool eager;
};
struct way {
    struct text words; /* of the whole run */
    struct leg leg[2];
    i64 stop; /* 0: not; else the step from which leg[1] goes on */
};

static void leg_draw(struct draw *d, const struct drawn *r, struct leg *p) {
    i64 micro = between(d, 1, r->global);
    while (r->global % micro) micro--;
    *p = (struct leg){.threads = one_in(d, 3) ? between(d, 2, 3) : 1,
                      .isa = one_in(d, 8) ? 0 : between(d, 1, ISA_COUNT - 1), /* plain is slow */
                      .eager = one_in(d, 4)};
    say(&p->words, "micro_batch_size=%lld", (long long)micro);
    if (one_in(d, 2)) say(&p->words, "gradient_checkpointing=true");
}

static void way_draw(struct draw *d, const struct drawn *r, struct way *w) {
    *w = (struct way){0};
    leg_draw(d, r, &w->leg[0]), leg_draw(d, r, &w->leg[1]);
    say(&w->words, "logging_steps=%lld", (long long)between(d, 1, 3));
    if (one_in(d, 2))
        say(&w->words, "report_to=%s", ONE_OF(d, "csv", "tensorboard", "csv,tensorboard"));
    if (one_in(d, 2)) say(&w->words, "save_steps=%lld", (long long)between(d, 1, 2));
    if (one_in(d, 4)) say(&w->words, "save_total_limit=%lld", (long long)between(d, 1, 2));
    if (!one_in(d, 4)) {
        say(&w->words, "eval_dataset.0.path=%s/eval.h5 eval_steps=%lld eval_batches=%lld", tiny,
            (long long)between(d, 0, 2), (long long)between(d, 1, 3));
        const i64 tokens[] = {between(d, 1, 4), r->length + between(d, 0, 8),
                              r->positions + between(d, 0, 8)};
        const i64 kind = pick(d, 4);
        if (kind < 3)
            say(&w->words, "sample_prompts=%s sample_tokens=%lld", ONE_OF(d, "w5", "w7,w100"),
                (long long)i64_min(tokens[kind], 200));
    }
    if (r->steps > 1 && one_in(d, 3)) w->stop = between(d, 1, r->steps - 1);
    if (w->stop) say(&w->words, "save_at=%lld", (long long)w->stop);
}

static void way_free(struct way *w) {
    text_free(&w->words), text_free(&w->leg[0].words), text_free(&w->leg[1].words);
    *w = (struct way){0};
}

/* ---- a run and what it left */

struct outcome {
    struct err error;
    char state[65], weights[65];
    struct log_rows log;
};

static void outcome_read(struct outcome *o, const struct drawn *r) {
    struct err e = {0};
    struct manifest m = {0};
    const char *folder = at("run/checkpoints/step-%06lld", (long long)r->steps);
    if (manifest_read(folder, &m, &e) || log_read(&o->log, at("run/log.jsonl"), &e) ||
        sha256_file(at("run/checkpoints/step-%06lld/%s.safetensors", (long long)r->steps,
                       r->adapter ? "adapter_model" : "model"),
                    o->weights, &e))
        fail_msg("%s", e.primary);
    strcpy(o->state, m.state_sha256);
}

static i64 isa_most;
static const char *isa_of(const struct leg *p) { return isa_name[i64_min(p->isa, isa_most)]; }

/* The arguments of `hone train`. */
static void line_make(struct text *line, const struct drawn *r, const struct way *w, int leg) {
    say(line, "%s %s %s %s output_dir=%s", at("recipe.yaml"), r->words.data,
        w->words.data ? w->words.data : "", w->leg[leg].words.data, at("run"));
    if (leg) say(line, "resume_from_checkpoint=auto");
}

/* As main.c would call it. */
static void train_here(const struct drawn *r, const struct way *w, int leg, struct err *e) {
    struct text line = {0};
    char *argv[WORDS] = {0};
    int count = 0;
    const struct leg *p = &w->leg[leg];
    line_make(&line, r, w, leg);
    for (char *word = strtok(line.data, " "); word; word = strtok(NULL, " ")) {
        assert_true(count < WORDS);
        argv[count++] = word;
    }
    globals = (struct globals){.threads = p->threads,
                               .device = "cpu",
                               .numerics = "auto",
                               .eager = p->eager,
                               .quiet = true};
    quiet = true;
    if (isa_force(isa_of(p), e) || pool_start((int)p->threads, e)) fail_msg("%s", e->primary);
    command_train.run(count, argv, e);
    pool_stop(), text_free(&line);
}

/* Commands that do the same. */
static void way_print(const struct drawn *r, const struct way *w) {
    fprintf(stderr, "  rm -rf %s\n", at("run"));
    for (int i = 0; i <= (w->stop > 0); i++) {
        struct text line = {0};
        line_make(&line, r, w, i);
        if (i)
            fprintf(stderr, "  rm -r %s/checkpoints/step-%06lld\n", at("run"), (long long)r->steps);
        fprintf(stderr, "  ./hone train %s --threads %lld --isa %s%s\n", line.data,
                (long long)w->leg[i].threads, isa_of(&w->leg[i]),
                w->leg[i].eager ? " --eager" : "");
        text_free(&line);
    }
}

static void run(const struct drawn *r, const struct way *w, struct outcome *o) {
    struct err unused = {0};
    *o = (struct outcome){0};
    dir_remove(at("run"), &unused);
    train_here(r, w, 0, &o->error);
    if (!o->error.code && w->stop) { /* as after a kill: the last checkpoint never came about */
        const char *last = at("run/checkpoints/step-%06lld", (long long)r->steps);
        if (dir_remove(last, &o->error)) fail_msg("%s", o->error.primary);
        train_here(r, w, 1, &o->error);
    }
    if (!o->error.code) outcome_read(o, r);
}

/* What differs first, or NULL. */
static const char *difference(const struct outcome *a, const struct outcome *b) {
    static char text[400];
    i64 i = 0, k = 0;
    if (a->error.code != b->error.code || strcmp(a->error.primary, b->error.primary))
        return snprintf(text, sizeof text, "'%.180s', not '%.180s'", b->error.primary,
                        a->error.primary),
               text;
    for (;; i++, k++) {
        while (i < a->log.count && !a->log.row[i].trained) i++;
        while (k < b->log.count && !b->log.row[k].trained) k++;
        if (i == a->log.count || k == b->log.count) break;
        const struct log_row *x = &a->log.row[i], *y = &b->log.row[k];
        if (x->step != y->step || x->tokens != y->tokens || memcmp(&x->loss, &y->loss, 8) ||
            memcmp(&x->lr, &y->lr, 8) || memcmp(&x->grad_norm, &y->grad_norm, 8) ||
            memcmp(&x->aux_loss, &y->aux_loss, 8) || strcmp(x->batch, y->batch))
            return snprintf(text, sizeof text,
                            "step %lld: loss %a, norm %a, not step %lld: loss %a, norm %a",
                            (long long)y->step, y->loss, y->grad_norm, (long long)x->step, x->loss,
                            x->grad_norm),
                   text;
    }
    if (i != a->log.count || k != b->log.count) return "another number of steps";
    if (strcmp(a->state, b->state)) return "another state";
    return strcmp(a->weights, b->weights) ? "other weights" : NULL;
}

static i64 refused, failed_alike; /* draws; recipes that end in an error, the same in all ways */

static void recipe_run(i64 number) {
    struct drawn r;
    struct outcome first, o;
    struct draw d;
    struct way plain = {0};
    for (int attempt = 0;; attempt++) {
        d = (struct draw){.rng = {(u64)number, RNG_TEST, (u32)attempt, 0}};
        recipe_draw(&d, &r);
        plain.leg[0] = (struct leg){.threads = 1, .isa = ISA_COUNT};
        say(&plain.leg[0].words, "micro_batch_size=%lld", (long long)r.global);
        run(&r, &plain, &first);
        if (first.error.code != ERR_INPUT) break;
        if (getenv("HONE_REFUSED"))
            fprintf(stderr, "%s\n    %s\n", first.error.primary, r.words.data);
        refused++, text_free(&r.words), way_free(&plain);
        assert_true(attempt < 100);
    }
    failed_alike += first.error.code != 0;
    if (first.error.code && getenv("HONE_REFUSED"))
        fprintf(stderr, "recipe %lld: %s\n    %s\n", (long long)number, first.error.primary,
                r.words.data);
    for (int i = 0; i < WAYS; i++) {
        struct way w;
        way_draw(&d, &r, &w);
        run(&r, &w, &o);
        const char *wrong = difference(&first, &o);
        if (wrong) {
            fprintf(stderr, "recipe %lld (its files stay in %s): %s\nplainly:\n", (long long)number,
                    tiny, wrong);
            way_print(&r, &plain), fprintf(stderr, "another way:\n"), way_print(&r, &w);
            *tiny = 0;
            fail();
        }
        way_free(&w), log_rows_free(&o.log);
    }
    text_free(&r.words), way_free(&plain), log_rows_free(&first.log);
}

/* ---- data: documents of 1 to 60 words of the tokenizer's 128 */
static void data_make(const char *name, i64 documents, u64 seed, bool sft) {
    struct draw d = {.rng = {seed, RNG_TEST, 0, 1}};
    struct text lines = {0};
    struct err e = {0};
    for (i64 i = 0; i < documents; i++) {
        struct text part[2] = {{0}, {0}};
        for (int p = 0; p < 2; p++)
            for (i64 k = between(&d, 1, 30); k > 0; k--)
                say(&part[p], "w%lld", (long long)(pick(&d, 12) * pick(&d, 11)));
        assert_int_equal(0, text_printf(&lines, &e,
                                        sft ? "{\"prompt\": \"%s \", \"completion\": \"%s\"}\n"
                                            : "{\"text\": \"%s %s\"}\n",
                                        part[0].data, part[1].data));
        text_free(&part[0]), text_free(&part[1]);
    }
    char jsonl[128], output[128], all[] = "--completion-only-loss";
    snprintf(jsonl, sizeof jsonl, "%s", at("%s.jsonl", name)),
        snprintf(output, sizeof output, "--output=%s", at("%s.h5", name));
    put(jsonl, lines.data, lines.size);
    char tokenizer[] = "--tokenizer=tests/golden/interop/families/tokenizer.json";
    char *argv[] = {jsonl, tokenizer, output, all};
    if (command_tokenize.run(sft ? 4 : 3, argv, &e)) fail_msg("%s", e.primary);
    text_free(&lines);
}

static int set_up(void **state) {
    (void)state;
    strcpy(tiny, access("/dev/shm", W_OK) ? "/tmp/hone-differential-XXXXXX"
                                          : "/dev/shm/hone-differential-XXXXXX");
    if (!mkdtemp(tiny)) return -1;
    quiet = true;
    if (pool_start(1, &(struct err){0})) return -1;
    families_find();
    data_make("train", 60, 1, false), data_make("sft", 50, 2, true),
        data_make("eval", 20, 3, false);
    pool_stop();
    return 0;
}
static int tear_down(void **state) { return *tiny ? tiny_remove(state) : 0; }

static i64 from, count = IN_TEST;
static const char *counter;

static void recipes_agree(void **state) {
    (void)state;
    struct err e = {0};
    struct text t = {0};
    i64 i = from;
    if (counter && path_exists(counter) && !file_read(&t, counter, &e))
        i = strtoll(t.data, NULL, 10);
    text_free(&t);
    for (; i < from + count; i++) {
        char next[32];
        recipe_run(i);
        if (counter) put(counter, next, snprintf(next, sizeof next, "%lld\n", (long long)i + 1));
        if (counter && i % 100 == 99)
            fprintf(stderr, "%lld recipes without a difference\n", (long long)i + 1);
    }
    if (counter)
        fprintf(stderr, "%lld draws refused, %lld recipes ended in the same error\n",
                (long long)refused, (long long)failed_alike);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(recipes_agree)};
    isa_float_mode();
    isa_most = isa_best();
    for (i64 i = 0; argc > 4 && i < isa_most; i++)
        if (!strcmp(argv[4], isa_name[i])) isa_most = i;
    if (argc > 2) from = strtoll(argv[1], NULL, 10), count = strtoll(argv[2], NULL, 10);
    if (argc > 3) counter = argv[3];
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
