/* rope_cpu.c: a rotation per pair; formulas in rope.c. The interleaved form is written per pair:
 * the families that use it turn few columns. */
#include "base/v16.h"
#include "ops/ops_int.h"

struct turn {
    const struct op_call *c;
    float sign;
};

static float get1(const void *p, i64 i, bool is_bf16) {
    return is_bf16 ? bf16_to_f32(((const u16 *)p)[i]) : ((const float *)p)[i];
}
static void put1(void *p, i64 i, float x, bool is_bf16) {
    if (is_bf16)
        ((u16 *)p)[i] = bf16_of_f32(x);
    else
        ((float *)p)[i] = x;
}

V16_FN void turn_split(const struct op_call *c, const float *row, i64 at, float sign,
                       bool is_bf16) {
    const i64 pairs = ((const struct rope_attr *)c->attr)->rotary_dim / 2;
    for (i64 i = 0; i < pairs; i += 16) {
        const i64 left = pairs - i;
        const v16 co = v16_load_n(row + i, left),
                  si = v16_mul(v16_load_n(row + pairs + i, left), v16_set(sign));
        const v16 a = v16_get_n(c->in[0].data, at + i, left, is_bf16),
                  b = v16_get_n(c->in[0].data, at + pairs + i, left, is_bf16);
        v16_put_n(c->out[0].data, at + i, v16_fma(a, co, v16_sub(v16_set(0), v16_mul(b, si))), left,
                  is_bf16);
        v16_put_n(c->out[0].data, at + pairs + i, v16_fma(b, co, v16_mul(a, si)), left, is_bf16);
    }
}

static void turn_pairs(const struct op_call *c, const float *row, i64 at, float sign,
                       bool is_bf16) {
    const i64 pairs = ((const struct rope_attr *)c->attr)->rotary_dim / 2;
    for (i64 i = 0; i < pairs; i++) {
        const float a = get1(c->in[0].data, at + 2 * i, is_bf16),
                    b = get1(c->in[0].data, at + 2 * i + 1, is_bf16);
        const float co = row[i], si = row[pairs + i] * sign;
        put1(c->out[0].data, at + 2 * i, f32_fma(a, co, 0.0f - b * si), is_bf16);
        put1(c->out[0].data, at + 2 * i + 1, f32_fma(b, co, a * si), is_bf16);
    }
}

static void turn_rows(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct turn *t = arg;
    const struct op_call *c = t->c;
    const struct rope_attr *a = c->attr;
    const bool is_bf16 = view_is_bf16(&c->in[0]);
    const i64 width = c->in[0].dim[1];
    for (i64 n = begin; n < end; n++) {
        const float *row =
            (const float *)c->in[2].data + ((const i32 *)c->in[1].data)[n] * a->rotary_dim;
        for (i64 at = n * width; at < (n + 1) * width; at += a->head_dim) {
            if (a->interleaved)
                turn_pairs(c, row, at, t->sign, is_bf16);
            else if (is_bf16)
                turn_split(c, row, at, t->sign, true);
            else
                turn_split(c, row, at, t->sign, false);
            for (i64 i = at + a->rotary_dim; i < at + a->head_dim; i++)
                put1(c->out[0].data, i, get1(c->in[0].data, i, is_bf16), is_bf16);
        }
    }
}

static int turn(const struct op_call *c, float sign, struct err *e) {
    const i32 *position = c->in[1].data;
    for (i64 n = 0; n < c->in[1].dim[0]; n++)
        if (position[n] < 0 || position[n] >= c->in[2].dim[0])
            return err_failed(e, "position %d is outside the rotary table of %lld positions",
                              position[n], (long long)c->in[2].dim[0]);
    struct turn t = {c, sign};
    pool_run(c->in[0].dim[0], turn_rows, &t);
    return 0;
}
CPU_KERNEL(rope) { return turn(c, 1, e); }
CPU_KERNEL(rope_back) { return turn(c, -1, e); }
