/* optimizer.c: AdamW over all trainable parameters, with accumulators as NUMERICS.md 5, 6 and 12
 * want them.
 *
 * A micro-batch adds into the accumulators of the current reduction group; graphs are bound to them
 * once, so they stay where they are. When a group is done, it is merged with its neighbours like a
 * carry in binary counting, which builds the binary tree over group indices. With one group nothing
 * is copied.
 *
 * With `master_weights: false` a bf16 parameter has no f32 master: it is rounded at random
 * (ops/adamw.c), by the recipe's seed and the parameter's index among the trainable ones. */
#include "train/train.h"

#include <string.h>

static float *floats(i64 count, struct err *e) { return device_new(count * (i64)sizeof(float), e); }

/* f32 masters of a bf16 parameter, through host memory. */
static int master_start(struct moments *s, struct err *e) {
    struct device_buffer copy = {0};
    const u16 *from = device_peek(s->p->view.data, s->count * 2, &copy, e);
    float *to = from ? mem_new_array(s->count, sizeof *to, e) : NULL;
    for (i64 i = 0; to && i < s->count; i++) to[i] = bf16_to_f32(from[i]);
    const int rc = to ? device_write(s->master, to, s->count * 4, e) || device_sync(e) : -1;
    mem_free(copy.data), mem_free(to);
    return rc ? -1 : 0;
}

static int moments_new(struct moments *s, struct param *p, bool masters, struct err *e) {
    s->p = p, s->count = view_count(&p->view);
    if (p->view.dtype == F32)
        s->master = p->view.data;
    else if (masters && !(s->master = floats(s->count, e)))
        return -1;
    if (!(s->m = floats(s->count, e)) || !(s->v = floats(s->count, e)))
        return err_detail(e, "for the optimizer state of %s", p->name);
    return masters && p->view.dtype != F32 ? master_start(s, e) : 0;
}

int optimizer_new(struct optimizer *o, struct model *m, const struct recipe *r, struct err *e) {
    *o = (struct optimizer){.beta1 = r->adam_beta1,
                            .beta2 = r->adam_beta2,
                            .eps = r->adam_epsilon,
                            .weight_decay = r->weight_decay,
                            .max_grad_norm = r->max_grad_norm,
                            .fast_ratio = r->use_peft ? r->loraplus_lr_ratio : 1,
                            .seed = (u64)r->seed};
    if (!(o->of = mem_new_array(m->params, sizeof *o->of, e)) ||
        !(o->norms = device_new(m->params * (i64)sizeof *o->norms, e)) ||
        !(o->now = device_new(sizeof *o->now, e)))
        return -1;
    for (i64 i = 0; i < m->params; i++)
        if (m->param[i]->trainable &&
            moments_new(&o->of[o->count++], m->param[i], r->master_weights, e))
            return -1;
    return 0;
}

void optimizer_free(struct optimizer *o) {
    for (i64 i = 0; i < o->count; i++) {
        struct moments *s = &o->of[i];
        if (s->p->view.dtype != F32) device_free(s->master);
        device_free(s->m), device_free(s->v);
        for (int u = 0; u < SLOT_USES; u++) {
            device_free(s->grad[u]);
            for (int l = 0; l < GROUP_LEVELS; l++) device_free(s->sum[u][l]);
        }
    }
    mem_free(o->of), device_free(o->norms), device_free(o->now), device_free(o->scratch);
    *o = (struct optimizer){0};
}

int optimizer_bind(struct optimizer *o, struct graph *g, struct err *e) {
    for (int i = 0; i < g->tensors; i++) {
        struct tensor *t = g->tensor[i];
        if (t->kind != TENSOR_SLOT) continue;
        if (t->use >= SLOT_USES)
            return err_failed(e, "parameter %s is used more than %d times", t->name, SLOT_USES);
        for (i64 k = 0; k < o->count; k++) {
            struct moments *s = &o->of[k];
            if (s->p != t->key) continue;
            if (!s->grad[t->use] && !(s->grad[t->use] = floats(s->count, e)))
                return err_detail(e, "for the gradient of %s", t->name);
            t->view.data = s->grad[t->use];
        }
    }
    return 0;
}

int optimizer_zero(struct optimizer *o, struct err *e) {
    for (i64 i = 0; i < o->count; i++)
        for (int u = 0; u < SLOT_USES; u++)
            if (o->of[i].grad[u] && device_zero(o->of[i].grad[u], o->of[i].count * 4, e)) return -1;
    return 0;
}

