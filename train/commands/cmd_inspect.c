/* cmd_inspect.c: `hone inspect THING`: what a file or folder is, as a table (or JSON). */
#include "train/commands/commands.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

struct inspect_flags {
    i64 tokens;
    const char *tokenizer;
    bool tensors, modules;
    struct text_list adapter;
};
static const struct option inspect_options[] = {
    {"tokens", OPT_INT, offsetof(struct inspect_flags, tokens), "0", 0, 1 << 20, NULL,
     "dataset: show the first N tokens, trained ones in green"},
    {"tokenizer", OPT_TEXT, offsetof(struct inspect_flags, tokenizer), NULL, 0, 0, NULL,
     "dataset: shows --tokens as text"},
    {"tensors", OPT_BOOL, offsetof(struct inspect_flags, tensors), "false", 0, 0, NULL,
     "model: list every tensor"},
    {"modules", OPT_BOOL, offsetof(struct inspect_flags, modules), "false", 0, 0, NULL,
     "model: list its modules: paths that adapters name, shapes, adapter, packing"},
    {"adapter", OPT_TEXT_EACH, offsetof(struct inspect_flags, adapter), NULL, 0, 0, NULL,
     "modules: " ADAPTER_HELP},
    {0},
};

static int inspect_ops(struct err *e) {
    json_t *list = json_array();
    if (!globals.json)
        show(stdout, "%-20s %-6s %-6s %-6s %s\n", "operation", "cpu", "cuda", "grad", "in -> out");
    for (int i = 0; i < op_count; i++) {
        const struct op *o = op_table[i];
        const bool grad = o->grad[0].in || o->root.in;
        json_array_append_new(list, json_pack("{s:s, s:b, s:b, s:b, s:s, s:s}", "name", o->name,
                                              "cpu", 1, "cuda", o->cuda != NULL, "gradient", grad,
                                              "in", o->in, "out", o->out));
        if (!globals.json)
            show(stdout, "%-20s %-6s %-6s %-6s %s -> %s\n", o->name, "yes", o->cuda ? "yes" : "-",
                 grad ? "yes" : "-", o->in, o->out);
    }
    if (globals.json) return json_print(list, e);
    return json_decref(list), 0;
}

static int inspect_families(void) {
    for (int i = 0; i < family_count; i++)
        show(stdout, "%-14s %s\n", families[i]->model_type, families[i]->architecture);
    return 0;
}

static int config_print(const json_t *j, const char *where, struct err *e) {
    struct config c;
    if (config_read(&c, j, where, e)) return -1;
    const i64 count = config_parameters(&c);
    if (globals.json)
        return json_print(json_pack("{s:s, s:I, s:I, s:I, s:I}", "model_type", c.family->model_type,
                                    "parameters", (json_int_t)count, "layers", (json_int_t)c.layers,
                                    "hidden_size", (json_int_t)c.hidden_size, "vocab_size",
                                    (json_int_t)c.vocab_size),
                          e);
    show(stdout,
         "model type         %s (%s)\nparameters         %lld (%.2f M)\nlayers             "
         "%lld\nhidden size        %lld\n"
         "intermediate size  %lld\nheads              %lld, %lld key-value, of size "
         "%lld\nvocabulary         %lld%s\n"
         "positions          %lld",
         c.family->model_type, c.family->architecture, (long long)count, (double)count / 1e6,
         (long long)c.layers, (long long)c.hidden_size, (long long)c.intermediate_size,
         (long long)c.heads, (long long)c.kv_heads, (long long)c.head_dim, (long long)c.vocab_size,
         c.has & HAS_UNTIED ? "" : ", embeddings tied", (long long)c.max_position_embeddings);
    if (c.rope[0].dims)
        show(stdout, ", RoPE theta %g%s%s%s", c.rope[0].theta, c.rope[0].type ? ", " : "",
             c.rope[0].type ? rope_text(&c.rope[0]) : "", c.rope[0].type ? " scaling" : "");
    puts("");
    if (*c.note) show(stdout, "note               %s\n", c.note);
    return 0;
}

/* Its weight is another module's. */
static bool is_tied(const struct module *m) { return m->weight->type != m->type; }

