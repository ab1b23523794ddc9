/* tokenizer_tiktoken.c: rank files: lines of "BASE64 RANK", the rank being the id. They say neither
 * how text is cut nor which special tokens there are: both are known for the published ones, which
 * are told by how many ranks they hold; any other needs "pat_str" in tokenizer_config.json. */
#include <stdlib.h>
#include <string.h>
#include "data/tokenizers/tokenizers_int.h"

static const struct family {
    i64 ranks;
    const char *pre;      /* tokenizer_pre.c */
    const char *specials; /* names by space; "=ID" sets the id, else they follow each other */
    const char *reserved; /* fills the holes up to ranks + total, ending with a number, */
    i64 total, running;   /* which runs from here; -1: is the id */
    bool add_bos;
} families[] = {
    {50256, "r50k", "<|endoftext|>", NULL, 0, 0, false},
    {50280, "p50k", "<|endoftext|>=50256", NULL, 0, 0, false},
    {100256, "cl100k",
     "<|endoftext|>=100257 <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|endofprompt|>=100276",
     NULL, 0, 0, false},
    {199998, "gpt-4o", "<|endoftext|>=199999 <|endofprompt|>=200018", NULL, 0, 0, false},
    {128000, "llama3",
     "<|begin_of_text|> <|end_of_text|> <|reserved_special_token_0|> <|reserved_special_token_1|> "
     "<|reserved_special_token_2|> <|reserved_special_token_3|> <|start_header_id|> "
     "<|end_header_id|> <|reserved_special_token_4|> <|eot_id|>",
     "<|reserved_special_token_", 256, 5, true},
    {151643, "qwen2", "<|endoftext|> <|im_start|> <|im_end|>", NULL, 0, 0, false},
    {163584, "kimi-k2", "[BOS] [EOS]", "<|reserved_token_", 256, -1, false},
};

struct ranks {
    struct rank {
        i64 at, size; /* in pool; size -1: no token has this rank */
    } * rank;
    i64 count, capacity, used;
    struct text pool; /* decoded bytes */
};

static int ranks_reach(struct ranks *r, i64 id, struct err *e) {
    if (id >= r->capacity) {
        i64 n = i64_max(id + 1, i64_max(4096, r->capacity + r->capacity / 2));
        void *p =
            mem_grow(r->rank, r->capacity * (i64)sizeof *r->rank, n * (i64)sizeof *r->rank, e);
        if (!p) return -1;
        r->rank = p;
        r->capacity = n;
    }
    for (; r->count <= id; r->count++) r->rank[r->count] = (struct rank){0, -1};
    return 0;
}

static int rank_line(struct ranks *r, struct bytes line, const char *where, i64 n, struct err *e) {
    const char *space = memchr(line.data, ' ', (size_t)line.size);
    char buffer[4096];
    i64 code = space ? space - line.data : 0, id = 0, digits = line.size - code - 1, size = -1;
    if (code > 0 && code < (i64)sizeof buffer - 4) size = base64_decode(line.data, code, buffer);
    for (i64 i = code + 1; i < line.size && id >= 0; i++)
        id = line.data[i] < '0' || line.data[i] > '9' || id > VOCAB_LIMIT
                 ? -1
                 : id * 10 + (line.data[i] - '0');
    if (size <= 0 || digits < 1 || id < 0 || id >= VOCAB_LIMIT)
        return err_input(e, "%s:%lld: \"%.*s\" is not a token in base64 and its rank", where,
                         (long long)n, (int)i64_min(line.size, 60), line.data);
    if (ranks_reach(r, id, e)) return -1;
    if (r->rank[id].size >= 0)
        return err_input(e, "%s:%lld: rank %lld is used twice", where, (long long)n, (long long)id);
    r->rank[id] = (struct rank){r->pool.size, size};
    r->used++;
    return text_add(&r->pool, buffer, size, e);
}

