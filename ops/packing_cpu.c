/* packing_cpu.c: packed elements decoded, per instruction set: the frames of packing.h. */
#include "base/v16.h"
#include "ops/packing.h"

/* n values of a run, to element i on. */
typedef float packing_value(u8 code);
V16_FN void run_decode(void *to, i64 i, const struct packing_run *r, i64 n, bool half,
                       packing_value *value) {
    const v16 scale = v16_set(r->scale);
    float x[16] = {0};
    for (i64 k = 0; k < n; k += 16) {
        if (k + 16 <= n) {
            for (int l = 0; l < 16; l++) x[l] = value(r->code[k + l]);
        } else {
            for (int l = 0; l < n - k; l++) x[l] = value(r->code[k + l]);
        }
        v16_put_n(to, i + k, v16_mul(v16_load(x), scale), n - k, half);
    }
}
#define DECODE_scaled(id)                                                                          \
    {                                                                                              \
        for (i64 i = 0, n; i < count; i += n) {                                                    \
            const struct packing_run r = id##_run(v, at + i);                                      \
            n = i64_min(r.count, count - i);                                                       \
            if (half)                                                                              \
                run_decode(to, i, &r, n, true, id##_value);                                        \
            else                                                                                   \
                run_decode(to, i, &r, n, false, id##_value);                                       \
        }                                                                                          \
    }
/* The functions are base/quant_cpu.c's. */
#define DECODE_table(id)                                                                           \
    {                                                                                              \
        const struct quant q = table_quant(v);                                                     \
        CPU_NAME(quant_decode)(to, &q, (const u8 *)v->data, at, count, half);                      \
    }

#define X(id, text, frame)                                                                         \
    void CPU_NAME(packing_##id)(void *to, const struct view *v, i64 at, i64 count, bool half);     \
    void CPU_NAME(packing_##id)(void *to, const struct view *v, i64 at, i64 count, bool half)      \
        DECODE_##frame(id)
PACKING_LIST(X)
#undef X
