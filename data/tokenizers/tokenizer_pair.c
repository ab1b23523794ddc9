/* tokenizer_pair.c: folders from before there was a tokenizer.json: vocab.json {"token": id} and
 * merges.txt, of byte-level BPE. Their other half is code, so the class that tokenizer_config.json
 * or config.json names says it: what transformers' class of that name builds is built here as a
 * tokenizer.json. A class that is not known is refused: its ids would only nearly be right. */
#include <stdlib.h>
#include <string.h>
#include "data/tokenizers/tokenizers_int.h"

static const char qwen2_split[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{"
                                  "N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
                                  "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

enum { ROLES = 7 };
static const char *const roles[ROLES] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                         "pad_token", "cls_token", "mask_token"};
static const struct pair_class {
    const char *names;          /* classes and model types, each between spaces */
    const char *special[ROLES]; /* where no file says otherwise */
    bool qwen2, roberta;
} classes[] = {
    {" GPT2Tokenizer GPT2TokenizerFast CodeGenTokenizer CodeGenTokenizerFast gpt2 gpt_neo gptj "
     "codegen phi opt gpt_bigcode starcoder2 ",
     {"<|endoftext|>", "<|endoftext|>", "<|endoftext|>"},
     false,
     false},
    {" Qwen2Tokenizer Qwen2TokenizerFast qwen2 qwen2_moe qwen3 qwen3_moe ",
     {NULL, "<|endoftext|>", "<|endoftext|>", NULL, "<|endoftext|>"},
     true,
     false},
    {" RobertaTokenizer RobertaTokenizerFast BartTokenizer BartTokenizerFast LongformerTokenizer "
     "LongformerTokenizerFast LEDTokenizer LEDTokenizerFast roberta bart longformer led ",
     {"<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"},
     false,
     true},
};

static const struct pair_class *class_named(const char *name) {
    char between[128];
    snprintf(between, sizeof between, " %.120s ", name);
    for (int i = 0; i < COUNT(classes); i++)
        if (strstr(classes[i].names, between)) return &classes[i];
    return NULL;
}

static json_t *optional(const char *folder, const char *name, struct err *e) {
    char *path = path_join(NULL, folder, name, e);
    json_t *j = path && path_exists(path) ? json_open(path, e) : NULL;
    return mem_free(path), j;
}

/* By tokenizer_config.json, else by config.json; of a folder that has neither, GPT-2, whose files
 * these are. */
static const struct pair_class *class_of(const char *folder, const json_t *config, struct err *e) {
    const char *name = json_string_value(json_object_get(config, "tokenizer_class"));
    json_t *model = name ? NULL : optional(folder, "config.json", e);
    if (!name) name = json_string_value(json_object_get(model, "tokenizer_class"));
    if (!name) name = json_string_value(json_object_get(model, "model_type"));
    const struct pair_class *c = e->code ? NULL : class_named(name ? name : "gpt2");
    if (!c && !e->code) {
        err_input(e, "%s holds vocab.json and merges.txt of a '%.60s', which hone does not know",
                  folder, name);
        err_detail(e, "known: GPT2Tokenizer, CodeGenTokenizer, Qwen2Tokenizer, RobertaTokenizer, "
                      "BartTokenizer, LongformerTokenizer, LEDTokenizer");
        err_hint(e, "make a tokenizer.json: AutoTokenizer.from_pretrained(FOLDER).save_pretrained");
    }
    json_decref(model);
    return c;
}

/* The text of a role: the config's, else the class's; NULL: it has none. */
static const char *role_of(const struct pair_class *c, const json_t *config, int i) {
    json_t *own = json_object_get(config, roles[i]);
    if (json_is_object(own)) own = json_object_get(own, "content");
    return own ? json_string_value(own) : c->special[i];
}

static json_t *added_tokens(const struct pair_class *c, const json_t *config, const json_t *vocab) {
    json_t *list = json_array();
    for (int i = 0; i < ROLES; i++) {
        const char *text = json_object_get(config, roles[i]) ? NULL : c->special[i];
        const json_t *id = text ? json_object_get(vocab, text) : NULL;
        bool twice = !id;
        for (int k = 0; k < i; k++)
            twice |= text && c->special[k] && !json_object_get(config, roles[k]) &&
                     !strcmp(text, c->special[k]);
        if (!twice)
            json_array_append_new(list, json_pack("{s:O, s:s, s:b, s:b}", "id", id, "content", text,
                                                  "special", 1, "normalized", 0));
    }
    return list;
}

/* A token of a template around the text. */
static void around(json_t *single, json_t *tokens, const char *text, const json_t *vocab) {
    json_array_append_new(single,
                          json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", text, "type_id", 0));
    json_object_set_new(tokens, text,
                        json_pack("{s:s, s:[O], s:[s]}", "id", text, "ids",
                                  json_object_get(vocab, text), "tokens", text));
}

/* What stands around a text: Roberta's <s> and </s>, or what add_bos_token and add_eos_token ask
 * for. Texts that no vocabulary has are left to the other files of the folder. */
static json_t *post_processor(const struct pair_class *c, const json_t *config,
                              const json_t *vocab) {
    const char *bos = role_of(c, config, c->roberta ? 5 : 0),
               *eos = role_of(c, config, c->roberta ? 3 : 1);
    const bool first = c->roberta || json_is_true(json_object_get(config, "add_bos_token")),
               last = c->roberta || json_is_true(json_object_get(config, "add_eos_token"));
    json_t *single = json_array(), *tokens = json_object();
    if (first && bos && json_object_get(vocab, bos)) around(single, tokens, bos, vocab);
    json_array_append_new(single, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
    if (last && eos && json_object_get(vocab, eos)) around(single, tokens, eos, vocab);
    return json_pack("{s:s, s:o, s:o}", "type", "TemplateProcessing", "single", single,
                     "special_tokens", tokens);
}

static json_t *merges_read(const char *path, struct err *e) {
    struct text file = {0};
    json_t *list = file_read(&file, path, e) ? NULL : json_array();
    i64 line = 1;
    for (char *at = file.data, *end; list && at < file.data + file.size; at = end + 1, line++) {
        end = memchr(at, '\n', (size_t)(file.data + file.size - at));
        if (!end) end = file.data + file.size;
        const i64 size = end - at - (end > at && end[-1] == '\r');
        if (!size || (line == 1 && size > 8 && !memcmp(at, "#version", 8))) continue;
        if (json_array_append_new(list, json_stringn(at, (size_t)size))) {
            err_input(e, "%s:%lld: not UTF-8", path, (long long)line);
            json_decref(list), list = NULL;
        }
    }
    text_free(&file);
    return list;
}

json_t *tokenizer_of_pair(const char *folder, const json_t *vocab, struct err *e) {
    json_t *config = optional(folder, "tokenizer_config.json", e),
           *map = e->code ? NULL : optional(folder, "special_tokens_map.json", e), *j = NULL;
    if (!config) config = json_object();
    if (map && !json_object_get(config, "added_tokens_decoder")) json_object_update(config, map);
    const struct pair_class *c = e->code ? NULL : class_of(folder, config, e);
    char *path = c ? path_join(NULL, folder, "merges.txt", e) : NULL;
    json_t *merges = path ? merges_read(path, e) : NULL;
    const int space = json_is_true(json_object_get(config, "add_prefix_space"));
    if (merges) {
        json_t *bytes = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space",
                                  space, "trim_offsets", 1, "use_regex", !c->qwen2);
        json_t *split = json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex",
                                  qwen2_split, "behavior", "Isolated", "invert", 0);
        json_t *pre = c->qwen2 ? json_pack("{s:s, s:[O, O]}", "type", "Sequence", "pretokenizers",
                                           split, bytes)
                               : json_incref(bytes);
        j = json_pack("{s:o, s:o, s:o, s:O, s:o, s:{s:s, s:O, s:O}}", "added_tokens",
                      added_tokens(c, config, vocab), "normalizer",
                      c->qwen2 ? json_pack("{s:s}", "type", "NFC") : json_null(), "pre_tokenizer",
                      pre, "decoder", bytes, "post_processor", post_processor(c, config, vocab),
                      "model", "type", "BPE", "vocab", vocab, "merges", merges);
        json_decref(bytes), json_decref(split);
        if (!j) err_memory(e, "out of memory");
    }
    json_decref(merges), json_decref(config), json_decref(map), mem_free(path);
    return j;
}

json_t *tokenizer_json(const struct tokenizer *t, struct err *e) {
    json_t *j = json_open(t->path, e);
    if (j && ends_with(t->path, "/vocab.json")) {
        char *folder =
            mem_printf(e, "%.*s", (int)(strlen(t->path) - strlen("/vocab.json")), t->path);
        json_t *whole = folder ? tokenizer_of_pair(folder, j, e) : NULL;
        json_decref(j), mem_free(folder), j = whole;
    }
    json_t *list = json_object_get(j, "added_tokens");
    if (j && t->extra && !json_is_array(list))
        json_object_set_new(j, "added_tokens", list = json_array());
    if (j && t->extra) json_array_extend(list, t->extra);
    return j;
}
