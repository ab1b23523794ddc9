/* quant8_cpu.c: 8-bit blocks; formulas in quant8.c. The search for a code is eight steps without a
 * branch, which the processor overlaps between values. */
#include "base/quant.h"
#include "base/v16.h"
#include "ops/ops_int.h"

struct job {
    const struct op_call *c;
    float middle[255];
};
static void quant8_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct job *j = arg;
    const float *x = j->c->in[0].data;
    u8 *codes = j->c->out[0].data;
    for (i64 b = begin; b < end; b++) {
        const i64 first = b * QUANT_BLOCK2,
                  n = i64_min(QUANT_BLOCK2, view_count(&j->c->in[0]) - first);
        v16 top = v16_set(0);
        for (i64 i = 0; i < n; i += 16)
            top = v16_max(top, v16_abs(v16_load_n(x + first + i, n - i)));
        const float most = v16_top(top);
        const v16 by = v16_set(most > 0 ? most : 1);
        ((float *)j->c->out[1].data)[b] = most;
        for (i64 i = 0; i < n; i += 16) {
            float z[16];
            v16_store(z, v16_div(v16_load_n(x + first + i, n - i), by));
            for (int k = 0; k < 16 && i + k < n; k++)
                codes[first + i + k] = quant8_nearest(j->middle, z[k]);
        }
    }
}
CPU_KERNEL(quant8) {
    (void)e;
    struct job j = {.c = c};
    quant8_middles(j.middle, c->in[1].data);
    pool_run(view_count(&c->out[1]), quant8_task, &j);
    return 0;
}

static void dequant8_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    const u8 *codes = c->in[0].data;
    const float *absmax = c->in[1].data, *map = c->in[2].data;
    const i64 last = i64_min(end * QUANT_BLOCK2, view_count(&c->in[0]));
    for (i64 i = begin * QUANT_BLOCK2; i < last; i += 16) {
        float x[16];
        for (int k = 0; k < 16; k++) x[k] = i + k < last ? map[codes[i + k]] : 0;
        v16_store_n((float *)c->out[0].data + i,
                    v16_mul(v16_load(x), v16_set(absmax[i / QUANT_BLOCK2])), last - i);
    }
}
CPU_KERNEL(dequant8) {
    (void)e;
    pool_run(view_count(&c->in[1]), dequant8_task, (void *)c);
    return 0;
}
