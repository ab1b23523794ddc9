/* cmd_train.c: `hone train`: the run around the steps: folder, lock, log, evaluation, samples,
 * checkpoints, signals.
 *
 * What the log says of a step is on the disk before the checkpoint of that step appears, so a run
 * killed at any moment goes on from its newest checkpoint with a log that continues the same hash
 * chain. */
#include "train/check/check.h"
#include "train/commands/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

/* SIGINT, SIGTERM, SIGHUP and SIGPIPE ask to stop: the step is finished and saved. A second SIGINT
 * or SIGTERM ends the program at once, as a kill would; the checkpoints before stay whole. SIGHUP
 * and SIGPIPE are never the second: a terminal that goes away sends several, and a reader that has
 * gone fails every write. */
static volatile sig_atomic_t stop_asked;
static void on_signal(int number) {
    const bool urgent = number == SIGINT || number == SIGTERM;
    if (urgent && stop_asked == 2) {
        signal(number, SIG_DFL);
        raise(number); /* delivered when this handler returns */
    }
    stop_asked = urgent || stop_asked == 2 ? 2 : 1;
}

/* What nohup ignores stays ignored. The others are taken all the same: shells start what runs in
 * the background with SIGINT ignored, some programs their children with SIGPIPE, and whoever sends
 * one means it. */
static void signals_take(void) {
    static const int number[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
    const struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct sigaction before;
    for (int i = 0; i < COUNT(number); i++)
        if (!sigaction(number[i], NULL, &before) &&
            (before.sa_handler != SIG_IGN || number[i] != SIGHUP))
            sigaction(number[i], &action, NULL);
}

struct session {
    struct trainer t;
    struct recipe *r;
    const char *run_dir;
    struct log *log;
    struct ngram ngram;
    double start, seconds_before;
    i64 planned, resumed; /* bytes; step that the run goes on from, -1: new */
    bool loaded;          /* from a checkpoint of that step */
    int held;             /* the run folder, locked; -1: not */
    i64 full;             /* samples that ended at the model's last position */
    double peak_gflops;
    struct judge judge; /* early_stop.c */
};

static bool wanted(const struct recipe *r, const char *what) {
    for (i64 i = 0; i < r->report_to.count; i++)
        if (!strcmp(r->report_to.item[i], what)) return true;
    return false;
}

/* ---- opening */

/* The newest intact checkpoint; step 0 without one if the run ended before its first. A run whose
 * checkpoints are all damaged is not begun again over them. */
static int resume_auto(const struct session *s, char **path, i64 *step, struct text *notes,
                       struct err *e) {
    struct checkpoint_list list = {0};
    const int found = checkpoint_latest(s->run_dir, path, step, notes, e);
    if (found) return found;
    if (checkpoint_list(s->run_dir, &list, e)) return -1;
    mem_free(list.step);
    if (list.count) {
        err_failed(e, "%s: none of the %lld checkpoints is intact", s->run_dir,
                   (long long)list.count);
        return err_hint(e, "another output_dir starts a new run; `hone verify %s` says more",
                        s->run_dir);
    }
    const int begun = path_has(s->run_dir, "log.jsonl", e);
    *step = begun ? 0 : -1;
    return begun < 0 ? -1 : 0;
}

/* The checkpoint to go on from, or NULL to start at the beginning. */
static int resume_from(struct session *s, char **path, i64 *step, struct err *e) {
    const char *from = s->r->resume_from_checkpoint;
    struct text notes = {0};
    *path = NULL, *step = -1;
    if (!from) {
        struct checkpoint_list list = {0};
        const int begun = path_has(s->run_dir, "log.jsonl", e);
        int rc = begun < 0 || (path_is_dir(s->run_dir) && checkpoint_list(s->run_dir, &list, e));
        if (!rc && (list.count || begun)) {
            rc = err_input(e, "%s already holds a run", s->run_dir);
            err_hint(
                e,
                "resume_from_checkpoint=auto goes on with it; another output_dir starts a new one");
        }
        return mem_free(list.step), rc ? -1 : 0;
    }
    int rc = 0;
    if (!strcmp(from, "auto"))
        rc = resume_auto(s, path, step, &notes, e);
    else {
        struct manifest m;
        rc = manifest_read(from, &m, e);
        if (!rc) *step = m.step, rc = (*path = mem_text(from, e)) ? 1 : -1;
    }
    if (notes.size && !quiet) show(stderr, "%s", notes.data);
    text_free(&notes);
    return rc < 0 ? -1 : 0;
}

static int facts_write(struct session *s, struct err *e) {
    char *path = path_join(NULL, s->run_dir, "run.json", e);
    if (!path) return -1;
    const struct model *m = &s->t.model;
    json_t *j = json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:f}", "model_type", m->config.family->model_type, "parameters",
        (json_int_t)model_count(m, false), "trainable_parameters", (json_int_t)model_count(m, true),
        "planned_peak_bytes", (json_int_t)s->planned, "total_steps", (json_int_t)s->t.total_steps,
        "flops_per_token", model_flops(m, 1, s->r->max_seq_length));
    if (s->ngram.targets) {
        json_object_set_new(j, "unigram_nats", json_real(s->ngram.unigram));
        json_object_set_new(j, "bigram_nats", json_real(s->ngram.bigram));
    }
    if (s->peak_gflops > 0) json_object_set_new(j, "peak_gflops", json_real(s->peak_gflops));
    const int rc = json_save(j, path, 2, e);
    json_decref(j), mem_free(path);
    return rc;
}

