/* tensorboard.c: scalars as TensorBoard event files, written by hand.
 *
 * A file is a sequence of TFRecords: u64 length, u32 masked CRC-32C of the length's 8 bytes, the
 * bytes, u32 masked CRC-32C of the bytes; little endian; mask(c) = rotate_right(c, 15) + 0xa282ead8
 * (tensorflow/core/lib/io/record_writer). Each record is a protobuf `Event`
 * (tensorflow/core/util/event.proto): wall_time = 1 (double), step = 2 (int64), file_version = 3
 * (string), summary = 5; `Summary` has value = 1 with tag = 1 (string), simple_value = 2 (float).
 * The first record holds file_version "brain.Event:2". Four fields do not justify a protobuf
 * library. */
#include "train/log/log.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

struct tb {
    int fd;
    char *path;
};

static u32 crc32c(const u8 *p,
                  i64 size) { /* Castagnoli, reflected, bit by bit: a few hundred bytes a step */
    u32 c = ~0u;
    for (i64 i = 0; i < size; i++) {
        c ^= p[i];
        for (int bit = 0; bit < 8; bit++) c = c >> 1 ^ (c & 1 ? 0x82f63b78u : 0);
    }
    return ~c;
}

static int add_fixed(struct text *t, u64 value, int bytes, struct err *e) {
    u8 b[8];
    for (int i = 0; i < bytes; i++) b[i] = (u8)(value >> 8 * i);
    return text_add(t, b, bytes, e);
}

static int add_varint(struct text *t, u64 value, struct err *e) {
    u8 b[10];
    int n = 0;
    for (; value >= 128; value >>= 7) b[n++] = (u8)(value | 128);
    b[n++] = (u8)value;
    return text_add(t, b, n, e);
}

/* key = field number << 3 | wire type: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.
 */
static int add_bytes(struct text *t, u8 key, const void *bytes, i64 size, struct err *e) {
    return text_add(t, &key, 1, e) || add_varint(t, (u64)size, e) || text_add(t, bytes, size, e);
}

static int add_f64(struct text *t, u8 key, double value, struct err *e) {
    union {
        double f;
        u64 u;
    } v = {.f = value};
    return text_add(t, &key, 1, e) || add_fixed(t, v.u, 8, e);
}

static int add_f32(struct text *t, u8 key, float value, struct err *e) {
    union {
        float f;
        u32 u;
    } v = {.f = value};
    return text_add(t, &key, 1, e) || add_fixed(t, v.u, 4, e);
}

static u32 masked(const void *p, i64 size) {
    u32 c = crc32c(p, size);
    return (c >> 15 | c << 17) + 0xa282ead8u;
}

static int write_record(struct tb *tb, const struct text *event, struct err *e) {
    struct text t = {0};
    int rc = add_fixed(&t, (u64)event->size, 8, e);
    if (!rc)
        rc = add_fixed(&t, masked(t.data, 8), 4, e) || text_add(&t, event->data, event->size, e) ||
             add_fixed(&t, masked(event->data, event->size), 4, e) ||
             file_write_all(tb->fd, t.data, t.size, tb->path, e);
    text_free(&t);
    return rc ? -1 : 0;
}

static int scalar_value(struct text *summary, const struct tb_scalar *scalar, struct err *e) {
    struct text value = {0};
    int rc = add_bytes(&value, 1 << 3 | 2, scalar->tag, (i64)strlen(scalar->tag), e) ||
             add_f32(&value, 2 << 3 | 5, (float)scalar->value, e) ||
             add_bytes(summary, 1 << 3 | 2, value.data, value.size, e);
    text_free(&value);
    return rc ? -1 : 0;
}

int tb_scalars(struct tb *tb, double time, i64 step, const struct tb_scalar *scalar, i64 count,
               struct err *e) {
    struct text event = {0}, summary = {0};
    int rc = 0;
    for (i64 i = 0; i < count && !rc; i++) rc = scalar_value(&summary, &scalar[i], e);
    u8 key = 2 << 3 | 0;
    rc = rc || add_f64(&event, 1 << 3 | 1, time, e) || text_add(&event, &key, 1, e) ||
         add_varint(&event, (u64)step, e) ||
         add_bytes(&event, 5 << 3 | 2, summary.data, summary.size, e) ||
         write_record(tb, &event, e);
    text_free(&event), text_free(&summary);
    return rc ? -1 : 0;
}

struct tb *tb_open(const char *dir, double time, struct err *e) {
    static const char version[] = "brain.Event:2";
    char host[65] = "localhost";
    struct text event = {0};
    if (gethostname(host, sizeof host - 1)) strcpy(host, "localhost");
    if (dir_make(dir, e)) return NULL;
    struct tb *tb = mem_new(sizeof *tb, e);
    if (!tb) return NULL;
    tb->fd = -1;
    tb->path = mem_printf(e, "%s/events.out.tfevents.%010lld.%s", dir, (long long)time, host);
    int rc = !tb->path;
    if (!rc) {
        tb->fd = file_own(tb->path, O_WRONLY | O_CREAT | O_TRUNC, e);
        rc = tb->fd < 0;
    }
    rc = rc || add_f64(&event, 1 << 3 | 1, time, e) ||
         add_bytes(&event, 3 << 3 | 2, version, sizeof version - 1, e) ||
         write_record(tb, &event, e);
    text_free(&event);
    return rc ? tb_close(tb, e), NULL : tb;
}

int tb_close(struct tb *tb, struct err *e) {
    if (!tb) return 0;
    int rc = tb->fd >= 0 && close(tb->fd) ? err_system(e, "close", tb->path) : 0;
    mem_free(tb->path), mem_free(tb);
    return rc;
}
