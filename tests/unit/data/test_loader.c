/* test_loader.c: every batch is what the definition says, whatever the split, the order of asking
 * and the threads. */
#include "tests/unit/data/loader_fixture.h"

/* ---- the definition, literally --------------------------------------------------------------- */

static void i32_equal(const i32 *found, const i32 *want, i64 n) {
    assert_memory_equal(found, want, (size_t)n * 4);
}

static void test_packed(void **state) {
    (void)state;
    struct dataset *d = dataset_of("p.txt", "ab\ncde\nf\n", 9, &lines); /* a b . c d e . f . */
    struct loader_config c = {.datasets = &d,
                              .datasets_count = 1,
                              .packing = true,
                              .max_seq_length = 4,
                              .global_batch_size = 2,
                              .micro_batch_size = 2};
    struct loader *l = loader_must(&c);
    const struct step_batches *s = step_must(l, 0);
    const struct batch *b = s->batch;
    enum { E = BYTE_EOS };
    assert_int_equal(loader_samples(l), 2);
    assert_int_equal(s->count, 1);
    assert_int_equal(b->tokens, 64); /* 4 + 28 of padding, twice */
    assert_int_equal(b->trained, 8);
    i32_equal(b->ids, (i32[]){'a', 'b', E, 'c', 0, 0}, 6);
    i32_equal(b->targets, (i32[]){'b', E, 'c', 'd', -100, -100}, 6);
    i32_equal(b->position, (i32[]){0, 1, 2, 3, 0, 1}, 6);
    i32_equal(b->begin, (i32[]){0, 0, 0, 0, 4, 4}, 6);
    i32_equal(b->position + 6, (i32[]){2, 3, 0, 1, 2, 3},
              6); /* padding: below max_seq_length too */
    i32_equal(b->last, (i32[]){0, 1, 2, 3, 4, 5}, 6);
    i32_equal(b->ids + 32, (i32[]){'d', 'e', E, 'f', 0, 0}, 6);
    i32_equal(b->targets + 32, (i32[]){'e', E, 'f', E, -100, -100}, 6);
    i32_equal(b->begin + 32, (i32[]){32, 32, 32, 32, 36, 36}, 6);
    loader_close(l);
    c.document_mask = true;
    s = step_must(l = loader_must(&c), 0), b = s->batch;
    i32_equal(b->targets, (i32[]){'b', E, -100, 'd', -100}, 5);
    i32_equal(b->position, (i32[]){0, 1, 2, 0, 0}, 5);
    i32_equal(b->begin, (i32[]){0, 0, 0, 3, 4}, 5);
    i32_equal(b->targets + 32, (i32[]){'e', E, -100, E, -100}, 5);
    i32_equal(b->position + 32, (i32[]){0, 1, 2, 0, 0}, 5);
    i32_equal(b->begin + 32, (i32[]){32, 32, 32, 35, 36}, 5);
    assert_int_equal(s->trained, 6);
    loader_close(l), dataset_close(d);
}

static void test_documents(void **state) {
    (void)state;
    static const char rows[] =
        "{\"prompt\": \"ab\", \"completion\": \"c\"}\n{\"text\": \"wxyz\"}\n{\"text\": \"q\"}";
    const struct source_options options = {.completion_only_loss = true};
    struct dataset *d = dataset_of("rows.jsonl", rows, sizeof rows - 1, &options);
    struct loader_config c = {.datasets = &d,
                              .datasets_count = 1,
                              .max_seq_length = 4,
                              .global_batch_size = 3,
                              .micro_batch_size = 2};
    struct loader *l = loader_must(&c);
    const struct step_batches *s = step_must(l, 0);
    enum { E = BYTE_EOS };
    assert_int_equal(s->count, 2);
    assert_int_equal(s->trained, 2 + 3 + 1);
    const struct batch *b = s->batch;
    assert_int_equal(b->samples, 2);
    i32_equal(b->ids, (i32[]){'a', 'b', 'c', E, 0}, 5);
    i32_equal(b->targets, (i32[]){-100, 'c', E, -100, -100}, 5);
    i32_equal(b->ids + 32, (i32[]){'w', 'x', 'y', 'z', 0}, 5); /* its eos is cut off */
    i32_equal(b->targets + 32, (i32[]){'x', 'y', 'z', -100, -100}, 5);
    b++;
    assert_int_equal(b->samples, 1);
    assert_int_equal(b->tokens, 32);
    i32_equal(b->ids, (i32[]){'q', E, 0}, 3);
    i32_equal(b->begin, (i32[]){0, 0, 2}, 3);
    for (i64 i = 0; i < b->tokens; i++) /* padding is 30 tokens here, and the model may have 4 */
        assert_in_range(b->position[i], 0, c.max_seq_length - 1);
    loader_close(l), dataset_close(d);
}

