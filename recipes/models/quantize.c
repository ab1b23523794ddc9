/* quantize.c: linear weights as 4-bit codes (base/quant.h): encoded while a model is loaded (QLoRA,
 * Dettmers et al., 2023), read from files of bitsandbytes, decoded to be merged or written.
 *
 * Only weights of linear layers inside of blocks are codes, as bitsandbytes has it: never
 * embeddings, the LM head, norms, routers or stacked experts. A weight is read whole in the model's
 * dtype, encoded by all threads and let go before the next is read, so that loading takes the codes
 * and one weight. Blocks run over the weight as memory has it, [out, in].
 *
 * A file's codes are kept as they are if the file has the weight as memory has it; otherwise (fused
 * or transposed weights) they are decoded and the weight is a plain one. What the codes mean is
 * read from the file, not assumed: `quant_map`, `nested_quant_map`, `quant_state` (JSON). Blocks
 * that cross rows follow bitsandbytes' encoder and its GPU code; its AVX-512 code decodes such
 * rows, which no known model has, with other scales (tests/golden/quant/README.md). */
#include "recipes/models/models_int.h"

#include <jansson.h>
#include <string.h>

struct quant_config load_quant;

int quant_config_read(struct config *c, const json_t *j, const char *where, struct err *e) {
    const json_t *q = json_object_get(j, "quantization_config");
    const char *method = json_is_object(q) ? json_text(q, "quant_method", "", where, e) : "";
    if (e->code || !method || strcmp(method, "bitsandbytes")) return e->code ? -1 : 0;
    if (json_bool(q, "load_in_4bit", false, where, e)) c->quant.stored = true;
    if (e->code || c->quant.stored) return e->code ? -1 : 0;
    err_input(e, "%s: the weights are quantised to 8 bits by bitsandbytes", where);
    return err_hint(e, "4-bit files of bitsandbytes and 16-bit files are read; `load_in_4bit: "
                       "true` quantises the latter");
}

/* ---- memory of codes: absmax, code and absmax2 are arguments of ops/linear.c */

static int view_new(struct view *v, enum dtype d, i64 count, struct err *e) {
    *v = (struct view){.dtype = d, .rank = 1, .dim = {count}};
    return (v->data = mem_new(i64_max(count * dtype_size(d), 1), e)) ? 0 : -1;
}
static int codes_new(struct param *p, i64 blocks, i64 blocks2, struct err *e) {
    p->view.dtype = U4;
    if (!(p->view.data = mem_new(view_bytes(&p->view), e)) ||
        view_new(&p->scale[0], blocks2 ? U8 : F32, blocks, e) ||
        view_new(&p->scale[1], F32, blocks2 ? QUANT_TABLE_DOUBLE : QUANT_TABLE, e) ||
        (blocks2 && view_new(&p->scale[2], F32, blocks2, e)))
        return err_detail(e, "for the codes of %s", p->name);
    return 0;
}

/* ---- encoding */

enum { TASK = 1024 }; /* blocks at a time */
struct encoding {
    const struct quant_config *q;
    const u8 *from;
    bool half;
    u8 *codes;
    float *absmax;
    i64 count;
};
static void encode_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct encoding *n = arg;
    const i64 block = n->q->block, at = begin * TASK * block,
              count = i64_min(end * TASK * block, n->count) - at;
    quant4_encode(n->q->type, n->codes + at / 2, n->absmax + begin * TASK,
                  n->from + at * (n->half ? 2 : 4), n->half, count, block);
}

