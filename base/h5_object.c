/* h5_object.c: reads object headers, of version 2 ("OHDR", checksummed) and of version 1 (training
 * states of hone before it wrote HDF5 itself). A header is a first chunk and those that its
 * continuation messages name. */
#include "base/h5_int.h"
#include <string.h>

enum { CHUNKS = 1024 }; /* of one header; a chain that leads back to itself ends there */

struct header {
    struct h5_file *f;
    struct h5_object *o;
    struct err *e;
    bool old, ordered; /* version 1; messages carry their number */
    int chunks;
};

static int chunk_read(struct header *h, struct h5_span s);

static int continuation_read(struct header *h, struct h5_span s) {
    u64 at = h5_take(&s, 8), size = h5_take(&s, 8);
    if (s.bad || size > (u64)h->f->size || (!h->old && size < 8) || ++h->chunks > CHUNKS)
        return h5_bad(h->f, h->e, "an object header that goes on nowhere");
    const u8 *data = h5_structure(h->f, at, (i64)size, "the rest of an object header", h->e);
    if (!data) return -1;
    if (h->old) return chunk_read(h, (struct h5_span){data, (i64)size, false});
    struct h5_span sum = {data + size - 4, 4, false};
    if (memcmp(data, "OCHK", 4) || h5_take(&sum, 4) != h5_checksum(data, (i64)size - 4))
        return h5_bad(h->f, h->e, "the object header at %llu: its checksum does not fit",
                      (unsigned long long)at);
    return chunk_read(h, (struct h5_span){data + 4, (i64)size - 8, false});
}

static int chunk_read(struct header *h, struct h5_span s) {
    const i64 head = h->old ? 8 : h->ordered ? 6 : 4;
    while (s.left >= head) { /* fewer bytes are a gap */
        const int type = (int)h5_take(&s, h->old ? 2 : 1);
        const i64 size = (i64)h5_take(&s, 2);
        const int flags = (int)h5_take(&s, 1);
        h5_take(&s, h->old ? 3 : h->ordered ? 2 : 0);
        struct h5_span content = h5_cut(&s, size);
        if (s.bad) return h5_bad(h->f, h->e, "a message of an object header that is cut off");
        if (type == MESSAGE_CONTINUATION ? continuation_read(h, content)
                                         : h5_message(h->f, h->o, type, flags, content, h->e))
            return -1;
    }
    return 0;
}

static int header_old(struct header *h, u64 at, const u8 *head) {
    struct h5_span s = {head + 8, 4, false};
    const i64 size = (i64)h5_take(&s, 4);
    const u8 *data = h5_structure(h->f, at + 16, size, "an object header", h->e);
    h->old = true;
    return data ? chunk_read(h, (struct h5_span){data, size, false}) : -1;
}

static int header_new(struct header *h, u64 at, struct h5_span s) {
    struct h5_file *f = h->f;
    const u8 *start = s.at;
    h5_take(&s, 4);
    const u64 version = h5_take(&s, 1), flags = h5_take(&s, 1);
    h->ordered = flags & 4;
    if (flags & 32) h5_take(&s, 8), h5_take(&s, 8);
    if (flags & 16) h5_take(&s, 4);
    const u64 size = h5_take(&s, 1 << (flags & 3));
    const i64 head = (i64)(s.at - start);
    if (s.bad || version != 2 || flags > 63 || size > (u64)f->size)
        return h5_bad(f, h->e, "the object header at %llu is none", (unsigned long long)at);
    const u8 *data = h5_structure(f, at, head + (i64)size + 4, "an object header", h->e);
    if (!data) return -1;
    struct h5_span sum = {data + head + size, 4, false};
    if (h5_take(&sum, 4) != h5_checksum(data, head + (i64)size))
        return h5_bad(f, h->e, "the object header at %llu: its checksum does not fit",
                      (unsigned long long)at);
    return chunk_read(h, (struct h5_span){data + head, (i64)size, false});
}

/* The parts of an array must be there and fit each other. */
static int array_check(struct h5_file *f, const struct h5_object *o, struct err *e) {
    const struct h5_array *a = &o->array;
    if (!o->has_space || !o->has_type || !o->has_layout)
        return h5_bad(f, e, "an array without a shape, type or layout");
    i64 elements = 1;
    for (int d = 0; d < a->rank; d++) elements *= a->dim[d];
    if (a->chunked) {
        for (int d = 0; d < H5_RANK; d++)
            if ((a->chunk[d] != 0) != (d < a->rank))
                return h5_bad(f, e, "chunks of another rank than their array");
        return 0;
    }
    if (a->type != H5_UNKNOWN &&
        (a->pieces ? a->piece->size : 0) != (u64)elements * h5_size[a->type])
        return h5_bad(f, e, "an array of %lld elements in %llu bytes", (long long)elements,
                      (unsigned long long)a->piece->size);
    return 0;
}

int h5_object(struct h5_file *f, u64 at, struct h5_object *o, struct err *e) {
    *o = (struct h5_object){.array.type = H5_UNKNOWN};
    struct header h = {.f = f, .o = o, .e = e};
    const i64 room = at < (u64)f->size ? i64_min(f->size - (i64)at, 64) : 0;
    const u8 *head = h5_structure(f, at, room, "an object header", e);
    if (!head) return -1;
    int status = -1;
    if (room >= 16 && !memcmp(head, "OHDR", 4))
        status = header_new(&h, at, (struct h5_span){head, room, false});
    else if (room >= 16 && head[0] == 1)
        status = header_old(&h, at, head);
    else
        h5_bad(f, e, "at %llu is no object header", (unsigned long long)at);
    if (status) return -1;
    o->array.attribute = o->attribute;
    return o->is_group ? 0 : array_check(f, o, e);
}
