/* isa.c: which instruction set the kernels use, and the floating-point mode of every thread.
 *
 * Every instruction set gives the same bits (NUMERICS.md), so forcing a lesser one changes speed
 * only. The compiler's builtin also asks the operating system (xgetbv) whether it keeps the wide
 * registers. */
#include "base/base.h"
#include <immintrin.h>
#include <stdatomic.h>
#include <string.h>

const char *const isa_name[ISA_COUNT] = {
#define X(name) #name,
    ISA_LIST(X)
#undef X
};

enum isa isa_best(void) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return ISA_plain;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return ISA_avx2;
    const bool both = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
    return both ? ISA_avx512bf16 : ISA_avx512; /* all that have the one have the other */
}

static atomic_int now = -1;

enum isa isa_now(void) {
    int isa = atomic_load_explicit(&now, memory_order_relaxed);
    if (isa < 0) atomic_store(&now, isa = (int)isa_best());
    return (enum isa)isa;
}

int isa_force(const char *name, struct err *e) {
    int isa = 0;
    while (isa < ISA_COUNT && strcmp(name, isa_name[isa])) isa++;
    if (isa == ISA_COUNT) {
        err_input(e, "'%s' is not an instruction set", name);
        return err_detail(e, "known are plain, avx2, avx512, avx512bf16");
    }
    if (isa > (int)isa_best()) {
        err_input(e, "this machine has no %s", name);
        return err_hint(e, "the best it has is %s", isa_name[isa_best()]);
    }
    atomic_store(&now, isa);
    return 0;
}

/* MXCSR: all exceptions masked (0x1f80), flush to zero (0x8000), denormals are zero (0x40),
 * nearest. */
void isa_float_mode(void) { _mm_setcsr(0x1f80 | 0x8000 | 0x40); }
