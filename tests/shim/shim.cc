/* shim.cc: fibers, collectives, instructions: the part of the shim that runs kernels. Checks are in
 * check.cc, the runtime functions in runtime.cc. */
#include "tests/shim/shim_int.h"

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
    struct shim_thread now;
    int index;
    bool done, entered;
    u32 barrier;    /* how many it has passed */
    u32 warp_calls; /* how many warp functions */
    size_t shared_used;
    std::vector<shim_copy> copies; /* asynchronous copies not yet arrived */
    int groups;
};
struct warp {
    unsigned char slot[2][LANES * SLOT];
    u32 arrived, call; /* lanes at call number `call` */
};
struct block {
    std::vector<fiber> fibers;
    std::vector<warp> warps;
    int alive, waiting, count[2];
    u32 barrier;
    const std::function<void()> *body;
} now;
unsigned char *stacks, *shared_memory;
size_t shared_dynamic, shared_fixed; /* of the launch; what nvcc says the kernel has of its own */
int stacks_made;
fiber *running;
void *scheduler_sp;
const char *kernel_name = "";

/* Saves the callee-saved registers on this stack and goes on with another. System V, x86-64. */
extern "C" void shim_switch(void **save, void *to);
asm(".text\n.globl shim_switch\nshim_switch:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");

void yield() {
    fiber *f = running;
    f->now = shim_now;
    shim_switch(&f->sp, scheduler_sp);
    shim_now = f->now;
}

void fiber_main() {
    fiber *f = running;
    shim_now = f->now;
    (*now.body)();
    if (!f->copies.empty())
        shim_complain("a thread ended before its asynchronous copies were waited for");
    f->done = true, now.alive--;
    void *nowhere;
    shim_switch(&nowhere, scheduler_sp);
}

void fiber_start(fiber *f, int index) {
    unsigned char *top = stacks + (size_t)(index + 1) * STACK;
    void **sp = (void **)top - 1; /* ret goes to fiber_main with the stack as after a call */
    *--sp = (void *)fiber_main;
    sp -= 6;
    memset(sp, 0, 6 * sizeof *sp);
    f->sp = sp;
}

u32 random_next() { return shim_seed = shim_seed * 1664525u + 1013904223u; }

bool ready(const fiber &f) {
    if (f.done) return false;
    const warp &w = now.warps[(size_t)f.index / LANES];
    return f.barrier <= now.barrier && f.warp_calls <= w.call;
}

void place_set() {
    const fiber *f = running;
    shim_place.thread = (u32)f->index, shim_place.epoch = f->barrier,
    shim_place.warp_epoch = f->warp_calls;
    shim_place.entered = f->entered;
    shim_place.stack = stacks + (size_t)f->index * STACK, shim_place.stack_size = STACK;
}

bool block_run(dim3 at, dim3 block, dim3 grid) {
    const int threads = (int)(block.x * block.y * block.z);
    now.fibers.assign((size_t)threads, fiber{});
    now.warps.assign((size_t)(threads + LANES - 1) / LANES, warp{});
    now.alive = threads, now.waiting = 0, now.barrier = 0, now.count[0] = now.count[1] = 0;
    std::vector<int> order((size_t)threads);
    for (int i = 0; i < threads; i++) {
        fiber &f = now.fibers[(size_t)i];
        f.index = i, order[(size_t)i] = i;
        f.now.thread = dim3((unsigned)i % block.x, (unsigned)i / block.x % block.y,
                            (unsigned)i / (block.x * block.y));
        f.now.block = at, f.now.block_dim = block, f.now.grid_dim = grid;
        fiber_start(&f, i);
    }
    for (int i = threads - 1; i > 0; i--)
        std::swap(order[(size_t)i], order[random_next() % (u32)(i + 1)]);
    shim_poison(shared_memory, SHARED_MOST);
    while (now.alive) {
        bool moved = false;
        for (int i : order) {
            fiber &f = now.fibers[(size_t)i];
            if (!ready(f)) continue;
            running = &f, moved = true;
            place_set();
            shim_switch(&scheduler_sp, f.sp);
        }
        if (now.alive && now.waiting == now.alive) { /* everybody is at the barrier */
            now.waiting = 0, now.barrier++, now.count[(now.barrier + 1) & 1] = 0;
            moved = true;
        }
        if (!moved) {
            shim_complain(
                "threads wait for each other: a barrier or warp function that not all reach");
            return false;
        }
    }
    return true;
}
} // namespace

