/* test_gguf.c: blocks of every element type decode and encode to llama.cpp's bits, and each way a
 * GGUF file can be wrong has its own message. */
#include "tests/unit/checkpoints/fixture.h"
#include <ctype.h>
#include <jansson.h>
#include <math.h>

enum { ROWS = 6, ROW = 512, VALUES = ROWS * ROW };

static void lower(char out[32], const char *name, const char *end) {
    int i = 0;
    for (; name[i]; i++) out[i] = (char)tolower((unsigned char)name[i]);
    strcpy(out + i, end);
}

static double row_error(const float *a, const float *b) {
    double sum = 0;
    for (int i = 0; i < ROW; i++) sum += pow((double)a[i] - (double)b[i], 2);
    return sqrt(sum / ROW);
}

/* Decoding is exact; encoding too, where there is one right answer. The K types leave a choice:
 * ours is not worse than 1 % in any row, and better over all. */
static void blocks(void **state) {
    (void)state;
    struct safetensors s;
    struct err e = {0};
    ok(safetensors_open(&s, "tests/golden/gguf/blocks.safetensors", &e), &e);
    json_t *digests = json_open("tests/golden/gguf/blocks.json", &e);
    ok(!digests, &e);
    const float *w = (const float *)safetensors_find(&s, "w")->data;
    static float out[VALUES], ours[VALUES];
    static u8 packed[VALUES * 4];
    int checked = 0;
    for (const struct gguf_type *t = gguf_types; t->name; t++) {
        char name[32], hex[65];
        lower(name, t->name, ".packed");
        const struct stored *p = safetensors_find(&s, name);
        if (!p) continue;
        assert_int_equal(p->bytes, VALUES / t->elements * t->size);
        t->decode(p->data, VALUES / t->elements, out);
        ok(sha256_bytes(out, sizeof out, hex, &e), &e);
        name[strlen(t->name)] = 0;
        assert_string_equal(hex, json_string_value(json_object_get(digests, name)));
        checked++;
        if (!t->encode) continue;
        t->encode(w, VALUES / t->elements, packed);
        if (!strstr(name, "_k")) {
            assert_memory_equal(packed, p->data, (size_t)p->bytes);
            continue;
        }
        t->decode(packed, VALUES / t->elements, ours);
        double sum = 0;
        for (int i = 0; i < ROWS; i++) {
            const double a = row_error(ours + i * ROW, w + i * ROW),
                         b = row_error(out + i * ROW, w + i * ROW);
            assert_true(a <= b * 1.01);
            sum += a / b;
        }
        assert_true(sum / ROWS < 0.99);
    }
    assert_int_equal(checked, 9);
    json_decref(digests), safetensors_close(&s);
}

/* Values that encoders could trip over. */
static void extremes(void **state) {
    (void)state;
    static const float odd[] = {0, -0.f, 3e38f, -3e38f, 1e-38f, 65504, 7e4f, -1e-30f, 1, 127.5f};
    float from[256], to[256];
    u8 packed[1024];
    for (int k = 0; k < COUNT(odd); k++)
        for (const struct gguf_type *t = gguf_types; t->name; t++) {
            if (!t->encode) continue;
            for (int i = 0; i < 256; i++) from[i] = i % 3 ? odd[k] : odd[(k + i) % COUNT(odd)];
            t->encode(from, 256 / t->elements, packed);
            t->decode(packed, 256 / t->elements, to);
        }
}

/* Any range of any type is what the whole decodes to. */
static void ranges(void **state) {
    (void)state;
    struct safetensors s;
    struct err e = {0};
    ok(safetensors_open(&s, "tests/golden/gguf/blocks.safetensors", &e), &e);
    static float all[VALUES], part[VALUES];
    static u16 half[VALUES];
    for (const struct gguf_type *t = gguf_types; t->name; t++) {
        char name[32];
        lower(name, t->name, ".packed");
        const struct stored *p = safetensors_find(&s, name);
        if (!p) continue;
        const struct stored q = {.name = "q", .type = t->name, .dtype = t->dtype, .data = p->data};
        assert_true(stored_readable(&q));
        stored_read(&q, 0, VALUES, F32, all);
        for (i64 begin = 0; begin < VALUES; begin += 211)
            for (i64 count = 1; begin + count <= VALUES; count = count * 5 + 2) {
                stored_read(&q, begin, count, F32, part);
                assert_memory_equal(part, all + begin, (size_t)count * 4);
                stored_read(&q, begin, count, BF16, half);
                for (i64 i = 0; i < count; i++)
                    assert_int_equal(half[i], bf16_of_f32(all[begin + i]));
            }
    }
    safetensors_close(&s);
    const struct stored unknown = {.name = "q", .type = "IQ2_S", .dtype = DTYPE_COUNT};
    assert_false(stored_readable(&unknown));
}

