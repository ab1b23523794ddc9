/* param.c: one parameter and the tensors of a file that hold it, piece by piece (piece.c): loaded
 * and saved. */
#include "recipes/models/models_int.h"

#include <string.h>

enum { LOAD_PIECE = 1 << 14 }; /* elements at a time, checked while in the cache */

struct move {
    const struct param *p;
    const struct piece *piece;
    const struct stored *disk; /* read, or written */
    u8 *memory;
    enum dtype type; /* of memory */
    i64 *bad;        /* [threads], loading: the first element in memory that is no number, or -1 */
};

/* Notes the first of elements [at, at + n) that is NaN or infinite. */
static void finite_check(const struct move *m, i64 at, i64 n, int worker) {
    u32 wrong = 0; /* by exponents, without a branch, so that the compiler can do many at once */
    if (m->bad[worker] >= 0) return;
    if (m->type == BF16)
        for (i64 i = at; i < at + n; i++) wrong |= (((const u16 *)m->memory)[i] & 0x7f80) == 0x7f80;
    else
        for (i64 i = at; i < at + n; i++)
            wrong |= (((const u32 *)m->memory)[i] & 0x7f800000) == 0x7f800000;
    for (i64 i = at; wrong && i < at + n && m->bad[worker] < 0; i++) {
        const float x = param_get(m->p, i);
        if (!(x - x == 0)) m->bad[worker] = i;
    }
}

/* From the file, rounded once; `add` in f32 before. */
static void load_rows(void *arg, i64 begin, i64 end, int worker) {
    const struct move *m = arg;
    const struct piece *o = m->piece;
    const i64 size = dtype_size(m->type);
    const bool plain = !o->layout && o->stride == o->block && o->add == 0;
    const i64 rows = plain ? i64_max(1, LOAD_PIECE / o->cols) : 1;
    for (i64 r = begin; r < end; r += rows) {
        const i64 at = piece_row(o, r) * o->cols, disk = piece_place(m->p, o, r, 0),
                  count = i64_min(rows, end - r) * o->cols,
                  step = o->cols > 1 ? piece_place(m->p, o, r, 1) - disk : 1;
        if (step == 1 && o->add == 0)
            stored_read(m->disk, disk, count, m->type, m->memory + at * size);
        for (i64 c = 0; (step != 1 || o->add != 0) && c < count; c++) {
            float x;
            stored_read(m->disk, disk + c * step, 1, F32, &x), x -= o->add;
            const u16 half = bf16_of_f32(x);
            memcpy(m->memory + (at + c) * size, size == 2 ? (const void *)&half : &x, (size_t)size);
        }
        finite_check(m, at, count, worker);
    }
}

/* To the file, in the type of the memory; with `add`, in f32. */
static void save_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct move *m = arg;
    const struct piece *o = m->piece;
    const i64 size = dtype_size(m->type);
    u8 *to = (u8 *)m->disk->data;
    for (i64 r = begin; r < end; r++) {
        const i64 at = piece_row(o, r) * o->cols, disk = piece_place(m->p, o, r, 0),
                  step = o->cols > 1 ? piece_place(m->p, o, r, 1) - disk : 1;
        if (step == 1 && o->add == 0)
            memcpy(to + disk * size, m->memory + at * size, (size_t)(o->cols * size));
        for (i64 c = 0; (step != 1 || o->add != 0) && c < o->cols; c++) {
            if (o->add == 0)
                memcpy(to + (disk + c * step) * size, m->memory + (at + c) * size, (size_t)size);
            else
                ((float *)to)[disk + c * step] =
                    o->add + (size == 2 ? bf16_to_f32(((const u16 *)m->memory)[at + c])
                                        : ((const float *)m->memory)[at + c]);
        }
    }
}

