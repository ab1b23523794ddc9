/* cmd_codec.c: `hone encode`, `hone decode` and `hone render`: JSON lines on standard input to JSON
 * lines on standard output. */
#include "train/commands/commands.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

struct codec_flags {
    bool add_special_tokens, offsets, skip_special_tokens, as_is;
};
static const struct option codec_options[] = {
    {"add_special_tokens", OPT_BOOL, offsetof(struct codec_flags, add_special_tokens), "false", 0,
     0, NULL, "encode: add what the tokenizer's post-processor adds (bos, ...)"},
    {"offsets", OPT_BOOL, offsetof(struct codec_flags, offsets), "false", 0, 0, NULL,
     "encode: add which bytes of the text each id comes from, \"offsets\": [[begin, end], ...]"},
    {"skip_special_tokens", OPT_BOOL, offsetof(struct codec_flags, skip_special_tokens), "false", 0,
     0, NULL, "decode: leave special tokens out"},
    {0},
};

static const struct option render_options[] = {
    {"as_is", OPT_BOOL, offsetof(struct codec_flags, as_is), "false", 0, 0, NULL,
     "give the messages to the template as they stand, not as training reads them"},
    {0},
};

static int hex_digit(char c) {
    return c >= '0' && c <= '9'                 ? c - '0'
           : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                : -1;
}

/* {"text": "..."}, or {"hex": "..."} for bytes that need not be UTF-8. */
static int line_text(const json_t *j, struct text *out, struct err *e) {
    const json_t *text = json_object_get(j, "text"), *hex = json_object_get(j, "hex");
    if (json_is_string(text))
        return text_add(out, json_string_value(text), (i64)json_string_length(text), e);
    const char *s = json_is_string(hex) ? json_string_value(hex) : "x";
    for (; *s; s += 2) {
        const int high = hex_digit(s[0]), low = high < 0 ? -1 : hex_digit(s[1]);
        if (low < 0)
            return err_input(e,
                             "found no text; expected {\"text\": \"...\"} or {\"hex\": \"...\"}");
        if (text_add(out, &(char){(char)(high << 4 | low)}, 1, e)) return -1;
    }
    return 0;
}

static int spans_print(const struct spans *s, struct text *out, struct err *e) {
    int rc = 0;
    for (i64 i = 0; !rc && i < s->count; i++)
        rc = text_printf(out, e, "%s[%lld, %lld]", i ? ", " : "", (long long)s->item[i].begin,
                         (long long)s->item[i].end);
    return rc;
}

static int encode_line(const struct tokenizer *t, const json_t *j, const struct codec_flags *f,
                       struct text *out, struct err *e) {
    struct text text = {0};
    struct ids ids = {0};
    struct spans offsets = {0};
    int rc = line_text(j, &text, e) ||
             tokenizer_encode_offsets(t, text.data, text.size, f->add_special_tokens, &ids,
                                      f->offsets ? &offsets : NULL, e) ||
             text_printf(out, e, "{\"ids\": [");
    for (i64 i = 0; !rc && i < ids.count; i++)
        rc = text_printf(out, e, "%s%u", i ? ", " : "", ids.item[i]);
    if (!rc && f->offsets)
        rc = text_printf(out, e, "], \"offsets\": [") || spans_print(&offsets, out, e);
    ids_free(&ids), spans_free(&offsets), text_free(&text);
    return rc || text_printf(out, e, "]}\n") ? -1 : 0;
}

static int decode_line(const struct tokenizer *t, const json_t *j, const struct codec_flags *f,
                       struct text *out, struct err *e) {
    const json_t *list = json_object_get(j, "ids");
    struct ids ids = {0};
    struct text text = {0};
    if (!json_is_array(list)) return err_input(e, "found no ids; expected {\"ids\": [...]}");
    int rc = 0;
    for (size_t i = 0; !rc && i < json_array_size(list); i++) {
        const json_t *id = json_array_get(list, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > UINT32_MAX)
            rc = err_input(e, "ids[%zu] is no token id; expected an integer from 0", i);
        else
            rc = ids_add(&ids, (u32)json_integer_value(id), e);
    }
    rc = rc || tokenizer_decode(t, ids.item, ids.count, f->skip_special_tokens, &text, e) ||
         text_printf(out, e, "{\"text\": ") ||
         json_text_add(out, text.data ? text.data : "", text.size, e) || text_printf(out, e, "}\n");
    ids_free(&ids), text_free(&text);
    return rc ? -1 : 0;
}