/* ---- files, written as words: `G` the magic, `N:X` the number X in N bytes, `s:TEXT` a text,
 * `l:N` a text of N bytes, `p` padding to 32, `z:N` so many bytes of data. */
static u8 file[1 << 16];
static i64 build(const char *words) {
    i64 n = 0;
    char word[256];
    int used;
    for (; sscanf(words, "%255s%n", word, &used) == 1; words += used) {
        const u64 x = word[1] ? strtoull(word + 2, NULL, 0) : 0;
        i64 size = 0;
        if (word[0] == 'G')
            memcpy(file + n, "GGUF", 4), n += 4;
        else if (word[0] == 's' || word[0] == 'l') {
            const u64 length = word[0] == 'l' ? x : strlen(word + 2);
            memcpy(file + n, &length, 8), n += 8;
            if (word[0] == 'l')
                memset(file + n, 'x', length);
            else
                memcpy(file + n, word + 2, length);
            n += (i64)length;
        } else if (word[0] == 'p' || word[0] == 'z') {
            for (size = word[0] == 'p' ? round_up(n, 32) - n : (i64)x; size; size--) file[n++] = 0;
        } else
            for (size = word[0] - '0'; size; size--)
                file[n] = (u8)(x >> 8 * (word[0] - '0' - size)), n++;
    }
    assert_true(n <= (i64)sizeof file);
    return n;
}

/* What gguf_parse says, "" if nothing. */
static const char *parse(i64 size) {
    static char message[512];
    struct gguf g = {0};
    struct err e = {0};
    u8 *copy = mem_new(size + 1, &e); /* as large as the file, for the tools that watch */
    memcpy(copy, file, (size_t)size);
    const int status = gguf_parse(&g, copy, size, "F", &e);
    assert_int_equal(status != 0, e.code != 0);
    assert_true(!e.code || e.code == ERR_INPUT);
    snprintf(message, sizeof message, "%s", e.primary);
    gguf_close(&g), mem_free(copy);
    return message;
}

