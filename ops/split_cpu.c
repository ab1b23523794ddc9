/* split_cpu.c: copies of parts of rows; what they are: split.c. */
#include "base/v16.h"
#include "ops/ops_int.h"

#include <string.h>

struct parts {
    u8 *whole, *part[3];
    i64 bytes[3]; /* of a row of each part */
    bool apart;
};
static void rows_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct parts *p = arg;
    u8 *row = p->whole + begin * (p->bytes[0] + p->bytes[1] + p->bytes[2]);
    for (i64 n = begin; n < end; n++)
        for (int k = 0; k < 3; row += p->bytes[k], k++) {
            u8 *part = p->part[k] ? p->part[k] + n * p->bytes[k] : NULL;
            if (p->apart && part) memcpy(part, row, (size_t)p->bytes[k]);
            if (!p->apart && part) memcpy(row, part, (size_t)p->bytes[k]);
            if (!p->apart && !part) memset(row, 0, (size_t)p->bytes[k]);
        }
}
static int parts_run(const struct op_call *c, const struct view *whole, const struct view *part,
                     bool apart) {
    const i64 *w = ((const struct split_attr *)c->attr)->width, size = dtype_size(whole->dtype);
    struct parts p = {.whole = whole->data, .apart = apart};
    for (int k = 0; k < 3; k++) p.part[k] = part[k].data, p.bytes[k] = w[k] * size;
    return pool_run(view_rows(whole), rows_task, &p), 0;
}
CPU_KERNEL(split) { return (void)e, parts_run(c, &c->in[0], c->out, true); }
CPU_KERNEL(join) { return (void)e, parts_run(c, &c->out[0], c->in, false); }
