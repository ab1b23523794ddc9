/* lora_trace.c: adapters in a trace. A layer asks for one fused operation; nothing else in the
 * model knows that there is an adapter. */
#include "recipes/models/models_int.h"

static struct tensor *linear(struct build *b, struct tensor *x, struct tensor *w) {
    return linear_call(b, &(struct linear_in){.x = x, .w = w}, 0);
}
static struct tensor *plus(struct build *b, struct tensor *y, struct tensor *v) {
    return graph_op(b->g, &op_add, NULL, BIND({"a", y}, {"b", v}));
}
static struct tensor *scaled(struct build *b, struct tensor *v, double by) {
    return graph_op(b->g, &op_scale, &(struct scale_attr){by}, BIND({"x", v}));
}

static struct tensor *dropped(struct build *b, struct tensor *x, u32 stream) {
    const struct dropout_attr drop = {b->dropout, b->dropout_seed, stream};
    return graph_op(b->g, &op_dropout, &drop, BIND({"x", x}, {"place", b->dropout_place}));
}

/* Norms of the adapted weight, of rows or of columns. */
static struct tensor *dora_norm(struct build *b, const struct linear_in *in, double scale,
                                bool columns) {
    const struct dora_attr attr = {scale, columns};
    return graph_op(b->g, &op_dora_norm, &attr,
                    BIND({"a", in->a}, {"w", in->w}, {"b", in->b}, {"absmax", in->scale[0]},
                         {"code", in->scale[1]}, {"absmax2", in->scale[2]}));
}
/* u with the magnitudes m instead of the norms of its weight. */
static struct tensor *dora(struct build *b, struct tensor *u, const struct lora_pair *l,
                           struct tensor *norm, struct tensor *bias) {
    return graph_op(
        b->g, &op_dora, &(struct lora_attr){l->scale},
        BIND({"u", u}, {"m", build_param(b, l->magnitude)}, {"norm", norm}, {"bias", bias}));
}

static struct tensor *dora_linear(struct build *b, const struct linear_in *in,
                                  const struct lora_pair *l, u32 stream) {
    struct tensor *norm = dora_norm(b, in, l->scale, false);
    struct linear_in inner = *in;
    inner.bias = NULL;
    if (b->dropout_place) inner.x = dropped(b, in->x, stream);
    struct tensor *y = dora(b, linear_call(b, &inner, l->scale), l, norm, in->bias);
    if (!b->dropout_place) return y;
    /* PEFT drops the magnitudes' part of the base too: + (x - dropped x)·w^T */
    inner.x = plus(b, in->x, scaled(b, inner.x, -1)), inner.a = inner.b = NULL;
    return plus(b, y, linear_call(b, &inner, l->scale));
}

struct tensor *lora_linear(struct build *b, const struct linear_in *in, const struct lora_pair *l,
                           u32 stream) {
    if (l->magnitude) return dora_linear(b, in, l, stream);
    if (!b->dropout_place) return linear_call(b, in, l->scale);
    struct linear_in base = *in;
    base.a = base.b = NULL;
    struct tensor *y = linear_call(b, &base, l->scale);
    struct tensor *part = linear(b, linear(b, dropped(b, in->x, stream), in->a), in->b);
    return plus(b, y, scaled(b, part, l->scale));
}

struct head_in lora_head(struct build *b, struct tensor *x, struct tensor *w,
                         const struct lora_pair *l, u32 stream) {
    struct tensor *low = b->dropout_place ? dropped(b, x, stream) : x;
    const struct linear_in adapted = {.w = w, .a = build_param(b, l->a), .b = build_param(b, l->b)};
    struct head_in h = {.x = x, .u = adapted.b};
    h.t = scaled(b, linear(b, low, adapted.a), l->scale);
    if (!l->magnitude) return h;
    h.m = build_param(b, l->magnitude), h.norm = dora_norm(b, &adapted, l->scale, false);
    if (b->dropout_place) h.x = low, h.rest = plus(b, x, scaled(b, low, -1));
    return h;
}

struct tensor *lora_embedding(struct build *b, struct tensor *x) {
    const struct module *m = build_module(b, &top_embed);
    const struct lora_pair *l = &m->adapter;
    const struct linear_in adapted = {
        .w = build_param(b, m->weight), .a = build_param(b, l->a), .b = build_param(b, l->b)};
    struct tensor *t = graph_op(b->g, &op_embedding, NULL, BIND({"ids", b->ids}, {"w", adapted.a}));
    x = plus(b, x, scaled(b, linear(b, t, adapted.b), l->scale));
    if (!l->magnitude) return x;
    return dora(b, x, l, dora_norm(b, &adapted, l->scale, true), NULL);
}
