/* gguf_encode.c: f32 to the element types of GGUF that hone writes (layouts: gguf_blocks.c).
 *
 * F16, BF16, Q8_0 and Q4_0 have one reference, and these bytes equal it. Q4_K leaves the choice of
 * scales to the writer; here each run of 32 takes the line x = s q - o with the least squared error
 * among a fixed set of starts, each refined by least squares until its codes stand still; then the
 * eight pairs are rounded to 6 bits under the block's two f16 scales, and each pair tries its
 * neighbours for the least error that is really left. Everything is f32 in a fixed order, so equal
 * weights give equal files on every machine. Rejected: the reference's weighting by magnitude,
 * which trades the plain error for an assumption about activations; an importance matrix, which
 * needs a text. `tests/unit/checkpoints/test_gguf.c` holds the error against the reference's. */
#include "checkpoints/checkpoints_int.h"
#include <string.h>

static void half_put(u8 *p, float x) {
    const u16 h = f16_of_f32(x);
    p[0] = (u8)h, p[1] = (u8)(h >> 8);
}

void gguf_encode_f32(const float *from, i64 n, u8 *to) { memcpy(to, from, (size_t)n * 4); }
void gguf_encode_f16(const float *from, i64 n, u8 *to) {
    for (i64 i = 0; i < n; i++) half_put(to + 2 * i, from[i]);
}
void gguf_encode_bf16(const float *from, i64 n, u8 *to) {
    for (i64 i = 0; i < n; i++) {
        const u16 h = bf16_of_f32(from[i]);
        to[2 * i] = (u8)h, to[2 * i + 1] = (u8)(h >> 8);
    }
}

static float magnitude(float x) { return x < 0 ? -x : x; }

/* The largest magnitude becomes 127; halves round away from zero. */
void gguf_encode_q8_0(const float *from, i64 n, u8 *to) {
    for (; n--; from += 32, to += 34) {
        float top = 0;
        for (int j = 0; j < 32; j++) top = magnitude(from[j]) > top ? magnitude(from[j]) : top;
        const float d = top / 127, inverse = d != 0 ? 1 / d : 0;
        half_put(to, d);
        for (int j = 0; j < 32; j++) {
            const float x = from[j] * inverse, whole = (float)(int)x, rest = x - whole;
            to[2 + j] = (u8)((int)whole + (rest >= 0.5f) - (rest <= -0.5f));
        }
    }
}

/* The value of the largest magnitude, the first of equals, becomes -8. */
void gguf_encode_q4_0(const float *from, i64 n, u8 *to) {
    for (; n--; from += 32, to += 18) {
        float top = 0;
        for (int j = 0; j < 32; j++)
            if (magnitude(from[j]) > magnitude(top)) top = from[j];
        const float d = top / -8, inverse = d != 0 ? 1 / d : 0;
        half_put(to, d);
        int q[32];
        for (int j = 0; j < 32; j++) {
            q[j] = (int)(from[j] * inverse + 8.5f);
            q[j] = q[j] > 15 ? 15 : q[j];
        }
        for (int j = 0; j < 16; j++) to[2 + j] = (u8)(q[j] | q[j + 16] << 4);
    }
}

/* ---- Q4_K */
enum { RUN = 32, RUNS = 8, STARTS = 24, REFINE = 4 };

/* The nearest codes of x on the line s q - o, and the squared error. s 0: all codes 0. */
static float codes_of(const float *x, float s, float o, u8 *q) {
    const float inverse = s > 0 ? 1 / s : 0;
    float error = 0;
    for (int j = 0; j < RUN; j++) {
        const float at = (x[j] + o) * inverse + 0.5f;
        const int code = at >= 15 ? 15 : at >= 1 ? (int)at : 0;
        const float off = s * (float)code - o - x[j];
        q[j] = (u8)code, error += off * off;
    }
    return error;
}

