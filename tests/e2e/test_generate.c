/* test_generate.c: continuing texts: a repetition penalty as transformers applies it, texts of a
 * batch that are bit for bit what they are alone, ids and strings that end a text, a conversation
 * over pipes and at a terminal. That the cache changes nothing is test_bits.c's business. */
#include "tests/e2e/tiny_run.h"
#include <math.h> /* NAN, INFINITY */
#include <pty.h>

#define MODEL "tests/golden/models/llama"

static struct model model;
static u32 prompt[24];

static void ok(int rc, const struct err *e) {
    if (rc) fail_msg("%s", e->primary);
}

static int set_up(void **state) {
    struct err e = {0};
    struct safetensors s;
    if (tiny_folder(state)) return -1;
    ok(model_open(&model, MODEL, F32, false, &e), &e);
    ok(safetensors_open(&s, MODEL "/golden.safetensors", &e), &e);
    const struct stored *ids = safetensors_need(&s, "input_ids", &e);
    ok(!ids, &e);
    assert_int_equal(ids->dim[1], COUNT(prompt));
    for (i64 i = 0; i < COUNT(prompt); i++) prompt[i] = (u32)((const i64 *)ids->data)[i];
    safetensors_close(&s);
    return 0;
}
static int tear_down(void **state) {
    model_free(&model);
    return tiny_remove(state);
}

static struct ids alone(const u32 *ids, i64 count, i64 stream, const struct sampling *s) {
    struct err e = {0};
    struct sequence q = {.prompt = ids, .count = count, .stream = stream};
    ok(generate_batch(&model, &q, 1, s, &e), &e);
    return q.out;
}

/* transformers 5.23, greedy, of the fixture's first row. */
static void test_penalty(void **state) {
    (void)state;
    static const struct {
        double penalty;
        u32 ids[16];
    } of[] = {{1, {14, 125, 107, 17, 119, 100, 64, 114, 91, 107, 23, 84, 125, 107, 123, 81}},
              {1.3, {14, 125, 107, 17, 119, 100, 64, 114, 11, 54, 44, 93, 58, 122, 116, 8}},
              {2.5, {14, 125, 107, 17, 119, 100, 64, 114, 11, 54, 44, 10, 55, 68, 27, 35}}};
    for (int i = 0; i < COUNT(of); i++) {
        const struct sampling s = {.max_new_tokens = 16,
                                   .ignore_eos = true,
                                   .repetition_penalty = of[i].penalty,
                                   .top_p = 1};
        struct ids out = alone(prompt, COUNT(prompt), 0, &s);
        assert_int_equal(out.count, 16);
        assert_memory_equal(out.item, of[i].ids, sizeof of[i].ids);
        ids_free(&out);
    }
}

static void test_batch(void **state) {
    (void)state;
    static const i64 counts[] = {24, 1, 7, 13};
    for (int k = 0; k < 3; k++) {
        const struct sampling s = {.temperature = k ? 0.9 : 0,
                                   .top_p = k ? 0.95 : 1,
                                   .top_k = k == 2 ? 20 : 0,
                                   .repetition_penalty = k == 2 ? 1.2 : 1,
                                   .seed = 7,
                                   .max_new_tokens = 12,
                                   .ignore_eos = true};
        struct sequence list[COUNT(counts)] = {0};
        struct err e = {0};
        for (int i = 0; i < COUNT(counts); i++)
            list[i] = (struct sequence){.prompt = prompt + i, .count = counts[i], .stream = i};
        ok(generate_batch(&model, list, COUNT(counts), &s, &e), &e);
        for (int i = 0; i < COUNT(counts); i++) {
            struct ids one = alone(list[i].prompt, list[i].count, list[i].stream, &s);
            assert_int_equal(one.count, 12);
            assert_int_equal(list[i].out.count, 12);
            assert_memory_equal(one.item, list[i].out.item, 12 * sizeof *one.item);
            ids_free(&one), ids_free(&list[i].out);
        }
    }
}

/* A text ends before the id that ends it, the fourth here; the other of the batch does not notice.
 */
