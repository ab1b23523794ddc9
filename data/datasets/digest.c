/* digest.c: what a step was trained on, as a digest that several can compute together (version 2;
 * README.md has the definition). Version 1 was one stream over all samples (loader.c), of which
 * nobody can compute a part. */
#include "data/datasets/datasets.h"

#include <string.h>

int sample_digest(const i32 *ids, const i32 *targets, const struct sample_row *row, i64 rows,
                  char hex[65], struct err *e) {
    struct sha256 h;
    if (sha256_begin(&h, e)) return -1;
    for (i64 i = 0; i < rows; i++) {
        const i32 length = (i32)row[i].tokens;
        sha256_add(&h, &length, sizeof length);
        sha256_add(&h, ids + row[i].at, length * (i64)sizeof *ids);
        sha256_add(&h, targets + row[i].at, length * (i64)sizeof *targets);
    }
    sha256_end(&h, hex);
    return 0;
}

int batch_digest(const char (*sample)[65], i64 count, char hex[65], struct err *e) {
    static const char head[] = "hone batch 2\n";
    struct sha256 h;
    if (sha256_begin(&h, e)) return -1;
    sha256_add(&h, head, sizeof head - 1);
    for (i64 i = 0; i < count; i++) sha256_add(&h, sample[i], 64), sha256_add(&h, "\n", 1);
    sha256_end(&h, hex);
    return 0;
}
