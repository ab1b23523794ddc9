/* gguf_blocks.c: what the element types of GGUF hold, decoded to f32 exactly as ggml's reference
 * decodes them (the order of the roundings is the one written here; no fused multiply-add).
 *
 * A block of n elements shares scales. "Low nibbles first" means element j in the low half of byte
 * j and element j + n/2 in the high half.
 *
 *   Q4_0  32: f16 d, 16 bytes            d * (q - 8)
 *   Q4_1  32: f16 d, m, 16 bytes         d * q + m
 *   Q5_0  32: f16 d, u32 high, 16 bytes  d * (q - 16), bit 4 of element j is bit j of `high`
 *   Q5_1  32: f16 d, m, u32 high, 16     d * q + m
 *   Q8_0  32: f16 d, 32 i8               d * q
 *   Q4_K 256: f16 d, m, 12, 128          8 runs of 32 with 6-bit scale s and offset o: d*s * q -
 * m*o Q5_K 256: f16 d, m, 12, 32, 128      the same; bit 4 of run i is bit i of byte j of the 32
 *   Q6_K 256: 128, 64, 16 i8, f16 d      16 runs of 16 with scale s: d*s * (q - 32)
 *   MXFP4 32: e8m0 d, 16 bytes           2^(d-127) times an e2m1 number
 *
 * The 6-bit pairs of the K types: bytes 0 to 3 are scales 0 to 3, 4 to 7 offsets 0 to 3, in their
 * low 6 bits; bytes 8 to 11 hold the low 4 bits of scales and offsets 4 to 7, whose high 2 bits are
 * the top bits of bytes 0 to 3 and 4 to 7. */
#include "base/quant.h"
#include "checkpoints/checkpoints_int.h"
#include <string.h>

static float half_at(const u8 *p) { return f16_to_f32((u16)(p[0] | p[1] << 8)); }

static void decode_f32(const u8 *from, i64 n, float *to) { memcpy(to, from, (size_t)n * 4); }
static void decode_f16(const u8 *from, i64 n, float *to) {
    for (i64 i = 0; i < n; i++) to[i] = half_at(from + 2 * i);
}
static void decode_bf16(const u8 *from, i64 n, float *to) {
    for (i64 i = 0; i < n; i++) to[i] = bf16_to_f32((u16)(from[2 * i] | from[2 * i + 1] << 8));
}

static void decode_q4_0(const u8 *from, i64 n, float *to) {
    for (; n--; from += 18, to += 32) {
        const float d = half_at(from);
        for (int j = 0; j < 16; j++) {
            to[j] = d * (float)((from[2 + j] & 15) - 8);
            to[j + 16] = d * (float)((from[2 + j] >> 4) - 8);
        }
    }
}

static void decode_q4_1(const u8 *from, i64 n, float *to) {
    for (; n--; from += 20, to += 32) {
        const float d = half_at(from), m = half_at(from + 2);
        for (int j = 0; j < 16; j++) {
            to[j] = d * (float)(from[4 + j] & 15) + m;
            to[j + 16] = d * (float)(from[4 + j] >> 4) + m;
        }
    }
}

/* Element j of 32 with its fifth bit. */
static int five_bits(const u8 *high, const u8 *low, int j) {
    return (low[j % 16] >> j / 16 * 4 & 15) | (high[j / 8] >> j % 8 & 1) << 4;
}
static void decode_q5_0(const u8 *from, i64 n, float *to) {
    for (; n--; from += 22, to += 32) {
        const float d = half_at(from);
        for (int j = 0; j < 32; j++) to[j] = d * (float)(five_bits(from + 2, from + 6, j) - 16);
    }
}
static void decode_q5_1(const u8 *from, i64 n, float *to) {
    for (; n--; from += 24, to += 32) {
        const float d = half_at(from), m = half_at(from + 2);
        for (int j = 0; j < 32; j++) to[j] = d * (float)five_bits(from + 4, from + 8, j) + m;
    }
}

static void decode_q8_0(const u8 *from, i64 n, float *to) {
    for (; n--; from += 34, to += 32) {
        const float d = half_at(from);
        for (int j = 0; j < 32; j++) to[j] = d * (float)(signed char)from[2 + j];
    }
}

/* Scale and offset of run i of a K block. */
static void pair_at(const u8 *p, int i, float *scale, float *offset) {
    const int low = i % 4;
    if (i < 4)
        *scale = (float)(p[low] & 63), *offset = (float)(p[4 + low] & 63);
    else
        *scale = (float)((p[8 + low] & 15) | p[low] >> 6 << 4),
        *offset = (float)(p[8 + low] >> 4 | p[4 + low] >> 6 << 4);
}

static void decode_q4_k(const u8 *from, i64 n, float *to) {
    for (; n--; from += 144, to += 256) {
        const float d = half_at(from), m = half_at(from + 2);
        for (int i = 0; i < 8; i++) {
            const u8 *q = from + 16 + i / 2 * 32;
            float s, o;
            pair_at(from + 4, i, &s, &o);
            s *= d, o *= m;
            for (int j = 0; j < 32; j++) to[32 * i + j] = s * (float)(q[j] >> i % 2 * 4 & 15) - o;
        }
    }
}

