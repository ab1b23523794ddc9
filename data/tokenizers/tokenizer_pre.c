/* tokenizer_pre.c: named pre-tokenizers: what a GGUF file's tokenizer.ggml.pre stands for, and the
 * families of rank files. Names are those of llama.cpp's converter; stages are what the models' own
 * tokenizer.json say (llama.cpp approximates some of them). A name that is not here is refused: it
 * would give ids that are nearly right. */
#include <string.h>
#include "data/tokenizers/tokenizers_int.h"

/* Escapes stand for what Unicode composition would turn into other characters. */
static const char deepseek_letters[] =
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-"
    "ᏽᲐ-"
    "ᲺᲽ-"
    "Ჿᴀ-"
    "ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\\u1f7d"
    "ᾀ-ᾴᾶ-ᾼ\\u1fbeῂ-ῄῆ-ῌῐ-\\u1fd3ῖ-\\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\\u2126ℨ\\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-"
    "ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-"
    "ꮿﬀ-"
    "ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓"
    "𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
static const char deepseek_marks[] = "\\s?[!-/:-~！-／：-～‘-‟　-。]+";
static const char deepseek_cjk[] = "[一-龥ࠀ-一가-퟿]+";
static const char bloom[] = " ?[^(\\s|[.,!?…。，、।۔،])]+";
static const char qwen35[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}|"
    " ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* Falcon counts digits in what ByteLevel shows, so its stages are not splits alone. */
static const char falcon[] = "[{\"type\": \"Punctuation\", \"behavior\": \"Contiguous\"},"
                             " {\"type\": \"ByteLevel\", \"add_prefix_space\": false},"
                             " {\"type\": \"Digits\", \"individual_digits\": false},"
                             " {\"type\": \"Split\", \"pattern\": {\"Regex\": "
                             "\"[0-9][0-9][0-9]\"}, \"behavior\": \"Isolated\"}]";

