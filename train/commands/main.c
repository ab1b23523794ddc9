/* main.c: the command line. Global flags may stand anywhere; the first other word is the command.
 * Only this file exits. */
#include "train/commands/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct option global_options[] = {
    {"threads", OPT_INT, offsetof(struct globals, threads), "0", 0, 4096, NULL,
     "threads; 0: one per core"},
    {"isa", OPT_TEXT, offsetof(struct globals, isa), NULL, 0, 0, NULL,
     "avx512bf16, avx512, avx2 or plain; default: the best this machine has"},
    {"device", OPT_TEXT, offsetof(struct globals, device), "cpu", 0, 0, NULL,
     "cpu, cuda or cuda:N"},
    {"numerics", OPT_CHOICE, offsetof(struct globals, numerics), "auto", 0, 0, "auto portable fast",
     "what products promise, where no recipe says it: auto is fast on a GPU, portable on a CPU"},
    {"quantize", OPT_CHOICE, offsetof(struct globals, quantize), "auto", 0, 0, packing_choices,
     "how linear weights are packed; auto: as the run that trained the adapter had them, or the "
     "file has them; none: plain"},
    {"eager", OPT_BOOL, offsetof(struct globals, eager), "false", 0, 0, NULL,
     "a buffer for every tensor: the debugging mode, same bits"},
    {"json", OPT_BOOL, offsetof(struct globals, json), "false", 0, 0, NULL,
     "results as JSON on standard output"},
    {"quiet", OPT_BOOL, offsetof(struct globals, quiet), "false", 0, 0, NULL,
     "no progress, no chatter"},
    {"profile", OPT_BOOL, offsetof(struct globals, profile), "false", 0, 0, NULL,
     "seconds per operation, printed at the end"},
    {"sync", OPT_BOOL, offsetof(struct globals, sync), "false", 0, 0, NULL,
     "on a GPU, wait after every operation, so that an error names it"},
    {0},
};

/* clang-format off */
#define COMMANDS(X)                                                                                \
    X(train) X(check) X(import) X(tokenize) X(tokenizer) X(generate) X(chat) X(serve) X(eval)      \
    X(export) X(inspect) X(verify) X(report) X(forward) X(encode) X(decode) X(render) X(bench)     \
    X(doctor) X(help)
/* clang-format on */
#define X(name) extern const struct command command_##name; /* in cmd_NAME.c */
COMMANDS(X)
#undef X
#define X(name) &command_##name,
static const struct command *const commands[] = {COMMANDS(X) NULL};
#undef X

static void options_print(const struct option *o) {
    for (; o && o->key; o++) {
        char head[64];
        snprintf(head, sizeof head, "--%s", o->key);
        for (char *p = head; *p; p++)
            if (*p == '_') *p = '-';
        printf("  %-26s %s%s%s%s\n", head, o->help, o->otherwise && *o->otherwise ? " [" : "",
               o->otherwise ? o->otherwise : "", o->otherwise && *o->otherwise ? "]" : "");
    }
}

static const struct command *command_find(const char *name, const char *before, struct err *e) {
    const struct command *near = commands[0];
    for (const struct command *const *c = commands; *c; c++) {
        if (!strcmp((*c)->name, name)) return *c;
        if (edit_distance(name, (*c)->name) < edit_distance(name, near->name)) near = *c;
    }
    err_input(e, "there is no command '%s'", name);
    err_hint(e, "did you mean `hone %s%s`? `hone help` lists all", before, near->name);
    return NULL;
}

static int cmd_help(int argc, char **argv, struct err *e) {
    if (argc > 0) {
        const struct command *c = command_find(argv[0], "help ", e);
        if (!c) return -1;
        printf("hone %s\n\n%s.\n\n", c->usage, c->help);
        if (c->help_more && c->help_more(stdout)) return -1;
        options_print(c->options);
        return 0;
    }
    puts("hone: trains, fine-tunes and runs language models, reproducibly.\n\n  hone COMMAND "
         "[ARGUMENTS] [key=value ...]\n");
    for (const struct command *const *c = commands; *c; c++)
        printf("  %-10s %s\n", (*c)->name, (*c)->help);
    puts("\nGlobal flags:");
    options_print(global_options);
    puts("\n`hone help COMMAND` says more. Exit codes: 0 done, 1 a failed check or training error, "
         "2 usage or bad input, 3 a run that was stopped and saved.");
    return 0;
}

const struct command command_help = {
    "help", "help [COMMAND]", "this list, or a command's options", cmd_help, NULL, NULL};

/* Takes the global flags out of argv; the rest stays in order. */
static int globals_take(int *argc, char **argv, struct arena *a, struct err *e) {
    int kept = 0;
    if (option_defaults(global_options, &globals, a, e)) return -1;
    for (int i = 0; i < *argc; i++) {
        char key[64] = "";
        if (!strncmp(argv[i], "--", 2))
            snprintf(key, sizeof key, "%.*s", (int)strcspn(argv[i] + 2, "="), argv[i] + 2);
        const struct option *o = *key ? option_find(global_options, key) : NULL;
        if (!o) {
            argv[kept++] = argv[i];
            continue;
        }
        const char *value = strchr(argv[i], '=');
        if (value)
            value++;
        else if (o->type == OPT_BOOL)
            value = "true";
        else if (i + 1 < *argc)
            value = argv[++i];
        else
            return err_input(e, "--%s needs a value", key);
        if (option_set(global_options, &globals, key, value, "command line", a, e)) return -1;
    }
    *argc = kept;
    return 0;
}

static int run(int argc, char **argv, struct arena *a, struct err *e) {
    if (globals_take(&argc, argv, a, e)) return -1;
    quiet = globals.quiet;
    op_profile = globals.profile, graph_sync = globals.sync;
    if (argc < 1 || !strcmp(argv[0], "--help") || !strcmp(argv[0], "-h"))
        return cmd_help(0, NULL, e);
    const struct command *c = command_find(argv[0], "", e);
    if (!c) return -1;
    if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")))
        return cmd_help(1, argv, e);
    if (globals.isa && isa_force(globals.isa, e)) return -1;
    if (pool_start((int)globals.threads, e)) return -1;
    int rc = device_open(globals.device, e) || numerics_choose(globals.numerics, e);
    if (!rc) rc = c->run(argc - 1, argv + 1, e);
    device_close(), pool_stop();
    if (globals.profile) op_profile_print(stderr);
    return rc;
}

/* Reopens closed descriptors 0 to 2, so that an opened file cannot become stdout. They are opened
 * in the wrong direction, so that using one still fails. A file size limit is an error like a full
 * disk, not a signal. */
static void surroundings_prepare(void) {
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_RDONLY : O_WRONLY) != fd) return;
    signal(SIGXFSZ, SIG_IGN);
}

int main(int argc, char **argv) {
    struct err e = {0};
    struct arena a = {0};
    surroundings_prepare();
    isa_float_mode();
    const int rc = run(argc - 1, argv + 1, &a, &e);
    progress_end();
    arena_free(&a);
    errno = 0;
    if (!rc && !fflush(stdout) && !ferror(stdout)) return 0;
    /* Where an early part of a long output failed, its reason is gone: ask for it again. */
    if (!rc && !errno && write(STDOUT_FILENO, "\n", 1) == 1) errno = EIO;
    if (!e.code)
        err_failed(&e, "cannot write to standard output%s%s", errno ? ": " : "",
                   errno ? strerror(errno) : "");
    err_print(&e, stderr);
    return e.code;
}
