/* links.c: the connections that there are, and since when each has read a request, computed, or
 * sent an answer. A client that takes longer than the server waits, by sending a byte now and then,
 * or by not reading, is cut off: a connection is a thread and
 * memory. One that asks again and again is served as long as it likes. */
#include "train/serve/serve_int.h"

#include <errno.h>
#include <sys/socket.h>

struct link *link_new(struct server *s, int fd) {
    struct err none = {0};
    struct link *l = mem_new(sizeof *l, &none);
    if (!l) return NULL;
    *l = (struct link){.fd = fd, .since = clock_seconds()};
    pthread_mutex_lock(&s->lock);
    l->next = s->links.next, l->before = &s->links;
    l->next->before = s->links.next = l;
    pthread_mutex_unlock(&s->lock);
    return l;
}

void link_free(struct server *s, struct link *l) {
    if (!l) return;
    pthread_mutex_lock(&s->lock);
    l->next->before = l->before, l->before->next = l->next;
    pthread_mutex_unlock(&s->lock);
    mem_free(l);
}

void link_is(struct server *s, struct link *l, enum link_state state) {
    pthread_mutex_lock(&s->lock);
    l->state = state, l->since = clock_seconds();
    pthread_mutex_unlock(&s->lock);
}

bool link_gone(const struct link *l) {
    char byte;
    const ssize_t n = recv(l->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return !n || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

i64 http_busy(struct server *s) {
    i64 busy = 0;
    pthread_mutex_lock(&s->lock);
    for (const struct link *l = s->links.next; l != &s->links; l = l->next)
        busy += l->state != LINK_READS;
    pthread_mutex_unlock(&s->lock);
    return busy;
}

void http_overdue(struct server *s) {
    const double since = clock_seconds() - s->plan.timeout;
    pthread_mutex_lock(&s->lock);
    for (struct link *l = s->links.next; l != &s->links; l = l->next)
        if (l->state != LINK_WORKS && l->since < since) shutdown(l->fd, SHUT_RDWR);
    pthread_mutex_unlock(&s->lock);
}
