/* test_resume.c: a run stopped anywhere goes on as if it had not been: SIGKILL at moments of the
 * clock and inside every kind of file operation of a save, a full disk, SIGTERM, a damaged newest
 * checkpoint. What must be equal in the end: the last checkpoint's manifest (which names every
 * file's SHA-256 and, through its parents, all checkpoints before), and what the log says. */
#include "tests/e2e/tiny_run.h"

#include <jansson.h>

enum { STEPS = 12, EVERY = 2, TRIES = 40 };
#define RESUME "resume_from_checkpoint=auto"
static char final[65]; /* SHA-256 of the uninterrupted run's last manifest */

static const char *last_of(const char *run) {
    static char path[600];
    snprintf(path, sizeof path, "%s/checkpoints/step-%06d", run, STEPS);
    return path;
}
static const char *last_manifest(const char *run) {
    static char hex[65];
    struct err e = {0};
    if (manifest_sha256(last_of(run), hex, &e)) fail_msg("%s: %s", run, e.primary);
    return hex;
}

static const char *words(const char *run) {
    static char line[4][1024];
    static int turn;
    char *to = line[turn++ % 4];
    snprintf(to, sizeof line[0],
             "train %s/full.yaml precision=bf16 dataset.0.path=%s/packed.h5 max_steps=%d "
             "save_steps=%d eval_dataset.0.path=%s/sft.jsonl eval_batches=2 eval_steps=5 "
             "tokenizer=" TINY_TOKENIZER " sample_prompts=First,All sample_tokens=3 output_dir=%s "
             "--quiet",
             tiny, tiny, STEPS, EVERY, tiny, run);
    return to;
}

static void same_as_whole(const char *run) {
    if (strcmp(final, last_manifest(run)))
        fail_msg("%s: the last manifest differs from the uninterrupted run's:\n%s\n%s", run,
                 text_of(at("whole/checkpoints/step-%06d/manifest.json", STEPS)),
                 text_of(at("%s/manifest.json", last_of(run) + strlen(tiny) + 1)));
    logs_equal(at("whole"), run);
    assert_string_equal(text_of(at("whole/samples.jsonl")),
                        text_of(at("%s/samples.jsonl", run + strlen(tiny) + 1)));
}

static void a_run_and_its_second_half(void **state) {
    const char *masters = *state;
    char run[512], one[512];
    static int n;
    n++;
    strcpy(run, at("halves-%d", n)), strcpy(one, at("one-%d", n));
    hone(0, "%s master_weights=%s max_steps=6 lr_scheduler_type=constant", words(run), masters);
    hone(0, "%s master_weights=%s max_steps=12 lr_scheduler_type=constant " RESUME, words(run),
         masters);
    hone(0, "%s master_weights=%s lr_scheduler_type=constant", words(one), masters);
    assert_string_equal(last_manifest(one), last_manifest(run));
    logs_equal(one, run);
    hone(0, "verify %s --replay --count 2 --from 4", run); /* over the seam */
    expect(said(), "steps 5 to 6 computed again");
    expect(said(), "steps 7 to 8 computed again");
}

/* The run is killed again and again, a little later each time, until it is through. */
static void killed_by_the_clock(void **state) {
    (void)state;
    const struct rng r = {11, RNG_TEST, 0, 0};
    char run[512];
    i64 kills = 0;
    strcpy(run, at("clock"));
    double begin = clock_seconds();
    hone(0, "%s", words(at("timed")));
    const double whole = clock_seconds() - begin;
    for (i64 i = 0; i < TRIES; i++) {
        char line[1200];
        snprintf(line, sizeof line, "exec ./hone %s " RESUME, words(run));
        const double wait = whole * rng_uniform_f64(&r, (u64)i) * (i < 4 ? 0.5 : 1.5);
        const pid_t pid = shell_start(line);
        nanosleep(&(struct timespec){(time_t)wait, (long)((wait - (double)(time_t)wait) * 1e9)},
                  NULL);
        kill(pid, SIGKILL);
        const int code = shell_end(pid);
        if (code == 0) break;
        if (code != -SIGKILL) fail_msg("exit %d: %s", code, complained());
        kills++;
    }
    assert_true(kills > 0);
    hone(0, "%s " RESUME, words(run));
    same_as_whole(run);
    hone(0, "verify %s --replay", run);
}