static json_t *module_json(const struct module *m, i64 rank) {
    const struct view *w = &m->weight->view;
    json_t *shape = json_array();
    for (int i = 0; i < w->rank; i++) json_array_append_new(shape, json_integer(w->dim[i]));
    return json_pack("{s:s, s:s, s:o, s:b, s:b, s:I, s:b, s:b, s:s?}", "path", m->path, "kind",
                     module_kind_text[m->type->kind], "shape", shape, "bias", m->bias != NULL,
                     "tied", is_tied(m), "lora_rank", (json_int_t)rank, "dora",
                     m->adapter.magnitude != NULL, "saved", m->weight->saved, "packing",
                     w->packing ? w->packing->name : NULL);
}

static int modules_print(const struct model *m, struct err *e) {
    json_t *list = json_array();
    const char *const row = "%-48s %-10s %-15s %-6s %-8s %s\n";
    if (!globals.json) show(stdout, row, "module", "kind", "shape", "", "adapter", "packing");
    for (i64 i = 0; i < m->weights.modules; i++) {
        const struct module *at = &m->weights.module[i];
        const struct view *w = &at->weight->view;
        const struct param *b = at->adapter.b;
        const i64 rank = b ? b->view.dim[b->view.rank - 1] : 0;
        char shape[192], adapter[32];
        snprintf(adapter, sizeof adapter, "%s %lld", at->adapter.magnitude ? "DoRA" : "LoRA",
                 (long long)rank);
        if (!globals.json)
            show(stdout, row, at->path, module_kind_text[at->type->kind],
                 shape_text(shape, w->rank, w->dim),
                 at->bias      ? "+ bias"
                 : is_tied(at) ? "tied"
                               : "",
                 rank                ? adapter
                 : at->weight->saved ? "whole"
                                     : "-",
                 w->packing ? w->packing->name : "-");
        json_array_append_new(list, module_json(at, rank));
    }
    if (globals.json) return json_print(list, e);
    return json_decref(list), 0;
}

/* A configuration is enough, but where the weights, an adapter or --quantize say how modules are
 * held. */
static int inspect_modules(const char *path, const struct inspect_flags *f, struct err *e) {
    const bool file = !path_is_dir(path) && !path_is_gguf(path);
    const int own = path_is_dir(path) ? path_has(path, "adapter_config.json", e) : 0;
    struct model_folder folder = {0};
    struct model m = {0};
    struct loaded l = {0};
    struct config c = {0};
    const struct gguf_arch *arch;
    bool held = own || f->adapter.count || strcmp(globals.quantize, "auto");
    if (own < 0) return -1;
    if (file && !ends_with(path, ".json")) {
        err_input(e, "%s is no model, so it has no modules", path);
        return err_detail(e, "expected a model folder, a .gguf file or config.json");
    }
    int rc = 0;
    if (!held && file) {
        json_t *j = json_open(path, e);
        rc = !j || config_read(&c, j, path, e) ? -1 : 0;
        json_decref(j);
    } else if (!held)
        rc = folder_open(&folder, path, e) || folder_config(&folder, &c, &arch, e);
    held |= c.quant.stored;
    if (!rc && held)
        rc = loaded_open(&l, path, &f->adapter, NULL, BF16, false, e) || modules_print(&l.model, e);
    else if (!rc)
        rc = model_outline(&m, &c, e) || modules_print(&m, e);
    model_free(&m), loaded_close(&l), folder_close(&folder);
    return rc ? -1 : 0;
}

static void tensors_print(const struct safetensors *s) {
    for (i64 i = 0; i < s->count; i++) {
        char shape[192];
        show(stdout, "%-64s %-5s %s\n", s->tensor[i].name, s->tensor[i].type,
             shape_text(shape, s->tensor[i].rank, s->tensor[i].dim));
    }
}

static int inspect_weights(const char *path, struct err *e) {
    struct safetensors s = {0};
    const int rc = safetensors_open(&s, path, e);
    if (!rc) tensors_print(&s);
    safetensors_close(&s);
    return rc;
}

