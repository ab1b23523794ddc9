/* ema_cpu.c: sixteen columns at a time, down or up the rows; formulas in ema.c. */
#include "base/v16.h"
#include "ops/ops_int.h"

V16_FN void forward(const struct op_call *c, i64 k, bool is_bf16) {
    const float a = (float)((const struct ema_attr *)c->attr)->decay, b = 1 - a;
    const i64 n = c->in[0].dim[0], d = c->in[0].dim[1];
    const i32 *position = c->in[1].data, *slot = c->in[2].data;
    float *state = c->out[1].data;
    v16 y = v16_set(0);
    for (i64 i = 0; i < n; i++) {
        if (slot) y = v16_get_n(state, slot[i] * d + k, d - k, false);
        const v16 x = v16_mul(v16_set(b), v16_get_n(c->in[0].data, i * d + k, d - k, is_bf16));
        y = v16_fma(v16_set(a), position[i] ? y : v16_set(0), x);
        v16_put_n(c->out[0].data, i * d + k, y, d - k, is_bf16);
        if (slot) v16_put_n(state, slot[i] * d + k, y, d - k, false);
    }
}
V16_FN void backward(const struct op_call *c, i64 k, bool is_bf16) {
    const float a = (float)((const struct ema_attr *)c->attr)->decay, b = 1 - a;
    const i64 n = c->in[0].dim[0], d = c->in[0].dim[1];
    const i32 *position = c->in[1].data;
    v16 s = v16_set(0);
    for (i64 i = n; i-- > 0;) {
        if (i + 1 == n || !position[i + 1]) s = v16_set(0);
        s = v16_fma(v16_set(a), s, v16_get_n(c->in[0].data, i * d + k, d - k, is_bf16));
        v16_put_n(c->out[0].data, i * d + k, v16_mul(v16_set(b), s), d - k, is_bf16);
    }
}
static void forward_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    for (i64 k = begin; k < end; k++)
        if (view_is_bf16(&c->in[0]))
            forward(c, 16 * k, true);
        else
            forward(c, 16 * k, false);
}
static void backward_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    for (i64 k = begin; k < end; k++)
        if (view_is_bf16(&c->in[0]))
            backward(c, 16 * k, true);
        else
            backward(c, 16 * k, false);
}
CPU_KERNEL(ema) {
    return (void)e, pool_run((c->in[0].dim[1] + 15) / 16, forward_task, (void *)c), 0;
}
CPU_KERNEL(ema_back) {
    return (void)e, pool_run((c->in[0].dim[1] + 15) / 16, backward_task, (void *)c), 0;
}
CPU_KERNEL(ema_step) {
    const i32 *slot = c->in[2].data;
    for (i64 i = 0; i < c->in[0].dim[0]; i++)
        if (slot[i] < 0 || slot[i] >= c->out[1].dim[0])
            return err_failed(e, "operation ema_step: row %lld has slot %d of %lld", (long long)i,
                              slot[i], (long long)c->out[1].dim[0]);
    return pool_run((c->in[0].dim[1] + 15) / 16, forward_task, (void *)c), 0;
}
