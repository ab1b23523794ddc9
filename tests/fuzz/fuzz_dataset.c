/* fuzz_dataset.c: libFuzzer target for dataset_open and dataset_read, built with clang
 * -fsanitize=fuzzer,address,undefined and run with ASAN_OPTIONS=allocator_may_return_null=1.
 *
 * The first byte picks one of three ways to spend the others, because checksums stop nearly all
 * blind changes: 0: they are the file; 1: they are changes to a good file, whose checksums are made
 * right again as an attacker would; 2: they are the values of a well-formed HDF5 file that claims
 * to be a dataset. A dataset that opens must give the same tokens twice, all of them below its
 * vocabulary. */
#include "data/datasets/datasets_int.h"
#include "tests/h5_tools.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
static char path[64], good_path[64], source_path[64];
static struct text good;

static int byte_encode(const void *arg, const char *text, i64 size, struct ids *out,
                       struct err *e) {
    (void)arg;
    for (i64 i = 0; i < size; i++)
        if (ids_add(out, (u8)text[i], e)) return -1;
    return 0;
}

static void fuzz_files_remove(void) { unlink(path), unlink(good_path), unlink(source_path); }

static void fuzz_begin(void) {
    static const char rows[] =
        "{\"prompt\": \"ab\", \"completion\": \"cd\"}\n{\"text\": \"some more text\"}\n";
    struct err e = {0};
    snprintf(path, sizeof path, "/dev/shm/hone-fuzz-%d.h5", getpid());
    snprintf(good_path, sizeof good_path, "/dev/shm/hone-fuzz-%d-good.h5", getpid());
    snprintf(source_path, sizeof source_path, "/dev/shm/hone-fuzz-%d.jsonl", getpid());
    atexit(fuzz_files_remove);
    const char *source = source_path;
    struct dataset_job job = {
        .sources = &source,
        .sources_count = 1,
        .options = {.completion_only_loss = true},
        .encoder = {.encode = byte_encode,
                    .vocab_size = 258,
                    .bos = 257,
                    .eos = 256,
                    .sha256 = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"},
        .add_eos = true,
        .path = good_path};
    if (file_write(source, rows, sizeof rows - 1, &e) || dataset_build(&job, &e) ||
        file_read(&good, good_path, &e))
        abort();
}

struct input {
    const u8 *at, *end;
};
static u64 take(struct input *in, int bytes) {
    u64 value = 0;
    for (int i = 0; i < bytes && in->at < in->end; i++) value |= (u64)*in->at++ << (8 * i);
    return value;
}

static void file_changed(struct input in) {
    struct err e = {0};
    u8 *copy = mem_new(good.size, &e);
    memcpy(copy, good.data, (size_t)good.size);
    while (in.at < in.end) {
        u64 at = take(&in, 2) % (u64)good.size;
        copy[at] ^= (u8)take(&in, 1);
    }
    h5_reseal(copy, good.size);
    file_write(path, copy, good.size, &e);
    mem_free(copy);
}

static void array_made(struct h5_writer *w, const char *name, enum h5_type type, i64 rows,
                       i64 columns, const void *data) {
    if (h5_put_array(w, name, type, rows, columns, data, &(struct err){0})) abort();
}

/* One chunk: raw bytes as they are, compressed alone, or compressed as a whole chunk. */
static void chunk_made(struct h5_writer *w, struct input *in, int flags, struct h5_piece *piece,
                       u8 *hash) {
    static u8 whole[DATASET_CHUNK], packed[2 * DATASET_CHUNK];
    struct err e = {0};
    u8 raw[256], frame[1024];
    char hex[65];
    size_t size = take(in, 1);
    for (size_t k = 0; k < size; k++) raw[k] = (u8)take(in, 1);
    memset(whole, 0, sizeof whole), memcpy(whole, raw, size);
    sha256_bytes(whole, DATASET_CHUNK, hex, &e);
    for (int k = 0; k < DATASET_HASH; k++) sscanf(hex + 2 * k, "%2hhx", &hash[k]);
    const u8 *from = packed;
    if (flags & 8)
        size = ZSTD_compress(frame, sizeof frame, raw, size, 1), from = frame;
    else if (flags & 16)
        from = raw;
    else
        size = ZSTD_compress(packed, sizeof packed, whole, sizeof whole, 1);
    if (h5_append(w, from, (i64)size, piece, &e)) abort();
    if (flags & 2) piece->at += take(in, 1);
}

static void file_made(struct input in) {
    enum { CHUNKS = 64 };
    struct err e = {0};
    struct h5_writer *w = h5_create(path, &e);
    if (!w) abort();
    int flags = (int)take(&in, 1), width = flags & 1 ? 2 : 4;
    i64 tokens = (i64)take(&in, 3),
        chunks = flags & 2 ? (i64)take(&in, 1) % 4 : (tokens * width - 1) / DATASET_CHUNK + 1;
    u8 hashes[CHUNKS * DATASET_HASH] = {0};
    struct h5_piece places[CHUNKS] = {{0}};
    u64 documents[8], spans[8];
    i64 n = (i64)take(&in, 1) % 8, m = (i64)take(&in, 1) % 4;
    chunks = i64_min(chunks, CHUNKS);
    for (i64 i = 0; i < n; i++)
        documents[i] = i + 1 == n && !(flags & 4) ? (u64)tokens : i ? take(&in, 2) : 0;
    for (i64 i = 0; i < 2 * m; i++) spans[i] = take(&in, 2);
    for (i64 i = 0; i < chunks; i++)
        chunk_made(w, &in, flags, &places[i], hashes + i * DATASET_HASH);
    const struct h5_array t = {.name = "tokens",
                               .type = width == 2 ? H5_U16 : H5_U32,
                               .rank = 1,
                               .dim = {tokens},
                               .chunked = true,
                               .chunk = {DATASET_CHUNK / width},
                               .piece = places,
                               .pieces = chunks};
    char identity[65] = "0";
    if (h5_add(w, &t, &e)) abort();
    if (n && !(flags & 32))
        dataset_identity(hashes, chunks, documents, n - 1, spans, m, identity, &e);
    if (n) array_made(w, "documents", flags & 64 ? H5_I64 : H5_U64, n, 1, documents);
    if (m) array_made(w, "labels_spans", H5_U64, m, 2, spans);
    if (chunks) array_made(w, "chunks", H5_U64, chunks, 2, places);
    if (chunks) array_made(w, "chunk_sha256", H5_U8, chunks, DATASET_HASH, hashes);
    array_made(w, "source", H5_U8, 2, 1, "[]");
    h5_put_i64(w, "pipeline_version", DATASET_PIPELINE, &e);
    h5_put_text(w, "sha256", identity, &e);
    h5_put_text(w, "tokenizer_sha256", flags & 128 ? "short" : identity, &e);
    h5_put_i64(w, "vocab_size", (i64)take(&in, 4), &e);
    h5_put_i64(w, "bos_token_id", (i64)take(&in, 3) - 1, &e);
    h5_put_i64(w, "eos_token_id", (i64)take(&in, 3) - 1, &e);
    if (h5_finish(w, true, &e)) abort();
}

static void file_use(void) {
    struct err e = {0};
    struct dataset *d = dataset_open(path, &e);
    u32 first[512], again[512];
    u8 trained[512];
    if (!d) {
        if (!e.code || !e.primary[0]) abort();
        return;
    }
    const struct dataset_info *f = dataset_info(d);
    for (i64 at = 0, n; at < f->tokens && at < 1 << 20; at += n) {
        n = i64_min(f->tokens - at, 512);
        dataset_trained(d, at, n, trained);
        if (dataset_document(d, at) < 0 || dataset_document(d, at) >= f->documents) abort();
        if (dataset_read(d, at, n, first, &e)) break;
        if (dataset_read(d, at, n, again, &e) || memcmp(first, again, (size_t)(4 * n))) abort();
        for (i64 i = 0; i < n; i++)
            if (first[i] >= (u64)f->vocab_size || trained[i] > 1) abort();
    }
    dataset_close(d);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    struct err e = {0};
    if (!good.size) fuzz_begin();
    if (!size) return 0;
    struct input in = {data + 1, data + size};
    if (data[0] % 3 == 0)
        file_write(path, data + 1, (i64)size - 1, &e);
    else if (data[0] % 3 == 1)
        file_changed(in);
    else
        file_made(in);
    file_use();
    return 0;
}
