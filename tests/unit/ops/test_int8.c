/* test_int8.c: products with activations as whole numbers (NUMERICS.md 15) of every block type of
 * GGUF that they take, with blocks of arbitrary bytes: the bits of a definition that is written
 * here once more, on every instruction set, with any number of rows at once. */
#include "ops/ops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { OUT = 19, BLOCKS = 3, ROWS = 9 };

static const struct form {
    enum int8_form form;
    const char *name;
    i64 block, bytes, d, m; /* elements; bytes; where d and the minimum are (-1: there is none) */
} forms[] = {
    {INT8_Q8_0, "q8_0", 32, 34, 0, -1},  {INT8_Q4_0, "q4_0", 32, 18, 0, -1},
    {INT8_Q4_1, "q4_1", 32, 20, 0, 2},   {INT8_Q5_0, "q5_0", 32, 22, 0, -1},
    {INT8_Q5_1, "q5_1", 32, 24, 0, 2},   {INT8_Q4_K, "q4_k", 256, 144, 0, 2},
    {INT8_Q5_K, "q5_k", 256, 176, 0, 2}, {INT8_Q6_K, "q6_k", 256, 210, 208, -1},
};
static i64 bytes_of(const struct view *v, int slot);

/* ---- the formats, as ggml-quants.c unpacks them: all elements of a block in their order */

struct unpacked {
    int code[256], scale[256], least[256]; /* whole numbers; without parts 1, and 1 where m is */
};
static void unpack(const struct form *f, const u8 *p, struct unpacked *u) {
    for (int i = 0; i < 256; i++) u->scale[i] = 1, u->least[i] = 1;
    switch (f->form) {
    case INT8_Q8_0:
        for (int i = 0; i < 32; i++) u->code[i] = p[2 + i] < 128 ? p[2 + i] : p[2 + i] - 256;
        return;
    case INT8_Q4_0:
        for (int i = 0; i < 16; i++) {
            u->code[i] = (p[2 + i] & 15) - 8;
            u->code[i + 16] = p[2 + i] / 16 - 8;
        }
        return;
    case INT8_Q4_1:
        for (int i = 0; i < 16; i++) {
            u->code[i] = p[4 + i] & 15;
            u->code[i + 16] = p[4 + i] / 16;
        }
        return;
    case INT8_Q5_0:
    case INT8_Q5_1: {
        const int at = f->form == INT8_Q5_0 ? 2 : 4, less = f->form == INT8_Q5_0 ? 16 : 0;
        u32 high;
        memcpy(&high, p + at, 4);
        for (int i = 0; i < 16; i++) {
            u->code[i] = (p[at + 4 + i] & 15) + (high >> i & 1 ? 16 : 0) - less;
            u->code[i + 16] = p[at + 4 + i] / 16 + (high >> (i + 16) & 1 ? 16 : 0) - less;
        }
        return;
    }
    case INT8_Q4_K:
    case INT8_Q5_K: {
        const u8 *s = p + 4, *low = p + (f->form == INT8_Q4_K ? 16 : 48), *high = p + 16;
        for (int i = 0; i < 256; i++) {
            const int j = i / 32, k = i % 32, two = low[i / 64 * 32 + k];
            u->code[i] = j % 2 ? two / 16 : two % 16;
            if (f->form == INT8_Q5_K && high[k] & 1 << j) u->code[i] += 16;
            u->scale[i] = j < 4 ? s[j] & 63 : (s[j + 4] & 15) + (s[j - 4] >> 6) * 16;
            u->least[i] = j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) + (s[j] >> 6) * 16;
        }
        return;
    }
    default:
        for (int half = 0; half < 2; half++)
            for (int l = 0; l < 32; l++) {
                const u8 *ql = p + 64 * half, *qh = p + 128 + 32 * half;
                const int at = 128 * half + l;
                u->code[at] = (ql[l] & 15) + (qh[l] & 3) * 16 - 32;
                u->code[at + 32] = (ql[l + 32] & 15) + (qh[l] >> 2 & 3) * 16 - 32;
                u->code[at + 64] = ql[l] / 16 + (qh[l] >> 4 & 3) * 16 - 32;
                u->code[at + 96] = ql[l + 32] / 16 + (qh[l] >> 6) * 16 - 32;
            }
        for (int i = 0; i < 256; i++)
            u->scale[i] = p[192 + i / 16] < 128 ? p[192 + i / 16] : p[192 + i / 16] - 256;
    }
}

static float half_of(const u8 *p) { /* of an f16 that is finite */
    const int sign = p[1] >> 7, power = p[1] >> 2 & 31, rest = (p[1] & 3) << 8 | p[0];
    const double size =
        power ? (1 + rest / 1024.0) * __builtin_ldexp(1, power - 15) : rest * 0x1p-24;
    return (float)(sign ? -size : size);
}

/* A row of x times a row of w. */
static float chain(const struct form *f, const u8 *w, const float *x) {
    float c = 0;
    for (i64 b = 0; b < BLOCKS; b++, w += f->bytes, x += f->block) {
        struct unpacked u;
        float a = 0;
        int sum = 0, least = 0;
        for (i64 i = 0; i < f->block; i++) a = x[i] > a ? x[i] : -x[i] > a ? -x[i] : a;
        const float inverse = 127 / a, e = a > 0 ? a / 127 : 0;
        unpack(f, w, &u);
        for (i64 i = 0; i < f->block && a > 0; i++) {
            const int whole = (int)__builtin_rintf(x[i] * inverse);
            sum += u.scale[i] * u.code[i] * whole, least += u.least[i] * whole;
        }
        c = __builtin_fmaf((float)sum, half_of(w + f->d) * e, c);
        if (f->m < 0) continue;
        const float m = half_of(w + f->m) * e;
        c = __builtin_fmaf((float)least, f->block > 32 ? -m : m, c);
    }
    return c;
}

