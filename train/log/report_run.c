/* report_run.c: what the report shows of one run, as one JSON object, gathered from the run folder.
 *
 * Needed: log.jsonl. Shown where present: run.json (facts the trainer knows: parameters,
 * trainable_parameters, planned_peak_bytes, unigram_nats, bigram_nats, tokens_total,
 * flops_per_token, peak_gflops), recipe.lock, samples.jsonl
 * ({"step", "prompt", "text"}), verify.jsonl (one check a line), and the manifests below
 * checkpoints/. A torn last line of a .jsonl is passed over. A long log is thinned to at most
 * POINTS_MAX means of equal numbers of steps, because a page of a million points helps nobody;
 * evaluations are all kept. */
#include "train/log/report_int.h"

#include <jansson.h>
#include <math.h> /* isfinite */
#include <string.h>

enum { POINTS_MAX = 2000 };

static int out_of_memory(struct err *e) {
    return err_memory(e, "out of memory while reading a run");
}

/* A JSON or text file of the run folder as a member of `run`; a missing file is no error. */
static int add_json(json_t *run, const char *key, const char *path, struct err *e) {
    if (!path_exists(path)) return 0;
    json_t *j = json_open(path, e);
    return !j ? -1 : json_object_set_new(run, key, j) ? out_of_memory(e) : 0;
}

static int add_text(json_t *run, const char *key, const char *path, struct err *e) {
    struct text t = {0};
    if (!path_exists(path)) return 0;
    if (file_read(&t, path, e)) return -1;
    int rc = json_object_set_new(run, key, json_stringn(t.data, (size_t)t.size));
    text_free(&t);
    return rc ? err_input(e, "%s: not UTF-8", path) : 0;
}

static int add_lines(json_t *run, const char *key, const char *path, struct err *e) {
    struct text t = {0};
    json_t *list = json_array();
    if (json_object_set_new(run, key, list)) return out_of_memory(e);
    if (!path_exists(path)) return 0;
    if (file_read(&t, path, e)) return -1;
    int rc = 0;
    char where[4200];
    i64 line = 1;
    for (char *p = t.data, *end; !rc && (end = strchr(p, '\n')); p = end + 1, line++) {
        if (end == p) continue;
        snprintf(where, sizeof where, "%s:%lld", path, (long long)line);
        json_t *j = json_parse(p, end - p, where, e);
        rc = !j ? -1 : json_array_append_new(list, j) ? out_of_memory(e) : 0;
    }
    text_free(&t);
    return rc;
}

/* ---- checkpoints ----------------------------------------------------------------------------- */
static i64 folder_bytes(const char *dir, struct err *e) {
    char **names;
    i64 count, bytes = 0;
    if (dir_list(dir, &names, &count, e)) return -1;
    for (i64 i = 0; i < count && bytes >= 0; i++) {
        char *file = path_join(NULL, dir, names[i], e);
        bytes = file ? bytes + (path_is_dir(file) ? 0 : i64_max(path_size(file), 0)) : -1;
        mem_free(file);
    }
    names_free(names, count);
    return bytes;
}

static int add_checkpoint(json_t *list, const char *run_dir, const char *name, struct err *e) {
    char sha256[65];
    long long step;
    if (sscanf(name, "step-%lld", &step) != 1) return 0;
    char *dir = mem_printf(e, "%s/checkpoints/%s", run_dir, name);
    char *manifest = dir ? path_join(NULL, dir, "manifest.json", e) : NULL;
    int rc = manifest ? 0 : -1;
    if (!rc && path_exists(manifest)) {
        i64 bytes = folder_bytes(dir, e);
        json_t *item = NULL;
        if (bytes < 0 || sha256_file(manifest, sha256, e))
            rc = -1;
        else if (!(item = json_pack("{s:s, s:I, s:I, s:s}", "name", name, "step", (json_int_t)step,
                                    "bytes", (json_int_t)bytes, "sha256", sha256)) ||
                 json_array_append_new(list, item))
            rc = out_of_memory(e);
    }
    mem_free(manifest), mem_free(dir);
    return rc;
}

static int add_checkpoints(json_t *run, const char *run_dir, struct err *e) {
    json_t *list = json_array();
    char **names;
    i64 count;
    if (json_object_set_new(run, "checkpoints", list)) return out_of_memory(e);
    char *dir = path_join(NULL, run_dir, "checkpoints", e);
    int rc = dir ? 0 : -1;
    if (!rc && path_is_dir(dir) && !(rc = dir_list(dir, &names, &count, e))) {
        for (i64 i = 0; i < count && !rc; i++) rc = add_checkpoint(list, run_dir, names[i], e);
        names_free(names, count);
    }
    mem_free(dir);
    return rc;
}

/* ---- the log --------------------------------------------------------------------------------- */
static json_t *number_or_null(double x) { return isfinite(x) ? json_real(x) : json_null(); }

enum { STEP, TOKENS, SECONDS, LOSS, LR, GRAD_NORM, SPEED, MEMORY, COLUMNS };
static const char *const column_name[COLUMNS] = {
    "step", "tokens", "seconds", "loss", "lr", "grad_norm", "tokens_per_second", "peak_bytes"};

