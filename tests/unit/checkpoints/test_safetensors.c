/* test_safetensors.c: files of the reference library come back byte for byte, and each way a file
 * can be wrong has its own message. */
#include "tests/unit/checkpoints/fixture.h"

static char path_buffer[4][256];
static const char *at(int i, const char *name) {
    snprintf(path_buffer[i], sizeof path_buffer[i], "%s/%s", folder, name);
    return path_buffer[i];
}

static void same_file(const char *a, const char *b) {
    struct text x, y;
    struct err e = {0};
    ok(file_read(&x, a, &e) || file_read(&y, b, &e), &e);
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.data, y.data, (size_t)x.size);
    text_free(&x);
    text_free(&y);
}

static void round_trip(void **state) {
    (void)state;
    static const char *const file[] = {"llama/model",
                                       "llama/lora/adapter_model",
                                       "llama/lora_rslora/adapter_model",
                                       "llama_rope3_tied/model",
                                       "olmo2/model",
                                       "olmo2/lora/adapter_model"};
    for (i64 i = 0; i < COUNT(file); i++) {
        struct err e = {0};
        struct safetensors s;
        char path[256], hex[65];
        snprintf(path, sizeof path, "tests/golden/models/%s.safetensors", file[i]);
        ok(safetensors_open(&s, path, &e), &e);
        assert_true(s.count > 0);
        ok(safetensors_write(folder, "copy", s.tensor, s.count, SHARD_BYTES, &e), &e);
        same_file(path, at(0, "copy.safetensors"));
        for (i64 t = 0; t < s.count; t++) {
            ok(sha256_bytes(s.tensor[t].data, s.tensor[t].bytes, hex, &e), &e);
            assert_string_equal(hex, s.tensor[t].sha256);
        }
        safetensors_close(&s);
    }
}

/* What Python safetensors 0.8.0 writes for these tensors. */
static void type_order(void **state) {
    (void)state;
    static const char expected[] =
        "{\"__metadata__\":{\"format\":\"pt\"},\"k\":{\"dtype\":\"I64\",\"shape\":[1],\"data_"
        "offsets\":[0,8]},"
        "\"j\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[8,16]},"
        "\"a\":{\"dtype\":\"F32\",\"shape\":[0,3],\"data_offsets\":[16,16]},"
        "\"i\\\"\\\\/\xc3\xa9\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[16,20]},"
        "\"h\":{\"dtype\":\"U32\",\"shape\":[1],\"data_offsets\":[20,24]},"
        "\"g\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[24,28]},"
        "\"b\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[28,30]},"
        "\"f\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[30,32]},"
        "\"e\":{\"dtype\":\"U16\",\"shape\":[1],\"data_offsets\":[32,34]},"
        "\"d\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[34,35]},"
        "\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[35,36]}}";
    static const u8 zero[8];
    static const char *const name[] = {"c", "d", "e", "f", "b", "g", "h", "i\"\\/\xc3\xa9",
                                       "j", "k"};
    static const enum dtype dtype[] = {U8, I8, U16, F16, BF16, I32, U32, F32, F64, I64};
    struct stored t[11];
    struct err e = {0};
    for (int i = 0; i < 10; i++)
        t[i] = (struct stored){.name = name[i],
                               .dtype = dtype[i],
                               .rank = i != 7,
                               .dim = {1},
                               .data = zero,
                               .bytes = dtype_size(dtype[i])};
    t[10] = (struct stored){.name = "a", .dtype = F32, .rank = 2, .dim = {0, 3}};
    ok(safetensors_write(folder, "order", t, 11, SHARD_BYTES, &e), &e);
    struct text file;
    ok(file_read(&file, at(0, "order.safetensors"), &e), &e);
    size_t n = sizeof expected - 1, padded = (n + 7) / 8 * 8;
    assert_int_equal(file.size, 8 + padded + 36);
    assert_memory_equal(file.data + 8, expected, n);
    for (size_t i = n; i < padded; i++) assert_int_equal(file.data[8 + i], ' ');
    text_free(&file);
    struct safetensors s;
    ok(safetensors_open(&s, at(0, "order.safetensors"), &e), &e);
    assert_int_equal(s.count, 11);
    assert_int_equal(safetensors_find(&s, "i\"\\/\xc3\xa9")->rank, 0);
    safetensors_close(&s);
}

