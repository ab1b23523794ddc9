/* test_attention.c: attention and its gradients equal their definition (attention.c), written here
 * as plain loops over single numbers, bit for bit: for every instruction set, any number of
 * threads, cached or not, alone or packed. */
#define ISA plain
#define ISA_IS_plain
#include "base/v16.h"
#include "ops/ops.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BLOCK = 64 };

/* ---- a problem, its buffers, and running it ---- */

enum { DO, Q, K, V, O, LSE, BEGIN, LAST, DQ, DK, DV, VIEWS };
struct problem {
    struct attention_attr attr;
    struct view view[VIEWS]; /* all but the last three in the order of attention_back's inputs */
};

static float get(const struct view *v, i64 i) {
    return v->dtype == BF16 ? bf16_to_f32(((u16 *)v->data)[i]) : ((float *)v->data)[i];
}
static void put(struct view *v, i64 i, float x) {
    if (v->dtype == BF16)
        ((u16 *)v->data)[i] = bf16_of_f32(x);
    else
        ((float *)v->data)[i] = x;
}
static i32 *ints(const struct view *v) { return v->data; }

static void view_make(struct view *v, enum dtype d, int rank, i64 rows, i64 cols, u32 stream) {
    *v = (struct view){.dtype = d, .rank = rank, .dim = {rows, cols}};
    v->data = calloc((size_t)view_count(v) + 1, 4);
    const struct rng r = {3, RNG_TEST, 0, stream};
    for (i64 i = 0; d != I32 && i < view_count(v); i++) put(v, i, 4 * rng_uniform(&r, (u64)i) - 2);
}

/* Documents of the given length, the training form; for caches, begin and last are set after. */
static struct problem problem_make(struct attention_attr a, enum dtype d, i64 queries, i64 keys,
                                   i64 document) {
    struct problem p = {.attr = a};
    const i64 width = a.heads * a.head_dim, kv = a.kv_heads * a.head_dim;
    for (int i = 0; i < VIEWS; i++)
        view_make(&p.view[i], d, 2, i == K || i == V || i == DK || i == DV ? keys : queries,
                  i == K || i == V || i == DK || i == DV ? kv : width, (u32)i);
    free(p.view[LSE].data), free(p.view[BEGIN].data), free(p.view[LAST].data);
    view_make(&p.view[LSE], F32, 2, a.heads, queries, 0);
    view_make(&p.view[BEGIN], I32, 1, queries, 0, 0);
    view_make(&p.view[LAST], I32, 1, queries, 0, 0);
    p.view[BEGIN].dim[1] = p.view[LAST].dim[1] = 0;
    for (i32 i = 0; i < queries; i++) {
        ints(&p.view[BEGIN])[i] = (i32)(i / document * document);
        ints(&p.view[LAST])[i] = i;
    }
    return p;
}
static void problem_free(struct problem *p) {
    for (int i = 0; i < VIEWS; i++) free(p->view[i].data);
}

static int call_run(struct op_call *c, struct err *e) {
    void *out[OP_OUT];
    for (int i = 0; i < OP_OUT; i++) out[i] = c->out[i].data;
    if (op_shape(c, e)) return -1;
    for (int i = 0; i < OP_OUT; i++) c->out[i].data = out[i];
    c->scratch = aligned_alloc(64, (size_t)round_up(c->op->scratch(c), 64) + 64);
    memset(c->scratch, 0xff, (size_t)c->op->scratch(c)); /* NaN */
    const int bad = op_run(c, e);
    free(c->scratch);
    return bad;
}
static int forward(struct problem *p, struct err *e) {
    struct op_call c = {.op = op_find("attention"), .attr = &p->attr};
    const int in[] = {Q, K, V, BEGIN, LAST};
    for (int i = 0; i < COUNT(in); i++) c.in[i] = p->view[in[i]];
    c.out[0].data = p->view[O].data, c.out[1].data = p->view[LSE].data;
    return call_run(&c, e);
}
static int backward(struct problem *p, struct err *e) {
    struct op_call c = {.op = op_find("attention_back"), .attr = &p->attr};
    for (int i = 0; i <= LAST; i++) c.in[i] = p->view[i];
    for (int i = 0; i < 3; i++) c.out[i].data = p->view[DQ + i].data;
    return call_run(&c, e);
}
static void both(struct problem *p) {
    struct err e = {0};
    if (forward(p, &e) || backward(p, &e)) err_print(&e, stderr);
    assert_int_equal(e.code, 0);
}

