/* fuzz_safetensors.c: the safetensors reader against arbitrary bytes (clang's libFuzzer).
 *
 *   clang -std=c17 -D_GNU_SOURCE -g -O1 -fsanitize=fuzzer,address,undefined -I. $(pkg-config
 * --cflags hdf5) \
 *     tests/fuzz/fuzz_safetensors.c checkpoints/safetensors.c base/[a-u]*.c \
 *     $(pkg-config --libs jansson libcrypto) -lm -lpthread -o build/fuzz_safetensors
 *   build/fuzz_safetensors -max_total_time=180 CORPUS   (seeds: the .safetensors files of
 * tests/golden)
 *
 * Whatever parses must also hold together: data inside the file, bytes as the shape says, names
 * sorted and unique. */
#include "checkpoints/checkpoints_int.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
static volatile u8 sink; /* so that every byte is read */

int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    struct safetensors s = {0};
    struct err e = {0};
    int status =
        safetensors_parse(&s, data, (i64)size, "input", &e) || safetensors_index(&s, "input", &e);
    if ((status != 0) != (e.code != 0)) abort();
    u8 sum = 0;
    for (i64 i = 0; i < s.count && !status; i++) {
        const struct stored *t = &s.tensor[i];
        i64 count;
        if (i && strcmp(s.tensor[i - 1].name, t->name) >= 0) abort();
        if (safetensors_find(&s, t->name) != t || shape_count(t->rank, t->dim, &count)) abort();
        if (t->dtype != DTYPE_COUNT && count * dtype_size(t->dtype) != t->bytes) abort();
        for (i64 b = 0; b < t->bytes; b++) sum ^= t->data[b];
    }
    safetensors_close(&s);
    sink = sum;
    return 0;
}
