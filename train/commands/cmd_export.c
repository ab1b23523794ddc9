/* cmd_export.c: `hone export`: the model as a Hugging Face folder or a GGUF file, an adapter merged
 * into it, and how far the result is from what was trained: the mean KL divergence of the
 * next-token distributions and the share of equal top tokens, over a text. What was written is
 * opened again for that, so that the numbers are those of the file; it takes its name only then. */
#include "train/commands/commands.h"

#include <math.h> /* INFINITY */
#include <jansson.h>
#include <string.h>

struct export_flags {
    const char *output, *precision, *data, *format, *type, *merge_into, *model;
    double max_kl;
    i64 tokens;
    bool adapter_only;
    struct text_list adapter;
};
#define ROW_OF struct export_flags
static const struct option export_options[] = {
    ROW(output, OPT_TEXT, NULL, 0, 0, "the folder to write, or X.gguf"),
    ROW(adapter, OPT_TEXT_EACH, NULL, 0, 0, ADAPTER_HELP ", to merge"),
    {"merge_into", OPT_CHOICE, offsetof(struct export_flags, merge_into), "dequantized", 0, 0,
     "dequantized original",
     "an adapter trained on a 4-bit base: that base, decoded, or the base as its files have it"},
    ROW(adapter_only, OPT_BOOL, "false", 0, 0,
        "gguf: the adapter alone, with a Modelfile for Ollama"),
    {"format", OPT_CHOICE, offsetof(struct export_flags, format), "hf", 0, 0, "hf gguf",
     "a Hugging Face folder, or GGUF: a file, or a folder with a Modelfile for Ollama"},
    {"type", OPT_CHOICE, offsetof(struct export_flags, type), "q8_0", 0, 0,
     "f32 f16 bf16 q8_0 q4_0 q4_k", "gguf: of the matrices"},
    ROW(precision, OPT_TEXT, "auto", 0, 0,
        "hf: of the written weights: fp32, bf16, or auto: each as the base's files have it"),
    ROW(data, OPT_TEXT, NULL, 0, 0, "tokenised dataset to compare on; default: random tokens"),
    ROW(tokens, OPT_INT, "512", 1, 1 << 20, "tokens to compare on"),
    ROW(max_kl, OPT_FLOAT, "0.01", 0, 1e9,
        "refuse to write if the mean KL (nats) is larger; q4_0 and q4_k are only measured"),
    {0},
};
#undef ROW_OF

/* Logits [tokens, vocab] of one sequence. */
static int logits_of(struct model *m, const i32 *ids, i64 tokens, float *out, struct err *e) {
    const struct pass_plan plan = {
        .model = m, .tokens = tokens, .gives = PASS_LOGITS, .eager = globals.eager};
    struct pass p = {0};
    i32 *at = mem_new_array(tokens, 2 * sizeof *at, e);
    if (!at) return -1;
    for (i64 i = 0; i < tokens; i++) at[i] = (i32)i;
    const struct pass_inputs in = {.places = {ids, at, at + tokens, at}};
    int rc = pass_open(&p, &plan, e) || pass_bind(&p, &in, e) || pass_run(&p, e) ||
             pass_read_logits(&p, out, e);
    pass_close(&p), mem_free(at);
    for (i64 i = 0; !rc && i < tokens * m->config.vocab_size; i++)
        if (!(out[i] < INFINITY)) /* -inf is a token that cannot come */
            rc = err_failed(e, "the model's logits are not finite at position %lld",
                            (long long)(i / m->config.vocab_size));
    return rc ? -1 : 0;
}

