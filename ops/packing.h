/* packing.h: the packed types: elements of few bits that a product decodes on its way. Internal to
 * ops; what other folders see of them is in ops.h.
 *
 * A packed type is one header, `packing_NAME.h`, which is included below, and a row of
 * PACKING_LIST: its constant, its name in recipes and flags, and its frame. It is a header because
 * three compilers read its formulas: once per instruction set (packing_cpu.c), nvcc
 * (packing_cuda.cu), and packing.c, which also takes its functions for the host. They include
 * base/v16.h or device/cuda.h before this file. No operation knows a type; a product asks
 * view->packing.
 *
 * For row X(id, text, frame) the header has PACKING_id, the members block, bytes and encode of
 * struct packing, and what the frame asks for:
 *   scaled  id_run(v, i): the scale of element i, how many elements from i on share it, and their
 *           codes, a byte each; id_value(code), of the code as a number from 0 to 255, in the
 *           vocabulary of base/v16.h. An element is value * scale in f32, rounded once.
 *   groups  id_group(block, k): what decodes elements 16 k to 16 k + 15 of a block (struct
 *           packing_group), and constants: id_BLOCK elements and id_BYTES bytes of a block,
 *           id_ZERO, the code that means 0, id_HIGH, where bits beyond the fourth are. An element
 *           is (code - zero) * scale + offset in f32, the product rounded, then the sum. That is
 *           what ggml decodes, which subtracts: a - b is a + -b in every bit, and x + -0 is x, so
 *           that the types without a minimum have the offset -0.
 *   table   nothing: 4-bit codes, with blocks and tables as base/quant.h has them (packing_nf4.h).
 * Rejected: one kernel that reads tables of 256 values (a gather for what is one conversion); codes
 * of `groups` as bytes in memory, as `scaled` has them (a store and a load more for each). */
#ifndef HONE_PACKING_H
#define HONE_PACKING_H

#include "base/quant.h"
#include "ops/ops_int.h"

struct packing_run {
    float scale;
    i64 count;
    const u8 *code;
};

enum { PACKING_NONE = 0, PACKING_BITS = -1 }; /* id_HIGH; above 0: the mask of bits in `high` */
struct packing_group {
    float scale, offset;
    const u8 *low;  /* [16]: bits `shift` to `shift` + 3 of a byte are the low bits of a code */
    const u8 *high; /* [16]: bits from `high_shift` on are its next; or those are in `bits` */
    u32 bits;
    int shift, high_shift;
};

/* A whole weight to be encoded, a task for so many blocks. */
enum { PACKING_TASK = 1024 };
struct packing_job {
    const struct view *v;
    const void *from;
    bool is_bf16;
};
static inline float packing_get(const struct packing_job *j, i64 i) {
    return j->is_bf16 ? bf16_to_f32(((const u16 *)j->from)[i]) : ((const float *)j->from)[i];
}
V16_FN float packing_bits(u32 u) {
    union {
        u32 u;
        float f;
    } v;
    v.u = u;
    return v.f;
}
V16_FN float packing_f16(u32 h) { /* finite */
    const u32 rest = h & 0x7fffu;
    const float size =
        rest < 0x400 ? (float)rest * 0x1p-24f : packing_bits((rest << 13) + (112u << 23));
    return h & 0x8000u ? -size : size;
}
static inline float packing_magnitude(float x) { return x < 0 ? -x : x; }

#include "ops/packing_blocks.h"
#include "ops/packing_f8.h"
#include "ops/packing_nf4.h"
#include "ops/packing_q4_0.h"
#include "ops/packing_q4_1.h"
#include "ops/packing_q4_k.h"
#include "ops/packing_q5_0.h"
#include "ops/packing_q5_1.h"
#include "ops/packing_q5_k.h"
#include "ops/packing_q6_k.h"
#include "ops/packing_q8_0.h"

#define PACKING_LIST(X)                                                                            \
    X(nf4, "nf4", table)                                                                           \
    X(fp4, "fp4", table)                                                                           \
    X(nf4_double, "nf4-double", table)                                                             \
    X(fp4_double, "fp4-double", table)                                                             \
    X(q8_0, "q8_0", scaled)                                                                        \
    X(f8, "f8", scaled)                                                                            \
    X(q4_0, "q4_0", groups)                                                                        \
    X(q4_1, "q4_1", groups)                                                                        \
    X(q5_0, "q5_0", groups)                                                                        \
    X(q5_1, "q5_1", groups)                                                                        \
    X(q4_k, "q4_k", groups)                                                                        \
    X(q5_k, "q5_k", groups)                                                                        \
    X(q6_k, "q6_k", groups)

#define X(id, text, frame)                                                                         \
    extern const struct packing packing_##id;                                                      \
    extern int packing_##id##_cuda(void *to, const struct view *v, bool is_bf16, struct err *e)    \
        __attribute__((weak));                                                                     \
    extern int packing_##id##_cuda_rows(void *to, const struct view *v, const i32 *id, i64 count,  \
                                        bool is_bf16, struct err *e) __attribute__((weak));
PACKING_LIST(X)
#undef X

#endif
