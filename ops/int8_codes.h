/* int8_codes.h: blocks of GGUF as integers: what products in the definition `int8` (NUMERICS.md
 * 15) read of them. Internal to ops; the same formulas for CPU kernels, CUDA and the reference.
 *
 * A block of 32 is d * w + m with whole numbers w: q8_0 {f16 d, i8 w[32]}; q4_0 {f16 d, nibbles};
 * q4_1 {f16 d, f16 m, nibbles}; q5_0 {f16 d, u32 fifth bits, nibbles}; q5_1 likewise with m. Byte k
 * of the nibbles has elements k (low) and k + 16. w is the code less 8 (q4_0), 16 (q5_0), 0.
 *
 * A block of 256 is d * sc_j * w - dmin * mn_j, j the part of 32 (of 16 in q6_k): q4_k {f16 d, f16
 * dmin, 12 bytes of eight scales and eight minima of 6 bits, nibbles by 64 elements}; q5_k with 32
 * bytes of fifth bits behind the scales; q6_k {low 4 bits, high 2 bits by 128 elements, i8 sc[16],
 * f16 d}, w is the code less 32, without minima. */
#ifndef HONE_INT8_CODES_H
#define HONE_INT8_CODES_H

#include "ops/packing.h"

enum { INT8_BLOCK = 32, INT8_SUPER = 256 };

#ifdef __CUDACC__ /* of kernels and of what launches them */
#define INT8_BOTH static __host__ __device__ __forceinline__
#else
#define INT8_BOTH V16_FN
#endif

INT8_BOTH i64 int8_elements(enum int8_form f) { return f >= INT8_Q4_K ? INT8_SUPER : INT8_BLOCK; }
INT8_BOTH i64 int8_bytes(enum int8_form f) { /* of a block */
    return f == INT8_Q8_0   ? 34
           : f == INT8_Q4_0 ? 18
           : f == INT8_Q4_1 ? 20
           : f == INT8_Q5_0 ? 22
           : f == INT8_Q5_1 ? 24
           : f == INT8_Q4_K ? 144
           : f == INT8_Q5_K ? 176
                            : 210;
}
V16_FN bool int8_has_minima(enum int8_form f) {
    return f == INT8_Q4_1 || f == INT8_Q5_1 || f == INT8_Q4_K || f == INT8_Q5_K;
}
V16_FN i32 int8_zero(enum int8_form f) { /* w is the code less this */
    return f == INT8_Q4_0 ? 8 : f == INT8_Q5_0 ? 16 : f == INT8_Q6_K ? 32 : 0;
}
V16_FN u32 int8_u16(const u8 *p) { return (u32)(p[0] | p[1] << 8); }
/* d, and m or dmin. */
V16_FN float int8_d(enum int8_form f, const u8 *block) {
    return packing_f16(int8_u16(block + (f == INT8_Q6_K ? 208 : 0)));
}
V16_FN float int8_m(const u8 *block) { return packing_f16(int8_u16(block + 2)); }

/* Element i of a block as a whole number. */
V16_FN i32 int8_code(enum int8_form f, const u8 *block, i64 i) {
    if (f == INT8_Q8_0) return (i32)(block[2 + i] ^ 0x80) - 128;
    if (f < INT8_Q4_K) {
        const i64 head = f == INT8_Q4_0 || f == INT8_Q5_0 ? 2 : 4;
        const bool five = f == INT8_Q5_0 || f == INT8_Q5_1;
        const u8 *low = block + head + (five ? 4 : 0);
        const u32 nibble = i < 16 ? low[i] & 15u : (u32)low[i - 16] >> 4;
        const u32 fifth = five ? block[head + i / 8] >> (i % 8) & 1u : 0;
        return (i32)(nibble | fifth << 4) - int8_zero(f);
    }
    if (f != INT8_Q6_K) {
        const u8 *low = block + (f == INT8_Q5_K ? 48 : 16), two = low[i / 64 * 32 + i % 32];
        const u32 nibble = i / 32 % 2 ? (u32)two >> 4 : two & 15u;
        return (i32)(nibble | (f == INT8_Q5_K ? (block[16 + i % 32] >> (i / 32) & 1u) << 4 : 0));
    }
    const i64 half = i / 128, at = i % 128;
    const u8 two = block[half * 64 + at % 64], four = block[128 + half * 32 + at % 32];
    const u32 low = at < 64 ? two & 15u : (u32)two >> 4, high = four >> (at / 32 * 2) & 3u;
    return (i32)(low | high << 4) - 32;
}

/* Of a K type: the scale of the part that element i lies in, and its minimum. */
V16_FN i32 int8_part_scale(enum int8_form f, const u8 *block, i64 i) {
    if (f == INT8_Q6_K) return (i32)(block[192 + i / 16] ^ 0x80) - 128;
    const u8 *s = block + 4;
    const i64 j = i / 32;
    return j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
}
V16_FN i32 int8_part_min(const u8 *block, i64 i) {
    const u8 *s = block + 4;
    const i64 j = i / 32;
    return j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
}

#endif
