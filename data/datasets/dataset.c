/* dataset.c: reads a tokenised dataset.
 *
 * While opening, base/h5_read.c says where the tables lie, and they are read. From then on chunks
 * are read with pread and decompressed here, through a cache, on any thread. Every chunk is checked
 * against its SHA-256 and the vocabulary when it is first touched, and the tables against `sha256`
 * and `source_sha256` when the file is opened: what comes out of dataset_read is what was written,
 * or an error. */
#include "data/datasets/datasets_int.h"
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

static int tokens_open(struct dataset *d, struct h5_file *h, struct err *e) {
    struct h5_array a;
    int found = h5_find(h, "tokens", &a, e);
    if (found) return found > 0 ? dataset_wrong(d, e, "it has no /tokens") : -1;
    d->width = a.type == H5_U16 ? 2 : a.type == H5_U32 ? 4 : 0;
    if (!d->width) return dataset_wrong(d, e, "/tokens is neither uint16 nor uint32");
    const i64 chunk = DATASET_CHUNK / d->width, size = a.dim[0];
    if (a.rank != 1 || !a.chunked || a.shuffled || a.chunk[0] != chunk)
        return dataset_wrong(d, e, "/tokens is not in chunks of %d bytes with the zstd filter",
                             DATASET_CHUNK);
    if (!size || size / chunk > h5_bytes(h))
        return dataset_wrong(d, e, "it claims %lld tokens in a file of %lld bytes", (long long)size,
                             (long long)h5_bytes(h));
    d->info.tokens = size, d->chunks = (size + chunk - 1) / chunk;
    return 0;
}

/* Where the chunks are is read from our table /chunks, which the tools of all versions have. */
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

/* ---- attributes and arrays of the file ------------------------------------------------------- */

