/* outputs.c: what a command writes must be none of what it reads (base/paths.c), and what a run
 * writes must not be what it was made from.
 *
 * A file is written under NAME.new and renamed, so that name must be free of inputs too. */
#include "train/loop/loop.h"

#include <string.h>

struct names {
    const char **item;
    i64 count, room;
    struct arena *a;
};

static int names_add(struct names *n, const char *name, struct err *e) {
    if (!name) return 0;
    if (n->count == n->room) {
        const i64 room = n->room ? 2 * n->room : 64;
        const char **grown = arena_new(n->a, room * (i64)sizeof *grown, e);
        if (!grown) return -1;
        if (n->count) memcpy(grown, n->item, (size_t)n->count * sizeof *grown);
        n->item = grown, n->room = room;
    }
    n->item[n->count++] = name;
    return 0;
}

/* "DIR=WEIGHT" of an adapter: both readings, as the folder may have a '=' in its name. */
static int adapters_add(struct names *n, const struct text_list *adapter, struct err *e) {
    for (i64 i = 0; adapter && i < adapter->count; i++) {
        const char *text = adapter->item[i], *equals = strrchr(text, '=');
        if (names_add(n, text, e)) return -1;
        if (!equals) continue;
        char *folder = arena_printf(n->a, e, "%.*s", (int)(equals - text), text);
        if (!folder || names_add(n, folder, e)) return -1;
    }
    return 0;
}

/* Does `path`, resolved, begin with `start`, resolved? -1: an error. With `folder`: lie in it. */
static int begins(const char *path, const char *start, bool folder, struct err *e) {
    char *one = path_resolve(path, e), *two = one ? path_resolve(start, e) : NULL;
    const size_t size = two && strcmp(two, "/") ? strlen(two) : 0;
    const int is =
        !two ? -1 : !strncmp(one, two, size) && (!folder || one[size] == '/' || !one[size]);
    mem_free(one), mem_free(two);
    return is;
}
static int lies_in(const char *path, const char *folder, struct err *e) {
    return begins(path, folder, true, e);
}

/* X.EXT is also written as X.EXT.new.EXT or X.new.EXT, where a format goes by its ending. */
static int endings_add(struct names *n, const char *output, struct err *e) {
    const char *slash = strrchr(output, '/'), *dot = strrchr(slash ? slash : output, '.');
    if (!dot) return 0;
    char *one = arena_printf(n->a, e, "%s.new%s", output, dot),
         *two = arena_printf(n->a, e, "%.*s.new%s", (int)(dot - output), output, dot);
    return one && two ? names_add(n, one, e) || names_add(n, two, e) : -1;
}

int outputs_apart(const struct outputs *o, struct err *e) {
    struct arena a = {0};
    struct names in = {.a = &a}, out = {.a = &a};
    int rc = adapters_add(&in, o->adapter, e);
    for (i64 i = 0; !rc && i < o->sources; i++) rc = names_add(&in, o->source[i], e);
    for (int i = 0; !rc && i < OUTPUT_NAMES; i++) rc = names_add(&in, o->input[i], e);
    for (int i = 0; !rc && i < OUTPUT_NAMES; i++) {
        if (!o->output[i]) continue;
        int size = (int)strlen(o->output[i]); /* a folder may be named with a slash behind it */
        while (size > 1 && o->output[i][size - 1] == '/') size--;
        char *fresh = arena_printf(&a, e, "%.*s.new", size, o->output[i]);
        rc = !fresh || names_add(&out, o->output[i], e) || names_add(&out, fresh, e) ||
             endings_add(&out, o->output[i], e);
        for (i64 k = 0; !rc && k < in.count && path_is_dir(fresh); k++) /* it would be emptied */
            if ((rc = path_exists(in.item[k]) ? lies_in(in.item[k], fresh, e) : 0) > 0)
                err_input(e, "%s lies in %s, which is emptied while %s is written", in.item[k],
                          fresh, o->output[i]),
                    err_hint(e, "name another output; nothing was written");
    }
    rc = rc || paths_apart(out.item, out.count, in.item, in.count, e);
    arena_free(&a);
    return rc ? -1 : 0;
}

