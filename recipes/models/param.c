/* param.c: one parameter and the tensors of a file that hold it.
 *
 * In memory a parameter is [blocks,] rows, cols, fused rows in one order for all families: [Q | K |
 * V], [gate | up]. A file may transpose it, take the rows in another order, or cut it into tensors
 * by expert, by head or by part (struct weight_rule). A piece is one tensor of a file and the rows
 * in memory that it holds; loading, saving and gradients all go through pieces. */
#include "recipes/models/models_int.h"

#include <string.h>

void param_set(struct param *p, i64 i, float x) {
    if (p->view.dtype == BF16)
        ((u16 *)p->view.data)[i] = bf16_of_f32(x);
    else
        ((float *)p->view.data)[i] = x;
}
float param_get(const struct param *p, i64 i) {
    return p->view.dtype == BF16 ? bf16_to_f32(((u16 *)p->view.data)[i])
                                 : ((float *)p->view.data)[i];
}

struct piece {
    char name[256];
    int rank;
    i64 dim[STORED_RANK]; /* on disk */
    i64 first, rows;      /* in memory */
    i64 block, cols;      /* rows of a block: layouts act inside of one */
    u32 layout;
};

static bool is_matrix(const struct param *p) {
    return !p->rule || (p->rule->cols != DIM_NONE && p->rule->cols != DIM_BIAS);
}
static i64 rows_of(const struct param *p, i64 cols) { return view_count(&p->view) / cols; }

static i64 parts_of(const struct param *p) { return strchr(p->name, '|') ? 2 : 1; }

static i64 pieces_of(const struct param *p) {
    if (!p->rule || p->stacked) return 1;
    if (strstr(p->name, "%E")) return p->view.dim[0] * parts_of(p);
    if (strstr(p->name, "%H")) return p->heads;
    return parts_of(p);
}

/* The name of piece `part` (of those of expert or head `index`), under the file's prefix. */
static void piece_name(char out[256], const struct prefix *x, const char *pattern, i64 index,
                       i64 part) {
    char text[256];
    const char *bar = strchr(pattern, '|');
    if (part) pattern = bar + 1, bar = NULL;
    snprintf(text, sizeof text, "%.*s", bar ? (int)(bar - pattern) : 250, pattern);
    const char *mark = strpbrk(text, "%");
    char numbered[256];
    if (mark)
        snprintf(numbered, sizeof numbered, "%.*s%lld%s", (int)(mark - text), text,
                 (long long)index, mark + 2);
    else
        snprintf(numbered, sizeof numbered, "%s", text);
    const size_t n = x ? strlen(x->module) : 0;
    if (x && !strncmp(numbered, x->module, n))
        snprintf(out, 256, "%s%.200s", x->file, numbered + n);
    else
        snprintf(out, 256, "%s%.200s", x && !strncmp(numbered, "lm_head.", 8) ? x->head : "",
                 numbered);
}

static void piece_of(struct piece *o, const struct model *m, const struct param *p, i64 i) {
    const bool matrix = is_matrix(p);
    const i64 cols = matrix ? p->view.dim[p->view.rank - 1] : 1, rows = rows_of(p, cols);
    const i64 count = pieces_of(p), parts = p->rule && !p->stacked ? parts_of(p) : 1;
    const i64 experts = p->view.rank > 1 + matrix ? p->view.dim[0] : 1;
    *o = (struct piece){.rows = rows / count, .first = rows / count * i, .cols = cols};
    o->layout = p->stacked ? p->rule->stacked_layout : p->layout;
    o->block = p->stacked ? rows / experts : o->rows;
    piece_name(o->name, m->prefix, p->stacked ? p->rule->stacked : p->name, i / parts, i % parts);
    if (p->scalar) return;
    if (p->stacked) o->dim[o->rank++] = experts;
    o->dim[o->rank++] = o->block;
    if (matrix) o->dim[o->rank++] = cols;
    if (o->layout & LAYOUT_T) {
        const i64 swap = o->dim[o->rank - 1];
        o->dim[o->rank - 1] = o->dim[o->rank - 2], o->dim[o->rank - 2] = swap;
    }
}

