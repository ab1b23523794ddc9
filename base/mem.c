/* mem.c: every heap allocation of the program, arenas, and growing strings.
 *
 * Blocks come from calloc (large ones are fresh pages, so zeroing them costs nothing until they are
 * touched) and are aligned to 64 bytes here, for vectors and cache lines; the address calloc gave
 * lies just before the block. Debug builds (HONE_DEBUG) surround each block with 64 bytes of a
 * pattern, checked when it is freed; address-sanitizer builds poison the alignment slack, so that
 * off-by-one accesses are seen. Rejected: aligned_alloc with memset, which touches gigabytes on one
 * thread before the first step. */
#include "base/base.h"
#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#if defined(__SANITIZE_ADDRESS__) || defined(__clang__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#endif

enum { ALIGN = 64 };
#ifdef HONE_DEBUG
enum { ZONE = 64, PATTERN = 0xa5 };
#else
enum { ZONE = 0, PATTERN = 0 };
#endif

/* What lies before a block, ending at its first byte; `size` is used by debug builds. */
struct header {
    i64 size;
    void *raw;
};
enum { EXTRA = ALIGN + 2 * ZONE + (i64)sizeof(struct header) };

static struct header *header_of(void *p) { return (struct header *)(void *)((u8 *)p - ZONE) - 1; }

void *mem_new(i64 bytes, struct err *e) {
    u8 *raw = NULL;
    if (bytes >= 0 && bytes <= INT64_MAX - EXTRA && !fault_hit(FAULT_ALLOC))
        raw = calloc(1, (size_t)(bytes + EXTRA));
    if (!raw) {
        err_memory(e, "out of memory: %lld bytes wanted", (long long)bytes);
        err_detail(e, "the machine has %lld bytes left", (long long)mem_available());
        return NULL;
    }
    uintptr_t first = (uintptr_t)raw + sizeof(struct header) + ZONE;
    u8 *p = raw + ((first + ALIGN - 1) / ALIGN * ALIGN - (uintptr_t)raw);
    *header_of(p) = (struct header){bytes, raw};
    if (ZONE) {
        memset(p - ZONE, PATTERN, ZONE);
        memset(p + bytes, PATTERN, ZONE);
    }
    ASAN_POISON_MEMORY_REGION(p + bytes + ZONE, (size_t)(raw + EXTRA - p - ZONE));
    return p;
}

void *mem_new_array(i64 count, i64 size, struct err *e) {
    i64 bytes;
    if (count >= 0 && size >= 0 && !__builtin_mul_overflow(count, size, &bytes))
        return mem_new(bytes, e);
    err_memory(e, "out of memory: %lld items of %lld bytes wanted", (long long)count,
               (long long)size);
    return NULL;
}

void *mem_grow(void *old, i64 old_bytes, i64 bytes, struct err *e) {
    void *p = mem_new(bytes, e);
    if (!p) return NULL;
    if (old) memcpy(p, old, (size_t)i64_min(old_bytes, bytes));
    mem_free(old);
    return p;
}

void mem_free(void *p) {
    if (!p) return;
    struct header *header = header_of(p);
    for (i64 i = 0; i < ZONE; i++) {
        assert(((u8 *)p)[-1 - i] == PATTERN && "write before a block");
        assert(((u8 *)p)[header->size + i] == PATTERN && "write past a block");
    }
    free(header->raw);
}

char *mem_text(const char *text, struct err *e) {
    size_t size = strlen(text) + 1;
    char *copy = mem_new((i64)size, e);
    return copy ? memcpy(copy, text, size) : NULL;
}

char *mem_printf(struct err *e, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    int size = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *text = mem_new(i64_max(size, 0) + 1, e);
    va_start(args, fmt);
    if (text) vsnprintf(text, (size_t)size + 1, fmt, args);
    va_end(args);
    return text;
}

i64 mem_peak_rss(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) ? 0 : (i64)usage.ru_maxrss * 1024;
}

