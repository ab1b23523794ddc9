/* config_value.c: a number of a configuration within its bounds. */
#include "recipes/models/models_int.h"

#include <jansson.h>

i64 config_size(const json_t *j, const char *key, i64 otherwise, i64 top, const char *where,
                struct err *e) {
    const i64 n = json_i64(j, key, otherwise, where, e);
    if (e->code) return 0;
    if (n >= 1 && n <= top) return n;
    const json_t *given = json_object_get(j, key);
    if (!given || json_is_null(given))
        err_input(e, "%s: '%s' is missing", where, key);
    else
        err_input(e, "%s: '%s' is %lld; expected 1 to %lld", where, key, (long long)n,
                  (long long)top);
    return 0;
}