static const struct row {
    const char *names;
    bool nfc, ignore_merges;
    const char *stage[7]; /* patterns; words are isolated; then ByteLevel. One that starts with [{
                             is the whole list */
} rows[] = {
    {"default gpt-2 phi-2 gpt2 jais trillion exaone4 gigachat modern-bert roberta-bpe r50k p50k",
     false,
     false,
     {pattern_gpt2}},
    {"mpt olmo", true, false, {pattern_gpt2}},
    {"llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral lfm2", false, true, {pattern_llama3}},
    {"dbrx smaug-bpe glm4 chatglm-bpe", false, false, {pattern_llama3}},
    {"cl100k", false, false, {pattern_cl100k}},
    {"qwen2 deepseek-r1-qwen megrez", true, false, {pattern_qwen2}},
    {"stablelm2 hunyuan grok-2 solar-open", false, false, {pattern_qwen2}},
    {"qwen35", true, false, {qwen35}},
    {"gpt-4o llama4 kanana2 minimax-m2", false, false, {pattern_o200k}},
    {"tekken", false, true, {pattern_tekken}},
    {"kimi-k2", false, false, {pattern_kimi}},
    {"deepseek-v3 hunyuan-dense",
     false,
     false,
     {pattern_deepseek3_digits, pattern_deepseek3_cjk, pattern_deepseek3}},
    {"deepseek-llm",
     false,
     false,
     {"[\\r\\n]", deepseek_letters, deepseek_marks, "\\s+$", deepseek_cjk, "\\p{N}+"}},
    {"deepseek-coder",
     false,
     false,
     {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", deepseek_cjk, "\\p{N}"}},
    {"starcoder refact command-r smollm codeshell exaone minerva-7b",
     false,
     false,
     {"\\p{N}", pattern_gpt2}},
    {"bloom gpt3-finnish poro-chat", false, false, {bloom}},
    {"viking", false, false, {bloom, "\\p{N}"}},
    {"falcon", false, false, {falcon}},
};

static bool has_name(const char *names, const char *name) {
    const size_t size = strlen(name);
    for (const char *at = names; (at = strstr(at, name)); at += size)
        if ((at == names || at[-1] == ' ') && (!at[size] || at[size] == ' ')) return size > 0;
    return false;
}

static json_t *stages_of(const struct row *r, const char *where, struct err *e) {
    if (!strncmp(r->stage[0], "[{", 2))
        return json_parse(r->stage[0], (i64)strlen(r->stage[0]), where, e);
    json_t *list = json_array();
    int rc = list ? 0 : -1;
    for (int i = 0; !rc && i < COUNT(r->stage) && r->stage[i]; i++)
        rc =
            json_array_append_new(list, json_pack("{s:s, s:{s:s}, s:s}", "type", "Split", "pattern",
                                                  "Regex", r->stage[i], "behavior", "Isolated"));
    rc = rc || json_array_append_new(list, json_pack("{s:s, s:b, s:b}", "type", "ByteLevel",
                                                     "add_prefix_space", 0, "use_regex", 0));
    if (!rc) return list;
    json_decref(list);
    err_memory(e, "out of memory for the pre-tokenizer of %s", where);
    return NULL;
}

static int pre_make(const struct row *r, const char *where, struct pre *out, struct err *e) {
    json_t *list = stages_of(r, where, e);
    if (!list) return -1;
    out->pre_tokenizer = json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", list);
    if (r->nfc) out->normalizer = json_pack("{s:s}", "type", "NFC");
    out->ignore_merges = r->ignore_merges;
    if (out->pre_tokenizer && (out->normalizer || !r->nfc)) return 0;
    return err_memory(e, "out of memory for the pre-tokenizer of %s", where);
}

int pre_find(const char *name, const char *pattern, const char *where, struct pre *out,
             struct err *e) {
    const struct row own = {"", false, false, {pattern}};
    if (pattern) return pre_make(&own, where, out, e);
    for (int i = 0; i < COUNT(rows); i++)
        if (has_name(rows[i].names, name)) return pre_make(&rows[i], where, out, e);
    char known[480] = "";
    for (int i = 0; i < COUNT(rows); i++) {
        const size_t at = strlen(known);
        snprintf(known + at, sizeof known - at, "%s%s", i ? " " : "", rows[i].names);
    }
    err_input(e, "%s: pre-tokenizer '%.60s' is not supported", where, name);
    return err_detail(e, "known: %s", known);
}
/* ---- the other way: the name of a tokenizer.json's pre-tokenizer */

/* The patterns that cut, in order; -1: a stage that no row has. */
static int patterns_of(const json_t *j, const char *list[], int *count) {
    const char *type = json_string_value(json_object_get(j, "type"));
    const json_t *parts = json_object_get(j, "pretokenizers"), *flag;
    const char *pattern = NULL;
    if (!type) return json_is_null(j) || !j ? 0 : -1;
    if (!strcmp(type, "Sequence")) {
        for (size_t i = 0; i < json_array_size(parts); i++)
            if (patterns_of(json_array_get(parts, i), list, count)) return -1;
        return 0;
    }
    if (!strcmp(type, "Split"))
        pattern = json_string_value(json_object_get(json_object_get(j, "pattern"), "Regex"));
    else if (!strcmp(type, "Digits") && json_is_true(json_object_get(j, "individual_digits")))
        pattern = "\\p{N}";
    else if (!strcmp(type, "ByteLevel")) {
        flag = json_object_get(j, "use_regex");
        if (flag && !json_is_true(flag)) return 0;
        pattern = pattern_gpt2;
    }
    if (!pattern || *count == COUNT(rows->stage)) return -1;
    list[(*count)++] = pattern;
    return 0;
}

const char *tokenizer_pre_name(const json_t *file, const char *where, struct err *e) {
    static const char *const names[] = {
        /* the one of its row that llama.cpp has had longest */
        "gpt-2",          "olmo",      "llama-bpe", "dbrx",    "qwen2",       "stablelm2",
        "qwen35",         "gpt-4o",    "tekken",    "kimi-k2", "deepseek-v3", "deepseek-llm",
        "deepseek-coder", "starcoder", "bloom",     "viking"};
    const char *list[COUNT(rows->stage)];
    int count = 0, best = -1, points = -1;
    const json_t *norm = json_object_get(file, "normalizer"),
                 *model = json_object_get(file, "model");
    const bool nfc = norm && !json_is_null(norm),
               ignore = json_is_true(json_object_get(model, "ignore_merges"));
    const bool known = !patterns_of(json_object_get(file, "pre_tokenizer"), list, &count);
    for (int i = 0; known && i < COUNT(rows); i++) {
        bool same = count < COUNT(rows->stage) ? !rows[i].stage[count] : true;
        for (int k = 0; same && k < count; k++)
            same = rows[i].stage[k] && !strcmp(rows[i].stage[k], list[k]);
        const int has = (rows[i].nfc == nfc) + (rows[i].ignore_merges == ignore);
        if (same && has > points) best = i, points = has;
    }
    for (int i = 0; best >= 0 && i < COUNT(names); i++)
        if (has_name(rows[best].names, names[i])) return names[i];
    err_input(e, "%s: llama.cpp has no name for its pre-tokenizer that hone knows", where);
    return NULL;
}