/* HONE_FAULT=KIND:N for growing N: killed (or failed) in the middle of whatever is being written;
 * every such run is resumed to its end, the first ones twice disturbed. */
static void stopped_while_writing(const char *kind, int wanted) {
    i64 n = 1, stopped = 0;
    for (i64 step = 1;; n += step, step = n / 4 + 1) {
        char run[512];
        strcpy(run, at("%s-%lld", kind, (long long)n));
        int code = shell("HONE_FAULT=%s:%lld exec ./hone %s", kind, (long long)n, words(run));
        if (code == 0) break;
        if (code != wanted && code != 2)
            fail_msg("%s:%lld: exit %d: %s", kind, (long long)n, code, complained());
        stopped++;
        if (n < 8)
            shell("HONE_FAULT=%s:%lld exec ./hone %s " RESUME, kind, (long long)(n + 40),
                  words(run));
        hone(0, "%s " RESUME, words(run));
        same_as_whole(run);
        hone(0, "verify %s", run);
        assert_int_equal(0, dir_remove(run, &(struct err){0}));
    }
    if (stopped < 4) fail_msg("%s: only %lld runs were stopped", kind, (long long)stopped);
}
static void killed_while_writing(void **state) {
    (void)state;
    stopped_while_writing("kill-write", -SIGKILL);
}
static void killed_while_syncing(void **state) {
    (void)state;
    stopped_while_writing("kill-fsync", -SIGKILL);
}
static void killed_while_renaming(void **state) {
    (void)state;
    stopped_while_writing("kill-rename", -SIGKILL);
}
static void disk_full(void **state) {
    (void)state;
    stopped_while_writing("write", 1);
}

/* Starts a long run and waits until it trains. */
static pid_t long_run(const char *where, const char *more) {
    char line[1400], run[512];
    snprintf(run, sizeof run, "%s", where); /* at() gives its place to others after a while */
    snprintf(line, sizeof line, "exec ./hone %s save_steps=0 max_steps=200 %s", words(run), more);
    const pid_t pid = shell_start(line);
    struct log_rows rows = {0};
    for (int i = 0; i < 2000 && rows.count < 3; i++) {
        struct err e = {0};
        log_rows_free(&rows);
        nanosleep(&(struct timespec){0, 5000000}, NULL);
        if (log_read(&rows, at("%s/log.jsonl", run + strlen(tiny) + 1), &e))
            rows = (struct log_rows){0};
    }
    log_rows_free(&rows);
    return pid;
}

/* Whatever asks it to stop: one step is finished and saved, and the exit code says so. */
static void told_how(void **state) {
    (void)state;
    static const int number[] = {SIGINT, SIGHUP, SIGPIPE};
    signal(SIGHUP, SIG_DFL); /* ignored where the tests themselves run under nohup */
    for (int i = 0; i < COUNT(number); i++) {
        char run[512];
        strcpy(run, at("told-%d", number[i]));
        const pid_t pid = long_run(run, "max_steps=5000"); /* more than it will do */
        kill(pid, number[i]);
        if (number[i] != SIGINT) kill(pid, number[i]); /* these come in numbers */
        assert_int_equal(ERR_STOPPED, shell_end(pid));
        expect(complained(), "stopped after step ");
        assert_true(path_exists(at("told-%d/checkpoints", number[i])));
        hone(0, "verify %s", run);
    }
}

