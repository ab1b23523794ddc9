/* test_folders_of_others.c: model folders as other programs leave them: tensor names, metadata,
 * stale and missing shards, spellings of RoPE, the hub's cache, tokenizers with settings of
 * training. Each gives the logits or ids of what it is made of, or an error that names what is
 * wrong. */
#include "tests/e2e/tiny_run.h"

#include <jansson.h>
#include "checkpoints/checkpoints.h"

#define STORIES "recipes/data/stories260K"
enum rename { AS_IT_WAS, BARE, MODULE, COMPILED };
static const struct folder_case {
    const char *name;
    enum rename names;    /* of tensors */
    const char *metadata; /* JSON in the place of __metadata__; "": none; NULL: as it was */
    const char *config;   /* JSON: what config.json says instead; null takes a key away */
    const char *map;   /* a weight_map of an index, "*" for every tensor: the file that holds it */
    const char *wrong; /* a part of the error; NULL: the base's logits; "=NAME": NAME's */
    bool no_file, frequencies; /* without model.safetensors; with tensors that nobody reads */
} cases[] = {
    {"bare", BARE, NULL, NULL, NULL, NULL, 0, 0},
    {"module", MODULE, NULL, NULL, NULL, "tensor model.embed_tokens.weight is missing", 0, 0},
    {"compiled", COMPILED, NULL, NULL, NULL, "tensor model.embed_tokens.weight is missing", 0, 0},
    {"no_metadata", AS_IT_WAS, "", NULL, NULL, NULL, 0, 0},
    {"empty_metadata", AS_IT_WAS, "{}", NULL, NULL, NULL, 0, 0},
    {"null_metadata", AS_IT_WAS, "null", NULL, NULL, NULL, 0, 0},
    {"inv_freq", AS_IT_WAS, NULL, NULL, NULL, NULL, 0, true},
    {"no_head", AS_IT_WAS, NULL, "{\"tie_word_embeddings\": false}", NULL,
     "tensor lm_head.weight is missing", 0, 0},
    {"stale_index", AS_IT_WAS, NULL, NULL, "model-00001-of-00002.safetensors", NULL, 0, 0},
    {"index_of_one", AS_IT_WAS, NULL, NULL, "model.safetensors", NULL, 0, 0},
    {"no_shard", AS_IT_WAS, NULL, NULL, "model-00001-of-00002.safetensors",
     "model-00001-of-00002.safetensors: No such file or directory", true, 0},
    {"nulls", AS_IT_WAS, NULL,
     "{\"head_dim\": [], \"rope_scaling\": [], \"rope_parameters\": [], \"sliding_window\": [], "
     "\"attention_bias\": [], \"mlp_bias\": [], \"torch_dtype\": [], \"pad_token_id\": []}",
     NULL, NULL, 0, 0},
    {"new_rope", AS_IT_WAS, NULL,
     "{\"rope_theta\": null, \"dtype\": \"float32\", \"rope_parameters\": {\"rope_theta\": "
     "10000.0, "
     "\"rope_type\": \"default\"}}",
     NULL, NULL, 0, 0},
    {"old_default", AS_IT_WAS, NULL, "{\"rope_scaling\": {\"type\": \"default\"}}", NULL, NULL, 0,
     0},
    {"mrope", AS_IT_WAS, NULL,
     "{\"rope_scaling\": {\"type\": \"mrope\", \"mrope_section\": [1, 1, 2], \"rope_type\": "
     "\"default\"}}",
     NULL, NULL, 0, 0},
    {"linear", AS_IT_WAS, NULL, "{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}}", NULL,
     "=linear", 0, 0},
    {"both_linear", AS_IT_WAS, NULL,
     "{\"rope_scaling\": {\"type\": \"linear\", \"rope_type\": \"linear\", \"factor\": 2.0}}", NULL,
     "=linear", 0, 0},
    {"eps_text", AS_IT_WAS, NULL, "{\"rms_norm_eps\": \"1e-05\"}", NULL,
     "\"rms_norm_eps\" is \"1e-05\"; expected a number", 0, 0},
    {"no_kv_heads", AS_IT_WAS, NULL, "{\"num_key_value_heads\": null}", NULL,
     "k_proj.weight' has shape [32, 64]", 0, 0},
};

