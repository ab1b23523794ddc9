/* fault.c: makes the N-th call of a kind fail, so that tests can prove what happens on a full disk
 * or without memory.
 *
 * Always compiled in: what is tested is what is shipped. Unarmed it costs one relaxed load and a
 * branch. Rejected: wrapping libc with LD_PRELOAD, which sanitizers and static builds break. Calls
 * that nobody thought to guard are made to fail from outside of the program:
 * tests/e2e/trace_faults.h. */
#include "base/base.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    int number;
} kinds[FAULT_COUNT] = {
    [FAULT_ALLOC] = {"alloc", ENOMEM}, [FAULT_OPEN] = {"open", EACCES},
    [FAULT_READ] = {"read", EIO},      [FAULT_WRITE] = {"write", ENOSPC},
    [FAULT_FSYNC] = {"fsync", EIO},    [FAULT_RENAME] = {"rename", EIO},
    [FAULT_MKDIR] = {"mkdir", EACCES},
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static atomic_int armed = -1; /* -1: HONE_FAULT not read yet; 0: off; 1: on */
static atomic_int chosen;
static atomic_bool kills;
static atomic_llong left;

int fault_arm(const char *spec) {
    atomic_store(&armed, 0);
    if (!spec || !spec[0]) return 0;
    bool kill_it = !strncmp(spec, "kill-", 5);
    const char *name = kill_it ? spec + 5 : spec, *colon = strchr(name, ':');
    char *end = NULL;
    long long n = colon ? strtoll(colon + 1, &end, 10) : 0;
    if (n < 1 || *end) return -1;
    for (int kind = 0; kind < FAULT_COUNT; kind++) {
        size_t size = strlen(kinds[kind].name);
        if (size != (size_t)(colon - name) || memcmp(name, kinds[kind].name, size)) continue;
        atomic_store(&chosen, kind);
        atomic_store(&kills, kill_it);
        atomic_store(&left, n);
        atomic_store(&armed, 1);
        return 0;
    }
    return -1;
}

static void arm_from_environment(void) {
    if (atomic_load(&armed) >= 0) return;
    const char *spec = getenv("HONE_FAULT");
    if (fault_arm(spec)) fprintf(stderr, "HONE_FAULT=%s is not KIND:N; ignored\n", spec);
}

bool fault_hit(enum fault kind) {
    int state = atomic_load_explicit(&armed, memory_order_relaxed);
    if (state == 0) return false;
    if (state < 0) pthread_once(&once, arm_from_environment);
    if (atomic_load(&armed) != 1 || atomic_load(&chosen) != (int)kind) return false;
    if (atomic_fetch_sub(&left, 1) != 1) return false;
    if (atomic_load(&kills)) raise(SIGKILL);
    errno = kinds[kind].number;
    return true;
}