/* Cut, named and indexed as transformers does it with max_shard_size="20KB". */
static void shards_of_transformers(void **state) {
    (void)state;
    static const char *const file[] = {
        "model.safetensors.index.json", "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors"};
    struct safetensors s;
    struct err e = {0};
    char golden[256];
    ok(safetensors_open(&s, "tests/golden/layouts/llama_sharded_bf16/model.safetensors.index.json",
                        &e),
       &e);
    ok(safetensors_write(folder, "model", s.tensor, s.count, 20000, &e), &e);
    safetensors_close(&s);
    for (i64 i = 0; i < COUNT(file); i++) {
        snprintf(golden, sizeof golden, "tests/golden/layouts/llama_sharded_bf16/%s", file[i]);
        same_file(golden, at(0, file[i]));
    }
}

static void shards(void **state) {
    (void)state;
    struct safetensors a, b;
    struct err e = {0};
    ok(safetensors_open(&a, "tests/golden/models/llama/model.safetensors", &e), &e);
    ok(safetensors_write(folder, "model", a.tensor, a.count, 40000, &e), &e);
    ok(safetensors_open(&b, at(0, "model.safetensors.index.json"), &e), &e);
    assert_int_equal(b.maps, 3);
    assert_int_equal(a.count, b.count);
    for (i64 i = 0; i < a.count; i++) {
        assert_string_equal(a.tensor[i].name, b.tensor[i].name);
        assert_memory_equal(a.tensor[i].data, b.tensor[i].data, (size_t)a.tensor[i].bytes);
    }
    safetensors_close(&b);
    for (int i = 1; i <= 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "model-%05d-of-00003.safetensors", i);
        assert_true(path_size(at(1, name)) > 0);
        assert_true(path_size(at(1, name)) < 40000 + 4000);
    }
    /* a shard missing, a tensor missing from its shard, a shard outside the folder, a tensor in two
     * shards */
    ok(path_rename(at(0, "model-00002-of-00003.safetensors"), at(1, "gone"), &e), &e);
    assert_int_equal(safetensors_open(&b, at(2, "model.safetensors.index.json"), &e), -1);
    assert_non_null(strstr(e.primary, "model-00002-of-00003.safetensors: No such file"));
    safetensors_close(&b);
    static const struct {
        const char *index, *message;
    } bad[] = {
        {"{\"weight_map\": {\"nothing\": \"model-00001-of-00003.safetensors\"}}",
         "bad.json: tensor nothing is not in model-00001-of-00003.safetensors"},
        {"{\"weight_map\": {\"lm_head.weight\": \"../x.safetensors\"}}",
         "bad.json: weight_map of tensor lm_head.weight does not name a file of its folder"},
        {"{\"weight_map\": {\"lm_head.weight\": 3}}",
         "bad.json: weight_map of tensor lm_head.weight does not name a file of its folder"},
        {"{\"weight_map\": []}", "bad.json: weight_map is missing or not an object"},
        {"{\"weight_map\": {\"lm_head.weight\": \"model-00001-of-00003.safetensors\", \"x\": "
         "\"twin\"}}",
         "bad.json: tensor lm_head.weight is in two shards"},
    };
    struct text shard;
    e = (struct err){0};
    ok(file_read(&shard, at(0, "model-00001-of-00003.safetensors"), &e), &e);
    ok(file_write(at(0, "twin"), shard.data, shard.size, &e), &e);
    text_free(&shard);
    for (i64 i = 0; i < COUNT(bad); i++) {
        e = (struct err){0};
        ok(file_write(at(0, "bad.json"), bad[i].index, (i64)strlen(bad[i].index), &e), &e);
        assert_int_equal(safetensors_open(&b, at(0, "bad.json"), &e), -1);
        assert_string_equal(e.primary + strlen(folder) + 1, bad[i].message);
        assert_int_equal(e.code, ERR_INPUT);
        safetensors_close(&b);
    }
    safetensors_close(&a);
}