static void test_stop_ids(void **state) {
    (void)state;
    static const u32 want[] = {14, 125, 107};
    u32 end[] = {17};
    const struct ids stops = {.item = end, .count = 1};
    const struct sampling s = {.max_new_tokens = 8, .top_p = 1, .stops = &stops},
                          on = {.max_new_tokens = 8, .top_p = 1, .ignore_eos = true};
    struct sequence list[] = {{.prompt = prompt, .count = COUNT(prompt)},
                              {.prompt = prompt + 3, .count = 5, .stream = 1}};
    struct err e = {0};
    ok(generate_batch(&model, list, 2, &s, &e), &e);
    struct ids whole = alone(prompt + 3, 5, 1, &on);
    for (i64 i = 0; i < whole.count; i++)
        assert_true(whole.item[i] != 17 && !is_eos(&model.config, whole.item[i]));
    assert_int_equal(list[1].out.count, whole.count);
    assert_memory_equal(list[1].out.item, whole.item, (size_t)whole.count * sizeof *whole.item);
    assert_int_equal(list[0].out.count, 3);
    assert_memory_equal(list[0].out.item, want, 3 * sizeof *want);
    ids_free(&whole), ids_free(&list[0].out), ids_free(&list[1].out);
}

/* Rows without a next token: id -1. -inf alone is a token that cannot come. */
static void test_not_finite(void **state) {
    (void)state;
    enum { ROWS = 5, VOCAB = 9 };
    static const i32 want[ROWS] = {-1, -1, -1, 4, -1};
    for (int kind = 0; kind < 4; kind++) { /* greedy or drawn; f32 or bf16 */
        float f[ROWS][VOCAB] = {{0}};
        u16 half[ROWS][VOCAB];
        i32 step[ROWS][2] = {{0}}, id[ROWS];
        u8 scratch[4096];
        struct sample_how how[ROWS];
        f[0][0] = NAN, f[1][8] = INFINITY;
        for (int i = 0; i < ROWS; i++)
            how[i] = (struct sample_how){.temperature = kind & 1, .top_p = 1, .seed = 3};
        for (int v = 0; v < VOCAB; v++) f[2][v] = f[3][v] = -INFINITY;
        f[3][4] = -2, f[4][7] = -NAN;
        for (int i = 0; i < ROWS * VOCAB; i++)
            half[i / VOCAB][i % VOCAB] = bf16_of_f32(f[i / VOCAB][i % VOCAB]);
        void *data = kind & 2 ? (void *)half : (void *)f;
        struct op_call c = {.op = &op_sample, .scratch = scratch};
        struct err e = {0};
        c.in[0] = (struct view){
            .data = data, .dtype = kind & 2 ? BF16 : F32, .rank = 2, .dim = {ROWS, VOCAB}};
        c.in[1] = (struct view){.data = step, .dtype = I32, .rank = 2, .dim = {ROWS, 2}};
        c.in[2] = (struct view){.data = how, .dtype = U8, .rank = 2, .dim = {ROWS, sizeof how[0]}};
        c.out[0] = (struct view){.data = id, .dtype = I32, .rank = 1, .dim = {ROWS}};
        ok(op_run(&c, &e), &e);
        assert_memory_equal(id, want, sizeof want);
    }
}

#define STORIES "recipes/data/stories260K"
static void test_stop_strings(void **state) {
    (void)state;
    hone(0, "generate " STORIES " --prompt 'Once upon a time' --greedy --max-new-tokens 40");
    char whole[4096], end[16];
    snprintf(whole, sizeof whole, "%s", said());
    const char *at_word = strstr(whole, "was"); /* cut within a word: across tokens */
    assert_non_null(at_word);
    snprintf(end, sizeof end, "%.5s", at_word + 1);
    hone(0,
         "generate " STORIES
         " --prompt 'Once upon a time' --greedy --max-new-tokens 40 --stop '%s'",
         end);
    const size_t n = (size_t)(at_word + 1 - whole);
    assert_memory_equal(said(), whole, n);
    assert_true(strlen(said()) <= n + 1); /* and a line end */
}

/* A vocabulary padded to a round number: most of what a new model samples is no token. */
static void test_padded(void **state) {
    (void)state;
    hone(0, "tokenize %s --tokenizer tests/golden/run/tokenizer.json --output %s", TINY_CORPUS,
         at("padded.h5"));
    hone(0,
         "train tests/golden/run/run.yaml model.vocab_size=4000 dataset.0.path=%s "
         "eval_dataset.0.path=%s eval_steps=1 sample_prompts=the max_steps=2 output_dir=%s --quiet",
         at("padded.h5"), at("padded.h5"), at("padded"));
    const char *model_path = at("padded/checkpoints/step-000002");
    hone(0, "generate %s --prompt the --max-new-tokens 40 --ignore-eos", model_path);
    expect(said(), "the");
    put(at("prompts.jsonl"), "{\"prompt\": \"the\"}\n", 18);
    hone(0, "generate %s --prompts %s --max-new-tokens 40 --ignore-eos", model_path,
         at("prompts.jsonl"));
}

