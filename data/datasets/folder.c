/* folder.c: the files of a folder: those of a pattern, those of its one kind, those of a split.
 *
 * Files come in the order of their names, byte by byte, so every machine reads the same. A folder
 * is read as the `datasets` library would: all files of its one kind, and, where names or folders
 * say train, validation or test, only those of the split that is asked for. What is left out is
 * said. Two kinds of rows in one folder are most likely the same data twice: that is an error.
 * Hidden files are not data. Links to folders are not followed, so no walk comes back to where it
 * was. */
#include "data/datasets/card.h"
#include <ctype.h>
#include <fnmatch.h>
#include <string.h>
#include <sys/stat.h>

enum { DEPTH = 16, FILES = 1000000, NAMED = 3 };

void data_files_free(struct data_files *f) {
    for (i64 i = 0; i < f->count; i++) mem_free(f->item[i].path), mem_free(f->item[i].name);
    mem_free(f->item);
    text_free(&f->note);
    *f = (struct data_files){0};
}

int data_file_add(struct data_files *f, const char *folder, const char *name, struct err *e) {
    if (f->count == FILES) return err_input(e, "%s: more than %d files", folder, FILES);
    if (f->count == f->room) {
        const i64 more = f->room ? 2 * f->room : 16, size = (i64)sizeof *f->item;
        struct data_file *grown = mem_grow(f->item, f->room * size, more * size, e);
        if (!grown) return -1;
        f->item = grown, f->room = more;
    }
    const bool here = !strcmp(folder, ".");
    struct data_file *to = &f->item[f->count];
    to->path = here ? mem_text(name, e) : path_join(NULL, folder, name, e);
    to->name = mem_text(name, e);
    if (to->path && to->name) return f->count++, 0;
    return mem_free(to->path), mem_free(to->name), -1;
}

/* ---- walks and globs ------------------------------------------------------------------------- */

static bool link_to_folder(const char *path) {
    struct stat st;
    return !lstat(path, &st) && S_ISLNK(st.st_mode) && path_is_dir(path);
}

/* All files at most `depth` folders below FOLDER/INNER, whose names begin with INNER ("" or "x/").
 */
static int walk(struct data_files *f, const char *folder, const char *inner, int depth,
                struct err *e) {
    char **names, *path = *inner ? path_join(NULL, folder, inner, e) : mem_text(folder, e);
    i64 count;
    if (!path || dir_list(path, &names, &count, e)) return mem_free(path), -1;
    int rc = 0;
    for (i64 i = 0; !rc && i < count; i++) {
        if (names[i][0] == '.') continue;
        char *name = mem_printf(e, "%s%s", inner, names[i]),
             *full = name ? path_join(NULL, folder, name, e) : NULL;
        const bool is_folder = full && path_is_dir(full);
        rc = full ? 0 : -1;
        if (is_folder && depth > 0 && !link_to_folder(full)) {
            char *next = mem_printf(e, "%s/", name);
            rc = next ? walk(f, folder, next, depth - 1, e) : -1;
            mem_free(next);
        } else if (full && !is_folder)
            rc = data_file_add(f, folder, name, e);
        mem_free(name), mem_free(full);
    }
    names_free(names, count), mem_free(path);
    return rc;
}

/* Does a path match, part by part? ** is any number of folders. */
static bool matches(const char *pattern, const char *path) {
    const char *slash = strchr(pattern, '/'), *next = strchr(path, '/');
    const size_t size = slash ? (size_t)(slash - pattern) : strlen(pattern);
    if (size == 2 && !memcmp(pattern, "**", 2)) {
        if (!slash) return true;
        for (const char *at = path; at; at = strchr(at, '/'), at = at ? at + 1 : NULL)
            if (matches(slash + 1, at)) return true;
        return false;
    }
    char one[256], other[256];
    const size_t length = next ? (size_t)(next - path) : strlen(path);
    if (!slash != !next || size >= sizeof one || length >= sizeof other) return false;
    memcpy(one, pattern, size), one[size] = 0, memcpy(other, path, length), other[length] = 0;
    return !fnmatch(one, other, FNM_PERIOD) && (!slash || matches(slash + 1, next + 1));
}