/* What nohup ignores stays ignored; a second SIGTERM does not wait for the end of the step. */
static void told_twice(void **state) {
    (void)state;
    char run[512];
    strcpy(run, at("nohup"));
    const int code = shell("trap '' HUP; ./hone %s & sleep 0.3; kill -HUP $!; wait $!", words(run));
    assert_int_equal(0, code);
    same_as_whole(run);
    strcpy(run, at("twice"));
    const pid_t pid = long_run(run, "max_steps=5000"); /* more than it will do */
    kill(pid, SIGSTOP); /* so that both are there before a step ends */
    kill(pid, SIGTERM), kill(pid, SIGINT);
    kill(pid, SIGCONT);
    const int ended = shell_end(pid);
    if (ended != -SIGTERM && ended != -SIGINT) fail_msg("exit %d: %s", ended, complained());
    assert_null(strstr(complained(), "stopped after"));
    hone(0, "%s save_steps=0 max_steps=4 " RESUME, words(run)); /* at least not damaged */
}

/* `hone train | head`: the reader of its standard output goes away. The second time SIGPIPE is
 * ignored, as children of some programs have it, and only the write fails. */
static void nobody_listens(void **state) {
    (void)state;
    static const char *const first[] = {"", "trap '' PIPE; "};
    for (int i = 0; i < 2; i++) {
        char run[512];
        strcpy(run, at("pipe-%d", i));
        shell("%s{ ./hone %s --quiet=false logging_steps=1 save_steps=0 max_steps=4000; "
              "echo $? > %s/code; } | head -n 1",
              first[i], words(run), tiny);
        assert_string_equal("3\n", text_of(at("code")));
        expect(complained(), "stopped after step ");
        hone(0, "verify %s", run);
    }
}

/* While its text is still being read there is no run to save: a signal ends it at once. */
static void told_before_it_trains(void **state) {
    (void)state;
    shell("mkfifo %s/never", tiny);
    char line[1400];
    snprintf(line, sizeof line,
             "exec ./hone %s dataset.0.path=/dev/stdin dataset.0.type=text 0<> %s/never",
             words(at("early")), tiny);
    const pid_t pid = shell_start(line);
    for (int i = 0; i < 2000 && !path_exists(at("early")); i++)
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    nanosleep(&(struct timespec){0, 100000000}, NULL);
    kill(pid, SIGTERM);
    assert_int_equal(-SIGTERM, shell_end(pid));
    assert_false(path_exists(at("early/log.jsonl")));
}

static void told_to_stop(void **state) {
    (void)state;
    char run[512];
    strcpy(run, at("term"));
    const pid_t pid = long_run(run, "max_steps=5000"); /* more than it will do */
    kill(pid, SIGTERM);
    assert_int_equal(ERR_STOPPED, shell_end(pid));
    expect(complained(), "resume_from_checkpoint=auto goes on from there");
    assert_null(strstr(complained(), "error:"));
    hone(0, "%s save_steps=0 max_steps=200 " RESUME, words(run));
    hone(0, "%s save_steps=0 max_steps=200", words(at("no-term")));
    const struct manifest a = manifest_of(at("term/checkpoints/step-000200")),
                          b = manifest_of(at("no-term/checkpoints/step-000200"));
    assert_string_equal(a.state_sha256, b.state_sha256);
    logs_equal(at("no-term"), run);
    hone(0, "verify %s --replay", run);
}

/* Takes what a lock says of RUN/model out, as older ones are. */
static void lock_forget(const char *run) {
    char path[600];
    struct err e = {0};
    snprintf(path, sizeof path, "%s/recipe.lock", run);
    json_t *j = json_open(path, &e), *files = json_object_get(j, "files");
    size_t before = json_array_size(files);
    for (size_t i = before; i-- > 0;)
        if (carried_is(json_array_get(files, i))) json_array_remove(files, i);
    assert_int_equal(before - 3, json_array_size(files));
    assert_int_equal(0, json_save(j, path, 2, &e));
    json_decref(j);
}

/* Adds a file of the run that cannot be one, as somebody who edits the lock may. */
static void lock_forge(const char *run, const char *file) {
    char path[600];
    struct err e = {0};
    snprintf(path, sizeof path, "%s/recipe.lock", run);
    json_t *j = json_open(path, &e), *files = json_object_get(j, "files");
    json_t *item =
        json_pack("{s:s, s:s, s:i, s:s}", "role", "run", "path", file, "bytes", 1, "sha256", "0");
    assert_int_equal(0, json_array_append_new(files, item));
    assert_int_equal(0, json_save(j, path, 2, &e));
    json_decref(j);
}