static void decode_q5_k(const u8 *from, i64 n, float *to) {
    for (; n--; from += 176, to += 256) {
        const float d = half_at(from), m = half_at(from + 2);
        for (int i = 0; i < 8; i++) {
            const u8 *high = from + 16, *q = from + 48 + i / 2 * 32;
            float s, o;
            pair_at(from + 4, i, &s, &o);
            s *= d, o *= m;
            for (int j = 0; j < 32; j++)
                to[32 * i + j] =
                    s * (float)((q[j] >> i % 2 * 4 & 15) | (high[j] >> i & 1) << 4) - o;
        }
    }
}

/* In each half of 128: element 32 k + j has its low 4 bits in byte j + k % 2 * 32 of 64, nibble
 * k / 2, and its high 2 in bits 2 k of byte j of 32. */
static void decode_q6_k(const u8 *from, i64 n, float *to) {
    for (; n--; from += 210, to += 256) {
        const float d = half_at(from + 208);
        for (int i = 0; i < 8; i++) {
            const int half = i / 4, k = i % 4;
            const u8 *low = from + half * 64 + k % 2 * 32, *high = from + 128 + half * 32;
            for (int j = 0; j < 32; j++) {
                const float s = d * (float)(signed char)from[192 + 2 * i + j / 16];
                const int q = (low[j] >> k / 2 * 4 & 15) | (high[j] >> 2 * k & 3) << 4;
                to[32 * i + j] = s * (float)(q - 32);
            }
        }
    }
}

static void decode_mxfp4(const u8 *from, i64 n, float *to) {
    static const float e2m1[16] = {0,   .5f,  1,   1.5f,  2,   3,   4,   6,
                                   -0., -.5f, -1., -1.5f, -2., -3., -4., -6.};
    for (; n--; from += 17, to += 32) {
        union {
            u32 u;
            float f;
        } d = {.u = from[0] ? (u32)from[0] << 23 : 0x400000};
        for (int j = 0; j < 16; j++) {
            to[j] = d.f * e2m1[from[1 + j] & 15];
            to[j + 16] = d.f * e2m1[from[1 + j] >> 4];
        }
    }
}

static void half_put(u8 *p, u16 h) { p[0] = (u8)h, p[1] = (u8)(h >> 8); }
static void encode_f32(const float *from, i64 n, u8 *to) { memcpy(to, from, (size_t)n * 4); }
static void encode_f16(const float *from, i64 n, u8 *to) {
    for (i64 i = 0; i < n; i++) half_put(to + 2 * i, f16_of_f32(from[i]));
}
static void encode_bf16(const float *from, i64 n, u8 *to) {
    for (i64 i = 0; i < n; i++) half_put(to + 2 * i, bf16_of_f32(from[i]));
}

#define FOREIGN(name, number, elements, size)                                                      \
    { name, number, DTYPE_COUNT, elements, size, NULL, NULL }
const struct gguf_type gguf_types[] = {
    {"F32", 0, F32, 1, 4, decode_f32, encode_f32},
    {"F16", 1, F16, 1, 2, decode_f16, encode_f16},
    {"Q4_0", 2, DTYPE_COUNT, 32, 18, decode_q4_0, blocks_q4_0},
    {"Q4_1", 3, DTYPE_COUNT, 32, 20, decode_q4_1, blocks_q4_1},
    {"Q5_0", 6, DTYPE_COUNT, 32, 22, decode_q5_0, blocks_q5_0},
    {"Q5_1", 7, DTYPE_COUNT, 32, 24, decode_q5_1, blocks_q5_1},
    {"Q8_0", 8, DTYPE_COUNT, 32, 34, decode_q8_0, blocks_q8_0},
    {"Q4_K", 12, DTYPE_COUNT, 256, 144, decode_q4_k, blocks_q4_k},
    {"Q5_K", 13, DTYPE_COUNT, 256, 176, decode_q5_k, blocks_q5_k},
    {"Q6_K", 14, DTYPE_COUNT, 256, 210, decode_q6_k, blocks_q6_k},
    {"I8", 24, I8, 1, 1, NULL, NULL},
    {"I32", 26, I32, 1, 4, NULL, NULL},
    {"I64", 27, I64, 1, 8, NULL, NULL},
    {"F64", 28, F64, 1, 8, NULL, NULL},
    {"BF16", 30, BF16, 1, 2, decode_bf16, encode_bf16},
    {"MXFP4", 39, DTYPE_COUNT, 32, 17, decode_mxfp4, NULL},
    FOREIGN("Q2_K", 10, 256, 84),
    FOREIGN("Q3_K", 11, 256, 110),
    FOREIGN("IQ2_XXS", 16, 256, 66),
    FOREIGN("IQ2_XS", 17, 256, 74),
    FOREIGN("IQ3_XXS", 18, 256, 98),
    FOREIGN("IQ1_S", 19, 256, 50),
    FOREIGN("IQ4_NL", 20, 32, 18),
    FOREIGN("IQ3_S", 21, 256, 110),
    FOREIGN("IQ2_S", 22, 256, 82),
    FOREIGN("IQ4_XS", 23, 256, 136),
    FOREIGN("I16", 25, 1, 2),
    FOREIGN("IQ1_M", 29, 256, 56),
    FOREIGN("TQ1_0", 34, 256, 54),
    FOREIGN("TQ2_0", 35, 256, 66),
    {0},
};

const struct gguf_type *gguf_type_of(const char *name) {
    for (const struct gguf_type *t = gguf_types; t->name; t++)
        if (!strcmp(t->name, name)) return t;
    return NULL;
}
