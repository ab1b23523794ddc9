/* cmd_tokenize.c: `hone tokenize` and `hone tokenizer train`. */
#include "train/commands/commands.h"

#include <jansson.h>
#include <string.h>
#include <unistd.h>

struct tokenize_flags {
    const char *tokenizer, *output, *validation_output, *type, *document_separator, *chat_template;
    const char *name, *split;
    const struct chat *chat;
    double validation;
    const char *add_bos, *on_bad_row, *template_date, *prompt_style, *default_system;
    bool completion_only_loss, assistant_only_loss, add_eos, drop_system_message;
    bool dataset_exact_deduplication;
    struct text_list columns, chat_template_kwargs;
    struct row_settings rows;
    struct seen *seen;
    i64 min_sample_len, seed;
};
#define ROW_OF struct tokenize_flags
static const struct option tokenize_options[] = {
    ROW(tokenizer, OPT_TEXT, NULL, 0, 0, "tokenizer.json or its folder"),
    ROW(output, OPT_TEXT, NULL, 0, 0, "the dataset to write (.h5)"),
    ROW(validation, OPT_FLOAT, "0", 0, 0.9, "fraction held out of --output"),
    ROW(validation_output, OPT_TEXT, NULL, 0, 0, "dataset for the held-out part"),
    ROW(type, OPT_TEXT, NULL, 0, 0,
        "text, jsonl, csv, tsv or parquet; default: by the file's name"),
    ROW(split, OPT_TEXT, NULL, 0, 0,
        "folders and dataset repositories: the split that is read; default: train"),
    ROW(name, OPT_TEXT, NULL, 0, 0,
        "dataset repositories: the configuration of its README.md; default: its default"),
    ROW(document_separator, OPT_TEXT, "", 0, 0,
        "text: what ends a document; default: one document a file"),
    ROW(completion_only_loss, OPT_BOOL, "false", 0, 0, "do not train on prompts"),
    ROW(assistant_only_loss, OPT_BOOL, "true", 0, 0,
        "conversations: train on what the assistant says alone"),
    ROW(chat_template, OPT_TEXT, NULL, 0, 0,
        "conversations: chatml, llama3, alpaca, a file or text; default: the tokenizer's own"),
    ROW(chat_template_kwargs, OPT_TEXT_LIST, NULL, 0, 0,
        "conversations: variables for the template: enable_thinking=false"),
    ROW(template_date, OPT_TEXT, NULL, 0, 0,
        "conversations: the day that the template is told, YYYY-MM-DD; default: today"),
    ROW(columns, OPT_TEXT_LIST, NULL, 0, 0,
        "names of the columns, ours first: prompt=question,completion=answer"),
    {"prompt_style", OPT_CHOICE, offsetof(struct tokenize_flags, prompt_style), NULL, 0, 0,
     prompt_style_choices, "what is written around the columns of a row, as Axolotl's types do"},
    ROW(drop_system_message, OPT_BOOL, "false", 0, 0,
        "conversations: a first message of the system is dropped"),
    ROW(default_system, OPT_TEXT, NULL, 0, 0,
        "conversations without a system message get this one"),
    {"on_bad_row", OPT_CHOICE, offsetof(struct tokenize_flags, on_bad_row), "error", 0, 0,
     "error skip", "rows that cannot be used: stop, or leave them out and count them"},
    ROW(min_sample_len, OPT_INT, "0", 0, 1 << 24, "rows of fewer tokens are left out and counted"),
    ROW(dataset_exact_deduplication, OPT_BOOL, "false", 0, 0,
        "rows whose tokens and targets were there already are left out and counted"),
    {"add_bos", OPT_CHOICE, offsetof(struct tokenize_flags, add_bos), "auto", 0, 0, SWITCH_CHOICES,
     "texts begin with the tokenizer's bos; auto: where hone generate begins with it"},
    ROW(add_eos, OPT_BOOL, "true", 0, 0, "end each document with the tokenizer's eos"),
    ROW(seed, OPT_INT, "42", 0, 0, "chooses what is held out"),
    {0},
};
#undef ROW_OF

