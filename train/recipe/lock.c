/* lock.c: recipe.lock, what a run was made from.
 *
 * One JSON document (hence also YAML), keys in a fixed order:
 *   "format"       "hone recipe lock 1"
 *   "recipe"       every key, resolved: reading it back gives the same struct recipe
 *   "environment"  {"build": {version, commit, diff, compiler, flags, numerics_version, ...},
 *                   "libraries": {name: version},
 *                   "machine": {cpu, isa, cores, threads, memory_bytes, system}}
 *   "files"        [{"role", "path", "bytes", "sha256"}]: base model, tokenizer, template, data
 *
 * On resume the lock decides what may differ. Bits do not depend on threads, micro-batches or
 * recomputation (NUMERICS.md, R3), so those may; length, saving, logging and evaluation may;
 * everything else would be another run under the same name. A lock that is replaced on resume is
 * kept beside the new one as recipe.lock.XXXXXXXX (the first digits of its SHA-256, which the log's
 * header names in full). */
#include "checkpoints/checkpoints.h"
#include "train/recipe/recipe.h"

#include <jansson.h>
#include <openssl/crypto.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <utf8proc.h>
#include <yaml.h>
#include <zlib.h>
#include <zstd.h>

static const char lock_format[] = "hone recipe lock 1";
static const char version_key[] = "recipe_version"; /* absent: 1, before there were versions */

static int out_of_memory(struct err *e) {
    return err_memory(e, "out of memory while writing recipe.lock");
}

/* ---- environment ----------------------------------------------------------------------------- */
static json_t *build_json(void) {
    json_t *j = json_object();
    for (const char *const *p = build_info; p && p[0] && p[1]; p += 2)
        json_object_set_new(j, p[0], json_string(p[1]));
    return j;
}

/* Not lz4 and snappy: they only decompress here, and a compressed page has one content, whoever
 * reads it. What was read shows in the hashes of the data, whatever the libraries. */
static json_t *libraries_json(void) {
    char pcre2[64] = "", yaml[48];
    int y[3];
    yaml_get_version(&y[0], &y[1], &y[2]);
    snprintf(yaml, sizeof yaml, "%d.%d.%d", y[0], y[1], y[2]);
    pcre2_config(PCRE2_CONFIG_VERSION, pcre2);
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "zstd", ZSTD_versionString(), "pcre2",
                     pcre2, "utf8proc", utf8proc_version(), "jansson", jansson_version_str(),
                     "libyaml", yaml, "openssl", OpenSSL_version(OPENSSL_VERSION), "zlib",
                     zlibVersion());
}

static void cpu_name(char out[128]) {
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(out, 128, "unknown");
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !colon) continue;
        snprintf(out, 128, "%s", colon + 1 + strspn(colon + 1, " \t"));
        out[strcspn(out, "\n")] = 0;
        break;
    }
    if (f) fclose(f);
}

static json_t *machine_json(void) {
    struct utsname system;
    char cpu[128], name[3 * sizeof system.release + 3];
    cpu_name(cpu);
    if (uname(&system))
        strcpy(system.sysname, "unknown"), system.release[0] = system.machine[0] = 0;
    snprintf(name, sizeof name, "%s %s %s", system.sysname, system.release, system.machine);
    json_int_t memory = (json_int_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:s}", "cpu", cpu, "isa", isa_name[isa_now()],
                     "cores", (json_int_t)sysconf(_SC_NPROCESSORS_ONLN), "threads",
                     (json_int_t)pool_threads(), "memory_bytes", memory, "system", name);
}

static json_t *environment_json(struct err *e) {
    json_t *j = json_pack("{s:o, s:o, s:o}", "build", build_json(), "libraries", libraries_json(),
                          "machine", machine_json());
    if (!j) out_of_memory(e);
    return j;
}