/* RUN/model goes into every checkpoint: damage there must not. */
static void files_of_the_run(void **state) {
    (void)state;
    char run[512], file[600];
    static const char *const name[] = {"config.json", "tokenizer.json", "generation_config.json"};
    strcpy(run, at("carried"));
    hone(0, "%s", words(run));
    for (int old = 0; old < 2; old++) { /* a lock that does not list them, as older ones */
        if (old) lock_forget(run);
        for (int i = 0; i < COUNT(name); i++) {
            snprintf(file, sizeof file, "%s/model/%s", run, name[i]);
            struct text whole = {0};
            struct err e = {0};
            assert_int_equal(0, file_read(&whole, file, &e));
            for (int gone = 0; gone < 2; gone++) {
                put(file, "{\"rope_theta\": 77}", 18);
                if (gone) assert_int_equal(0, unlink(file));
                hone(2, "%s max_steps=14 " RESUME, words(run));
                expect(complained(), name[i]);
                expect(complained(), gone ? "is missing" : "changed since the run began");
                expect(complained(), "SHA-256 was ");
                expect(complained(), "hint: ");
                hone(1, "verify %s", run);
                expect(complained(), name[i]);
            }
            put(file, whole.data, whole.size);
            text_free(&whole);
        }
        hone(0, "verify %s", run);
    }
    hone(0, "%s max_steps=14 lr_scheduler_type=constant " RESUME, words(at("carried-2")));
    put(at("carried-2/model/chat_template.jinja"), "x", 1);
    hone(2, "%s max_steps=15 lr_scheduler_type=constant " RESUME, words(at("carried-2")));
    expect(complained(), "was not there when the run began");
    lock_forge(at("carried-2"), "x"), lock_forge(at("carried-2"), "MODEL/chat_template.jinja");
    hone(1, "verify %s", at("carried-2"));
    expect(complained(), "was not there when the run began");
    /* while it runs */
    const pid_t pid = long_run(at("carried-3"), "");
    put(at("carried-3/model/tokenizer.json"), "{}", 2);
    kill(pid, SIGTERM);
    assert_int_equal(1, shell_end(pid));
    expect(complained(), "tokenizer.json changed while the run was going on");
}

/* A run writes only its own files: a link in their place would lead out of its folder. */
static void links_in_the_run(void **state) {
    (void)state;
    static const char *const name[] = {"samples.jsonl", "log.csv"};
    hone(0, "%s report_to=csv", words(at("linked")));
    for (int i = 0; i < COUNT(name); i++) {
        put(at("elsewhere"), "mine", 4);
        shell("mv %s/linked/%s %s/aside && ln -s ../elsewhere %s/linked/%s", tiny, name[i], tiny,
              tiny, name[i]);
        hone(2, "%s report_to=csv max_steps=15 " RESUME, words(at("linked")));
        expect(complained(), "is a link");
        assert_string_equal("mine", text_of(at("elsewhere")));
        shell("mv %s/aside %s/linked/%s", tiny, tiny, name[i]);
    }
}

/* A template that a pipe brings is read once; the lock has the hash of what was read. */
static void a_template_from_a_pipe(void **state) {
    (void)state;
    static const char template[] = "{% for m in messages %}{{ m.content }}{% endfor %}";
    put(at("template.jinja"), template, sizeof template - 1);
    hone(0, "%s chat_template=%s max_steps=1", words(at("named")), at("template.jinja"));
    shell("cat %s/template.jinja | ./hone %s chat_template=/dev/stdin max_steps=1", tiny,
          words(at("piped")));
    static const char *const run[] = {"named", "piped"};
    json_t *lock[2], *item;
    const char *hash[2] = {NULL, NULL};
    for (int i = 0; i < 2; i++) {
        size_t k;
        char file[64];
        snprintf(file, sizeof file, "%s/recipe.lock", run[i]);
        assert_non_null(lock[i] = json_load_file(at("%s", file), 0, NULL));
        json_array_foreach(json_object_get(lock[i], "files"), k, item) {
            if (!strcmp(json_string_value(json_object_get(item, "role")), "chat_template"))
                hash[i] = json_string_value(json_object_get(item, "sha256"));
        }
        assert_non_null(hash[i]);
    }
    assert_string_equal(hash[0], hash[1]);
    json_decref(lock[0]), json_decref(lock[1]);
}

