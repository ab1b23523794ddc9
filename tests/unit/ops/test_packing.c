/* test_packing.c: for each packed type of the list: its values are the same bits on every
 * instruction set and wherever decoding starts, one rounding from those of its reference; a product
 * with it has the bits of the product with the decoded weight; what is no packed argument, or lacks
 * a part, is refused by name. What files hold is read as their formats say. */
#include "base/quant.h"
#include "checkpoints/checkpoints.h"
#include "ops/ops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Sizes cross the blocks of the product in every direction, and a row is no whole number of blocks
 * of any type. */
enum { N = 41, O = 331, I = 1106 };

static struct view packed_new(const struct packing *p, enum dtype d, i64 rows, i64 cols) {
    struct view v = {.dtype = d, .rank = 2, .dim = {rows, cols}};
    const struct rng r = {1, RNG_TEST, 0, 0};
    struct err e = {0};
    float *w = malloc((size_t)(rows * cols) * 4);
    for (i64 i = 0; i < rows * cols; i++) w[i] = rng_normal(&r, (u64)i);
    if (view_pack(&v, p, NULL, &e) || p->encode(&v, w, false, &e)) fail_msg("%s", e.primary);
    free(w);
    return v;
}
static void packed_free(struct view *v) {
    for (int k = 0; k <= VIEW_PARTS; k++) mem_free(*view_slot(v, k));
}

/* Decoding any stretch gives what decoding all gives, on all instruction sets. */
static void test_decode(void **state) {
    (void)state;
    struct err e = {0};
    static float all[O * I], part[O * I];
    double *ref = malloc(sizeof *ref * O * I);
    for (int k = 0; k < packing_count * 2; k++) {
        const struct packing *p = packing_table[k / 2];
        const bool is_bf16 = k % 2;
        const int size = is_bf16 ? 2 : 4;
        struct view v = packed_new(p, is_bf16 ? BF16 : F32, O, I);
        assert_ptr_equal(packing_find(p->name), p);
        p->ref(ref, &v, 0, O * I);
        view_unpack(all, &v, is_bf16);
        for (i64 i = 0; i < O * I; i++) {
            const double x = is_bf16 ? (double)bf16_to_f32(((u16 *)all)[i]) : (double)all[i];
            const double off = x < ref[i] ? ref[i] - x : x - ref[i],
                         top = ref[i] < 0 ? -ref[i] : ref[i];
            if (!(off <= top * (is_bf16 ? 0x1p-8 : 0x1p-22) + 0x1p-24))
                fail_msg("%s: element %lld is %.9g, reference %.9g", p->name, (long long)i, x,
                         ref[i]);
        }
        for (int isa = 0; isa <= (int)isa_best(); isa++)
            for (i64 at = 0, n = 1; at < O * I; at += n, n = n * 2 % 4099 + 1) {
                const i64 count = i64_min(n, O * I - at);
                memset(part, 0xff, (size_t)(count * size) + 4);
                p->decode[isa](part, &v, at, count, 1, 0, is_bf16);
                if (memcmp(part, (u8 *)all + at * size, (size_t)(count * size)))
                    fail_msg("%s, %s: elements from %lld on differ", p->name, isa_name[isa],
                             (long long)at);
                assert_int_equal(((u8 *)part)[count * size], 0xff);
            }
        packed_free(&v);
    }
    (void)e;
    free(ref);
}

static u8 *run(const struct op *op, const struct view *x, const struct view *w, i64 outs) {
    const struct lora_attr attr = {1};
    struct op_call c = {.op = op, .attr = &attr, .in = {*x, *w}};
    struct err e = {0};
    if (op_shape(&c, &e)) fail_msg("%s", e.primary);
    u8 *out = c.out[0].data = calloc(1, (size_t)(N * outs * 4));
    c.scratch = mem_new(op->scratch(&c), &e);
    assert_int_equal(op_run(&c, &e), 0);
    mem_free(c.scratch);
    return out;
}