int param_encode(struct param *p, const struct view *from, const struct quant_config *q,
                 struct err *e) {
    const i64 n = view_count(&p->view), blocks = (n + q->block - 1) / q->block,
              blocks2 = q->twice ? (blocks + QUANT_BLOCK2 - 1) / QUANT_BLOCK2 : 0;
    if (codes_new(p, blocks, blocks2, e)) return -1;
    float *code = p->scale[1].data, *absmax = blocks2 ? mem_new(blocks * 4, e) : p->scale[0].data;
    if (!absmax) return -1;
    struct encoding job = {q, from->data, from->dtype == BF16, p->view.data, absmax, n};
    pool_run((blocks + TASK - 1) / TASK, encode_task, &job);
    memcpy(code, quant4_code[q->type], sizeof quant4_code[0]);
    if (blocks2) {
        quant_double(p->scale[0].data, p->scale[2].data, code, absmax, blocks);
        mem_free(absmax);
    }
    return 0;
}

/* ---- decoding */

struct decoding {
    struct quant q;
    const u8 *codes;
    u8 *to;
    bool half;
    i64 count;
};
static void decode_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct decoding *n = arg;
    enum { PART = 1 << 16 };
    const i64 at = begin * PART, count = i64_min(end * PART, n->count) - at;
    quant_decode(n->to + at * (n->half ? 2 : 4), &n->q, n->codes, at, count, n->half);
}

int param_decode(const struct param *p, enum dtype d, void *to, struct err *e) {
    const struct view *all[1 + SCALES] = {&p->view, &p->scale[0], &p->scale[1], &p->scale[2]};
    struct device_buffer copy[1 + SCALES] = {0};
    const void *host[1 + SCALES] = {0};
    int rc = 0;
    for (int i = 0; !rc && i < 1 + SCALES; i++) {
        if (!all[i]->data) continue;
        host[i] =
            p->placed ? device_peek(all[i]->data, view_bytes(all[i]), &copy[i], e) : all[i]->data;
        rc = host[i] ? 0 : -1;
    }
    const i64 n = view_count(&p->view), blocks = p->scale[0].dim[0];
    struct decoding job = {{host[1], host[2], host[3], quant_shift(n, blocks),
                            host[3] ? quant_shift(blocks, p->scale[2].dim[0]) : 0},
                           host[0],
                           to,
                           d == BF16,
                           n};
    if (!rc) pool_run((n + (1 << 16) - 1) >> 16, decode_task, &job);
    for (int i = 0; i < 1 + SCALES; i++) mem_free(copy[i].data);
    return rc;
}

/* ---- files of bitsandbytes */

static const struct stored *part_of(const struct safetensors *s, const struct stored *t,
                                    const char *part) {
    char name[320];
    snprintf(name, sizeof name, "%.256s.%s", t->name, part);
    return safetensors_find(s, name);
}
static const struct stored *state_of(const struct safetensors *s, const struct stored *t) {
    const struct stored *state = part_of(s, t, "quant_state.bitsandbytes__nf4");
    return state ? state : part_of(s, t, "quant_state.bitsandbytes__fp4");
}
bool codes_stored(const struct safetensors *s, const struct stored *t) {
    return state_of(s, t) != NULL;
}
void codes_seen(const struct safetensors *s, const struct stored *t, u8 *seen) {
    const size_t n = strlen(t->name);
    for (const struct stored *k = t; seen && k < s->tensor + s->count; k++) {
        if (strncmp(k->name, t->name, n)) break;
        if (k == t || k->name[n] == '.') seen[k - s->tensor] = 1;
    }
}

/* The fields of quant_state that decoding needs. */
struct state {
    i64 block, block2, count;
    double offset;
};
static int state_read(struct state *q, const struct stored *s, const char *where, struct err *e) {
    char name[512];
    snprintf(name, sizeof name, "%.200s: %.256s", where, s->name);
    json_t *j = json_parse((const char *)s->data, s->bytes, name, e);
    if (!j) return -1;
    *q = (struct state){.block = json_i64(j, "blocksize", 0, name, e),
                        .block2 = json_i64(j, "nested_blocksize", 0, name, e),
                        .offset = json_f64(j, "nested_offset", 0, name, e),
                        .count = 1};
    const json_t *shape = json_object_get(j, "shape");
    bool fits = json_array_size(shape) > 0 && q->block >= 32 && q->block <= 1 << 20 &&
                !(q->block & (q->block - 1)) && !(q->block2 & (q->block2 - 1)) &&
                (!q->block2 || (q->block2 >= 32 && q->block2 <= 1 << 20)) && q->offset > -1e30 &&
                q->offset < 1e30;
    for (size_t i = 0; i < json_array_size(shape); i++) {
        const i64 d = json_integer_value(json_array_get(shape, i));
        fits &= d > 0 && q->count <= ((i64)1 << 44) / i64_max(d, 1);
        if (fits) q->count *= d;
    }
    json_decref(j);
    if (fits || e->code) return e->code ? -1 : 0;
    return err_input(e, "%s: no block size and shape that make sense", name);
}

