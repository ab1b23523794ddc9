/* shim.cc: fibers, collectives, instructions: the part of the shim that runs kernels. Checks are in
 * check.cc, the runtime functions in runtime.cc. */
#include "tests/shim/shim_int.h"

#include <algorithm>
#include <cstdlib>
#include <sys/mman.h>
#include <vector>

struct shim_thread shim_now;
struct shim_place shim_place;
unsigned shim_seed = getenv("HONE_SHIM_SEED") ? (unsigned)atoi(getenv("HONE_SHIM_SEED")) : 1;

namespace {
enum { STACK = 256 << 10, SHARED_MOST = 232448, LANES = 32, SLOT = 64 };

struct fiber {
    void *sp;
    dim3 thread;
    int index;
    bool done, entered;
    u32 barrier;    /* how many it has passed */
    u32 warp_calls; /* how many warp functions, and of them __syncwarp */
    u32 syncs;
    size_t shared_used;
    std::vector<shim_copy> copies; /* asynchronous copies not yet arrived */
    int groups;
};
struct warp {
    unsigned char slot[2][LANES * SLOT];
    u32 arrived, call; /* lanes at call number `call` */
    size_t kind;       /* of that call: what each lane gives, 0: __syncwarp */
};
struct block {
    fiber fibers[SHIM_THREADS];
    warp warps[SHIM_WARPS];
    int order[SHIM_THREADS]; /* in which threads take their turns */
    int alive, waiting, count[2];
    u32 barrier;
    const std::function<void()> *body;
} now;
unsigned char *stacks, *shared_memory;
size_t shared_dynamic, shared_used; /* of the launch: asked for, and with static memory */
size_t shared_fixed;                /* what nvcc says the kernel has of its own */
fiber *running;
void *scheduler_sp;
const char *kernel_name = "";

/* Saves the callee-saved registers on this stack and goes on with another. System V, x86-64. */
extern "C" void shim_switch(void **save, void *to);
asm(".text\n.globl shim_switch\nshim_switch:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");

void place_set() {
    const fiber *f = running;
    shim_place.thread = (u32)f->index, shim_place.entered = f->entered;
    shim_place.me = (u64)shim_place.phase << 32 | (f->syncs & 0x7ffff) << 10 | (u32)f->index;
    shim_place.stack = stacks + (size_t)f->index * STACK;
}

void yield() {
    shim_switch(&running->sp, scheduler_sp);
    place_set(); /* `running` is this fiber again, perhaps in a later phase */
}

void fiber_main() {
    fiber *f = running;
    place_set();
    (*now.body)();
    if (!f->copies.empty())
        shim_complain("a thread ended before its asynchronous copies were waited for");
    f->done = true, now.alive--;
    void *nowhere;
    shim_switch(&nowhere, scheduler_sp);
}

/* Stacks lie a power of two apart: without the shift their tops would share a few lines of cache,
 * and a switch would miss at each. */
void fiber_start(fiber *f, int index) {
    unsigned char *top = stacks + (size_t)(index + 1) * STACK - (size_t)(index % 61) * 1088;
    void **sp = (void **)top - 1; /* ret goes to fiber_main with the stack as after a call */
    *--sp = (void *)fiber_main;
    sp -= 6;
    memset(sp, 0, 6 * sizeof *sp);
    f->sp = sp;
}

u32 random_next() { return shim_seed = shim_seed * 1664525u + 1013904223u; }
void order_shuffle(int *order, int count, int step) { /* of pieces of `step` */
    for (int i = count - 1; i > 0; i--) {
        const int with = (int)(random_next() % (u32)(i + 1));
        std::swap_ranges(order + i * step, order + (i + 1) * step, order + with * step);
    }
}

bool ready(const fiber &f) {
    return !f.done && f.barrier <= now.barrier && f.warp_calls <= now.warps[f.index / LANES].call;
}

/* Threads take turns until none of them can go on. Did any? */
bool threads_run(const int *order, int count) {
    bool any = false;
    for (bool moved = true; moved;) {
        moved = false;
        for (int i = 0; i < count; i++) {
            fiber &f = now.fibers[order[i]];
            if (!ready(f)) continue;
            running = &f, moved = any = true;
            shim_now.thread = f.thread;
            shim_stores_of(f.index);
            shim_switch(&scheduler_sp, f.sp);
        }
    }
    return any;
}

void block_set(dim3 at, dim3 block, dim3 grid, int threads) {
    for (int i = 0; i < threads; i++) {
        fiber &f = now.fibers[i];
        f.thread = dim3((unsigned)i % block.x, (unsigned)i / block.x % block.y,
                        (unsigned)i / (block.x * block.y));
        f.index = now.order[i] = i, f.done = f.entered = false;
        f.barrier = f.warp_calls = f.syncs = 0, f.shared_used = 0, f.groups = 0;
        f.copies.clear();
        fiber_start(&f, i);
    }
    for (int w = 0; w < threads / LANES; w++) now.warps[w].arrived = now.warps[w].call = 0;
    now.alive = threads, now.waiting = 0, now.barrier = 0, now.count[0] = now.count[1] = 0;
    shim_now.block = at, shim_now.block_dim = block, shim_now.grid_dim = grid;
}

/* Between two barriers all threads of a block are mixed, or one warp is done before the next
 * begins, drawn anew for each block; where stores are late always the latter. */
bool block_run(dim3 at, dim3 block, dim3 grid) {
    const int threads = (int)(block.x * block.y * block.z);
    const int piece = shim_late || random_next() >> 31 ? LANES : threads;
    bool good = true;
    block_set(at, block, grid, threads);
    for (int i = 0; i < threads; i += piece) order_shuffle(now.order + i, piece, 1);
    order_shuffle(now.order, threads / piece, piece);
    while (now.alive && good) {
        bool moved = false;
        for (int i = 0; i < threads; i += piece)
            if (threads_run(now.order + i, piece)) moved = true;
        if (now.alive && now.waiting == now.alive) { /* everybody is at the barrier */
            now.waiting = 0, now.barrier++, now.count[(now.barrier + 1) & 1] = 0;
            shim_stores_phase(threads), shim_phase_begin();
            moved = true;
        }
        if (!moved) {
            shim_complain(
                "threads wait for each other: a barrier or warp function that not all reach");
            good = false;
        }
    }
    shim_stores_block(threads);
    shim_poison(shared_memory, shared_used);
    return good;
}

/* Blocks run one after the other; where stores are late, the last first. */
void blocks_run(dim3 grid, dim3 block) {
    const u64 count = (u64)grid.x * grid.y * grid.z;
    shim_stores_launch(true);
    for (u64 i = 0; i < count; i++) {
        const u64 n = shim_late ? count - 1 - i : i;
        shim_block_begin((u32)n);
        if (!block_run(
                dim3((u32)(n % grid.x), (u32)(n / grid.x % grid.y), (u32)(n / grid.x / grid.y)),
                block, grid))
            break;
    }
    shim_stores_launch(false);
}
} // namespace

