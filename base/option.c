/* option.c: recipe keys and command flags as rows of a table, bound to members of a struct.
 *
 * One row feeds parsing, range checks, help and the lock, so they cannot disagree. Text that
 * outlives the call goes to the caller's arena. Rejected: generated code, and one parser function
 * per key. */
#include "base/base.h"
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

const struct option *option_find(const struct option *table, const char *key) {
    for (; table->key; table++)
        if (!strcmp(table->key, key)) return table;
    return NULL;
}

/* Insertions, deletions, replacements and swaps of neighbours; only the first 63 bytes count. */
int edit_distance(const char *a, const char *b) {
    enum { WIDTH = 64 };
    int row[3][WIDTH];
    int na = (int)strnlen(a, WIDTH - 1), nb = (int)strnlen(b, WIDTH - 1);
    for (int j = 0; j <= nb; j++) row[0][j] = j;
    for (int i = 1; i <= na; i++) {
        int *now = row[i % 3], *last = row[(i + 2) % 3], *older = row[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= nb; j++) {
            int best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < best) best = last[j] + 1;
            if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
            bool swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swap && older[j - 2] + 1 < best) best = older[j - 2] + 1;
            now[j] = best;
        }
    }
    return row[na % 3][nb];
}

const char *option_nearest(const struct option *table, const char *key) {
    int best = (int)i64_max(2, (i64)strlen(key) / 3) + 1;
    const char *nearest = NULL;
    for (; table->key; table++) {
        int distance = edit_distance(table->key, key);
        if (distance < best && distance < (int)strlen(table->key))
            best = distance, nearest = table->key;
    }
    return nearest;
}

static int wrong(const struct option *o, const char *value, const char *wanted, const char *where,
                 struct err *e) {
    return err_input(e, "%s: %s = '%s'; expected %s", where, o->key, value, wanted);
}

static int in_range(const struct option *o, double x, const char *value, const char *where,
                    struct err *e) {
    if ((o->min == 0 && o->max == 0) || (x >= o->min && x <= o->max)) return 0;
    return err_input(e, "%s: %s = %s is out of range: %.15g to %.15g", where, o->key, value, o->min,
                     o->max);
}

static int parse_int(const struct option *o, const char *value, i64 *to, const char *where,
                     struct err *e) {
    char *end;
    errno = 0;
    long long n = strtoll(value, &end, 10);
    if (end == value || *end || isspace((u8)*value)) return wrong(o, value, "an integer", where, e);
    if (errno) return wrong(o, value, "an integer of 64 bits", where, e);
    if (in_range(o, (double)n, value, where, e)) return -1;
    *to = n;
    return 0;
}

static int parse_float(const struct option *o, const char *value, double *to, const char *where,
                       struct err *e) {
    char *end;
    double x = strtod(value, &end);
    if (end == value || *end || isspace((u8)*value) || x - x != 0)
        return wrong(o, value, "a number", where, e);
    if (in_range(o, x, value, where, e)) return -1;
    *to = x;
    return 0;
}

static int parse_bool(const struct option *o, const char *value, bool *to, const char *where,
                      struct err *e) {
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};
    for (i64 i = 0; i < COUNT(words); i++)
        if (!strcasecmp(value, words[i])) return *to = i & 1, 0;
    return wrong(o, value, "true or false", where, e);
}

static int parse_choice(const struct option *o, const char *value, const char **to,
                        const char *where, struct arena *a, struct err *e) {
    char word[64], near[64] = "";
    int least = (int)i64_min(4, (i64)strlen(value) / 3 + 1) + 1;
    for (const char *at = o->choices; *at;) {
        size_t length = strcspn(at, " ");
        snprintf(word, sizeof word, "%.*s", (int)length, at);
        if (*value && !strcmp(word, value)) return (*to = arena_text(a, value, e)) ? 0 : -1;
        const int d = edit_distance(value, word);
        if (d < least) least = d, strcpy(near, word);
        at += length + strspn(at + length, " ");
    }
    wrong(o, value, "a known choice", where, e);
    err_detail(e, "one of: %s", o->choices);
    return *near ? err_hint(e, "did you mean '%s'?", near) : -1;
}

