/* cmd_digest.c: hone digest: the SHA-256 of files. */
#include "train/commands/commands.h"

static int cmd_digest(int argc, char **argv, struct err *e) {
    struct args a;
    char hex[65];
    int rc = args_parse(&a, argc, argv, NULL, NULL, e) ||
             args_need(&a, 1, 1 << 20, "digest FILE ...", e);
    for (i64 i = 0; !rc && i < a.count; i++) {
        rc = sha256_file(a.rest[i], hex, e);
        if (!rc) printf("%s  %s\n", hex, a.rest[i]);
    }
    args_free(&a);
    return rc ? -1 : 0;
}

const struct command command_digest = {
    "digest", "digest FILE ...", "the SHA-256 of files", cmd_digest, NULL, NULL};
