/* recipe_alias.c: a key or value in another spelling becomes ours; items of lists of data. */
#include "train/recipe/recipe_int.h"

#include <string.h>

/* A key of the design that is not built: an error, unless it is switched off. */
int recipe_refuse_absent(const struct node *n, const char *key, struct err *e) {
    for (const struct key_absent *k = recipe_absent; k->key; k++) {
        if (strcmp(k->key, key)) continue;
        const char *text = n->kind == NODE_SCALAR ? n->text : "";
        if (k->value) {
            bool same = !strcmp(text, k->value);
            for (const struct node *c = n->child; c; c = c->next)
                same |= c->kind == NODE_SCALAR && !strcmp(c->text, k->value);
            if (same)
                return err_input(e, "%s: '%s: %s' is not available in this version", n->where, key,
                                 k->value);
        } else if (!node_is_null(n) && strcasecmp(text, "false") && strcasecmp(text, "none") &&
                   strcmp(text, "0")) {
            return err_input(e, "%s: '%s' is not available in this version", n->where, key);
        }
    }
    return 0;
}

/* ---- aliases --------------------------------------------------------------------------------- */
/* "lora, qlora" of "lora=true qlora=true *=" */
static void known_values(const char *values, char *out, size_t size) {
    size_t at = 0;
    *out = 0;
    for (const char *p = values; *p && at < size; p += strcspn(p, " "), p += *p == ' ')
        if (strncmp(p, "*=", 2))
            at += (size_t)snprintf(out + at, size - at, "%s%.*s", at ? ", " : "",
                                   (int)strcspn(p, "="), p);
}

static int no_counterpart(const struct recipe *r, const struct node *n, const struct key_alias *k,
                          const char *ours, struct err *e) {
    char known[400];
    if (ours) return foreign_refuse(r, n, n->key, foreign_kind_of(ours + 1), NULL, e);
    if (recipe_refuse_absent(n, n->key, e)) return -1;
    known_values(k->values, known, sizeof known);
    err_input(e, "%s: '%s: %.100s' has no counterpart", n->where, n->key, n->text);
    err_detail(e, "known values: %s", known);
    return err_hint(e, "write %s's '%s' as hone's '%s'", k->origin, n->key, k->key);
}

/* report_to: [wandb, tensorboard]: each item by itself. */
static int alias_items(struct recipe *r, struct node *list, const struct key_alias *k,
                       struct err *e) {
    for (struct node **at = &list->child; *at;) {
        struct node *n = *at;
        const char *ours = NULL;
        const int mapped =
            n->kind == NODE_SCALAR ? foreign_value(&r->arena, k->values, n->text, &ours, e) : 0;
        n->key = mapped ? list->key : n->key;
        if (mapped < 0 || (mapped && *ours == '!')) return no_counterpart(r, n, k, ours, e);
        if (mapped && !strcmp(ours, "-")) {
            if (recipe_tell(r, n, list->key, "as it is done here", e)) return -1;
            *at = n->next;
            continue;
        }
        if (mapped) n->text = ours, n->key = NULL;
        at = &n->next;
    }
    return 0;
}

int recipe_alias(struct recipe *r, struct node *n, const struct key_alias *k, struct err *e) {
    const char *ours = NULL, *key = k->key, *was = n->kind == NODE_SCALAR ? n->text : "";
    const char *dot = strrchr(k->alias, '.'); /* an item's own "dataset.type" is `type` */
    if (k->values && n->kind == NODE_SCALAR && !node_is_null(n)) {
        const int mapped = foreign_value(&r->arena, k->values, n->text, &ours, e);
        if (mapped < 0 || (mapped && *ours == '!')) return no_counterpart(r, n, k, ours, e);
        if (mapped && !strcmp(ours, "-"))
            return recipe_tell(r, n, n->key, "as it is done here", e) ? -1 : 1;
        if (mapped && !strcmp(ours, "~")) {
            if (text_printf(&r->notes, e,
                            "%s: '%s: %s' (%s) is read as the tokenizer's own template\n", n->where,
                            n->key, n->text, k->origin))
                return -1;
            return recipe_tell(r, n, n->key, "the tokenizer's own template", e) ? -1 : 1;
        }
        if (mapped && *ours == '>') { /* of another key: ">KEY:VALUE", ">KEY": as it is */
            const char *colon = strchr(ours, ':');
            const int size = (int)strcspn(ours + 1, ":");
            if (!(key = arena_printf(&r->arena, e, "%.*s", size, ours + 1))) return -1;
            ours = colon ? colon + 1 : n->text;
        }
        if (mapped) n->text = ours, n->quoted = false;
    }
    if (k->values && n->kind == NODE_LIST) {
        const bool given = n->child != NULL;
        if (alias_items(r, n, k, e)) return -1;
        if (given && !n->child) return 1;
    }
    const bool renamed = strcmp(k->alias, key) && (!dot || strcmp(dot + 1, key));
    if (!node_is_null(n) && (renamed || (ours && strcmp(ours, was))) &&
        text_printf(&r->notes, e, "%s: '%s' (%s) is read as '%s%s%s'\n", n->where, n->key,
                    k->origin, key, ours ? ": " : "", ours ? ours : ""))
        return -1;
    n->key = key;
    return 0;
}

