/* test_cuda_launches.c: would a GPU take the launches of every published model? For each file of
 * golden/configs, a training step (full, LoRA, QLoRA; several optimizers), an evaluation and the
 * decoding of one text and of several go through the shim at the model's real widths, heads,
 * experts and vocabulary, in f32 and bf16, with portable and fast numerics, on several GPUs.
 * Nothing is computed (shim_dry): device memory has addresses and no bytes, kernels are checked as
 * tests/shim/launch.cc says and not run. A model is cut to one layer of each kind: layers of a kind
 * have the same launches. Weights on the host are reserved, never touched.
 *
 * `make test` has what recipes and commands do by default, on the two main GPUs; with HONE_SLOW all
 * combinations, and arguments choose models: test_cuda_launches Qwen3 gemma. A line on stdout for
 * each launch that is refused. */
#include "recipes/models/models_int.h"
#include "tests/shim/shim_test.h"
#include "train/commands/commands.h"

#include <dirent.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define CONFIGS "tests/golden/configs"

/* ---- memory of the host: large blocks are address space (linked with --wrap) ---- */
enum { LARGE = 16 << 20, BLOCKS = 1 << 14 };
static struct {
    void *p;
    size_t bytes;
} blocks[BLOCKS];
static int blocks_used;

void *__real_mem_new(i64 bytes, struct err *e);
void __real_mem_free(void *p);
void *__wrap_mem_new(i64 bytes, struct err *e);
void __wrap_mem_free(void *p);
i64 __wrap_mem_available(void);

void *__wrap_mem_new(i64 bytes, struct err *e) {
    if (bytes < LARGE || blocks_used == BLOCKS) return __real_mem_new(bytes, e);
    void *p = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(p, MAP_FAILED);
    blocks[blocks_used].p = p, blocks[blocks_used++].bytes = (size_t)bytes;
    return p;
}
void __wrap_mem_free(void *p) {
    for (int i = blocks_used - 1; p && i >= 0; i--)
        if (blocks[i].p == p) {
            munmap(p, blocks[i].bytes);
            blocks[i] = blocks[--blocks_used];
            return;
        }
    __real_mem_free(p);
}
i64 __wrap_mem_available(void) { return (i64)1 << 50; }
/* Starting values of adapters on experts: numbers that nobody looks at. */
void __wrap_lora_start(struct param *a, const struct lora_config *c, u64 seed, i64 index);
void __wrap_lora_start(struct param *a, const struct lora_config *c, u64 seed, i64 index) {
    (void)a, (void)c, (void)seed, (void)index;
}

/* ---- one way to run a model ---- */
enum kind { FULL, LORA, QLORA };
struct how {
    const char *gpu;
    enum dtype dtype;
    enum numerics numerics;
    enum kind kind;
};
static const char *const kind_name[] = {"full", "LoRA", "QLoRA"};
static char file[300]; /* of the model */
static int launched, refused;

static void done(const struct how *h, const char *what, int rc, const struct err *e) {
    const char *dtype = h->dtype == BF16 ? "bf16" : "f32",
               *numerics = h->numerics == NUMERICS_FAST ? "fast" : "portable", *line;
    for (int i = 0; (line = shim_refused(i)); i++, refused++)
        printf("%s, %s, %s %s, %s: %s\n", file, what, dtype, numerics, kind_name[h->kind], line);
    if (rc) {
        printf("%s, %s, %s %s, %s, %s: %s %s\n", file, what, dtype, numerics, kind_name[h->kind],
               h->gpu, e->primary, e->detail);
        refused++;
    }
    shim_refused_forget();
    launched++;
}

/* Keeps a layer of each kind. */
static void layers_cut(struct config *c) {
    i64 kept = 0;
    for (i64 l = 0; l < c->layers; l++) {
        const struct layer_config *a = &c->layer[l];
        i64 k = 0;
        for (; k < kept; k++) {
            const struct layer_config *b = &c->layer[k];
            if (a->window == b->window && a->rope == b->rope && a->mixer[0] == b->mixer[0] &&
                a->mixer[1] == b->mixer[1])
                break;
        }
        if (k == kept) c->layer[kept++] = *a;
    }
    c->layers = kept;
}

