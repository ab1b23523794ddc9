/* sha256.c: SHA-256 by libcrypto, which uses the processor's instructions for it. */
#include "base/base.h"
#include <errno.h>
#include <openssl/evp.h>
#include <unistd.h>

int sha256_begin(struct sha256 *s, struct err *e) {
    EVP_MD_CTX *context = fault_hit(FAULT_ALLOC) ? NULL : EVP_MD_CTX_new();
    s->context = context;
    if (context && EVP_DigestInit_ex(context, EVP_sha256(), NULL)) return 0;
    EVP_MD_CTX_free(context);
    s->context = NULL;
    return err_memory(e, "cannot start a SHA-256 computation: out of memory");
}

void sha256_add(struct sha256 *s, const void *data, i64 size) {
    if (size > 0) EVP_DigestUpdate(s->context, data, (size_t)size);
}

void sha256_end(struct sha256 *s, char hex[65]) {
    u8 digest[EVP_MAX_MD_SIZE] = {0};
    EVP_DigestFinal_ex(s->context, digest, NULL);
    EVP_MD_CTX_free(s->context);
    s->context = NULL;
    for (int i = 0; i < 32; i++) snprintf(hex + i * 2, 3, "%02x", digest[i]);
}

int sha256_bytes(const void *data, i64 size, char hex[65], struct err *e) {
    struct sha256 s;
    if (sha256_begin(&s, e)) return -1;
    sha256_add(&s, data, size);
    sha256_end(&s, hex);
    return 0;
}

int sha256_file(const char *path, char hex[65], struct err *e) {
    int fd = file_source(path, e);
    if (fd < 0) return -1;
    struct sha256 s;
    int result = sha256_begin(&s, e);
    u8 buffer[1 << 16];
    while (!result) {
        ssize_t got = fault_hit(FAULT_READ) ? -1 : read(fd, buffer, sizeof buffer);
        if (got == 0) break;
        if (got > 0)
            sha256_add(&s, buffer, got);
        else if (errno != EINTR)
            result = err_system(e, "read", path);
    }
    close(fd);
    if (s.context) sha256_end(&s, hex);
    return result;
}
