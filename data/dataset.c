/* dataset.c: reads a tokenised dataset.
 *
 * HDF5 is used only while opening: it checks its own structure and says where each chunk lies. From
 * then on chunks are read with pread and decompressed here, so that reading needs neither the
 * library's global lock nor its chunk cache and may run beside a thread that writes a checkpoint.
 * Every chunk is checked against its SHA-256 and the vocabulary when it is first touched, and the
 * tables against `sha256` when the file is opened: what comes out of dataset_read is what was
 * written, or an error. */
#include "data/dataset_int.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

enum { CACHE_CHUNKS = 64 }; /* 16 MiB a dataset */

struct cached {
    i64 chunk, used; /* used: when, by the clock below */
    u8 *data;        /* [DATASET_CHUNK], NULL: empty */
};
struct dataset {
    struct dataset_info info;
    struct arena arena;
    int fd, width; /* bytes of a token */
    i64 chunks, spans, clock;
    const u64 *place;     /* [chunks, 2] address and compressed size in the file */
    u8 *checked;          /* [chunks] its hash and ids were good once */
    const u8 *hashes;     /* [chunks, DATASET_HASH] */
    const u64 *span;      /* [spans, 2]; spans 0: all tokens are trained */
    pthread_mutex_t lock; /* of what follows, clock and checked */
    struct cached cache[CACHE_CHUNKS];
    u8 *frame; /* a compressed chunk */
    char tokenizer[65], identity[65];
};

int dataset_identity(const u8 *hashes, i64 chunks, const u64 *documents, i64 n, const u64 *spans,
                     i64 m, char hex[65], struct err *e) {
    struct sha256 s;
    if (sha256_begin(&s, e)) return -1;
    sha256_add(&s, hashes, chunks * DATASET_HASH);
    sha256_add(&s, documents, (n + 1) * 8);
    if (m) sha256_add(&s, spans, m * 16);
    sha256_end(&s, hex);
    return 0;
}

/* ---- opening --------------------------------------------------------------------------------- */

