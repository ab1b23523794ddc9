/* peak_cpu.c: the most fused multiply-adds that this machine can do on registers, for `hone bench`
 * to relate everything to.
 *
 * The loops are assembly, so that what runs is what is counted (tests/unit/ops/test_peak.c counts
 * it). A loop in C was not: registers that held equal values were one register to the compiler, and
 * the AVX2 loop did half of what it was counted for. Each instruction has a sum of its own, and
 * there are enough sums to hide the latency. */
#include "base/v16.h"
#include "ops/peak.h"

/* `rounds` times, 1 or more: `instruction` on each of the registers `sums`, which are named by
 * `kind` and a number. Register `x`, and at first all of them, hold `value` in each lane. */
#define LOOP(instruction, kind, sums, x, rounds, value)                                            \
    __asm__ volatile(                                                                              \
        ".irp n," sums "," x "\n"                                                                  \
        "vbroadcastss %1, %%" kind "\\n\n"                                                         \
        ".endr\n"                                                                                  \
        "1:\n"                                                                                     \
        ".irp n," sums "\n" instruction " %%" kind x ", %%" kind x ", %%" kind "\\n\n"             \
        ".endr\n"                                                                                  \
        "sub $1, %0\n"                                                                             \
        "jnz 1b\n"                                                                                 \
        "vzeroupper\n"                                                                             \
        : "+r"(rounds)                                                                             \
        : "m"(value)                                                                               \
        : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",    \
          "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm" x)

#if defined(ISA_IS_avx512) || defined(ISA_IS_avx512bf16)
enum { SUMS = 16 };
#define SUMS_512 "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"

static void spin(i64 rounds) {
    const float half = 0.5f;
    LOOP("vfmadd132ps", "zmm", SUMS_512, "16", rounds, half);
}
#ifdef ISA_IS_avx512bf16
static void spin_pair(i64 rounds) {
    const u32 halves = 0x3f003f00u; /* two of bf16 */
    LOOP("vdpbf16ps", "zmm", SUMS_512, "16", rounds, halves);
}
#endif

#elif defined(ISA_IS_avx2)
enum { SUMS = 6 }; /* of 16 lanes, in two registers each */
static void spin(i64 rounds) {
    const float half = 0.5f;
    LOOP("vfmadd132ps", "ymm", "0,1,2,3,4,5,6,7,8,9,10,11", "12", rounds, half);
}

#else
/* Plain C has no such instruction: v16_fma is counted, which all its kernels use. The compiler must
 * take the values for new ones in each round. */
enum { SUMS = 6 };
static void spin(i64 rounds) {
    v16 sum[SUMS], x[SUMS];
    for (int i = 0; i < SUMS; i++) sum[i] = x[i] = v16_set(0.5f);
    for (i64 r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+m"(sum), "+m"(x));
        for (int i = 0; i < SUMS; i++) sum[i] = v16_fma(sum[i], x[i], x[i]);
    }
    __asm__ volatile("" : "+m"(sum));
}
#endif

/* Floating-point operations of `rounds` rounds, 1 or more, on one thread. */
double CPU_NAME(peak_spin)(i64 rounds, bool pair) {
#ifdef ISA_IS_avx512bf16
    if (pair) {
        spin_pair(rounds);
        return (double)rounds * SUMS * 16 * 4;
    }
#else
    (void)pair; /* bf16 runs as f32 there (gemm_int.h) */
#endif
    spin(rounds);
    return (double)rounds * SUMS * 16 * 2;
}
