/* elementwise_int.h: the formulas of the elementwise operations, each written once in the
 * vocabulary of base/v16.h: of sixteen lanes in elementwise_cpu.c, of one in elementwise_cuda.cu.
 * What they compute, with roundings: elementwise.c, activation.c.
 *
 * A map takes `ins` elements to `outs`, with a formula's numbers. MAP_OPS are whole operations,
 * MAP_PARTS parts of one. */
#ifndef HONE_ELEMENTWISE_INT_H
#define HONE_ELEMENTWISE_INT_H

#include "ops/ops_int.h"

#define MAP_OPS(X)                                                                                 \
    X(add, 2, 1)                                                                                   \
    X(glu, 2, 1)                                                                                   \
    X(glu_back, 3, 2)                                                                              \
    X(act, 1, 1)                                                                                   \
    X(act_back, 2, 1)                                                                              \
    X(xielu, 1, 1)                                                                                 \
    X(scale, 2, 1)                                                                                 \
    X(softcap, 1, 1)                                                                               \
    X(softcap_back, 2, 1)                                                                          \
    X(clamp, 1, 1)                                                                                 \
    X(clamp_back, 2, 1)                                                                            \
    X(gate_mul, 2, 1)
#define MAP_PARTS(X)                                                                               \
    X(xielu_dx, 2, 1)                                                                              \
    X(gate_back, 3, 2)

struct formula {
    i64 count, cols;
    int row;               /* input with one element for each row of `cols`; -1: none */
    bool is_bf16, row_f32; /* row_f32: that input is f32 whatever the others are */
    enum act act;
    float a, b, c, d;     /* what the formula needs besides elements */
    const void *alpha[2]; /* xielu: its scalars, read by map_begin */
};

/* What a call says. */
static inline struct formula map_of(const struct op_call *c) {
    const struct op *op = c->op;
    struct formula m = {0};
    m.count = view_count(&c->in[0]), m.cols = m.count, m.row = -1,
    m.is_bf16 = view_is_bf16(&c->in[0]);
    if (op == &op_glu || op == &op_glu_back || op == &op_act || op == &op_act_back) {
        const struct act_attr *t = (const struct act_attr *)c->attr;
        m.act = t->act, m.a = (float)t->limit, m.b = (float)t->alpha;
    } else if (op == &op_xielu || op == &op_xielu_back) {
        const struct xielu_attr *t = (const struct xielu_attr *)c->attr;
        const int first = op == &op_xielu ? 1 : 2;
        m.c = (float)t->beta, m.d = (float)t->eps;
        m.alpha[0] = c->in[first].data, m.alpha[1] = c->in[first + 1].data;
    } else if (op == &op_scale) {
        m.a = (float)((const struct scale_attr *)c->attr)->factor, m.row_f32 = true;
        if (is_present(&c->in[1])) m.row = 1;
    } else if (op == &op_softcap || op == &op_softcap_back) {
        const double cap = ((const struct limit_attr *)c->attr)->limit;
        m.a = (float)cap, m.b = (float)(1 / cap);
    } else if (op == &op_clamp || op == &op_clamp_back) {
        m.a = (float)((const struct limit_attr *)c->attr)->limit;
    } else if (op == &op_gate_mul || op == &op_gate_mul_back) {
        const int g = op == &op_gate_mul ? 1 : 2;
        if (view_count(&c->in[g]) != m.count) m.row = g;
    }
    if (m.row >= 0) m.cols = c->in[0].dim[c->in[0].rank - 1];
    return m;
}

/* log(1 + e^x) and its derivative in f64. */
#ifndef M_EXP /* kernels on a GPU have their own spelling */
#define M_EXP m_exp
#define M_LOG m_log
#endif
V16_FN double softplus(double x) { return x > 0 ? x + M_LOG(1 + M_EXP(-x)) : M_LOG(1 + M_EXP(x)); }
V16_FN double logistic(double x) { return 1 / (1 + M_EXP(-x)); }