static double log_sum(const float *x, i64 n) {
    double top = (double)x[0], sum = 0;
    for (i64 i = 1; i < n; i++) top = (double)x[i] > top ? (double)x[i] : top;
    for (i64 i = 0; i < n; i++) sum += m_exp((double)x[i] - top);
    return top + m_log(sum);
}
static i64 top_of(const float *x, i64 n) {
    i64 best = 0;
    for (i64 i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

static void compare(const float *a, const float *b, i64 rows, i64 vocab, double *kl,
                    double *agree) {
    *kl = *agree = 0;
    for (i64 r = 0; r < rows; r++, a += vocab, b += vocab) {
        const double za = log_sum(a, vocab), zb = log_sum(b, vocab);
        for (i64 i = 0; i < vocab; i++) {
            const double p = (double)a[i] - za, q = (double)b[i] - zb;
            *kl += m_exp(p) * (p - q) / (double)rows;
        }
        *agree += (top_of(a, vocab) == top_of(b, vocab)) / (double)rows;
    }
}

static int probe_ids(const struct export_flags *f, const struct model *m, i32 *ids, i64 tokens,
                     struct err *e) {
    const struct rng r = {1, RNG_TEST, 0, 0};
    for (i64 i = 0; i < tokens; i++)
        ids[i] = (i32)(rng_uniform_f64(&r, (u64)i) * (double)m->config.vocab_size);
    if (!f->data) return 0;
    struct dataset *d = dataset_open(f->data, e);
    if (!d) return -1;
    const i64 have = i64_min(tokens, dataset_info(d)->tokens);
    const int rc = dataset_fits(d, m, e) || dataset_read(d, 0, have, (u32 *)ids, e) ? -1 : 0;
    dataset_close(d);
    return rc;
}

static bool to_gguf(const struct export_flags *f) { return f->format[0] == 'g'; }

/* GGUF into a file, or into a folder with a Modelfile. */
static int gguf_make(const struct export_flags *f, struct loaded *l, const char *to,
                     const char *model, struct err *e) {
    if (path_is_gguf(to)) return gguf_export(model, l, &l->model, f->type, e);
    return dir_make(to, e) || gguf_export(model, l, &l->model, f->type, e) ||
                   modelfile_write(to, l, "./model.gguf", NULL, e)
               ? -1
               : 0;
}

/* The adapter goes into the base that it was trained on, decoded if it was in 4 bits; or into the
 * weights that those were made from. */
static int merge(const struct export_flags *f, struct loaded *l, struct err *e) {
    if (f->merge_into[0] == 'o' && l->model.config.quant.packing) {
        struct loaded plain;
        const int rc = loaded_open_as(&plain, f->model, &f->adapter, NULL, "none", F32, false, e);
        if (!rc) {
            const struct loaded was = *l;
            *l = plain, plain = was;
            l->model.lora = l->model.lora ? &l->lora : NULL;
        }
        loaded_close(&plain);
        if (rc) return -1;
    }
    return l->model.lora ? lora_merge(&l->model, e) : model_decode(&l->model, e);
}

/* Writes under `fresh`, reads it again, and says how far it is from `before`. */
static int make(const struct export_flags *f, struct loaded *l, const char *fresh, const i32 *ids,
                i64 tokens, const float *before, float *after, double *kl, double *agree,
                struct err *e) {
    struct model out = {0};
    char *model = to_gguf(f) && !path_is_gguf(fresh) ? path_join(NULL, fresh, "model.gguf", e)
                                                     : mem_text(fresh, e);
    int rc = !model       ? -1
             : to_gguf(f) ? gguf_make(f, l, fresh, model, e)
                          : export_folder(fresh, l, f->precision, e);
    rc = rc || model_open(&out, model, F32, false, e) || model_rope(&out, tokens, e) ||
         logits_of(&out, ids, tokens, after, e);
    if (!rc) compare(before, after, tokens, l->model.config.vocab_size, kl, agree);
    const bool measured = to_gguf(f) && !strncmp(f->type, "q4", 2);
    if (!rc && !measured && !(*kl <= f->max_kl)) {
        rc = err_failed(e,
                        "the exported model differs from the trained one: mean KL %.3g nats, more "
                        "than --max-kl %.3g",
                        *kl, f->max_kl);
        err_hint(e,
                 to_gguf(f) ? "--type f32 keeps all digits" : "--precision fp32 keeps all digits");
    }
    model_free(&out), mem_free(model);
    return rc ? -1 : 0;
}

/* The adapter alone, for llama.cpp and Ollama. */
static int adapter_make(struct loaded *l, const char *to, struct err *e) {
    if (!l->model.lora) {
        err_input(e, "--adapter-only: there is no adapter");
        return err_hint(e, "name it: --adapter DIR");
    }
    char *path = path_join(NULL, to, "adapter.gguf", e);
    const int rc = !path || dir_make(to, e) || gguf_export_adapter(path, &l->model, e) ||
                   modelfile_write(to, l, l->base, "./adapter.gguf", e);
    return mem_free(path), rc ? -1 : 0;
}

/* Written beside its place and renamed: it appears whole or not at all. */
static int export_run(const struct export_flags *f, struct loaded *l, double *kl, double *agree,
                      struct err *e) {
    const i64 tokens = i64_min(f->tokens, to_gguf(f) ? model_gguf_length(&l->model)
                                                     : l->model.config.max_position_embeddings),
              vocab = l->model.config.vocab_size;
    struct err unused = {0};
    int size = (int)strlen(f->output);
    while (size > 1 && f->output[size - 1] == '/') size--;
    const bool file = to_gguf(f) && path_is_gguf(f->output);
    char *fresh = mem_printf(e, "%.*s.new%s", size, f->output, file ? ".gguf" : "");
    i32 *ids = fresh ? mem_new_array(tokens, sizeof *ids, e) : NULL;
    float *before = ids ? mem_new_array(tokens * vocab, sizeof *before, e) : NULL;
    float *after = before ? mem_new_array(tokens * vocab, sizeof *after, e) : NULL;
    int rc = after ? dir_remove(fresh, e) : -1;
    if (!rc && f->adapter_only)
        rc = adapter_make(l, fresh, e);
    else if (!rc)
        rc = model_rope(&l->model, tokens, e) || probe_ids(f, &l->model, ids, tokens, e) ||
             logits_of(&l->model, ids, tokens, before, e) || merge(f, l, e) ||
             make(f, l, fresh, ids, tokens, before, after, kl, agree, e);
    rc = rc || (!file && dir_sync(fresh, e)) || path_rename(fresh, f->output, e);
    if (rc && fresh) dir_remove(fresh, &unused);
    mem_free(fresh), mem_free(ids), mem_free(before), mem_free(after);
    return rc ? -1 : 0;
}

static int cmd_export(int argc, char **argv, struct err *e) {
    struct export_flags f = {0};
    struct args a;
    struct loaded l = {0};
    double kl = 0, agree = 0;
    int rc = args_parse(&a, argc, argv, export_options, &f, e) ||
             args_need(&a, 1, 1, "export MODEL --output DIR", e);
    if (!rc && !f.output)
        rc = err_input(e, "export needs --output DIR"),
        err_hint(e, "usage: hone export MODEL --output DIR [--adapter DIR]");
    if (!rc && device_now() != DEVICE_CPU)
        rc = err_input(e, "export runs on the CPU"), err_hint(e, "leave --device out");
    if (!rc && path_exists(f.output))
        rc = err_input(e, "%s exists already", f.output), err_hint(e, "name a new folder");
    enum dtype d;
    if (!rc && strcmp(f.precision, "auto")) rc = precision_parse(f.precision, &d, e);
    if (!rc && f.adapter_only && !to_gguf(&f))
        rc = err_input(e, "--adapter-only needs --format gguf"),
        err_hint(e, "a PEFT adapter is exported already: it is its folder");
    if (!rc) f.model = a.rest[0];
    const struct outputs files = {
        .output = {f.output}, .input = {f.model, f.data}, .adapter = &f.adapter};
    if (!rc)
        rc = outputs_apart(&files, e) ||
             loaded_open(&l, a.rest[0], &f.adapter, NULL, F32, false, e) ||
             export_run(&f, &l, &kl, &agree, e);
    if (!rc && f.adapter_only && !globals.json && !quiet) show(stdout, "%s: written\n", f.output);
    if (!rc && f.adapter_only && !globals.json) quiet = true;
    if (!rc && globals.json)
        rc = json_print(json_pack("{s:o, s:o, s:o}", "path", json_name(f.output), "kl",
                                  json_finite(kl), "top1_agreement", json_finite(agree)),
                        e);
    else if (!rc && !quiet)
        show(stdout,
             "%s: written; against what was trained: mean KL %.3g nats, same top token at %.2f "
             "%% of positions\n",
             f.output, kl, 100 * agree);
    loaded_close(&l), args_free(&a);
    return rc ? -1 : 0;
}

const struct command command_export = {"export",
                                       "export MODEL --output DIR [--adapter DIR[=WEIGHT]]...",
                                       "merge an adapter; write a Hugging Face folder",
                                       cmd_export,
                                       export_options,
                                       NULL};
