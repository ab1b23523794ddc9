/* packing_nf4.h: nf4 and fp4, with plain or doubly quantised scales, as bitsandbytes has them
 * (base/quant.h). The four differ in the table that values are encoded by, and in whether the
 * scales are codes too; what the codes mean is in the parts, as a file may bring it.
 *
 *   data  codes, two a byte      part 0  a scale for each block[0] elements, a power of two:
 *   part 1  the table [16]               f32 absmax; double: u8
 *   double: then the map [256] and the mean; part 2  f32 absmax2 for each block[1] scales */
#ifndef HONE_PACKING_NF4_H
#define HONE_PACKING_NF4_H

#include "ops/packing.h"

static inline i64 table_blocks(const struct view *v) {
    return (view_count(v) + v->block[0] - 1) / v->block[0];
}
static inline i64 table_bytes(const struct view *v, int slot) {
    const i64 blocks = table_blocks(v), double_quant = v->block[1];
    switch (slot) {
    case 0: return (view_count(v) + 1) / 2;
    case 1: return blocks * (double_quant ? 1 : 4);
    case 2: return (double_quant ? QUANT_TABLE_DOUBLE : QUANT_TABLE) * 4;
    default: return double_quant ? (blocks + double_quant - 1) / double_quant * 4 : 0;
    }
}
static inline struct quant table_quant(const struct view *v) {
    struct quant q;
    q.absmax = v->part[0], q.code = (const float *)v->part[1];
    q.absmax2 = v->block[1] ? (const float *)v->part[2] : NULL;
    q.shift = __builtin_ctzll((u64)v->block[0]);
    q.shift2 = v->block[1] ? __builtin_ctzll((u64)v->block[1]) : 0;
    return q;
}

struct table_job {
    struct packing_job of;
    enum quant4 type;
    float *absmax;
};
static inline void table_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct table_job *t = (const struct table_job *)arg;
    const struct packing_job *j = &t->of;
    const i64 block = j->v->block[0], at = begin * PACKING_TASK * block,
              last = i64_min(end * PACKING_TASK * block, view_count(j->v));
    quant4_encode(t->type, (u8 *)j->v->data + at / 2, t->absmax + begin * PACKING_TASK,
                  (const u8 *)j->from + at * (j->is_bf16 ? 2 : 4), j->is_bf16, last - at, block);
}
static inline int table_encode(const struct view *v, const void *from, bool is_bf16,
                               enum quant4 type, struct err *e) {
    const i64 blocks = table_blocks(v);
    float *code = (float *)v->part[1],
          *absmax = (float *)(v->block[1] ? mem_new(i64_max(blocks, 1) * 4, e) : v->part[0]);
    if (!absmax) return -1;
    struct table_job job = {{v, from, is_bf16}, type, absmax};
    pool_run((blocks + PACKING_TASK - 1) / PACKING_TASK, table_task, &job);
    for (int i = 0; i < QUANT_TABLE; i++) code[i] = quant4_code[type][i];
    if (!v->block[1]) return 0;
    quant_double((u8 *)v->part[0], (float *)v->part[2], code, absmax, blocks);
    return mem_free(absmax), 0;
}
static inline int nf4_encode(const struct view *v, const void *from, bool is_bf16, struct err *e) {
    return table_encode(v, from, is_bf16, QUANT_NF4, e);
}
static inline int fp4_encode(const struct view *v, const void *from, bool is_bf16, struct err *e) {
    return table_encode(v, from, is_bf16, QUANT_FP4, e);
}

#define PACKING_nf4        .block = {64}, .bytes = table_bytes, .encode = nf4_encode
#define PACKING_fp4        .block = {64}, .bytes = table_bytes, .encode = fp4_encode
#define PACKING_nf4_double .block = {64, QUANT_BLOCK2}, .bytes = table_bytes, .encode = nf4_encode
#define PACKING_fp4_double .block = {64, QUANT_BLOCK2}, .bytes = table_bytes, .encode = fp4_encode

#endif
