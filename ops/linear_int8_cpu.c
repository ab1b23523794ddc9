/* linear_int8_cpu.c: linear_int8 (NUMERICS.md 15). Eight rows of w at a time: each block's whole
 * numbers are multiplied and added in integer lanes, a tree turns the lanes of eight rows into one
 * lane a row, and the eight chains go on in float lanes. So weights are read once, as they are
 * stored, and nothing is packed. Rejected: rows interleaved beforehand, which would be a second
 * copy of the file in memory; float lanes within a row, which would be another sum.
 *
 * Codes of 8 bits are multiplied as bytes with 128 added (VNNI), or by their magnitude with the
 * sign moved to the other factor (AVX2 adds pairs in 16 bits, where the former would not fit). */
#include "base/v16.h"
#include "ops/gemm/gemm.h"
#include "ops/linear_int8.h"

#include <string.h>

enum { ROWS = 8, FEW = 4 };

struct int8_job {
    const struct op_call *c;
    enum int8_form form;
    i64 n, in, out, blocks, bytes; /* of a row: blocks, and bytes of one */
    void *x;                       /* struct int8_x or int8_x256, [n][blocks] */
    float *sum;                    /* [n][out], where a low rank follows; NULL: straight to y */
};

/* What the kernels below subtract from codes; q8_0's are bytes with 128 added where that fits. */
V16_FN i32 zero_of(enum int8_form f) {
#ifdef ISA_IS_avx512bf16
    if (f == INT8_Q8_0) return 128;
#endif
    return int8_zero(f);
}

/* ---- activations */

/* Whole numbers of a block, and its e. */
static float block_quantise(signed char *to, const struct view *x, i64 at, i64 count) {
    const bool is_bf16 = view_is_bf16(x);
    v16 top = v16_set(0), bad = v16_set(0);
    for (i64 i = 0; i < count; i += 16) {
        const v16 v = v16_get_n(x->data, at + i, 16, is_bf16);
        top = v16_max(v16_abs(v), top), bad = v16_add(bad, v16_sub(v, v));
    }
    const float a = v16_top(top), check = v16_sum(bad), inverse = 127 / a;
    memset(to, 0, (size_t)count);
    if (check != 0 || check != check) return check - check + __builtin_nanf("");
    if (!(a > 0) || inverse - inverse != 0) return 0;
    for (i64 i = 0; i < count; i += 16) {
        float whole[16];
        v16_store(whole,
                  v16_round(v16_mul(v16_get_n(x->data, at + i, 16, is_bf16), v16_set(inverse))));
        for (int k = 0; k < 16; k++) to[i + k] = (signed char)whole[k];
    }
    return a / 127;
}

static i32 sum_of(const signed char *x, i64 count) {
    i32 sum = 0;
    for (i64 i = 0; i < count; i++) sum += x[i];
    return sum;
}

static void quantise_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct int8_job *j = arg;
    const i64 block = int8_elements(j->form);
    for (i64 b = begin; b < end; b++) {
        if (block == INT8_BLOCK) {
            struct int8_x *to = (struct int8_x *)j->x + b;
            to->e = block_quantise(to->x, &j->c->in[0], b * block, block);
            to->sum = (float)sum_of(to->x, block);
            for (int k = 0; k < 8; k++) to->less[k] = -zero_of(j->form) * sum_of(to->x + 4 * k, 4);
        } else {
            struct int8_x256 *to = (struct int8_x256 *)j->x + b;
            to->e = block_quantise(to->x, &j->c->in[0], b * block, block);
            for (int k = 0; k < 16; k++) to->half[k] = (int16_t)sum_of(to->x + 16 * k, 16);
            for (int k = 0; k < 8; k++)
                to->part[k] = (int16_t)(to->half[2 * k] + to->half[2 * k + 1]);
        }
    }
}

/* ---- eight rows of w times some rows of x: to [n][8] */

#ifdef ISA_IS_plain

