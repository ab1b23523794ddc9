/* gguf_export.c: GGUF files and Ollama's Modelfile from a loaded model: `hone export --format
 * gguf`. */
#include "train/commands/commands.h"

#include <jansson.h>
#include <string.h>

/* What general.file_type says of a file whose matrices are mostly so. */
static const struct {
    const char *name, *type;
    i64 number;
} file_types[] = {{"f32", "F32", 0},   {"f16", "F16", 1},    {"q4_0", "Q4_0", 2},
                  {"q8_0", "Q8_0", 7}, {"q4_k", "Q4_K", 14}, {"bf16", "BF16", 32}};

static const char *name_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* Tokenizer and templates. Those of a GGUF base are taken over, but for what the adapter's own
 * template says. */
static int vocabulary_put(struct gguf_writer *w, const struct loaded *l, const struct gguf *base,
                          struct err *e) {
    struct chat *chat = NULL;
    if (!l->tokenizer && !base->version) return gguf_put_text(w, "tokenizer.ggml.model", "none", e);
    int rc = l->tokenizer ? loaded_chat(&chat, NULL, l, e) : 0;
    if (!rc && base->version)
        rc = gguf_put_like(w, base, "tokenizer.",
                           chat ? "tokenizer.chat_template\0tokenizer.ggml.eot_token_id\0" : "", e);
    else if (!rc)
        rc = gguf_put_tokenizer(w, l, e);
    if (!rc && chat) rc = gguf_put_templates(w, chat, l->tokenizer, e);
    chat_free(chat);
    return rc ? -1 : 0;
}

/* How the model is sampled, under llama.cpp's names; what is always the likeliest token has
 * temperature 0. */
static int sampling_put(struct gguf_writer *w, const struct loaded *l, struct err *e) {
    struct generation g;
    int rc = generation_read(&g, l, e);
    if (!rc && !g.do_sample) g.temperature = 0;
    const struct {
        const char *key;
        double value;
    } number[] = {{"general.sampling.temp", g.temperature},
                  {"general.sampling.top_p", g.top_p},
                  {"general.sampling.min_p", g.min_p},
                  {"general.sampling.penalty_repeat", g.repetition_penalty}};
    if (!rc && g.top_k >= 0) rc = gguf_put_u32(w, "general.sampling.top_k", (i64)g.top_k, e);
    for (int i = 0; !rc && i < COUNT(number); i++)
        if (number[i].value == number[i].value)
            rc = gguf_put_f32(w, number[i].key, number[i].value, e);
    generation_free(&g);
    return rc ? -1 : 0;
}

/* Blocks that a matrix's rows are no multiple of are not what was asked for. */
static void types_note(const struct gguf_tensors *t, const struct gguf_type *wanted,
                       const char *asked) {
    i64 matrices = 0, others = 0;
    for (i64 i = 0; i < t->count; i++) {
        const struct stored *s = &t->tensor[i].from;
        if (s->rank < 2 || !strcmp(t->tensor[i].type->name, "F32")) continue;
        matrices++, others += s->dim[s->rank - 1] % wanted->elements != 0;
    }
    if (others && !quiet)
        show(stderr,
             "note: %lld of %lld matrices are not in %s: their rows are no whole blocks of "
             "%d; they are in q8_0 or f16\n",
             (long long)others, (long long)matrices, asked, wanted->elements);
}

int gguf_export(const char *path, const struct loaded *l, struct model *m, const char *type,
                struct err *e) {
    int i = 0;
    while (i < COUNT(file_types) && strcmp(file_types[i].name, type)) i++;
    if (i == COUNT(file_types)) {
        err_input(e, "--type %s is not known", type);
        return err_detail(e, "known: f32, f16, bf16, q8_0, q4_0, q4_k");
    }
    struct gguf_writer w = {0};
    struct gguf_tensors t = {0};
    struct model_folder f = {0};
    struct config c;
    const struct gguf_arch *arch;
    int rc = folder_open(&f, l->base, e) || folder_config(&f, &c, &arch, e) ||
             model_gguf_metadata(&w, m, f.config, name_of(l->base), file_types[i].number, e);
    rc = rc || sampling_put(&w, l, e) || vocabulary_put(&w, l, &f.gguf, e) ||
         model_gguf_tensors(&t, m, gguf_type_of(file_types[i].type), e) ||
         gguf_write(path, &w, t.tensor, t.count, e);
    if (!rc) types_note(&t, gguf_type_of(file_types[i].type), type);
    gguf_tensors_free(&t), gguf_writer_free(&w), folder_close(&f);
    return rc ? -1 : 0;
}

