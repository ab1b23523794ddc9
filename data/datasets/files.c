/* files.c: which files a path means: a file, a glob, a folder, a downloaded dataset repository. */
#include "data/datasets/card.h"
#include <string.h>

/* A folder of the hub's cache: the data set is a revision in it, which takes its place. */
static int revision_find(struct data_files *f, char **folder, struct err *e) {
    char path[4200];
    const i64 count = hub_snapshots(*folder, path, sizeof path);
    if (!count) return 0;
    if (count > 1) {
        err_input(e, "'%s' is a cache of the hub with %lld revisions", *folder, (long long)count);
        return err_hint(e, "name one: %s", path);
    }
    if (text_printf(&f->note, e, "note: %s: what is read is %s\n", *folder, path)) return -1;
    mem_free(*folder);
    return (*folder = mem_text(path, e)) ? 0 : -1;
}

/* One file, or those of a glob, are cut into training and validation; they have no other parts. */
static int split_check(const char *path, const char *split, struct err *e) {
    if (!split || !strcmp(split, "train") || !strcmp(split, "validation")) return 0;
    err_input(e, "'%s' has no split '%s'", path, split);
    return err_detail(e, "a file can be cut into train and validation");
}

int data_files_find(struct data_files *f, const char *path, const char *config, const char *split,
                    struct err *e) {
    *f = (struct data_files){0};
    const bool there = path_exists(path), folder = path_is_dir(path);
    if (folder) {
        size_t size = strlen(path); /* as many slashes as there may be behind it */
        while (size > 1 && path[size - 1] == '/') size--;
        char *plain = mem_printf(e, "%.*s", (int)size, path);
        if (plain && revision_find(f, &plain, e)) return mem_free(plain), -1;
        int rc = plain ? card_files(f, plain, config, split, e) : -1;
        if (rc == CARD_NONE) rc = folder_files(f, plain, split, e);
        return mem_free(plain), rc;
    }
    if (config)
        return err_input(e, "'%s' is no dataset repository: it has no configuration '%s'", path,
                         config);
    if (split_check(path, split, e)) return -1;
    if (!there && glob_mark(path)) return glob_files(f, path, e);
    const char *slash = strrchr(path, '/');
    if (data_file_add(f, ".", path, e)) return -1;
    if (!slash) return 0;
    mem_free(f->item->name);
    f->item->name = mem_text(slash + 1, e);
    return f->item->name ? 0 : -1;
}
