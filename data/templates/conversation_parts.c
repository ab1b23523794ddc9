/* conversation_parts.c: where a conversation's text has what its messages say, and what of it the
 * chat template changed: a template that strips, drops or rewrites does so without a word. */
#include "data/templates/chat.h"

#include <string.h>

static enum message_role role_of(const char *role) {
    static const char *const name[] = {
        [MESSAGE_SYSTEM] = "system", [MESSAGE_USER] = "user", [MESSAGE_ASSISTANT] = "assistant"};
    for (int i = 0; i < COUNT(name); i++)
        if (!strcmp(role, name[i])) return (enum message_role)i;
    return MESSAGE_TOOL;
}

/* The first place at or behind `at`; where order was changed, any. `left`: bytes that may yet be
 * looked through in vain, so that a template that changes every message costs no square of them. */
static const char *find(const struct text *all, i64 at, const char *what, size_t size, i64 *left) {
    const char *found = NULL;
    if (*left > 0) found = memmem(all->data + at, (size_t)(all->size - at), what, size);
    if (!found && *left > 0 && at) *left -= at, found = memmem(all->data, (size_t)at, what, size);
    if (!found) *left -= all->size - at;
    return found;
}

/* In the order of the conversation, with white space and all. */
static const char *near(const struct text *all, i64 at, const char *what, size_t size) {
    enum { WINDOW = 1 << 16 };
    return memmem(all->data + at, (size_t)i64_min(all->size - at, WINDOW + (i64)size), what, size);
}

static int part_add(struct message_parts *to, enum message_role role, i64 begin, i64 end,
                    struct err *e) {
    if (to->count == to->room) {
        const i64 room = 2 * to->room + 8, size = (i64)sizeof *to->item;
        struct message_part *more = mem_grow(to->item, to->room * size, room * size, e);
        if (!more) return -1;
        to->item = more, to->room = room;
    }
    to->item[to->count++] = (struct message_part){role, begin, end};
    return 0;
}

static const char *const white = " \t\n\r\f\v";
static bool is_white(char c) { return c && strchr(white, c); }

/* Its content without white space at the ends; `what` and `size` are the content. */
static void stripped(const char **what, size_t *size) {
    while (*size && is_white((*what)[*size - 1])) --*size;
    while (*size && is_white(**what)) ++*what, --*size;
}

int conversation_parts(const struct conversation *v, const struct text *all,
                       struct row_notes *notes, struct err *e) {
    const json_t *m, *messages = json_object_get(v->row, "messages");
    struct message_parts *parts = notes->parts;
    size_t i;
    i64 at = 0, left = (1 << 20) + 32 * all->size;
    if (parts) parts->count = 0;
    json_array_foreach((json_t *)(uintptr_t)messages, i, m) {
        const json_t *content = json_object_get(m, "content");
        const char *role = json_string_value(json_object_get(m, "role")),
                   *what = json_string_value(content);
        size_t size = what ? json_string_length(content) : 0;
        if (!role || !size || !all->size) continue;
        if (left <= 0) {
            row_note(&notes->said,
                     "the chat template changes so many messages that the rest are not compared",
                     notes->line);
            break;
        }
        const char *found = near(all, at, what, size);
        const size_t whole = size;
        if (!found) stripped(&what, &size);
        if (!found && size) found = find(all, at, what, size, &left);
        char note[160];
        snprintf(note, sizeof note, "the chat template leaves out or rewrites what the %.40s says",
                 role);
        if (!found && size) row_note(&notes->said, note, notes->line);
        if (size && found && size < whole)
            row_note(&notes->said, "the chat template removes white space at the ends of a message",
                     notes->line);
        if (!found) continue;
        const i64 begin = found - all->data, end = begin + (i64)size;
        if (begin >= at) at = end;
        if (parts && part_add(parts, role_of(role), begin, end, e)) return -1;
    }
    return 0;
}
