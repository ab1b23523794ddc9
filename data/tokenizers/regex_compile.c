/* regex_compile.c: PCRE2's compiler, with our memory. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include "data/tokenizers/tokenizers_int.h"

static void *regex_alloc(size_t size, void *unused) {
    (void)unused;
    return mem_new((i64)size, &(struct err){0});
}
static void regex_free(void *p, void *unused) {
    (void)unused;
    mem_free(p);
}

void *regex_memory(void) { return pcre2_general_context_create(regex_alloc, regex_free, NULL); }

void *regex_compile(const char *regex, int *code, i64 *at) {
    pcre2_general_context *g = regex_memory();
    pcre2_compile_context *c = g ? pcre2_compile_context_create(g) : NULL;
    PCRE2_SIZE place = 0;
    *code = PCRE2_ERROR_NOMEMORY;
    pcre2_code *re =
        c ? pcre2_compile((PCRE2_SPTR)regex, PCRE2_ZERO_TERMINATED,
                          PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, code,
                          &place, c)
          : NULL;
    pcre2_compile_context_free(c);
    pcre2_general_context_free(g);
    *at = (i64)place;
    return re;
}

bool regex_is_script(const char *name, i64 size) {
    char regex[80];
    int code;
    i64 at;
    if (size > 40) return false;
    snprintf(regex, sizeof regex, "\\p{sc:%.*s}", (int)size, name);
    pcre2_code *re = regex_compile(regex, &code, &at);
    pcre2_code_free(re);
    return re != NULL;
}
