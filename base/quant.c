/* quant.c: tables and formulas of the formats in quant.h; the 4-bit loops are in quant_cpu.c.
 *
 * Tables are written out, or built by the steps by which their authors build them, so that they are
 * equal to the last bit. */
#include "base/quant.h"

#include <string.h>

const char *const quant4_name[QUANT4_COUNT] = {"nf4", "fp4"};
const float quant4_code[QUANT4_COUNT][16] = {
    {-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
     -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
     0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
     0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f},
    {0.0f, 0.0052083334885537624f, 0.6666666865348816f, 1.0f, 0.3333333432674408f, 0.5f,
     0.1666666716337204f, 0.25f, 0.0f, -0.0052083334885537624f, -0.6666666865348816f, -1.0f,
     -0.3333333432674408f, -0.5f, -0.1666666716337204f, -0.25f},
};

float quant_scale(const struct quant *q, i64 block) {
    if (!q->absmax2) return ((const float *)q->absmax)[block];
    const float scaled =
        q->code[QUANT_TABLE + ((const u8 *)q->absmax)[block]] * q->absmax2[block >> q->shift2];
    return scaled + q->code[QUANT_TABLE_DOUBLE - 1];
}

static void (*const decoders[ISA_COUNT])(void *, const struct quant *, const u8 *, i64, i64,
                                         bool) = {
#define X(isa) quant_decode_##isa,
    ISA_LIST(X)
#undef X
};
static void (*const encoders[ISA_COUNT])(enum quant4, u8 *, float *, const void *, bool, i64,
                                         i64) = {
#define X(isa) quant4_encode_##isa,
    ISA_LIST(X)
#undef X
};
void quant_decode(void *to, const struct quant *q, const u8 *packed, i64 at, i64 count,
                  bool is_bf16) {
    decoders[isa_now()](to, q, packed, at, count, is_bf16);
}
void quant4_encode(enum quant4 type, u8 *packed, float *absmax, const void *from, bool is_bf16,
                   i64 count, i64 block) {
    encoders[isa_now()](type, packed, absmax, from, is_bf16, count, block);
}

/* The mean in f64, in order. */
void quant_double(u8 *codes, float *absmax2, float code[QUANT_TABLE_DOUBLE], const float *absmax,
                  i64 count) {
    double sum = 0;
    for (i64 i = 0; i < count; i++) sum += (double)absmax[i];
    const float mean = (float)(sum / (double)i64_max(count, 1));
    quant8_map(code + QUANT_TABLE, true);
    code[QUANT_TABLE_DOUBLE - 1] = mean;
    for (i64 at = 0; at < count; at += QUANT_BLOCK2) {
        float rest[QUANT_BLOCK2];
        const i64 n = i64_min(QUANT_BLOCK2, count - at);
        for (i64 i = 0; i < n; i++) rest[i] = absmax[at + i] - mean;
        quant8_encode(codes + at, absmax2++, rest, n, QUANT_BLOCK2, code + QUANT_TABLE);
    }
}

/* Decade i, 10^(i - 6), has the middles of 2^i equal parts of [0.1, 1], with a sign, or of 2^(i +
 * 1) without; then 0 and 1. torch.linspace counts from the nearer end, fused. */
void quant8_map(float map[256], bool has_sign) {
    static const float decade[7] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1};
    const int zero = has_sign ? 127 : 0;
    int at = zero;
    map[at++] = 0, map[255] = 1;
    for (int i = 0; i < 7; i++) {
        const int parts = 1 << (has_sign ? i : i + 1);
        const double step = (double)(0.9f / (float)parts);
        for (int k = 0; k < parts; k++) {
            float edge[2];
            for (int n = k; n <= k + 1; n++)
                edge[n - k] = n < (parts + 1) / 2 ? (float)((double)0.1f + step * n)
                                                  : (float)(1 - step * (parts - n));
            map[at++] = decade[i] * ((edge[0] + edge[1]) / 2);
        }
    }
    for (int i = 1; has_sign && i <= zero; i++) map[zero - i] = -map[zero + i];
}