int shim_launch(const void *kernel, dim3 grid, dim3 block, size_t shared, const char *what,
                std::function<void()> body) {
    if (const int refused = shim_launch_check(kernel, grid, block, shared)) return refused;
    return shim_queue([=] {
        shared_fixed = shim_kernel_fixed(kernel);
        if (!stacks) {
            stacks = (unsigned char *)mmap(NULL, (size_t)STACK * 1024, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            shared_memory = (unsigned char *)shim_region(SHARED_MOST);
        }
        (void)stacks_made;
        kernel_name = what, shared_dynamic = shared, now.body = &body;
        shim_place.kernel = what, shim_place.launch++, shim_place.shared = shared_memory;
        shim_place.shared_size = SHARED_MOST;
        shim_kernel_begin();
        u32 number = 0;
        bool good = true;
        for (unsigned z = 0; z < grid.z && good; z++)
            for (unsigned y = 0; y < grid.y && good; y++)
                for (unsigned x = 0; x < grid.x && good; x++) {
                    shim_place.block = number++;
                    good = block_run(dim3(x, y, z), block, grid);
                }
        shim_kernel_end();
    });
}

void *shim_shared(size_t bytes) {
    const size_t at = (running->shared_used + 15) / 16 * 16;
    running->shared_used = at + bytes;
    if (running->shared_used > shared_fixed)
        shim_complain("more static shared memory than tests/shim/kernels.tsv says");
    return shared_memory + (shared_dynamic + 127) / 128 * 128 + at;
}
void shim_enter() { running->entered = shim_place.entered = true; }
void *shim_dynamic() { return shared_memory; }

void shim_barrier(int predicate, int *count) {
    fiber *f = running;
    const u32 mine = f->barrier + 1;
    now.count[mine & 1] += predicate;
    f->barrier = mine, now.waiting++;
    yield();
    place_set();
    if (count) *count = now.count[mine & 1];
}

void shim_unseen(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }
int shim_lane() { return running->index % LANES; }

const unsigned char *shim_warp(unsigned mask, const void *mine, size_t bytes) {
    fiber *f = running;
    warp &w = now.warps[(size_t)f->index / LANES];
    const u32 call = f->warp_calls++;
    if (mask != 0xffffffffu) shim_complain("a warp function without all 32 lanes");
    unsigned char *slot = w.slot[call & 1];
    memcpy(slot + SLOT * shim_lane(), mine, bytes);
    if (++w.arrived == LANES)
        w.arrived = 0, w.call = call + 1;
    else
        yield();
    place_set();
    return slot;
}

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
        for (int k = 0; k < 16; k++) { /* a: lane 4 * (row % 8) + k % 8 / 2 */
            u32 x[6], y[6];
            memcpy(x, all + SLOT * (4 * (row % 8) + k % 8 / 2), sizeof x);
            memcpy(y, all + SLOT * (4 * col + k % 8 / 2), sizeof y);
            sum += (double)bf16_at(x[row / 8 + 2 * (k / 8)], k % 2) * bf16_at(y[4 + k / 8], k % 2);
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
    running->copies.push_back(c);
}
void copy_async_commit() { running->groups++; }
void shim_copy_wait(int left) { /* copies of groups before groups - left arrive now */
    std::vector<shim_copy> rest;
    for (const shim_copy &c : running->copies) {
        if (c.group >= running->groups - left) {
            rest.push_back(c);
            continue;
        }
        if (c.from)
            memcpy(c.to, c.from, 16);
        else
            memset(c.to, 0, 16);
        shim_access(c.to, 16, true);
    }
    running->copies = rest;
}

void shim_complain(const char *what) {
    shim_finding("%s: block %u, thread %u: %s", kernel_name, shim_place.block,
                 running ? (unsigned)running->index : 0, what);
}
