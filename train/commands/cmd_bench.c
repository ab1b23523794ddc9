/* cmd_bench.c: `hone bench`: how fast operations and training steps are, as a share of what this
 * machine can do at that moment.
 *
 * Machines are shared and noisy: each time is the least of several runs, and the peak it is related
 * to (fused multiply-adds in registers, or copying memory, on all threads) is measured right
 * before. Operations come from OP_LIST: their samples marked `bench`. */
#include "train/commands/commands.h"

#include <jansson.h>
#include <string.h>

struct bench_flags {
    double seconds;
    i64 steps, batch, length;
    const char *precision, *tokenizer, *text, *peers, *optim;
};
#define ROW_OF struct bench_flags
static const struct option bench_options[] = {
    ROW(seconds, OPT_FLOAT, "0.3", 0.01, 60, "time for each operation"),
    ROW(steps, OPT_INT, "4", 1, 1000, "training steps to time"),
    ROW(batch, OPT_INT, "4", 1, 4096, "training step: rows"),
    ROW(length, OPT_INT, "512", 32, 1 << 20, "training step: tokens per row"),
    ROW(optim, OPT_TEXT, "adamw", 0, 0, "training step: its optimizer, as in recipes"),
    ROW(precision, OPT_TEXT, "", 0, 0, "fp32 or bf16 only; default: both"),
    ROW(tokenizer, OPT_TEXT, NULL, 0, 0, "bench tokenizer: of this file or folder"),
    ROW(text, OPT_TEXT, NULL, 0, 0, "bench tokenizer: what it encodes"),
    ROW(peers, OPT_TEXT, NULL, 0, 0, "bench tokenizer: JSON lines with what others reach"),
    {0},
};
#undef ROW_OF

static bool chosen(const struct args *a, const char *name) {
    for (i64 i = 0; i < a->count; i++)
        if (!strcmp(a->rest[i], name)) return true;
    return !a->count;
}

/* ---- operations ------------------------------------------------------------------------------ */

static int fill(struct view *v, const struct sample_in *in, enum dtype precision, struct arena *a,
                struct err *e) {
    *v = (struct view){.dtype = in->dtype != F32 ? in->dtype
                                : in->always_f32 ? F32
                                                 : precision,
                       .rank = in->rank};
    memcpy(v->dim, in->dim, sizeof v->dim);
    if (!(v->data = arena_new(a, i64_max(view_bytes(v), 64), e))) return -1;
    const i64 n = view_count(v);
    const struct rng r = {3, RNG_TEST, 0, 0};
    double *f = in->fill == FILL_CUSTOM ? mem_new_array(n, sizeof *f, e) : NULL;
    if (in->fill == FILL_CUSTOM && !f) return -1;
    if (f) in->custom(f, v);
    enum { DIFFERENT = 1 << 16 };
    const i64 size = dtype_size(v->dtype);
    for (i64 i = 0; i < n; i++) {
        if (!f && i >= DIFFERENT) { /* the same again */
            memcpy((u8 *)v->data + i * size, v->data, (size_t)(i64_min(n - i, DIFFERENT) * size));
            i += DIFFERENT - 1;
            continue;
        }
        const double x = f ? (v->dtype == I32 ? ((i32 *)f)[i] : f[i])
                           : in->low + (in->high - in->low) * (double)rng_uniform(&r, (u64)i);
        if (v->dtype == I32)
            ((i32 *)v->data)[i] = (i32)x;
        else if (v->dtype == U8)
            ((u8 *)v->data)[i] = (u8)x;
        else if (v->dtype == BF16)
            ((u16 *)v->data)[i] = bf16_of_f32((float)x);
        else
            ((float *)v->data)[i] = (float)x;
    }
    return mem_free(f), 0;
}

/* Packs an argument's values as its sample says. */
static int fill_packed(struct view *v, const struct packing *p, struct arena *a, struct err *e) {
    const void *from = v->data;
    v->packing = p;
    memcpy(v->block, p->block, sizeof v->block);
    for (int k = 0; k <= VIEW_PARTS; k++) {
        const i64 bytes = view_slot_bytes(v, k);
        if (bytes && !(*view_slot(v, k) = arena_new(a, bytes, e))) return -1;
    }
    return p->encode(v, from, v->dtype == BF16, e);
}