V16_FN void rows_small(float *to, const struct int8_job *j, const u8 *const w[ROWS], i64 first,
                       const int n, const enum int8_form f) {
    for (int k = 0; k < n; k++)
        for (int r = 0; r < ROWS; r++) {
            const struct int8_x *x = (const struct int8_x *)j->x + (first + k) * j->blocks;
            float c = 0;
            for (i64 b = 0; b < j->blocks; b++, x++) {
                const u8 *block = w[r] + b * j->bytes;
                i32 sum = 0;
                for (i64 i = 0; i < INT8_BLOCK; i++) sum += int8_code(f, block, i) * x->x[i];
                c = __builtin_fmaf((float)sum, int8_d(f, block) * x->e, c);
                if (int8_has_minima(f)) c = __builtin_fmaf(x->sum, int8_m(block) * x->e, c);
            }
            to[k * ROWS + r] = c;
        }
}
V16_FN void rows_super(float *to, const struct int8_job *j, const u8 *const w[ROWS], i64 first,
                       const int n, const enum int8_form f) {
    for (int k = 0; k < n; k++)
        for (int r = 0; r < ROWS; r++) {
            const struct int8_x256 *x = (const struct int8_x256 *)j->x + (first + k) * j->blocks;
            float c = 0;
            for (i64 b = 0; b < j->blocks; b++, x++) {
                const u8 *block = w[r] + b * j->bytes;
                i32 sum = 0, least = 0;
                for (i64 i = 0; i < INT8_SUPER; i++)
                    sum += int8_part_scale(f, block, i) * int8_code(f, block, i) * x->x[i];
                for (i64 i = 0; i < INT8_SUPER && int8_has_minima(f); i += 32)
                    least += int8_part_min(block, i) * x->part[i / 32];
                c = __builtin_fmaf((float)sum, int8_d(f, block) * x->e, c);
                if (int8_has_minima(f))
                    c = __builtin_fmaf((float)least, -(int8_m(block) * x->e), c);
            }
            to[k * ROWS + r] = c;
        }
}

#else

/* While eight rows are multiplied, the eight behind them are asked for, in the order of memory: `b`
 * blocks are done. Asked for row by row the hardware would see eight streams and foresee none. */
V16_FN void ask(const u8 *row, i64 b, i64 blocks, i64 bytes) {
    const u8 *at = row + ROWS * (blocks + b) * bytes;
    for (i64 i = 0; i < ROWS * bytes; i += 64) __builtin_prefetch(at + i);
}

/* acc + products of unsigned codes with whole numbers, four to a lane. */
V16_FN __m256i dot(__m256i acc, __m256i code, __m256i x) {
#ifdef ISA_IS_avx512bf16
    return _mm256_dpbusd_epi32(acc, code, x);
#else
    return _mm256_add_epi32(acc,
                            _mm256_madd_epi16(_mm256_maddubs_epi16(code, x), _mm256_set1_epi16(1)));
#endif
}
V16_FN __m256i dot_q8_0(__m256i acc, __m256i code, __m256i x) {
#ifdef ISA_IS_avx512bf16
    return dot(acc, _mm256_xor_si256(code, _mm256_set1_epi8((char)0x80)), x);
#else
    return dot(acc, _mm256_abs_epi8(code), _mm256_sign_epi8(x, code));
#endif
}

V16_FN __m256i load32(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* Sums of the lanes of each of eight, in float lanes. */
V16_FN __m256 lanes8(const __m256i a[ROWS]) {
    const __m256i g = _mm256_hadd_epi32(_mm256_hadd_epi32(a[0], a[1]),
                                        _mm256_hadd_epi32(a[2], a[3])),
                  h = _mm256_hadd_epi32(_mm256_hadd_epi32(a[4], a[5]),
                                        _mm256_hadd_epi32(a[6], a[7]));
    return _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_permute2x128_si256(g, h, 0x20),
                                               _mm256_permute2x128_si256(g, h, 0x31)));
}

/* packing_f16 of the f16 at w[r] + at, r from 0 to 7. */
V16_FN __m256 f16x8(const u8 *const w[ROWS], i64 at) {
    __m128i h = _mm_setzero_si128();
#define LANE(r) h = _mm_insert_epi16(h, (int)int8_u16(w[r] + at), r);
    LANE(0)
    LANE(1)
    LANE(2)
    LANE(3)
    LANE(4)
    LANE(5)
    LANE(6)
    LANE(7)
#undef LANE
        const __m256i u = _mm256_cvtepu16_epi32(h),
                      rest = _mm256_and_si256(u, _mm256_set1_epi32(0x7fff)),
                      sign = _mm256_slli_epi32(_mm256_and_si256(u, _mm256_set1_epi32(0x8000)), 16);
    const __m256i small = _mm256_cmpgt_epi32(_mm256_set1_epi32(0x400), rest);
    const __m256 whole = _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_slli_epi32(rest, 13), _mm256_set1_epi32(112 << 23)));
    const __m256 part = _mm256_mul_ps(_mm256_cvtepi32_ps(rest), _mm256_set1_ps(0x1p-24f));
    return _mm256_or_ps(_mm256_blendv_ps(whole, part, _mm256_castsi256_ps(small)),
                        _mm256_castsi256_ps(sign));
}

/* ---- blocks of 32 */

