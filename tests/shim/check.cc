/* check.cc: what a kernel may touch. The .cu files are compiled with -fsanitize=thread, which puts
 * a call before every access to memory that is not a plain local; the functions it calls are here.
 * A cell for every two bytes of tracked memory remembers the last writer and two readers of the
 * present launch, by block, thread, and how many barriers and warp functions they had passed. Two
 * accesses of different threads, one of them a write, are in order only within a block, and there
 * only if a barrier (or, within a warp, a warp function) lies between them. */
#include "tests/shim/shim_int.h"

#include <cstdarg>
#include <cstdlib>
#include <map>
#include <vector>

int shim_check = getenv("HONE_SHIM_CHECK") != NULL;

namespace {
struct who {
    u32 launch, block, epoch, warp_epoch;
    u16 thread;
};
struct cell {
    who write, read[2];
};
struct area {
    unsigned char *begin, *end;
    std::vector<bool> written;
    std::vector<cell> cells;
};
std::map<uintptr_t, area>
    areas; /* by end, so that upper_bound finds the one that may hold an address */
area *last;
bool in_kernel;
long long findings;
extern "C" char __executable_start, end; /* the program's own image: constants */

area *area_of(const void *p) {
    const unsigned char *at = (const unsigned char *)p;
    if (last && at >= last->begin && at < last->end) return last;
    auto i = areas.upper_bound((uintptr_t)at);
    if (i == areas.end() || at < i->second.begin) return NULL;
    return last = &i->second;
}

bool ordered(const who &a, bool shared) { /* before what runs now */
    const struct shim_place &p = shim_place;
    if (a.launch != p.launch || (a.block == p.block && a.thread == p.thread)) return true;
    if (a.block != p.block) return shared; /* each block has its own */
    return a.epoch < p.epoch || (a.thread / 32 == p.thread / 32 && a.warp_epoch < p.warp_epoch);
}
bool same(const who &a) {
    return a.launch == shim_place.launch && a.block == shim_place.block &&
           a.thread == shim_place.thread;
}

void race(const who &a, const char *then, const char *now, const area *s, const unsigned char *p) {
    shim_finding(
        "%s: block %u thread %u %s byte %lld of %s that block %u thread %u %s with no barrier "
        "between",
        shim_place.kernel, shim_place.block, shim_place.thread, now, (long long)(p - s->begin),
        s->begin == shim_place.shared ? "shared memory" : "a device buffer", a.block, a.thread,
        then);
}

bool on_stack(const unsigned char *p) {
    return p >= shim_place.stack && p < shim_place.stack + shim_place.stack_size;
}

void access(const unsigned char *p, size_t bytes, bool write) {
    if (on_stack(p)) return;
    area *s = area_of(p);
    if (!s) {
        if (!write && p >= (unsigned char *)&__executable_start && p < (unsigned char *)&end)
            return;
        shim_finding("%s: block %u thread %u %s memory that is not the device's (%p)",
                     shim_place.kernel, shim_place.block, shim_place.thread,
                     write ? "writes" : "reads", (const void *)p);
        return;
    }
    if (p + bytes > s->end) {
        shim_finding("%s: block %u thread %u %s past the end of a buffer of %lld bytes",
                     shim_place.kernel, shim_place.block, shim_place.thread,
                     write ? "writes" : "reads", (long long)(s->end - s->begin));
        return;
    }
    const size_t at = (size_t)(p - s->begin);
    if (bytes > 1 && at % (bytes > 16 ? 16 : bytes))
        shim_finding("%s: thread %u: an access of %d bytes that is not aligned", shim_place.kernel,
                     shim_place.thread, (int)bytes);
    const who me = {shim_place.launch, shim_place.block, shim_place.epoch, shim_place.warp_epoch,
                    (u16)shim_place.thread};
    bool told = false;
    for (size_t i = at; i < at + bytes; i++) {
        if (write)
            s->written[i] = true;
        else if (!s->written[i] && !told) {
            told = true;
            shim_finding("%s: block %u thread %u reads byte %lld of %s, which nobody wrote",
                         shim_place.kernel, shim_place.block, shim_place.thread, (long long)i,
                         s->begin == shim_place.shared ? "shared memory" : "a device buffer");
        }
    }
    const bool shared = s->begin == shim_place.shared;
    for (size_t i = at / 2; i <= (at + bytes - 1) / 2; i++) {
        cell &c = s->cells[i];
        if (!ordered(c.write, shared))
            return race(c.write, "wrote", write ? "writes" : "reads", s, p);
        if (write) {
            for (const who &r : c.read)
                if (!ordered(r, shared)) return race(r, "read", "writes", s, p);
            c.write = me;
        } else {
            if (!same(c.read[0])) c.read[1] = c.read[0];
            c.read[0] = me;
        }
    }
}
} // namespace

void shim_access(const void *p, size_t bytes, bool write) {
    if (shim_check && in_kernel && shim_place.entered && bytes)
        access((const unsigned char *)p, bytes, write);
}
void shim_kernel_begin() { in_kernel = true; }
void shim_kernel_end() { in_kernel = false; }

void shim_track(void *p, size_t bytes) {
    last = NULL;
    areas[(uintptr_t)p + bytes] = {(unsigned char *)p, (unsigned char *)p + bytes,
                                   std::vector<bool>(shim_check ? bytes : 0),
                                   std::vector<cell>(shim_check ? bytes / 2 + 1 : 0)};
}
void shim_untrack(void *p) {
    for (auto i = areas.begin(); i != areas.end(); ++i)
        if (i->second.begin == p) {
            areas.erase(i), last = NULL;
            return;
        }
}
static void mark(void *p, size_t bytes, bool written) {
    area *s = shim_check ? area_of(p) : NULL;
    for (size_t i = 0; s && i < bytes; i++) {
        const size_t at = (size_t)((unsigned char *)p - s->begin) + i;
        if (at < s->written.size()) s->written[at] = written;
    }
}
void shim_poison(void *p, size_t bytes) {
    if (!shim_check) return;
    mark(p, bytes, false);
    memset(p, 0xff, bytes);
}
void shim_written(void *p, size_t bytes) { mark(p, bytes, true); }
long long shim_unwritten(const void *p, long long bytes) {
    const area *s = area_of(p);
    long long n = 0;
    for (long long i = 0; s && i < bytes; i++)
        n += !s->written[(size_t)((const unsigned char *)p - s->begin + i)];
    return n;
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
    void __tsan_read##size(void *p) { shim_access(p, size, false); }                               \
    void __tsan_write##size(void *p) { shim_access(p, size, true); }                               \
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