static void same_bits(const struct view *a, const struct view *b, const char *what) {
    for (i64 i = 0; i < view_count(a); i++)
        if (memcmp((u8 *)a->data + i * dtype_size(a->dtype),
                   (u8 *)b->data + i * dtype_size(a->dtype), (size_t)dtype_size(a->dtype))) {
            fprintf(stderr, "%s, %s, %d threads: element %lld is %.9g, expected %.9g\n", what,
                    isa_name[isa_now()], pool_threads(), (long long)i, (double)get(b, i),
                    (double)get(a, i));
            fail();
        }
}
static void setting(int isa, int threads) {
    struct err e = {0};
    assert_int_equal(isa_force(isa_name[isa], &e), 0);
    pool_stop();
    assert_int_equal(pool_start(threads, &e), 0);
}

/* ---- the definition ---- */

/* acc + sum of a[k] * b[k] as a chain; in bf16 by pairs, the odd one first. n <= the buffers' 1024
 */
static float chain(float acc, const float *a, const float *b, i64 n, bool half) {
    if (!half)
        for (i64 k = 0; k < n; k++) acc = f32_fma(a[k], b[k], acc);
    for (i64 k = 0; half && k < n; k += 2) {
        if (k + 1 < n) acc = f32_fma(a[k + 1], b[k + 1], acc);
        acc = f32_fma(a[k], b[k], acc);
    }
    return acc;
}
static float exp1(float x) {
    float y[16];
    v16_store(y, v16_exp(v16_set(x)));
    return y[0];
}
static float tanh1(float x) {
    float y[16];
    v16_store(y, v16_tanh(v16_set(x)));
    return y[0];
}
static float log1(float x) {
    float y[16];
    v16_store(y, v16_log(v16_set(x)));
    return y[0];
}
static float row_sum(const float *x, i64 n) {
    v16 sum = v16_set(0);
    for (i64 i = 0; i < n; i += 16) sum = v16_add(sum, v16_load_n(x + i, n - i));
    return v16_sum(sum);
}
static float rounded(float x, bool half) { return half ? bf16_to_f32(bf16_of_f32(x)) : x; }

struct at {
    const struct problem *p;
    bool half;
    i64 dim, begin, high, low; /* visible keys from begin */
};
static struct at at_query(const struct problem *p, i64 i) {
    const i64 begin = ints(&p->view[BEGIN])[i], high = ints(&p->view[LAST])[i] + 1 - begin;
    const i64 low = p->attr.window ? i64_max(0, high - p->attr.window) : 0;
    return (struct at){p, p->view[Q].dtype == BF16, p->attr.head_dim, begin, high, low};
}
static void row_get(float *to, const struct view *v, i64 row, i64 head, i64 dim) {
    for (i64 d = 0; d < dim; d++) to[d] = get(v, row * v->dim[1] + head * dim + d);
}
static i64 kv_head(const struct problem *p, i64 head) {
    return head / (p->attr.heads / p->attr.kv_heads);
}
static float score(const struct problem *p, i64 i, i64 head, i64 key, float *h) {
    float q[256], k[256];
    row_get(q, &p->view[Q], i, head, p->attr.head_dim);
    row_get(k, &p->view[K], key, kv_head(p, head), p->attr.head_dim);
    const float s = chain(0, q, k, p->attr.head_dim, p->view[Q].dtype == BF16);
    if (!(p->attr.softcap > 0)) return s;
    *h = tanh1(s * (float)p->attr.scale * (float)(1 / p->attr.softcap));
    return *h * (float)p->attr.softcap;
}

