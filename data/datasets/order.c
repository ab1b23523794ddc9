/* order.c: the order in which training sees samples, computed by position.
 *
 * A balanced Feistel network over the smallest even number of bits that holds `count`, walked along
 * its cycle until the value falls into [0, count) (Black and Rogaway 2002, "Ciphers with arbitrary
 * finite domains"): fewer than four steps expected. Eight rounds of Philox, each keyed by (seed,
 * epoch, stream). A permutation is thus a few numbers: nothing to store, to save, or to exchange
 * between processes. Rejected: a shuffled index file, which must be kept, grows with the data, and
 * has to be made anew for each epoch. */
#include "data/datasets/datasets.h"

enum { ROUNDS = 8 };

struct order order_new(u64 count, u64 seed, u32 epoch, u32 stream) {
    struct order o = {count, seed, epoch, stream, 1};
    while (o.half_bits < 32 && (count - 1) >> (2 * o.half_bits)) o.half_bits++;
    return o;
}

u64 order_at(const struct order *o, u64 sample) {
    const struct rng rng = {o->seed, RNG_ORDER, o->epoch, o->stream};
    const u32 mask = (u32)(((u64)1 << o->half_bits) - 1);
    u64 at = sample;
    do {
        u32 left = (u32)(at >> o->half_bits), right = (u32)at & mask, block[4];
        for (u32 round = 0; round < ROUNDS; round++) {
            rng_block(&rng, (u64)round << 32 | right, block);
            u32 next = left ^ (block[0] & mask);
            left = right, right = next;
        }
        at = (u64)left << o->half_bits | right;
    } while (at >= o->count);
    return at;
}
