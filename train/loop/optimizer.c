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
 * Adafactor and Muon make something else of a gradient, in its place, before the rule:
 * ops/adafactor.c and muon.c.
 *
 * `optim: adamw_8bit` keeps m and v of parameters of 4,096 elements or more in 8 bits (Dettmers et
 * al., 2022; sizes as in bitsandbytes): decoded, updated and encoded again, PART elements at a
 * time, so that what they need as f32 does not grow with the model. The update sees f32. Rejected:
 * one fused operation, which saves passes over memory that are nothing beside a training step, and
 * would have to be written for each rule. */
#include "train/loop/loop.h"

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

static bool is_adam(const struct moments *s) {
    return s->rule == UPDATE_ADAMW || s->rule == UPDATE_ADAM;
}
static bool is_factored(const struct optimizer *o) {
    return o->kind->form == FORM_FACTORS || o->kind->form == FORM_FACTORS_TORCH;
}
static double beta1_of(const struct optimizer *o, const struct moments *s) {
    return s->rule == UPDATE_SGD || s->rule == UPDATE_RMSPROP ? o->with.momentum : o->beta1;
}

static bool has_state(const struct optimizer *o, const struct moments *s, int part) {
    const bool sums = is_factored(o), matrix = s->p->view.rank > 1;
    switch (part) {
    case STATE_M:
        return is_adam(s) || s->rule == UPDATE_LION ||
               (s->rule != UPDATE_ADAGRAD && beta1_of(o, s) > 0);
    case STATE_V:
        return is_adam(s) || s->rule == UPDATE_ADAGRAD || s->rule == UPDATE_RMSPROP ||
               (sums && !matrix);
    case STATE_EXTRA: return o->with.amsgrad || o->with.centered;
    default: return sums && matrix;
    }
}
/* The parameter's shape without its axis `gone` from the end. */
static void without(struct view *v, const struct view *p, int gone) {
    v->rank = 0;
    for (int i = 0; i < p->rank; i++)
        if (i != p->rank - gone) v->dim[v->rank++] = p->dim[i];
}

static int moments_new(struct optimizer *o, struct moments *s, struct param *p, bool masters,
                       struct err *e) {
    const i64 *dim = p->view.dim, rows = p->view.rank > 1 ? dim[p->view.rank - 2] : 1,
              cols = dim[p->view.rank - 1];
    s->p = p, s->count = view_count(&p->view);
    s->muon = o->kind->form == FORM_MUON && p->view.rank > 1 &&
              !(p->type && (p->type->kind == MODULE_EMBEDDING || p->type->kind == MODULE_HEAD));
    s->rule = o->kind->form == FORM_MUON && !s->muon ? UPDATE_ADAMW : o->kind->rule;
    if (s->muon) o->work_bytes = i64_max(o->work_bytes, muon_work(rows, cols));
    const bool coded = o->kind->form == FORM_CODED && s->count >= CODED_FROM;
    if (p->view.dtype == F32)
        s->master = p->view.data;
    else if (masters && view_new(&s->state[STATE_MASTER], s->count, F32, e))
        return -1;
    else
        s->master = s->state[STATE_MASTER].data;
    for (int k = STATE_M; k <= STATE_EXTRA; k++)
        if (has_state(o, s, k) &&
            (view_new(&s->state[k], s->count, coded ? U8 : F32, e) ||
             (coded && view_new(&s->state[k + STATE_M_ABSMAX - STATE_M],
                                (s->count + QUANT_BLOCK2 - 1) / QUANT_BLOCK2, F32, e))))
            return err_detail(e, "for the optimizer state of %s", p->name);
    for (int k = STATE_ROW; has_state(o, s, STATE_ROW) && k <= STATE_COL; k++) {
        if (view_new(&s->state[k], s->count / (k == STATE_ROW ? cols : rows), F32, e)) return -1;
        without(&s->state[k], &p->view, k == STATE_ROW ? 1 : 2);
    }
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
                            .ratio = {1, 1, 1},
                            .learning_rate = r->learning_rate,
                            .seed = (u64)r->seed};
    if (r->use_peft) o->ratio[LR_GROUP_FAST] = r->loraplus_lr_ratio;
    if (r->use_peft && r->loraplus_lr_embedding > 0 && r->learning_rate > 0)
        o->ratio[LR_GROUP_EMBEDDING] = r->loraplus_lr_embedding / r->learning_rate;
    if (o->kind->rule == UPDATE_RMSPROP) o->beta2 = o->with.alpha;
    if (o->kind->rule == UPDATE_RMSPROP || o->kind->rule == UPDATE_ADAGRAD) o->eps = o->with.eps;
    const i64 now = (i64)sizeof *o->now + m->weights.params * (i64)sizeof *o->now->hyper;
    if (!(o->of = mem_new_array(m->weights.params, sizeof *o->of, e)) ||
        !(o->norms = device_new(2 * m->weights.params * (i64)sizeof *o->norms, e)) ||
        !(o->now = device_new(now, e)) || !(o->now_host = mem_new(now, e)))
        return -1;
    for (i64 i = 0; i < m->weights.params; i++)
        if (m->weights.param[i]->trainable &&
            moments_new(o, &o->of[o->count++], m->weights.param[i], r->master_weights, e))
            return -1;
    if (o->work_bytes && !(o->work = device_new(o->work_bytes, e)))
        return err_detail(e, "for the products of Muon");
    return o->kind->form == FORM_CODED ? maps_new(o, e) : 0;
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
    device_free(o->work), mem_free(o->now_host);
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

