/* mla_cpu.c: rows taken apart and put together; formulas in mla.c. */
#include "base/v16.h"
#include "ops/ops_int.h"

#include <string.h>

/* count elements of `size` bytes: to[to_at] = from[from_at] */
static void copy(void *to, i64 to_at, const void *from, i64 from_at, i64 count, i64 size) {
    memcpy((u8 *)to + to_at * size, (const u8 *)from + from_at * size, (size_t)(count * size));
}

static void key_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    const struct mla_attr *a = c->attr;
    const i64 size = dtype_size(c->in[0].dtype), key = a->rope_dim + a->plain,
              both = a->plain + a->value;
    for (i64 i = begin * a->heads; i < end * a->heads; i++) {
        copy(c->out[0].data, i * key, c->in[1].data, i / a->heads * a->rope_dim, a->rope_dim, size);
        copy(c->out[0].data, i * key + a->rope_dim, c->in[0].data, i * both, a->plain, size);
        copy(c->out[1].data, i * a->value, c->in[0].data, i * both + a->plain, a->value, size);
    }
}
CPU_KERNEL(mla_keys) { return (void)e, pool_run(c->in[0].dim[0], key_rows, (void *)c), 0; }

static void back_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    const struct mla_attr *a = c->attr;
    const i64 size = dtype_size(c->in[0].dtype), key = a->rope_dim + a->plain,
              both = a->plain + a->value;
    const bool is_bf16 = view_is_bf16(&c->in[0]);
    for (i64 i = begin * a->heads; c->out[0].data && i < end * a->heads; i++) {
        copy(c->out[0].data, i * both, c->in[0].data, i * key + a->rope_dim, a->plain, size);
        copy(c->out[0].data, i * both + a->plain, c->in[1].data, i * a->value, a->value, size);
    }
    for (i64 n = begin; c->out[1].data && n < end; n++)
        for (i64 d = 0; d < a->rope_dim; d += 16) {
            v16 sum = v16_set(0);
            for (i64 h = 0; h < a->heads; h++)
                sum = v16_add(sum, v16_get_n(c->in[0].data, (n * a->heads + h) * key + d,
                                             a->rope_dim - d, is_bf16));
            v16_put_n(c->out[1].data, n * a->rope_dim + d, sum, a->rope_dim - d, is_bf16);
        }
}
CPU_KERNEL(mla_keys_back) { return (void)e, pool_run(c->in[0].dim[0], back_rows, (void *)c), 0; }
