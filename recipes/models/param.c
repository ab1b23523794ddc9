/* param.c: one parameter and the tensors of a file that hold it.
 *
 * In memory a parameter is [blocks,] rows, cols, fused rows in one order for all families: [Q | K |
 * V], [gate | up]. A file may transpose it, take the rows in another order, or cut it into tensors
 * by expert, by head or by part (struct weight_rule). A piece is one tensor of a file and the rows
 * in memory that it holds; loading, saving and gradients all go through pieces. */
#include "recipes/models/models_int.h"

#include <string.h>

enum { LOAD_PIECE = 1 << 14 }; /* elements at a time, checked while in the cache */

struct piece {
    char name[256];
    int rank;
    i64 dim[STORED_RANK]; /* on disk */
    i64 first, rows;      /* in memory */
    i64 block, cols;      /* rows of a block: layouts act inside of one */
    i64 stride;           /* rows in memory from one block to the next */
    u32 layout;
    float add; /* the file's values are the model's and so much */
};

/* Of rank 0 in files. */
static bool is_scalar(const struct param *p) { return p->rule && p->rule->rows == DIM_SCALAR; }
static i64 rows_of(const struct param *p, i64 cols) { return view_count(&p->view) / cols; }

static i64 parts_of(const struct param *p) { return strchr(p->name, '|') ? 2 : 1; }

static i64 pieces_of(const struct naming *n, const struct param *p) {
    if (p->rule && n->gguf) return gguf_parts(p); /* its experts and heads are one tensor */
    if (!p->rule || p->stacked) return 1;
    if (strstr(p->name, "%E")) return p->view.dim[0] * parts_of(p);
    if (strstr(p->name, "%H")) return p->heads;
    return parts_of(p);
}

/* The name of piece `part` (of those of expert or head `index`; with %L, of layer `index`), under
 * the file's prefix. */
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

void param_name(char out[256], const struct naming *n, const char *pattern) {
    piece_name(out, n->prefix, pattern, 0, 0);
}

static void turn(struct piece *o, bool swap) { /* rows for columns on disk */
    const i64 last = o->dim[o->rank - 1];
    if (swap) o->dim[o->rank - 1] = o->dim[o->rank - 2], o->dim[o->rank - 2] = last;
}

/* A GGUF file holds experts stacked and rows as they are in memory, but for two of its habits. */
static void gguf_piece(struct piece *o, const struct gguf_arch *arch, const struct param *p,
                       i64 part) {
    const bool matrix = p->decay, experts = strstr(p->name, "%E") != NULL;
    const i64 cols = matrix ? p->view.dim[p->view.rank - 1] : 1, rows = rows_of(p, cols);
    const bool latent = p->type->gguf.heads; /* a block for each head: its keys, or its values */
    const i64 blocks = experts ? p->view.dim[0] : latent ? p->heads : 1;
    const i64 keys = p->keys, stride = rows / blocks,
              block = !latent ? stride / gguf_parts(p)
                      : part  ? stride - keys
                              : keys;
    *o = (struct piece){.first = latent && part ? keys : block * part,
                        .rows = blocks * block,
                        .block = block,
                        .cols = cols,
                        .stride = stride};
    gguf_name(o->name, arch, p, part);
    o->layout = p->layout & LAYOUT_ROPE_LAST;
    if (arch->rope_rows && p->type->gguf.rope_pairs) o->layout = LAYOUT_PAIRS;
    if (latent && !part) o->layout = LAYOUT_T;
    if (arch->one_plus && p->type->kind == MODULE_NORM) o->add = 1;
    if (is_scalar(p)) return;
    if (experts || latent) o->dim[o->rank++] = blocks;
    if (strstr(p->name, "%H")) o->dim[o->rank++] = p->heads;
    o->dim[o->rank++] = strstr(p->name, "%H") ? block / p->heads : block;
    if (matrix) o->dim[o->rank++] = cols;
    turn(o, o->layout & LAYOUT_T);
}

