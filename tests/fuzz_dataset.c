/* fuzz_dataset.c: libFuzzer target for dataset_open and dataset_read, built with clang
 * -fsanitize=fuzzer,address,undefined and run with ASAN_OPTIONS=allocator_may_return_null=1.
 *
 * The first byte picks one of three ways to spend the others, because HDF5's checksums stop nearly
 * all blind changes: 0: they are the file; 1: they are changes to a good file; 2: they are the
 * values of a well-formed HDF5 file that claims to be a dataset. With FORGE=1 in the environment
 * way 1 makes the metadata checksums right again, as an attacker would: that finds crashes in HDF5
 * 1.10 itself within minutes, so it is for looking at newer versions of the library. A dataset that
 * opens must give the same tokens twice, all of them below its vocabulary. */
#include "data/dataset_int.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:libhdf5";
} /* it leaks headers it refuses */
u32 H5_checksum_metadata(const void *data, size_t size, u32 start);

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
        .encoder = {NULL, byte_encode, 258, 257, 256,
                    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"},
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

static void checksum_put(u8 *file, i64 file_size, i64 begin, i64 size) {
    if (size < 0 || begin + size + 4 > file_size) return;
    u32 sum = H5_checksum_metadata(file + begin, (size_t)size, 0);
    memcpy(file + begin + size, &sum, 4);
}

/* Object headers, extensible array headers, index blocks and data blocks, fractal heaps and B-trees
 * of attributes do not occur in so small a file: superblock, object headers and the array index are
 * what there is. */
static void checksums_fix(u8 *file, i64 size) {
    checksum_put(file, size, 0, 44);
    for (i64 i = 0; i + 16 < size; i++)
        if (!memcmp(file + i, "OHDR", 4)) {
            int flags = file[i + 5], width = 1 << (flags & 3);
            i64 at = i + 6 + (flags & 32 ? 16 : 0) + (flags & 16 ? 4 : 0);
            u64 body = 0;
            for (int k = 0; k < width && at + k < size; k++) body |= (u64)file[at + k] << (8 * k);
            if (body < (u64)size) checksum_put(file, size, i, at + width + (i64)body - i);
        } else if (!memcmp(file + i, "EAHD", 4)) {
            checksum_put(file, size, i, 12 + 8 * 6 + 8);
        } else if (!memcmp(file + i, "FAHD", 4)) {
            checksum_put(file, size, i, 8 + 8 + 8);
        }
}

static void file_changed(struct input in) {
    struct err e = {0};
    u8 *copy = mem_new(good.size, &e);
    memcpy(copy, good.data, (size_t)good.size);
    while (in.at < in.end) {
        u64 at = take(&in, 2) % (u64)good.size;
        copy[at] ^= (u8)take(&in, 1);
    }
    if (getenv("FORGE")) checksums_fix(copy, good.size);
    file_write(path, copy, good.size, &e);
    mem_free(copy);
}

static void file_made(struct input in) {
    struct err e = {0};
    struct h5 h;
    if (h5_create(&h, path, &e)) abort();
    int flags = (int)take(&in, 1), width = flags & 1 ? 2 : 4;
    i64 tokens = (i64)take(&in, 3),
        chunks = flags & 2 ? (i64)take(&in, 1) % 4 : (tokens * width - 1) / DATASET_CHUNK + 1;
    u8 raw[512], frame[1024], hashes[64 * DATASET_HASH] = {0};
    u64 places[64][2] = {0};
    u64 documents[8], spans[8];
    i64 n = (i64)take(&in, 1) % 8, m = (i64)take(&in, 1) % 4;
    for (i64 i = 0; i < n; i++)
        documents[i] = i + 1 == n && !(flags & 4) ? (u64)tokens : i ? take(&in, 2) : 0;
    for (i64 i = 0; i < 2 * m; i++) spans[i] = take(&in, 2);
    hid_t d = h5_put_tokens(&h, width, tokens);
    for (i64 i = 0; i < chunks && i < 64; i++) {
        static u8 whole[DATASET_CHUNK], packed[2 * DATASET_CHUNK];
        size_t size = take(&in, 1);
        for (size_t k = 0; k < size; k++) raw[k] = (u8)take(&in, 1);
        memset(whole, 0, sizeof whole), memcpy(whole, raw, size);
        char hex[65];
        sha256_bytes(whole, DATASET_CHUNK, hex, &e);
        for (int k = 0; k < DATASET_HASH; k++)
            sscanf(hex + 2 * k, "%2hhx", &hashes[i * DATASET_HASH + k]);
        const u8 *from = packed;
        if (flags & 8)
            size = ZSTD_compress(frame, sizeof frame, raw, size, 1), from = frame;
        else if (flags & 16)
            from = raw;
        else
            size = ZSTD_compress(packed, sizeof packed, whole, sizeof whole, 1);
        hsize_t at = (hsize_t)(i * (DATASET_CHUNK / width));
        if (size && at < (hsize_t)tokens) H5Dwrite_chunk(d, H5P_DEFAULT, 0, &at, size, from);
        places[i][0] = (u64)h.raw_at + (flags & 2 ? take(&in, 1) : 0),
        places[i][1] = (u64)h.raw_size;
    }
    H5Dclose(d);
    char identity[65] = "0";
    if (n && !(flags & 32))
        dataset_identity(hashes, i64_min(chunks, 64), documents, n - 1, spans, m, identity, &e);
    if (n)
        h5_put_array(&h, "documents", flags & 64 ? H5T_STD_I64LE : H5T_STD_U64LE, n, 1, documents,
                     &e);
    if (m) h5_put_array(&h, "labels_spans", H5T_STD_U64LE, m, 2, spans, &e);
    if (chunks) h5_put_array(&h, "chunks", H5T_STD_U64LE, i64_min(chunks, 64), 2, places, &e);
    if (chunks)
        h5_put_array(&h, "chunk_sha256", H5T_STD_U8LE, i64_min(chunks, 64), DATASET_HASH, hashes,
                     &e);
    h5_put_array(&h, "source", H5T_STD_U8LE, 2, 1, "[]", &e);
    h5_put_i64(&h, "pipeline_version", DATASET_PIPELINE, &e),
        h5_put_text(&h, "sha256", identity, &e);
    h5_put_text(&h, "tokenizer_sha256", flags & 128 ? "short" : identity, &e);
    h5_put_i64(&h, "vocab_size", (i64)take(&in, 4), &e);
    h5_put_i64(&h, "bos_token_id", (i64)take(&in, 3) - 1, &e),
        h5_put_i64(&h, "eos_token_id", (i64)take(&in, 3) - 1, &e);
    h5_close(&h, &(struct err){0});
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
