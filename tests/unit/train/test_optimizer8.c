/* test_optimizer8.c: AdamW with moments in 8 bits against the formulas of bitsandbytes
 * (golden/optim), and that its state is saved and read back. */
#include "train/loop/loop.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define FOLDER "tests/golden/optim/"

/* Moments in 8 bits, 4 steps on 5,000 elements: bitsandbytes' arguments of golden/optim. A value on
 * the middle of two codes may get either, and its next step then differs by a part of the rate. */
static void test_8bit(void **state) {
    (void)state;
    enum { N = 5000 };
    const struct recipe r = {.optim = "adamw_8bit",
                             .adam_beta1 = 0.9,
                             .adam_beta2 = 0.999,
                             .adam_epsilon = 1e-8,
                             .weight_decay = 0.05,
                             .master_weights = true};
    struct err e = {0};
    struct safetensors s;
    assert_int_equal(safetensors_open(&s, FOLDER "adamw_8bit.safetensors", &e), 0);
    static float w[N];
    memcpy(w, safetensors_find(&s, "p0")->data, sizeof w);
    const float *grads = (const float *)safetensors_find(&s, "grads")->data;
    struct param p = {.name = "p", .trainable = true, .decay = true}, *list[] = {&p};
    p.view = (struct view){.data = w, .dtype = F32, .rank = 1, .dim = {N}};
    struct model m = {.weights = {.param = list, .params = 1}};
    struct tensor slot = {.kind = TENSOR_SLOT, .name = "p", .key = &p, .view = p.view},
                  *slots[] = {&slot};
    struct graph g = {.tensor = slots, .tensors = 1};
    struct optimizer o;
    assert_int_equal(optimizer_new(&o, &m, &r, &e) || optimizer_bind(&o, &g, &e), 0);
    assert_int_equal(optimizer_bytes(&o) + optimizer_gradient_bytes(&o),
                     4 * N + 2 * N + 2 * 4 * ((N + 255) / 256));
    for (int step = 0; step < 4; step++) {
        double norm;
        optimizer_zero(&o, NULL);
        memcpy(slot.view.data, grads + step * N, N * 4);
        assert_int_equal(optimizer_update(&o, 1, 2e-3, &norm, &e), 0);
        if (step % 3) continue;
        const float *want = (const float *)safetensors_find(&s, step ? "adamw8bit_nearest.p4"
                                                                     : "adamw8bit_nearest.p1")
                                ->data;
        int off = 0;
        for (int i = 0; i < N; i++) {
            const float d = fabsf(w[i] - want[i]);
            off += d > 1e-6f * fabsf(want[i]) + 1e-8f;
            if (d > (step ? 2e-4f : 1e-7f))
                fail_msg("step %d, [%d]: %g, not %g", step + 1, i, (double)w[i], (double)want[i]);
        }
        if (off > (step ? N / 100 : 0)) fail_msg("step %d: %d elements differ", step + 1, off);
    }
    for (int k = 0; k < 2; k++) {
        const u8 *codes = o.of[0].state[STATE_M + k].data,
                 *want = safetensors_find(&s, k ? "adamw8bit_nearest.state2.4"
                                                : "adamw8bit_nearest.state1.4")
                             ->data;
        int off = 0;
        for (int i = 0; i < N; i++) {
            if (abs(codes[i] - want[i]) > 1) fail_msg("code %d: %d, not %d", i, codes[i], want[i]);
            off += codes[i] != want[i];
        }
        if (off > N / 100) fail_msg("%d codes differ", off);
    }
    optimizer_free(&o), safetensors_close(&s);
}

int main(void) {
    isa_float_mode();
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_8bit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
