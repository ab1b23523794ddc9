/* optimizer.c: an optimizer of optims.c over all trainable parameters, with accumulators as
 * NUMERICS.md 5, 6 and 12 want them.
 *
 * A micro-batch adds into the accumulators of the current reduction group; graphs are bound to them
 * once, so they stay where they are. When a group is done, it is merged with its neighbours like a
 * carry in binary counting, which builds the binary tree over group indices. With one group nothing
 * is copied.
 *
 * With `master_weights: false` a bf16 parameter has no f32 master: it is rounded at random
 * (ops/update.c), by the recipe's seed and the parameter's index among the trainable ones.
 *
 * `optim: adamw_8bit` keeps m and v of parameters of 4,096 elements or more in 8 bits (Dettmers et
 * al., 2022; sizes as in bitsandbytes): decoded, updated and encoded again, PART elements at a
 * time, so that what they need as f32 does not grow with the model. The update sees f32. Rejected:
 * one fused operation, which saves passes over memory that are nothing beside a training step, and
 * would have to be written for each rule. */
#include "train/train.h"

#include <string.h>

enum { CODED_FROM = 4096, PART = 1 << 22 }; /* PART: a multiple of blocks and of Philox's words */

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

static struct view flat(void *data, i64 count, enum dtype d) {
    return (struct view){.data = data, .dtype = d, .rank = 1, .dim = {count}};
}
static int view_new(struct view *v, i64 count, enum dtype d, struct err *e) {
    *v = flat(NULL, count, d);
    return (v->data = device_new(view_bytes(v), e)) ? 0 : -1;
}

/* Does the rule have STATE_M, STATE_V, STATE_EXTRA? */
static bool has_state(const struct optimizer *o, int part) {
    const enum update_rule rule = o->kind->rule;
    const bool adam = rule == UPDATE_ADAMW || rule == UPDATE_ADAM;
    if (part == STATE_EXTRA) return o->with.amsgrad || o->with.centered;
    if (part == STATE_V) return adam || rule == UPDATE_ADAGRAD || rule == UPDATE_RMSPROP;
    return adam || rule == UPDATE_LION || (rule != UPDATE_ADAGRAD && o->beta1 > 0);
}

static int moments_new(struct optimizer *o, struct moments *s, struct param *p, bool masters,
                       struct err *e) {
    s->p = p, s->count = view_count(&p->view);
    const bool coded = o->kind->coded && s->count >= CODED_FROM;
    if (p->view.dtype == F32)
        s->master = p->view.data;
    else if (masters && view_new(&s->state[STATE_MASTER], s->count, F32, e))
        return -1;
    else
        s->master = s->state[STATE_MASTER].data;
    for (int k = STATE_M; k <= STATE_EXTRA; k++)
        if (has_state(o, k) &&
            (view_new(&s->state[k], s->count, coded ? U8 : F32, e) ||
             (coded && view_new(&s->state[k + STATE_M_ABSMAX - STATE_M],
                                (s->count + QUANT_BLOCK2 - 1) / QUANT_BLOCK2, F32, e))))
            return err_detail(e, "for the optimizer state of %s", p->name);
    return s->state[STATE_MASTER].data ? master_start(s, e) : 0;
}

static int maps_new(struct optimizer *o, struct err *e) {
    float map[2][256];
    quant8_map(map[0], true), quant8_map(map[1], false);
    i64 most = 1;
    for (i64 i = 0; i < o->count; i++) most = i64_max(most, i64_min(o->of[i].count, PART));
    return view_new(&o->maps, 512, F32, e) || view_new(&o->decoded[0], most, F32, e) ||
                   view_new(&o->decoded[1], most, F32, e) ||
                   device_write(o->maps.data, map, sizeof map, e) || device_sync(e)
               ? -1
               : 0;
}

int optimizer_new(struct optimizer *o, struct model *m, const struct recipe *r, struct err *e) {
    *o = (struct optimizer){.kind = optim_find(r->optim),
                            .with = r->optim_with,
                            .beta1 = r->adam_beta1,
                            .beta2 = r->adam_beta2,
                            .eps = r->adam_epsilon,
                            .weight_decay = r->weight_decay,
                            .max_grad_norm = r->max_grad_norm,
                            .max_grad_value =
                                r->max_grad_value > 0 ? r->max_grad_value : __builtin_inf(),
                            .fast_ratio = r->use_peft ? r->loraplus_lr_ratio : 1,
                            .seed = (u64)r->seed};
    const enum update_rule rule = o->kind->rule;
    if (rule == UPDATE_SGD || rule == UPDATE_RMSPROP) o->beta1 = o->with.momentum;
    if (rule == UPDATE_RMSPROP) o->beta2 = o->with.alpha;
    if (rule == UPDATE_RMSPROP || rule == UPDATE_ADAGRAD) o->eps = o->with.eps;
    if (!(o->of = mem_new_array(m->params, sizeof *o->of, e)) ||
        !(o->norms = device_new(m->params * (i64)sizeof *o->norms, e)) ||
        !(o->now = device_new(sizeof *o->now, e)))
        return -1;
    for (i64 i = 0; i < m->params; i++)
        if (m->param[i]->trainable &&
            moments_new(o, &o->of[o->count++], m->param[i], r->master_weights, e))
            return -1;
    return o->kind->coded ? maps_new(o, e) : 0;
}

