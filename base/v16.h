/* v16.h: sixteen float lanes, the vocabulary in which every CPU kernel is written once.
 *
 * A file named *_cpu.c is compiled once per instruction set (Makefile) with ISA and ISA_IS_<isa>
 * defined, and includes this header. All four versions of each function give the same bits
 * (NUMERICS.md): the operations are IEEE with FTZ and DAZ (isa_float_mode), fused multiply-adds are
 * fused everywhere, and reductions have one fixed tree. Rejected: the compiler's vector extensions
 * (AVX2 code went through the stack), a call per array (no fusion). */
#ifndef HONE_V16_H
#define HONE_V16_H

#include "base/base.h"

#define V16_JOIN2(a, b) a##_##b
#define V16_JOIN(a, b)  V16_JOIN2(a, b)
#define CPU_NAME(name)  V16_JOIN(name, ISA) /* rmsnorm -> rmsnorm_avx2 */
#define V16_FN          static inline __attribute__((always_inline, unused))

#if defined(ISA_IS_avx512) || defined(ISA_IS_avx512bf16)
#include <immintrin.h>
typedef __m512 v16; /* 16 floats */
typedef __m512i
    v16h; /* 16 pairs of bf16: even element in the low half of a lane, odd in the high half */
typedef __mmask16 m16; /* 16 truth values */

V16_FN v16 v16_set(float x) { return _mm512_set1_ps(x); }
V16_FN v16 v16_load(const float *p) { return _mm512_loadu_ps(p); }
V16_FN void v16_store(float *p, v16 a) { _mm512_storeu_ps(p, a); }
V16_FN m16 m16_first(i64 n) { /* none if n is negative: a shift would wrap round */
    return (__mmask16)(n >= 16 ? 0xffff : n > 0 ? (1u << n) - 1 : 0);
}
V16_FN v16 v16_load_n(const float *p, i64 n) { return _mm512_maskz_loadu_ps(m16_first(n), p); }
V16_FN void v16_store_n(float *p, v16 a, i64 n) { _mm512_mask_storeu_ps(p, m16_first(n), a); }
V16_FN v16 v16_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
V16_FN v16 v16_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
V16_FN v16 v16_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
V16_FN v16 v16_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
V16_FN v16 v16_fma(v16 a, v16 b, v16 c) {
    return _mm512_fmadd_ps(a, b, c);
} /* a*b + c, one rounding */
V16_FN v16 v16_min(v16 a, v16 b) { return _mm512_min_ps(a, b); } /* a < b ? a : b */
V16_FN v16 v16_max(v16 a, v16 b) { return _mm512_max_ps(a, b); } /* a > b ? a : b */
V16_FN v16 v16_sqrt(v16 a) { return _mm512_sqrt_ps(a); }
V16_FN m16 v16_lt(v16 a, v16 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
V16_FN v16 v16_select(m16 m, v16 a, v16 b) { return _mm512_mask_blend_ps(m, b, a); } /* m ? a : b */
V16_FN v16 v16_abs(v16 a) { return _mm512_abs_ps(a); }
V16_FN v16 v16_copysign(v16 a, v16 sign) {
    const __m512i top = _mm512_set1_epi32((int)0x80000000u);
    return _mm512_castsi512_ps(_mm512_or_si512(_mm512_andnot_si512(top, _mm512_castps_si512(a)),
                                               _mm512_and_si512(top, _mm512_castps_si512(sign))));
}
V16_FN v16 v16_round(v16 a) {
    return _mm512_roundscale_ps(a, 8);
} /* to the nearest integer, ties to even */
V16_FN v16 v16_scale2(v16 a, v16 n) { /* a * 2^n for integral n, if a and the result are normal */
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_castps_si512(a), _mm512_slli_epi32(_mm512_cvtps_epi32(n), 23)));
}
V16_FN v16 v16_split2(v16 a,
                      v16 *n) { /* a = m * 2^n with m in [sqrt(1/2), sqrt(2)), for normal a > 0 */
    const __m512i bits = _mm512_sub_epi32(_mm512_castps_si512(a), _mm512_set1_epi32(0x3f3504f3));
    const __m512i e = _mm512_srai_epi32(bits, 23);
    *n = _mm512_cvtepi32_ps(e);
    return _mm512_castsi512_ps(_mm512_sub_epi32(_mm512_castps_si512(a), _mm512_slli_epi32(e, 23)));
}
V16_FN float v16_sum(v16 a) {
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
V16_FN float v16_top(v16 a) {
    __m256 b = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}
V16_FN v16 v16_widen(__m256i h) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
V16_FN __m256i v16_narrow(v16 a) { /* round to nearest even; NaN stays NaN */
    const __m512i u = _mm512_castps_si512(a), one = _mm512_set1_epi32(1);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), one);
    const __m512i r = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
    const __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    const __m512i q = _mm512_mask_or_epi32(r, nan, u, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(q, 16));
}
V16_FN v16 v16_load_bf16(const u16 *p) { return v16_widen(_mm256_loadu_si256((const __m256i *)p)); }
V16_FN v16 v16_load_bf16_n(const u16 *p, i64 n) {
    return v16_widen(_mm256_maskz_loadu_epi16(m16_first(n), p));
}
V16_FN void v16_store_bf16(u16 *p, v16 a) { _mm256_storeu_si256((__m256i *)p, v16_narrow(a)); }
V16_FN void v16_store_bf16_n(u16 *p, v16 a, i64 n) {
    _mm256_mask_storeu_epi16(p, m16_first(n), v16_narrow(a));
}
V16_FN v16h v16h_load(const void *p) { return _mm512_loadu_si512(p); } /* 32 bf16 */
V16_FN void v16h_store(void *p, v16h a) { _mm512_storeu_si512(p, a); }
V16_FN v16h v16h_set(u32 pair) { return _mm512_set1_epi32((int)pair); } /* one pair in every lane */
#ifdef ISA_IS_avx512bf16
V16_FN v16 v16_dot(v16h a, v16h b, v16 c) { return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b); }
#else
V16_FN v16 v16_dot(v16h a, v16h b, v16 c) { /* c = fma(odd, odd, c), then c = fma(even, even, c) */
    const __m512i high = _mm512_set1_epi32((int)0xffff0000u);
    c = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(a, high)),
                        _mm512_castsi512_ps(_mm512_and_si512(b, high)), c);
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(a, 16)),
                           _mm512_castsi512_ps(_mm512_slli_epi32(b, 16)), c);
}
#endif

