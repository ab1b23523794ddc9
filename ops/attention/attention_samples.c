/* attention_samples.c: what tests and benchmark call attention with: every head size class of the
 * kernels, documents, windows, caches, and each of softcap, sinks, ALiBi and narrower values alone
 * and with the others. A sink has gradients too (sink.c). */
#include "ops/attention/attention_int.h"

static void one_document(void *data, const struct view *v) {
    for (i64 i = 0; i < v->dim[0]; i++) ((i32 *)data)[i] = 0;
}
static void documents_of_512(void *data, const struct view *v) {
    for (i64 i = 0; i < v->dim[0]; i++) ((i32 *)data)[i] = (i32)(i / 512 * 512);
}
static void several_documents(void *data, const struct view *v) { /* lengths 1, 2, 3, ... 7, rest */
    i32 begin = 0, length = 1;
    for (i32 i = 0; i < v->dim[0]; i++) {
        if (i == begin + length && length < 7) begin = i, length++;
        ((i32 *)data)[i] = begin;
    }
}
static void last_self(void *data, const struct view *v) {
    for (i64 i = 0; i < v->dim[0]; i++) ((i32 *)data)[i] = (i32)i;
}
/* Three sequences in a cache of 200 rows; query 2 follows query 1; the last one sees nothing. */
static void cached_begin(void *data, const struct view *v) {
    static const i32 begin[] = {0, 70, 70, 100, 5};
    for (i64 i = 0; i < v->dim[0]; i++) ((i32 *)data)[i] = begin[i % COUNT(begin)];
}
static void cached_last(void *data, const struct view *v) {
    static const i32 last[] = {69, 77, 78, 199, 4};
    for (i64 i = 0; i < v->dim[0]; i++) ((i32 *)data)[i] = last[i % COUNT(last)];
}

/* A prompt's second part, behind 37 rows of others and 250 of its first; and long sequences. */
static void prompt_begin(void *data, const struct view *v) {
    for (i64 i = 0; i < v->dim[0]; i++) ((i32 *)data)[i] = 37;
}
static void prompt_last(void *data, const struct view *v) {
    for (i64 i = 0; i < v->dim[0]; i++) ((i32 *)data)[i] = (i32)i + 37 + 250;
}
static void long_begin(void *data, const struct view *v) {
    for (i64 i = 0; i < v->dim[0]; i++) ((i32 *)data)[i] = (i32)i * 600;
}
static void long_last(void *data, const struct view *v) {
    for (i64 i = 0; i < v->dim[0]; i++) ((i32 *)data)[i] = (i32)i * 600 + (i == 1 ? 3 : 590);
}

/* Several sequences of a cache of 14 pages in any order; the fifth query sees nothing. And two
 * prompts, of which the first has 60 places already. */
static void pages_fill(void *data, const struct view *v) {
    for (i32 i = 0; i < v->dim[0] * v->dim[1]; i++) ((i32 *)data)[i] = i * 5 % 14;
}
static void paged_begin(void *data, const struct view *v) {
    for (i64 i = 0; i < v->dim[0]; i++) ((i32 *)data)[i] = i == 3 ? 64 : 0;
}
static void paged_last(void *data, const struct view *v) {
    static const i32 last[] = {69, 77, 78, 199, -1, 255, 63};
    for (i64 i = 0; i < v->dim[0]; i++)
        ((i32 *)data)[i] = (i32)(v->dim[0] < 100 ? last[i] : i < 100 ? 60 + i : i - 100);
}
static void paged_sequence(void *data, const struct view *v) {
    static const i32 sequence[] = {0, 1, 1, 2, 2, 0, 2};
    for (i64 i = 0; i < v->dim[0]; i++)
        ((i32 *)data)[i] = v->dim[0] < 100 ? sequence[i] : i < 100 ? 2 : 0;
}

static void slopes_fill(void *data, const struct view *v) {
    float slopes[64];
    alibi_slopes(slopes, v->dim[0]);
    for (i64 i = 0; i < v->dim[0]; i++) ((double *)data)[i] = (double)slopes[i];
}