static bool finite(const float *x, i64 n) {
    for (i64 i = 0; i < n; i++)
        if (!(x[i] - x[i] == 0)) return false;
    return true;
}
/* Part `name` of `count` elements of type d, copied to `to`; floats must be finite. */
static int part_read(const struct safetensors *s, const struct stored *t, const char *name,
                     enum dtype d, i64 count, void *to, const char *where, struct err *e) {
    const struct stored *k = part_of(s, t, name);
    if (!k) return err_input(e, "%s: tensor '%s' has no '%s'", where, t->name, name);
    if (k->dtype != d || k->bytes != count * dtype_size(d))
        return err_input(e, "%s: tensor '%s' has %lld bytes of %s; expected %lld elements of %s",
                         where, k->name, (long long)k->bytes, k->type, (long long)count,
                         dtype_info[d].safetensors);
    memcpy(to, k->data, (size_t)k->bytes);
    if (d == F32 && !finite(to, count))
        return err_input(e, "%s: tensor '%s' holds a number that is not finite", where, k->name);
    return 0;
}

int codes_read(struct param *p, const struct safetensors *s, const struct stored *t,
               const char *where, struct err *e) {
    struct state q;
    const i64 n = view_count(&p->view);
    if (state_read(&q, state_of(s, t), where, e)) return -1;
    if (q.count != n || t->bytes != (n + 1) / 2)
        return err_input(e, "%s: tensor '%s' holds %lld values in %lld bytes; expected %lld", where,
                         t->name, (long long)q.count, (long long)t->bytes, (long long)n);
    const i64 blocks = (n + q.block - 1) / q.block,
              blocks2 = q.block2 ? (blocks + q.block2 - 1) / q.block2 : 0;
    if (codes_new(p, blocks, blocks2, e)) return -1;
    float *code = p->scale[1].data;
    memcpy(p->view.data, t->data, (size_t)t->bytes);
    if (part_read(s, t, "absmax", p->scale[0].dtype, blocks, p->scale[0].data, where, e) ||
        part_read(s, t, "quant_map", F32, 16, code, where, e))
        return -1;
    if (!blocks2) return 0;
    code[QUANT_TABLE_DOUBLE - 1] = (float)q.offset;
    return part_read(s, t, "nested_quant_map", F32, 256, code + QUANT_TABLE, where, e) ||
                   part_read(s, t, "nested_absmax", F32, blocks2, p->scale[2].data, where, e)
               ? -1
               : 0;
}

int codes_values(struct stored *plain, const struct safetensors *s, const struct stored *t,
                 int rank, const i64 *dim, const char *where, struct err *e) {
    struct param p = {.name = t->name, .view = {.rank = rank}};
    memcpy(p.view.dim, dim, sizeof *dim * (size_t)rank);
    *plain = (struct stored){.name = t->name, .type = "F32", .dtype = F32, .rank = rank};
    memcpy(plain->dim, dim, sizeof *dim * (size_t)rank);
    plain->bytes = view_count(&p.view) * 4;
    float *to = codes_read(&p, s, t, where, e) ? NULL : mem_new(plain->bytes, e);
    const int rc = to ? param_decode(&p, F32, to, e) : -1;
    plain->data = (const u8 *)to;
    param_free(&p);
    return rc;
}
