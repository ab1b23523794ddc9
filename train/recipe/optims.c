/* optims.c: the optimizers: their names, which are those of transformers' `optim` (or torch.optim's
 * classes), the rule of ops/update.c that each follows, and the arguments that `optim_args` may
 * give it, which have the names and defaults of torch.optim. What all have in common
 * (learning_rate, weight_decay, adam_*, max_grad_*) are keys of the recipe. */
#include "train/recipe/recipe.h"

#include <string.h>

#define AT(k) offsetof(struct optim_args, k)
#define FLOAT(k, d, lo, hi, h)                                                                     \
    { #k, OPT_FLOAT, AT(k), d, lo, hi, NULL, h }
#define BOOL(k, h)                                                                                 \
    { #k, OPT_BOOL, AT(k), "false", 0, 0, NULL, h }

static const struct option none[] = {{0}};
static const struct option adam_args[] = {
    BOOL(amsgrad, "divide by the largest mean of squares so far"), {0}};
static const struct option sgd_args[] = {
    FLOAT(momentum, "0", 0, 0.999999999, "decay of the sum of gradients; 0: none is kept"),
    FLOAT(dampening, "0", 0, 1, "share of a gradient that does not enter that sum"),
    BOOL(nesterov, "the step looks one momentum ahead"),
    {0}};
static const struct option adagrad_args[] = {
    FLOAT(lr_decay, "0", 0, 1e3, "the rate of step t, from 0, is divided by 1 + t * lr_decay"),
    FLOAT(eps, "1e-10", 0, 1, "added to the root"),
    {0}};
static const struct option rmsprop_args[] = {
    FLOAT(alpha, "0.99", 0, 0.999999999, "decay of the mean of squared gradients"),
    FLOAT(eps, "1e-8", 0, 1, "added to the root"),
    FLOAT(momentum, "0", 0, 0.999999999, "decay of the sum of steps; 0: none is kept"),
    BOOL(centered, "divide by the deviation, not the mean of squares"),
    {0}};

#define FACTOR_ARGS(eps)                                                                           \
    FLOAT(eps1, eps, 1e-30, 1, "the least mean of squares"),                                       \
        FLOAT(eps2, "1e-3", 0, 1, "the least size of a parameter"),                                \
        FLOAT(clip_threshold, "1", 1e-6, 1e6,                                                      \
              "the most root mean square of a step, before rates"),                                \
        FLOAT(decay_rate, "-0.8", -10, -1e-6, "the mean of squares takes t^decay_rate of step t")
static const struct option factors_args[] = {
    FACTOR_ARGS("1e-30"),
    {"beta1", OPT_FLOAT, AT(momentum), "0", 0, 0.999999999, NULL,
     "decay of the mean of steps; 0: none is kept"},
    BOOL(scale_parameter, "the rate is multiplied by the parameter's root mean square"),
    BOOL(relative_step, "the rate is min(1e-2, 1 / sqrt(t)); learning_rate is not used"),
    BOOL(warmup_init, "relative_step: min(1e-6 t, 1 / sqrt(t))"),
    {0}};
static const struct option factors_torch_args[] = {FACTOR_ARGS("1.1920928955078125e-7"), {0}};
static const struct option muon_args[] = {
    FLOAT(momentum, "0.95", 0, 0.999999999, "decay of the mean of gradients"),
    {"nesterov", OPT_BOOL, AT(nesterov), "true", 0, 0, NULL, "the step looks one momentum ahead"},
    {"ns_steps", OPT_INT, AT(ns_steps), "5", 1, 99, NULL, "Newton-Schulz iterations"},
    FLOAT(ns_a, "3.4445", -1e3, 1e3, "their coefficients: x = a x + b x^3 + c x^5"),
    FLOAT(ns_b, "-4.7750", -1e3, 1e3, ""),
    FLOAT(ns_c, "2.0315", -1e3, 1e3, ""),
    FLOAT(eps, "1e-7", 1e-30, 1, "the least norm that is divided by"),
    {"adjust_lr_fn", OPT_CHOICE, AT(adjust_lr_fn), "original", 0, 0,
     "original match_rms_adamw spectral_unclamped",
     "rate of rows x cols: sqrt(max(1, rows / cols)), 0.2 sqrt(max(rows, cols)), "
     "sqrt(rows / cols)"},
    FLOAT(adamw_lr, "0", 0, 1e3, "rate of vectors, embeddings and LM head (AdamW); 0: the same"),
    {0}};

static const struct optim optims[] = {
    {"adamw", UPDATE_ADAMW, FORM_PLAIN, adam_args},
    {"adamw_8bit", UPDATE_ADAMW, FORM_CODED, none},
    {"adam", UPDATE_ADAM, FORM_PLAIN, adam_args},
    {"lion", UPDATE_LION, FORM_PLAIN, none},
    {"sgd", UPDATE_SGD, FORM_PLAIN, sgd_args},
    {"adagrad", UPDATE_ADAGRAD, FORM_PLAIN, adagrad_args},
    {"rmsprop", UPDATE_RMSPROP, FORM_PLAIN, rmsprop_args},
    {"adafactor", UPDATE_SGD, FORM_FACTORS, factors_args},
    {"adafactor_torch", UPDATE_SGD, FORM_FACTORS_TORCH, factors_torch_args},
    {"muon", UPDATE_SGD, FORM_MUON, muon_args},
};

const struct optim *optim_find(const char *name) {
    for (int i = 0; name && i < COUNT(optims); i++)
        if (!strcmp(optims[i].name, name)) return &optims[i];
    return &optims[0];
}

/* "momentum, dampening, nesterov" */
static void arguments(const struct optim *o, char *out, size_t size) {
    size_t n = (size_t)snprintf(out, size, "%s", o->args->key ? "" : "none");
    for (const struct option *a = o->args; a->key; a++)
        n += (size_t)snprintf(out + n, size - n, "%s%s", n ? ", " : "", a->key);
}

int recipe_optim(struct recipe *r, const char *where, struct err *e) {
    const struct optim *o = optim_find(r->optim);
    r->optim_with = (struct optim_args){0};
    if (option_defaults(o->args, &r->optim_with, &r->arena, e)) return -1;
    for (i64 i = 0; i < r->optim_args.count; i++) {
        const char *text = r->optim_args.item[i], *equals = strchr(text, '=');
        char key[64], all[256];
        if (!equals || equals == text || equals - text >= (i64)sizeof key)
            return err_input(e, "%s: optim_args: found '%.100s', expected ARGUMENT=VALUE", where,
                             text);
        snprintf(key, sizeof key, "%.*s", (int)(equals - text), text);
        if (!option_find(o->args, key)) {
            arguments(o, all, sizeof all);
            err_input(e, "%s: optim_args: '%s' is not an argument of optim: %s", where, key,
                      o->name);
            return err_hint(e, "its arguments: %s", all);
        }
        if (option_set(o->args, &r->optim_with, key, equals + 1, where, &r->arena, e)) return -1;
    }
    if (r->optim_with.nesterov && !(r->optim_with.momentum > 0 && r->optim_with.dampening == 0)) {
        err_input(e, "%s: optim_args: nesterov=true needs momentum and no dampening", where);
        return -1;
    }
    if (r->optim_with.warmup_init && !r->optim_with.relative_step)
        return err_input(e, "%s: optim_args: warmup_init=true needs relative_step=true", where);
    if (o->form == FORM_MUON && r->optim_with.ns_c == 0)
        return err_input(e, "%s: optim_args: ns_c = 0 is out of range", where);
    if (o->form == FORM_FACTORS_TORCH) r->optim_with.scale_parameter = true;
    if (r->optim_with.relative_step && recipe_given(r, "learning_rate"))
        return text_printf(&r->notes, e,
                           "%s: 'learning_rate' has no effect with relative_step=true\n", where);
    return 0;
}

void optims_help(FILE *to) {
    fprintf(to, "\nArguments in optim_args, by optimizer\n");
    for (int i = 0; i < COUNT(optims); i++)
        for (const struct option *a = optims[i].args; a->key; a++)
            fprintf(to, "  %-28s %-32s %s [%s]\n", optims[i].name, a->key, a->help, a->otherwise);
}
