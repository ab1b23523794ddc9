/* tokenizer_field.c: fields of a tokenizer.json, and what to say of one that is something else. */
#include "data/tokenizers/tokenizers_int.h"

const char *json_kind_of(const json_t *j) {
    static const char *const name[] = {"an object", "an array", "text",  "an integer",
                                       "a number",  "true",     "false", "null"};
    return j ? name[json_typeof(j)] : "nothing";
}

int json_bytes(const json_t *o, const char *key, const char *where, struct bytes *out,
               struct err *e) {
    const json_t *j = json_object_get(o, key);
    *out = (struct bytes){"", 0};
    if (!json_is_string(j))
        return err_input(e, "%s: \"%s\" must be text, but is %s", where, key, json_kind_of(j));
    *out = (struct bytes){json_string_value(j), (i64)json_string_length(j)};
    return 0;
}

const char *json_kind(const json_t *o, const char *where, struct err *e) {
    struct bytes type;
    if (!json_is_object(o))
        return err_input(e, "%s must be an object, but is %s", where, json_kind_of(o)), NULL;
    return json_bytes(o, "type", where, &type, e) ? NULL : type.data;
}