static void test_product(void **state) {
    (void)state;
    struct err e = {0};
    static float x[N * I], plain[O * I];
    const struct rng r = {1, RNG_TEST, 0, 1};
    for (int k = 0; k < packing_count * 4; k++) {
        const struct packing *p = packing_table[k / 4];
        const bool is_bf16 = k % 2, back = k / 2 % 2;
        const enum dtype d = is_bf16 ? BF16 : F32;
        const i64 ins = back ? O : I, outs = back ? I : O;
        for (i64 i = 0; i < N * ins; i++) {
            const float value = rng_normal(&r, (u64)i);
            if (is_bf16)
                ((u16 *)x)[i] = bf16_of_f32(value);
            else
                x[i] = value;
        }
        struct view w = packed_new(p, d, O, I);
        struct view of = {.data = x, .dtype = d, .rank = 2, .dim = {N, ins}};
        const struct view same = {.data = plain, .dtype = d, .rank = 2, .dim = {O, I}};
        static const i64 rows[] = {N, 1, 4}; /* few have a kernel of their own */
        view_unpack(plain, &w, is_bf16);
        for (int i = 0; i < (back ? 1 : 3) * ((int)isa_best() + 1); i++) {
            const int isa = i % ((int)isa_best() + 1);
            of.dim[0] = rows[i / ((int)isa_best() + 1)];
            isa_force(isa_name[isa], &e);
            const struct op *op = back ? &op_linear_dx : &op_linear;
            u8 *a = run(op, &of, &w, outs), *b = run(op, &of, &same, outs);
            if (memcmp(a, b, (size_t)(N * outs * (is_bf16 ? 2 : 4))))
                fail_msg("%s with %s, %s: other bits than with the decoded weight", op->name,
                         p->name, isa_name[isa]);
            free(a), free(b);
        }
        isa_force(isa_name[isa_best()], &e);
        packed_free(&w);
    }
}

static void refused(const struct op *op, const struct view *a, const struct view *b,
                    const char *words) {
    struct norm_attr attr = {.eps = 1e-6};
    struct op_call c = {.op = op, .attr = &attr, .in = {*a, *b}};
    struct err e = {0};
    assert_int_equal(op_shape(&c, &e), -1);
    if (!strstr(e.primary, words)) fail_msg("'%s' does not say '%s'", e.primary, words);
}
static void test_refused(void **state) {
    (void)state;
    static float x[4 * 8];
    static i32 ids[4];
    const struct view of = {.data = x, .dtype = F32, .rank = 2, .dim = {4, 8}},
                      half = {.data = x, .dtype = BF16, .rank = 2, .dim = {4, 8}},
                      at = {.data = ids, .dtype = I32, .rank = 1, .dim = {4}};
    for (int k = 0; k < packing_count; k++) {
        struct view w = packed_new(packing_table[k], F32, 16, 8);
        refused(&op_embedding_back, &w, &at, "'dy' is packed as");
        refused(&op_add, &w, &of, "'a' is packed as");
        refused(&op_linear, &w, &of, "'x' is packed as");
        refused(&op_linear, &half, &w, "'w' is f32");
        for (int part = 1; part <= VIEW_PARTS; part++) {
            struct view less = w;
            if (!*view_slot(&less, part)) continue;
            *view_slot(&less, part) = NULL;
            refused(&op_linear, &of, &less, "which decodes it");
        }
        packed_free(&w);
    }
    assert_null(packing_find("auto"));
}

/* A call of at most 10 arguments; its results, one after another, in memory of `bytes`. */
static u8 *results(const struct op *op, const void *attr, const struct view *in, int ins,
                   i64 bytes) {
    struct op_call c = {.op = op, .attr = attr};
    struct err e = {0};
    i64 at = 0;
    memcpy(c.in, in, sizeof *in * (size_t)ins);
    if (op_shape(&c, &e)) fail_msg("%s", e.primary);
    u8 *out = calloc(1, (size_t)bytes);
    for (int i = 0; i < OP_OUT; i++) {
        if (!c.out[i].rank) continue;
        c.out[i].data = out + at, at += round_up(view_bytes(&c.out[i]), 64);
    }
    assert_true(at <= bytes);
    c.scratch = op->scratch ? mem_new(op->scratch(&c), &e) : NULL;
    if (op_run(&c, &e)) fail_msg("%s", e.primary);
    mem_free(c.scratch);
    return out;
}
static void drawn(void *to, i64 n, bool is_bf16, u32 stream) {
    const struct rng r = {1, RNG_TEST, 0, stream};
    for (i64 i = 0; i < n; i++) {
        const float x = rng_normal(&r, (u64)i);
        if (is_bf16)
            ((u16 *)to)[i] = bf16_of_f32(x);
        else
            ((float *)to)[i] = x;
    }
}

