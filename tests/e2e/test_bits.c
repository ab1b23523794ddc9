/* test_bits.c: NUMERICS.md's promise, through the program: the same recipe gives the same bits
 * whatever the number of threads, the instruction set, the cut into micro-batches, eager or
 * planned, recomputed or kept. And generation from a cache gives the bits of a forward pass.
 *
 * A row of `kinds` is a recipe; every row of `ways` is trained once and its state's SHA-256 and its
 * weight file compared with those of the first way. */
#include "recipes/models/states.h"
#include "tests/e2e/tiny_run.h"

struct globals globals; /* main.c's, which generation looks at */

static const char *base; /* a folder of a trained tiny model, for adapters; DATA/mixture another */
static const struct kind {
    const char *name, *words;
} kinds[] = {
    {"fp32", "precision=fp32 dataset.0.path=DATA/packed.h5"},
    {"bf16", "precision=bf16 dataset.0.path=DATA/packed.h5 document_mask=false"},
    {"no-masters-bf16", "precision=bf16 master_weights=false dataset.0.path=DATA/packed.h5"},
    {"documents-fp32", "precision=fp32 task=sft packing=false dataset.0.path=DATA/sft.h5"},
    {"documents-bf16", "precision=bf16 task=sft packing=false dataset.0.path=DATA/sft.h5"},
    {"groups-fp32", "precision=fp32 reduction_groups=4 dataset.0.path=DATA/packed.h5"},
    {"groups-bf16",
     "precision=bf16 reduction_groups=4 task=sft packing=false dataset.0.path=DATA/sft.h5"},
    {"lora-fp32", "precision=fp32 use_peft=true lora_r=3 dataset.0.path=DATA/packed.h5"},
    {"lora-bf16",
     "precision=bf16 use_peft=true lora_r=4 task=sft packing=false dataset.0.path=DATA/sft.h5"},
    {"lora-no-masters", "precision=bf16 master_weights=false use_peft=true lora_r=3 "
                        "dataset.0.path=DATA/packed.h5"},
    {"adamw-8bit", "precision=bf16 optim=adamw_8bit dataset.0.path=DATA/packed.h5"},
    {"lion-fp32", "precision=fp32 optim=lion adam_beta2=0.99 dataset.0.path=DATA/packed.h5"},
    {"sgd-no-masters", "precision=bf16 master_weights=false optim=sgd "
                       "optim_args=momentum=0.9,nesterov=true dataset.0.path=DATA/packed.h5"},
    {"rmsprop-bf16", "precision=bf16 optim=rmsprop optim_args=momentum=0.5,centered=true "
                     "max_grad_value=1e-3 dataset.0.path=DATA/packed.h5"},
    {"adafactor-bf16", "precision=bf16 master_weights=false optim=adafactor "
                       "optim_args=beta1=0.9,scale_parameter=true dataset.0.path=DATA/packed.h5"},
    {"muon-bf16", "precision=bf16 optim=muon dataset.0.path=DATA/packed.h5"},
    {"lora-dropout-bf16", "precision=bf16 use_peft=true lora_r=4 lora_dropout=0.2 "
                          "loraplus_lr_ratio=16 dataset.0.path=DATA/packed.h5"},
    {"lora-embedding-fp32", "precision=fp32 use_peft=true lora_r=3 lora_dropout=0.1 "
                            "lora_target_modules=embed_tokens,v_proj lora_rank_pattern=v_proj=2 "
                            "dataset.0.path=DATA/packed.h5"},
    {"lora-head-bf16", "precision=bf16 use_peft=true lora_r=3 lora_dropout=0.1 "
                       "lora_target_modules=lm_head,q_proj dataset.0.path=DATA/packed.h5"},
    {"pissa-bf16", "precision=bf16 use_peft=true lora_r=3 init_lora_weights=pissa "
                   "dataset.0.path=DATA/packed.h5"},
    {"dora-fp32", "precision=fp32 use_peft=true lora_r=3 use_dora=true "
                  "lora_target_modules=q_proj,down_proj lora_modules_to_save=lm_head "
                  "dataset.0.path=DATA/packed.h5"},
    {"dora-bf16", "precision=bf16 use_peft=true lora_r=4 use_dora=true lora_dropout=0.1 "
                  "dataset.0.path=DATA/packed.h5"},
    {"qlora-fp32", "precision=fp32 use_peft=true lora_r=3 load_in_4bit=true "
                   "bnb_4bit_use_double_quant=true dataset.0.path=DATA/packed.h5"},
    {"qlora-bf16", "precision=bf16 use_peft=true lora_r=4 load_in_4bit=true "
                   "bnb_4bit_quant_type=fp4 dataset.0.path=DATA/packed.h5"},
    {"dora-embedding-bf16",
     "precision=bf16 use_peft=true lora_r=3 use_dora=true "
     "lora_target_modules=embed_tokens,v_proj dataset.0.path=DATA/packed.h5"},
    {"dora-head-bf16", "precision=bf16 use_peft=true lora_r=3 use_dora=true lora_dropout=0.1 "
                       "lora_target_modules=lm_head,q_proj dataset.0.path=DATA/packed.h5"},
    {"dora-head-fp32",
     "precision=fp32 use_peft=true lora_r=2 use_dora=true task=sft packing=false "
     "reduction_groups=2 lora_target_modules=lm_head,embed_tokens dataset.0.path=DATA/sft.h5"},
    {"qdora-fp32", "precision=fp32 use_peft=true lora_r=3 use_dora=true load_in_4bit=true "
                   "lora_dropout=0.1 dataset.0.path=DATA/packed.h5"},
    {"qdora-bf16", "precision=bf16 use_peft=true lora_r=5 use_dora=true load_in_4bit=true "
                   "bnb_4bit_use_double_quant=true dataset.0.path=DATA/packed.h5"},
    /* families that are built otherwise: windows, soft caps, norms on both sides; attention and MLP
     * in parallel on fused weights; learned positions; xIELU and norms of heads */
    {"gemma2-bf16", "precision=bf16 model.model_type=gemma2 model.head_dim=12 "
                    "model.sliding_window=9 model.attn_logit_softcapping=2.5 "
                    "dataset.0.path=DATA/packed.h5"},
    {"falcon-fp32", "precision=fp32 model.model_type=falcon model.new_decoder_architecture=true "
                    "model.bias=true dataset.0.path=DATA/packed.h5"},
    {"gpt2-bf16", "precision=bf16 model.model_type=gpt2 task=sft packing=false "
                  "dataset.0.path=DATA/sft.h5"},
    {"apertus-fp32", "precision=fp32 model.model_type=apertus dataset.0.path=DATA/packed.h5"},
    {"bloom-bf16", "precision=bf16 model.model_type=bloom dataset.0.path=DATA/packed.h5"},
    /* experts, with the balancing loss, whose padding does not count; latent attention */
    {"mixture-bf16", "precision=bf16 " MIXTURE "dataset.0.path=DATA/packed.h5"},
    {"mixture-fp32", "precision=fp32 " MIXTURE "task=sft packing=false reduction_groups=2 "
                     "dataset.0.path=DATA/sft.h5"},
    {"mixture-lora-bf16", "precision=bf16 use_peft=true lora_r=3 lora_dropout=0.1 "
                          "lora_target_modules=q_proj,v_proj router_aux_loss_coef=0.2 "
                          "model_name_or_path=DATA/mixture/checkpoints/step-000004 "
                          "dataset.0.path=DATA/packed.h5"},
    {"mixture-experts-fp32", "precision=fp32 use_peft=true lora_r=3 load_in_4bit=true "
                             "model_name_or_path=DATA/mixture/checkpoints/step-000004 "
                             "dataset.0.path=DATA/packed.h5"},
    {"mla-fp32", "precision=fp32 " LATENT "dataset.0.path=DATA/packed.h5"},
};
static const char *const ways[] = {
    "--threads 1",
    "--threads 2",
    "--threads 3",
    "--threads 8",
    "micro_batch_size=1",
    "micro_batch_size=2",
    "micro_batch_size=4 --threads 3",
    "--eager",
    "gradient_checkpointing=true",
    "gradient_checkpointing=true micro_batch_size=2 --eager --threads 3",
    "--isa plain",
    "--isa avx2",
    "--isa avx512",
    "--isa avx512bf16",
    "--isa plain --threads 2 micro_batch_size=2 gradient_checkpointing=true",
};

