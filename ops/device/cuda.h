/* cuda.h: the vocabulary of the *_cuda.cu files: launches, faults, shared memory, tensor-core and
 * copy instructions, and the lane functions of the CPU kernels.
 *
 * A .cu file is compiled by nvcc, or by g++ with HONE_SHIM (tests/shim), where the threads of a
 * block are fibers on the CPU. So CUDA's own spelling is used where both can have it, and what g++
 * cannot have is a macro or a wrapper here:
 *   LAUNCH(e, kernel, grid, block, shared, arguments...)   0, or -1 with the error set
 *   SHARED(type, name, count);                             instead of __shared__ type name[count]
 *   DYNAMIC_SHARED(type, name);                            the `shared` bytes of the launch, once
 * Warp functions take all 32 lanes of a warp, so blocks are multiples of 32 threads. No atomics,
 * but for the fault word, which is no result. A template with a comma in its name goes to LAUNCH in
 * parentheses. */
#ifndef HONE_CUDA_H
#define HONE_CUDA_H

#ifdef HONE_SHIM
#include "tests/shim/shim.h"
#else
#include <cuda_runtime.h>
#endif

extern "C" {
#include "ops/device/device_int.h"
#include "ops/ops_int.h"
}

/* Definition of a launcher: CUDA_KERNEL(rmsnorm) { ... c ... e ... } */
#define CUDA_KERNEL(name) extern "C" int name##_cuda(const struct op_call *c, struct err *e)

extern cudaStream_t cuda_stream;
extern struct fault_word *cuda_fault_word; /* where kernels report; give it as an argument */
extern struct cuda_machine {               /* what launchers size grids by */
    int sms, major, minor;
    i64 shared_per_block; /* the most a block can have, opted in */
    int opening;          /* counts up: what was set for kernels is gone with the device */
} cuda_machine;
int cuda_error(cudaError_t code, const char *what, struct err *e); /* 0 or -1 */
/* Lets a kernel have all the dynamic shared memory that is left beside its static, once for each
 * opening of the device: *opted says in which. */
int cuda_opt_in(const void *kernel, int *opted, struct err *e);

