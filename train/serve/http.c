/* http.c: requests over libmicrohttpd, a thread for each connection, which may wait for the
 * engine's. What is asked is checked before a body is read: where it comes from, the path, the
 * method, the key, the size. Nothing of a request is logged.
 *
 * Other pages in a browser must not reach a server on this machine: requests from another origin
 * are refused, and, where no key protects the server, names that are not this machine's, too, as a
 * name can be made to point here (DNS rebinding). */
#include "train/serve/microhttpd.h"
#include "train/serve/serve_int.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

enum { BODIES = 512 << 20 }; /* bytes of requests that are held at once, at most */

struct exchange { /* a request on its way in */
    struct text body;
    i64 held; /* of all bodies' bytes */
    struct refusal wrong;
};

/* ---- replies */

static const char policy[] = "default-src 'none'; connect-src 'self'; style-src 'self'; "
                             "script-src 'self'; img-src data:; base-uri 'none'; form-action "
                             "'none'; frame-ancestors 'none'";

static void headers_add(struct MHD_Response *r, const char *type) {
    mhd.add_response_header(r, "Content-Type", type);
    mhd.add_response_header(r, "Cache-Control", "no-store");
    mhd.add_response_header(r, "X-Content-Type-Options", "nosniff");
    mhd.add_response_header(r, "Content-Security-Policy", policy);
}

static enum MHD_Result reply(struct server *s, struct MHD_Connection *c, int status,
                             const char *type, const char *data, i64 size) {
    struct MHD_Response *r = mhd.create_response_from_buffer((size_t)size, (void *)(uintptr_t)data,
                                                             MHD_RESPMEM_MUST_COPY);
    if (!r) return MHD_NO;
    headers_add(r, type);
    if (status == 401) mhd.add_response_header(r, "WWW-Authenticate", "Bearer");
    if (status == 503) mhd.add_response_header(r, "Retry-After", "1");
    if (status == 405) mhd.add_response_header(r, "Allow", "GET, HEAD, POST");
    if (s->stopping) mhd.add_response_header(r, "Connection", "close");
    const enum MHD_Result done = mhd.queue_response(c, (unsigned)status, r);
    mhd.destroy_response(r);
    return done;
}

static enum MHD_Result reply_refusal(struct server *s, struct MHD_Connection *c,
                                     const struct refusal *r) {
    struct text out = {0};
    struct err none = {0};
    const bool said = !refusal_json(r, &out, &none);
    const enum MHD_Result done = reply(s, c, r->status, "application/json",
                                       said ? out.data : "{\"error\": {}}", said ? out.size : 13);
    return text_free(&out), done;
}

/* ---- what is asked for */

enum endpoint { CHAT, COMPLETIONS, MODELS, TOKENIZE, DETOKENIZE, TEMPLATE, HEALTH, METRICS, PAGE };
static const struct route {
    const char *path;
    enum endpoint what;
    bool post, open; /* open: without a key */
    const char *type, *page;
} routes[] = {{"/v1/chat/completions", CHAT, true, false, "application/json", NULL},
              {"/v1/completions", COMPLETIONS, true, false, "application/json", NULL},
              {"/v1/models", MODELS, false, false, "application/json", NULL},
              {"/tokenize", TOKENIZE, true, false, "application/json", NULL},
              {"/detokenize", DETOKENIZE, true, false, "application/json", NULL},
              {"/apply-template", TEMPLATE, true, false, "application/json", NULL},
              {"/health", HEALTH, false, true, "application/json", NULL},
              {"/metrics", METRICS, false, false, "text/plain; version=0.0.4", NULL},
              {"/", PAGE, false, true, "text/html; charset=utf-8", page_html},
              {"/page.css", PAGE, false, true, "text/css; charset=utf-8", page_style},
              {"/page.js", PAGE, false, true, "text/javascript; charset=utf-8", page_script}};

static const struct route *route_find(const char *path) {
    for (int i = 0; i < COUNT(routes); i++)
        if (!strcmp(routes[i].path, path)) return &routes[i];
    return NULL;
}

static bool key_right(const char *key, const char *given) {
    if (!given || strncasecmp(given, "Bearer ", 7)) return false;
    given += 7;
    const size_t size = strlen(key), said = strlen(given);
    u8 other = size != said; /* the same time for any key of this length */
    for (size_t i = 0; i < said; i++) other |= (u8)(given[i] ^ key[size ? i % size : 0]);
    return !other;
}

