/* fuzz_rows.c: libFuzzer target for what rows mean: conversations in all their forms, columns under
 * other names, ids, rows that are left out; clang -fsanitize=fuzzer,address,undefined.
 *
 * The first two bytes pick the template and the rules, the others are JSON lines. A file gives the
 * same documents twice: valid UTF-8, spans in order within them; with `skip`, a row that cannot be
 * used never ends the file; what became of the rows can always be said. */
#include "data/datasets/datasets.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static const char *const template[] = {
    "chatml",
    "{% for m in messages %}{{ '<' ~ m.role ~ '>' ~ m.content ~ '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}",
    "{{ tools | tojson if tools }}{% for m in messages %}<{{ m.role }}>{% for c in m.tool_calls %}"
    "{{ c.function.arguments | tojson }}{% endfor %}{{ m.content }}{{ x }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}",
    "{% for m in messages %}<{{ m.role }}>{% for c in m.tool_calls %}"
    "{{ '(' + c.function.arguments + ')' }}{% endfor %}{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"};
static const char *const columns[] = {
    "{}", "{\"prompt\": \"question\", \"completion\": \"answer\"}",
    "{\"prompt\": \"question\", \"response\": \"answer\", \"history\": \"h\", \"system\": \"s\"}",
    "{\"messages\": \"dialog\", \"role\": \"who\", \"content\": \"what\"}"};
static struct chat *chat[COUNT(template)];
static json_t *named[COUNT(columns)], *kwargs;
static char path[64];

static void check(bool holds) {
    if (!holds) abort();
}

static void fuzz_end(void) {
    unlink(path);
    for (int i = 0; i < COUNT(chat); i++) chat_free(chat[i]);
    for (int i = 0; i < COUNT(named); i++) json_decref(named[i]);
    json_decref(kwargs);
}

static void fuzz_begin(void) {
    struct err e = {0};
    snprintf(path, sizeof path, "/dev/shm/hone-fuzz-rows-%d.jsonl", getpid());
    for (int i = 0; i < COUNT(chat); i++)
        check((chat[i] = chat_open(template[i], NULL, NULL, &e)) != NULL);
    for (int i = 0; i < COUNT(named); i++) check((named[i] = json_loads(columns[i], 0, NULL)));
    kwargs = json_pack("{s:b}", "x", 1);
    atexit(fuzz_end);
}

/* Documents, or -1; a digest of what they hold. */
static i64 read_all(const struct source_options *how, bool lines, char hex[65]) {
    struct err e = {0};
    struct document d;
    struct sha256 sum = {0};
    struct text notes = {0};
    i64 count = 0;
    int r = sha256_begin(&sum, &e);
    struct source *s = r ? NULL : source_open(path, how, &e);
    while (s && (r = source_next(s, &d, &e)) > 0) {
        const i64 places = d.ids ? d.size / 4 : d.size;
        check(d.ids || utf8_bad(d.text, d.size) < 0);
        for (i64 i = 0, at = 0; i < d.spans; at = d.span[i++].end)
            check(d.span[i].begin >= at && d.span[i].end > d.span[i].begin &&
                  d.span[i].end <= places);
        sha256_add(&sum, d.text, d.size), sha256_add(&sum, d.span, d.spans * (i64)sizeof *d.span);
        count++;
    }
    check(!(r < 0) == !e.code && e.code != ERR_FAILED);
    /* what is wrong with a row is not the end, but what columns says is, and a broken array */
    check(!(r < 0 && lines && how->rules.skip && how->rules.version != 1) ||
          strstr(e.primary, "columns:") || strstr(e.primary, "no chat template"));
    struct err none = {0};
    if (s) check(!row_notes_text(source_notes(s), "f", &notes, &none));
    sha256_add(&sum, notes.data ? notes.data : "", notes.size);
    if (sum.context) sha256_end(&sum, hex);
    source_close(s), text_free(&notes);
    return r < 0 ? -1 : count;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    struct err e = {0};
    char first[65], again[65];
    if (!path[0]) fuzz_begin();
    if (size < 2) return 0;
    const struct source_options how = {.chat = chat[data[0] % COUNT(chat)],
                                       .chat_instructions = data[0] & 32,
                                       .completion_only_loss = data[0] & 64,
                                       .assistant_only_loss = data[0] & 128,
                                       .vocab_size = 512,
                                       .rules = {.columns = named[data[1] % COUNT(named)],
                                                 .kwargs = data[1] & 8 ? kwargs : NULL,
                                                 .version = data[1] & 128 ? 1 : 2,
                                                 .skip = data[1] & 16}};
    if (file_write(path, (const char *)data + 2, (i64)size - 2, &e)) abort();
    const bool lines = size > 2 && data[2] == '{';
    const i64 all = read_all(&how, lines, first);
    check(read_all(&how, lines, again) == all && !strcmp(first, again));
    return 0;
}