/* Where row r of a block in memory lies in the block on disk. */
static i64 row_on_disk(const struct param *p, const struct piece *o, i64 r) {
    if (o->layout & LAYOUT_QKV_GROUPS) {
        const i64 group = p->heads / p->kv_heads, width = o->block / (p->heads + 2 * p->kv_heads);
        const i64 head = r / width;
        const i64 at = head < p->heads ? head / group * (group + 2) + head % group
                       : head < p->heads + p->kv_heads
                           ? (head - p->heads) * (group + 2) + group
                           : (head - p->heads - p->kv_heads) * (group + 2) + group + 1;
        return at * width + r % width;
    }
    if (o->layout & LAYOUT_GU_ALT) return r < o->block / 2 ? 2 * r : 2 * (r - o->block / 2) + 1;
    return r;
}

/* The element on disk that goes to column c of row r (counted in the piece). */
static i64 place(const struct param *p, const struct piece *o, i64 r, i64 c) {
    const i64 b = r / o->block, at = row_on_disk(p, o, r % o->block);
    return o->layout & LAYOUT_T ? (b * o->cols + c) * o->block + at
                                : (b * o->block + at) * o->cols + c;
}

struct move {
    const struct param *p;
    const struct piece *piece;
    const u8 *from;
    u8 *to;
    enum dtype from_type, to_type;
    bool load; /* else save: `to` is on disk */
};

static float element(const u8 *from, enum dtype d, i64 i) {
    float x = 0;
    u16 h = 0;
    double f = 0;
    if (d == F32)
        memcpy(&x, from + i * 4, 4);
    else if (d == F64)
        memcpy(&f, from + i * 8, 8), x = (float)f;
    else
        memcpy(&h, from + i * 2, 2), x = d == BF16 ? bf16_to_f32(h) : f16_to_f32(h);
    return x;
}

static void move_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct move *m = arg;
    const struct piece *o = m->piece;
    const i64 size = dtype_size(m->to_type);
    const bool same = m->from_type == m->to_type;
    for (i64 r = begin; r < end; r++) {
        const i64 row = (o->first + r) * o->cols; /* in memory */
        const i64 step = o->cols > 1 ? place(m->p, o, r, 1) - place(m->p, o, r, 0) : 1,
                  disk = place(m->p, o, r, 0);
        if (same && step == 1) {
            const i64 from = m->load ? disk : row, to = m->load ? row : disk;
            memcpy(m->to + to * size, m->from + from * size, (size_t)(o->cols * size));
            continue;
        }
        for (i64 c = 0; c < o->cols; c++) {
            const i64 from = m->load ? disk + c * step : row + c,
                      to = m->load ? row + c : disk + c * step;
            if (same) {
                memcpy(m->to + to * size, m->from + from * size, (size_t)size);
                continue;
            }
            const float x = element(m->from, m->from_type, from);
            const u16 half = bf16_of_f32(x);
            memcpy(m->to + to * size, m->to_type == BF16 ? (const void *)&half : &x, (size_t)size);
        }
    }
}

static void shape_print(char out[160], int rank, const i64 *dim) {
    int at = snprintf(out, 160, "[");
    for (int i = 0; i < rank && at < 130; i++)
        at += snprintf(out + at, 160 - (size_t)at, "%s%lld", i ? ", " : "", (long long)dim[i]);
    snprintf(out + at, 160 - (size_t)at, "]");
}

static int finite_check(const struct param *p, const struct piece *o, const struct stored *s,
                        const char *where, struct err *e) {
    for (i64 i = o->first * o->cols; i < (o->first + o->rows) * o->cols; i++) {
        const float x = param_get(p, i);
        if (x - x == 0) continue;
        const i64 n = i - o->first * o->cols;
        return err_input(e, "%s: tensor '%s' holds %s at element %lld", where, s->name,
                         x != x ? "NaN" : "an infinity",
                         (long long)place(p, o, n / o->cols, n % o->cols));
    }
    return 0;
}

