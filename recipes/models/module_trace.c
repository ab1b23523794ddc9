/* module_trace.c: linear modules and embeddings in a trace, with bias and adapter. */
#include "recipes/models/models_int.h"

const struct lora_pair *module_adapter(const struct tracing *t, const struct module *m) {
    static const struct lora_pair none;
    return t->bare ? &none : &m->adapter;
}

struct tensor *module_linear(const struct tracing *t, const struct module *m, struct tensor *x) {
    const struct lora_pair *lora = module_adapter(t, m);
    struct linear_in in = {.x = x,
                           .w = param_tensor(t->g, m->weight),
                           .bias = param_tensor(t->g, m->bias),
                           .int8 = t->int8};
    if (!lora->a) return linear_call(t->g, &in, lora->scale);
    in.a = param_tensor(t->g, lora->a), in.b = param_tensor(t->g, lora->b);
    return lora_linear(t, m, &in);
}

struct tensor *module_embedding(const struct tracing *t, const struct module *m,
                                struct tensor *ids) {
    struct tensor *x = graph_op(t->g, &op_embedding, NULL,
                                BIND({"ids", ids}, {"w", param_tensor(t->g, m->weight)}));
    return module_adapter(t, m)->a ? lora_embedding(t, m, ids, x) : x;
}