/* One point: the place of the last row, the mean of the measured columns. */
static int add_point(json_t *column[COLUMNS], const struct log_row *last, const double sum[COLUMNS],
                     i64 n) {
    json_t *value[COLUMNS] = {json_integer(last->step), json_integer(last->tokens),
                              json_real(last->seconds)};
    for (int c = LOSS; c < MEMORY; c++) value[c] = number_or_null(sum[c] / (double)n);
    value[MEMORY] = json_integer(last->peak_bytes);
    int rc = 0;
    for (int c = 0; c < COLUMNS; c++) rc |= json_array_append_new(column[c], value[c]);
    return rc;
}

static int add_points(json_t *log, const struct log_rows *rows, struct err *e) {
    json_t *column[COLUMNS], *eval = json_array();
    i64 stride = (rows->count + POINTS_MAX - 1) / POINTS_MAX, n = 0;
    double sum[COLUMNS] = {0}, more[LOG_METRICS + 1] = {0};
    json_t *metric[LOG_METRICS + 1], *metrics = json_object();
    int rc = json_object_set_new(log, "metrics", metrics);
    const i64 own = rows->metrics, all = own + (rows->count && rows->row[rows->count - 1].balanced);
    for (i64 i = 0; i < all; i++)
        rc |= json_object_set_new(metrics, i < own ? rows->metric[i] : "aux_loss",
                                  metric[i] = json_array());
    rc |= json_object_set_new(log, "eval", eval) |
          json_object_set_new(log, "stride", json_integer(stride));
    for (int c = 0; c < COLUMNS; c++)
        rc |= json_object_set_new(log, column_name[c], column[c] = json_array());
    for (i64 i = 0; i < rows->count && !rc; i++) {
        const struct log_row *r = &rows->row[i];
        if (r->evaluated)
            rc = json_array_append_new(eval, json_pack("[I, I, f, o]", (json_int_t)r->step,
                                                       (json_int_t)r->tokens, r->seconds,
                                                       number_or_null(r->eval_loss)));
        if (!r->trained) continue;
        sum[LOSS] += r->loss, sum[LR] += r->lr, sum[GRAD_NORM] += r->grad_norm,
            sum[SPEED] += r->tokens_per_second;
        for (i64 k = 0; k < all; k++) more[k] += k < own ? r->metric[k] : r->aux_loss;
        if (++n < stride && i + 1 < rows->count) continue;
        rc |= add_point(column, r, sum, n);
        for (i64 k = 0; k < all; k++)
            rc |= json_array_append_new(metric[k], number_or_null(more[k] / (double)n));
        memset(sum, 0, sizeof sum), memset(more, 0, sizeof more), n = 0;
    }
    return rc ? out_of_memory(e) : 0;
}

static int add_log(json_t *run, const char *path, struct err *e) {
    struct log_rows rows;
    struct err broken = {0};
    json_t *log = json_object();
    if (json_object_set_new(run, "log", log)) return out_of_memory(e);
    if (log_read(&rows, path, e)) return -1;
    /* A log whose chain is broken is shown as such; one that cannot be read ("cannot open", "cannot
     * read" of err_system) is an error. */
    const bool unread = log_verify(path, &broken) && !strncmp(broken.primary, "cannot ", 7);
    if (unread) *e = broken;
    int rc = unread ? -1 : add_points(log, &rows, e);
    if (!rc && (json_object_set_new(log, "head", json_string(rows.head)) ||
                json_object_set_new(log, "rows", json_integer(rows.count)) ||
                json_object_set_new(log, "run", json_string(rows.run_id)) ||
                json_object_set_new(log, "broken",
                                    broken.code ? json_string(broken.primary) : json_null())))
        rc = out_of_memory(e);
    log_rows_free(&rows);
    return rc;
}

json_t *report_run(const char *run_dir, struct err *e) {
    static const struct {
        const char *file, *key;
        int (*add)(json_t *run, const char *key, const char *path, struct err *e);
    } parts[] = {{"run.json", "facts", add_json},
                 {"recipe.lock", "lock", add_json},
                 {"recipe.lock", "lock_text", add_text},
                 {"samples.jsonl", "samples", add_lines},
                 {"verify.jsonl", "checks", add_lines}};
    size_t size = strlen(run_dir);
    while (size > 1 && run_dir[size - 1] == '/') size--;
    json_t *run = json_pack("{s:s%}", "dir", run_dir, size);
    if (!run) return err_input(e, "%s: a path must be UTF-8", run_dir), NULL;
    char *log = path_join(NULL, run_dir, "log.jsonl", e);
    int rc = !log || add_log(run, log, e) || add_checkpoints(run, run_dir, e);
    for (i64 i = 0; i < COUNT(parts) && !rc; i++) {
        char *path = path_join(NULL, run_dir, parts[i].file, e);
        rc = path ? parts[i].add(run, parts[i].key, path, e) : -1;
        mem_free(path);
    }
    mem_free(log);
    return rc ? json_decref(run), NULL : run;
}
