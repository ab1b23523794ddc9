/* recipe_script.c: a shell script that starts a training (`swift sft --model M --lora_rank 8`), as
 * ms-swift and TRL publish them, as a mapping of its flags.
 *
 * Taken is the first command with two flags or more. Quotes, comments and lines that go on are as
 * in the shell; nothing is run, and what would be put in (variables, output of commands) stays as
 * it is written. `--key value` is a value, several words a list, none true. Before them the word
 * that says what is done (sft, pt, rlhf) is the key `command`, ms-swift's programs are the key
 * `program`; NPROC_PER_NODE is a key, too. */
#include "data/templates/templates.h"
#include "train/recipe/recipe_int.h"

#include <ctype.h>
#include <string.h>

enum { SCRIPT_MAX = 1 << 20, WORDS_MAX = 4000 };

struct script {
    const char *at, *end, *name;
    i64 line;
    struct arena *a;
};
struct word {
    const char *text;
    i64 line;
    bool quoted;
};

static bool is_end(char c) { return c == '\n' || c == ';' || c == '|' || c == '&'; }

/* Between words; false at the end of a command. */
static bool blanks(struct script *s) {
    for (; s->at < s->end; s->at++) {
        if (*s->at == '\\' && s->at + 1 < s->end && s->at[1] == '\n') {
            s->at++, s->line++;
        } else if (*s->at == '#') {
            while (s->at < s->end && *s->at != '\n') s->at++;
            return false;
        } else if (*s->at != ' ' && *s->at != '\t' && *s->at != '\r') {
            return !is_end(*s->at);
        }
    }
    return false;
}

static int word_read(struct script *s, struct word *w, struct err *e) {
    struct text out = {0};
    char quote = 0;
    *w = (struct word){.line = s->line};
    int rc = text_add(&out, "", 0, e);
    for (; !rc && s->at < s->end; s->at++) {
        const char c = *s->at;
        if (!quote && (is_end(c) || c == ' ' || c == '\t' || c == '\r')) break;
        s->line += c == '\n';
        if (c == quote) {
            quote = 0;
        } else if (!quote && (c == '\'' || c == '"')) {
            quote = c, w->quoted = true;
        } else if (!quote && c == '$' && s->at + 1 < s->end && s->at[1] == '(') {
            const char *close = memchr(s->at, ')', (size_t)(s->end - s->at));
            const i64 size = close ? close - s->at : 1;
            rc = text_add(&out, s->at, size + (close != NULL), e);
            s->at += close ? size : 0;
        } else if (c == '\\' && quote != '\'' && s->at + 1 < s->end) {
            s->at++;
            s->line += *s->at == '\n';
            if (*s->at != '\n') rc = text_add(&out, s->at, 1, e);
        } else {
            rc = text_add(&out, &c, 1, e);
        }
    }
    if (!rc) w->text = arena_text(s->a, out.data ? out.data : "", e);
    text_free(&out);
    return w->text ? 0 : -1;
}

/* The words of the next command; 0 at the end of the script. */
static i64 command_read(struct script *s, struct word *word, struct err *e) {
    i64 count = 0;
    while (!count && s->at < s->end) {
        while (blanks(s)) {
            if (count == WORDS_MAX) {
                err_input(e, "%s:%lld: more than %d words", s->name, (long long)s->line, WORDS_MAX);
                return -1;
            }
            if (word_read(s, &word[count++], e)) return -1;
        }
        if (s->at < s->end) s->line += *s->at == '\n', s->at++;
    }
    return count;
}

static int put(struct script *s, struct node *map, const char *key, const struct word *w, i64 count,
               i64 line, struct err *e) {
    const char *where = arena_printf(s->a, e, "%s:%lld", s->name, (long long)line);
    struct node *n = where ? node_new(s->a, count > 1 ? NODE_LIST : NODE_SCALAR, where, e) : NULL;
    if (!n) return -1;
    n->key = key, n->text = count ? w->text : "true", n->quoted = count && w->quoted && !*w->text;
    struct node **last = &n->child;
    for (i64 i = 0; count > 1 && i < count; i++, last = &(*last)->next)
        if (!(*last = node_scalar(s->a, w[i].text, where, e))) return -1;
    if (count > 1) n->text = NULL;
    return node_put(s->a, map, n, e);
}

static int flags_take(struct script *s, struct node *map, const struct word *word, i64 count,
                      struct err *e) {
    static const char does[] = "sft pt rlhf infer export dpo kto grpo reward sample rollout eval "
                               "deploy app",
                      programs[] = "swift megatron";
    i64 i = 0;
    for (; i < count && strncmp(word[i].text, "--", 2); i++) {
        if (!strncmp(word[i].text, "NPROC_PER_NODE=", 15)) {
            const struct word w = {word[i].text + 15, word[i].line, false};
            if (put(s, map, "nproc_per_node", &w, 1, w.line, e)) return -1;
        }
        const char *key = word_listed(does, word[i].text)       ? "command"
                          : word_listed(programs, word[i].text) ? "program"
                                                                : NULL;
        if (key && put(s, map, key, &word[i], 1, word[i].line, e)) return -1;
    }
    while (i < count) {
        char *key = arena_text(s->a, word[i].text + 2, e);
        if (!key) return -1;
        for (char *c = key; *c && *c != '='; c++)
            if (*c == '-') *c = '_';
        char *equals = strchr(key, '=');
        i64 values = 0;
        while (i + 1 + values < count && strncmp(word[i + 1 + values].text, "--", 2)) values++;
        const struct word whole = {equals ? equals + 1 : NULL, word[i].line, false};
        if (equals) *equals = 0;
        if (*key &&
            put(s, map, key, equals ? &whole : &word[i + 1], equals ? 1 : values, word[i].line, e))
            return -1;
        i += 1 + values;
    }
    return 0;
}

struct node *node_script(struct arena *a, const char *data, i64 size, const char *name,
                         struct err *e) {
    struct script s = {data, data + size, name, 1, a};
    if (size > SCRIPT_MAX || memchr(data, 0, (size_t)size) || utf8_bad(data, size) >= 0)
        return err_input(e, "%s: no script of text, or more than %d bytes", name, SCRIPT_MAX), NULL;
    struct word *word = arena_new(a, WORDS_MAX * (i64)sizeof *word, e);
    struct node *map = word ? node_new(a, NODE_MAP, arena_printf(a, e, "%s:1", name), e) : NULL;
    i64 count;
    while (map && (count = command_read(&s, word, e)) > 0) {
        i64 flags = 0;
        for (i64 i = 0; i < count; i++) flags += !strncmp(word[i].text, "--", 2);
        if (flags < 2) continue;
        return flags_take(&s, map, word, count, e) ? NULL : map;
    }
    if (map && !e->code) {
        err_input(e, "%s: no command with flags", name);
        err_hint(e, "a script as: swift sft --model PATH --dataset FILE");
    }
    return NULL;
}