/* Rows of a packed table, which start within blocks, are those of the decoded one, and these are
 * copies; a packed LM head gives the losses and gradients of the decoded one. */
static void test_tables(void **state) {
    (void)state;
    enum { V = 45, D = 70, T = 19, R = 3, BYTES = 1 << 16 };
    static float plain[V * D], x[T * D], t[T * R], u[V * R], weight[T];
    static i32 id[T], target[T];
    const struct xent_attr attr = {0};
    struct err e = {0};
    for (int i = 0; i < T; i++)
        id[i] = i * 7 % V, target[i] = i % 5 ? i * 11 % V : -1, weight[i] = 1.0f / (float)(i + 1);
    for (int k = 0; k < packing_count * 2; k++) {
        const bool is_bf16 = k % 2;
        const enum dtype d = is_bf16 ? BF16 : F32;
        const i64 size = is_bf16 ? 2 : 4;
        struct view w[2] = {packed_new(packing_table[k / 2], d, V, D),
                            {.data = plain, .dtype = d, .rank = 2, .dim = {V, D}}};
        view_unpack(plain, &w[0], is_bf16);
        drawn(x, T * D, is_bf16, 2), drawn(t, T * R, is_bf16, 3), drawn(u, V * R, is_bf16, 4);
        const struct view ids = {.data = id, .dtype = I32, .rank = 1, .dim = {T}};
        const struct view head[7] = {{.data = x, .dtype = d, .rank = 2, .dim = {T, D}},
                                     {0},
                                     {.data = target, .dtype = I32, .rank = 1, .dim = {T}},
                                     {.data = weight, .dtype = F32, .rank = 1, .dim = {T}},
                                     {0},
                                     {.data = t, .dtype = d, .rank = 2, .dim = {T, R}},
                                     {.data = u, .dtype = d, .rank = 2, .dim = {V, R}}};
        for (int isa = 0; isa <= (int)isa_best(); isa++) {
            isa_force(isa_name[isa], &e);
            u8 *out[2][3];
            for (int i = 0; i < 2; i++) {
                struct view in[7];
                memcpy(in, head, sizeof in), in[1] = w[i];
                out[i][0] = results(&op_embedding, NULL, (struct view[]){ids, w[i]}, 2, BYTES);
                out[i][1] = results(&op_linear_xent_train, &attr, in, 4, BYTES);
                out[i][2] = results(&op_lora_xent_train, &attr, in, 7, BYTES);
            }
            for (int i = 0; i < T; i++)
                assert_memory_equal(out[1][0] + i * D * size, (u8 *)plain + id[i] * D * size,
                                    (size_t)(D * size));
            for (int i = 0; i < 3; i++) {
                if (memcmp(out[0][i], out[1][i], BYTES))
                    fail_msg("%s, %s: other bits than with the decoded table (%d)",
                             packing_table[k / 2]->name, isa_name[isa], i);
                free(out[0][i]), free(out[1][i]);
            }
        }
        isa_force(isa_name[isa_best()], &e);
        packed_free(&w[0]);
    }
}

/* GGUF's blocks: bytes that llama.cpp wrote decode to what its types say, in f32 and, rounded once,
 * in bf16; encoding gives the bytes of the encoder of GGUF files; all are finite, but for a scale
 * that is not. */
