/* evaluate.c: losses of a model that is not being trained, and `hone eval`. */
#include "train/train.h"

#include <jansson.h>
#include <string.h>

/* One batch; `p` is opened anew where the size changes. */
static int batch_evaluate(struct pass *p, struct model *m, const struct batch *b, double *sum,
                          struct err *e) {
    const struct pass_plan plan = {
        .model = m, .tokens = b->tokens, .gives = PASS_LOSS, .eager = globals.eager};
    const struct pass_inputs in = {.places = {b->ids, b->position, b->begin, b->last},
                                   .targets = b->targets};
    if (p->plan.tokens != b->tokens) {
        pass_close(p);
        if (pass_open(p, &plan, e)) return -1;
    }
    return pass_bind(p, &in, e) || pass_run(p, e) || pass_read_loss(p, b->targets, sum, e) ? -1 : 0;
}

static int loss_check(float loss, const struct batch *b, i64 token, i64 step, struct err *e) {
    if (loss - loss == 0) return 0;
    err_failed(e, "evaluation: the loss is not finite at position %d of a sequence in batch %lld",
               b->position[token], (long long)step + 1);
    return err_detail(e, "the target is id %d; its loss is %s", b->targets[token],
                      loss != loss ? "NaN" : "infinite");
}

int evaluate_loss(struct model *m, struct loader *l, i64 max_steps, double *sum, i64 *tokens,
                  struct err *e) {
    struct pass p = {0};
    int rc = 0;
    *sum = 0, *tokens = 0;
    const i64 steps = max_steps ? i64_min(max_steps, loader_steps(l)) : loader_steps(l);
    for (i64 i = 0; !rc && i < steps; i++) {
        const struct step_batches *s;
        rc = loader_step(l, i, &s, e);
        for (i64 k = 0; !rc && k < s->count; k++) {
            const struct batch *b = &s->batch[k];
            rc = batch_evaluate(&p, m, b, sum, e);
            for (i64 n = 0; !rc && n < b->tokens; n++)
                if (b->targets[n] >= 0) rc = loss_check(p.losses[n], b, n, i, e);
            *tokens += b->trained;
        }
        progress_line("evaluated %lld of %lld", (long long)i + 1, (long long)steps);
    }
    progress_end();
    pass_close(&p);
    if (!rc && !*tokens) rc = err_input(e, "the data holds no token to evaluate");
    return rc ? -1 : 0;
}

struct eval_flags {
    const char *data, *precision, *tokenizer;
    struct text_list adapter;
    i64 max_seq_length, batch;
    bool packing;
};
#define ROW_OF struct eval_flags
const struct option eval_options[] = {
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
    const int rc = !loader || model_rope((struct model *)&l->model, length, e) ||
                   evaluate_loss((struct model *)&l->model, loader, 0, sum, tokens, e);
    loader_close(loader);
    return rc ? -1 : 0;
}

int cmd_eval(int argc, char **argv, struct err *e) {
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
