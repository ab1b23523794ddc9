/* h5_message.c: the messages of an object header: shape, element type, layout, filters, attributes,
 * links. The versions are those that hone and HDF5 1.10 write; what is not known is refused if an
 * array cannot be read right without it, else passed over. */
#include "base/h5_int.h"
#include <string.h>

enum { ATTRIBUTES = 4096 }; /* of one object; each is compared with the others */

static int refuse(struct h5_file *f, const char *what, struct err *e) {
    return h5_bad(f, e, "%s", what);
}

/* ---- shape ----------------------------------------------------------------------------------- */

/* Rank and dimensions; 0 dimensions: one value. Sizes above 2^56 in all are refused. */
static int space_read(struct h5_file *f, struct h5_span s, int *rank, i64 dim[H5_RANK],
                      struct err *e) {
    const u64 version = h5_take(&s, 1), count = h5_take(&s, 1), flags = h5_take(&s, 1);
    i64 elements = 1;
    if (version == 1)
        h5_take(&s, 1), h5_take(&s, 4);
    else if (version != 2 || h5_take(&s, 1) != (count != 0))
        return refuse(f, "an unknown kind of dataspace", e);
    if (count > H5_RANK || flags > 1) return refuse(f, "an array of too many dimensions", e);
    *rank = (int)count;
    for (int d = 0; d < *rank; d++) {
        const u64 n = h5_take(&s, 8);
        if (n > (u64)1 << 56 || __builtin_mul_overflow(elements, n ? (i64)n : 1, &elements) ||
            elements > (i64)1 << 56)
            return refuse(f, "an array too large to be one", e);
        dim[d] = (i64)n;
    }
    return s.bad ? refuse(f, "a dataspace that is cut off", e) : 0;
}

/* ---- element type ---------------------------------------------------------------------------- */

static enum h5_type whole_type(u64 bits, u64 size, u64 offset, u64 precision) {
    if (offset || precision != 8 * size) return H5_UNKNOWN;
    if (bits == 8) return size == 8 ? H5_I64 : H5_UNKNOWN;
    if (bits) return H5_UNKNOWN;
    return size == 1   ? H5_U8
           : size == 2 ? H5_U16
           : size == 4 ? H5_U32
           : size == 8 ? H5_U64
                       : H5_UNKNOWN;
}

static enum h5_type float_type(u64 bits, u64 size, struct h5_span *s) {
    u64 found[7];
    static const int bytes[7] = {2, 2, 1, 1, 1, 1, 4};
    static const u64 narrow[7] = {0, 32, 23, 8, 0, 23, 127}, wide[7] = {0, 64, 52, 11, 0, 52, 1023};
    for (int i = 0; i < 7; i++) found[i] = h5_take(s, bytes[i]);
    if (size == 4 && bits == 0x1f20 && !memcmp(found, narrow, sizeof found)) return H5_F32;
    if (size == 8 && bits == 0x3f20 && !memcmp(found, wide, sizeof found)) return H5_F64;
    return H5_UNKNOWN;
}

/* A text's size is that of its type; every other type has one size. */
static int type_read(struct h5_file *f, struct h5_span s, enum h5_type *type, i64 *size,
                     struct err *e) {
    const u64 head = h5_take(&s, 1), bits = h5_take(&s, 3);
    *size = (i64)h5_take(&s, 4);
    const bool known = head >> 4 >= 1 && head >> 4 <= 3;
    *type = H5_UNKNOWN;
    if (known && (head & 15) == 0) {
        const u64 offset = h5_take(&s, 2);
        *type = whole_type(bits, (u64)*size, offset, h5_take(&s, 2));
    } else if (known && (head & 15) == 1) {
        *type = float_type(bits, (u64)*size, &s);
    } else if (known && (head & 15) == 3 && !(bits & 15) && *size) {
        *type = H5_TEXT;
    }
    return s.bad ? refuse(f, "an element type that is cut off", e) : 0;
}

/* ---- attributes ------------------------------------------------------------------------------ */