static int dataset_wrong(const struct dataset *d, struct err *e, const char *fmt, ...) PRINTF(3, 4);
static int dataset_wrong(const struct dataset *d, struct err *e, const char *fmt, ...) {
    char why[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    err_input(e, "'%s' is not a valid dataset: %s", d->info.path, why);
    return err_hint(e, "make it again with: hone tokenize");
}

static int tokens_open(struct dataset *d, struct h5 *h, struct err *e) {
    hid_t t = H5Lexists(h->file, "tokens", H5P_DEFAULT) > 0
                  ? H5Dopen2(h->file, "tokens", H5P_DEFAULT)
                  : -1;
    if (t < 0) return dataset_wrong(d, e, "it has no /tokens");
    hid_t type = H5Dget_type(t), space = H5Dget_space(t), create = H5Dget_create_plist(t);
    hsize_t size = 0, chunk = 0;
    unsigned flags, value;
    size_t values = 1;
    d->width = H5Tequal(type, H5T_STD_U16LE) > 0 ? 2 : H5Tequal(type, H5T_STD_U32LE) > 0 ? 4 : 0;
    bool laid = H5Sget_simple_extent_ndims(space) == 1 &&
                H5Sget_simple_extent_dims(space, &size, NULL) == 1 &&
                H5Pget_layout(create) == H5D_CHUNKED && H5Pget_chunk(create, 1, &chunk) == 1 &&
                H5Pget_nfilters(create) == 1 &&
                H5Pget_filter2(create, 0, &flags, &values, &value, 0, NULL, NULL) == H5_ZSTD;
    int r = -1;
    if (!d->width)
        dataset_wrong(d, e, "/tokens is neither uint16 nor uint32");
    else if (!laid || chunk != (hsize_t)(DATASET_CHUNK / d->width))
        dataset_wrong(d, e, "/tokens is not in chunks of %d bytes with the zstd filter",
                      DATASET_CHUNK);
    else if (!size || (i64)(size / chunk) > h->size)
        dataset_wrong(d, e, "it claims %llu tokens in a file of %lld bytes",
                      (unsigned long long)size, (long long)h->size);
    else {
        d->info.tokens = (i64)size, d->chunks = (i64)((size + chunk - 1) / chunk);
        r = 0;
    }
    H5Tclose(type), H5Sclose(space), H5Pclose(create), H5Dclose(t);
    return r;
}

/* Where the chunks are is read from our table, not from HDF5's index: version 1.10 searches that
 * from its start for each chunk, and runs for ever over a forged one. */
static int chunks_check(struct dataset *d, i64 size, i64 places, i64 hashes, struct err *e) {
    if (places != d->chunks || hashes != d->chunks)
        return dataset_wrong(
            d, e, "%lld tokens need %lld chunks; %lld places and %lld hashes are listed",
            (long long)d->info.tokens, (long long)d->chunks, (long long)places, (long long)hashes);
    for (i64 i = 0; i < d->chunks; i++) {
        u64 at = d->place[2 * i], n = d->place[2 * i + 1];
        if (!n || n > 2 * DATASET_CHUNK || at > (u64)size || n > (u64)size - at)
            return dataset_wrong(d, e, "chunk %lld is not inside the file", (long long)i);
    }
    d->checked = arena_new(&d->arena, d->chunks, e),
    d->frame = arena_new(&d->arena, 2 * DATASET_CHUNK, e);
    return d->checked && d->frame ? 0 : -1;
}

static int tables_check(struct dataset *d, i64 documents, struct err *e) {
    const struct dataset_info *f = &d->info;
    const i64 fits = d->width == 2 ? 65536 : INT32_MAX;
    char identity[65];
    if (f->vocab_size < 1 || f->vocab_size > fits)
        return dataset_wrong(d, e, "a vocabulary of %lld does not fit its uint%d tokens",
                             (long long)f->vocab_size, 8 * d->width);
    if (f->bos < -1 || f->bos >= f->vocab_size || f->eos < -1 || f->eos >= f->vocab_size)
        return dataset_wrong(d, e, "bos %lld and eos %lld are not in its vocabulary of %lld",
                             (long long)f->bos, (long long)f->eos, (long long)f->vocab_size);
    if (documents < 2 || f->documents_at[0] || f->documents_at[documents - 1] != (u64)f->tokens)
        return dataset_wrong(d, e, "/documents does not run from 0 to %lld", (long long)f->tokens);
    for (i64 i = 1; i < documents; i++)
        if (f->documents_at[i] <= f->documents_at[i - 1])
            return dataset_wrong(d, e, "/documents does not ascend at %lld", (long long)i);
    for (i64 i = 0; i < 2 * d->spans; i++)
        if ((i && d->span[i] <= d->span[i - 1]) || d->span[i] > (u64)f->tokens)
            return dataset_wrong(d, e, "/labels_spans does not ascend within the tokens at %lld",
                                 (long long)(i / 2));
    if (dataset_identity(d->hashes, d->chunks, f->documents_at, documents - 1, d->span, d->spans,
                         identity, e))
        return -1;
    return strcmp(identity, d->identity) ? dataset_wrong(d, e, "its tables do not give its sha256")
                                         : 0;
}

static int tables_open(struct dataset *d, struct h5 *h, struct err *e) {
    struct dataset_info *f = &d->info;
    i64 documents, places, hashes, size, version;
    void *at, *place, *hash, *source, *span = NULL;
    if (h5_get_i64(h, "pipeline_version", &version, e)) return -1;
    if (version != DATASET_PIPELINE) {
        err_input(e, "'%s' was made by pipeline version %lld; this program reads version %d",
                  f->path, (long long)version, DATASET_PIPELINE);
        return err_hint(e, "make it again with: hone tokenize");
    }
    if (h5_get_text(h, "tokenizer_sha256", 64, d->tokenizer, e) ||
        h5_get_text(h, "sha256", 64, d->identity, e) ||
        h5_get_i64(h, "vocab_size", &f->vocab_size, e) ||
        h5_get_i64(h, "bos_token_id", &f->bos, e) || h5_get_i64(h, "eos_token_id", &f->eos, e) ||
        h5_get_array(h, "documents", H5T_STD_U64LE, 1, &d->arena, &at, &documents, e) ||
        h5_get_array(h, "chunks", H5T_STD_U64LE, 2, &d->arena, &place, &places, e) ||
        h5_get_array(h, "chunk_sha256", H5T_STD_U8LE, DATASET_HASH, &d->arena, &hash, &hashes, e) ||
        h5_get_array(h, "source", H5T_STD_U8LE, 1, &d->arena, &source, &size, e) ||
        (H5Lexists(h->file, "labels_spans", H5P_DEFAULT) > 0 &&
         h5_get_array(h, "labels_spans", H5T_STD_U64LE, 2, &d->arena, &span, &d->spans, e)))
        return -1;
    f->documents_at = at, f->documents = documents - 1, f->sources = source,
    f->tokenizer_sha256 = d->tokenizer;
    f->sha256 = d->identity, d->hashes = hash, d->place = place, d->span = span;
    if (chunks_check(d, h->size, places, hashes, e) || tables_check(d, documents, e)) return -1;
    for (i64 i = 0; i < d->spans; i++) f->trained += (i64)(d->span[2 * i + 1] - d->span[2 * i]);
    if (!d->spans) f->trained = f->tokens;
    return 0;
}

struct dataset *dataset_open(const char *path, struct err *e) {
    struct dataset *d = mem_new(sizeof *d, e);
    struct h5 h;
    if (!d) return NULL;
    pthread_mutex_init(&d->lock, NULL);
    d->fd = -1;
    int r =
        (d->info.path = arena_text(&d->arena, path, e)) && !h5_open(&h, d->info.path, e) ? 0 : -1;
    if (!r) {
        r = tokens_open(d, &h, e) || tables_open(d, &h, e) ? -1 : 0;
        if (!r && (d->fd = fcntl(h.fd, F_DUPFD_CLOEXEC, 0)) < 0) r = err_system(e, "open", path);
        if (h5_close(&h, e)) r = -1;
    }
    if (!r) return d;
    dataset_close(d);
    return NULL;
}

void dataset_close(struct dataset *d) {
    if (!d) return;
    for (int i = 0; i < CACHE_CHUNKS; i++) mem_free(d->cache[i].data);
    if (d->fd >= 0) close(d->fd);
    pthread_mutex_destroy(&d->lock);
    arena_free(&d->arena);
    mem_free(d);
}

const struct dataset_info *dataset_info(const struct dataset *d) { return &d->info; }

int dataset_check_tokenizer(const struct dataset *d, const char *sha256, i64 vocab_size,
                            struct err *e) {
    if (!strcmp(sha256, d->tokenizer) && vocab_size == d->info.vocab_size) return 0;
    err_input(e, "'%s' was made with another tokenizer", d->info.path);
    err_detail(
        e, "tokenizer.json %.12s... with a vocabulary of %lld made it; given is %.12s... with %lld",
        d->tokenizer, (long long)d->info.vocab_size, sha256, (long long)vocab_size);
    return err_hint(e, "make the dataset again with this tokenizer: hone tokenize");
}

/* ---- reading --------------------------------------------------------------------------------- */

static int chunk_check(struct dataset *d, i64 index, const u8 *data, struct err *e) {
    char hex[65], want[2 * DATASET_HASH + 1];
    if (sha256_bytes(data, DATASET_CHUNK, hex, e)) return -1;
    for (int i = 0; i < DATASET_HASH; i++)
        snprintf(want + 2 * i, 3, "%02x", d->hashes[index * DATASET_HASH + i]);
    if (memcmp(hex, want, 2 * DATASET_HASH))
        return dataset_wrong(d, e, "chunk %lld does not have its SHA-256", (long long)index);
    for (i64 i = 0; i < DATASET_CHUNK / d->width; i++) {
        u32 id = d->width == 2 ? ((const u16 *)(const void *)data)[i]
                               : ((const u32 *)(const void *)data)[i];
        if (id >= (u64)d->info.vocab_size)
            return dataset_wrong(d, e, "token %lld is id %u, its vocabulary is %lld",
                                 (long long)(index * (DATASET_CHUNK / d->width) + i), id,
                                 (long long)d->info.vocab_size);
    }
    d->checked[index] = 1;
    return 0;
}

static int chunk_load(struct dataset *d, i64 index, u8 *data, struct err *e) {
    const u64 at = d->place[2 * index], size = d->place[2 * index + 1];
    for (u64 done = 0; done < size;) {
        ssize_t n = fault_hit(FAULT_READ)
                        ? -1
                        : pread(d->fd, d->frame + done, size - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_system(e, "read", d->info.path);
        if (n == 0)
            return dataset_wrong(d, e, "chunk %lld was cut off while the file was in use",
                                 (long long)index);
        done += (u64)n;
    }
    if (ZSTD_decompress(data, DATASET_CHUNK, d->frame, size) != DATASET_CHUNK)
        return dataset_wrong(
            d, e, "chunk %lld (%llu bytes at %llu) does not decompress to %d bytes",
            (long long)index, (unsigned long long)size, (unsigned long long)at, DATASET_CHUNK);
    return d->checked[index] ? 0 : chunk_check(d, index, data, e);
}

/* The chunk's bytes, out of the cache or in place of what was not used for longest. */
static const u8 *chunk_get(struct dataset *d, i64 index, struct err *e) {
    struct cached *oldest = d->cache;
    for (struct cached *c = d->cache; c < d->cache + CACHE_CHUNKS; c++) {
        if (c->data && c->chunk == index) return c->used = ++d->clock, c->data;
        if (c->used < oldest->used) oldest = c;
    }
    if (!oldest->data && !(oldest->data = mem_new(DATASET_CHUNK, e))) return NULL;
    oldest->chunk = -1, oldest->used = 0;
    if (chunk_load(d, index, oldest->data, e)) return NULL;
    oldest->chunk = index, oldest->used = ++d->clock;
    return oldest->data;
}

int dataset_read(struct dataset *d, i64 first, i64 count, u32 *out, struct err *e) {
    const i64 per_chunk = DATASET_CHUNK / d->width;
    if (first < 0 || count < 0 || first > d->info.tokens - count)
        return err_input(e, "'%s': tokens %lld to %lld were asked for, it has %lld", d->info.path,
                         (long long)first, (long long)(first + count), (long long)d->info.tokens);
    int r = 0;
    pthread_mutex_lock(&d->lock);
    while (count && !r) {
        const u8 *data = chunk_get(d, first / per_chunk, e);
        i64 at = first % per_chunk, n = i64_min(count, per_chunk - at);
        if (!data)
            r = -1;
        else if (d->width == 4)
            memcpy(out, data + 4 * at, (size_t)(4 * n));
        else
            for (i64 i = 0; i < n; i++) out[i] = ((const u16 *)(const void *)data)[at + i];
        out += n, first += n, count -= n;
    }
    pthread_mutex_unlock(&d->lock);
    return r;
}

/* The number of leading entries of [n] ascending values, `stride` apart, that are not above x. */
static i64 count_not_above(const u64 *values, i64 n, i64 stride, u64 x) {
    i64 low = 0, high = n;
    while (low < high) {
        i64 mid = (low + high) / 2;
        if (values[mid * stride] <= x)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

i64 dataset_document(const struct dataset *d, i64 token) {
    return count_not_above(d->info.documents_at, d->info.documents, 1, (u64)token) - 1;
}

void dataset_trained(const struct dataset *d, i64 first, i64 count, u8 *out) {
    memset(out, !d->spans, (size_t)count);
    for (i64 i = i64_max(0, count_not_above(d->span, d->spans, 2, (u64)first) - 1); i < d->spans;
         i++) {
        i64 begin = i64_max((i64)d->span[2 * i] - first, 0),
            end = i64_min((i64)d->span[2 * i + 1] - first, count);
        if (begin >= count) break;
        if (begin < end) memset(out + begin, 1, (size_t)(end - begin));
    }
}
