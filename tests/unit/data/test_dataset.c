/* test_dataset.c: what is written is what is read; nothing else is ever read; nothing half-written
 * is ever seen. */
#include "tests/unit/data/dataset_fixture.h"
#define HONE_H5_LIBRARY
#include "tests/h5_tools.h"
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct source_options lines = {.document_separator = "\n"};

static char *numbers(i64 n, i64 *size) { /* n lines */
    static struct text t;
    struct err e = {0};
    t.size = 0;
    for (i64 i = 0; i < n; i++)
        assert_int_equal(text_printf(&t, &e, "line %lld\n", (long long)(i * i)), 0);
    *size = t.size;
    return t.data;
}

static int wide_encode(const void *arg, const char *text, i64 size, struct ids *out,
                       struct err *e) {
    (void)arg;
    for (i64 i = 0; i < size; i++)
        if (ids_add(out, (u32)((u8)text[i] * 257 + i % 3), e)) return -1;
    return 0;
}

static void round_trip(struct encoder encoder, int width) {
    i64 size, at = 0;
    char *text = numbers(60000, &size);
    struct err e = {0};
    const char *source = file_put("n.txt", text, size);
    struct dataset_job job = byte_job(&source, in_folder("n.h5"));
    job.encoder = encoder, job.options = lines, job.add_bos = true;
    assert_int_equal(dataset_build(&job, &e), 0);
    struct dataset *d = dataset_open(job.path, &e);
    assert_non_null(d);
    const struct dataset_info *f = dataset_info(d);
    struct ids want = {0};
    for (i64 doc = 0; doc < 60000; doc++) {
        i64 n = strchr(text + at, '\n') - (text + at);
        assert_int_equal(f->documents_at[doc], want.count);
        assert_int_equal(ids_add(&want, BYTE_BOS, &e), 0);
        assert_int_equal(encoder.encode(NULL, text + at, n, &want, &e), 0);
        assert_int_equal(ids_add(&want, BYTE_EOS, &e), 0);
        assert_int_equal(dataset_document(d, want.count - 1), doc);
        at += n + 1;
    }
    assert_int_equal(f->tokens, want.count);
    assert_true(f->tokens > 4 * (256 << 10) / width); /* several chunks */
    assert_int_equal(f->documents, 60000);
    assert_int_equal(f->trained, f->tokens);
    u32 *found = mem_new_array(want.count, 4, &e);
    assert_int_equal(dataset_read(d, 0, want.count, found, &e), 0);
    assert_memory_equal(found, want.item, (size_t)(4 * want.count));
    struct rng rng = {.seed = 5, .purpose = RNG_TEST};
    for (u64 i = 0; i < 300; i++) {
        u32 r[4];
        rng_block(&rng, i, r);
        i64 first = r[0] % want.count, count = i64_min(want.count - first, r[1] % 200000);
        assert_int_equal(dataset_read(d, first, count, found, &e), 0);
        assert_memory_equal(found, want.item + first, (size_t)(4 * count));
    }
    assert_int_equal(dataset_read(d, want.count - 1, 2, found, &e), -1);
    assert_non_null(strstr(e.primary, "were asked for, it has"));
    assert_non_null(strstr(f->sources, "[{\"file\": \"n.txt\", \"sha256\": \""));
    dataset_close(d);
    ids_free(&want), mem_free(found);
}

/* Other HDF5 programs read the tokens too, through the filter. */
static void test_hdf5_reads_it(void **state) {
    (void)state;
    struct err e = {0};
    i64 size;
    char *text = numbers(40000, &size);
    struct dataset *d = dataset_of("f.txt", text, size, &lines);
    i64 n = dataset_info(d)->tokens;
    u32 *ours = mem_new_array(n, 4, &e), *theirs = mem_new_array(n, 4, &e);
    h5_library_start();
    hid_t f = H5Fopen(in_folder("f.txt.h5"), H5F_ACC_RDONLY, H5P_DEFAULT),
          t = H5Dopen2(f, "tokens", H5P_DEFAULT);
    assert_true(H5Dread(t, H5T_NATIVE_UINT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, theirs) >= 0);
    H5Dclose(t), H5Fclose(f);
    assert_int_equal(dataset_read(d, 0, n, ours, &e), 0);
    assert_memory_equal(ours, theirs, (size_t)(4 * n));
    mem_free(ours), mem_free(theirs), dataset_close(d);
}

static void test_round_trip(void **state) {
    (void)state;
    struct encoder wide = byte_encoder();
    wide.encode = wide_encode, wide.vocab_size = 70000;
    round_trip(byte_encoder(), 2);
    round_trip(wide, 4);
}

