/* cmd_generate.c: `hone generate`: a prompt continued, streamed as it comes; or a file of prompts,
 * several at a time. */
#include "train/commands/commands.h"

#include <jansson.h>
#include <string.h>

static const struct option generate_options[] = {
    GENERATE_ROW(prompt, OPT_TEXT, "", 0, 0, "text to go on from"),
    GENERATE_ROW(prompts, OPT_TEXT, NULL, 0, 0,
                 "JSON lines: {\"prompt\": ...} or, by the chat template, {\"messages\": [...]}"),
    GENERATE_ROW(batch_size, OPT_INT, "8", 1, 4096, "prompts of the file at a time"),
    GENERATE_ROW(max_new_tokens, OPT_INT, "128", 1, 1 << 24, "tokens to add at most"),
    GENERATE_ROW(chat_template, OPT_TEXT, NULL, 0, 0,
                 "for messages: chatml, llama3, alpaca, a file or text; default: the model's own"),
    GENERATE_ROWS,
    {0},
};

struct sampling sampling_of(const struct generate_flags *f, const struct ids *stops, i64 *full) {
    return (struct sampling){.temperature = f->greedy ? 0 : f->temperature,
                             .top_p = f->top_p,
                             .min_p = f->min_p,
                             .top_k = f->top_k,
                             .seed = f->seed,
                             .max_new_tokens = f->max_new_tokens,
                             .ignore_eos = f->ignore_eos,
                             .repetition_penalty = f->repetition_penalty,
                             .stops = stops,
                             .full = full};
}

/* generation_config.json may name more end-of-text ids than config.json. */
static int stops_read(const char *folder, struct ids *stops, struct err *e) {
    char *path = path_join(NULL, folder, "generation_config.json", e);
    json_t *j = path && path_exists(path) ? json_open(path, e) : NULL, *eos, *one;
    int rc = path && (j || !path_exists(path)) ? 0 : -1;
    eos = json_object_get(j, "eos_token_id");
    for (size_t i = 0; !rc && eos && i < (json_is_array(eos) ? json_array_size(eos) : 1); i++) {
        one = json_is_array(eos) ? json_array_get(eos, i) : eos;
        if (json_is_integer(one) && json_integer_value(one) >= 0)
            rc = ids_add(stops, (u32)json_integer_value(one), e);
        else if (!json_is_null(one))
            rc = err_input(e, "%s: \"eos_token_id\" is no id and no list of ids", path);
    }
    json_decref(j), mem_free(path);
    return rc ? -1 : 0;
}

int generate_open(struct loaded *l, const struct generate_flags *f, const char *model,
                  struct ids *stops, struct err *e) {
    enum dtype d;
    if (precision_parse(f->precision, &d, e) ||
        loaded_open(l, model, &f->adapter, f->tokenizer, d, false, e) ||
        (path_is_dir(l->base) && stops_read(l->base, stops, e)))
        return -1;
    if (l->tokenizer) return 0;
    err_input(e, "%s holds no tokenizer.json", l->base);
    return err_hint(e, "--tokenizer T names one");
}

static int prompt_encode(const struct tokenizer *t, const char *text, i64 size, struct ids *out,
                         struct err *e) {
    if (tokenizer_encode(t, text, size, true, out, e)) return -1;
    if (out->count) return 0;
    const i64 first = tokenizer_bos(t) >= 0 ? tokenizer_bos(t) : tokenizer_eos(t);
    if (first >= 0) return ids_add(out, (u32)first, e);
    return err_input(e, "the prompt is empty and the tokenizer has no start token");
}

/* ---- one result */

static int print_json(const char *prompt, i64 size, const struct stream *s, struct err *e) {
    struct text line = {0};
    int rc = text_printf(&line, e, "{\"prompt\": ") || json_text_add(&line, prompt, size, e) ||
             text_printf(&line, e, ", \"text\": ") ||
             json_text_add(&line, s->text.data ? s->text.data : "", s->text.size, e) ||
             text_printf(&line, e, ", \"ids\": [");
    for (i64 i = 0; !rc && i < s->ids.count; i++)
        rc = text_printf(&line, e, "%s%u", i ? ", " : "", s->ids.item[i]);
    if (!rc && !(rc = text_printf(&line, e, "]}"))) puts(line.data);
    text_free(&line);
    return rc;
}

static int generate_one(struct loaded *l, const struct generate_flags *f, const struct ids *stops,
                        struct err *e) {
    struct ids prompt = {0}, out = {0};
    struct stream s = {
        .t = l->tokenizer, .stop = &f->stop, .to = globals.json ? NULL : stdout, .e = e};
    i64 full = 0;
    const struct sampling how = sampling_of(f, stops, &full);
    const double start = clock_seconds();
    const i64 size = (i64)strlen(f->prompt);
    int rc = prompt_encode(l->tokenizer, f->prompt, size, &prompt, e);
    const bool begun = !rc && !globals.json;
    if (begun) show_generated(stdout, f->prompt, size), fflush(stdout);
    if (!rc)
        rc = generate_ids(&l->model, prompt.item, prompt.count, &how, &out, stream_token, &s, e);
    if (!rc && globals.json)
        rc = print_json(f->prompt, size, &s, e);
    else if (!rc) {
        stream_end(&s), puts("");
        if (!quiet)
            fprintf(stderr, "%lld tokens, %.0f tokens/s\n", (long long)out.count,
                    (double)out.count / (clock_seconds() - start));
    }
    if (rc && begun) puts(""), fflush(stdout); /* the error gets a line of its own */
    positions_note(&l->model, full);
    ids_free(&prompt), ids_free(&out), stream_free(&s);
    return rc ? -1 : 0;
}

