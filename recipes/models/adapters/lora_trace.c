/* lora_trace.c: adapters in a trace. A layer asks for one fused operation; nothing else in the
 * model knows that there is an adapter. */
#include "recipes/models/models_int.h"

static struct tensor *linear(const struct tracing *to, struct tensor *x, struct tensor *w) {
    return linear_call(to->g, &(struct linear_in){.x = x, .w = w}, 0);
}
static struct tensor *plus(const struct tracing *to, struct tensor *y, struct tensor *v) {
    return graph_op(to->g, &op_add, NULL, BIND({"a", y}, {"b", v}));
}
static struct tensor *scaled(const struct tracing *to, struct tensor *v, double by) {
    return graph_op(to->g, &op_scale, &(struct scale_attr){by}, BIND({"x", v}));
}

static struct tensor *dropped(const struct tracing *to, struct tensor *x, u32 stream) {
    const struct dropout_attr drop = {to->dropout, to->dropout_seed, stream};
    return graph_op(to->g, &op_dropout, &drop, BIND({"x", x}, {"place", to->dropout_place}));
}

/* Norms of the adapted weight, of rows or of columns. */
static struct tensor *dora_norm(const struct tracing *to, const struct linear_in *in, double scale,
                                bool columns) {
    const struct dora_attr attr = {scale, columns};
    return graph_op(to->g, &op_dora_norm, &attr, BIND({"a", in->a}, {"w", in->w}, {"b", in->b}));
}
/* u with the magnitudes m instead of the norms of its weight. */
static struct tensor *dora(const struct tracing *to, struct tensor *u, const struct lora_pair *l,
                           struct tensor *norm, struct tensor *bias) {
    return graph_op(
        to->g, &op_dora, &(struct lora_attr){l->scale},
        BIND({"u", u}, {"m", param_tensor(to->g, l->magnitude)}, {"norm", norm}, {"bias", bias}));
}

static struct tensor *dora_linear(const struct tracing *to, const struct linear_in *in,
                                  const struct lora_pair *l, u32 stream) {
    struct tensor *norm = dora_norm(to, in, l->scale, false);
    struct linear_in inner = *in;
    inner.bias = NULL;
    if (to->dropout_place) inner.x = dropped(to, in->x, stream);
    struct tensor *y = dora(to, linear_call(to->g, &inner, l->scale), l, norm, in->bias);
    if (!to->dropout_place) return y;
    /* PEFT drops the magnitudes' part of the base too: + (x - dropped x)·w^T */
    inner.x = plus(to, in->x, scaled(to, inner.x, -1)), inner.a = inner.b = NULL;
    return plus(to, y, linear_call(to->g, &inner, l->scale));
}

struct tensor *lora_linear(const struct tracing *to, const struct module *m,
                           const struct linear_in *in) {
    const struct lora_pair *l = &m->adapter;
    const u32 stream = module_stream(m);
    if (l->magnitude) return dora_linear(to, in, l, stream);
    if (!to->dropout_place) return linear_call(to->g, in, l->scale);
    struct linear_in base = *in;
    base.a = base.b = NULL;
    struct tensor *y = linear_call(to->g, &base, l->scale);
    struct tensor *part = linear(to, linear(to, dropped(to, in->x, stream), in->a), in->b);
    return plus(to, y, scaled(to, part, l->scale));
}

struct head_in lora_head(const struct tracing *to, const struct module *m, struct tensor *x,
                         struct tensor *w) {
    const struct lora_pair *l = &m->adapter;
    struct tensor *low = to->dropout_place ? dropped(to, x, module_stream(m)) : x;
    const struct linear_in adapted = {
        .w = w, .a = param_tensor(to->g, l->a), .b = param_tensor(to->g, l->b)};
    struct head_in h = {.x = x, .u = adapted.b};
    h.t = scaled(to, linear(to, low, adapted.a), l->scale);
    if (!l->magnitude) return h;
    h.m = param_tensor(to->g, l->magnitude), h.norm = dora_norm(to, &adapted, l->scale, false);
    if (to->dropout_place) h.x = low, h.rest = plus(to, x, scaled(to, low, -1));
    return h;
}

struct tensor *lora_embedding(const struct tracing *to, const struct module *m, struct tensor *ids,
                              struct tensor *x) {
    const struct lora_pair *l = &m->adapter;
    const struct linear_in adapted = {.w = param_tensor(to->g, m->weight),
                                      .a = param_tensor(to->g, l->a),
                                      .b = param_tensor(to->g, l->b)};
    struct tensor *t = graph_op(to->g, &op_embedding, NULL, BIND({"ids", ids}, {"w", adapted.a}));
    x = plus(to, x, scaled(to, linear(to, t, adapted.b), l->scale));
    if (!l->magnitude) return x;
    return dora(to, x, l, dora_norm(to, &adapted, l->scale, true), NULL);
}