static int inspect_dataset(const char *path, const struct inspect_flags *f, struct err *e) {
    struct dataset *d = dataset_open(path, e);
    struct tokenizer *t = NULL;
    if (!d) return -1;
    const struct dataset_info *i = dataset_info(d);
    show(stdout,
         "tokens      %lld (%lld trained)\ndocuments   %lld\nvocabulary  %lld, bos %lld, eos "
         "%lld\ntokenizer   %s\ncontent     %s\nsources     %s\n",
         (long long)i->tokens, (long long)i->trained, (long long)i->documents,
         (long long)i->vocab_size, (long long)i->bos, (long long)i->eos, i->tokenizer_sha256,
         i->sha256, i->sources);
    if (i->sources_unchecked)
        puts(
            "note        the sources have no checksum here: an older version wrote this file; hone "
            "tokenize makes a new one");
    const i64 n = i64_min(f->tokens, i->tokens);
    u32 *ids = mem_new_array(i64_max(n, 1), sizeof *ids, e);
    u8 *trained = ids ? mem_new_array(i64_max(n, 1), 1, e) : NULL;
    int rc = !trained || (f->tokenizer && !(t = tokenizer_of_file(f->tokenizer, e))) ||
             (n && dataset_read(d, 0, n, ids, e));
    if (!rc && n) dataset_trained(d, 0, n, trained);
    for (i64 k = 0; !rc && k < n; k++) {
        struct text text = {0};
        rc = t ? tokenizer_decode(t, &ids[k], 1, false, &text, e)
               : text_printf(&text, e, "%u ", ids[k]);
        if (!rc)
            printf("\033[%sm", trained[k] ? "32" : "90"),
                show_bytes(stdout, text.data ? text.data : "", text.size, true),
                printf("\033[0m%s", t ? "\033[90m|\033[0m" : "");
        text_free(&text);
    }
    if (n) puts("");
    mem_free(ids), mem_free(trained), tokenizer_free(t), dataset_close(d);
    return rc ? -1 : 0;
}

static int inspect_tokenizer(const char *path, struct err *e) {
    struct tokenizer *t = tokenizer_of_file(path, e);
    if (!t) return -1;
    show(stdout, "entries  %lld\nbos      %lld\neos      %lld\nsha256   %s\n",
         (long long)tokenizer_size(t), (long long)tokenizer_bos(t), (long long)tokenizer_eos(t),
         tokenizer_sha256(t));
    tokenizer_free(t);
    return 0;
}

static int inspect_run(const char *path, struct err *e) {
    struct checkpoint_list list = {0};
    if (checkpoint_list(path, &list, e)) return -1;
    show(stdout, "%-10s %-18s %-18s %s\n", "step", "manifest", "state", "parent");
    int rc = 0;
    for (i64 i = 0; !rc && i < list.count; i++) {
        struct manifest m;
        char sha[65], *folder = checkpoint_path(path, list.step[i], e);
        rc = !folder || manifest_read(folder, &m, e) || manifest_sha256(folder, sha, e);
        if (!rc)
            show(stdout, "%-10lld %.16s   %.16s   %.16s\n", (long long)list.step[i], sha,
                 m.state_sha256, *m.parent ? m.parent : "-");
        mem_free(folder);
    }
    mem_free(list.step);
    return rc ? -1 : 0;
}

/* Everything that is wrong in one report; where that is but paths that are not here, the recipe is
 * shown all the same. */