static void piece_of(struct piece *o, const struct naming *n, const struct param *p, i64 i) {
    if (n->gguf && p->rule) {
        gguf_piece(o, n->gguf, p, i);
        return;
    }
    const bool matrix = p->decay;
    const i64 cols = matrix ? p->view.dim[p->view.rank - 1] : 1, rows = rows_of(p, cols);
    const i64 count = pieces_of(n, p), parts = p->rule && !p->stacked ? parts_of(p) : 1;
    const bool of_experts = p->view.rank > 1 + matrix;
    const i64 experts = of_experts ? p->view.dim[0] : 1;
    *o = (struct piece){.rows = rows / count, .first = rows / count * i, .cols = cols};
    o->layout = p->stacked ? p->rule->stacked_layout : p->layout;
    const bool adapter = o->layout & (LAYOUT_EXPERTS_A | LAYOUT_EXPERTS_B);
    o->stride = o->block = p->stacked || adapter ? rows / experts : o->rows;
    piece_name(o->name, n->prefix, p->stacked ? p->rule->stacked : p->name,
               p->stacked ? p->layer : i / parts, i % parts);
    if (is_scalar(p)) return;
    if (p->stacked && of_experts) o->dim[o->rank++] = experts;
    o->dim[o->rank++] = o->block;
    if (matrix) o->dim[o->rank++] = cols;
    turn(o, o->layout & LAYOUT_T);
    if (adapter) o->dim[o->layout & LAYOUT_EXPERTS_A ? 0 : 1] *= experts;
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
    if (o->layout & LAYOUT_ROPE_LAST) {
        const i64 head = o->block / p->heads, at = r % head;
        return r - at + (at < p->rope_dim ? head - p->rope_dim + at : at - p->rope_dim);
    }
    if (o->layout & LAYOUT_PAIRS) {
        const i64 width = o->block / (p->type->of_keys ? p->kv_heads : p->heads);
        const i64 at = r % width, half = width / 2;
        return r - at + (at < half ? 2 * at : 2 * (at - half) + 1);
    }
    if (o->layout & LAYOUT_GU_ALT) return r < o->block / 2 ? 2 * r : 2 * (r - o->block / 2) + 1;
    return r;
}

/* The element on disk that goes to column c of row r (counted in the piece). */
static i64 place(const struct param *p, const struct piece *o, i64 r, i64 c) {
    const i64 b = r / o->block, at = row_on_disk(p, o, r % o->block);
    if (o->layout & LAYOUT_EXPERTS_B) return (at * o->cols + c) * p->view.dim[0] + b;
    return o->layout & LAYOUT_T ? (b * o->cols + c) * o->block + at
                                : (b * o->block + at) * o->cols + c;
}

static i64 row_in_memory(const struct piece *o, i64 r) {
    return o->first + r / o->block * o->stride + r % o->block;
}

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
        const i64 at = row_in_memory(o, r) * o->cols, disk = place(m->p, o, r, 0),
                  count = i64_min(rows, end - r) * o->cols,
                  step = o->cols > 1 ? place(m->p, o, r, 1) - disk : 1;
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
        const i64 at = row_in_memory(o, r) * o->cols, disk = place(m->p, o, r, 0),
                  step = o->cols > 1 ? place(m->p, o, r, 1) - disk : 1;
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
                     x != x ? "NaN" : "an infinity", (long long)place(p, o, r, bad % o->cols));
}

int param_load(struct param *p, const struct stored *s, const char *where, struct err *e) {
    struct piece o;
    piece_of(&o, &(struct naming){0}, p, 0);
    return piece_load(p, &o, s, where, e);
}

/* A weight that is to be packed: the codes of the file; or its values, encoded; or, where the file
 * has codes that do not lie as in memory, or none and nothing asked for them, plain values. */
static int packed_read(struct model *m, const struct naming *n, struct param *p,
                       const struct safetensors *s, u8 *seen, const char *where, struct err *e) {
    struct piece o;
    piece_of(&o, n, p, 0);
    const struct stored *t = safetensors_find(s, o.name);
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
