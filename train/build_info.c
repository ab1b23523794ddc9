/* build_info.c: facts fixed when the program was built. The Makefile passes commit, difference and
 * flags. */
#include "train/train.h"

#ifndef HONE_COMMIT
#define HONE_COMMIT "unknown"
#endif
#ifndef HONE_DIFF
#define HONE_DIFF "unknown"
#endif
#ifndef HONE_FLAGS
#define HONE_FLAGS "unknown"
#endif
#define TEXT2(x) #x
#define TEXT(x)  TEXT2(x)

const char *const build_info[] = {"version",
                                  "0.1.0",
                                  "commit",
                                  HONE_COMMIT,
                                  "diff",
                                  HONE_DIFF,
                                  "compiler",
#ifdef __clang__
                                  "clang " __clang_version__,
#else
                                  "gcc " __VERSION__,
#endif
                                  "flags",
                                  HONE_FLAGS,
                                  "numerics_version",
                                  TEXT(1),
                                  NULL};
_Static_assert(NUMERICS_VERSION == 1, "build_info says so too");
