/* dropout_cpu.c: formulas and random numbers: dropout.c. */
#include "base/v16.h"
#include "ops/ops_int.h"

V16_FN void dropout_row(const struct op_call *c, i64 n, bool is_bf16) {
    const struct dropout_attr *a = c->attr;
    const i32 *place = c->in[1].data;
    const i64 cols = c->in[0].dim[1], first = (place[1] + n) * ((cols + 3) / 4);
    const struct rng r = {a->seed, RNG_DROPOUT, (u32)place[0], a->stream};
    const double least = a->p * 0x1p32;
    const float scale = (float)(1 / (1 - a->p));
    for (i64 i = 0; i < cols; i += 16) {
        u32 word[16];
        float by[16];
        for (int k = 0; k < 16 && i + k < cols; k += 4)
            rng_block(&r, (u64)(first + (i + k) / 4), word + k);
        for (int k = 0; k < 16; k++) by[k] = i + k < cols && (double)word[k] >= least ? scale : 0;
        const v16 factor = v16_load(by),
                  x = v16_get_n(c->in[0].data, n * cols + i, cols - i, is_bf16);
        const v16 y = v16_select(v16_lt(v16_set(0), factor), v16_mul(x, factor), v16_set(0));
        v16_put_n(c->out[0].data, n * cols + i, y, cols - i, is_bf16);
    }
}
static void dropout_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    for (i64 n = begin; n < end; n++)
        if (view_is_bf16(&c->in[0]))
            dropout_row(c, n, true);
        else
            dropout_row(c, n, false);
}
CPU_KERNEL(dropout) { return (void)e, pool_run(c->in[0].dim[0], dropout_rows, (void *)c), 0; }
