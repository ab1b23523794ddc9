/* cmd_eval.c: `hone eval`: a model's loss on a dataset. */
#include "train/commands/commands.h"

#include <jansson.h>

struct eval_flags {
    const char *data, *precision, *tokenizer;
    struct text_list adapter;
    i64 max_seq_length, batch;
    bool packing;
};
#define ROW_OF struct eval_flags
static const struct option eval_options[] = {
    ROW(data, OPT_TEXT, NULL, 0, 0, "the tokenised dataset"),
    ROW(adapter, OPT_TEXT_EACH, NULL, 0, 0, ADAPTER_HELP),
    ROW(tokenizer, OPT_TEXT, NULL, 0, 0, "tokenizer, if the model folder has none"),
    ROW(precision, OPT_TEXT, "fp32", 0, 0, "fp32 or bf16"),
    ROW(max_seq_length, OPT_INT, "0", 0, 1 << 24,
        "tokens per row; 0: what the model allows, at most 512"),
    ROW(batch, OPT_INT, "4", 1, 4096, "rows at once"),
    ROW(packing, OPT_BOOL, "true", 0, 0, "false: one document a row"),
    {0},
};

static int eval_run(const struct loaded *l, const struct eval_flags *f, struct dataset *d,
                    double *sum, i64 *tokens, struct err *e) {
    const i64 length = f->max_seq_length ? f->max_seq_length
                                         : i64_min(512, l->model.config.max_position_embeddings);
    const struct loader_config c = {.datasets = &d,
                                    .datasets_count = 1,
                                    .packing = f->packing,
                                    .one_pass = true,
                                    .max_seq_length = length,
                                    .global_batch_size = f->batch,
                                    .micro_batch_size = f->batch};
    if (l->tokenizer &&
        dataset_check_tokenizer(d, tokenizer_sha256(l->tokenizer), tokenizer_size(l->tokenizer), e))
        return -1;
    if (dataset_fits(d, &l->model, e)) return -1;
    struct loader *loader = loader_open(&c, e);
    struct pass_cache passes = {0};
    const struct pass_plan plan = {
        .model = (struct model *)&l->model, .gives = PASS_LOSS, .eager = globals.eager};
    const int rc = !loader || model_rope(plan.model, length, e) ||
                   evaluate_loss(&passes, &plan, loader, 0, sum, tokens, e);
    pass_cache_free(&passes), loader_close(loader);
    return rc ? -1 : 0;
}

static int cmd_eval(int argc, char **argv, struct err *e) {
    struct eval_flags f = {0};
    struct args a;
    struct loaded l = {0};
    struct dataset *d = NULL;
    enum dtype dtype;
    double sum = 0;
    i64 tokens = 0;
    int rc = args_parse(&a, argc, argv, eval_options, &f, e) ||
             args_need(&a, 1, 1, "eval MODEL --data FILE.h5", e);
    if (!rc && !f.data)
        rc = err_input(e, "eval needs --data FILE.h5"),
        err_hint(e, "usage: hone eval MODEL --data FILE.h5 [--adapter DIR]");
    if (!rc)
        rc = precision_parse(f.precision, &dtype, e) ||
             loaded_open(&l, a.rest[0], &f.adapter, f.tokenizer, dtype, false, e) ||
             !(d = dataset_open(f.data, e)) || eval_run(&l, &f, d, &sum, &tokens, e);
    if (!rc && globals.json)
        rc = json_print(json_pack("{s:o, s:o, s:I}", "loss", json_finite(sum / (double)tokens),
                                  "perplexity", json_finite(m_exp(sum / (double)tokens)), "tokens",
                                  (json_int_t)tokens),
                        e);
    else if (!rc)
        printf("loss %.4f nats/token, perplexity %.3f, over %lld tokens\n", sum / (double)tokens,
               m_exp(sum / (double)tokens), (long long)tokens);
    dataset_close(d), loaded_close(&l), args_free(&a);
    return rc ? -1 : 0;
}

const struct command command_eval = {"eval",
                                     "eval MODEL --data FILE.h5 [--adapter DIR[=WEIGHT]]...",
                                     "loss and perplexity on a dataset",
                                     cmd_eval,
                                     eval_options,
                                     NULL};