#elif defined(ISA_IS_avx2)
#include <immintrin.h>
typedef struct {
    __m256 l, h;
} v16;
typedef struct {
    __m256i l, h;
} v16h;
typedef struct {
    __m256 l, h;
} m16;

V16_FN v16 v16_set(float x) { return (v16){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
V16_FN v16 v16_load(const float *p) { return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
V16_FN void v16_store(float *p, v16 a) { _mm256_storeu_ps(p, a.l), _mm256_storeu_ps(p + 8, a.h); }
V16_FN __m256i v16_first8(i64 n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
V16_FN m16 m16_first(i64 n) {
    return (m16){_mm256_castsi256_ps(v16_first8(n)), _mm256_castsi256_ps(v16_first8(n - 8))};
}
V16_FN v16 v16_load_n(const float *p, i64 n) {
    return (v16){_mm256_maskload_ps(p, v16_first8(n)),
                 _mm256_maskload_ps(p + 8, v16_first8(n - 8))};
}
V16_FN void v16_store_n(float *p, v16 a, i64 n) {
    _mm256_maskstore_ps(p, v16_first8(n), a.l), _mm256_maskstore_ps(p + 8, v16_first8(n - 8), a.h);
}
V16_FN v16 v16_add(v16 a, v16 b) { return (v16){_mm256_add_ps(a.l, b.l), _mm256_add_ps(a.h, b.h)}; }
V16_FN v16 v16_sub(v16 a, v16 b) { return (v16){_mm256_sub_ps(a.l, b.l), _mm256_sub_ps(a.h, b.h)}; }
V16_FN v16 v16_mul(v16 a, v16 b) { return (v16){_mm256_mul_ps(a.l, b.l), _mm256_mul_ps(a.h, b.h)}; }
V16_FN v16 v16_div(v16 a, v16 b) { return (v16){_mm256_div_ps(a.l, b.l), _mm256_div_ps(a.h, b.h)}; }
V16_FN v16 v16_fma(v16 a, v16 b, v16 c) {
    return (v16){_mm256_fmadd_ps(a.l, b.l, c.l), _mm256_fmadd_ps(a.h, b.h, c.h)};
}
V16_FN v16 v16_min(v16 a, v16 b) { return (v16){_mm256_min_ps(a.l, b.l), _mm256_min_ps(a.h, b.h)}; }
V16_FN v16 v16_max(v16 a, v16 b) { return (v16){_mm256_max_ps(a.l, b.l), _mm256_max_ps(a.h, b.h)}; }
V16_FN v16 v16_sqrt(v16 a) { return (v16){_mm256_sqrt_ps(a.l), _mm256_sqrt_ps(a.h)}; }
V16_FN m16 v16_lt(v16 a, v16 b) {
    return (m16){_mm256_cmp_ps(a.l, b.l, _CMP_LT_OQ), _mm256_cmp_ps(a.h, b.h, _CMP_LT_OQ)};
}
V16_FN v16 v16_select(m16 m, v16 a, v16 b) {
    return (v16){_mm256_blendv_ps(b.l, a.l, m.l), _mm256_blendv_ps(b.h, a.h, m.h)};
}
V16_FN v16 v16_abs(v16 a) {
    const __m256 top = _mm256_set1_ps(-0.0f);
    return (v16){_mm256_andnot_ps(top, a.l), _mm256_andnot_ps(top, a.h)};
}
V16_FN v16 v16_copysign(v16 a, v16 sign) {
    const __m256 top = _mm256_set1_ps(-0.0f);
    return (v16){_mm256_or_ps(_mm256_andnot_ps(top, a.l), _mm256_and_ps(top, sign.l)),
                 _mm256_or_ps(_mm256_andnot_ps(top, a.h), _mm256_and_ps(top, sign.h))};
}
V16_FN v16 v16_round(v16 a) { return (v16){_mm256_round_ps(a.l, 8), _mm256_round_ps(a.h, 8)}; }
V16_FN __m256 v16_scale8(__m256 a, __m256 n) {
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)));
}
V16_FN v16 v16_scale2(v16 a, v16 n) { return (v16){v16_scale8(a.l, n.l), v16_scale8(a.h, n.h)}; }
V16_FN __m256 v16_split8(__m256 a, __m256 *n) {
    const __m256i e = _mm256_srai_epi32(
        _mm256_sub_epi32(_mm256_castps_si256(a), _mm256_set1_epi32(0x3f3504f3)), 23);
    *n = _mm256_cvtepi32_ps(e);
    return _mm256_castsi256_ps(_mm256_sub_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(e, 23)));
}
V16_FN v16 v16_split2(v16 a, v16 *n) {
    v16 m;
    m.l = v16_split8(a.l, &n->l), m.h = v16_split8(a.h, &n->h);
    return m;
}
V16_FN float v16_sum(v16 a) {
    __m256 b = _mm256_add_ps(a.l, a.h);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
V16_FN float v16_top(v16 a) {
    __m256 b = _mm256_max_ps(a.l, a.h);
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}
V16_FN __m256 v16_widen8(const void *p) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
V16_FN __m256i v16_round8(__m256 a) { /* bf16 bits in the low halves */
    const __m256i u = _mm256_castps_si256(a);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    const __m256i r = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i q = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
    const __m256 nan = _mm256_cmp_ps(a, a, _CMP_UNORD_Q);
    return _mm256_srli_epi32(
        _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(r), _mm256_castsi256_ps(q), nan)),
        16);
}
V16_FN v16 v16_load_bf16(const u16 *p) { return (v16){v16_widen8(p), v16_widen8(p + 8)}; }
V16_FN void v16_store_bf16(u16 *p, v16 a) {
    const __m256i packed = _mm256_packus_epi32(v16_round8(a.l), v16_round8(a.h));
    _mm256_storeu_si256((__m256i *)p, _mm256_permute4x64_epi64(packed, 0xd8));
}
V16_FN v16 v16_load_bf16_n(const u16 *p, i64 n) {
    u16 t[16] = {0};
    if (n > 0) __builtin_memcpy(t, p, (size_t)(n < 16 ? n : 16) * 2);
    return v16_load_bf16(t);
}
V16_FN void v16_store_bf16_n(u16 *p, v16 a, i64 n) {
    u16 t[16];
    v16_store_bf16(t, a);
    if (n > 0) __builtin_memcpy(p, t, (size_t)(n < 16 ? n : 16) * 2);
}
V16_FN v16h v16h_load(const void *p) {
    return (v16h){_mm256_loadu_si256((const __m256i *)p),
                  _mm256_loadu_si256((const __m256i *)p + 1)};
}
V16_FN void v16h_store(void *p, v16h a) {
    _mm256_storeu_si256((__m256i *)p, a.l), _mm256_storeu_si256((__m256i *)p + 1, a.h);
}
V16_FN v16h v16h_set(u32 pair) {
    return (v16h){_mm256_set1_epi32((int)pair), _mm256_set1_epi32((int)pair)};
}
V16_FN __m256 v16_dot8(__m256i a, __m256i b, __m256 c) {
    const __m256i high = _mm256_set1_epi32((int)0xffff0000u);
    c = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_and_si256(a, high)),
                        _mm256_castsi256_ps(_mm256_and_si256(b, high)), c);
    return _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)),
                           _mm256_castsi256_ps(_mm256_slli_epi32(b, 16)), c);
}
V16_FN v16 v16_dot(v16h a, v16h b, v16 c) {
    return (v16){v16_dot8(a.l, b.l, c.l), v16_dot8(a.h, b.h, c.h)};
}

