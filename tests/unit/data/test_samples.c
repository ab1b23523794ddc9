/* test_samples.c: which documents are in which sample, against definitions that are slow and plain:
 * packing whole documents, documents that are too long, what has no token to train, epochs. */
#include "tests/unit/data/loader_fixture.h"

#include <stdlib.h>

enum { MOST = 64, DOCUMENTS = 300 };

/* Every sample of a pass in the order of the dataset: its ids, as letters, documents parted by '|'
 * where attention ends; not trained: upper case. */
static i64 samples_text(struct loader_config c, char (*out)[3 * MOST]) {
    c.one_pass = true, c.global_batch_size = 1, c.micro_batch_size = 1;
    struct loader *l = loader_must(&c);
    const i64 n = loader_samples(l);
    for (i64 s = 0; s < n; s++) {
        const struct step_batches *b = step_must(l, s);
        char *to = out[s];
        for (i64 i = 0; i < b->row[b->rows - 1].at + b->row[b->rows - 1].tokens; i++) {
            if (!b->batch->real[i]) continue;
            if (i && !b->batch->position[i]) *to++ = '|';
            *to++ = b->ids[i] == BYTE_EOS ? '.' : (char)b->ids[i];
            if (b->targets[i] < 0) *to++ = '\'';
        }
        *to = 0;
    }
    loader_close(l);
    return n;
}

static void samples_are(struct loader_config c, const char *const *want) {
    static char found[DOCUMENTS][3 * MOST];
    const i64 n = samples_text(c, found);
    for (i64 i = 0; i < n; i++) {
        if (!want[i]) fail_msg("one more: %s", found[i]);
        assert_string_equal(found[i], want[i]);
    }
    if (want[n]) fail_msg("%s is missing", want[n]);
}
#define ARE(c, ...) samples_are(c, (const char *const[]){__VA_ARGS__, NULL})

/* ' stands after a token without a target. */
static void too_long(void **state) {
    (void)state;
    static const char text[] = "abcdefghi\nkl\nmnopq\nr\n";
    struct dataset *d = dataset_of("long.txt", text, sizeof text - 1, &lines);
    struct loader_config c = {.datasets = &d, .datasets_count = 1, .max_seq_length = 4};
    ARE(c, "abcd'", "kl.'", "mnop'", "r.'");
    c.truncation = TRUNCATE_LEFT;
    ARE(c, "ghi.'", "kl.'", "opq.'", "r.'");
    c.truncation = TRUNCATE_DROP;
    ARE(c, "kl.'", "r.'");
    c.truncation = TRUNCATE_SPLIT;
    ARE(c, "abcd'", "efgh'", "i.'", "kl.'", "mnop'", "q.'", "r.'");
    c.truncation = TRUNCATE_ERROR, c.global_batch_size = c.micro_batch_size = 1;
    struct err e = {0};
    assert_null(loader_open(&c, &e));
    assert_non_null(strstr(e.primary, "document 1 has 10 tokens; a sample has at most 4"));
    c.max_seq_length = 2, c.truncation = TRUNCATE_DROP, e = (struct err){0};
    struct loader *l = loader_open(&c, &e);
    assert_int_equal(loader_facts(l, 0)->dropped, 3);
    assert_int_equal(loader_facts(l, 0)->tokens_cut, 10 + 3 + 6);
    loader_close(l);
    c.max_seq_length = 1, e = (struct err){0};
    assert_null(loader_open(&c, &e));
    assert_non_null(strstr(e.primary, "none of the 4 documents is left"));
    dataset_close(d);
}

static void nothing_to_train(void **state) {
    (void)state;
    static const char rows[] = "{\"prompt\": \"abcdef\", \"completion\": \"g\"}\n"
                               "{\"prompt\": \"h\", \"completion\": \"i\"}\n"
                               "{\"prompt\": \"k\", \"completion\": \"lm\"}\n";
    const struct source_options options = {.completion_only_loss = true};
    struct dataset *d = dataset_of("untrained.jsonl", rows, sizeof rows - 1, &options);
    struct loader_config c = {
        .datasets = &d, .datasets_count = 1, .max_seq_length = 4, .trained_only = true};
    ARE(c, "hi.'", "klm.'");
    struct loader_config one = c;
    one.global_batch_size = one.micro_batch_size = 1;
    struct loader *l = loader_must(&one);
    assert_int_equal(loader_facts(l, 0)->untrained, 1);
    loader_close(l);
    c.truncation = TRUNCATE_SPLIT; /* what is left of the first has its answer */
    ARE(c, "e'fg.'", "hi.'", "klm.'");
    c.truncation = TRUNCATE_RIGHT, c.packing = true; /* blocks: the first is all prompt */
    ARE(c, "e'fg.'", "hi.'k", "lm");
    c.last_block = true, c.document_mask = true;
    ARE(c, "e'fg.'", "hi.'|k", "lm");
    dataset_close(d);
}

/* Best-fit decreasing as its definition says, in time that grows with the square. */
static i64 packed_slowly(const i64 *size, i64 count, i64 most, i64 *bin) {
    static i64 room[DOCUMENTS];
    i64 bins = 0;
    for (i64 s = most; s > 0; s--)
        for (i64 i = 0; i < count; i++) {
            i64 best = -1;
            if (size[i] != s) continue;
            for (i64 b = 0; b < bins; b++)
                if (room[b] >= s && (best < 0 || room[b] < room[best])) best = b;
            if (best < 0) room[best = bins++] = most;
            room[best] -= s, bin[i] = best;
        }
    return bins;
}

