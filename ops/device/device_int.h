/* device_int.h: between device.c and the CUDA side, in plain C. */
#ifndef HONE_DEVICE_INT_H
#define HONE_DEVICE_INT_H

#include "ops/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a kernel found wrong with its data (an id out of range): it writes this and goes on without
 * that element. Of several, one is kept. */
enum bad {
    BAD_NONE,
    BAD_TOKEN,
    BAD_TARGET,
    BAD_POSITION,
    BAD_CACHE,
    BAD_KEYS,
    BAD_SEQUENCE,
    BAD_BEGIN,
    BAD_PAGE
};
struct fault_word {
    i32 kind, value;
    i64 at, limit;
};
int fault_report(const struct fault_word *f, struct err *e); /* -1 and a message, 0 if none */

/* device_cuda.cu. Weak, so that a program links without them. The functions of ops.h of the same
 * meaning call these when a GPU is in use. */
#define WEAK __attribute__((weak))
WEAK int cuda_open(int index, struct err *e);
WEAK void cuda_close(void);
WEAK void cuda_describe(char *text, i64 size);
WEAK void cuda_libraries(FILE *to);
WEAK i64 cuda_available(void);
WEAK void *cuda_new(i64 bytes, struct err *e);
WEAK void cuda_free(void *p);
WEAK void *cuda_host_new(i64 bytes, struct err *e);
WEAK void cuda_host_free(void *p);
WEAK int cuda_write(void *to, const void *host, i64 bytes, struct err *e);
WEAK int cuda_read(void *host, const void *from, i64 bytes, struct err *e);
WEAK int cuda_copy(void *to, const void *from, i64 bytes, struct err *e);
WEAK int cuda_zero(void *to, i64 bytes, struct err *e);
WEAK int cuda_sync(struct fault_word *found, struct err *e);
WEAK int cuda_record_begin(struct err *e);
WEAK int cuda_record_end(struct recording **r, struct err *e);
WEAK int cuda_replay(struct recording *r, struct err *e);
WEAK void cuda_record_free(struct recording *r);
#undef WEAK

#ifdef __cplusplus
}
#endif
#endif
