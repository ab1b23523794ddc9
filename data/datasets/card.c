/* card.c: the front matter of a dataset repository's README.md: which files make which split.
 *
 *     ---
 *     configs:
 *     - config_name: default
 *       data_files:
 *       - split: train
 *         path: data/train-*
 *     ---
 *
 * https://huggingface.co/docs/hub/datasets-manual-configuration. data_files may also be a
 * pattern, a list of them, or a mapping of splits to them; data_dir is a folder that they are
 * relative to. What the front matter says besides (licence, language) is of no concern here. */
#include "data/datasets/card.h"
#include <string.h>
#include <yaml.h>

enum { FRONT_MATTER = 1 << 20, SPLITS = 256 };

struct card {
    yaml_document_t yaml;
    const char *folder, *config, *split;
    struct data_files *files;
    struct text names; /* of what there is, for messages */
};

/* ---- YAML ------------------------------------------------------------------------------------ */

static yaml_node_t *node_at(struct card *c, yaml_node_item_t i) {
    return yaml_document_get_node(&c->yaml, i);
}

static const char *scalar(const yaml_node_t *n) {
    return n && n->type == YAML_SCALAR_NODE ? (const char *)n->data.scalar.value : NULL;
}

static yaml_node_t *member(struct card *c, const yaml_node_t *map, const char *key) {
    if (!map || map->type != YAML_MAPPING_NODE) return NULL;
    const yaml_node_pair_t *p = map->data.mapping.pairs.start, *end = map->data.mapping.pairs.top;
    for (; p < end; p++) {
        const char *name = scalar(node_at(c, p->key));
        if (name && !strcmp(name, key)) return node_at(c, p->value);
    }
    return NULL;
}

static bool is_list(const yaml_node_t *n) { return n && n->type == YAML_SEQUENCE_NODE; }
static i64 items(const yaml_node_t *n) {
    return is_list(n) ? n->data.sequence.items.top - n->data.sequence.items.start : 0;
}
static yaml_node_t *item(struct card *c, const yaml_node_t *n, i64 i) {
    return node_at(c, n->data.sequence.items.start[i]);
}

static int card_wrong(const struct card *c, const char *what, struct err *e) {
    err_input(e, "%s/README.md: %s", c->folder, what);
    return err_hint(e, "name the files to be read, for instance '%s/data/*.parquet'", c->folder);
}

/* ---- patterns -------------------------------------------------------------------------------- */

static int pattern_add(struct card *c, const char *dir, const char *pattern, struct err *e) {
    char *path = dir ? path_join(NULL, dir, pattern, e) : mem_text(pattern, e), *at = path;
    if (!path) return -1;
    int rc = 0;
    while (!strncmp(at, "./", 2)) at += 2;
    if (strstr(at, "://") || *at == '/' || !strcmp(at, "..") || !strncmp(at, "../", 3) ||
        strstr(at, "/../") || ends_with(at, "/..")) {
        err_input(e, "%s/README.md: '%s' is not in the folder", c->folder, pattern);
        rc = err_hint(e, "download what it names, and name the files that are here");
    }
    const i64 before = c->files->count;
    if (!rc) rc = pattern_files(c->files, c->folder, at, e);
    if (!rc && c->files->count == before) {
        err_input(e, "%s/README.md names '%s', and no file here matches", c->folder, at);
        rc = err_hint(e, "download the whole repository, or name the files that are here");
    }
    return mem_free(path), rc;
}

/* A pattern or a list of them. */
static int patterns_add(struct card *c, const char *dir, const yaml_node_t *n, struct err *e) {
    if (scalar(n)) return pattern_add(c, dir, scalar(n), e);
    for (i64 i = 0; i < items(n); i++) {
        const char *one = scalar(item(c, n, i));
        if (!one) return card_wrong(c, "a path of data_files is no text", e);
        if (pattern_add(c, dir, one, e)) return -1;
    }
    return items(n) ? 0 : card_wrong(c, "a path of data_files is missing", e);
}

/* ---- splits ---------------------------------------------------------------------------------- */

struct split_of {
    const char *name;
    const yaml_node_t *paths;
};

