/* cmd_forward.c: `hone forward`: what other systems compute with the same weights, for comparison.
 * Input and output are safetensors files; names are in FORMATS (README of this folder). */
#include "train/commands/commands.h"

#include <string.h>
#include <unistd.h>

struct forward_flags {
    const char *ids, *out, *precision;
    struct text_list adapter;
    bool grad;
    i64 generate;
};
#undef ROW_OF
#define ROW_OF struct forward_flags
static const struct option forward_options[] = {
    ROW(ids, OPT_TEXT, NULL, 0, 0,
        "safetensors with input_ids [B,T] int64 and optional labels and document_ids [B,T]"),
    ROW(out, OPT_TEXT, NULL, 0, 0,
        "safetensors to write: logits, loss, aux_loss, grad.NAME, generated"),
    ROW(adapter, OPT_TEXT_EACH, NULL, 0, 0, ADAPTER_HELP "; with --grad its gradients"),
    ROW(precision, OPT_TEXT, "fp32", 0, 0, "fp32 or bf16"),
    ROW(grad, OPT_BOOL, "false", 0, 0, "write the gradient of the mean loss for every tensor"),
    ROW(generate, OPT_INT, "0", 0, 1 << 20, "greedy continuation of row 0 by so many tokens"),
    {0},
};

struct rows { /* the batch as the graph takes it */
    i64 batch, length, tokens, trained;
    i32 *ids, *targets, *position, *begin, *last;
};

static int shape_wrong(const struct stored *s, const char *file, const char *wanted,
                       struct err *e) {
    char shape[160] = "";
    int at = 0;
    for (int i = 0; i < s->rank && at < 130; i++)
        at += snprintf(shape + at, sizeof shape - (size_t)at, "%s%lld", i ? ", " : "",
                       (long long)s->dim[i]);
    err_input(e, "%s: %s is %s [%s]; expected %s", file, s->name, s->type, shape, wanted);
    return -1;
}

/* Tokens of a row with the same number are a document: it sees itself alone, counts its positions
 * from 0, and its last token has no successor. */
static void documents_take(struct rows *r, const struct stored *documents) {
    for (i64 i = 0; i < r->tokens; i++) {
        i64 before = 0, own;
        memcpy(&own, documents->data + i * 8, 8);
        if (i % r->length) memcpy(&before, documents->data + (i - 1) * 8, 8);
        if (i % r->length == 0) continue;
        if (own == before) {
            r->begin[i] = r->begin[i - 1], r->position[i] = (i32)i - r->begin[i];
            continue;
        }
        r->begin[i] = (i32)i, r->position[i] = 0;
        r->trained -= r->targets[i - 1] >= 0, r->targets[i - 1] = -100;
    }
}

static int rows_read(struct rows *r, const struct safetensors *s, const char *file, struct arena *a,
                     struct err *e) {
    const struct stored *ids = safetensors_find(s, "input_ids"),
                        *labels = safetensors_find(s, "labels"),
                        *documents = safetensors_find(s, "document_ids");
    if (!ids) {
        err_input(e, "%s: there is no tensor input_ids", file);
        return err_detail(e, "expected input_ids and optional labels, I64 [B, T]");
    }
    if (ids->dtype != I64 || ids->rank != 2 || ids->dim[0] < 1 || ids->dim[1] < 1)
        return shape_wrong(ids, file, "I64 [B, T] with at least one token", e);
    if (labels && (labels->dtype != I64 || labels->rank != 2 || labels->dim[0] != ids->dim[0] ||
                   labels->dim[1] != ids->dim[1]))
        return shape_wrong(labels, file, "I64 and the shape of input_ids", e);
    if (documents &&
        (documents->dtype != I64 || documents->rank != 2 || documents->bytes != ids->bytes))
        return shape_wrong(documents, file, "I64 and the shape of input_ids", e);
    r->batch = ids->dim[0], r->length = ids->dim[1], r->tokens = r->batch * r->length;
    i32 **list[] = {&r->ids, &r->targets, &r->position, &r->begin, &r->last};
    for (int i = 0; i < COUNT(list); i++)
        if (!(*list[i] = arena_new(a, r->tokens * 4, e))) return -1;
    for (i64 i = 0; i < r->tokens; i++) {
        i64 id, label = -100;
        const i64 t = i % r->length;
        memcpy(&id, ids->data + i * 8, 8);
        if (t + 1 < r->length) memcpy(&label, (labels ? labels : ids)->data + (i + 1) * 8, 8);
        if (id < 0 || id > INT32_MAX)
            return err_input(e, "%s: input_ids[%lld, %lld] is %lld; expected a token id", file,
                             (long long)(i / r->length), (long long)t, (long long)id);
        if (label > INT32_MAX)
            return err_input(e, "%s: labels[%lld, %lld] is %lld; expected a token id or -100", file,
                             (long long)(i / r->length), (long long)t + 1, (long long)label);
        r->ids[i] = (i32)id, r->targets[i] = label < 0 ? -100 : (i32)label,
        r->trained += label >= 0;
        r->position[i] = (i32)t, r->begin[i] = (i32)(i - t), r->last[i] = (i32)i;
    }
    if (documents) documents_take(r, documents);
    return 0;
}