static bool host_own(const char *host) {
    const size_t n = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
    return (n == 9 && !strncasecmp(host, "localhost", n)) ||
           (n == 5 && !strncmp(host, "[::1]", n)) ||
           (!strncmp(host, "127.", 4) && strspn(host, "0123456789.") == n);
}

static const char *header(struct MHD_Connection *c, const char *name) {
    return mhd.lookup_connection_value(c, MHD_HEADER_KIND, name);
}

static int origin_check(const struct server *s, struct MHD_Connection *c, struct refusal *r) {
    const char *host = header(c, "Host"), *origin = header(c, "Origin");
    if (origin && (!host || strncmp(origin, "http", 4) || !strstr(origin, "://") ||
                   strcasecmp(strstr(origin, "://") + 3, host)))
        return refuse(r, 403, NULL, "requests of pages of other origins are not answered");
    if (s->at.loopback && !*s->at.path && !s->plan.api_key && host && !host_own(host))
        return refuse(r, 403, NULL,
                      "the server listens for this machine alone, and '%.100s' is "
                      "not its name; --api-key allows others",
                      host);
    return 0;
}

static int request_check(const struct server *s, struct MHD_Connection *c, const char *path,
                         const char *method, struct refusal *r) {
    const struct route *to = route_find(path);
    const char *length = header(c, "Content-Length");
    const bool get = !strcmp(method, "GET") || !strcmp(method, "HEAD");
    if (origin_check(s, c, r)) return -1;
    if (!to) return refuse(r, 404, NULL, "there is nothing at this path");
    if (to->post ? strcmp(method, "POST") != 0 : !get)
        return refuse(r, 405, NULL, "this path takes %s", to->post ? "POST" : "GET");
    if (s->plan.api_key && !to->open && !key_right(s->plan.api_key, header(c, "Authorization")))
        return refuse(r, 401, NULL, "the key is missing or wrong: Authorization: Bearer KEY");
    if (length && (strlen(length) > 18 || strtoll(length, NULL, 10) > s->plan.max_body))
        return refuse(r, 413, NULL, "the body may have at most %lld bytes",
                      (long long)s->plan.max_body);
    if (s->stopping && to->post) return refuse(r, 503, NULL, "the server is stopping");
    return 0;
}

/* ---- answers */

struct sent { /* a streamed answer, the connection's until the response is freed */
    struct server *s;
    struct link *link;
    struct answer a;
};

static ssize_t stream_read(void *arg, uint64_t at, char *to, size_t most) {
    struct sent *x = arg;
    struct answer *a = &x->a;
    (void)at;
    while (a->out_sent == a->out.size) {
        struct refusal r = {0};
        struct err e = {0};
        if (a->done) return MHD_CONTENT_READER_END_OF_STREAM;
        link_is(x->s, x->link, LINK_WORKS);
        if (link_gone(x->link)) return MHD_CONTENT_READER_END_WITH_ERROR;
        a->out.size = a->out_sent = 0;
        const int more = answer_more(a, &r);
        if (answer_events(a, more, &r, &e)) return MHD_CONTENT_READER_END_WITH_ERROR;
    }
    const i64 n = i64_min((i64)most, a->out.size - a->out_sent);
    memcpy(to, a->out.data + a->out_sent, (size_t)n);
    a->out_sent += n;
    link_is(x->s, x->link, LINK_SENDS);
    return (ssize_t)n;
}

static void stream_free_all(void *arg) {
    struct sent *x = arg;
    answer_free(&x->a), mem_free(x);
}

static enum MHD_Result stream_reply(struct MHD_Connection *c, struct sent *x) {
    struct MHD_Response *r = mhd.create_response_from_callback(MHD_SIZE_UNKNOWN, 1 << 15,
                                                               stream_read, x, stream_free_all);
    if (!r) return stream_free_all(x), MHD_NO;
    headers_add(r, "text/event-stream");
    mhd.add_response_header(r, "X-Accel-Buffering", "no");
    const enum MHD_Result done = mhd.queue_response(c, 200, r);
    mhd.destroy_response(r);
    return done;
}

