/* log.c: log.jsonl, what happened at each step, so written that it cannot be rewritten unseen.
 *
 * One JSON object a line. The first is the header
 *   {"hone_log": 2, "digests": 2, "metrics": [NAME], "run": ID, "lock": SHA-256 of recipe.lock}
 * ("digests": how `batch` and `state` are defined; "metrics": what its objective reports besides,
 * if anything. {"hone_log": 1, "run", "lock"}, of 4bb1f6d and before, means 1: such a log goes on
 * so) and each later one describes an optimizer step:
 *   step, tokens                     steps done, tokens trained
 *   loss, lr, grad_norm, eval_loss   nine decimal digits, to read; aux_loss where there is one
 *   loss_hex, lr_hex, ...            the same as C's %a, all bits
 *   NAME, NAME_hex                   the same of each metric
 *   batch, state                     SHA-256 of the step's token ids, of the state after it
 *   seconds, tokens_per_second, peak_bytes
 *   prev                             SHA-256 of the line before, without its newline
 *
 * A number that is not finite is null with its name in _hex. Where a resume comes with a new lock,
 * a line {"resume": STEP, "lock": SHA-256, "prev"} says so. `prev` shows a line that was changed,
 * removed or inserted. Whoever writes all later lines again is not seen by it: the checkpoints'
 * `state` and a replay speak for what the lines say (`hone verify`).
 *
 * A line is one write; log_sync puts it on the disk before a checkpoint names its step. Resuming at
 * step S keeps the lines up to S in a file that replaces the old one at once; what a crash left
 * behind them, whole or torn, goes. Resuming at step 0 begins the log anew. log.csv and
 * tensorboard/ are derived: a resume builds them again from the kept lines. Rejected: one long file
 * where a resume appends a second history (TensorBoard's way), because a reader must then know
 * which line is true. */
#include "train/log/log.h"

#include <fcntl.h>
#include <jansson.h>
#include <math.h> /* isfinite, NAN */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { METRIC_NAME = 48 }; /* its longest */

struct log {
    int fd, csv_fd;
    char *path, *csv_path;
    char head[65];
    i64 bytes, metrics;
    char *metric[LOG_METRICS];
    struct tb *tb;
    double time; /* since 1970, when `seconds` was 0 */
};

/* ---- a line ---------------------------------------------------------------------------------- */
static int add_number(struct text *t, const char *name, double x, struct err *e) {
    if (isfinite(x)) return text_printf(t, e, ",\"%s\":%.9g,\"%s_hex\":\"%a\"", name, x, name, x);
    return text_printf(t, e, ",\"%s\":null,\"%s_hex\":\"%s\"", name, name,
                       x != x  ? "nan"
                       : x < 0 ? "-inf"
                               : "inf");
}

static int line_of_row(const struct log *log, struct text *t, const struct log_row *r,
                       struct err *e) {
    int rc = text_printf(t, e, "{\"step\":%lld,\"tokens\":%lld", (long long)r->step,
                         (long long)r->tokens);
    if (r->trained)
        rc = rc || add_number(t, "loss", r->loss, e) || add_number(t, "lr", r->lr, e) ||
             add_number(t, "grad_norm", r->grad_norm, e);
    if (r->balanced) rc = rc || add_number(t, "aux_loss", r->aux_loss, e);
    for (i64 i = 0; r->trained && i < log->metrics; i++)
        rc = rc || add_number(t, log->metric[i], r->metric[i], e);
    if (r->evaluated) rc = rc || add_number(t, "eval_loss", r->eval_loss, e);
    if (r->batch) rc = rc || text_printf(t, e, ",\"batch\":\"%s\"", r->batch);
    if (r->state) rc = rc || text_printf(t, e, ",\"state\":\"%s\"", r->state);
    return rc || text_printf(t, e,
                             ",\"seconds\":%.3f,\"tokens_per_second\":%.1f,\"peak_bytes\":%lld,"
                             "\"prev\":\"%s\"}\n",
                             r->seconds, r->tokens_per_second, (long long)r->peak_bytes, log->head);
}

