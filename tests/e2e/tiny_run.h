/* tiny_run.h: what the end-to-end tests share: a folder that goes away, the program itself run as a
 * user runs it, a tiny corpus as datasets, a tiny recipe, and what a run left behind.
 *
 * The model is small and its sizes are odd to the kernels: heads of 12, 44 wide inside, 600 tokens
 * of vocabulary, documents of 1 to 64 tokens. */
#ifndef HONE_TINY_RUN_H
#define HONE_TINY_RUN_H

#include "train/commands/commands.h"
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
static char tiny[64];

static inline int tiny_folder(void **state) {
    (void)state;
    strcpy(tiny, "/tmp/hone-tiny-XXXXXX");
    return mkdtemp(tiny) ? 0 : -1;
}
static inline int tiny_remove(void **state) {
    (void)state;
    return dir_remove(tiny, &(struct err){0});
}

#define FORMAT(to, fmt)                                                                            \
    do {                                                                                           \
        va_list list;                                                                              \
        va_start(list, fmt);                                                                       \
        assert_in_range(vsnprintf(to, sizeof to, fmt, list), 0, sizeof to - 1);                    \
        va_end(list);                                                                              \
    } while (0)

/* A path in the folder; good for the next 15 calls. */
PRINTF(1, 2) static inline const char *at(const char *fmt, ...) {
    static char ring[16][512];
    static int turn;
    char name[384], *path = ring[turn++ % 16];
    FORMAT(name, fmt);
    snprintf(path, sizeof ring[0], "%s/%s", tiny, name);
    return path;
}

static inline void put(const char *path, const char *data, i64 size) {
    struct err e = {0};
    if (file_write(path, data, size, &e)) fail_msg("%s", e.primary);
}
/* A file's text; good for the next 3 calls. */
static inline const char *text_of(const char *path) {
    static struct text ring[4];
    static int turn;
    struct err e = {0};
    struct text *t = &ring[turn++ % 4];
    text_free(t), *t = (struct text){0};
    if (file_read(t, path, &e)) fail_msg("%s", e.primary);
    return t->data;
}
static inline const char *said(void) { return text_of(at("stdout")); }
static inline const char *complained(void) { return text_of(at("stderr")); }
static inline const char *sha_of(const char *path) {
    static char ring[4][65];
    static int turn;
    struct err e = {0};
    char *hex = ring[turn++ % 4];
    if (sha256_file(path, hex, &e)) fail_msg("%s", e.primary);
    return hex;
}

/* ---- the program: `line` is for the shell; output goes to FOLDER/stdout and FOLDER/stderr */
static inline pid_t shell_start(const char *line) {
    char command[4096];
    snprintf(command, sizeof command, "{ %s; } > %s/stdout 2> %s/stderr", line, tiny, tiny);
    pid_t pid;
    char *argv[] = {"sh", "-c", command, NULL};
    assert_int_equal(0, posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ));
    return pid;
}
/* The exit code, or -SIGNAL. */
static inline int shell_end(pid_t pid) {
    int status;
    while (waitpid(pid, &status, 0) < 0) assert_int_equal(EINTR, errno);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}
PRINTF(1, 2) static inline int shell(const char *fmt, ...) {
    char line[3072];
    FORMAT(line, fmt);
    return shell_end(shell_start(line));
}
/* `./hone ARGUMENTS` must end with this exit code. */
PRINTF(2, 3) static inline void hone(int wanted, const char *fmt, ...) {
    char line[3072];
    FORMAT(line, fmt);
    const int code = shell("exec ./hone %s", line);
    if (code != wanted)
        fail_msg("hone %s: exit %d, not %d\n%s%s", line, code, wanted, said(), complained());
}
static inline void expect(const char *text, const char *part) {
    if (!strstr(text, part)) fail_msg("expected '%s' in:\n%s", part, text);
}

/* ---- data: the corpus as packed.h5 (its speeches are the documents) and as sft.h5 (prompt: the
 * speaker, not trained; completion: the speech) */
#define TINY_TOKENIZER "tests/golden/tokenizers/gpt2.json"
#define TINY_CORPUS    "tests/golden/tokenizers/corpus.txt"
/* Instead of full.yaml's model: a mixture with the balancing loss; latent attention. */
#define MIXTURE                                                                                    \
    "model.model_type=mixtral model.num_local_experts=5 model.num_experts_per_tok=2 "              \
    "model.output_router_logits=true model.router_aux_loss_coef=0.1 "
#define LATENT                                                                                     \
    "model.model_type=deepseek_v3 model.q_lora_rank=28 model.kv_lora_rank=20 "                     \
    "model.qk_nope_head_dim=6 model.qk_rope_head_dim=4 model.v_head_dim=10 "                       \
    "model.n_routed_experts=6 model.num_experts_per_tok=3 model.moe_intermediate_size=20 "         \
    "model.first_k_dense_replace=1 model.n_group=2 model.topk_group=2 "

