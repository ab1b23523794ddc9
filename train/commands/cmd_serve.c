/* cmd_serve.c: `hone serve`: a model as an HTTP server. Models, templates and sampling with its
 * defaults are those of generate and chat. */
#include "train/commands/commands.h"
#include "train/serve/serve.h"

#include <stdlib.h>
#include <string.h>

struct serve_flags {
    struct generate_flags g; /* first: its rows are those of GENERATE_ROWS */
    struct serve_plan plan;
    struct text_list adapter;
    const char *name;
};
#undef ROW_OF
#define ROW_OF struct serve_flags
#define PLAN(key, type, otherwise, low, high, help)                                                \
    { #key, type, offsetof(struct serve_flags, plan.key), otherwise, low, high, NULL, help }
static const struct option serve_options[] = {
    ROW(adapter, OPT_TEXT_EACH, NULL, 0, 0,
        "a PEFT adapter, NAME=DIR or DIR: requests for model NAME get it, others the base"),
    ROW(name, OPT_TEXT, NULL, 0, 0, "what requests call the model; default: its folder's name"),
    PLAN(listen, OPT_TEXT, "127.0.0.1:8080", 0, 0,
         "HOST:PORT, [HOST]:PORT or unix:PATH; port 0: any that is free"),
    PLAN(api_key, OPT_TEXT, NULL, 0, 0, "a key that requests must bring: Authorization: Bearer"),
    PLAN(kv_memory, OPT_INT, "0", 0, 0, "bytes of keys and values; 0: 9 tenths of what is left"),
    PLAN(max_requests, OPT_INT, "16", 1, 4096, "texts continued at once; others wait"),
    PLAN(max_queue, OPT_INT, "1024", 1, 1 << 20, "texts that may wait; beyond: 503"),
    PLAN(max_seq_length, OPT_INT, "0", 0, 0, "tokens of prompt and answer; 0: the model's"),
    PLAN(chunk, OPT_INT, "512", 1, 1 << 20, "tokens of prompts in a step; changes no bit"),
    PLAN(max_body, OPT_INT, "33554432", 1, 1 << 30, "bytes of a request"),
    PLAN(max_connections, OPT_INT, "256", 1, 65536, "connections at once; others wait"),
    PLAN(timeout, OPT_FLOAT, "60", 0.1, 86400,
         "seconds in which a request must arrive, and an answer be taken"),
    PLAN(grace, OPT_FLOAT, "30", 0, 86400, "seconds that running answers have after SIGTERM, ^C"),
    GENERATE_ROW(chat_template, OPT_TEXT, NULL, 0, 0,
                 "chatml, llama3, alpaca, a file or text; default: the model's own"),
    GENERATE_ROW(max_new_tokens, OPT_INT, "1024", 1, 1 << 24,
                 "tokens of an answer where the request does not say"),
    GENERATE_SHARED_ROWS,
    {0},
};

static int serve_help(FILE *to) {
    static const char text[] =
        "POST /v1/chat/completions, /v1/completions, GET /v1/models: as OpenAI's, streamed or "
        "not.\n"
        "POST /tokenize, /detokenize, /apply-template; GET /health, /metrics (Prometheus); / is a\n"
        "page to chat on. The flags of sampling are defaults: a request goes before them, and the\n"
        "same request gives the same answer, whoever else asks: without \"seed\" it is --seed.\n"
        "What a request says and cannot be followed is refused by name (400).\n\n"
        "  curl http://127.0.0.1:8080/v1/completions -d '{\"prompt\": \"Once upon\"}'\n\n";
    fputs(text, to);
    return 0;
}

static const char *file_part(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* NAME=DIR or DIR: the name, and in flags->g.adapter the folder. */
static const char *adapter_take(struct serve_flags *f, struct err *e) {
    if (!f->adapter.count) return NULL;
    if (f->adapter.count > 1) {
        err_input(e, "--adapter: %lld adapters, and one can be served beside its base",
                  (long long)f->adapter.count);
        err_hint(e, "start a server for each");
        return NULL;
    }
    char *text = f->adapter.item[0], *equals = path_is_dir(text) ? NULL : strchr(text, '=');
    if (equals) *equals = 0;
    static char *folder;
    folder = equals ? equals + 1 : text;
    if (!path_is_dir(folder)) {
        err_input(e, "--adapter: %s is not a folder", folder);
        err_hint(e, "give NAME=DIR or DIR");
        return NULL;
    }
    f->g.adapter = (struct text_list){&folder, 1};
    return equals ? text : file_part(folder);
}

/* Leaving out the adapter gives the base: but where it replaces parts of it. */
static bool base_is_kept(const struct lora_config *c) {
    return !lora_is_pissa(c) && !c->modules_to_save.count && !c->tokens_count && !c->biases;
}

static int names_give(struct serve_model *m, const struct serve_flags *f, const char *path,
                      const char *adapter, struct err *e) {
    const char *name = f->name ? f->name : file_part(path);
    m->name = adapter ? adapter : name;
    if (!adapter) return 0;
    if (!base_is_kept(&m->l->lora)) {
        if (!quiet)
            show(stderr, "note: %s replaces parts of its base, which is not served beside it\n",
                 adapter);
        return 0;
    }
    m->base = name;
    if (strcmp(m->name, m->base)) return 0;
    err_input(e, "the model and its adapter have the same name, '%s'", name);
    return err_hint(e, "--name gives the model another one");
}

static int cmd_serve(int argc, char **argv, struct err *e) {
    struct serve_flags f = {0};
    struct generate_flags asked;
    struct args a;
    struct talker t = {0};
    struct serve_model m = {.l = &t.l};
    const char *adapter = NULL;
    int rc = args_parse(&a, argc, argv, serve_options, &f, e) ||
             args_need(&a, 1, 1, "serve MODEL", e) || (!(adapter = adapter_take(&f, e)) && e->code);
    asked = f.g;
    rc = rc || talker_open(&t, &f.g, &a, e) || talker_asked(&t, &asked, &a, e) ||
         names_give(&m, &f, a.rest[0], adapter, e);
    if (!rc) {
        m.chat = t.chat, m.stops = &t.stops, m.stop = &f.g.stop, m.precision = f.g.precision;
        m.usual = sampling_of(&f.g, NULL, NULL), m.asked = sampling_of(&asked, NULL, NULL);
        rc = serve(&m, &f.plan, e);
    }
    talker_close(&t), args_free(&a);
    return rc ? -1 : 0;
}

const struct command command_serve = {"serve",
                                      "serve MODEL [--adapter NAME=DIR] [--listen 127.0.0.1:8080 | "
                                      "unix:PATH]",
                                      "a model as an HTTP server, for OpenAI's clients",
                                      cmd_serve,
                                      serve_options,
                                      serve_help};