int shim_launch(const void *kernel, dim3 grid, dim3 block, size_t shared, const char *what,
                std::function<void()> body) {
    if (const int refused = shim_launch_check(kernel, grid, block, shared)) return refused;
    return shim_queue([=] {
        shared_fixed = shim_kernel_fixed(kernel);
        if (!stacks) {
            stacks =
                (unsigned char *)mmap(NULL, (size_t)STACK * SHIM_THREADS, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            shared_memory = (unsigned char *)shim_region(SHARED_MOST);
            shim_poison(shared_memory, SHARED_MOST);
            shim_place.shared = shared_memory, shim_place.stack_size = STACK;
        }
        kernel_name = shim_place.kernel = what, now.body = &body;
        shim_shared_limit(shared_dynamic = shared_used = shared, true);
        shim_kernel_begin();
        blocks_run(grid, block);
        shim_kernel_end();
    });
}

void *shim_shared(size_t bytes) {
    const size_t at = (running->shared_used + 15) / 16 * 16,
                 first = (shared_dynamic + 127) / 128 * 128;
    running->shared_used = at + bytes;
    if (running->shared_used > shared_fixed)
        shim_complain("more static shared memory than tests/shim/kernels.tsv says");
    if (first + at + bytes > SHARED_MOST) shim_complain("too much shared memory");
    if (first + at + bytes > shared_used)
        shim_shared_limit(shared_used = std::min(first + at + bytes, (size_t)SHARED_MOST), false);
    return shared_memory + first + at;
}
void shim_enter() { running->entered = shim_place.entered = true; }
void *shim_dynamic() { return shared_memory; }

void shim_barrier(int predicate, int *count) {
    fiber *f = running;
    const u32 mine = f->barrier + 1;
    now.count[mine & 1] += predicate;
    f->barrier = mine, now.waiting++;
    yield();
    if (count) *count = now.count[mine & 1];
}

void shim_unseen(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }
int shim_lane() { return running->index % LANES; }

/* The lanes of a warp meet. `bytes` 0: __syncwarp, which alone orders memory. */
static const unsigned char *meet(unsigned mask, const void *mine, size_t bytes) {
    fiber *f = running;
    warp &w = now.warps[f->index / LANES];
    const u32 call = f->warp_calls++;
    if (!bytes) f->syncs++;
    if (mask != 0xffffffffu) shim_complain("a warp function without all 32 lanes");
    if (w.arrived && w.kind != bytes) shim_complain("lanes meet in different warp functions");
    w.kind = bytes;
    unsigned char *slot = w.slot[call & 1];
    memcpy(slot + SLOT * shim_lane(), mine, bytes);
    if (++w.arrived == LANES) {
        w.arrived = 0, w.call = call + 1;
        if (!bytes) shim_stores_warp();
        place_set();
    } else
        yield();
    return slot;
}
const unsigned char *shim_warp(unsigned mask, const void *mine, size_t bytes) {
    return meet(mask, mine, bytes);
}
void __syncwarp(unsigned mask) { meet(mask, "", 0); }

/* ---- instructions ---- */

static float bf16_at(u32 pair, int high) {
    return __uint_as_float(high ? pair & 0xffff0000u : pair << 16);
}
void mma_bf16(float d[4], const u32 a[4], const u32 b[2]) {
    struct {
        u32 a[4], b[2];
    } mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    const unsigned char *all = shim_warp(0xffffffffu, &mine, sizeof mine);
    const int group = shim_lane() / 4, t = shim_lane() % 4;
    for (int i = 0; i < 4; i++) {
        const int row = group + 8 * (i / 2), col = 2 * t + i % 2;
        double sum = d[i];
        for (int k = 0; k < 16; k += 2) { /* a: lane 4 * (row % 8) + k % 8 / 2 */
            u32 x, y;
            memcpy(&x, all + SLOT * (4 * (row % 8) + k % 8 / 2) + 4 * (row / 8 + 2 * (k / 8)), 4);
            memcpy(&y, all + SLOT * (4 * col + k % 8 / 2) + 4 * (4 + k / 8), 4);
            for (int high = 0; high < 2; high++) sum += (double)bf16_at(x, high) * bf16_at(y, high);
        }
        d[i] = (float)sum;
    }
}

static void ldmatrix(u32 r[4], const void *row, bool transposed) {
    shim_access(row, 16, false);
    if ((uintptr_t)row % 16) shim_complain("ldmatrix: a row that is not aligned to 16 bytes");
    u16 mine[8];
    memcpy(mine, row, 16);
    const unsigned char *all = shim_warp(0xffffffffu, mine, 16);
    const int group = shim_lane() / 4, t = shim_lane() % 4;
    for (int i = 0; i < 4; i++) {
        u16 pair[2];
        for (int k = 0; k < 2; k++) {
            const int line = transposed ? 2 * t + k : group, at = transposed ? group : 2 * t + k;
            memcpy(&pair[k], all + SLOT * (8 * i + line) + 2 * at, 2);
        }
        r[i] = pair[0] | (u32)pair[1] << 16;
    }
}
void ldmatrix_x4(u32 r[4], const void *row) { ldmatrix(r, row, false); }
void ldmatrix_x4_trans(u32 r[4], const void *row) { ldmatrix(r, row, true); }

void copy_async16(void *shared, const void *global, bool valid) {
    shim_copy c = {shared, valid ? global : NULL, running->groups};
    if ((uintptr_t)shared % 16 || (valid && (uintptr_t)global % 16))
        shim_complain("an asynchronous copy that is not aligned to 16 bytes");
    if (valid) shim_access(global, 16, false);
    shim_access(shared, 16, true); /* from here on it may arrive */
    shim_poison(shared, 16);
    running->copies.push_back(c);
}
void copy_async_commit() { running->groups++; }
void shim_copy_wait(int left) { /* copies of groups before groups - left arrive now */
    std::vector<shim_copy> &all = running->copies;
    size_t kept = 0;
    for (const shim_copy &c : all) {
        if (c.group >= running->groups - left) {
            all[kept++] = c;
            continue;
        }
        shim_access(c.to, 16, true);
        if (c.from)
            memcpy(c.to, c.from, 16);
        else
            memset(c.to, 0, 16);
    }
    all.resize(kept);
}

void shim_complain(const char *what) {
    shim_finding("%s: block %u, thread %u: %s", kernel_name, shim_place.block,
                 running ? (unsigned)running->index : 0, what);
}