#define HEAD(tensors, values) "G 4:3 8:" #tensors " 8:" #values " "
static const struct {
    const char *words, *message;
} files[] = {
    {HEAD(0, 0) "p", ""},
    {"G 4:2 8:0 8:0 p", ""},
    {HEAD(1, 0) "s:a 4:2 8:32 8:2 4:2 8:0 p z:36", ""},
    {HEAD(1, 0) "s:a 4:2 8:32 8:2 4:2 8:0 p z:64", ""},
    {HEAD(1, 0) "s:a 4:0 4:0 8:0 p z:4", ""},
    {HEAD(2, 0) "s:a 4:1 8:3 4:0 8:0 s:b 4:1 8:2 4:30 8:32 p z:12 p z:4", ""},
    {HEAD(0, 3) "s:a 4:9 4:9 8:2 4:4 8:1 4:7 4:8 8:1 s:xy s:b 4:8 s:hello s:c 4:12 8:0 p", ""},
    {"G", "F: not a GGUF file: it does not begin with 'GGUF' and 20 more bytes"},
    {"z:24", "F: not a GGUF file: it does not begin with 'GGUF' and 20 more bytes"},
    {"G 4:1 8:0 8:0", "F: GGUF version 1; versions 2 and 3 are read"},
    {"G 4:4 8:0 8:0", "F: GGUF version 4; versions 2 and 3 are read"},
    {"G 4:0x03000000 8:0 8:0", "F: a big-endian GGUF file"},
    {HEAD(1, 0), "F: byte 8: the list of tensors has length 1, but 8 bytes follow"},
    {HEAD(0, 0x7fffffffffffffff),
     "F: byte 16: the list of values has length 9223372036854775807, but 0 bytes follow"},
    {HEAD(0, 1) "8:40 4:4 4:1", "F: byte 24: the key of a value has length 40, but 8 bytes follow"},
    {HEAD(0, 1) "l:0 4:4 4:1", "F: byte 24: the key of a value has 0 bytes; expected 1 to 255"},
    {HEAD(0, 1) "l:256 4:4 4:1", "F: byte 24: the key of a value has 256 bytes; expected 1 to 255"},
    {HEAD(0, 1) "s:a\x01 4:4 4:1", "F: byte 33: the key of a value holds control character 0x01"},
    {HEAD(0, 1) "s:\xff\xfe 4:4 4:1", "F: byte 24: the key of a value is not UTF-8"},
    {HEAD(0, 1) "s:a 4:13 4:1", "F: byte 33: value a is of kind 13; kinds are 0 to 12"},
    {HEAD(0, 1) "s:a 4:9 4:77 8:0", "F: byte 37: value a is of kind 77; kinds are 0 to 12"},
    {HEAD(0, 1) "s:abcde 4:7 1:2", "F: byte 41: value abcde is truth value 2; expected 0 or 1"},
    {HEAD(0, 1) "s:abc 4:12 4:0", "F: the file ends at byte 43, within abc"},
    {HEAD(0, 1) "s:a 4:8 8:99", "F: byte 37: a has length 99, but 0 bytes follow"},
    {HEAD(0, 1) "s:a 4:9 4:4 8:0x4000000000000000 4:0",
     "F: byte 41: a has length 4611686018427387904, but 4 bytes follow"},
    {HEAD(0, 1) "s:a 4:9 4:9 8:1 4:9 8:1 4:9 8:1 4:9 8:1 4:4 8:0",
     "F: byte 85: value a nests lists more than 4 deep"},
    {HEAD(0, 2) "s:a 4:4 4:1 s:a 4:4 4:1", "F: value a is given twice"},
    {HEAD(2, 0) "s:a 4:1 8:0 4:0 8:0 s:a 4:1 8:0 4:0 8:0", "F: tensor a is given twice"},
    {HEAD(1, 0) "s:a 4:5 8:0 8:0 8:0", "F: tensor a has 5 dimensions; at most 4 are allowed"},
    {HEAD(1, 0) "s:a 4:1 8:0x8000000000000000 4:0 8:0",
     "F: tensor a: a dimension of 9223372036854775808 is too large"},
    {HEAD(1, 0) "s:a 4:2 8:0x100000000 8:0x100000000 4:0 8:0",
     "F: tensor a: shape [4294967296, 4294967296] is too large"},
    {HEAD(1, 0) "s:a 4:1 8:32 4:4 8:0", "F: tensor a has element type 4, which is not known"},
    {HEAD(1, 0) "s:a 4:2 8:33 8:1 4:2 8:0",
     "F: tensor a: shape [1, 33] is Q4_0, whose rows are whole blocks of 32"},
    {HEAD(1, 0) "s:a 4:1 8:1 4:0 8:4 p z:8", "F: tensor a is at byte 4 of the data; expected 0"},
    {HEAD(1, 0) "s:a 4:1 8:1 4:0 8:0 p z:3",
     "F: tensor a takes 4 bytes from byte 64, but the file has 67 bytes"},
    {HEAD(1, 0) "s:a 4:1 8:0x100000000000000 4:28 8:0 p z:8",
     "F: tensor a takes 576460752303423488 bytes from byte 64, but the file has 72 bytes"},
    {HEAD(1, 0) "s:a 4:1 8:1 4:0 8:0 p z:33", "F: bytes 96 to 97 belong to no tensor"},
    {HEAD(0, 1) "s:general.alignment 4:4 4:12 p",
     "F: general.alignment is 12; expected a power of two from 8 to 1048576"},
    {HEAD(0, 1) "s:general.alignment 4:6 4:32 p",
     "F: general.alignment is of kind f32; expected an integer"},
    {HEAD(0, 1) "s:general.alignment 4:10 8:0xffffffffffffffff p",
     "F: general.alignment is 18446744073709551615, which is too large"},
    {HEAD(0, 1) "s:split.count 4:2 2:3 p", "F: one of 3 parts of a split model"},
};

static void broken_files(void **state) {
    (void)state;
    for (i64 i = 0; i < COUNT(files); i++)
        if (files[i].message) assert_string_equal(parse(build(files[i].words)), files[i].message);
}

