/* report_int.h: what the report's files share. */
#ifndef HONE_REPORT_INT_H
#define HONE_REPORT_INT_H

#include "train/log/log.h"

extern const char report_page[], report_style[],
    report_script[]; /* zero-terminated (report_parts.c) */
json_t *report_run(const char *run_dir,
                   struct err *e); /* everything the page shows of a run (report_run.c) */

#endif