static int piece_load(struct param *p, const struct piece *o, const struct stored *s,
                      const char *where, struct err *e) {
    bool same = s->rank == o->rank;
    for (int i = 0; same && i < s->rank; i++) same = s->dim[i] == o->dim[i];
    if (!same) {
        char found[192], wanted[192];
        shape_text(found, s->rank, s->dim), shape_text(wanted, o->rank, o->dim);
        err_input(e, "%s: tensor '%s' has shape %s; the model's configuration says %s", where,
                  s->name, found, wanted);
        return err_hint(e, "the weights belong to another model");
    }
    if (!stored_readable(s))
        return err_input(e, "%s: tensor '%s' has dtype %s; expected F32, BF16, F16 or F64", where,
                         s->name, s->type);
    if (p->placed) {
        struct param host = *p;
        host.placed = false;
        if (!(host.view.data = mem_new(view_bytes(&p->view), e))) return -1;
        const i64 size = dtype_size(p->view.dtype), at = o->first * o->cols * size;
        const int rc = piece_load(&host, o, s, where, e) ||
                       device_write((u8 *)p->view.data + at, (u8 *)host.view.data + at,
                                    o->rows * o->cols * size, e) ||
                       device_sync(e);
        mem_free(host.view.data);
        return rc ? -1 : 0;
    }
    const int threads = pool_threads();
    struct move job = {
        p, o, s, p->view.data, p->view.dtype, mem_new_array(threads, sizeof *job.bad, e)};
    if (!job.bad) return -1;
    i64 bad = -1;
    for (int i = 0; i < threads; i++) job.bad[i] = -1;
    pool_run(o->rows, load_rows, &job);
    for (int i = 0; i < threads && bad < 0; i++) bad = job.bad[i]; /* ranges are in order */
    mem_free(job.bad);
    if (bad < 0) return 0;
    const float x = param_get(p, bad);
    const i64 row = bad / o->cols - o->first, r = row / o->stride * o->block + row % o->stride;
    return err_input(e, "%s: tensor '%s' holds %s at element %lld", where, s->name,
                     x != x ? "NaN" : "an infinity",
                     (long long)piece_place(p, o, r, bad % o->cols));
}

int param_load(struct param *p, const struct stored *s, const char *where, struct err *e) {
    struct piece o;
    piece_of(&o, &(struct naming){0}, p, 0);
    return piece_load(p, &o, s, where, e);
}

/* A weight that is to be packed: the blocks or codes of the file; or its values, encoded; or, where
 * the file has codes that do not lie as in memory, or none and nothing asked for them, plain ones.
 */
static int packed_read(struct model *m, const struct naming *n, struct param *p,
                       const struct safetensors *s, u8 *seen, const char *where, struct err *e) {
    struct piece o;
    piece_of(&o, n, p, 0);
    const struct stored *t = safetensors_find(s, o.name);
    const int blocks = n->gguf && seen ? blocks_read(m, n, p, s, seen, e) : 1;
    if (blocks < 1) return blocks;
    const bool same = t && pieces_of(n, p) == 1 && !o.layout;
    if (same && codes_stored(s, t)) return codes_seen(s, t, seen), codes_read(p, s, t, where, e);
    const int kept = same ? f8_read(p, m->config.quant.packing, t, e) : 1;
    if (seen && !kept) seen[t - s->tensor] = 1;
    if (kept < 1) return kept;
    struct param plain = *p;
    plain.view.packing = NULL;
    if (!(plain.view.data = mem_new(view_bytes(&plain.view), e)))
        return err_detail(e, "for parameter %s", p->name);
    const bool encode = m->config.quant.packing && !(t && codes_stored(s, t));
    int rc = param_read(m, n, &plain, s, seen, where, e);
    if (!rc && encode) rc = param_encode(p, &plain.view, m->config.quant.packing, e);
    if (rc || encode) return mem_free(plain.view.data), rc;
    *p = plain;
    return 0;
}

/* Piece `o` from tensor `t`, whose mapped memory may be given back then. */
static int tensor_read(struct param *p, const struct piece *o, const struct safetensors *s,
                       const struct stored *t, u8 *seen, const char *where, struct err *e) {
    struct stored plain = *t;
    const bool coded = codes_stored(s, t);
    int rc = coded ? codes_values(&plain, s, t, o->rank, o->dim, where, e) : 0;
    rc = rc || piece_load(p, o, &plain, where, e);
    if (coded) mem_free((void *)plain.data), codes_seen(s, t, seen);
    if (seen) seen[t - s->tensor] = 1;
    p->decoded |= t->dtype == DTYPE_COUNT && gguf_type_of(t->type);
    safetensors_forget(s, t);
    return rc;
}