static int dataset_make(const struct tokenize_flags *f, struct args *a, const struct tokenizer *t,
                        enum split split, const char *path, struct err *e) {
    struct text notes = {0};
    const struct dataset_job job = {
        .sources = (const char *const *)a->rest,
        .sources_count = a->count,
        .config = f->name,
        .file_split = f->split,
        .notes = &notes,
        .encoder = encoder_of(t),
        .add_bos = !strcmp(f->add_bos, "true"),
        .add_around = !strcmp(f->add_bos, "auto"),
        .add_eos = f->add_eos,
        .min_tokens = f->min_sample_len,
        .seen = f->seen,
        .path = path,
        .options = {.type = f->type,
                    .document_separator = f->document_separator,
                    .completion_only_loss = f->completion_only_loss,
                    .assistant_only_loss = f->assistant_only_loss,
                    .chat = f->chat,
                    .chat_instructions = f->chat_template != NULL,
                    .rules = {.columns = f->rows.columns,
                              .kwargs = f->rows.kwargs,
                              .drop_system = f->drop_system_message,
                              .system = f->default_system,
                              .style = prompt_style_find(f->prompt_style),
                              .skip = !strcmp(f->on_bad_row, "skip")},
                    .split = split,
                    .validation_fraction = f->validation,
                    .seed = (u64)f->seed}};
    const int rc = dataset_build(&job, e);
    if (notes.size && !quiet) show(stderr, "%s", notes.data);
    return text_free(&notes), rc;
}

static int dataset_print(const char *path, struct err *e) {
    struct dataset *d = dataset_open(path, e);
    if (!d) return -1;
    const struct dataset_info *i = dataset_info(d);
    int rc = 0;
    if (globals.json)
        rc = json_print(json_pack("{s:o, s:I, s:I, s:s}", "path", json_name(path), "tokens",
                                  (json_int_t)i->tokens, "documents", (json_int_t)i->documents,
                                  "sha256", i->sha256),
                        e);
    else if (!quiet)
        show(stdout, "%s: %lld tokens in %lld document%s, %.2f MB on disk\n", path,
             (long long)i->tokens, (long long)i->documents, i->documents == 1 ? "" : "s",
             (double)path_size(path) / 1e6);
    dataset_close(d);
    return rc;
}

/* With a validation part: both files or neither. */
static int datasets_make(const struct tokenize_flags *f, struct args *a, const struct tokenizer *t,
                         struct err *e) {
    if (!(f->validation > 0))
        return dataset_make(f, a, t, SPLIT_ALL, f->output, e) || dataset_print(f->output, e);
    char *train = arena_printf(&a->arena, e, "%s.part", f->output);
    if (!train) return -1;
    const struct outputs part = {.output = {train, f->validation_output},
                                 .input = {f->tokenizer, f->chat_template},
                                 .source = (const char *const *)a->rest,
                                 .sources = a->count};
    if (outputs_apart(&part, e)) return -1;
    int rc = dataset_make(f, a, t, SPLIT_TRAIN, train, e) ||
             dataset_make(f, a, t, SPLIT_VALIDATION, f->validation_output, e) ||
             path_rename(train, f->output, e);
    if (rc) unlink(train);
    return rc || dataset_print(f->output, e) || dataset_print(f->validation_output, e) ? -1 : 0;
}

static int cmd_tokenize(int argc, char **argv, struct err *e) {
    static const char usage[] = "tokenize SOURCE ... --tokenizer T --output FILE.h5";
    struct tokenize_flags f = {0};
    struct args a;
    struct tokenizer *t = NULL;
    struct chat *chat = NULL;
    int rc =
        args_parse(&a, argc, argv, tokenize_options, &f, e) || args_need(&a, 1, 1 << 20, usage, e);
    if (!rc && (!f.tokenizer || !f.output))
        rc = err_input(e, "tokenize needs --tokenizer and --output"),
        err_hint(e, "usage: hone %s", usage);
    if (!rc && (f.validation > 0) != (f.validation_output != NULL))
        rc = err_input(
            e,
            "--validation and --validation-output go together: what is held out must go somewhere");
    if (!rc && f.split && f.validation > 0)
        rc = err_input(e, "--split and --validation: name the files of the split to cut them");
    const struct outputs files = {.output = {f.output, f.validation_output},
                                  .input = {f.tokenizer, f.chat_template},
                                  .source = (const char *const *)a.rest,
                                  .sources = a.count};
    if (!rc)
        rc = outputs_apart(&files, e) || !(t = tokenizer_of_file(f.tokenizer, e)) ||
             chat_find(&chat, f.chat_template, t, e) ||
             ((chat || f.template_date) && chat_day(chat, f.template_date, e)) ||
             row_settings_open(&f.rows, &f.columns, &f.chat_template_kwargs, e);
    struct seen seen = {0};
    f.chat = chat, f.seen = f.dataset_exact_deduplication ? &seen : NULL;
    if (!rc) rc = datasets_make(&f, &a, t, e);
    row_settings_close(&f.rows), seen_free(&seen);
    tokenizer_free(t), chat_free(chat), args_free(&a);
    return rc ? -1 : 0;
}

