/* scores.c: the log probabilities of a text's ids and of the most likely ones in their place: the
 * model's own, before temperature and everything else that sampling does to them. In f64, from
 * logits that are the same whatever else was computed with them, so these numbers are, too. */
#include "train/serve/serve_int.h"

#include <math.h>
#include <string.h>

double scores_norm(const float *logits, i64 vocab) {
    double most = -INFINITY, sum = 0;
    for (i64 i = 0; i < vocab; i++) most = logits[i] > most ? (double)logits[i] : most;
    for (i64 i = 0; i < vocab; i++) sum += m_exp((double)logits[i] - most);
    return most + m_log(sum);
}

static int grow(struct scores *s, struct err *e) {
    const i64 room = 2 * s->room + 16, top = i64_max(1, s->top);
    double *own = mem_grow(s->own, s->room * 8, room * 8, e);
    if (own) s->own = own;
    u32 *id = own ? mem_grow(s->id, s->room * top * 4, room * top * 4, e) : NULL;
    if (id) s->id = id;
    double *value = id ? mem_grow(s->value, s->room * top * 8, room * top * 8, e) : NULL;
    if (!value) return -1;
    s->value = value, s->room = room;
    return 0;
}

int scores_add(struct scores *s, const float *logits, i64 vocab, double norm, struct err *e) {
    if (s->count == s->room && grow(s, e)) return -1;
    const i64 at = s->count * i64_max(1, s->top);
    i64 kept = 0;
    u32 *id = s->id + at;
    for (i64 i = 0; i < vocab && s->top; i++) {
        if (kept == s->top && !(logits[i] > logits[id[kept - 1]])) continue;
        i64 n = kept < s->top ? kept++ : kept - 1;
        for (; n > 0 && logits[id[n - 1]] < logits[i]; n--) id[n] = id[n - 1];
        id[n] = (u32)i;
    }
    for (i64 n = 0; n < kept; n++) s->value[at + n] = (double)logits[id[n]] - norm;
    for (i64 n = kept; n < s->top; n++) id[n] = UINT32_MAX; /* of a tiny vocabulary */
    s->own[s->count++] = NAN;
    return 0;
}

void scores_get(const struct scores *s, i64 i, struct score *out) {
    out->own = s->own[i], out->top = 0;
    for (int n = 0; n < s->top && s->id[i * s->top + n] != UINT32_MAX; n++, out->top++)
        out->id[n] = s->id[i * s->top + n], out->value[n] = s->value[i * s->top + n];
}

void scores_free(struct scores *s) {
    mem_free(s->own), mem_free(s->id), mem_free(s->value);
    *s = (struct scores){0};
}
