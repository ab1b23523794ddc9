/* json.c: JSON in by Jansson, out by our own writer.
 *
 * Reading refuses duplicate keys, malformed UTF-8, trailing text and more than 2,048 levels; it
 * allows NUL in strings, which tokenizer vocabularies contain. The writer exists because Jansson
 * prints 1e-05 as 1.0000000000000001e-05 and published configurations should survive a round trip
 * unchanged. Jansson allocates by itself (no fault injection): replacing its allocator would have
 * to happen before any other use of the library, unseen. */
#include "base/base.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

json_t *json_parse(const char *data, i64 size, const char *name, struct err *e) {
    json_error_t error;
    size_t flags = JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL;
    json_t *j = json_loadb(data ? data : "", (size_t)size, flags, &error);
    /* Published tokenizer_config.json files hold 1e30 written as an integer: read those as reals.
     */
    if (!j && json_error_code(&error) == json_error_numeric_overflow)
        j = json_loadb(data, (size_t)size, flags | JSON_DECODE_INT_AS_REAL, &error);
    if (!j && json_error_code(&error) == json_error_out_of_memory)
        err_memory(e, "out of memory reading %s", name);
    else if (!j)
        err_input(e, "%s:%d:%d: %s", name, error.line, error.column, error.text);
    return j;
}

json_t *json_open(const char *path, struct err *e) {
    struct text text;
    if (file_read(&text, path, e)) return NULL;
    json_t *j = json_parse(text.data, text.size, path, e);
    text_free(&text);
    return j;
}