static struct pass_inputs inputs_of(const struct rows *r) {
    return (struct pass_inputs){.places = {r->ids, r->position, r->begin, r->last},
                                .targets = r->targets};
}

static void *result_new(struct stored_list *o, const char *name, int rank, const i64 *dim,
                        enum dtype d, struct err *e) {
    struct view v = {.dtype = d, .rank = rank};
    memcpy(v.dim, dim, sizeof *dim * (size_t)rank);
    struct stored *s = stored_add(o, e);
    void *data = s ? arena_new(&o->arena, i64_max(view_bytes(&v), 8), e) : NULL;
    if (!data) return NULL;
    *s = (struct stored){
        .name = name, .dtype = d, .rank = rank, .data = data, .bytes = view_bytes(&v)};
    memcpy(s->dim, dim, sizeof *dim * (size_t)rank);
    o->count++;
    return data;
}

static int logits_of(struct model *m, const struct rows *r, struct balance *balance,
                     struct stored_list *o, struct err *e) {
    const struct pass_plan plan = {.model = m,
                                   .tokens = r->tokens,
                                   .gives = PASS_LOGITS,
                                   .balance = m->config.balanced ? BALANCE_COUNT : BALANCE_NONE,
                                   .eager = globals.eager};
    const struct pass_inputs in = inputs_of(r);
    const i64 dim[] = {r->batch, r->length, m->config.vocab_size};
    struct pass p = {0};
    int rc = pass_open(&p, &plan, e) || pass_bind(&p, &in, e) || pass_run(&p, e) ||
             (plan.balance && balance_add(&p.build, balance, NULL, e));
    float *out = rc ? NULL : result_new(o, "logits", 3, dim, F32, e);
    rc = !out || pass_read_logits(&p, out, e);
    pass_close(&p);
    return rc ? -1 : 0;
}

/* Accumulators for the run, on the device; and after it, those of a parameter added in the order of
 * use. */
static int gradients_open(struct graph *g, struct err *e) {
    for (int i = 0; i < g->tensors; i++) {
        struct tensor *t = g->tensor[i];
        if (t->kind == TENSOR_SLOT && !(t->view.data = device_new(view_bytes(&t->view), e)))
            return -1;
    }
    return 0;
}
static void gradients_close(struct graph *g) {
    for (int i = 0; i < g->tensors; i++)
        if (g->tensor[i]->kind == TENSOR_SLOT) device_free(g->tensor[i]->view.data);
}
static int gradients_of(const struct graph *g, const struct model *m, struct stored_list *o,
                        struct err *e) {
    struct device_buffer copy = {0};
    int rc = 0;
    for (i64 k = 0; !rc && k < m->weights.params; k++) {
        const struct param *p = m->weights.param[k];
        const i64 count = view_count(&p->view);
        float *sum = NULL;
        for (int i = 0; !rc && i < g->tensors; i++) {
            const struct tensor *t = g->tensor[i];
            if (t->kind != TENSOR_SLOT || t->key != p) continue;
            const float *from = device_peek(t->view.data, view_bytes(&t->view), &copy, e);
            const bool first = !sum;
            if (first) sum = arena_new(&o->arena, count * 4, e);
            rc = !sum || !from;
            for (i64 n = 0; !rc && n < count; n++) sum[n] = first ? from[n] : sum[n] + from[n];
        }
        if (sum && !rc)
            rc = param_stored(m, p, p->saved ? "grad.base_model.model." : "grad.", sum, F32, o, e);
    }
    mem_free(copy.data);
    return rc ? -1 : 0;
}

/* The mean loss, and of a model that is `balanced` also aux_loss, which the loss then has in it. */
static int loss_of(struct model *m, const struct rows *r, bool grad, struct balance *balance,
                   struct stored_list *o, struct err *e) {
    const struct pass_plan plan = {.model = m,
                                   .tokens = r->tokens,
                                   .gives = PASS_LOSS,
                                   .train = grad,
                                   .balance = m->config.balanced ? BALANCE_LOSS : BALANCE_NONE,
                                   .eager = globals.eager};
    struct pass_inputs in = inputs_of(r);
    struct pass p = {0};
    double sum = 0;
    in.balance = balance;
    int rc = pass_open(&p, &plan, e);
    if (!rc && grad)
        rc = !(in.weight = pass_weights(&p, (float)(1.0 / (double)r->trained), e)) ||
             gradients_open(p.graph, e);
    rc = rc || pass_bind(&p, &in, e) || pass_run(&p, e) ||
         pass_read_loss(&p, r->targets, &sum, e) ||
         (plan.balance && balance_add(&p.build, balance, NULL, e)) ||
         (grad && gradients_of(p.graph, m, o, e));
    float *out = rc ? NULL : result_new(o, "loss", 0, (i64[]){0}, F32, e);
    const double aux = plan.balance ? balance_loss(balance, m->config.layers) : 0;
    if (out) *out = (float)(sum / (double)r->trained + m->config.aux_coef * aux);
    if (out && plan.balance && (out = result_new(o, "aux_loss", 0, (i64[]){0}, F32, e)))
        *out = (float)aux;
    if (grad && p.graph) gradients_close(p.graph);
    pass_close(&p);
    return out ? 0 : -1;
}

