/* balance.c: the loss that keeps a mixture's experts equally busy (Fedus et al., 2021, equations 4
 * to 6, over all chosen experts, as transformers has it).
 *
 * With T rows, which are the tokens once for each layer that has experts, F_e of their choices for
 * expert e, and p[t, e] the softmax of a row's router logits over all E experts:
 *
 *   aux = E * sum over e of F_e / T * (sum over t of p[t, e]) / T = sum over t, e of p[t, e] * g_e,
 *   g_e = E * F_e / T^2, one rounding to f32
 *
 * F has no gradient, so that once the choices are known the loss is a sum over tokens: `route`
 * gives a token's term, and the gradient through p. T and F are those of the whole optimizer step:
 * a pass over its micro-batches counts before the one that trains, and the bits do not depend on
 * how the step is cut. Terms are added in f64, by layer in order of tokens, then the layers.
 * Rejected: each micro-batch by itself, as transformers has it (other bits, another loss, for each
 * cut, and experts that must be equally busy within a few texts); the choices of the step before
 * (no gradient of any function). The price is the forward pass without its LM head once more. */
#include "recipes/models/models_int.h"

struct routing {
    bool loss;
    i64 tokens;
    struct tensor **at;            /* [layers] choices [N, k] or terms [N]; NULL: no experts */
    struct tensor *factor, *share; /* g [E]; what a token's term counts [N] */
    float *factors, *shares;       /* their values */
    void *host;                    /* room for a result */
};

int balance_trace(struct build *b, i64 tokens, bool loss) {
    const struct config *c = &b->m->config;
    struct graph *g = b->g;
    struct routing *r = b->routing = arena_new(&g->arena, sizeof *r, &g->err);
    if (!r) return -1;
    *r = (struct routing){.loss = loss, .tokens = tokens};
    if (!(r->at = arena_new(&g->arena, c->layers * (i64)sizeof *r->at, &g->err)) ||
        !(r->factors = arena_new(&g->arena, c->experts * 4, &g->err)) ||
        !(r->shares = arena_new(&g->arena, tokens * 4, &g->err)) ||
        !(r->host = arena_new(&g->arena, tokens * c->experts_per_token * 4, &g->err)))
        return -1;
    if (!loss) return 0;
    r->factor = graph_input(g, "balance", F32, DIMS(c->experts));
    r->share = graph_input(g, "balance_share", F32, DIMS(tokens));
    if (!r->share) return -1;
    r->factor->view.data = r->factors, r->share->view.data = r->shares;
    return 0;
}

struct tensor *balance_input(const struct build *b) {
    return b->routing ? b->routing->factor : NULL;
}

void balance_keep(struct build *b, struct tensor *index, struct tensor *term) {
    struct routing *r = b->routing;
    if (!r) return;
    graph_keep(r->at[b->layer] = r->loss ? term : index);
}

int balance_seeds(const struct build *b, struct seed *out) {
    const struct routing *r = b->routing;
    int count = 0;
    for (i64 l = 0; r && r->loss && l < b->m->config.layers; l++)
        if (r->at[l]) out[count++] = (struct seed){r->at[l], r->share};
    return count;
}

void balance_bind(struct build *b, const struct balance *all, const i32 *real) {
    const struct config *c = &b->m->config;
    const double rows = (double)i64_max(all->rows, 1);
    struct routing *r = b->routing;
    for (i64 i = 0; i < c->experts; i++)
        r->factors[i] = (float)((double)c->experts * (double)all->chosen[i] / (rows * rows));
    for (i64 t = 0; t < r->tokens; t++) r->shares[t] = !real || real[t] ? (float)c->aux_coef : 0;
}

int balance_add(struct build *b, struct balance *all, const i32 *real, struct err *e) {
    const struct config *c = &b->m->config;
    const struct routing *r = b->routing;
    const i64 k = c->experts_per_token;
    if (!all->sum && !(all->sum = mem_new_array(c->layers, sizeof *all->sum, e))) return -1;
    for (i64 l = 0; l < c->layers; l++) {
        if (!r->at[l]) continue;
        if (graph_read(b->g, r->at[l], r->host, e)) return -1;
        for (i64 t = 0; t < r->tokens; t++) {
            if (real && !real[t]) continue;
            if (r->loss)
                all->sum[l] += (double)((const float *)r->host)[t];
            else
                all->rows++;
            for (i64 s = 0; !r->loss && s < k; s++)
                all->chosen[((const i32 *)r->host)[t * k + s]]++;
        }
    }
    return 0;
}

double balance_loss(const struct balance *all, i64 layers) {
    double sum = 0;
    for (i64 l = 0; l < layers && all->sum; l++) sum += all->sum[l];
    return sum;
}
