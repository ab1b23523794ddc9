/* mlp.c: the MLP without a gate. */
#include "recipes/models/mixers/mixers.h"

/* xIELU: what softplus makes 0.8, and 0.3 (beta is added); every file has the same buffers. */
const struct module_type mlp_up = {"up", MODULE_LINEAR, &mixer_mlp, 28, .gguf.stem = "ffn_up"};
const struct module_type mlp_down = {"down", MODULE_LINEAR, &mixer_mlp, 30,
                                     .gguf.stem = "ffn_down"};
const struct module_type mlp_alpha_p = {"alpha_p", MODULE_NUMBERS, &mixer_mlp,
                                        .start = 0x1.a086eap-3f, .gguf.list = "xielu.alpha_p"};
const struct module_type mlp_alpha_n = {"alpha_n", MODULE_NUMBERS, &mixer_mlp,
                                        .start = -0x1.0cdb96p+0f, .gguf.list = "xielu.alpha_n"};
const struct module_type mlp_beta = {"beta", MODULE_BUFFER, &mixer_mlp, .start = 0.5f,
                                     .gguf.list = "xielu.beta"};
const struct module_type mlp_eps = {"eps", MODULE_BUFFER, &mixer_mlp, .start = -1e-6f,
                                    .gguf.list = "xielu.eps"};

/* down(act(up)) */
static struct tensor *trace(struct build *b, struct tensor *x) {
    const struct act_attr attr = {.act = b->m->config.act};
    x = build_linear(b, x, &mlp_up);
    if (build_module(b, &mlp_alpha_p)) {
        const struct xielu_attr bend = {build_module(b, &mlp_beta)->value,
                                        build_module(b, &mlp_eps)->value};
        x = graph_op(b->g, &op_xielu, &bend,
                     BIND({"x", x}, {"alpha_p", build_weight(b, &mlp_alpha_p)},
                          {"alpha_n", build_weight(b, &mlp_alpha_n)}));
    } else
        x = graph_op(b->g, &op_act, &attr, BIND({"x", x}));
    return build_linear(b, x, &mlp_down);
}

const struct mixer mixer_mlp = {.name = "mlp", .trace = trace};
