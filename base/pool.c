/* pool.c: our own threads over static ranges.
 *
 * The calling thread takes part as worker 0; the others spin for about 20 us after their last task,
 * since the next operation usually follows at once, then sleep on a futex. Who gets what is fixed
 * by n and the number of threads. Rejected: OpenMP (its runtime decides the ranges and cannot be
 * told about our float mode), work stealing (gains little on equal pieces and hides who computed
 * what). */
#include "base/base.h"
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { THREADS_MAX = 1024 };
static const double SPIN_SECONDS = 20e-6;

static struct {
    pthread_t *thread; /* worker w is thread[w - 1] */
    int threads;
    bool stop; /* published by round, as are the next three */
    i64 n;
    pool_fn *fn;
    void *arg;
    _Atomic u32 round;    /* counts tasks: workers wait for it to change */
    _Atomic u32 left;     /* workers that have not finished this round */
    _Atomic u32 sleepers; /* workers in futex_wait, or about to be */
    atomic_bool caller_sleeps;
    atomic_flag busy;
} pool = {.threads = 1, .busy = ATOMIC_FLAG_INIT};

static _Thread_local int worker_now = -1; /* inside pool_run: this thread's number */

static void futex_wait(_Atomic u32 *word, u32 value) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic u32 *word) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, THREADS_MAX, NULL, NULL, 0);
}

static bool spin_while(_Atomic u32 *word, u32 value) { /* true: it still has that value */
    double end = clock_seconds() + SPIN_SECONDS;
    do {
        for (int i = 0; i < 16; i++) {
            if (atomic_load(word) != value) return false;
            __builtin_ia32_pause();
        }
    } while (clock_seconds() < end);
    return true;
}

static i64 range_start(i64 n, int w, int threads) { /* n * w / threads, without overflow */
    return n / threads * w + n % threads * w / threads;
}

static void run_range(int w) {
    i64 begin = range_start(pool.n, w, pool.threads),
        end = range_start(pool.n, w + 1, pool.threads);
    worker_now = w;
    if (begin < end) pool.fn(pool.arg, begin, end, w);
    worker_now = -1;
}

static void *worker_main(void *arg) {
    int w = (int)(intptr_t)arg;
    isa_float_mode();
    for (u32 seen = 0;; seen++) {
        if (spin_while(&pool.round, seen)) {
            atomic_fetch_add(&pool.sleepers, 1);
            while (atomic_load(&pool.round) == seen) futex_wait(&pool.round, seen);
            atomic_fetch_sub(&pool.sleepers, 1);
        }
        if (pool.stop) return NULL;
        run_range(w);
        if (atomic_fetch_sub(&pool.left, 1) == 1 && atomic_load(&pool.caller_sleeps))
            futex_wake(&pool.left);
    }
}

static void
round_begin(void) { /* everything stored before is visible to whoever sees the new round */
    atomic_fetch_add(&pool.round, 1);
    if (atomic_load(&pool.sleepers)) futex_wake(&pool.round);
}

static void round_finish(void) {
    u32 left;
    while ((left = atomic_load(&pool.left)) != 0) {
        if (!spin_while(&pool.left, left)) continue;
        atomic_store(&pool.caller_sleeps, true);
        futex_wait(&pool.left, left);
        atomic_store(&pool.caller_sleeps, false);
    }
}

static int machine_threads(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

static void join(int started) {
    pool.stop = true;
    round_begin();
    for (int i = 0; i < started; i++) pthread_join(pool.thread[i], NULL);
    mem_free(pool.thread);
    pool.thread = NULL;
    pool.threads = 1;
    pool.stop = false;
    atomic_store(&pool.round, 0);
}

int pool_start(int threads, struct err *e) {
    if (threads == 0) threads = machine_threads();
    if (threads < 1 || threads > THREADS_MAX)
        return err_input(e, "cannot use %d threads; give 1 to %d, or 0 for one per core", threads,
                         THREADS_MAX);
    if (pool.thread) return err_failed(e, "the thread pool is already started");
    isa_float_mode();
    if (threads == 1) return 0;
    pool.thread = mem_new_array(threads - 1, (i64)sizeof *pool.thread, e);
    if (!pool.thread) return -1;
    pool.threads = threads;
    for (int i = 0; i < threads - 1; i++) {
        if (!pthread_create(&pool.thread[i], NULL, worker_main, (void *)(intptr_t)(i + 1)))
            continue;
        join(i);
        err_failed(e, "cannot start thread %d of %d", i + 2, threads);
        return err_hint(e, "use fewer: --threads %d", i + 1);
    }
    return 0;
}

void pool_stop(void) {
    if (pool.thread) join(pool.threads - 1);
}

int pool_threads(void) { return pool.threads; }

void pool_run(i64 n, pool_fn *fn, void *arg) {
    if (n <= 0) return;
    if (worker_now >= 0) {
        fn(arg, 0, n, worker_now);
        return;
    }
    if (n == 1 || pool.threads == 1 || atomic_flag_test_and_set(&pool.busy)) {
        fn(arg, 0, n, 0);
        return;
    }
    pool.n = n;
    pool.fn = fn;
    pool.arg = arg;
    atomic_store(&pool.left, (u32)pool.threads - 1);
    round_begin();
    run_range(0);
    round_finish();
    atomic_flag_clear(&pool.busy);
}
