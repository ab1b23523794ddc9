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
    if (!rc && f.gguf.version)
        rc = gguf_put_like(&w, &f.gguf, "tokenizer.", e);
    else if (!rc && l->tokenizer)
        rc = gguf_put_tokenizer(&w, l, e);
    else if (!rc)
        rc = gguf_put_text(&w, "tokenizer.ggml.model", "none", e);
    rc = rc || model_gguf_tensors(&t, m, gguf_type_of(file_types[i].type), e) ||
         gguf_write(path, &w, t.tensor, t.count, e);
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

/* The chat template's text, of either place that holds one; "" if there is none. */
static int chat_text(struct text *out, const char *base, struct err *e) {
    char *path = path_join(NULL, base, "chat_template.jinja", e);
    const bool alone = path && path_exists(path);
    int rc = !path || (alone && file_read(out, path, e));
    mem_free(path);
    if (rc || alone) return rc ? -1 : 0;
    if (!(path = path_join(NULL, base, "tokenizer_config.json", e))) return -1;
    json_t *config = path_exists(path) ? json_open(path, e) : NULL;
    const char *text = json_string_value(json_object_get(config, "chat_template"));
    rc = text_printf(out, e, "%s", text ? text : "");
    json_decref(config), mem_free(path);
    return e->code ? -1 : rc;
}

int modelfile_write(const char *folder, const struct loaded *l, const char *from,
                    const char *adapter, struct err *e) {
    struct text out = {0}, chat = {0};
    char *path = path_join(NULL, folder, "Modelfile", e);
    int rc = !path || (!path_is_gguf(l->base) && chat_text(&chat, l->base, e));
    rc = rc || text_printf(&out, e, "FROM %s\n", from);
    if (!rc && adapter) rc = text_printf(&out, e, "ADAPTER %s\n", adapter);
    for (int i = 0; !rc && chat.size && i < COUNT(chats); i++) {
        if (!strstr(chat.data, chats[i].mark)) continue;
        rc = text_printf(&out, e, "TEMPLATE \"\"\"%s\"\"\"\n", chats[i].text);
        for (int k = 0; !rc && k < 3 && chats[i].stop[k]; k++)
            rc = text_printf(&out, e, "PARAMETER stop \"%s\"\n", chats[i].stop[k]);
        break;
    }
    rc = rc || text_printf(&out, e, "PARAMETER num_ctx %lld\n",
                           (long long)i64_min(l->model.config.max_position_embeddings, 8192));
    rc = rc || file_write(path, out.data, out.size, e);
    text_free(&out), text_free(&chat), mem_free(path);
    return rc ? -1 : 0;
}
