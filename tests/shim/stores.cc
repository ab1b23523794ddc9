/* stores.cc: what other threads see of a store, and when. CUDA lets a store be seen at any time
 * until the synchronisation that promises it. The shim runs each test at both ends of that:
 *   shim_late 0   a store is seen at once, threads of all warps mixed;
 *   shim_late 1   as late as allowed: by the lanes of the warp at the next __syncwarp, by the block
 *                 at the next barrier, by other blocks when the launch has ended.
 * So a reader that nothing orders after the writer takes the old value, or one ordered too little
 * before the next writer takes the new one, and a missing barrier is a wrong bit and not only a
 * report of check.cc. A thread always sees its own stores.
 *
 * The hooks of check.cc see addresses and cannot change what is loaded. They need not: one fiber
 * runs at a time, so memory itself can be what that fiber sees. Before each store the old bytes go
 * to a log. When the fiber stops, its log is undone from the end, which leaves in the log what it
 * stored; when it goes on, the log is done again from the front. Publishing is moving a log one
 * level up: fiber, warp, block, launch. A level's log is undone while another of that level runs.
 *
 * A log is as long as the stores of a phase. That of a fiber is undone and redone at each shuffle,
 * so past FIBER_MOST it is published to the warp early, which CUDA may do too.
 *
 * Not shown: a load that the hardware or compiler moves up, over a shuffle, and a store that it
 * moves up before another lane's load. check.cc reports the lack of order that allows them. */
#include "tests/shim/shim_int.h"

#include <vector>

int shim_late;

namespace {
enum { FIBER_MOST = 256 };

struct store {
    u64 at : 48, bytes : 8, shared : 8;
    u64 value; /* what is not in memory: the old bytes while the log is done, the new while not */
};
typedef std::vector<store> log;
log fibers[SHIM_THREADS], warps[SHIM_WARPS], block, launch;
int running = -1, shown = -1; /* the fiber and the warp whose logs are done; -1: none */

void swap(store &s) {
    u64 now = 0;
    memcpy(&now, (void *)(uintptr_t)s.at, s.bytes);
    memcpy((void *)(uintptr_t)s.at, &s.value, s.bytes);
    s.value = now;
}
void undo(log &l) {
    for (size_t i = l.size(); i-- > 0;) swap(l[i]);
}
void redo(log &l) {
    for (store &s : l) swap(s);
}
void publish(int fiber) { /* to its warp; both done */
    log &from = fibers[fiber], &to = warps[fiber / 32];
    to.insert(to.end(), from.begin(), from.end()), from.clear();
}
} // namespace

void shim_store(void *p, size_t bytes, bool shared) {
    if (running < 0) return;
    for (size_t i = 0; i < bytes; i += 8) {
        store s = {(uintptr_t)p + i, bytes - i < 8 ? bytes - i : 8, shared, 0};
        memcpy(&s.value, (unsigned char *)p + i, s.bytes);
        fibers[running].push_back(s);
    }
}

void shim_stores_of(int fiber) {
    if (!shim_place.late || fiber == running) return;
    if (running >= 0) {
        if (fibers[running].size() > FIBER_MOST)
            publish(running);
        else
            undo(fibers[running]);
    }
    const int warp = fiber < 0 ? -1 : fiber / 32;
    if (warp != shown) {
        if (shown >= 0) undo(warps[shown]);
        if (warp >= 0) redo(warps[warp]);
        shown = warp;
    }
    if (fiber >= 0) redo(fibers[fiber]);
    running = fiber;
}

void shim_stores_warp() {
    if (running < 0) return;
    publish(running);
    for (int f = running / 32 * 32, end = f + 32; f < end; f++) redo(fibers[f]), publish(f);
}

void shim_stores_phase(int threads) {
    if (!shim_place.late) return;
    shim_stores_of(-1);
    for (int w = threads / 32 - 1; w >= 0; w--) { /* in no order that matters */
        redo(warps[w]);
        for (int f = 32 * w; f < 32 * w + 32; f++) redo(fibers[f]), publish(f);
        for (const store &s : warps[w])
            if (!s.shared) block.push_back(s);
        warps[w].clear();
    }
}

void shim_stores_block(int threads) {
    shim_stores_phase(threads);
    undo(block);
    launch.insert(launch.end(), block.begin(), block.end()), block.clear();
}

void shim_stores_launch(bool begin) {
    if (begin)
        shim_place.late = shim_check && shim_late;
    else
        redo(launch), launch.clear(), shim_place.late = false;
}