void optimizer_free(struct optimizer *o) {
    for (i64 i = 0; i < o->count; i++) {
        struct moments *s = &o->of[i];
        for (int k = 0; k < STATE_PARTS; k++) device_free(s->state[k].data);
        for (int u = 0; u < SLOT_USES; u++) {
            device_free(s->grad[u]);
            for (int l = 0; l < GROUP_LEVELS; l++) device_free(s->sum[u][l]);
        }
    }
    device_free(o->maps.data), device_free(o->decoded[0].data), device_free(o->decoded[1].data);
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

/* What the update needs of this step: update.c. */
static int now_write(struct optimizer *o, double lr, double scale, struct err *e) {
    const enum update_rule rule = o->kind->rule;
    const double t = (double)(o->step + 1);
    struct of_step now = {.step = (i32)(o->step & 0x3ffffff)};
    for (int k = 0; k < 4; k++) {
        float *h = now.hyper[k];
        const double wd = k % 2 ? o->weight_decay : 0, rate = k < 2 ? lr : lr * o->fast_ratio;
        const bool decoupled = rule == UPDATE_ADAMW || rule == UPDATE_LION;
        h[0] = (float)scale, h[1] = decoupled ? (float)(1 - rate * wd) : 1, h[2] = (float)rate;
        h[4] = decoupled ? 0 : (float)wd, h[5] = (float)o->max_grad_value;
        if (rule == UPDATE_ADAMW || rule == UPDATE_ADAM) {
            h[2] = (float)(rate / (1 - m_pow(o->beta1, t)));
            h[3] = (float)(1 / __builtin_sqrt(1 - m_pow(o->beta2, t)));
        } else if (rule == UPDATE_SGD)
            h[3] = o->step ? (float)(1 - o->with.dampening) : 1;
        else if (rule == UPDATE_ADAGRAD)
            h[2] = (float)(rate / (1 + (t - 1) * o->with.lr_decay));
    }
    return device_write(o->now, &now, sizeof now, e);
}

/* `count` elements of a view from `at` on. */
static struct view part(const struct view *v, i64 at, i64 count) {
    struct view out = flat(v->data, count, v->dtype);
    if (v->data) out.data = (u8 *)v->data + at * dtype_size(v->dtype);
    return v->data ? out : (struct view){0};
}

/* m or v (k: 0, 1) of a part, in codes: to f32, and back. */
static int moment_code(struct optimizer *o, const struct moments *s, int k, i64 at, i64 count,
                       bool back, struct err *e) {
    const i64 block = at / QUANT_BLOCK2, blocks = (count + QUANT_BLOCK2 - 1) / QUANT_BLOCK2;
    const struct view plain = part(&o->decoded[k], 0, count), map = part(&o->maps, 256 * k, 256),
                      codes = part(&s->state[STATE_M + k], at, count),
                      absmax = part(&s->state[STATE_M_ABSMAX + k], block, blocks);
    struct op_call there = {.op = &op_dequant8, .in = {codes, absmax, map}, .out = {plain}},
                   again = {.op = &op_quant8, .in = {plain, map}, .out = {codes, absmax}};
    return call(o, back ? &again : &there, e);
}

static int update_part(struct optimizer *o, struct moments *s, float *grad, i64 at, i64 count,
                       struct err *e) {
    const bool coded = s->state[STATE_M_ABSMAX].data;
    const struct update_attr attr = {o->kind->rule,   o->beta1,
                                     o->beta2,        o->eps,
                                     o->seed,         (u32)(s - o->of) + (u32)(at / PART << 20),
                                     o->with.nesterov};
    const struct view all = flat(grad, s->count, F32), param = s->p->view,
                      master = flat(s->master, s->count, F32),
                      weight = flat(param.data, s->count, param.dtype);
    struct op_call c = {.op = &op_update,
                        .attr = &attr,
                        .in = {part(&all, at, count),
                               flat(o->now->hyper[s->p->decay + 2 * s->p->fast], HYPER, F32)},
                        .out = {part(&master, at, count)}};
    for (int k = 0; k < 2; k++) {
        if (coded && moment_code(o, s, k, at, count, false, e)) return -1;
        c.out[1 + k] =
            coded ? part(&o->decoded[k], 0, count) : part(&s->state[STATE_M + k], at, count);
    }
    c.out[4] = part(&s->state[STATE_EXTRA], at, count);
    if (!s->master) c.in[2] = flat(&o->now->step, 1, I32);
    if (param.dtype != F32) c.out[3] = part(&weight, at, count);
    if (call(o, &c, e)) return -1;
    for (int k = 0; coded && k < 2; k++)
        if (moment_code(o, s, k, at, count, true, e)) return -1;
    return 0;
}
static int update_one(struct optimizer *o, struct moments *s, float *grad, struct err *e) {
    const i64 most = s->state[STATE_M_ABSMAX].data ? PART : s->count;
    for (i64 at = 0; at < s->count; at += most)
        if (update_part(o, s, grad, at, i64_min(most, s->count - at), e)) return -1;
    return 0;
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

/* ---- state: what state.h5 holds, in this order. A weight without a master, and the master of an
 * fp32 parameter, are in the weights' file. */

static const char *const parts[STATE_PARTS] = {"master", "m", "v", "extra", "m_absmax", "v_absmax"};

/* The shape in state.h5: the parameter's own, but for scales. */
static struct view stored_as(const struct moments *s, int k) {
    struct view v = s->state[k];
    if (k < STATE_M_ABSMAX) v.rank = s->p->view.rank, memcpy(v.dim, s->p->view.dim, sizeof v.dim);
    return v;
}

int optimizer_digest(const struct optimizer *o, char hex[65], struct err *e) {
    struct sha256 h;
    if (sha256_begin(&h, e)) return -1;
    sha256_add(&h, &o->step, sizeof o->step);
    struct device_buffer copy = {0};
    const void *from = o;
    for (i64 i = 0; from && i < o->count; i++) {
        const struct moments *s = &o->of[i];
        sha256_add(&h, s->p->name, (i64)strlen(s->p->name) + 1);
        for (int k = 0; from && k < STATE_PARTS; k++) {
            const struct view own = k || s->state[0].data ? s->state[k] : s->p->view;
            if (!own.data) continue;
            from = device_peek(own.data, view_bytes(&own), &copy, e);
            if (from) sha256_add(&h, from, view_bytes(&own));
        }
    }
    mem_free(copy.data);
    return sha256_end(&h, hex), from ? 0 : -1;
}

i64 optimizer_bytes(const struct optimizer *o) {
    i64 bytes = 0;
    for (i64 i = 0; i < o->count; i++) {
        const struct moments *s = &o->of[i];
        for (int k = 0; k < STATE_PARTS; k++)
            bytes += s->state[k].data ? view_bytes(&s->state[k]) : 0;
        for (int u = 0; u < SLOT_USES; u++) bytes += s->grad[u] ? s->count * 4 : 0;
    }
    return bytes;
}

int optimizer_save(const struct optimizer *o, struct state_writer *w, struct err *e) {
    struct device_buffer copy = {0};
    int rc = state_put_i64(w, "step", o->step, e);
    for (i64 i = 0; !rc && i < o->count; i++)
        for (int k = 0; !rc && k < STATE_PARTS; k++) {
            char name[256];
            const struct view v = stored_as(&o->of[i], k);
            if (!v.data) continue;
            snprintf(name, sizeof name, "optimizer/%s/%s", o->of[i].p->name, parts[k]);
            const void *from = device_peek(v.data, view_bytes(&v), &copy, e);
            rc = !from || state_add(w, name, v.dtype, v.rank, v.dim, from, e);
        }
    mem_free(copy.data);
    return rc ? -1 : 0;
}

int optimizer_load(struct optimizer *o, struct state_reader *r, struct err *e) {
    if (state_get_i64(r, "step", &o->step, e)) return -1;
    for (i64 i = 0; i < o->count; i++)
        for (int k = 0; k < STATE_PARTS; k++) {
            char name[256];
            const struct view v = stored_as(&o->of[i], k);
            if (!v.data) continue;
            snprintf(name, sizeof name, "optimizer/%s/%s", o->of[i].p->name, parts[k]);
            void *host = mem_new(view_bytes(&v), e);
            const int rc = !host || state_get(r, name, v.dtype, v.rank, v.dim, host, e) ||
                           device_write(v.data, host, view_bytes(&v), e) || device_sync(e);
            mem_free(host);
            if (rc) return -1;
        }
    return 0;
}
