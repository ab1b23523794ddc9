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
    const char *const *markers; /* of a built-in template: each is one token; NULL: none */
};
/* Does the template that the row gets read a variable, a key or an attribute of this name? */
bool chat_reads(const struct chat *c, const json_t *row, const char *name);
bool chat_quotes(const struct chat *c, const json_t *row, const char *name); /* as 'name' */

/* ---- a row as a conversation (conversation.c) */
struct conversation {
    json_t *row; /* messages, tools, documents, chat_template_kwargs */
    json_t
        *texts;   /* the messages with arguments of tool calls as JSON text; NULL: there are none */
    json_t *mute; /* [messages] true: its answer is not trained */
    size_t first; /* messages in front of it are prompt */
    bool complete; /* a prompt and its completion: only the latter may be trained */
    bool old;      /* of a recipe of version 1 */
};
struct reading { /* of one row */
    struct conversation *v;
    const struct chat *c;
    const json_t *row;
    const struct row_rules *rules;
    struct row_notes *notes; /* NULL: not wanted */
    const char *where;
    size_t index; /* of the message that is read */
    struct err *e;
};
void reading_note(const struct reading *x, const char *fmt, ...) PRINTF(2, 3);
int reading_wrong(const struct reading *x, const char *fmt, ...) PRINTF(2, 3); /* -1 */
const char *reading_kind(const json_t *j); /* "a list", for messages */
json_t *reading_decoded(const json_t *j);  /* what a text holds as JSON, or the value itself:
                                                     a new reference, or NULL */
/* Adds a message to the conversation. `texts`, an empty object, becomes the same with arguments of
 * its calls as texts (conversation_message.c). */
int reading_message(const struct reading *x, const json_t *m, json_t *texts);
/* `row` has no nulls and our names for columns (rows of version 1: as it is in the file). */
int conversation_of(struct conversation *v, const struct chat *c, const json_t *row,
                    const char *where, const struct row_rules *rules, struct row_notes *notes,
                    struct err *e);
/* The same for recipes of version 1 (conversation_old.c). */
int conversation_old(struct conversation *v, const json_t *row, const char *where, struct err *e);
void conversation_free(struct conversation *v);
/* Where `all`, the text of a conversation, has its messages' contents (notes->parts, where wanted),
 * and notes on those that the template changed (conversation_parts.c). */
int conversation_parts(const struct conversation *v, const struct text *all,
                       struct row_notes *notes, struct err *e);

#endif