/* The files of `folder` that match: found as `f`'s, in their order. */
static int glob_in(struct data_files *f, const char *folder, const char *pattern, struct err *e) {
    struct data_files all = {0};
    int depth = 0;
    for (const char *p = pattern; depth < DEPTH && (p = strchr(p, '/')); p++) depth++;
    if (!path_is_dir(folder)) return 0;
    int rc = walk(&all, folder, "", strstr(pattern, "**") ? DEPTH : depth, e);
    for (i64 i = 0; !rc && i < all.count; i++)
        if (matches(pattern, all.item[i].name)) rc = data_file_add(f, folder, all.item[i].name, e);
    data_files_free(&all);
    return rc;
}

const char *glob_mark(const char *path) { return strpbrk(path, "*?["); }

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct data_file *)a)->name, ((const struct data_file *)b)->name);
}

static void sort(struct data_files *f) {
    if (f->count) qsort(f->item, (size_t)f->count, sizeof *f->item, by_name);
}

int glob_files(struct data_files *f, const char *path, struct err *e) {
    const char *mark = glob_mark(path), *slash = memrchr(path, '/', (size_t)(mark - path));
    char *folder = !slash          ? mem_text(".", e)
                   : slash == path ? mem_text("/", e)
                                   : mem_printf(e, "%.*s", (int)(slash - path), path);
    int rc = folder ? glob_in(f, folder, slash ? slash + 1 : path, e) : -1;
    mem_free(folder);
    sort(f);
    if (rc || f->count) return rc;
    err_input(e, "%s: no file matches", path);
    return err_hint(e, "quote the pattern so that the shell leaves it as it is");
}

/* ---- folders --------------------------------------------------------------------------------- */

/* Files beside data: tables of what a folder holds (datasets, LLaMA-Factory), and models. */
static bool is_about(const char *name) {
    static const char *const about[] = {"dataset_info.json",
                                        "dataset_infos.json",
                                        "dataset_dict.json",
                                        "state.json",
                                        "config.json",
                                        "generation_config.json",
                                        "tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "adapter_config.json",
                                        "vocab.json",
                                        "preprocessor_config.json",
                                        "model.safetensors.index.json"};
    const char *slash = strrchr(name, '/'), *last = slash ? slash + 1 : name;
    for (int i = 0; i < COUNT(about); i++)
        if (!strcmp(last, about[i])) return true;
    return false;
}

static enum source_form form_in(const struct data_file *f) {
    return is_about(f->name) ? FORM_NONE : source_form(f->path);
}

static const struct {
    const char *word, *split;
} words[] = {{"train", "train"},      {"training", "train"}, {"validation", "validation"},
             {"valid", "validation"}, {"dev", "validation"}, {"val", "validation"},
             {"test", "test"},        {"testing", "test"},   {"eval", "test"},
             {"evaluation", "test"}};

/* The split that a word of the name says, "" if none does. Words end where letters do. */
static const char *split_of(const char *name) {
    for (const char *p = name; *p;) {
        size_t n = 0;
        while (isalnum((unsigned char)p[n])) n++;
        for (int i = 0; i < COUNT(words); i++)
            if (strlen(words[i].word) == n && !strncasecmp(p, words[i].word, n))
                return words[i].split;
        p += n + !n;
    }
    return "";
}

static bool split_is(const struct data_file *f, const char *split) {
    return !strcmp(split_of(f->name), split);
}

/* "a, b, c and 4 more" of the files that `from` has and `f` has not. */
static int left_out(struct data_files *f, const char *folder, const struct data_files *from,
                    struct err *e) {
    i64 k = 0, out = 0;
    struct text names = {0};
    int rc = 0;
    for (i64 i = 0; !rc && i < from->count; i++) {
        while (k < f->count && by_name(&f->item[k], &from->item[i]) < 0) k++;
        if (k < f->count && !by_name(&f->item[k], &from->item[i])) continue;
        if (out++ < NAMED)
            rc = text_printf(&names, e, "%s%.100s", out > 1 ? ", " : "", from->item[i].name);
    }
    if (!rc && out)
        rc = text_printf(&f->note, e, "%s: %lld file%s read, %lld not read: %s", folder,
                         (long long)f->count, f->count == 1 ? "" : "s", (long long)out, names.data);
    if (!rc && out > NAMED)
        rc = text_printf(&f->note, e, " and %lld more", (long long)(out - NAMED));
    if (!rc && out) rc = text_add(&f->note, "\n", 1, e);
    text_free(&names);
    return rc;
}

