/* test_cuda_run.c: the program with `--device cuda`, its kernels run on the CPU (tests/shim): with
 * portable numerics a whole run gives the hashes that the CPU gives, and what one device began the
 * other goes on with and verifies; with fast numerics a run repeats itself. And what a user is told
 * when there is no driver, no device, too little memory, or a kernel that dies. */
#include "tests/e2e/golden_run.h"

static char gpu[256]; /* the program with the shim; on a real GPU, HONE_GPU_PROGRAM */
static bool real;

/* `hone --device cuda ARGUMENTS` must end with this exit code. */
PRINTF(2, 3) static void cuda(int wanted, const char *fmt, ...) {
    char line[3072];
    FORMAT(line, fmt);
    const int code = shell("%s %s --device cuda --quiet", gpu, line);
    if (code != wanted)
        fail_msg("%s %s: exit %d, not %d\n%s%s", gpu, line, code, wanted, said(), complained());
}
PRINTF(3, 4) static void cuda_faulty(int wanted, const char *fault, const char *fmt, ...) {
    char line[3072];
    FORMAT(line, fmt);
    setenv("HONE_SHIM_FAULT", fault, 1);
    const int code = shell("%s %s --quiet", gpu, line);
    unsetenv("HONE_SHIM_FAULT");
    if (code != wanted)
        fail_msg("%s: %s: exit %d, not %d\n%s", fault, line, code, wanted, complained());
}

static const char *run_line(const char *precision, const char *run, const char *more) {
    static char line[1024];
    snprintf(line, sizeof line,
             "train " AT "run.yaml precision=%s dataset.0.path=%s output_dir=%s %s", precision,
             at("data.h5"), at("%s", run), more);
    return line;
}
static void check_in(const char *file, const char *name, const char *sha256) {
    char line[200];
    if (!recorded(file, name, sha256, line)) fail_msg("%s is not in %s", line, file);
}
static void check(const char *name, const char *sha256) { check_in(AT "sha256.txt", name, sha256); }
static const char *state_of(const char *run, const char *step) {
    static struct manifest m[4];
    static int turn;
    m[++turn % 4] = manifest_of(at("%s/checkpoints/step-%s", run, step));
    return m[turn % 4].state_sha256;
}

static void portable_run(void **state) {
    const char *precision = *state;
    static const char *const how[] = {"--eager", "--sync", "micro_batch_size=8"};
    char name[64], run[64];
    snprintf(run, sizeof run, "%s-0", precision);
    cuda(0, "%s numerics=portable", run_line(precision, run, "save_at=0,2"));
    snprintf(name, sizeof name, "%s/state", precision);
    check(name, state_1_of(at("%s", run), 12));
    check_in(DIGESTS, name, state_of(run, "000012"));
    snprintf(name, sizeof name, "%s/model.safetensors", precision);
    check(name, sha_of(at("%s/checkpoints/step-000012/model.safetensors", run)));
    hone(0, "verify %s --replay --from 0 --quiet", at("%s", run));
    for (int i = 0; i < COUNT(how); i++) { /* the same two steps, in other ways */
        char other[64];
        snprintf(other, sizeof other, "%s-%d", precision, i + 1);
        cuda(0, "%s max_steps=2 lr_scheduler_type=constant numerics=portable",
             run_line(precision, other, how[i]));
        if (!i)
            hone(0, "%s max_steps=2 lr_scheduler_type=constant --quiet",
                 run_line(precision, at("%s-cpu", precision) + strlen(tiny) + 1, ""));
        snprintf(run, sizeof run, "%s-cpu", precision);
        assert_string_equal(state_of(run, "000002"), state_of(other, "000002"));
    }
}

