/* build.c: what mixers and the decoder trace with: parameters as tensors, the norm that the family
 * has, linear layers with what is attached to them. */
#include "recipes/models/models_int.h"

struct module *build_module(const struct build *b, const struct module_type *type) {
    return model_module(b->m, b->layer, type);
}

struct tensor *build_param(struct build *b, struct param *p) {
    return p ? graph_param(b->g, p, p->name, &p->view, p->trainable) : NULL;
}

struct tensor *build_weight(struct build *b, const struct module_type *type) {
    const struct module *m = build_module(b, type);
    return m ? build_param(b, m->weight) : NULL;
}

struct tensor *build_bias(struct build *b, const struct module_type *type) {
    const struct module *m = build_module(b, type);
    return m ? build_param(b, m->bias) : NULL;
}

struct tensor *linear_call(struct build *b, const struct linear_in *in, double lora_scale) {
    const struct lora_attr attr = {lora_scale};
    return graph_op(b->g, &op_linear, &attr,
                    BIND({"x", in->x}, {"w", in->w}, {"bias", in->bias}, {"a", in->a}, {"b", in->b},
                         {"absmax", in->scale[0]}, {"code", in->scale[1]},
                         {"absmax2", in->scale[2]}));
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
