/* philox.h: the bare generator and its f64 numbers: philox.c for the CPU, and the GPU's kernels
 * (ops/device/cuda_math.h), which define M_FN. What it is and why: philox.c. */
#ifndef HONE_PHILOX_H
#define HONE_PHILOX_H

#ifndef M_FN
#define M_FN static inline
#endif

M_FN void philox_rounds(const u32 key[2], const u32 counter[4], u32 out[4]) {
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

M_FN void philox_block(const struct rng *r, u64 index, u32 out[4]) {
    const u32 key[2] = {(u32)r->seed, (u32)(r->seed >> 32)};
    const u32 counter[4] = {(u32)index, (u32)(index >> 32), r->stream,
                            r->purpose << 26 | (r->step & 0x3ffffff)};
    philox_rounds(key, counter, out);
}

M_FN double uniform_of_words(const u32 word[2]) {
    u64 bits = (u64)word[1] << 32 | word[0];
    return ((double)(i64)(bits >> 12) + 0.5) * 0x1p-52;
}

M_FN double philox_f64(const struct rng *r, u64 index) {
    u32 word[4];
    philox_block(r, index >> 1, word);
    const u32 pair[2] = {index & 1 ? word[2] : word[0], index & 1 ? word[3] : word[1]};
    return uniform_of_words(pair);
}

#endif