static float score_scale(const struct problem *p) {
    return p->attr.softcap > 0 ? 1 : (float)p->attr.scale;
}

static void define_forward(struct problem *p) {
    for (i64 i = 0; i < p->view[Q].dim[0]; i++)
        for (i64 head = 0; head < p->attr.heads; head++) {
            const struct at x = at_query(p, i);
            const float z = score_scale(p);
            float m = -FLT_MAX, l = 0, o[256] = {0}, h;
            for (i64 at = 0; at < x.high; at += BLOCK) { /* no block is skipped */
                float s[BLOCK], pr[BLOCK] = {0}, was = m, v[256], column[BLOCK];
                for (i64 j = 0; j < BLOCK; j++)
                    if (at + j >= x.low && at + j < x.high)
                        s[j] = score(p, i, head, x.begin + at + j, &h), m = fmaxf(m, s[j] * z);
                for (i64 j = 0; j < BLOCK; j++)
                    if (at + j >= x.low && at + j < x.high) pr[j] = exp1(f32_fma(s[j], z, -m));
                const float alpha = exp1(was - m);
                l = f32_fma(l, alpha, row_sum(pr, BLOCK));
                for (i64 d = 0; d < x.dim; d++) {
                    for (i64 j = 0; j < BLOCK; j++) {
                        column[j] = 0;
                        if (at + j >= x.high) continue;
                        row_get(v, &p->view[V], x.begin + at + j, kv_head(p, head), x.dim);
                        column[j] = v[d];
                    }
                    float w[BLOCK];
                    for (i64 j = 0; j < BLOCK; j++) w[j] = rounded(pr[j], x.half);
                    o[d] = chain(o[d] * alpha, w, column, BLOCK, x.half);
                }
            }
            for (i64 d = 0; d < x.dim; d++)
                put(&p->view[O], i * p->view[O].dim[1] + head * x.dim + d,
                    l > 0 ? (o[d] + 0) / l : 0);
            put(&p->view[LSE], head * p->view[Q].dim[0] + i, l > 0 ? m + log1(l) : -FLT_MAX);
        }
}

/* p and ds of all pairs of one head, [query][key], unrounded p too small to matter elsewhere */
static void define_pairs(const struct problem *p, i64 head, float *prob, float *ds) {
    const i64 n = p->view[Q].dim[0];
    for (i64 i = 0; i < n; i++) {
        const struct at x = at_query(p, i);
        float dout[256], o[256], v[256], h = 0;
        v16 sum = v16_set(0);
        row_get(dout, &p->view[DO], i, head, x.dim), row_get(o, &p->view[O], i, head, x.dim);
        for (i64 d = 0; d < x.dim; d += 16)
            sum = v16_fma(v16_load_n(dout + d, x.dim - d), v16_load_n(o + d, x.dim - d), sum);
        for (i64 j = 0; j < n; j++) prob[i * n + j] = ds[i * n + j] = 0;
        for (i64 j = x.begin + x.low; j < x.begin + x.high; j++) {
            const float s = score(p, i, head, j, &h);
            const float e = exp1(f32_fma(s, score_scale(p), -get(&p->view[LSE], head * n + i)));
            row_get(v, &p->view[V], j, kv_head(p, head), x.dim);
            float g = e * (chain(0, dout, v, x.dim, x.half) - v16_sum(sum));
            if (p->attr.softcap > 0) g *= f32_fma(-h, h, 1);
            prob[i * n + j] = rounded(e, x.half);
            ds[i * n + j] = rounded(g * (float)p->attr.scale, x.half);
        }
    }
}

