/* chat.c: which template a conversation gets, and what the template is given.
 *
 * A template comes from, in this order: what the user names (a built-in name, one of the
 * tokenizer's named templates, a file, or the text itself), chat_template.jinja,
 * additional_chat_templates/, "chat_template" in tokenizer_config.json (text, or a list of named
 * ones), chat_template.json. Where a folder has files of templates, its tokenizer_config.json has
 * no say. As in transformers, rows with tools take the template named tool_use if there is one, and
 * bos_token and the like are the texts that tokenizer_config.json gives. */
#include "data/templates/chat.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Built in: their answers carry {% generation %}, so that masks are exact by construction. */
static const char *const chatml_markers[] = {"<|im_start|>", "<|im_end|>", NULL},
                         *const llama3_markers[] = {"<|start_header_id|>", "<|end_header_id|>",
                                                    "<|eot_id|>", NULL};
static const struct {
    const char *name, *text;
    const char *const *markers;
} built_in[] = {
    {"chatml",
     "{% for message in messages %}"
     "{{ '<|im_start|>' + message['role'] + '\\n' }}"
     "{% if message['role'] == 'assistant' %}"
     "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
     "{% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}"
     "{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
     chatml_markers},
    {"llama3",
     "{{ bos_token }}{% for message in messages %}"
     "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
     "{% if message['role'] == 'assistant' %}"
     "{% generation %}{{ message['content'] | trim + '<|eot_id|>' }}{% endgeneration %}"
     "{% else %}{{ message['content'] | trim + '<|eot_id|>' }}{% endif %}"
     "{% endfor %}"
     "{% if add_generation_prompt %}"
     "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
     llama3_markers},
    {"alpaca",
     "{{ bos_token }}{% for message in messages %}"
     "{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
     "{% elif message['role'] == 'user' %}"
     "{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}"
     "{% elif message['role'] != 'assistant' %}"
     "{{ raise_exception('alpaca has no place for a message of role ' + message['role']) }}"
     "{% else %}{{ '### Response:\\n' }}"
     "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}{{ '\\n\\n' }}"
     "{% endif %}{% endfor %}"
     "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}",
     NULL},
};

static struct named_template *find(struct chat *c, const char *name) {
    for (i64 i = 0; i < c->count; i++)
        if (!strcmp(c->item[i].name, name)) return &c->item[i];
    return NULL;
}

/* A template of that name, if there is none yet: the first source wins. */
static int add(struct chat *c, const char *name, const char *text, i64 size, const char *where,
               struct err *e) {
    if (find(c, name)) return 0;
    if (c->count == CHAT_TEMPLATES)
        return err_input(e, "%s: more than %d chat templates", where, CHAT_TEMPLATES);
    struct named_template *t = &c->item[c->count];
    c->count++;
    if (!(t->name = mem_text(name, e)) || !(t->text = mem_new(size + 1, e)) ||
        sha256_bytes(text, size, t->sha256, e))
        return -1;
    memcpy(t->text, text, (size_t)(t->size = size));
    /* One that is broken or not supported matters only to who uses it. */
    t->template = template_new(text, size, where, &t->broken);
    return 0;
}

static int add_file(struct chat *c, const char *name, const char *path, struct err *e) {
    struct text text = {0};
    const int rc = file_read(&text, path, e) || add(c, name, text.data, text.size, path, e);
    text_free(&text);
    return rc ? -1 : 0;
}

static int add_json(struct chat *c, const json_t *j, const char *where, struct err *e) {
    const json_t *t = json_object_get(j, "chat_template"), *one;
    size_t i;
    if (!t || json_is_null(t)) return 0;
    if (json_is_string(t))
        return add(c, "default", json_string_value(t), (i64)json_string_length(t), where, e);
    json_array_foreach(t, i, one) {
        const char *name = json_string_value(json_object_get(one, "name"));
        const json_t *text = json_object_get(one, "template");
        if (!name || !json_is_string(text)) break;
        if (add(c, name, json_string_value(text), (i64)json_string_length(text), where, e))
            return -1;
    }
    if (json_is_array(t) && i == json_array_size(t)) return 0;
    err_input(e, "%s: \"chat_template\" is neither a text nor a list of named texts", where);
    return err_detail(e, "expected \"...\" or [{\"name\": \"default\", \"template\": \"...\"}]");
}

/* "bos_token": "<s>" or {"content": "<s>"} */
static void specials_add(struct chat *c, const json_t *j) {
    static const char *const key[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                      "pad_token", "cls_token", "mask_token"};
    for (int i = 0; i < COUNT(key); i++) {
        json_t *v = json_object_get(j, key[i]);
        if (json_is_object(v)) v = json_object_get(v, "content");
        if (json_is_string(v) && !json_object_get(c->special, key[i]))
            json_object_set(c->special, key[i], v);
    }
}

