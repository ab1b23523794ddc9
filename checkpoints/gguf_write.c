/* gguf_write.c: writing GGUF files, version 3 (layout: gguf.c).
 *
 * Metadata is collected as the bytes it will be; tensors are read, encoded and written a piece at a
 * time by all threads, so a model needs no second copy in memory. Values come in the order they
 * were put and tensors in the order given: equal input gives equal files. */
#include "checkpoints/checkpoints_int.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { ALIGNMENT = 32, PIECE = 1 << 20 }; /* elements on the way; whole blocks of every type */

static int number_add(struct text *t, u64 x, int bytes, struct err *e) {
    char out[8];
    for (int i = 0; i < bytes; i++) out[i] = (char)(x >> 8 * i);
    return text_add(t, out, bytes, e);
}
static int bytes_add(struct text *t, const char *data, i64 size, struct err *e) {
    return number_add(t, (u64)size, 8, e) || text_add(t, data, size, e) ? -1 : 0;
}
static int key_add(struct gguf_writer *w, const char *key, enum gguf_kind kind, struct err *e) {
    w->values++;
    return bytes_add(&w->head, key, (i64)strlen(key), e) || number_add(&w->head, kind, 4, e) ? -1
                                                                                             : 0;
}
static u32 bits_of(float x) {
    u32 u;
    return memcpy(&u, &x, 4), u;
}

int gguf_put_u32(struct gguf_writer *w, const char *key, i64 x, struct err *e) {
    if (x < 0 || x > UINT32_MAX)
        return err_input(e, "%s is %lld; GGUF holds 0 to %u there", key, (long long)x, UINT32_MAX);
    return key_add(w, key, GGUF_U32, e) || number_add(&w->head, (u64)x, 4, e) ? -1 : 0;
}
int gguf_put_f32(struct gguf_writer *w, const char *key, double x, struct err *e) {
    return key_add(w, key, GGUF_F32, e) || number_add(&w->head, bits_of((float)x), 4, e) ? -1 : 0;
}
int gguf_put_bool(struct gguf_writer *w, const char *key, bool x, struct err *e) {
    return key_add(w, key, GGUF_BOOL, e) || number_add(&w->head, x, 1, e) ? -1 : 0;
}
int gguf_put_text(struct gguf_writer *w, const char *key, const char *x, struct err *e) {
    return key_add(w, key, GGUF_TEXT, e) || bytes_add(&w->head, x, (i64)strlen(x), e) ? -1 : 0;
}

static int list_add(struct gguf_writer *w, const char *key, enum gguf_kind item, i64 count,
                    struct err *e) {
    return key_add(w, key, GGUF_LIST, e) || number_add(&w->head, item, 4, e) ||
                   number_add(&w->head, (u64)count, 8, e)
               ? -1
               : 0;
}
int gguf_put_texts(struct gguf_writer *w, const char *key, const struct gguf_text *x, i64 count,
                   struct err *e) {
    int status = list_add(w, key, GGUF_TEXT, count, e);
    for (i64 i = 0; i < count && !status; i++)
        status = bytes_add(&w->head, x[i].data, x[i].size, e);
    return status;
}
int gguf_put_f32s(struct gguf_writer *w, const char *key, const float *x, i64 count,
                  struct err *e) {
    int status = list_add(w, key, GGUF_F32, count, e);
    for (i64 i = 0; i < count && !status; i++) status = number_add(&w->head, bits_of(x[i]), 4, e);
    return status;
}
int gguf_put_i32s(struct gguf_writer *w, const char *key, const i32 *x, i64 count, struct err *e) {
    int status = list_add(w, key, GGUF_I32, count, e);
    for (i64 i = 0; i < count && !status; i++) status = number_add(&w->head, (u32)x[i], 4, e);
    return status;
}
int gguf_put_like(struct gguf_writer *w, const struct gguf *g, const char *prefix, const char *but,
                  struct err *e) {
    for (i64 i = 0; i < g->values; i++) {
        const struct gguf_value *v = &g->value[i];
        const i64 head = v->kind == GGUF_TEXT ? 8 : v->kind == GGUF_LIST ? 12 : 0;
        const char *not = but;
        while (*not &&strncmp(v->key, not, strlen(not ))) not += strlen(not ) + 1;
        if (*not || strncmp(v->key, prefix, strlen(prefix))) continue;
        if (key_add(w, v->key, v->kind, e) ||
            text_add(&w->head, v->data - head, head + v->bytes, e))
            return -1;
    }
    return 0;
}
void gguf_writer_free(struct gguf_writer *w) {
    text_free(&w->head);
    *w = (struct gguf_writer){0};
}

