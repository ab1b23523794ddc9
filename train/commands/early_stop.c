/* early_stop.c: which evaluation was the best, and whether the run is to end before its last step.
 *
 * As transformers has it: an evaluation is the best if its loss is less than every one before; one
 * that is not less than the best by early_stopping_threshold counts towards
 * early_stopping_patience. The evaluation before the first step does not count. Everything follows
 * from the log, so a run that goes on decides as one that was never stopped. The best checkpoint is
 * RUN/best, whose files are links to those of the checkpoint: pruning and the chain of manifests do
 * not know of it. */
#include "train/commands/commands.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

bool keeps_best(const struct recipe *r) {
    return r->load_best_model_at_end || !strcmp(r->save_strategy, "best");
}

void judge_row(struct judge *j, const struct recipe *r, const struct log_row *row) {
    if (row->trained && r->loss_watchdog_threshold > 0) {
        j->above = row->loss > r->loss_watchdog_threshold ? j->above + 1 : 0;
        if (j->above >= r->loss_watchdog_patience) j->verdict = VERDICT_LOSS;
    }
    if (!row->evaluated || row->step == 0) return;
    const bool less = !j->best_step || row->eval_loss < j->best;
    const bool much = !j->best_step || j->best - row->eval_loss > r->early_stopping_threshold;
    j->worse = less && much ? 0 : j->worse + 1;
    if (less) j->best = row->eval_loss, j->best_step = row->step;
    if (r->early_stopping_patience && j->worse >= r->early_stopping_patience)
        j->verdict = VERDICT_EARLY;
}

int judge_log(struct judge *j, const struct recipe *r, const char *run_dir, i64 step,
              struct err *e) {
    struct log_rows rows = {0};
    char *path = path_join(NULL, run_dir, "log.jsonl", e);
    const int rc = path ? log_read(&rows, path, e) : -1;
    for (i64 i = 0; !rc && i < rows.count && rows.row[i].step <= step; i++)
        judge_row(j, r, &rows.row[i]);
    log_rows_free(&rows), mem_free(path);
    return rc;
}

/* A file under a second name; a copy where the file system has no links. */
static int link_file(const char *from, const char *to, struct err *e) {
    struct text t = {0};
    if (!link(from, to)) return 0;
    if (errno != EPERM && errno != EXDEV && errno != EMLINK && errno != ENOTSUP)
        return err_system(e, "link", to);
    const int rc = file_read(&t, from, e) || file_write(to, t.data, t.size, e);
    text_free(&t);
    return rc ? -1 : 0;
}

static int link_folder(const char *from, const char *to, struct err *e) {
    DIR *d = opendir(from);
    int rc = d ? dir_make(to, e) : err_system(e, "open folder", from);
    for (struct dirent *entry; !rc && (entry = readdir(d));) {
        if (*entry->d_name == '.') continue;
        char *a = path_join(NULL, from, entry->d_name, e),
             *b = path_join(NULL, to, entry->d_name, e);
        rc = !a || !b || (path_is_dir(a) ? link_folder(a, b, e) : link_file(a, b, e)) ? -1 : 0;
        mem_free(a), mem_free(b);
    }
    if (d) closedir(d);
    return rc;
}

int best_keep(const char *run_dir, i64 step, struct err *e) {
    char *from = checkpoint_path(run_dir, step, e), *to = path_join(NULL, run_dir, "best", e),
         *made = path_join(NULL, run_dir, ".best-new", e);
    const int rc = !from || !to || !made || dir_remove(made, e) || link_folder(from, made, e) ||
                   dir_remove(to, e) || path_rename(made, to, e);
    mem_free(from), mem_free(to), mem_free(made);
    return rc ? err_frame(e, "while keeping the best checkpoint, step %lld", (long long)step) : 0;
}

int judge_say(const struct judge *j, const struct recipe *r, const char *run_dir, struct err *e) {
    if (j->verdict == VERDICT_EARLY && !quiet)
        show(stdout, "stopped early: %lld evaluations in a row were not better\n",
             (long long)j->worse);
    if (j->best_step && keeps_best(r) && !quiet)
        show(stdout, "best: step %lld, validation loss %.4f%s%s%s\n", (long long)j->best_step,
             j->best, r->load_best_model_at_end ? "; " : "",
             r->load_best_model_at_end ? run_dir : "", r->load_best_model_at_end ? "/best" : "");
    if (j->verdict != VERDICT_LOSS) return 0;
    err_failed(e, "the loss was above loss_watchdog_threshold, %g, for %lld steps: stopped",
               r->loss_watchdog_threshold, (long long)j->above);
    return err_hint(e, "a smaller learning_rate or a longer warm-up; %s has all steps", run_dir);
}