/* 1: the client has gone. */
static int whole_answer(struct sent *x, struct text *out, struct refusal *r) {
    struct err e = {0};
    int more;
    while (!(more = answer_more(&x->a, r)))
        if (link_gone(x->link)) return 1;
    if (more > 0 && answer_json(&x->a, out, &e)) refuse_err(r, NULL, &e);
    return r->status ? -1 : 0;
}

static enum MHD_Result answer_reply(struct server *s, struct MHD_Connection *c, struct link *link,
                                    const json_t *j, bool chat, struct refusal *r) {
    struct err e = {0};
    struct text out = {0};
    struct sent *x = mem_new(sizeof *x, &e);
    if (!x) return refuse_err(r, NULL, &e), reply_refusal(s, c, r);
    *x = (struct sent){.s = s, .link = link, .a = {.w = &s->worker, .m = s->m}};
    pthread_mutex_lock(&s->lock);
    const i64 number = ++s->answers;
    pthread_mutex_unlock(&s->lock);
    snprintf(x->a.id, sizeof x->a.id, "%s-%llx%06llx", chat ? "chatcmpl" : "cmpl",
             (unsigned long long)s->created, (unsigned long long)number);
    int rc = request_read(&x->a.q, s->m, s->worker.positions, j, chat, r);
    if (!rc)
        x->a.fingerprint = fingerprint_wait(&s->fingerprint, x->a.q.lane),
        rc = answer_begin(&x->a, r);
    if (!rc && x->a.q.stream) return stream_reply(c, x);
    if (!rc) rc = whole_answer(x, &out, r);
    const enum MHD_Result done = rc == 1 ? MHD_NO
                                 : rc    ? reply_refusal(s, c, r)
                                         : reply(s, c, 200, "application/json", out.data, out.size);
    return text_free(&out), stream_free_all(x), done;
}

static int little_reply(struct server *s, const struct route *to, const json_t *j, struct text *out,
                        struct refusal *r) {
    struct err e = {0};
    const i64 positions = s->worker.positions;
    int rc = 0;
    switch (to->what) {
    case TOKENIZE: return tokenize_json(s->m, positions, j, out, r);
    case DETOKENIZE: return detokenize_json(s->m, j, out, r);
    case TEMPLATE: return template_json(s->m, j, out, r);
    case MODELS: rc = models_json(s->m, positions, s->created, out, &e); break;
    case METRICS: rc = metrics_text(&s->worker, out, &e); break;
    default: rc = text_printf(out, &e, "{\"status\": \"ok\"}\n"); break;
    }
    return rc ? refuse_err(r, NULL, &e) : 0;
}

static enum MHD_Result request_run(struct server *s, struct MHD_Connection *c, struct link *link,
                                   const char *path, struct exchange *x) {
    const struct route *to = route_find(path);
    struct refusal *r = &x->wrong;
    struct err e = {0};
    struct text out = {0};
    json_t *j = NULL;
    enum MHD_Result done;
    if (!r->status && to->post) {
        const i64 bad = utf8_bad(x->body.data ? x->body.data : "", x->body.size);
        if (bad >= 0)
            refuse(r, 400, NULL, "the body is not valid UTF-8: byte %lld", (long long)bad);
        else if (!(j = json_parse(x->body.data ? x->body.data : "", x->body.size, "body", &e)))
            refuse_err(r, NULL, &e);
    }
    if (!r->status && (to->what == CHAT || to->what == COMPLETIONS))
        done = answer_reply(s, c, link, j, to->what == CHAT, r);
    else if (!r->status && to->page)
        done = reply(s, c, 200, to->type, to->page, (i64)strlen(to->page));
    else if (r->status || little_reply(s, to, j, &out, r))
        done = reply_refusal(s, c, r);
    else
        done = reply(s, c, 200, to->type, out.data, out.size);
    json_decref(j), text_free(&out);
    return done;
}

/* ---- libmicrohttpd's side */