/* ---- tensors */

static i64 elements_of(const struct stored *t) {
    i64 n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->dim[i];
    return n;
}
static i64 bytes_of(const struct gguf_tensor *t) {
    return elements_of(&t->from) / t->type->elements * t->type->size;
}

static int tensors_check(const struct gguf_tensor *tensor, i64 count, struct err *e) {
    for (i64 i = 0; i < count; i++) {
        const struct stored *t = &tensor[i].from;
        const struct gguf_type *type = tensor[i].type;
        char shape[192];
        i64 n;
        if (t->rank > 4 || shape_count(t->rank, t->dim, &n) || !type->encode ||
            !stored_readable(t) || (t->rank ? t->dim[t->rank - 1] : 1) % type->elements)
            return err_failed(e, "tensor %.200s %s %s cannot be written as %s", t->name,
                              t->type ? t->type : dtype_info[t->dtype].safetensors,
                              shape_text(shape, t->rank, t->dim), type->name);
        if (strlen(t->name) > 63)
            return err_failed(e, "tensor %.200s: llama.cpp reads names of at most 63 bytes",
                              t->name);
    }
    return 0;
}

static int head_text(struct text *out, const struct gguf_writer *w,
                     const struct gguf_tensor *tensor, i64 count, struct err *e) {
    int status = text_add(out, "GGUF\3\0\0\0", 8, e) || number_add(out, (u64)count, 8, e) ||
                 number_add(out, (u64)w->values, 8, e) ||
                 text_add(out, w->head.data ? w->head.data : "", w->head.size, e);
    i64 at = 0;
    for (i64 i = 0; i < count && !status; i++) {
        const struct stored *t = &tensor[i].from;
        status =
            bytes_add(out, t->name, (i64)strlen(t->name), e) || number_add(out, (u64)t->rank, 4, e);
        for (int k = t->rank - 1; k >= 0 && !status; k--)
            status = number_add(out, (u64)t->dim[k], 8, e);
        status = status || number_add(out, (u64)tensor[i].type->number, 4, e) ||
                 number_add(out, (u64)at, 8, e);
        at = round_up(at + bytes_of(&tensor[i]), ALIGNMENT);
    }
    while (!status && out->size % ALIGNMENT) status = text_add(out, "", 1, e);
    return status ? -1 : 0;
}

struct piece {
    const struct gguf_tensor *t;
    i64 begin; /* element */
    float *values;
    u8 *out;
};
static void piece_range(void *arg, i64 begin, i64 end, int worker) { /* in blocks */
    (void)worker;
    const struct piece *p = arg;
    const struct gguf_type *type = p->t->type;
    float *values = p->values + begin * type->elements;
    stored_read(&p->t->from, p->begin + begin * type->elements, (end - begin) * type->elements, F32,
                values);
    type->encode(values, end - begin, p->out + begin * type->size);
}

static int tensor_write(int fd, const struct gguf_tensor *t, struct piece *p, const char *path,
                        struct err *e) {
    static const u8 zero[ALIGNMENT];
    const i64 n = elements_of(&t->from), bytes = bytes_of(t);
    int status = 0;
    p->t = t;
    for (p->begin = 0; p->begin < n && !status; p->begin += PIECE) {
        const i64 blocks = i64_min(PIECE, n - p->begin) / t->type->elements;
        pool_run(blocks, piece_range, p);
        status = file_write_all(fd, p->out, blocks * t->type->size, path, e);
    }
    return status || file_write_all(fd, zero, round_up(bytes, ALIGNMENT) - bytes, path, e) ? -1 : 0;
}

int gguf_write(const char *path, const struct gguf_writer *w, const struct gguf_tensor *tensor,
               i64 count, struct err *e) {
    struct text head = {0};
    if (tensors_check(tensor, count, e)) return -1;
    struct piece p = {.values = mem_new(PIECE * 4, e), .out = mem_new(PIECE * 4, e)};
    int status = !p.values || !p.out || head_text(&head, w, tensor, count, e);
    int fd = status || fault_hit(FAULT_OPEN)
                 ? -1
                 : open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (!status && fd < 0) status = err_system(e, "create", path);
    status = status || file_write_all(fd, head.data, head.size, path, e);
    for (i64 i = 0; i < count && !status; i++) status = tensor_write(fd, &tensor[i], &p, path, e);
    status = status || file_sync(fd, path, e);
    if (fd >= 0 && close(fd) && !status) status = err_system(e, "close", path);
    text_free(&head), mem_free(p.values), mem_free(p.out);
    return status ? err_frame(e, "writing %s", path) : 0;
}
