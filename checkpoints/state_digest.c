/* state_digest.c: the digest of a training state, of rows (tensor, SHA-256 of its bytes), so that
 * those who hold different tensors can make it together (README.md has the definition). */
#include "checkpoints/checkpoints_int.h"

#include <stdlib.h>
#include <string.h>

int state_row_add(struct state_rows *rows, const char *name, const void *data, i64 bytes,
                  struct err *e) {
    if (rows->count == rows->room) {
        const i64 size = (i64)sizeof *rows->row, room = 2 * rows->room + 64;
        void *more = mem_grow(rows->row, rows->count * size, room * size, e);
        if (!more) return -1;
        rows->row = more, rows->room = room;
    }
    struct state_row *row = &rows->row[rows->count];
    if (!(row->name = arena_text(&rows->arena, name, e)) ||
        sha256_bytes(data, bytes, row->sha256, e))
        return -1;
    rows->count++;
    return 0;
}

int state_rows_join(struct state_rows *rows, const struct state_rows *more, struct err *e) {
    for (i64 i = 0; i < more->count; i++) {
        if (state_row_add(rows, more->row[i].name, "", 0, e)) return -1;
        memcpy(rows->row[rows->count - 1].sha256, more->row[i].sha256, sizeof rows->row->sha256);
    }
    return 0;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct state_row *)a)->name, ((const struct state_row *)b)->name);
}

int state_rows_digest(struct state_rows *rows, i64 step, char hex[65], struct err *e) {
    struct sha256 h;
    char head[64];
    if (rows->count) qsort(rows->row, (size_t)rows->count, sizeof *rows->row, by_name);
    for (i64 i = 1; i < rows->count; i++)
        if (!by_name(&rows->row[i - 1], &rows->row[i]))
            return err_failed(e, "two tensors of the state are called %.200s", rows->row[i].name);
    if (sha256_begin(&h, e)) return -1;
    sha256_add(&h, head, snprintf(head, sizeof head, "hone state 2\nstep %lld\n", (long long)step));
    for (i64 i = 0; i < rows->count; i++) {
        const struct state_row *row = &rows->row[i];
        sha256_add(&h, row->sha256, 64), sha256_add(&h, "  ", 2);
        sha256_add(&h, row->name, (i64)strlen(row->name)), sha256_add(&h, "\n", 1);
    }
    sha256_end(&h, hex);
    return 0;
}

void state_rows_free(struct state_rows *rows) {
    mem_free(rows->row), arena_free(&rows->arena);
    *rows = (struct state_rows){0};
}