#define LAUNCH(e, kernel, grid, block, shared, ...)                                                \
    ([&]() -> int {                                                                                \
        static int opted; /* in which opening of the device */                                     \
        const i64 launch_bytes = (i64)(shared);                                                    \
        if (launch_bytes > 0 && cuda_opt_in(KERNEL(kernel), &opted, (e))) return -1;               \
        return cuda_error(LAUNCH_NOW(kernel, (grid), (block), (size_t)launch_bytes, __VA_ARGS__),  \
                          #kernel, (e));                                                           \
    }())
#ifndef HONE_SHIM
/* clang-format off */
#define KERNEL(kernel) ((const void *)(kernel))
#define LAUNCH_NOW(kernel, grid, block, shared, ...)                                               \
    ((kernel)<<<grid, block, shared, cuda_stream>>>(__VA_ARGS__), cudaGetLastError())
/* clang-format on */
#define SHARED(type, name, count) __shared__ __align__(16) type name[count]
#define DYNAMIC_SHARED(type, name)                                                                 \
    extern __shared__ __align__(128) unsigned char shared_block[];                                 \
    type *name = reinterpret_cast<type *>(shared_block)
#define DEVICE static __device__ __forceinline__

/* The first to come keeps the word: of blocks that run at the same time each could leave a part. */
DEVICE void fault_set(struct fault_word *f, enum bad kind, i64 value, i64 at, i64 limit) {
    if (atomicCAS(&f->kind, BAD_NONE, kind) != BAD_NONE) return;
    f->value = (i32)value, f->at = at, f->limit = limit;
}

/* d += a·b on tensor cores: a 16x16 (row-major fragments), b 16x8, d 16x8 f32. PTX ISA,
 * mma.m16n8k16: lane = 4 * group + t holds a[0]: row group, k 2t..2t+1; a[1]: row group + 8; a[2],
 * a[3]: the same rows, k + 8; b[0]: k 2t..2t+1 of column group, b[1]: k + 8; d[0], d[1]: row group,
 * columns 2t, 2t+1; d[2], d[3]: row group + 8. */
DEVICE void mma_bf16(float d[4], const u32 a[4], const u32 b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEVICE float exp2f_approx(float x) { /* 2^x within 2 ulp; -inf gives 0 */
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE u32 pack_bf16(float low, float high) { /* rounded as put_bf16 */
    u32 y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}
/* Four 8x8 tiles of 2-byte elements from shared memory; lane l gives the address of row l % 8 of
 * tile l / 8 (16 bytes, aligned); r[i] holds of tile i row lane / 4, elements 2 * (lane % 4) and
 * the next; _trans: of the transposed tile. */
DEVICE void ldmatrix_x4(u32 r[4], const void *row) {
    const u32 at = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
DEVICE void ldmatrix_x4_trans(u32 r[4], const void *row) {
    const u32 at = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
/* 16 bytes from global to shared memory, arriving by the wait; zeros instead if not `valid`. */
DEVICE void copy_async16(void *shared, const void *global, bool valid) {
    const u32 to = (u32)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global),
                 "r"(valid ? 16 : 0)
                 : "memory");
}
DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* Until at most N of the groups that this thread committed are under way. */
template <int N> DEVICE void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
#endif

/* ---- numbers: one lane of base/v16.h, with the same bits (nvcc -ftz=true -fmad=false, IEEE
 * division and square root), and base/v16_math.h on it ---- */
typedef float v16;
typedef bool m16;
#define V16_FN DEVICE
V16_FN float v16_set(float x) { return x; }
V16_FN float v16_add(float a, float b) { return __fadd_rn(a, b); }
V16_FN float v16_sub(float a, float b) { return __fsub_rn(a, b); }
V16_FN float v16_mul(float a, float b) { return __fmul_rn(a, b); }
V16_FN float v16_div(float a, float b) { return __fdiv_rn(a, b); }
V16_FN float v16_fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
V16_FN float v16_sqrt(float a) { return __fsqrt_rn(a); }
V16_FN float v16_min(float a, float b) { return a < b ? a : b; }
V16_FN float v16_max(float a, float b) { return a > b ? a : b; }
V16_FN bool v16_lt(float a, float b) { return a < b; }
V16_FN float v16_select(bool m, float a, float b) { return m ? a : b; }
V16_FN u32 bits_of(float x) { return __float_as_uint(x); }
V16_FN float of_bits(u32 u) { return __uint_as_float(u); }
V16_FN float v16_abs(float a) { return of_bits(bits_of(a) & 0x7fffffffu); }
V16_FN float v16_copysign(float a, float sign) {
    return of_bits((bits_of(a) & 0x7fffffffu) | (bits_of(sign) & 0x80000000u));
}
V16_FN float v16_round(float a) { return rintf(a); }
V16_FN float v16_scale2(float a, float n) { return of_bits(bits_of(a) + ((u32)(i32)n << 23)); }
V16_FN float v16_split2(float a, float *n) {
    const i32 bits = (i32)(bits_of(a) - 0x3f3504f3u), exponent = bits >> 23;
    *n = (float)exponent;
    return of_bits(bits_of(a) - ((u32)exponent << 23));
}
#define V16_SQRT v16_sqrt
#define V16_FMA  v16_fma
#include "base/v16_math.h"

V16_FN float get_bf16(u16 h) { return of_bits((u32)h << 16); }
V16_FN u16 put_bf16(float x) { /* bf16_of_f32 */
    const u32 u = bits_of(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (u16)(u >> 16 | 0x40);
    return (u16)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
#ifdef HONE_SHIM
V16_FN u32 pack_bf16(float low, float high) { return put_bf16(low) | (u32)put_bf16(high) << 16; }
#endif
V16_FN float get1(const void *p, i64 i, bool is_bf16) {
    return is_bf16 ? get_bf16(((const u16 *)p)[i]) : ((const float *)p)[i];
}
V16_FN void put1(void *p, i64 i, float x, bool is_bf16) {
    if (is_bf16)
        ((u16 *)p)[i] = put_bf16(x);
    else
        ((float *)p)[i] = x;
}
/* NUMERICS.md 7: the sum of 16 lanes that lie in 16 neighbouring threads, 8, 4, 2, 1. Every thread
 * gets it. */
V16_FN float lanes_sum(float x) {
    for (int step = 8; step; step >>= 1) x = v16_add(x, __shfl_xor_sync(0xffffffffu, x, step, 16));
    return x;
}
/* The same with lane l in r[l] of one thread. */
V16_FN float lanes_sum16(const float r[16]) {
    float a[8];
#pragma unroll
    for (int i = 0; i < 8; i++) a[i] = v16_add(r[i], r[i + 8]);
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = v16_add(a[i], a[i + 4]);
    return v16_add(v16_add(a[0], a[2]), v16_add(a[1], a[3]));
}

#endif
