/* quantize.c: linear weights as packed ones (struct packing): encoded while a model is loaded
 * (QLoRA, Dettmers et al., 2023), read from files of bitsandbytes, decoded to be merged or written.
 *
 * Only weights of linear layers inside of blocks are packed, as bitsandbytes has it: never
 * embeddings, the LM head, norms, routers or stacked experts. A weight is read whole in the model's
 * dtype, encoded by all threads and let go before the next is read, so that loading takes the codes
 * and one weight. Blocks run over the weight as memory has it, [out, in].
 *
 * A file's codes are kept as they are if the file has the weight as memory has it; otherwise (fused
 * or transposed weights) they are decoded and the weight is a plain one. So are those of FP8 files
 * where f8 is asked for: the same numbers as without, in half the memory of bf16. What codes of
 * bitsandbytes mean is read from the file, not assumed: `quant_map`, `nested_quant_map`,
 * `quant_state` (JSON). Blocks that cross rows follow bitsandbytes' encoder and its GPU code; its
 * AVX-512 code decodes such rows, which no known model has, with other scales
 * (tests/golden/quant/README.md). */
#include "recipes/models/models_int.h"

#include <jansson.h>
#include <string.h>

int quant_config_read(struct config *c, const json_t *j, const char *where, struct err *e) {
    const json_t *q = json_object_get(j, "quantization_config");
    const char *method = json_is_object(q) ? json_text(q, "quant_method", "", where, e) : "";
    if (e->code || !method) return e->code ? -1 : 0;
    if (*method && !strstr(" bitsandbytes fp8 mxfp4 ", method)) /* codes themselves are refused */
        snprintf(c->note, sizeof c->note,
                 "quantization_config names %.40s, which is not read: the weights are taken as the "
                 "numbers that the file has",
                 method);
    if (strcmp(method, "bitsandbytes")) return 0;
    if (json_bool(q, "load_in_4bit", false, where, e)) c->quant.stored = true;
    if (e->code || c->quant.stored) return e->code ? -1 : 0;
    err_input(e, "%s: the weights are quantised to 8 bits by bitsandbytes", where);
    return err_hint(e, "4-bit files of bitsandbytes and 16-bit files are read; `load_in_4bit: "
                       "true` quantises the latter");
}

static bool finite(const float *x, i64 n) {
    for (i64 i = 0; i < n; i++)
        if (!(x[i] - x[i] == 0)) return false;
    return true;
}

/* Memory for `p`, packed; block: NULL for the packing's own. */
static int packed_new(struct param *p, const struct packing *how, const i64 block[2],
                      struct err *e) {
    return view_pack(&p->view, how, block, e) ? err_detail(e, "for the codes of %s", p->name) : 0;
}

int param_encode(struct param *p, const struct view *from, const struct packing *how,
                 struct err *e) {
    return packed_new(p, how, NULL, e) || how->encode(&p->view, from->data, from->dtype == BF16, e)
               ? -1
               : 0;
}

int param_decode(const struct param *p, enum dtype d, void *to, struct err *e) {
    struct device_buffer copy[1 + VIEW_PARTS] = {0};
    struct view host = p->view;
    int rc = 0;
    for (int k = 0; !rc && p->placed && k <= VIEW_PARTS; k++) {
        void **at = view_slot(&host, k);
        if (*at) *at = (void *)device_peek(*at, view_slot_bytes(&p->view, k), &copy[k], e);
        rc = e->code ? -1 : 0;
    }
    if (!rc) view_unpack(to, &host, d == BF16);
    for (int k = 0; k <= VIEW_PARTS; k++) mem_free(copy[k].data);
    return rc;
}

/* ---- FP8 files */

/* Whether a tensor's codes and scales are as packing f8 has them, and finite. */
static bool f8_fits(const struct param *p, const struct stored *t) {
    if (!t->type || strcmp(t->type, "F8_E4M3") || !t->scale || t->rank != 2 ||
        memcmp(t->dim, p->view.dim, 2 * sizeof *t->dim))
        return false;
    for (i64 i = 0; i < t->bytes; i++)
        if ((t->data[i] & 0x7f) == 0x7f) return false;
    return finite((const float *)t->scale->data, t->scale->bytes / 4);
}
int f8_read(struct param *p, const struct packing *how, const struct stored *t, struct err *e) {
    if (how != packing_find("f8") || !f8_fits(p, t)) return 1;
    if (packed_new(p, how, t->block, e)) return -1;
    memcpy(p->view.data, t->data, (size_t)t->bytes);
    memcpy(p->view.part[0], t->scale->data, (size_t)t->scale->bytes);
    return 0;
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
    struct view *v = &p->view;
    const char *type = part_of(s, t, "quant_state.bitsandbytes__nf4") ? "nf4" : "fp4";
    char name[16];
    snprintf(name, sizeof name, "%s%s", type, q.block2 ? "-double" : "");
    if (packed_new(p, packing_find(name), (i64[]){q.block, q.block2}, e)) return -1;
    const i64 blocks = (n + q.block - 1) / q.block;
    float *code = v->part[1];
    memcpy(v->data, t->data, (size_t)t->bytes);
    if (part_read(s, t, "absmax", q.block2 ? U8 : F32, blocks, v->part[0], where, e) ||
        part_read(s, t, "quant_map", F32, 16, code, where, e))
        return -1;
    if (!q.block2) return 0;
    code[QUANT_TABLE_DOUBLE - 1] = (float)q.offset;
    return part_read(s, t, "nested_quant_map", F32, 256, code + QUANT_TABLE, where, e) ||
                   part_read(s, t, "nested_absmax", F32, view_slot_bytes(v, 3) / 4, v->part[2],
                             where, e)
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
