/* route.c: which experts a token goes to, and with what weights; and the order in which experts see
 * tokens.
 *
 * route: logits [N, E], bias [E] f32 (steers the choice only), balance [E] f32 (may be absent) ->
 * weight [N, k] f32, index [N, k] i32, with balance term [N] f32.
 * In f32, whatever the dtype of the logits:
 *
 *   score   softmax: the logit l (its order is that of the probabilities); sigmoid: s(l)
 *   key     score + bias; NaN counts as -inf
 *   groups  E / groups experts each; a group's score is its largest key (softmax: DeepSeek V2), or
 *           the sum of its two largest (sigmoid: DeepSeek V3); keys outside of the top_groups best
 *           groups become -inf
 *   index   the top_k largest keys, descending; among equals the lowest index, here and for groups
 *   weight  softmax, renorm: exp(l_i - l_0) / their sum over the chosen, which is what Mixtral and
 *           Qwen (softmax, top-k, renormalise) and GPT-OSS (top-k, softmax) mean alike
 *           softmax: exp(l_i - max) / sum over all experts (16 lanes, NUMERICS.md 7)
 *           sigmoid: s_i; renorm: s_i / (their sum + 1e-20)
 *           then times scale. Sums over slots are chains from 0, ascending.
 *   term    sum over e of p_e * balance_e, fused, in 16 lanes; p the softmax over all experts: a
 *           token's share of the balancing loss, which is linear in p (recipes/models/balance.c)
 *
 * route_back: dweight [N, k], logits, index, with balance dterm [N] -> dlogits [N, E], through the
 * chosen weights and the term.
 * With g = scale * dweight, p the softmax, q = weight / scale, sums over slots as above:
 *
 *   softmax, renorm  dl_i = q_i * (g_i - sum q g)
 *   softmax          dl_e = p_e * (g_e - sum p g)
 *   sigmoid          dl_i = h_i * (s_i * (1 - s_i)), h = g; renorm: h_i = (g_i - sum q g) / (sum s
 *                    + 1e-20)
 *   balance          then dl_e = fma(dterm, p_e * (balance_e - term), dl_e)
 *
 * Those not chosen have g = 0; where nothing reaches them, 0.
 *
 * expert_plan: index -> offset [E + 1], order [N * k], place [N, k], all i32: the assignments t =
 * n * k + slot by expert, and of one expert by token; expert e owns order[offset[e]] up to
 * order[offset[e + 1]]; order[place[t]] = t. A counting sort without atomics. */
#include "ops/ops_int.h"

#include <math.h>
#include <string.h>

static const struct route_attr *attr_of(const struct op_call *c) { return c->attr; }

static int route_check(const struct op_call *c, i64 experts, struct err *e) {
    const struct route_attr *a = attr_of(c);
    if (experts > ROUTE_EXPERTS || a->top_k < 1 || a->top_k > i64_min(experts, ROUTE_SLOTS))
        return err_failed(e, "operation %s: %lld of %lld experts; expected 1 to %d of at most %d",
                          c->op->name, (long long)a->top_k, (long long)experts, ROUTE_SLOTS,
                          ROUTE_EXPERTS);
    if (a->groups > 1 && (experts % a->groups || a->groups > ROUTE_GROUPS || a->top_groups < 1 ||
                          a->top_groups > a->groups))
        return err_failed(e, "operation %s: %lld of %lld groups of %lld experts", c->op->name,
                          (long long)a->top_groups, (long long)a->groups, (long long)experts);
    return 0;
}
static enum dtype wide_of(const struct view *v) { return v->dtype == F64 ? F64 : F32; }

static int balance_check(const struct op_call *c, int at, const struct view *logits,
                         struct err *e) {
    return is_present(&c->in[at]) &&
                   (need_rank(c, at, 1, e) || need_dtype(c, at, wide_of(logits), e) ||
                    need_dim(c, at, 0, logits->dim[1], e))
               ? -1
               : 0;
}