/* ---- writing and reading --------------------------------------------------------------------- */
static int keep_old(const char *path, const char old[65], struct err *e) {
    struct text t = {0};
    char *to = mem_printf(e, "%s.%.8s", path, old);
    int rc = !to || file_read(&t, path, e) || file_replace(to, t.data, t.size, e);
    text_free(&t), mem_free(to);
    return rc ? -1 : 0;
}

/* Saves beside the old lock first, so that an unchanged lock stays untouched and a crash leaves one
 * of the two. */
static int save(const json_t *j, const char *path, char sha256[65], struct err *e) {
    char old[65] = "";
    char *fresh = mem_printf(e, "%s.new", path);
    int rc = !fresh || json_save(j, fresh, 2, e) || sha256_file(fresh, sha256, e);
    if (!rc && path_exists(path))
        rc = sha256_file(path, old, e) || (strcmp(old, sha256) && keep_old(path, old, e));
    rc = rc || path_rename(fresh, path, e);
    mem_free(fresh);
    return rc ? -1 : 0;
}

int lock_write(const char *run_dir, const struct recipe *r, const struct lock_files *files,
               char sha256[65], struct err *e) {
    json_t *recipe = recipe_json(r, e), *environment = recipe ? environment_json(e) : NULL;
    if (!environment) return json_decref(recipe), -1;
    json_t *list = files->list ? json_incref(files->list) : json_array();
    json_t *j = json_pack("{s:s, s:o, s:o, s:o}", "format", lock_format, "recipe", recipe,
                          "environment", environment, "files", list);
    char *path = path_join(NULL, run_dir, "recipe.lock", e);
    int rc = !j ? out_of_memory(e) : !path || dir_make(run_dir, e) || save(j, path, sha256, e);
    json_decref(j), mem_free(path);
    return rc ? -1 : 0;
}

/* The whole lock, its shape checked; the caller owns it. */
static json_t *lock_json(const char *path, struct err *e) {
    json_t *j = json_open(path, e);
    if (!j) return NULL;
    const char *format = json_string_value(json_object_get(j, "format"));
    if (!format || strcmp(format, lock_format)) {
        err_input(e, "%s: \"format\" is '%s', expected '%s'", path, format ? format : "missing",
                  lock_format);
    } else if (!json_is_object(json_object_get(j, "recipe")) ||
               !json_is_object(json_object_get(j, "environment")) ||
               !json_is_array(json_object_get(j, "files"))) {
        err_input(e, "%s: \"recipe\", \"environment\" or \"files\" is missing or of the wrong type",
                  path);
    } else {
        json_t *recipe = json_object_get(j, "recipe");
        if (json_object_get(recipe, version_key)) return j;
        if (!json_object_set_new(recipe, version_key, json_integer(1))) return j;
        out_of_memory(e);
    }
    return json_decref(j), NULL;
}

int lock_recipe_version(const char *run_dir, i64 *version, struct err *e) {
    char *path = path_join(NULL, run_dir, "recipe.lock", e);
    json_t *j = path && path_exists(path) ? lock_json(path, e) : NULL;
    if (j)
        *version = json_integer_value(json_object_get(json_object_get(j, "recipe"), version_key));
    json_decref(j), mem_free(path);
    return e->code ? -1 : 0;
}

int lock_template_date(const char *run_dir, struct recipe *r, struct err *e) {
    char *path = path_join(NULL, run_dir, "recipe.lock", e);
    json_t *j = path && path_exists(path) ? lock_json(path, e) : NULL;
    const json_t *date = json_object_get(json_object_get(j, "recipe"), "template_date");
    if (json_is_string(date)) r->template_date = arena_text(&r->arena, json_string_value(date), e);
    json_decref(j), mem_free(path);
    return e->code ? -1 : 0;
}

int lock_read(struct recipe *r, const char *run_dir, char sha256[65], struct err *e) {
    *r = (struct recipe){0};
    char *path = path_join(NULL, run_dir, "recipe.lock", e);
    json_t *j = path ? lock_json(path, e) : NULL;
    int rc = !j || sha256_file(path, sha256, e) ||
             recipe_of_json(r, json_object_get(j, "recipe"), path, e);
    if (!rc) text_free(&r->notes); /* the lock states every key: none was "given without effect" */
    json_decref(j), mem_free(path);
    return rc ? -1 : 0;
}