static json_t *json_of(const char *path) {
    struct err e = {0};
    json_t *j = json_open(path, &e);
    if (!j) fail_msg("%s", e.primary);
    return j;
}
static void json_put(const char *path, json_t *j) {
    char *text = json_dumps(j, 0);
    put(path, text, (i64)strlen(text));
    free(text), json_decref(j);
}

/* Writes the base's weights with another header; *names gets its tensors. */
static void weights_put(const struct folder_case *c, json_t **names) {
    static const char *const front[] = {"", "", "module.", "_orig_mod."};
    struct text file = {0};
    struct err e = {0};
    u64 size, data;
    if (file_read(&file, STORIES "/model.safetensors", &e)) fail_msg("%s", e.primary);
    memcpy(&size, file.data, 8), data = (u64)file.size - 8 - size;
    json_t *old = json_loadb(file.data + 8, (size_t)size, 0, NULL), *made = json_object(), *value;
    const char *name;
    *names = json_object();
    json_object_foreach(old, name, value) {
        const bool meta = !strcmp(name, "__metadata__");
        if (meta && c->metadata && !*c->metadata) continue;
        if (meta) {
            value =
                c->metadata ? json_loads(c->metadata, JSON_DECODE_ANY, NULL) : json_incref(value);
            json_object_set_new(made, name, value);
            continue;
        }
        const char *key = c->names == BARE && !strncmp(name, "model.", 6) ? name + 6 : name;
        json_t *full = json_sprintf("%s%s", front[c->names], key);
        json_object_set(made, json_string_value(full), value);
        json_object_set_new(*names, json_string_value(full), json_string(c->map ? c->map : ""));
        json_decref(full);
    }
    if (c->frequencies)
        json_object_set_new(made, "model.layers.0.self_attn.rotary_emb.inv_freq",
                            json_pack("{s:s, s:[i], s:[I, I]}", "dtype", "F32", "shape", 4,
                                      "data_offsets", (json_int_t)data, (json_int_t)data + 16));
    char *head = json_dumps(made, JSON_COMPACT);
    struct text out = {0};
    const u64 length = strlen(head);
    assert_int_equal(text_add(&out, (const char *)&length, 8, &e), 0);
    assert_int_equal(text_add(&out, head, (i64)length, &e), 0);
    assert_int_equal(text_add(&out, file.data + 8 + size, (i64)data, &e), 0);
    if (c->frequencies) assert_int_equal(text_add(&out, "0123456789abcdef", 16, &e), 0);
    if (!c->no_file) put(at("%s/model.safetensors", c->name), out.data, out.size);
    free(head), json_decref(old), json_decref(made), text_free(&file), text_free(&out);
}

static void folder_put(const struct folder_case *c) {
    json_t *names, *config, *changed, *value;
    const char *key;
    assert_int_equal(
        shell("mkdir %s && cp " STORIES "/*.json %s", at("%s", c->name), at("%s", c->name)), 0);
    weights_put(c, &names);
    if (c->map)
        json_put(at("%s/model.safetensors.index.json", c->name),
                 json_pack("{s:{}, s:o}", "metadata", "weight_map", names));
    else
        json_decref(names);
    if (!c->config) return;
    config = json_of(at("%s/config.json", c->name)), changed = json_loads(c->config, 0, NULL);
    assert_non_null(changed);
    json_object_foreach(changed, key, value) {
        if (json_is_null(value))
            json_object_del(config, key);
        else /* [] stands for null */
            json_object_set_new(config, key,
                                json_is_array(value) ? json_null() : json_incref(value));
    }
    json_decref(changed), json_put(at("%s/config.json", c->name), config);
}

static void ids_put(void) {
    static const char head[] =
        "{\"input_ids\":{\"dtype\":\"I64\",\"shape\":[1,8],\"data_offsets\":[0,64]}}       ";
    static const i64 ids[] = {1, 403, 261, 280, 294, 262, 294, 426};
    const u64 size = sizeof head - 1;
    char all[8 + sizeof head - 1 + sizeof ids];
    memcpy(all, &size, 8), memcpy(all + 8, head, size), memcpy(all + 8 + size, ids, sizeof ids);
    put(at("ids.safetensors"), all, sizeof all);
}