/* Samples of any length, also beyond max_seq_length and the model's positions, change no bit of the
 * training around them (its graphs keep the RoPE tables that they were traced with), and ending at
 * the last position is no error. */
static void test_samples_beside_training(void **state) {
    (void)state;
    static const char *const positions[] = {"llama", "gpt2", "bloom"};
    hone(0, "tokenize %s --tokenizer tests/golden/run/tokenizer.json --output %s", TINY_CORPUS,
         at("beside.h5"));
    for (int i = 0; i < COUNT(positions); i++) {
        char want[65] = "";
        for (int tokens = 0; tokens <= 90; tokens += 45) {
            const char *run = at("beside-%s-%d", positions[i], tokens);
            hone(0,
                 "train tests/golden/run/run.yaml model.model_type=%s dataset.0.path=%s "
                 "eval_dataset.0.path=%s eval_batches=1 eval_steps=1 max_steps=4 save_steps=4 "
                 "save_at= max_seq_length=32 model.max_position_embeddings=64 %s "
                 "sample_tokens=%d --threads 1 output_dir=%s",
                 positions[i], at("beside.h5"), at("beside.h5"),
                 tokens ? "sample_prompts=the,a" : "", tokens ? tokens : 1, run);
            assert_true((tokens == 90) == !!strstr(complained(), "texts ended at the model's 64"));
            const char *state_now =
                manifest_of(at("beside-%s-%d/checkpoints/step-000004", positions[i], tokens))
                    .state_sha256;
            if (tokens)
                assert_string_equal(want, state_now);
            else
                strcpy(want, state_now);
        }
    }
    hone(0, "generate %s --prompt the --ignore-eos --max-new-tokens 90",
         at("beside-gpt2-90/checkpoints/step-000004"));
    expect(complained(), "note: 1 text ended at the model's 64 positions\n");
    hone(0, "generate %s --prompt the --ignore-eos --max-new-tokens 30",
         at("beside-gpt2-90/checkpoints/step-000004"));
    assert_null(strstr(complained(), "positions"));
}

/* A model is computed in the type that its files have. */
static void test_precision(void **state) {
    (void)state;
    static const char how[] =
        "--json --prompt Once --max-new-tokens 60 --ignore-eos --temperature 1";
    static const char *const named[] = {"fp32", "bf16"};
    char model_of[2][600], first[4096];
    hone(0, "export recipes/data/stories260K --precision bf16 --output %s --quiet", at("half"));
    snprintf(model_of[0], sizeof *model_of, "recipes/data/stories260K");
    snprintf(model_of[1], sizeof *model_of, "%s", at("half"));
    for (int i = 0; i < 2; i++) {
        hone(0, "generate %s %s", model_of[i], how);
        strcpy(first, said());
        hone(0, "generate %s %s --precision %s", model_of[i], how, named[i]);
        assert_string_equal(said(), first);
        hone(0, "generate %s %s --precision %s", model_of[i], how, named[!i]);
        assert_string_not_equal(said(), first);
    }
}

/* Products with whole numbers: the same texts on all instruction sets, by any number of threads, in
 * any batch; said; refused where there are no blocks of such. */
static void test_int8(void **state) {
    (void)state;
    static const char model_of[] = "generate recipes/data/stories260K --prompts",
                      how[] = "--json --max-new-tokens 24 --ignore-eos --seed 5 --quantize q8_0";
    static const char *const ways[] = {"",
                                       "--threads 1 --batch-size 1",
                                       "--isa plain",
                                       "--isa avx2 --batch-size 2",
                                       "--draft 3",
                                       "--draft 15"};
    char first[8192];
    static const char prompts[] =
        "{\"prompt\": \"Once\"}\n{\"prompt\": \"A dog saw a cat and\"}\n{\"prompt\": "
        "\"The\"}\n{\"prompt\": \"Lily went\"}\n{\"prompt\": \"He\"}\n";
    put(at("p.jsonl"), prompts, sizeof prompts - 1);
    hone(0, "%s %s %s", model_of, at("p.jsonl"), how);
    strcpy(first, said());
    for (int i = 0; i < COUNT(ways); i++) {
        hone(0, "%s %s %s --activations int8 %s", model_of, at("p.jsonl"), how, ways[i]);
        expect(complained(), "by int8, activations as whole numbers");
        if (i)
            assert_string_equal(said(), first);
        else
            assert_string_not_equal(said(), first); /* of decoded values */
        strcpy(first, said());
    }
    hone(2, "generate recipes/data/stories260K --prompt a --activations int8");
    expect(complained(),
           "no weight of recipes/data/stories260K is held in blocks of whole numbers");
}

