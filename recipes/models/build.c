/* build.c: what mixers and the decoder trace with: the modules of the current layer, and the norm
 * that the family has. */
#include "recipes/models/models_int.h"

struct module *build_module(const struct build *b, const struct module_type *type) {
    return model_module(b->m, b->layer, type);
}

struct tracing build_tracing(const struct build *b) {
    return (struct tracing){b->g, b->dropout, b->dropout_seed, b->dropout_place, b->bare, b->int8};
}

struct tensor *build_weight(struct build *b, const struct module_type *type) {
    const struct module *m = build_module(b, type);
    return m ? param_tensor(b->g, m->weight) : NULL;
}

struct tensor *build_bias(struct build *b, const struct module_type *type) {
    const struct module *m = build_module(b, type);
    return m ? param_tensor(b->g, m->bias) : NULL;
}

struct norm_attr build_norm_attr(const struct build *b, i64 width) {
    const struct config *c = &b->m->config;
    return (struct norm_attr){c->norm_eps, c->family->norm_one_plus ? 1 : 0, width};
}

struct tensor *build_norm(struct build *b, struct tensor *x, const struct module_type *type,
                          i64 width) {
    const struct norm_attr attr = build_norm_attr(b, width);
    const bool rms = b->m->config.family->norm == NORM_RMS;
    struct tensor *w = build_weight(b, type);
    if (rms) return graph_op(b->g, &op_rmsnorm, &attr, BIND({"x", x}, {"w", w}));
    return graph_op(b->g, &op_layernorm, &attr,
                    BIND({"x", x}, {"w", w}, {"b", build_bias(b, type)}));
}

struct tensor *build_linear(struct build *b, struct tensor *x, const struct module_type *type) {
    const struct tracing t = build_tracing(b);
    return module_linear(&t, build_module(b, type), x);
}
