/* dataset_probe.c: what is asked about documents while they become tokens: who says how many, and
 * whether a prompt and its completion would have other ids if they were tokenised apart. */
#include "data/datasets/datasets_int.h"
#include <stdlib.h>
#include <string.h>

int probe_apart(const struct encoder *c, const char *text, i64 prompt, i64 size,
                const struct ids *all, bool *apart, struct err *e) {
    struct ids both = {0};
    const int rc = c->encode(c->arg, text, prompt, &both, e) ||
                   c->encode(c->arg, text + prompt, size - prompt, &both, e);
    *apart = !rc && (both.count != all->count ||
                     memcmp(both.item, all->item, (size_t)all->count * sizeof *all->item));
    return ids_free(&both), rc ? -1 : 0;
}

static int by_begin(const void *a, const void *b) {
    const struct message_part *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

/* An id belongs to the part in which it ends. */
int probe_parts(const struct encoder *c, const char *text, i64 size, const struct ids *all,
                struct message_part *part, i64 parts, struct err *e) {
    struct beginning *list = mem_new_array(2 * parts + 1, sizeof *list, e);
    if (!list) return -1;
    qsort(part, (size_t)parts, sizeof *part, by_begin);
    i64 at = 0;
    for (i64 i = 0; i < parts; i++) { /* two messages may be found in one place */
        part[i].begin = i64_max(part[i].begin, at);
        at = part[i].end = i64_max(part[i].begin, part[i].end);
        list[2 * i].at = part[i].begin, list[2 * i + 1].at = part[i].end;
    }
    const bool fast =
        c->prefixes && parts > 1 && c->prefixes(c->arg, text, size, all, list, 2 * parts, e);
    const int rc = e->code || (!fast && encoder_prefixes(c, text, all, list, 2 * parts, e));
    for (i64 i = 0; !rc && i < parts; i++)
        part[i].begin = list[2 * i].same, part[i].end = list[2 * i + 1].same;
    return mem_free(list), rc ? -1 : 0;
}

static void count(struct probe_tokens *to, i64 begin, i64 end, const struct span *span, i64 spans) {
    if (begin >= end) return;
    to->tokens += end - begin;
    for (i64 i = 0; i < spans; i++)
        to->trained += i64_max(0, i64_min(end, span[i].end) - i64_max(begin, span[i].begin));
}

void probe_conversation(struct dataset_probe *p, i64 ids, const struct message_part *part,
                        i64 parts, const struct spans *trained) {
    i64 at = 0;
    p->documents++;
    for (i64 i = 0; i < parts; i++) {
        count(&p->role[MESSAGE_ROLES], at, part[i].begin, trained->item, trained->count);
        count(&p->role[part[i].role], i64_max(at, part[i].begin), part[i].end, trained->item,
              trained->count);
        at = i64_max(at, part[i].end);
    }
    count(&p->role[MESSAGE_ROLES], at, ids, trained->item, trained->count);
}

void probe_text(struct dataset_probe *p, i64 ids, i64 border, const struct document *d) {
    const struct span all = {0, ids};
    const struct segment *s = d->segment;
    p->documents++;
    if (d->segments == 2) {
        count(&p->prompt, 0, border, &all, s[0].trained);
        count(&p->completion, border, ids, &all, s[1].trained);
        p->pairs++;
    } else
        count(&p->text, 0, ids, &all, 1);
}
