/* test_attention.c: attention and its gradients equal their definition (attention.c,
 * attention_define.c), bit for bit: for every instruction set, any number of
 * threads, cached or not, alone or packed. */
#include "tests/unit/ops/attention_define.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

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
    const int in[] = {Q, K, V, BEGIN, LAST, SINKS, SLOPES, PAGES, SEQUENCE};
    for (int i = 0; i < COUNT(in); i++) c.in[i] = p->view[in[i]];
    c.out[0].data = p->view[O].data, c.out[1].data = p->view[LSE].data;
    return call_run(&c, e);
}
static int backward(struct problem *p, struct err *e) {
    struct op_call c = {.op = op_find("attention_back"), .attr = &p->attr};
    for (int i = 0; i <= SLOPES; i++) c.in[i] = p->view[i];
    for (int i = 0; i < 3; i++) c.out[i].data = p->view[DQ + i].data;
    return call_run(&c, e);
}
static int sink_backward(struct problem *p, struct err *e) {
    struct op_call c = {.op = op_find("sink_back"), .attr = &p->attr, .out = {p->view[DSINK]}};
    const int in[] = {DO, O, LSE, SINKS};
    for (int i = 0; i < COUNT(in); i++) c.in[i] = p->view[in[i]];
    return call_run(&c, e);
}
static void both(struct problem *p) {
    struct err e = {0};
    if (p->view[DSINK].rank) memset(p->view[DSINK].data, 0, (size_t)view_bytes(&p->view[DSINK]));
    if (forward(p, &e) || backward(p, &e) || (p->view[SINKS].rank && sink_backward(p, &e)))
        err_print(&e, stderr);
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

/* ---- tests ---- */

static const struct {
    struct attention_attr attr;
    i64 queries, document;
    int sinks;
    bool slopes;
} cases[] = {
    {{1, 1, 1, 1, 0, 0, 0, 0}, 3, 3, 0, 0},
    {{2, 1, 8, 0.35, 0, 0, 0, 0}, 67, 67, 0, 0},
    {{2, 2, 16, 0.25, 0, 0, 0, 0}, 130, 43, 0, 0},
    {{4, 1, 20, 0.2, 0, 0, 0, 0}, 90, 37, 0, 0},
    {{4, 2, 64, 0.125, 0, 0, 0, 0}, 150, 150, 0, 0},
    {{1, 1, 128, 0.09, 0, 0, 0, 0}, 81, 81, 0, 0},
    {{3, 3, 33, 0.2, 0, 0, 0, 0}, 70, 9, 0, 0},
    {{1, 1, 256, 0.06, 0, 0, 0, 0}, 20, 20, 0, 0},
    {{2, 1, 16, 0.25, 20, 0, 0, 0}, 200, 200, 0, 0},
    {{2, 2, 8, 0.35, 1, 0, 0, 0}, 70, 35, 0, 0},
    {{2, 1, 24, 0.3, 100, 0, 0, 0}, 300, 150, 0, 0},
    {{2, 1, 16, 0.5, 0, 3, 0, 0}, 100, 70, 0, 0},
    {{1, 1, 16, 0.25, 0, 0, 0, 0}, 310, 310, 0, 0},
    {{4, 2, 16, 0.25, 20, 0, 0, 0}, 150, 75, 1, 0},
    {{3, 3, 33, 0.2, 0, 0, 0, 0}, 70, 9, 2, 0},
    {{6, 2, 20, 0.25, 0, 0, 0, 0}, 150, 75, 0, 1},
    {{4, 1, 64, 0.125, 0, 0, 0, 1}, 90, 90, 0, 1},
    {{2, 1, 192, 0.07, 0, 0, 128, 0}, 70, 40, 0, 0},
    {{4, 2, 20, 0.25, 0, 0, 33, 0}, 130, 70, 0, 0},
    {{6, 2, 24, 0.3, 30, 2, 40, 0}, 140, 70, 1, 1},
    {{6, 2, 40, 0.3, 30, 2, 24, 1}, 140, 70, 1, 1},
};

static void test_definition(void **state) {
    (void)state;
    static const int threads[] = {1, 2, 3, 8};
    for (int n = 0; n < COUNT(cases); n++)
        for (int is_bf16 = 0; is_bf16 < 2; is_bf16++) {
            const enum dtype d = is_bf16 ? BF16 : F32;
            struct problem want = problem_make(cases[n].attr, d, cases[n].queries, cases[n].queries,
                                               cases[n].document),
                           got = problem_make(cases[n].attr, d, cases[n].queries, cases[n].queries,
                                              cases[n].document);
            problem_extend(&want, cases[n].sinks, cases[n].slopes);
            problem_extend(&got, cases[n].sinks, cases[n].slopes);
            define_forward(&want), define_backward(&want);
            for (int isa = 0; isa <= (int)isa_best(); isa++)
                for (int k = 0; k < COUNT(threads); k++) {
                    if (isa < (int)isa_best() && k != isa % 4) continue;
                    setting(isa, threads[k]);
                    both(&got);
                    char what[64];
                    snprintf(what, sizeof what, "case %d %s", n, dtype_info[d].name);
                    for (int v = O; v < VIEWS; v++)
                        if (want.view[v].rank && (v < BEGIN || v > SINKS))
                            same_bits(&want.view[v], &got.view[v], what);
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
static void cache_case(const struct attention_attr *a, int sinks, bool slopes, enum dtype d) {
    static const i64 step[] = {1, 3, 7, 100};
    enum { LENGTH = 150, AT = 21, ROWS = 190 };
    struct problem whole = problem_make(*a, d, LENGTH, LENGTH, LENGTH),
                   cached = problem_make(*a, d, LENGTH, ROWS, LENGTH);
    problem_extend(&whole, sinks, slopes), problem_extend(&cached, sinks, slopes);
    struct err e = {0};
    assert_int_equal(forward(&whole, &e), 0);
    for (int n = 0; n < COUNT(step); n++) {
        for (int v = K; v <= V; v++)
            memset(cached.view[v].data, 0xff, (size_t)view_bytes(&cached.view[v]));
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
/* The same with pages in any order, two sequences of them in one call, each a few queries further;
 * rows that nobody has stored yet are NaN. */
static void pages_case(const struct attention_attr *a, int sinks, bool slopes, enum dtype d) {
    static const i64 step[] = {1, 3, 7, 100};
    static const i32 pages[] = {6, 1, 4, 0, 5, 2};
    enum { LENGTH = 150, COUNT_PAGES = 7, ROWS = COUNT_PAGES * ATTENTION_PAGE, EACH = 3 };
    struct problem whole[2], cached = problem_make(*a, d, 2 * LENGTH, ROWS, LENGTH);
    struct err e = {0};
    problem_extend(&cached, sinks, slopes);
    view_make(&cached.view[PAGES], I32, 2, 2, EACH, 0);
    view_make(&cached.view[SEQUENCE], I32, 1, 2 * LENGTH, 0, 0);
    memcpy(cached.view[PAGES].data, pages, sizeof pages);
    for (int s = 0; s < 2;
         s++) { /* the second sequence: the first's numbers, the other way round */
        whole[s] = problem_make(*a, d, LENGTH, LENGTH, LENGTH);
        problem_extend(&whole[s], sinks, slopes);
        for (int v = Q; s && v <= V; v++)
            for (i64 i = 0; i < LENGTH; i++)
                memcpy(slice(&whole[1].view[v], i, 1).data,
                       slice(&whole[0].view[v], LENGTH - 1 - i, 1).data,
                       (size_t)(whole[0].view[v].dim[1] * dtype_size(d)));
        assert_int_equal(forward(&whole[s], &e), 0);
    }
    for (int n = 0; n < COUNT(step); n++) {
        for (int v = K; v <= V; v++)
            memset(cached.view[v].data, 0xff, (size_t)view_bytes(&cached.view[v]));
        for (i64 i = 0; i < LENGTH; i += step[n]) {
            const i64 count = i64_min(step[n], LENGTH - i);
            struct problem now = cached;
            for (i64 k = 0; k < 2 * count; k++) {
                const i64 s = k / count, place = i + k % count,
                          row = pages[s * EACH + place / ATTENTION_PAGE] * ATTENTION_PAGE +
                                place % ATTENTION_PAGE;
                for (int v = Q; v <= V; v++)
                    memcpy(slice(&cached.view[v], v == Q ? k : row, 1).data,
                           slice(&whole[s].view[v], place, 1).data,
                           (size_t)(cached.view[v].dim[1] * dtype_size(d)));
                ints(&cached.view[BEGIN])[k] = 0, ints(&cached.view[LAST])[k] = (i32)place;
                ints(&cached.view[SEQUENCE])[k] = (i32)s;
            }
            const int cut[] = {Q, O, BEGIN, LAST, SEQUENCE};
            for (int v = 0; v < COUNT(cut); v++)
                now.view[cut[v]] = slice(&cached.view[cut[v]], 0, 2 * count);
            assert_int_equal(forward(&now, &e), 0);
            for (int s = 0; s < 2; s++) {
                const struct view want = slice(&whole[s].view[O], i, count),
                                  got = slice(&cached.view[O], s * count, count);
                same_bits(&want, &got, "pages");
            }
        }
    }
    problem_free(&whole[0]), problem_free(&whole[1]), problem_free(&cached);
}

/* What a page table cannot say. */
static void test_bad_pages(void **state) {
    (void)state;
    const struct attention_attr a = {2, 1, 16, 0.25, 0, 0, 0, 0};
    static const struct {
        i32 begin, last, sequence, page;
        const char *text;
    } row[] = {
        {0, 128, 0, 1, "query 1 asks for keys 0 to 128, and there are 128"},
        {32, 40, 0, 1, "query 1 begins at 32; expected a multiple of 64"},
        {0, 40, 2, 1, "query 1 is of sequence 2 of 2"},
        {0, 64, 1, 3, "query 1 asks for page 3 of 3"},
        {0, 64, 1, -1, "query 1 asks for page -1 of 3"},
        {0, 63, 1, -1, NULL}, /* which it does not ask for */
    };
    for (int i = 0; i < COUNT(row); i++) {
        struct problem p = problem_make(a, F32, 2, 3 * ATTENTION_PAGE, 2);
        struct err e = {0};
        view_make(&p.view[PAGES], I32, 2, 2, 2, 0), view_make(&p.view[SEQUENCE], I32, 1, 2, 0, 0);
        ints(&p.view[BEGIN])[1] = row[i].begin, ints(&p.view[LAST])[1] = row[i].last;
        ints(&p.view[SEQUENCE])[1] = row[i].sequence, ints(&p.view[PAGES])[3] = row[i].page;
        assert_int_equal(forward(&p, &e), row[i].text ? -1 : 0);
        if (row[i].text) assert_non_null(strstr(e.primary, row[i].text));
        problem_free(&p);
    }
}

static void test_cache(void **state) {
    (void)state;
    static const struct {
        struct attention_attr attr;
        int sinks;
        bool slopes;
    } kinds[] = {
        {{4, 2, 40, 0.2, 0, 0, 0, 0}, 0, 0},   {{4, 2, 40, 0.2, 30, 0, 0, 0}, 0, 0},
        {{4, 2, 40, 0.2, 30, 0, 0, 0}, 1, 0},  {{4, 1, 40, 0.2, 0, 0, 0, 0}, 0, 1},
        {{4, 1, 40, 0.2, 0, 0, 0, 1}, 0, 1},   {{2, 2, 192, 0.07, 0, 0, 128, 0}, 0, 0},
        {{6, 2, 24, 0.3, 70, 2, 40, 0}, 1, 1}, {{6, 2, 24, 0.3, 70, 2, 20, 1}, 2, 1},
    };
    setting((int)isa_best(), 2);
    for (int n = 0; n < COUNT(kinds); n++)
        for (int is_bf16 = 0; is_bf16 < 2; is_bf16++)
            cache_case(&kinds[n].attr, kinds[n].sinks, kinds[n].slopes, is_bf16 ? BF16 : F32),
                pages_case(&kinds[n].attr, kinds[n].sinks, kinds[n].slopes, is_bf16 ? BF16 : F32);
}

/* Several sequences of one cache in one call, one query each. */
static void test_cache_batch(void **state) {
    (void)state;
    const struct attention_attr a = {4, 1, 64, 0.125, 0, 0, 0, 0};
    static const i32 begin[] = {0, 70, 71, 300, 3}, last[] = {69, 70, 290, 419, 2};
    struct err e = {0};
    for (int is_bf16 = 0; is_bf16 < 2; is_bf16++) {
        struct problem want = problem_make(a, is_bf16 ? BF16 : F32, 5, 420, 5),
                       got = problem_make(a, is_bf16 ? BF16 : F32, 5, 420, 5);
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
 * With all extras at once, but for softcap, which would hide a wrong bias. */
static void test_packing(void **state) {
    (void)state;
    const struct attention_attr a = {4, 2, 64, 0.125, 0, 0, 48, 0};
    enum { N = 300, ONE = 100 };
    for (int n = 0; n < 6; n++) {
        const enum dtype d = n % 2 ? BF16 : F32;
        setting((int)isa_best(), 2);
        struct problem packed = problem_make(a, d, N, N, ONE),
                       alone = problem_make(a, d, ONE, ONE, ONE);
        problem_extend(&packed, n > 1, n > 1), problem_extend(&alone, n > 1, n > 1);
        packed.attr.alibi_bf16 = alone.attr.alibi_bf16 = n > 3;
        both(&packed);
        alone.attr.window = ONE;
        for (int v = DO; v <= V; v++)
            memcpy(alone.view[v].data, slice(&packed.view[v], ONE, ONE).data,
                   (size_t)view_bytes(&alone.view[v]));
        both(&alone);
        static const int same[] = {O, DQ, DK, DV};
        for (int v = 0; v < COUNT(same); v++) {
            const struct view part = slice(&packed.view[same[v]], ONE, ONE);
            same_bits(&part, &alone.view[same[v]], "packed");
        }
        problem_free(&packed), problem_free(&alone);
    }
}

/* Attention in chunks: query i sees the keys of its document in i's chunk. The same masks, written
 * as a document for each piece, and the f64 formula over exactly those keys. */
static void test_chunks(void **state) {
    (void)state;
    enum { N = 150, CHUNK = 32 };
    const struct attention_attr a = {2, 1, 16, 0.25, 0, 0, 0, 0};
    setting((int)isa_best(), 2);
    struct problem p = problem_make(a, F32, N, N, 70);
    for (i32 i = 0; i < N; i++) {
        const i32 document = ints(&p.view[BEGIN])[i], chunk = (i - document) / CHUNK * CHUNK;
        ints(&p.view[BEGIN])[i] = document + chunk;
    }
    both(&p);
    for (i64 i = 0; i < N; i++)
        for (i64 head = 0; head < a.heads; head++) {
            double sum = 0, o[16] = {0};
            for (i64 j = 0; j <= i; j++) {
                if (i / 70 != j / 70 || i % 70 / CHUNK != j % 70 / CHUNK) continue;
                double s = 0;
                for (i64 d = 0; d < 16; d++)
                    s += (double)get(&p.view[Q], i * 32 + head * 16 + d) *
                         (double)get(&p.view[K], j * 16 + d);
                const double e = exp(s * a.scale);
                for (i64 d = 0; d < 16; d++) o[d] += e * (double)get(&p.view[V], j * 16 + d);
                sum += e;
            }
            for (i64 d = 0; d < 16; d++)
                assert_true(fabs((double)get(&p.view[O], i * 32 + head * 16 + d) - o[d] / sum) <
                            1e-5);
        }
    struct problem want = problem_make(a, F32, N, N, 70);
    memcpy(want.view[BEGIN].data, p.view[BEGIN].data, (size_t)view_bytes(&p.view[BEGIN]));
    define_forward(&want), define_backward(&want);
    for (int v = DQ; v <= DV; v++) same_bits(&want.view[v], &p.view[v], "chunks");
    problem_free(&p), problem_free(&want);
}

/* The chain of dsink goes on over micro-batches. */
static void test_sink_chain(void **state) {
    (void)state;
    enum { N = 100, FIRST = 40 };
    const struct attention_attr a = {3, 3, 24, 0.2, 0, 0, 0, 0};
    struct err e = {0};
    setting((int)isa_best(), 2);
    struct problem whole = problem_make(a, F32, N, N, 20);
    problem_extend(&whole, 1, false);
    both(&whole);
    struct problem part = whole;
    view_make(&part.view[DSINK], F32, 1, a.heads, 0, 0);
    memset(part.view[DSINK].data, 0, (size_t)view_bytes(&part.view[DSINK]));
    for (i64 i = 0; i < N; i += FIRST) {
        const i64 count = i64_min(FIRST, N - i);
        part.view[DO] = slice(&whole.view[DO], i, count);
        part.view[O] = slice(&whole.view[O], i, count);
        view_make(&part.view[LSE], F32, 2, a.heads, count, 0);
        for (i64 h = 0; h < a.heads; h++)
            memcpy((float *)part.view[LSE].data + h * count,
                   (float *)whole.view[LSE].data + h * N + i, (size_t)count * 4);
        assert_int_equal(sink_backward(&part, &e), 0);
        free(part.view[LSE].data);
    }
    same_bits(&whole.view[DSINK], &part.view[DSINK], "sinks in parts");
    free(part.view[DSINK].data), problem_free(&whole);
}

/* A gradient that nobody wants is absent; the others do not change. */
static void test_absent(void **state) {
    (void)state;
    const struct attention_attr a = {4, 2, 24, 0.2, 0, 0, 40, 0};
    struct err e = {0};
    for (int threads = 1; threads < 9; threads += 7) {
        setting((int)isa_best(), threads);
        struct problem want = problem_make(a, F32, 150, 150, 150);
        both(&want);
        for (int absent = DQ; absent <= DV; absent++) {
            struct problem got = want;
            for (int v = DQ; v <= DV; v++)
                got.view[v].data = v == absent ? NULL : calloc(1, (size_t)view_bytes(&got.view[v]));
            assert_int_equal(backward(&got, &e), 0);
            for (int v = DQ; v <= DV; v++)
                if (v != absent) same_bits(&want.view[v], &got.view[v], "one absent");
            for (int v = DQ; v <= DV; v++) free(got.view[v].data);
        }
        problem_free(&want);
    }
}

/* The slopes of 8 and 16 heads by hand, and those of 12 and 112 (BLOOM 176B). */
static void test_slopes(void **state) {
    (void)state;
    float s[112];
    alibi_slopes(s, 8);
    for (int i = 0; i < 8; i++) assert_true(s[i] == 1.0f / (float)(2 << i));
    alibi_slopes(s, 12);
    for (int i = 0; i < 8; i++) assert_true(s[i] == 1.0f / (float)(2 << i));
    assert_true(s[8] == 0x1.6a09e6p-1f && s[9] == 0x1.6a09e6p-2f && s[11] == 0x1.6a09e6p-4f);
    alibi_slopes(s, 16);
    assert_true(s[0] == 0x1.6a09e6p-1f && s[1] == 0.5f && s[15] == 0x1p-8f);
    alibi_slopes(s, 112);
    for (int i = 0; i < 64; i++) assert_true(fabs(log2((double)s[i]) + (i + 1) / 8.0) < 1e-7);
    for (int i = 0; i < 48; i++)
        assert_true(fabs(log2((double)s[64 + i]) + (2 * i + 1) / 16.0) < 1e-7);
    alibi_slopes(s, 1);
    assert_true(s[0] == 0x1p-8f);
}

static void refused(struct problem *p, bool back, const char *primary) {
    struct err e = {0};
    assert_int_equal(back ? backward(p, &e) : forward(p, &e), -1);
    assert_string_equal(e.primary, primary);
}
static void test_errors(void **state) {
    (void)state;
    struct problem p = problem_make((struct attention_attr){2, 1, 8, 1, 0, 0, 0, 0}, F32, 4, 4, 4);
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
                        .in = {{.data = x, .dtype = BF16, .rank = 2, .dim = {2, 2}},
                               {.data = at, .dtype = I32, .rank = 1, .dim = {2}}},
                        .out = {{.data = cache, .dtype = BF16, .rank = 2, .dim = {4, 2}}}};
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
        cmocka_unit_test(test_definition), cmocka_unit_test(test_cache),
        cmocka_unit_test(test_bad_pages),  cmocka_unit_test(test_cache_batch),
        cmocka_unit_test(test_packing),    cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_sink_chain), cmocka_unit_test(test_slopes),
        cmocka_unit_test(test_absent),     cmocka_unit_test(test_errors),
        cmocka_unit_test(test_kv_store)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_stop();
    return failed;
}
