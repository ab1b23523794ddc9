/* cast_cpu.c: formula in cast.c. Turned, 16 columns become 16 rows that are written side by side.
 */
#include "base/v16.h"
#include "ops/ops_int.h"

enum { VALUES = 4096 };

struct call {
    const struct op_call *c;
    float f;
};
static void straight_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct call *t = arg;
    const struct view *x = &t->c->in[0], *y = &t->c->out[0];
    const v16 f = v16_set(t->f);
    const i64 last = i64_min(end * VALUES, view_count(x));
    for (i64 i = begin * VALUES; i < last; i += 16)
        v16_put_n(y->data, i, v16_mul(v16_get_n(x->data, i, last - i, view_is_bf16(x)), f),
                  last - i, view_is_bf16(y));
}
static void turned_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct call *t = arg;
    const struct view *x = &t->c->in[0], *y = &t->c->out[0];
    const i64 rows = x->dim[0], cols = x->dim[1];
    const v16 f = v16_set(t->f);
    for (i64 block = begin; block < end; block++)
        for (i64 i = 0; i < rows; i++) {
            const i64 first = block * 16, n = i64_min(16, cols - first);
            const v16 v = v16_mul(v16_get_n(x->data, i * cols + first, n, view_is_bf16(x)), f);
            float plain[16];
            u16 half[16];
            if (view_is_bf16(y))
                v16_store_bf16(half, v);
            else
                v16_store(plain, v);
            for (i64 k = 0; k < n; k++)
                if (view_is_bf16(y))
                    ((u16 *)y->data)[(first + k) * rows + i] = half[k];
                else
                    ((float *)y->data)[(first + k) * rows + i] = plain[k];
        }
}
CPU_KERNEL(cast) {
    (void)e;
    const struct cast_attr *a = c->attr;
    const double *sum = c->in[1].data, root = sum ? __builtin_sqrt(*sum) : 0;
    struct call t = {c, (float)(sum ? a->factor / (root > a->eps ? root : a->eps) : a->factor)};
    if (a->transposed)
        pool_run((c->in[0].dim[1] + 15) / 16, turned_task, &t);
    else
        pool_run((view_count(&c->in[0]) + VALUES - 1) / VALUES, straight_task, &t);
    return 0;
}
