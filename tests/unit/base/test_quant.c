/* test_quant.c: numbers of a few bits are those of bitsandbytes, PyTorch and transformers
 * (golden/quant), on every instruction set. */
#include "base/quant.h"
#include "checkpoints/checkpoints.h"
#include "ops/ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct safetensors file;

static void open_file(const char *name) {
    char path[128];
    struct err e = {0};
    snprintf(path, sizeof path, "tests/golden/quant/%s.safetensors", name);
    if (safetensors_open(&file, path, &e)) fail_msg("%s", e.primary);
}
static const struct stored *find(const char *fmt, ...) PRINTF(1, 2);
static const struct stored *find(const char *fmt, ...) {
    char name[128];
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    return safetensors_find(&file, name);
}
static i64 count_of(const struct stored *t) { return t->bytes / dtype_size(t->dtype); }
static const float *floats(const struct stored *t) {
    assert_true(t && t->dtype == F32);
    return (const float *)t->data;
}

static int code_at(const u8 *packed, i64 i) {
    return i % 2 ? packed[i / 2] & 15 : packed[i / 2] >> 4;
}
/* A value that is within rounding of the middle of two codes may have either. */
static void codes_near(const char *what, const u8 *got, const struct stored *want, enum quant4 type,
                       const float *x, const float *absmax, i64 count, int shift) {
    for (i64 i = 0; i < count; i++) {
        const int a = code_at(got, i), b = code_at(want->data, i);
        if (a == b) continue;
        const double v = (double)x[i] / (double)absmax[i >> shift],
                     off = fabs(fabs(v - (double)quant4_code[type][a]) -
                                fabs(v - (double)quant4_code[type][b]));
        if (off > 1e-6) fail_msg("%s: code %lld is %d, not %d", what, (long long)i, a, b);
    }
    if (count % 2) assert_int_equal(got[count / 2] & 15, want->data[count / 2] & 15);
}
static void values_near(const char *what, const float *got, const float *want, i64 count) {
    for (i64 i = 0; i < count; i++)
        if (!(fabs((double)got[i] - (double)want[i]) <= 1e-6 * fabs((double)want[i])))
            fail_msg("%s: value %lld is %.9g, not %.9g", what, (long long)i, (double)got[i],
                     (double)want[i]);
}

