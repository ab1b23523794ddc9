/* embedding_cpu.c: rows copied or decoded, and rows added in token order. Formulas and order:
 * embedding.c. */
#include "base/v16.h"
#include "ops/ops_int.h"

#include <string.h>

static int ids_check(const struct view *ids, i64 size, struct err *e) {
    const i32 *id = ids->data;
    for (i64 n = 0; n < ids->dim[0]; n++)
        if (id[n] < 0 || id[n] >= size) {
            err_input(e, "token id %d at position %lld is outside the table of %lld rows", id[n],
                      (long long)n, (long long)size);
            return err_hint(e, "the data was made with another tokenizer than the model's");
        }
    return 0;
}

static void copy_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    const struct view *w = &c->in[1];
    const i32 *id = c->in[0].data;
    const i64 width = w->dim[1], bytes = width * dtype_size(w->dtype);
    for (i64 n = begin; n < end && w->packing; n++)
        w->packing->decode[isa_now()]((u8 *)c->out[0].data + n * bytes, w, id[n] * width, width, 1,
                                      0, view_is_bf16(w));
    for (i64 n = begin; n < end && !w->packing; n++)
        memcpy((u8 *)c->out[0].data + n * bytes, (const u8 *)w->data + id[n] * bytes,
               (size_t)bytes);
}

CPU_KERNEL(embedding) {
    if (ids_check(&c->in[0], c->in[1].dim[0], e)) return -1;
    pool_run(c->in[0].dim[0], copy_rows, (void *)c);
    return 0;
}

static void add_columns(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct op_call *c = arg;
    const bool is_bf16 = view_is_bf16(&c->in[0]);
    const i32 *id = c->in[1].data;
    float *dw = c->out[0].data;
    const i64 width = c->in[0].dim[1], first = begin * 16, last = i64_min(end * 16, width);
    for (i64 n = 0; n < c->in[0].dim[0]; n++)
        for (i64 d = first; d < last; d += 16) {
            float *to = dw + id[n] * width + d;
            v16 sum = v16_add(v16_load_n(to, last - d),
                              v16_get_n(c->in[0].data, n * width + d, last - d, is_bf16));
            v16_store_n(to, sum, last - d);
        }
}

CPU_KERNEL(embedding_back) {
    if (ids_check(&c->in[1], c->out[0].dim[0], e)) return -1;
    pool_run((c->in[0].dim[1] + 15) / 16, add_columns, (void *)c);
    return 0;
}
