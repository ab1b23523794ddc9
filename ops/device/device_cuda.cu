/* device_cuda.cu: one GPU through the CUDA runtime, which is linked statically and loads the driver
 * when first used: the same binary runs where there is none. Plain allocations, one stream, so that
 * everything happens in the order it was asked for. */
#include "ops/device/cuda.h"
#include "ops/gemm/gemm_cuda.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

cudaStream_t cuda_stream;
struct fault_word *cuda_fault_word; /* pinned host memory, mapped: the same address on both sides */
struct cuda_machine cuda_machine;

struct recording {
    cudaGraphExec_t exec;
};

int cuda_error(cudaError_t code, const char *what, struct err *e) {
    if (code == cudaSuccess) return 0;
    err_failed(e, "CUDA: %s: %s (%s)", what, cudaGetErrorString(code), cudaGetErrorName(code));
    if (code == cudaErrorMemoryAllocation)
        return err_hint(e, "a smaller micro_batch_size or max_seq_length needs less memory");
    if (code == cudaErrorLaunchTimeout)
        return err_hint(e, "the driver stopped a kernel that ran too long (a display's watchdog?); "
                           "the last checkpoint is intact");
    return err_hint(e, "the last checkpoint is intact; --sync names the operation that fails");
}

/* The default limit, 48 KiB, is of static and dynamic memory together, so that a limit on dynamic
 * memory alone cannot be looked at to tell whether a kernel must opt in: each that has some does.
 * It opts in to all there is, once: a smaller value set later would break launches that a graph
 * holds. Two threads that come at the same time set the same. It asks nothing of the stream, so
 * that it may also happen while a graph is recorded. */
int cuda_opt_in(const void *kernel, int *opted, struct err *e) {
    cudaFuncAttributes a;
    if (__atomic_load_n(opted, __ATOMIC_ACQUIRE) == cuda_machine.opening) return 0;
    if (cuda_error(cudaFuncGetAttributes(&a, kernel), "reading what a kernel needs", e) ||
        cuda_error(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int)(cuda_machine.shared_per_block - (i64)a.sharedSizeBytes)),
            "shared memory of a kernel", e))
        return -1;
    __atomic_store_n(opted, cuda_machine.opening, __ATOMIC_RELEASE);
    return 0;
}

/* The first driver that has a major version of CUDA. A program built with 13 needs one of 13:
 * within a major version older drivers go, to the next they do not. */
static const char *driver_of(int cuda) {
    return cuda >= 13 ? "580" : cuda == 12 ? "525.60.13" : "450.80.02";
}
/* Why there is no device, in words, and what to do about it; NULL if there is one. */
static const char *missing(int *count, const char **what) {
    static char text[256], advice[256];
    int driver = 0, runtime = 0;
    *count = 0, *what = "`hone doctor` lists what was looked for; --device cpu needs none";
    cudaRuntimeGetVersion(&runtime);
    const cudaError_t version = cudaDriverGetVersion(&driver);
    if (version != cudaSuccess || !driver)
        return "CUDA is off: this machine has no NVIDIA driver (libcuda.so.1)";
    if (driver / 1000 < runtime / 1000) {
        snprintf(text, sizeof text,
                 "CUDA is off: the driver supports CUDA %d.%d, this program was built with %d.%d "
                 "and needs driver %s or newer",
                 driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10,
                 driver_of(runtime / 1000));
        snprintf(advice, sizeof advice,
                 "update the driver, or build hone with nvcc of CUDA %d on PATH; --device cpu "
                 "needs none",
                 driver / 1000);
        return *what = advice, text;
    }
    const cudaError_t found = cudaGetDeviceCount(count);
    if (found == cudaSuccess && *count) return NULL;
    snprintf(text, sizeof text, "CUDA is off: no usable GPU: %s", cudaGetErrorString(found));
    return *count = 0, text;
}

/* Whether this GPU can run what the program holds: machine code for sm_80 and sm_90, which goes for
 * their whole generations, and PTX, which the driver compiles for newer ones. */
