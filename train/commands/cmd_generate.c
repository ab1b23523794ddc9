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
                             .draft = f->draft,
                             .full = full};
}

/* A value of generation_config.json for a flag that was not given; what is taken goes to `said`. */
struct default_of {
    const char *key;
    double from;
    double *number; /* one of these two */
    i64 *whole;
};

/* transformers' own value where the file leaves out part of how it samples. */
static int defaults_take(struct generate_flags *f, const struct args *a, const struct generation *g,
                         bool asked, struct text *said, struct err *e) {
    asked = asked || args_given(a, "temperature") || args_given(a, "top_k") ||
            args_given(a, "top_p") || args_given(a, "min_p") || args_given(a, "greedy");
    const bool samples = g->do_sample != 0 && (g->do_sample > 0 || g->temperature >= 0 ||
                                               g->top_k >= -1 || g->top_p >= 0 || g->min_p >= 0);
    if (!g->do_sample && !asked) {
        f->greedy = true;
        if (text_printf(said, e, ", the most likely token each time")) return -1;
    }
    const struct default_of list[] = {
        {"temperature", samples && g->temperature != g->temperature ? 1 : g->temperature,
         &f->temperature, NULL},
        {"top_k",
         samples && g->top_k != g->top_k ? 50
         : g->top_k < 0                  ? 0
                                         : g->top_k,
         NULL, &f->top_k},
        {"top_p", samples && g->top_p != g->top_p ? 1 : g->top_p, &f->top_p, NULL},
        {"min_p", g->min_p, &f->min_p, NULL},
        {"repetition_penalty", g->repetition_penalty, &f->repetition_penalty, NULL},
        {"max_new_tokens", g->max_new_tokens, NULL, &f->max_new_tokens}};
    for (int i = 0; i < COUNT(list); i++) {
        const struct default_of *d = &list[i];
        if (d->from != d->from || args_given(a, d->key) || (f->greedy && i < 4)) continue;
        if (d->number)
            *d->number = d->from;
        else
            *d->whole = (i64)d->from;
        if (text_printf(said, e, ", %s %.6g", d->key, d->from)) return -1;
    }
    return 0;
}

static int stop_add(struct talker *t, struct text_list *list, const char *text, struct err *e) {
    char **all = arena_new(&t->arena, (list->count + 1) * (i64)sizeof *all, e);
    for (i64 i = 0; all && i < list->count; i++) all[i] = list->item[i];
    if (!all || !(all[list->count] = arena_text(&t->arena, text, e))) return -1;
    *list = (struct text_list){all, list->count + 1};
    return 0;
}