static void another_recipe_is_refused(void **state) {
    (void)state;
    static const char *const change[][2] = {
        {"learning_rate=1e-4", "learning_rate"},
        {"global_batch_size=4 micro_batch_size=4", "global_batch_size"},
        {"seed=3", "seed"},
        {"reduction_groups=2", "reduction_groups"},
        {"precision=fp32", "precision"},
        {"master_weights=false", "master_weights"},
        {"model.hidden_size=64", "model"}};
    for (int i = 0; i < COUNT(change); i++) {
        hone(2, "%s %s " RESUME, words(at("whole")), change[i][0]);
        expect(complained(), change[i][1]);
    }
    hone(2, "%s", words(at("whole")));
    expect(complained(), "already holds a run");
    assert_string_equal(final, last_manifest(at("whole")));
}

/* A byte changed in any file of the last checkpoint: verify says so; resuming goes back one
 * checkpoint and gives the same end. */
/* The text that a run tokenised: another one is refused, the same one edited is named, and one that
 * is gone changes nothing. */
static void another_text(void **state) {
    (void)state;
    const char *line = "train %s/full.yaml dataset.0.path=%s/a.txt eval_dataset.0.path=%s/%s "
                       "tokenizer=" TINY_TOKENIZER " max_seq_length=16 eval_steps=2 max_steps=%d "
                       "output_dir=%s/texts " RESUME;
    char words[1024];
    assert_int_equal(0, shell("head -c 3000 " TINY_CORPUS " > %s/a.txt && tail -c 2000 " TINY_CORPUS
                              " > %s/b.txt && cp %s/b.txt %s/c.txt",
                              tiny, tiny, tiny, tiny));
    snprintf(words, sizeof words, line, tiny, tiny, tiny, "b.txt", 2, tiny);
    hone(0, "%s", words);
    snprintf(words, sizeof words, line, tiny, tiny, tiny, "a.txt", 4, tiny);
    hone(2, "%s", words);
    expect(complained(), "eval_dataset: this run was tokenised from b.txt, not from ");
    assert_false(path_exists(at("texts/checkpoints/step-000004")));
    assert_int_equal(0, shell("echo more >> %s/a.txt && rm %s/b.txt", tiny, tiny));
    snprintf(words, sizeof words, line, tiny, tiny, tiny, "b.txt", 4, tiny);
    hone(0, "%s", words);
    expect(complained(), "a.txt was edited after the run began, which goes on with ");
    assert_true(path_exists(at("texts/checkpoints/step-000004")));
}

/* The same of a folder: files of it may come and go, but not all. */
static void another_folder(void **state) {
    (void)state;
    const char *line = "train %s/full.yaml dataset.0.path=%s/%s tokenizer=" TINY_TOKENIZER
                       " max_seq_length=16 max_steps=%d output_dir=%s/notes-run " RESUME;
    char words[1024];
    assert_int_equal(0, shell("cd %s && mkdir notes other && head -c 3000 a.txt > notes/1.md && "
                              "tail -c 2000 a.txt > notes/2.txt && echo x > notes/LICENSE && "
                              "head -c 100 a.txt > other/9.txt",
                              tiny));
    snprintf(words, sizeof words, line, tiny, tiny, "notes", 2, tiny);
    hone(0, "%s", words);
    expect(complained(), "notes: 2 files read, 1 not read: LICENSE");
    expect(complained(), "1.md: 1 row, 1 document");
    hone(0, "inspect %s/notes-run/data/train-0.h5", tiny);
    expect(said(), "2.txt");
    snprintf(words, sizeof words, line, tiny, tiny, "other", 4, tiny);
    hone(2, "%s", words);
    expect(complained(), "dataset: this run was tokenised from 1.md, not from ");
    assert_int_equal(0, shell("cd %s/notes && echo more >> 1.md && echo new > 3.txt", tiny));
    snprintf(words, sizeof words, line, tiny, tiny, "notes", 4, tiny);
    hone(0, "%s", words);
    expect(complained(), "1 were edited, 1 added and 0 removed after the run began");
}

