/* data.c: what a run would be trained on: rows, lengths, who speaks, where answers end, copies;
 * samples and steps; and the short form of it that every run prints. */
#include "train/check/check.h"

#include <string.h>

static double share(i64 part, i64 all) { return all ? (double)part / (double)all : 0; }
static double percent(i64 part, i64 all) { return 100 * share(part, all); }
/* "1 document", "2 documents" */
static const char *plural(i64 n) { return n == 1 ? "" : "s"; }

/* What was said while rows became tokens: lines "note: ...". */
static void notes_rows(struct findings *f, const struct text *notes) {
    for (const char *line = notes->data, *end; notes->size && *line; line = end + 1) {
        if (!(end = strchr(line, '\n'))) break;
        const char *from = line + (strncmp(line, "note: ", 6) ? 0 : 6);
        findings_row(f, NOTE, "note", "%.*s", (int)(end - from), from);
    }
}

/* ---- one dataset */

static void lengths_row(struct findings *f, json_t *section, const struct facts *x) {
    json_t *bins = json_array();
    int last = LENGTH_BINS - 1, first = 0;
    findings_row(f, FINE, "lengths", "%lld to %lld tokens, median %lld, mean %lld",
                 (long long)x->shortest, (long long)x->longest, (long long)x->median,
                 (long long)(x->tokens / i64_max(x->documents, 1)));
    while (last > 0 && !x->bin[last]) last--;
    while (first < last && !x->bin[first]) first++;
    for (int i = first; i <= last; i++)
        json_array_append_new(bins, json_pack("{s:I, s:I}", "to", (json_int_t)((i64)1 << i),
                                              "count", (json_int_t)x->bin[i]));
    json_object_set_new(section, "lengths", bins);
}

struct voice {
    const char *name;
    const struct probe_tokens *of;
};

/* Whose tokens are trained, as far as the probe looked. */
static void roles_row(struct findings *f, const struct dataset_probe *p) {
    const struct voice voice[] = {
        {"system", &p->role[MESSAGE_SYSTEM]},
        {"user", &p->role[MESSAGE_USER]},
        {"assistant", &p->role[MESSAGE_ASSISTANT]},
        {"tools", &p->role[MESSAGE_TOOL]},
        {"template", &p->role[MESSAGE_ROLES]},
        {"prompts", &p->prompt},
        {"completions", &p->completion},
        {"texts", &p->text},
    };
    char text[400] = "", none[200] = "";
    i64 trained = 0;
    for (int i = 0; i < COUNT(voice); i++) trained += voice[i].of->trained;
    for (int i = 0; i < COUNT(voice); i++) {
        const struct probe_tokens *x = voice[i].of;
        const size_t at = strlen(text), end = strlen(none);
        if (x->trained)
            snprintf(text + at, sizeof text - at, "%s%s %.1f %% (%.0f %% of theirs)",
                     at ? ", " : "", voice[i].name, percent(x->trained, trained),
                     percent(x->trained, x->tokens));
        else if (x->tokens)
            snprintf(none + end, sizeof none - end, "%s%s",
                     end ? ", " : "; not at all: ", voice[i].name);
    }
    if (trained) findings_row(f, FINE, "trained tokens", "%s%s", text, none);
    if (p->pairs)
        findings_row(f, FINE, "prompt + completion",
                     "tokenised as one text; of %lld, %lld would have other tokens apart",
                     (long long)p->pairs, (long long)p->apart);
}