static const char *file_part(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Which of the two definitions its products have (ops/NUMERICS.md 4 and 15), and says so. */
static int activations_choose(struct talker *t, const char *how, struct err *e) {
    struct model *m = &t->l.model;
    i64 taken = 0;
    for (i64 i = 0; i < m->weights.modules; i++)
        taken += linear_int8_takes(&m->weights.module[i].weight->view);
    if (!strcmp(how, "int8") && !taken) {
        err_input(e, "--activations int8: no weight of %s is held in blocks of whole numbers",
                  t->l.base);
        return err_hint(e, "GGUF files hold such, and --quantize q8_0 makes them");
    }
    m->int8 = taken && (!strcmp(how, "int8") || (!strcmp(how, "auto") && path_is_gguf(t->l.base)));
    if (m->int8 && !quiet)
        show(stderr,
             "note: products of %lld weights by int8, activations as whole numbers; "
             "--activations float takes decoded values\n",
             (long long)taken);
    return 0;
}

int talker_open(struct talker *t, struct generate_flags *f, const struct args *a, struct err *e) {
    enum dtype d;
    struct text said = {0};
    struct answer_end end;
    *t = (struct talker){0};
    int rc = precision_parse(f->precision, &d, e) ||
             loaded_open(&t->l, a->rest[0], &f->adapter, f->tokenizer, d, false, e);
    if (!rc && !t->l.tokenizer)
        rc = err_input(e, "%s holds no tokenizer.json", t->l.base),
        err_hint(e, "--tokenizer T names one");
    rc = rc || activations_choose(t, f->activations, e) ||
         loaded_chat(&t->chat, f->chat_template, &t->l, e) ||
         generation_read(&t->generation, &t->l, e) ||
         defaults_take(f, a, &t->generation, false, &said, e) ||
         answer_end(&end, t->chat, NULL, t->l.tokenizer, e);
    const struct ids *eos = &t->generation.eos;
    for (i64 i = 0; !rc && i < eos->count; i++) rc = ids_add(&t->stops, eos->item[i], e);
    if (!rc && end.special) rc = ids_add(&t->stops, (u32)end.id, e);
    for (int i = 0; !rc && i < t->generation.stops; i++)
        rc = stop_add(t, &f->stop, t->generation.stop[i], e) ||
             text_printf(&said, e, ", stops at '%s'", t->generation.stop[i]);
    const char *unused = t->generation.unused.data;
    if (!rc && !quiet && (said.size || unused))
        show(stderr, "note: %s: %s%s%s%s\n",
             path_is_gguf(t->l.base) ? file_part(t->l.base) : "generation_config.json",
             said.size ? said.data + 2 : "not followed: ", said.size ? "; flags go before it" : "",
             said.size && unused ? "; not followed: " : "", unused ? unused : "");
    text_free(&said);
    return rc ? -1 : 0;
}

int talker_asked(const struct talker *t, struct generate_flags *f, const struct args *a,
                 struct err *e) {
    struct text said = {0};
    const int rc = defaults_take(f, a, &t->generation, true, &said, e);
    return text_free(&said), rc;
}

void talker_close(struct talker *t) {
    chat_free(t->chat), generation_free(&t->generation), ids_free(&t->stops);
    arena_free(&t->arena), loaded_close(&t->l);
}

int answer_stops(struct talker *t, const struct generate_flags *f, const json_t *row,
                 struct ids *ids, struct text_list *texts, struct err *e) {
    struct answer_end end;
    int rc = answer_end(&end, t->chat, row, t->l.tokenizer, e);
    for (i64 i = 0; !rc && i < t->stops.count; i++) rc = ids_add(ids, t->stops.item[i], e);
    *texts = f->stop;
    if (!rc && end.id >= 0) rc = ids_add(ids, (u32)end.id, e);
    if (!rc && end.id < 0 && *end.text) rc = stop_add(t, texts, end.text, e);
    return rc ? -1 : 0;
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

static int generate_one(struct talker *t, const struct generate_flags *f, struct err *e) {
    struct loaded *const l = &t->l;
    struct ids prompt = {0}, out = {0};
    struct stream s = {
        .t = l->tokenizer, .stop = &f->stop, .to = globals.json ? NULL : stdout, .e = e};
    i64 full = 0;
    const struct sampling how = sampling_of(f, &t->stops, &full);
    const double start = clock_seconds();
    const i64 size = (i64)strlen(f->prompt);
    int rc = prompt_encode(l->tokenizer, f->prompt, size, &prompt, e) ||
             stream_begin(&s, prompt.item, prompt.count, e);
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
    struct ids ids, stops; /* stops: of an answer in a conversation */
    struct text_list stop;
    struct sampling how;
    struct stream answer;
};

static void asked_free(struct asked *a) {
    text_free(&a->text), ids_free(&a->ids), ids_free(&a->stops), stream_free(&a->answer);
    *a = (struct asked){0};
}

static int asked_read(struct asked *a, const json_t *j, const char *where, struct talker *t,
                      const struct generate_flags *f, struct row_notes *notes, i64 *full,
                      struct err *e) {
    const json_t *prompt = json_object_get(j, "prompt");
    const struct tokenizer *tokenizer = t->l.tokenizer;
    a->answer = (struct stream){.t = tokenizer, .stop = &a->stop, .e = e};
    a->stop = f->stop, a->how = sampling_of(f, &t->stops, full);
    if (json_is_string(prompt))
        return text_add(&a->text, json_string_value(prompt), (i64)json_string_length(prompt), e) ||
                       prompt_encode(tokenizer, a->text.data, a->text.size, &a->ids, e) ||
                       stream_begin(&a->answer, a->ids.item, a->ids.count, e)
                   ? -1
                   : 0;
    if (!json_is_array(prompt) && !json_object_get(j, "messages") &&
        !json_object_get(j, "conversations"))
        return err_input(e, "found no prompt; expected {\"prompt\": ...} or {\"messages\": [...]}");
    if (!t->chat) {
        err_input(e, "messages, and there is no chat template");
        return err_hint(e, "name one: --chat-template chatml, llama3, alpaca or a .jinja file");
    }
    a->how.stops = &a->stops;
    return answer_stops(t, f, j, &a->stops, &a->stop, e) ||
                   chat_prompt(t->chat, j, where, true, notes, &a->text, NULL, e) ||
                   tokenizer_encode(tokenizer, a->text.data, a->text.size, false, &a->ids, e)
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
                                    .arg = &a[i].answer,
                                    .how = &a[i].how};
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

static int generate_file(struct talker *t, const struct generate_flags *f, struct err *e) {
    i64 full = 0;
    struct text file = {0}, said = {0};
    struct row_notes notes = {0};
    struct asked *a = mem_new_array(f->batch_size, sizeof *a, e);
    i64 count = 0, line = 1;
    struct engine *g = engine_open(&t->l.model, NULL, e); /* batches share what they begin with */
    int rc = !a || !g || file_read(&file, f->prompts, e);
    for (char *at = file.data, *end; !rc && at < file.data + file.size; at = end + 1, line++) {
        char where[4200];
        end = memchr(at, '\n', (size_t)(file.data + file.size - at));
        if (!end) end = file.data + file.size;
        if (at + strspn(at, " \t\r") >= end) continue;
        snprintf(where, sizeof where, "%s:%lld", f->prompts, (long long)line);
        json_t *j = json_parse(at, end - at, where, e);
        notes.line = line;
        rc = !j || asked_read(&a[count], j, where, t, f, &notes, &full, e);
        if (rc && j && strncmp(e->primary, where, strlen(where))) err_frame(e, "in %s", where);
        json_decref(j), count++;
        const bool last = end + 1 >= file.data + file.size;
        if (rc || (count < f->batch_size && !last)) continue;
        rc = asked_answer(a, count, g, &a[0].how, e);
        for (; count > 0; count--) asked_free(&a[count - 1]);
    }
    if (!rc && count) rc = asked_answer(a, count, g, &a[0].how, e); /* blank lines at the end */
    positions_note(&t->l.model, full);
    if (!row_notes_text(&notes, f->prompts, &said, &(struct err){0}) && said.size && !globals.quiet)
        show(stderr, "%s", said.data);
    row_notes_free(&notes), text_free(&said);
    for (; a && count > 0; count--) asked_free(&a[count - 1]);
    engine_close(g), mem_free(a), text_free(&file);
    return rc ? -1 : 0;
}

static int cmd_generate(int argc, char **argv, struct err *e) {
    struct generate_flags f = {0};
    struct args a;
    struct talker t = {0};
    int rc = args_parse(&a, argc, argv, generate_options, &f, e) ||
             args_need(&a, 1, 1, "generate MODEL --prompt TEXT", e) || talker_open(&t, &f, &a, e);
    if (!rc) rc = f.prompts ? generate_file(&t, &f, e) : generate_one(&t, &f, e);
    talker_close(&t), args_free(&a);
    return rc ? -1 : 0;
}

const struct command command_generate = {
    "generate",
    "generate MODEL --prompt TEXT | --prompts FILE.jsonl [--adapter DIR[=WEIGHT]]...",
    "continue a text, or several at once",
    cmd_generate,
    generate_options,
    NULL};