static int generated_of(struct model *m, const struct rows *r, i64 count, struct stored_list *o,
                        struct err *e) {
    const struct sampling s = {.top_p = 1, .max_new_tokens = count, .ignore_eos = true};
    struct ids out = {0};
    int rc = generate_ids(m, (const u32 *)r->ids, r->length, &s, &out, NULL, NULL, e);
    i64 *to = rc ? NULL : result_new(o, "generated", 1, (i64[]){count}, I64, e);
    for (i64 i = 0; to && i < out.count; i++) to[i] = out.item[i];
    ids_free(&out);
    return to ? 0 : -1;
}

static int forward_all(struct loaded *l, const struct forward_flags *f, struct rows *r,
                       struct stored_list *o, struct err *e) {
    if (f->grad && !r->trained) {
        err_input(e, "--grad: no token has a label, so there is no loss and no gradient");
        return err_hint(e, "labels are shifted by one: a row of T tokens has T - 1 targets");
    }
    struct balance balance = {0};
    const int rc = model_rope(&l->model, r->length + f->generate, e) ||
                   logits_of(&l->model, r, &balance, o, e) ||
                   (r->trained && loss_of(&l->model, r, f->grad, &balance, o, e));
    mem_free(balance.sum);
    if (rc) return -1;
    return f->generate ? generated_of(&l->model, r, f->generate, o, e) : 0;
}

/* Under another name first, so that an older file stays until this one is whole. safetensors_write
 * takes a folder and a stem. */
static int results_write(struct stored_list *o, const char *path, struct err *e) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const size_t size = strlen(name);
    if (size < 13 || strcmp(name + size - 12, ".safetensors"))
        return err_input(e, "--out must end in .safetensors, not '%s'", path);
    const int before = slash ? (int)i64_max(slash - path, 1) : 1; /* "/" is a folder too */
    char *folder = mem_printf(e, "%.*s", before, slash ? path : ".");
    char *stem = mem_printf(e, "%.*s.new", (int)(size - 12), name);
    char *fresh = folder && stem ? mem_printf(e, "%s/%s.safetensors", folder, stem) : NULL;
    const int rc = !fresh || safetensors_write(folder, stem, o->tensor, o->count, INT64_MAX, e) ||
                   path_rename(fresh, path, e);
    if (rc && fresh) unlink(fresh);
    mem_free(fresh), mem_free(stem), mem_free(folder);
    return rc ? -1 : 0;
}

static int cmd_forward(int argc, char **argv, struct err *e) {
    struct forward_flags f = {0};
    struct args a;
    struct loaded l = {0};
    struct safetensors s = {0};
    struct rows r = {0};
    struct stored_list o = {0};
    enum dtype d;
    int rc = args_parse(&a, argc, argv, forward_options, &f, e) ||
             args_need(&a, 1, 1, "forward MODEL --ids F.safetensors --out O.safetensors", e);
    if (!rc && (!f.ids || !f.out))
        rc = err_input(e, "forward needs --ids and --out"),
        err_hint(e, "usage: hone forward MODEL --ids F.safetensors --out O.safetensors");
    if (!rc && f.grad && f.adapter.count > 1)
        rc = err_input(e, "--grad: the gradients are those of one adapter, and %lld are named",
                       (long long)f.adapter.count);
    const struct outputs files = {
        .output = {f.out}, .input = {f.ids, rc ? NULL : a.rest[0]}, .adapter = &f.adapter};
    if (!rc)
        rc = outputs_apart(&files, e) || precision_parse(f.precision, &d, e) ||
             loaded_open(&l, a.rest[0], &f.adapter, NULL, d, f.grad, e) ||
             safetensors_open(&s, f.ids, e) || rows_read(&r, &s, f.ids, &o.arena, e) ||
             forward_all(&l, &f, &r, &o, e) || results_write(&o, f.out, e);
    safetensors_close(&s), loaded_close(&l), args_free(&a);
    stored_free(&o);
    return rc ? -1 : 0;
}

const struct command command_forward = {"forward",
                                        "forward MODEL --ids F.safetensors --out O.safetensors",
                                        "logits, loss, gradients: parity with other systems",
                                        cmd_forward,
                                        forward_options,
                                        NULL};
