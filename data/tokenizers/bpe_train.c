/* bpe_train.c: learns the merges of a byte-level BPE (Sennrich et al., 2016) and writes a
 * tokenizer.json.
 *
 * Texts are cut by the split pattern; distinct words are counted; then the most frequent adjacent
 * pair becomes a token, again and again. Pair counts and the list of words that hold each pair are
 * updated as words change, and a heap gives the next pair; its entries may be out of date and are
 * checked when they surface. Ids: special tokens, the 256 bytes by printable code point, merges.
 * Ties go to the lowest pair of ids. All of this is what Hugging Face's BpeTrainer does, and the
 * tests hold the result to it: same corpus, same file. */
#include <string.h>
#include "data/tokenizers/tokenizers_int.h"

struct pair { /* of adjacent tokens, in an open-addressing table */
    u64 key;  /* left << 32 | right */
    i64 count;
    i32 where;   /* newest node of the words that hold or held it, -1: none */
    i32 touched; /* merge that last raised the count */
    bool used;
};
struct node {
    i32 word, next;
};
struct candidate {
    i64 count;
    u64 key;
};
struct list { /* a growing array */
    void *item;
    i64 count, capacity;
};
struct train {
    const struct bpe_training *job;
    scan_fn *scan;
    struct vocab words; /* raw bytes of distinct words */
    struct list counts; /* i64, by word */
    struct vocab tokens;
    struct text merges;      /* JSON, as it will be written */
    u32 *symbol;             /* words as tokens, one after the other; words shrink in place */
    i64 *begin, *length;     /* by word */
    struct pair *pair;       /* open addressing */
    i64 pairs, slots;        /* used, all */
    struct list nodes, heap; /* struct node, struct candidate */
    struct list raised;      /* u64 keys of pairs this merge made more frequent */
    i32 merge;               /* number of the current merge, from 1 */
};

static int list_room(struct list *l, i64 size, struct err *e) {
    if (l->count < l->capacity) return 0;
    i64 n = i64_max(1024, 2 * l->capacity);
    void *p = mem_grow(l->item, l->capacity * size, n * size, e);
    if (!p) return -1;
    l->item = p;
    l->capacity = n;
    return 0;
}

/* ---- counting words -------------------------------------------------------------------------- */
static int count_word(struct train *t, struct bytes word, struct err *e) {
    i64 i = vocab_find(&t->words, word.data, word.size);
    if (i < 0) {
        i = t->words.count;
        if (i == VOCAB_LIMIT - 1) {
            err_input(e, "the texts hold more than %lld different words", (long long)i);
            return err_hint(e, "train the tokenizer on a sample");
        }
        if (list_room(&t->counts, sizeof(i64), e) || vocab_add(&t->words, word, i, "words", e))
            return -1;
        ((i64 *)t->counts.item)[t->counts.count++] = 0;
    }
    ((i64 *)t->counts.item)[i]++;
    return 0;
}

static int count_text(void *arg, const char *data, i64 size, struct err *e) {
    struct train *t = arg;
    for (i64 at = 0, end; at < size; at = end) {
        end = t->scan(data, size, at);
        if (count_word(t, (struct bytes){data + at, end - at}, e)) return -1;
    }
    return 0;
}

/* ---- pairs ----------------------------------------------------------------------------------- */
static struct pair *pair_slot(const struct train *t, u64 key) {
    u64 h = key * 0x9e3779b97f4a7c15u;
    i64 i = (i64)((h ^ h >> 32) & (u64)(t->slots - 1));
    while (t->pair[i].used && t->pair[i].key != key) i = (i + 1) & (t->slots - 1);
    return &t->pair[i];
}

static int pairs_grow(struct train *t, struct err *e) {
    struct pair *old = t->pair;
    i64 slots = t->slots;
    struct pair *table = mem_new_array(slots ? 2 * slots : 4096, sizeof *table, e);
    if (!table) return -1;
    t->pair = table;
    t->slots = slots ? 2 * slots : 4096;
    for (i64 i = 0; i < slots; i++)
        if (old[i].used) *pair_slot(t, old[i].key) = old[i];
    mem_free(old);
    return 0;
}