/* A column (or row) of weights times a column of x, from begin to the document's end. */
static float weighted(float acc, const float *w, i64 step, const struct view *x, i64 column,
                      i64 begin, i64 count, bool half) {
    float a[1024], b[1024];
    for (i64 i = 0; i < count; i++) {
        a[i] = w[(begin + i) * step];
        b[i] = get(x, (begin + i) * x->dim[1] + column);
    }
    return chain(acc, a, b, count, half);
}
static void define_backward(struct problem *p) {
    const i64 n = p->view[Q].dim[0], dim = p->attr.head_dim, pairs = n * n;
    const bool half = p->view[Q].dtype == BF16;
    float *prob = calloc((size_t)(p->attr.heads * pairs), 4),
          *ds = calloc((size_t)(p->attr.heads * pairs), 4);
    for (i64 h = 0; h < p->attr.heads; h++) define_pairs(p, h, prob + h * pairs, ds + h * pairs);
    const i64 group = p->attr.heads / p->attr.kv_heads;
    for (i64 j = 0; j < n; j++) {
        const i64 begin = ints(&p->view[BEGIN])[j];
        i64 end = j;
        while (end < n && ints(&p->view[BEGIN])[end] == begin) end++;
        for (i64 c = 0; c < p->attr.heads * dim; c++) {
            const float dq =
                weighted(0, ds + c / dim * pairs + j * n, 1, &p->view[K],
                         kv_head(p, c / dim) * dim + c % dim, begin, end - begin, half);
            put(&p->view[DQ], j * p->attr.heads * dim + c, dq + 0);
        }
        for (i64 c = 0; c < p->attr.kv_heads * dim; c++) {
            float dk = 0, dv = 0;
            for (i64 h = c / dim * group; h < (c / dim + 1) * group; h++) {
                const i64 column = h * dim + c % dim;
                dk = weighted(dk, ds + h * pairs + j, n, &p->view[Q], column, begin, end - begin,
                              half);
                dv = weighted(dv, prob + h * pairs + j, n, &p->view[DO], column, begin, end - begin,
                              half);
            }
            put(&p->view[DK], j * p->attr.kv_heads * dim + c, dk + 0);
            put(&p->view[DV], j * p->attr.kv_heads * dim + c, dv + 0);
        }
    }
    free(prob), free(ds);
}

/* ---- tests ---- */

static const struct {
    struct attention_attr attr;
    i64 queries, document;
} cases[] = {
    {{1, 1, 1, 1, 0, 0}, 3, 3},          {{2, 1, 8, 0.35, 0, 0}, 67, 67},
    {{2, 2, 16, 0.25, 0, 0}, 130, 43},   {{4, 1, 20, 0.2, 0, 0}, 90, 37},
    {{4, 2, 64, 0.125, 0, 0}, 150, 150}, {{1, 1, 128, 0.09, 0, 0}, 81, 81},
    {{3, 3, 33, 0.2, 0, 0}, 70, 9},      {{1, 1, 256, 0.06, 0, 0}, 20, 20},
    {{2, 1, 16, 0.25, 20, 0}, 200, 200}, {{2, 2, 8, 0.35, 1, 0}, 70, 35},
    {{2, 1, 24, 0.3, 100, 0}, 300, 150}, {{2, 1, 16, 0.5, 0, 3}, 100, 70},
    {{1, 1, 16, 0.25, 0, 0}, 310, 310},
};

static void test_definition(void **state) {
    (void)state;
    static const int threads[] = {1, 2, 3, 8};
    for (int n = 0; n < COUNT(cases); n++)
        for (int half = 0; half < 2; half++) {
            const enum dtype d = half ? BF16 : F32;
            struct problem want = problem_make(cases[n].attr, d, cases[n].queries, cases[n].queries,
                                               cases[n].document),
                           got = problem_make(cases[n].attr, d, cases[n].queries, cases[n].queries,
                                              cases[n].document);
            define_forward(&want), define_backward(&want);
            for (int isa = 0; isa <= (int)isa_best(); isa++)
                for (int k = 0; k < COUNT(threads); k++) {
                    if (isa < (int)isa_best() && k != isa % 4) continue;
                    setting(isa, threads[k]);
                    both(&got);
                    char what[64];
                    snprintf(what, sizeof what, "case %d %s", n, dtype_info[d].name);
                    for (int v = O; v < VIEWS; v++)
                        if (v != BEGIN && v != LAST) same_bits(&want.view[v], &got.view[v], what);
                }
            problem_free(&want), problem_free(&got);
        }
}

