/* kv_store_cpu.c: a copy of rows; formula in kv_store.c. */
#include "base/v16.h"
#include "ops/ops_int.h"

#include <string.h>

CPU_KERNEL(kv_store) {
    const i32 *at = c->in[1].data;
    const i64 rows = c->in[0].dim[0], size = c->out[0].dim[0];
    const i64 bytes = c->in[0].dim[1] * dtype_size(c->in[0].dtype);
    for (i64 i = 0; i < rows; i++)
        if (at[i] < -1 || at[i] >= size)
            return err_failed(e, "operation kv_store: row %lld goes to %d of a cache of %lld rows",
                              (long long)i, at[i], (long long)size);
    for (i64 i = 0; i < rows; i++)
        if (at[i] >= 0)
            memcpy((u8 *)c->out[0].data + at[i] * bytes, (const u8 *)c->in[0].data + i * bytes,
                   (size_t)bytes);
    return 0;
}
