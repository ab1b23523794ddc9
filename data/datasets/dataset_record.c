/* dataset_record.c: what is said of the files that a dataset is made of, in it and to the user. */
#include "data/datasets/datasets_int.h"
#include <string.h>

int source_record(struct text *to, const char *name, const struct source_options *o,
                  const struct source_facts *f, struct err *e) {
    if (text_printf(to, e, "%s{\"file\": ", to->size > 1 ? ",\n " : "") ||
        json_text_add(to, name, (i64)strlen(name), e) ||
        text_printf(to, e, ", \"sha256\": \"%s\", \"bytes\": %lld, \"documents\": %lld", f->sha256,
                    (long long)f->bytes, (long long)f->documents))
        return -1;
    if (o->split != SPLIT_ALL &&
        text_printf(to, e, ", \"split\": \"%s\", \"validation_fraction\": %.17g, \"seed\": %llu",
                    o->split == SPLIT_TRAIN ? "train" : "validation", o->validation_fraction,
                    (unsigned long long)o->seed))
        return -1;
    if (f->conversations && text_printf(to, e, ", \"chat_template\": \"%s\"", chat_sha256(o->chat)))
        return -1;
    char day[11];
    if (f->conversations && o->rules.version != 1 && chat_dated(o->chat)) {
        chat_day_text(o->chat, day);
        if (text_printf(to, e, ", \"template_date\": \"%s\"", day)) return -1;
    }
    if (f->skipped && text_printf(to, e, ", \"skipped\": %lld", (long long)f->skipped)) return -1;
    return text_add(to, "}", 1, e);
}

int source_note(struct text *to, const char *name, const struct source_facts *f, struct err *e) {
    return text_printf(to, e, "note: %s: %lld row%s, %lld document%s\n", name, (long long)f->rows,
                       f->rows == 1 ? "" : "s", (long long)f->documents,
                       f->documents == 1 ? "" : "s");
}

int left_out_note(const struct dataset_job *job, const char *path, i64 few, i64 twice,
                  struct err *e) {
    if (!job->notes) return 0;
    if (few && text_printf(job->notes, e,
                           "note: %s: left out: %lld document%s of fewer than %lld tokens\n", path,
                           (long long)few, few == 1 ? "" : "s", (long long)job->min_tokens))
        return -1;
    return twice ? text_printf(job->notes, e,
                               "note: %s: left out: %lld document%s that %s there already\n", path,
                               (long long)twice, twice == 1 ? "" : "s", twice == 1 ? "is" : "are")
                 : 0;
}
