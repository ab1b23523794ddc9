/* sample.c: picks the next token of each row of logits.
 *
 * logits [B, V] f32 or bf16; step [B, 2] i32 (position in the sequence, stream: the random number
 * is Philox of (seed, stream, position), so a text is reproduced by these alone, whatever other
 * rows there are); how [B, sizeof(struct sample_how)] u8, the settings of each row: numbers of 8
 * bytes, as bytes, because no tensor holds f64; seen [B, V] u8 or absent; id [B] i32.
 *
 * A logit that was seen is made less likely first, in f32: times repetition_penalty below 0, else
 * divided by it (Keskar et al., 2019). Greedy takes the largest logit, the lowest id among equals.
 * Otherwise, in f64: z = logit / temperature; candidates ordered by z descending, then id
 * ascending; top_k keeps the first k; p = exp(z - max) normalised over those; min_p drops p < min_p
 * * max p; top_p keeps the shortest prefix that reaches top_p; one uniform number picks. A row that
 * holds a NaN or +inf, or nothing but -inf, has no next token: its id is -1. All instruction sets
 * share this code: it is a fraction of a percent of a decoding step. */
#include "ops/ops_int.h"

#include <stdlib.h>
#include <string.h>

struct candidate {
    double z;
    i32 id;
};

static struct sample_how how_of(const struct op_call *c, i64 row) {
    struct sample_how how;
    memcpy(&how, (const u8 *)c->in[2].data + row * (i64)sizeof how, sizeof how);
    return how;
}

static int sample_shape(struct op_call *c, struct err *e) {
    const i64 rows = c->in[0].dim[0], vocab = c->in[0].dim[1];
    if (need_rank(c, 0, 2, e) || need_float(c, 0, e) || need_dtype(c, 1, I32, e) ||
        need_rank(c, 1, 2, e) || need_dim(c, 1, 0, rows, e) || need_dim(c, 1, 1, 2, e) ||
        need_dtype(c, 2, U8, e) || need_rank(c, 2, 2, e) || need_dim(c, 2, 0, rows, e) ||
        need_dim(c, 2, 1, (i64)sizeof(struct sample_how), e))
        return -1;
    if (is_present(&c->in[3]) && (need_dtype(c, 3, U8, e) || need_rank(c, 3, 2, e) ||
                                  need_dim(c, 3, 0, rows, e) || need_dim(c, 3, 1, vocab, e)))
        return -1;
    set_out(c, 0, I32, 1, (i64[]){c->in[0].dim[0]});
    return 0;
}

static double logit_at(const struct op_call *c, i64 i, float p) {
    const struct view *v = &c->in[0], *seen = &c->in[3];
    const double x = v->dtype == F64    ? ((double *)v->data)[i]
                     : v->dtype == BF16 ? (double)bf16_to_f32(((u16 *)v->data)[i])
                                        : (double)((float *)v->data)[i];
    if (!is_present(seen) || !((const u8 *)seen->data)[i]) return x;
    return (double)(x < 0 ? (float)x * p : (float)x / p);
}

static int by_logit(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    if (x->z != y->z) return x->z < y->z ? 1 : -1;
    return x->id < y->id ? -1 : 1;
}

/* Has a row a largest number that all others can be compared with? */
static bool is_sound(const struct op_call *c, i64 row, i64 vocab, float p) {
    bool any = false;
    for (i64 v = 0; v < vocab; v++) {
        const double x = logit_at(c, row * vocab + v, p);
        if (x - x == 0)
            any = true;
        else if (!(x < 0))
            return false;
    }
    return any;
}

static i32 pick(struct candidate *list, i64 count, const struct sample_how *a, double uniform) {
    qsort(list, (size_t)count, sizeof *list, by_logit);
    if (a->top_k > 0) count = i64_min(count, a->top_k);
    const double top = list[0].z;
    double total = 0;
    for (i64 i = 0; i < count; i++) total += list[i].z = m_exp(list[i].z - top);
    i64 kept = 0;
    for (double sum = 0; kept < count && sum < a->top_p * total && list[kept].z >= a->min_p; kept++)
        sum += list[kept].z;
    kept = i64_max(kept, 1);
    total = 0;
    for (i64 i = 0; i < kept; i++) total += list[i].z;
    double sum = 0;
    for (i64 i = 0; i < kept; i++)
        if ((sum += list[i].z) > uniform * total) return list[i].id;
    return list[kept - 1].id;
}