static double number(const json_t *j, const char *name, const char *where, struct err *e) {
    char hex[64];
    snprintf(hex, sizeof hex, "%s_hex", name);
    const char *text = json_text(j, hex, NULL, where, e);
    char *end = NULL;
    double x = text ? strtod(text, &end) : NAN;
    if (!text || !*text || *end)
        err_input(e, "%s: \"%s\" is '%s', not a number as C's %%a writes it", where, hex,
                  text ? text : "");
    return x;
}

static const char *digest(struct log_rows *rows, const json_t *j, const char *key,
                          const char *where, struct err *e) {
    const char *text = json_text(j, key, NULL, where, e);
    if (!text) return NULL;
    if (strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64)
        return arena_text(&rows->arena, text, e);
    return err_input(e, "%s: \"%s\" is '%.80s', not a SHA-256 in hex", where, key, text), NULL;
}

static int read_row(struct log_rows *rows, struct log_row *r, const json_t *j, const char *where,
                    struct err *e) {
    r->step = json_i64(j, "step", -1, where, e);
    r->tokens = json_i64(j, "tokens", 0, where, e);
    if ((r->trained = json_object_get(j, "loss_hex") != NULL)) {
        r->loss = number(j, "loss", where, e), r->lr = number(j, "lr", where, e);
        r->grad_norm = number(j, "grad_norm", where, e);
    }
    if ((r->evaluated = json_object_get(j, "eval_loss_hex") != NULL))
        r->eval_loss = number(j, "eval_loss", where, e);
    if ((r->balanced = json_object_get(j, "aux_loss_hex") != NULL))
        r->aux_loss = number(j, "aux_loss", where, e);
    for (i64 i = 0; r->trained && i < rows->metrics; i++)
        r->metric[i] = number(j, rows->metric[i], where, e);
    r->batch = digest(rows, j, "batch", where, e), r->state = digest(rows, j, "state", where, e);
    r->seconds = json_f64(j, "seconds", 0, where, e);
    r->tokens_per_second = json_f64(j, "tokens_per_second", 0, where, e);
    r->peak_bytes = json_i64(j, "peak_bytes", 0, where, e);
    i64 before = rows->count ? rows->row[rows->count - 1].step : -1;
    if (!e->code && r->step <= before)
        err_input(e, "%s: step %lld after step %lld", where, (long long)r->step, (long long)before);
    return e->code ? -1 : 0;
}

static int push_row(struct log_rows *rows, const struct log_row *r, struct err *e) {
    i64 n = rows->count, size = (i64)sizeof *r;
    if (!(n & (n - 1))) { /* at 0, 1, 2, 4, ...: make room for twice as many */
        void *room = mem_grow(rows->row, n * size, (n ? 2 * n : 1) * size, e);
        if (!room) return -1;
        rows->row = room;
    }
    rows->row[rows->count++] = *r;
    return 0;
}

/* ---- reading --------------------------------------------------------------------------------- */
struct scan {
    bool chain;   /* follow prev */
    i64 to_step;  /* stop behind this step; -1: read everything */
    bool stopped; /* lines behind it were left unread */
    struct text kept;
};

static int read_header(struct log_rows *rows, const json_t *j, const char *where, struct err *e) {
    const i64 format = json_i64(j, "hone_log", 0, where, e);
    if (format != 1 && format != 2)
        return err_input(e, "%s: not the header of a hone log, \"hone_log\": 1 or 2", where);
    rows->digest_version = format == 1 ? 1 : json_i64(j, "digests", 0, where, e);
    if (rows->digest_version < 1 || rows->digest_version > DIGEST_VERSION)
        return err_input(e, "%s: \"digests\" is %lld; expected 1 to %d", where,
                         (long long)rows->digest_version, DIGEST_VERSION);
    const json_t *metrics = json_object_get(j, "metrics");
    for (size_t i = 0; i < json_array_size(metrics) && !e->code; i++) {
        const char *name = json_string_value(json_array_get(metrics, i));
        if (!name || i >= LOG_METRICS || strlen(name) > METRIC_NAME)
            return err_input(e, "%s: \"metrics\" is not a list of at most %d names", where,
                             LOG_METRICS);
        rows->metric[rows->metrics++] = arena_text(&rows->arena, name, e);
    }
    rows->run_id = arena_text(&rows->arena, json_text(j, "run", "", where, e), e);
    return e->code ? -1 : 0;
}

