/* proof.c: what hone promises, shown on the user's own run: a document that is packed with others
 * has the losses that it has alone, and however a step is cut, its result has the same bits. */
#include "train/check/check.h"

#include <string.h>

/* ---- packed against alone */

struct alone { /* one document as a micro-batch */
    i32 *ids, *targets, *position, *begin, *last, *real;
    i64 tokens;
};
static int alone_new(struct alone *a, i64 tokens, struct err *e) {
    i32 **const part[] = {&a->ids, &a->targets, &a->position, &a->begin, &a->last, &a->real};
    *a = (struct alone){.tokens = round_up(tokens, LOADER_PAD)};
    for (int i = 0; i < COUNT(part); i++)
        if (!(*part[i] = mem_new_array(a->tokens, sizeof **part[i], e))) return -1;
    return 0;
}
static void alone_free(struct alone *a) {
    mem_free(a->ids), mem_free(a->targets), mem_free(a->position), mem_free(a->begin);
    mem_free(a->last), mem_free(a->real);
}

/* Tokens [first, first + count) of a micro-batch, with padding behind them as the loader's. */
static void alone_fill(struct alone *a, const struct batch *b, i64 first, i64 count) {
    for (i64 i = 0; i < a->tokens; i++) {
        const bool real = i < count;
        const i64 from = real ? 0 : count;
        a->ids[i] = real ? b->ids[first + i] : 0, a->real[i] = real;
        a->targets[i] = real ? b->targets[first + i] : -100;
        a->position[i] = (i32)(i - from), a->begin[i] = (i32)from;
        a->last[i] = (i32)i;
    }
}

struct comparison {
    i64 documents, tokens, unequal; /* documents whose losses are not equal */
    double most;                    /* the largest difference */
};

static int document_compare(struct trainer *t, const struct batch *b, const float *packed,
                            i64 first, i64 count, struct comparison *c, struct err *e) {
    struct alone a;
    float *loss = NULL;
    struct pass *p = NULL;
    int rc = alone_new(&a, count, e) || !(loss = mem_new_array(a.tokens, sizeof *loss, e));
    if (!rc) {
        alone_fill(&a, b, first, count);
        const struct batch one = {1,          a.tokens, 0,      a.ids, a.targets,
                                  a.position, a.begin,  a.last, a.real};
        rc = !(p = trainer_run(t, &one, USE_EVAL, NULL, 0, NULL, e)) || pass_read(p, loss, e);
    }
    bool equal = true;
    for (i64 i = 0; !rc && i < count; i++) {
        if (b->targets[first + i] < 0) continue;
        const double d = (double)loss[i] - (double)packed[first + i];
        equal &= !memcmp(&loss[i], &packed[first + i], sizeof *loss), c->tokens++;
        if (d > c->most || -d > c->most) c->most = d < 0 ? -d : d;
    }
    c->documents++, c->unequal += !equal;
    alone_free(&a), mem_free(loss);
    return rc ? -1 : 0;
}

/* Documents are where positions begin anew, or, without a mask, where the dataset says. */
static int batch_compare(struct trainer *t, const struct batch *b, struct comparison *c,
                         struct err *e) {
    float *loss = mem_new_array(b->tokens, sizeof *loss, e);
    struct pass *p = loss ? trainer_run(t, b, USE_EVAL, NULL, 0, NULL, e) : NULL;
    int rc = !p || pass_read(p, loss, e);
    for (i64 i = 0, end; !rc && i < b->tokens; i = end) {
        for (end = i + 1; end < b->tokens && b->position[end];) end++;
        if (b->real[i]) rc = document_compare(t, b, loss, i, end - i, c, e);
    }
    return mem_free(loss), rc ? -1 : 0;
}

int check_packing(struct findings *f, struct trainer *t, struct err *e) {
    const struct step_batches *s;
    struct comparison c = {0};
    findings_section(f, "packed against alone");
    if (!t->r->packing) {
        findings_row(f, FINE, "packing", "false: each document is a sample of its own");
        return 0;
    }
    if (!t->r->document_mask) {
        findings_row(f, WASTE, "document_mask",
                     "false: a document sees those in front of it in its sample, so that its "
                     "losses are not those that it has alone");
        findings_suggest(f, "document_mask: true", "documents do not see each other");
        return 0;
    }
    if (loader_step(t->loader, 0, &s, e)) return -1;
    for (i64 i = 0; i < s->count; i++)
        if (batch_compare(t, &s->batch[i], &c, e)) return -1;
    findings_row(f, c.unequal ? WASTE : FINE, "losses",
                 "%lld documents of the first step, %lld trained tokens: %s",
                 (long long)c.documents, (long long)c.tokens,
                 c.unequal ? "not those of each document alone"
                           : "each the bits that it has alone");
    if (c.unequal)
        findings_row(f, WASTE, "difference", "%lld documents, at most %g nats",
                     (long long)c.unequal, c.most);
    return 0;
}

/* ---- any split of a step */

static int step_digest(const struct recipe *r, i64 micro, const char *run_dir, struct text *notes,
                       char digest[65], double *loss, struct err *e) {
    struct recipe other = *r;
    struct trainer t = {0};
    struct step_result result = {0};
    other.micro_batch_size = micro;
    const int rc = trainer_open(&t, &other,
                                &(struct trainer_opening){.run_dir = run_dir, .notes = notes}, e) ||
                   trainer_plan_bytes(&t, e) < 0 || trainer_step(&t, &result, e) ||
                   optimizer_digest(&t.optimizer, DIGEST_VERSION, digest, e);
    *loss = result.loss;
    trainer_close(&t);
    return rc ? -1 : 0;
}

int check_accumulation(struct findings *f, const struct recipe *r, const char *run_dir,
                       struct text *notes, struct err *e) {
    const i64 group = r->global_batch_size / r->reduction_groups, own = trainer_micro_batch(r);
    char first[65] = "", digest[65];
    findings_section(f, "one step, cut in several ways");
    for (i64 micro = 1, tried = 0; micro <= group && tried < 4; micro++) {
        const bool wanted = micro == 1 || micro == own || micro == group || 2 * micro == group;
        double loss;
        struct err failed = {0};
        notes->size = 0; /* the same each time */
        if (group % micro || !wanted) continue;
        tried++;
        if (step_digest(r, micro, run_dir, notes, digest, &loss, &failed)) {
            if (failed.code == ERR_INPUT || micro == own) return *e = failed, -1;
            findings_row(f, NOTE, "micro-batch", "%lld: not tried: %s", (long long)micro,
                         failed.primary);
            continue;
        }
        if (!*first) strcpy(first, digest);
        const bool same = !strcmp(first, digest);
        findings_row(f, same ? FINE : WASTE, "micro-batch", "%lld: loss %.9g, state %.16s...%s",
                     (long long)micro, loss, digest, same ? "" : " is another one");
    }
    return 0;
}