static void sample_rows(const struct op_call *c) {
    const i64 vocab = c->in[0].dim[1];
    for (i64 row = 0; row < c->in[0].dim[0]; row++) {
        const struct sample_how a = how_of(c, row);
        const float p = (float)a.repetition_penalty;
        i32 best = 0;
        if (!is_sound(c, row, vocab, p)) {
            ((i32 *)c->out[0].data)[row] = -1;
            continue;
        }
        for (i64 v = 1; v < vocab; v++)
            if (logit_at(c, row * vocab + v, p) > logit_at(c, row * vocab + best, p)) best = (i32)v;
        if (a.temperature > 0) {
            struct candidate *list = c->scratch;
            for (i64 v = 0; v < vocab; v++)
                list[v] =
                    (struct candidate){logit_at(c, row * vocab + v, p) / a.temperature, (i32)v};
            const i32 *step = (const i32 *)c->in[1].data + 2 * row;
            const struct rng r = {a.seed, RNG_SAMPLE, 0, (u32)step[1]};
            best = pick(list, vocab, &a, rng_uniform_f64(&r, (u64)step[0]));
        }
        ((i32 *)c->out[0].data)[row] = best;
    }
}
static i64 sample_scratch(const struct op_call *c) {
    return c->in[0].dim[1] * (i64)sizeof(struct candidate);
}

/* Also where all rows are greedy: their settings are known in a run only. */
static i64 sample_scratch_cuda(const struct op_call *c) {
    return i64_min(c->in[0].dim[0], SAMPLE_ROWS) * c->in[0].dim[1] * SAMPLE_BYTES;
}

int sample_plain(const struct op_call *c, struct err *e) { return (void)e, sample_rows(c), 0; }
int sample_avx2(const struct op_call *c, struct err *e) { return sample_plain(c, e); }
int sample_avx512(const struct op_call *c, struct err *e) { return sample_plain(c, e); }
int sample_avx512bf16(const struct op_call *c, struct err *e) { return sample_plain(c, e); }

/* Rows in turn have the settings from the sample's first on; half of the ids are seen. */
static const struct sample_how sample_settings[] = {
    {0, 0, 1, 0, 1, 1},   {0.8, 0, 1, 0, 2, 1},     {1, 5, 1, 0, 3, 1.3},
    {1, 0, 0.7, 0, 4, 1}, {1.2, 0, 1, 0.1, 5, 0.7}, {0.5, 40, 0.9, 0.01, 6, 1},
    {1, 0, 1, 0, 7, 1.1}, {1, 1500, 1, 0, 8, 1},    {0, 0, 1, 0, 9, 2}};
static void how_fill(void *data, const struct view *v, i64 first) {
    for (i64 row = 0; row < v->dim[0]; row++) {
        const struct sample_how *how = &sample_settings[(first + row) % COUNT(sample_settings)];
        for (i64 i = 0; i < v->dim[1]; i++)
            ((double *)data)[row * v->dim[1] + i] = (double)((const u8 *)how)[i];
    }
}
static void how_first(void *data, const struct view *v) { how_fill(data, v, 0); }
static void how_fourth(void *data, const struct view *v) { how_fill(data, v, 3); }
static void how_seventh(void *data, const struct view *v) { how_fill(data, v, 6); }
static void how_greedy(void *data, const struct view *v) { how_fill(data, v, 8); }

static bool sample_sample(int index, struct sample *s) {
    static const struct {
        i64 rows, vocab;
        void (*how)(void *, const struct view *);
        bool seen;
    } of[] = {
        {3, 101, how_first, false},  {3, 101, how_first, true},    {5, 101, how_fourth, true},
        {9, 3000, how_first, false}, {3, 3000, how_seventh, true}, {2, 3000, how_fourth, false},
        {2, 151, how_greedy, true},  {1, 3000, how_greedy, false}, {140, 40, how_first, true}};
    if (index >= COUNT(of)) return false;
    const i64 rows = of[index].rows, vocab = of[index].vocab;
    sample_float(&s->in[0], -4, 4, DIMS(rows, vocab));
    sample_int(&s->in[1], 0, 50, DIMS(rows, 2));
    sample_codes(&s->in[2], U8, DIMS(rows, (i64)sizeof(struct sample_how)));
    s->in[2].fill = FILL_CUSTOM, s->in[2].custom = of[index].how;
    if (of[index].seen) {
        sample_codes(&s->in[3], U8, DIMS(rows, vocab));
        s->in[3].high = 2;
    }
    s->no_gradient_check = true;
    return true;
}

const struct op op_sample = {
    .name = "sample",
    .in = "logits step how seen?",
    .out = "id",
    .shape = sample_shape,
    .ref = sample_rows,
    .scratch = sample_scratch,
    .scratch_cuda = sample_scratch_cuda,
    .cpu = CPU(sample),
    .cuda = CUDA(sample),
    .sample = sample_sample,
    .bound = {0, 0},
};