/* Two documents a sample: they stay together, in order, whichever the split. */
static void test_pairs(void **state) {
    (void)state;
    static const char text[] = "a\nbb\nccc\ndddd\neeeee\nffffff\ng\n";
    struct err e = {0};
    struct dataset *d = dataset_of("pairs.txt", text, sizeof text - 1, &lines);
    struct loader_config c = {.datasets = &d,
                              .datasets_count = 1,
                              .rows = 2,
                              .shuffle = true,
                              .max_seq_length = 4,
                              .global_batch_size = 3,
                              .micro_batch_size = 3};
    struct loader *l = loader_must(&c);
    assert_int_equal(loader_samples(l), 3); /* the seventh has no partner */
    const struct step_batches *s = step_must(l, 0);
    assert_int_equal(s->rows, 6);
    i64 seen = 0;
    for (i64 i = 0; i < s->rows; i++) {
        const struct sample_row *row = &s->row[i];
        const i64 first = s->ids[row->at], length = i64_min(first - 'a' + 2, 4);
        assert_int_equal(row->sample, i / 2);
        assert_int_equal(row->at, 32 * i);
        assert_int_equal(row->tokens, length);
        assert_int_equal(row->trained, length - 1);
        assert_int_equal((first - 'a') % 2, i % 2);
        if (i % 2) assert_int_equal(first, s->ids[row[-1].at] + 1);
        seen |= 1 << (first - 'a');
    }
    assert_int_equal(seen, 63);
    char sample[3][65], all[65];
    for (int i = 0; i < 3; i++)
        assert_int_equal(sample_digest(s->ids, s->targets, s->row + 2 * i, 2, sample[i], &e), 0);
    assert_int_equal(batch_digest((const char(*)[65])sample, 3, all, &e), 0);
    assert_string_equal(s->digest, all);
    c.micro_batch_size = 1;
    struct loader *split = loader_must(&c);
    const struct step_batches *w = step_must(split, 0);
    assert_string_equal(w->digest, s->digest);
    assert_int_equal(w->count, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(w->batch[i].samples, 1);
        assert_int_equal(w->batch[i].tokens, 64);
        i32_equal(w->batch[i].ids, s->ids + 64 * i, 64);
        i32_equal(w->batch[i].begin + 32, (i32[]){32, 32}, 2); /* they do not see each other */
    }
    loader_close(l), loader_close(split);
    c.packing = true;
    assert_null(loader_open(&c, &e));
    assert_non_null(strstr(e.primary, "samples of 2 documents"));
    dataset_close(d);
}

/* ---- what must not change anything ----------------------------------------------------------- */

static void test_splits_and_seeks(void **state) {
    (void)state;
    struct dataset *d = alphabet("a.txt", 300, 'a');
    for (int mode = 0; mode < 3; mode++) {
        struct loader_config c = {.datasets = &d,
                                  .datasets_count = 1,
                                  .packing = mode > 0,
                                  .document_mask = mode > 1,
                                  .shuffle = true,
                                  .max_seq_length = 40,
                                  .global_batch_size = 12,
                                  .micro_batch_size = 12,
                                  .seed = 3};
        struct loader *whole = loader_must(&c);
        for (i64 micro = 1; micro <= 13; micro += 3) {
            c.micro_batch_size = micro;
            struct loader *l = loader_must(&c);
            const i64 steps[] = {0, 1, 2, 7, 3, 4, 40, 41, 0, 0};
            for (i64 i = 0; i < COUNT(steps); i++) {
                const struct step_batches *s = step_must(l, steps[i]),
                                          *w = step_must(whole, steps[i]);
                i64 at = 0;
                assert_string_equal(s->digest, w->digest);
                assert_int_equal(s->trained, w->trained);
                assert_int_equal(s->samples, 12);
                for (i64 k = 0; k < s->count; at += s->batch[k++].tokens) {
                    const struct batch *b = &s->batch[k];
                    i32_equal(b->ids, w->batch->ids + at, b->tokens);
                    i32_equal(b->targets, w->batch->targets + at, b->tokens);
                    i32_equal(b->position, w->batch->position + at, b->tokens);
                    for (i64 t = 0; t < b->tokens; t++) {
                        assert_int_equal(b->begin[t], w->batch->begin[at + t] - at);
                        assert_int_equal(b->last[t], t);
                        assert_int_equal(b->begin[t] + b->position[t], t);
                        assert_in_range(b->position[t], 0, c.max_seq_length - 1);
                    }
                }
                assert_int_equal(at, s->tokens);
            }
            loader_close(l);
        }
        loader_close(whole);
    }
    dataset_close(d);
}