/* xielu: a, b become the slopes of the two sides, from memory. */
V16_FN float alpha_at(const struct formula *m, int side, bool is_bf16) {
    return is_bf16 ? bf16_to_f32(*(const u16 *)m->alpha[side]) : *(const float *)m->alpha[side];
}
V16_FN void map_begin(struct formula *m) {
    if (!m->alpha[0]) return;
    m->a = (float)softplus((double)alpha_at(m, 0, m->is_bf16));
    m->b = (float)((double)m->c + softplus((double)alpha_at(m, 1, m->is_bf16)));
}

V16_FN void add_one(const struct formula *m, const v16 *x, v16 *y) {
    (void)m;
    y[0] = v16_add(x[0], x[1]);
}

/* ---- activations ---- */
/* On the CPU a call: inlined in each map, in four instruction sets, these took minutes to compile.
 */
#ifdef HONE_CUDA_H
#define CALLED_FN V16_FN
#else
#define CALLED_FN static __attribute__((noinline, unused))
#endif
CALLED_FN v16 act_value(const struct formula *m, v16 x, v16 *slope) {
    const v16 one = v16_set(1), half = v16_set(0.5f), zero = v16_set(0);
    if (m->act == ACT_SILU) {
        const v16 s = v16_sigmoid(x);
        *slope = v16_mul(s, v16_fma(x, v16_sub(one, s), one));
        return v16_mul(x, s);
    }
    if (m->act == ACT_GELU) {
        const v16 f = v16_fma(half, v16_erf(v16_mul(x, v16_set(0x1.6a09e6p-1f))), half);
        const v16 bell = v16_exp(v16_mul(v16_mul(x, x), v16_set(-0.5f)));
        *slope = v16_fma(v16_mul(x, bell), v16_set(0x1.988454p-2f), f);
        return v16_mul(x, f);
    }
    if (m->act == ACT_GELU_TANH) {
        const v16 c0 = v16_set(0x1.988454p-1f), c1 = v16_set(0.044715f), z = v16_mul(x, x);
        const v16 t = v16_tanh(v16_mul(v16_mul(x, c0), v16_fma(z, c1, one)));
        const v16 f = v16_fma(half, t, half), du = v16_mul(c0, v16_fma(z, v16_set(0.134145f), one));
        const v16 bend = v16_mul(v16_mul(half, x), v16_fma(v16_sub(zero, t), t, one));
        *slope = v16_fma(bend, du, f);
        return v16_mul(x, f);
    }
    *slope = v16_select(v16_lt(zero, x), one, zero); /* ACT_RELU */
    return v16_select(v16_lt(x, zero), zero, x);
}
V16_FN v16 limited(v16 x, float limit) {
    const v16 high = v16_set(limit), low = v16_set(-limit);
    return v16_select(v16_lt(high, x), high, v16_select(v16_lt(x, low), low, x));
}
/* y where |x| <= limit, 0 elsewhere */
V16_FN v16 inside(v16 x, float limit, v16 y) {
    return v16_select(v16_lt(v16_set(limit), v16_abs(x)), v16_set(0), y);
}
/* ACT_CLAMPED: the gate's side and the other, and the slope of the former. */
CALLED_FN v16 clamped_gate(const struct formula *m, v16 gate, v16 *slope) {
    const v16 top = v16_set(m->a), one = v16_set(1), g = v16_select(v16_lt(top, gate), top, gate);
    const v16 z = v16_mul(v16_set(m->b), g), s = v16_sigmoid(z);
    const v16 d = v16_mul(s, v16_fma(z, v16_sub(one, s), one));
    *slope = v16_select(v16_lt(top, gate), v16_set(0), d);
    return v16_mul(g, s);
}
V16_FN void glu_one(const struct formula *m, const v16 *x, v16 *y) { /* gate, up */
    v16 slope, up = x[1];
    if (m->act == ACT_CLAMPED)
        y[0] = v16_mul(clamped_gate(m, x[0], &slope), v16_add(limited(up, m->a), v16_set(1)));
    else
        y[0] = v16_mul(act_value(m, x[0], &slope), up);
}
V16_FN void glu_back_one(const struct formula *m, const v16 *x, v16 *y) { /* dy, gate, up */
    v16 slope, value, up = x[2];
    if (m->act == ACT_CLAMPED) {
        value = clamped_gate(m, x[1], &slope);
        up = v16_add(limited(up, m->a), v16_set(1));
    } else {
        value = act_value(m, x[1], &slope);
    }
    y[0] = v16_mul(v16_mul(x[0], up), slope);
    y[1] = v16_mul(x[0], value);
    if (m->act == ACT_CLAMPED) y[1] = inside(x[2], m->a, y[1]);
}
V16_FN void act_one(const struct formula *m, const v16 *x, v16 *y) {
    v16 slope;
    y[0] = act_value(m, x[0], &slope);
}
V16_FN void act_back_one(const struct formula *m, const v16 *x, v16 *y) { /* dy, x */
    v16 slope;
    act_value(m, x[1], &slope);
    y[0] = v16_mul(x[0], slope);
}