/* The same number of samples, no more room in any than there must be, each document once, whole,
 * in order. Which of two samples with equal room takes a document the definition leaves open. */
static void packed_whole(void **state) {
    (void)state;
    const struct rng random = {3, RNG_TEST, 0, 0};
    for (int round = 0; round < 20; round++) {
        struct text t = {0};
        struct err e = {0};
        static i64 size[DOCUMENTS], bin[DOCUMENTS];
        static char found[DOCUMENTS][3 * MOST];
        const i64 count = 1 + round * 15, most = round % 2 ? MOST : MOST / 2 + round % 3;
        for (i64 i = 0; i < count; i++) {
            const u64 at = (u64)(round * DOCUMENTS + i);
            size[i] = 3 + (i64)(rng_uniform_f64(&random, at) * (double)(most - 2));
            for (i64 k = 0; k + 1 < size[i]; k++) /* the first two letters are its number */
                assert_int_equal(text_add(&t, &(char){(char)('a' + (k ? i % 26 : i / 26))}, 1, &e),
                                 0);
            assert_int_equal(text_add(&t, "\n", 1, &e), 0);
        }
        struct dataset *d = dataset_of("pack.txt", t.data, t.size, &lines);
        struct loader_config c = {.datasets = &d,
                                  .datasets_count = 1,
                                  .packing = true,
                                  .packing_strategy = PACKING_BFD,
                                  .document_mask = true,
                                  .trained_only = true,
                                  .max_seq_length = most};
        const i64 n = samples_text(c, found);
        assert_int_equal(n, packed_slowly(size, count, most, bin));
        i64 whole = 0, last = -1;
        static bool seen[DOCUMENTS];
        memset(seen, 0, sizeof seen);
        for (i64 s = 0; s < n; s++) {
            i64 before = -1, first = -1;
            char *rest = found[s];
            for (char *word; (word = strsep(&rest, "|"));) {
                const i64 i = (word[0] - 'a') * 26 + word[1] - 'a';
                i64 length = 0;
                for (const char *p = word; *p; p++) length += *p != '\'';
                assert_in_range(i, before + 1, count - 1);
                assert_false(seen[i]);
                assert_int_equal(length, size[i]);
                seen[i] = true, whole++, before = i;
                if (first < 0) first = i;
            }
            assert_true(first > last);
            last = first;
        }
        assert_int_equal(whole, count);
        dataset_close(d), text_free(&t);
    }
}

/* Each epoch has every sample once; its last step has the rest. */
static void epochs(void **state) {
    (void)state;
    struct dataset *d = alphabet("epochs.txt", 10, 'a');
    for (int drop = 0; drop < 2; drop++)
        for (i64 batch = 1; batch < 13; batch++) {
            struct loader_config c = {.datasets = &d,
                                      .datasets_count = 1,
                                      .shuffle = true,
                                      .epochs = true,
                                      .drop_last = drop,
                                      .max_seq_length = 41,
                                      .global_batch_size = batch,
                                      .micro_batch_size = 2,
                                      .seed = 5};
            struct err e = {0};
            if (drop && batch > 10) {
                assert_null(loader_open(&c, &e));
                continue;
            }
            struct loader *l = loader_must(&c);
            const i64 steps = loader_steps(l), samples = drop ? 10 / batch * batch : 10;
            assert_int_equal(steps, (samples + batch - 1) / batch);
            assert_int_equal(loader_last(l), samples - (steps - 1) * batch);
            for (i64 epoch = 0; epoch < 3; epoch++) {
                i64 lengths[42] = {0}, all = 0;
                for (i64 s = 0; s < steps; s++) {
                    const struct step_batches *b = step_must(l, epoch * steps + s);
                    assert_int_equal(b->samples, i64_min(batch, samples - s * batch));
                    for (i64 i = 0; i < b->rows; i++) lengths[b->row[i].tokens]++, all++;
                }
                assert_int_equal(all, samples);
                for (i64 i = 0; i < 10; i++)
                    assert_in_range(lengths[i * 7 % 40 + 2], drop ? 0 : 1, 1);
            }
            loader_close(l);
        }
    dataset_close(d);
}

/* No token of a stream is lost behind its last full block. */
static void last_block(void **state) {
    (void)state;
    struct dataset *d = dataset_of("last.txt", "abcdefg\n", 8, &lines);
    struct loader_config c = {.datasets = &d,
                              .datasets_count = 1,
                              .packing = true,
                              .last_block = true,
                              .epochs = true,
                              .max_seq_length = 3,
                              .global_batch_size = 2,
                              .micro_batch_size = 1};
    struct loader *l = loader_must(&c);
    i64 trained = 0;
    assert_int_equal(loader_samples(l), 3);
    for (i64 s = 0; s < 2; s++) trained += step_must(l, s)->trained;
    assert_int_equal(trained, 7);
    loader_close(l), dataset_close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(too_long), cmocka_unit_test(nothing_to_train),
        cmocka_unit_test(packed_whole), cmocka_unit_test(epochs), cmocka_unit_test(last_block)};
    return cmocka_run_group_tests_name("samples", tests, folder_make, folder_remove);
}
