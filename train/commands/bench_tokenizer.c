/* bench_tokenizer.c: `hone bench tokenizer --tokenizer T --text FILE`: how fast T encodes the file,
 * on one thread and on all, cut at line ends into documents of about 4 KiB; beside it what peers
 * were measured at (--peers, JSON lines {"bench": "tokenizers", "engine", "name", "threads",
 * "mb_s_best"}, of which those count whose name is part of T's path). */
#include <jansson.h>
#include <string.h>
#include <time.h>
#include "train/commands/commands.h"

enum { DOCUMENT = 4096, ROUNDS = 5 };

struct documents {
    const struct tokenizer *t;
    const char *text;
    i64 *end, count;
    struct {
        struct ids ids;
        struct err e;
        i64 tokens;
    } worker[64];
};

static void encode_range(void *arg, i64 begin, i64 end, int worker) {
    struct documents *d = arg;
    struct ids *ids = &d->worker[worker].ids;
    for (i64 i = begin; i < end; i++) {
        const i64 from = i ? d->end[i - 1] : 0;
        ids->count = 0;
        if (tokenizer_encode(d->t, d->text + from, d->end[i] - from, false, ids,
                             &d->worker[worker].e))
            return;
        d->worker[worker].tokens += ids->count;
    }
}

static int cut(struct documents *d, const struct text *text, struct err *e) {
    if (!(d->end = mem_new_array(text->size / DOCUMENT + 2, sizeof *d->end, e))) return -1;
    for (i64 at = 0; at < text->size; d->end[d->count++] = at) {
        const i64 low = i64_min(at + DOCUMENT, text->size);
        const char *line = memchr(text->data + low, '\n', (size_t)(text->size - low));
        at = line ? line + 1 - text->data : text->size;
    }
    return 0;
}

static double cpu_seconds(void) { /* of all threads */
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* best: MB/s; MB per second of processor time. */
static int measure(struct documents *d, i64 bytes, int threads, double best[2], i64 *tokens,
                   struct err *e) {
    best[0] = best[1] = 0;
    for (int round = 0; round < ROUNDS; round++) {
        *tokens = 0;
        const double start[2] = {clock_seconds(), cpu_seconds()};
        if (threads == 1)
            encode_range(d, 0, d->count, 0);
        else
            pool_run(d->count, encode_range, d);
        const double end[2] = {clock_seconds(), cpu_seconds()};
        for (int k = 0; k < 2; k++) {
            const double rate = (double)bytes / (end[k] - start[k]) * 1e-6;
            best[k] = rate > best[k] ? rate : best[k];
        }
        for (int w = 0; w < COUNT(d->worker); w++) {
            if (d->worker[w].e.code) return *e = d->worker[w].e, -1;
            *tokens += d->worker[w].tokens;
            d->worker[w].tokens = 0;
        }
    }
    return 0;
}

static void print_row(const char *engine, const char *name, i64 threads, const double rate[2],
                      i64 tokens) {
    const i64 size = (i64)strlen(name);
    if (globals.json)
        json_print(json_pack("{s:s, s:o, s:o, s:I, s:o, s:o, s:I}", "bench", "tokenizers", "engine",
                             json_name(engine), "name", json_name(name), "threads",
                             (json_int_t)threads, "mb_s_best", json_finite(rate[0]), "mb_per_cpu_s",
                             json_finite(rate[1]), "tokens", (json_int_t)tokens),
                   &(struct err){0});
    else {
        char cpu[32] = "-"; /* of others it is not known */
        if (rate[1] > 0) snprintf(cpu, sizeof cpu, "%.1f", rate[1]);
        printf("%-14s %-32s %2lld threads %8.1f MB/s %8s MB per CPU second %12lld tokens\n", engine,
               name + i64_max(0, size - 32), (long long)threads, rate[0], cpu, (long long)tokens);
    }
}

static int print_peers(const char *path, const char *tokenizer, struct err *e) {
    struct text file = {0};
    if (file_read(&file, path, e)) return -1;
    int rc = 0;
    for (const char *at = file.data, *end; !rc && *at; at = end + (*end == '\n')) {
        end = at + strcspn(at, "\n");
        json_t *j = json_parse(at, end - at, path, e);
        const char *bench = json_text(j, "bench", "", path, e),
                   *name = json_text(j, "name", "", path, e);
        if (!j || e->code)
            rc = -1;
        else if (!strcmp(bench, "tokenizers") && *name && strstr(tokenizer, name))
            print_row(json_text(j, "engine", "?", path, e), name,
                      json_i64(j, "threads", 1, path, e),
                      (const double[]){json_f64(j, "mb_s_best", 0, path, e),
                                       json_f64(j, "mb_per_cpu_s", 0, path, e)},
                      json_i64(j, "tokens", 0, path, e));
        json_decref(j);
    }
    text_free(&file);
    return rc;
}

int bench_tokenizer(const char *tokenizer, const char *path, const char *peers, struct err *e) {
    struct documents *d = mem_new(sizeof *d, e);
    struct text text = {0};
    struct tokenizer *t = NULL;
    if (!d || !tokenizer || !path) {
        mem_free(d);
        err_input(e, "bench tokenizer needs --tokenizer and --text");
        return err_hint(e, "hone bench tokenizer --tokenizer MODEL --text CORPUS.txt");
    }
    int rc =
        file_read(&text, path, e) || !(t = tokenizer_of_file(tokenizer, e)) || cut(d, &text, e);
    d->t = t, d->text = text.data;
    const int all = (int)i64_min(pool_threads(), COUNT(d->worker));
    for (int threads = 1; !rc && threads <= all;
         threads = threads == 1 && all > 1 ? all : all + 1) {
        double best[2];
        i64 tokens;
        rc = measure(d, text.size, threads, best, &tokens, e);
        if (!rc) print_row("hone", tokenizer, threads, best, tokens);
    }
    if (!rc && peers) rc = print_peers(peers, tokenizer, e);
    for (int w = 0; w < COUNT(d->worker); w++) ids_free(&d->worker[w].ids);
    mem_free(d->end), mem_free(d), text_free(&text), tokenizer_free(t);
    return rc ? -1 : 0;
}