/* Rows [from, from + count) of a, as a view of its own. */
static struct view slice(const struct view *a, i64 from, i64 count) {
    struct view v = *a;
    v.dim[0] = count;
    v.data = (u8 *)a->data + from * (v.rank > 1 ? v.dim[1] : 1) * dtype_size(a->dtype);
    return v;
}

/* The sequence lies in the middle of a cache whose other rows are NaN; queries come in steps. */
static void test_cache(void **state) {
    (void)state;
    static const i64 step[] = {1, 3, 7, 100};
    enum { LENGTH = 150, AT = 21, ROWS = 190 };
    for (int half = 0; half < 2; half++)
        for (int window = 0; window < 2; window++) {
            const enum dtype d = half ? BF16 : F32;
            const struct attention_attr a = {4, 2, 40, 0.2, window ? 30 : 0, 0};
            setting((int)isa_best(), 2);
            struct problem whole = problem_make(a, d, LENGTH, LENGTH, LENGTH),
                           cached = problem_make(a, d, LENGTH, ROWS, LENGTH);
            struct err e = {0};
            assert_int_equal(forward(&whole, &e), 0);
            for (int n = 0; n < COUNT(step); n++) {
                for (int v = K; v <= V; v++) {
                    memset(cached.view[v].data, 0xff, (size_t)view_bytes(&cached.view[v]));
                }
                for (i64 i = 0; i < LENGTH; i += step[n]) {
                    const i64 count = i64_min(step[n], LENGTH - i);
                    struct problem now = cached;
                    for (int v = K; v <= V; v++)
                        memcpy(slice(&cached.view[v], AT + i, count).data,
                               slice(&whole.view[v], i, count).data,
                               (size_t)(count * cached.view[v].dim[1] * dtype_size(d)));
                    for (i64 k = 0; k < count; k++) {
                        ints(&cached.view[BEGIN])[i + k] = AT;
                        ints(&cached.view[LAST])[i + k] = (i32)(AT + i + k);
                    }
                    const int cut[] = {Q, O, BEGIN, LAST};
                    for (int v = 0; v < COUNT(cut); v++)
                        now.view[cut[v]] = slice(&cached.view[cut[v]], i, count);
                    assert_int_equal(forward(&now, &e), 0);
                }
                same_bits(&whole.view[O], &cached.view[O], "cached");
            }
            problem_free(&whole), problem_free(&cached);
        }
}

/* Several sequences of one cache in one call, one query each. */
static void test_cache_batch(void **state) {
    (void)state;
    const struct attention_attr a = {4, 1, 64, 0.125, 0, 0};
    static const i32 begin[] = {0, 70, 71, 300, 3}, last[] = {69, 70, 290, 419, 2};
    struct err e = {0};
    for (int half = 0; half < 2; half++) {
        struct problem want = problem_make(a, half ? BF16 : F32, 5, 420, 5),
                       got = problem_make(a, half ? BF16 : F32, 5, 420, 5);
        for (int i = 0; i < 5; i++)
            for (int p = 0; p < 2; p++) {
                ints(&(p ? &want : &got)->view[BEGIN])[i] = begin[i];
                ints(&(p ? &want : &got)->view[LAST])[i] = last[i];
            }
        define_forward(&want);
        for (int threads = 1; threads < 4; threads++) {
            setting((int)isa_best(), threads);
            assert_int_equal(forward(&got, &e), 0);
            same_bits(&want.view[O], &got.view[O], "batch of caches");
            same_bits(&want.view[LSE], &got.view[LSE], "batch of caches");
        }
        problem_free(&want), problem_free(&got);
    }
}

