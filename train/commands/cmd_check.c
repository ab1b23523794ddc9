/* cmd_check.c: `hone check`: what a recipe would do. Rows become tokens in a folder that is removed
 * at the end, weights are random numbers, and nothing else is written. */
#include "train/check/check.h"
#include "train/commands/commands.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- a folder that goes when the program does */

static char folder[512];
static int told[2]; /* a signal's number */

static void on_signal(int number) {
    const char one = (char)number;
    if (write(told[1], &one, 1) < 0) raise(SIGKILL);
}

static void *cleaner(void *unused) {
    char number;
    struct err e = {0};
    (void)unused;
    if (read(told[0], &number, 1) != 1) return NULL;
    dir_remove(folder, &e);
    signal(number, SIG_DFL);
    kill(getpid(), number);
    return NULL;
}

static int folder_make(struct err *e) {
    static const int number[] = {SIGINT, SIGTERM, SIGHUP};
    const struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    const char *under = getenv("TMPDIR");
    pthread_t thread;
    snprintf(folder, sizeof folder, "%s/hone-check-XXXXXX", under && *under ? under : "/tmp");
    if (!mkdtemp(folder)) return err_system(e, "make folder", folder);
    if (pipe(told) || pthread_create(&thread, NULL, cleaner, NULL)) return 0; /* without */
    pthread_detach(thread);
    for (int i = 0; i < COUNT(number); i++) {
        struct sigaction before;
        if (!sigaction(number[i], NULL, &before) &&
            (before.sa_handler != SIG_IGN || number[i] != SIGHUP)) /* as cmd_train.c */
            sigaction(number[i], &action, NULL);
    }
    return 0;
}

/* ---- the command */

struct check_words {
    const char *what, *recipe, *html; /* "packing", "accumulation" or NULL */
    char **keys;
    i64 count;
};

static const char usage[] =
    "usage: hone check [packing | accumulation] RECIPE [key=value ...] [--html FILE]";

/* Takes --html out of argv, and what is checked. */
static int words_read(struct check_words *w, int argc, char **argv, struct err *e) {
    int kept = 0;
    *w = (struct check_words){0};
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "--html=", 7))
            w->html = argv[i] + 7;
        else if (!strcmp(argv[i], "--html") && i + 1 < argc)
            w->html = argv[++i];
        else
            argv[kept++] = argv[i];
    }
    if (kept && (!strcmp(*argv, "packing") || !strcmp(*argv, "accumulation")))
        w->what = *argv++, kept--;
    if (!kept || !strcmp(*argv, "--html")) return err_input(e, "which recipe?"), err_hint(e, usage);
    w->recipe = argv[0], w->keys = argv + 1, w->count = kept - 1;
    return 0;
}

/* Messages say RUN for the folder, which nobody will find. */
static void folder_mask(char *text) {
    for (char *p; (p = strstr(text, folder)); memcpy(p, "RUN", 3))
        memmove(p + 3, p + strlen(folder), strlen(p + strlen(folder)) + 1);
}

static bool all_open(struct dataset *const *d, i64 count) {
    bool open = true;
    for (i64 i = 0; i < count; i++) open &= d[i] != NULL;
    return open;
}

/* The data is looked at even where its samples, or the model, cannot be. */
static int check_all(struct findings *f, struct recipe *r, struct err *e) {
    struct trainer t = {0};
    struct text notes = {0};
    struct dataset_probe *probe = mem_new_array(2 * DATASETS, sizeof *probe, e);
    const struct trainer_opening how = {.run_dir = folder,
                                        .random = true,
                                        .notes = &notes,
                                        .probe = probe,
                                        .eval_probe = probe + DATASETS};
    struct err o = {0};
    int rc = probe ? 0 : -1;
    if (!rc && trainer_open(&t, r, &how, &o) &&
        !(all_open(t.dataset, r->dataset.count) && all_open(t.eval_dataset, r->eval_dataset.count)))
        *e = o, rc = -1;
    rc = rc || check_data(f, &t, e);
    if (!rc && o.code) {
        folder_mask(o.primary), folder_mask(o.detail), folder_mask(o.hint);
        findings_section(f, "the run");
        findings_row(f, WASTE, "it cannot begin", "%s%s%s%s%s", o.primary, *o.detail ? "; " : "",
                     o.detail, *o.hint ? "; " : "", o.hint);
    } else
        rc = rc || check_samples(f, &t, e) || check_cost(f, &t, r->output_dir, e);
    if (rc && notes.size && !quiet) show(stderr, "%s", notes.data);
    trainer_close(&t), text_free(&notes), mem_free(probe);
    return rc ? -1 : 0;
}

static int check_proof(struct findings *f, struct recipe *r, const char *what, struct err *e) {
    struct trainer t = {0};
    struct text notes = {0};
    const struct trainer_opening how = {.run_dir = folder, .notes = &notes};
    const int rc = *what == 'a' ? check_accumulation(f, r, folder, &notes, e)
                                : trainer_open(&t, r, &how, e) || check_packing(f, &t, e);
    if (notes.size && !quiet) show(stderr, "%s", notes.data);
    trainer_close(&t), text_free(&notes);
    return rc ? -1 : 0;
}

static int cmd_check(int argc, char **argv, struct err *e) {
    struct recipe r = {0};
    struct findings f = {0};
    struct check_words w;
    struct err unused = {0};
    if (words_read(&w, argc, argv, e) || recipe_load(&r, w.recipe, w.keys, w.count, e)) return -1;
    if (recipe_missing(&r, e) || (r.problems && recipe_judge(&r, w.recipe, e)))
        return recipe_free(&r), -1;
    if (r.notes.size && !quiet) show(stderr, "%s", r.notes.data);
    recipe_numerics(&r);
    int rc =
        recipe_adapter_keys(&r, e) || inputs_apart(&r, e) || folder_make(e) || findings_open(&f, e);
    if (!rc) rc = w.what ? check_proof(&f, &r, w.what, e) : check_all(&f, &r, e);
    dir_remove(folder, rc ? &unused : e);
    if (!rc && globals.json)
        rc = json_print(json_incref(f.all), e);
    else if (!rc)
        findings_print(&f, stdout);
    if (!rc && w.html) rc = findings_page(&f, w.html, e);
    if (!rc && f.wasted)
        rc = err_failed(e, "%s: %lld thing%s would waste this run", w.recipe, (long long)f.wasted,
                        f.wasted == 1 ? "" : "s");
    findings_free(&f), recipe_free(&r);
    return rc ? -1 : 0;
}

static int check_help(FILE *to) {
    fprintf(
        to, "%s\n\n%s", usage,
        "Nothing is trained, and no weights are read: their shapes get random numbers. What is "
        "found:\nrows read and left out, lengths, what is cut, who speaks in what is trained, "
        "where answers end,\ncopies, overlap of training and evaluation data, two samples with "
        "their labels; memory, disk and\ntime, from a micro-batch that is measured; and what "
        "could be changed. Marks: * a note, ! the run\nwould be wasted.\n\n"
        "hone check packing: each document of the first step alone has the losses that it has "
        "among others.\nhone check accumulation: the first step gives the same state however "
        "it is cut into micro-batches.\nBoth read the weights.\n\n"
        "--html FILE: the same as a page. --json: as JSON.\n"
        "Exit codes: 0 go ahead, 1 the run would be wasted, or the check failed, 2 bad input.\n");
    return ferror(to) ? -1 : 0;
}

const struct command command_check = {
    "check",
    "check [packing | accumulation] RECIPE [key=value ...]",
    "what a recipe would do, before it does it: data, memory, disk, time",
    cmd_check,
    NULL,
    check_help};
