/* chat.h: conversations inside data/: the templates of one tokenizer. */
#ifndef HONE_CHAT_H
#define HONE_CHAT_H

#include <jansson.h>
#include "data/data.h"

enum { CHAT_TEMPLATES = 64 };
struct chat {
    struct named_template {
        char *name, *text;
        i64 size;
        char sha256[65];
        char *stop; /* what it puts after an answer, without white space at the end */
        struct template *template; /* NULL: `broken` says why */
        struct err broken;
    } item[CHAT_TEMPLATES];
    i64 count;
    const struct named_template *use, *tools; /* tools: for rows that have some; may be NULL */
    json_t *special;                          /* "bos_token" and the like */
    i64 now;
};

/* Does the template that the row gets have {% generation %}? */
bool chat_generation(const struct chat *c, const json_t *row);
/* template_render_turns of a conversation. */
int chat_render_turns(const struct chat *c, const json_t *row, struct text *out, struct turn *turn,
                      i64 count, struct err *e);
/* Is a row a conversation? `instructions`: {"instruction", "output"} too. */
bool chat_row(const json_t *row, bool instructions);
/* The text of a row (replaces `out`) and the bytes of it that are trained. `where` starts messages.
 */
int chat_document(const struct chat *c, const json_t *row, const char *where, bool assistant_only,
                  struct text *out, struct spans *trained, struct err *e);

#endif
