/* cmd_import.c: `hone import FILE`: a recipe of Axolotl, LLaMA-Factory, TRL, ms-swift, torchtune or
 * mlx-lm as one of ours (train/recipe/import.c). */
#include "train/commands/commands.h"

static int cmd_import(int argc, char **argv, struct err *e) {
    struct recipe r = {0};
    struct text out = {0};
    if (argc < 1) {
        err_input(e, "which recipe?");
        return err_hint(e, "usage: hone import FILE [key=value ...]");
    }
    if (recipe_read(&r, argv[0], argv + 1, argc - 1, e)) return -1;
    int rc = recipe_import(&r, argv[0], &out, e);
    if (!rc) show(stdout, "%s", out.data);
    if (!rc && r.problems)
        rc = err_failed(e, "%s: %lld of its keys or values change the result and were left out",
                        argv[0], (long long)r.problems),
        err_hint(e, "they stand at the end of what was printed");
    text_free(&out), recipe_free(&r);
    return rc ? -1 : 0;
}

static int import_help(FILE *to) {
    fprintf(to, "%s",
            "FILE is a recipe of Axolotl, LLaMA-Factory, TRL, the alignment handbook, ms-swift, "
            "torchtune or mlx-lm.\n"
            "Printed is our recipe: each key that was given, and what that tool does by default "
            "where hone does\nsomething else. Keys without effect and what could not be carried "
            "over follow as comments.\nData sets named on a hub are not downloaded: "
            "dataset.path=FILE (or dataset.0.path=FILE) gives the file.\n"
            "Exit codes: 0 all of it was carried over, 1 something that changes the result was "
            "not, 2 not readable.\n");
    return ferror(to) ? -1 : 0;
}

const struct command command_import = {"import",
                                       "import FILE [key=value ...]",
                                       "a recipe of another tool as one of ours",
                                       cmd_import,
                                       NULL,
                                       import_help};
