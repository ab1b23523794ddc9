/* peak_cpu.c: what this machine can do at most, for `hone bench` to relate everything to: fused
 * multiply-adds on registers alone, and copying of memory larger than the caches. */
#include "base/v16.h"
#include "ops/peak.h"

#include <string.h>

/* Enough independent sums to hide the latency: 16 with 512-bit registers, 12 registers of 256. */
#if defined(ISA_IS_avx512) || defined(ISA_IS_avx512bf16)
enum { SUMS = 16 };
#else
enum { SUMS = 6 };
#endif
#define FORGET(x) __asm__ volatile("" : "+m"(x)) /* the compiler must not know the value */

V16_FN void spin(i64 rounds, const bool pair) {
    v16 sum[SUMS];
    float start = 0.5f, total[16];
    u32 bits = 0x3f003f00u;
    FORGET(start);
    FORGET(bits);
    const v16 a = v16_set(start);
    const v16h ah = v16h_set(bits);
#pragma GCC unroll 16
    for (int i = 0; i < SUMS; i++) sum[i] = v16_set(start + (float)i);
    for (i64 r = 0; r < rounds; r++) {
#pragma GCC unroll 16
        for (int i = 0; i < SUMS; i++)
            sum[i] = pair ? v16_dot(ah, ah, sum[i]) : v16_fma(sum[i], a, a);
    }
    v16 all = sum[0];
#pragma GCC unroll 16
    for (int i = 1; i < SUMS; i++) all = v16_add(all, sum[i]);
    v16_store(total, all);
    FORGET(total[0]);
}

/* Floating-point operations of `rounds` rounds on one thread. */
double CPU_NAME(peak_spin)(i64 rounds, bool pair) {
#ifndef ISA_IS_avx512bf16
    pair = false; /* bf16 runs as f32 there (gemm_int.h) */
#endif
    if (pair)
        spin(rounds, true);
    else
        spin(rounds, false);
    return (double)rounds * SUMS * 16 * (pair ? 4 : 2);
}