static void body_add(struct server *s, struct exchange *x, const char *data, i64 size) {
    struct err e = {0};
    if (x->wrong.status) return;
    pthread_mutex_lock(&s->lock);
    const bool room = s->bodies + size <= BODIES;
    if (room) s->bodies += size;
    pthread_mutex_unlock(&s->lock);
    x->held += room ? size : 0;
    if (!room)
        refuse(&x->wrong, 503, NULL, "too many large requests at once; try again later");
    else if (x->body.size + size > s->plan.max_body)
        refuse(&x->wrong, 413, NULL, "the body may have at most %lld bytes",
               (long long)s->plan.max_body);
    else if (text_add(&x->body, data, size, &e))
        refuse_err(&x->wrong, NULL, &e);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *path,
                                  const char *method, const char *version, const char *data,
                                  size_t *size, void **state) {
    struct server *s = arg;
    struct exchange *x = *state;
    struct err none = {0};
    const union MHD_ConnectionInfo *info =
        mhd.get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct link *link = info ? info->socket_context : NULL;
    (void)version;
    isa_float_mode();
    if (!link) return MHD_NO;
    if (!x) {
        struct refusal r = {0};
        if (!(*state = x = mem_new(sizeof *x, &none))) return MHD_NO;
        if (!request_check(s, c, path, method, &r)) return MHD_YES;
        link_is(s, link, LINK_SENDS);
        return reply_refusal(s, c, &r);
    }
    if (*size) return body_add(s, x, data, (i64)*size), *size = 0, MHD_YES;
    link_is(s, link, LINK_WORKS);
    const enum MHD_Result done = request_run(s, c, link, path, x);
    link_is(s, link, LINK_SENDS);
    return done;
}

static void on_completed(void *arg, struct MHD_Connection *c, void **state,
                         enum MHD_RequestTerminationCode how) {
    struct server *s = arg;
    struct exchange *x = *state;
    const union MHD_ConnectionInfo *info =
        mhd.get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    (void)how;
    if (info && info->socket_context) link_is(s, info->socket_context, LINK_READS);
    if (!x) return;
    pthread_mutex_lock(&s->lock);
    s->bodies -= x->held;
    pthread_mutex_unlock(&s->lock);
    text_free(&x->body), mem_free(x), *state = NULL;
}

static void on_connection(void *arg, struct MHD_Connection *c, void **context,
                          enum MHD_ConnectionNotificationCode what) {
    struct server *s = arg;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        link_free(s, *context), *context = NULL;
        return;
    }
    const union MHD_ConnectionInfo *info =
        mhd.get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    *context = info ? link_new(s, info->connect_fd) : NULL;
}

/* Paths are taken as they come: with "%2e" or "%00" in them they are not ours. */
static size_t as_it_is(void *arg, struct MHD_Connection *c, char *text) {
    (void)arg, (void)c;
    return strlen(text);
}

int http_start(struct server *s, struct err *e) {
    pthread_mutex_init(&s->lock, NULL);
    s->links.next = s->links.before = &s->links;
    s->created = (i64)time(NULL);
    if (mhd_load(e)) return -1;
    s->daemon = mhd.start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION |
                                     MHD_USE_POLL | MHD_USE_ITC,
                                 0, NULL, NULL, on_request, s, MHD_OPTION_LISTEN_SOCKET, s->at.fd,
                                 MHD_OPTION_CONNECTION_LIMIT, (unsigned)s->plan.max_connections,
                                 MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)(64 << 10),
                                 MHD_OPTION_CONNECTION_TIMEOUT, 0U, MHD_OPTION_NOTIFY_COMPLETED,
                                 on_completed, s, MHD_OPTION_NOTIFY_CONNECTION, on_connection, s,
                                 MHD_OPTION_UNESCAPE_CALLBACK, as_it_is, NULL,
                                 MHD_OPTION_THREAD_STACK_SIZE, (size_t)(8 << 20), MHD_OPTION_END);
    return s->daemon ? 0 : err_failed(e, "the HTTP server cannot start");
}

void http_quiet(struct server *s) {
    s->stopping = true;
    if (!s->daemon || s->quiesced) return;
    s->quiesced = mhd.quiesce_daemon(s->daemon) != MHD_INVALID_SOCKET;
    if (s->quiesced) shutdown(s->at.fd, SHUT_RDWR);
}

void http_stop(struct server *s) {
    if (!s->daemon) return;
    http_quiet(s);
    mhd.stop_daemon(s->daemon);
    if (!s->quiesced) s->at.fd = -1; /* it has been closed */
    s->daemon = NULL;
}