/* `change` occurrences more or fewer; when more, in word `word`. */
static int pair_change(struct train *t, u32 left, u32 right, i64 change, i64 word, struct err *e) {
    if (2 * (t->pairs + 1) > t->slots && pairs_grow(t, e)) return -1;
    u64 key = (u64)left << 32 | right;
    struct pair *p = pair_slot(t, key);
    if (!p->used) {
        *p = (struct pair){.key = key, .where = -1, .touched = -1, .used = true};
        t->pairs++;
    }
    p->count += change;
    if (change < 0) return 0;
    if (p->touched != t->merge) {
        p->touched = t->merge;
        if (list_room(&t->raised, sizeof key, e)) return -1;
        ((u64 *)t->raised.item)[t->raised.count++] = key;
    }
    struct node *nodes = t->nodes.item;
    if (p->where >= 0 && nodes[p->where].word == word) return 0;
    if (t->nodes.count == INT32_MAX)
        return err_failed(e, "the texts hold too many different words");
    if (list_room(&t->nodes, sizeof *nodes, e)) return -1;
    ((struct node *)t->nodes.item)[t->nodes.count] = (struct node){(i32)word, p->where};
    p->where = (i32)t->nodes.count++;
    return 0;
}

/* ---- the heap: highest count first, then lowest key ------------------------------------------ */
static bool candidate_before(struct candidate a, struct candidate b) {
    return a.count != b.count ? a.count > b.count : a.key < b.key;
}

static int candidate_push(struct list *h, struct candidate c, struct err *e) {
    if (list_room(h, sizeof c, e)) return -1;
    struct candidate *item = h->item;
    i64 i = h->count++;
    for (i64 up; i && candidate_before(c, item[up = (i - 1) / 2]); i = up) item[i] = item[up];
    item[i] = c;
    return 0;
}

static struct candidate candidate_pop(struct list *h) {
    struct candidate *item = h->item, top = item[0], last = item[--h->count];
    i64 i = 0;
    for (i64 down; (down = 2 * i + 1) < h->count; i = down) {
        if (down + 1 < h->count && candidate_before(item[down + 1], item[down])) down++;
        if (!candidate_before(item[down], last)) break;
        item[i] = item[down];
    }
    item[i] = last;
    return top;
}

static int push_raised(struct train *t, struct err *e) {
    for (i64 i = 0; i < t->raised.count; i++) {
        u64 key = ((u64 *)t->raised.item)[i];
        i64 count = pair_slot(t, key)->count;
        if (count > 0 && candidate_push(&t->heap, (struct candidate){count, key}, e)) return -1;
    }
    t->raised.count = 0;
    return 0;
}

/* The most frequent pair now: 1, or 0 if no pair is left. */
static int best_pair(struct train *t, u64 *key, struct err *e) {
    while (t->heap.count) {
        struct candidate c = candidate_pop(&t->heap);
        i64 count = pair_slot(t, c.key)->count;
        *key = c.key;
        if (c.count == count) return 1;
        if (count > 0 && candidate_push(&t->heap, (struct candidate){count, c.key}, e)) return -1;
    }
    return 0;
}

/* ---- training -------------------------------------------------------------------------------- */
static int merge_in_word(struct train *t, i64 word, u32 left, u32 right, u32 made, struct err *e) {
    u32 *s = t->symbol + t->begin[word];
    i64 n = t->length[word], kept = 0, count = ((i64 *)t->counts.item)[word];
    for (i64 i = 0; i < n; i++) {
        if (i + 1 == n || s[i] != left || s[i + 1] != right) {
            s[kept++] = s[i];
            continue;
        }
        if (kept && (pair_change(t, s[kept - 1], left, -count, word, e) ||
                     pair_change(t, s[kept - 1], made, count, word, e)))
            return -1;
        if (i + 2 < n && (pair_change(t, right, s[i + 2], -count, word, e) ||
                          pair_change(t, made, s[i + 2], count, word, e)))
            return -1;
        s[kept++] = made;
        i++;
    }
    t->length[word] = kept;
    return 0;
}