int param_read(struct model *m, const struct naming *n, struct param *p,
               const struct safetensors *s, u8 *seen, const char *where, struct err *e) {
    struct piece o;
    if (!p->view.data || p->view.packing) return packed_read(m, n, p, s, seen, where, e);
    if (p->rule && p->rule->stacked && !n->gguf) {
        p->stacked = true;
        piece_of(&o, n, p, 0);
        p->stacked = p->rule->stacked_layout & LAYOUT_STACKED || safetensors_find(s, o.name);
    }
    for (i64 i = 0; i < pieces_of(n, p); i++) {
        piece_of(&o, n, p, i);
        const struct stored *t = safetensors_need(s, o.name, e);
        if (!t || tensor_read(p, &o, s, t, seen, where, e)) return -1;
    }
    return 0;
}

int param_copy(struct param *to, const struct param *from, struct err *e) {
    struct param plain = *to; /* both lie as in memory */
    plain.rule = NULL, plain.layout = 0, plain.stacked = false;
    struct stored s = {.name = from->name,
                       .type = dtype_info[from->view.dtype].safetensors,
                       .dtype = from->view.dtype,
                       .rank = from->view.rank,
                       .data = from->view.data,
                       .bytes = view_bytes(&from->view)};
    memcpy(s.dim, from->view.dim, sizeof from->view.dim);
    struct piece o = {.rank = to->view.rank};
    o.cols = o.rank > 1 ? to->view.dim[o.rank - 1] : 1;
    o.stride = o.block = o.rows = view_count(&to->view) / o.cols;
    memcpy(o.dim, to->view.dim, sizeof to->view.dim);
    return piece_load(&plain, &o, &s, "the model", e);
}

/* ---- out again */

struct stored *stored_add(struct stored_list *list, struct err *e) {
    if (list->count == list->room) {
        const i64 room = list->room ? 2 * list->room : 64, size = (i64)sizeof *list->tensor;
        struct stored *more = mem_grow(list->tensor, list->room * size, room * size, e);
        if (!more) return NULL;
        list->tensor = more, list->room = room;
    }
    return &list->tensor[list->count];
}

void stored_free(struct stored_list *list) {
    mem_free(list->tensor), arena_free(&list->arena);
    *list = (struct stored_list){0};
}

int param_stored_as(const struct naming *n, const struct param *p, const char *before,
                    const void *from, enum dtype d, struct stored_list *list, struct err *e) {
    const i64 size = dtype_size(d);
    for (i64 i = 0; i < pieces_of(n, p); i++) {
        struct piece o;
        piece_of(&o, n, p, i);
        struct stored *s = stored_add(list, e);
        const char *name = s ? arena_printf(&list->arena, e, "%s%s", before, o.name) : NULL;
        if (!name) return -1;
        *s = (struct stored){.name = name, .dtype = o.add == 0 ? d : F32, .rank = o.rank};
        s->bytes = o.rows * o.cols * dtype_size(s->dtype);
        memcpy(s->dim, o.dim, sizeof o.dim);
        s->data = (const u8 *)from + o.first * o.cols * size;
        if (o.layout || o.stride != o.block || o.add != 0) {
            if (!(s->data = arena_new(&list->arena, i64_max(s->bytes, 1), e))) return -1;
            struct move job = {p, &o, s, (u8 *)from, d, NULL};
            pool_run(o.rows, save_rows, &job);
        }
        list->count++;
    }
    return 0;
}

int param_stored(const struct model *m, const struct param *p, const char *before, const void *from,
                 enum dtype d, struct stored_list *list, struct err *e) {
    return param_stored_as(&(struct naming){.prefix = m->prefix}, p, before, from, d, list, e);
}