static int read_line(struct log_rows *rows, struct scan *s, const char *line, i64 size,
                     i64 number_1, const char *path, struct err *e) {
    char where[4200];
    snprintf(where, sizeof where, "%s:%lld", path, (long long)number_1);
    json_t *j = json_parse(line, size, where, e);
    if (!j) return -1;
    struct log_row row = {0};
    int rc = 0;
    const char *prev = json_text(j, "prev", "", where, e);
    bool header = number_1 == 1, resume = json_object_get(j, "resume") != NULL;
    if (header)
        rc = read_header(rows, j, where, e);
    else if (s->chain && strcmp(prev, rows->head))
        rc = err_failed(e, "%s: the hash chain breaks: line %lld was changed, removed or inserted",
                        where, (long long)number_1 - 1),
        err_detail(e, "\"prev\" is %.64s, the line before has %s", prev, rows->head);
    if (!rc && (header || resume))
        rows->lock_sha256 = digest(rows, j, "lock", where, e);
    else if (!rc)
        rc = read_row(rows, &row, j, where, e);
    i64 step = resume ? json_i64(j, "resume", 0, where, e) : row.step;
    rc = rc || e->code ? -1 : 0;
    if (!rc && s->to_step >= 0 && !header && (step > s->to_step || (resume && step == s->to_step)))
        s->stopped = true;
    else if (!rc && !header && !resume)
        rc = push_row(rows, &row, e);
    json_decref(j);
    return rc ? rc : s->stopped ? 0 : sha256_bytes(line, size, rows->head, e);
}

static int scan_file(struct log_rows *rows, const char *path, struct scan *s, struct err *e) {
    struct map map;
    *rows = (struct log_rows){0};
    if (map_open(&map, path, e)) return -1;
    const char *at = (const char *)map.data, *end = at + map.size;
    int rc = 0;
    for (i64 n = 1; !rc && at < end; n++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        bool reached = s->to_step >= 0 && rows->run_id &&
                       (rows->count ? rows->row[rows->count - 1].step : 0) >= s->to_step;
        struct err ignored = {0}; /* behind the step that counts, anything may lie */
        if (!newline ||
            (rc = read_line(rows, s, at, newline - at, n, path, reached ? &ignored : e))) {
            if (reached) rc = 0, s->stopped = true;
            break;
        }
        if (s->stopped) break;
        at = newline + 1;
    }
    rows->bytes = at - (const char *)map.data;
    if (!rc && s->to_step >= 0) rc = text_add(&s->kept, map.data, rows->bytes, e);
    if (!rc && !rows->run_id) rc = err_input(e, "%s: empty, or its first line is not whole", path);
    map_close(&map);
    if (rc) log_rows_free(rows);
    return rc;
}

int log_read(struct log_rows *rows, const char *path, struct err *e) {
    struct scan s = {.to_step = -1};
    return scan_file(rows, path, &s, e);
}

int log_verify(const char *path, struct err *e) {
    struct log_rows rows;
    struct scan s = {.chain = true, .to_step = -1};
    if (scan_file(&rows, path, &s, e)) return -1;
    i64 torn = path_size(path) - rows.bytes;
    if (torn) err_failed(e, "%s: the last line is not whole (%lld bytes)", path, (long long)torn);
    log_rows_free(&rows);
    return torn ? -1 : 0;
}

