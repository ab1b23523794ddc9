/* quant_cpu.c: blocks of 4-bit codes, decoded and encoded, per instruction set.
 *
 * Decoding: the 16 entries of the table are multiplied by a block's scale once, and rounded; what
 * is left per value is to look it up, which every instruction set here can do without touching
 * memory. Encoding: the rank of a value is the number of thresholds below it; 15 comparisons for 16
 * values at a time. */
#include "base/quant.h"
#include "base/v16.h"

#include <string.h>

/* A table times a scale, in the dtype of the result. */
struct scaled {
    float f[16];
    u16 h[16];
};

#if defined(ISA_IS_plain)
V16_FN void run16(void *to, i64 i, const struct scaled *t, const u8 *p, bool is_bf16) {
    for (int n = 0; n < 8; n++) {
        if (is_bf16) {
            ((u16 *)to)[i + 2 * n] = t->h[p[n] >> 4], ((u16 *)to)[i + 2 * n + 1] = t->h[p[n] & 15];
        } else {
            ((float *)to)[i + 2 * n] = t->f[p[n] >> 4];
            ((float *)to)[i + 2 * n + 1] = t->f[p[n] & 15];
        }
    }
}
#else
/* 16 codes, one a byte, of 8 bytes */
V16_FN __m128i codes16(const u8 *p) {
    const __m128i x = _mm_loadl_epi64((const __m128i *)p), low = _mm_set1_epi8(15);
    return _mm_unpacklo_epi8(_mm_and_si128(_mm_srli_epi16(x, 4), low), _mm_and_si128(x, low));
}
#if defined(ISA_IS_avx2)
V16_FN __m256 look8(__m128i codes, const struct scaled *t) {
    const __m256i at = _mm256_cvtepu8_epi32(codes);
    const __m256 first = _mm256_permutevar8x32_ps(_mm256_loadu_ps(t->f), at),
                 second = _mm256_permutevar8x32_ps(_mm256_loadu_ps(t->f + 8), at);
    return _mm256_blendv_ps(first, second, _mm256_castsi256_ps(_mm256_slli_epi32(at, 28)));
}
V16_FN void run16(void *to, i64 i, const struct scaled *t, const u8 *p, bool is_bf16) {
    const __m128i codes = codes16(p);
    if (is_bf16) {
        const __m128i first = _mm_loadu_si128((const __m128i *)t->h),
                      second = _mm_loadu_si128((const __m128i *)(t->h + 8)),
                      byte = _mm_set1_epi16(255);
        const __m128i low = _mm_shuffle_epi8(
                          _mm_packus_epi16(_mm_and_si128(first, byte), _mm_and_si128(second, byte)),
                          codes),
                      high = _mm_shuffle_epi8(
                          _mm_packus_epi16(_mm_srli_epi16(first, 8), _mm_srli_epi16(second, 8)),
                          codes);
        _mm_storeu_si128((__m128i *)((u16 *)to + i), _mm_unpacklo_epi8(low, high));
        _mm_storeu_si128((__m128i *)((u16 *)to + i + 8), _mm_unpackhi_epi8(low, high));
    } else {
        v16_store((float *)to + i,
                  (v16){look8(codes, t), look8(_mm_unpackhi_epi64(codes, codes), t)});
    }
}
#else
V16_FN void run16(void *to, i64 i, const struct scaled *t, const u8 *p, bool is_bf16) {
    const __m128i codes = codes16(p);
    if (is_bf16)
        _mm256_storeu_si256((__m256i *)((u16 *)to + i),
                            _mm256_permutexvar_epi16(_mm256_cvtepu8_epi16(codes),
                                                     _mm256_loadu_si256((const __m256i *)t->h)));
    else
        v16_store((float *)to + i,
                  _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(codes), v16_load(t->f)));
}
#endif
#endif

V16_FN void one(void *to, i64 i, const struct scaled *t, const u8 *packed, i64 at, bool is_bf16) {
    const int code = at % 2 ? packed[at / 2] & 15 : packed[at / 2] >> 4;
    if (is_bf16)
        ((u16 *)to)[i] = t->h[code];
    else
        ((float *)to)[i] = t->f[code];
}