/* ---- comparison ------------------------------------------------------------------------------ */
static const char *const may_change[] = {
    "max_steps",
    "num_train_epochs",
    "output_dir",
    "logging_steps",
    "eval_steps",
    "eval_batches",
    "save_steps",
    "save_at",
    "save_total_limit",
    "logging_ratio",
    "eval_ratio",
    "save_ratio",
    "evals_per_epoch",
    "saves_per_epoch",
    "eval_strategy",
    "save_strategy",
    "save_only_model",
    "load_best_model_at_end",
    "metric_for_best_model",
    "early_stopping_patience",
    "early_stopping_threshold",
    "loss_watchdog_threshold",
    "loss_watchdog_patience",
    "report_to",
    "sample_prompts",
    "sample_tokens",
    "micro_batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "resume_from_checkpoint",
};

static char *value_text(const json_t *j) {
    return j ? json_dumps(j, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(12))
             : strdup("(unset)");
}

static int compare_key(const char *key, const json_t *old, const json_t *now,
                       const struct recipe *r, struct text *notes, struct err *e) {
    if ((!old && !now) || (old && now && json_equal(old, now))) return 0;
    bool allowed = false;
    for (i64 i = 0; i < COUNT(may_change); i++) allowed |= !strcmp(key, may_change[i]);
    char *a = value_text(old), *b = value_text(now);
    int rc = 0;
    if (!a || !b) {
        rc = out_of_memory(e);
    } else if (allowed) {
        bool bends = (!strcmp(key, "max_steps") || !strcmp(key, "num_train_epochs")) &&
                     strcmp(r->lr_scheduler_type, "constant");
        rc = text_printf(notes, e, "%s: %.200s in the run so far, %.200s from here on%s\n", key, a,
                         b, bends ? "; the learning rate follows the new length" : "");
    } else {
        rc = err_input(e, "cannot resume: '%s' was %.150s when the run began and is %.150s now",
                       key, a, b);
        err_hint(e, "restore the old value, or start a new run with another output_dir");
    }
    free(a), free(b);
    return rc;
}

static int compare_recipes(const json_t *old, const json_t *now, const struct recipe *r,
                           struct text *notes, struct err *e) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)now, key, value) {
        if (compare_key(key, json_object_get(old, key), value, r, notes, e)) return -1;
    }
    json_object_foreach((json_t *)old, key, value) {
        if (!json_object_get(now, key) && compare_key(key, value, NULL, r, notes, e)) return -1;
    }
    return 0;
}

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

/* The part of a path below the run that it lies in; NULL: it lies elsewhere. */
static const char *below(const char *path, const char *run) {
    size_t n = strlen(run);
    while (n && run[n - 1] == '/') n--;
    return n && !strncmp(path, run, n) && path[n] == '/' ? path + n + strspn(path + n, "/") : NULL;
}

/* A run may be renamed and moved. */
static bool same_file(const char *was, const char *old_run, const char *is, const char *now_run) {
    const char *a = below(was, old_run), *b = below(is, now_run);
    return !strcmp(was, is) || (a && b && !strcmp(a, b));
}

static int compare_files(const json_t *old, const char *old_run, const json_t *now,
                         const char *now_run, struct err *e) {
    size_t i, k;
    json_t *was, *is;
    json_array_foreach((json_t *)old, i, was) {
        bool found = carried_is(was);
        json_array_foreach((json_t *)now, k, is) {
            if (found && carried_is(was)) break; /* carried_check says it better */
            if (!same_file(text_of(was, "path"), old_run, text_of(is, "path"), now_run)) continue;
            found = true;
            if (!strcmp(text_of(was, "sha256"), text_of(is, "sha256"))) continue;
            err_input(e, "cannot resume: %s changed since the run began", text_of(is, "path"));
            return err_detail(e, "SHA-256 was %.64s, is %.64s", text_of(was, "sha256"),
                              text_of(is, "sha256"));
        }
        if (!found && json_array_size(now))
            return err_input(e, "cannot resume: %s was part of the run and is not now",
                             text_of(was, "path"));
    }
    return 0;
}

