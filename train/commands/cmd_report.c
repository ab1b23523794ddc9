/* cmd_report.c: `hone report`. The page itself is report.c's. */
#include "train/commands/commands.h"

struct report_flags {
    const char *output;
};
static const struct option report_options[] = {
    {"output", OPT_TEXT, offsetof(struct report_flags, output), NULL, 0, 0, NULL,
     "the page to write; default: report.html in the first run's folder"},
    {0},
};

static int cmd_report(int argc, char **argv, struct err *e) {
    struct report_flags f = {0};
    struct args a;
    char *path = NULL;
    int rc = args_parse(&a, argc, argv, report_options, &f, e) ||
             args_need(&a, 1, 16, "report RUN ... [--output FILE.html]", e);
    if (!rc)
        rc = !(path = f.output ? mem_text(f.output, e)
                               : path_join(NULL, a.rest[0], "report.html", e)) ||
             report_apart(a.rest, a.count, path, e) || report_write(a.rest, a.count, path, e);
    if (!rc && !quiet)
        show(stdout, "%s: %.0f kB; open it in any browser\n", path, (double)path_size(path) / 1e3);
    mem_free(path), args_free(&a);
    return rc ? -1 : 0;
}

const struct command command_report = {"report",
                                       "report RUN ... [--output FILE.html]",
                                       "one page of a run, or of several side by side",
                                       cmd_report,
                                       report_options,
                                       NULL};