static void test_spans(void **state) {
    (void)state;
    static const char rows[] = "{\"prompt\": \"ab\", \"completion\": \"cd\"}\n{\"text\": \"ef\"}\n"
                               "{\"prompt\": \"gh\", \"completion\": \"i\"}\n";
    const struct source_options options = {.completion_only_loss = true};
    struct dataset *d = dataset_of("spans.jsonl", rows, sizeof rows - 1, &options);
    u8 trained[16];
    assert_int_equal(dataset_info(d)->tokens, 12);
    assert_int_equal(dataset_info(d)->trained, 8);
    for (i64 first = 0; first < 12; first++)
        for (i64 count = 0; first + count <= 12; count++) {
            dataset_trained(d, first, count, trained);
            for (i64 i = 0; i < count; i++)
                assert_int_equal(trained[i], "001111110011"[first + i] - '0');
        }
    dataset_close(d);
}

/* With a real tokenizer: what is read decodes to what was written. */
static void test_tokenizer(void **state) {
    (void)state;
    struct err e = {0};
    i64 size;
    char *text = numbers(3000, &size);
    const char *source = file_put("bpe.txt", text, size), *special = "<|end|>";
    const struct bpe_training train = {"gpt2", 400, &special, 1, &source, 1, source_texts};
    assert_int_equal(bpe_train(&train, in_folder("tokenizer.json"), &e), 0);
    struct tokenizer *t = tokenizer_open(in_folder("tokenizer.json"), &e);
    assert_non_null(t);
    struct dataset_job job = byte_job(&source, in_folder("bpe.h5"));
    job.encoder = encoder_of(t);
    job.options =
        (struct source_options){.split = SPLIT_TRAIN, .validation_fraction = 0.25, .seed = 7};
    assert_int_equal(dataset_build(&job, &e), 0);
    struct dataset *d = dataset_open(job.path, &e);
    assert_non_null(d);
    assert_int_equal(dataset_check_tokenizer(d, tokenizer_sha256(t), tokenizer_size(t), &e), 0);
    i64 n = dataset_info(d)->tokens;
    u32 *ids = mem_new_array(n, 4, &e);
    struct text back = {0};
    assert_int_equal(dataset_read(d, 0, n, ids, &e), 0);
    assert_int_equal(tokenizer_decode(t, ids, n, true, &back, &e), 0);
    assert_true(back.size >= size / 4 * 3 && back.size < size / 4 * 3 + 32);
    assert_memory_equal(back.data, text, (size_t)back.size);
    assert_int_equal(text[back.size - 1], '\n');
    assert_true(n < size / 2);
    assert_non_null(strstr(dataset_info(d)->sources,
                           "\"split\": \"train\", \"validation_fraction\": 0.25, \"seed\": 7}]"));
    text_free(&back), mem_free(ids), dataset_close(d), tokenizer_free(t);
}

/* ---- the same input, the same bytes ---------------------------------------------------------- */

