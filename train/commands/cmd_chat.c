/* cmd_chat.c: `hone chat`: a conversation line by line, by the model's chat template. Each turn
 * renders the whole conversation: a template may write earlier turns differently once others
 * follow. The engine computes what follows the beginning whose ids are those of an earlier turn.
 * Reads a terminal or a pipe. */
#include "train/commands/commands.h"

#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct option chat_options[] = {
    GENERATE_ROW(system, OPT_TEXT, NULL, 0, 0, "what the model is told first"),
    GENERATE_ROW(chat_template, OPT_TEXT, NULL, 0, 0,
                 "chatml, llama3, alpaca, a file or text; default: the model's own"),
    GENERATE_ROW(max_new_tokens, OPT_INT, "1024", 1, 1 << 24, "tokens of an answer at most"),
    GENERATE_ROWS,
    {0},
};

/* At a terminal, ^C while an answer is being written ends the answer; a second one, or one at the
 * prompt, ends the program. */
static volatile sig_atomic_t interrupted;
static void on_interrupt(int signal) { interrupted = signal; }
static int answer_token(void *arg, u32 id) { return interrupted ? 1 : stream_token(arg, id); }

struct talk {
    struct talker with;
    struct engine *engine;
    struct ids stops;
    struct text_list stop; /* strings that end an answer */
    json_t *messages;
    const struct generate_flags *f;
};

static void message_add(struct talk *t, const char *role, const char *text, i64 size) {
    json_array_append_new(t->messages,
                          json_pack("{s:s, s:s%}", "role", role, "content", text, (size_t)size));
}

static void talk_reset(struct talk *t) {
    json_array_clear(t->messages);
    if (t->f->system) message_add(t, "system", t->f->system, (i64)strlen(t->f->system));
}

static int template_need(const struct talk *t, struct err *e) {
    if (t->with.chat) return 0;
    err_input(e, "%s has no chat template", t->with.l.base);
    return err_hint(e, "name one: --chat-template chatml, llama3, alpaca or a .jinja file; or use "
                       "hone generate");
}

static int answer(struct talk *t, struct err *e) {
    struct text text = {0};
    struct ids prompt = {0};
    struct stream s = {
        .t = t->with.l.tokenizer, .stop = &t->stop, .to = globals.json ? NULL : stdout, .e = e};
    i64 full = 0;
    const struct sampling how = sampling_of(t->f, &t->stops, &full);
    int rc = chat_render(t->with.chat, NULL, t->messages, true, &text, NULL, e) ||
             tokenizer_encode(t->with.l.tokenizer, text.data, text.size, false, &prompt, e);
    struct sequence q = {
        .prompt = prompt.item, .count = prompt.count, .each = answer_token, .arg = &s};
    rc = rc || engine_generate(t->engine, &q, 1, &how, e);
    if (!rc) {
        stream_end(&s);
        message_add(t, "assistant", s.text.data ? s.text.data : "", s.text.size);
        if (globals.json) {
            const json_t *said = json_array_get(t->messages, json_array_size(t->messages) - 1);
            char *line = json_dumps(said, JSON_PRESERVE_ORDER);
            puts(line ? line : "");
            free(line);
        } else {
            puts("");
        }
        fflush(stdout);
        positions_note(&t->with.l.model, full);
    }
    text_free(&text), ids_free(&prompt), ids_free(&q.out), stream_free(&s);
    return rc ? -1 : 0;
}

static const char commands_help[] =
    "/reset  begin anew\n/exit   leave (or end of input)\n/help   this\n"
    "/cost   how many tokens were computed, and how many taken from earlier turns\n"
    "^C      end the answer that is being written\n";

static void show_cost(const struct talk *t) {
    const struct engine_count c = engine_counted(t->engine);
    fprintf(stderr, "%lld tokens computed, %lld taken from earlier turns\n", (long long)c.computed,
            (long long)c.reused);
}

/* A turn that fails (too long, refused by the template) is told, taken back, and not the end; on a
 * pipe it is. */
static int talk_on(struct talk *t, bool terminal, struct err *e) {
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;
    int rc = 0;
    while (!rc) {
        if (terminal) fputs("> ", stderr);
        if (ferror(stdout) || (size = getline(&line, &capacity, stdin)) < 0) break;
        while (size && (line[size - 1] == '\n' || line[size - 1] == '\r')) line[--size] = 0;
        if (!size) continue;
        if (!strcmp(line, "/exit")) break;
        if (!strcmp(line, "/help")) fputs(commands_help, stderr);
        if (!strcmp(line, "/reset")) talk_reset(t);
        if (!strcmp(line, "/cost")) show_cost(t);
        if (!strcmp(line, "/reset") || !strcmp(line, "/help") || !strcmp(line, "/cost")) continue;
        if (utf8_bad(line, size) >= 0) {
            rc = err_input(e, "what was written is not valid UTF-8");
        } else {
            message_add(t, "user", line, size);
            struct sigaction stop = {.sa_handler = on_interrupt, .sa_flags = SA_RESETHAND}, before;
            interrupted = 0;
            if (terminal) sigaction(SIGINT, &stop, &before);
            rc = answer(t, e);
            if (terminal) sigaction(SIGINT, &before, NULL);
        }
        if (!rc || !terminal) continue;
        err_print(e, stderr);
        *e = (struct err){0}, rc = 0;
        json_array_remove(t->messages, json_array_size(t->messages) - 1);
    }
    free(line);
    return rc;
}

static int cmd_chat(int argc, char **argv, struct err *e) {
    struct generate_flags f = {0};
    struct args a;
    struct talk t = {.f = &f, .messages = json_array()};
    const bool terminal = isatty(STDIN_FILENO) && !globals.json;
    int rc = args_parse(&a, argc, argv, chat_options, &f, e) ||
             args_need(&a, 1, 1, "chat MODEL", e) || talker_open(&t.with, &f, &a, e) ||
             template_need(&t, e) || answer_stops(&t.with, &f, NULL, &t.stops, &t.stop, e) ||
             !(t.engine = engine_open(&t.with.l.model, NULL, e));
    if (!rc) {
        talk_reset(&t);
        if (terminal && !quiet) fputs("/help lists commands\n", stderr);
        rc = talk_on(&t, terminal, e);
    }
    json_decref(t.messages), ids_free(&t.stops), engine_close(t.engine);
    talker_close(&t.with), args_free(&a);
    return rc ? -1 : 0;
}

const struct command command_chat = {"chat",
                                     "chat MODEL [--system TEXT] [--adapter DIR[=WEIGHT]]...",
                                     "talk to a model, by its chat template",
                                     cmd_chat,
                                     chat_options,
                                     NULL};