static int parse_list(const struct option *o, const char *value, void *member, const char *where,
                      struct arena *a, struct err *e) {
    char *copy = arena_text(a, value, e);
    if (!copy) return -1;
    i64 count = *value ? 1 : 0, done = 0;
    for (const char *at = value; *at; at++) count += *at == ',';
    struct text_list texts = {.count = count};
    struct int_list ints = {.count = count};
    if (o->type == OPT_INT_LIST)
        ints.item = arena_new(a, count * (i64)sizeof *ints.item, e);
    else
        texts.item = arena_new(a, count * (i64)sizeof *texts.item, e);
    if (!ints.item && !texts.item) return -1;
    for (char *at = copy; done < count; done++) {
        at += strspn(at, " ");
        char *comma = at + strcspn(at, ","), *next = comma + 1, *end = comma;
        while (end > at && end[-1] == ' ') end--;
        *end = 0;
        if (texts.item)
            texts.item[done] = at;
        else if (parse_int(o, at, &ints.item[done], where, e))
            return -1;
        at = next;
    }
    if (texts.item)
        *(struct text_list *)member = texts;
    else
        *(struct int_list *)member = ints;
    return 0;
}

static int list_append(struct text_list *list, const char *value, struct arena *a, struct err *e) {
    char **item = value ? arena_new(a, (list->count + 1) * (i64)sizeof *item, e) : NULL;
    if (!value) return *list = (struct text_list){0}, 0;
    for (i64 i = 0; item && i < list->count; i++) item[i] = list->item[i];
    if (!item || !(item[list->count] = arena_text(a, value, e))) return -1;
    return *list = (struct text_list){item, list->count + 1}, 0;
}

/* Members are reached by byte offset; `offset` comes from offsetof, so the alignment is right. */
static int set_row(const struct option *o, void *to, const char *value, const char *where,
                   struct arena *a, struct err *e) {
    void *member = (u8 *)to + o->offset;
    switch (o->type) {
    case OPT_BOOL:
        return value ? parse_bool(o, value, member, where, e) : (*(bool *)member = false, 0);
    case OPT_INT: return value ? parse_int(o, value, member, where, e) : (*(i64 *)member = 0, 0);
    case OPT_FLOAT:
        return value ? parse_float(o, value, member, where, e) : (*(double *)member = 0, 0);
    case OPT_TEXT:
        *(const char **)member = value ? arena_text(a, value, e) : NULL;
        return value && !*(const char **)member ? -1 : 0;
    case OPT_CHOICE:
        if (value) return parse_choice(o, value, member, where, a, e);
        *(const char **)member = NULL;
        return 0;
    case OPT_TEXT_EACH: return list_append(member, value, a, e);
    default: return parse_list(o, value ? value : "", member, where, a, e);
    }
}

int option_defaults(const struct option *table, void *to, struct arena *a, struct err *e) {
    for (; table->key; table++)
        if (set_row(table, to, table->otherwise, "default", a, e)) return -1;
    return 0;
}

int option_set(const struct option *table, void *to, const char *key, const char *value,
               const char *where, struct arena *a, struct err *e) {
    const struct option *o = option_find(table, key);
    if (o) return set_row(o, to, value, where, a, e);
    err_input(e, "%s: unknown key '%s'", where, key);
    const char *near = option_nearest(table, key);
    return near ? err_hint(e, "did you mean '%s'?", near) : -1;
}

int option_print(const struct option *o, const void *from, struct text *out, struct err *e) {
    const void *member = (const u8 *)from + o->offset;
    const struct int_list *ints = member;
    const struct text_list *texts = member;
    const char *text;
    int result = text_add(out, "", 0, e);
    switch (o->type) {
    case OPT_BOOL: return text_printf(out, e, "%s", *(const bool *)member ? "true" : "false");
    case OPT_INT: return text_printf(out, e, "%lld", (long long)*(const i64 *)member);
    case OPT_FLOAT: return text_f64(out, *(const double *)member, e);
    case OPT_TEXT:
    case OPT_CHOICE:
        text = *(const char *const *)member;
        return text_printf(out, e, "%s", text ? text : "");
    case OPT_INT_LIST:
        for (i64 i = 0; i < ints->count && !result; i++)
            result = text_printf(out, e, "%s%lld", i ? "," : "", (long long)ints->item[i]);
        return result;
    default:
        for (i64 i = 0; i < texts->count && !result; i++)
            result = text_printf(out, e, "%s%s", i ? "," : "", texts->item[i]);
        return result;
    }
}
