/* pretokenize_regex.c: matching one pattern: a scanner, a class of characters, a literal, or PCRE2
 * (UTF and UCP, no JIT: it would need executable memory, and the common patterns have scanners).
 * Hugging Face uses Oniguruma: what PCRE2 writes differently is translated (regex_translate.c), and
 * the rest is listed in README.md. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>
#include "data/tokenizers/tokenizers_int.h"

int pattern_compile(struct pattern *p, const char *regex, const char *where, enum pattern_use use,
                    struct err *e) {
    classes_start();
    if (use != PATTERN_REGEX && (p->scan = scan_find(regex, use == PATTERN_GAPS))) return 0;
    int code;
    i64 at;
    PCRE2_UCHAR message[128];
    struct text ours = {0};
    if (regex_translate(regex, &ours, where, e)) return text_free(&ours), -1;
    p->regex = regex_compile(ours.data, &code, &at);
    text_free(&ours);
    if (p->regex) return 0;
    pcre2_get_error_message(code, message, sizeof message);
    err_input(e, "%s: the pattern \"%.200s\" is not supported: %s (at byte %lld)", where, regex,
              (char *)message, (long long)at);
    return err_detail(e, "patterns are read as PCRE2 regular expressions");
}

void pattern_free(struct pattern *p) {
    pcre2_code_free(p->regex);
    *p = (struct pattern){0};
}

void scratch_free(void *scratch) { pcre2_match_data_free(scratch); }

static int regex_match(const struct pattern *p, struct search *s, i64 *begin, i64 *end,
                       struct err *e) {
    if (!*s->scratch) {
        pcre2_general_context *g = regex_memory();
        *s->scratch = g ? pcre2_match_data_create(1, g) : NULL;
        pcre2_general_context_free(g);
        if (!*s->scratch) return err_memory(e, "out of memory for matching a pattern");
    }
    int rc = pcre2_match(p->regex, (PCRE2_SPTR)s->text, (PCRE2_SIZE)s->size, (PCRE2_SIZE)s->from,
                         PCRE2_NO_UTF_CHECK, *s->scratch, NULL);
    if (rc == PCRE2_ERROR_NOMATCH) return 0;
    if (rc < 0) {
        PCRE2_UCHAR message[128];
        pcre2_get_error_message(rc, message, sizeof message);
        return err_failed(e, "matching the tokenizer's pattern failed: %s", (char *)message);
    }
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(*s->scratch);
    *begin = (i64)range[0];
    *end = (i64)range[1];
    if (*begin > *end)
        return err_failed(e, "the tokenizer's pattern sets a match's start after its end (\\K)");
    return 1;
}

static int match_once(const struct pattern *p, struct search *s, i64 *begin, i64 *end,
                      struct err *e) {
    if (p->regex) return regex_match(p, s, begin, end, e);
    if (p->scan) {
        if (s->from >= s->size) return 0;
        *begin = s->from;
        *end = p->scan(s->text, s->size, s->from);
        return 1;
    }
    if (p->set) {
        for (i64 at = s->from; at < s->size; *begin = at)
            if (*begin = at, class_of_code[code_at(s->text, &at)] & p->set) return *end = at, 1;
        return 0;
    }
    const char *hit = s->from < s->size ? memmem(s->text + s->from, (size_t)(s->size - s->from),
                                                 p->literal.data, (size_t)p->literal.size)
                                        : NULL;
    if (!hit) return 0;
    *begin = hit - s->text;
    *end = *begin + p->literal.size;
    return 1;
}

int pattern_next(const struct pattern *p, struct search *s, i64 *begin, i64 *end, struct err *e) {
    for (; s->from <= s->size;) {
        int found = match_once(p, s, begin, end, e);
        if (found <= 0) return found;
        if (*begin != *end || !s->matched || s->last_end != *end) {
            s->matched = true;
            s->from = s->last_end = *end;
            return 1;
        }
        if (s->from == s->size) return 0;
        code_at(s->text, &s->from);
    }
    return 0;
}

/* Appends with each byte `c` replaced, by spreading what was appended from its end. */
static int replace_byte(char c, struct bytes with, struct bytes in, struct text *out,
                        struct err *e) {
    i64 hits = 0, from = out->size;
    for (const char *at = in.data, *end = at + in.size; (at = memchr(at, c, (size_t)(end - at)));
         at++)
        hits++;
    if (text_add(out, in.data, in.size, e)) return -1;
    for (i64 i = 0; i < hits; i++)
        if (text_add(out, with.data, with.size - 1, e)) return -1;
    char *to = out->data + out->size, *at = out->data + from + in.size;
    while (hits) {
        if (*--at != c)
            *--to = *at;
        else {
            memcpy(to -= with.size, with.data, (size_t)with.size);
            hits--;
        }
    }
    return 0;
}

int text_replace(const struct pattern *p, struct bytes with, struct bytes in, struct text *out,
                 void **scratch, struct err *e) {
    if (p->literal.size == 1 && with.size) return replace_byte(*p->literal.data, with, in, out, e);
    struct search s = {.text = in.data, .size = in.size, .scratch = scratch};
    i64 from = 0, begin, end;
    int found;
    while ((found = pattern_next(p, &s, &begin, &end, e)) > 0) {
        if (text_add(out, in.data + from, begin - from, e) ||
            text_add(out, with.data, with.size, e))
            return -1;
        from = end;
    }
    return found ? -1 : text_add(out, in.data + from, in.size - from, e);
}