static void stops_row(struct findings *f, const struct trainer *t, const struct stops *s,
                      const struct facts *x) {
    const bool text = !strcmp(t->r->task, "pretrain");
    struct text stop = {0};
    if (!t->tokenizer) return;
    if (!s->count) {
        findings_row(f, NOTE, "stop token", "the tokenizer has none, so that nothing ends a text");
        return;
    }
    for (int i = 0; i < s->count; i++) {
        struct err unused = {0};
        if (i) text_add(&stop, " or ", 4, &unused);
        tokenizer_decode(t->tokenizer, &s->id[i], 1, false, &stop, &unused);
    }
    const double part = percent(x->stopped, x->answers);
    const enum finding level = !x->answers || part >= 95 ? FINE : text || x->stopped ? NOTE : WASTE;
    findings_row(f, level, "stop token", "%.*s ends %.1f %% of %lld trained text%s%s",
                 (int)stop.size, stop.data ? stop.data : "", part, (long long)x->answers,
                 plural(x->answers), level == WASTE ? ": the model would not learn to stop" : "");
    text_free(&stop);
}

static int dataset_rows(struct findings *f, struct trainer *t, const struct data_item *item,
                        const char *role, struct dataset *d, const struct dataset_probe *p,
                        struct prints *prints, i64 *longest, struct err *e) {
    struct stops s;
    struct facts x;
    stops_of(&s, t);
    if (facts_of(d, &s, 0, &x, prints, e)) return -1;
    json_t *section = findings_section(f, "%s: %s", role, item->path);
    if (p->rows)
        findings_row(f, p->skipped ? NOTE : FINE, "rows", "%lld read, %lld left out",
                     (long long)p->rows, (long long)p->skipped);
    findings_row(f, FINE, "documents", "%lld, %lld tokens, of which %.1f %% are trained",
                 (long long)x.documents, (long long)x.tokens, percent(x.trained, x.tokens));
    lengths_row(f, section, &x);
    roles_row(f, p);
    stops_row(f, t, &s, &x);
    if (x.doubled)
        findings_row(f, NOTE, "doubled", "%lld document%s with two bos or two eos tokens in a row",
                     (long long)x.doubled, plural(x.doubled));
    *longest = i64_max(*longest, x.longest);
    return 0;
}

/* What becomes of documents that are too long. */
static void cut_rows(struct findings *f, const struct trainer *t, const char *path,
                     const struct loader_facts *l, i64 tokens, i64 longest) {
    const i64 most = t->r->max_seq_length, out = l->cut + l->dropped;
    const bool half = l->tokens_cut > tokens / 2;
    char line[64];
    if (l->untrained + l->untrained_blocks)
        findings_row(f, NOTE, "untrained", "%s: %lld sample%s without a token to train left out",
                     path, (long long)(l->untrained + l->untrained_blocks),
                     plural(l->untrained + l->untrained_blocks));
    if (!out) return;
    findings_row(f, half ? WASTE : NOTE, "too long",
                 "%s: %lld of %lld documents have more than %lld tokens: %lld %s%s, %lld tokens "
                 "(%.1f %%) are not trained on",
                 path, (long long)out, (long long)l->documents, (long long)most, (long long)out,
                 l->dropped ? "left out" : "cut",
                 !l->dropped && !l->tokens_cut ? " into several" : "", (long long)l->tokens_cut,
                 percent(l->tokens_cut, tokens));
    const i64 limit = t->model.config.max_position_embeddings, all = round_up(longest, 32);
    snprintf(line, sizeof line, "max_seq_length: %lld", (long long)all);
    if (l->tokens_cut && (!limit || all <= limit)) findings_suggest(f, line, "nothing is cut");
}

static void overlap_rows(struct findings *f, const struct trainer *t, struct prints *train,
                         struct prints *eval) {
    const double copies = prints_copies(train);
    findings_section(f, "training against evaluation");
    findings_row(f, copies > 0 ? NOTE : FINE, "duplicates",
                 "%.1f %% of %lld training documents are copies of others", 100 * copies,
                 (long long)train->all);
    if (!t->eval_loader) {
        findings_row(f, NOTE, "evaluation", "no data for it: nothing will say how well it goes");
        if (t->r->dataset.count && !ends_with(t->r->dataset.item[0].path, ".h5"))
            findings_suggest(f, "val_set_size: 0.05", "a twentieth of the rows is held out");
        return;
    }
    const double among = prints_among(eval, train);
    findings_row(f,
                 among >= 0.9 ? WASTE
                 : among > 0  ? NOTE
                              : FINE,
                 "overlap", "%.1f %% of %lld evaluation documents are trained on%s", 100 * among,
                 (long long)eval->all, among >= 0.9 ? ": evaluation would measure memory" : "");
}

