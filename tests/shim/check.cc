/* check.cc: what a kernel may touch. The .cu files are compiled with -fsanitize=thread, which puts
 * a call before every access to memory that is not a plain local; the functions it calls are here.
 *
 * What orders memory is what CUDA says and no more: the end of a launch; a barrier, for the threads
 * of a block; __syncwarp, for the lanes of a warp. Shuffles, votes, mma and ldmatrix make lanes
 * meet, but promise nothing of memory. Two accesses of the same bytes by threads of which neither
 * is ordered before the other, one of them a write, are a race.
 *
 * Barriers take the whole block and __syncwarp the whole warp (anything else is a finding), so
 * vector clocks shrink to numbers: a phase lies between two barriers of a block, and phases are
 * counted through all blocks and launches, since blocks run one after the other. An access is a
 * stamp: its phase, how many __syncwarp its lane had passed, its thread. A cell for every four
 * bytes of memory, or for fewer once something smaller was accessed there, holds the last write and
 * what matters of the reads since: the last stamp, and whether other lanes, warps or blocks read
 * too. That is exact: no race is forgotten because a cell was full (an earlier write was ordered
 * before the last one, or was reported; of reads in an earlier phase or before a __syncwarp only
 * block or warp matter). */
#include "tests/shim/shim_int.h"

#include <algorithm>
#include <cstdarg>
#include <cstdlib>
#include <map>
#include <vector>

int shim_check = getenv("HONE_SHIM_CHECK") != NULL;