static int config_add(struct chat *c, const char *folder, const char *name, bool templates,
                      struct err *e) {
    char *path = path_join(NULL, folder, name, e);
    json_t *j = path && path_exists(path) ? json_open(path, e) : NULL;
    int rc = path && (j || !path_exists(path)) ? 0 : -1;
    if (j) specials_add(c, j);
    if (j && templates) rc = add_json(c, j, path, e);
    json_decref(j), mem_free(path);
    return rc;
}

static int folder_specials(struct chat *c, const char *folder, struct err *e) {
    return config_add(c, folder, "tokenizer_config.json", false, e) ||
                   config_add(c, folder, "special_tokens_map.json", false, e)
               ? -1
               : 0;
}

static int folder_add(struct chat *c, const char *folder, struct err *e) {
    const i64 before = c->count;
    char *path = path_join(NULL, folder, "chat_template.jinja", e);
    int rc = path && (!path_exists(path) || !add_file(c, "default", path, e)) ? 0 : -1;
    mem_free(path);
    path = rc ? NULL : path_join(NULL, folder, "additional_chat_templates", e);
    char **names = NULL;
    i64 count = 0;
    if (!path || (path_is_dir(path) && dir_list(path, &names, &count, e))) rc = -1;
    for (i64 i = 0; !rc && i < count; i++) {
        char *dot = strstr(names[i], ".jinja");
        if (!dot || dot[6]) continue;
        char *file = path_join(NULL, path, names[i], e);
        *dot = 0;
        rc = !file || add_file(c, names[i], file, e);
        mem_free(file);
    }
    names_free(names, count), mem_free(path);
    if (rc || config_add(c, folder, "tokenizer_config.json", c->count == before, e) ||
        folder_specials(c, folder, e))
        return -1;
    return find(c, "default") ? 0 : config_add(c, folder, "chat_template.json", true, e);
}

static int named_add(struct chat *c, const char *chosen, struct err *e) {
    const bool text = strstr(chosen, "{{") || strstr(chosen, "{%");
    if (text) return add(c, "chosen", chosen, (i64)strlen(chosen), "chat_template", e);
    for (int i = 0; i < COUNT(built_in); i++)
        if (!strcmp(chosen, built_in[i].name))
            return c->markers = built_in[i].markers,
                   add(c, "chosen", built_in[i].text, (i64)strlen(built_in[i].text), chosen, e);
    if (path_is_dir(chosen)) return folder_add(c, chosen, e);
    if (path_exists(chosen)) {
        if (!ends_with(chosen, ".json")) return add_file(c, "chosen", chosen, e);
        json_t *j = json_open(chosen, e);
        if (j) specials_add(c, j);
        const int rc = j ? add_json(c, j, chosen, e) : -1;
        json_decref(j);
        return rc;
    }
    return 0;
}

static int choose(struct chat *c, const char *chosen, const char *folder, const json_t *config,
                  struct err *e) {
    if (config) specials_add(c, config);
    if ((chosen && named_add(c, chosen, e)) ||
        (config && !find(c, "default") && add_json(c, config, "the model's file", e)) ||
        (folder && !find(c, "default") && folder_add(c, folder, e)) ||
        (folder && folder_specials(c, folder, e)))
        return -1;
    const bool own = chosen && find(c, "chosen");
    struct named_template *t = find(c, own ? "chosen" : "default");
    if (chosen && !own && find(c, chosen)) t = find(c, chosen);
    if (chosen && !own && !find(c, chosen) && (!path_exists(chosen) || !t)) {
        struct text names = {0};
        for (int i = 0; i < COUNT(built_in); i++) text_printf(&names, e, " %s", built_in[i].name);
        for (i64 i = 0; i < c->count; i++) text_printf(&names, e, " %s", c->item[i].name);
        err_input(e, "chat_template: '%.200s' is no template", chosen);
        err_detail(e, "expected a file, a template's text, or one of:%s", names.data);
        return text_free(&names), -1;
    }
    /* What a template says of today is made reproducible as everywhere: by SOURCE_DATE_EPOCH. */
    const char *epoch = getenv("SOURCE_DATE_EPOCH");
    c->now = epoch ? strtoll(epoch, NULL, 10) : (i64)time(NULL);
    c->use = t;
    c->tools = chosen && !path_is_dir(chosen) ? NULL : find(c, "tool_use");
    if (t || c->tools) return 0;
    err_input(e, "%s has no chat template", folder ? folder : "the tokenizer");
    return err_hint(e, "name one: chat_template: chatml, llama3, alpaca or a .jinja file");
}

