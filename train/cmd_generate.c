/* cmd_generate.c: `hone generate`: a prompt continued, streamed as it comes. */
#include "train/train.h"

#include <string.h>

struct generate_flags {
    const char *prompt, *adapter, *precision, *tokenizer;
    double temperature, top_p, min_p;
    i64 top_k, seed, max_new_tokens;
    bool greedy, ignore_eos;
};
#define ROW(key, type, otherwise, low, high, help)                                                 \
    { #key, type, offsetof(struct generate_flags, key), otherwise, low, high, NULL, help }
const struct option generate_options[] = {
    ROW(prompt, OPT_TEXT, "", 0, 0, "text to go on from"),
    ROW(adapter, OPT_TEXT, NULL, 0, 0, "a PEFT adapter folder"),
    ROW(tokenizer, OPT_TEXT, NULL, 0, 0, "tokenizer, if the model folder has none"),
    ROW(precision, OPT_TEXT, "fp32", 0, 0, "fp32 or bf16"),
    ROW(max_new_tokens, OPT_INT, "128", 1, 1 << 24, "tokens to add at most"),
    ROW(temperature, OPT_FLOAT, "0.8", 0, 100, "0: greedy"),
    ROW(top_k, OPT_INT, "0", 0, 1 << 24, "keep the k most likely; 0: all"),
    ROW(top_p, OPT_FLOAT, "0.95", 0, 1, "keep the most likely that sum to this"),
    ROW(min_p, OPT_FLOAT, "0", 0, 1, "drop what is less likely than this times the most likely"),
    ROW(seed, OPT_INT, "42", 0, 0, "the same seed gives the same text"),
    ROW(greedy, OPT_BOOL, "false", 0, 0, "the most likely token each time"),
    ROW(ignore_eos, OPT_BOOL, "false", 0, 0, "go on after an end-of-text token"),
    {0},
};
#undef ROW

/* Prints what is new and complete: bytes of an unfinished UTF-8 character wait for the next token.
 */
struct stream {
    const struct tokenizer *t;
    struct ids ids;
    struct text text;
    i64 printed;
    struct err *e;
};
static int stream_token(void *arg, u32 id) {
    struct stream *s = arg;
    s->text.size = 0;
    if (ids_add(&s->ids, id, s->e) ||
        tokenizer_decode(s->t, s->ids.item, s->ids.count, true, &s->text, s->e))
        return -1;
    static const char unknown[] = "\xef\xbf\xbd";
    if (s->text.size >= 3 && !memcmp(s->text.data + s->text.size - 3, unknown, 3)) return 0;
    if (s->text.size > s->printed)
        fwrite(s->text.data + s->printed, 1, (size_t)(s->text.size - s->printed), stdout);
    s->printed = i64_max(s->printed, s->text.size);
    return fflush(stdout);
}

static int print_json(const char *prompt, const struct stream *s, struct err *e) {
    struct text line = {0};
    int rc = text_printf(&line, e, "{\"prompt\": ") ||
             json_text_add(&line, prompt, (i64)strlen(prompt), e) ||
             text_printf(&line, e, ", \"text\": ") ||
             json_text_add(&line, s->text.data ? s->text.data : "", s->text.size, e) ||
             text_printf(&line, e, ", \"ids\": [");
    for (i64 i = 0; !rc && i < s->ids.count; i++)
        rc = text_printf(&line, e, "%s%u", i ? ", " : "", s->ids.item[i]);
    if (!rc && !(rc = text_printf(&line, e, "]}"))) puts(line.data);
    text_free(&line);
    return rc;
}

static int stream_quiet(void *arg, u32 id) {
    struct stream *s = arg;
    s->text.size = 0;
    return ids_add(&s->ids, id, s->e) ||
                   tokenizer_decode(s->t, s->ids.item, s->ids.count, true, &s->text, s->e)
               ? -1
               : 0;
}

int cmd_generate(int argc, char **argv, struct err *e) {
    struct generate_flags f = {0};
    struct args a;
    struct loaded l = {0};
    struct ids prompt = {0}, out = {0};
    enum dtype d;
    int rc = args_parse(&a, argc, argv, generate_options, &f, e) ||
             args_need(&a, 1, 1, "generate MODEL --prompt TEXT", e) ||
             precision_parse(f.precision, &d, e) ||
             loaded_open(&l, a.rest[0], f.adapter, f.tokenizer, d, false, e);
    if (!rc && !l.tokenizer)
        rc = err_input(e, "%s holds no tokenizer.json", l.base),
        err_hint(e, "--tokenizer T names one");
    struct stream s = {.t = l.tokenizer, .e = e};
    if (!rc) rc = tokenizer_encode(l.tokenizer, f.prompt, (i64)strlen(f.prompt), true, &prompt, e);
    if (!rc && !prompt.count) {
        const i64 first = tokenizer_bos(l.tokenizer) >= 0 ? tokenizer_bos(l.tokenizer)
                                                          : tokenizer_eos(l.tokenizer);
        rc = first >= 0 ? ids_add(&prompt, (u32)first, e)
                        : err_input(e, "the prompt is empty and the tokenizer has no start token");
    }
    const struct sampling how = {f.greedy ? 0 : f.temperature,
                                 f.top_p,
                                 f.min_p,
                                 f.top_k,
                                 f.seed,
                                 f.max_new_tokens,
                                 f.ignore_eos};
    const double start = clock_seconds();
    if (!rc && !globals.json) fputs(f.prompt, stdout), fflush(stdout);
    if (!rc)
        rc = generate_ids(&l.model, prompt.item, prompt.count, &how, &out,
                          globals.json ? stream_quiet : stream_token, &s, e);
    if (!rc && globals.json)
        rc = print_json(f.prompt, &s, e);
    else if (!rc) {
        if (s.text.size > s.printed)
            fwrite(s.text.data + s.printed, 1, (size_t)(s.text.size - s.printed), stdout);
        puts("");
        if (!quiet)
            fprintf(stderr, "%lld tokens, %.0f tokens/s\n", (long long)out.count,
                    (double)out.count / (clock_seconds() - start));
    }
    ids_free(&prompt), ids_free(&out), ids_free(&s.ids), text_free(&s.text);
    loaded_close(&l), args_free(&a);
    return rc ? -1 : 0;
}