int check_data(struct findings *f, struct trainer *t, struct err *e) {
    static const struct dataset_probe none;
    const struct recipe *r = t->r;
    struct prints train = {0}, eval = {0};
    i64 longest = 0;
    int rc = 0;
    for (i64 i = 0; !rc && i < r->dataset.count; i++) {
        i64 here = 0;
        rc = dataset_rows(f, t, &r->dataset.item[i], "training data", t->dataset[i],
                          t->probe ? &t->probe[i] : &none, &train, &here, e);
        if (!rc && t->loader)
            cut_rows(f, t, r->dataset.item[i].path, loader_facts(t->loader, i),
                     dataset_info(t->dataset[i])->tokens, here);
        longest = i64_max(longest, here);
    }
    for (i64 i = 0; !rc && i < r->eval_dataset.count; i++)
        rc = dataset_rows(f, t, &r->eval_dataset.item[i], "evaluation data", t->eval_dataset[i],
                          t->eval_probe ? &t->eval_probe[i] : &none, &eval, &longest, e);
    if (!rc && t->notes && t->notes->size) {
        findings_section(f, "what was said");
        notes_rows(f, t->notes);
    }
    if (!rc) overlap_rows(f, t, &train, &eval);
    mem_free(train.item), mem_free(eval.item);
    return rc ? -1 : 0;
}

/* ---- samples and steps */

/* Tokens [begin, end) of those of a sample as text: what they add to the text of those before. */
static json_t *tokens_text(const struct trainer *t, const u32 *id, i64 begin, i64 end,
                           struct err *e) {
    struct text before = {0}, all = {0};
    json_t *text = NULL;
    int rc = 0;
    for (i64 i = begin; !t->tokenizer && !rc && i < end; i++)
        rc = text_printf(&all, e, "%u ", id[i]);
    if (t->tokenizer)
        rc = tokenizer_decode(t->tokenizer, id, begin, false, &before, e) ||
             tokenizer_decode(t->tokenizer, id, end, false, &all, e);
    const bool grows = before.size <= all.size && before.size &&
                       !memcmp(before.data, all.data, (size_t)before.size);
    const i64 from = grows ? before.size : 0;
    if (!rc) text = json_stringn(all.size ? all.data + from : "", (size_t)(all.size - from));
    if (!rc && !text) text = json_string("\xef\xbf\xbd"); /* the run ends inside a character */
    text_free(&before), text_free(&all);
    return text;
}

/* A sample of the first step, in runs of tokens that are trained, or not. */
static int sample_add(struct findings *f, const struct trainer *t, const struct step_batches *s,
                      i64 index, struct err *e) {
    enum { SHOWN = 400 };
    const struct sample_row *row = &s->row[index];
    const i64 shown = i64_min(SHOWN, row->tokens);
    const i32 *target = s->targets + row->at;
    json_t *list = json_array();
    char title[96];
    u32 id[SHOWN];
    for (i64 i = 0; i < shown; i++) id[i] = (u32)s->ids[row->at + i];
    for (i64 i = 0, end; !e->code && i < shown; i = end) {
        const bool trained = i > 0 && target[i - 1] >= 0;
        for (end = i + 1; end < shown && (target[end - 1] >= 0) == trained;) end++;
        json_t *text = tokens_text(t, id, i, end, e);
        json_array_append_new(list, json_pack("{s:o*, s:b}", "text", text, "trained", trained));
    }
    if (row->tokens > shown)
        json_array_append_new(list, json_pack("{s:s, s:b}", "text", " [...]", "trained", 0));
    snprintf(title, sizeof title,
             "sample %lld of the first step: %lld tokens, %lld trained (green)",
             (long long)index + 1, (long long)row->tokens, (long long)row->trained);
    json_array_append_new(json_object_get(f->all, "samples"),
                          json_pack("{s:s, s:o}", "title", title, "runs", list));
    return e->code ? -1 : 0;
}