static bool runs_here(const char *way) {
    for (int i = 0; i < ISA_COUNT; i++) {
        char flag[32];
        snprintf(flag, sizeof flag, "--isa %s", isa_name[i]);
        if (!strncmp(way, flag, strlen(flag)) && !way[strlen(flag)]) return i <= (int)isa_best();
    }
    return true;
}

/* `words` with DATA put in, as arguments of `hone train`. */
static void train(const struct kind *k, const char *way, const char *run) {
    char words[1024] = "";
    const char *p = k->words, *mark;
    for (; (mark = strstr(p, "DATA")); p = mark + 4)
        snprintf(words + strlen(words), sizeof words - strlen(words), "%.*s%s", (int)(mark - p), p,
                 tiny);
    snprintf(words + strlen(words), sizeof words - strlen(words), "%s", p);
    const bool adapter = strstr(k->words, "use_peft"),
               own = !adapter || strstr(k->words, "model_name_or_path");
    hone(0, "train %s %s %s%s output_dir=%s --quiet %s",
         adapter ? at("adapter.yaml") : at("full.yaml"), words,
         own ? "" : "model_name_or_path=", own ? "" : base, run, way);
}

static void same_bits(void **state) {
    const struct kind *k = *state;
    char first[65], weights[65], wrong[2048] = "";
    for (int i = 0; i < COUNT(ways); i++) {
        if (!runs_here(ways[i])) continue;
        const char *run = at("run");
        dir_remove(run, &(struct err){0});
        train(k, ways[i], run);
        const char *checkpoint = at("run/checkpoints/step-000004");
        const struct manifest m = manifest_of(checkpoint);
        const char *file = at("run/checkpoints/step-000004/%s.safetensors",
                              strstr(k->words, "use_peft") ? "adapter_model" : "model");
        if (!i) strcpy(first, m.state_sha256), strcpy(weights, sha_of(file));
        if (strcmp(first, m.state_sha256) || strcmp(weights, sha_of(file)))
            snprintf(wrong + strlen(wrong), sizeof wrong - strlen(wrong), "\n  %s", ways[i]);
    }
    if (*wrong) fail_msg("%s: other bits than with %s:%s", k->name, ways[0], wrong);
}