/* What multiplies the slopes: x^2 on the right, expm1(min(x, eps)) - x on the left. */
CALLED_FN v16 xielu_term(const struct formula *m, v16 x) {
    const v16 eps = v16_set(m->d), low = v16_select(v16_lt(eps, x), eps, x);
    return v16_select(v16_lt(v16_set(0), x), v16_mul(x, x), v16_sub(v16_expm1(low), x));
}
V16_FN v16 xielu_side(const struct formula *m, v16 x) {
    return v16_select(v16_lt(v16_set(0), x), v16_set(m->a), v16_set(m->b));
}
V16_FN void xielu_one(const struct formula *m, const v16 *x, v16 *y) {
    y[0] = v16_fma(xielu_side(m, x[0]), xielu_term(m, x[0]), v16_mul(v16_set(m->c), x[0]));
}
V16_FN void xielu_dx_one(const struct formula *m, const v16 *x, v16 *y) { /* dy, x */
    const v16 zero = v16_set(0), eps = v16_set(m->d);
    const v16 left = v16_sub(v16_select(v16_lt(eps, x[1]), zero, v16_exp(x[1])), v16_set(1));
    const v16 term = v16_select(v16_lt(zero, x[1]), v16_add(x[1], x[1]), left);
    y[0] = v16_mul(x[0], v16_fma(xielu_side(m, x[1]), term, v16_set(m->c)));
}

/* ---- the rest ---- */
V16_FN void scale_one(const struct formula *m, const v16 *x,
                      v16 *y) { /* x, factor of its row or 1 */
    y[0] = v16_mul(x[0], v16_mul(v16_set(m->a), x[1]));
}
V16_FN void softcap_one(const struct formula *m, const v16 *x, v16 *y) {
    y[0] = v16_mul(v16_set(m->a), v16_tanh(v16_mul(x[0], v16_set(m->b))));
}
V16_FN v16 softcap_slope(const struct formula *m, v16 y) { /* 1 - (y / cap)^2 */
    const v16 t = v16_mul(y, v16_set(m->b));
    return v16_fma(v16_sub(v16_set(0), t), t, v16_set(1));
}
V16_FN void softcap_back_one(const struct formula *m, const v16 *x, v16 *y) { /* dy, y */
    y[0] = v16_mul(x[0], softcap_slope(m, x[1]));
}
V16_FN void clamp_one(const struct formula *m, const v16 *x, v16 *y) { y[0] = limited(x[0], m->a); }
V16_FN void clamp_back_one(const struct formula *m, const v16 *x, v16 *y) { /* dy, x */
    y[0] = inside(x[1], m->a, x[0]);
}
V16_FN void gate_mul_one(const struct formula *m, const v16 *x, v16 *y) { /* x, g */
    (void)m;
    y[0] = v16_mul(x[0], v16_sigmoid(x[1]));
}
V16_FN v16 gate_slope(v16 g) {
    const v16 s = v16_sigmoid(g);
    return v16_mul(s, v16_sub(v16_set(1), s));
}
V16_FN void gate_back_one(const struct formula *m, const v16 *x, v16 *y) { /* dy, x, g */
    (void)m;
    y[0] = v16_mul(x[0], v16_sigmoid(x[2]));
    y[1] = v16_mul(v16_mul(x[0], x[1]), gate_slope(x[2]));
}

#endif