V16_FN void decode(void *to, const struct quant *q, const u8 *packed, i64 at, i64 count,
                   bool is_bf16) {
    const v16 table = v16_load(q->code);
    for (i64 i = 0; i < count;) {
        const i64 block = (at + i) >> q->shift,
                  end = i64_min(count, ((block + 1) << q->shift) - at);
        const v16 scaled = v16_mul(table, v16_set(quant_scale(q, block)));
        struct scaled t;
        if (is_bf16)
            v16_store_bf16(t.h, scaled);
        else
            v16_store(t.f, scaled);
        if ((at + i) % 2) one(to, i, &t, packed, at + i, is_bf16), i++;
        for (; i + 16 <= end; i += 16) run16(to, i, &t, packed + (at + i) / 2, is_bf16);
        for (; i < end; i++) one(to, i, &t, packed, at + i, is_bf16);
    }
}
void CPU_NAME(quant_decode)(void *to, const struct quant *q, const u8 *packed, i64 at, i64 count,
                            bool is_bf16) {
    if (is_bf16)
        decode(to, q, packed, at, count, true);
    else
        decode(to, q, packed, at, count, false);
}

/* Values above threshold i and not above i + 1 are of rank i + 1; ranks ascend with the value. fp4
 * has two codes of zero: 0 for zero and below, 8 above, as bitsandbytes on a CPU gives them (they
 * decode alike). */
static const struct {
    float above[15];
    u8 code[16];
} ranks[QUANT4_COUNT] = {
    {{-0.8480964004993439f, -0.6106329262256622f, -0.4599952697753906f, -0.33967943489551544f,
      -0.23460740596055984f, -0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f,
      0.1202552504837513f, 0.2035212516784668f, 0.2920137718319893f, 0.3893125355243683f,
      0.5016634166240692f, 0.6427869200706482f, 0.8614784181118011f},
     {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}},
    {{-0.8333333f, -0.583333f, -0.4166667f, -0.29166667f, -0.20833333f, -0.0859375f, -0.00260417f,
      0, 0.00260417f, 0.0859375f, 0.20833333f, 0.29166667f, 0.4166667f, 0.583333f, 0.8333333f},
     {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3}},
};

V16_FN void encode_block(enum quant4 type, u8 *packed, float *absmax, const void *from, i64 at,
                         i64 n, bool is_bf16) {
    const v16 one_v = v16_set(1), zero = v16_set(0);
    v16 top = zero;
    for (i64 i = 0; i < n; i += 16)
        top = v16_max(top, v16_abs(v16_get_n(from, at + i, n - i, is_bf16)));
    *absmax = v16_top(top);
    const v16 scale = v16_set(*absmax > 0 ? 1 / *absmax : 0);
    for (i64 i = 0; i < n; i += 16) {
        const v16 x = v16_mul(v16_get_n(from, at + i, n - i, is_bf16), scale);
        v16 rank = zero;
        for (int t = 0; t < 15; t++)
            rank = v16_add(rank, v16_select(v16_lt(v16_set(ranks[type].above[t]), x), one_v, zero));
        float r[16];
        v16_store(r, rank);
        for (i64 k = 0; k < 8 && i + 2 * k < n; k++)
            packed[(at + i) / 2 + k] =
                (u8)(ranks[type].code[(int)r[2 * k]] << 4 | ranks[type].code[(int)r[2 * k + 1]]);
    }
}
void CPU_NAME(quant4_encode)(enum quant4 type, u8 *packed, float *absmax, const void *from,
                             bool is_bf16, i64 count, i64 block) {
    for (i64 at = 0; at < count; at += block)
        if (is_bf16)
            encode_block(type, packed, absmax++, from, at, i64_min(block, count - at), true);
        else
            encode_block(type, packed, absmax++, from, at, i64_min(block, count - at), false);
}