void quant8_middles(float middle[255], const float map[256]) {
    for (int i = 0; i < 255; i++) middle[i] = (map[i] + map[i + 1]) * 0.5f;
}
u8 quant8_nearest(const float middle[255], float x) {
    int below = 0; /* of the middles, sought among 255 by halving */
    for (int step = 128; step; step /= 2) below += middle[below + step - 1] < x ? step : 0;
    return (u8)below;
}
void quant8_encode(u8 *codes, float *absmax, const float *from, i64 count, i64 block,
                   const float map[256]) {
    float middle[255];
    quant8_middles(middle, map);
    for (i64 at = 0; at < count; at += block) {
        float top = 0;
        const i64 end = i64_min(count, at + block);
        for (i64 i = at; i < end; i++)
            top = from[i] > top ? from[i] : -from[i] > top ? -from[i] : top;
        for (i64 i = at; i < end; i++)
            codes[i] = quant8_nearest(middle, top > 0 ? from[i] / top : 0);
        *absmax++ = top;
    }
}

/* e4m3fn: 4 bits of exponent, bias 7, 3 of mantissa; both are built as halves of twice the bias. */
float fp8_to_f32(u8 code, enum fp8 type) {
    if (type == FP8_E5M2) return f16_to_f32((u16)(code << 8));
    const u16 sign = (u16)((code & 0x80) << 8), rest = code & 0x7f;
    if (rest == 0x7f) return f16_to_f32((u16)(sign | 0x7e00));
    return f16_to_f32((u16)(sign | rest << 7)) * 256; /* f16 has bias 15: 2^8 too small */
}
u8 fp8_of_f32(float x, enum fp8 type) {
    const int mantissa = type == FP8_E4M3 ? 3 : 2, bias = type == FP8_E4M3 ? 7 : 15,
              least = 1 - bias; /* exponent of the least normal number */
    union {
        float f;
        u32 u;
    } v = {.f = x};
    const u8 sign = (u8)(v.u >> 24 & 0x80);
    v.u &= 0x7fffffffu;
    if (v.u > 0x7f800000u) return sign | 0x7f;
    const int exponent = (int)(v.u >> 23) - 127;
    if (type == FP8_E4M3 && v.u >= 0x43e00000u) return sign | 0x7e; /* 448 */
    if (type == FP8_E5M2 && v.u >= 0x47700000u) return sign | 0x7c; /* 61440: beyond the largest */
    const int shift = 23 - mantissa + (exponent < least ? least - exponent : 0);
    if (shift > 24) return sign; /* less than half of the least number */
    const u32 whole = (v.u & 0x7fffff) | 0x800000, half = 1u << (shift - 1),
              rest = whole & ((1u << shift) - 1);
    u32 kept = whole >> shift;
    kept += rest > half || (rest == half && kept & 1);
    if (exponent >= least) kept += (u32)(exponent - least) << mantissa; /* the leading one adds 1 */
    return sign | (u8)kept;
}

void fp8_block_row(float *to, const u8 *codes, const float *scale_inv, i64 row, i64 cols) {
    const float *scale = scale_inv + row / 128 * ((cols + 127) / 128);
    for (i64 i = 0; i < cols; i++) to[i] = fp8_to_f32(codes[i], FP8_E4M3) * scale[i / 128];
}
void mxfp4_block(float to[32], const u8 codes[16], u8 scale) {
    static const float value[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    union {
        u32 u;
        float f;
    } power = {.u = scale == 255 ? 0x7fc00000u : scale ? (u32)scale << 23 : 0x00400000u};
    for (int i = 0; i < 32; i++) {
        const int code = i % 2 ? codes[i / 2] >> 4 : codes[i / 2] & 15;
        to[i] = (code & 8 ? -value[code & 7] : value[code & 7]) * power.f;
    }
}
void int8_row(float *to, const signed char *codes, float absmax, i64 cols) {
    for (i64 i = 0; i < cols; i++) to[i] = (float)codes[i] * absmax * (float)(1 / 127.0);
}