static int forward(const char *model, const char *out) {
    return shell("./hone forward %s --ids %s --out %s --quiet --threads 1", model,
                 at("ids.safetensors"), at("%s.safetensors", out));
}

static void test_folders(void **state) {
    (void)state;
    char want[65], linear[65] = "";
    ids_put();
    if (forward(STORIES, "base")) fail_msg("%s", complained());
    snprintf(want, sizeof want, "%s", sha_of(at("base.safetensors")));
    for (int i = 0; i < COUNT(cases); i++) {
        const struct folder_case *c = &cases[i];
        const bool other = c->wrong && *c->wrong == '=';
        folder_put(c);
        const int rc = forward(at("%s", c->name), c->name);
        if (c->wrong && !other) {
            if (rc != 2 || !strstr(complained(), c->wrong))
                fail_msg("%s: rc %d, %s", c->name, rc, complained());
            continue;
        }
        if (rc) fail_msg("%s: %s", c->name, complained());
        const char *found = sha_of(at("%s.safetensors", c->name));
        if (other && !*linear) snprintf(linear, sizeof linear, "%s", found);
        if (strcmp(found, other ? linear : want)) fail_msg("%s: other logits", c->name);
    }
    assert_string_not_equal(want, linear);
    /* the hub's cache: links to blobs */
    assert_int_equal(shell("cd %s && mkdir -p h/blobs h/snapshots/01 && for f in bare/*; do "
                           "cp $f h/blobs/ && ln -s ../../blobs/${f#bare/} h/snapshots/01/; done",
                           tiny),
                     0);
    assert_int_equal(forward(at("h/snapshots/01"), "h"), 0);
    assert_string_equal(want, sha_of(at("h.safetensors")));
    assert_int_equal(forward(at("h"), "h"), 2);
    expect(complained(), "it is a cache of the hub: name ");
}

/* What training left in tokenizer.json cuts and fills nothing. */
static void test_settings_of_training(void **state) {
    (void)state;
    static const char text[] =
        "{\"text\": \"Once upon a time, there was a little girl named Lily.\"}\n";
    char want[1024];
    put(at("t.jsonl"), text, sizeof text - 1);
    assert_int_equal(shell("mkdir %s && cp " STORIES "/*.json %s", at("cut"), at("cut")), 0);
    json_t *j = json_of(at("cut/tokenizer.json"));
    json_object_set_new(j, "truncation",
                        json_pack("{s:s, s:i, s:s, s:i}", "direction", "Right", "max_length", 8,
                                  "strategy", "LongestFirst", "stride", 0));
    json_object_set_new(j, "padding",
                        json_pack("{s:{s:i}, s:s, s:n, s:i, s:i, s:s}", "strategy", "Fixed", 12,
                                  "direction", "Right", "pad_to_multiple_of", "pad_id", 0,
                                  "pad_type_id", 0, "pad_token", "<unk>"));
    json_put(at("cut/tokenizer.json"), j);
    assert_int_equal(shell("./hone encode " STORIES " < %s", at("t.jsonl")), 0);
    snprintf(want, sizeof want, "%s", said());
    assert_int_equal(shell("./hone encode %s < %s", at("cut"), at("t.jsonl")), 0);
    assert_string_equal(want, said());
}

/* added_tokens.json beside a SentencePiece model: Vicuna's and Alpaca's way. */
static void test_added_beside_model(void **state) {
    (void)state;
    static const char added[] = "{\"[PAD]\": 600, \"<|im_start|>\": 601}",
                      text[] = "{\"text\": \"king [PAD]<|im_start|>king\"}\n";
    put(at("t.jsonl"), text, sizeof text - 1);
    assert_int_equal(shell("mkdir %s && cp tests/golden/tokenizers/bpe.model %s/tokenizer.model",
                           at("spm"), at("spm")),
                     0);
    put(at("spm/added_tokens.json"), added, sizeof added - 1);
    assert_int_equal(shell("./hone encode %s < %s", at("spm"), at("t.jsonl")), 0);
    expect(said(), "600, 601, ");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_folders),
                                       cmocka_unit_test(test_settings_of_training),
                                       cmocka_unit_test(test_added_beside_model)};
    return cmocka_run_group_tests_name("folders of others", tests, tiny_folder, tiny_remove);
}