static int ranks_read(struct ranks *r, struct bytes file, const char *where, struct err *e) {
    const char *at = file.data, *end = at + file.size;
    for (i64 n = 1; at < end; n++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop) stop = end;
        i64 size = stop - at - (stop > at && stop[-1] == '\r');
        if (size && rank_line(r, (struct bytes){at, size}, where, n, e)) return -1;
        at = stop + (stop < end);
    }
    return r->used ? 0 : err_input(e, "%s: there are no ranks", where);
}

static int special_add(json_t *list, i64 id, const char *name, i64 size) {
    return json_array_append_new(list, json_pack("{s:I, s:o, s:b, s:b}", "id", (json_int_t)id,
                                                 "content", json_stringn(name, (size_t)size),
                                                 "special", 1, "normalized", 0));
}

static bool has_id(const json_t *list, i64 id) {
    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_integer_value(json_object_get(json_array_get(list, i), "id")) == id) return true;
    return false;
}

/* What the family has where the folder does not say. */
static json_t *specials_of(const struct family *f, json_t *added, struct err *e) {
    json_t *list = added ? json_copy(added) : json_array();
    int rc = list ? 0 : -1;
    i64 id = f->ranks;
    for (const char *at = f->specials; !rc && !added && *at; id++) {
        const i64 size = (i64)strcspn(at, "= "), whole = (i64)strcspn(at, " ");
        if (size < whole) id = strtoll(at + size + 1, NULL, 10);
        rc = special_add(list, id, at, size);
        at += whole + (at[whole] == ' ');
    }
    i64 running = f->running;
    for (id = f->ranks; !rc && f->reserved && (!added || running < 0) && id < f->ranks + f->total;
         id++) {
        char name[64];
        if (has_id(list, id)) continue;
        const int size = snprintf(name, sizeof name, "%s%lld|>", f->reserved,
                                  (long long)(running < 0 ? id : running++));
        rc = special_add(list, id, name, size);
    }
    if (!rc) return list;
    json_decref(list);
    err_memory(e, "out of memory for special tokens");
    return NULL;
}

static int parts_of(struct tokenizer *t, const struct ranks *r, const struct family *f,
                    const json_t *config, json_t *added, struct err *e) {
    const bool add_bos = f && f->add_bos;
    struct tokenizer_parts p = {.name = t->path, .model = "tiktoken", .sha256 = t->sha256};
    struct bytes *token = mem_new_array(r->count, sizeof *token, e);
    for (i64 id = 0; token && id < r->count; id++)
        token[id] = (struct bytes){r->pool.data + r->rank[id].at, r->rank[id].size};
    p.token = token, p.count = r->count;
    p.pre = f ? f->pre : NULL;
    p.pattern = json_text(config, "pat_str", NULL, t->path, e);
    p.bos = p.eos = p.unk = p.sep = p.cls = -1;
    if (add_bos) p.bos = f->ranks;
    p.add_bos = json_bool(config, "add_bos_token", add_bos, t->path, e);
    p.cut_added = true;
    json_t *list = f ? specials_of(f, added, e) : json_incref(added);
    p.added = list;
    int rc = !token || (f && !list) || e->code || parts_build(t, &p, e);
    json_decref(list), mem_free(token);
    return rc ? -1 : 0;
}

int tiktoken_read(struct tokenizer *t, struct bytes file, const json_t *config, json_t *added,
                  struct err *e) {
    struct ranks r = {0};
    const struct family *f = NULL;
    int rc = ranks_read(&r, file, t->path, e);
    for (int i = 0; !rc && i < COUNT(families); i++)
        if (families[i].ranks == r.used) f = &families[i];
    if (!rc && !f && !json_object_get(config, "pat_str")) {
        rc = err_input(e, "%s: %lld ranks are of no tokenizer that is known", t->path,
                       (long long)r.used);
        err_hint(e, "put its pattern into tokenizer_config.json beside it, as \"pat_str\"");
    }
    rc = rc || parts_of(t, &r, f, config, added, e);
    mem_free(r.rank), text_free(&r.pool);
    return rc ? -1 : 0;
}