static int inspect_recipe(const char *path, struct err *e) {
    struct recipe r = {0};
    if (recipe_read(&r, path, NULL, 0, e)) return -1;
    const bool wrong = r.problem;
    if (recipe_missing(&r, e) || (wrong && recipe_judge(&r, path, e))) return recipe_free(&r), -1;
    for (const struct problem *p = r.problem; p; p = p->next) err_print(&p->err, stderr);
    json_t *j = recipe_json(&r, e);
    char *text = j ? json_dumps(j, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    if (text) show(stdout, "%s\n", text);
    if (r.notes.size) show(stderr, "%s", r.notes.data);
    free(text), json_decref(j), recipe_free(&r);
    return text ? 0 : -1;
}

static int inspect_folder(const char *path, const struct inspect_flags *f, struct err *e) {
    const int run = path_has(path, "checkpoints", e), model = path_has(path, "config.json", e),
              adapter = path_has(path, "adapter_config.json", e);
    if (run < 0 || model < 0 || adapter < 0) return -1;
    if (run) return inspect_run(path, e);
    if (adapter) {
        struct lora_config c = {0};
        struct safetensors s = {0};
        const int rc = adapter_open(path, &c, &s, e);
        if (!rc)
            show(stdout,
                 "LoRA adapter       rank %lld, alpha %g, scale %g\nbase model         "
                 "%s\ntensors            %lld\n",
                 (long long)c.r, c.lora_alpha, lora_scale(&c),
                 c.base_model_name_or_path ? c.base_model_name_or_path : "not stated",
                 (long long)s.count);
        if (!rc && f->tensors) tensors_print(&s);
        safetensors_close(&s), lora_config_free(&c);
        return rc;
    }
    if (!model && tokenizer_is_at(path)) return inspect_tokenizer(path, e);
    if (!model) {
        err_input(e, "%s is no model, adapter or run folder", path);
        err_detail(e, "expected config.json, adapter_config.json or checkpoints/ in it");
        return hub_hint(path, e);
    }
    char *file = path_join(NULL, path, "config.json", e);
    json_t *j = file ? json_open(file, e) : NULL;
    int rc = !j || config_print(j, file, e);
    json_decref(j), mem_free(file);
    struct model_folder m = {0};
    if (!rc && f->tensors && !(rc = folder_open(&m, path, e))) tensors_print(&m.weights);
    folder_close(&m);
    return rc ? -1 : 0;
}

static int inspect_gguf(const char *path, const struct inspect_flags *f, struct err *e) {
    struct model_folder m = {0};
    struct config c;
    const struct gguf_arch *arch;
    const int rc = folder_open(&m, path, e) || folder_config(&m, &c, &arch, e) ||
                   config_print(m.config, path, e);
    if (!rc && f->tensors) tensors_print(&m.weights);
    folder_close(&m);
    return rc;
}

static int inspect(const char *what, const struct inspect_flags *f, struct err *e) {
    if (!strcmp(what, "ops")) return inspect_ops(e);
    if (!strcmp(what, "families")) return inspect_families();
    if (!path_exists(what)) return err_input(e, "%s does not exist", what);
    if (f->modules) return inspect_modules(what, f, e);
    if (path_is_dir(what)) return inspect_folder(what, f, e);
    if (ends_with(what, ".safetensors") || ends_with(what, ".safetensors.index.json"))
        return inspect_weights(what, e);
    if (ends_with(what, ".gguf")) return inspect_gguf(what, f, e);
    if (ends_with(what, ".model") || ends_with(what, ".tiktoken") ||
        ends_with(what, ".tiktoken.gz"))
        return inspect_tokenizer(what, e);
    if (ends_with(what, ".h5")) return inspect_dataset(what, f, e);
    if (ends_with(what, ".yaml") || ends_with(what, ".yml") || ends_with(what, ".sh"))
        return inspect_recipe(what, e);
    if (ends_with(what, ".json")) {
        json_t *j = json_open(what, e);
        const bool tokenizer = json_is_object(json_object_get(j, "model"));
        const int rc = !j ? -1 : tokenizer ? inspect_tokenizer(what, e) : config_print(j, what, e);
        json_decref(j);
        return rc;
    }
    err_input(e, "%s: unknown kind of file", what);
    return err_detail(
        e, "known: folders, .safetensors, .gguf, .h5, tokenizer.json, .model, .tiktoken, "
           "config.json, .yaml, and the words ops, families");
}

static int cmd_inspect(int argc, char **argv, struct err *e) {
    struct inspect_flags f = {0};
    struct args a;
    const int rc = args_parse(&a, argc, argv, inspect_options, &f, e) ||
                   args_need(&a, 1, 1, "inspect THING", e) || inspect(a.rest[0], &f, e);
    args_free(&a);
    return rc ? -1 : 0;
}

const struct command command_inspect = {
    "inspect",
    "inspect THING",
    "show a model, checkpoint, dataset, tokenizer, recipe, run; `inspect ops`, `inspect families`",
    cmd_inspect,
    inspect_options,
    NULL};
