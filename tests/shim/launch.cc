/* launch.cc: what a launch may ask of a GPU. The real runtime refuses a launch whose block needs
 * more registers, threads or shared memory than a multiprocessor gives it; nothing of that shows
 * when threads are fibers. So the registers and the static shared memory that nvcc gave each kernel
 * are in a table (kernels.tsv, which tests/gpu/cuda_report.sh writes and compares), and every
 * launch goes through the same arithmetic here.
 *
 * A kernel is known by its file and its demangled name, which is the same for nvcc's and for ours.
 * shim_dry: launches are counted and checked and nothing runs, so that models of any size can be
 * put through; what is refused is listed, and the program goes on as if it had been launched. */
#include "tests/shim/shim_int.h"

#include <cstdlib>
#include <cxxabi.h>
#include <map>
#include <string>
#include <vector>

int shim_dry = getenv("HONE_SHIM_DRY") != NULL;

namespace {
enum { DEFAULT_SHARED = 48 << 10, REGISTERS = 1 << 16, PLACE = 128 };

struct gpu {
    const char *name;
    int major, minor, sms, shared_most;
};
const gpu gpus[] = {{"", 9, 0, 2, 232448},         {"sm_80", 8, 0, 108, 166912},
                    {"sm_86", 8, 6, 84, 101376},   {"sm_89", 8, 9, 128, 101376},
                    {"sm_90", 9, 0, 132, 232448},  {"sm_100", 10, 0, 148, 232448},
                    {"sm_120", 12, 0, 170, 101376}};
const gpu *now = gpus;

struct row {                 /* as nvcc reports it */
    int registers[2], fixed; /* for sm_80, for sm_90; bytes of static shared memory */
};
struct kernel {
    std::string name;
    bool known;
    row r;
    int most; /* dynamic bytes that the program opted in to */
};
std::map<std::string, row> *rows;
std::map<const void *, kernel> kernels;
std::vector<std::string> refused;
std::string reason;

extern "C" const char shim_table[], shim_table_end[];
asm(".section .rodata\n.globl shim_table\nshim_table:\n.incbin \"tests/shim/kernels.tsv\"\n"
    ".globl shim_table_end\nshim_table_end:\n.byte 0\n.text\n");

std::string table_text() {
    const char *path = getenv("HONE_KERNELS");
    FILE *f = path ? fopen(path, "r") : NULL;
    if (!f) return std::string(shim_table, shim_table_end);
    std::string all;
    for (int c; (c = getc(f)) != EOF;) all += (char)c;
    return fclose(f), all;
}
/* Lines: file, kernel, registers for sm_80, for sm_90, static bytes; tabs between them. */
void rows_read() {
    if (rows) return;
    rows = new std::map<std::string, row>;
    const std::string all = table_text();
    for (size_t at = 0, end; (end = all.find('\n', at)) != std::string::npos; at = end + 1) {
        const std::string line = all.substr(at, end - at);
        const size_t file = line.find('\t'),
                     name = file == std::string::npos ? file : line.find('\t', file + 1);
        row r;
        if (line[0] != '#' && name != std::string::npos &&
            sscanf(line.c_str() + name, "%d %d %d", &r.registers[0], &r.registers[1], &r.fixed) ==
                3)
            (*rows)[line.substr(0, name)] = r;
    }
}

/* shim_tag<&(void f<int>(x))>: what is between "&(" or "&" and the last ")>" or ">". */
std::string kernel_name(const char *tag) {
    int status = 0;
    char *whole = abi::__cxa_demangle(tag, NULL, NULL, &status);
    std::string name = whole ? whole : tag;
    free(whole);
    size_t from = name.find('<') + 1, to = name.rfind('>');
    while (to > from && name[to - 1] == ' ') to--;
    if (name[from] == '&') from++;
    if (name[from] == '(' && name[to - 1] == ')') from++, to--;
    return name.substr(from, to - from);
}

int allocated(int registers, size_t threads) { /* of the 64K: warps in fours, registers in eights */
    const size_t warps = (threads + 31) / 32;
    return (int)((warps + 3) / 4 * 4 * 32) * ((registers + 7) / 8 * 8);
}
} // namespace

void shim_kernel_add(const char *file, const char *name, int registers, int fixed) {
    rows_read();
    (*rows)[std::string(file) + "\t" + name] = {{registers, registers}, fixed};
}

const void *shim_kernel_seen(const void *address, const char *file, const char *tag) {
    if (kernels.count(address)) return address;
    rows_read();
    kernel k = {kernel_name(tag), false, {{0, 0}, 0}, DEFAULT_SHARED};
    const auto i = rows->find(std::string(file) + "\t" + k.name);
    if (i != rows->end()) k.known = true, k.r = i->second;
    k.most = DEFAULT_SHARED - k.r.fixed;
    kernels[address] = k;
    return address;
}
size_t shim_kernel_fixed(const void *address) { return (size_t)kernels[address].r.fixed; }

