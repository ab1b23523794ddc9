/* philox.c: counter-based random numbers (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as
 * easy as 1, 2, 3", SC 2011). A number is a function of seed, purpose, step, stream and index, so
 * there is no state to save and any thread may compute any part. Rejected: a sequential generator,
 * whose order would tie results to the number of threads. */
#include "base/base.h"
#include "base/philox.h"

void philox(const u32 key[2], const u32 counter[4], u32 out[4]) {
    philox_rounds(key, counter, out);
}
void rng_block(const struct rng *r, u64 index, u32 out[4]) { philox_block(r, index, out); }

float rng_uniform(const struct rng *r, u64 index) {
    u32 word[4];
    rng_block(r, index >> 2, word);
    return ((float)(word[index & 3] >> 9) + 0.5f) * 0x1p-23f;
}

double rng_uniform_f64(const struct rng *r, u64 index) { return philox_f64(r, index); }

float rng_normal(const struct rng *r, u64 index) {
    u32 word[4];
    rng_block(r, index >> 1, word);
    double radius = __builtin_sqrt(-2 * m_log(uniform_of_words(word)));
    double angle = 0x1.921fb54442d18p+2 * uniform_of_words(word + 2);
    return (float)(radius * (index & 1 ? m_sin(angle) : m_cos(angle)));
}