/* What transformers does to messages first: no nulls, and reasoning under all its names. */
static json_t *messages_clean(const json_t *messages) {
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    json_t *list = json_array(), *m, *v;
    const char *key;
    size_t i;
    json_array_foreach(messages, i, m) {
        json_t *copy = json_object(), *reasoning = NULL;
        for (int k = 0; k < 3 && !reasoning; k++)
            if ((reasoning = json_object_get(m, names[k])) && json_is_null(reasoning))
                reasoning = NULL;
        if (reasoning && !json_object_get(m, "thinking"))
            json_object_set(copy, "thinking", reasoning);
        json_object_foreach(m, key, v) if (!json_is_null(v)) json_object_set(copy, key, v);
        if (reasoning) json_object_set(copy, "reasoning_content", reasoning);
        json_array_append_new(list, copy);
    }
    return list;
}

static const struct named_template *template_for(const struct chat *c, const json_t *row,
                                                 struct err *e) {
    const json_t *tools = json_object_get(row, "tools");
    const struct named_template *t =
        c->tools && (!c->use || (tools && !json_is_null(tools))) ? c->tools : c->use;
    if (t->template) return t;
    *e = t->broken;
    return NULL;
}

bool chat_broken(const struct chat *c, const json_t *row) {
    return !template_for(c, row, &(struct err){0});
}

const char *chat_sha256(const struct chat *c) { return (c->use ? c->use : c->tools)->sha256; }
const char *chat_source(const struct chat *c, i64 *size) {
    const struct named_template *t = c->use ? c->use : c->tools;
    *size = t->size;
    return t->text;
}
bool chat_named(const struct chat *c, i64 i, const char **name, const char **text) {
    if (i >= c->count) return false;
    *name = c->item[i].name, *text = c->item[i].text;
    return true;
}
bool chat_generation(const struct chat *c, const json_t *row) {
    struct err e = {0};
    const struct named_template *t = template_for(c, row, &e);
    return t && template_generation(t->template);
}
const char *chat_stop(const struct chat *c, const json_t *row) {
    struct err e = {0};
    const struct named_template *t = template_for(c, row, &e);
    return t ? t->stop : "";
}

static bool word_byte(char b) { return b == '_' || (b & 0x80) || isalnum((unsigned char)b); }

/* By its text: `name` as a word of its own, or between quotes. That it stands there may not mean
 * that it is read for this row; that it does not means that it is not. */
static bool text_has(const struct named_template *t, const char *name, bool quoted) {
    const i64 n = (i64)strlen(name);
    for (i64 at = 0; n && at + n <= t->size; at++) {
        const char *hit = memmem(t->text + at, (size_t)(t->size - at), name, (size_t)n);
        if (!hit) return false;
        at = hit - t->text;
        const char before = at ? hit[-1] : ' ', after = hit[n]; /* a zero ends the text */
        if (quoted ? strchr("'\"", before) && before && before == after
                   : !word_byte(before) && !word_byte(after))
            return true;
    }
    return false;
}

bool chat_reads(const struct chat *c, const json_t *row, const char *name) {
    struct err e = {0};
    const struct named_template *t = template_for(c, row, &e);
    return t && text_has(t, name, false);
}

bool chat_quotes(const struct chat *c, const json_t *row, const char *name) {
    struct err e = {0};
    const struct named_template *t = template_for(c, row, &e);
    return t && text_has(t, name, true);
}

const char *const *chat_markers(const struct chat *c) { return c->markers; }

bool chat_dated(const struct chat *c) {
    return (c->use && text_has(c->use, "strftime_now", false)) ||
           (c->tools && text_has(c->tools, "strftime_now", false));
}
void chat_date(struct chat *c, i64 now) { c->now = now; }
i64 chat_now(const struct chat *c) { return c->now; }

void chat_day_text(const struct chat *c, char out[11]) {
    const time_t now = (time_t)chat_now(c);
    struct tm t;
    char text[16] = "";
    if (localtime_r(&now, &t)) strftime(text, sizeof text, "%Y-%m-%d", &t);
    snprintf(out, 11, "%.10s", text);
}