static inline void tiny_jsonl(i64 most) {
    struct text corpus = {0}, out = {0};
    struct err e = {0};
    assert_int_equal(0, file_read(&corpus, TINY_CORPUS, &e));
    char *p = corpus.data;
    for (i64 i = 0; i < most; i++) {
        char *line = strchr(p, '\n'), *end = line ? strstr(line, "\n\n") : NULL;
        if (!end) break;
        if (end <= line + 1) { /* a line by itself: no completion */
            p = end + 2;
            continue;
        }
        assert_false(
            text_printf(&out, &e, "{\"prompt\": ") || json_text_add(&out, p, line + 1 - p, &e) ||
            text_printf(&out, &e, ", \"completion\": ") ||
            json_text_add(&out, line + 1, end - line - 1, &e) || text_printf(&out, &e, "}\n"));
        p = end + 2;
    }
    put(at("sft.jsonl"), out.data, out.size);
    text_free(&corpus), text_free(&out);
}

static inline void tiny_data(void) {
    tiny_jsonl(120);
    hone(0, "tokenize %s --tokenizer %s --document-separator '\n\n' --output %s --quiet",
         TINY_CORPUS, TINY_TOKENIZER, at("packed.h5"));
    hone(0, "tokenize %s --tokenizer %s --completion-only-loss --output %s --quiet",
         at("sft.jsonl"), TINY_TOKENIZER, at("sft.h5"));
}

static inline void tiny_recipe(const char *path) {
    static const char recipe[] =
        "model: {model_type: olmo2, vocab_size: 600, hidden_size: 48, intermediate_size: 44,\n"
        "  num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2,\n"
        "  max_position_embeddings: 128, rms_norm_eps: 1.0e-6, rope_theta: 10000.0,\n"
        "  eos_token_id: 0, tie_word_embeddings: false}\n"
        "max_seq_length: 64\nglobal_batch_size: 8\nmicro_batch_size: 8\nmax_steps: 4\n"
        "learning_rate: 3.0e-3\nweight_decay: 0.1\nwarmup_steps: 2\n";
    put(path, recipe, (i64)strlen(recipe));
}

/* FOLDER/ids.safetensors: so many ids below 131, at most 24, for `hone forward`. */
static inline void tiny_ids(i64 count) {
    static i64 ids[24];
    struct err e = {0};
    for (int i = 0; i < 24; i++) ids[i] = (7 * i + 3) % 131;
    struct stored s = {.name = "input_ids",
                       .dtype = I64,
                       .rank = 2,
                       .dim = {1, count},
                       .data = (u8 *)ids,
                       .bytes = count * 8};
    if (safetensors_write(tiny, "ids", &s, 1, INT64_MAX, &e)) fail_msg("%s", e.primary);
}

/* ---- what a run left behind */
static inline struct manifest manifest_of(const char *checkpoint) {
    struct manifest m = {0};
    struct err e = {0};
    if (manifest_read(checkpoint, &m, &e)) fail_msg("%s", e.primary);
    return m;
}
/* The state of a checkpoint as version 1 of the digest sees it, which older versions of this
 * program recorded: the run's recipe is opened, the checkpoint loaded (which compares the digest
 * that its manifest has). */
static inline const char *state_1_of(const char *run, i64 step) {
    static char hex[65];
    struct err e = {0};
    struct recipe r;
    struct trainer t = {0};
    char lock[65], *checkpoint = checkpoint_path(run, step, &e);
    if (!checkpoint || lock_read(&r, run, lock, &e) ||
        trainer_open(&t, &r, &(struct trainer_opening){.run_dir = run, .digest_version = 1}, &e) ||
        trainer_load(&t, checkpoint, &e) || optimizer_digest(&t.optimizer, 1, hex, &e))
        fail_msg("%s: %s", run, e.primary);
    mem_free(checkpoint), trainer_close(&t), recipe_free(&r);
    return hex;
}
static inline struct log_rows log_of(const char *run) {
    struct log_rows rows = {0};
    struct err e = {0};
    char path[600];
    snprintf(path, sizeof path, "%s/log.jsonl", run);
    if (log_verify(path, &e) || log_read(&rows, path, &e)) fail_msg("%s", e.primary);
    return rows;
}
/* What the log says that does not depend on time or machine. */
static inline void logs_equal(const char *run, const char *other) {
    struct log_rows a = log_of(run), b = log_of(other);
    i64 i = 0, k = 0;
    for (; i < a.count && k < b.count; i++, k++) {
        const struct log_row *x = &a.row[i], *y = &b.row[k];
        if (x->step != y->step || x->tokens != y->tokens || x->trained != y->trained ||
            memcmp(&x->loss, &y->loss, 8) || memcmp(&x->lr, &y->lr, 8) ||
            memcmp(&x->grad_norm, &y->grad_norm, 8) || memcmp(&x->aux_loss, &y->aux_loss, 8) ||
            strcmp(x->batch ?: "", y->batch ?: "") ||
            (x->state && y->state && strcmp(x->state, y->state)))
            fail_msg("%s, %s: line %lld of the log: step %lld loss %a, step %lld loss %a", run,
                     other, (long long)i + 2, (long long)x->step, x->loss, (long long)y->step,
                     y->loss);
    }
    assert_int_equal(a.count - i, b.count - k);
    log_rows_free(&a), log_rows_free(&b);
}

#endif
