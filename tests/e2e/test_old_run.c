/* test_old_run.c: runs that version 4bb1f6d of this program made (tests/golden/old_run) verify,
 * replay and go on to the bits that the same version reached. A format may change; what was
 * published in an older one stays good. */
#include "tests/e2e/tiny_run.h"

#define OLD "tests/golden/old_run/"

struct old {
    const char *name, *recipe, *keys; /* keys: what its command line said besides */
    const char *state;                /* digest after six steps: by 4bb1f6d, resumed from step 4 */
};
static const struct old full = {"full", "run.yaml",
                                "eval_dataset.0.path=" OLD
                                "data.h5 eval_steps=2 eval_batches=2 sample_prompts=the "
                                "sample_tokens=8",
                                "b30141e1cd5de956ca725a888f5199b929e9920ee2bd4bb4a75fc2bf4aa64644"};
static const struct old lora = {"lora", "lora.yaml", "",
                                "c20cdd3e4e5d767b2488f3fd47a6245b5c5dd7a38a070851f259f54f5f74c9e6"};

static void verifies(void **state) {
    const struct old *o = *state;
    assert_int_equal(0, shell("cp -r " OLD "%s %s", o->name, tiny));
    hone(0, "verify %s --replay --from 2", at("%s", o->name));
    expect(said(), "equals the published one, losses bit for bit");
}

/* Two steps more; and, with the last checkpoint gone, its steps again. */
static void goes_on(void **state) {
    const struct old *o = *state;
    for (int to = 6; to >= 4; to -= 2) {
        const char *run = at("%s-%d", o->name, to);
        char path[600];
        assert_int_equal(0, shell("cp -r " OLD "%s %s", o->name, run));
        if (to == 4) assert_int_equal(0, shell("rm -r %s/checkpoints/step-000004", run));
        hone(0, "train " OLD "%s output_dir=%s max_steps=%d %s resume_from_checkpoint=auto --quiet",
             o->recipe, run, to, o->keys);
        snprintf(path, sizeof path, "%s/checkpoints/step-%06d", run, to);
        const struct manifest made = manifest_of(path);
        struct log_rows log = log_of(run);
        assert_int_equal(made.digest_version, 1); /* what it began with */
        assert_int_equal(log.digest_version, 1);
        log_rows_free(&log);
        snprintf(path, sizeof path, OLD "%s/checkpoints/step-000004", o->name);
        const struct manifest published = manifest_of(path);
        assert_string_equal(made.state_sha256, to == 6 ? o->state : published.state_sha256);
        hone(0, "verify %s", run);
    }
}

/* Older versions let data lie in RUN/data, where text is tokenised to: such a run goes on too. A
 * new one is refused (bad/data.rows). */
static void data_within(void **state) {
    (void)state;
    char run[512], data[600];
    snprintf(run, sizeof run, "%s", at("within"));
    snprintf(data, sizeof data, "%s/data/data.h5", run);
    assert_int_equal(0, shell("cp -r " OLD "full %s && mkdir %s/data && cp " OLD "data.h5 %s && "
                              "sed -i 's|" OLD "data.h5|%s|' %s/recipe.lock",
                              run, run, data, data, run));
    hone(0,
         "train " OLD "run.yaml output_dir=%s max_steps=5 dataset=%s eval_dataset=%s "
         "eval_steps=2 eval_batches=2 sample_prompts=the sample_tokens=8 "
         "resume_from_checkpoint=auto --quiet",
         run, data, data);
    hone(0, "verify %s", run);
}

/* A dataset of that time has no hash of its sources, which `inspect` says. */
static void sources_unchecked(void **state) {
    (void)state;
    hone(0, "inspect " OLD "data.h5");
    expect(said(), "note        the sources have no checksum here");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        {"all weights: verify, replay", verifies, NULL, NULL, (void *)&full},
        {"all weights: resume", goes_on, NULL, NULL, (void *)&full},
        {"data within the run", data_within, NULL, NULL, NULL},
        {"adapter: verify, replay", verifies, NULL, NULL, (void *)&lora},
        cmocka_unit_test(sources_unchecked),
        {"adapter: resume", goes_on, NULL, NULL, (void *)&lora},
    };
    return cmocka_run_group_tests_name("old runs", tests, tiny_folder, tiny_remove);
}