static struct view flat(void *data, i64 count, enum dtype d) {
    return (struct view){.data = data, .dtype = d, .rank = 1, .dim = {count}};
}

static int call(struct optimizer *o, struct op_call *c, struct err *e) {
    if (op_shape(c, e)) return -1;
    const i64 need = op_scratch(c);
    if (need > o->scratch_bytes) {
        device_free(o->scratch);
        if (!(o->scratch = device_new(need, e))) return o->scratch_bytes = 0, -1;
        o->scratch_bytes = need;
    }
    c->scratch = o->scratch;
    return op_run(c, e);
}

static int add_into(struct optimizer *o, float *to, const float *from, i64 count, struct err *e) {
    struct op_call c = {.op = &op_add,
                        .in = {flat(to, count, F32), flat((void *)from, count, F32)},
                        .out = {flat(to, count, F32)}};
    return call(o, &c, e);
}

static int group_merge(struct optimizer *o, struct moments *s, int use, i64 group, struct err *e) {
    float **sum = s->sum[use], *done = s->grad[use];
    int level = 0;
    for (; group >> level & 1; done = sum[level++])
        if (add_into(o, sum[level], done, s->count, e)) return -1;
    if (!sum[level] && !(sum[level] = floats(s->count, e))) return -1;
    if (!level) return device_copy(sum[0], done, s->count * (i64)sizeof(float), e);
    sum[level - 1] = sum[level], sum[level] = done;
    return 0;
}

int optimizer_group_done(struct optimizer *o, i64 group, struct err *e) {
    for (i64 i = 0; i < o->count; i++)
        for (int u = 0; u < SLOT_USES; u++)
            if (o->of[i].grad[u] && group_merge(o, &o->of[i], u, group, e)) return -1;
    return 0;
}

/* Where the step's gradient of one use is: in its accumulator, or at the root of the tree. */
static float *total_of(const struct moments *s, int use, i64 groups) {
    int level = 0;
    while (groups >> (level + 1)) level++;
    return groups > 1 ? s->sum[use][level] : s->grad[use];
}

/* Adds the other uses to the first. */
static int gather(struct optimizer *o, struct moments *s, i64 groups, struct err *e) {
    for (int u = 1; u < SLOT_USES; u++)
        if (s->grad[u] && add_into(o, total_of(s, 0, groups), total_of(s, u, groups), s->count, e))
            return -1;
    return 0;
}

/* What the update needs of this step: adamw.c. */
static int now_write(struct optimizer *o, double lr, double scale, struct err *e) {
    const double t = (double)(o->step + 1);
    struct of_step now = {.step = (i32)(o->step & 0x3ffffff)};
    for (int k = 0; k < 4; k++) {
        const double rate = k < 2 ? lr : lr * o->fast_ratio;
        const float hyper[HYPER] = {(float)scale, k % 2 ? (float)(1 - rate * o->weight_decay) : 1,
                                    (float)(rate / (1 - m_pow(o->beta1, t))),
                                    (float)(1 / __builtin_sqrt(1 - m_pow(o->beta2, t))), 0};
        memcpy(now.hyper[k], hyper, sizeof hyper);
    }
    return device_write(o->now, &now, sizeof now, e);
}

static int update_one(struct optimizer *o, struct moments *s, float *grad, struct err *e) {
    const struct adamw_attr attr = {o->beta1, o->beta2, o->eps, o->seed, (u32)(s - o->of)};
    struct op_call c = {.op = &op_adamw,
                        .attr = &attr,
                        .in = {flat(grad, s->count, F32),
                               flat(o->now->hyper[s->p->decay + 2 * s->p->fast], HYPER, F32)},
                        .out = {{0}, flat(s->m, s->count, F32), flat(s->v, s->count, F32)}};
    if (s->master)
        c.out[0] = flat(s->master, s->count, F32);
    else
        c.in[2] = flat(&o->now->step, 1, I32);
    if (s->p->view.dtype != F32) c.out[3] = flat(s->p->view.data, s->count, s->p->view.dtype);
    return call(o, &c, e);
}

