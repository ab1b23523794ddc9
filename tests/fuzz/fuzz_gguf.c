/* fuzz_gguf.c: the GGUF reader against arbitrary bytes (tests/fuzz.sh gguf). What parses must hold
 * together: data inside the file, bytes as shape and type say, names unique; every value and every
 * tensor can be read. */
#include "checkpoints/checkpoints_int.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
static volatile u8 sink; /* so that every byte is read */

static void values_read(const struct gguf *g) {
    for (i64 i = 0; i < g->values; i++) {
        const struct gguf_value *v = &g->value[i];
        struct arena a = {0};
        struct err e = {0}; /* of another kind: an error each */
        i64 n;
        if (gguf_find(g, v->key) != v) abort();
        gguf_i64(g, v->key, 0, "input", &e), gguf_f64(g, v->key, 0, "input", &e);
        gguf_bool(g, v->key, false, "input", &e), gguf_text(g, v->key, NULL, &a, "input", &e);
        gguf_numbers(g, v->key, &n, &a, "input", &e);
        const struct gguf_text *text = gguf_texts(g, v->key, &n, &a, "input", &e);
        for (i64 k = 0; k < n; k++)
            for (i64 b = 0; b < text[k].size; b++) sink ^= (u8)text[k].data[b];
        arena_free(&a);
    }
}

static void tensors_read(const struct gguf *g) {
    for (i64 i = 0; i < g->count; i++) {
        const struct stored *t = &g->tensor[i];
        const struct gguf_type *type = gguf_type_of(t->type);
        i64 count;
        if (!type || shape_count(t->rank, t->dim, &count)) abort();
        if (count / type->elements * type->size != t->bytes || count % type->elements) abort();
        for (i64 b = 0; b < t->bytes; b++) sink ^= t->data[b];
        float piece[300];
        for (i64 at = 0; stored_readable(t) && at < count; at += 300)
            stored_read(t, at, i64_min(300, count - at), F32, piece), sink ^= piece[0] > 0;
    }
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    struct gguf g = {0};
    struct err e = {0};
    u8 *copy = mem_new((i64)size + 1, &e); /* aligned, as a mapped file is */
    if (!copy) return 0;
    if (size) memcpy(copy, data, size);
    const int status = gguf_parse(&g, copy, (i64)size, "input", &e);
    if ((status != 0) != (e.code != 0)) abort();
    if (!status) values_read(&g), tensors_read(&g);
    gguf_close(&g), mem_free(copy);
    return 0;
}
