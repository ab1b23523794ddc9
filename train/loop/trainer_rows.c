/* trainer_rows.c: how a recipe, or the flags of `hone tokenize`, say that rows are read; the day
 * that chat templates are told. */
#include "train/loop/loop.h"

#include <jansson.h>
#include <string.h>
#include <time.h>

int row_settings_open(struct row_settings *s, const struct text_list *columns,
                      const struct text_list *kwargs, struct err *e) {
    *s = (struct row_settings){0};
    if ((s->columns = recipe_pairs(columns, false, "columns", e)) &&
        (s->kwargs = recipe_pairs(kwargs, true, "chat_template_kwargs", e)) &&
        !row_columns_check(s->columns, e))
        return 0;
    row_settings_close(s);
    return -1;
}

void row_settings_close(struct row_settings *s) {
    json_decref(s->columns), json_decref(s->kwargs);
    *s = (struct row_settings){0};
}

int chat_day(struct chat *c, const char *day, struct err *e) {
    struct tm t = {.tm_isdst = -1};
    int used = 0;
    if (day) {
        if (sscanf(day, "%4d-%2d-%2d%n", &t.tm_year, &t.tm_mon, &t.tm_mday, &used) != 3 ||
            used != 10 || day[used] || t.tm_mon < 1 || t.tm_mon > 12 || t.tm_mday < 1 ||
            t.tm_mday > 31 || t.tm_year < 1970)
            return err_input(e, "template_date: found '%.40s', expected a day as 2026-11-30", day);
        t.tm_year -= 1900, t.tm_mon -= 1;
    } else { /* today, or as SOURCE_DATE_EPOCH says */
        const time_t now = c ? (time_t)chat_now(c) : time(NULL);
        if (!localtime_r(&now, &t)) return err_failed(e, "the clock has no day");
        t.tm_hour = t.tm_min = t.tm_sec = 0, t.tm_isdst = -1;
    }
    const int month = t.tm_mon;
    const time_t midnight = mktime(&t);
    if (midnight == (time_t)-1 || t.tm_mon != month)
        return err_input(e, "template_date: there is no day '%.40s'", day ? day : "");
    if (c) chat_date(c, (i64)midnight);
    return 0;
}
