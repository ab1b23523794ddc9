/* elementwise_cpu.c: one pass over memory; formulas in elementwise.c. Work is cut in blocks of
 * 1,024 elements. */
#include "base/v16.h"
#include "ops/ops_int.h"

enum { BLOCK = 1024 };

V16_FN void swiglu_span(const struct op_call *c, i64 begin, i64 end, bool half) {
    for (i64 i = begin; i < end; i += 16) {
        const v16 g = v16_get_n(c->in[0].data, i, end - i, half),
                  up = v16_get_n(c->in[1].data, i, end - i, half);
        v16_put_n(c->out[0].data, i, v16_mul(v16_mul(g, v16_sigmoid(g)), up), end - i, half);
    }
}
V16_FN void swiglu_back_span(const struct op_call *c, i64 begin, i64 end, bool half) {
    const v16 one = v16_set(1);
    for (i64 i = begin; i < end; i += 16) {
        const i64 n = end - i;
        const v16 dy = v16_get_n(c->in[0].data, i, n, half),
                  g = v16_get_n(c->in[1].data, i, n, half);
        const v16 up = v16_get_n(c->in[2].data, i, n, half), s = v16_sigmoid(g);
        const v16 slope = v16_mul(s, v16_fma(g, v16_sub(one, s), one));
        if (c->out[0].data) v16_put_n(c->out[0].data, i, v16_mul(v16_mul(dy, up), slope), n, half);
        if (c->out[1].data) v16_put_n(c->out[1].data, i, v16_mul(dy, v16_mul(g, s)), n, half);
    }
}
V16_FN void add_span(const struct op_call *c, i64 begin, i64 end, bool half) {
    for (i64 i = begin; i < end; i += 16)
        v16_put_n(c->out[0].data, i,
                  v16_add(v16_get_n(c->in[0].data, i, end - i, half),
                          v16_get_n(c->in[1].data, i, end - i, half)),
                  end - i, half);
}

#define SPAN_TASK(name)                                                                            \
    static void name##_task(void *arg, i64 begin, i64 end, int worker) {                           \
        (void)worker;                                                                              \
        const struct op_call *c = arg;                                                             \
        const i64 last = i64_min(end * BLOCK, view_count(&c->in[0]));                              \
        if (is_half(&c->in[0]))                                                                    \
            name##_span(c, begin *BLOCK, last, true);                                              \
        else                                                                                       \
            name##_span(c, begin *BLOCK, last, false);                                             \
    }                                                                                              \
    CPU_KERNEL(name) {                                                                             \
        return (void)e,                                                                            \
               pool_run((view_count(&c->in[0]) + BLOCK - 1) / BLOCK, name##_task, (void *)c), 0;   \
    }
SPAN_TASK(swiglu)
SPAN_TASK(swiglu_back)
SPAN_TASK(add)
