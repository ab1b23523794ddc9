/* templates.h: chat templates: a conversation to its text, and which bytes of the text the
 * assistant says. */
#ifndef HONE_TEMPLATES_H
#define HONE_TEMPLATES_H

#include <jansson.h>
#include "data/tokenizers/tokenizers.h"

/* ==== chat templates (jinja*.c, chat.c) ======================================================= */
/* The part of Jinja2 that chat templates use, with transformers' settings. What is not
 * supported is refused by name and line, when the template is read where that can be seen, else
 * when rendering comes there. No template hangs, overflows or takes more than 256 MiB. */
struct template;
struct template *template_new(const char *source, i64 size, const char *name, struct err *e);
void template_free(struct template *t);
/* A rendering also of the first `messages` messages, with or without the generation prompt: the
 * first `at` bytes of the whole, then `tail`. */
struct turn {
    i64 messages;
    bool prompt, found;
    i64 at;
    struct text tail; /* text_free */
};
/* Renders the whole; turns in the order of `messages`. 1: not with this template (jinja_turns.c),
 * and `out` and turns are of no use. */
int template_render_turns(const struct template *t, const json_t *variables, i64 now,
                          struct text *out, struct turn *turn, i64 count, struct err *e);
bool template_generation(const struct template *t); /* has {% generation %} */
/* Appends the text that the members of `variables` give. `now`: what strftime_now says, in seconds
 * since 1970. `generation` (may be NULL) gets the ranges of `out` inside {% generation %}. On an
 * error `out` is as it was. Thread safe. */
int template_render(const struct template *t, const json_t *variables, i64 now, struct text *out,
                    struct spans *generation, struct err *e);

/* The chat template of a tokenizer (chat.c). `chosen` (may be NULL): a built-in one (chatml,
 * llama3, alpaca), the name of one that the folder has, a file, a folder of templates, or a
 * template's text. `path` (may be NULL): a folder, or a tokenizer.json in one; see the head of
 * chat.c. `config` (may be NULL): what goes before that folder's files, as a tokenizer_config.json
 * has it. */
struct chat;
struct chat *chat_open(const char *chosen, const char *path, const json_t *config, struct err *e);
void chat_free(struct chat *c);
const char *chat_sha256(const struct chat *c);            /* of the template's text, hex */
const char *chat_source(const struct chat *c, i64 *size); /* the template's text */
/* The i-th of all its templates; false: no more. The one in use is chat_source's. */
bool chat_named(const struct chat *c, i64 i, const char **name, const char **text);
/* What the template puts after an answer, "" if nothing. `row` (may be NULL) as below. */
const char *chat_stop(const struct chat *c, const json_t *row);
/* Appends the text of `messages`, a JSON list of {role, content, ...}; `row` may hold "tools",
 * "documents" and "chat_template_kwargs". `prompt`: add what comes before an answer. `generation`
 * as in template_render. The text is complete: encode it without adding special tokens. */
int chat_render(const struct chat *c, const json_t *row, const json_t *messages, bool prompt,
                struct text *out, struct spans *generation, struct err *e);

/* ---- conversations as rows of a dataset (conversation.c, chat_rows.c) */
/* How rows are read; the keys of recipes have these names. All zero: the defaults. */
struct row_rules {
    i64 version;           /* of the recipe: 1 keeps what rows meant then; 0: the newest */
    const json_t *columns; /* {"prompt": "question"}: our name to the file's; NULL: none */
    const json_t *kwargs;  /* chat_template_kwargs of every row that has none of that name */
    bool skip;             /* on_bad_row: skip */
    bool drop_system;      /* drop_system_message: of conversations */
    const char *system;    /* default_system: of conversations without one; NULL: none */
    /* What is written around the columns (datasets.h, prompt_style_find); NULL: nothing */
    const struct prompt_style *style;
};
/* What became of the rows of a file, or of several: {what: {"count", "first": [at most 3 places]}},
 * in the order in which things were met. Places are lines, of several files "file:line".
 * Zero-initialise; row_notes_free */
enum message_role { MESSAGE_SYSTEM, MESSAGE_USER, MESSAGE_ASSISTANT, MESSAGE_TOOL, MESSAGE_ROLES };
struct message_part {       /* bytes of a conversation's text that a message's content is */
    enum message_role role; /* MESSAGE_TOOL: any other role, too */
    i64 begin, end;
};
struct message_parts { /* zero-initialise; mem_free the items */
    struct message_part *item;
    i64 count, room;
};
struct row_notes {
    json_t *skipped; /* rows, by what is wrong with them: at most ROW_REASONS and "other reasons" */
    json_t *unused;  /* columns, and how many rows have a value there */
    json_t *said;    /* sentences */
    json_t *mapped;  /* the names of `columns` that some row had; NULL: there was no row */
    i64 line;        /* of the row that is read now */
    struct message_parts *parts; /* gets those of the conversation that is read; NULL: not wanted */
};
enum { ROW_REASONS = 40 };
void row_note(json_t **list, const char *what, i64 line);
/* A row that is left out. */
void row_note_skipped(struct row_notes *n, const char *reason, i64 line);
/* Adds those of one file; `file` (NULL: there is but one) goes in front of lines. */
void row_notes_add(struct row_notes *to, const struct row_notes *from, const char *file);
void row_notes_free(struct row_notes *n);
/* null is absent, on every level; depth 0. How many were deep inside a value. */
i64 row_nulls_remove(json_t *j, int depth);
bool word_listed(const char *list, const char *word); /* in "one two" */
bool json_empty(const json_t *j); /* NULL, null, or a text, list or object without anything in it */
/* Does the template that the row gets have {% generation %}? */
bool chat_generation(const struct chat *c, const json_t *row);
/* Is the template that the row gets no template? Each of its renderings says why. */
bool chat_broken(const struct chat *c, const json_t *row);
/* template_render_turns of a conversation. */
int chat_render_turns(const struct chat *c, const json_t *row, struct text *out, struct turn *turn,
                      i64 count, struct err *e);
/* Is a row a conversation? `instructions`: {"instruction", "output"} too. */
bool chat_row(const json_t *row, bool instructions);
/* The text of a row (replaces `out`) and the bytes of it that are trained. `where` starts messages.
 * `rules` and `notes` may be NULL, and `unstopped`: the text ends with an answer behind which the
 * template puts nothing. A row that may be left out is ERR_INPUT. */
int chat_document(const struct chat *c, const json_t *row, const char *where, bool assistant_only,
                  const struct row_rules *rules, struct row_notes *notes, struct text *out,
                  struct spans *trained, bool *unstopped, struct err *e);
/* Appends the text of a row that is to be answered, read as a row of training is; `prompt` and
 * `generation` as in chat_render. `notes` may be NULL. */
int chat_prompt(const struct chat *c, const json_t *row, const char *where, bool prompt,
                struct row_notes *notes, struct text *out, struct spans *generation, struct err *e);
/* The templates that are built in rely on markers that the tokenizer must know: `markers` of one,
 * ending with NULL; NULL: it is none of them, or needs none. */
const char *const *chat_markers(const struct chat *c);
/* Does the template ask for the date? And the second since 1970 that it is told. */
bool chat_dated(const struct chat *c);
void chat_date(struct chat *c, i64 now);
i64 chat_now(const struct chat *c);
void chat_day_text(const struct chat *c, char out[11]); /* YYYY-MM-DD */

#endif
