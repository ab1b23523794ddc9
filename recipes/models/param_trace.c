/* param_trace.c: a parameter as a tensor of a graph, and the product with one. */
#include "recipes/models/models_int.h"

struct tensor *param_tensor(struct graph *g, struct param *p) {
    return p ? graph_param(g, p, p->name, &p->view, p->trainable) : NULL;
}

struct tensor *linear_call(struct graph *g, const struct linear_in *in, double lora_scale) {
    const struct lora_attr attr = {lora_scale};
    const bool whole = in->int8 && in->w && linear_int8_takes(&in->w->view);
    return graph_op(
        g, whole ? &op_linear_int8 : &op_linear, &attr,
        BIND({"x", in->x}, {"w", in->w}, {"bias", in->bias}, {"a", in->a}, {"b", in->b}));
}