/* A step's digest is that of the digests of its samples, whoever computed them. */
static void test_digest_of_pieces(void **state) {
    (void)state;
    enum { BATCH = 12 };
    struct err e = {0};
    struct dataset *d = alphabet("pieces.txt", 300, 'a');
    struct loader_config c = {.datasets = &d,
                              .datasets_count = 1,
                              .shuffle = true,
                              .max_seq_length = 40,
                              .global_batch_size = BATCH,
                              .micro_batch_size = 5,
                              .seed = 3};
    struct loader *whole = loader_must(&c);
    for (i64 ranks = 1; ranks <= BATCH; ranks++) {
        char sample[BATCH][65], all[65];
        if (BATCH % ranks) continue;
        c.global_batch_size = BATCH / ranks, c.micro_batch_size = 1;
        struct loader *l = loader_must(&c);
        for (i64 i = 0; i < BATCH; i++) { /* step 3 of the whole */
            const struct step_batches *s = step_must(l, (3 * BATCH + i) / c.global_batch_size);
            const struct batch *b = &s->batch[i % c.global_batch_size];
            i64 n = 0;
            while (n < b->tokens && b->real[n]) n++;
            const struct sample_row row = {.tokens = n};
            assert_int_equal(sample_digest(b->ids, b->targets, &row, 1, sample[i], &e), 0);
        }
        assert_int_equal(batch_digest((const char(*)[65])sample, BATCH, all, &e), 0);
        assert_string_equal(all, step_must(whole, 3)->digest);
        memcpy(sample[2], sample[7], 65); /* another sample */
        assert_int_equal(batch_digest((const char(*)[65])sample, BATCH, all, &e), 0);
        assert_string_not_equal(all, step_must(whole, 3)->digest);
        loader_close(l);
    }
    loader_close(whole), dataset_close(d);
}

/* Literally, as README.md says it. */
static void test_digest_as_defined(void **state) {
    (void)state;
    static const u8 bytes[] = {2, 0, 0, 0, 7, 0, 0, 0, 1, 2, 0, 0, 0x9c, 0xff, 0xff, 0xff, 8};
    struct err e = {0};
    u8 all[sizeof bytes + 3] = {0};
    char want[65], got[65], text[160];
    memcpy(all, bytes, sizeof bytes);
    assert_int_equal(sha256_bytes(all, sizeof all, want, &e), 0);
    assert_int_equal(sample_digest((i32[]){7, 513}, (i32[]){-100, 8},
                                   &(struct sample_row){.tokens = 2}, 1, got, &e),
                     0);
    assert_string_equal(got, want);
    const int size = snprintf(text, sizeof text, "hone batch 2\n%s\n%s\n", got, got);
    char two[2][65];
    memcpy(two[0], got, 65), memcpy(two[1], got, 65);
    assert_int_equal(sha256_bytes(text, size, want, &e), 0);
    assert_int_equal(batch_digest((const char(*)[65])two, 2, got, &e), 0);
    assert_string_equal(got, want);
}

