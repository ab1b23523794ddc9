/* states.c: memory for what a model keeps of earlier positions. What each layer keeps is said by
 * its mixers. */
#include "recipes/models/mixers/mixers.h"

int model_states(const struct model *m, i64 l, bool latent, struct state_spec out[LAYER_STATES]) {
    const struct config *c = &m->config;
    int count = 0;
    for (int s = 0; s < BLOCK_SLOTS; s++) {
        const struct mixer *mixer = c->layer[l].mixer[s];
        if (mixer->states) count += mixer->states(c, l, m->weights.dtype, latent, out + count);
    }
    return count;
}

int states_describe(struct states *s, const struct model *m, bool latent, struct err *e) {
    *s = (struct states){.latent = latent && m->config.mla.kv_rank};
    if (!(s->layer = mem_new_array(m->config.layers, sizeof *s->layer, e))) return -1;
    for (s->layers = 0; s->layers < m->config.layers; s->layers++)
        s->layer[s->layers].count = model_states(m, s->layers, latent, s->layer[s->layers].spec);
    return 0;
}

/* Rows of a page (TOKEN) or of a slot, and how many pages or slots there are. */
static i64 unit_rows(const struct state_spec *p) {
    return p->kind == STATE_TOKEN ? ATTENTION_PAGE : p->rows;
}
static i64 unit_bytes(const struct state_spec *p, i64 rows) {
    return rows * p->columns * dtype_size(p->dtype);
}
static i64 units(const struct states *s, const struct state_spec *p) {
    return p->kind == STATE_TOKEN ? s->pages : s->slots;
}

/* State by state, so that only one of them is there twice at a time. Views that have grown when
 * memory runs out hold more than s->pages, which is no harm. */
int states_grow(struct states *s, i64 pages, i64 slots, struct err *e) {
    const struct states more = {.pages = pages, .slots = slots};
    for (i64 l = 0; l < s->layers; l++)
        for (int i = 0; i < s->layer[l].count; i++) {
            const struct state_spec *p = &s->layer[l].spec[i];
            struct view *v = &s->layer[l].view[i];
            const i64 rows = units(&more, p) * unit_rows(p), had = v->data ? v->dim[0] : 0;
            if (rows <= had) continue;
            const struct view now = {.data = device_new(unit_bytes(p, rows), e),
                                     .dtype = p->dtype,
                                     .rank = 2,
                                     .dim = {rows, p->columns}};
            if (!now.data) {
                return err_detail(e, "for the states of %lld positions",
                                  (long long)(pages * ATTENTION_PAGE));
            }
            if (had && device_copy(now.data, v->data, unit_bytes(p, had), e)) {
                device_free(now.data);
                return -1;
            }
            device_free(v->data);
            *v = now;
        }
    s->pages = pages, s->slots = slots;
    return 0;
}

void states_free(struct states *s) {
    for (i64 l = 0; l < s->layers; l++)
        for (int i = 0; i < s->layer[l].count; i++) device_free(s->layer[l].view[i].data);
    mem_free(s->layer);
    *s = (struct states){0};
}

static i64 unit_bytes_of_all(const struct states *s, enum state_kind kind) {
    i64 bytes = 0;
    for (i64 l = 0; l < s->layers; l++)
        for (int i = 0; i < s->layer[l].count; i++)
            if (s->layer[l].spec[i].kind == kind)
                bytes += unit_bytes(&s->layer[l].spec[i], unit_rows(&s->layer[l].spec[i]));
    return bytes;
}
i64 states_page_bytes(const struct states *s) { return unit_bytes_of_all(s, STATE_TOKEN); }
i64 states_slot_bytes(const struct states *s) { return unit_bytes_of_all(s, STATE_SEQUENCE); }

bool states_have(const struct states *s, enum state_kind kind) {
    for (i64 l = 0; l < s->layers; l++)
        for (int i = 0; i < s->layer[l].count; i++)
            if (s->layer[l].spec[i].kind == kind) return true;
    return false;
}

/* `rows` of the first rows of unit `to` become those of unit `from`. */
static int units_copy(struct states *s, enum state_kind kind, i64 to, i64 from, i64 rows,
                      struct err *e) {
    for (i64 l = 0; l < s->layers; l++)
        for (int i = 0; i < s->layer[l].count; i++) {
            const struct state_spec *p = &s->layer[l].spec[i];
            if (p->kind != kind) continue;
            u8 *data = s->layer[l].view[i].data;
            const i64 unit = unit_bytes(p, unit_rows(p));
            if (device_copy(data + to * unit, data + from * unit,
                            kind == STATE_TOKEN ? unit_bytes(p, rows) : unit, e))
                return -1;
        }
    return 0;
}
int states_copy_page(struct states *s, i64 to, i64 from, i64 rows, struct err *e) {
    return units_copy(s, STATE_TOKEN, to, from, rows, e);
}
int states_copy_slot(struct states *s, i64 to, i64 from, struct err *e) {
    return units_copy(s, STATE_SEQUENCE, to, from, 0, e);
}

int states_zero_slot(struct states *s, i64 slot, struct err *e) {
    for (i64 l = 0; l < s->layers; l++)
        for (int i = 0; i < s->layer[l].count; i++) {
            const struct state_spec *p = &s->layer[l].spec[i];
            const i64 unit = unit_bytes(p, unit_rows(p));
            if (p->kind == STATE_SEQUENCE &&
                device_zero((u8 *)s->layer[l].view[i].data + slot * unit, unit, e))
                return -1;
        }
    return 0;
}

/* ---- in a trace */

void states_inputs(struct build *b, i64 tokens) {
    struct graph *g = b->g;
    b->store = graph_input(g, "store", I32, DIMS(tokens));
    b->sequence = graph_input(g, "sequence", I32, DIMS(tokens));
    b->pages = graph_input(g, "pages", I32, DIMS(b->sequences, b->page_count));
    if (states_have(b->states, STATE_SEQUENCE)) b->slot = graph_input(g, "slot", I32, DIMS(tokens));
    if (b->states->latent)
        b->gather = graph_input(g, "gather", I32, DIMS(b->gathered * ATTENTION_PAGE));
}

void states_bind(struct build *b, const struct state_places *p) {
    b->store->view.data = (void *)p->store, b->sequence->view.data = (void *)p->sequence;
    b->pages->view.data = (void *)p->pages;
    if (b->gather) b->gather->view.data = (void *)p->gather;
    if (b->slot) b->slot->view.data = (void *)p->slot;
}

struct tensor *build_cached(struct build *b, int index, struct tensor *rows) {
    if (!b->states) return rows;
    struct view *to = &b->states->layer[b->layer].view[index];
    struct tensor *out[OP_OUT] = {graph_param(b->g, to->data, "state", to, false)};
    graph_call(b->g, &op_kv_store, NULL, BIND({"x", rows}, {"at", b->store}), out);
    return out[0];
}
