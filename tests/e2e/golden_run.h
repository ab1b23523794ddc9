/* golden_run.h: the recorded run of tests/golden/run, for the tests that make it again. */
#ifndef HONE_GOLDEN_RUN_H
#define HONE_GOLDEN_RUN_H

#include "tests/e2e/tiny_run.h"

#define AT      "tests/golden/run/"
#define DIGESTS "tests/golden/digests2/sha256.txt" /* of the same run, by version 2 */

/* Its dataset, as data.h5 of the tests' folder. */
static inline void golden_data(void) {
    hone(0,
         "tokenize " AT "corpus.txt --tokenizer " AT "tokenizer.json --document-separator '\n\n' "
         "--output %s --quiet",
         at("data.h5"));
}

/* Has `file` the line `NAME SHA256`? Else `line`, of 200, is what it lacks. */
static inline bool recorded(const char *file, const char *name, const char *sha256, char *line) {
    snprintf(line, 200, "%s %s\n", name, sha256);
    return strstr(text_of(file), line);
}

#endif
