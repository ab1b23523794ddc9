/* philox.c: counter-based random numbers (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as
 * easy as 1, 2, 3", SC 2011). A number is a function of seed, purpose, step, stream and index, so
 * there is no state to save and any thread may compute any part. Rejected: a sequential generator,
 * whose order would tie results to the number of threads. */
#include "base/base.h"

void philox(const u32 key[2], const u32 counter[4], u32 out[4]) {
    u32 k0 = key[0], k1 = key[1];
    u32 c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    for (int round = 0; round < 10; round++) {
        u64 a = (u64)0xd2511f53 * c0, b = (u64)0xcd9e8d57 * c2;
        c0 = (u32)(b >> 32) ^ c1 ^ k0;
        c2 = (u32)(a >> 32) ^ c3 ^ k1;
        c1 = (u32)b;
        c3 = (u32)a;
        k0 += 0x9e3779b9;
        k1 += 0xbb67ae85;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

void rng_block(const struct rng *r, u64 index, u32 out[4]) {
    const u32 key[2] = {(u32)r->seed, (u32)(r->seed >> 32)};
    const u32 counter[4] = {(u32)index, (u32)(index >> 32), r->stream,
                            r->purpose << 26 | (r->step & 0x3ffffff)};
    philox(key, counter, out);
}

float rng_uniform(const struct rng *r, u64 index) {
    u32 word[4];
    rng_block(r, index >> 2, word);
    return ((float)(word[index & 3] >> 9) + 0.5f) * 0x1p-23f;
}

static double uniform_of_words(const u32 word[2]) {
    u64 bits = (u64)word[1] << 32 | word[0];
    return ((double)(i64)(bits >> 12) + 0.5) * 0x1p-52;
}

double rng_uniform_f64(const struct rng *r, u64 index) {
    u32 word[4];
    rng_block(r, index >> 1, word);
    return uniform_of_words(word + 2 * (index & 1));
}

float rng_normal(const struct rng *r, u64 index) {
    u32 word[4];
    rng_block(r, index >> 1, word);
    double radius = __builtin_sqrt(-2 * m_log(uniform_of_words(word)));
    double angle = 0x1.921fb54442d18p+2 * uniform_of_words(word + 2);
    return (float)(radius * (index & 1 ? m_sin(angle) : m_cos(angle)));
}