/* "columns.text": an entry of a mapping of ours, which file_canonical puts where it belongs. */
int recipe_gather(struct recipe *r, struct node *n, struct err *e) {
    const char *dot = strchr(n->key, '.');
    const char *top = arena_printf(&r->arena, e, "%.*s", (int)(dot - n->key), n->key);
    if (!top || (!r->gathered && !(r->gathered = node_new(&r->arena, NODE_MAP, n->where, e))))
        return -1;
    struct node *map = node_find(r->gathered, top);
    if (!map) {
        if (!(map = node_new(&r->arena, NODE_MAP, n->where, e))) return -1;
        map->key = top;
        if (node_append(&r->arena, r->gathered, map, e)) return -1;
    }
    n->key = dot + 1;
    return node_put(&r->arena, map, n, e);
}

/* optim_args: {momentum: 0.9} as the list of "momentum=0.9". */
int recipe_map_to_list(struct arena *a, struct node *map, struct err *e) {
    for (struct node *n = map->child; n; n = n->next) {
        if (n->kind != NODE_SCALAR) continue; /* refused where it is bound */
        if (!(n->text = arena_printf(a, e, "%s=%s", n->key, n->text))) return -1;
        n->key = NULL;
    }
    map->kind = NODE_LIST;
    return 0;
}

/* ---- items of lists of data ------------------------------------------------------------------ */
/* "train[:1%]", as Hugging Face writes it: the rows of a part, which is what the path given is. */
static int item_split(struct recipe *r, struct node *item, struct node *n, struct err *e) {
    const char *slice = n->kind == NODE_SCALAR ? strchr(n->text, '[') : NULL;
    if (!slice) return recipe_tell(r, n, n->key, "the path given is that part", e);
    struct node *rows = node_scalar(&r->arena, slice, n->where, e);
    if (!rows) return -1;
    rows->key = "rows", rows->quoted = true;
    return node_put(&r->arena, item, rows, e);
}

/* "columns.messages": an entry OURS=THEIRS of the item's list of columns. */
static int item_column(struct recipe *r, struct node *item, struct node *n, struct err *e) {
    struct node *list = node_find(item, "columns");
    if (!list) {
        if (!(list = node_new(&r->arena, NODE_LIST, n->where, e))) return -1;
        list->key = "columns";
        if (node_append(&r->arena, item, list, e)) return -1;
    }
    if (list->kind == NODE_MAP && recipe_map_to_list(&r->arena, list, e)) return -1;
    const char *text = arena_printf(&r->arena, e, "%s=%s", strchr(n->key, '.') + 1, n->text);
    struct node *pair = text ? node_scalar(&r->arena, text, n->where, e) : NULL;
    return pair ? node_append(&r->arena, list, pair, e) : -1;
}