static int merge_pair(struct train *t, u64 key, struct err *e) {
    u32 left = (u32)(key >> 32), right = (u32)key;
    struct bytes l = {0}, r = {0};
    vocab_text(&t->tokens, left, &l);
    vocab_text(&t->tokens, right, &r);
    struct text joined = {0};
    int rc = text_add(&joined, l.data, l.size, e) || text_add(&joined, r.data, r.size, e);
    i64 made = rc ? -1 : vocab_find(&t->tokens, joined.data, joined.size);
    const char *comma = t->merges.size ? "," : "";
    rc = rc || text_printf(&t->merges, e, "%s\n      [\n        ", comma) ||
         json_text_add(&t->merges, l.data, l.size, e) ||
         text_printf(&t->merges, e, ",\n        ") ||
         json_text_add(&t->merges, r.data, r.size, e) || text_printf(&t->merges, e, "\n      ]");
    if (!rc && made < 0) {
        made = t->tokens.count;
        rc = vocab_add(&t->tokens, (struct bytes){joined.data, joined.size}, made, "tokens", e);
    }
    text_free(&joined);
    t->merge++;
    for (i32 i = rc ? -1 : pair_slot(t, key)->where; !rc && i >= 0;
         i = ((struct node *)t->nodes.item)[i].next)
        rc = merge_in_word(t, ((struct node *)t->nodes.item)[i].word, left, right, (u32)made, e);
    if (rc) return -1;
    struct pair *p = pair_slot(t, key);
    p->count = 0;
    p->where = -1;
    return push_raised(t, e);
}

static int words_to_symbols(struct train *t, const u32 byte_id[256], struct err *e) {
    i64 n = t->words.count;
    if (!(t->symbol = mem_new_array(t->words.pool.size, sizeof *t->symbol, e)) ||
        !(t->begin = mem_new_array(n, sizeof *t->begin, e)) ||
        !(t->length = mem_new_array(n, sizeof *t->length, e)))
        return -1;
    for (i64 i = 0; i < n; i++) {
        t->begin[i] = t->words.token[i].at;
        t->length[i] = t->words.token[i].size;
    }
    for (i64 i = 0; i < t->words.pool.size; i++) t->symbol[i] = byte_id[(u8)t->words.pool.data[i]];
    for (i64 i = 0; i < n; i++) {
        const u32 *s = t->symbol + t->begin[i];
        for (i64 k = 0; k + 1 < t->length[i]; k++)
            if (pair_change(t, s[k], s[k + 1], ((i64 *)t->counts.item)[i], i, e)) return -1;
    }
    return push_raised(t, e);
}

static int first_tokens(struct train *t, u32 byte_id[256], struct err *e) {
    for (i64 i = 0; i < t->job->special_tokens_count; i++) {
        const char *s = t->job->special_tokens[i];
        if (!*s) return err_input(e, "special token %lld is empty", (long long)i);
        if (vocab_add(&t->tokens, (struct bytes){s, (i64)strlen(s)}, i, "special tokens", e))
            return -1;
    }
    for (i64 code = 0; code < 512; code++) {
        int byte = byte_of_code(code);
        char u[4];
        if (byte < 0) continue;
        struct bytes text = {u, utf8_put((u32)code, u)};
        i64 id = vocab_find(&t->tokens, text.data, text.size); /* a special token may be one byte */
        if (id < 0 && vocab_add(&t->tokens, text, id = t->tokens.count, "tokens", e)) return -1;
        byte_id[byte] = (u32)id;
    }
    return 0;
}

static int train_merges(struct train *t, struct err *e) {
    u32 byte_id[256];
    if (first_tokens(t, byte_id, e)) return -1;
    if (t->job->vocab_size < t->tokens.count || t->job->vocab_size > VOCAB_LIMIT)
        return err_input(
            e, "vocab_size is %lld; expected %lld (256 bytes and the special tokens) to %lld",
            (long long)t->job->vocab_size, (long long)t->tokens.count, (long long)VOCAB_LIMIT);
    if (words_to_symbols(t, byte_id, e)) return -1;
    while (t->tokens.count < t->job->vocab_size) {
        u64 key;
        int found = best_pair(t, &key, e);
        if (found < 0 || (found && merge_pair(t, key, e))) return -1;
        if (found) continue;
        err_input(e, "the texts give only %lld tokens, but vocab_size is %lld",
                  (long long)t->tokens.count, (long long)t->job->vocab_size);
        return err_hint(e, "give more text, or ask for vocab_size %lld or less",
                        (long long)t->tokens.count);
    }
    return 0;
}

/* ---- writing, laid out as Hugging Face's own pretty printer does ----------------------------- */
static int write_added(const struct train *t, struct text *o, struct err *e) {
    int rc = text_printf(o, e, "  \"added_tokens\": [");
    for (i64 i = 0; !rc && i < t->job->special_tokens_count; i++) {
        const char *s = t->job->special_tokens[i];
        rc = text_printf(o, e, "%s\n    {\n      \"id\": %lld,\n      \"content\": ", i ? "," : "",
                         (long long)i) ||
             json_text_add(o, s, (i64)strlen(s), e) ||
             text_printf(o, e,
                         ",\n      \"single_word\": false,\n      \"lstrip\": false,\n      "
                         "\"rstrip\": false,\n"
                         "      \"normalized\": false,\n      \"special\": true\n    }");
    }
    return rc || text_printf(o, e, t->job->special_tokens_count ? "\n  ],\n" : "],\n");
}

