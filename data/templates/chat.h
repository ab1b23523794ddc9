/* chat.h: conversations inside data/: the templates of one tokenizer. */
#ifndef HONE_CHAT_H
#define HONE_CHAT_H

#include <jansson.h>
#include "data/templates/templates.h"

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

#endif
