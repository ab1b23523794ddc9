/* refusal.c: errors as clients get them, in OpenAI's form. What the program itself would say of an
 * error goes into one message; the field that is wrong is named apart. */
#include "train/serve/serve_int.h"

#include <string.h>

int refuse(struct refusal *r, int status, const char *param, const char *fmt, ...) {
    va_list list;
    if (r->status) return -1;
    r->status = status;
    snprintf(r->param, sizeof r->param, "%s", param ? param : "");
    va_start(list, fmt);
    vsnprintf(r->message, sizeof r->message, fmt, list);
    va_end(list);
    return -1;
}

int refuse_err(struct refusal *r, const char *param, const struct err *e) {
    const int status = e->starved ? 503 : e->code == ERR_INPUT ? 400 : 500;
    return refuse(r, status, param, "%s%s%s%s%s", e->primary, *e->detail ? "; " : "", e->detail,
                  *e->hint ? "; " : "", e->hint);
}

int refusal_json(const struct refusal *r, struct text *out, struct err *e) {
    const char *type = r->status == 401   ? "authentication_error"
                       : r->status == 503 ? "overloaded_error"
                       : r->status >= 500 ? "server_error"
                                          : "invalid_request_error",
               *code = r->status == 401   ? "invalid_api_key"
                       : r->status == 404 ? "not_found"
                       : r->status == 413 ? "request_too_large"
                       : r->status == 503 ? "overloaded"
                                          : NULL;
    int rc = text_printf(out, e, "{\"error\": {\"message\": ") ||
             json_text_add(out, r->message, (i64)strlen(r->message), e) ||
             text_printf(out, e, ", \"type\": \"%s\", \"param\": ", type) ||
             (*r->param ? json_text_add(out, r->param, (i64)strlen(r->param), e)
                        : text_printf(out, e, "null"));
    return rc || text_printf(out, e, code ? ", \"code\": \"%s\"}}\n" : ", \"code\": null}}\n", code)
               ? -1
               : 0;
}