static int not_ours(const struct dataset *d, struct err *e, const char *fmt, ...) PRINTF(3, 4);
static int not_ours(const struct dataset *d, struct err *e, const char *fmt, ...) {
    char why[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    err_input(e, "'%s': is not a hone dataset", d->info.path);
    return err_detail(e, "%s", why);
}

static const struct h5_attribute *attribute_get(const struct dataset *d, const struct h5_file *h,
                                                const char *name, struct err *e) {
    const struct h5_attribute *a = h5_attribute(h5_root(h), name);
    if (!a) not_ours(d, e, "it has no attribute '%s'", name);
    return a;
}

static int get_i64(const struct dataset *d, const struct h5_file *h, const char *name, i64 *value,
                   struct err *e) {
    const struct h5_attribute *a = attribute_get(d, h, name, e);
    if (!a) return -1;
    if (a->type != H5_I64)
        return not_ours(d, e, "its attribute '%s' is not one 64-bit integer", name);
    memcpy(value, a->data, sizeof *value);
    return 0;
}

static int get_hash(const struct dataset *d, const struct h5_file *h, const char *name,
                    char value[65], struct err *e) {
    const struct h5_attribute *a = attribute_get(d, h, name, e);
    if (!a) return -1;
    if (a->type != H5_TEXT || a->size != 65 || strnlen((const char *)a->data, 65) != 64)
        return not_ours(d, e, "its attribute '%s' is not a text of 64 characters", name);
    memcpy(value, a->data, 65);
    return 0;
}

/* A whole array, contiguous: [rows], or [rows, columns] where columns > 1; a zero byte follows. */
static int get_array(struct dataset *d, struct h5_file *h, const char *name, enum h5_type type,
                     i64 columns, void **data, i64 *rows, struct err *e) {
    struct h5_array a;
    const int found = h5_find(h, name, &a, e), rank = columns > 1 ? 2 : 1;
    const char *why = found            ? "missing or damaged"
                      : a.type != type ? "unexpected element type"
                      : a.rank != rank || !a.dim[0] || (rank == 2 && a.dim[1] != columns)
                          ? "unexpected shape"
                      : a.chunked ? "not contiguous"
                                  : NULL;
    if (found < 0) return -1;
    if (why) {
        err_input(e, "'%s': is not a readable hone dataset", d->info.path);
        return err_detail(e, "/%s: %s", name, why);
    }
    *rows = a.dim[0];
    const i64 size = a.dim[0] * columns * h5_size[type];
    if (size > h5_bytes(h)) return h5_bad(h, e, "/%s: larger than the file", name);
    *data = arena_new(&d->arena, size + 1, e);
    return *data ? h5_read(h, a.piece->at, size, *data, e) : -1;
}

/* Our table /chunks is what is used; an index of the kind that we write must say the same. */
static int index_check(const struct dataset *d, struct h5_file *h, struct err *e) {
    struct h5_array a;
    if (h5_find(h, "tokens", &a, e)) return -1;
    struct h5_piece *piece = a.indexed ? h5_pieces(h, &a, e) : NULL;
    if (a.indexed && !piece) return -1;
    bool same = !piece || (a.pieces == d->chunks &&
                           !memcmp(piece, d->place, (size_t)a.pieces * sizeof *piece));
    mem_free(piece);
    return same ? 0 : dataset_wrong(d, e, "/chunks is not what the index of /tokens says");
}

/* /source is in no other hash. Datasets of before 2027 have no hash of it. */
static int source_check(const struct dataset *d, const struct h5_file *h, const void *source,
                        i64 size, struct err *e) {
    char want[65], hex[65];
    if (!h5_attribute(h5_root(h), "source_sha256")) return 0;
    if (get_hash(d, h, "source_sha256", want, e) || sha256_bytes(source, size, hex, e)) return -1;
    return strcmp(want, hex) ? dataset_wrong(d, e, "/source does not give its source_sha256") : 0;
}

static int tables_open(struct dataset *d, struct h5_file *h, struct err *e) {
    struct dataset_info *f = &d->info;
    i64 documents, places, hashes, size, version = 0;
    void *at, *place, *hash, *source, *span = NULL;
    if (get_i64(d, h, "pipeline_version", &version, e)) return -1;
    if (version != DATASET_PIPELINE) {
        err_input(e, "'%s' was made by pipeline version %lld; this program reads version %d",
                  f->path, (long long)version, DATASET_PIPELINE);
        return err_hint(e, "make it again with: hone tokenize");
    }
    if (get_hash(d, h, "tokenizer_sha256", d->tokenizer, e) ||
        get_hash(d, h, "sha256", d->identity, e) ||
        get_i64(d, h, "vocab_size", &f->vocab_size, e) ||
        get_i64(d, h, "bos_token_id", &f->bos, e) || get_i64(d, h, "eos_token_id", &f->eos, e) ||
        get_array(d, h, "documents", H5_U64, 1, &at, &documents, e) ||
        get_array(d, h, "chunks", H5_U64, 2, &place, &places, e) ||
        get_array(d, h, "chunk_sha256", H5_U8, DATASET_HASH, &hash, &hashes, e) ||
        get_array(d, h, "source", H5_U8, 1, &source, &size, e) ||
        (h5_has(h, "labels_spans") &&
         get_array(d, h, "labels_spans", H5_U64, 2, &span, &d->spans, e)) ||
        source_check(d, h, source, size, e))
        return -1;
    f->documents_at = at, f->documents = documents - 1, f->sources = source,
    f->sources_unchecked = !h5_attribute(h5_root(h), "source_sha256"),
    f->tokenizer_sha256 = d->tokenizer;
    f->sha256 = d->identity, d->hashes = hash, d->place = place, d->span = span;
    if (chunks_check(d, h5_bytes(h), places, hashes, e) || tables_check(d, documents, e) ||
        index_check(d, h, e))
        return -1;
    for (i64 i = 0; i < d->spans; i++) f->trained += (i64)(d->span[2 * i + 1] - d->span[2 * i]);
    if (!d->spans) f->trained = f->tokens;
    return 0;
}

static int file_open(struct dataset *d, struct err *e) {
    if (path_is_dir(d->info.path))
        return err_input(e, "'%s' is a folder, not a dataset", d->info.path);
    struct h5_file *h = h5_open(d->info.path, e);
    if (!h) return e->code == ERR_INPUT ? err_hint(e, "make a dataset with: hone tokenize") : -1;
    int r = tokens_open(d, h, e) || tables_open(d, h, e) ? -1 : 0;
    if (!r && (d->fd = fcntl(h5_fd(h), F_DUPFD_CLOEXEC, 0)) < 0)
        r = err_system(e, "open", d->info.path);
    h5_close(h);
    return r;
}

struct dataset *dataset_open(const char *path, struct err *e) {
    struct dataset *d = mem_new(sizeof *d, e);
    if (!d) return NULL;
    pthread_mutex_init(&d->lock, NULL);
    d->fd = -1;
    if ((d->info.path = arena_text(&d->arena, path, e)) && !file_open(d, e)) return d;
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
