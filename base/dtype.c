/* dtype.c: the names and sizes of element types, and half precision.
 *
 * Conversions use integers only, so that they do not depend on the thread's denormal mode:
 * half-precision denormals are ordinary float values. */
#include "base/base.h"
#include <string.h>

const struct dtype_info dtype_info[DTYPE_COUNT] = {
    [F32] = {"f32", "F32", 4}, [BF16] = {"bf16", "BF16", 2}, [F16] = {"f16", "F16", 2},
    [F64] = {"f64", "F64", 8}, [I32] = {"i32", "I32", 4},    [I64] = {"i64", "I64", 8},
    [U8] = {"u8", "U8", 1},    [U16] = {"u16", "U16", 2},    [U32] = {"u32", "U32", 4},
    [I8] = {"i8", "I8", 1},
};

int dtype_of_safetensors(const char *name) {
    for (int d = 0; d < DTYPE_COUNT; d++)
        if (dtype_info[d].safetensors && !strcmp(name, dtype_info[d].safetensors)) return d;
    return -1;
}

char *shape_text(char out[192], int rank, const i64 *dim) {
    int at = snprintf(out, 192, "[");
    for (int i = 0; i < rank; i++)
        at += snprintf(out + at, 192 - (size_t)at, i ? ", %lld" : "%lld", (long long)dim[i]);
    snprintf(out + at, 192 - (size_t)at, "]");
    return out;
}

float f16_to_f32(u16 h) {
    u32 sign = (u32)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    union {
        u32 u;
        float f;
    } v;
    if (exponent == 31)
        v.u = 0x7f800000u | mantissa << 13;
    else if (exponent)
        v.u = (exponent + 112) << 23 | mantissa << 13;
    else if (!mantissa)
        v.u = 0;
    else {
        u32 shift = (u32)__builtin_clz(mantissa) - 21; /* brings the leading one to bit 10 */
        v.u = (113 - shift) << 23 | (mantissa << shift & 0x3ff) << 13;
    }
    v.u |= sign;
    return v.f;
}

u16 f16_of_f32(float x) {
    union {
        float f;
        u32 u;
    } v = {.f = x};
    u32 sign = v.u >> 16 & 0x8000, bits = v.u & 0x7fffffffu;
    if (bits > 0x7f800000u) return (u16)(sign | 0x7e00 | (bits >> 13 & 0x3ff));
    if (bits >= 0x477ff000u) return (u16)(sign | 0x7c00); /* 65520 and more round to infinity */
    u32 shift = 13, whole = bits - (112u << 23);          /* normal: rebias, drop 13 bits */
    if (bits < 113u << 23) {                              /* below 2^-14: a denormal half */
        if (bits < 102u << 23) return (u16)sign;          /* below 2^-25: zero */
        shift = 126 - (bits >> 23);
        whole = (bits & 0x7fffff) | 0x800000;
    }
    u32 half = 1u << (shift - 1), rest = whole & ((1u << shift) - 1), kept = whole >> shift;
    return (u16)(sign | (kept + (rest > half || (rest == half && kept & 1))));
}
