/* shim.h: CUDA on the CPU, for tests: ops/device/cuda.h includes it in place of cuda_runtime.h when
 * a .cu file is compiled by g++ with HONE_SHIM.
 *
 * The threads of a block are fibers of one thread, in an order drawn anew for each block; blocks
 * run one after the other. Shared memory is poisoned before each block. Every access that a kernel
 * makes is seen: the .cu files are compiled with -fsanitize=thread, and check.cc defines the
 * functions which that makes the compiler call (no sanitizer is linked). With shim_check on, it
 * reports accesses outside of device memory or of the launch's shared memory, reads of what nobody
 * wrote, and races: two threads that touch the same bytes, one writing, neither ordered before the
 * other by a barrier or __syncwarp (check.cc). Stores are seen at once or, with shim_late, as late
 * as CUDA allows (stores.cc), so that what is not ordered is a wrong bit too. Between its start and
 * its wait an asynchronous copy holds its place: whoever looks finds poison. Not faithful: the
 * order of sums inside a tensor-core instruction, loads and stores that move up, speed. */
#ifndef HONE_SHIM_H
#define HONE_SHIM_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <typeinfo>

extern "C" {
#include "base/base.h"
}

/* ---- language ---- */
#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __grid_constant__
#define DEVICE static inline
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct shim_thread { /* what the running fiber sees */
    dim3 thread, block, block_dim, grid_dim;
};
extern struct shim_thread shim_now;
#define threadIdx (shim_now.thread)
#define blockIdx  (shim_now.block)
#define blockDim  (shim_now.block_dim)
#define gridDim   (shim_now.grid_dim)
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }

/* ---- launches and shared memory ---- */
int shim_launch(const void *kernel, dim3 grid, dim3 block, size_t shared, const char *what,
                std::function<void()> body);
void *
shim_shared(size_t bytes); /* the next piece of static shared memory: the same for every thread */
void shim_enter();         /* the thread has its arguments: from here on accesses are checked */
void *shim_dynamic();      /* the launch's dynamic shared memory */
/* Kernels are known by file and name (launch.cc), so that the shim has what nvcc made of them. */
const void *shim_kernel_seen(const void *address, const char *file, const char *tag);
template <auto Kernel> struct shim_tag {};
template <auto Kernel> const void *shim_kernel(const char *file) {
    return shim_kernel_seen((const void *)Kernel, file, typeid(shim_tag<Kernel>).name());
}
#define KERNEL(kernel) shim_kernel<(kernel)>(__FILE__)
#define LAUNCH_NOW(kernel, grid, block, shared, ...)                                               \
    ((cudaError_t)shim_launch(                                                                     \
        KERNEL(kernel), (grid), (block), (size_t)(shared), #kernel,                                \
        shim_bind([](auto... a) { shim_enter(), (kernel)(a...); }, __VA_ARGS__)))
template <class F, class... A> std::function<void()> shim_bind(F f, A... a) {
    return [=] { f(a...); };
}
#define SHARED(type, name, count)  type *const name = (type *)shim_shared(sizeof(type) * (count))
#define DYNAMIC_SHARED(type, name) type *const name = (type *)shim_dynamic()

/* ---- threads of a block, lanes of a warp ---- */
void shim_barrier(int predicate, int *count); /* all threads of the block; how many were true */
static inline void __syncthreads() { shim_barrier(0, NULL); }
static inline int __syncthreads_count(int p) {
    int n;
    return shim_barrier(p != 0, &n), n;
}
static inline int __syncthreads_or(int p) { return __syncthreads_count(p) != 0; }
static inline int __syncthreads_and(int p) { return __syncthreads_count(p == 0) == 0; }
/* All 32 lanes give `bytes` (at most 64) each and get all of them: [32][64] bytes, valid until the
 * next call. */
const unsigned char *shim_warp(unsigned mask, const void *mine, size_t bytes);
int shim_lane();
void shim_unseen(void *to, const void *from,
                 size_t bytes);               /* a copy that is not checked: of the shim's own */
void __syncwarp(unsigned mask = 0xffffffffu); /* alone orders memory */
template <class T> T shim_from(unsigned mask, T mine, int lane) {
    T got;
    shim_unseen(&got, shim_warp(mask, &mine, sizeof mine) + 64 * lane, sizeof got);
    return got;
}
template <class T> T __shfl_sync(unsigned mask, T v, int lane, int width = 32) {
    return shim_from(mask, v, shim_lane() / width * width + lane % width);
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int with, int width = 32) {
    const int to = shim_lane() ^ with;
    return shim_from(mask, v, to / width == shim_lane() / width ? to : shim_lane());
}
template <class T> T __shfl_down_sync(unsigned mask, T v, int by, int width = 32) {
    return shim_from(mask, v, shim_lane() % width + by < width ? shim_lane() + by : shim_lane());
}
template <class T> T __shfl_up_sync(unsigned mask, T v, int by, int width = 32) {
    return shim_from(mask, v, shim_lane() % width >= by ? shim_lane() - by : shim_lane());
}
static inline unsigned __ballot_sync(unsigned mask, int p) {
    const char mine = p != 0;
    unsigned char all[32 * 64];
    shim_unseen(all, shim_warp(mask, &mine, 1), sizeof all);
    unsigned bits = 0;
    for (int l = 0; l < 32; l++) bits |= (unsigned)all[64 * l] << l;
    return bits;
}
static inline int __any_sync(unsigned mask, int p) { return __ballot_sync(mask, p) != 0; }
static inline int __all_sync(unsigned mask, int p) { return __ballot_sync(mask, p) == 0xffffffffu; }
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline void __threadfence() {}