static void test_same_bytes(void **state) {
    (void)state;
    i64 size;
    char *text = numbers(30000, &size), first[65], hash[65];
    struct err e = {0};
    const char *source = file_put("s.txt", text, size);
    struct dataset_job job = byte_job(&source, in_folder("s.h5"));
    job.options = lines;
    for (int threads = 1; threads <= 4; threads++) {
        assert_int_equal(pool_start(threads, &e), 0);
        assert_int_equal(dataset_build(&job, &e), 0);
        pool_stop();
        assert_int_equal(sha256_file(job.path, threads == 1 ? first : hash, &e), 0);
        if (threads > 1) assert_string_equal(hash, first);
    }
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void build_refused(struct dataset_job *job, const char *primary) {
    struct err e = {0};
    assert_int_equal(dataset_build(job, &e), -1);
    if (!strstr(e.primary, primary)) fail_msg("'%s' is not in '%s'", primary, e.primary);
    assert_false(path_exists(job->path));
    assert_false(path_exists(in_folder("r.h5.new")));
}

static int broken_encode(const void *arg, const char *text, i64 size, struct ids *out,
                         struct err *e) {
    (void)text, (void)size;
    return arg ? err_failed(e, "the encoder is broken") : ids_add(out, 300, e);
}

static void test_build_refusals(void **state) {
    (void)state;
    const char *empty = file_put("empty.txt", "", 0), *text = file_put("t.txt", "text", 4);
    struct dataset_job job = byte_job(&empty, in_folder("r.h5"));
    build_refused(&job, "empty.txt' gives none that is not empty");
    job.sources = &text,
    job.options = (struct source_options){.split = SPLIT_VALIDATION, .validation_fraction = 0.1};
    build_refused(&job, "t.txt' gives none to the validation split");
    job.options = (struct source_options){0}, job.encoder.encode = broken_encode;
    build_refused(&job, "the tokenizer made id 300, but its vocabulary is 258");
    job.encoder.arg = "";
    build_refused(&job, "the encoder is broken");
    const char *missing = in_folder("missing.txt");
    job.sources = &missing;
    build_refused(&job, "cannot open ");
    job.path = in_folder("no/such/r.h5");
    build_refused(&job, "cannot create ");
}

static void open_refused(const char *path, const char *primary) {
    struct err e = {0};
    assert_null(dataset_open(path, &e));
    char all[1100];
    snprintf(all, sizeof all, "%s; %s", e.primary, e.detail);
    if (!strstr(all, primary)) fail_msg("'%s' is not in '%s'", primary, all);
    assert_int_equal(e.code, ERR_INPUT);
}

static void test_open_refusals(void **state) {
    (void)state;
    i64 size;
    char *text = numbers(2000, &size);
    struct err e = {0};
    struct text file = {0};
    dataset_close(dataset_of("o.txt", text, size, &lines));
    const char *path = in_folder("o.txt.h5");
    assert_int_equal(file_read(&file, path, &e), 0);
    assert_null(dataset_open(in_folder("missing.h5"), &e));
    assert_non_null(strstr(e.primary, "No such file or directory"));
    open_refused(folder, "is a folder, not a dataset");
    open_refused(file_put("x.h5", "", 0), "is not an HDF5 file");
    open_refused(file_put("x.h5", "some text that is no HDF5", 25), "is not an HDF5 file");
    open_refused(file_put("x.h5", "\x89HDF\r\n\x1a\n\0", 9), "a damaged or truncated HDF5 file");
    for (i64 n = 12; n < file.size; n += 1 + file.size / 50)
        open_refused(file_put("x.h5", file.data, n), "a damaged or truncated HDF5 file");
    /* Version 2 or later of other contents. */
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
    H5Fclose(H5Fcreate(in_folder("y.h5"), H5F_ACC_TRUNC, H5P_DEFAULT, access));
    H5Pclose(access);
    open_refused(in_folder("y.h5"), "it has no /tokens");
    text_free(&file);
}

/* A copy of o.txt.h5 in which an attribute has another value, or an array other first elements. */
static const char *altered(const char *name, i64 value) {
    struct text file = {0};
    struct err e = {0};
    assert_int_equal(file_read(&file, in_folder("o.txt.h5"), &e), 0);
    const char *path = file_put("z.h5", file.data, file.size);
    text_free(&file);
    hid_t f = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), a = -1;
    assert_true(f >= 0);
    if (name[0] == '/') {
        u64 data[2001];
        hid_t d = H5Dopen2(f, name, H5P_DEFAULT);
        assert_true(H5Dread(d, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
        data[1] = (u64)value;
        assert_true(H5Dwrite(d, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
        H5Dclose(d);
    } else if (name[0] == '-') {
        if (H5Adelete(f, name + 1) < 0) assert_true(H5Ldelete(f, name + 1, H5P_DEFAULT) >= 0);
    } else {
        a = H5Aopen(f, name, H5P_DEFAULT);
        assert_true(H5Awrite(a, H5T_NATIVE_INT64, &value) >= 0);
        H5Aclose(a);
    }
    H5Fclose(f);
    return path;
}

static void test_altered(void **state) {
    (void)state;
    struct err e = {0};
    open_refused(altered("vocab_size", 100000),
                 "a vocabulary of 100000 does not fit its uint16 tokens");
    open_refused(altered("vocab_size", 0), "a vocabulary of 0 does not fit");
    open_refused(altered("eos_token_id", 258),
                 "bos 257 and eos 258 are not in its vocabulary of 258");
    open_refused(altered("pipeline_version", 99), "was made by pipeline version 99");
    open_refused(altered("/documents", 0), "/documents does not ascend at 1");
    open_refused(altered("/documents", 5), "its tables do not give its sha256");
    open_refused(altered("-vocab_size", 0), "it has no attribute 'vocab_size'");
    open_refused(altered("-documents", 0), "/documents: missing or damaged");
    open_refused(altered("-chunk_sha256", 0), "/chunk_sha256: missing or damaged");
    open_refused(altered("-tokens", 0), "it has no /tokens");
    struct dataset *d;
    assert_non_null(d = dataset_open(altered("eos_token_id", 3), &e));
    char other[65] = "ff";
    assert_int_equal(dataset_check_tokenizer(d, dataset_info(d)->tokenizer_sha256, 258, &e), 0);
    assert_int_equal(dataset_check_tokenizer(d, dataset_info(d)->tokenizer_sha256, 259, &e), -1);
    e = (struct err){0};
    assert_int_equal(dataset_check_tokenizer(d, other, 258, &e), -1);
    assert_non_null(strstr(e.primary, "was made with another tokenizer"));
    dataset_close(d);
}

static void test_ids_above_vocabulary(void **state) {
    (void)state;
    struct err e = {0};
    u32 ids[8];
    hid_t f = H5Fopen(altered("eos_token_id", -1), H5F_ACC_RDWR, H5P_DEFAULT),
          a = H5Aopen(f, "bos_token_id", H5P_DEFAULT);
    assert_true(H5Awrite(a, H5T_NATIVE_INT64, &(i64){-1}) >= 0);
    H5Aclose(a), a = H5Aopen(f, "vocab_size", H5P_DEFAULT);
    assert_true(H5Awrite(a, H5T_NATIVE_INT64, &(i64){200}) >= 0);
    H5Aclose(a), H5Fclose(f);
    struct dataset *d = dataset_open(in_folder("z.h5"), &e);
    assert_non_null(d);
    assert_int_equal(dataset_read(d, 0, 8, ids, &e), -1);
    assert_non_null(strstr(e.primary, "token 6 is id 256, its vocabulary is 200"));
    dataset_close(d);
}

/* A file with any one byte changed is refused, or gives exactly what was written. */
static void test_damage(void **state) {
    (void)state;
    struct err e = {0};
    struct text file = {0};
    u32 want[4096], found[4096];
    i64 size, refused = 0, tried = 0;
    char *text = numbers(60, &size);
    struct dataset *d = dataset_of("d.txt", text, size, &lines);
    i64 tokens = dataset_info(d)->tokens;
    assert_int_equal(dataset_read(d, 0, tokens, want, &e), 0);
    dataset_close(d);
    assert_int_equal(file_read(&file, in_folder("d.txt.h5"), &e), 0);
    for (i64 at = 0; at < file.size; at++, tried++) {
        file.data[at] ^= 0x41;
        e = (struct err){0};
        d = dataset_open(file_put("e.h5", file.data, file.size), &e);
        memset(found, 0, sizeof found);
        if (!d || dataset_read(d, 0, tokens, found, &e)) {
            assert_int_equal(e.code, ERR_INPUT);
            refused++;
        } else {
            assert_int_equal(dataset_info(d)->tokens, tokens);
            assert_memory_equal(found, want, (size_t)(4 * tokens));
        }
        dataset_close(d);
        file.data[at] ^= 0x41;
    }
    print_message("damaged bytes: %lld of %lld refused\n", (long long)refused, (long long)tried);
    text_free(&file);
}

/* ---- failures while writing ------------------------------------------------------------------ */

static void assert_intact(const char *path, const char *hash, const char *other) {
    struct err e = {0};
    char now[65];
    struct dataset *d = dataset_open(path, &e);
    if (!d) fail_msg("%s %s", e.primary, e.detail);
    dataset_close(d);
    assert_int_equal(sha256_file(path, now, &e), 0);
    assert_true(!strcmp(now, hash) || (other && !strcmp(now, other)));
}

static void test_failures(void **state) {
    (void)state;
    static const char *const kinds[] = {"alloc", "open", "read", "write", "fsync", "rename"};
    i64 size;
    char *text = numbers(3000, &size), old[65], new[65], spec[32];
    struct err e = {0};
    const char *small = file_put("w0.txt", "small\n", 6), *source = file_put("w.txt", text, size);
    struct dataset_job job = byte_job(&source, in_folder("w.h5"));
    job.options = lines;
    assert_int_equal(dataset_build(&job, &e), 0);
    assert_int_equal(sha256_file(job.path, new, &e), 0);
    for (i64 k = 0; k < COUNT(kinds); k++)
        for (int n = 1;; n += n < 40 ? 1 : 1 + n / 4) {
            e = (struct err){0};
            job.sources = &small;
            assert_int_equal(dataset_build(&job, &e), 0);
            assert_int_equal(sha256_file(job.path, old, &e), 0);
            job.sources = &source;
            snprintf(spec, sizeof spec, "%s:%d", kinds[k], n);
            assert_int_equal(fault_arm(spec), 0);
            int r = dataset_build(&job, &e);
            fault_arm(NULL);
            if (!r) break; /* fewer than n calls */
            assert_int_not_equal(e.code, 0);
            assert_non_null(strstr(e.frame[e.frames - 1], "while writing the dataset"));
            if (!strcmp(kinds[k], "write"))
                assert_non_null(strstr(e.primary, "No space left on device"));
            bool may_be_new = !strcmp(kinds[k], "open") || !strcmp(kinds[k], "fsync");
            assert_intact(job.path, old,
                          may_be_new ? new : NULL); /* the folder is synced after the rename */
            assert_false(path_exists(in_folder("w.h5.new")));
        }
}

static void test_kills(void **state) {
    (void)state;
    static const char *const kinds[] = {"open", "write", "fsync", "rename"};
    struct err e = {0};
    char old[65], new[65], spec[32];
    const char *small = in_folder("w0.txt"), *source = in_folder("w.txt");
    struct dataset_job job = byte_job(&source, in_folder("w.h5"));
    job.options = lines;
    assert_int_equal(dataset_build(&job, &e), 0);
    assert_int_equal(sha256_file(job.path, new, &e), 0);
    for (i64 k = 0; k < COUNT(kinds); k++)
        for (int n = 1, status = SIGKILL; WIFSIGNALED(status); n++) {
            job.sources = &small;
            assert_int_equal(dataset_build(&job, &e), 0);
            assert_int_equal(sha256_file(job.path, old, &e), 0);
            job.sources = &source;
            snprintf(spec, sizeof spec, "kill-%s:%d", kinds[k], n);
            pid_t child = fork();
            if (!child) _exit(fault_arm(spec) || dataset_build(&job, &e));
            assert_int_equal(waitpid(child, &status, 0), child);
            assert_true(!WIFSIGNALED(status) || WTERMSIG(status) == SIGKILL);
            assert_intact(job.path, old, new);
        }
}

/* The real thing: the system refuses to let the file grow. */
static void test_disk_full(void **state) {
    (void)state;
    const char *source = in_folder("n.txt");
    struct dataset_job job = byte_job(&source, in_folder("full.h5"));
    job.options = lines;
    for (rlim_t limit = 4096; limit <= 65536; limit *= 2) {
        int status;
        pid_t child = fork();
        if (!child) {
            struct err e = {0};
            signal(SIGXFSZ, SIG_IGN);
            setrlimit(RLIMIT_FSIZE, &(struct rlimit){limit, limit});
            int r = dataset_build(&job, &e);
            exit(r == -1 && strstr(e.primary, "cannot write ") &&
                         strstr(e.primary, "File too large")
                     ? 7
                     : 8);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 7);
        assert_false(path_exists(job.path));
        assert_false(path_exists(in_folder("full.h5.new")));
    }
}

/* ---- n-grams --------------------------------------------------------------------------------- */

static void test_ngram(void **state) {
    (void)state;
    struct err e = {0};
    struct ngram n;
    struct dataset *train = dataset_of("g.txt", "aab\nab\n", 7, &lines),
                   *valid = dataset_of("v.txt", "ab\n", 3, &lines);
    assert_int_equal(dataset_ngram(train, valid, &n, &e), 0);
    /* Targets of train: a a->a, a->b, b->eos; a->b, b->eos. Of valid: a->b, b->eos. */
    double b = 3.0 / (5 + 258), eos = 3.0 / (5 + 258);
    assert_int_equal(n.targets, 2);
    assert_true(fabs(n.unigram + (log(b) + log(eos)) / 2) < 1e-12);
    assert_true(fabs(n.lambda - 0.9) < 1e-12);
    assert_true(fabs(n.bigram + (log(0.9 * 2 / 3 + 0.1 * b) + log(0.9 + 0.1 * eos)) / 2) < 1e-12);
    dataset_close(train), dataset_close(valid);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_hdf5_reads_it),
        cmocka_unit_test(test_spans),
        cmocka_unit_test(test_tokenizer),
        cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_build_refusals),
        cmocka_unit_test(test_open_refusals),
        cmocka_unit_test(test_altered),
        cmocka_unit_test(test_ids_above_vocabulary),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_kills),
        cmocka_unit_test(test_disk_full),
        cmocka_unit_test(test_ngram),
    };
    return cmocka_run_group_tests_name("dataset", tests, folder_make, folder_remove);
}
