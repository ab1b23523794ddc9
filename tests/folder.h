/* folder.h: the folder of a test, which goes away with it: set-up and tear-down of a group. */
#ifndef HONE_TESTS_FOLDER_H
#define HONE_TESTS_FOLDER_H

#include "base/base.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64];

static inline int folder_make(void **state) {
    (void)state;
    strcpy(folder, "/tmp/hone-test-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}
static inline int folder_remove(void **state) {
    (void)state;
    return dir_remove(folder, &(struct err){0});
}

#endif