static int write_split(const char *pattern, struct text *o, struct err *e) {
    return text_printf(
               o, e,
               "  \"pre_tokenizer\": {\n    \"type\": \"Sequence\",\n    \"pretokenizers\": [\n    "
               "  {\n"
               "        \"type\": \"Split\",\n        \"pattern\": {\n          \"Regex\": ") ||
           json_text_add(o, pattern, (i64)strlen(pattern), e) ||
           text_printf(
               o, e,
               "\n        },\n        \"behavior\": \"Isolated\",\n        \"invert\": false\n     "
               " },\n"
               "      {\n        \"type\": \"ByteLevel\",\n        \"add_prefix_space\": false,\n"
               "        \"trim_offsets\": true,\n        \"use_regex\": false\n      }\n    ]\n  "
               "},\n");
}

static int write_bytelevel(const char *key, bool trim, bool prefix, struct text *o, struct err *e) {
    return text_printf(o, e,
                       "  \"%s\": {\n    \"type\": \"ByteLevel\",\n    \"add_prefix_space\": %s,\n"
                       "    \"trim_offsets\": %s,\n    \"use_regex\": true\n  },\n",
                       key, prefix ? "true" : "false", trim ? "true" : "false");
}

static int write_json(const struct train *t, const char *pattern, struct text *o, struct err *e) {
    bool gpt2 = pattern == pattern_gpt2;
    int rc =
        text_printf(
            o, e, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n") ||
        write_added(t, o, e) || text_printf(o, e, "  \"normalizer\": null,\n") ||
        (gpt2 ? write_bytelevel("pre_tokenizer", true, false, o, e) : write_split(pattern, o, e)) ||
        write_bytelevel("post_processor", false, true, o, e) ||
        write_bytelevel("decoder", true, true, o, e) ||
        text_printf(
            o, e,
            "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n"
            "    \"unk_token\": null,\n    \"continuing_subword_prefix\": null,\n"
            "    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n"
            "    \"byte_fallback\": false,\n    \"ignore_merges\": false,\n    \"vocab\": {");
    for (i64 id = 0; !rc && id < t->tokens.count; id++) {
        struct bytes text;
        vocab_text(&t->tokens, id, &text);
        rc = text_printf(o, e, "%s\n      ", id ? "," : "") ||
             json_text_add(o, text.data, text.size, e) ||
             text_printf(o, e, ": %lld", (long long)id);
    }
    return rc || text_printf(o, e, "\n    },\n    \"merges\": [") ||
           text_add(o, t->merges.data, t->merges.size, e) ||
           text_printf(o, e, "%s]\n  }\n}", t->merges.size ? "\n    " : "");
}

static void train_free(struct train *t) {
    vocab_free(&t->words);
    vocab_free(&t->tokens);
    text_free(&t->merges);
    mem_free(t->counts.item);
    mem_free(t->nodes.item);
    mem_free(t->heap.item);
    mem_free(t->raised.item);
    mem_free(t->symbol);
    mem_free(t->begin);
    mem_free(t->length);
    mem_free(t->pair);
}

int bpe_train(const struct bpe_training *job, const char *path, struct err *e) {
    static const struct {
        const char *name, *pattern;
    } known[] = {{"gpt2", pattern_gpt2},
                 {"llama3", pattern_llama3},
                 {"olmo2", pattern_llama3},
                 {"qwen2", pattern_qwen2}};
    const char *pattern = NULL;
    for (int i = 0; i < COUNT(known); i++)
        if (!strcmp(known[i].name, job->pattern)) pattern = known[i].pattern;
    if (!pattern)
        return err_input(e, "pattern is \"%s\"; expected gpt2, llama3, olmo2 or qwen2",
                         job->pattern);
    classes_start();
    struct train t = {.job = job, .scan = scan_find(pattern, false)};
    struct text out = {0};
    int rc = 0;
    for (i64 i = 0; !rc && i < job->files_count; i++)
        rc = job->texts(job->files[i], count_text, &t, e);
    rc = rc || train_merges(&t, e) || write_json(&t, pattern, &out, e) ||
         file_replace(path, out.data, out.size, e);
    text_free(&out);
    train_free(&t);
    return rc ? err_frame(e, "while training tokenizer %s", path) : 0;
}