static struct view *view_of(struct op_call *c, int i) {
    return i < OP_IN ? &c->in[i] : &c->out[i - OP_IN];
}
/* Moves what a call reads and writes to the device. */
static int call_place(struct op_call *c, struct err *e) {
    if (device_now() == DEVICE_CPU) return 0;
    for (int i = 0; i < OP_IN + OP_OUT; i++)
        for (int k = 0; k <= VIEW_PARTS; k++) {
            void **at = view_slot(view_of(c, i), k);
            const void *host = *at;
            const i64 bytes = host ? view_slot_bytes(view_of(c, i), k) : 0;
            if (host && (!(*at = device_new(bytes, e)) || device_write(*at, host, bytes, e)))
                return -1;
        }
    return device_sync(e);
}
static void call_close(struct op_call *c) {
    if (device_now() == DEVICE_CPU) return;
    for (int i = 0; i < OP_IN + OP_OUT; i++)
        for (int k = 0; k <= VIEW_PARTS; k++) device_free(*view_slot(view_of(c, i), k));
    device_free(c->scratch);
}

static int call_open(struct op_call *c, const struct op *op, const struct sample *s, enum dtype d,
                     struct arena *a, struct err *e) {
    *c = (struct op_call){.op = op, .attr = s->attr};
    for (int i = 0; i < OP_IN; i++)
        if (s->in[i].present &&
            (fill(&c->in[i], &s->in[i], d, a, e) ||
             (s->in[i].packing && fill_packed(&c->in[i], s->in[i].packing, a, e))))
            return -1;
    for (int i = 0; i < OP_OUT; i++)
        if (s->out[i].present && fill(&c->out[i], &s->out[i], d, a, e)) return -1;
    if (op_shape(c, e)) return -1;
    for (int i = 0; i < OP_OUT; i++)
        if (c->out[i].rank && !c->out[i].data &&
            !(c->out[i].data = arena_new(a, view_bytes(&c->out[i]) + 64, e)))
            return -1;
    const i64 scratch = op_scratch(c);
    if (call_place(c, e)) return -1;
    if (scratch)
        c->scratch =
            device_now() == DEVICE_CPU ? arena_new(a, scratch + 64, e) : device_new(scratch, e);
    return scratch && !c->scratch ? -1 : 0;
}

static void shapes_text(const struct op_call *c, char text[64]) {
    int n = 0;
    text[0] = 0;
    for (int i = 0; i < 2; i++) {
        if (!c->in[i].rank) break;
        n += snprintf(text + n, (size_t)(64 - n), "%s[", i ? " x " : "");
        for (int k = 0; k < c->in[i].rank; k++)
            n += snprintf(text + n, (size_t)(64 - n), "%s%lld", k ? "," : "",
                          (long long)c->in[i].dim[k]);
        n += snprintf(text + n, (size_t)(64 - n), "]%s%s", c->in[i].packing ? " " : "",
                      c->in[i].packing ? c->in[i].packing->name : "");
    }
}

static void line(const char *name, const char *shape, enum dtype d, double ms, double rate,
                 const char *unit, double peak) {
    if (globals.json)
        json_print(json_pack("{s:o, s:o, s:s, s:o, s:o, s:s, s:o}", "name", json_name(name),
                             "shape", json_name(shape), "dtype", dtype_info[d].name, "ms",
                             json_finite(ms), "rate", json_finite(rate), "unit", unit, "of_peak",
                             json_finite(rate / peak)),
                   &(struct err){0});
    else
        printf("%-20s %-30s %-5s %9.3f ms %8.1f %-7s %3.0f %%\n", name, shape, dtype_info[d].name,
               ms, rate, unit, 100 * rate / peak);
    fflush(stdout);
}

static int bench_op(const struct op *op, const struct sample *s, enum dtype d, double seconds,
                    struct err *e) {
    struct arena a = {0};
    struct op_call c;
    char shape[64];
    int rc = call_open(&c, op, s, d, &a, e);
    double best = 1e30, bytes = 0;
    const double flops = !rc && op->flops ? op->flops(&c) : 0;
    const double peak = flops > 0 ? bench_peak_gflops(d) : bench_copy_gbs(e);
    rc = rc || op_run(&c, e) || device_sync(e);
    i64 calls =
        1; /* at a time: on a GPU as many as take 5 ms, or waiting for it would be counted */
    const double end = clock_seconds() + seconds;
    for (int i = 0; !rc && (i < 3 || clock_seconds() < end); i++) {
        const double start = clock_seconds();
        for (i64 k = 0; !rc && k < calls; k++) rc = op_run(&c, e);
        rc = rc || device_sync(e);
        const double each = (clock_seconds() - start) / (double)calls;
        best = each < best ? each : best;
        if (device_now() == DEVICE_CUDA) calls = i64_max(1, i64_min(500, (i64)(0.005 / best)));
    }
    for (int i = 0; i < OP_IN; i++) bytes += (double)(c.in[i].rank ? view_memory(&c.in[i]) : 0);
    for (int i = 0; i < OP_OUT; i++)
        bytes += (double)(c.out[i].rank ? view_bytes(&c.out[i]) * (s->out[i].present ? 2 : 1) : 0);
    if (op->bytes) bytes = op->bytes(&c);
    shapes_text(&c, shape);
    if (!rc)
        line(op->name, shape, d, best * 1e3, (flops > 0 ? flops : bytes) / best * 1e-9,
             flops > 0 ? "GFLOP/s" : "GB/s", peak);
    call_close(&c), arena_free(&a);
    return rc ? -1 : 0;
}