/* The least-squares line through the codes; its offset may not be negative. */
static bool line_fit(const float *x, const u8 *q, float *s, float *o) {
    float sq = 0, sqq = 0, sx = 0, sxq = 0;
    for (int j = 0; j < RUN; j++) {
        const float c = (float)q[j];
        sq += c, sqq += c * c, sx += x[j], sxq += x[j] * c;
    }
    const float det = (float)RUN * sqq - sq * sq;
    if (!(det > 0)) return false;
    *s = ((float)RUN * sxq - sx * sq) / det;
    *o = (sq * sxq - sqq * sx) / det;
    if (*o < 0) *o = 0, *s = sxq / sqq;
    return *s > 0;
}

static void run_search(const float *x, float *scale, float *offset) {
    float low = 0, high = x[0]; /* the line passes through or below zero */
    for (int j = 0; j < RUN; j++) {
        low = x[j] < low ? x[j] : low;
        high = x[j] > high ? x[j] : high;
    }
    *offset = -low, *scale = 0;
    if (!(high > low)) return;
    u8 q[RUN];
    float best = codes_of(x, (high - low) / 15, -low, q);
    *scale = (high - low) / 15;
    for (int i = 0; i < STARTS; i++) {
        float s = (high - low) / (13.5f + 0.2f * (float)i), o = -low;
        codes_of(x, s, o, q);
        for (int k = 0; k < REFINE && line_fit(x, q, &s, &o); k++) {
            const float error = codes_of(x, s, o, q);
            if (error < best) best = error, *scale = s, *offset = o;
        }
    }
}

static int six_bits(float x, float unit) {
    const float n = x / unit; /* NaN of infinite ones: 0 */
    return !(unit > 0 && n > 0) ? 0 : n >= 63 ? 63 : (int)(n + 0.5f);
}

/* Rounds a pair to 6 bits under d and m, trying neighbours; leaves the codes of the best. */
static void pair_round(const float *x, float d, float m, int *s, int *o, u8 *q) {
    const int s0 = *s, o0 = *o;
    u8 trial[RUN];
    float best = codes_of(x, d * (float)s0, m * (float)o0, q);
    for (int i = s0 - 2; i <= s0 + 2; i++)
        for (int k = o0 - 2; k <= o0 + 2; k++) {
            if (i < 0 || i > 63 || k < 0 || k > 63 || (i == s0 && k == o0)) continue;
            const float error = codes_of(x, d * (float)i, m * (float)k, trial);
            if (error < best) best = error, *s = i, *o = k, memcpy(q, trial, RUN);
        }
}

void gguf_encode_q4_k(const float *from, i64 n, u8 *to) {
    for (; n--; from += 256, to += 144) {
        float scale[RUNS], offset[RUNS], s_top = 0, o_top = 0;
        u8 q[RUNS][RUN];
        for (int i = 0; i < RUNS; i++) {
            run_search(from + RUN * i, &scale[i], &offset[i]);
            s_top = scale[i] > s_top ? scale[i] : s_top;
            o_top = offset[i] > o_top ? offset[i] : o_top;
        }
        memset(to, 0, 144);
        half_put(to, s_top / 63), half_put(to + 2, o_top / 63);
        const float d = f16_to_f32(f16_of_f32(s_top / 63)), m = f16_to_f32(f16_of_f32(o_top / 63));
        for (int i = 0; i < RUNS; i++) {
            int s = six_bits(scale[i], d), o = six_bits(offset[i], m);
            pair_round(from + RUN * i, d, m, &s, &o, q[i]);
            u8 *p = to + 4 + i % 4;
            if (i < 4)
                p[0] |= (u8)s, p[4] |= (u8)o;
            else
                p[8] = (u8)((s & 15) | (o & 15) << 4), p[0] |= (u8)(s >> 4 << 6),
                p[4] |= (u8)(o >> 4 << 6);
        }
        for (int i = 0; i < RUNS; i++)
            for (int j = 0; j < RUN; j++) to[16 + i / 2 * RUN + j] |= (u8)(q[i][j] << i % 2 * 4);
    }
}