/* What loading would have made of packed weights (quantize.c): zeros. */
static void codes_make(struct model *m) {
    for (i64 i = 0; i < m->weights.params; i++)
        if (!m->weights.param[i]->view.data)
            view_pack(&m->weights.param[i]->view, m->config.quant.packing, NULL, &(struct err){0});
}
/* A table of that shape that nobody computes. */
static struct constant *table_make(i64 rows, i64 columns) {
    struct err e = {0};
    struct constant *c = mem_new(sizeof *c, &e);
    assert_non_null(c);
    c->users = 1;
    c->view = (struct view){.dtype = F32, .rank = rows ? 2 : 1, .dim = {rows ? rows : columns}};
    if (rows) c->view.dim[1] = columns;
    c->view.data = device_new(view_bytes(&c->view), &e);
    return c;
}
/* As model_rope, without computing the tables. */
static void rope_make(struct model *m, i64 positions) {
    const struct config *c = &m->config;
    for (int i = 0; i < MAX_ROPES; i++) {
        const struct rope_config *r = &c->rope[i];
        const i64 rows = (r->type == ROPE_LONGROPE ? 2 : 1) * positions;
        if (!r->dims) continue;
        m->rope[i] = table_make(rows, r->dims);
        if (r->query_beta > 0) m->query_rope[i] = table_make(rows, r->dims);
    }
    if (c->alibi) m->slopes = table_make(0, c->heads);
    m->rope_positions = positions;
}

static struct lora_config lora = {.r = 16, .lora_alpha = 16, .target_regex = "all-linear"};

static int model_make(struct model *m, const struct config *from, const struct how *h,
                      struct err *e) {
    static struct config c;
    c = *from;
    if (h->kind == QLORA)
        c.quant = (struct quant_config){.packing = packing_find("nf4-double")};
    lora = (struct lora_config){.r = 16, .lora_alpha = 16, .target_regex = "all-linear"};
    if (model_new(m, &c, h->dtype, h->kind == FULL, e)) return -1;
    codes_make(m);
    if ((h->kind != FULL && lora_add(m, &lora, 1, e)) || model_place(m, e)) return -1;
    rope_make(m, c.max_position_embeddings);
    return 0;
}

/* Rows of `length` tokens. */
static void batch_make(i32 *in, i64 tokens, i64 length) {
    for (i64 i = 0; i < tokens; i++) {
        in[i] = in[tokens + i] = (i32)(i % 7);
        in[2 * tokens + i] = (i32)(i % length), in[3 * tokens + i] = (i32)(i - i % length),
                        in[4 * tokens + i] = (i32)i;
    }
}

static const char *const optims[] = {"adamw", "adamw_8bit", "muon", "adafactor", "sgd"};

static int optimizer_run(struct model *m, struct graph *g, const char *name, bool master,
                         struct err *e) {
    struct recipe r = {.learning_rate = 1e-4,
                       .adam_beta1 = 0.9,
                       .adam_beta2 = 0.95,
                       .adam_epsilon = 1e-8,
                       .max_grad_norm = 1,
                       .weight_decay = 0.1};
    struct optimizer o = {0};
    double norm;
    int rc = option_set(recipe_options, &r, "optim", name, "test", &r.arena, e) ||
             recipe_optim(&r, "test", e) || optimizer_new(&o, m, &r, e) ||
             optimizer_bind(&o, g, e) || optimizer_zero(&o, e);
    /* Masters would be made from weights that are not there. */
    for (i64 i = 0; !rc && master && i < o.count; i++)
        if (!o.of[i].master && !(o.of[i].master = device_new(o.of[i].count * 4, e))) rc = -1;
    for (i64 group = 0; !rc && group < 2; group++) rc = optimizer_group_done(&o, group, e);
    rc = rc || optimizer_update(&o, 2, 1e-4, &norm, e);
    optimizer_free(&o), arena_free(&r.arena);
    return rc;
}

/* A training step of `rows` samples with `kinds` optimizers after it; none: an evaluation. */
static int step_run(struct model *m, i64 rows, i64 length, bool train, bool recompute, int kinds,
                    struct err *e) {
    static struct balance all;
    const struct pass_plan plan = {.model = m,
                                   .tokens = rows * length,
                                   .gives = PASS_LOSS,
                                   .train = train,
                                   .recompute = recompute,
                                   .dropout = train && m->lora ? 0.1 : 0,
                                   .balance =
                                       train && m->config.balanced ? BALANCE_LOSS : BALANCE_NONE};
    struct pass p = {0};
    i32 *in = mem_new_array(5 * plan.tokens, sizeof *in, e);
    int rc = pass_open(&p, &plan, e);
    batch_make(in, plan.tokens, length);
    struct pass_inputs inputs = {
        .places = {in, in + 2 * plan.tokens, in + 3 * plan.tokens, in + 4 * plan.tokens},
        .targets = in + plan.tokens,
        .balance = &all};
    if (!rc && train) rc = !(inputs.weight = pass_weights(&p, 1, e));
    for (int i = 0; !rc && i < p.graph->tensors; i++)
        if (p.graph->tensor[i]->kind == TENSOR_SLOT)
            p.graph->tensor[i]->view.data = device_new(view_bytes(&p.graph->tensor[i]->view), e);
    rc = rc || pass_bind(&p, &inputs, e) || pass_run(&p, e);
    for (int i = 0; !rc && i < kinds; i++)
        rc = optimizer_run(m, p.graph, optims[i], !i && m->weights.dtype == BF16, e);
    pass_close(&p), mem_free(in);
    return rc;
}