static void test_chat(void **state) {
    (void)state;
    const char *talk =
        "printf 'Hello\\nAnd then?\\n/reset\\nHello\\n/exit\\n' | ./hone chat " STORIES
        " --chat-template chatml --greedy --max-new-tokens 8";
    assert_int_equal(0, shell("%s", talk));
    char first[4096];
    snprintf(first, sizeof first, "%s", said());
    assert_true(strlen(first) > 10);
    assert_int_equal(0, shell("%s --threads 1", talk));
    assert_string_equal(first, said());
    assert_int_equal(2, shell("printf 'Hello\\n' | ./hone chat %s", at("nothing")));
}

/* Turns compute what is new: of the second, what follows the first's prompt and the answer, of
 * which the last id is computed too; /reset and the first turn again: the last id of the prompt. */
static void test_chat_cost(void **state) {
    (void)state;
    assert_int_equal(
        0, shell("printf 'Hello\\n/cost\\nAnd then?\\n/cost\\n/reset\\nHello\\n/cost\\n' | "
                 "./hone chat " STORIES
                 " --chat-template chatml --greedy --ignore-eos --max-new-tokens 8"));
    long long computed[3], reused[3];
    const char *all = complained(), *line = all;
    for (int i = 0; i < 3; i++) {
        line = strstr(line, " tokens computed");
        assert_non_null(line);
        const char *from = line;
        while (from > all && from[-1] != '\n') from--;
        assert_int_equal(
            2, sscanf(from, "%lld tokens computed, %lld taken", &computed[i], &reused[i]));
        line++;
    }
    assert_int_equal(0, reused[0]);
    const long long asked = computed[0] - 7, second = computed[1] - computed[0] - 7;
    assert_true(asked > 8 && second > 0);
    assert_true(reused[1] >= asked); /* and of the answer what is written again as it was */
    assert_int_equal(asked - 1, reused[2] - reused[1]);
    assert_int_equal(8, computed[2] - computed[1]);
}

/* Reads from a terminal until `part` comes, or, with NULL, anything. */
static void terminal_wait(int fd, const char *part) {
    char got[1 << 16];
    size_t n = 0;
    while (n + 1 < sizeof got) {
        const ssize_t more = read(fd, got + n, sizeof got - 1 - n);
        if (more <= 0) break;
        got[n += (size_t)more] = 0;
        if (!part || strstr(got, part)) return;
    }
    fail_msg("'%s' did not come in: %s", part, got);
}

/* ^C ends an answer that would not end by itself, and the conversation goes on. */
static void test_chat_terminal(void **state) {
    (void)state;
    int fd;
    const pid_t pid = forkpty(&fd, NULL, NULL, NULL);
    if (!pid) {
        execl("./hone", "hone", "chat", STORIES, "--chat-template", "chatml", "--ignore-eos",
              "--max-new-tokens", "1000000", NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    terminal_wait(fd, "> ");
    for (int turn = 0; turn < 2; turn++) {
        assert_int_equal(6, write(fd, "Hello\n", 6));
        terminal_wait(fd, "Hello\r\n");
        terminal_wait(fd, NULL);
        assert_int_equal(1, write(fd, "\003", 1));
        terminal_wait(fd, "\n> ");
    }
    assert_int_equal(6, write(fd, "/exit\n", 6));
    assert_int_equal(0, shell_end(pid));
    close(fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_penalty),       cmocka_unit_test(test_batch),
        cmocka_unit_test(test_stop_ids),      cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_stop_strings),  cmocka_unit_test(test_padded),
        cmocka_unit_test(test_int8),          cmocka_unit_test(test_precision),
        cmocka_unit_test(test_chat),          cmocka_unit_test(test_chat_cost),
        cmocka_unit_test(test_chat_terminal), cmocka_unit_test(test_samples_beside_training)};
    struct err e = {0};
    isa_float_mode();
    if (pool_start(2, &e)) return 1;
    const int failed = cmocka_run_group_tests(tests, set_up, tear_down);
    pool_stop();
    return failed;
}