/* ---- a file of prompts */

struct asked { /* one line of it */
    struct text text;
    struct ids ids;
    struct stream answer;
};

static int asked_read(struct asked *a, const json_t *j, const struct loaded *l,
                      const struct chat *chat, struct err *e) {
    const json_t *prompt = json_object_get(j, "prompt"), *messages = json_object_get(j, "messages");
    if (json_is_string(prompt))
        return text_add(&a->text, json_string_value(prompt), (i64)json_string_length(prompt), e) ||
                       prompt_encode(l->tokenizer, a->text.data, a->text.size, &a->ids, e)
                   ? -1
                   : 0;
    if (!json_is_array(messages))
        return err_input(e, "found no prompt; expected {\"prompt\": ...} or {\"messages\": [...]}");
    if (!chat) {
        err_input(e, "messages, and there is no chat template");
        return err_hint(e, "name one: --chat-template chatml, llama3, alpaca or a .jinja file");
    }
    return chat_render(chat, j, messages, true, &a->text, NULL, e) ||
                   tokenizer_encode(l->tokenizer, a->text.data, a->text.size, false, &a->ids, e)
               ? -1
               : 0;
}

static int asked_answer(struct asked *a, i64 count, struct engine *g, const struct sampling *how,
                        struct err *e) {
    struct sequence *list = mem_new_array(count, sizeof *list, e);
    int rc = list ? 0 : -1;
    for (i64 i = 0; !rc && i < count; i++)
        list[i] = (struct sequence){.prompt = a[i].ids.item,
                                    .count = a[i].ids.count,
                                    .each = stream_token,
                                    .arg = &a[i].answer};
    if (!rc) rc = engine_generate(g, list, count, how, e);
    for (i64 i = 0; !rc && i < count; i++) {
        if (globals.json)
            rc = print_json(a[i].text.data, a[i].text.size, &a[i].answer, e);
        else
            show_generated(stdout, a[i].text.data, a[i].text.size),
                show_generated(stdout, a[i].answer.text.data ? a[i].answer.text.data : "",
                               a[i].answer.text.size),
                puts("\n");
    }
    for (i64 i = 0; list && i < count; i++) ids_free(&list[i].out);
    mem_free(list);
    return rc ? -1 : 0;
}

static int generate_file(struct loaded *l, const struct generate_flags *f, const struct ids *stops,
                         struct err *e) {
    i64 full = 0;
    const struct sampling how = sampling_of(f, stops, &full);
    struct text file = {0};
    struct chat *chat = NULL;
    struct asked *a = mem_new_array(f->batch_size, sizeof *a, e);
    i64 count = 0, line = 1;
    struct engine *g = engine_open(&l->model, NULL, e); /* batches share what they begin with */
    int rc = !a || !g || file_read(&file, f->prompts, e) ||
             chat_find(&chat, f->chat_template, l->tokenizer, e);
    for (char *at = file.data, *end; !rc && at < file.data + file.size; at = end + 1, line++) {
        char where[4200];
        end = memchr(at, '\n', (size_t)(file.data + file.size - at));
        if (!end) end = file.data + file.size;
        if (at + strspn(at, " \t\r") >= end) continue;
        snprintf(where, sizeof where, "%s:%lld", f->prompts, (long long)line);
        json_t *j = json_parse(at, end - at, where, e);
        a[count].answer = (struct stream){.t = l->tokenizer, .stop = &f->stop, .e = e};
        rc = !j || asked_read(&a[count], j, l, chat, e);
        if (rc && j) err_frame(e, "in %s", where);
        json_decref(j), count++;
        const bool last = end + 1 >= file.data + file.size;
        if (rc || (count < f->batch_size && !last)) continue;
        rc = asked_answer(a, count, g, &how, e);
        for (; count > 0; count--)
            text_free(&a[count - 1].text), ids_free(&a[count - 1].ids),
                stream_free(&a[count - 1].answer);
    }
    if (!rc && count) rc = asked_answer(a, count, g, &how, e); /* blank lines at the end */
    positions_note(&l->model, full);
    for (; a && count > 0; count--)
        text_free(&a[count - 1].text), ids_free(&a[count - 1].ids),
            stream_free(&a[count - 1].answer);
    engine_close(g), mem_free(a), chat_free(chat), text_free(&file);
    return rc ? -1 : 0;
}

static int cmd_generate(int argc, char **argv, struct err *e) {
    struct generate_flags f = {0};
    struct args a;
    struct loaded l = {0};
    struct ids stops = {0};
    int rc = args_parse(&a, argc, argv, generate_options, &f, e) ||
             args_need(&a, 1, 1, "generate MODEL --prompt TEXT", e) ||
             generate_open(&l, &f, a.rest[0], &stops, e);
    if (!rc) rc = f.prompts ? generate_file(&l, &f, &stops, e) : generate_one(&l, &f, &stops, e);
    loaded_close(&l), args_free(&a), ids_free(&stops);
    return rc ? -1 : 0;
}

const struct command command_generate = {
    "generate",
    "generate MODEL --prompt TEXT | --prompts FILE.jsonl [--adapter DIR[=WEIGHT]]...",
    "continue a text, or several at once",
    cmd_generate,
    generate_options,
    NULL};
