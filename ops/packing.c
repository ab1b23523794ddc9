/* packing.c: the table of packed types, their memory, and their values in f64 (packing.h). */
#include "base/v16.h"
#include "ops/packing.h"

#include <assert.h>
#include <string.h>

static void table_ref(double *to, const struct view *v, i64 at, i64 count) {
    const struct quant q = table_quant(v);
    for (i64 i = at; i < at + count; i++) {
        const i64 b = i >> q.shift;
        const u8 two = ((const u8 *)v->data)[i / 2];
        const double scale = q.absmax2 ? (double)q.code[QUANT_TABLE + ((const u8 *)q.absmax)[b]] *
                                                 (double)q.absmax2[b >> q.shift2] +
                                             (double)q.code[QUANT_TABLE_DOUBLE - 1]
                                       : (double)((const float *)q.absmax)[b];
        to[i - at] = (double)q.code[i % 2 ? two & 15 : two >> 4] * scale;
    }
}

static double value_of(v16 x) {
    float lane[16];
    v16_store(lane, x);
    return (double)lane[0];
}
#define REF_table(id)
#define NAME_table(id) table_ref
#define REF_scaled(id)                                                                             \
    static void id##_ref(double *to, const struct view *v, i64 at, i64 count) {                    \
        for (i64 i = 0; i < count; i++) {                                                          \
            const struct packing_run r = id##_run(v, at + i);                                      \
            to[i] = value_of(id##_value(v16_set(*r.code))) * (double)r.scale;                      \
        }                                                                                          \
    }
#define NAME_scaled(id) id##_ref
/* The product is rounded, as the sum then is. */
#define REF_groups(id)                                                                             \
    static void id##_ref(double *to, const struct view *v, i64 at, i64 count) {                    \
        for (i64 i = at; i < at + count; i++) {                                                    \
            const u8 *block = (const u8 *)v->data + i / id##_BLOCK * id##_BYTES;                   \
            const struct packing_group g = id##_group(block, (int)(i % id##_BLOCK / 16));          \
            const int code = packing_code(&g, (int)(i % 16), id##_HIGH) - id##_ZERO;               \
            to[i - at] = (double)((float)code * g.scale) + (double)g.offset;                       \
        }                                                                                          \
    }
#define NAME_groups(id) id##_ref
#define X(id, text, frame)                                                                         \
    REF_##frame(id) packing_decode packing_##id##_plain, packing_##id##_avx2,                      \
        packing_##id##_avx512, packing_##id##_avx512bf16;                                          \
    const struct packing packing_##id = {.name = text,                                             \
                                         PACKING_##id,                                             \
                                         .ref = NAME_##frame(id),                                  \
                                         .decode = {packing_##id##_plain, packing_##id##_avx2,     \
                                                    packing_##id##_avx512,                         \
                                                    packing_##id##_avx512bf16},                    \
                                         .cuda = packing_##id##_cuda,                              \
                                         .cuda_rows = packing_##id##_cuda_rows};
PACKING_LIST(X)
#undef X

const struct packing *const packing_table[] = {
#define X(id, text, frame) &packing_##id,
    PACKING_LIST(X)
#undef X
};
const int packing_count = COUNT(packing_table);
const char packing_choices[] = "auto none"
#define X(id, text, frame) " " text
    PACKING_LIST(X)
#undef X
    ;

const struct packing *packing_find(const char *name) {
    for (int i = 0; i < packing_count; i++)
        if (!strcmp(packing_table[i]->name, name)) return packing_table[i];
    return NULL;
}

i64 view_memory(const struct view *v) {
    i64 bytes = 0;
    for (int k = 0; k <= VIEW_PARTS; k++) bytes += view_slot_bytes(v, k);
    return bytes;
}

int view_pack(struct view *v, const struct packing *p, const i64 block[2], struct err *e) {
    v->packing = p, v->data = NULL;
    memset(v->part, 0, sizeof v->part);
    memcpy(v->block, block ? block : p->block, sizeof v->block);
    for (int k = 0; k <= VIEW_PARTS; k++) {
        const i64 bytes = view_slot_bytes(v, k);
        if ((bytes || !k) && !(*view_slot(v, k) = mem_new(i64_max(bytes, 1), e))) return -1;
    }
    return 0;
}

struct unpacking {
    const struct view *v;
    u8 *to;
    bool is_bf16;
};
enum { PART = 1 << 16 }; /* elements at a time */
static void unpack_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct unpacking *u = arg;
    const i64 at = begin * PART, last = i64_min(end * PART, view_count(u->v));
    u->v->packing->decode[isa_now()](u->to + at * (u->is_bf16 ? 2 : 4), u->v, at, last - at, 1, 0,
                                     u->is_bf16);
}
void view_unpack(void *to, const struct view *v, bool is_bf16) {
    struct unpacking job = {v, to, is_bf16};
    pool_run((view_count(v) + PART - 1) / PART, unpack_task, &job);
}

struct finite {
    const struct view *v;
    bool bad; /* any thread's */
};
static void finite_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    struct finite *f = arg;
    const struct packing_blocks *how = &f->v->packing->blocks;
    bool bad = false;
    for (i64 b = begin; b < end; b++)
        for (int k = 0; k < 2 && how->half[k] >= 0; k++)
            bad |= (((const u8 *)f->v->data)[b * how->bytes + how->half[k] + 1] & 0x7c) == 0x7c;
    if (bad) __atomic_store_n(&f->bad, true, __ATOMIC_RELAXED);
}
bool view_blocks_finite(const struct view *v) {
    struct finite f = {v, false};
    pool_run(blocks_of(v), finite_task, &f);
    return !f.bad;
}

i64 weight_scratch_cuda(const struct op_call *c) {
    const struct view *w = &c->in[1];
    return w->packing ? view_count(w) * dtype_size(w->dtype) : 0;
}
const double *weight_ref(const struct view *w, double **own) {
    const i64 n = view_count(w);
    *own = NULL;
    if (!w->packing) return w->data;
    *own = mem_new_array(n, sizeof **own, &(struct err){0});
    assert(*own); /* of tests only, which have the memory */
    w->packing->ref(*own, w, 0, n);
    return *own;
}
