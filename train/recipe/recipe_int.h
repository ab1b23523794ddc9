/* recipe_int.h: what the recipe's files share. */
#ifndef HONE_RECIPE_INT_H
#define HONE_RECIPE_INT_H

#include "train/recipe/recipe.h"

/* ---- the tree (recipe_tree.c): YAML and JSON with the place each value came from ------------- */
enum node_kind { NODE_SCALAR, NODE_LIST, NODE_MAP };
struct node {
    enum node_kind kind;
    bool quoted;       /* a scalar written in quotes is text, whatever it looks like */
    const char *where; /* "recipe.yaml:12", "command line" */
    const char *key;   /* in its map; NULL in a list */
    const char *text;  /* of a scalar */
    struct node *child, *next;
    struct node_index { /* NULL: not asked for */
        struct node **item;
        i64 count, capacity;
        struct node **slot; /* of a map, by key */
        size_t slots;
    } * index;
};
struct node *node_new(struct arena *a, enum node_kind kind, const char *where, struct err *e);
struct node *node_scalar(struct arena *a, const char *text, const char *where,
                         struct err *e); /* keeps `text` */
struct node *node_find(const struct node *map, const char *key);
/* Once a list or map has an index, entries are found and added in constant time, and only the two
 * functions after it may change which there are. */
int node_prepare(struct arena *a, struct node *n, struct err *e);
int node_append(struct arena *a, struct node *parent, struct node *child, struct err *e);
int node_put(struct arena *a, struct node *map, struct node *child,
             struct err *e); /* replaces the child of the same key, in its place */
struct node *node_yaml(struct arena *a, const char *data, i64 size, const char *name,
                       struct err *e);
struct node *node_of_json(struct arena *a, const json_t *j, const char *name, struct err *e);
json_t *node_json(const struct node *n, struct err *e); /* scalars by YAML 1.2's core schema */
bool node_is_null(const struct node *n);

/* ---- the sources (recipe_source.c) ----------------------------------------------------------- */
/* The file with its includes and the command line's words, in our spelling; NULL on failure. */
struct node *recipe_source(struct recipe *r, const char *path, char *const *overrides, i64 count,
                           struct err *e);
struct node *recipe_canonical(struct recipe *r, struct node *map, struct err *e); /* our spelling */
int recipe_unknown_key(const char *where, const char *key, const char *nearest, struct err *e);

/* ---- the rows (recipe_keys.c) ---------------------------------------------------------------- */
extern const struct option data_item_options[];
struct key_help { /* keys that are no single value */
    const char *key, *type, *help;
};
extern const struct key_help recipe_structured[];
struct key_section {
    const char *first_key, *title;
};
extern const struct key_section recipe_sections[];
/* Another tool's spelling. `values` maps what that tool writes to ours: "theirs=ours ...", `*=`
 * takes all others as they are, an empty right side means: as if the key were absent. NULL: values
 * are the same. */
struct key_alias {
    const char *alias, *key, *values, *origin;
};
extern const struct key_alias recipe_aliases[];
/* Part of hone's design and not built yet: refused by name. `value` NULL: the key itself. */
struct key_absent {
    const char *key, *value;
};
extern const struct key_absent recipe_absent[];

#endif
