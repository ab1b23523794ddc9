/* blocks.c: f32 to the blocks of few bits that GGUF files have; what their bytes mean is in
 * checkpoints/gguf_blocks.c (decoded to f32) and in ops/packing_NAME.h.
 *
 * Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1 have one reference, and these bytes equal it. The K types leave
 * the choice of scales to the writer. Q4_K and Q5_K: each run of 32 takes the line x = s q - o with
 * the least squared error among a fixed set of starts, each refined by least squares until its
 * codes stand still; then the eight pairs are rounded to 6 bits under the block's two f16 scales,
 * and each pair tries its neighbours for the least error that is really left. Q6_K: each run of 16
 * takes the line x = s (q - 32) found alike, the block's f16 scale is the largest of them / -128,
 * and each run tries the neighbours of its rounded scale. Everything is f32 in a fixed order, so
 * equal weights give equal files on every machine. Rejected: the reference's weighting by
 * magnitude, which trades the plain error for an assumption about activations; an importance
 * matrix, which needs a text. `tests/unit/checkpoints/test_gguf.c` holds the error against the
 * reference's. */
#include "base/quant.h"

#include <string.h>

static void half_put(u8 *p, float x) {
    const u16 h = f16_of_f32(x);
    p[0] = (u8)h, p[1] = (u8)(h >> 8);
}

static float magnitude(float x) { return x < 0 ? -x : x; }