static int nothing(const char *folder, const struct data_files *all, struct err *e) {
    err_input(e, "'%s' is a folder without data files", folder);
    err_detail(e, "known are .jsonl, .json, .csv, .tsv, .parquet, .txt and .md");
    for (i64 i = 0; i < all->count; i++)
        if (ends_with(all->item[i].name, ".arrow"))
            return err_hint(e, "it was saved by save_to_disk; load it there and write it with "
                               "Dataset.to_parquet or to_json");
    return -1;
}

static int kinds_wrong(const char *folder, const i64 count[], struct err *e) {
    static const char *const name[] = {NULL, ".txt", ".json", ".csv", ".tsv", ".parquet"};
    struct text list = {0};
    for (int i = FORM_JSON; i <= FORM_PARQUET; i++)
        if (count[i] &&
            text_printf(&list, e, "%s%lld %s", list.size ? ", " : "", (long long)count[i], name[i]))
            break;
    err_input(e, "'%s' holds files of several kinds: %s", folder, list.size ? list.data : "");
    text_free(&list);
    err_detail(e, "they may be the same data, twice");
    return err_hint(e, "name those to be read, for instance '%s/*.jsonl'", folder);
}

/* Of files of one kind, those of a split. */
static int split_files(struct data_files *f, const char *folder, const struct data_files *all,
                       enum source_form kind, const char *split, struct err *e) {
    const char *wanted = split ? split : "train", *take = NULL;
    i64 has = 0, train = 0, validation = 0, plain = 0;
    for (i64 i = 0; i < all->count; i++) {
        if (form_in(&all->item[i]) != kind) continue;
        has += split_is(&all->item[i], wanted), train += split_is(&all->item[i], "train");
        validation += split_is(&all->item[i], "validation"), plain += split_is(&all->item[i], "");
    }
    f->named = split && has, f->has_split = f->named && (validation || strcmp(wanted, "train"));
    if (strcmp(wanted, "train") && !has && strcmp(wanted, "validation"))
        return err_input(e, "'%s' has no files of a split '%s'", folder, wanted);
    if (strcmp(wanted, "train") && has)
        take = wanted;
    else
        take = train ? "train" : "";
    if (!*take && !plain)
        return err_input(e, "'%s' has files of validation or test alone, and none to train on",
                         folder),
               err_hint(e, "name those to be read, for instance '%s/*'", folder);
    for (i64 i = 0; i < all->count; i++)
        if (form_in(&all->item[i]) == kind && split_is(&all->item[i], take) &&
            data_file_add(f, folder, all->item[i].name, e))
            return -1;
    return 0;
}

int folder_files(struct data_files *f, const char *folder, const char *split, struct err *e) {
    struct data_files all = {0};
    i64 count[FORM_PARQUET + 1] = {0};
    int kinds = 0, rc = walk(&all, folder, "", DEPTH, e);
    enum source_form kind = FORM_TEXT;
    sort(&all);
    for (i64 i = 0; i < all.count; i++) count[form_in(&all.item[i])]++;
    for (int i = FORM_JSON; i <= FORM_PARQUET; i++)
        if (count[i]) kinds++, kind = (enum source_form)i;
    if (!rc && kinds > 1)
        rc = kinds_wrong(folder, count, e);
    else if (!rc && !kinds && !count[FORM_TEXT])
        rc = nothing(folder, &all, e);
    else if (!rc && kinds)
        rc = split_files(f, folder, &all, kind, split, e);
    for (i64 i = 0; !rc && !kinds && i < all.count; i++) /* texts: words in names mean nothing */
        if (form_in(&all.item[i]) == FORM_TEXT) rc = data_file_add(f, folder, all.item[i].name, e);
    if (!rc) rc = left_out(f, folder, &all, e);
    data_files_free(&all);
    return rc;
}

int pattern_files(struct data_files *f, const char *folder, const char *pattern, struct err *e) {
    char *path = path_join(NULL, folder, pattern, e);
    const i64 before = f->count;
    if (!path) return -1;
    int rc = 0;
    if (path_is_dir(path)) {
        char *all = mem_printf(e, "%s%s**", pattern, ends_with(pattern, "/") ? "" : "/");
        rc = all ? glob_in(f, folder, all, e) : -1;
        mem_free(all);
    } else if (path_exists(path))
        rc = data_file_add(f, folder, pattern, e);
    else if (glob_mark(pattern))
        rc = glob_in(f, folder, pattern, e);
    mem_free(path);
    if (f->count > before)
        qsort(f->item + before, (size_t)(f->count - before), sizeof *f->item, by_name);
    return rc;
}