static int piece_load(struct param *p, const struct piece *o, const struct stored *s,
                      const char *where, struct err *e) {
    bool same = s->rank == o->rank;
    for (int i = 0; same && i < s->rank; i++) same = s->dim[i] == o->dim[i];
    if (!same) {
        char found[160], wanted[160];
        shape_print(found, s->rank, s->dim), shape_print(wanted, o->rank, o->dim);
        err_input(e, "%s: tensor '%s' has shape %s; the model's configuration says %s", where,
                  s->name, found, wanted);
        return err_hint(e, "the weights belong to another model");
    }
    if (s->dtype != F32 && s->dtype != BF16 && s->dtype != F16 && s->dtype != F64)
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
    struct move job = {p, o, s->data, p->view.data, s->dtype, p->view.dtype, true};
    pool_run(o->rows, move_rows, &job);
    return finite_check(p, o, s, where, e);
}

int param_load(struct param *p, const struct stored *s, const char *where, struct err *e) {
    static const struct model plain;
    struct piece o;
    piece_of(&o, &plain, p, 0);
    return piece_load(p, &o, s, where, e);
}

/* A weight that is to be 4-bit codes: those of the file; or its values, encoded; or, where the file
 * has codes that do not lie as in memory, or none and nothing asked for them, plain values. */
static int coded_read(struct model *m, struct param *p, const struct safetensors *s, u8 *seen,
                      const char *where, struct err *e) {
    struct piece o;
    piece_of(&o, m, p, 0);
    const struct stored *t = safetensors_find(s, o.name);
    if (t && codes_stored(s, t) && pieces_of(p) == 1 && !o.layout)
        return codes_seen(s, t, seen), codes_read(p, s, t, where, e);
    struct param plain = *p;
    plain.view.dtype = m->dtype;
    if (!(plain.view.data = mem_new(view_bytes(&plain.view), e)))
        return err_detail(e, "for parameter %s", p->name);
    const bool encode = m->config.quant.load && !(t && codes_stored(s, t));
    int rc = param_read(m, &plain, s, seen, where, e);
    if (!rc && encode) rc = param_encode(p, &plain.view, &m->config.quant, e);
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
    safetensors_forget(s, t);
    return rc;
}

int param_read(struct model *m, struct param *p, const struct safetensors *s, u8 *seen,
               const char *where, struct err *e) {
    struct piece o;
    if (p->view.dtype == U4) return coded_read(m, p, s, seen, where, e);
    if (p->rule && p->rule->stacked) {
        p->stacked = true;
        piece_of(&o, m, p, 0);
        p->stacked = safetensors_find(s, o.name) != NULL;
    }
    for (i64 i = 0; i < pieces_of(p); i++) {
        piece_of(&o, m, p, i);
        const struct stored *t = safetensors_need(s, o.name, e);
        if (!t || tensor_read(p, &o, s, t, seen, where, e)) return -1;
    }
    return 0;
}

int param_copy(struct param *to, const struct param *from, struct err *e) {
    struct param plain = *to; /* both lie as in memory */
    plain.rule = NULL, plain.layout = 0, plain.stacked = plain.scalar = false;
    struct stored s = {.name = from->name,
                       .type = dtype_info[from->view.dtype].safetensors,
                       .dtype = from->view.dtype,
                       .rank = from->view.rank,
                       .data = from->view.data,
                       .bytes = view_bytes(&from->view)};
    memcpy(s.dim, from->view.dim, sizeof from->view.dim);
    struct piece o = {.rank = to->view.rank, .rows = view_count(&to->view), .cols = 1};
    o.block = o.rows;
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

int param_stored(const struct model *m, const struct param *p, const char *before, const void *from,
                 enum dtype d, struct stored_list *list, struct err *e) {
    const i64 size = dtype_size(d);
    for (i64 i = 0; i < pieces_of(p); i++) {
        struct piece o;
        piece_of(&o, m, p, i);
        struct stored *s = stored_add(list, e);
        const char *name = s ? arena_printf(&list->arena, e, "%s%s", before, o.name) : NULL;
        if (!name) return -1;
        *s = (struct stored){
            .name = name, .dtype = d, .rank = o.rank, .bytes = o.rows * o.cols * size};
        memcpy(s->dim, o.dim, sizeof o.dim);
        s->data = (const u8 *)from + o.first * o.cols * size;
        if (o.layout) {
            u8 *to = arena_new(&list->arena, i64_max(s->bytes, 1), e);
            if (!to) return -1;
            struct move job = {p, &o, from, to, d, d, false};
            pool_run(o.rows, move_rows, &job);
            s->data = to;
        }
        list->count++;
    }
    return 0;
}
