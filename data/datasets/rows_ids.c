/* rows_ids.c: rows of token ids that somebody else made: {"input_ids", "labels"}, or with TRL's
 * completion_mask and assistant_masks. */
#include "data/datasets/datasets_int.h"
#include <string.h>

/* Numbers 0 and 1 beside the ids; NULL: there are none of that name, or an error. */
static const json_t *mask_of(const struct rows *r, const char *key, size_t count, struct err *e) {
    const json_t *mask = json_object_get(r->json, key), *one;
    size_t i;
    if (!mask) return NULL;
    if (json_array_size(mask) != count)
        return err_input(e, "%s:%lld: '%s' and 'input_ids' are not of one length", r->path,
                         (long long)r->line, key),
               NULL;
    json_array_foreach((json_t *)(uintptr_t)mask, i, one) {
        const json_int_t value = json_is_integer(one) ? json_integer_value(one) : -1;
        if (!strcmp(key, "labels") ? json_is_integer(one) : value == 0 || value == 1) continue;
        err_input(e, "%s:%lld: '%s' holds what is no %s, at place %zu", r->path, (long long)r->line,
                  key, strcmp(key, "labels") ? "0 or 1" : "integer", i);
        return NULL;
    }
    return mask;
}

static bool mask_at(const json_t *mask, size_t i) {
    return !mask || json_integer_value(json_array_get(mask, i)) != 0;
}

/* Tokens that somebody else made, as they are; those that attention_mask leaves out at the ends are
 * padding. */
int rows_ids(struct rows *r, struct document *out, struct err *e) {
    const json_t *ids = json_object_get(r->json, "input_ids");
    const size_t count = json_array_size(ids);
    const json_t *labels = mask_of(r, "labels", count, e),
                 *mask = mask_of(r, "attention_mask", count, e),
                 *completion = mask_of(r, "completion_mask", count, e),
                 *assistant = mask_of(r, "assistant_masks", count, e);
    size_t first = 0, end = count;
    if (e->code) return -1;
    if (!r->options->completion_only_loss) completion = NULL;
    if (!r->options->assistant_only_loss) assistant = NULL;
    while (first < end && !mask_at(mask, first)) first++;
    while (end > first && !mask_at(mask, end - 1)) end--;
    if (first == end)
        return err_input(e, "%s:%lld: 'input_ids' holds no tokens", r->path, (long long)r->line);
    if (first || end < count)
        row_note(&r->notes.said, "tokens that attention_mask leaves out at the ends are padding",
                 r->line);
    r->made.size = 0, r->spans.count = 0;
    for (size_t i = first; i < end; i++) {
        const json_t *one = json_array_get(ids, i), *label = json_array_get(labels, i);
        const json_int_t id = json_is_integer(one) ? json_integer_value(one) : -1;
        const json_int_t want = label ? json_integer_value(label) : id;
        const u32 value = (u32)id;
        if (id < 0 || id > UINT32_MAX || (r->options->vocab_size && id >= r->options->vocab_size)) {
            err_input(e, "%s:%lld: 'input_ids' holds what is no token at place %zu", r->path,
                      (long long)r->line, i);
            return err_detail(e, "expected integers from 0 to %lld, the tokenizer's vocabulary",
                              (long long)r->options->vocab_size - 1);
        }
        if (!mask_at(mask, i))
            return err_input(e, "%s:%lld: 'attention_mask' has a 0 between ones, at place %zu",
                             r->path, (long long)r->line, i);
        if (want != -100 && want != id) {
            err_input(e, "%s:%lld: 'labels' has %lld where the id is %lld, at place %zu", r->path,
                      (long long)r->line, (long long)want, (long long)id, i);
            return err_hint(e, "labels are the ids themselves, not shifted, or -100");
        }
        const i64 at = (i64)(i - first), last = r->spans.count - 1;
        if (text_add(&r->made, &value, sizeof value, e)) return -1;
        if (want == -100 || !mask_at(completion, i) || !mask_at(assistant, i)) continue;
        if (last >= 0 && r->spans.item[last].end == at)
            r->spans.item[last].end++;
        else if (spans_add(&r->spans, at, at + 1, e))
            return -1;
    }
    if (!r->spans.count)
        return err_input(e, "%s:%lld: no token of the row is trained", r->path, (long long)r->line);
    *out = (struct document){.text = r->made.data,
                             .size = r->made.size,
                             .row = r->number,
                             .ids = true,
                             .span = r->spans.item,
                             .spans = r->spans.count};
    return 1;
}