static void test_blocks(void **state) {
    (void)state;
    enum { ROWS = 6, COLS = 512, COUNT_OF = ROWS * COLS };
    static float want[COUNT_OF], got[COUNT_OF];
    static u8 bytes[COUNT_OF * 2];
    struct safetensors s;
    struct err e = {0};
    if (safetensors_open(&s, "tests/golden/gguf/blocks.safetensors", &e)) fail_msg("%s", e.primary);
    int checked = 0;
    for (int k = 0; k < packing_count; k++) {
        const struct packing *p = packing_table[k];
        if (!p->blocks.type) continue;
        const struct gguf_type *type = gguf_type_of(p->blocks.type);
        char name[32];
        snprintf(name, sizeof name, "%s.packed", p->name);
        const struct stored *t = safetensors_find(&s, name);
        assert_non_null(t);
        assert_int_equal(type->elements, p->block[0]);
        assert_int_equal(type->size, p->blocks.bytes);
        struct view v = {.dtype = F32, .rank = 2, .dim = {ROWS, COLS}};
        assert_int_equal(view_pack(&v, p, NULL, &e), 0);
        assert_int_equal(view_memory(&v), t->bytes);
        memcpy(v.data, t->data, (size_t)t->bytes);
        type->decode(t->data, COUNT_OF / type->elements, want);
        for (int isa = 0; isa <= (int)isa_best(); isa++) {
            p->decode[isa](got, &v, 0, COUNT_OF, 1, 0, false);
            assert_memory_equal(got, want, sizeof want);
            p->decode[isa](got, &v, 0, COUNT_OF, 1, 0, true);
            for (i64 i = 0; i < COUNT_OF; i++)
                assert_int_equal(((u16 *)got)[i], bf16_of_f32(want[i]));
        }
        const float *w = (const float *)safetensors_find(&s, "w")->data;
        type->encode(w, COUNT_OF / type->elements, bytes);
        assert_int_equal(p->encode(&v, w, false, &e), 0);
        assert_memory_equal(v.data, bytes, (size_t)t->bytes);
        assert_true(view_blocks_finite(&v));
        for (int i = 0; i < 2 && p->blocks.half[i] >= 0; i++) {
            u8 *high = (u8 *)v.data + 5 * p->blocks.bytes + p->blocks.half[i] + 1, was = *high;
            *high = 0x7c;
            assert_false(view_blocks_finite(&v));
            *high = was;
        }
        /* larger than f16 holds: still finite */
        for (i64 i = 0; i < COUNT_OF; i++) want[i] = (i % 3 ? 1e30f : -1e30f) / (float)(i + 1);
        assert_int_equal(p->encode(&v, want, false, &e), 0);
        assert_true(view_blocks_finite(&v));
        packed_free(&v), checked++;
    }
    assert_int_equal(checked, 8);
    safetensors_close(&s);
}

/* q8_0's bytes are those of the encoder of GGUF files; what f8's codes are worth is what FP8 files
 * mean by them. Both encode what they decode to the same bytes again. */
static void test_formats(void **state) {
    (void)state;
    enum { ROWS = 24, COLS = 96, COUNT_OF = ROWS * COLS };
    static float x[COUNT_OF], back[COUNT_OF];
    static u8 want[COUNT_OF / 32 * 34];
    const struct rng r = {1, RNG_TEST, 0, 0};
    struct err e = {0};
    for (i64 i = 0; i < COUNT_OF; i++) x[i] = rng_normal(&r, (u64)i);
    struct view v = packed_new(packing_find("q8_0"), F32, ROWS, COLS);
    gguf_type_of("Q8_0")->encode(x, COUNT_OF / 32, want);
    assert_int_equal(view_memory(&v), sizeof want);
    assert_memory_equal(v.data, want, sizeof want);
    view_unpack(back, &v, false);
    assert_int_equal(v.packing->encode(&v, back, false, &e), 0);
    assert_memory_equal(v.data, want, sizeof want);
    packed_free(&v);

    v = packed_new(packing_find("f8"), F32, 2, 127);
    *(float *)v.part[0] = 1;
    u8 codes[254];
    for (int i = 0; i < 254; i++) ((u8 *)v.data)[i] = codes[i] = (u8)(i < 127 ? i : i + 1);
    view_unpack(back, &v, false);
    for (int i = 0; i < 254; i++) {
        const float worth = fp8_to_f32(codes[i], FP8_E4M3);
        assert_memory_equal(&back[i], &worth, sizeof worth);
    }
    assert_int_equal(v.packing->encode(&v, back, false, &e), 0);
    assert_memory_equal(v.data, codes, sizeof codes);
    packed_free(&v);
}

int main(void) {
    struct err e = {0};
    isa_float_mode();
    if (pool_start(2, &e)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode),  cmocka_unit_test(test_product),
        cmocka_unit_test(test_tables),  cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_formats)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_stop();
    return failed;
}