static void block4_check(const char *matrix, bool is_bf16, enum quant4 type, int shift,
                         bool twice) {
    const struct stored *w = find(is_bf16 ? "w_bf16.%s" : "w.%s", matrix);
    char key[96];
    snprintf(key, sizeof key, "%s.%s.%s.%s", matrix, is_bf16 ? "bf16" : "f32", quant4_name[type],
             twice        ? "dq"
             : shift == 7 ? "b128"
                          : "b64");
    const struct stored *packed = find("%s.packed", key), *dequant = find("%s.dequant", key);
    if (!packed) return;
    const i64 n = count_of(w), blocks = (n + (1 << shift) - 1) >> shift;
    float *x = malloc((size_t)n * 4), *absmax = malloc((size_t)blocks * 4),
          code[QUANT_TABLE_DOUBLE], absmax2[8];
    u8 *codes = calloc(1, (size_t)n), *first = calloc(1, (size_t)n), *scales = malloc((size_t)n);
    memcpy(code, quant4_code[type], sizeof quant4_code[type]);
    for (i64 i = 0; i < n; i++)
        x[i] = is_bf16 ? bf16_to_f32(((const u16 *)w->data)[i]) : ((const float *)w->data)[i];
    for (int isa = 0; isa <= (int)isa_best(); isa++) {
        struct err e = {0};
        isa_force(isa_name[isa], &e);
        quant4_encode(type, codes, absmax, w->data, is_bf16, n, 1 << shift);
        if (!isa) memcpy(first, codes, (size_t)n);
        assert_memory_equal(codes, first, (size_t)n);
    }
    codes_near(key, codes, packed, type, x, absmax, n, shift);
    struct quant q = {.absmax = absmax, .code = code, .shift = shift, .shift2 = 8};
    if (twice) { /* codes of scales, then decoding with the golden's own */
        const struct stored *u8s = find("%s.absmax_u8_nearest", key);
        quant_double(scales, absmax2, code, absmax, blocks);
        values_near(key, &code[QUANT_TABLE_DOUBLE - 1], floats(find("%s.nested_offset", key)), 1);
        values_near(key, absmax2, floats(find("%s.nested_absmax", key)), (blocks + 255) / 256);
        for (i64 i = 0; i < blocks; i++) assert_true(abs(scales[i] - u8s->data[i]) <= 1);
        code[QUANT_TABLE_DOUBLE - 1] = *floats(find("%s.nested_offset", key));
        q.absmax2 = floats(find("%s.nested_absmax", key));
        q.absmax = find("%s.absmax_u8", key) ? find("%s.absmax_u8", key)->data : scales;
    } else {
        assert_memory_equal(absmax, find("%s.absmax", key)->data, (size_t)blocks * 4);
    }
    for (int isa = 0; isa <= (int)isa_best() && dequant; isa++) {
        struct err e = {0};
        isa_force(isa_name[isa], &e);
        for (i64 i = 0; i < n; i += 37) { /* from any place on, of any length */
            const i64 some = i64_min(37, n - i);
            quant_decode(x + i, &q, packed->data, i, some, is_bf16);
            if (is_bf16) assert_memory_equal(x + i, (u16 *)dequant->data + i, (size_t)some * 2);
            if (!is_bf16) values_near(key, x + i, floats(dequant) + i, some);
        }
    }
    free(x), free(absmax), free(codes), free(first), free(scales);
}

static void test_4bit(void **state) {
    (void)state;
    static const char *const matrices[] = {"odd_count", "ragged", "zero_block_outlier",
                                           "scales_signs", "two_stat_blocks"};
    open_file("blockwise4");
    assert_memory_equal(quant4_code[QUANT_NF4], find("code.nf4")->data, 64);
    assert_memory_equal(quant4_code[QUANT_FP4], find("code.fp4")->data, 64);
    for (int m = 0; m < COUNT(matrices); m++)
        for (int is_bf16 = 0; is_bf16 < 2; is_bf16++)
            for (int type = 0; type < QUANT4_COUNT; type++) {
                if (m < 4) block4_check(matrices[m], is_bf16, (enum quant4)type, 6, false);
                if (m < 4 && !is_bf16)
                    block4_check(matrices[m], is_bf16, (enum quant4)type, 7, false);
                if (m < 4 || is_bf16)
                    block4_check(matrices[m], is_bf16, (enum quant4)type, 6, true);
            }
    safetensors_close(&file);
}

static void test_8bit(void **state) {
    (void)state;
    static const char *const matrices[] = {"odd_count", "ragged", "zero_block_outlier",
                                           "scales_signs"};
    struct safetensors values = {0};
    struct err e = {0};
    open_file("blockwise4");
    values = file;
    open_file("blockwise8");
    for (int m = 0; m < COUNT(matrices); m++)
        for (int kind = 0; kind < 3; kind++) {
            const bool has_sign = kind < 2;
            const int block = kind == 0 ? 64 : 256;
            float map[256], *x, *absmax;
            quant8_map(map, has_sign);
            assert_memory_equal(
                map, find(has_sign ? "code.dynamic_signed" : "code.dynamic_unsigned")->data, 1024);
            char name[64], key[96];
            snprintf(name, sizeof name, "w.%s", matrices[m]);
            snprintf(key, sizeof key, "%s.%s.b%d", matrices[m],
                     has_sign ? "signed" : "unsigned_of_abs", block);
            const struct stored *w = safetensors_need(&values, name, &e),
                                *want = find("%s.q_nearest", key);
            const i64 n = count_of(w);
            x = malloc((size_t)n * 4), absmax = malloc((size_t)n * 4);
            u8 *codes = malloc((size_t)n);
            for (i64 i = 0; i < n; i++) x[i] = has_sign ? floats(w)[i] : fabsf(floats(w)[i]);
            quant8_encode(codes, absmax, x, n, block, map);
            assert_memory_equal(absmax, find("%s.absmax", key)->data,
                                (size_t)((n + block - 1) / block) * 4);
            for (i64 i = 0; i < n; i++) {
                const double v = (double)x[i] / (double)absmax[i / block],
                             off = fabs(fabs(v - (double)map[codes[i]]) -
                                        fabs(v - (double)map[want->data[i]]));
                if (codes[i] != want->data[i] && absmax[i / block] > 0 && off > 1e-7)
                    fail_msg("%s: code %lld is %d, not %d", key, (long long)i, codes[i],
                             want->data[i]);
            }
            free(x), free(absmax), free(codes);
        }
    safetensors_close(&file), safetensors_close(&values);
}