int log_check(const char *run_dir, i64 step, struct err *e) {
    struct log_rows rows = {0};
    struct scan s = {.chain = true, .to_step = step};
    char *path = path_join(NULL, run_dir, "log.jsonl", e);
    const int rc = path ? scan_file(&rows, path, &s, e) : -1;
    log_rows_free(&rows), text_free(&s.kept), mem_free(path);
    return rc;
}

void log_rows_free(struct log_rows *rows) {
    mem_free(rows->row);
    arena_free(&rows->arena);
    *rows = (struct log_rows){0};
}

/* ---- derived files --------------------------------------------------------------------------- */
static int csv_number(struct text *t, bool given, double x, struct err *e) {
    return given ? text_printf(t, e, ",%.9g", x) : text_add(t, ",", 1, e);
}

static int csv_row(struct log *log, const struct log_row *r, struct err *e) {
    struct text t = {0};
    int rc = text_printf(&t, e, "%lld,%lld", (long long)r->step, (long long)r->tokens) ||
             csv_number(&t, r->trained, r->loss, e) || csv_number(&t, r->trained, r->lr, e) ||
             csv_number(&t, r->trained, r->grad_norm, e) ||
             csv_number(&t, r->evaluated, r->eval_loss, e) ||
             csv_number(&t, r->balanced, r->aux_loss, e);
    for (i64 i = 0; i < log->metrics; i++) rc = rc || csv_number(&t, r->trained, r->metric[i], e);
    rc = rc ||
         text_printf(&t, e, ",%.3f,%.1f,%lld\n", r->seconds, r->tokens_per_second,
                     (long long)r->peak_bytes) ||
         file_write_all(log->csv_fd, t.data, t.size, log->csv_path, e);
    text_free(&t);
    return rc ? -1 : 0;
}

static int tb_row(struct log *log, const struct log_row *r, struct err *e) {
    struct tb_scalar s[7 + LOG_METRICS];
    char tag[LOG_METRICS][64];
    i64 n = 0;
    if (r->trained) {
        s[n++] = (struct tb_scalar){"train/loss", r->loss};
        s[n++] = (struct tb_scalar){"train/learning_rate", r->lr};
        s[n++] = (struct tb_scalar){"train/grad_norm", r->grad_norm};
        s[n++] = (struct tb_scalar){"speed/tokens_per_second", r->tokens_per_second};
    }
    if (r->balanced) s[n++] = (struct tb_scalar){"train/aux_loss", r->aux_loss};
    for (i64 i = 0; r->trained && i < log->metrics; i++) {
        snprintf(tag[i], sizeof tag[i], "train/%s", log->metric[i]);
        s[n++] = (struct tb_scalar){tag[i], r->metric[i]};
    }
    if (r->evaluated) s[n++] = (struct tb_scalar){"eval/loss", r->eval_loss};
    s[n++] = (struct tb_scalar){"memory/peak_mib", (double)r->peak_bytes / 1048576};
    return tb_scalars(log->tb, log->time + r->seconds, r->step, s, n, e);
}

static int derive(struct log *log, const struct log_row *r, struct err *e) {
    return (log->csv_fd >= 0 && csv_row(log, r, e)) || (log->tb && tb_row(log, r, e)) ? -1 : 0;
}

static int csv_head(struct log *log, struct err *e) {
    struct text t = {0};
    int rc = text_printf(&t, e, "step,tokens,loss,lr,grad_norm,eval_loss,aux_loss");
    for (i64 i = 0; i < log->metrics; i++) rc = rc || text_printf(&t, e, ",%s", log->metric[i]);
    rc = rc || text_printf(&t, e, ",seconds,tokens_per_second,peak_bytes\n") ||
         file_write_all(log->csv_fd, t.data, t.size, log->csv_path, e);
    text_free(&t);
    return rc ? -1 : 0;
}