int gguf_export_adapter(const char *path, struct model *m, struct err *e) {
    struct gguf_writer w = {0};
    struct gguf_tensors t = {0};
    const int rc = lora_gguf_metadata(&w, m, e) || lora_gguf_tensors(&t, m, e) ||
                   gguf_write(path, &w, t.tensor, t.count, e);
    gguf_tensors_free(&t), gguf_writer_free(&w);
    return rc ? -1 : 0;
}

/* ---- Ollama. Its templates are Go's, not Jinja: known chat formats by a mark in the model's own
 * template; of others nothing is said, and Ollama takes the template from the GGUF file if it knows
 * it. */
static const struct {
    const char *mark, *stop[3], *text;
} chats[] = {
    {"<|im_start|>",
     {"<|im_start|>", "<|im_end|>"},
     "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n"
     "{{ end }}<|im_start|>assistant\n"},
    {"<|start_header_id|>",
     {"<|start_header_id|>", "<|eot_id|>"},
     "{{ range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n"
     "{{ .Content }}<|eot_id|>{{ end }}<|start_header_id|>assistant<|end_header_id|>\n\n"},
    {"<start_of_turn>",
     {"<start_of_turn>", "<end_of_turn>"},
     "{{ range .Messages }}<start_of_turn>{{ if eq .Role \"assistant\" }}model{{ else }}user"
     "{{ end }}\n{{ .Content }}<end_of_turn>\n{{ end }}<start_of_turn>model\n"},
    {"<|assistant|>",
     {"<|user|>", "<|end|>", "<|endoftext|>"},
     "{{ range .Messages }}<|{{ .Role }}|>\n{{ .Content }}\n{{ end }}<|assistant|>\n"},
    {"[INST]",
     {"[INST]", "[/INST]"},
     "{{ range .Messages }}{{ if eq .Role \"user\" }}[INST] {{ .Content }} [/INST]"
     "{{ else if eq .Role \"assistant\" }} {{ .Content }}</s>{{ end }}{{ end }}"},
};

/* What ends an answer by the model's own template, if the lines above do not say it. */
static int stop_put(struct text *out, const struct chat *c, const struct tokenizer *t, int known,
                    struct err *e) {
    struct answer_end end;
    if (answer_end(&end, c, NULL, t, e)) return -1;
    for (int k = 0; known < COUNT(chats) && k < 3 && chats[known].stop[k]; k++)
        if (!strcmp(chats[known].stop[k], end.text)) return 0;
    if (!*end.text || strpbrk(end.text, "\"\n\r")) return 0; /* Modelfiles do not quote these */
    return text_printf(out, e, "PARAMETER stop \"%s\"\n", end.text);
}

int modelfile_write(const char *folder, const struct loaded *l, const char *from,
                    const char *adapter, struct err *e) {
    struct text out = {0};
    struct chat *chat = NULL;
    i64 size;
    char *path = path_join(NULL, folder, "Modelfile", e);
    int rc = !path || (l->tokenizer && loaded_chat(&chat, NULL, l, e));
    rc = rc || text_printf(&out, e, "FROM %s\n", from);
    if (!rc && adapter) rc = text_printf(&out, e, "ADAPTER %s\n", adapter);
    int i = 0;
    while (chat && i < COUNT(chats) && !strstr(chat_source(chat, &size), chats[i].mark)) i++;
    if (!rc && chat && i < COUNT(chats)) {
        rc = text_printf(&out, e, "TEMPLATE \"\"\"%s\"\"\"\n", chats[i].text);
        for (int k = 0; !rc && k < 3 && chats[i].stop[k]; k++)
            rc = text_printf(&out, e, "PARAMETER stop \"%s\"\n", chats[i].stop[k]);
    }
    if (!rc && chat) rc = stop_put(&out, chat, l->tokenizer, i, e);
    rc = rc || text_printf(&out, e, "PARAMETER num_ctx %lld\n",
                           (long long)i64_min(l->model.config.max_position_embeddings, 8192));
    rc = rc || file_write(path, out.data, out.size, e);
    text_free(&out), chat_free(chat), mem_free(path);
    return rc ? -1 : 0;
}
