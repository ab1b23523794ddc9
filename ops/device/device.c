/* device.c: where tensors live: host memory, or the memory of one GPU.
 *
 * The CUDA side is device_cuda.cu, whose functions are weak here: a program linked without them
 * says why CUDA is off, and no C file includes a CUDA header. Rejected: managed memory (pages move
 * behind the plan's back), a device per tensor (one process drives one device; more are ranks). */
#include "ops/device/device_int.h"

#include <stdlib.h>
#include <string.h>

enum numerics numerics_now = NUMERICS_PORTABLE;
static enum device now;

enum device device_now(void) { return now; }

int device_open(const char *name, struct err *e) {
    char *end = NULL;
    long index = 0;
    if (!strcmp(name, "cpu")) return now = DEVICE_CPU, 0;
    if (!strncmp(name, "cuda:", 5)) index = strtol(name + 5, &end, 10);
    if (strcmp(name, "cuda") && (!end || end == name + 5 || *end || index < 0 || index > 1023)) {
        err_input(e, "--device is '%s'", name);
        return err_detail(e, "expected cpu, cuda or cuda:N");
    }
    if (!cuda_open) {
        err_input(e, "--device %s: this program was built without CUDA", name);
        return err_hint(e, "put nvcc (CUDA 12 or newer) on PATH and type make again");
    }
    if (cuda_open((int)index, e)) return -1;
    return now = DEVICE_CUDA, 0;
}

void device_close(void) {
    if (now == DEVICE_CUDA) cuda_close();
    now = DEVICE_CPU;
}

const char *device_text(void) {
    static char text[512];
    if (!cuda_describe) return "CUDA is off: this program was built without nvcc on PATH";
    cuda_describe(text, sizeof text);
    return text;
}

void cuda_report(FILE *to) {
    if (cuda_libraries)
        cuda_libraries(to);
    else
        fprintf(to, "%s\n", device_text());
}

i64 device_available(void) { return now == DEVICE_CUDA ? cuda_available() : mem_available(); }

void *device_new(i64 bytes, struct err *e) {
    return now == DEVICE_CUDA ? cuda_new(bytes, e) : mem_new(bytes, e);
}
void device_free(void *p) {
    if (now == DEVICE_CUDA)
        cuda_free(p);
    else
        mem_free(p);
}
void *device_host_new(i64 bytes, struct err *e) {
    return now == DEVICE_CUDA ? cuda_host_new(bytes, e) : mem_new(bytes, e);
}
void device_host_free(void *p) {
    if (now == DEVICE_CUDA)
        cuda_host_free(p);
    else
        mem_free(p);
}

int device_write(void *to, const void *host, i64 bytes, struct err *e) {
    if (now == DEVICE_CUDA) return cuda_write(to, host, bytes, e);
    return memcpy(to, host, (size_t)bytes), 0;
}
int device_read(void *host, const void *from, i64 bytes, struct err *e) {
    if (now == DEVICE_CUDA) return cuda_read(host, from, bytes, e);
    return memcpy(host, from, (size_t)bytes), 0;
}
int device_copy(void *to, const void *from, i64 bytes, struct err *e) {
    if (now == DEVICE_CUDA) return cuda_copy(to, from, bytes, e);
    return memcpy(to, from, (size_t)bytes), 0;
}

const void *device_peek(const void *from, i64 bytes, struct device_buffer *b, struct err *e) {
    if (now != DEVICE_CUDA) return from;
    if (bytes > b->bytes) {
        mem_free(b->data), *b = (struct device_buffer){0};
        if (!(b->data = mem_new(bytes, e))) return NULL;
        b->bytes = bytes;
    }
    return device_read(b->data, from, bytes, e) ? NULL : b->data;
}

static void zero_range(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    memset((u8 *)arg + begin, 0, (size_t)(end - begin));
}
int device_zero(void *to, i64 bytes, struct err *e) {
    if (now == DEVICE_CUDA) return cuda_zero(to, bytes, e);
    return pool_run(bytes, zero_range, to), 0;
}

/* What kernels found wrong with their data; the texts are those of the CPU kernels. */
int fault_report(const struct fault_word *f, struct err *e) {
    const long long value = f->value, limit = f->limit, at = f->at;
    switch (f->kind) {
    case BAD_TOKEN:
        err_input(e, "token id %lld at position %lld is outside the table of %lld rows", value, at,
                  limit);
        return err_hint(e, "the data was made with another tokenizer than the model's");
    case BAD_TARGET:
        err_input(e, "target id %lld at position %lld is outside the vocabulary of %lld", value, at,
                  limit);
        return err_hint(e, "the data was made with another tokenizer than the model's");
    case BAD_POSITION:
        return err_failed(e, "position %lld is outside the rotary table of %lld positions", value,
                          limit);
    case BAD_CACHE:
        return err_failed(e, "operation kv_store: row %lld goes to %lld of a cache of %lld rows",
                          at, value, limit);
    case BAD_KEYS:
        return err_failed(e, "operation attention: query %lld asks for key %lld of %lld", at, value,
                          limit);
    case BAD_SEQUENCE:
        return err_failed(e, "operation attention: query %lld is of sequence %lld of %lld", at,
                          value, limit);
    case BAD_BEGIN:
        return err_failed(e,
                          "operation attention: query %lld begins at %lld; expected a multiple "
                          "of %lld",
                          at, value, limit);
    case BAD_PAGE:
        return err_failed(e, "operation attention: query %lld asks for page %lld of %lld", at,
                          value, limit);
    default: return 0;
    }
}

int device_sync(struct err *e) {
    if (now != DEVICE_CUDA) return 0;
    struct fault_word f = {0};
    return cuda_sync(&f, e) || fault_report(&f, e) ? -1 : 0;
}

int device_record_begin(struct err *e) { return cuda_record_begin(e); }
int device_record_end(struct recording **r, struct err *e) { return cuda_record_end(r, e); }
int device_replay(struct recording *r, struct err *e) { return cuda_replay(r, e); }
void device_record_free(struct recording *r) {
    if (r) cuda_record_free(r);
}
