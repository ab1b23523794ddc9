/* rows_prompts.c: prompts that are written around the columns of a row, as Axolotl's dataset types
 * write them (067b021): Stanford Alpaca's with its preamble, and what is of its kind.
 *
 * Prompt and answer are tokenised apart, as there: the model sees the ids of the whole prompt and
 * goes on behind them. eos follows the answer. No chat template has a say. */
#include "data/datasets/datasets_int.h"
#include <string.h>

#define I "\1" /* the instruction */
#define X "\2" /* its input */
#define S "\3" /* what the system says */
enum { WITH_INPUT, WITHOUT };
struct words {
    const char *system, *turn[2];
};
static const struct words
    instruct = {S "\n\n",
                {"### Instruction:\n" I "\n\n### Input:\n" X "\n\n### Response:\n",
                 "### Instruction:\n" I "\n\n### Response:\n"}},
    chat = {"SYSTEM: " S "\n", {"USER: " I "\n" X "\nASSISTANT:", "USER: " I "\nASSISTANT:"}},
    chatml = {"<|im_start|>system\n" S "<|im_end|>\n",
              {"<|im_start|>user\n" I "\n" X "<|im_end|>\n<|im_start|>assistant\n",
               "<|im_start|>user\n" I "<|im_end|>\n<|im_start|>assistant\n"}},
    phi = {"<|system|>\n" S "<|end|>\n",
           {"<|user|>\n" I "<|end|>" X "<|assistant|>", "<|user|>\n" I "<|end|>\n<|assistant|>\n"}},
    orca = {"### System:\n" S "\n",
            {"### Human:\n" I "\n### Additional Context:\n" X "\n### Assistant:\n",
             "### Human:\n" I "\n### Assistant:\n"}},
    summary = {S,
               {"USER: Summarize the following article as a TL;DR.\n" I "\n" X "\nASSISTANT:",
                "USER: Summarize the following article as a TL;DR.\n" I "\nASSISTANT:"}};
static const char *const alpaca[2] =
    {"Below is an instruction that describes a task, paired with an input that provides further "
     "context. Write a response that appropriately completes the request.",
     "Below is an instruction that describes a task. Write a response that appropriately completes "
     "the request."},
                         *const concise[2] =
                             {"Below is an instruction from a USER that describes a task, paired "
                              "with an input that provides further context. The ASSISTANT writes a "
                              "response that concisely and appropriately completes the "
                              "request.\n\n",
                              "Below is an instruction from a USER that describes a task. The "
                              "ASSISTANT writes a response that appropriately and concisely "
                              "completes the request.\n\n"},
                         *const none[2] = {"", ""};

enum column { INSTRUCTION, INPUT, ANSWER, SYSTEM, COLUMNS };
struct words_of {
    const char *text;
    i64 size;
};
#define ALPACA                                                                                     \
    { "instruction", "input", "output", "" }
#define ALPACA_SYSTEM                                                                              \
    { "instruction", "input", "output", "system" }
#define ORCA                                                                                       \
    { "question", "", "response", "system_prompt" }
struct prompt_style {
    const char *name;
    const struct words *words;
    const char *const *system;   /* NULL: the column */
    const char *column[COLUMNS]; /* "": none */
    const char *said;            /* in front of each answer */
};
static const struct prompt_style styles[] = {
    {"alpaca", &instruct, alpaca, ALPACA, ""},
    {"alpaca:chat", &chat, alpaca, ALPACA, ""},
    {"alpaca:chatml", &chatml, alpaca, ALPACA, ""},
    {"alpaca:phi", &phi, alpaca, ALPACA, ""},
    {"alpaca_instruct.load_no_prompt", &instruct, none, ALPACA, ""},
    {"alpaca_chat.load_no_prompt", &chat, none, ALPACA, ""},
    {"alpaca_chat.load_concise", &chat, concise, ALPACA, ""},
    {"alpaca_chat.load_qa", &chat, concise, {"question", "", "answer", ""}, ""},
    {"alpaca_chat.load_camel_ai", &chat, concise, {"message_1", "", "message_2", ""}, ""},
    {"alpaca_w_system", &chat, NULL, ALPACA_SYSTEM, ""},
    {"alpaca_w_system.load_instruct", &instruct, NULL, ALPACA_SYSTEM, ""},
    {"alpaca_w_system.load_open_orca", &orca, NULL, ORCA, ""},
    {"alpaca_w_system.load_open_orca_chatml", &chatml, NULL, ORCA, ""},
    {"gpteacher", &instruct, alpaca, {"instruction", "input", "response", ""}, ""},
    {"jeopardy", &instruct, alpaca, {"question", "category", "answer", ""}, "what is "},
    {"oasst", &instruct, alpaca, {"INSTRUCTION", "", "RESPONSE", ""}, ""},
    {"summarizetldr", &summary, none, {"article", "", "summary", ""}, ""},
};
const char prompt_style_choices[] =
    "alpaca alpaca:chat alpaca:chatml alpaca:phi alpaca_instruct.load_no_prompt "
    "alpaca_chat.load_no_prompt alpaca_chat.load_concise alpaca_chat.load_qa "
    "alpaca_chat.load_camel_ai alpaca_w_system alpaca_w_system.load_instruct "
    "alpaca_w_system.load_open_orca alpaca_w_system.load_open_orca_chatml gpteacher jeopardy oasst "
    "summarizetldr";

const struct prompt_style *prompt_style_find(const char *name) {
    for (int i = 0; name && i < COUNT(styles); i++)
        if (!strcmp(styles[i].name, name)) return &styles[i];
    return NULL;
}

bool prompt_style_uses(const struct prompt_style *s, const char *key) {
    bool used = false;
    for (int i = 0; i < COLUMNS; i++) used |= !strcmp(s->column[i], key);
    return used && *key;
}

/* Appends `words` with its places filled. */
static int filled(struct text *out, const char *words, const struct words_of of[COLUMNS],
                  struct err *e) {
    for (const char *w = words; *w; w++) {
        const struct words_of *s = *w == *I ? &of[INSTRUCTION] : *w == *X ? &of[INPUT] : NULL;
        if (*w == *S) s = &of[SYSTEM];
        if (s ? text_add(out, s->text, s->size, e) : text_add(out, w, 1, e)) return -1;
    }
    return 0;
}

int prompt_style_made(const struct prompt_style *s, const json_t *row, struct text *out,
                      i64 *prompt, const char **wrong, struct err *e) {
    struct words_of of[COLUMNS];
    for (int i = 0; i < COLUMNS; i++) {
        const json_t *value = json_object_get(row, s->column[i]);
        const bool needed = i == INSTRUCTION || i == ANSWER;
        if (json_is_string(value) || (!value && !needed))
            of[i] = (struct words_of){value ? json_string_value(value) : "",
                                      value ? (i64)json_string_length(value) : 0};
        else
            return *wrong = s->column[i], 1;
    }
    const int with = of[INPUT].size ? WITH_INPUT : WITHOUT;
    if (s->system) of[SYSTEM] = (struct words_of){s->system[with], (i64)strlen(s->system[with])};
    out->size = 0;
    if ((of[SYSTEM].size && filled(out, s->words->system, of, e)) ||
        filled(out, s->words->turn[with], of, e))
        return -1;
    *prompt = out->size;
    if (!of[ANSWER].size) return 0;
    return text_add(out, s->said, (i64)strlen(s->said), e) ||
                   text_add(out, of[ANSWER].text, of[ANSWER].size, e)
               ? -1
               : 0;
}
