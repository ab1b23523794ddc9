/* samples.c: how a recipe makes samples (README.md, "Samples"), and what of the data is then not
 * trained on, or not whole. */
#include "train/loop/loop.h"

#include <string.h>

bool samples_weighted(const struct recipe *r) {
    bool plain = r->recipe_version >= 2;
    for (i64 i = 0; i < r->dataset.count; i++) plain &= r->dataset.item[i].weight == 1;
    return !plain && r->dataset.count > 1;
}

/* Does a step end where an epoch does? */
static bool by_epochs(const struct recipe *r) {
    return r->recipe_version >= 2 && !samples_weighted(r);
}

double samples_epoch_steps(const struct trainer *t) {
    return t->r->recipe_version >= 2
               ? (double)loader_steps(t->loader)
               : (double)loader_samples(t->loader) / (double)t->r->global_batch_size;
}

i64 samples_seen(const struct trainer *t, i64 step) {
    const i64 batch = t->r->global_batch_size, steps = loader_steps(t->loader);
    if (!by_epochs(t->r) || t->r->drop_last) return step * batch;
    return step / steps * loader_samples(t->loader) + step % steps * batch;
}

i64 samples_at_once(const struct trainer *t, i64 micro) {
    return by_epochs(t->r) ? i64_min(micro, loader_samples(t->loader)) : micro;
}

void samples_of_recipe(const struct recipe *r, struct loader_config *c) {
    static const char *const truncation[] = {"right", "left", "drop", "split", "error"};
    const char *how = r->packing_strategy;
    const bool wrapped =
        !strcmp(how, "wrapped") || (!strcmp(how, "auto") && !strcmp(r->task, "pretrain"));
    if (r->recipe_version < 2) return; /* blocks or whole documents; steps know no epochs */
    for (int i = 0; i < COUNT(truncation); i++)
        if (!strcmp(r->truncation, truncation[i])) c->truncation = (enum truncation)i;
    if (!strcmp(how, "bfd_split")) c->truncation = TRUNCATE_SPLIT;
    c->packing_strategy = wrapped ? PACKING_WRAPPED : PACKING_BFD;
    c->trained_only = c->last_block = true;
    c->epochs = !c->one_pass, c->drop_last = r->drop_last && !c->one_pass;
}

static void facts_print(const struct loader_facts *f, const struct recipe *r, const char *path) {
    const bool split = !strcmp(r->truncation, "split") || !strcmp(r->packing_strategy, "bfd_split");
    const long long all = f->documents, most = r->max_seq_length;
    if (f->dropped)
        show(stderr,
             "note: %s: %lld of %lld documents have more than %lld tokens and are left out, %lld "
             "tokens in all (truncation: drop)\n",
             path, (long long)f->dropped, all, most, (long long)f->tokens_cut);
    if (f->cut && split)
        show(stderr,
             "note: %s: %lld of %lld documents have more than %lld tokens and become several\n",
             path, (long long)f->cut, all, most);
    else if (f->cut)
        show(stderr,
             "note: %s: %lld of %lld documents have more than %lld tokens; %lld tokens are cut off "
             "(truncation: %s)\n",
             path, (long long)f->cut, all, most, (long long)f->tokens_cut, r->truncation);
    if (f->untrained)
        show(stderr, "note: %s: %lld %s have no token to train and are left out\n", path,
             (long long)f->untrained, split ? "pieces of documents" : "documents");
    if (f->untrained_blocks)
        show(stderr,
             "note: %s: %lld blocks of %lld tokens have no token to train and are left out\n", path,
             (long long)f->untrained_blocks, most);
}

void samples_note(const struct trainer *t) {
    const struct recipe *r = t->r;
    for (i64 i = 0; i < r->dataset.count; i++)
        facts_print(loader_facts(t->loader, i), r, r->dataset.item[i].path);
    for (i64 i = 0; i < r->eval_dataset.count; i++)
        facts_print(loader_facts(t->eval_loader, i), r, r->eval_dataset.item[i].path);
}

void trainer_note(struct trainer *t, const char *fmt, ...) {
    char text[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (t->notes)
        text_printf(t->notes, &(struct err){0}, "note: %s\n", text);
    else if (!quiet)
        show(stderr, "note: %s\n", text);
}
