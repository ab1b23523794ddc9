/* packing_cpu.c: packed elements decoded, per instruction set: the frames of packing.h. */
#include "base/v16.h"
#include "ops/packing.h"

/* 16 codes as numbers from 0 to 255. By way of an array in memory decoding took five times as long:
 * a wide load waits for the narrow stores before it. */
#if defined(ISA_IS_plain)
V16_FN v16 codes_load(const u8 *p) {
    v16 x;
    for (int l = 0; l < 16; l++) x.f[l] = (float)p[l];
    return x;
}
#else
#if defined(ISA_IS_avx2)
V16_FN __m256 codes_widen8(__m128i codes) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes));
}
V16_FN v16 codes_widen(__m128i codes) {
    return (v16){codes_widen8(codes), codes_widen8(_mm_srli_si128(codes, 8))};
}
#else
V16_FN v16 codes_widen(__m128i codes) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes)); }
#endif
V16_FN __m128i bytes_load(const u8 *p) { return _mm_loadu_si128((const __m128i *)p); }
V16_FN v16 codes_load(const u8 *p) { return codes_widen(bytes_load(p)); }
#endif

/* n values of a run, to element i on. */
typedef v16 packing_value(v16 code);
V16_FN void run_decode(void *to, i64 i, const struct packing_run *r, i64 n, bool is_bf16,
                       packing_value *value) {
    const v16 scale = v16_set(r->scale);
    i64 k = 0;
    for (; k + 16 <= n; k += 16)
        v16_put(to, i + k, v16_mul(value(codes_load(r->code + k)), scale), is_bf16);
    if (k == n) return;
    u8 last[16] = {0};
    for (int l = 0; l < n - k; l++) last[l] = r->code[k + l];
    v16_put_n(to, i + k, v16_mul(value(codes_load(last)), scale), n - k, is_bf16);
}
#define DECODE_scaled(id)                                                                          \
    {                                                                                              \
        for (i64 line = 0; line < lines; line++)                                                   \
            for (i64 i = 0, n; i < count; i += n) {                                                \
                const struct packing_run r = id##_run(v, at + line * step + i);                    \
                n = i64_min(r.count, count - i);                                                   \
                if (is_bf16)                                                                       \
                    run_decode(to, line *count + i, &r, n, true, id##_value);                      \
                else                                                                               \
                    run_decode(to, line *count + i, &r, n, false, id##_value);                     \
            }                                                                                      \
    }

/* The 16 codes of a group; high: id_HIGH. */
#if defined(ISA_IS_plain)
V16_FN v16 group_codes(const struct packing_group *g, int high) {
    v16 x;
    for (int l = 0; l < 16; l++) x.f[l] = (float)packing_code(g, l, high);
    return x;
}
#else
/* Bits `shift` and on of each byte that `mask` has: they do not leave their byte. */
V16_FN __m128i bytes_bits(const u8 *p, int shift, int mask) {
    return _mm_and_si128(_mm_srl_epi16(bytes_load(p), _mm_cvtsi32_si128(shift)),
                         _mm_set1_epi8((char)mask));
}
V16_FN v16 group_codes(const struct packing_group *g, int high) {
    const __m128i low = bytes_bits(g->low, g->shift, 15);
    if (high == PACKING_NONE) return codes_widen(low);
    if (high != PACKING_BITS)
        return codes_widen(
            _mm_or_si128(low, _mm_slli_epi16(bytes_bits(g->high, g->high_shift, high), 4)));
    const __m128i bit = _mm_set1_epi64x((long long)0x8040201008040201ull),
                  byte = _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1),
                  all = _mm_shuffle_epi8(_mm_cvtsi32_si128((int)g->bits), byte),
                  set = _mm_cmpeq_epi8(_mm_and_si128(all, bit), bit);
    return codes_widen(_mm_or_si128(low, _mm_and_si128(set, _mm_set1_epi8(16))));
}
#endif

/* `count` values from element `at` on, to element `to_at` on. */
typedef struct packing_group packing_group_at(const u8 *block, int k);
struct groups {
    i64 block, bytes;
    float zero;
    int high;
};
V16_FN void groups_decode(void *to, i64 to_at, const u8 *from, u64 at, i64 count, bool is_bf16,
                          const struct groups *s, packing_group_at *group) {
    const v16 zero = v16_set(s->zero);
    for (i64 i = 0, n; i < count; i += n) {
        const u64 e = at + (u64)i, in = e % (u64)s->block, skip = in % 16;
        const struct packing_group g =
            group(from + e / (u64)s->block * (u64)s->bytes, (int)(in / 16));
        v16 x = v16_add(v16_mul(v16_sub(group_codes(&g, s->high), zero), v16_set(g.scale)),
                        v16_set(g.offset));
        n = i64_min(16 - (i64)skip, count - i);
        if (skip) {
            float lane[32] = {0};
            v16_store(lane, x), x = v16_load_n(lane + skip, n);
        }
        v16_put_n(to, to_at + i, x, n, is_bf16);
    }
}
#define DECODE_groups(id)                                                                          \
    {                                                                                              \
        const struct groups s = {id##_BLOCK, id##_BYTES, id##_ZERO, id##_HIGH};                    \
        for (i64 line = 0; line < lines; line++) {                                                 \
            const u64 from = (u64)(at + line * step);                                              \
            if (is_bf16)                                                                           \
                groups_decode(to, line *count, v->data, from, count, true, &s, id##_group);        \
            else                                                                                   \
                groups_decode(to, line *count, v->data, from, count, false, &s, id##_group);       \
        }                                                                                          \
    }
/* The functions are base/quant_cpu.c's. */
#define DECODE_table(id)                                                                           \
    {                                                                                              \
        const struct quant q = table_quant(v);                                                     \
        for (i64 line = 0; line < lines; line++) CPU_NAME(quant_decode)                            \
        ((u8 *)to + line * count * (is_bf16 ? 2 : 4), &q, v->data, at + line * step, count,        \
         is_bf16);                                                                                 \
    }

#define X(id, text, frame)                                                                         \
    packing_decode CPU_NAME(packing_##id);                                                         \
    void CPU_NAME(packing_##id)(void *to, const struct view *v, i64 at, i64 count, i64 lines,      \
                                i64 step, bool is_bf16) DECODE_##frame(id)
PACKING_LIST(X)
#undef X
