/* dataset_piece.c: one document as ids, with what of them is trained. */
#include "data/datasets/datasets_int.h"
#include <string.h>

/* The ids that lie in a span: those that the text up to its start does not have, and the text up to
 * its end does. An id that reaches over the end of an answer belongs to it; one over its start
 * does, too. */
static int spans_encode(const struct dataset_job *job, struct piece *p, const char *text,
                        const struct span *span, struct err *e) {
    const struct encoder *c = &job->encoder;
    const i64 count = p->document.spans, size = p->document.size;
    if (!count) return 0;
    struct beginning *list = mem_new_array(2 * count, sizeof *list, e);
    if (!list) return -1;
    for (i64 i = 0; i < count; i++) {
        const struct span s = span[p->span_at + i];
        list[2 * i].at = s.begin, list[2 * i + 1].at = s.end;
    }
    const bool fast = count > 2 && c->prefixes && /* few turns: not worth it */
                      c->prefixes(c->arg, text, size, &p->ids, list, 2 * count, e);
    int rc = e->code || (!fast && encoder_prefixes(c, text, &p->ids, list, 2 * count, e));
    for (i64 i = 0; !rc && i < count; i++) {
        const struct beginning begin = list[2 * i], end = list[2 * i + 1];
        const i64 free = p->spans.count ? p->spans.item[p->spans.count - 1].end : 0;
        const i64 last = end.at == size ? p->ids.count : end.same + end.more;
        rc = spans_add(&p->spans, i64_max(begin.same, free), i64_min(last, p->ids.count), e);
    }
    mem_free(list);
    return rc ? -1 : 0;
}

/* A row of ids has them, and its spans, already. */
static int ids_copy(struct piece *p, const char *text, const struct span *span, struct err *e) {
    for (i64 at = 0; at < p->document.size; at += (i64)sizeof(u32)) {
        u32 id;
        memcpy(&id, text + at, sizeof id);
        if (ids_add(&p->ids, id, e)) return -1;
    }
    for (i64 i = 0; i < p->document.spans; i++) {
        const struct span s = span[p->span_at + i];
        if (spans_add(&p->spans, s.begin, s.end, e)) return -1;
    }
    return 0;
}

/* A prompt and its completion are one text, as they will be when the model is used. A token that
 * holds some of the completion is its own: the prompt's are those with which the prompt alone
 * begins, too (TRL 1.16, common_prefix_length). */
static int pair_encode(const struct dataset_job *job, struct piece *p, const char *text,
                       struct err *e) {
    const struct encoder *c = &job->encoder;
    struct beginning prompt = {.at = p->document.segment[0].size};
    if (c->encode(c->arg, text, p->document.size, &p->ids, e) ||
        encoder_prefixes(c, text, &p->ids, &prompt, 1, e))
        return -1;
    return p->border = prompt.same, 0;
}

static int piece_probe(const struct dataset_job *job, struct piece *p, const char *text,
                       struct err *e) {
    const struct encoder *c = &job->encoder;
    const struct document *d = &p->document;
    if (d->segments == 2)
        return probe_apart(c, text, d->segment[0].size, d->size, &p->ids, &p->apart, e);
    return p->parts ? probe_parts(c, text, d->size, &p->ids, p->part, p->parts, e) : 0;
}

int piece_encode(const struct dataset_job *job, struct piece *p, const char *batch,
                 const struct span *span, struct err *e) {
    const struct encoder *c = &job->encoder;
    const char *text = batch + p->at, *const begin = text;
    if (p->document.ids) return ids_copy(p, text, span, e);
    if (!p->document.segments && (c->encode(c->arg, text, p->document.size, &p->ids, e) ||
                                  spans_encode(job, p, text, span, e)))
        return -1;
    if (p->document.segments == 2 && !p->document.apart && job->options.rules.version != 1) {
        if (pair_encode(job, p, text, e)) return -1;
    } else
        for (int i = 0; i < p->document.segments; i++) {
            if (i) p->border = p->ids.count;
            if (c->encode(c->arg, text, p->document.segment[i].size, &p->ids, e)) return -1;
            text += p->document.segment[i].size;
        }
    for (i64 i = 0; i < p->ids.count; i++)
        if (p->ids.item[i] >= (u64)c->vocab_size)
            return err_failed(e, "the tokenizer made id %u, but its vocabulary is %lld",
                              p->ids.item[i], (long long)c->vocab_size);
    return p->probed ? piece_probe(job, p, begin, e) : 0;
}

void piece_count(struct dataset_probe *to, const struct piece *p) {
    if (p->document.segments)
        probe_text(to, p->ids.count, p->border, &p->document), to->apart += p->apart;
    else
        probe_conversation(to, p->ids.count, p->part, p->parts, &p->spans);
}

void piece_free(struct piece *p) {
    ids_free(&p->ids), spans_free(&p->spans), mem_free(p->part);
    *p = (struct piece){0};
}
