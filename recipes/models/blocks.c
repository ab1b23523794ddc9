/* blocks.c: weights of GGUF files as they are stored.
 *
 * A matrix whose blocks are of a packed type (struct packing_blocks) keeps them: rows are whole
 * blocks, so that rows in another order, or of several tensors of one type, are bytes that are
 * moved. Where the file has the rows as memory has them nothing is moved: the parameter points into
 * the mapped file. Products decode on their way, an embedding the rows that are looked up; every
 * number is the one that the file's blocks decode to, so that no bit is another than with plain
 * weights.
 *
 * Plain are, as before: stacked experts, weights that the file has transposed (a part of latent
 * attention), parameters whose tensors are of several types, and types that are none of
 * PACKING_LIST (param.decoded says so); and all weights of a model that is trained whole. */
#include "recipes/models/models_int.h"

#include <string.h>

static const struct packing *packing_of(const struct stored *t) {
    for (int i = 0; t->type && t->dtype == DTYPE_COUNT && i < packing_count; i++) {
        const char *type = packing_table[i]->blocks.type;
        if (type && !strcmp(type, t->type)) return packing_table[i];
    }
    return NULL;
}

static bool shape_fits(const struct piece *o, const struct stored *t) {
    bool same = t->rank == o->rank;
    for (int i = 0; same && i < t->rank; i++) same = t->dim[i] == o->dim[i];
    return same;
}

/* The tensor of piece `i`, if its rows can be moved whole and are finite numbers. */
static const struct stored *piece_find(struct piece *o, const struct naming *n,
                                       const struct param *p, i64 i, const struct safetensors *s) {
    const u32 moves = LAYOUT_QKV_GROUPS | LAYOUT_GU_ALT | LAYOUT_PAIRS | LAYOUT_ROPE_LAST;
    piece_of(o, n, p, i);
    const struct stored *t = safetensors_find(s, o->name);
    if (!t || o->add != 0 || o->layout & ~moves || !shape_fits(o, t) || !packing_of(t)) return NULL;
    struct view v = {.data = (void *)t->data, .rank = 2, .dim = {o->rows, o->cols}};
    v.packing = packing_of(t);
    return view_blocks_finite(&v) ? t : NULL;
}

struct move {
    const struct param *p;
    const struct piece *piece;
    const u8 *from;
    i64 bytes; /* of a row */
};
static void rows_move(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct move *m = arg;
    const struct piece *o = m->piece;
    for (i64 r = begin; r < end; r++)
        memcpy((u8 *)m->p->view.data + piece_row(o, r) * m->bytes,
               m->from + piece_place(m->p, o, r, 0) / o->cols * m->bytes, (size_t)m->bytes);
}

int blocks_read(struct model *m, const struct naming *n, struct param *p,
                const struct safetensors *s, u8 *seen, struct err *e) {
    struct piece o;
    const i64 count = pieces_of(n, p);
    const struct packing *how = NULL;
    if (p->view.rank != 2 || !m->config.quant.filed) return 1;
    for (i64 i = 0; i < count; i++) {
        const struct stored *t = piece_find(&o, n, p, i, s);
        if (!t || (how && how != packing_of(t))) return 1;
        how = packing_of(t);
        if (count > 1 || o.layout || o.stride != o.block) continue;
        p->view.packing = how, p->view.data = (void *)t->data, p->mapped = true;
        memcpy(p->view.block, how->block, sizeof p->view.block);
        seen[t - s->tensor] = 1;
        return 0;
    }
    if (view_pack(&p->view, how, NULL, e)) return err_detail(e, "for the codes of %s", p->name);
    for (i64 i = 0; i < count; i++) {
        piece_of(&o, n, p, i);
        const struct stored *t = safetensors_find(s, o.name);
        struct move job = {p, &o, t->data, o.cols / how->block[0] * how->blocks.bytes};
        pool_run(o.rows, rows_move, &job);
        seen[t - s->tensor] = 1;
        safetensors_forget(s, t);
    }
    return 0;
}

i64 blocks_bytes_of(const struct gguf *g, enum dtype d) {
    i64 bytes = 0;
    bool any = false;
    for (i64 i = 0; i < g->count; i++) {
        const struct stored *t = &g->tensor[i];
        if (t->rank != 2) continue;
        any |= packing_of(t) != NULL;
        bytes += packing_of(t) ? t->bytes : t->dim[0] * t->dim[1] * dtype_size(d);
    }
    return any ? bytes : 0;
}

int param_values(struct model *m, struct param *p, struct err *e) {
    return p && p->view.packing && m->config.quant.filed ? param_plain(p, m->weights.dtype, e) : 0;
}