/* One group and no groups are the same chain; four groups are another, of the same sum. */
static void groups_are_part_of_the_recipe(void **state) {
    (void)state;
    const struct kind none = {"", "model.tie_word_embeddings=true dataset.0.path=DATA/packed.h5"},
                      one = {"", "model.tie_word_embeddings=true reduction_groups=1 "
                                 "dataset.0.path=DATA/packed.h5"},
                      four = {"", "model.tie_word_embeddings=true reduction_groups=4 "
                                  "dataset.0.path=DATA/packed.h5"};
    train(&none, "", at("none")), train(&one, "", at("one")), train(&four, "", at("four"));
    const struct manifest a = manifest_of(at("none/checkpoints/step-000004")),
                          b = manifest_of(at("one/checkpoints/step-000004")),
                          c = manifest_of(at("four/checkpoints/step-000004"));
    assert_string_equal(a.state_sha256, b.state_sha256);
    assert_string_not_equal(a.state_sha256, c.state_sha256);
    struct log_rows x = log_of(at("none")), y = log_of(at("four"));
    assert_int_equal(4, x.count);
    for (i64 i = 0; i < x.count; i++) {
        const double norm = x.row[i].grad_norm, loss = x.row[i].loss;
        assert_true(norm > 0 && loss > 1);
        assert_true(norm - y.row[i].grad_norm < 1e-4 * norm &&
                    y.row[i].grad_norm - norm < 1e-4 * norm);
        assert_true(loss - y.row[i].loss < 1e-5 * loss && y.row[i].loss - loss < 1e-5 * loss);
    }
    log_rows_free(&x), log_rows_free(&y);
}