static void test_formats(void **state) {
    (void)state;
    open_file("formats");
    for (int type = 0; type < 2; type++) {
        const char *name = type == FP8_E4M3 ? "e4m3fn" : "e5m2";
        const float *codes = floats(find("fp8.%s.codes", name)),
                    *in = floats(find("fp8.encode_in"));
        const struct stored *out = find("fp8.encode_%s", name);
        for (int c = 0; c < 256; c++) {
            const float x = fp8_to_f32((u8)c, (enum fp8)type);
            assert_true(isnan(codes[c]) ? isnan(x) : !memcmp(&x, &codes[c], 4));
            if (!isnan(x)) assert_int_equal(fp8_of_f32(x, (enum fp8)type), c);
        }
        for (i64 i = 0; i < out->bytes; i++)
            assert_int_equal(fp8_of_f32(in[i], (enum fp8)type), out->data[i]);
        assert_true(isnan(fp8_to_f32(fp8_of_f32(NAN, (enum fp8)type), (enum fp8)type)));
    }
    float row[300];
    static const i64 rows[] = {0, 127, 128, 199};
    const struct stored *fp8 = find("fp8_block.weight_u8");
    for (int r = 0; r < COUNT(rows); r++) {
        fp8_block_row(row, fp8->data + r * 300, floats(find("fp8_block.weight_scale_inv")), rows[r],
                      300);
        assert_memory_equal(row, find("fp8_block.dequant")->data + r * 1200, 1200);
    }
    /* transformers gives [experts, in, out] of [experts, out, in / 32] blocks */
    const struct stored *blocks = find("mxfp4.blocks"), *scales = find("mxfp4.scales");
    const float *want = floats(find("mxfp4.dequant"));
    const i64 outs = blocks->dim[1], groups = blocks->dim[2];
    for (i64 i = 0; i < scales->bytes; i++) {
        const i64 expert = i / groups / outs, out = i / groups % outs, first = i % groups * 32;
        mxfp4_block(row, blocks->data + i * 16, scales->data[i]);
        for (i64 k = 0; k < 32; k++)
            assert_true(row[k] == want[(expert * groups * 32 + first + k) * outs + out]);
    }
    const struct stored *q = find("int8.ragged.q");
    for (i64 r = 0; r < q->dim[0]; r++) {
        int8_row(row, (const signed char *)q->data + r * q->dim[1],
                 floats(find("int8.ragged.row_absmax"))[r], q->dim[1]);
        values_near("int8", row, floats(find("int8.ragged.dequant_f32")) + r * q->dim[1],
                    q->dim[1]);
    }
    safetensors_close(&file);
}

int main(void) {
    struct err e = {0};
    isa_float_mode();
    if (pool_start(2, &e)) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_4bit), cmocka_unit_test(test_8bit),
                                       cmocka_unit_test(test_formats)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_stop();
    return failed;
}