static int bench_ops(const struct args *a, const struct bench_flags *f, struct err *e) {
    for (int d = 0; d < 2; d++)
        for (int i = 0; i < op_count; i++) {
            if (!chosen(a, op_table[i]->name) && !chosen(a, "ops")) continue;
            if (*f->precision && strcmp(f->precision, d ? "bf16" : "fp32")) continue;
            struct sample *s;
            for (int k = 0; (s = mem_new(sizeof *s, e)) && op_table[i]->sample(k, s); k++) {
                const bool run =
                    s->bench == BENCH || (s->bench == BENCH_GPU && device_now() == DEVICE_CUDA);
                const int rc = run ? bench_op(op_table[i], s, d ? BF16 : F32, f->seconds, e) : 0;
                mem_free(s);
                if (rc) return -1;
            }
            if (!s) return -1;
            mem_free(s);
        }
    return 0;
}

/* ---- a training step ------------------------------------------------------------------------- */

/* OLMo 2 in the shape of GPT-2 small, and the shapes of Qwen 3 0.6B and Llama 3.1 8B (the latter
 * frozen, with LoRA on all linear layers) as Llama models. */
static const struct shape {
    const char *name, *title, *config;
    bool lora;
} shapes[] = {
    {"train", "train olmo2 124M",
     "{\"model_type\": \"olmo2\", \"vocab_size\": 50304, \"hidden_size\": 768, "
     "\"intermediate_size\": 2048, \"num_hidden_layers\": 12, \"num_attention_heads\": 12, "
     "\"tie_word_embeddings\": true}",
     false},
    {"train-0.6b", "train llama 0.6B",
     "{\"model_type\": \"llama\", \"vocab_size\": 151936, \"hidden_size\": 1024, "
     "\"intermediate_size\": 3072, \"num_hidden_layers\": 28, \"num_attention_heads\": 16, "
     "\"num_key_value_heads\": 8, \"head_dim\": 128, \"tie_word_embeddings\": true}",
     false},
    {"train-8b-lora", "train llama 8B LoRA",
     "{\"model_type\": \"llama\", \"vocab_size\": 128256, \"hidden_size\": 4096, "
     "\"intermediate_size\": 14336, \"num_hidden_layers\": 32, \"num_attention_heads\": 32, "
     "\"num_key_value_heads\": 8, \"tie_word_embeddings\": false}",
     true},
};

struct step_bench {
    struct model m;
    struct lora_config lora;
    struct optimizer o;
    struct pass pass;
    struct arena arena;
};

static int step_open(struct step_bench *s, const struct shape *shape, enum dtype d,
                     const struct bench_flags *f, struct arena *a, struct err *e) {
    struct config c;
    struct recipe r = {.learning_rate = 1e-4,
                       .adam_beta1 = 0.9,
                       .adam_beta2 = 0.95,
                       .adam_epsilon = 1e-8,
                       .weight_decay = 0.1,
                       .max_grad_norm = 1,
                       .master_weights = true};
    if (option_set(recipe_options, &r, "optim", f->optim, "bench", &r.arena, e) ||
        recipe_optim(&r, "bench", e))
        return arena_free(&r.arena), -1;
    s->arena = r.arena;
    json_t *j = json_parse(shape->config, (i64)strlen(shape->config), "bench", e);
    const i64 n = f->batch * f->length;
    int rc = !j || config_read(&c, j, "bench", e);
    if (!rc) c.max_position_embeddings = f->length;
    rc = rc || model_new(&s->m, &c, d, !shape->lora, e);
    json_decref(j);
    if (rc) return -1;
    if (!shape->lora) model_init(&s->m, 1); /* zeros take the same time */
    s->lora = (struct lora_config){.r = 16, .lora_alpha = 16, .target_regex = "all-linear"};
    if ((shape->lora && lora_add(&s->m, &s->lora, 1, e)) || model_place(&s->m, e) ||
        model_rope(&s->m, f->length, e))
        return -1;
    const struct pass_plan plan = {
        .model = &s->m, .tokens = n, .gives = PASS_LOSS, .train = true, .eager = globals.eager};
    if (optimizer_new(&s->o, &s->m, &r, e) || pass_open(&s->pass, &plan, e) ||
        optimizer_bind(&s->o, s->pass.graph, e))
        return -1;
    i32 *in = arena_new(a, n * 5 * 4, e);
    const float *weight = pass_weights(&s->pass, 1.0f / (float)n, e);
    if (!in || !weight) return -1;
    const struct rng random = {1, RNG_TEST, 0, 0};
    for (i64 i = 0; i < n; i++) {
        in[i] = in[n + i] = (i32)(rng_uniform_f64(&random, (u64)i) * (double)c.vocab_size);
        in[2 * n + i] = (i32)(i % f->length), in[3 * n + i] = (i32)(i - i % f->length),
                   in[4 * n + i] = (i32)i;
    }
    const struct pass_inputs inputs = {
        .places = {in, in + 2 * n, in + 3 * n, in + 4 * n}, .targets = in + n, .weight = weight};
    return pass_bind(&s->pass, &inputs, e);
}