V16_FN __m256i nibbles(const u8 *p) { /* low ones, then high ones */
    const __m128i two = _mm_loadu_si128((const __m128i *)p);
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(two, 4), two), _mm256_set1_epi8(15));
}
V16_FN __m256i fifths(const u8 *p) { /* 16 where a bit is set */
    u32 bits;
    memcpy(&bits, p, sizeof bits);
    const __m256i bytes = _mm256_shuffle_epi8(
        _mm256_set1_epi32((int)bits),
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303));
    const __m256i bit = _mm256_set1_epi64x((i64)0x8040201008040201u);
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit),
                            _mm256_set1_epi8(16));
}
V16_FN __m256i codes(const u8 *block, const enum int8_form f) {
    if (f == INT8_Q8_0) return load32(block + 2);
    if (f == INT8_Q4_0) return nibbles(block + 2);
    if (f == INT8_Q4_1) return nibbles(block + 4);
    const i64 head = f == INT8_Q5_0 ? 2 : 4;
    return _mm256_or_si256(nibbles(block + head + 4), fifths(block + head));
}

V16_FN void rows_small(float *to, const struct int8_job *j, const u8 *const row[ROWS], i64 first,
                       const int n, const enum int8_form f) {
    const i64 bytes = int8_bytes(f);
    const struct int8_x *x = (const struct int8_x *)j->x + first * j->blocks;
    const u8 *w[ROWS];
    __m256 c[FEW];
    for (int k = 0; k < n; k++) c[k] = _mm256_setzero_ps();
    for (int r = 0; r < ROWS; r++) w[r] = row[r];
    for (i64 b = 0; b < j->blocks; b++, x++) {
        __m256i a[FEW][ROWS];
        ask(row[0], b, j->blocks, bytes);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            const __m256i code = codes(w[r], f);
#pragma GCC unroll 4
            for (int k = 0; k < n; k++) {
                const struct int8_x *at = x + k * j->blocks;
                a[k][r] = f == INT8_Q8_0 ? dot_q8_0(load32(at->less), code, load32(at->x))
                                         : dot(load32(at->less), code, load32(at->x));
            }
        }
        const __m256 d = f16x8(w, 0);
        const __m256 m = int8_has_minima(f) ? f16x8(w, 2) : d;
#pragma GCC unroll 4
        for (int k = 0; k < n; k++) {
            const struct int8_x *at = x + k * j->blocks;
            const __m256 e = _mm256_set1_ps(at->e);
            c[k] = _mm256_fmadd_ps(lanes8(a[k]), _mm256_mul_ps(d, e), c[k]);
            if (int8_has_minima(f))
                c[k] = _mm256_fmadd_ps(_mm256_set1_ps(at->sum), _mm256_mul_ps(m, e), c[k]);
        }
        for (int r = 0; r < ROWS; r++) w[r] += bytes;
    }
    for (int k = 0; k < n; k++) _mm256_storeu_ps(to + k * ROWS, c[k]);
}

/* ---- blocks of 256 */

struct scales { /* of one: 8 or 16 numbers in 16 bits */
    __m256i part;
    __m128i least;
};
/* Six bits each, as int8_part_scale and int8_part_min have them. */
V16_FN void scales_k(struct scales *s, const u8 *block) {
    u32 u[3];
    memcpy(u, block + 4, sizeof u);
    const u64 part = (u[0] & 0x3f3f3f3fu) |
                     (u64)((u[2] & 0x0f0f0f0fu) | (u[0] >> 6 & 0x03030303u) << 4) << 32,
              least = (u[1] & 0x3f3f3f3fu) |
                      (u64)((u[2] >> 4 & 0x0f0f0f0fu) | (u[1] >> 6 & 0x03030303u) << 4) << 32;
    s->part = _mm256_castsi128_si256(_mm_cvtepu8_epi16(_mm_cvtsi64_si128((i64)part)));
    s->least = _mm_cvtepu8_epi16(_mm_cvtsi64_si128((i64)least));
}
/* Part j's scale in all lanes: of 32 elements, or, `halves`, of 16 and 16. */
V16_FN __m256i scale_of_part(const struct scales *s, int p, bool halves) {
    int16_t part[16];
    _mm256_storeu_si256((__m256i *)part, s->part);
    return halves ? _mm256_set_m128i(_mm_set1_epi16(part[2 * p + 1]), _mm_set1_epi16(part[2 * p]))
                  : _mm256_set1_epi16(part[p]);
}
/* Codes of part p, elements 32 p to 32 p + 31. */
V16_FN __m256i codes_k(const u8 *block, int p, const enum int8_form f) {
    const __m256i low = _mm256_set1_epi8(15);
    if (f == INT8_Q6_K) {
        const int at = p % 4, half = p / 4;
        const __m256i two = load32(block + half * 64 + at % 2 * 32),
                      four = load32(block + 128 + half * 32);
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(four, 2 * at), _mm256_set1_epi8(3));
        return _mm256_or_si256(_mm256_and_si256(at < 2 ? two : _mm256_srli_epi16(two, 4), low),
                               _mm256_slli_epi16(high, 4));
    }
    const __m256i two = load32(block + (f == INT8_Q5_K ? 48 : 16) + p / 2 * 32),
                  code = _mm256_and_si256(p % 2 ? _mm256_srli_epi16(two, 4) : two, low);
    if (f == INT8_Q4_K) return code;
    const __m256i fifth =
        _mm256_and_si256(_mm256_srli_epi16(load32(block + 16), p), _mm256_set1_epi8(1));
    return _mm256_or_si256(code, _mm256_slli_epi16(fifth, 4));
}