static void fill(const struct form *f, u8 *w, float *x) {
    const struct rng r = {7, RNG_TEST, 0, (u32)f->form};
    const i64 bytes = OUT * BLOCKS * f->bytes, in = BLOCKS * f->block;
    for (i64 i = 0; i < bytes; i++) w[i] = (u8)(rng_uniform_f64(&r, (u64)i) * 256);
    for (i64 at = 0; at < bytes; at += f->bytes) { /* finite, some of them denormal */
        w[at + f->d + 1] &= at / f->bytes % 5 ? 0x37 : 0x83;
        if (f->m >= 0) w[at + f->m + 1] &= 0xb7;
    }
    for (i64 i = 0; i < ROWS * in; i++) x[i] = rng_normal(&r, (u64)(bytes + i)) * (i % 97 ? 1 : 30);
    memset(x, 0, sizeof *x * (size_t)f->block); /* a block of zeros */
    for (i64 i = 0; i < 40; i++) x[in + i] = (float)(i % 2 ? -i : i) * 127 / 64; /* ties */
}

static void test_forms(void **state) {
    (void)state;
    const enum isa best = isa_best();
    for (int k = 0; k < COUNT(forms); k++) {
        const struct form *f = &forms[k];
        const i64 in = BLOCKS * f->block;
        const struct packing packing = {
            .name = f->name, .block = {f->block}, .int8 = f->form, .bytes = bytes_of};
        u8 *w = malloc((size_t)(OUT * BLOCKS * f->bytes));
        float *x = malloc((size_t)(ROWS * in) * sizeof *x), y[ROWS * OUT];
        struct err e = {0};
        fill(f, w, x);
        for (int isa = 0; isa <= (int)best; isa++)
            for (i64 n = 1; n <= ROWS; n++) {
                struct op_call c = {.op = &op_linear_int8,
                                    .attr = &(struct lora_attr){1},
                                    .in = {{.data = x, .dtype = F32, .rank = 2, .dim = {n, in}},
                                           {.data = w,
                                            .dtype = F32,
                                            .rank = 2,
                                            .dim = {OUT, in},
                                            .packing = &packing,
                                            .block = {f->block}}}};
                c.out[0].data = y;
                assert_int_equal(op_linear_int8.shape(&c, &e), 0);
                c.scratch = aligned_alloc(64, (size_t)round_up(op_linear_int8.scratch(&c), 64));
                assert_int_equal(op_linear_int8.cpu[isa](&c, &e), 0);
                free(c.scratch);
                for (i64 i = 0; i < n * OUT; i++) {
                    const float want = chain(f, w + i % OUT * BLOCKS * f->bytes, x + i / OUT * in);
                    if (memcmp(&want, &y[i], sizeof want))
                        fail_msg("%s, isa %d, %lld rows: y[%lld] is %.9g, not %.9g", f->name, isa,
                                 (long long)n, (long long)i, (double)y[i], (double)want);
                }
            }
        free(w), free(x);
    }
}
static i64 bytes_of(const struct view *v, int slot) {
    for (int k = 0; k < COUNT(forms) && !slot; k++)
        if (forms[k].form == v->packing->int8)
            return view_count(v) / forms[k].block * forms[k].bytes;
    return 0;
}

/* What is not finite stays so, and touches no other row. */
static void test_not_finite(void **state) {
    (void)state;
    struct err e = {0};
    const struct packing *p = packing_find("q8_0");
    float w[2 * 64], x[2 * 64], y[4];
    for (int i = 0; i < 128; i++) w[i] = x[i] = (float)(i % 7) - 3;
    x[70] = __builtin_inff();
    struct view v = {.dtype = F32, .rank = 2, .dim = {2, 64}};
    assert_int_equal(view_pack(&v, p, NULL, &e) || p->encode(&v, w, false, &e), 0);
    struct op_call c = {.op = &op_linear_int8,
                        .attr = &(struct lora_attr){1},
                        .in = {{.data = x, .dtype = F32, .rank = 2, .dim = {2, 64}}, v}};
    c.out[0].data = y;
    assert_int_equal(op_linear_int8.shape(&c, &e), 0);
    c.scratch = aligned_alloc(64, (size_t)round_up(op_linear_int8.scratch(&c), 64));
    for (int isa = 0; isa <= (int)isa_best(); isa++) {
        assert_int_equal(op_linear_int8.cpu[isa](&c, &e), 0);
        assert_true(y[0] == y[0] && y[1] == y[1] && y[2] != y[2] && y[3] != y[3]);
    }
    c.in[1].dim[1] = c.in[0].dim[1] = 48;
    assert_int_equal(op_linear_int8.shape(&c, &e), -1);
    assert_non_null(strstr(e.primary, "rows of 48 are not whole blocks of 32"));
    free(c.scratch), mem_free(v.data);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_forms),
                                       cmocka_unit_test(test_not_finite)};
    struct err e = {0};
    isa_float_mode();
    if (pool_start(2, &e)) return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_stop();
    return failed;
}