/* ---- numbers ---- */
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline float __fsqrt_rn(float a) { return __builtin_sqrtf(a); }
static inline unsigned __float_as_uint(float x) {
    unsigned u;
    return memcpy(&u, &x, 4), u;
}
static inline float __uint_as_float(unsigned u) {
    float x;
    return memcpy(&x, &u, 4), x;
}
static inline int __float2int_rn(float x) { return (int)__builtin_rintf(x); }
static inline float exp2f_approx(float x) { return exp2f(x); } /* ex2.approx, within its error */
static inline float __fdividef(float a, float b) { return a / b; }
template <class T> T __ldg(const T *p) { return *p; }

/* ---- instructions of ops/device/cuda.h ---- */
struct fault_word;
void shim_fault(struct fault_word *f, int kind, int64_t value, int64_t at, int64_t limit);
#define fault_set(f, kind, value, at, limit) shim_fault(f, kind, value, at, limit)
void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]);
void ldmatrix_x4(uint32_t r[4], const void *row);
void ldmatrix_x4_trans(uint32_t r[4], const void *row);
void copy_async16(void *shared, const void *global, bool valid);
void copy_async_commit();
void shim_copy_wait(int left);
template <int N> void copy_async_wait() { shim_copy_wait(N); }

/* ---- the runtime functions that device_cuda.cu calls ---- */
enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInvalidDeviceFunction = 98,
    cudaErrorNoDevice = 100,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorUnsupportedPtxVersion = 222,
    cudaErrorLaunchOutOfResources = 701,
    cudaErrorLaunchTimeout = 702,
    cudaErrorLaunchFailure = 719
};
enum { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum { cudaStreamNonBlocking = 1, cudaHostAllocMapped = 2, cudaStreamCaptureModeThreadLocal = 1 };
enum { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
typedef struct shim_stream *cudaStream_t;
typedef struct shim_graph *cudaGraph_t, *cudaGraphExec_t;
typedef struct shim_event *cudaEvent_t;
struct cudaDeviceProp {
    char name[64];
    int major, minor, multiProcessorCount;
    size_t totalGlobalMem, sharedMemPerBlockOptin;
};
struct cudaFuncAttributes {
    size_t sharedSizeBytes;
    int maxDynamicSharedSizeBytes;
};
cudaError_t cudaRuntimeGetVersion(int *), cudaDriverGetVersion(int *), cudaGetDeviceCount(int *);
cudaError_t cudaGetDevice(int *), cudaSetDevice(int), cudaGetLastError();
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *, int);
cudaError_t cudaMemGetInfo(size_t *, size_t *), cudaMalloc(void **, size_t), cudaFree(void *);
cudaError_t cudaMallocHost(void **, size_t), cudaHostAlloc(void **, size_t, unsigned);
cudaError_t cudaFreeHost(void *), cudaMemcpyAsync(void *, const void *, size_t, int, cudaStream_t);
cudaError_t cudaMemsetAsync(void *, int, size_t, cudaStream_t);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *, unsigned), cudaStreamDestroy(cudaStream_t);
cudaError_t cudaStreamSynchronize(cudaStream_t), cudaStreamBeginCapture(cudaStream_t, int);
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *), cudaGraphDestroy(cudaGraph_t);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *, cudaGraph_t, unsigned);
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t), cudaGraphExecDestroy(cudaGraphExec_t);
cudaError_t cudaFuncSetAttribute(const void *, int, int);
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *, const void *);
const char *cudaGetErrorString(cudaError_t), *cudaGetErrorName(cudaError_t);

/* ---- for tests: environment variables, so that they reach a program too ----
 *   HONE_SHIM_SEED=N           the order of threads
 *   HONE_SHIM_FAULT=KIND[:N]   no-driver, old-driver[:12040], no-device, old-gpu, no-code, old-ptx,
 *                              memory:KIB, launch:N, kernel:N, timeout:N
 *   HONE_SHIM_DRY=1            launches are checked, nothing runs (launch.cc)
 *   HONE_KERNELS=FILE          in the place of tests/shim/kernels.tsv */
#endif