V16_FN void rows_super(float *to, const struct int8_job *j, const u8 *const row[ROWS], i64 first,
                       const int n, const enum int8_form f) {
    const i64 bytes = int8_bytes(f);
    const struct int8_x256 *x = (const struct int8_x256 *)j->x + first * j->blocks;
    const u8 *w[ROWS];
    __m256 c[FEW];
    for (int k = 0; k < n; k++) c[k] = _mm256_setzero_ps();
    for (int r = 0; r < ROWS; r++) w[r] = row[r];
    for (i64 b = 0; b < j->blocks; b++, x++) {
        __m256i a[FEW][ROWS], least[FEW][ROWS];
        ask(row[0], b, j->blocks, bytes);
        for (int r = 0; r < ROWS; r++) {
            struct scales s = {.part = _mm256_setzero_si256()};
            if (f == INT8_Q6_K)
                s.part = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(w[r] + 192)));
            else
                scales_k(&s, w[r]);
            for (int k = 0; k < n; k++) {
                const struct int8_x256 *at = x + k * j->blocks;
                a[k][r] = f != INT8_Q6_K
                              ? _mm256_setzero_si256()
                              : _mm256_slli_epi32(
                                    _mm256_sub_epi32(_mm256_setzero_si256(),
                                                     _mm256_madd_epi16(s.part, load32(at->half))),
                                    5);
                if (int8_has_minima(f))
                    least[k][r] = _mm256_zextsi128_si256(
                        _mm_madd_epi16(s.least, _mm_loadu_si128((const __m128i *)at->part)));
            }
#pragma GCC unroll 8
            for (int p = 0; p < 8; p++) {
                const __m256i code = codes_k(w[r], p, f),
                              scale = scale_of_part(&s, p, f == INT8_Q6_K);
#pragma GCC unroll 4
                for (int k = 0; k < n; k++) {
                    const struct int8_x256 *at = x + k * j->blocks;
                    const __m256i pairs = _mm256_maddubs_epi16(code, load32(at->x + 32 * p));
                    a[k][r] = _mm256_add_epi32(a[k][r], _mm256_madd_epi16(pairs, scale));
                }
            }
        }
        const __m256 d = f16x8(w, f == INT8_Q6_K ? 208 : 0);
        const __m256 m = int8_has_minima(f) ? f16x8(w, 2) : d;
        for (int k = 0; k < n; k++) {
            const __m256 e = _mm256_set1_ps((x + k * j->blocks)->e);
            c[k] = _mm256_fmadd_ps(lanes8(a[k]), _mm256_mul_ps(d, e), c[k]);
            if (int8_has_minima(f))
                c[k] = _mm256_fmadd_ps(lanes8(least[k]),
                                       _mm256_xor_ps(_mm256_mul_ps(m, e), _mm256_set1_ps(-0.0f)),
                                       c[k]);
        }
        for (int r = 0; r < ROWS; r++) w[r] += bytes;
    }
    for (int k = 0; k < n; k++) _mm256_storeu_ps(to + k * ROWS, c[k]);
}

#endif