struct tokenizer_flags {
    const char *output, *pattern;
    i64 vocab_size;
    struct text_list special_tokens;
};
#define ROW_OF struct tokenizer_flags
static const struct option tokenizer_options[] = {
    ROW(output, OPT_TEXT, NULL, 0, 0, "the tokenizer.json to write"),
    ROW(vocab_size, OPT_INT, "4096", 257, 1 << 24,
        "entries, the 256 bytes and special tokens included"),
    ROW(pattern, OPT_TEXT, "olmo2", 0, 0, "how text is cut into words: gpt2, llama3 or olmo2"),
    ROW(special_tokens, OPT_TEXT_LIST, "<|endoftext|>", 0, 0,
        "comma separated; they take the first ids"),
    {0},
};
#undef ROW_OF

static int tokenizer_make(const struct tokenizer_flags *f, const struct args *a, struct err *e) {
    const struct bpe_training job = {.pattern = f->pattern,
                                     .vocab_size = f->vocab_size,
                                     .special_tokens = (const char *const *)f->special_tokens.item,
                                     .special_tokens_count = f->special_tokens.count,
                                     .files = (const char *const *)a->rest + 1,
                                     .files_count = a->count - 1,
                                     .texts = source_texts};
    const double start = clock_seconds();
    if (bpe_train(&job, f->output, e)) return -1;
    if (!quiet)
        show(stdout, "%s: %lld entries, %.1f s\n", f->output, (long long)f->vocab_size,
             clock_seconds() - start);
    return 0;
}

static int cmd_tokenizer(int argc, char **argv, struct err *e) {
    static const char usage[] = "tokenizer train SOURCE ... --output tokenizer.json";
    struct tokenizer_flags f = {0};
    struct args a;
    int rc =
        args_parse(&a, argc, argv, tokenizer_options, &f, e) || args_need(&a, 2, 1 << 20, usage, e);
    if (!rc && strcmp(a.rest[0], "train"))
        rc = err_input(e, "unknown action '%s'", a.rest[0]), err_hint(e, "usage: hone %s", usage);
    if (!rc && !f.output)
        rc = err_input(e, "tokenizer train needs --output"), err_hint(e, "usage: hone %s", usage);
    if (!rc && f.vocab_size < 256 + f.special_tokens.count)
        rc = err_input(e, "--vocab-size %lld holds less than the 256 bytes and %lld special tokens",
                       (long long)f.vocab_size, (long long)f.special_tokens.count);
    if (!rc) {
        const struct outputs files = {.output = {f.output},
                                      .source = (const char *const *)a.rest + 1,
                                      .sources = a.count - 1};
        rc = outputs_apart(&files, e) || tokenizer_make(&f, &a, e);
    }
    args_free(&a);
    return rc ? -1 : 0;
}

const struct command command_tokenize = {"tokenize",
                                         "tokenize SOURCE ... --tokenizer T --output FILE.h5",
                                         "text, JSON, CSV or Parquet to a tokenised dataset",
                                         cmd_tokenize,
                                         tokenize_options,
                                         NULL};

const struct command command_tokenizer = {"tokenizer",
                                          "tokenizer train SOURCE ... --output tokenizer.json",
                                          "train a byte-level BPE",
                                          cmd_tokenizer,
                                          tokenizer_options,
                                          NULL};