/* The splits that data_files names; one without a name is train. -1: an error. */
static i64 splits_of(struct card *c, const yaml_node_t *n, struct split_of out[SPLITS],
                     struct err *e) {
    i64 count = 0;
    const bool maps = items(n) && item(c, n, 0)->type == YAML_MAPPING_NODE;
    if (scalar(n) || (is_list(n) && !maps)) return out[0] = (struct split_of){"train", n}, 1;
    if (n->type == YAML_MAPPING_NODE) {
        const yaml_node_pair_t *p = n->data.mapping.pairs.start;
        for (; p < n->data.mapping.pairs.top && count < SPLITS; p++)
            out[count++] = (struct split_of){scalar(node_at(c, p->key)), node_at(c, p->value)};
    } else
        for (i64 i = 0; i < items(n) && count < SPLITS; i++) {
            const char *name = scalar(member(c, item(c, n, i), "split"));
            out[count++] =
                (struct split_of){name ? name : "train", member(c, item(c, n, i), "path")};
        }
    for (i64 i = 0; i < count; i++)
        if (!out[i].name || !out[i].paths)
            return card_wrong(c, "a split of data_files has no name or no path", e);
    if (count < SPLITS) return count;
    return card_wrong(c, "data_files has too many splits", e);
}

static int split_missing(const struct card *c, const char *wanted, const struct split_of *s,
                         i64 count, struct err *e) {
    struct text names = {0};
    for (i64 i = 0; i < count; i++)
        if (text_printf(&names, e, "%s%.60s", i ? ", " : "", s[i].name)) break;
    err_input(e, "%s/README.md has no split '%s'", c->folder, wanted);
    err_detail(e, "it has: %s", names.size ? names.data : "none");
    text_free(&names);
    return err_hint(e, "give split: one of these, or name the files");
}

static i64 split_named(const struct split_of *s, i64 count, const char *name) {
    for (i64 i = 0; i < count; i++)
        if (!strcmp(s[i].name, name)) return i;
    return -1;
}

static int splits_note(struct card *c, const struct split_of *s, i64 count, i64 taken,
                       struct err *e) {
    struct text *to = &c->files->note;
    if (count < 2) return 0;
    if (text_printf(to, e, "%s: split %s of README.md, %lld file%s; not read:", c->folder,
                    s[taken].name, (long long)c->files->count, c->files->count == 1 ? "" : "s"))
        return -1;
    for (i64 i = 0, shown = 0; i < count; i++)
        if (i != taken && text_printf(to, e, "%s %.60s", shown++ ? "," : "", s[i].name)) return -1;
    return text_add(to, "\n", 1, e);
}

static int splits_take(struct card *c, const char *dir, const yaml_node_t *n, struct err *e) {
    struct split_of s[SPLITS];
    const i64 count = splits_of(c, n, s, e);
    const char *wanted = c->split ? c->split : "train";
    if (count < 0) return -1;
    i64 taken = split_named(s, count, wanted);
    const bool validation = split_named(s, count, "validation") >= 0;
    c->files->named = c->split && taken >= 0;
    c->files->has_split = c->files->named && (validation || strcmp(wanted, "train"));
    if (taken < 0 && !strcmp(wanted, "validation")) taken = split_named(s, count, "train");
    if (taken < 0) return split_missing(c, wanted, s, count, e);
    return patterns_add(c, dir, s[taken].paths, e) || splits_note(c, s, count, taken, e) ? -1 : 0;
}

/* ---- configurations -------------------------------------------------------------------------- */

static const char *config_name(struct card *c, const yaml_node_t *n) {
    const char *name = scalar(member(c, n, "config_name"));
    return name ? name : "default";
}

