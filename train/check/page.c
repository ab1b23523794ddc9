/* page.c: what a check found as one HTML file that asks for nothing outside of itself. */
#include "train/check/check.h"

#include <string.h>

static const char head[] =
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<title>hone check</title>\n<style>\n"
    ":root{color-scheme:light dark;--ink:#1c2430;--soft:#667;--line:#d8dce3;--paper:#fff;"
    "--bar:#3b6ea8;--good:#1d7a3e;--note:#a76a00;--bad:#b3261e}\n"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#98a1b0;--line:#343b47;"
    "--paper:#161a20;--bar:#6ea3dd;--good:#5fc27e;--note:#e0a84a;--bad:#ff7b72}}\n"
    "body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);"
    "max-width:62rem;margin:0 auto;padding:1.5rem}\n"
    "h1{font-size:1.4rem}h2{font-size:1.05rem;margin:2rem 0 .4rem;overflow-wrap:anywhere}\n"
    "table{border-collapse:collapse;width:100%}td{padding:.25rem .6rem;border-top:1px solid "
    "var(--line);vertical-align:top;overflow-wrap:anywhere}\n"
    "td:first-child{white-space:nowrap;color:var(--soft);width:11rem}\n"
    ".note td:first-child{color:var(--note)}.waste td{color:var(--bad)}\n"
    ".lengths td{border:0;padding:.05rem .6rem;font-variant-numeric:tabular-nums}\n"
    ".lengths td:first-child{text-align:right}.bar{height:.8rem;background:var(--bar);"
    "border-radius:2px;min-width:1px}\n"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere;border:1px solid var(--line);"
    "border-radius:6px;padding:.8rem;font:13px/1.55 ui-monospace,monospace;color:var(--soft)}\n"
    "pre b{font-weight:normal;color:var(--good)}code{font:13px ui-monospace,monospace}\n"
    ".verdict{font-weight:600}\n@media(max-width:36rem){td:first-child{width:auto;"
    "white-space:normal}}\n</style></head><body>\n";

static int add(struct text *t, const char *text, struct err *e) {
    return text_add(t, text, (i64)strlen(text), e);
}

static int escaped(struct text *t, const json_t *j, const char *key, struct err *e) {
    const json_t *value = json_object_get(j, key);
    const char *p = json_string_value(value);
    const i64 size = p ? (i64)json_string_length(value) : 0;
    int rc = 0;
    for (i64 i = 0; !rc && i < size; i++) {
        const char c = p[i];
        rc = c == '&'   ? add(t, "&amp;", e)
             : c == '<' ? add(t, "&lt;", e)
             : c == '>' ? add(t, "&gt;", e)
             : c == '"' ? add(t, "&quot;", e)
             : ((unsigned char)c < 32 && c != '\n' && c != '\t')
                 ? text_printf(t, e, "\\u%04x", (unsigned)c)
                 : text_add(t, &c, 1, e);
    }
    return rc;
}

static int lengths_add(struct text *t, const json_t *lengths, struct err *e) {
    const json_t *bin;
    size_t i;
    long long most = 1, from = 1;
    int rc = lengths ? add(t, "<table class=\"lengths\">\n", e) : 0;
    json_array_foreach((json_t *)(uintptr_t)lengths, i, bin) {
        const long long count = json_integer_value(json_object_get(bin, "count"));
        if (count > most) most = count;
    }
    json_array_foreach((json_t *)(uintptr_t)lengths, i, bin) {
        const long long count = json_integer_value(json_object_get(bin, "count")),
                        to = json_integer_value(json_object_get(bin, "to"));
        rc = rc ||
             text_printf(t, e,
                         "<tr><td>%lld to %lld</td><td style=\"width:70%%\"><div class=\"bar\" "
                         "style=\"width:%.2f%%\"></div></td><td>%lld</td></tr>\n",
                         from, to, (double)count * 100 / (double)most, count);
        from = to + 1;
    }
    return rc || (lengths && add(t, "</table>\n", e)) ? -1 : 0;
}

static int section_add(struct text *t, const json_t *section, struct err *e) {
    const json_t *row;
    size_t i;
    int rc = add(t, "<h2>", e) || escaped(t, section, "title", e) || add(t, "</h2>\n<table>\n", e);
    json_array_foreach(json_object_get(section, "rows"), i, row) rc =
        rc || add(t, "<tr class=\"", e) || escaped(t, row, "level", e) || add(t, "\"><td>", e) ||
        escaped(t, row, "label", e) || add(t, "</td><td>", e) || escaped(t, row, "value", e) ||
        add(t, "</td></tr>\n", e);
    return rc || add(t, "</table>\n", e) || lengths_add(t, json_object_get(section, "lengths"), e)
               ? -1
               : 0;
}

static int sample_add(struct text *t, const json_t *sample, struct err *e) {
    const json_t *run;
    size_t i;
    int rc = add(t, "<h2>", e) || escaped(t, sample, "title", e) || add(t, "</h2>\n<pre>", e);
    json_array_foreach(json_object_get(sample, "runs"), i, run) {
        const bool trained = json_is_true(json_object_get(run, "trained"));
        rc = rc || (trained && add(t, "<b>", e)) || escaped(t, run, "text", e) ||
             (trained && add(t, "</b>", e));
    }
    return rc || add(t, "</pre>\n", e) ? -1 : 0;
}

int findings_page(const struct findings *f, const char *path, struct err *e) {
    const json_t *one, *suggestions = json_object_get(f->all, "suggestions");
    struct text t = {0};
    size_t i;
    int rc = add(&t, head, e) || add(&t, "<h1>hone check</h1>\n<p class=\"verdict\">", e) ||
             (f->wasted ? text_printf(&t, e, "%lld thing%s would waste this run",
                                      (long long)f->wasted, f->wasted == 1 ? "" : "s")
                        : add(&t, "Nothing was found that would waste this run", e)) ||
             add(&t, ".</p>\n", e);
    json_array_foreach(json_object_get(f->all, "sections"), i, one) rc =
        rc || section_add(&t, one, e);
    json_array_foreach(json_object_get(f->all, "samples"), i, one) rc =
        rc || sample_add(&t, one, e);
    if (json_array_size(suggestions))
        rc = rc || add(&t, "<h2>what could be changed</h2>\n<table>\n", e);
    json_array_foreach(suggestions, i, one) rc =
        rc || add(&t, "<tr><td><code>", e) || escaped(&t, one, "line", e) ||
        add(&t, "</code></td><td>", e) || escaped(&t, one, "why", e) || add(&t, "</td></tr>\n", e);
    if (json_array_size(suggestions)) rc = rc || add(&t, "</table>\n", e);
    rc = rc || add(&t, "</body></html>\n", e) || file_replace(path, t.data, t.size, e);
    return text_free(&t), rc ? -1 : 0;
}