int json_text_add(struct text *out, const char *bytes, i64 size, struct err *e) {
    static const char plain[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    int result = text_add(out, "\"", 1, e);
    for (i64 at = 0; at < size && !result;) {
        i64 from = at;
        int code = utf8_next(bytes, size, &at);
        const char *found = code > 0 && code < 128 ? strchr(plain, code) : NULL;
        if (found)
            result = text_printf(out, e, "\\%c", letter[found - plain]);
        else if (code < 0)
            result = text_add(out, "\xef\xbf\xbd", 3, e); /* U+FFFD */
        else if (code < 32)
            result = text_printf(out, e, "\\u%04x", (unsigned)code);
        else
            result = text_add(out, bytes + from, at - from, e);
    }
    return result ? result : text_add(out, "\"", 1, e);
}

int text_f64(struct text *t, double x, struct err *e) {
    if (x != x) return text_add(t, "nan", 3, e);
    if (x - x != 0) return text_printf(t, e, "%s", x < 0 ? "-inf" : "inf");
    char text[40];
    for (int digits = 0; digits < 17; digits++) { /* "-d.ddde-05" */
        snprintf(text, sizeof text, "%.*e", digits, x);
        double back = strtod(text, NULL);
        if (!memcmp(&back, &x, sizeof x)) break;
    }
    char *mark = strchr(text, 'e');
    int exponent = atoi(mark + 1), digits = (int)(mark - text) - (text[0] == '-');
    if (digits > 1) digits--; /* the point */
    if (exponent < -4 || exponent >= 16) return text_printf(t, e, "%s", text);
    int places = digits - 1 - exponent;
    return text_printf(t, e, "%.*f", places > 0 ? places : 1, x);
}

/* One value; `depth` is its nesting, `indent` 0 means one line, as Python's json.dumps writes both.
 */
static int value_write(struct text *t, const json_t *j, int indent, int depth, struct err *e);

static int line_break(struct text *t, int indent, int depth, struct err *e) {
    return indent ? text_printf(t, e, "\n%*s", indent * depth, "") : 0;
}

static int list_write(struct text *t, const json_t *j, int indent, int depth, struct err *e) {
    bool object = json_is_object(j);
    size_t count = object ? json_object_size(j) : json_array_size(j);
    void *at = object ? json_object_iter((json_t *)(uintptr_t)j) : NULL;
    if (text_add(t, object ? "{" : "[", 1, e)) return -1;
    for (size_t i = 0; i < count; i++) {
        if (i && text_add(t, ", ", indent ? 1 : 2, e)) return -1;
        if (line_break(t, indent, depth + 1, e)) return -1;
        const json_t *item = object ? json_object_iter_value(at) : json_array_get(j, i);
        if (object) {
            const char *key = json_object_iter_key(at);
            i64 size = (i64)json_object_iter_key_len(at);
            if (json_text_add(t, key, size, e) || text_add(t, ": ", 2, e)) return -1;
            at = json_object_iter_next((json_t *)(uintptr_t)j, at);
        }
        if (value_write(t, item, indent, depth + 1, e)) return -1;
    }
    if (count && line_break(t, indent, depth, e)) return -1;
    return text_add(t, object ? "}" : "]", 1, e);
}

static int value_write(struct text *t, const json_t *j, int indent, int depth, struct err *e) {
    switch (json_typeof(j)) {
    case JSON_OBJECT:
    case JSON_ARRAY: return list_write(t, j, indent, depth, e);
    case JSON_STRING: return json_text_add(t, json_string_value(j), (i64)json_string_length(j), e);
    case JSON_INTEGER: return text_printf(t, e, "%lld", (long long)json_integer_value(j));
    case JSON_REAL: return text_f64(t, json_real_value(j), e);
    case JSON_TRUE: return text_add(t, "true", 4, e);
    case JSON_FALSE: return text_add(t, "false", 5, e);
    default: return text_add(t, "null", 4, e);
    }
}

int json_save(const json_t *j, const char *path, int indent, struct err *e) {
    struct text t = {0};
    int result = value_write(&t, j, indent, 0, e) || text_add(&t, "\n", 1, e);
    if (!result) result = file_replace(path, t.data, t.size, e);
    text_free(&t);
    return result ? -1 : 0;
}

json_t *json_name(const char *text) {
    const i64 size = (i64)strlen(text);
    if (utf8_bad(text, size) < 0) return json_stringn(text, (size_t)size);
    struct text quoted = {0};
    const bool good = !json_text_add(&quoted, text, size, &(struct err){0});
    json_t *j = good ? json_loadb(quoted.data, (size_t)quoted.size, JSON_DECODE_ANY, NULL) : NULL;
    text_free(&quoted);
    return j;
}

json_t *json_finite(double x) { return x - x == 0 ? json_real(x) : json_null(); }

int json_print(json_t *j, struct err *e) {
    char *line = j ? json_dumps(j, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(j);
    if (!line) return err_memory(e, "out of memory while printing JSON");
    puts(line), fflush(stdout);
    free(line);
    return 0;
}

/* A member, or NULL if it is missing or null. */
static const json_t *member(const json_t *o, const char *key, const char *where, struct err *e) {
    if (!json_is_object(o)) {
        err_input(e, "%s: found no object where one with \"%s\" was expected", where, key);
        return NULL;
    }
    const json_t *j = json_object_get(o, key);
    return json_is_null(j) ? NULL : j;
}

static void wrong_type(const json_t *j, const char *key, const char *wanted, const char *where,
                       struct err *e) {
    struct text t = {0};
    bool shown = !value_write(&t, j, 0, 0, NULL);
    err_input(e, "%s: \"%s\" is %.60s%s; expected %s", where, key,
              shown ? t.data : "something else", t.size > 60 ? "..." : "", wanted);
    text_free(&t);
}

i64 json_i64(const json_t *o, const char *key, i64 otherwise, const char *where, struct err *e) {
    const json_t *j = member(o, key, where, e);
    if (!j) return otherwise;
    if (json_is_integer(j)) return json_integer_value(j);
    double x = json_is_real(j) ? json_real_value(j) : 0.5; /* see json_parse */
    if (x <= 0x1p+53 && x >= -0x1p+53 && (double)(i64)x == x) return (i64)x;
    wrong_type(j, key, "an integer", where, e);
    return otherwise;
}

double json_f64(const json_t *o, const char *key, double otherwise, const char *where,
                struct err *e) {
    const json_t *j = member(o, key, where, e);
    if (!j) return otherwise;
    if (json_is_number(j)) return json_number_value(j);
    wrong_type(j, key, "a number", where, e);
    return otherwise;
}

bool json_bool(const json_t *o, const char *key, bool otherwise, const char *where, struct err *e) {
    const json_t *j = member(o, key, where, e);
    if (!j) return otherwise;
    if (json_is_boolean(j)) return json_is_true(j);
    wrong_type(j, key, "true or false", where, e);
    return otherwise;
}

const char *json_text(const json_t *o, const char *key, const char *otherwise, const char *where,
                      struct err *e) {
    const json_t *j = member(o, key, where, e);
    if (!j) return otherwise;
    if (json_is_string(j)) return json_string_value(j);
    wrong_type(j, key, "a string", where, e);
    return otherwise;
}