/* ---- runs */

/* What `hone train` writes in a run's folder: a name that ends with '/' is a folder of its own, one
 * that ends with '-' begins names. The first are written when the run begins. */
static const char *const kept[] = {"data/train-",  "data/eval-",  "model/",   "log.jsonl",
                                   "log.csv",      "recipe.lock", "run.json", "samples.jsonl",
                                   "checkpoints/", "tensorboard/"};
enum { MODEL = 2, AT_BEGIN = 3 };

/* 1: `path` is one of the run's own files, or lies in one of its folders; of kept[first] and on. A
 * run of the recipe `r`, or, with NULL, of any. */
static int run_keeps(const char *run, const char *path, int first, const struct recipe *r,
                     struct err *e) {
    const char *base = r ? r->model_name_or_path : NULL;
    const bool described = !base || (path_is_gguf(base) && !r->use_peft);
    for (int i = first; i < COUNT(kept); i++) {
        if (i == MODEL && !described) continue; /* checkpoints are made from the base's files */
        const char end = kept[i][strlen(kept[i]) - 1];
        char *own = path_join(NULL, run, kept[i], e);
        const int is = !own                       ? -1
                       : end == '/' || end == '-' ? begins(path, own, end == '/', e)
                                                  : path_same(path, own, e);
        mem_free(own);
        if (is) return is;
    }
    return 0;
}

static int input_apart(const struct recipe *r, const char *what, const char *path, struct err *e) {
    if (!path || !path_exists(path) || !path_exists(r->output_dir)) return 0;
    /* A run that goes on has its data and model; the lock's hashes say that inputs are what they
     * were. Older versions let inputs lie there. */
    const int begun = r->resume_from_checkpoint ? path_has(r->output_dir, "log.jsonl", e) : 0;
    if (begun < 0) return -1;
    const int inside = run_keeps(r->output_dir, path, begun ? AT_BEGIN : 0, r, e);
    const int itself = inside || begun ? 0 : lies_in(r->output_dir, path, e);
    if (inside < 0 || itself < 0) return -1;
    if (inside)
        err_input(e, "%s: %s is a file of the run %s itself", what, path, r->output_dir);
    else if (itself && path_is_dir(path) && !lies_in(path, r->output_dir, e))
        return 0; /* a run within the folder of its sources harms nothing */
    else if (itself)
        err_input(e, "%s: %s is the output_dir too", what, path);
    else
        return 0;
    return err_hint(e, "choose another output_dir; nothing was written");
}

int inputs_apart(const struct recipe *r, struct err *e) {
    if (input_apart(r, "model_name_or_path", r->model_name_or_path, e) ||
        input_apart(r, "tokenizer", r->tokenizer, e) ||
        input_apart(r, "adapter_name_or_path", r->adapter_name_or_path, e) ||
        input_apart(r, "chat_template", r->chat_template, e))
        return -1;
    for (i64 i = 0; i < r->dataset.count; i++)
        if (input_apart(r, "dataset", r->dataset.item[i].path, e)) return -1;
    for (i64 i = 0; i < r->eval_dataset.count; i++)
        if (input_apart(r, "eval_dataset", r->eval_dataset.item[i].path, e)) return -1;
    return 0;
}

int report_apart(char *const *run, i64 count, const char *output, struct err *e) {
    for (i64 i = 0; i < count; i++) {
        if (!path_is_dir(run[i])) continue;
        char *data = mem_printf(e, "%s/data", run[i]);
        int keeps = data ? lies_in(output, data, e) : -1;
        mem_free(data);
        if (!keeps) keeps = run_keeps(run[i], output, 0, NULL, e);
        if (keeps < 0) return -1;
        if (!keeps) continue;
        err_input(e, "the output %s is a file of the run %s", output, run[i]);
        return err_hint(e, "name another output; nothing was written");
    }
    return paths_apart(&output, 1, NULL, 0, e);
}