#else /* plain C */
typedef struct {
    float f[16];
} v16;
typedef struct {
    u32 u[16];
} v16h;
typedef struct {
    u32 u[16];
} m16;
#define V16_EACH for (int l = 0; l < 16; l++)

/* A fused multiply-add without the instruction: the product is exact in double; the sum is rounded
 * to odd, so that rounding it once more, to float, gives what one rounding of the exact value gives
 * (Boldo and Melquiond, 2008). */
V16_FN float v16_fma1(float a, float b, float c) {
    const double p = (double)a * (double)b, z = (double)c, s = p + z, t = s - p,
                 low = (p - (s - t)) + (z - t);
    union {
        double d;
        i64 i;
    } v = {.d = s};
    if ((low > 0 || low < 0) && !(v.i & 1)) v.i += (low > 0) == (s > 0) ? 1 : -1;
    return (float)v.d;
}
V16_FN u32 v16_bits1(float x) {
    union {
        float f;
        u32 u;
    } v = {.f = x};
    return v.u;
}
V16_FN float v16_of1(u32 x) {
    union {
        u32 u;
        float f;
    } v = {.u = x};
    return v.f;
}
V16_FN float v16_flush1(float x) { /* what DAZ makes of an operand, where nothing is computed */
    const u32 u = v16_bits1(x);
    return v16_of1(u & 0x7f800000u ? u : u & 0x80000000u);
}
V16_FN v16 v16_set(float x) {
    v16 r;
    V16_EACH r.f[l] = x;
    return r;
}
V16_FN v16 v16_load(const float *p) {
    v16 r;
    V16_EACH r.f[l] = p[l];
    return r;
}
V16_FN void v16_store(float *p, v16 a) { V16_EACH p[l] = a.f[l]; }
V16_FN m16 m16_first(i64 n) {
    m16 r;
    V16_EACH r.u[l] = l < n ? ~0u : 0;
    return r;
}
V16_FN v16 v16_load_n(const float *p, i64 n) {
    v16 r;
    V16_EACH r.f[l] = l < n ? p[l] : 0;
    return r;
}
V16_FN void v16_store_n(float *p, v16 a, i64 n) { V16_EACH if (l < n) p[l] = a.f[l]; }
V16_FN v16 v16_add(v16 a, v16 b) {
    V16_EACH a.f[l] += b.f[l];
    return a;
}
V16_FN v16 v16_sub(v16 a, v16 b) {
    V16_EACH a.f[l] -= b.f[l];
    return a;
}
V16_FN v16 v16_mul(v16 a, v16 b) {
    V16_EACH a.f[l] *= b.f[l];
    return a;
}
V16_FN v16 v16_div(v16 a, v16 b) {
    V16_EACH a.f[l] /= b.f[l];
    return a;
}
V16_FN v16 v16_fma(v16 a, v16 b, v16 c) {
    V16_EACH c.f[l] = v16_fma1(a.f[l], b.f[l], c.f[l]);
    return c;
}
V16_FN v16 v16_min(v16 a, v16 b) {
    V16_EACH a.f[l] = v16_flush1(a.f[l] < b.f[l] ? a.f[l] : b.f[l]);
    return a;
}
V16_FN v16 v16_max(v16 a, v16 b) {
    V16_EACH a.f[l] = v16_flush1(a.f[l] > b.f[l] ? a.f[l] : b.f[l]);
    return a;
}
V16_FN v16 v16_sqrt(v16 a) {
    V16_EACH a.f[l] = __builtin_sqrtf(a.f[l]);
    return a;
}
V16_FN m16 v16_lt(v16 a, v16 b) {
    m16 r;
    V16_EACH r.u[l] = a.f[l] < b.f[l] ? ~0u : 0;
    return r;
}
V16_FN v16 v16_select(m16 m, v16 a, v16 b) {
    V16_EACH a.f[l] = m.u[l] ? a.f[l] : b.f[l];
    return a;
}
V16_FN v16 v16_abs(v16 a) {
    V16_EACH a.f[l] = __builtin_fabsf(a.f[l]);
    return a;
}
V16_FN v16 v16_copysign(v16 a, v16 sign) {
    V16_EACH a.f[l] = __builtin_copysignf(a.f[l], sign.f[l]);
    return a;
}
V16_FN v16
v16_round(v16 a) { /* adding 1.5 * 2^23 rounds to an integer; larger values are integers already */
    V16_EACH {
        const float x = a.f[l], big = __builtin_copysignf(8388608.0f, x), r = (x + big) - big;
        a.f[l] = __builtin_fabsf(x) < 8388608.0f ? __builtin_copysignf(r, x) : x;
    }
    return a;
}
V16_FN v16 v16_scale2(v16 a, v16 n) {
    V16_EACH if (n.f[l] == n.f[l]) /* NaN as a number is undefined here, and 0 in the others */
        a.f[l] = v16_of1(v16_bits1(a.f[l]) + ((u32)(i32)n.f[l] << 23));
    return a;
}
V16_FN v16 v16_split2(v16 a, v16 *n) {
    V16_EACH {
        const i32 e = (i32)(v16_bits1(a.f[l]) - 0x3f3504f3u) >> 23;
        n->f[l] = (float)e;
        a.f[l] = v16_of1(v16_bits1(a.f[l]) - ((u32)e << 23));
    }
    return a;
}
V16_FN float v16_sum(v16 a) {
    for (int half = 8; half; half /= 2)
        for (int l = 0; l < half; l++) a.f[l] += a.f[l + half];
    return a.f[0];
}
V16_FN float v16_top(v16 a) {
    for (int half = 8; half; half /= 2)
        for (int l = 0; l < half; l++) a.f[l] = a.f[l] > a.f[l + half] ? a.f[l] : a.f[l + half];
    return v16_flush1(a.f[0]);
}
V16_FN v16 v16_load_bf16(const u16 *p) {
    v16 r;
    V16_EACH r.f[l] = bf16_to_f32(p[l]);
    return r;
}
V16_FN void v16_store_bf16(u16 *p, v16 a) { V16_EACH p[l] = bf16_of_f32(a.f[l]); }
V16_FN v16 v16_load_bf16_n(const u16 *p, i64 n) {
    v16 r;
    V16_EACH r.f[l] = l < n ? bf16_to_f32(p[l]) : 0;
    return r;
}
V16_FN void v16_store_bf16_n(u16 *p, v16 a, i64 n) {
    V16_EACH if (l < n) p[l] = bf16_of_f32(a.f[l]);
}
V16_FN v16h v16h_load(const void *p) {
    v16h r;
    __builtin_memcpy(&r, p, sizeof r);
    return r;
}
V16_FN void v16h_store(void *p, v16h a) { __builtin_memcpy(p, &a, sizeof a); }
V16_FN v16h v16h_set(u32 pair) {
    v16h r;
    V16_EACH r.u[l] = pair;
    return r;
}
V16_FN v16 v16_dot(v16h a, v16h b, v16 c) {
    V16_EACH {
        const float odd =
            v16_fma1(v16_of1(a.u[l] & 0xffff0000u), v16_of1(b.u[l] & 0xffff0000u), c.f[l]);
        c.f[l] = v16_fma1(v16_of1(a.u[l] << 16), v16_of1(b.u[l] << 16), odd);
    }
    return c;
}
#undef V16_EACH
#endif

