/* cmd_eval.c: `hone eval`: a model's loss on a dataset.
 *
 * A checkpoint is evaluated as its run did it: samples are made and the model computes as
 * recipe.lock says, so that the loss is the run's eval_loss. Flags go before that. */
#include "train/commands/commands.h"

#include <jansson.h>
#include <string.h>

struct eval_flags {
    const char *data, *precision, *tokenizer;
    struct text_list adapter;
    i64 max_seq_length, batch;
    bool packing, document_mask;
    struct loader_config samples; /* what else the run says of them */
};
#define ROW_OF struct eval_flags
static const struct option eval_options[] = {
    ROW(data, OPT_TEXT, NULL, 0, 0, "the tokenised dataset"),
    ROW(adapter, OPT_TEXT_EACH, NULL, 0, 0, ADAPTER_HELP),
    ROW(tokenizer, OPT_TEXT, NULL, 0, 0, "tokenizer, if the model folder has none"),
    ROW(precision, OPT_TEXT, "fp32", 0, 0,
        "fp32 or bf16. What a checkpoint's run had goes before this and the next three"),
    ROW(max_seq_length, OPT_INT, "0", 0, 1 << 24,
        "tokens per row; 0: what the model allows, at most 512"),
    ROW(packing, OPT_BOOL, "true", 0, 0, "false: one document a row"),
    ROW(document_mask, OPT_BOOL, "true", 0, 0, "with packing: tokens see only their own document"),
    ROW(batch, OPT_INT, "4", 1, 4096, "rows at once"),
    {0},
};

static int eval_run(const struct loaded *l, const struct eval_flags *f, struct dataset *d,
                    double *sum, i64 *tokens, struct err *e) {
    const i64 length = f->max_seq_length ? f->max_seq_length
                                         : i64_min(512, l->model.config.max_position_embeddings);
    struct loader_config c = f->samples;
    c.datasets = &d, c.datasets_count = 1, c.one_pass = true, c.max_seq_length = length;
    c.packing = f->packing, c.document_mask = f->document_mask;
    c.global_batch_size = c.micro_batch_size = f->batch;
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

/* What the run of a checkpoint says, where flags do not. `precision` outlives the recipe. */
static int flags_of_run(struct eval_flags *f, const struct args *a, struct err *e) {
    struct recipe r;
    struct text said = {0};
    char adapter[4096] = "";
    if (f->adapter.count) snprintf(adapter, sizeof adapter, "%s", f->adapter.item[0]);
    if (*adapter && !path_is_dir(adapter)) adapter[strcspn(adapter, "=")] = 0;
    const int found = run_recipe(&r, *adapter ? adapter : a->rest[0], e);
    if (found <= 0) return found;
    int rc = 0;
    f->samples.one_pass = true, samples_of_recipe(&r, &f->samples);
    if (!args_given(a, "max_seq_length")) {
        f->max_seq_length = r.max_seq_length;
        rc = text_printf(&said, e, ", max_seq_length %lld", (long long)r.max_seq_length);
    }
    if (!rc && !args_given(a, "packing")) {
        f->packing = r.packing;
        rc = text_printf(&said, e, ", packing %s", r.packing ? "true" : "false");
    }
    if (!rc && !args_given(a, "document_mask") && f->packing) {
        f->document_mask = r.document_mask;
        rc = text_printf(&said, e, ", document_mask %s", r.document_mask ? "true" : "false");
    }
    if (!rc && !args_given(a, "precision")) {
        f->precision = !strcmp(r.precision, "bf16") ? "bf16" : "fp32";
        rc = text_printf(&said, e, ", precision %s", f->precision);
    }
    if (!rc && said.size && !quiet)
        show(stderr, "note: as in its run: %s; flags go before that%s\n", said.data + 2,
             r.eval_batches ? "; the run's eval_batches is not followed: all of the data" : "");
    text_free(&said), recipe_free(&r);
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
        rc = flags_of_run(&f, &a, e) || precision_parse(f.precision, &dtype, e) ||
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
