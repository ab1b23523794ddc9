/* linear.c: a linear layer in a trace, with its bias, adapter and 4-bit codes. */
#include "recipes/models/models_int.h"

struct tensor *build_linear(struct build *b, struct tensor *x, const struct module_type *type) {
    const struct module *m = build_module(b, type);
    const struct lora_pair *lora = &m->adapter;
    struct param *w = m->weight;
    struct linear_in in = {.x = x, .w = build_param(b, w), .bias = build_param(b, m->bias)};
    for (int i = 0; i < SCALES; i++)
        if (w->scale[i].data)
            in.scale[i] = graph_param(b->g, &w->scale[i], w->name, &w->scale[i], false);
    if (!lora->a) return linear_call(b, &in, lora->scale);
    in.a = build_param(b, lora->a), in.b = build_param(b, lora->b);
    return lora_linear(b, &in, lora, module_stream(m));
}