/* Parses a header with `data` bytes after it; returns the message, "" if it is fine. */
static char *parse(const char *header, i64 header_size, i64 length, i64 data) {
    static char message[512];
    i64 size = 8 + header_size + data;
    u8 *file = mem_new(size, NULL);
    for (int i = 0; i < 8; i++) file[i] = (u8)((u64)length >> 8 * i);
    memcpy(file + 8, header, (size_t)header_size);
    struct safetensors s = {0};
    struct err e = {0};
    if (!safetensors_parse(&s, file, size, "F", &e)) safetensors_index(&s, "F", &e);
    assert_true(!e.code || e.code == ERR_INPUT);
    snprintf(message, sizeof message, "%s", e.primary);
    safetensors_close(&s);
    mem_free(file);
    return message;
}

#define T(dtype, shape, begin, end)                                                                \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"
static const struct {
    const char *header;
    i64 data;
    const char *message;
} broken[] = {
    {"{}", 0, ""},
    {"{\"__metadata__\":{\"a\":\"b\\u0000\"},\"x\":" T("F32", "[1]", 0, 4) "}   ", 4, ""},
    {"{}", 1, "F: the tensors take 0 bytes, but the file holds 1 bytes of data"},
    {"[]", 0, "F: the header at byte 8 does not begin with '{'"},
    {" {}", 0, "F: the header at byte 8 does not begin with '{'"},
    {"", 0, "F: the header at byte 8 does not begin with '{'"},
    {"{", 0, "F:1:1: string or '}' expected near end of file"},
    {"{} x", 0, "F:1:4: end of file expected near 'x'"},
    {"{\"x\":1,\"x\":2}", 0, "F:1:10: duplicate object key near '\"x\"'"},
    {"{\"\\u0000\":1}", 0, "F:1:9: NUL byte in object key not supported near '\"\\u0000\"'"},
    {"{\"\xff\":1}", 0, "F:1:2: unable to decode byte 0xff near '\"'"},
    {"{\"\\u001b[1m\":1}", 0, "F: byte 0 of a tensor name is control character 0x1b"},
    {"{\"__metadata__\":1}", 0, "F: __metadata__ is not an object"},
    {"{\"__metadata__\":{\"n\":1}}", 0, "F: __metadata__ key n is not a string"},
    {"{\"x\":1}", 0, "F: the entry of tensor x is not an object"},
    {"{\"x\":{}}", 0, "F: tensor x has no dtype"},
    {"{\"x\":{\"dtype\":7}}", 0, "F: tensor x has no dtype"},
    {"{\"x\":" T("F33", "[1]", 0, 4) "}", 4,
     "F: tensor x has dtype F33, which is not one of the format"},
    {"{\"x\":{\"dtype\":\"F32\"}}", 0, "F: tensor x has no shape"},
    {"{\"x\":" T("F32", "[-1]", 0, 4) "}", 4,
     "F: tensor x: dimension 0 of its shape is not a whole number from 0"},
    {"{\"x\":" T("F32", "[1,1.5]", 0, 4) "}", 4,
     "F: tensor x: dimension 1 of its shape is not a whole number from 0"},
    {"{\"x\":" T("F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4,
     "F: tensor x has 9 dimensions; at most 8 are supported"},
    {"{\"x\":" T("F32", "[4294967296,4294967296]", 0, 4) "}", 4,
     "F: tensor x: shape [4294967296, 4294967296] is too large"},
    {"{\"x\":" T("F32", "[9223372036854775807,0]", 0, 0) "}", 0, ""},
    {"{\"x\":" T("F32", "[99999999999999999999]", 0, 4) "}", 4,
     "F: tensor x: dimension 0 of its shape is not a whole number from 0"},
    {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4,
     "F: tensor x: data_offsets is not two whole numbers"},
    {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4,
     "F: tensor x: data_offsets is not two whole numbers"},
    {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,\"4\"]}}", 4,
     "F: tensor x: data_offsets is not two whole numbers"},
    {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"more\":1}}", 4,
     "F: tensor x: keys other than dtype, shape and data_offsets"},
    {"{\"x\":" T("F32", "[1]", -4, 0) "}", 4,
     "F: tensor x: data_offsets [-4, 0] are outside the file's 4 bytes of data"},
    {"{\"x\":" T("F32", "[1]", 4, 0) "}", 4,
     "F: tensor x: data_offsets [4, 0] are outside the file's 4 bytes of data"},
    {"{\"x\":" T("F32", "[2]", 0, 8) "}", 4,
     "F: tensor x: data_offsets [0, 8] are outside the file's 4 bytes of data"},
    {"{\"x\":" T("F32", "[2]", 0, 4) "}", 4,
     "F: tensor x: data_offsets [0, 4] hold 4 bytes, but F32 [2] takes 8"},
    {"{\"x\":" T("F4", "[3]", 0, 1) "}", 1,
     "F: tensor x: data_offsets [0, 1] hold 1 bytes, but F4 [3] takes 2"},
    {"{\"x\":" T("F32", "[1]", 0, 4) ",\"y\":" T("F32", "[1]", 2, 6) "}", 6,
     "F: tensors x and y overlap: one ends at byte 4 of the data, the other begins at 2"},
    {"{\"x\":" T("U8", "[1]", 4, 5) ",\"y\":" T("U8", "[2]", 0, 2) "}", 5,
     "F: bytes 2 to 4 of the data belong to no tensor (between y and x)"},
    {"{\"x\":" T("U8", "[1]", 1, 2) "}", 2,
     "F: bytes 0 to 1 of the data belong to no tensor (between the header and x)"},
    {"{\"x\":" T("U8", "[1]", 0, 1) "}", 3,
     "F: the tensors take 1 bytes, but the file holds 3 bytes of data"},
};

static void broken_files(void **state) {
    (void)state;
    for (i64 i = 0; i < COUNT(broken); i++) {
        i64 n = (i64)strlen(broken[i].header);
        assert_string_equal(parse(broken[i].header, n, n, broken[i].data), broken[i].message);
    }
    assert_string_equal(parse("{}", 2, 3, 0),
                        "F: bytes 0 to 7 say that the header has 3 bytes, but 2 follow");
    assert_string_equal(
        parse("{}", 2, -1, 0),
        "F: bytes 0 to 7 say that the header has 18446744073709551615 bytes, but 2 follow");
    struct safetensors s = {0};
    struct err e = {0};
    assert_int_equal(safetensors_parse(&s, (const u8 *)"\2\0\0", 3, "F", &e), -1);
    assert_string_equal(e.primary,
                        "F: 3 bytes; a safetensors file begins with 8 bytes of header length");
    safetensors_close(&s);
}

/* Every truncation of a real file is refused; no change of a header byte does harm (sanitizers
 * watch). */
static void damaged(void **state) {
    (void)state;
    struct text file;
    struct err e = {0};
    ok(file_read(&file, "tests/golden/models/olmo2/lora/adapter_model.safetensors", &e), &e);
    for (i64 size = 0; size < file.size; size += size < 4000 ? 97 : 1009) {
        struct safetensors s = {0};
        struct err why = {0};
        assert_int_equal(safetensors_parse(&s, (const u8 *)file.data, size, "F", &why), -1);
        safetensors_close(&s);
    }
    for (i64 i = 0; i < 3000; i += 3) {
        struct safetensors s = {0};
        struct err why = {0};
        char was = file.data[i];
        file.data[i] = (char)(was ^ 1 << i % 7);
        if (!safetensors_parse(&s, (const u8 *)file.data, file.size, "F", &why))
            safetensors_index(&s, "F", &why);
        safetensors_close(&s);
        file.data[i] = was;
    }
    text_free(&file);
}

/* Types hone does not compute with are listed and refused on use; unaligned data is handed out
 * aligned. */
static void foreign_and_unaligned(void **state) {
    (void)state;
    static const char header[] =
        "{\"mask\":{\"dtype\":\"BOOL\",\"shape\":[3],\"data_offsets\":[0,3]},"
        "\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[3,7]}}";
    u8 file[8 + sizeof header - 1 + 7] = {sizeof header - 1};
    float x = 1.5f, got;
    memcpy(file + 8, header, sizeof header - 1);
    memcpy(file + sizeof file - 4, &x, 4);
    struct safetensors s;
    struct err e = {0};
    ok(file_write(at(0, "odd.safetensors"), file, sizeof file, &e), &e);
    ok(safetensors_open(&s, at(0, "odd.safetensors"), &e), &e);
    const struct stored *t = safetensors_need(&s, "x", &e);
    assert_int_equal((uintptr_t)t->data % 4, 0);
    memcpy(&got, t->data, 4);
    assert_true(got == x);
    assert_int_equal(safetensors_find(&s, "mask")->dtype, DTYPE_COUNT);
    assert_null(safetensors_need(&s, "mask", &e));
    assert_string_equal(e.primary, "dtype BOOL of tensor mask is not supported");
    e = (struct err){0};
    assert_null(safetensors_need(&s, "y", &e));
    assert_string_equal(e.primary, "tensor y is missing");
    safetensors_close(&s);
}

static void refused_writes(void **state) {
    (void)state;
    static const u8 zero[8];
    struct stored t[2] = {
        {.name = "a", .dtype = F32, .rank = 1, .dim = {1}, .data = zero, .bytes = 4},
        {.name = "a", .dtype = I64, .rank = 1, .dim = {1}, .data = zero, .bytes = 8}};
    struct err e = {0};
    assert_int_equal(safetensors_write(folder, "twice", t, 2, SHARD_BYTES, &e), -1);
    assert_string_equal(e.primary, "tensor a is given twice");
    e = (struct err){0};
    t[0].bytes = 5;
    assert_int_equal(safetensors_write(folder, "size", t, 1, SHARD_BYTES, &e), -1);
    assert_string_equal(e.primary,
                        "tensor a cannot be written: its 5 bytes do not fit its shape and type");
    e = (struct err){0};
    t[0].bytes = 4;
    assert_int_equal(safetensors_write("/nowhere", "x", t, 1, SHARD_BYTES, &e), -1);
    assert_string_equal(e.primary,
                        "cannot create /nowhere/x.safetensors: No such file or directory");
}

/* Every allocation, open, write and fsync of reading and writing may fail. */
static void faults(void **state) {
    (void)state;
    static const char *const kind[] = {"alloc", "open", "read", "write", "fsync"};
    for (i64 k = 0; k < COUNT(kind); k++)
        for (int n = 1;; n++) {
            char spec[32];
            struct safetensors s;
            struct err e = {0};
            snprintf(spec, sizeof spec, "%s:%d", kind[k], n);
            fault_arm(spec);
            int status = safetensors_open(
                &s, "tests/golden/models/llama/lora/adapter_model.safetensors", &e);
            if (!status) status = safetensors_write(folder, "fault", s.tensor, s.count, 5000, &e);
            fault_arm(NULL);
            safetensors_close(&s);
            assert_int_equal(status != 0, e.code != 0);
            if (!status) break;
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(type_order),
        cmocka_unit_test(shards_of_transformers),
        cmocka_unit_test(shards),
        cmocka_unit_test(broken_files),
        cmocka_unit_test(damaged),
        cmocka_unit_test(foreign_and_unaligned),
        cmocka_unit_test(refused_writes),
        cmocka_unit_test(faults),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