namespace {
/* A stamp, from the top: 32 bits of phase, the three marks below, 19 bits of __syncwarp count, 10
 * of thread. shim_place.me is that of the thread that runs. */
constexpr u64 BLOCKS = 1u << 31, WARPS = 1u << 30, LANES = 1u << 29; /* others read it too */
constexpr u64 SYNC = 0x7ffffu << 10, WARP = 0x3e0, THREAD = 0x3ff;

struct cell {
    u64 write, read;
};
struct area {
    unsigned char *begin, *end;
    u8 *written; /* of each byte */
    cell *cells;
    int shift; /* a cell is for 1 << shift bytes */
};
/* By begin; all begin a page of their own. Never destroyed: LeakSanitizer looks after that. */
std::map<uintptr_t, area> &areas = *new std::map<uintptr_t, area>;
enum { NEAR = 1024 };
struct {
    uintptr_t page;
    area *found;
} near[NEAR];
struct run_block {
    u32 phase, number;
};
std::vector<run_block> blocks; /* of this launch */
bool in_kernel;
u32 phase;
long long findings;
extern "C" char __executable_start, end; /* the program's own image: constants */

void near_forget() { memset(near, 0, sizeof near); }

inline area *area_of(const void *p) {
    const uintptr_t at = (uintptr_t)p, page = at >> 12;
    auto &n = near[page % NEAR];
    if (n.page != page) {
        auto i = areas.upper_bound(at);
        if (i == areas.begin()) return NULL;
        --i;
        if (at >= (uintptr_t)i->second.end) return NULL;
        n.page = page, n.found = &i->second;
    }
    return at < (uintptr_t)n.found->end ? n.found : NULL;
}

/* Is access `a` before what runs now? All that is needed of a write. */
inline bool ordered(u64 a, bool shared) {
    const struct shim_place &p = shim_place;
    const u32 then = (u32)(a >> 32);
    if (then != p.phase) return then >= p.block_phase || shared || then < p.launch_phase;
    const u64 other = a ^ p.me;
    return !(other & THREAD) || (!(other & WARP) && other & SYNC);
}
inline bool reads_ordered(u64 r, bool shared) {
    const struct shim_place &p = shim_place;
    const u32 then = (u32)(r >> 32);
    if (then < p.launch_phase) return true;
    if (then < p.block_phase) return shared;
    if (r & BLOCKS) return false;
    if (then != p.phase) return true;
    const u64 other = r ^ p.me;
    if (r & WARPS || other & WARP) return false;
    return other & SYNC || (!(r & LANES) && !(other & THREAD));
}
inline u64 reads_with_me(u64 r, bool shared) {
    const struct shim_place &p = shim_place;
    const u32 then = (u32)(r >> 32);
    if (then < p.launch_phase) return p.me;
    if (then < p.block_phase) return shared ? p.me : p.me | BLOCKS;
    if (then != p.phase) return p.me | (r & BLOCKS);
    const u64 other = r ^ p.me;
    if (r & WARPS) return r;
    if (other & WARP) return r | WARPS;
    if (other & SYNC) return p.me | (r & BLOCKS);
    return other & THREAD ? r | LANES : r;
}

void race(u64 a, const char *then, const char *now, const area *s, const unsigned char *p) {
    const u32 at = (u32)(a >> 32);
    auto b = std::upper_bound(blocks.begin(), blocks.end(), at,
                              [](u32 x, const run_block &y) { return x < y.phase; });
    const u32 block = b == blocks.begin() ? 0 : b[-1].number;
    char who[64];
    if (a & (BLOCKS | WARPS | LANES))
        snprintf(who, sizeof who, "%s threads", a & BLOCKS ? "other blocks'" : "other");
    else
        snprintf(who, sizeof who, "block %u thread %u", block, (unsigned)(a & THREAD));
    shim_finding("%s: block %u thread %u %s byte %lld of %s that %s %s with no barrier between%s",
                 shim_place.kernel, shim_place.block, shim_place.thread, now,
                 (long long)(p - s->begin),
                 s->begin == shim_place.shared ? "shared memory" : "a device buffer", who, then,
                 at == shim_place.phase && !((a ^ shim_place.me) & WARP) ? ", nor __syncwarp" : "");
}

bool on_stack(const unsigned char *p) {
    return (size_t)(p - shim_place.stack) < shim_place.stack_size;
}

inline bool all_written(const u8 *w, size_t bytes) {
    if (bytes <= 8) {
        u64 x = 0;
        return memcpy(&x, w, bytes), x == 0x0101010101010101ull >> (64 - 8 * bytes);
    }
    return all_written(w, 8) && all_written(w + 8, bytes - 8);
}

/* Smaller cells, so that what begins or ends at `at` is whole cells. */
void cells_split(area *s, size_t at) {
    int shift = s->shift;
    while (at & ((1u << shift) - 1)) shift--;
    const size_t each = (size_t)1 << (s->shift - shift);
    for (size_t i = (size_t)(s->end - s->begin + (1 << s->shift) - 1) >> s->shift; i-- > 0;)
        std::fill_n(s->cells + i * each, each, s->cells[i]);
    s->shift = shift;
}

/* Where `bytes` at p lie, with a finding if a kernel must not touch them. */
area *lie(const unsigned char *p, size_t bytes, bool write) {
    area *s = area_of(p);
    if (!s) {
        if (!write && p >= (unsigned char *)&__executable_start && p < (unsigned char *)&end)
            return NULL;
        shim_finding("%s: block %u thread %u %s memory that is not the device's (%p)",
                     shim_place.kernel, shim_place.block, shim_place.thread,
                     write ? "writes" : "reads", (const void *)p);
        return NULL;
    }
    if (p + bytes > s->end) {
        shim_finding("%s: block %u thread %u %s past the end of a buffer of %lld bytes",
                     shim_place.kernel, shim_place.block, shim_place.thread,
                     write ? "writes" : "reads", (long long)(s->end - s->begin));
        return NULL;
    }
    if (bytes > 1 && (size_t)(p - s->begin) % (bytes > 16 ? 16 : bytes))
        shim_finding("%s: thread %u: an access of %d bytes that is not aligned", shim_place.kernel,
                     shim_place.thread, (int)bytes);
    return s;
}

/* `bytes` is a constant where it matters. */
inline __attribute__((always_inline)) void access(unsigned char *p, size_t bytes, bool write) {
    if (!in_kernel || on_stack(p) || !shim_place.entered) return;
    area *s = area_of(p);
    if (!s || p + bytes > s->end || (size_t)(p - s->begin) % (bytes > 16 ? 16 : bytes)) {
        s = lie(p, bytes, write);
        if (!s) return;
    }
    const size_t at = (size_t)(p - s->begin);
    const bool shared = s->begin == shim_place.shared;
    if (write) {
        memset(s->written + at, 1, bytes);
        if (shim_place.late) shim_store(p, bytes, shared);
    } else if (!all_written(s->written + at, bytes))
        shim_finding("%s: block %u thread %u reads byte %lld of %s, which nobody wrote",
                     shim_place.kernel, shim_place.block, shim_place.thread, (long long)at,
                     shared ? "shared memory" : "a device buffer");
    if ((at | bytes) & ((1u << s->shift) - 1)) cells_split(s, at | bytes);
    cell *c = s->cells + (at >> s->shift), *past = s->cells + ((at + bytes) >> s->shift);
    for (; c < past; c++) {
        if (!ordered(c->write, shared))
            return race(c->write, "wrote", write ? "writes" : "reads", s, p);
        if (!write) {
            if (c->read != shim_place.me) c->read = reads_with_me(c->read, shared);
        } else if (c->read && !reads_ordered(c->read, shared))
            return race(c->read, "read", "writes", s, p);
        else
            c->write = shim_place.me, c->read = 0;
    }
}
} // namespace