static int compare_environments(const json_t *old, const json_t *now, struct text *notes,
                                struct err *e) {
    const char *part, *key;
    json_t *values, *value;
    json_object_foreach((json_t *)now, part, values) {
        const json_t *before = json_object_get(old, part);
        json_object_foreach(values, key, value) {
            const json_t *was = json_object_get(before, key);
            if (!was || json_equal(was, value)) continue;
            char *a = value_text(was), *b = value_text(value);
            int rc = !a || !b ? out_of_memory(e) : 0;
            if (!rc && !strcmp(key, "numerics_version"))
                rc = err_input(
                    e, "cannot resume: the run uses numerics version %s, this program computes %s",
                    a, b);
            else if (!rc)
                rc = text_printf(notes, e, "%s.%s: %.200s in the run so far, %.200s from here on\n",
                                 part, key, a, b);
            free(a), free(b);
            if (rc) return -1;
        }
    }
    return 0;
}

/* A model that the recipe describes, or a GGUF file trained whole, has its files in the run. */
static bool carries(const json_t *lock) {
    const json_t *recipe = json_object_get(lock, "recipe");
    const char *base = text_of(recipe, "model_name_or_path");
    return json_is_object(json_object_get(recipe, "model")) ||
           (path_is_gguf(base) && !json_is_true(json_object_get(recipe, "use_peft")));
}

int lock_carried(const char *run_dir, int code, struct err *e) {
    char *path = path_join(NULL, run_dir, "recipe.lock", e);
    json_t *j = path ? lock_json(path, e) : NULL;
    const int rc =
        j ? carried_check(run_dir, json_object_get(j, "files"), carries(j), code, e) : -1;
    json_decref(j), mem_free(path);
    return rc;
}

static void keys_fill(json_t *to, const json_t *from) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)from, key, value) {
        if (!json_object_get(to, key)) json_object_set(to, key, value);
    }
}

/* Gives a lock's recipe the keys that there are now: one that it lacks meant its default. */
static int recipe_fill(const json_t *lock, const char *path, struct err *e) {
    static const char *const lists[] = {"dataset", "eval_dataset"};
    struct recipe was;
    json_t *old = json_object_get(lock, "recipe");
    if (recipe_of_json(&was, old, path, e)) return -1;
    json_t *full = recipe_json(&was, e), *item;
    for (int k = 0; k < COUNT(lists) && full; k++) {
        size_t i;
        json_array_foreach(json_object_get(old, lists[k]), i, item)
            keys_fill(item, json_array_get(json_object_get(full, lists[k]), i));
    }
    keys_fill(old, full);
    recipe_free(&was), json_decref(full);
    return full ? 0 : -1;
}

int lock_compare(const char *run_dir, const struct recipe *now, const struct lock_files *files,
                 struct text *notes, struct err *e) {
    char *path = path_join(NULL, run_dir, "recipe.lock", e);
    json_t *old = path ? lock_json(path, e) : NULL, *recipe = old ? recipe_json(now, e) : NULL;
    json_t *environment = recipe ? environment_json(e) : NULL;
    int rc = !environment || recipe_fill(old, path, e) ||
             compare_recipes(json_object_get(old, "recipe"), recipe, now, notes, e) ||
             compare_files(json_object_get(old, "files"),
                           text_of(json_object_get(old, "recipe"), "output_dir"), files->list,
                           now->output_dir, e) ||
             carried_check(run_dir, json_object_get(old, "files"), carries(old), ERR_INPUT, e) ||
             compare_environments(json_object_get(old, "environment"), environment, notes, e);
    json_decref(old), json_decref(recipe), json_decref(environment), mem_free(path);
    return rc ? -1 : 0;
}