#define FORM(f, rows)                                                                              \
    static __attribute__((noinline)) void rows_##f(float *to, const struct int8_job *j,            \
                                                   const u8 *const w[ROWS], i64 first, int n) {    \
        if (n == 4)                                                                                \
            rows(to, j, w, first, 4, INT8_##f);                                                    \
        else                                                                                       \
            for (int k = 0; k < n; k++) rows(to + k * ROWS, j, w, first + k, 1, INT8_##f);         \
    }
FORM(Q8_0, rows_small)
FORM(Q4_0, rows_small)
FORM(Q4_1, rows_small)
FORM(Q5_0, rows_small)
FORM(Q5_1, rows_small)
FORM(Q4_K, rows_super)
FORM(Q5_K, rows_super)
FORM(Q6_K, rows_super)
#undef FORM

static void rows_run(float *to, const struct int8_job *j, const u8 *const w[ROWS], i64 first,
                     int n) {
    static void (*const run[])(float *, const struct int8_job *, const u8 *const[ROWS], i64,
                               int) = {
        [INT8_Q8_0] = rows_Q8_0, [INT8_Q4_0] = rows_Q4_0, [INT8_Q4_1] = rows_Q4_1,
        [INT8_Q5_0] = rows_Q5_0, [INT8_Q5_1] = rows_Q5_1, [INT8_Q4_K] = rows_Q4_K,
        [INT8_Q5_K] = rows_Q5_K, [INT8_Q6_K] = rows_Q6_K};
    run[j->form](to, j, w, first, n);
}

/* ---- all rows */

static void rows_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct int8_job *j = arg;
    const struct view *w = &j->c->in[1], *y = &j->c->out[0], *bias = &j->c->in[2];
    const bool is_bf16 = view_is_bf16(y);
    float to[FEW * ROWS];
    for (i64 o = begin * ROWS; o < i64_min(end * ROWS, j->out); o += ROWS) {
        const i64 count = i64_min(ROWS, j->out - o);
        const u8 *row[ROWS];
        for (int r = 0; r < ROWS; r++)
            row[r] = (const u8 *)w->data + (o + i64_min(r, count - 1)) * j->blocks * j->bytes;
        for (i64 first = 0; first < j->n; first += FEW) {
            const i64 n = i64_min(FEW, j->n - first);
            rows_run(to, j, row, first, (int)n);
            for (i64 k = 0; k < n; k++) {
                v16 v = v16_load_n(to + k * ROWS, count);
                const i64 at = (first + k) * j->out + o;
                if (j->sum) {
                    v16_store_n(j->sum + at, v, count);
                    continue;
                }
                if (is_present(bias)) v = v16_add(v, v16_get_n(bias->data, o, count, is_bf16));
                v16_put_n(y->data, at, v, count, is_bf16);
            }
        }
    }
}

/* y = fma(scale, u, sum) + bias */
struct low_rank {
    const struct int8_job *j;
    const float *u;
    float scale;
};
static void low_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct low_rank *l = arg;
    const struct int8_job *j = l->j;
    const struct view *y = &j->c->out[0], *bias = &j->c->in[2];
    const bool is_bf16 = view_is_bf16(y);
    for (i64 r = begin; r < end; r++)
        for (i64 o = 0; o < j->out; o += 16) {
            const i64 at = r * j->out + o, left = j->out - o;
            v16 v = v16_fma(v16_set(l->scale), v16_load_n(l->u + at, left),
                            v16_load_n(j->sum + at, left));
            if (is_present(bias)) v = v16_add(v, v16_get_n(bias->data, o, left, is_bf16));
            v16_put_n(y->data, at, v, left, is_bf16);
        }
}

CPU_KERNEL(linear_int8) {
    (void)e;
    const struct view *x = &c->in[0], *w = &c->in[1];
    const enum int8_form f = w->packing->int8;
    struct int8_job j = {.c = c,
                         .form = f,
                         .n = x->dim[0],
                         .in = x->dim[1],
                         .out = w->dim[0],
                         .blocks = x->dim[1] / int8_elements(f),
                         .bytes = int8_bytes(f),
                         .x = c->scratch};
    u8 *rest = (u8 *)c->scratch + int8_scratch(j.n, j.in, f);
    const bool low = is_present(&c->in[3]);
    if (low) j.sum = (float *)(void *)rest, rest += round_up(j.n * j.out * 4, 64);
    pool_run(j.n * j.blocks, quantise_task, &j);
    pool_run((j.out + ROWS - 1) / ROWS, rows_task, &j);
    if (!low) return 0;
    float *u = (float *)(void *)rest;
    rest += round_up(j.n * j.out * 4, 64);
    struct view wide = c->out[0]; /* u, as y but f32 */
    wide.data = u, wide.dtype = F32;
    const struct gemm t = gemm_views(x, &c->in[3], true, &c->out[1]),
                      ub = gemm_views(&c->out[1], &c->in[4], true, &wide);
    CPU_NAME(gemm)(&t, rest), CPU_NAME(gemm)(&ub, rest);
    struct low_rank l = {&j, u, (float)((const struct lora_attr *)c->attr)->scale};
    pool_run(j.n, low_task, &l);
    return 0;
}
