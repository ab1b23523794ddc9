/* stored.c: the values of a stored tensor, whatever type the file keeps them in, as f32 or bf16.
 *
 * Everything goes through f32 and is rounded once, except that equal types are copied. Any range of
 * elements can be asked for, so that a pool of threads can share a tensor of any type; a range that
 * begins or ends within a block decodes that block whole. */
#include "checkpoints/checkpoints_int.h"
#include <string.h>

enum { PIECE = 1024 }; /* elements on the way; whole blocks of every type */

bool stored_readable(const struct stored *s) {
    if (s->dtype == F32 || s->dtype == BF16 || s->dtype == F16 || s->dtype == F64) return true;
    if (scaled_readable(s)) return true;
    const struct gguf_type *t = s->type && !s->part ? gguf_type_of(s->type) : NULL;
    return t && t->decode;
}

/* `count` elements from `begin`, both in whole blocks, or to the end. */
static void decode(const struct stored *s, const struct gguf_type *t, i64 begin, i64 count,
                   float *to) {
    if (s->dtype == F64) {
        for (i64 i = 0; i < count; i++) {
            double x;
            memcpy(&x, s->data + (begin + i) * 8, 8), to[i] = (float)x;
        }
        return;
    }
    if (t)
        t->decode(s->data + begin / t->elements * t->size, count / t->elements, to);
    else
        scaled_read(s, begin, count, to);
}

void stored_read(const struct stored *s, i64 begin, i64 count, enum dtype d, void *to) {
    if (s->dtype == d) {
        const i64 size = dtype_size(d);
        memcpy(to, s->data + begin * size, (size_t)(count * size));
        return;
    }
    const bool scaled = s->dtype == DTYPE_COUNT && scaled_readable(s);
    const struct gguf_type *t =
        scaled ? NULL
               : gguf_type_of(s->dtype < DTYPE_COUNT ? dtype_info[s->dtype].safetensors : s->type);
    const i64 block = t ? t->elements : 1;
    float piece[PIECE];
    for (i64 done = 0; done < count;) {
        const i64 at = begin + done, skip = at % block, n = i64_min(PIECE - skip, count - done);
        decode(s, t, at - skip, round_up(skip + n, block), piece);
        if (d == F32)
            memcpy((float *)to + done, piece + skip, (size_t)n * 4);
        else
            for (i64 i = 0; i < n; i++) ((u16 *)to)[done + i] = bf16_of_f32(piece[skip + i]);
        done += n;
    }
}