/* Stochastic rounding: the same words on both; moments in 8 bits, other rules. */
static void no_masters(void **state) {
    (void)state;
    static const char *const how[] = {"optim=adamw",
                                      "optim=adamw_8bit",
                                      "optim=lion",
                                      "optim=sgd optim_args=momentum=0.9",
                                      "optim=adam optim_args=amsgrad=true weight_decay=0.1",
                                      "optim=adagrad max_grad_value=1e-3",
                                      "optim=rmsprop optim_args=momentum=0.5,centered=true",
                                      "optim=adafactor optim_args=beta1=0.9,scale_parameter=1",
                                      "optim=adafactor_torch",
                                      "optim=muon"};
    for (int i = 0; i < COUNT(how); i++) {
        char gpu_run[32], cpu_run[32], more[200];
        snprintf(gpu_run, sizeof gpu_run, "random-gpu-%d", i);
        snprintf(cpu_run, sizeof cpu_run, "random-cpu-%d", i);
        snprintf(more, sizeof more,
                 "master_weights=false max_steps=%d lr_scheduler_type=constant %s", i ? 2 : 3,
                 how[i]);
        cuda(0, "%s numerics=portable", run_line("bf16", gpu_run, more));
        hone(0, "%s --quiet", run_line("bf16", cpu_run, more));
        const char *step = i ? "000002" : "000003";
        assert_string_equal(state_of(cpu_run, step), state_of(gpu_run, step));
    }
}

static void from_device_to_device(void **state) {
    (void)state;
    const char *more = "max_steps=4 save_at=2 numerics=portable";
    cuda(0, "%s", run_line("fp32", "there", more));
    hone(0, "%s --quiet", run_line("fp32", "here", more));
    logs_equal(at("there"), at("here"));
    const char *state4 = state_of("here", "000004");
    assert_int_equal(0, dir_remove(at("there/checkpoints/step-000004"), &(struct err){0}));
    hone(0, "%s --quiet resume_from_checkpoint=auto", run_line("fp32", "there", more));
    assert_string_equal(state4, state_of("there", "000004"));
    assert_int_equal(0, dir_remove(at("here/checkpoints/step-000004"), &(struct err){0}));
    cuda(0, "%s resume_from_checkpoint=auto", run_line("fp32", "here", more));
    assert_string_equal(state4, state_of("here", "000004"));
    cuda(0, "verify %s --replay --from 2", at("here"));
}

static void adapters(void **state) {
    (void)state;
    static const char recipe[] = "max_seq_length: 64\nglobal_batch_size: 4\nmicro_batch_size: 2\n"
                                 "reduction_groups: 2\nmax_steps: 2\nlearning_rate: 3.0e-3\n"
                                 "use_peft: true\nlora_r: 4\nlora_alpha: 8\n"
                                 "lora_target_modules: all-linear\nnumerics: portable\n";
    char line[1024];
    put(at("lora.yaml"), recipe, (i64)strlen(recipe));
    snprintf(line, sizeof line, "train %s model_name_or_path=%s dataset.0.path=%s", at("lora.yaml"),
             at("fp32-0/checkpoints/step-000012"), at("data.h5"));
    static const char *const base[] = {"",
                                       "load_in_4bit=true bnb_4bit_use_double_quant=true",
                                       "lora_target_modules=lm_head,v_proj lora_dropout=0.1",
                                       "quantize=q8_0",
                                       "use_dora=true quantize=f8",
                                       ("use_dora=true load_in_4bit=true lora_dropout=0.1 "
                                        "lora_target_modules=lm_head,embed_tokens,v_proj")};
    for (int i = 0; i < COUNT(base); i++) {
        char cpu[32], other[32];
        snprintf(cpu, sizeof cpu, "lora-cpu-%d", i),
            snprintf(other, sizeof other, "lora-gpu-%d", i);
        hone(0, "%s %s output_dir=%s --quiet", line, base[i], at("%s", cpu));
        cuda(0, "%s %s output_dir=%s", line, base[i], at("%s", other));
        assert_string_equal(state_of(cpu, "000002"), state_of(other, "000002"));
    }
}