static void a_damaged_checkpoint(void **state) {
    (void)state;
    struct err e = {0};
    char **names;
    i64 count;
    hone(0, "%s", words(at("damaged")));
    assert_int_equal(0, shell("cp -r %s %s", at("damaged"), at("intact")));
    assert_int_equal(0, dir_list(last_of(at("whole")), &names, &count, &e));
    assert_true(count >= 4);
    for (i64 i = 0; i < count; i++) {
        struct text data = {0};
        char run[512], file[1200];
        strcpy(run, at("damaged"));
        assert_int_equal(0, shell("rm -rf %s && cp -r %s %s", run, at("intact"), run));
        snprintf(file, sizeof file, "%s/%s", last_of(run), names[i]);
        assert_int_equal(0, file_read(&data, file, &e));
        data.data[data.size / 2] ^= 1;
        put(file, data.data, data.size);
        text_free(&data);
        const int code = shell("exec ./hone verify %s", run);
        if (code != 1 && code != 2) fail_msg("%s: verify says %d", names[i], code);
        if (strcmp(names[i], "manifest.json")) expect(complained(), names[i]);
        hone(0, "%s " RESUME, words(run));
        same_as_whole(run);
        hone(0, "verify %s --replay --from %d", run, STEPS - EVERY);
    }
    names_free(names, count);
}

static int set_up(void **state) {
    if (tiny_folder(state)) return -1;
    tiny_data();
    tiny_recipe(at("full.yaml"));
    hone(0, "%s", words(at("whole")));
    strcpy(final, last_manifest(at("whole")));
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        {"a_run_and_its_second_half", a_run_and_its_second_half, NULL, NULL, "true"},
        {"the same without masters", a_run_and_its_second_half, NULL, NULL, "false"},
        {"the same with moments in 8 bits", a_run_and_its_second_half, NULL, NULL,
         "true optim=adamw_8bit"},
        {"the same with AMSGrad", a_run_and_its_second_half, NULL, NULL,
         "true optim=adam optim_args=amsgrad=true weight_decay=0.1"},
        {"the same with centered RMSprop", a_run_and_its_second_half, NULL, NULL,
         "true optim=rmsprop optim_args=momentum=0.5,centered=true"},
        {"the same with Adafactor", a_run_and_its_second_half, NULL, NULL,
         "true optim=adafactor optim_args=beta1=0.9"},
        {"the same with Muon", a_run_and_its_second_half, NULL, NULL, "true optim=muon"},
        {"a mixture", a_run_and_its_second_half, NULL, NULL, "true " MIXTURE},
        {"latent attention", a_run_and_its_second_half, NULL, NULL, "true " LATENT},
        cmocka_unit_test(killed_by_the_clock),
        cmocka_unit_test(killed_while_writing),
        cmocka_unit_test(killed_while_syncing),
        cmocka_unit_test(killed_while_renaming),
        cmocka_unit_test(disk_full),
        cmocka_unit_test(told_before_it_trains),
        cmocka_unit_test(told_to_stop),
        cmocka_unit_test(told_how),
        cmocka_unit_test(told_twice),
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(files_of_the_run),
        cmocka_unit_test(links_in_the_run),
        cmocka_unit_test(a_template_from_a_pipe),
        cmocka_unit_test(another_recipe_is_refused),
        cmocka_unit_test(another_text),
        cmocka_unit_test(another_folder),
        cmocka_unit_test(a_damaged_checkpoint),
    };
    return cmocka_run_group_tests_name("resume", tests, set_up, tiny_remove);
}