static int route_shape(struct op_call *c, struct err *e) {
    const struct view *logits = &c->in[0];
    if (need_rank(c, 0, 2, e) || need_float(c, 0, e) || route_check(c, logits->dim[1], e))
        return -1;
    if (is_present(&c->in[1]) && (need_rank(c, 1, 1, e) || need_dtype(c, 1, wide_of(logits), e) ||
                                  need_dim(c, 1, 0, logits->dim[1], e)))
        return -1;
    if (balance_check(c, 2, logits, e)) return -1;
    const i64 dim[] = {logits->dim[0], attr_of(c)->top_k};
    set_out(c, 0, wide_of(logits), 2, dim), set_out(c, 1, I32, 2, dim);
    if (is_present(&c->in[2])) set_out(c, 2, wide_of(logits), 1, dim);
    return 0;
}

/* The largest of key[begin, end) that is not taken; the first of equals. */
static i64 best_of(const double *key, const bool *taken, i64 begin, i64 end) {
    i64 best = -1;
    for (i64 i = begin; i < end; i++)
        if (!taken[i] && (best < 0 || key[i] > key[best])) best = i;
    return best;
}
static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double term_of(const double *l, const double *balance, i64 experts) {
    double sum = 0, all = 0;
    for (i64 i = 0; i < experts; i++) all += exp(l[i]), sum += exp(l[i]) * balance[i];
    return sum / all;
}

static void groups_mask(const struct route_attr *a, i64 experts, double *key) {
    double score[ROUTE_GROUPS];
    bool taken[ROUTE_EXPERTS] = {0}, kept[ROUTE_GROUPS] = {0};
    const i64 size = experts / a->groups;
    for (i64 g = 0; g < a->groups; g++) {
        const i64 first = best_of(key, taken, g * size, (g + 1) * size);
        score[g] = key[first], taken[first] = true;
        const i64 second = best_of(key, taken, g * size, (g + 1) * size);
        if (a->score == ROUTE_SIGMOID && second >= 0) score[g] += key[second];
    }
    for (i64 n = 0; n < a->top_groups; n++) kept[best_of(score, kept, 0, a->groups)] = true;
    for (i64 i = 0; i < experts; i++)
        if (!kept[i / size]) key[i] = -INFINITY;
}

static void route_ref(const struct op_call *c) {
    const struct route_attr *a = attr_of(c);
    const i64 experts = c->in[0].dim[1];
    for (i64 n = 0; n < c->in[0].dim[0]; n++) {
        const double *l = (double *)c->in[0].data + n * experts;
        double key[ROUTE_EXPERTS], *w = (double *)c->out[0].data + n * a->top_k, sum = 0, all = 0;
        bool taken[ROUTE_EXPERTS] = {0};
        i32 *index = (i32 *)c->out[1].data + n * a->top_k;
        for (i64 i = 0; i < experts; i++) {
            key[i] = a->score == ROUTE_SIGMOID ? sigmoid(l[i]) : l[i], all += exp(l[i]);
            if (is_present(&c->in[1])) key[i] += ((double *)c->in[1].data)[i];
        }
        if (a->groups > 1) groups_mask(a, experts, key);
        for (i64 s = 0; s < a->top_k; s++) {
            const i64 i = best_of(key, taken, 0, experts);
            taken[i] = true, index[s] = (i32)i;
            sum += w[s] = a->score == ROUTE_SIGMOID ? sigmoid(l[i]) : exp(l[i]);
        }
        const double by = a->renorm ? sum : a->score == ROUTE_SIGMOID ? 1 : all;
        for (i64 s = 0; s < a->top_k; s++) w[s] *= a->scale / by;
        if (is_present(&c->in[2]))
            ((double *)c->out[2].data)[n] = term_of(l, c->in[2].data, experts);
    }
}

/* Sizes of the samples of the family: N, E, k, score, renorm, scale, groups, top_groups, bias,
 * balance. */
