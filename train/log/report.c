/* report.c: one HTML page that needs nothing else: no network, no other file, no server.
 *
 * The page is a template with four holes, {{style}}, {{chart}}, {{data}} and {{script}}. The data
 * is one JSON value in a <script type="application/json">, where every '<' is written \u003c, so
 * that no text of a run, whatever it holds, can end the element; the page's script puts it on the
 * page as text, never as markup. The same data drives one run and several side by side. Chart.js
 * comes from the Debian package, because a kept library is better than a copied one. */
#include "train/log/report_int.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int add_chart_library(struct text *out, struct err *e) {
    static const char *const places[] = {"/usr/share/javascript/chart.js/chart.min.js",
                                         "/usr/share/javascript/chart.js/Chart.min.js",
                                         "/usr/share/nodejs/chart.js/dist/chart.umd.js",
                                         "/usr/share/nodejs/chart.js/dist/chart.min.js"};
    for (i64 i = 0; i < COUNT(places); i++) {
        if (!path_exists(places[i])) continue;
        struct text t = {0};
        int rc = file_read(&t, places[i], e);
        if (!rc && memmem(t.data, (size_t)t.size, "</script", 8))
            rc = err_input(e, "%s holds </script", places[i]);
        rc = rc || text_add(out, t.data, t.size, e);
        text_free(&t);
        return rc ? -1 : 0;
    }
    err_input(e, "the report's charts need Chart.js, which is not at %s", places[0]);
    return err_hint(e, "install the Debian package libjs-chart.js: apt install libjs-chart.js");
}

static int add_data(struct text *out, const json_t *data, struct err *e) {
    char *text = json_dumps(data, JSON_COMPACT | JSON_REAL_PRECISION(9));
    if (!text) return err_memory(e, "out of memory while writing the report");
    int rc = 0;
    for (const char *p = text, *next; *p && !rc; p = next) {
        next = p + strcspn(p, "<");
        rc = text_add(out, p, next - p, e);
        if (*next && !rc) rc = text_add(out, "\\u003c", 6, e), next++;
    }
    free(text);
    return rc;
}

static int fill(struct text *out, const json_t *data, struct err *e) {
    for (const char *p = report_page, *hole; *p; p = hole) {
        hole = strstr(p, "{{");
        if (!hole) return text_add(out, p, (i64)strlen(p), e);
        if (text_add(out, p, hole - p, e)) return -1;
        i64 name = (i64)strcspn(hole + 2, "}");
        int rc = 0;
        if (!strncmp(hole + 2, "style", (size_t)name))
            rc = text_add(out, report_style, (i64)strlen(report_style), e);
        else if (!strncmp(hole + 2, "chart", (size_t)name))
            rc = add_chart_library(out, e);
        else if (!strncmp(hole + 2, "data", (size_t)name))
            rc = add_data(out, data, e);
        else
            rc = text_add(out, report_script, (i64)strlen(report_script), e);
        if (rc) return -1;
        hole += name + 4;
    }
    return 0;
}

int report_write(char *const *run_dirs, i64 count, const char *out_path, struct err *e) {
    char date[32] = "";
    time_t now = time(NULL);
    struct tm tm;
    if (gmtime_r(&now, &tm)) strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", &tm);
    json_t *runs = json_array(), *data = json_pack("{s:s, s:o}", "written", date, "runs", runs);
    struct text page = {0};
    int rc = data ? 0 : err_memory(e, "out of memory while writing the report");
    if (!rc && !count) rc = err_input(e, "a report needs a run folder");
    for (i64 i = 0; i < count && !rc; i++) {
        json_t *run = report_run(run_dirs[i], e);
        rc = !run || json_array_append_new(runs, run) ? -1 : 0;
        if (rc) err_frame(e, "while reporting on %s", run_dirs[i]);
    }
    rc = rc || fill(&page, data, e) || file_replace(out_path, page.data, page.size, e) ? -1 : 0;
    json_decref(data), text_free(&page);
    return rc;
}