/* A row that a template refuses is a line with "error", as a row of any other result. */
static int render_line(const struct chat *c, const json_t *j, const struct codec_flags *f,
                       struct row_notes *notes, struct text *out, struct err *e) {
    static const char *const forms[] = {"messages", "conversations", "instruction", "query"};
    const json_t *messages = json_object_get(j, "messages");
    const bool prompt = json_is_true(json_object_get(j, "add_generation_prompt"));
    bool found = json_is_array(json_object_get(j, "prompt"));
    for (int i = 0; i < COUNT(forms); i++) found |= !json_empty(json_object_get(j, forms[i]));
    struct text text = {0};
    struct spans spans = {0};
    struct err refused = {0};
    if (f->as_is ? !json_is_array(messages) : !found && !messages)
        return err_input(e, "found no messages; expected {\"messages\": [...]}");
    int rc = 0;
    char where[40];
    snprintf(where, sizeof where, "line %lld", (long long)notes->line);
    if (f->as_is ? chat_render(c, j, messages, prompt, &text, &spans, &refused)
                 : chat_prompt(c, j, where, prompt, notes, &text, &spans, &refused)) {
        rc = text_printf(out, e, "{\"error\": ") ||
             json_text_add(out, refused.primary, (i64)strlen(refused.primary), e);
    } else {
        rc = text_printf(out, e, "{\"text\": ") || json_text_add(out, text.data, text.size, e) ||
             text_printf(out, e, ", \"generation\": [");
        rc = rc || spans_print(&spans, out, e) || text_printf(out, e, "]");
    }
    text_free(&text), spans_free(&spans);
    return rc || text_printf(out, e, "}\n") ? -1 : 0;
}

enum codec { ENCODE, DECODE, RENDER };
static int codec(int argc, char **argv, const char *usage, enum codec kind, struct err *e) {
    struct codec_flags f = {0};
    struct args a;
    struct tokenizer *t = NULL;
    struct chat *c = NULL;
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;
    struct row_notes notes = {0};
    struct text said = {0};
    int rc = args_parse(&a, argc, argv, kind == RENDER ? render_options : codec_options, &f, e) ||
             args_need(&a, 1, 1, usage, e);
    if (!rc && kind == RENDER) {
        const bool model = path_is_dir(a.rest[0]) || path_is_gguf(a.rest[0]);
        rc = !(c = chat_of_file(model ? NULL : a.rest[0], model ? a.rest[0] : NULL, e));
    } else if (!rc) {
        rc = !(t = tokenizer_of_file(a.rest[0], e));
    }
    for (i64 n = 1; !rc && (size = getline(&line, &capacity, stdin)) >= 0; n++) {
        struct text out = {0};
        char where[64];
        snprintf(where, sizeof where, "line %lld of standard input", (long long)n);
        json_t *j = json_parse(line, size, where, e);
        notes.line = n;
        rc = !j || (kind == ENCODE   ? encode_line(t, j, &f, &out, e)
                    : kind == DECODE ? decode_line(t, j, &f, &out, e)
                                     : render_line(c, j, &f, &notes, &out, e));
        if (!rc && fwrite(out.data, 1, (size_t)out.size, stdout) != (size_t)out.size)
            rc = err_system(e, "write", "standard output");
        if (rc && j) err_frame(e, "in %s", where);
        json_decref(j), text_free(&out);
    }
    if (!row_notes_text(&notes, "standard input", &said, &(struct err){0}) && said.size &&
        !globals.quiet)
        show(stderr, "%s", said.data);
    row_notes_free(&notes), text_free(&said);
    free(line), tokenizer_free(t), chat_free(c), args_free(&a);
    return rc ? -1 : 0;
}
static int cmd_encode(int argc, char **argv, struct err *e) {
    return codec(argc, argv, "encode TOKENIZER < JSONL", ENCODE, e);
}
static int cmd_decode(int argc, char **argv, struct err *e) {
    return codec(argc, argv, "decode TOKENIZER < JSONL", DECODE, e);
}
static int cmd_render(int argc, char **argv, struct err *e) {
    return codec(argc, argv, "render TEMPLATE < JSONL", RENDER, e);
}

const struct command command_encode = {"encode",
                                       "encode TOKENIZER < JSONL",
                                       "{\"text\": ...} to {\"ids\": [...]}",
                                       cmd_encode,
                                       codec_options,
                                       NULL};

const struct command command_decode = {"decode",
                                       "decode TOKENIZER < JSONL",
                                       "{\"ids\": [...]} to {\"text\": ...}",
                                       cmd_decode,
                                       codec_options,
                                       NULL};

const struct command command_render = {
    "render",
    "render TEMPLATE < JSONL",
    "{\"messages\": ...} to {\"text\": ...} by a chat template (file, folder or name)",
    cmd_render,
    render_options,
    NULL};