/* The largest magnitude becomes 127; halves round away from zero. */
void blocks_q8_0(const float *from, i64 n, u8 *to) {
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

/* x as one of the codes from 0 to `top`, where 0.5 was added. */
static int code_at(float x, int top) { return x >= (float)top ? top : x >= 1 ? (int)x : 0; }

/* 32 codes in their low 4 bits, the fifth bits behind each other in `high`. */
static u32 nibbles_put(const int q[32], u8 *low) {
    u32 high = 0;
    for (int j = 0; j < 16; j++) low[j] = (u8)((q[j] & 15) | (q[j + 16] & 15) << 4);
    for (int j = 0; j < 32; j++) high |= (u32)(q[j] >> 4) << j;
    return high;
}
static void high_put(u8 *p, u32 high) {
    for (int i = 0; i < 4; i++) p[i] = (u8)(high >> 8 * i);
}

/* The value of the largest magnitude, the first of equals, becomes -`zero`, which is 0 in codes. */
static void signed_codes(const float *x, int zero, float *scale, int q[32]) {
    float top = 0;
    for (int j = 0; j < 32; j++)
        if (magnitude(x[j]) > magnitude(top)) top = x[j];
    const float d = top / (float)-zero, inverse = d != 0 ? 1 / d : 0;
    *scale = d;
    for (int j = 0; j < 32; j++)
        q[j] = code_at(x[j] * inverse + ((float)zero + 0.5f), 2 * zero - 1);
}
void blocks_q4_0(const float *from, i64 n, u8 *to) {
    for (; n--; from += 32, to += 18) {
        int q[32];
        float d;
        signed_codes(from, 8, &d, q);
        half_put(to, d), nibbles_put(q, to + 2);
    }
}
void blocks_q5_0(const float *from, i64 n, u8 *to) {
    for (; n--; from += 32, to += 22) {
        int q[32];
        float d;
        signed_codes(from, 16, &d, q);
        half_put(to, d), high_put(to + 2, nibbles_put(q, to + 6));
    }
}

/* The smallest value becomes code 0, the largest `top`. */
static void ranged_codes(const float *x, int top, u8 *halves, int q[32]) {
    float low = x[0], high = x[0];
    for (int j = 1; j < 32; j++) low = x[j] < low ? x[j] : low, high = x[j] > high ? x[j] : high;
    const float d = (high - low) / (float)top, inverse = d != 0 ? 1 / d : 0;
    half_put(halves, d), half_put(halves + 2, low);
    for (int j = 0; j < 32; j++) q[j] = code_at((x[j] - low) * inverse + 0.5f, top);
}
void blocks_q4_1(const float *from, i64 n, u8 *to) {
    for (; n--; from += 32, to += 20) {
        int q[32];
        ranged_codes(from, 15, to, q), nibbles_put(q, to + 4);
    }
}
void blocks_q5_1(const float *from, i64 n, u8 *to) {
    for (; n--; from += 32, to += 24) {
        int q[32];
        ranged_codes(from, 31, to, q), high_put(to + 4, nibbles_put(q, to + 8));
    }
}

/* ---- Q4_K, Q5_K */
enum { RUN = 32, RUNS = 8, STARTS = 24, REFINE = 4 };

/* The nearest codes, to `top`, of x on the line s q - o, and the squared error. s 0: codes 0. */
static float codes_of(const float *x, float s, float o, int top, u8 *q) {
    const float inverse = s > 0 ? 1 / s : 0;
    float error = 0;
    for (int j = 0; j < RUN; j++) {
        const int code = code_at((x[j] + o) * inverse + 0.5f, top);
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

static void run_search(const float *x, int top, float *scale, float *offset) {
    float low = 0, high = x[0]; /* the line passes through or below zero */
    for (int j = 0; j < RUN; j++) {
        low = x[j] < low ? x[j] : low;
        high = x[j] > high ? x[j] : high;
    }
    *offset = -low, *scale = 0;
    if (!(high > low)) return;
    u8 q[RUN];
    float best = codes_of(x, (high - low) / (float)top, -low, top, q);
    *scale = (high - low) / (float)top;
    for (int i = 0; i < STARTS; i++) {
        float s = (high - low) / ((float)top - 1.5f + 0.2f * (float)i), o = -low;
        codes_of(x, s, o, top, q);
        for (int k = 0; k < REFINE && line_fit(x, q, &s, &o); k++) {
            const float error = codes_of(x, s, o, top, q);
            if (error < best) best = error, *scale = s, *offset = o;
        }
    }
}

static int six_bits(float x, float unit) {
    const float n = x / unit; /* NaN of infinite ones: 0 */
    return !(unit > 0 && n > 0) ? 0 : n >= 63 ? 63 : (int)(n + 0.5f);
}

/* Rounds a pair to 6 bits under d and m, trying neighbours; leaves the codes of the best. */
static void pair_round(const float *x, float d, float m, int top, int *s, int *o, u8 *q) {
    const int s0 = *s, o0 = *o;
    u8 trial[RUN];
    float best = codes_of(x, d * (float)s0, m * (float)o0, top, q);
    for (int i = s0 - 2; i <= s0 + 2; i++)
        for (int k = o0 - 2; k <= o0 + 2; k++) {
            if (i < 0 || i > 63 || k < 0 || k > 63 || (i == s0 && k == o0)) continue;
            const float error = codes_of(x, d * (float)i, m * (float)k, top, trial);
            if (error < best) best = error, *s = i, *o = k, memcpy(q, trial, RUN);
        }
}

/* Scales, offsets and codes of a block: its first 16 bytes. */
static void k_block(const float *from, int top, u8 *to, u8 q[RUNS][RUN]) {
    float scale[RUNS], offset[RUNS], s_top = 0, o_top = 0;
    for (int i = 0; i < RUNS; i++) {
        run_search(from + RUN * i, top, &scale[i], &offset[i]);
        s_top = scale[i] > s_top ? scale[i] : s_top;
        o_top = offset[i] > o_top ? offset[i] : o_top;
    }
    half_put(to, s_top / 63), half_put(to + 2, o_top / 63);
    const float d = f16_to_f32(f16_of_f32(s_top / 63)), m = f16_to_f32(f16_of_f32(o_top / 63));
    for (int i = 0; i < RUNS; i++) {
        int s = six_bits(scale[i], d), o = six_bits(offset[i], m);
        pair_round(from + RUN * i, d, m, top, &s, &o, q[i]);
        u8 *p = to + 4 + i % 4;
        if (i < 4)
            p[0] |= (u8)s, p[4] |= (u8)o;
        else
            p[8] = (u8)((s & 15) | (o & 15) << 4), p[0] |= (u8)(s >> 4 << 6),
            p[4] |= (u8)(o >> 4 << 6);
    }
}
void blocks_q4_k(const float *from, i64 n, u8 *to) {
    for (; n--; from += 256, to += 144) {
        u8 q[RUNS][RUN];
        memset(to, 0, 144);
        k_block(from, 15, to, q);
        for (int i = 0; i < RUNS; i++)
            for (int j = 0; j < RUN; j++) to[16 + i / 2 * RUN + j] |= (u8)(q[i][j] << i % 2 * 4);
    }
}
void blocks_q5_k(const float *from, i64 n, u8 *to) {
    for (; n--; from += 256, to += 176) {
        u8 q[RUNS][RUN];
        memset(to, 0, 176);
        k_block(from, 31, to, q);
        for (int i = 0; i < RUNS; i++)
            for (int j = 0; j < RUN; j++) {
                to[16 + j] |= (u8)(q[i][j] >> 4 << i);
                to[48 + i / 2 * RUN + j] |= (u8)((q[i][j] & 15) << i % 2 * 4);
            }
    }
}

/* ---- Q6_K */
enum { SHORT = 16, SHORTS = 16 };

/* The nearest codes of x on the line s (q - 32), and the squared error; the least-squares s. */
static float line_of(const float *x, float s, u8 *q, float *fit) {
    const float inverse = s != 0 ? 1 / s : 0;
    float error = 0, sxc = 0, scc = 0;
    for (int j = 0; j < SHORT; j++) {
        const float c = (float)(code_at(x[j] * inverse + 32.5f, 63) - 32), off = s * c - x[j];
        q[j] = (u8)(c + 32), error += off * off, sxc += x[j] * c, scc += c * c;
    }
    *fit = scc > 0 ? sxc / scc : 0;
    return error;
}
static float short_search(const float *x) {
    float top = 0, best = 0, fit;
    for (int j = 0; j < SHORT; j++)
        if (magnitude(x[j]) > magnitude(top)) top = x[j];
    u8 q[SHORT];
    float least = line_of(x, 0, q, &fit);
    for (int i = 0; i < STARTS; i++) {
        float s = top / -(30.5f + 0.15f * (float)i);
        for (int k = 0; k < REFINE; k++, s = fit) {
            const float error = line_of(x, s, q, &fit);
            if (error < least) least = error, best = s;
        }
    }
    return best;
}
void blocks_q6_k(const float *from, i64 n, u8 *to) {
    for (; n--; from += 256, to += 210) {
        float scale[SHORTS], top = 0, fit;
        for (int i = 0; i < SHORTS; i++) {
            scale[i] = short_search(from + SHORT * i);
            if (magnitude(scale[i]) > magnitude(top)) top = scale[i];
        }
        memset(to, 0, 210);
        half_put(to + 208, top / -128);
        const float d = f16_to_f32(f16_of_f32(top / -128));
        for (int i = 0; i < SHORTS; i++) {
            const float at = d != 0 ? scale[i] / d : 0;
            const int near = at > 126 ? 126 : at > -128 ? (int)at : -128; /* NaN too */
            u8 q[SHORT], trial[SHORT];
            int s = 0;
            float least = line_of(from + SHORT * i, 0, q, &fit);
            for (int k = near - 2; k <= near + 2; k++) {
                if (k < -128 || k > 127) continue;
                const float error = line_of(from + SHORT * i, d * (float)k, trial, &fit);
                if (error < least) least = error, s = k, memcpy(q, trial, SHORT);
            }
            to[192 + i] = (u8)s;
            const int half = i / 8, run = i / 2 % 4, first = i % 2 * SHORT;
            for (int j = 0; j < SHORT; j++) {
                to[half * 64 + run % 2 * 32 + first + j] |= (u8)((q[j] & 15) << run / 2 * 4);
                to[128 + half * 32 + first + j] |= (u8)(q[j] >> 4 << 2 * run);
            }
        }
    }
}
