/* served.h: what tests of `hone serve` share: the program started on a free port or a unix socket,
 * and a client of plain sockets. */
#ifndef HONE_SERVED_H
#define HONE_SERVED_H

#include "tests/e2e/tiny_run.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#define STORIES "recipes/data/stories260K"

struct served {
    pid_t pid;
    int port; /* 0: a unix socket */
    char path[108];
};

static pid_t serve_last; /* that was started; a test that fails leaves it */

/* `hone serve ARGUMENTS` on a socket at `local`, or, with NULL, on a free port; waits until it says
 * where it listens. */
PRINTF(2, 3) static inline struct served serve_start(const char *local, const char *fmt, ...) {
    static int number;
    struct served s = {0};
    char arguments[1024], line[2048];
    const char *out = at("served-%d", ++number);
    FORMAT(arguments, fmt);
    snprintf(s.path, sizeof s.path, "%s", local ? local : "");
    snprintf(line, sizeof line, "exec ./hone serve %s --threads 1 --listen %s%s > %s 2> %s.err",
             arguments, local ? "unix:" : "127.0.0.1:0", s.path, out, out);
    char *argv[] = {"sh", "-c", line, NULL};
    assert_int_equal(0, posix_spawn(&s.pid, "/bin/sh", NULL, NULL, argv, environ));
    serve_last = s.pid;
    for (int i = 0; i < 3000; i++) {
        const char *said = path_exists(out) ? text_of(out) : "";
        if (strchr(said, '\n')) {
            expect(said, "listening on ");
            if (!local) s.port = atoi(strrchr(said, ':') + 1);
            return s;
        }
        if (waitpid(s.pid, NULL, WNOHANG) == s.pid) break;
        poll(NULL, 0, 10);
    }
    fail_msg("%s: %s", line, text_of(at("served-%d.err", number)));
    return s;
}

static inline int serve_wait(struct served *s) {
    if (serve_last == s->pid) serve_last = 0;
    return shell_end(s->pid);
}
static inline int serve_end(struct served *s, int number) {
    kill(s->pid, number);
    return serve_wait(s);
}
static inline int serve_remove(void **state) {
    if (serve_last) kill(serve_last, SIGKILL);
    return tiny_remove(state);
}

/* -1: nobody is there. */
static inline int serve_open(const struct served *s) {
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_port = htons((u16)s->port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    snprintf(un.sun_path, sizeof un.sun_path, "%s", s->path);
    const int fd = socket(s->port ? AF_INET : AF_UNIX, SOCK_STREAM, 0);
    if (!connect(fd, s->port ? (struct sockaddr *)&in : (struct sockaddr *)&un,
                 s->port ? sizeof in : sizeof un))
        return fd;
    return close(fd), -1;
}

static inline void serve_write(int fd, const void *data, size_t size) {
    for (const char *p = data; size > 0;) {
        const ssize_t n = send(fd, p, size, MSG_NOSIGNAL);
        if (n <= 0) return; /* it was told enough already: the reply says what */
        p += n, size -= (size_t)n;
    }
}

/* `more`: further header lines, each with its end. */
static inline int serve_send(const struct served *s, const char *method, const char *path,
                             const char *more, const char *body, size_t size) {
    char head[1024];
    const int fd = serve_open(s);
    assert_true(fd >= 0);
    const int n = snprintf(head, sizeof head,
                           "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s"
                           "Content-Length: %zu\r\n\r\n",
                           method, path, more, size);
    serve_write(fd, head, (size_t)n), serve_write(fd, body, size);
    return fd;
}

static inline void dechunk(struct text *t, i64 from) {
    i64 to = from, at = from;
    for (char *end; at < t->size && strchr(t->data + at, '\n');) {
        const i64 n = strtoll(t->data + at, &end, 16);
        at = strchr(end, '\n') + 1 - t->data;
        if (!n || at + n > t->size) break;
        memmove(t->data + to, t->data + at, (size_t)n), to += n, at += n + 2;
    }
    t->size = to, t->data[to] = 0;
}

/* Reads to the end. The status, 0 if there is none; the body, good for the next 7 calls. */
static inline int serve_read(int fd, const char **body) {
    static struct text ring[8];
    static int turn;
    struct err e = {0};
    struct text *t = &ring[turn++ % 8];
    char part[8192];
    ssize_t n;
    t->size = 0;
    while ((n = recv(fd, part, sizeof part, 0)) > 0) assert_int_equal(0, text_add(t, part, n, &e));
    close(fd), assert_int_equal(0, text_add(t, "", 0, &e));
    char *end = t->size ? strstr(t->data, "\r\n\r\n") : NULL;
    if (!end) return *body = "", 0;
    const int status = atoi(t->data + 9);
    end[2] = 0;
    if (strcasestr(t->data, "Transfer-Encoding: chunked")) dechunk(t, end + 4 - t->data);
    return *body = end + 4, status;
}

/* POST of a JSON text, GET without one; it must have this status. */
static inline const char *ask(const struct served *s, int status, const char *path,
                              const char *json) {
    static const char *body;
    const int fd =
        serve_send(s, json ? "POST" : "GET", path, "", json ? json : "", json ? strlen(json) : 0);
    const int got = serve_read(fd, &body);
    if (got != status)
        fail_msg("%s %s: status %d, not %d: %s", path, json ? json : "", got, status, body);
    return body;
}

static inline json_t *json_read(const char *text) {
    struct err e = {0};
    json_t *j = json_parse(text, (i64)strlen(text), "reply", &e);
    if (!j) fail_msg("%s: %s", e.primary, text);
    return j;
}

/* A member of the first choice, or of its message; good until the 8th next call. */
static inline const char *choice_text(const char *reply, int n, const char *key) {
    static char *ring[8];
    static int turn;
    json_t *j = json_read(reply), *c = json_array_get(json_object_get(j, "choices"), (size_t)n),
           *m = json_object_get(c, "message");
    const char *text = json_string_value(json_object_get(m ? m : c, key));
    if (!text) fail_msg("there is no text '%s' in: %s", key, reply);
    char **to = &ring[turn++ % 8];
    free(*to), *to = strdup(text), json_decref(j);
    return *to;
}

/* The pieces of a stream put together; *events: how many, but [DONE], which must be the last. */
static inline const char *stream_text(const char *body, const char *key, int *events) {
    static struct text ring[4];
    static int turn;
    struct err e = {0};
    struct text *t = &ring[turn++ % 4];
    t->size = 0, *events = 0;
    assert_int_equal(0, text_add(t, "", 0, &e));
    const char *p = body, *end;
    for (; (end = strstr(p, "\n\n")) && strncmp(p, "data: [DONE]", 12); p = end + 2, ++*events) {
        struct err wrong = {0};
        json_t *j = json_parse(p + 6, end - p - 6, "event", &wrong);
        if (!j) fail_msg("%s: %s", wrong.primary, p);
        json_t *c = json_array_get(json_object_get(j, "choices"), 0),
               *d = json_object_get(c, "delta"), *piece = json_object_get(d ? d : c, key);
        if (json_is_string(piece))
            text_add(t, json_string_value(piece), (i64)json_string_length(piece), &e);
        json_decref(j);
    }
    assert_string_equal("data: [DONE]\n\n", p);
    return t->data;
}

#endif