__global__ void first_kernel() {}
static int code_fits(const cudaDeviceProp &p, int index, struct err *e) {
    cudaFuncAttributes a;
    const cudaError_t code = cudaFuncGetAttributes(&a, KERNEL(first_kernel));
    if (code == cudaSuccess) return 0;
    (void)cudaGetLastError();
    if (code != cudaErrorNoKernelImageForDevice && code != cudaErrorUnsupportedPtxVersion)
        return cuda_error(code, "loading the first kernel", e);
    err_input(
        e, "--device cuda:%d: %s is sm_%d%d, and its driver can load none of this program's code",
        index, p.name, p.major, p.minor);
    err_detail(e, "the program has code for sm_80 and sm_90, and PTX for newer GPUs: %s",
               cudaGetErrorString(code));
    return err_hint(e, "update the driver, or build hone with a newer CUDA toolkit");
}

static void device_line(int index, char *text, i64 size) {
    cudaDeviceProp p;
    if (cudaGetDeviceProperties(&p, index) != cudaSuccess)
        snprintf(text, (size_t)size, "device %d: its properties cannot be read", index);
    else
        snprintf(text, (size_t)size, "%.100s, sm_%d%d, %d multiprocessors, %.1f GiB", p.name,
                 p.major, p.minor, p.multiProcessorCount, (double)p.totalGlobalMem / (1 << 30));
}

void cuda_describe(char *text, i64 size) {
    int count, at = 0;
    const char *what, *why = missing(&count, &what);
    if (why)
        snprintf(text, (size_t)size, "%s", why);
    else if (cudaGetDevice(&at) == cudaSuccess)
        device_line(at, text, size);
}

