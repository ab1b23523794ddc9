/* listen.c: where the server listens: HOST:PORT, [HOST]:PORT, PORT, or unix:PATH. Loopback is what
 * is meant where no host is named. A socket that a server before left behind is replaced; one that
 * somebody answers on, and any other file, is not. */
#include "train/serve/serve_int.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int unix_listen(struct address *a, const char *path, i64 backlog, struct err *e) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    struct stat st;
    if (!*path || strlen(path) >= sizeof to.sun_path)
        return err_input(e, "--listen unix:%s: the path must have 1 to %d bytes", path,
                         (int)sizeof to.sun_path - 1);
    strcpy(to.sun_path, path);
    if ((a->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0)
        return err_system(e, "make a socket for", path);
    if (!lstat(path, &st)) {
        const bool dead = S_ISSOCK(st.st_mode) &&
                          connect(a->fd, (struct sockaddr *)&to, sizeof to) &&
                          errno == ECONNREFUSED;
        if (!dead)
            return err_input(e,
                             S_ISSOCK(st.st_mode) ? "%s: somebody listens there already"
                                                  : "%s is there and is no socket",
                             path);
        unlink(path);
    }
    const mode_t before = umask(0177); /* the user alone */
    const int rc = bind(a->fd, (struct sockaddr *)&to, sizeof to);
    umask(before);
    if (rc) return err_system(e, "listen on", path);
    snprintf(a->path, sizeof a->path, "%s", path);
    snprintf(a->where, sizeof a->where, "unix:%s", path);
    a->loopback = true;
    return listen(a->fd, (int)backlog) ? err_system(e, "listen on", path) : 0;
}

static bool is_loopback(const struct sockaddr *s) {
    if (s->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)s)->sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)s)->sin6_addr);
}

static int address_split(const char *text, char host[200], const char **port, struct err *e) {
    const char *colon = strrchr(text, ':'), *end = colon;
    *port = colon ? colon + 1 : text;
    snprintf(host, 200, "127.0.0.1");
    if (colon && *text == '[' && colon > text + 1 && colon[-1] == ']') text++, end--;
    if (colon && end > text) snprintf(host, 200, "%.*s", (int)i64_min(end - text, 199), text);
    if (**port && strspn(*port, "0123456789") == strlen(*port) && strlen(*port) < 6) return 0;
    err_input(e, "--listen %s: there is no port in it", text);
    return err_hint(e, "for instance --listen 127.0.0.1:8080, [::1]:8080 or unix:/tmp/hone.sock");
}

static int tcp_listen(struct address *a, const char *text, i64 backlog, struct err *e) {
    char host[200], name[64], service[16];
    const char *port;
    struct addrinfo *list = NULL;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct sockaddr_storage own;
    socklen_t size = sizeof own;
    if (address_split(text, host, &port, e)) return -1;
    const int found = getaddrinfo(host, port, &hints, &list);
    if (found) return err_input(e, "--listen %s: %s", text, gai_strerror(found));
    const int on = 1;
    a->fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rc = a->fd < 0 || setsockopt(a->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
             bind(a->fd, list->ai_addr, list->ai_addrlen) || listen(a->fd, (int)backlog) ||
             getsockname(a->fd, (struct sockaddr *)&own, &size);
    if (rc) rc = err_system(e, "listen on", text);
    if (!rc) {
        a->loopback = is_loopback((struct sockaddr *)&own);
        getnameinfo((struct sockaddr *)&own, size, name, sizeof name, service, sizeof service,
                    NI_NUMERICHOST | NI_NUMERICSERV);
        snprintf(a->where, sizeof a->where, strchr(name, ':') ? "http://[%s]:%s" : "http://%s:%s",
                 name, service);
    }
    freeaddrinfo(list);
    return rc;
}

int address_listen(struct address *a, const char *text, i64 backlog, struct err *e) {
    *a = (struct address){.fd = -1};
    if (!strncmp(text, "unix:", 5)) return unix_listen(a, text + 5, backlog, e);
    return tcp_listen(a, text, backlog, e);
}

void address_close(struct address *a) {
    if (a->fd >= 0) close(a->fd);
    if (*a->path) unlink(a->path);
    a->fd = -1, *a->path = 0;
}