static int open_derived(struct log *log, const struct log_start *s, const struct log_rows *rows,
                        struct err *e) {
    if (s->csv) {
        if (!(log->csv_path = path_join(NULL, s->run_dir, "log.csv", e))) return -1;
        log->csv_fd = file_own(log->csv_path, O_WRONLY | O_CREAT | O_TRUNC, e);
        if (log->csv_fd < 0) return -1;
        if (csv_head(log, e)) return -1;
    }
    if (s->tensorboard) {
        char *dir = path_join(NULL, s->run_dir, "tensorboard", e);
        bool ok = dir && !dir_remove(dir, e) && (log->tb = tb_open(dir, s->time, e));
        mem_free(dir);
        if (!ok) return -1;
    }
    for (i64 i = 0; i < rows->count; i++)
        if (derive(log, &rows->row[i], e)) return -1;
    return 0;
}

/* ---- writing --------------------------------------------------------------------------------- */
/* Appends a whole line or, if that fails, nothing. */
static int append(struct log *log, const struct text *line, struct err *e) {
    char head[65];
    if (sha256_bytes(line->data, line->size - 1, head, e)) return -1;
    if (file_write_all(log->fd, line->data, line->size, log->path, e)) {
        if (ftruncate(log->fd, log->bytes))
            err_frame(e, "%s also keeps a part of the line", log->path);
        return -1;
    }
    memcpy(log->head, head, sizeof head);
    log->bytes += line->size;
    return 0;
}

static int begin_new(struct log *log, const struct log_start *s, struct err *e) {
    struct text t = {0};
    const i64 digests = s->digest_version ? s->digest_version : DIGEST_VERSION;
    int rc = digests == 1
                 ? text_printf(&t, e, "{\"hone_log\":1")
                 : text_printf(&t, e, "{\"hone_log\":2,\"digests\":%lld", (long long)digests);
    for (i64 i = 0; i < log->metrics; i++)
        rc = rc || text_printf(&t, e, "%s\"%s\"%s", i ? "," : ",\"metrics\":[", log->metric[i],
                               i + 1 < log->metrics ? "" : "]");
    rc = rc || text_printf(&t, e, ",\"run\":") ||
         json_text_add(&t, s->run_id, (i64)strlen(s->run_id), e) ||
         text_printf(&t, e, ",\"lock\":\"%s\"}\n", s->lock_sha256) ||
         file_replace(log->path, t.data, t.size, e) ||
         sha256_bytes(t.data, t.size - 1, log->head, e);
    log->bytes = t.size;
    text_free(&t);
    return rc ? -1 : 0;
}

/* Cuts the file behind step S; `rows` are what stays. */
static int cut_back(struct log *log, const struct log_start *s, struct log_rows *rows,
                    struct err *e) {
    struct scan scan = {.chain = true, .to_step = s->resume_step};
    int rc = scan_file(rows, log->path, &scan, e);
    i64 last = rows->count ? rows->row[rows->count - 1].step : 0;
    if (!rc && last != s->resume_step)
        rc = err_input(e, "%s ends at step %lld, the checkpoint is of step %lld", log->path,
                       (long long)last, (long long)s->resume_step),
        err_hint(e, "resume from an earlier checkpoint, or start a new run from this one");
    bool same = rows->metrics == log->metrics;
    for (i64 i = 0; !rc && same && i < log->metrics; i++)
        same = !strcmp(rows->metric[i], log->metric[i]);
    if (!rc && !same)
        rc = err_input(e, "%s has other metrics than the task reports", log->path),
        err_hint(e, "go on with the program that began the run, or start a new one");
    if (!rc && s->digest_version && s->digest_version != rows->digest_version)
        rc = err_input(e, "%s has digests of version %lld, the checkpoint of version %lld",
                       log->path, (long long)rows->digest_version, (long long)s->digest_version),
        err_hint(e, "resume from a checkpoint of the run that wrote the log");
    if (!rc && rows->bytes < path_size(log->path))
        rc = file_replace(log->path, scan.kept.data, scan.kept.size, e);
    if (!rc) memcpy(log->head, rows->head, sizeof log->head), log->bytes = rows->bytes;
    text_free(&scan.kept);
    return rc;
}