struct routing {
    i64 tokens, experts;
    struct route_attr attr;
    bool bias, balance;
};
static const struct routing routings[] = {
    {1, 5, {2, ROUTE_SOFTMAX, false, 1, 1, 1}, false, true},
    {5, 8, {2, ROUTE_SOFTMAX, true, 1, 0, 0}, false, true},
    {19, 33, {8, ROUTE_SOFTMAX, false, 1, 1, 1}, false, false},
    {7, 40, {3, ROUTE_SOFTMAX, false, 16, 8, 3}, false, true},
    {9, 12, {3, ROUTE_SIGMOID, true, 2.5, 4, 2}, true, false},
    {11, 96, {6, ROUTE_SIGMOID, true, 2.827, 1, 1}, true, true},
    {3, 17, {17, ROUTE_SIGMOID, false, 1.5, 1, 1}, false, false},
    {4096, 128, {8, ROUTE_SOFTMAX, true, 1, 1, 1}, false, true},
    {4096, 256, {8, ROUTE_SIGMOID, true, 2.5, 8, 4}, true, false},
};
static const struct routing *routing_at(int index, struct sample *s) {
    if (index >= COUNT(routings)) return NULL;
    *(struct route_attr *)s->attr = routings[index].attr;
    s->bench = bench_of(routings[index].tokens);
    return &routings[index];
}
static bool route_sample(int index, struct sample *s) {
    const struct routing *r = routing_at(index, s);
    if (!r) return false;
    sample_float(&s->in[0], -4, 4, DIMS(r->tokens, r->experts));
    if (r->bias) sample_f32(&s->in[1], -0.3, 0.3, DIMS(r->experts));
    if (r->balance) sample_f32(&s->in[2], 0, 2, DIMS(r->experts));
    return true;
}
const struct op op_route = {
    .name = "route",
    .in = "logits bias? balance?",
    .out = "weight index term",
    .attr_size = sizeof(struct route_attr),
    .shape = route_shape,
    .grad = {{"route_back", "dweight logits index dterm balance", "dlogits"}},
    .ref = route_ref,
    .cpu = CPU(route),
    .cuda = CUDA(route),
    .sample = route_sample,
    .bound = {16, 4},
};

static int route_back_shape(struct op_call *c, struct err *e) {
    const struct view *logits = &c->in[1];
    const i64 dim[] = {logits->dim[0], attr_of(c)->top_k};
    if (need_rank(c, 1, 2, e) || need_float(c, 1, e) || route_check(c, logits->dim[1], e))
        return -1;
    for (int i = 0; i <= 2; i += 2)
        if (need_rank(c, i, 2, e) || need_dtype(c, i, i ? I32 : wide_of(logits), e) ||
            need_dim(c, i, 0, dim[0], e) || need_dim(c, i, 1, dim[1], e))
            return -1;
    if (balance_check(c, 4, logits, e) ||
        (is_present(&c->in[4]) && (need_rank(c, 3, 1, e) || need_dtype(c, 3, wide_of(logits), e) ||
                                   need_dim(c, 3, 0, dim[0], e))))
        return -1;
    set_out_like(c, 0, logits);
    return 0;
}
static void route_back_ref(const struct op_call *c) {
    const struct route_attr *a = attr_of(c);
    const i64 experts = c->in[1].dim[1], k = a->top_k;
    for (i64 n = 0; n < c->in[1].dim[0]; n++) {
        const double *g = (double *)c->in[0].data + n * k,
                     *l = (double *)c->in[1].data + n * experts;
        const i32 *index = (i32 *)c->in[2].data + n * k;
        double *dl = (double *)c->out[0].data + n * experts, sum = 0, all = 0, dot = 0;
        const bool sigmoids = a->score == ROUTE_SIGMOID;
        for (i64 i = 0; i < experts; i++) all += exp(l[i]);
        for (i64 s = 0; s < k; s++) sum += sigmoids ? sigmoid(l[index[s]]) : exp(l[index[s]]);
        const double by = a->renorm ? sum : sigmoids ? 1 : all;
        for (i64 s = 0; s < k; s++)
            dot += g[s] * (sigmoids ? sigmoid(l[index[s]]) : exp(l[index[s]])) / by;
        if (sigmoids && !a->renorm) dot = 0;
        for (i64 i = 0; i < experts; i++)
            dl[i] = sigmoids || a->renorm ? 0 : -a->scale * exp(l[i]) / all * dot;
        for (i64 s = 0; s < k; s++) {
            const double x = l[index[s]], slope = sigmoids ? sigmoid(x) * (1 - sigmoid(x)) : exp(x);
            dl[index[s]] = a->scale * slope / by * (g[s] - dot);
        }
        const double *balance = c->in[4].data;
        const double term = is_present(&c->in[4]) ? term_of(l, balance, experts) : 0;
        for (i64 i = 0; is_present(&c->in[4]) && i < experts; i++)
            dl[i] += ((double *)c->in[3].data)[n] * exp(l[i]) / all * (balance[i] - term);
    }
}
static void fill_index(void *data, const struct view *v) { /* distinct in a row */
    const i64 k = v->dim[1];
    for (i64 i = 0; i < view_count(v); i++) ((i32 *)data)[i] = (i32)((i / k * 5 + i) % k);
}
static bool route_back_sample(int index, struct sample *s) {
    const struct routing *r = routing_at(index, s);
    if (!r) return false;
    sample_f32(&s->in[0], -1, 1, DIMS(r->tokens, r->attr.top_k));
    sample_float(&s->in[1], -4, 4, DIMS(r->tokens, r->experts));
    sample_int(&s->in[2], 0, 1, DIMS(r->tokens, r->attr.top_k));
    s->in[2].fill = FILL_CUSTOM, s->in[2].custom = fill_index;
    if (r->balance) sample_f32(&s->in[3], -1, 1, DIMS(r->tokens));
    if (r->balance) sample_f32(&s->in[4], 0, 2, DIMS(r->experts));
    return true;
}
const struct op op_route_back = {
    .name = "route_back",
    .in = "dweight logits index dterm? balance?",
    .out = "dlogits",
    .attr_size = sizeof(struct route_attr),
    .shape = route_back_shape,
    .ref = route_back_ref,
    .cpu = CPU(route_back),
    .cuda = CUDA(route_back),
    .sample = route_back_sample,
    .bound = {16, 2},
};