/* A document between others equals the document alone; and windows larger than it change nothing.
 */
static void test_packing(void **state) {
    (void)state;
    const struct attention_attr a = {4, 2, 64, 0.125, 0, 0};
    enum { N = 300, ONE = 100 };
    for (int half = 0; half < 2; half++) {
        const enum dtype d = half ? BF16 : F32;
        setting((int)isa_best(), 2);
        struct problem packed = problem_make(a, d, N, N, ONE),
                       alone = problem_make(a, d, ONE, ONE, ONE);
        both(&packed);
        alone.attr.window = ONE;
        for (int v = DO; v <= V; v++)
            memcpy(alone.view[v].data, slice(&packed.view[v], ONE, ONE).data,
                   (size_t)view_bytes(&alone.view[v]));
        both(&alone);
        for (int v = O; v < VIEWS; v++) {
            if (v == LSE || v == BEGIN || v == LAST) continue;
            const struct view part = slice(&packed.view[v], ONE, ONE);
            same_bits(&part, &alone.view[v], "packed");
        }
        problem_free(&packed), problem_free(&alone);
    }
}

static void refused(struct problem *p, bool back, const char *primary) {
    struct err e = {0};
    assert_int_equal(back ? backward(p, &e) : forward(p, &e), -1);
    assert_string_equal(e.primary, primary);
}
static void test_errors(void **state) {
    (void)state;
    struct problem p = problem_make((struct attention_attr){2, 1, 8, 1, 0, 0}, F32, 4, 4, 4);
    i32 *begin = ints(&p.view[BEGIN]), *last = ints(&p.view[LAST]);
    last[2] = 4;
    refused(&p, false, "operation attention: query 2 asks for keys 0 to 4, and there are 4");
    last[2] = 2, begin[1] = -1;
    refused(&p, false, "operation attention: query 1 asks for keys -1 to 1, and there are 4");
    refused(&p, true, "operation attention_back: query 1 asks for keys -1 to 1, and there are 4");
    begin[1] = 1;
    refused(&p, true, "operation attention_back: query 2 sees keys 0 to 2");
    begin[1] = 0, last[3] = 1;
    refused(&p, true, "operation attention_back: query 3 sees keys 0 to 1");
    last[3] = 3, p.attr.kv_heads = 3;
    refused(&p, false, "operation attention: 2 heads of size 8 cannot share 3 kv heads");
    p.attr.kv_heads = 1, p.attr.scale = -1;
    refused(&p, false, "operation attention: scale -1, window 0, softcap 0");
    problem_free(&p);
}

static void test_kv_store(void **state) {
    (void)state;
    u16 cache[4][2] = {{0}}, x[2][2] = {{1, 2}, {3, 4}};
    i32 at[2] = {3, 1};
    struct op_call c = {.op = op_find("kv_store"),
                        .in = {{x, BF16, 2, {2, 2}}, {at, I32, 1, {2}}},
                        .out = {{cache, BF16, 2, {4, 2}}}};
    struct err e = {0};
    assert_int_equal(op_shape(&c, &e), 0);
    assert_int_equal(op_run(&c, &e), 0);
    const u16 want[4][2] = {{0, 0}, {3, 4}, {0, 0}, {1, 2}};
    assert_memory_equal(cache, want, sizeof want);
    at[1] = 4;
    assert_int_equal(op_run(&c, &e), -1);
    assert_string_equal(e.primary, "operation kv_store: row 1 goes to 4 of a cache of 4 rows");
}

int main(void) {
    isa_float_mode();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definition),  cmocka_unit_test(test_cache),
        cmocka_unit_test(test_cache_batch), cmocka_unit_test(test_packing),
        cmocka_unit_test(test_errors),      cmocka_unit_test(test_kv_store)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_stop();
    return failed;
}