static int note_new_lock(struct log *log, const struct log_start *s, const struct log_rows *rows,
                         struct err *e) {
    if (!rows->lock_sha256 || !strcmp(rows->lock_sha256, s->lock_sha256)) return 0;
    struct text t = {0};
    int rc = text_printf(&t, e, "{\"resume\":%lld,\"lock\":\"%s\",\"prev\":\"%s\"}\n",
                         (long long)s->resume_step, s->lock_sha256, log->head) ||
             append(log, &t, e);
    text_free(&t);
    return rc ? -1 : 0;
}

static int start(struct log *log, const struct log_start *s, struct log_rows *rows, struct err *e) {
    bool empty = !path_exists(log->path) || !path_size(log->path);
    if (s->resume_step < 0 && !empty)
        return err_input(e, "%s already exists: a run lives here", log->path),
               err_hint(
                   e,
                   "resume_from_checkpoint=auto goes on with it; another output_dir starts afresh");
    bool fresh = s->resume_step <= 0;
    if (dir_make(s->run_dir, e) || (fresh ? begin_new(log, s, e) : cut_back(log, s, rows, e)))
        return -1;
    if ((log->fd = file_own(log->path, O_WRONLY | O_APPEND, e)) < 0) return -1;
    log->time = s->time - (rows->count ? rows->row[rows->count - 1].seconds : 0);
    return note_new_lock(log, s, rows, e) || open_derived(log, s, rows, e) ? -1 : 0;
}

/* A line may have each name once. */
static int metric_add(struct log *log, const char *name, struct err *e) {
    static const char taken[] = " step tokens loss lr grad_norm eval_loss aux_loss batch state "
                                "seconds tokens_per_second peak_bytes prev resume lock ";
    char word[METRIC_NAME + 3];
    const size_t size = strlen(name);
    if (log->metrics == LOG_METRICS)
        return err_failed(e, "a log has at most %d metrics", LOG_METRICS);
    bool fits = size && size <= METRIC_NAME &&
                strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == size &&
                !ends_with(name, "_hex");
    if (fits) snprintf(word, sizeof word, " %s ", name), fits = !strstr(taken, word);
    for (i64 i = 0; fits && i < log->metrics; i++) fits = strcmp(log->metric[i], name) != 0;
    if (!fits) return err_failed(e, "'%s' cannot be the name of a metric", name);
    return (log->metric[log->metrics] = mem_text(name, e)) ? log->metrics++, 0 : -1;
}

struct log *log_open(const struct log_start *s, struct err *e) {
    struct log_rows rows = {0};
    struct log *log = mem_new(sizeof *log, e);
    if (!log) return NULL;
    log->fd = log->csv_fd = -1;
    int rc = !(log->path = path_join(NULL, s->run_dir, "log.jsonl", e));
    for (const char *const *name = s->metrics; !rc && name && *name; name++)
        rc = metric_add(log, *name, e);
    rc = rc || start(log, s, &rows, e);
    log_rows_free(&rows);
    return rc ? log_close(log, e), NULL : log;
}

int log_step(struct log *log, const struct log_row *row, struct err *e) {
    struct text t = {0};
    int rc = line_of_row(log, &t, row, e) || append(log, &t, e) || derive(log, row, e);
    text_free(&t);
    return rc ? -1 : 0;
}

int log_sync(struct log *log, struct err *e) { return file_sync(log->fd, log->path, e); }

int log_close(struct log *log, struct err *e) {
    if (!log) return 0;
    int rc = log->fd >= 0 && (file_sync(log->fd, log->path, e) |
                              (close(log->fd) ? err_system(e, "close", log->path) : 0));
    if (log->csv_fd >= 0 && close(log->csv_fd)) rc = err_system(e, "close", log->csv_path);
    if (tb_close(log->tb, e)) rc = -1;
    for (i64 i = 0; i < log->metrics; i++) mem_free(log->metric[i]);
    mem_free(log->path), mem_free(log->csv_path), mem_free(log);
    return rc ? -1 : 0;
}