static int add_into(struct optimizer *o, float *to, const float *from, i64 count, struct err *e) {
    struct op_call c = {.op = &op_add,
                        .in = {flat(to, count, F32), flat((void *)from, count, F32)},
                        .out = {flat(to, count, F32)}};
    return optimizer_call(o, &c, e);
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

/* Of an embedding of which some rows are trained the others have no gradient, so no moments, and
 * stay as they are (trainer_tokens.c: with which optimizers). */
static int rows_keep(const struct param *p, float *grad, i64 count, struct err *e) {
    const i64 cols = p->view.dim[p->view.rank - 1];
    i64 at = 0;
    for (i64 i = 0; i <= p->rows; i++) {
        const i64 end = i < p->rows ? p->row[i] * cols : count;
        if (end > at && device_zero(grad + at, (end - at) * 4, e)) return -1;
        at = end + cols;
    }
    return 0;
}

/* Adds the other uses to the first. */
static int gather(struct optimizer *o, struct moments *s, i64 groups, struct err *e) {
    for (int u = 1; u < SLOT_USES; u++)
        if (s->grad[u] && add_into(o, total_of(s, 0, groups), total_of(s, u, groups), s->count, e))
            return -1;
    return s->p->row ? rows_keep(s->p, total_of(s, 0, groups), s->count, e) : 0;
}

double optimizer_rate(const struct optimizer *o, double lr) {
    const double t = (double)(o->step + 1), most = o->with.warmup_init ? 1e-6 * t : 1e-2,
                 root = 1 / __builtin_sqrt(t);
    return !o->with.relative_step ? lr : most < root ? most : root;
}

/* Adafactor's, given sums of squares of what the gradient became and of the weight. */
static void hyper_factored(const struct optimizer *o, const struct moments *s, double rate,
                           double wd, const double squares[2], float h[HYPER]) {
    const struct optim_args *w = &o->with;
    const bool torch = o->kind->form == FORM_FACTORS_TORCH;
    const double n = (double)s->count, over = __builtin_sqrt(squares[0] / n) / w->clip_threshold,
                 size = __builtin_sqrt(squares[1] / n),
                 root = 1 / __builtin_sqrt((double)(o->step + 1)),
                 slow = !torch        ? optimizer_rate(o, rate)
                        : rate < root ? rate
                                      : root,
                 scaled = slow * (w->scale_parameter ? size > w->eps2 ? size : w->eps2 : 1);
    const double hyper[HYPER] = {scaled / (over > 1 ? over : 1),
                                 1 - wd * (torch ? rate : scaled),
                                 1,
                                 1 - w->momentum,
                                 0,
                                 __builtin_inf()};
    for (int i = 0; i < HYPER; i++) h[i] = (float)hyper[i];
}
static void hyper_of(const struct optimizer *o, const struct moments *s, double lr, double scale,
                     const double squares[2], float h[HYPER]) {
    const double t = (double)(o->step + 1), wd = s->p->decay ? o->weight_decay : 0;
    const bool others = o->kind->form == FORM_MUON && !s->muon && o->with.adamw_lr > 0,
               decoupled = s->rule == UPDATE_ADAMW || s->rule == UPDATE_LION || s->muon;
    const double rate = lr * o->ratio[s->p->lr_group] *
                        (others && o->learning_rate > 0 ? o->with.adamw_lr / o->learning_rate : 1);
    if (is_factored(o)) return hyper_factored(o, s, rate, wd, squares, h);
    h[0] = (float)scale, h[1] = decoupled ? (float)(1 - rate * wd) : 1, h[2] = (float)rate;
    h[3] = 1, h[4] = decoupled ? 0 : (float)wd, h[5] = (float)o->max_grad_value;
    if (is_adam(s)) {
        h[2] = (float)(rate / (1 - m_pow(o->beta1, t)));
        h[3] = (float)(1 / __builtin_sqrt(1 - m_pow(o->beta2, t)));
    } else if (s->muon) {
        const struct view *p = &s->p->view;
        h[0] = 1, h[5] = __builtin_inff();
        h[2] = (float)(rate * muon_rate(&o->with, p->dim[p->rank - 2], p->dim[p->rank - 1]));
    } else if (s->rule == UPDATE_SGD && o->step) {
        h[3] = (float)(1 - o->with.dampening);
    } else if (s->rule == UPDATE_ADAGRAD) {
        h[2] = (float)(rate / (1 + (t - 1) * o->with.lr_decay));
    }
}

/* What updates need of this step; the second half of `squares` is of the weights. */
static int now_write(struct optimizer *o, double lr, double scale, const double *squares,
                     struct err *e) {
    const double own = 1 - o->with.momentum, /* Muon's momentum: m' = momentum * m + own * g */
        momentum[HYPER] = {scale * own, 0, -1, 1, 0, o->max_grad_value * own};
    for (int i = 0; i < HYPER; i++) o->now_host->momentum[i] = (float)momentum[i];
    o->now_host->step = (i32)(o->step & 0x3ffffff);
    for (i64 i = 0; i < o->count; i++)
        hyper_of(o, &o->of[i], lr, scale, (double[]){squares[i], squares[o->count + i]},
                 o->now_host->hyper[i]);
    return device_write(o->now, o->now_host,
                        (i64)sizeof *o->now + o->count * (i64)sizeof *o->now->hyper, e);
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
    return optimizer_call(o, back ? &again : &there, e);
}

static int update_part(struct optimizer *o, struct moments *s, float *grad, i64 at, i64 count,
                       struct err *e) {
    const bool coded = s->state[STATE_M_ABSMAX].data;
    const struct update_attr attr = {s->rule,         beta1_of(o, s),
                                     o->beta2,        o->eps,
                                     o->seed,         (u32)(s - o->of) + (u32)(at / PART << 20),
                                     o->with.nesterov};
    const struct view all = flat(grad, s->count, F32), param = s->p->view,
                      master = flat(s->master, s->count, F32),
                      weight = flat(param.data, s->count, param.dtype);
    struct op_call c = {.op = &op_update,
                        .attr = &attr,
                        .in = {part(&all, at, count), flat(o->now->hyper[s - o->of], HYPER, F32)},
                        .out = {part(&master, at, count)}};
    for (int k = 0; k < 2 && !s->muon; k++) {
        if (coded && moment_code(o, s, k, at, count, false, e)) return -1;
        c.out[1 + k] =
            coded ? part(&o->decoded[k], 0, count) : part(&s->state[STATE_M + k], at, count);
    }
    c.out[4] = part(&s->state[STATE_EXTRA], at, count);
    if (is_factored(o)) c.out[2] = (struct view){0}; /* adafactor's own */
    if (!s->master) c.in[2] = flat(&o->now->step, 1, I32);
    if (param.dtype != F32) c.out[3] = part(&weight, at, count);
    if (optimizer_call(o, &c, e)) return -1;
    for (int k = 0; coded && k < 2; k++)
        if (moment_code(o, s, k, at, count, true, e)) return -1;
    return 0;
}
/* The gradient becomes the mean of gradients, or one momentum ahead of it, and its direction. */
static int muon_step(struct optimizer *o, struct moments *s, float *grad, struct err *e) {
    const struct update_attr attr = {
        .rule = UPDATE_SGD, .beta1 = o->with.momentum, .nesterov = o->with.nesterov};
    const struct view g = flat(grad, s->count, F32), *p = &s->p->view;
    const i64 rows = p->dim[p->rank - 2], cols = p->dim[p->rank - 1];
    struct op_call c = {.op = &op_update,
                        .attr = &attr,
                        .in = {g, flat(o->now->momentum, HYPER, F32)},
                        .out = {g, s->state[STATE_M]}};
    if (optimizer_call(o, &c, e)) return -1;
    for (i64 at = 0; at < s->count; at += rows * cols)
        if (muon_direction(o, grad + at, rows, cols, o->norms + (s - o->of), e)) return -1;
    return 0;
}
static int update_one(struct optimizer *o, struct moments *s, float *grad, struct err *e) {
    const i64 most = s->state[STATE_M_ABSMAX].data ? PART : s->count;
    if (s->muon && muon_step(o, s, grad, e)) return -1;
    for (i64 at = 0; at < s->count; at += most)
        if (update_part(o, s, grad, at, i64_min(most, s->count - at), e)) return -1;
    return 0;
}

static int square_sum(struct optimizer *o, const struct view *x, double *to, struct err *e) {
    struct op_call c = {.op = &op_square_sum, .in = {*x}, .out = {{.data = to}}};
    return optimizer_call(o, &c, e);
}
/* Adafactor: gradients become what the rate is to multiply; sums of their squares, and of the
 * weights'. */
static int factor_all(struct optimizer *o, i64 groups, double scale, struct err *e) {
    const struct optim_args *w = &o->with;
    const bool torch = o->kind->form == FORM_FACTORS_TORCH;
    const double own = m_pow((double)(o->step + 1), w->decay_rate),
                 factor[7] = {scale,
                              o->max_grad_value,
                              1 - own,
                              own,
                              torch ? 0 : w->eps1,
                              torch ? w->eps1 : 0,
                              torch ? 1 / w->eps1 : __builtin_inf()};
    for (int i = 0; i < 7; i++) o->now_host->factor[i] = (float)factor[i];
    if (device_write(o->now->factor, o->now_host->factor, sizeof o->now->factor, e)) return -1;
    for (i64 i = 0; i < o->count; i++) {
        struct moments *s = &o->of[i];
        if (!s->grad[0]) continue;
        struct view grad = s->p->view, weight = grad;
        grad.dtype = F32, grad.data = total_of(s, 0, groups);
        if (s->master) weight.dtype = F32, weight.data = s->master;
        struct op_call c = {
            .op = &op_adafactor,
            .in = {flat(o->now->factor, 7, F32)},
            .out = {grad, s->state[STATE_ROW], s->state[STATE_COL], s->state[STATE_V]}};
        if (optimizer_call(o, &c, e) || square_sum(o, &grad, o->norms + i, e) ||
            square_sum(o, &weight, o->norms + o->count + i, e))
            return -1;
    }
    return 0;
}

int optimizer_update(struct optimizer *o, i64 groups, double lr, double *grad_norm, struct err *e) {
    double sum = 0;
    for (i64 i = 0; i < o->count; i++) {
        struct moments *s = &o->of[i];
        if (!s->grad[0]) continue;
        const struct view grad = flat(total_of(s, 0, groups), s->count, F32);
        if (gather(o, s, groups, e) || square_sum(o, &grad, o->norms + i, e)) return -1;
    }
    struct device_buffer copy = {0};
    const i64 bytes = 2 * o->count * (i64)sizeof *o->norms;
    const double *norms = device_peek(o->norms, bytes, &copy, e);
    for (i64 i = 0; norms && i < o->count; i++) sum += o->of[i].grad[0] ? norms[i] : 0;
    *grad_norm = __builtin_sqrt(sum);
    int rc = !norms;
    if (!rc && !(*grad_norm - *grad_norm == 0)) {
        mem_free(copy.data);
        err_failed(e, "the gradient norm is not finite at step %lld", (long long)o->step + 1);
        return err_hint(
            e, "a smaller learning_rate or a longer warmup; the last checkpoint is intact");
    }
    const double clip = o->max_grad_norm > 0 ? o->max_grad_norm / (*grad_norm + 1e-6) : 1,
                 scale = clip < 1 ? clip : 1;
    if (!rc && is_factored(o))
        rc = factor_all(o, groups, scale, e) || !(norms = device_peek(o->norms, bytes, &copy, e));
    rc = rc || now_write(o, lr, scale, norms, e);
    for (i64 i = 0; !rc && i < o->count; i++) {
        struct moments *s = &o->of[i];
        rc = s->grad[0] && update_one(o, s, total_of(s, 0, groups), e);
    }
    mem_free(copy.data);
    if (rc || device_sync(e)) return -1;
    o->step++;
    return 0;
}
