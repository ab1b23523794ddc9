/* runtime.cc: the CUDA runtime functions that ops/device/device_cuda.cu calls, on the CPU. Device
 * memory lies in pages that the host cannot touch unless a kernel or copy runs, so code that takes
 * a device pointer for its own dies at once. Work goes to the stream, which runs it at once, or
 * records it while a graph is captured. Faults (HONE_SHIM_FAULT) stand for machines without driver,
 * device or memory, and for kernels that die. */
#include "tests/shim/shim_int.h"

#include <cstdlib>
#include <string>
#include <sys/mman.h>
#include <vector>
#include <xmmintrin.h>

namespace {
typedef std::vector<std::function<void()>> work;
constexpr size_t ARENA = (size_t)64 << 30, GUARD = 4096, DRY = (size_t)32 << 40;
unsigned char *space;
size_t space_used, in_use;
struct allocation {
    unsigned char *p;
    size_t bytes;
};
std::vector<allocation> live, spare;
int depth;
cudaError_t sticky, pending;
work *captured;
std::string fault_kind;
long fault_at, launches, kernels;
bool fault_read;

void fault_get() {
    if (!fault_read) shim_fault_arm(getenv("HONE_SHIM_FAULT"));
}
size_t memory_total() {
    fault_get();
    return fault_kind == "memory" ? (size_t)fault_at << 10 : shim_dry ? DRY : (size_t)8 << 30;
}
} // namespace
struct shim_graph {
    work all;
};

extern "C" void shim_fault_arm(const char *spec) {
    const char *colon = spec ? strchr(spec, ':') : NULL;
    fault_kind = !spec ? "" : colon ? std::string(spec, colon) : spec;
    fault_at = colon ? atol(colon + 1) : 1;
    launches = kernels = 0, sticky = pending = cudaSuccess, fault_read = true;
}

bool shim_fault(const char *kind) {
    fault_get();
    return fault_kind == kind;
}

static void
pages(int protection) { /* all at once: a call for each allocation took most of the time */
    if (space) mprotect(space, space_used, protection);
}
void shim_open(void) {
    if (!depth++) pages(PROT_READ | PROT_WRITE);
}
void shim_shut(void) {
    if (!--depth) pages(PROT_NONE);
}

void *shim_region(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    shim_track(p, bytes);
    return p;
}
void shim_forget(void *p, long long bytes) {
    shim_open();
    shim_poison(p, (size_t)bytes);
    shim_shut();
}

static void run(const std::function<void()> &f) {
    fault_get();
    if (sticky) return;
    kernels++;
    if ((fault_kind == "kernel" || fault_kind == "timeout") && kernels == fault_at) {
        sticky = fault_kind == "kernel" ? cudaErrorLaunchFailure : cudaErrorLaunchTimeout;
        return;
    }
    const unsigned mode = _mm_getcsr();
    _mm_setcsr((mode & ~0x6000u) | 0x8040); /* as NUMERICS.md 1 */
    shim_open();
    f();
    shim_shut();
    _mm_setcsr(mode);
}
int shim_queue(std::function<void()> w) {
    fault_get();
    if (fault_kind == "launch" && ++launches == fault_at) return pending = cudaErrorInvalidValue;
    if (shim_dry)
        kernels++;
    else if (captured)
        captured->push_back(w);
    else
        run(w);
    return cudaSuccess;
}
static cudaError_t copying(std::function<void()> w) { /* not counted as kernels */
    if (sticky || shim_dry) return sticky;
    if (captured) return captured->push_back(w), cudaSuccess;
    shim_open();
    w();
    return shim_shut(), cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *v) { return *v = 13000, cudaSuccess; }