void shim_access(const void *p, size_t bytes, bool write) {
    if (bytes) access((unsigned char *)p, bytes, write);
}
void shim_phase_begin() { shim_place.phase = ++phase; }
void shim_kernel_begin() {
    in_kernel = shim_check != 0;
    shim_place.launch_phase = phase + 1, blocks.clear();
}
void shim_block_begin(u32 number) {
    shim_phase_begin();
    shim_place.block = number, shim_place.block_phase = phase;
    if (in_kernel) blocks.push_back({phase, number});
}
void shim_kernel_end() { in_kernel = false; }

void shim_track(void *p, size_t bytes) {
    near_forget();
    area a = {(unsigned char *)p, (unsigned char *)p + bytes, NULL, NULL, 2};
    if (shim_check) { /* room for cells of a byte: pages that are never touched cost nothing */
        a.written = (u8 *)calloc(bytes + 1, 1), a.cells = (cell *)calloc(bytes + 4, sizeof(cell));
        if (!a.written || !a.cells) shim_finding("no memory for the shim's own checks");
    }
    areas[(uintptr_t)p] = a;
}
void shim_untrack(void *p) {
    auto i = areas.find((uintptr_t)p);
    if (i == areas.end()) return;
    free(i->second.written), free(i->second.cells);
    areas.erase(i), near_forget();
}
/* So much of shared memory, all of it tracked, is the block's; from a launch's beginning on no cell
 * of another matters. */
void shim_shared_limit(size_t bytes, bool begin) {
    area &s = areas[(uintptr_t)shim_place.shared];
    s.end = s.begin + bytes;
    if (begin) s.shift = 2;
}
static void mark(void *p, size_t bytes, bool written) {
    area *s = shim_check && bytes ? area_of(p) : NULL;
    if (!s || !s->written) return;
    const size_t at = (size_t)((unsigned char *)p - s->begin);
    memset(s->written + at, written, std::min(bytes, (size_t)(s->end - s->begin) - at));
}
void shim_poison(void *p, size_t bytes) {
    if (!shim_check) return;
    mark(p, bytes, false);
    memset(p, 0xff, bytes);
}
void shim_written(void *p, size_t bytes) { mark(p, bytes, true); }
long long shim_unwritten(const void *p, long long bytes) {
    const area *s = area_of(p);
    return s ? std::count(s->written + ((const u8 *)p - s->begin),
                          s->written + ((const u8 *)p - s->begin) + bytes, 0)
             : 0;
}

int shim_quiet;
static char first[512];
const char *shim_first(void) { return findings ? first : ""; }
void shim_finding(const char *fmt, ...) {
    char text[512];
    if (findings++ >= 10) return;
    va_list list;
    va_start(list, fmt);
    vsnprintf(text, sizeof text, fmt, list);
    va_end(list);
    if (findings == 1) memcpy(first, text, sizeof first);
    if (!shim_quiet) fprintf(stderr, "shim: %s\n", text);
}
long long shim_findings(void) {
    const long long n = findings;
    return findings = 0, n;
}

/* ---- what the compiler calls ---- */
#define ACCESS(size)                                                                               \
    void __tsan_read##size(unsigned char *p) { access(p, size, false); }                           \
    void __tsan_write##size(unsigned char *p) { access(p, size, true); }                           \
    void __tsan_unaligned_read##size(void *p) { shim_access(p, size, false); }                     \
    void __tsan_unaligned_write##size(void *p) { shim_access(p, size, true); }                     \
    void __tsan_volatile_read##size(void *p) { shim_access(p, size, false); }                      \
    void __tsan_volatile_write##size(void *p) { shim_access(p, size, true); }
extern "C" {
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
void __tsan_read_range(void *p, size_t n) { shim_access(p, n, false); }
void __tsan_write_range(void *p, size_t n) { shim_access(p, n, true); }
/* By -fsanitize=alignment: vectors, which the compiler may read in parts. The linker's --wrap
 * brings the call here (ops/cuda.mk), also where the sanitizer itself, with its own, is linked. */
void __wrap___ubsan_handle_type_mismatch_v1(void *, void *p) {
    shim_finding("%s: block %u thread %u: %p is not aligned to its type", shim_place.kernel,
                 shim_place.block, shim_place.thread, p);
}
#define ATOMIC(name)                                                                               \
    void __tsan_atomic##name() { shim_finding("%s uses an atomic operation", shim_place.kernel); }
ATOMIC(32_fetch_add)
ATOMIC(32_compare_exchange_val)
ATOMIC(64_fetch_add)
ATOMIC(64_compare_exchange_val)
}