static void schedule_rows(struct findings *f, const struct trainer *t) {
    const i64 total = t->total_steps, warmup = t->schedule.warmup;
    char line[64];
    findings_row(f, warmup >= total ? WASTE : FINE, "learning rate",
                 "%.3g after %lld step%s of warm-up, %.3g in the last step%s", t->schedule.lr,
                 (long long)warmup, plural(warmup), schedule_lr(&t->schedule, total - 1),
                 warmup >= total ? ": it never gets there" : "");
    snprintf(line, sizeof line, "warmup_steps: %lld", (long long)(total / 20));
    if (warmup >= total) findings_suggest(f, line, "the run has %lld steps", (long long)total);
}

int check_samples(struct findings *f, struct trainer *t, struct err *e) {
    const struct recipe *r = t->r;
    const struct step_batches *s;
    const i64 samples = loader_samples(t->loader), room = samples * r->max_seq_length;
    i64 tokens = 0, longest = 0, saves = 0, evals = 0;
    for (i64 i = 0; i < r->dataset.count; i++)
        tokens += dataset_info(t->dataset[i])->tokens - loader_facts(t->loader, i)->tokens_cut;
    for (i64 i = 0; i <= t->total_steps; i++) saves += save_at(t, i), evals += eval_at(t, i);
    findings_section(f, "the run");
    findings_row(f, FINE, "samples", "%lld an epoch of at most %lld tokens, %s", (long long)samples,
                 (long long)r->max_seq_length, r->packing ? "packed" : "a document each");
    if (r->packing)
        findings_row(f, FINE, "packing", "%.1f %% of their room is filled",
                     100 * (double)i64_min(room, tokens) / (double)i64_max(room, 1));
    findings_row(f, FINE, "steps",
                 "%lld of %lld samples, %.3g epochs; %lld evaluation%s, %lld "
                 "checkpoint%s",
                 (long long)t->total_steps, (long long)r->global_batch_size,
                 (double)t->total_steps / samples_epoch_steps(t), (long long)evals, plural(evals),
                 (long long)saves, plural(saves));
    schedule_rows(f, t);
    if (loader_step(t->loader, 0, &s, e)) return -1;
    if (!s->trained) findings_row(f, WASTE, "first step", "it holds no token that is trained");
    for (i64 i = 1; i < s->rows; i++)
        if (s->row[i].tokens > s->row[longest].tokens) longest = i;
    if (sample_add(f, t, s, 0, e)) return -1;
    return s->rows > 1 ? sample_add(f, t, s, longest ? longest : 1, e) : 0;
}

/* ---- shortly, before a run's first step */

int check_shortly(struct trainer *t, struct err *e) {
    enum { LOOKED = 1000 };
    struct stops s;
    stops_of(&s, t);
    for (i64 i = 0; i < t->r->dataset.count; i++) {
        struct facts x;
        char stop[96] = "";
        if (facts_of(t->dataset[i], &s, LOOKED, &x, NULL, e)) return -1;
        if (s.count && x.answers)
            snprintf(stop, sizeof stop,
                     "; of the first %lld, %.0f %% of trained texts end with a "
                     "stop token",
                     (long long)x.read, percent(x.stopped, x.answers));
        show(stdout,
             "%s: %lld document%s of %lld to %lld tokens (median %lld), %.0f %% trained%s\n",
             t->r->dataset.item[i].path, (long long)x.documents, plural(x.documents),
             (long long)x.shortest, (long long)x.longest, (long long)x.median,
             percent(x.trained, x.tokens), stop);
        if (x.doubled)
            show(stdout,
                 "note: %lld of the first %lld documents have two bos or two eos tokens in "
                 "a row\n",
                 (long long)x.doubled, (long long)x.read);
    }
    return 0;
}