/* Mixtures, with the balancing loss; adapters on experts; latent attention. */
static void mixtures(void **state) {
    (void)state;
    static const char *const row[][3] = {
        {"families/run", "qwen2_moe", "router_aux_loss_coef=0.1 precision=bf16"},
        {"experts/all", "mixtral", "router_aux_loss_coef=0.1"},
        {"families/run", "deepseek_v3", ""}};
    for (int i = 0; i < COUNT(row); i++) {
        char line[512];
        snprintf(line, sizeof line,
                 "train tests/golden/interop/%s.yaml model_name_or_path=tests/golden/models/%s %s "
                 "numerics=portable",
                 row[i][0], row[i][1], row[i][2]);
        hone(0, "%s output_dir=%s --quiet", line, at("mixture-cpu-%d", i));
        cuda(0, "%s output_dir=%s", line, at("mixture-gpu-%d", i));
        char cpu[32], other[32];
        snprintf(cpu, sizeof cpu, "mixture-cpu-%d", i),
            snprintf(other, sizeof other, "mixture-gpu-%d", i);
        assert_string_equal(state_of(cpu, "000003"), state_of(other, "000003"));
        logs_equal(at("%s", cpu), at("%s", other));
    }
}

static void generation(void **state) {
    (void)state;
    static const char *const how[] = {"--greedy", "--temperature 0.9 --seed 3",
                                      "--temperature 1.1 --top-k 7 --top-p 0.9 --seed 4"};
    for (int i = 0; i < COUNT(how); i++) {
        char line[512], text[4096];
        snprintf(line, sizeof line, "generate %s --prompt 'First' --max-new-tokens 40 %s",
                 at("fp32-0/checkpoints/step-000012"), how[i]);
        hone(0, "%s --quiet", line);
        snprintf(text, sizeof text, "%s", said());
        cuda(0, "%s --numerics portable", line);
        assert_string_equal(text, said());
        cuda(0, "%s --numerics fast", line);
    }
}

/* Families whose blocks are made of other operations: losses, logits and gradients have the CPU's
 * bits. */
static void families_alike(void **state) {
    (void)state;
    static const char *const model[] = {"gemma2",  "gpt2", "falcon_40b", "falcon_rw",
                                        "apertus", "phi3", "olmo",       "stablelm_parallel"};
    for (int i = 0; i < COUNT(model); i++) {
        char line[512];
        snprintf(line, sizeof line,
                 "forward tests/golden/models/%s --ids tests/golden/models/%s/golden.safetensors "
                 "--grad",
                 model[i], model[i]);
        hone(0, "%s --out %s --quiet", line, at("cpu.safetensors"));
        cuda(0, "%s --out %s --numerics portable", line, at("gpu.safetensors"));
        if (shell("cmp %s %s", at("cpu.safetensors"), at("gpu.safetensors")))
            fail_msg("%s differs", model[i]);
    }
}

static void fast_run(void **state) {
    const char *precision = *state;
    char one[64], two[64];
    snprintf(one, sizeof one, "fast-%s-1", precision),
        snprintf(two, sizeof two, "fast-%s-2", precision);
    cuda(0, "%s", run_line(precision, one, "max_steps=3 save_at=0,1"));
    cuda(0, "%s --eager numerics=fast", run_line(precision, two, "max_steps=3"));
    hone(0, "%s --quiet", run_line(precision, "close", "max_steps=3 save_at=0,1"));
    assert_string_equal(state_of(one, "000003"), state_of(two, "000003"));
    assert_string_equal("R2", manifest_of(at("%s/checkpoints/step-000003", one)).numerics_level);
    struct log_rows a = log_of(at("%s", one)), b = log_of(at("close"));
    for (i64 i = 0; i < a.count; i++)
        assert_true(a.row[i].loss - b.row[i].loss < 0.01 && b.row[i].loss - a.row[i].loss < 0.01);
    log_rows_free(&a), log_rows_free(&b);
    assert_int_equal(0, dir_remove(at("close"), &(struct err){0}));
    cuda(0, "verify %s --replay --from 0", at("%s", one));
    hone(2, "verify %s --replay", at("%s", one));
    expect(complained(), "numerics: fast is what a GPU computes");
}

