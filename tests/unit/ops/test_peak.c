/* test_peak.c: the loops behind the peak that `hone bench` states (ops/peak_cpu.c) do as
 * many floating-point operations as they say. They run here one instruction at a time (the
 * processor's trap flag), and the multiply-adds that come by are counted. So it holds whatever the
 * compiler made of the code, and no tool is needed. */
#include "ops/peak.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <ucontext.h>

#include <cmocka.h>

static double counted; /* floating-point operations of the multiply-adds that were stepped over */
static u32 sums;       /* the registers that they added to */
static i64 multiply_adds; /* of vectors */

/* A multiply-add at `at`: how many operations it does and to which register; 0 if it is another
 * instruction. Intel's manual, volume 2: sections 2.3 (VEX) and 2.7 (EVEX) and the instructions. */
static int multiply_add(const u8 *at, int *sum) {
    const bool vex = at[0] == 0xc4, evex = at[0] == 0x62;
    const int map = vex ? at[1] & 31 : at[1] & 7, prefix = at[2] & 3; /* 1: 66, 2: F3 */
    const u8 op = vex ? at[3] : at[4], modrm = vex ? at[4] : at[5];
    const int lanes = vex ? (at[2] & 4 ? 8 : 4) : 4 << (at[3] >> 5 & 3);
    if (!(vex || evex) || map != 2 || at[2] & 0x80) return 0; /* 0x80: doubles */
    *sum = (modrm >> 3 & 7) + (at[1] & 0x80 ? 0 : 8) + (vex || at[1] & 0x10 ? 0 : 16);
    if (prefix == 1 && (op == 0x98 || op == 0xa8 || op == 0xb8)) return 2 * lanes; /* VFMADD..PS */
    return evex && prefix == 2 && op == 0x52 ? 4 * lanes : 0;                      /* VDPBF16PS */
}

/* A product of doubles, of which plain C has one for each multiply-add (v16_fma1). */
static int product(const u8 *at) {
    const int lanes = at[0] == 0xf2 ? 1 : at[0] == 0x66 ? 2 : 0;
    at += (at[1] & 0xf0) == 0x40 ? 2 : 1; /* a REX prefix */
    return at[0] == 0x0f && at[1] == 0x59 ? 2 * lanes : 0;
}

static bool plain;
__attribute__((no_sanitize("address", "undefined"))) static void
on_step(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    const ucontext_t *c = context;
    const u8 *at = (const u8 *)c->uc_mcontext.gregs[REG_RIP];
    int sum = 0;
    const int done = plain ? product(at) : multiply_add(at, &sum);
    counted += done;
    if (!plain && done) multiply_adds++, sums |= 1u << sum;
}

#define TRAP_FLAG "0x100"
static double stepped(double (*spin)(i64, bool), i64 rounds, bool pair) {
    counted = 0, multiply_adds = 0, sums = 0;
    __asm__ volatile("pushfq\n orq $" TRAP_FLAG ", (%%rsp)\n popfq" ::: "cc", "memory");
    const double said = spin(rounds, pair);
    __asm__ volatile("pushfq\n andq $~" TRAP_FLAG ", (%%rsp)\n popfq" ::: "cc", "memory");
    return said;
}

static void test_counted(void **state) {
    (void)state;
    static double (*const spin[])(i64, bool) = {
#define X(isa) peak_spin_##isa,
        ISA_LIST(X)
#undef X
    };
    struct sigaction step = {.sa_flags = SA_SIGINFO}, before;
    step.sa_sigaction = on_step;
    assert_int_equal(0, sigaction(SIGTRAP, &step, &before));
    for (int isa = 0; isa <= (int)isa_best(); isa++)
        for (int pair = 0; pair < 2; pair++) {
            plain = !isa;
            double said = stepped(spin[isa], 5, pair), few = counted;
            said = stepped(spin[isa], 7, pair) - said; /* what stands around the loop falls out */
            print_message("%s%s: says %.0f operations for 2 rounds, does %.0f\n", isa_name[isa],
                          pair ? ", pairs" : "", said, counted - few);
            assert_true(said == counted - few);
            if (!plain) assert_int_equal(7 * __builtin_popcount(sums), multiply_adds);
        }
    assert_int_equal(0, sigaction(SIGTRAP, &before, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_counted)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
