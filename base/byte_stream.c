/* byte_stream.c: the bytes of a file, decompressed as its name says, hashed as they are stored.
 *
 * gzip files may hold several members and zstd files several frames, as parallel compressors and
 * `cat` make them, so the end is the end of the file, and only on the border of a member. zlib's
 * gzFile would do the first but calls a truncated file complete in some cases, and there is nothing
 * like it for zstd: one loop serves both. */
#include "base/base.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

enum { BLOCK = 128 << 10 };

static void *zlib_alloc(void *arg, unsigned count, unsigned size) {
    (void)arg;
    return mem_new_array(count, size, &(struct err){0});
}
static void zlib_free(void *arg, void *p) {
    (void)arg;
    mem_free(p);
}
static int stream_gzip(struct byte_stream *s, struct err *e) {
    z_stream *z = s->gzip = mem_new(sizeof *z, e);
    if (!z) return -1;
    *z = (z_stream){.zalloc = zlib_alloc, .zfree = zlib_free};
    if (inflateInit2(z, 15 + 16) == Z_OK) return 0; /* 32 KiB window, gzip header */
    return err_failed(e, "no memory to decompress '%s'", s->path);
}

static int stream_zstd(struct byte_stream *s, struct err *e) {
    s->zstd = ZSTD_createDCtx();
    if (!s->zstd) return err_failed(e, "no memory to decompress '%s'", s->path);
    ZSTD_DCtx_setParameter(s->zstd, ZSTD_d_windowLogMax, 31); /* as zstd --long=31 makes */
    return 0;
}

int byte_stream_open(struct byte_stream *s, const char *path, struct err *e) {
    *s = (struct byte_stream){.path = path, .fd = -1};
    if (path_is_dir(path)) return err_input(e, "'%s' is a folder, not a text or JSONL file", path);
    if ((s->fd = file_source(path, e)) < 0) return -1;
    if (!(s->in = mem_new(BLOCK, e)) || sha256_begin(&s->sha256, e)) goto failed;
    if (ends_with(path, ".gz") && stream_gzip(s, e)) goto failed;
    if (ends_with(path, ".zst") && stream_zstd(s, e)) goto failed;
    return 0;
failed:
    byte_stream_close(s);
    return -1;
}

void byte_stream_close(struct byte_stream *s) {
    if (s->gzip) inflateEnd(s->gzip);
    mem_free(s->gzip);
    ZSTD_freeDCtx(s->zstd);
    mem_free(s->in);
    if (s->sha256.context) sha256_end(&s->sha256, (char[65]){0});
    if (s->fd >= 0) close(s->fd);
    *s = (struct byte_stream){.fd = -1};
}

static int stream_fill(struct byte_stream *s, struct err *e) {
    ssize_t n;
    do n = fault_hit(FAULT_READ) ? -1 : read(s->fd, s->in, BLOCK);
    while (n < 0 && errno == EINTR);
    if (n < 0) return err_system(e, "read", s->path);
    sha256_add(&s->sha256, s->in, n);
    s->bytes += n, s->in_at = 0, s->in_end = (size_t)n;
    return 0;
}

static int gzip_step(struct byte_stream *s, u8 *out, size_t *made, struct err *e) {
    z_stream *z = s->gzip;
    z->next_in = s->in + s->in_at, z->avail_in = (unsigned)(s->in_end - s->in_at);
    z->next_out = out, z->avail_out = BLOCK;
    s->partial = true;
    int r = inflate(z, Z_NO_FLUSH);
    s->in_at = s->in_end - z->avail_in, *made = BLOCK - z->avail_out;
    if (r == Z_STREAM_END) return s->partial = false, inflateReset(z), 0;
    if (r == Z_OK || r == Z_BUF_ERROR) return 0;
    err_input(e, "'%s' is not valid gzip data before byte %lld: %s", s->path,
              (long long)(s->bytes - (i64)(s->in_end - s->in_at)),
              z->msg ? z->msg : "out of memory");
    return err_hint(e, "test it with: gzip -t '%s'", s->path);
}

static int zstd_step(struct byte_stream *s, u8 *out, size_t *made, struct err *e) {
    ZSTD_inBuffer from = {s->in, s->in_end, s->in_at};
    ZSTD_outBuffer to = {out, BLOCK, 0};
    size_t r = ZSTD_decompressStream(s->zstd, &to, &from);
    s->in_at = from.pos, *made = to.pos;
    s->partial = r != 0;
    if (!ZSTD_isError(r)) return 0;
    err_input(e, "'%s' is not valid zstd data before byte %lld: %s", s->path,
              (long long)(s->bytes - (i64)(s->in_end - s->in_at)), ZSTD_getErrorName(r));
    return err_hint(e, "test it with: zstd -t '%s'", s->path);
}

int byte_stream_read(struct byte_stream *s, struct text *out, struct err *e) {
    u8 block[BLOCK];
    size_t made = 0;
    while (!made && !s->ended) {
        if (s->in_at == s->in_end && !s->pending && stream_fill(s, e)) return -1;
        if (!s->in_end) {
            s->ended = true;
        } else if (!s->gzip && !s->zstd) {
            made = s->in_end, s->in_at = s->in_end;
            return text_add(out, s->in, (i64)made, e);
        } else if (s->gzip ? gzip_step(s, block, &made, e) : zstd_step(s, block, &made, e)) {
            return -1;
        }
        s->pending =
            s->partial && made == BLOCK; /* it may hold more, even if its input is used up */
    }
    if (s->ended && s->partial) {
        err_input(e, "'%s' is truncated: its %lld bytes end inside compressed data", s->path,
                  (long long)s->bytes);
        return err_hint(e, "download or copy it again");
    }
    return text_add(out, block, (i64)made, e);
}