static void no_device(void **state) {
    (void)state;
    if (real) skip();
    static const char *const row[][3] = {
        {"no-driver", "cuda", "this machine has no NVIDIA driver (libcuda.so.1)"},
        {"old-driver", "cuda",
         "the driver supports CUDA 12.4, this program was built with 13.0 and needs driver 580"},
        {"no-device", "cuda", "no usable GPU: no CUDA-capable device is detected"},
        {"none", "cuda:3", "--device cuda:3: this machine has 1 GPU"},
        {"none", "cuda:x", "--device is 'cuda:x'"},
        {"none", "gpu", "--device is 'gpu'"},
    };
    for (int i = 0; i < COUNT(row); i++) {
        cuda_faulty(2, row[i][0], "%s --device %s", run_line("fp32", "none", ""), row[i][1]);
        expect(complained(), row[i][2]);
        assert_false(path_exists(at("none")));
    }
    cuda_faulty(0, "no-driver", "doctor");
    expect(said(), "CUDA is off: this machine has no NVIDIA driver");
    cuda(2, "export %s --output %s", at("fp32-0/checkpoints/step-000012"), at("exported"));
    expect(complained(), "export runs on the CPU");
}

static void too_little_memory(void **state) {
    (void)state;
    if (real) skip();
    cuda_faulty(1, "memory:2048", "%s --device cuda", run_line("fp32", "small", ""));
    expect(complained(), "a step needs ");
    expect(complained(),
           "plan: weights 0.2 MiB, gradients and optimizer state 0.6 MiB, activations of 4 x 96");
    expect(complained(), "fits (the same bits)");
    cuda_faulty(1, "memory:500", "%s --device cuda", run_line("fp32", "smaller", ""));
    expect(complained(), "no memory on the GPU for ");
    assert_false(path_exists(at("smaller/log.jsonl")));
}

/* A kernel that dies mid-run ends it with a message; the last checkpoint is whole and goes on. */
static void dying_kernels(void **state) {
    (void)state;
    if (real) skip();
    static const char *const row[][3] = {
        {"kernel:700", "", "unspecified launch failure"},
        {"kernel:700", "--sync", "while running "},
        {"launch:500", "--sync", "invalid argument"},
        {"timeout:700", "", "the driver stopped a kernel that ran too long"},
    };
    const char *more = "max_steps=3 save_steps=1 numerics=portable";
    hone(0, "%s --quiet", run_line("fp32", "living", more));
    for (int i = 0; i < COUNT(row); i++) {
        char run[32];
        snprintf(run, sizeof run, "dying-%d", i);
        cuda_faulty(1, row[i][0], "%s %s --device cuda", run_line("fp32", run, more), row[i][1]);
        expect(complained(), row[i][2]);
        expect(complained(), "the last checkpoint is intact");
        assert_true(path_exists(at("%s/checkpoints/step-000001", run)));
        hone(0, "%s --quiet resume_from_checkpoint=auto", run_line("fp32", run, more));
        assert_string_equal(state_of("living", "000003"), state_of(run, "000003"));
    }
}

static int set_up(void **state) {
    struct text newest = {0};
    const char *build = getenv("HONE_BUILD"), *program = getenv("HONE_GPU_PROGRAM");
    if (tiny_folder(state)) return -1;
    if (program)
        snprintf(gpu, sizeof gpu, "%s", program), real = true;
    else if (build)
        snprintf(gpu, sizeof gpu, "%s/hone-shim", build);
    else if (!file_read(&newest, "build/newest", &(struct err){0}))
        snprintf(gpu, sizeof gpu, "%.*s-shim", (int)strcspn(newest.data, "\n"), newest.data);
    text_free(&newest);
    golden_data();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        {"portable: fp32", portable_run, NULL, NULL, "fp32"},
        {"portable: bf16", portable_run, NULL, NULL, "bf16"},
        cmocka_unit_test(no_masters),
        cmocka_unit_test(from_device_to_device),
        cmocka_unit_test(adapters),
        cmocka_unit_test(mixtures),
        cmocka_unit_test(generation),
        cmocka_unit_test(families_alike),
        {"fast: fp32", fast_run, NULL, NULL, "fp32"},
        {"fast: bf16", fast_run, NULL, NULL, "bf16"},
        cmocka_unit_test(no_device),
        cmocka_unit_test(too_little_memory),
        cmocka_unit_test(dying_kernels),
    };
    return cmocka_run_group_tests_name("cuda runs", tests, set_up, tiny_remove);
}
