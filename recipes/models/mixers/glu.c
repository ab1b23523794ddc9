/* glu.c: the gated MLP. */
#include "recipes/models/mixers/mixers.h"

const struct module_type glu_gate = {"gate", MODULE_LINEAR, &mixer_glu, 27,
                                     .gguf.stem = "ffn_gate"};
const struct module_type glu_up = {"up", MODULE_LINEAR, &mixer_glu, 28, .gguf.stem = "ffn_up"};
const struct module_type glu_gate_up = {"gate_up", MODULE_LINEAR, &mixer_glu, 29,
                                        .gguf.stem = "ffn_gate|ffn_up"};
const struct module_type glu_down = {"down", MODULE_LINEAR, &mixer_glu, 30,
                                     .gguf.stem = "ffn_down"};

const struct weight_rule rules_glu[] = {
    {&glu_gate, "model.layers.%L.mlp.gate_proj.weight", .rows = DIM_F, .cols = DIM_D},
    {&glu_gate, "model.layers.%L.mlp.gate_proj.bias", .rows = DIM_F, .cols = DIM_BIAS,
     .when = HAS_MLP_BIAS},
    {&glu_up, "model.layers.%L.mlp.up_proj.weight", .rows = DIM_F, .cols = DIM_D},
    {&glu_up, "model.layers.%L.mlp.up_proj.bias", .rows = DIM_F, .cols = DIM_BIAS,
     .when = HAS_MLP_BIAS},
    {&glu_down, "model.layers.%L.mlp.down_proj.weight", .rows = DIM_D, .cols = DIM_F},
    {&glu_down, "model.layers.%L.mlp.down_proj.bias", .rows = DIM_D, .cols = DIM_BIAS,
     .when = HAS_MLP_BIAS},
    {0},
};
const struct weight_rule rules_gate_up[] = {
    {&glu_gate_up, "model.layers.%L.mlp.gate_up_proj.weight", .rows = DIM_2F, .cols = DIM_D},
    {&glu_down, "model.layers.%L.mlp.down_proj.weight", .rows = DIM_D, .cols = DIM_F},
    {0},
};

/* down(act(gate) * up), gate and up from one product or two */
static struct tensor *trace(struct build *b, struct tensor *x) {
    const struct config *c = &b->m->config;
    const struct act_attr attr = {.act = c->act};
    struct tensor *out[OP_OUT] = {0};
    if (build_module(b, &glu_gate_up)) {
        const struct split_attr cut = {{c->intermediate_size, c->intermediate_size, 0}};
        graph_call(b->g, &op_split, &cut, BIND({"x", build_linear(b, x, &glu_gate_up)}), out);
    } else
        out[0] = build_linear(b, x, &glu_gate), out[1] = build_linear(b, x, &glu_up);
    struct tensor *y = graph_op(b->g, &op_glu, &attr, BIND({"gate", out[0]}, {"up", out[1]}));
    return build_linear(b, y, &glu_down);
}

const struct mixer mixer_glu = {.name = "glu", .trace = trace};
