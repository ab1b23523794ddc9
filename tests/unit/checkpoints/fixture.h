/* fixture.h: what the tests of this folder share: a folder that goes away, errors that fail. */
#ifndef HONE_CHECKPOINTS_FIXTURE_H
#define HONE_CHECKPOINTS_FIXTURE_H

#include "checkpoints/checkpoints_int.h"
#include <setjmp.h>
#include <cmocka.h>
#include "tests/folder.h"

static inline void ok(int status, const struct err *e) {
    if (status || e->code) fail_msg("%s (%s)", e->primary, e->detail);
}

#endif
