/* ema.c: an exponential moving average of the tokens of a document between two projections: the
 * smallest mixer whose state is one slot for each sequence. */
#include "recipes/models/mixers/mixers.h"

const struct module_type ema_in = {"in", MODULE_LINEAR, &mixer_ema, 1, .gguf.stem = NULL};
const struct module_type ema_out = {"out", MODULE_LINEAR, &mixer_ema, 2, .gguf.stem = NULL};

const struct weight_rule rules_ema[] = {
    {&ema_in, "model.layers.%L.ema.in_proj.weight", .rows = DIM_D, .cols = DIM_D},
    {&ema_out, "model.layers.%L.ema.out_proj.weight", .rows = DIM_D, .cols = DIM_D},
    {0},
};

static int read(struct config *c, const json_t *j, const char *where, struct err *e) {
    c->ema_decay = json_f64(j, "ema_decay", 0.9, where, e);
    if (!e->code && !(c->ema_decay >= 0 && c->ema_decay < 1))
        err_input(e, "%s: 'ema_decay' is %g; expected 0 or more, less than 1", where, c->ema_decay);
    return e->code ? -1 : 0;
}

/* x [N, D] -> [N, D] */
static struct tensor *trace(struct build *b, struct tensor *x) {
    const struct ema_attr attr = {b->m->config.ema_decay};
    x = build_linear(b, x, &ema_in);
    if (b->states) {
        struct view *state = &b->states->layer[b->layer].view[0];
        struct tensor *out[OP_OUT] = {NULL, graph_param(b->g, state->data, "state", state, false)};
        graph_call(b->g, &op_ema_step, &attr,
                   BIND({"x", x}, {"position", b->position}, {"slot", b->slot}), out);
        x = out[0];
    } else
        x = graph_op(b->g, &op_ema, &attr, BIND({"x", x}, {"position", b->position}));
    return build_linear(b, x, &ema_out);
}

static int states(const struct config *c, i64 l, enum dtype d, bool latent,
                  struct state_spec out[LAYER_STATES]) {
    (void)l, (void)d, (void)latent;
    out[0] = (struct state_spec){"average", STATE_SEQUENCE, F32, 1, c->hidden_size};
    return 1;
}

static const char *const types[] = {"moving_average", NULL};
const struct mixer mixer_ema = {
    .name = "ema", .types = types, .config = read, .trace = trace, .states = states};