cudaError_t cudaDriverGetVersion(int *v) {
    fault_get();
    return *v = fault_kind == "no-driver"    ? 0
                : fault_kind == "old-driver" ? (int)(fault_at > 1 ? fault_at : 12040)
                                             : 13000,
           cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int *n) {
    fault_get();
    return *n = fault_kind != "no-device", *n ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaGetDevice(int *n) { return *n = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetLastError() {
    const cudaError_t code = sticky ? sticky : pending;
    return pending = cudaSuccess, code;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int) {
    *p = {};
    snprintf(p->name, sizeof p->name, "the CPU, as a GPU");
    shim_gpu_describe(p);
    if (fault_kind == "old-gpu") p->major = 7;
    p->totalGlobalMem = memory_total();
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *left, size_t *total) {
    return *total = memory_total(), *left = *total - in_use, cudaSuccess;
}
/* Addresses without bytes: whoever touches them dies. */
static cudaError_t dry_malloc(void **p, size_t bytes) {
    static unsigned char *dry;
    static size_t used;
    if (!dry)
        dry = (unsigned char *)mmap(NULL, DRY, PROT_NONE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (used + bytes + 256 > DRY) used = 0; /* none of the first is still in use */
    *p = dry + used, used += (bytes + 511) / 256 * 256;
    return cudaSuccess;
}
cudaError_t cudaMalloc(void **p, size_t bytes) {
    if (sticky) return sticky;
    if (shim_dry) return dry_malloc(p, bytes);
    if (in_use + bytes > memory_total()) return pending = cudaErrorMemoryAllocation;
    const size_t room = (bytes + GUARD - 1) / GUARD * GUARD;
    if (!space)
        space = (unsigned char *)mmap(NULL, ARENA, PROT_NONE,
                                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (space_used + room + GUARD > ARENA) return pending = cudaErrorMemoryAllocation;
    allocation a = {space + space_used,
                    bytes}; /* addresses are never used again: a stale one dies */
    space_used += room + GUARD, in_use += bytes;
    live.push_back(a);
    if (depth) mprotect(a.p, room, PROT_READ | PROT_WRITE);
    shim_track(a.p, bytes);
    return *p = a.p, cudaSuccess;
}
cudaError_t cudaFree(void *p) {
    if (shim_dry) return cudaSuccess;
    for (size_t i = 0; i < live.size(); i++)
        if (live[i].p == p) {
            const size_t room = (live[i].bytes + GUARD - 1) / GUARD * GUARD;
            shim_untrack(p);
            madvise(p, room, MADV_DONTNEED), mprotect(p, room, PROT_NONE);
            in_use -= live[i].bytes;
            live.erase(live.begin() + (long)i);
            return cudaSuccess;
        }
    shim_finding("cudaFree of what cudaMalloc did not give");
    return cudaErrorInvalidValue;
}
cudaError_t cudaMallocHost(void **p, size_t bytes) {
    return *p = aligned_alloc(64, (bytes + 63) / 64 * 64),
           *p ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned) { return cudaMallocHost(p, bytes); }
cudaError_t cudaFreeHost(void *p) { return free(p), cudaSuccess; }
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, cudaStream_t) {
    return copying([=] {
        memcpy(to, from, bytes);
        if (kind != cudaMemcpyDeviceToHost) shim_written(to, bytes);
    });
}
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t) {
    return copying([=] { memset(p, value, bytes), shim_written(p, bytes); });
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned) { return *s = NULL, cudaSuccess; }
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) {
    if (captured) shim_finding("waiting for the stream while it is captured");
    return sticky;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t, int) { return captured = new work, cudaSuccess; }
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *g) {
    *g = new shim_graph{*captured};
    delete captured;
    return captured = NULL, cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *x, cudaGraph_t g, unsigned) {
    return *x = new shim_graph{g->all}, cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t) {
    for (const auto &w : x->all) run(w);
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t g) { return delete g, cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x) { return delete x, cudaSuccess; }
const char *cudaGetErrorString(cudaError_t c) {
    return c == cudaErrorMemoryAllocation ? "out of memory"
           : c == cudaErrorNoDevice       ? "no CUDA-capable device is detected"
           : c == cudaErrorLaunchTimeout  ? "the launch timed out and was terminated"
           : c == cudaErrorLaunchFailure  ? "unspecified launch failure"
           : c == cudaErrorNoKernelImageForDevice
               ? "no kernel image is available for execution on the device"
           : c == cudaErrorUnsupportedPtxVersion
               ? "the provided PTX was compiled with an unsupported toolchain."
           : c == cudaErrorInvalidConfiguration  ? "invalid configuration argument"
           : c == cudaErrorInvalidDeviceFunction ? "invalid device function"
           : c == cudaErrorLaunchOutOfResources  ? "too many resources requested for launch"
                                                 : "invalid argument";
}
const char *cudaGetErrorName(cudaError_t c) {
    return c == cudaErrorMemoryAllocation        ? "cudaErrorMemoryAllocation"
           : c == cudaErrorNoDevice              ? "cudaErrorNoDevice"
           : c == cudaErrorLaunchTimeout         ? "cudaErrorLaunchTimeout"
           : c == cudaErrorLaunchFailure         ? "cudaErrorLaunchFailure"
           : c == cudaErrorInvalidConfiguration  ? "cudaErrorInvalidConfiguration"
           : c == cudaErrorInvalidDeviceFunction ? "cudaErrorInvalidDeviceFunction"
           : c == cudaErrorLaunchOutOfResources  ? "cudaErrorLaunchOutOfResources"
                                                 : "cudaErrorInvalidValue";
}

#undef fault_set
#include "ops/device/cuda.h"
void shim_fault(struct fault_word *f, int kind, int64_t value, int64_t at, int64_t limit) {
    if (!f->kind) *f = fault_word{kind, (i32)value, at, limit};
}