/* The digest is part of a run's log: it must not change, in neither version. */
static void test_known_digest(void **state) {
    (void)state;
    struct dataset *d = alphabet("k.txt", 300, 'a');
    struct loader_config c = {.datasets = &d,
                              .datasets_count = 1,
                              .packing = true,
                              .document_mask = true,
                              .shuffle = true,
                              .max_seq_length = 64,
                              .global_batch_size = 8,
                              .micro_batch_size = 3,
                              .seed = 42,
                              .digest_version = 1};
    struct loader *l = loader_must(&c);
    assert_string_equal(step_must(l, 5)->digest,
                        "121c923c2f52a41966c51c25be2a140c545f785e8bb1d12973146c790c9939b3");
    loader_close(l);
    c.digest_version = 0;
    assert_string_equal(step_must(l = loader_must(&c), 5)->digest,
                        "4228b6963b9272e73e30010ec7203b3cb06070318e5c4382f3010ed3ed93101f");
    loader_close(l), dataset_close(d);
}

/* ---- epochs and mixes ------------------------------------------------------------------------ */

static void test_epochs(void **state) {
    (void)state;
    struct dataset *two[] = {alphabet("e1.txt", 37, 'a'), alphabet("e2.txt", 23, 'A')};
    struct loader_config c = {.datasets = two,
                              .datasets_count = 2,
                              .shuffle = true,
                              .max_seq_length = 64,
                              .global_batch_size = 6,
                              .micro_batch_size = 6};
    struct loader *l = loader_must(&c);
    i64 capital = 0;
    char first[65] = "";
    assert_int_equal(loader_samples(l), 60);
    assert_int_equal(loader_steps(l), 10);
    for (i64 epoch = 0, total = 0; epoch < 4; epoch++, total = capital, capital = 0) {
        for (i64 step = 0; step < 10; step++) {
            const struct step_batches *s = step_must(l, 10 * epoch + step);
            for (i64 t = 0; t < s->tokens; t++)
                capital += s->batch->ids[t] >= 'A' && s->batch->ids[t] <= 'Z';
            if (!step && epoch) assert_string_not_equal(s->digest, first);
            if (!step && !epoch) strcpy(first, s->digest);
        }
        if (epoch) assert_int_equal(capital, total); /* each document once, in another order */
    }
    loader_close(l), dataset_close(two[0]), dataset_close(two[1]);
}

static void test_mix(void **state) {
    (void)state;
    struct dataset *three[] = {alphabet("m1.txt", 50, 'a'), alphabet("m2.txt", 50, 'A'),
                               alphabet("m3.txt", 50, '0')};
    const double weights[] = {5, 3, 2};
    struct loader_config c = {.datasets = three,
                              .weights = weights,
                              .datasets_count = 3,
                              .packing = true,
                              .shuffle = true,
                              .max_seq_length = 16,
                              .global_batch_size = 1,
                              .micro_batch_size = 1};
    struct loader *l = loader_must(&c);
    double count[3] = {0};
    for (i64 step = 0; step < 2000; step++) {
        const struct step_batches *s = step_must(l, step);
        int which = 1; /* letters of m1 are above 'Z', digits and more of m3 reach 'I' */
        for (i64 t = 0; t < 16; t++) {
            i32 id = s->batch->ids[t];
            if (id >= 'b' && id <= 'z') which = 0;
            if (id >= '0' && id < 'A') which = 2;
        }
        count[which]++;
        for (int i = 0; i < 3; i++) {
            double off = count[i] - weights[i] / 10 * (double)(step + 1);
            assert_true(off < 1.01 && off > -1.01);
        }
    }
    loader_close(l);
    for (int i = 0; i < 3; i++) dataset_close(three[i]);
}