/* ---- the cache */

enum { PREFIX = 40, MOST = 150, PAGES = 3 };

/* Logits [tokens, V] of positions from.. of a sequence. */
static void logits_of(struct model *m, struct states *states, const i32 *ids, i64 from, i64 tokens,
                      u8 *out) {
    struct err e = {0};
    struct graph *g = graph_new(&e);
    struct build b = {
        .g = g, .m = m, .states = states, .sequences = 1, .page_count = PAGES, .gathered = PAGES};
    static const i32 page[PAGES] = {3, 1, 4}, listed[PAGES] = {0, 1, 2};
    i32 position[MOST], begin[MOST] = {0}, store[MOST], gather[PAGES * ATTENTION_PAGE];
    for (i64 i = 0; i < tokens; i++) {
        position[i] = (i32)(from + i);
        store[i] =
            (i32)(page[(from + i) / ATTENTION_PAGE] * ATTENTION_PAGE + (from + i) % ATTENTION_PAGE);
    }
    for (i64 i = 0; i < COUNT(gather); i++)
        gather[i] = (i32)(page[i / ATTENTION_PAGE] * ATTENTION_PAGE + i % ATTENTION_PAGE);
    struct tensor *logits = model_logits(&b, model_hidden(&b, tokens));
    graph_keep(logits);
    if (graph_plan(g, false, &e)) fail_msg("%s", e.primary);
    const struct places p = {ids + from, position, begin, position};
    const struct state_places at = {store, begin, states && states->latent ? listed : page, gather,
                                    NULL};
    if (states) states_bind(&b, &at);
    if (model_bind(&b, &p, &e) || graph_run(g, &e)) fail_msg("%s", e.primary);
    memcpy(out, g->memory + logits->offset, (size_t)view_bytes(&logits->view));
    graph_free(g);
}

/* Latent attention with keys and values as states, and with latents. */
static void cache_case(const char *folder, enum dtype d, bool latent) {
    struct err e = {0};
    struct model m = {0};
    struct states states = {0};
    i32 ids[MOST];
    if (model_open(&m, folder, d, false, &e) || model_rope(&m, MOST, &e) ||
        states_describe(&states, &m, latent, &e) || states_grow(&states, 5, 0, &e))
        fail_msg("%s", e.primary);
    const struct rng r = {7, RNG_TEST, 0, 0};
    for (i64 i = 0; i < MOST; i++)
        ids[i] = (i32)(rng_uniform_f64(&r, (u64)i) * (double)m.config.vocab_size);
    const i64 row = m.config.vocab_size * dtype_size(m.weights.dtype);
    u8 *whole = mem_new(MOST * row, &e), *steps = mem_new(MOST * row, &e);
    logits_of(&m, NULL, ids, 0, MOST, whole);
    logits_of(&m, &states, ids, 0, PREFIX, steps);
    for (i64 i = PREFIX; i < MOST; i++) logits_of(&m, &states, ids, i, 1, steps + i * row);
    for (i64 i = 0; i < MOST; i++)
        if (memcmp(whole + i * row, steps + i * row, (size_t)row))
            fail_msg("%s, %s: the logits of position %lld differ", folder,
                     dtype_info[m.weights.dtype].name, (long long)i);
    mem_free(whole), mem_free(steps);
    states_free(&states), model_free(&m);
}
static void cache_equals_forward(void **state) {
    for (int d = 0; d < 2; d++)
        for (int latent = 0; latent <= (strstr(*state, "deepseek") != NULL); latent++)
            cache_case(*state, d ? BF16 : F32, latent);
}