static int bench_step(const struct shape *form, enum dtype d, const struct bench_flags *f,
                      struct err *e) {
    struct step_bench s = {0};
    struct arena a = {0};
    double best = 1e30, update = 1e30, peak = 0, norm;
    if (device_now() == DEVICE_CUDA) peak = bench_peak_gflops(d); /* while there is room */
    int rc = step_open(&s, form, d, f, &a, e);
    for (i64 i = 0; !rc && i <= f->steps; i++) { /* the first one brings in the memory */
        if (i && device_now() == DEVICE_CPU)
            peak = bench_peak_gflops(d) > peak ? bench_peak_gflops(d) : peak;
        const double start = clock_seconds();
        rc = optimizer_zero(&s.o, e) || pass_run(&s.pass, e) || device_sync(e);
        const double back = clock_seconds();
        rc = rc || optimizer_update(&s.o, 1, 1e-4, &norm, e);
        if (i && clock_seconds() - back < update) update = clock_seconds() - back;
        if (i && clock_seconds() - start < best) best = clock_seconds() - start;
    }
    char shape[64];
    const i64 n = f->batch * f->length;
    snprintf(shape, sizeof shape, "%lld x %lld, %.0f tokens/s, %s %.0f ms", (long long)f->batch,
             (long long)f->length, (double)n / best, s.o.kind ? s.o.kind->name : "", update * 1e3);
    if (!rc)
        line(form->title, shape, d, best * 1e3, model_flops(&s.m, n, f->length) / best * 1e-9,
             "GFLOP/s", peak);
    pass_close(&s.pass), optimizer_free(&s.o), model_free(&s.m), arena_free(&a);
    arena_free(&s.arena);
    return rc ? -1 : 0;
}

static int cmd_bench(int argc, char **argv, struct err *e) {
    struct bench_flags f = {0};
    struct args a;
    int rc = args_parse(&a, argc, argv, bench_options, &f, e);
    for (i64 i = 0; !rc && i < a.count; i++)
        if (strcmp(a.rest[i], "ops") && strcmp(a.rest[i], "tokenizer") &&
            strncmp(a.rest[i], "train", 5) && !op_find(a.rest[i]))
            rc = err_input(e, "there is no benchmark '%s'", a.rest[i]),
            err_hint(e, "ops, tokenizer, train, train-0.6b, train-8b-lora, or the name of an "
                        "operation (`hone "
                        "inspect ops`)");
    const bool tokenizer = !rc && a.count == 1 && !strcmp(a.rest[0], "tokenizer");
    if (tokenizer) {
        rc = bench_tokenizer(f.tokenizer, f.text, f.peers, e);
        args_free(&a);
        return rc;
    }
    if (!rc && !globals.json && device_now() == DEVICE_CUDA)
        printf("%s, numerics %s: products of 8,192 %.0f GFLOP/s f32, %.0f bf16, copying %.0f "
               "GB/s\n\n",
               device_text(), numerics_now == NUMERICS_FAST ? "fast" : "portable",
               bench_peak_gflops(F32), bench_peak_gflops(BF16), bench_copy_gbs(e));
    else if (!rc && !globals.json)
        printf("%s, %d threads: %.0f GFLOP/s f32, %.0f bf16 (fused multiply-adds in registers), "
               "copying %.0f GB/s\n\n",
               isa_name[isa_now()], pool_threads(), bench_peak_gflops(F32), bench_peak_gflops(BF16),
               bench_copy_gbs(e));
    if (!rc) rc = bench_ops(&a, &f, e);
    for (int k = 0; k < 2 * COUNT(shapes); k++) {
        const struct shape *form = &shapes[k / 2];
        const enum dtype d = k % 2 ? BF16 : F32;
        if (rc || !chosen(&a, form->name) || (form != shapes && !a.count)) continue;
        if (!*f.precision || !strcmp(f.precision, d == BF16 ? "bf16" : "fp32"))
            rc = bench_step(form, d, &f, e);
    }
    args_free(&a);
    return rc ? -1 : 0;
}

const struct command command_bench = {
    "bench",   "bench [NAME ...]", "speed against this machine's measured peak",
    cmd_bench, bench_options,      NULL};
