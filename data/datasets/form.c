/* form.c: what a file holds, by its name or as the user says. */
#include "data/datasets/datasets_int.h"
#include <string.h>

static const struct {
    const char *name; /* of the type, and, with a dot in front, of files */
    enum source_form form;
} forms[] = {{"text", FORM_TEXT},      {"txt", FORM_TEXT},   {"md", FORM_TEXT},
             {"markdown", FORM_TEXT},  {"jsonl", FORM_JSON}, {"ndjson", FORM_JSON},
             {"json", FORM_JSON},      {"csv", FORM_CSV},    {"tsv", FORM_TSV},
             {"parquet", FORM_PARQUET}};

static enum source_form form_named(const char *name, size_t size) {
    for (int i = 0; i < COUNT(forms); i++)
        if (strlen(forms[i].name) == size && !strncasecmp(forms[i].name, name, size))
            return forms[i].form;
    return FORM_NONE;
}

enum source_form source_form_named(const char *type) { return form_named(type, strlen(type)); }

enum source_form source_form(const char *path) {
    const size_t all = strlen(path), gz = all > 3 && !strcmp(path + all - 3, ".gz") ? 3 : 0,
                 zst = all > 4 && !strcmp(path + all - 4, ".zst") ? 4 : 0, n = all - gz - zst;
    const char *name = memrchr(path, '/', n), *dot = memrchr(path, '.', n);
    if (!dot || dot <= (name ? name : path)) return FORM_NONE;
    const enum source_form form = form_named(dot + 1, n - (size_t)(dot + 1 - path));
    return form == FORM_PARQUET && (gz || zst) ? FORM_NONE : form; /* it is read by position */
}
