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
#elif defined(ISA_IS_avx2)
V16_FN __m256 codes_load8(const u8 *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
V16_FN v16 codes_load(const u8 *p) { return (v16){codes_load8(p), codes_load8(p + 8)}; }
#else
V16_FN v16 codes_load(const u8 *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
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