static int attribute_read(struct h5_file *f, struct h5_object *o, struct h5_span s, struct err *e) {
    const u64 version = h5_take(&s, 1), flags = h5_take(&s, 1);
    i64 name_size = (i64)h5_take(&s, 2), type_size = (i64)h5_take(&s, 2),
        space_size = (i64)h5_take(&s, 2), dim[H5_RANK], count = 1, size;
    const i64 align = version == 1 ? 8 : 1;
    if (version == 3) h5_take(&s, 1);
    if (version < 1 || version > 3 || flags) return refuse(f, "an unknown kind of attribute", e);
    struct h5_span name = h5_cut(&s, round_up(name_size, align)),
                   type = h5_cut(&s, round_up(type_size, align)),
                   space = h5_cut(&s, round_up(space_size, align));
    struct h5_attribute *a = arena_new(&f->arena, sizeof *a, e);
    int rank;
    if (!a) return -1;
    if (s.bad || !name_size || name_size > name.left || name.at[name_size - 1])
        return refuse(f, "an attribute that is cut off", e);
    if (type_read(f, type, &a->type, &size, e) || space_read(f, space, &rank, dim, e)) return -1;
    for (int d = 0; d < rank; d++)
        if (__builtin_mul_overflow(count, dim[d], &count)) return refuse(f, "a huge attribute", e);
    if (a->type == H5_UNKNOWN || count != 1 || (a->type != H5_TEXT && size != h5_size[a->type]))
        size = 0, a->type = H5_UNKNOWN; /* there, but of no use to us */
    a->data = h5_cut(&s, size).at, a->size = size, a->name = (const char *)name.at;
    if (s.bad) return refuse(f, "an attribute that is cut off", e);
    if (++o->attributes > ATTRIBUTES)
        return h5_bad(f, e, "an object of more than %d attributes", ATTRIBUTES);
    if (h5_attribute(o->attribute, a->name))
        return refuse(f, "an attribute that is there twice", e);
    a->next = o->attribute, o->attribute = a;
    return 0;
}

const struct h5_attribute *h5_attribute(const struct h5_attribute *list, const char *name) {
    while (list && strcmp(list->name, name)) list = list->next;
    return list;
}

/* ---- links ----------------------------------------------------------------------------------- */

static int link_read(struct h5_file *f, struct h5_object *o, struct h5_span s, struct err *e) {
    const u64 version = h5_take(&s, 1), flags = h5_take(&s, 1);
    const u64 kind = flags & 8 ? h5_take(&s, 1) : 0;
    if (flags & 4) h5_take(&s, 8);
    if (flags & 16) h5_take(&s, 1);
    const i64 size = (i64)h5_take(&s, 1 << (flags & 3));
    struct h5_span name = h5_cut(&s, size);
    if (version != 1 || kind || flags > 31) return refuse(f, "a link that is no hard link", e);
    if (s.bad || size < 1 || size >= H5_NAME || memchr(name.at, 0, (size_t)size) ||
        memchr(name.at, '/', (size_t)size))
        return refuse(f, "a link without a good name", e);
    struct h5_link *l = arena_new(&f->arena, sizeof *l, e);
    char *text = l ? arena_new(&f->arena, size + 1, e) : NULL;
    if (!text) return -1;
    memcpy(text, name.at, (size_t)size);
    *l = (struct h5_link){o->link, text, h5_take(&s, 8)};
    o->link = l, o->is_group = true;
    return s.bad ? refuse(f, "a link that is cut off", e) : 0;
}

static int link_info_read(struct h5_file *f, struct h5_object *o, struct h5_span s, struct err *e) {
    const u64 version = h5_take(&s, 1), flags = h5_take(&s, 1);
    if (flags & 1) h5_take(&s, 8);
    const u64 heap = h5_take(&s, 8);
    o->is_group = true;
    return s.bad || version || heap != H5_NOWHERE
               ? refuse(f, "a group whose links are not in its header", e)
               : 0;
}

static int attribute_info_read(struct h5_file *f, struct h5_span s, struct err *e) {
    const u64 version = h5_take(&s, 1), flags = h5_take(&s, 1);
    if (flags & 1) h5_take(&s, 2);
    const u64 heap = h5_take(&s, 8);
    return s.bad || version || heap != H5_NOWHERE
               ? refuse(f, "attributes that are not in their object's header", e)
               : 0;
}

/* ---- layout and filters ---------------------------------------------------------------------- */

static int chunks_read(struct h5_array *a, struct h5_span *s, int version) {
    const int kind = version == 4 ? (int)h5_take(s, 1) : 0, ranks = (int)h5_take(s, 1);
    if (version == 3) a->index = INDEX_TREE, a->index_at = h5_take(s, 8);
    const int bytes = version == 4 ? (int)h5_take(s, 1) : 4;
    if (kind || ranks < 2 || ranks > H5_RANK + 1 || bytes < 1 || bytes > 8) return -1;
    for (int d = 0; d < ranks; d++) {
        const u64 n = h5_take(s, bytes);
        if (!n || n > UINT32_MAX) return -1;
        if (d < H5_RANK) a->chunk[d] = (i64)n;
        if (d == ranks - 1 && d < H5_RANK) a->chunk[d] = 0; /* the last is the element's size */
    }
    a->chunked = true;
    if (version == 4) {
        a->index = (int)h5_take(s, 1);
        if (a->index == INDEX_FIXED) h5_take(s, 1), a->index_at = h5_take(s, 8);
    }
    a->indexed = a->index == INDEX_FIXED || a->index == INDEX_TREE;
    return 0; /* other indices are left unread: old datasets have their own table */
}

