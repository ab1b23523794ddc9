/* transpose16.h: 16 vectors of 16 lanes change places with their lanes, in registers; bits are only
 * moved. Included by *_cpu.c files. */
#ifndef HONE_TRANSPOSE16_H
#define HONE_TRANSPOSE16_H

#include "base/v16.h"

#if defined(ISA_IS_avx512) || defined(ISA_IS_avx512bf16)
V16_FN void transpose16(v16 r[16]) {
    v16 t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) { /* r[4b + i]: columns i, i+4, i+8, i+12 of rows 4b .. 4b+3 */
        const v16 even01 = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88),
                  odd01 = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd),
                  even23 = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88),
                  odd23 = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
        t[i] = _mm512_shuffle_f32x4(even01, even23, 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(odd01, odd23, 0x88);
        t[i + 8] = _mm512_shuffle_f32x4(even01, even23, 0xdd);
        t[i + 12] = _mm512_shuffle_f32x4(odd01, odd23, 0xdd);
    }
    for (int i = 0; i < 16; i++) r[i] = t[i];
}
#elif defined(ISA_IS_avx2)
V16_FN void transpose8(__m256 r[8]) {
    __m256 t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    }
    for (int i = 0; i < 8; i++) r[i] = t[i];
}
V16_FN void transpose16(v16 r[16]) { /* as 2 x 2 blocks of 8 x 8 */
    __m256 q[2][2][8];
    for (int a = 0; a < 2; a++)
        for (int b = 0; b < 2; b++) {
            for (int i = 0; i < 8; i++) q[a][b][i] = b ? r[8 * a + i].h : r[8 * a + i].l;
            transpose8(q[a][b]);
        }
    for (int b = 0; b < 2; b++)
        for (int i = 0; i < 8; i++) r[8 * b + i] = (v16){q[0][b][i], q[1][b][i]};
}
#else
V16_FN void transpose16(v16 r[16]) {
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < i; j++) {
            const float x = r[i].f[j];
            r[i].f[j] = r[j].f[i], r[j].f[i] = x;
        }
}
#endif

#endif