/* ---- expert_plan ---- */
static int expert_plan_shape(struct op_call *c, struct err *e) {
    const i64 experts = ((const struct plan_attr *)c->attr)->experts;
    if (need_rank(c, 0, 2, e) || need_dtype(c, 0, I32, e)) return -1;
    if (experts < 1 || experts > ROUTE_EXPERTS || view_count(&c->in[0]) > INT32_MAX)
        return err_failed(e, "operation %s: %lld assignments to %lld experts", c->op->name,
                          (long long)view_count(&c->in[0]), (long long)experts);
    set_out(c, 0, I32, 1, (i64[]){experts + 1});
    set_out(c, 1, I32, 1, (i64[]){view_count(&c->in[0])});
    set_out_like(c, 2, &c->in[0]);
    return 0;
}
void expert_plan_run(const struct op_call *c) {
    const i32 *index = c->in[0].data;
    i32 *offset = c->out[0].data, *order = c->out[1].data, *place = c->out[2].data;
    const i64 experts = c->out[0].dim[0] - 1, count = view_count(&c->in[0]);
    i32 next[ROUTE_EXPERTS];
    memset(offset, 0, sizeof *offset * (size_t)(experts + 1));
    for (i64 t = 0; t < count; t++) offset[index[t] + 1]++;
    for (i64 i = 0; i < experts; i++) next[i] = offset[i], offset[i + 1] += offset[i];
    for (i64 t = 0; t < count; t++) place[t] = next[index[t]]++, order[place[t]] = (i32)t;
}
static i64 expert_plan_scratch_cuda(const struct op_call *c) { return view_bytes(&c->out[0]); }
static bool expert_plan_sample(int index, struct sample *s) {
    static const i64 sizes[][3] = {{1, 1, 1}, {5, 2, 4}, {40, 3, 7}, {600, 2, 5}, {4096, 8, 128}};
    if (index >= COUNT(sizes)) return false;
    *(struct plan_attr *)s->attr = (struct plan_attr){sizes[index][2]};
    sample_int(&s->in[0], 0, sizes[index][2], DIMS(sizes[index][0], sizes[index][1]));
    s->bench = bench_of(sizes[index][0]);
    return true;
}
const struct op op_expert_plan = {
    .name = "expert_plan",
    .in = "index",
    .out = "offset order place",
    .attr_size = sizeof(struct plan_attr),
    .shape = expert_plan_shape,
    .ref = expert_plan_run,
    .scratch_cuda = expert_plan_scratch_cuda,
    .cpu = CPU(expert_plan),
    .cuda = CUDA(expert_plan),
    .sample = expert_plan_sample,
    .bound = {0, 0},
};
