/* generate.c: the engine's simplest client: some texts, continued until all have ended. */
#include "train/engine/engine.h"

void positions_note(const struct model *m, i64 full) {
    if (!full || quiet) return;
    progress_end();
    fprintf(stderr, "note: %lld text%s ended at the model's %lld positions\n", (long long)full,
            full == 1 ? "" : "s", (long long)m->config.max_position_embeddings);
}

/* Positions that the texts may come to need, in whole pages. */
static i64 rooms(const struct model *m, const struct sequence *list, i64 count,
                 const struct sampling *s) {
    i64 positions = 0;
    for (i64 i = 0; i < count; i++) {
        const struct sampling *how = list[i].how ? list[i].how : s;
        positions += round_up(
            i64_min(list[i].count + how->max_new_tokens, m->config.max_position_embeddings),
            ATTENTION_PAGE);
    }
    return positions;
}

int engine_generate(struct engine *g, struct sequence *list, i64 count, const struct sampling *s,
                    struct err *e) {
    i64 added = 0, active = 1;
    int rc = engine_reserve(g, rooms(engine_model(g), list, count, s), e);
    for (; !rc && added < count; added += !rc) {
        if (!list[added].how) list[added].how = s;
        rc = engine_add(g, &list[added], e);
    }
    while (!rc && active > 0) active = engine_step(g, e);
    for (i64 i = 0; i < added; i++) engine_remove(g, &list[i]);
    for (i64 i = 0; i < count; i++)
        if (list[i].how == s) list[i].how = NULL;
    return rc || active < 0 ? err_frame(e, "while generating") : 0;
}

int generate_batch(struct model *m, struct sequence *list, i64 count, const struct sampling *s,
                   struct err *e) {
    const struct engine_plan plan = {.positions = rooms(m, list, count, s)};
    struct engine *g = engine_open(m, &plan, e);
    const int rc = g ? engine_generate(g, list, count, s, e) : err_frame(e, "while generating");
    engine_close(g);
    return rc;
}

int generate_ids(struct model *m, const u32 *prompt, i64 count, const struct sampling *s,
                 struct ids *out, token_fn *each, void *arg, struct err *e) {
    struct sequence q = {.prompt = prompt, .count = count, .each = each, .arg = arg};
    int rc = generate_batch(m, &q, 1, s, e);
    for (i64 i = 0; !rc && i < q.out.count; i++) rc = ids_add(out, q.out.item[i], e);
    ids_free(&q.out);
    return rc ? -1 : 0;
}

int prompt_encode(const struct tokenizer *t, const char *text, i64 size, struct ids *out,
                  struct err *e) {
    if (tokenizer_encode(t, text, size, true, out, e)) return -1;
    if (out->count) return 0;
    const i64 first = tokenizer_bos(t) >= 0 ? tokenizer_bos(t) : tokenizer_eos(t);
    if (first >= 0) return ids_add(out, (u32)first, e);
    return err_input(e, "the prompt is empty and the tokenizer has no start token");
}

int generate_text(struct model *m, const struct tokenizer *t, const char *prompt,
                  const struct sampling *how, struct text *out, struct err *e) {
    struct ids ids = {0}, more = {0};
    i64 size = 0;
    while (prompt[size]) size++;
    int rc = tokenizer_encode(t, prompt, size, true, &ids, e);
    if (!rc && !ids.count && tokenizer_bos(t) >= 0) rc = ids_add(&ids, (u32)tokenizer_bos(t), e);
    if (!rc && !ids.count && tokenizer_eos(t) >= 0) rc = ids_add(&ids, (u32)tokenizer_eos(t), e);
    rc = rc || generate_ids(m, ids.item, ids.count, how, &more, NULL, NULL, e);
    struct stream s = {.t = t, .e = e}; /* no token, no text; and the space in front: stream.c */
    rc = rc || stream_begin(&s, ids.item, ids.count, e);
    for (i64 i = 0; !rc && i < more.count; i++)
        rc = i + 1 == more.count              ? stream_token(&s, more.item[i]) < 0
             : tokenizer_has(t, more.item[i]) ? ids_add(&s.ids, more.item[i], e)
                                              : 0;
    rc = rc || text_add(out, s.text.data ? s.text.data : "", s.text.size, e);
    ids_free(&ids), ids_free(&more), stream_free(&s);
    return rc ? -1 : 0;
}