/* A longrope model whose answer passes its original length goes on as an uncached pass would. */
static void generation_turns(void **state) {
    (void)state;
    enum { PROMPT = 24, NEW = 30 };
    const struct sampling s = {.top_p = 1, .max_new_tokens = NEW, .ignore_eos = true};
    struct err e = {0};
    struct model m = {0};
    struct ids out = {0};
    u32 ids[PROMPT + NEW];
    const struct rng r = {8, RNG_TEST, 0, 0};
    for (i64 i = 0; i < PROMPT; i++) ids[i] = (u32)(rng_uniform_f64(&r, (u64)i) * 131);
    if (model_open(&m, "tests/golden/models/phi3", F32, false, &e) ||
        generate_ids(&m, ids, PROMPT, &s, &out, NULL, NULL, &e))
        fail_msg("%s", e.primary);
    assert_int_equal(NEW, out.count);
    assert_true(m.config.rope[0].original_length > PROMPT &&
                m.config.rope[0].original_length < PROMPT + NEW - 1);
    const i64 vocab = m.config.vocab_size;
    float *logits = mem_new_array((PROMPT + NEW) * vocab, sizeof *logits, &e);
    for (i64 n = PROMPT; n < PROMPT + NEW; n++) {
        logits_of(&m, NULL, (const i32 *)ids, 0, n, (u8 *)logits);
        const float *last = logits + (n - 1) * vocab;
        u32 best = 0;
        for (i64 i = 1; i < vocab; i++)
            if (last[i] > last[best]) best = (u32)i;
        assert_int_equal(best, out.item[n - PROMPT]);
        ids[n] = best;
    }
    mem_free(logits), ids_free(&out), model_free(&m);
}

static int set_up(void **state) {
    if (tiny_folder(state)) return -1;
    tiny_data();
    tiny_recipe(at("full.yaml"));
    static const char adapter[] = "max_seq_length: 64\nglobal_batch_size: 8\nmax_steps: 4\n"
                                  "micro_batch_size: 8\nlearning_rate: 3.0e-3\nlora_alpha: 7\n";
    put(at("adapter.yaml"), adapter, (i64)strlen(adapter));
    const struct kind mixture = {"", MIXTURE "dataset.0.path=DATA/packed.h5"};
    train(&kinds[1], "", at("base")), train(&mixture, "", at("mixture"));
    static char path[512];
    base = strcpy(path, at("base/checkpoints/step-000004"));
    return pool_start(2, &(struct err){0});
}
static int tear_down(void **state) {
    pool_stop();
    return tiny_remove(state);
}

int main(void) {
    isa_float_mode();
    /* plain; then windows, soft caps, two RoPE tables, ALiBi in both forms, parallel blocks, NoPE
     */
    static char models[][48] = {
        "tests/golden/models/llama",       "tests/golden/models/llama_rope3_tied",
        "tests/golden/models/olmo2",       "tests/golden/models/gemma2",
        "tests/golden/models/gemma3_text", "tests/golden/models/bloom",
        "tests/golden/models/falcon_rw",   "tests/golden/models/stablelm_parallel",
        "tests/golden/models/smollm3",     "tests/golden/models/deepseek_v3",
        "tests/golden/models/gpt_oss"};
    struct CMUnitTest tests[COUNT(kinds) + COUNT(models) + 2];
    int count = 0;
    for (int i = 0; i < COUNT(kinds); i++)
        tests[count++] =
            (struct CMUnitTest){kinds[i].name, same_bits, NULL, NULL, (void *)&kinds[i]};
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(groups_are_part_of_the_recipe);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(generation_turns);
    for (int i = 0; i < COUNT(models); i++)
        tests[count++] = (struct CMUnitTest){"cache_equals_forward", cache_equals_forward, NULL,
                                             NULL, models[i]};
    return _cmocka_run_group_tests("bits", tests, (size_t)count, set_up, tear_down);
}