/* What a template is given. */
static json_t *variables_new(const struct chat *c, const json_t *row, const json_t *messages,
                             bool prompt, struct err *e) {
    json_t *v = json_deep_copy(c->special), *own = (json_t *)(uintptr_t)row, *extra;
    if (!v) return err_memory(e, "out of memory"), NULL;
    static const char *const key[] = {"tools", "documents"};
    for (int i = 0; i < COUNT(key); i++) {
        json_t *given = json_object_get(own, key[i]);
        json_object_set(v, key[i], given ? given : json_null());
    }
    if (json_is_object(extra = json_object_get(own, "chat_template_kwargs")))
        json_object_update(v, extra);
    json_object_set_new(v, "messages", messages_clean(messages));
    json_object_set_new(v, "add_generation_prompt", json_boolean(prompt));
    return v;
}

int chat_render(const struct chat *c, const json_t *row, const json_t *messages, bool prompt,
                struct text *out, struct spans *generation, struct err *e) {
    const struct named_template *t = template_for(c, row, e);
    json_t *v = t ? variables_new(c, row, messages, prompt, e) : NULL;
    const int rc = v ? template_render(t->template, v, c->now, out, generation, e) : -1;
    json_decref(v);
    return rc;
}

int chat_render_turns(const struct chat *c, const json_t *row, struct text *out, struct turn *turn,
                      i64 count, struct err *e) {
    const struct named_template *t = template_for(c, row, e);
    json_t *v = t ? variables_new(c, row, json_object_get(row, "messages"), false, e) : NULL;
    const int rc = v ? template_render_turns(t->template, v, c->now, out, turn, count, e) : -1;
    json_decref(v);
    return rc;
}

/* What the template writes after an answer that no template knows, with `count` messages. */
static int tail_of(struct chat *c, struct named_template *t, int count, struct text *out,
                   struct err *e) {
    static const char probe[] = "hone looks here";
    static const char *const role[] = {"user", "assistant", "user"};
    json_t *messages = json_array();
    struct err refused = {0};
    for (int i = 0; i < count; i++)
        json_array_append_new(
            messages, json_pack("{s:s, s:s}", "role", role[i], "content", i == 1 ? probe : "?"));
    const struct named_template *use = c->use;
    c->use = t;
    if (t->template && chat_render(c, NULL, messages, false, out, NULL, &refused)) out->size = 0;
    c->use = use;
    json_decref(messages);
    const char *hit = out->size ? strstr(out->data, probe) : NULL;
    const i64 skip = hit ? hit + sizeof probe - 1 - out->data : out->size;
    if (out->size) memmove(out->data, out->data + skip, (size_t)(out->size - skip + 1));
    out->size -= skip;
    return refused.starved ? (*e = refused, -1) : 0;
}

/* The stop text: what an answer is followed by both at the end and when the user goes on, without a
 * tag that only begins to be the same, and without white space. None if the template refuses. */
static int stop_find(struct chat *c, struct named_template *t, struct err *e) {
    struct text last = {0}, more = {0};
    int rc = tail_of(c, t, 2, &last, e) || tail_of(c, t, 3, &more, e);
    i64 n = 0;
    while (n < last.size && n < more.size && last.data[n] == more.data[n]) n++;
    for (i64 i = n; i-- > 0 && last.data[i] != '>' && last.data[i] != ']';)
        if (last.data[i] == '<' || last.data[i] == '[') n = i;
    while (n && (strchr(" \t\r\n", last.data[n - 1]) || (last.data[n - 1] & 0xc0) == 0x80)) n--;
    if (rc || !(t->stop = mem_new(n + 1, e)))
        rc = -1;
    else if (n)
        memcpy(t->stop, last.data, (size_t)n);
    text_free(&last), text_free(&more);
    return rc;
}

struct chat *chat_open(const char *chosen, const char *path, const json_t *config, struct err *e) {
    struct chat *c = mem_new(sizeof *c, e);
    if (!c) return NULL;
    char *folder = NULL;
    const bool file = path && !path_is_dir(path);
    if (path && (folder = mem_text(path, e)) && file) { /* DIR/tokenizer.json */
        char *slash = strrchr(folder, '/');
        if (slash)
            *slash = 0;
        else
            mem_free(folder), folder = mem_text(".", e);
    }
    int rc =
        (path && !folder) || !(c->special = json_object()) || choose(c, chosen, folder, config, e);
    for (i64 i = 0; !rc && i < c->count; i++)
        if (&c->item[i] == c->use || &c->item[i] == c->tools) rc = stop_find(c, &c->item[i], e);
    if (rc) chat_free(c), c = NULL;
    return mem_free(folder), c;
}

void chat_free(struct chat *c) {
    if (!c) return;
    for (i64 i = 0; i < c->count; i++)
        template_free(c->item[i].template), mem_free(c->item[i].name), mem_free(c->item[i].stop),
            mem_free(c->item[i].text);
    json_decref(c->special);
    mem_free(c);
}