static int item_key(struct recipe *r, struct node *item, struct node *n, const char *key,
                    struct err *e) {
    const bool own = option_find(data_item_options, n->key) != NULL;
    const struct foreign *f = foreign_item(r, key);
    if (own && f && f->kind != FOREIGN_SAME && (!r->tools || r->local)) f = NULL;
    if (r->tools && !strcmp(key, "dataset.split") &&
        (!r->local || (n->kind == NODE_SCALAR && strchr(n->text, '['))))
        return item_split(r, item, n, e);
    if (f && node_is_null(n)) return recipe_tell(r, n, key, "empty", e);
    if (f) n->key = key;
    if (f && f->kind != FOREIGN_SAME) return foreign_apply(r, n, f, e);
    if (f) {
        const struct key_alias k = {key, f->to, f->values, r->tool ? r->tool : "other tools"};
        const int rc = recipe_alias(r, n, &k, e);
        if (rc) return rc < 0 ? -1 : 0;
        if (strchr(n->key, '.') && n->kind == NODE_SCALAR) return item_column(r, item, n, e);
    }
    const struct node *before = node_find(item, n->key);
    if (before && n->kind == NODE_SCALAR && !strcmp(before->text, n->text)) return 0;
    return node_append(&r->arena, item, n, e);
}

/* path: json, data_files: FILE is that FILE; path: FOLDER, data_files: FILE is FOLDER/FILE. */
static int item_files(struct recipe *r, struct node *item, struct err *e) {
    static const char *const kinds[] = {"json", "csv", "parquet", "text", "arrow"};
    struct node *files = node_find(item, "data_files"), *path = node_find(item, "path");
    const struct node *one = files && files->kind == NODE_LIST ? files->child : files;
    if (!one || one->kind != NODE_SCALAR || one->next != (one == files ? files->next : NULL))
        return 0;
    bool whole = !path || path->kind != NODE_SCALAR;
    for (int i = 0; !whole && i < COUNT(kinds); i++) whole = !strcmp(path->text, kinds[i]);
    const char *text =
        whole ? one->text : arena_printf(&r->arena, e, "%s/%s", path->text, one->text);
    struct node **at = &item->child,
                *n = text ? node_scalar(&r->arena, text, files->where, e) : NULL;
    if (!n) return -1;
    while (*at != files) at = &(*at)->next;
    *at = files->next;
    n->key = "path";
    return node_put(&r->arena, item, n, e);
}

static int item_keys(struct recipe *r, struct node *item, struct err *e) {
    if (item_files(r, item, e)) return -1;
    const struct node *path = node_find(item, "path"); /* a repository that is here has parts */
    r->local = path && path->kind == NODE_SCALAR && path_is_dir(path->text);
    struct node *n = item->child, *next;
    item->child = NULL;
    for (; n; n = next) {
        next = n->next, n->next = NULL;
        const char *key = arena_printf(&r->arena, e, "dataset.%s", n->key);
        if (!key) return -1;
        if (n->kind == NODE_MAP && !foreign_item(r, key) && strcmp(n->key, "columns")) {
            for (struct node *c = n->child, *after; c; c = after) {
                after = c->next, c->next = NULL;
                const char *inner = arena_printf(&r->arena, e, "%s.%s", key, c->key);
                if (!inner) return -1;
                if (!foreign_item(r, inner)) c->key = inner + strlen("dataset.");
                if (item_key(r, item, c, inner, e) && recipe_problem(r, inner, e)) return -1;
            }
        } else if (item_key(r, item, n, key, e) && recipe_problem(r, key, e)) {
            return -1;
        }
    }
    return 0;
}

/* dataset: PATH, or one mapping, or a list of either: always a list of mappings. */
struct node *recipe_data_list(struct recipe *r, struct node *n, struct err *e) {
    struct arena *a = &r->arena;
    struct node *list = n, *item = n;
    if (n->kind != NODE_LIST) {
        if (!(list = node_new(a, NODE_LIST, n->where, e))) return NULL;
        list->key = n->key, list->child = n, item->key = NULL;
        n->next = NULL;
    }
    for (struct node **at = &list->child; (item = *at); at = &(*at)->next) {
        if (item->kind == NODE_MAP && item->child && item_keys(r, item, e)) return NULL;
        struct node *columns = item->kind == NODE_MAP ? node_find(item, "columns") : NULL;
        if (columns && columns->kind == NODE_MAP && recipe_map_to_list(a, columns, e)) return NULL;
        if (item->kind != NODE_SCALAR) continue;
        struct node *map = node_new(a, NODE_MAP, item->where, e);
        if (!map) return NULL;
        map->next = item->next, map->child = item;
        item->key = "path", item->next = NULL;
        *at = map;
    }
    return list;
}