static int lock_check(struct session *s, const struct lock_files *files, struct err *e) {
    struct text notes = {0};
    const int rc = lock_compare(s->run_dir, s->r, files, &notes, e);
    if (notes.size && !quiet) show(stderr, "%s", notes.data);
    text_free(&notes);
    return rc || (s->loaded && log_check(s->run_dir, s->resumed, e)) ? -1 : 0;
}

/* Two trainings in one folder would mix their logs. Held until the program ends. */
static int folder_hold(struct session *s, struct err *e) {
    if ((s->held = open(s->run_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        return err_system(e, "open folder", s->run_dir);
    if (!flock(s->held, LOCK_EX | LOCK_NB) || errno != EWOULDBLOCK) return 0;
    close(s->held), s->held = -1;
    err_input(e, "another hone is training in %s", s->run_dir);
    return err_hint(e, "wait for it to end, or choose another output_dir");
}

/* A template that asks for the day is told that of the run's beginning ever after. */
static int day_keep(struct session *s, struct err *e) {
    char day[11];
    const bool dated = s->t.chat && chat_dated(s->t.chat) && s->r->recipe_version >= 2;
    if (!dated || s->r->template_date) return 0;
    chat_day_text(s->t.chat, day);
    return (s->r->template_date = arena_text(&s->r->arena, day, e)) ? 0 : -1;
}

/* Everything that can fail before the log begins. What the run folder holds already is not touched
 * until recipe, files and log are known to belong together. */
static int session_prepare(struct session *s, char lock[65], struct err *e) {
    struct lock_files files = {0};
    char *checkpoint = NULL;
    struct manifest m = {0}; /* its digests go on in the same version */
    int rc = resume_from(s, &checkpoint, &s->resumed, e) ||
             (checkpoint && manifest_read(checkpoint, &m, e)) || dir_make(s->run_dir, e) ||
             folder_hold(s, e) ||
             trainer_open(&s->t, s->r,
                          &(struct trainer_opening){.run_dir = s->run_dir,
                                                    .digest_version = m.digest_version},
                          e) ||
             day_keep(s, e) || lock_files_of(&s->t, &files, e);
    s->loaded = checkpoint != NULL;
    if (!rc && s->resumed >= 0) rc = lock_check(s, &files, e);
    if (!rc && checkpoint) rc = trainer_load(&s->t, checkpoint, e);
    if (!rc) rc = (s->planned = trainer_plan_bytes(&s->t, e)) < 0;
    rc = rc || checkpoint_clean(s->run_dir, e) || lock_write(s->run_dir, s->r, &files, lock, e);
    lock_files_free(&files), mem_free(checkpoint);
    return rc ? -1 : 0;
}

/* Removes the samples that a killed run took behind the step it goes on from. */
static int samples_cut(const struct session *s, struct err *e) {
    struct text t = {0};
    char *path = path_join(NULL, s->run_dir, "samples.jsonl", e);
    if (!path || !path_exists(path)) return mem_free(path), path ? 0 : -1;
    const int fd = file_own(path, O_RDWR, e);
    if (fd < 0 || close(fd) || file_read(&t, path, e)) return mem_free(path), -1;
    i64 keep = 0;
    for (char *p = t.data, *end; (end = memchr(p, '\n', (size_t)(t.data + t.size - p)));
         p = end + 1) {
        long long step;
        if (sscanf(p, "{\"step\": %lld,", &step) != 1 || step > s->resumed) break;
        if (step == 0 && s->resumed == 0) break; /* step 0 is evaluated again */
        keep = end + 1 - t.data;
    }
    const int rc = keep < t.size ? file_replace(path, t.data, keep, e) : 0;
    text_free(&t), mem_free(path);
    return rc;
}

static int session_open(struct session *s, struct err *e) {
    char lock[65], *id = NULL;
    const bool fresh = !path_exists(s->run_dir);
    int rc = session_prepare(s, lock, e);
    if (!rc && s->resumed >= 0) rc = samples_cut(s, e);
    if (!rc && s->t.eval_loader && s->r->dataset.count == 1 && s->r->eval_dataset.count == 1)
        rc = dataset_ngram(s->t.dataset[0], s->t.eval_dataset[0], &s->ngram, e);
    if (!rc)
        rc = trainer_left_out(&s->t, e) || facts_write(s, e) ||
             !(id = mem_printf(e, "%s-%.12s", s->r->task, lock));
    const struct log_start start = {.run_dir = s->run_dir,
                                    .run_id = id,
                                    .lock_sha256 = lock,
                                    .digest_version = s->t.digest_version,
                                    .metrics = rc ? NULL : s->t.objective->metrics,
                                    .resume_step = s->resumed,
                                    .csv = wanted(s->r, "csv"),
                                    .tensorboard = wanted(s->r, "tensorboard"),
                                    .time = (double)time(NULL)};
    if (!rc && !(s->log = log_open(&start, e))) rc = -1;
    if (rc && fresh && s->held >= 0) {
        struct err unused = {0};
        dir_remove(s->run_dir, &unused);
    }
    mem_free(id);
    return rc ? -1 : 0;
}

static void session_print(const struct session *s) {
    if (quiet) return;
    const struct model *m = &s->t.model;
    printf("%s, %.2f M parameters (%.2f M trained), %s, %s, %d thread%s\n",
           m->config.family->model_type, (double)model_count(m, false) / 1e6,
           (double)model_count(m, true) / 1e6, s->r->precision,
           device_now() == DEVICE_CUDA ? device_text() : isa_name[isa_now()], pool_threads(),
           pool_threads() == 1 ? "" : "s");
    samples_note(&s->t);
    if (*m->config.note) show(stdout, "note: %s\n", m->config.note);
    const i64 samples = loader_samples(s->t.loader), batch = s->r->global_batch_size,
              last = loader_last(s->t.loader), rest = samples % batch;
    char end[80] = "";
    if (last < batch)
        snprintf(end, sizeof end, " (%lld in the last of an epoch)", (long long)last);
    else if (s->r->drop_last && rest)
        snprintf(end, sizeof end, " (%lld of each epoch are left out)", (long long)rest);
    printf("%lld samples of at most %lld tokens an epoch, %lld a step%s, %lld steps; planned peak "
           "%.0f MiB\n",
           (long long)samples, (long long)s->r->max_seq_length, (long long)batch, end,
           (long long)s->t.total_steps, (double)s->planned / (1 << 20));
    if (s->ngram.targets)
        printf("validation data: a unigram model scores %.3f nats/token, a bigram model %.3f\n",
               s->ngram.unigram, s->ngram.bigram);
    if (s->resumed >= 0) printf("resuming after step %lld\n", (long long)s->resumed);
    fflush(stdout);
}

/* ---- while it runs */

static int samples_write(struct session *s, i64 step, struct err *e) {
    if (!s->r->sample_prompts.count || !s->t.tokenizer) return 0;
    char *path = path_join(NULL, s->run_dir, "samples.jsonl", e);
    const int fd = path ? file_own(path, O_WRONLY | O_CREAT | O_APPEND, e) : -1;
    FILE *f = fd >= 0 ? fdopen(fd, "a") : NULL;
    if (!f) {
        if (fd >= 0) err_system(e, "open", path), close(fd);
        return mem_free(path), -1;
    }
    const struct sampling how = {.temperature = 0.8,
                                 .top_p = 0.95,
                                 .seed = s->r->seed,
                                 .max_new_tokens = s->r->sample_tokens,
                                 .full = &s->full};
    int rc = 0;
    for (i64 i = 0; !rc && i < s->r->sample_prompts.count; i++) {
        struct text text = {0}, line = {0};
        const char *prompt = s->r->sample_prompts.item[i];
        rc = generate_text(&s->t.model, s->t.tokenizer, prompt, &how, &text, e) ||
             text_printf(&line, e, "{\"step\": %lld, \"prompt\": ", (long long)step) ||
             json_text_add(&line, prompt, (i64)strlen(prompt), e) ||
             text_printf(&line, e, ", \"text\": ") ||
             json_text_add(&line, text.data ? text.data : "", text.size, e) ||
             text_printf(&line, e, "}\n");
        if (!rc && fwrite(line.data, 1, (size_t)line.size, f) != (size_t)line.size)
            rc = err_system(e, "write", path);
        text_free(&text), text_free(&line);
    }
    if (fclose(f) && !rc) rc = err_system(e, "write", path);
    return mem_free(path), rc ? -1 : 0;
}

/* What the objective reports besides; ends the line. */
static void metrics_print(const struct session *s, const struct log_row *row) {
    const char *const *name = s->t.objective->metrics;
    for (i64 i = 0; row->trained && name && name[i]; i++)
        printf("  %s %.4g", name[i], row->metric[i]);
    printf("\n"), fflush(stdout);
}

static void step_print(const struct session *s, const struct log_row *row) {
    const i64 step = row->step;
    const double left = row->tokens_per_second > 0 && step > 0
                            ? row->seconds / (double)step * (double)(s->t.total_steps - step)
                            : 0;
    if (row->evaluated && !quiet) {
        progress_end();
        printf("step %lld/%lld  validation loss %.4f", (long long)step, (long long)s->t.total_steps,
               row->eval_loss);
        if (row->trained)
            printf("  loss %.4f  lr %.3g  grad norm %.3f  %.0f tokens/s", row->loss, row->lr,
                   row->grad_norm, row->tokens_per_second);
        metrics_print(s, row);
    } else if (row->trained && !quiet && log_at(&s->t, step)) {
        progress_end();
        printf("step %lld/%lld  loss %.4f  lr %.3g  grad norm %.3f  %.0f tokens/s", (long long)step,
               (long long)s->t.total_steps, row->loss, row->lr, row->grad_norm,
               row->tokens_per_second);
        metrics_print(s, row);
    }
    progress_line("step %lld/%lld  loss %.4f  %.0f tokens/s  %.0f MiB  %d:%02d left",
                  (long long)step, (long long)s->t.total_steps, row->loss, row->tokens_per_second,
                  (double)mem_peak_rss() / (1 << 20), (int)(left / 60), (int)left % 60);
}

/* What belongs to a step once its update is done (or, for step 0, before the first): evaluation,
 * log, checkpoint. */
static int step_done(struct session *s, struct log_row *row, bool save, struct err *e) {
    char digest[65];
    i64 tokens;
    row->step = s->t.optimizer.step, row->tokens = s->t.tokens_seen;
    if (eval_at(&s->t, row->step)) {
        if (trainer_eval(&s->t, &row->eval_loss, &tokens, e) || samples_write(s, row->step, e))
            return -1;
        row->evaluated = true;
    }
    judge_row(&s->judge, s->r, row);
    const bool best = s->judge.best_step == row->step && row->step > 0 && keeps_best(s->r);
    save |= best || s->judge.verdict;
    if (save) {
        if (optimizer_digest(&s->t.optimizer, s->t.digest_version, digest, e)) return -1;
        row->state = digest;
    }
    row->seconds = s->seconds_before + clock_seconds() - s->start, row->peak_bytes = mem_peak_rss();
    step_print(s, row);
    if ((row->trained || row->evaluated || row->state) && log_step(s->log, row, e)) return -1;
    if (!save) return 0;
    if (log_sync(s->log, e) ||
        (!(s->loaded && row->step == s->resumed) && trainer_save(&s->t, digest, e)))
        return -1;
    if (best && s->r->load_best_model_at_end && best_keep(s->run_dir, row->step, e)) return -1;
    return s->r->save_total_limit > 0 ? checkpoint_prune(s->run_dir, s->r->save_total_limit, e) : 0;
}

static int session_run(struct session *s, struct err *e) {
    s->start = clock_seconds();
    struct log_row first = {0};
    if (s->resumed > 0 && judge_log(&s->judge, s->r, s->run_dir, s->resumed, e)) return -1;
    if (s->resumed <= 0 && step_done(s, &first, save_at(&s->t, 0), e)) return -1;
    while (s->t.optimizer.step < s->t.total_steps && !s->judge.verdict) {
        struct step_result result;
        const double begin = clock_seconds();
        if (trainer_step(&s->t, &result, e)) return -1;
        struct log_row row = {.trained = true,
                              .loss = result.loss,
                              .lr = result.lr,
                              .grad_norm = result.grad_norm,
                              .balanced = s->t.model.config.balanced,
                              .aux_loss = result.aux_loss,
                              .batch = result.batch,
                              .tokens_per_second =
                                  (double)result.tokens / (clock_seconds() - begin)};
        memcpy(row.metric, result.metric, sizeof row.metric);
        const bool stop = stop_asked, save = save_at(&s->t, s->t.optimizer.step);
        s->t.whole_save = stop; /* it says that the run can go on */
        if (step_done(s, &row, save || stop, e)) return -1;
        if (!stop || s->t.optimizer.step == s->t.total_steps) continue;
        progress_end();
        return err_set(e, ERR_STOPPED,
                       "stopped after step %lld; resume_from_checkpoint=auto goes on from there",
                       (long long)s->t.optimizer.step);
    }
    progress_end();
    positions_note(&s->t.model, s->full);
    if (judge_say(&s->judge, s->r, s->run_dir, e)) return -1;
    if (!quiet)
        show(stdout,
             "done: step %lld; peak memory %.0f MiB (planned %.0f MiB besides the program "
             "itself); %s\n",
             (long long)s->t.optimizer.step, (double)mem_peak_rss() / (1 << 20),
             (double)s->planned / (1 << 20), s->run_dir);
    return 0;
}

/* Several paths that are not here, or names of a hub, are one report. One path is its reader's; a
 * run that goes on has its data. */
static int several_missing(struct recipe *r, const char *name, struct err *e) {
    if (r->resume_from_checkpoint) return 0;
    if (recipe_missing(r, e)) return -1;
    const bool hub = r->problem && strstr(r->problem->err.hint, "hub");
    return r->problems > 1 || hub ? recipe_judge(r, name, e) : 0;
}

static int cmd_train(int argc, char **argv, struct err *e) {
    struct recipe r = {0};
    if (argc < 1) {
        err_input(e, "which recipe?");
        return err_hint(
            e, "usage: hone train RECIPE.yaml [key=value ...]; `hone help train` lists the keys");
    }
    if (recipe_load(&r, argv[0], argv + 1, argc - 1, e)) return -1;
    if (several_missing(&r, argv[0], e)) return recipe_free(&r), -1;
    if (r.notes.size && !quiet) show(stderr, "%s", r.notes.data);
    if (r.resume_from_checkpoint && !recipe_given(&r, "recipe_version") &&
        lock_recipe_version(r.output_dir, &r.recipe_version, e))
        return recipe_free(&r), -1;
    if (r.resume_from_checkpoint && !r.template_date && lock_template_date(r.output_dir, &r, e))
        return recipe_free(&r), -1;
    recipe_numerics(&r);
    struct session s = {.r = &r, .run_dir = r.output_dir, .held = -1};
    int rc = recipe_adapter_keys(&r, e) || inputs_apart(&r, e) || session_open(&s, e);
    signals_take(); /* before there is a run to save, a signal ends the program at once */
    if (!rc) session_print(&s);
    if (!rc && !quiet && s.resumed < 0) rc = check_shortly(&s.t, e);
    if (!rc) rc = session_run(&s, e);
    if (s.log && log_close(s.log, e)) rc = -1;
    trainer_close(&s.t);
    recipe_free(&r);
    if (s.held >= 0) close(s.held);
    return rc ? -1 : 0;
}

static const char signals_text[] =
    "SIGINT (^C), SIGTERM, SIGHUP, or a reader of the output that goes away (SIGPIPE): the step "
    "is\n"
    "finished and saved, and the program ends with exit code 3: stopped and saved;\n"
    "resume_from_checkpoint=auto goes on from there. A second SIGINT or SIGTERM ends it at once,\n"
    "without saving: killed by that signal (128 + its number in a shell). So does the first one "
    "while\n"
    "the data is still being read: there is nothing to save.\n"
    "Exit codes: 0 all steps done, 1 an error while training, 2 usage or bad input, 3 stopped.\n";

static int train_help(FILE *to) {
    fprintf(to, "%s\n", signals_text);
    return recipe_help(to);
}

const struct command command_train = {"train",
                                      "train RECIPE.yaml [key=value ...]",
                                      "pretrain or fine-tune by a recipe",
                                      cmd_train,
                                      NULL,
                                      train_help};