/* The one that is wanted; else that which is default, or the only one. */
static const yaml_node_t *config_find(struct card *c, const yaml_node_t *list, struct err *e) {
    const yaml_node_t *found = items(list) == 1 && !c->config ? item(c, list, 0) : NULL;
    for (i64 i = 0; i < items(list) && !found; i++) {
        const yaml_node_t *one = item(c, list, i);
        const char *name = config_name(c, one), *is = scalar(member(c, one, "default"));
        const bool marked = is && (!strcmp(is, "true") || !strcmp(is, "True"));
        if (c->config ? !strcmp(name, c->config) : marked) found = one;
        if (text_printf(&c->names, e, "%s%.60s", i ? ", " : "", name)) return NULL;
    }
    for (i64 i = 0; i < items(list) && !found && !c->config; i++)
        if (!strcmp(config_name(c, item(c, list, i)), "default")) found = item(c, list, i);
    if (found) return found;
    if (c->config)
        err_input(e, "%s/README.md has no configuration '%s'", c->folder, c->config);
    else
        err_input(e, "%s/README.md has several configurations, and none is the default", c->folder);
    err_detail(e, "it has: %s", c->names.size ? c->names.data : "none");
    err_hint(e, "give name: one of these");
    return NULL;
}

static int config_take(struct card *c, const yaml_node_t *list, struct err *e) {
    if (!is_list(list)) return card_wrong(c, "configs is no list", e);
    const yaml_node_t *config = config_find(c, list, e);
    if (!config) return -1;
    if (config->type != YAML_MAPPING_NODE) return card_wrong(c, "a configuration is no mapping", e);
    const yaml_node_t *data = member(c, config, "data_files");
    const char *dir = scalar(member(c, config, "data_dir"));
    if (data) return splits_take(c, dir, data, e);
    if (!dir) return folder_files(c->files, c->folder, c->split, e);
    char *inner = path_join(NULL, c->folder, dir, e);
    const int rc = !inner ? -1
                   : path_is_dir(inner) && !strstr(dir, "..")
                       ? folder_files(c->files, inner, c->split, e)
                       : card_wrong(c, "data_dir is no folder in it", e);
    return mem_free(inner), rc;
}

/* ---- the file -------------------------------------------------------------------------------- */

/* What lies between the first line, ---, and the next of these. 1: found, 0: none. */
static bool front_matter(const struct text *file, const char **from, i64 *size) {
    const char *data = file->data;
    if (file->size < 4 || strncmp(data, "---", 3) || (data[3] != '\n' && data[3] != '\r'))
        return false;
    const char *end = memmem(data + 3, (size_t)file->size - 3, "\n---", 4);
    if (!end) return false;
    *from = data + 4, *size = i64_max(0, end + 1 - *from);
    return true;
}

static int card_read(struct card *c, const char *data, i64 size, struct err *e) {
    yaml_parser_t parser;
    if (size > FRONT_MATTER) return card_wrong(c, "its front matter is too long", e);
    if (!yaml_parser_initialize(&parser)) return err_memory(e, "out of memory");
    yaml_parser_set_input_string(&parser, (const u8 *)data, (size_t)size);
    int rc = CARD_NONE;
    if (!yaml_parser_load(&parser, &c->yaml)) {
        err_input(e, "%s/README.md:%zu: its front matter is not valid YAML: %s", c->folder,
                  parser.problem_mark.line + 2, parser.problem ? parser.problem : "out of memory");
        yaml_parser_delete(&parser);
        return err_hint(e, "name the files to be read, for instance '%s/data/*'", c->folder);
    }
    yaml_parser_delete(&parser);
    const yaml_node_t *configs = member(c, yaml_document_get_root_node(&c->yaml), "configs");
    if (configs) rc = config_take(c, configs, e);
    yaml_document_delete(&c->yaml);
    return rc;
}

int card_files(struct data_files *f, const char *folder, const char *config, const char *split,
               struct err *e) {
    struct card c = {.folder = folder, .config = config, .split = split, .files = f};
    struct text file = {0};
    const char *from;
    i64 size;
    char *path = path_join(NULL, folder, "README.md", e);
    int rc = path ? CARD_NONE : -1;
    if (path && path_exists(path) && !path_is_dir(path)) {
        if (file_read(&file, path, e))
            rc = -1;
        else if (front_matter(&file, &from, &size))
            rc = card_read(&c, from, size, e);
    }
    text_free(&file), text_free(&c.names), mem_free(path);
    if (rc == CARD_NONE && config)
        return err_input(e, "'%s' has no configurations: its README.md names none", folder);
    return rc;
}