static int layout_read(struct h5_file *f, struct h5_object *o, struct h5_span s, struct err *e) {
    struct h5_array *a = &o->array;
    const u64 version = h5_take(&s, 1), class = h5_take(&s, 1);
    if (o->has_layout) return refuse(f, "an array of two layouts", e);
    o->has_layout = true;
    if (version != 3 && version != 4) return refuse(f, "an array of an unknown layout", e);
    if (class == LAYOUT_CONTIGUOUS) {
        struct h5_piece *piece = arena_new(&f->arena, sizeof *piece, e);
        if (!piece) return -1;
        piece->at = h5_take(&s, 8), piece->size = h5_take(&s, 8);
        a->piece = piece, a->pieces = piece->at != H5_NOWHERE && piece->size;
    } else if (class != LAYOUT_CHUNKED || chunks_read(a, &s, (int)version)) {
        return refuse(f, "an array of an unknown layout", e);
    }
    return s.bad ? refuse(f, "a layout that is cut off", e) : 0;
}

/* Nothing, zstd, or shuffle and then zstd. */
static int filters_read(struct h5_file *f, struct h5_object *o, struct h5_span s, struct err *e) {
    const u64 version = h5_take(&s, 1), count = h5_take(&s, 1);
    bool zstd = false;
    if (version == 1) h5_take(&s, 6);
    for (u64 i = 0; i < count && !s.bad; i++) {
        const u64 id = h5_take(&s, 2), name = version == 1 || id >= 256 ? h5_take(&s, 2) : 0;
        h5_take(&s, 2);
        const u64 values = h5_take(&s, 2);
        h5_cut(&s, version == 1 ? round_up((i64)name, 8) : (i64)name);
        for (u64 k = 0; k < values; k++) {
            const u64 value = h5_take(&s, 4);
            if (!k && id == FILTER_ZSTD) o->array.level = (int)(u8)value;
        }
        if (version == 1 && values % 2) h5_take(&s, 4);
        if (id == FILTER_SHUFFLE && !i && count == 2)
            o->array.shuffled = true;
        else if (id == FILTER_ZSTD && i == count - 1 && count <= 2)
            zstd = true;
        else
            return refuse(f, "an array with a filter other than shuffle and zstd", e);
    }
    return s.bad || version < 1 || version > 2 || !zstd
               ? refuse(f, "a filter list that is cut off or unknown", e)
               : 0;
}

/* ---- the table ------------------------------------------------------------------------------- */

int h5_message(struct h5_file *f, struct h5_object *o, int type, int flags, struct h5_span s,
               struct err *e) {
    struct h5_array *a = &o->array;
    i64 size;
    if (flags & 2 && type != MESSAGE_NIL) return refuse(f, "a shared message", e);
    switch (type) {
    case MESSAGE_SPACE:
        if (o->has_space) return refuse(f, "an array of two shapes", e);
        o->has_space = true;
        return space_read(f, s, &a->rank, a->dim, e);
    case MESSAGE_TYPE:
        if (o->has_type) return refuse(f, "an array of two types", e);
        o->has_type = true;
        if (type_read(f, s, &a->type, &size, e)) return -1;
        if (a->type == H5_TEXT) a->type = H5_UNKNOWN;
        return 0;
    case MESSAGE_LAYOUT: return layout_read(f, o, s, e);
    case MESSAGE_FILTERS: return filters_read(f, o, s, e);
    case MESSAGE_ATTRIBUTE: return attribute_read(f, o, s, e);
    case MESSAGE_ATTRIBUTE_INFO: return attribute_info_read(f, s, e);
    case MESSAGE_LINK_INFO: return link_info_read(f, o, s, e);
    case MESSAGE_LINK: return link_read(f, o, s, e);
    case MESSAGE_EXTERNAL: return refuse(f, "an array whose data is in another file", e);
    case MESSAGE_SYMBOLS:
        o->tree = h5_take(&s, 8), o->heap = h5_take(&s, 8), o->is_group = true;
        return s.bad ? refuse(f, "a group that is cut off", e) : h5_symbols(f, o, e);
    default: return 0; /* times, fill values, comments: of no use here */
    }
}