enum { TIMED = 1, SINK = 2, SINK_F32 = 4, ALIBI = 8 }; /* extras of a sample */
struct attention_sample {
    i64 queries, keys; /* keys 0: as many, the training form */
    struct attention_attr attr;
    void (*begin)(void *, const struct view *);
    int extra;
};
static const struct attention_sample attention_samples[] = {
    {1, 0, {1, 1, 8, 0.35, 0, 0, 0, 0}, one_document, 0},
    {5, 0, {2, 1, 3, 0.6, 0, 0, 0, 0}, one_document, 0},
    {70, 0, {2, 2, 20, 0.22, 0, 0, 0, 0}, one_document, 0},
    {37, 0, {4, 1, 16, 0.25, 0, 0, 0, 0}, several_documents, 0},
    {150, 0, {2, 1, 64, 0.125, 0, 0, 0, 0}, one_document, 0},
    {45, 0, {4, 2, 8, 0.35, 7, 0, 0, 0}, several_documents, 0},
    {140, 0, {1, 1, 16, 0.25, 33, 0, 0, 0}, one_document, 0},
    {30, 0, {2, 2, 128, 0.09, 0, 0, 0, 0}, several_documents, 0},
    {40, 0, {2, 1, 24, 0.5, 0, 2, 0, 0}, several_documents, 0},
    {5, 200, {4, 2, 33, 0.3, 0, 0, 0, 0}, cached_begin, 0},
    {5, 200, {2, 2, 16, 0.3, 20, 1.5, 0, 0}, cached_begin, 0},
    {100, 0, {2, 1, 144, 0.08, 0, 0, 0, 0}, several_documents, 0},
    {210, 0, {4, 2, 64, 0.125, 60, 3, 0, 0}, several_documents, 0},
    {150, 0, {2, 1, 112, 0.09, 0, 0, 0, 0}, one_document, 0},
    {150, 450, {2, 1, 32, 0.2, 0, 0, 0, 0}, prompt_begin, 0},
    {3, 1800, {4, 2, 48, 0.15, 0, 0, 0, 0}, long_begin, 0},
    {38, 0, {4, 2, 16, 0.25, 9, 0, 0, 0}, several_documents, SINK},
    {130, 0, {2, 1, 64, 0.125, 0, 0, 0, 0}, one_document, SINK | SINK_F32},
    {5, 200, {4, 2, 32, 0.3, 20, 0, 0, 0}, cached_begin, SINK},
    {3, 1800, {4, 2, 48, 0.15, 0, 0, 0, 0}, long_begin, SINK},
    {75, 0, {3, 3, 20, 0.22, 0, 0, 0, 0}, several_documents, ALIBI},
    {140, 0, {4, 1, 64, 0.125, 0, 0, 0, 0}, one_document, ALIBI},
    {3, 1800, {4, 2, 48, 0.15, 0, 0, 0, 0}, long_begin, ALIBI},
    {80, 0, {4, 2, 64, 0.125, 0, 0, 0, 1}, several_documents, ALIBI},
    {40, 0, {4, 2, 24, 0.2, 0, 0, 10, 0}, several_documents, 0},
    {80, 0, {2, 2, 192, 0.07, 0, 0, 128, 0}, one_document, 0},
    {70, 0, {2, 1, 32, 0.18, 0, 0, 80, 0}, several_documents, 0},
    {30, 0, {2, 1, 20, 0.2, 0, 0, 150, 0}, one_document, 0},
    {90, 0, {4, 2, 48, 0.3, 30, 2, 32, 0}, several_documents, SINK | ALIBI},
    {50, 0, {4, 2, 20, 0.3, 12, 1.5, 33, 1}, several_documents, SINK | ALIBI},
    {5, 200, {4, 2, 192, 0.1, 30, 0, 128, 0}, cached_begin, SINK | ALIBI},
    {5, 200, {4, 1, 12, 0.3, 0, 2, 20, 1}, cached_begin, SINK | SINK_F32 | ALIBI},
    {7, 896, {4, 2, 33, 0.3, 0, 0, 0, 0}, paged_begin, 0},
    {7, 896, {4, 2, 16, 0.3, 20, 1.5, 0, 0}, paged_begin, SINK},
    {7, 896, {4, 2, 192, 0.1, 30, 0, 128, 0}, paged_begin, ALIBI},
    {7, 896, {4, 1, 12, 0.3, 0, 2, 20, 1}, paged_begin, SINK | SINK_F32 | ALIBI},
    {150, 896, {2, 1, 32, 0.2, 0, 0, 0, 0}, paged_begin, 0},
    {150, 896, {4, 2, 128, 0.1, 70, 0, 0, 0}, paged_begin, SINK | ALIBI},
    {1024, 0, {16, 16, 64, 0.125, 0, 0, 0, 0}, one_document, TIMED},
    {2048, 0, {12, 12, 64, 0.125, 0, 0, 0, 0}, documents_of_512, TIMED},
    {2048, 0, {32, 8, 128, 0.088, 0, 0, 0, 0}, one_document, TIMED},
    {2048, 0, {64, 8, 64, 0.125, 128, 0, 0, 0}, one_document, TIMED | SINK},
    {2048, 0, {16, 16, 64, 0.125, 0, 0, 0, 0}, one_document, TIMED | ALIBI},
    {1024, 0, {16, 16, 192, 0.072, 0, 0, 128, 0}, one_document, TIMED},
};

