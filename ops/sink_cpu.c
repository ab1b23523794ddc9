/* sink_cpu.c: the gradient of attention's sinks: what each query adds, by heads and sixteen
 * queries; then a chain for each head. Definition: sink.c. */
#include "base/v16.h"
#include "ops/attention/attention_int.h"

struct sinks {
    const struct op_call *call;
    float *part; /* [heads][queries] */
    i64 queries, heads, dim;
    bool is_bf16;
};

V16_FN void part_put(const struct sinks *s, i64 head, i64 first, bool is_bf16) {
    const struct view *in = s->call->in;
    const i64 at = head * s->queries + first, left = i64_min(16, s->queries - first);
    float delta[16] = {0};
    for (i64 r = 0; r < left; r++) {
        const i64 row = ((first + r) * s->heads + head) * s->dim;
        v16 sum = v16_set(0);
        for (i64 d = 0; d < s->dim; d += 16)
            sum = v16_fma(v16_get_n(in[0].data, row + d, s->dim - d, is_bf16),
                          v16_get_n(in[1].data, row + d, s->dim - d, is_bf16), sum);
        delta[r] = v16_sum(sum);
    }
    const v16 sink = v16_set(in[3].dtype == BF16 ? bf16_to_f32(((u16 *)in[3].data)[head])
                                                 : ((float *)in[3].data)[head]);
    const v16 p = v16_exp(v16_sub(sink, v16_load_n((float *)in[2].data + at, left)));
    v16_store_n(s->part + at, v16_mul(v16_sub(v16_set(0), p), v16_load(delta)), left);
}

static void parts_work(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct sinks *s = arg;
    for (i64 n = begin; n < end; n++)
        if (s->is_bf16)
            part_put(s, n % s->heads, n / s->heads * 16, true);
        else
            part_put(s, n % s->heads, n / s->heads * 16, false);
}

static void chains_work(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct sinks *s = arg;
    for (i64 head = begin; head < end; head++) {
        float *to = (float *)s->call->out[0].data + head, sum = *to;
        for (i64 i = 0; i < s->queries; i++) sum += s->part[head * s->queries + i];
        *to = sum;
    }
}

CPU_KERNEL(sink_back) {
    (void)e;
    const struct attention_attr *a = c->attr;
    struct sinks s = {.call = c,
                      .part = c->scratch,
                      .queries = c->in[0].dim[0],
                      .heads = a->heads,
                      .dim = value_dim(a),
                      .is_bf16 = view_is_bf16(&c->in[0])};
    pool_run((s.queries + 15) / 16 * s.heads, parts_work, &s);
    pool_run(s.heads, chains_work, &s);
    return 0;
}
