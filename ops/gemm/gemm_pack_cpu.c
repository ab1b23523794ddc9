/* gemm_pack_cpu.c: copies a panel of a matrix into the order in which the micro-kernel reads it.
 *
 * Where k is contiguous in memory, 16 x 16 lanes are transposed in registers; else rows are copied
 * (bf16 pairs interleave two rows). Rows of 16 lanes are stored at a stride of `width` in ascending
 * order: what spills over a row's end is overwritten by the next row, so that any width works
 * without masks. */
#include "base/v16.h"
#include "ops/gemm/gemm_int.h"
#include "ops/gemm/transpose16.h"

/* Up to 16 lanes of row i from element k on; `depth` elements exist. */
V16_FN v16 load_lanes(const struct operand *o, i64 i, i64 k, i64 depth, enum pack how) {
    const i64 at = i * o->ld + k;
    if (how == PACK_F32) return v16_get_n(o->data, at, depth, false);
    if (how == PACK_WIDE) return v16_get_n(o->data, at, depth, true);
#ifdef ISA_IS_avx512bf16
    const u32 mask = depth >= 32 ? ~0u : (1u << depth) - 1;
    return _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(mask, (const u16 *)o->data + at));
#else
    return v16_set(0);
#endif
}

V16_FN void pack_inner(float *to, const struct operand *o, i64 first, int width, i64 k, i64 depth,
                       enum pack how) {
    const i64 lanes = pack_lanes(how, depth), rows = i64_min(width, o->count - first);
    for (i64 p = 0; p < lanes; p += 16)
        for (int s = 0; s < width; s += 16) {
            v16 r[16];
            const i64 left = depth - pack_k(how, p);
            if (rows - s >= 16)
                for (int i = 0; i < 16; i++)
                    r[i] = load_lanes(o, first + s + i, k + pack_k(how, p), left, how);
            else
                for (int i = 0; i < 16; i++)
                    r[i] = s + i < rows
                               ? load_lanes(o, first + s + i, k + pack_k(how, p), left, how)
                               : v16_set(0);
            transpose16(r);
            float *out = to + p * width + s;
            if (lanes - p >= 16)
                for (int i = 0; i < 16; i++)
                    v16_store(out + i * width, r[how == PACK_WIDE ? i ^ 1 : i]);
            else
                for (int i = 0; i < lanes - p; i++)
                    v16_store(out + i * width, r[how == PACK_WIDE ? i ^ 1 : i]);
        }
}

V16_FN v16 load_across(const struct operand *o, i64 i, i64 k, i64 depth, enum pack how) {
    if (how != PACK_PAIR) /* lane row k of this panel: its partner's k for PACK_WIDE */
        return k >= depth ? v16_set(0)
                          : v16_get_n(o->data, k * o->ld + i, o->count - i, how == PACK_WIDE);
#ifdef ISA_IS_avx512bf16
    const u16 *row = (const u16 *)o->data + k * o->ld + i;
    const v16 even = v16_get_n(row, 0, o->count - i, true),
              odd = k + 1 < depth ? v16_get_n(row + o->ld, 0, o->count - i, true) : v16_set(0);
    const v16 first = o->in_order ? even : odd, second = o->in_order ? odd : even;
    return _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(first),
                                               _mm512_srli_epi32(_mm512_castps_si512(second), 16)));
#else
    return v16_set(0);
#endif
}

V16_FN void pack_across(float *to, const struct operand *o, i64 first, int width, i64 k, i64 depth,
                        enum pack how) {
    for (i64 p = 0; p < pack_lanes(how, depth); p++)
        for (int s = 0; s < width; s += 16) {
            const i64 at = how == PACK_WIDE ? p ^ !o->in_order : pack_k(how, p);
            v16_store(to + p * width + s, first + s < o->count
                                              ? load_across(o, first + s, k + at, k + depth, how)
                                              : v16_set(0));
        }
}

V16_FN void pack_as(float *to, const struct operand *o, i64 first, int width, i64 k, i64 depth,
                    enum pack how) {
    if (o->k_inner)
        pack_inner(to, o, first, width, k, depth, how);
    else
        pack_across(to, o, first, width, k, depth, how);
}

void CPU_NAME(gemm_pack)(float *to, const struct operand *o, i64 first, int width, i64 k, i64 depth,
                         enum pack how) {
    if (how == PACK_F32)
        pack_as(to, o, first, width, k, depth, PACK_F32);
    else if (how == PACK_WIDE)
        pack_as(to, o, first, width, k, depth, PACK_WIDE);
    else
        pack_as(to, o, first, width, k, depth, PACK_PAIR);
}