static void sample_indexes(struct sample_in *in, const struct attention_sample *a) {
    for (int i = 0; i < 2; i++) {
        sample_int(&in[i], 0, 1, DIMS(a->queries));
        in[i].fill = FILL_CUSTOM;
    }
    in[0].custom = a->begin;
    in[1].custom = a->begin == prompt_begin  ? prompt_last
                   : a->begin == long_begin  ? long_last
                   : a->begin == paged_begin ? paged_last
                   : a->keys                 ? cached_last
                                             : last_self;
}

static void sample_slopes(struct sample_in *in, const struct attention_sample *a) {
    if (!(a->extra & ALIBI)) return;
    sample_f32(in, 0, 0, DIMS(a->attr.heads));
    in->fill = FILL_CUSTOM, in->custom = slopes_fill;
}

bool attention_sample(int index, struct sample *s) {
    if (index >= COUNT(attention_samples)) return false;
    const struct attention_sample *a = &attention_samples[index];
    const i64 keys = a->keys ? a->keys : a->queries;
    *(struct attention_attr *)s->attr = a->attr;
    sample_float(&s->in[0], -2, 2, DIMS(a->queries, a->attr.heads * a->attr.head_dim));
    sample_float(&s->in[1], -2, 2, DIMS(keys, a->attr.kv_heads * a->attr.head_dim));
    sample_float(&s->in[2], -2, 2, DIMS(keys, a->attr.kv_heads * value_dim(&a->attr)));
    sample_indexes(&s->in[3], a);
    if (a->extra & SINK_F32)
        sample_f32(&s->in[5], -1, 3, DIMS(a->attr.heads));
    else if (a->extra & SINK)
        sample_float(&s->in[5], -1, 3, DIMS(a->attr.heads));
    sample_slopes(&s->in[6], a);
    if (a->begin == paged_begin) {
        sample_int(&s->in[7], 0, 1, DIMS(3, 4)), sample_int(&s->in[8], 0, 1, DIMS(a->queries));
        s->in[7].fill = s->in[8].fill = FILL_CUSTOM;
        s->in[7].custom = pages_fill, s->in[8].custom = paged_sequence;
    }
    s->bench = a->extra & TIMED ? BENCH : BENCH_NO, s->no_gradient_check = a->keys > 0;
    return true;
}

/* Any lse will do for a test of the formula; these keep p near 1. */
bool attention_back_sample(int index, struct sample *s) {
    int n = -1;
    const struct attention_sample *a = attention_samples;
    for (; a < attention_samples + COUNT(attention_samples); a++)
        if (!a->keys && ++n == index) break;
    if (n < index) return false;
    *(struct attention_attr *)s->attr = a->attr;
    const i64 width = a->attr.heads * a->attr.head_dim, out = a->attr.heads * value_dim(&a->attr);
    sample_float(&s->in[0], -1, 1, DIMS(a->queries, out));
    sample_float(&s->in[1], -1, 1, DIMS(a->queries, width));
    sample_float(&s->in[2], -1, 1, DIMS(a->queries, width / a->attr.heads * a->attr.kv_heads));
    sample_float(&s->in[3], -1, 1, DIMS(a->queries, out / a->attr.heads * a->attr.kv_heads));
    sample_float(&s->in[4], -1, 1, DIMS(a->queries, out));
    sample_f32(&s->in[5], 1, 3, DIMS(a->attr.heads, a->queries));
    sample_indexes(&s->in[6], a);
    sample_slopes(&s->in[8], a);
    s->bench = a->extra & TIMED ? BENCH : BENCH_NO;
    return true;
}