static int decode_run(struct model *m, i64 texts, i64 length, bool penalty, bool latent,
                      struct err *e) {
    struct sequence list[8] = {0};
    u32 *prompt = mem_new_array(length, sizeof *prompt, e);
    const struct sampling s = {.temperature = 0.8,
                               .top_p = 0.95,
                               .top_k = penalty ? 40 : 0,
                               .max_new_tokens = 2,
                               .ignore_eos = true,
                               .repetition_penalty = penalty ? 1.1 : 1};
    for (i64 i = 0; i < texts; i++) list[i].prompt = prompt, list[i].count = length - i;
    const struct engine_plan plan = {.positions = texts * length,
                                     .latent = latent ? LATENT_ALWAYS : LATENT_NEVER};
    struct engine *g = engine_open(m, &plan, e);
    const int rc = g ? engine_generate(g, list, texts, &s, e) : -1;
    engine_close(g);
    for (i64 i = 0; i < texts; i++) ids_free(&list[i].out);
    mem_free(prompt);
    return rc;
}

static void model_run(const struct config *c, const struct how *h, bool slow) {
    struct model m = {0};
    struct err e = {0};
    const i64 positions = c->max_position_embeddings, length = i64_min(positions, 2048);
    shim_gpu(h->gpu);
    numerics_now = h->numerics;
    int rc = device_open("cuda", &e) || model_make(&m, c, h, &e);
    if (!rc) {
        rc = step_run(&m, 4, length, true, false, slow || h->kind == FULL ? COUNT(optims) : 1, &e);
        done(h, "training", rc, &e), e = (struct err){0};
        if (slow) {
            rc = step_run(&m, 1, i64_min(positions, 32768), true, true, 0, &e);
            done(h, "training on one long sample", rc, &e), e = (struct err){0};
        }
        rc = step_run(&m, 4, i64_min(positions, 512), false, false, 0, &e);
        done(h, "evaluation", rc, &e), e = (struct err){0};
        rc = decode_run(&m, 1, i64_min(positions - 4, 700), false, false, &e);
        done(h, "decoding", rc, &e), e = (struct err){0};
        rc = decode_run(&m, 7, 33, true, false, &e);
        done(h, "decoding of several", rc, &e), e = (struct err){0};
        if (c->mla.kv_rank) {
            rc = decode_run(&m, 3, 200, false, true, &e);
            done(h, "decoding from latents", rc, &e), e = (struct err){0};
        }
    } else
        done(h, "opening", rc, &e);
    model_free(&m);
    device_close();
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}
static char **chosen;
static bool is_chosen(const char *name) {
    for (char **c = chosen; c && *c; c++)
        if (strstr(name, *c)) return true;
    return !chosen || !*chosen;
}

static void test_launches(void **state) {
    static const char *const gpus[] = {"sm_90", "sm_80", "sm_86", "sm_120"};
    (void)state;
    const bool slow = getenv("HONE_SLOW") != NULL;
    struct dirent **list;
    const int count = scandir(CONFIGS, &list, NULL, by_name);
    static struct config c;
    int models = 0;
    for (int i = 0; i < count; i++) {
        struct err e = {0};
        char path[400];
        snprintf(path, sizeof path, CONFIGS "/%s", list[i]->d_name);
        snprintf(file, sizeof file, "%s", list[i]->d_name);
        const bool is = strstr(file, ".json") && is_chosen(file);
        free(list[i]);
        if (!is) continue;
        json_t *j = json_open(path, &e);
        if (!j || config_read(&c, j, path, &e)) fail_msg("%s", e.primary);
        json_decref(j);
        layers_cut(&c), models++;
        for (int n = 0; n < 4 * 2 * 2 * 3; n++) {
            const struct how h = {gpus[n / 12], n & 1 ? BF16 : F32,
                                  n & 2 ? NUMERICS_FAST : NUMERICS_PORTABLE,
                                  (enum kind)(n / 4 % 3)};
            if (slow || n < 24) model_run(&c, &h, slow);
        }
    }
    free(list);
    printf("%d models, %d runs\n", models, launched);
    if (!chosen[0]) assert_true(models >= 77);
    assert_int_equal(refused, 0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_launches)};
    struct err e = {0};
    (void)argc;
    chosen = argv + 1;
    isa_float_mode();
    shim_dry = 1;
    if (pool_start(1, &e)) return 1;
    const int failed = cmocka_run_group_tests_name("launches", tests, NULL, NULL);
    pool_stop();
    return failed;
}
