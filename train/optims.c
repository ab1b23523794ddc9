/* optims.c: the optimizers: their names, which are those of transformers' `optim` (or torch.optim's
 * classes), the rule of ops/update.c that each follows, and the arguments that `optim_args` may
 * give it, which have the names and defaults of torch.optim. What all have in common
 * (learning_rate, weight_decay, adam_*, max_grad_*) are keys of the recipe. */
#include "train/train.h"

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

static const struct optim optims[] = {
    {"adamw", UPDATE_ADAMW, false, adam_args},
    {"adamw_8bit", UPDATE_ADAMW, true, none},
    {"adam", UPDATE_ADAM, false, adam_args},
    {"lion", UPDATE_LION, false, none},
    {"sgd", UPDATE_SGD, false, sgd_args},
    {"adagrad", UPDATE_ADAGRAD, false, adagrad_args},
    {"rmsprop", UPDATE_RMSPROP, false, rmsprop_args},
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
    return 0;
}

void optims_help(FILE *to) {
    fprintf(to, "\nArguments in optim_args, by optimizer\n");
    for (int i = 0; i < COUNT(optims); i++)
        for (const struct option *a = optims[i].args; a->key; a++)
            fprintf(to, "  %-28s %-32s %s [%s]\n", optims[i].name, a->key, a->help, a->otherwise);
}