i64 mem_available(void) { return mem_available_under(""); }

/* ---- arena: a list of blocks, each filled from the front ---- */
struct arena_block {
    struct arena_block *next;
    i64 used, size;
};
enum { ARENA_HEAD = 64, ARENA_BLOCK = 64 << 10 };

static void *arena_take(struct arena *a, i64 bytes, i64 align, struct err *e) {
    struct arena_block *b = a->block;
    if (b && bytes >= 0 && bytes <= b->size - round_up(b->used, align)) {
        i64 at = round_up(b->used, align);
        b->used = at + bytes;
        return (u8 *)b + at;
    }
    if (bytes > INT64_MAX - ARENA_HEAD) bytes = -1;
    i64 wanted = bytes < 0 ? -1 : bytes + ARENA_HEAD;
    bool own =
        bytes > ARENA_BLOCK / 4; /* large ones get a block of their own, behind the current one */
    struct arena_block *fresh = mem_new(own || wanted < 0 ? wanted : ARENA_BLOCK, e);
    if (!fresh) return NULL;
    fresh->size = own ? wanted : ARENA_BLOCK;
    fresh->used = wanted;
    fresh->next = own && b ? b->next : b;
    if (own && b)
        b->next = fresh;
    else
        a->block = fresh;
    return (u8 *)fresh + ARENA_HEAD;
}

void *arena_new(struct arena *a, i64 bytes, struct err *e) {
    return arena_take(a, bytes, ALIGN, e);
}

char *arena_text(struct arena *a, const char *text, struct err *e) {
    size_t size = strlen(text) + 1;
    char *copy = arena_take(a, (i64)size, 1, e);
    return copy ? memcpy(copy, text, size) : NULL;
}

char *arena_printf(struct arena *a, struct err *e, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    int size = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *text = arena_take(a, i64_max(size, 0) + 1, 1, e);
    va_start(args, fmt);
    if (text) vsnprintf(text, (size_t)size + 1, fmt, args);
    va_end(args);
    return text;
}

i64 arena_bytes(const struct arena *a) {
    i64 bytes = 0;
    for (const struct arena_block *b = a->block; b; b = b->next) bytes += b->size;
    return bytes;
}

void arena_free(struct arena *a) {
    while (a->block) {
        struct arena_block *next = a->block->next;
        mem_free(a->block);
        a->block = next;
    }
}

/* ---- text: a growing string ---- */
static int text_reserve(struct text *t, i64 more, struct err *e) {
    i64 need;
    if (more < 0 || __builtin_add_overflow(t->size + 1, more, &need))
        return err_memory(e, "out of memory: a text of %lld more bytes wanted", (long long)more);
    if (need <= t->capacity) return 0;
    i64 capacity = i64_max(need, t->capacity < INT64_MAX / 2 ? t->capacity * 2 : need);
    capacity = i64_max(capacity, 64);
    char *data = mem_grow(t->data, t->size, capacity, e);
    if (!data) return -1;
    t->data = data;
    t->capacity = capacity;
    return 0;
}

int text_add(struct text *t, const void *bytes, i64 size, struct err *e) {
    if (text_reserve(t, size, e)) return -1;
    if (size) memcpy(t->data + t->size, bytes, (size_t)size);
    t->size += size;
    t->data[t->size] = 0;
    return 0;
}

int text_printf(struct text *t, struct err *e, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    int size = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (text_reserve(t, size, e)) return -1;
    va_start(args, fmt);
    vsnprintf(t->data + t->size, (size_t)size + 1, fmt, args);
    va_end(args);
    t->size += size;
    return 0;
}

void text_free(struct text *t) {
    mem_free(t->data);
    *t = (struct text){0};
}

bool ends_with(const char *text, const char *end) {
    const size_t n = strlen(text), k = strlen(end);
    return n >= k && !strcmp(text + n - k, end);
}