int optimizer_update(struct optimizer *o, i64 groups, double lr, double *grad_norm, struct err *e) {
    double sum = 0;
    for (i64 i = 0; i < o->count; i++) {
        struct moments *s = &o->of[i];
        if (!s->grad[0]) continue;
        struct op_call c = {.op = &op_square_sum,
                            .in = {flat(total_of(s, 0, groups), s->count, F32)},
                            .out = {{.data = o->norms + i}}};
        if (gather(o, s, groups, e) || call(o, &c, e)) return -1;
    }
    struct device_buffer copy = {0};
    const double *norms = device_peek(o->norms, o->count * (i64)sizeof *norms, &copy, e);
    for (i64 i = 0; norms && i < o->count; i++) sum += o->of[i].grad[0] ? norms[i] : 0;
    mem_free(copy.data);
    if (!norms) return -1;
    *grad_norm = __builtin_sqrt(sum);
    if (!(*grad_norm - *grad_norm == 0)) {
        err_failed(e, "the gradient norm is not finite at step %lld", (long long)o->step + 1);
        return err_hint(
            e, "a smaller learning_rate or a longer warmup; the last checkpoint is intact");
    }
    const double clip = o->max_grad_norm > 0 ? o->max_grad_norm / (*grad_norm + 1e-6) : 1;
    if (now_write(o, lr, clip < 1 ? clip : 1, e)) return -1;
    for (i64 i = 0; i < o->count; i++) {
        struct moments *s = &o->of[i];
        if (s->grad[0] && update_one(o, s, total_of(s, 0, groups), e)) return -1;
    }
    if (device_sync(e)) return -1;
    o->step++;
    return 0;
}

/* ---- state */

static const char *const parts[] = {"master", "m", "v"};
static float *part_of(const struct moments *s, int k) {
    return k == 0 ? s->master : k == 1 ? s->m : s->v;
}
/* The first part that state.h5 holds: a weight without a master is in the weights' file, as is the
 * master of an fp32 parameter. */
static int first_part(const struct moments *s) { return !s->master || s->p->view.dtype == F32; }

int optimizer_digest(const struct optimizer *o, char hex[65], struct err *e) {
    struct sha256 h;
    if (sha256_begin(&h, e)) return -1;
    sha256_add(&h, &o->step, sizeof o->step);
    struct device_buffer copy = {0};
    const void *from = o;
    for (i64 i = 0; from && i < o->count; i++) {
        const struct moments *s = &o->of[i];
        sha256_add(&h, s->p->name, (i64)strlen(s->p->name) + 1);
        for (int k = 0; from && k < 3; k++) {
            const bool half = !k && !s->master;
            const i64 bytes = s->count * (half ? 2 : 4);
            from = device_peek(half ? s->p->view.data : part_of(s, k), bytes, &copy, e);
            if (from) sha256_add(&h, from, bytes);
        }
    }
    mem_free(copy.data);
    return sha256_end(&h, hex), from ? 0 : -1;
}

i64 optimizer_bytes(const struct optimizer *o) {
    i64 bytes = 0;
    for (i64 i = 0; i < o->count; i++) {
        bytes += o->of[i].count * 4 * (3 - first_part(&o->of[i]));
        for (int u = 0; u < SLOT_USES; u++) bytes += o->of[i].grad[u] ? o->of[i].count * 4 : 0;
    }
    return bytes;
}

int optimizer_save(const struct optimizer *o, struct state_writer *w, struct err *e) {
    struct device_buffer copy = {0};
    int rc = state_put_i64(w, "step", o->step, e);
    for (i64 i = 0; !rc && i < o->count; i++)
        for (int k = first_part(&o->of[i]); !rc && k < 3; k++) {
            char name[256];
            snprintf(name, sizeof name, "optimizer/%s/%s", o->of[i].p->name, parts[k]);
            const struct view *v = &o->of[i].p->view;
            const void *from = device_peek(part_of(&o->of[i], k), o->of[i].count * 4, &copy, e);
            rc = !from || state_add(w, name, F32, v->rank, v->dim, from, e);
        }
    mem_free(copy.data);
    return rc ? -1 : 0;
}

int optimizer_load(struct optimizer *o, struct state_reader *r, struct err *e) {
    if (state_get_i64(r, "step", &o->step, e)) return -1;
    for (i64 i = 0; i < o->count; i++)
        for (int k = first_part(&o->of[i]); k < 3; k++) {
            char name[256];
            snprintf(name, sizeof name, "optimizer/%s/%s", o->of[i].p->name, parts[k]);
            const struct view *v = &o->of[i].p->view;
            const i64 bytes = o->of[i].count * 4;
            float *host = mem_new(bytes, e);
            const int rc = !host || state_get(r, name, F32, v->rank, v->dim, host, e) ||
                           device_write(part_of(&o->of[i], k), host, bytes, e) || device_sync(e);
            mem_free(host);
            if (rc) return -1;
        }
    return 0;
}
