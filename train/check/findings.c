/* findings.c: what a check found, as JSON that is printed in several ways. */
#include "train/check/check.h"

#include <string.h>

int findings_open(struct findings *f, struct err *e) {
    *f = (struct findings){0};
    f->all = json_pack("{s:[], s:[], s:[]}", "sections", "samples", "suggestions");
    return f->all ? 0 : err_memory(e, "out of memory");
}

void findings_free(struct findings *f) { json_decref(f->all), f->all = NULL; }

static json_t *sentence(const char *fmt, va_list args) PRINTF(1, 0);
static json_t *sentence(const char *fmt, va_list args) {
    char text[1024];
    vsnprintf(text, sizeof text, fmt, args);
    return json_name(text);
}

json_t *findings_section(struct findings *f, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    json_t *list = json_object_get(f->all, "sections"),
           *one = json_pack("{s:o, s:[]}", "title", sentence(fmt, args), "rows");
    va_end(args);
    return json_array_append_new(list, one) ? NULL : one;
}

void findings_row(struct findings *f, enum finding level, const char *label, const char *fmt, ...) {
    static const char *const name[] = {"fine", "note", "waste"};
    const json_t *list = json_object_get(f->all, "sections");
    const json_t *last = json_array_get(list, json_array_size(list) - 1);
    va_list args;
    va_start(args, fmt);
    json_array_append_new(json_object_get(last, "rows"),
                          json_pack("{s:o, s:o, s:s}", "label", json_name(label), "value",
                                    sentence(fmt, args), "level", name[level]));
    va_end(args);
    f->wasted += level == WASTE;
}

void findings_suggest(struct findings *f, const char *line, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    json_array_append_new(
        json_object_get(f->all, "suggestions"),
        json_pack("{s:o, s:o}", "line", json_name(line), "why", sentence(fmt, args)));
    va_end(args);
}

/* ---- as text */

static const char *text_of(const json_t *j, const char *key) {
    const char *text = json_string_value(json_object_get(j, key));
    return text ? text : "";
}

static void row_print(const json_t *row, FILE *to) {
    const char *level = text_of(row, "level");
    const char mark = *level == 'w' ? '!' : *level == 'n' ? '*' : ' ';
    show(to, "%c %-20s %s\n", mark, text_of(row, "label"), text_of(row, "value"));
}

static void lengths_print(const json_t *lengths, FILE *to) {
    const json_t *bin;
    size_t i;
    i64 most = 1, from = 1;
    json_array_foreach((json_t *)(uintptr_t)lengths, i, bin) most =
        i64_max(most, json_integer_value(json_object_get(bin, "count")));
    json_array_foreach((json_t *)(uintptr_t)lengths, i, bin) {
        const i64 count = json_integer_value(json_object_get(bin, "count")),
                  last = json_integer_value(json_object_get(bin, "to"));
        char bar[41] = "";
        const i64 width = (count * 40 + most - 1) / most;
        memset(bar, '#', (size_t)width), bar[width] = 0;
        fprintf(to, "  %9lld to %8lld %-40s %lld\n", (long long)from, (long long)last, bar,
                (long long)count);
        from = last + 1;
    }
}

static void sample_print(const json_t *sample, FILE *to) {
    const json_t *run;
    size_t i;
    show(to, "\n%s\n", text_of(sample, "title"));
    json_array_foreach(json_object_get(sample, "runs"), i, run) {
        const char *text = text_of(run, "text");
        fprintf(to, "\033[%sm", json_is_true(json_object_get(run, "trained")) ? "32" : "90");
        show_bytes(to, text, (i64)strlen(text), true);
        fprintf(to, "\033[0m");
    }
    fprintf(to, "\n");
}

void findings_print(const struct findings *f, FILE *to) {
    const json_t *section, *row, *one;
    size_t i, k;
    json_array_foreach(json_object_get(f->all, "sections"), i, section) {
        show(to, "%s%s\n", i ? "\n" : "", text_of(section, "title"));
        json_array_foreach(json_object_get(section, "rows"), k, row) row_print(row, to);
        lengths_print(json_object_get(section, "lengths"), to);
    }
    json_array_foreach(json_object_get(f->all, "samples"), i, one) sample_print(one, to);
    if (json_array_size(json_object_get(f->all, "suggestions")))
        show(to, "\nwhat could be changed\n");
    json_array_foreach(json_object_get(f->all, "suggestions"), i, one)
        show(to, "  %-28s # %s\n", text_of(one, "line"), text_of(one, "why"));
    if (f->wasted)
        show(to, "\n%lld thing%s (marked !) would waste this run\n", (long long)f->wasted,
             f->wasted == 1 ? "" : "s");
    else
        show(to, "\nnothing was found that would waste this run\n");
}