static void values(void **state) {
    (void)state;
    const i64 size = build(
        "G 4:3 8:0 8:11 s:u8 4:0 1:200 s:i8 4:1 1:200 s:i16 4:3 2:0xfffe s:i32 4:5 "
        "4:0xffffffff s:f32 4:6 4:0x3fc00000 s:bool 4:7 1:1 s:text 4:8 s:hello s:u64 4:10 8:7 "
        "s:f64 4:12 8:0x4004000000000000 s:names 4:9 4:8 8:3 s:a l:0 s:bcd s:list 4:9 4:1 8:2 "
        "1:1 1:255 p");
    struct gguf g = {0};
    struct err e = {0};
    struct arena a = {0};
    i64 n;
    ok(gguf_parse(&g, file, size, "F", &e), &e);
    assert_int_equal(gguf_i64(&g, "u8", 0, "F", &e), 200);
    assert_int_equal(gguf_i64(&g, "i8", 0, "F", &e), -56);
    assert_int_equal(gguf_i64(&g, "i16", 0, "F", &e), -2);
    assert_int_equal(gguf_i64(&g, "i32", 0, "F", &e), -1);
    assert_int_equal(gguf_i64(&g, "u64", 0, "F", &e), 7);
    assert_int_equal(gguf_i64(&g, "none", 5, "F", &e), 5);
    assert_true(gguf_f64(&g, "f32", 0, "F", &e) == 1.5);
    assert_true(gguf_f64(&g, "f64", 0, "F", &e) == 2.5);
    assert_true(gguf_f64(&g, "i8", 0, "F", &e) == -56);
    assert_true(gguf_bool(&g, "bool", false, "F", &e));
    assert_string_equal(gguf_text(&g, "text", NULL, &a, "F", &e), "hello");
    const double *list = gguf_numbers(&g, "list", &n, &a, "F", &e);
    assert_int_equal(n, 2);
    assert_true(list[0] == 1 && list[1] == -1);
    const struct gguf_text *names = gguf_texts(&g, "names", &n, &a, "F", &e);
    assert_int_equal(n, 3);
    assert_int_equal(names[1].size, 0);
    assert_memory_equal(names[2].data, "bcd", 3);
    assert_null(gguf_numbers(&g, "none", &n, &a, "F", &e));
    assert_int_equal(e.code, 0);
    assert_null(gguf_texts(&g, "list", &n, &a, "F", &e));
    assert_string_equal(e.primary, "F: list is a list of i8; expected a list of texts");
    e = (struct err){0};
    assert_null(gguf_text(&g, "u8", NULL, &a, "F", &e));
    assert_string_equal(e.primary, "F: u8 is of kind u8; expected a text");
    arena_free(&a), gguf_close(&g);
}

/* Every truncation of a good file is refused, and no flipped bit does harm. */
static void damaged(void **state) {
    (void)state;
    const i64 size =
        build("G 4:3 8:2 8:3 s:general.alignment 4:4 4:32 s:t 4:9 4:8 8:2 s:ab s:cd s:n "
              "4:9 4:9 8:1 4:0 8:3 1:1 1:2 1:3 s:w 4:2 8:256 8:1 4:12 8:0 s:v 4:1 8:3 "
              "4:0 8:160 p z:144 p z:12");
    assert_string_equal(parse(size), "");
    for (i64 n = 0; n < size; n++) assert_true(*parse(n));
    for (i64 i = 0; i < size * 8; i++) {
        file[i / 8] ^= (u8)(1 << i % 8);
        parse(size);
        file[i / 8] ^= (u8)(1 << i % 8);
    }
}

static void faults(void **state) {
    (void)state;
    static const char *const kind[] = {"alloc", "open", "read"};
    struct err none = {0};
    const i64 size = build(files[5].words);
    char path[128];
    snprintf(path, sizeof path, "%s/fault.gguf", folder);
    ok(file_write(path, file, size, &none), &none);
    for (i64 k = 0; k < COUNT(kind); k++)
        for (int n = 1;; n++) {
            char spec[32];
            struct gguf g;
            struct err e = {0};
            snprintf(spec, sizeof spec, "%s:%d", kind[k], n);
            fault_arm(spec);
            const int status = gguf_open(&g, path, &e);
            fault_arm(NULL);
            gguf_close(&g);
            assert_int_equal(status != 0, e.code != 0);
            if (!status) break;
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks),       cmocka_unit_test(extremes), cmocka_unit_test(ranges),
        cmocka_unit_test(broken_files), cmocka_unit_test(values),   cmocka_unit_test(damaged),
        cmocka_unit_test(faults),
    };
    isa_float_mode();
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