/* Element `i` of an array that is f32, or bf16 if `is_bf16`, which is a constant where these are
 * used, so that one kernel body gives two loops. The _n forms touch the first n lanes only; lanes
 * past n read 0. */
V16_FN v16 v16_get(const void *p, i64 i, bool is_bf16) {
    return is_bf16 ? v16_load_bf16((const u16 *)p + i) : v16_load((const float *)p + i);
}
V16_FN void v16_put(void *p, i64 i, v16 a, bool is_bf16) {
    if (is_bf16)
        v16_store_bf16((u16 *)p + i, a);
    else
        v16_store((float *)p + i, a);
}
V16_FN v16 v16_get_n(const void *p, i64 i, i64 n, bool is_bf16) {
    if (n >= 16) return v16_get(p, i, is_bf16);
    return is_bf16 ? v16_load_bf16_n((const u16 *)p + i, n) : v16_load_n((const float *)p + i, n);
}
V16_FN void v16_put_n(void *p, i64 i, v16 a, i64 n, bool is_bf16) {
    if (n >= 16)
        v16_put(p, i, a, is_bf16);
    else if (is_bf16)
        v16_store_bf16_n((u16 *)p + i, a, n);
    else
        v16_store_n((float *)p + i, a, n);
}
V16_FN v16 v16_rounded(v16 a, bool is_bf16) { /* what storing and loading again would give */
    if (!is_bf16) return a;
    u16 t[16];
    v16_store_bf16(t, a);
    return v16_load_bf16(t);
}

#include "base/v16_math.h"

#endif