void cuda_libraries(FILE *to) {
    static const char *const library[] = {"libcublasLt.so.13", "libcudnn.so.9", "libnccl.so.2"};
    int count;
    const char *what, *why = missing(&count, &what);
    if (why) fprintf(to, "%s\n%s\n", why, what);
    for (int i = 0; i < count; i++) {
        char line[256];
        device_line(i, line, sizeof line);
        fprintf(to, "cuda:%d  %s\n", i, line);
    }
    for (int i = 0; i < COUNT(library); i++) {
        /* kept: what comes with C++ libraries holds memory that their removal would lose */
        void *handle = dlopen(library[i], RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        fprintf(to, "%-18s %s\n", library[i], handle ? "found" : "not found");
        if (handle) dlclose(handle);
    }
}

int cuda_open(int index, struct err *e) {
    int count;
    const char *what, *why = missing(&count, &what);
    if (why) {
        err_input(e, "%s", why);
        return err_hint(e, "%s", what);
    }
    if (index >= count) {
        err_input(e, "--device cuda:%d: this machine has %d GPU%s", index, count,
                  count > 1 ? "s" : "");
        return err_detail(e, "expected cuda:0%s", count > 1 ? " or one of the next" : "");
    }
    cudaDeviceProp p;
    if (cuda_error(cudaSetDevice(index), "choosing the device", e) ||
        cuda_error(cudaGetDeviceProperties(&p, index), "reading the device's properties", e))
        return -1;
    if (p.major < 8) {
        err_input(e, "--device cuda:%d: %s is sm_%d%d", index, p.name, p.major, p.minor);
        return err_detail(e, "expected sm_80 (Ampere) or newer");
    }
    if (code_fits(p, index, e)) return -1;
    cuda_machine = (struct cuda_machine){p.multiProcessorCount, p.major, p.minor,
                                         (i64)p.sharedMemPerBlockOptin, cuda_machine.opening + 1};
    if (cuda_error(cudaStreamCreateWithFlags(&cuda_stream, cudaStreamNonBlocking), "a stream", e) ||
        cuda_error(
            cudaHostAlloc((void **)&cuda_fault_word, sizeof *cuda_fault_word, cudaHostAllocMapped),
            "pinned memory", e))
        return -1;
    memset(cuda_fault_word, 0, sizeof *cuda_fault_word);
    return 0;
}

void cuda_close(void) {
    cudaStreamSynchronize(cuda_stream);
    lt_close();
    cudaFreeHost(cuda_fault_word), cudaStreamDestroy(cuda_stream);
    cuda_fault_word = NULL, cuda_stream = NULL;
}

i64 cuda_available(void) {
    size_t left = 0, total = 0;
    return cudaMemGetInfo(&left, &total) == cudaSuccess ? (i64)left : 0;
}

void *cuda_new(i64 bytes, struct err *e) {
    void *p = NULL;
    if (fault_hit(FAULT_ALLOC) || cudaMalloc(&p, (size_t)i64_max(bytes, 1)) != cudaSuccess) {
        (void)cudaGetLastError(); /* an allocation that failed leaves the device usable */
        err_failed(e, "no memory on the GPU for %.1f MiB; %.1f MiB are free",
                   (double)bytes / (1 << 20), (double)cuda_available() / (1 << 20));
        return NULL;
    }
    if (!cuda_zero(p, bytes, e)) return p;
    cudaFree(p);
    return NULL;
}
void cuda_free(void *p) {
    if (p) cudaFree(p); /* waits for the kernels that may use it */
}
void *cuda_host_new(i64 bytes, struct err *e) {
    void *p = NULL;
    if (cuda_error(cudaMallocHost(&p, (size_t)i64_max(bytes, 1)), "pinned memory", e)) return NULL;
    memset(p, 0, (size_t)bytes);
    return p;
}
void cuda_host_free(void *p) {
    if (p) cudaFreeHost(p);
}

int cuda_write(void *to, const void *host, i64 bytes, struct err *e) {
    return cuda_error(cudaMemcpyAsync(to, host, (size_t)bytes, cudaMemcpyHostToDevice, cuda_stream),
                      "copying to the GPU", e);
}
int cuda_read(void *host, const void *from, i64 bytes, struct err *e) {
    if (cuda_error(cudaMemcpyAsync(host, from, (size_t)bytes, cudaMemcpyDeviceToHost, cuda_stream),
                   "copying from the GPU", e))
        return -1;
    return device_sync(e);
}
int cuda_copy(void *to, const void *from, i64 bytes, struct err *e) {
    return cuda_error(
        cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyDeviceToDevice, cuda_stream),
        "copying on the GPU", e);
}
int cuda_zero(void *to, i64 bytes, struct err *e) {
    return cuda_error(cudaMemsetAsync(to, 0, (size_t)bytes, cuda_stream), "clearing memory", e);
}

int cuda_sync(struct fault_word *found, struct err *e) {
    if (cuda_error(cudaStreamSynchronize(cuda_stream), "waiting for the GPU", e)) return -1;
    *found = *cuda_fault_word;
    memset(cuda_fault_word, 0, sizeof *cuda_fault_word);
    return 0;
}

int cuda_record_begin(struct err *e) {
    return cuda_error(cudaStreamBeginCapture(cuda_stream, cudaStreamCaptureModeThreadLocal),
                      "recording a step", e);
}
int cuda_record_end(struct recording **r, struct err *e) {
    cudaGraph_t graph = NULL;
    *r = NULL;
    if (cuda_error(cudaStreamEndCapture(cuda_stream, &graph), "recording a step", e)) return -1;
    struct recording *made = (struct recording *)mem_new(sizeof *made, e);
    int rc = made
                 ? cuda_error(cudaGraphInstantiate(&made->exec, graph, 0), "making a CUDA graph", e)
                 : -1;
    cudaGraphDestroy(graph);
    if (rc) return mem_free(made), -1;
    return *r = made, 0;
}
int cuda_replay(struct recording *r, struct err *e) {
    return cuda_error(cudaGraphLaunch(r->exec, cuda_stream), "launching a recorded step", e);
}
void cuda_record_free(struct recording *r) {
    cudaGraphExecDestroy(r->exec);
    mem_free(r);
}
