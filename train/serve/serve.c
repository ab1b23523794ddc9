/* serve.c: the server's life: the engine's thread, HTTP, signals, and an end in which what runs is
 * answered. */
#include "train/serve/serve_int.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

/* A signal writes to a pipe that the main thread waits on; a second one ends the program. */
static int signalled[2] = {-1, -1};
static void on_signal(int number) {
    (void)number;
    const int before = errno;
    if (write(signalled[1], "", 1) < 0) errno = 0;
    errno = before;
}

static int signals_take(struct sigaction old[3], struct err *e) {
    const struct sigaction stop = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND | SA_RESTART},
                           ignore = {.sa_handler = SIG_IGN};
    if (pipe2(signalled, O_CLOEXEC | O_NONBLOCK)) return err_system(e, "make", "a pipe");
    sigaction(SIGINT, &stop, &old[0]), sigaction(SIGTERM, &stop, &old[1]);
    sigaction(SIGPIPE, &ignore, &old[2]);
    return 0;
}

static void signals_give(const struct sigaction old[3]) {
    if (signalled[0] < 0) return;
    sigaction(SIGINT, &old[0], NULL), sigaction(SIGTERM, &old[1], NULL);
    sigaction(SIGPIPE, &old[2], NULL);
    close(signalled[0]), close(signalled[1]);
    signalled[0] = signalled[1] = -1;
}

static void wait_signal(struct server *s) {
    struct pollfd at = {.fd = signalled[0], .events = POLLIN};
    while (poll(&at, 1, 250) <= 0) http_overdue(s);
}

static void finish(struct server *s) {
    const double until = clock_seconds() + s->plan.grace;
    http_quiet(s);
    if (!quiet) fprintf(stderr, "stopping: answers that run have %.0f s\n", s->plan.grace);
    while (http_busy(s) && clock_seconds() < until) http_overdue(s), poll(NULL, 0, 20);
}

static int announce(const struct server *s, struct err *e) {
    if (globals.json) return json_print(json_pack("{s:o}", "listening", json_name(s->at.where)), e);
    show(stdout, "listening on %s\n", s->at.where);
    if (fflush(stdout)) return err_system(e, "write to", "standard output");
    if (!s->at.loopback && !s->plan.api_key && !quiet)
        fprintf(stderr, "note: others than this machine can ask, and --api-key is not set\n");
    return 0;
}

int serve(const struct serve_model *m, const struct serve_plan *plan, struct err *e) {
    struct server s = {.m = m, .plan = *plan, .at = {.fd = -1}};
    struct sigaction old[3];
    int rc = address_listen(&s.at, plan->listen, 1024, e) || signals_take(old, e) ||
             worker_start(&s.worker, m, plan, e) || fingerprint_start(&s.fingerprint, m, e) ||
             http_start(&s, e) || announce(&s, e);
    if (!rc) wait_signal(&s), finish(&s);
    worker_stop(&s.worker);
    http_stop(&s);
    fingerprint_stop(&s.fingerprint);
    signals_give(old), address_close(&s.at);
    return rc ? -1 : 0;
}