static void test_one_pass(void **state) {
    (void)state;
    struct dataset *d = alphabet("o.txt", 100, 'a');
    const struct dataset_info *f = dataset_info(d);
    struct err e = {0};
    u32 *ids = mem_new_array(f->tokens, 4, &e);
    assert_int_equal(dataset_read(d, 0, f->tokens, ids, &e), 0);
    for (i64 length = 1; length < 200; length = 2 * length + 1) {
        struct loader_config c = {.datasets = &d,
                                  .datasets_count = 1,
                                  .packing = true,
                                  .one_pass = true,
                                  .shuffle = true,
                                  .max_seq_length = length,
                                  .global_batch_size = 4,
                                  .micro_batch_size = 3};
        struct loader *l = loader_must(&c);
        const struct step_batches *s;
        i64 at = 0;
        for (i64 step = 0; step < loader_steps(l); step++) {
            s = step_must(l, step);
            for (i64 k = 0; k < s->count; k++)
                for (i64 t = 0; t < s->batch[k].tokens; t++)
                    if (s->batch[k].targets[t] >= 0) {
                        assert_int_equal(s->batch[k].ids[t], ids[at]);
                        assert_int_equal(s->batch[k].targets[t], ids[++at]);
                    }
        }
        assert_int_equal(at, f->tokens - 1);
        assert_int_equal(loader_step(l, loader_steps(l), &s, &e), -1);
        assert_non_null(strstr(e.primary, "was asked for; the last is"));
        e = (struct err){0};
        loader_close(l);
    }
    mem_free(ids), dataset_close(d);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void refused(const struct loader_config *c, const char *primary) {
    struct err e = {0};
    assert_null(loader_open(c, &e));
    if (!strstr(e.primary, primary)) fail_msg("'%s' is not in '%s'", primary, e.primary);
}

static void test_refusals(void **state) {
    (void)state;
    struct err e = {0};
    struct dataset *two[] = {alphabet("r.txt", 3, 'a'), NULL};
    const struct loader_config good = {.datasets = two,
                                       .datasets_count = 1,
                                       .packing = true,
                                       .max_seq_length = 8,
                                       .global_batch_size = 2,
                                       .micro_batch_size = 1};
    struct loader_config c = good;
    c.max_seq_length = 4096, refused(&c, "tokens, too few for one sample");
    c = good, c.datasets_count = 0, refused(&c, "0 datasets; at least one is needed");
    c = good, c.micro_batch_size = 0, refused(&c, "must be at least 1");
    c = good, c.max_seq_length = 1 << 30, c.micro_batch_size = c.global_batch_size = 2,
    refused(&c, "is over the limit of 2147483647 tokens");
    c = good, c.weights = (double[]){0}, refused(&c, "weights are above 0");
    const char *source = in_folder("r.txt");
    struct dataset_job job = byte_job(&source, in_folder("other.h5"));
    job.encoder.sha256 = "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    assert_int_equal(dataset_build(&job, &e), 0);
    assert_non_null(two[1] = dataset_open(job.path, &e));
    c = good, c.datasets_count = 2, refused(&c, "was made with another tokenizer");
    dataset_close(two[1]), two[1] = two[0];
    c.weights = (double[]){1, 1e6}, refused(&c, "is less than one 65536th of all");
    dataset_close(two[0]);
}

/* A damaged chunk reaches the caller as an error of its step, from whichever thread met it. */
static void test_errors(void **state) {
    (void)state;
    struct err e = {0};
    struct dataset *d = alphabet("x.txt", 300, 'a');
    struct loader_config c = {.datasets = &d,
                              .datasets_count = 1,
                              .packing = true,
                              .max_seq_length = 16,
                              .global_batch_size = 2,
                              .micro_batch_size = 1};
    const struct step_batches *s;
    assert_int_equal(fault_arm("read:1"), 0);
    struct loader *l = loader_must(&c);
    assert_int_equal(loader_step(l, 0, &s, &e), -1);
    fault_arm(NULL);
    assert_non_null(strstr(e.primary, "Input/output error"));
    assert_string_equal(e.frame[0], "while reading the data of step 0");
    step_must(l, 0); /* tried again, it works */
    assert_int_equal(loader_step(l, -1, &s, &(struct err){0}), -1);
    loader_close(l);
    for (int n = 1; n < 40; n++) {
        char spec[32];
        snprintf(spec, sizeof spec, "alloc:%d", n);
        e = (struct err){0};
        assert_int_equal(fault_arm(spec), 0);
        l = loader_open(&c, &e);
        if (l && loader_step(l, 0, &s, &e)) assert_int_not_equal(e.code, 0);
        fault_arm(NULL);
        loader_close(l);
    }
    dataset_close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packed),
        cmocka_unit_test(test_documents),
        cmocka_unit_test(test_splits_and_seeks),
        cmocka_unit_test(test_known_digest),
        cmocka_unit_test(test_epochs),
        cmocka_unit_test(test_mix),
        cmocka_unit_test(test_one_pass),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_digest_of_pieces),
        cmocka_unit_test(test_digest_as_defined),
        cmocka_unit_test(test_pairs),
    };
    return cmocka_run_group_tests_name("loader", tests, folder_make, folder_remove);
}
