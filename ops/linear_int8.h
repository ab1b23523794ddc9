/* linear_int8.h: activations as whole numbers, as the CPU kernels of linear_int8 have them. Of ops
 * alone. */
#ifndef HONE_LINEAR_INT8_H
#define HONE_LINEAR_INT8_H

#include "ops/int8_codes.h"

struct int8_x { /* 32 activations, of block types of 32 */
    signed char x[INT8_BLOCK];
    i32 less
        [8]; /* what the sum of each four begins with: -zero * (their sum), so that products with
                    codes give those with codes less zero */
    float e, sum;
};
struct int8_x256 { /* 256, of K types */
    signed char x[INT8_SUPER];
    int16_t half[16], part[8]; /* sums of 16, of 32 */
    float e;
    i32 unused[3];
};
static inline i64 int8_scratch(i64 n, i64 in, enum int8_form f) {
    const i64 block = int8_elements(f);
    const i64 size =
        block == INT8_BLOCK ? (i64)sizeof(struct int8_x) : (i64)sizeof(struct int8_x256);
    return round_up(n * (in / block) * size, 64);
}

#endif