static int refuse(int code, const kernel &k, dim3 grid, dim3 block, size_t dynamic, const char *fmt,
                  ...) PRINTF(6, 7);
static int refuse(int code, const kernel &k, dim3 grid, dim3 block, size_t dynamic, const char *fmt,
                  ...) {
    char why[256], text[1024];
    va_list list;
    va_start(list, fmt);
    vsnprintf(why, sizeof why, fmt, list);
    va_end(list);
    snprintf(text, sizeof text,
             "%s: grid %ux%ux%u, block %ux%ux%u, shared memory %d static + %lld dynamic, "
             "%d registers, sm_%d%d: %s",
             k.name.c_str(), grid.x, grid.y, grid.z, block.x, block.y, block.z, k.r.fixed,
             (long long)dynamic, k.r.registers[now->major >= 9], now->major, now->minor, why);
    reason = text;
    if (!shim_dry) return code;
    for (const std::string &one : refused)
        if (one == reason) return cudaSuccess;
    return refused.push_back(reason), cudaSuccess;
}

int shim_launch_check(const void *address, dim3 grid, dim3 block, size_t dynamic) {
    const kernel &k = kernels[address];
    const size_t threads = (size_t)block.x * block.y * block.z;
    const int registers = k.r.registers[now->major >= 9];
#define REFUSE(code, ...) return refuse(code, k, grid, block, dynamic, __VA_ARGS__)
    if (!k.known)
        REFUSE(cudaErrorInvalidDeviceFunction,
               "not in tests/shim/kernels.tsv (tests/gpu/cuda_report.sh writes it)");
    if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
        REFUSE(cudaErrorInvalidConfiguration, "a grid is at most 2147483647 x 65535 x 65535");
    if (!threads || threads > 1024 || block.z > 64)
        REFUSE(cudaErrorInvalidConfiguration, "a block has at most 1024 threads, 64 along z");
    if (threads % 32)
        REFUSE(cudaErrorInvalidConfiguration, "warp functions here take whole warps of threads");
    /* Dynamic memory is behind the static, on a place that its alignment allows. */
    const long long fixed = dynamic ? (k.r.fixed + PLACE - 1) / PLACE * PLACE : k.r.fixed,
                    bytes = fixed + (long long)dynamic;
    if (bytes > now->shared_most)
        REFUSE(cudaErrorInvalidValue, "%lld bytes of shared memory; this GPU has %d for a block",
               bytes, now->shared_most);
    if ((long long)dynamic > k.most || (k.most <= DEFAULT_SHARED && bytes > DEFAULT_SHARED))
        REFUSE(cudaErrorInvalidValue,
               "%lld bytes of shared memory; the kernel opted in to %d dynamic, and without that "
               "static and dynamic together are at most %d",
               bytes, k.most, DEFAULT_SHARED);
    if (allocated(registers, threads) > REGISTERS)
        REFUSE(cudaErrorLaunchOutOfResources, "%d registers for the block; there are %d",
               allocated(registers, threads), REGISTERS);
#undef REFUSE
    return cudaSuccess;
}

/* ---- for tests ---- */
void shim_gpu(const char *name) {
    for (const gpu &g : gpus)
        if (!strcmp(g.name, name)) now = &g;
    kernels.clear(); /* what they opted in to was on another */
}
const char *shim_refusal(void) { return reason.c_str(); }
const char *shim_refused(int i) {
    return i < (int)refused.size() ? refused[(size_t)i].c_str() : NULL;
}
void shim_refused_forget(void) { refused.clear(), reason.clear(); }

/* ---- what the runtime says of the device and of kernels ---- */
void shim_gpu_describe(cudaDeviceProp *p) {
    p->major = now->major, p->minor = now->minor, p->multiProcessorCount = now->sms;
    p->sharedMemPerBlockOptin = (size_t)now->shared_most;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *a, const void *address) {
    const auto i = kernels.find(address);
    if (shim_fault("no-code")) return cudaErrorNoKernelImageForDevice;
    if (shim_fault("old-ptx")) return cudaErrorUnsupportedPtxVersion;
    if (i == kernels.end()) return cudaErrorInvalidDeviceFunction;
    *a = {(size_t)i->second.r.fixed, i->second.most};
    return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void *address, int attribute, int value) {
    const auto i = kernels.find(address);
    if (i == kernels.end()) return cudaErrorInvalidDeviceFunction;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
        value + i->second.r.fixed > now->shared_most)
        return cudaErrorInvalidValue;
    return i->second.most = value, cudaSuccess;
}

/* What -fsanitize=thread makes of atomic loads and stores: those of cuda_opt_in, on the host. */
extern "C" int __tsan_atomic32_load(const volatile int *p, int) {
    shim_access((const void *)p, 4, false);
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}
extern "C" void __tsan_atomic32_store(volatile int *p, int value, int) {
    shim_access((const void *)p, 4, true);
    __atomic_store_n(p, value, __ATOMIC_SEQ_CST);
}
