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
/* The flags of the training that a shell script starts (recipe_script.c). */
struct node *node_script(struct arena *a, const char *data, i64 size, const char *name,
                         struct err *e);
struct node *node_of_json(struct arena *a, const json_t *j, const char *name, struct err *e);
json_t *node_json(const struct node *n, struct err *e); /* scalars by YAML 1.2's core schema */
bool node_is_null(const struct node *n);

struct key_alias;
/* ---- the sources (recipe_source.c, recipe_alias.c) ------------------------------------------- */
/* The file with its includes and the command line's words, in our spelling; NULL on failure. */
struct node *recipe_source(struct recipe *r, const char *path, char *const *overrides, i64 count,
                           struct err *e);
struct node *recipe_canonical(struct recipe *r, struct node *map, struct err *e); /* our spelling */
/* A key of the design that is not built: an error, unless it is switched off. */
int recipe_refuse_absent(const struct node *n, const char *key, struct err *e);
/* Another spelling becomes ours, with a note; 1: its value has no effect here, and is told. */
int recipe_alias(struct recipe *r, struct node *n, const struct key_alias *k, struct err *e);
/* {momentum: 0.9} as the list of "momentum=0.9". */
int recipe_map_to_list(struct arena *a, struct node *map, struct err *e);
/* "columns.text": kept in r->gathered until the file's other keys are read. */
int recipe_gather(struct recipe *r, struct node *n, struct err *e);
/* A path, a mapping or a list of either as a list of mappings with our keys. */
struct node *recipe_data_list(struct recipe *r, struct node *n, struct err *e);
int recipe_check(struct recipe *r, const char *name, struct err *e); /* recipe_check.c */
int recipe_unknown_key(const char *where, const char *key, const char *nearest, struct err *e);

/* Takes what *e says into r->problem and clears it; -1 where it is no fault of the recipe. */
int recipe_problem(struct recipe *r, const char *key, struct err *e);
/* Is one of these keys, or what is below it, among the problems? */
bool recipe_is_problem(const struct recipe *r, const char *keys);
int recipe_tell(struct recipe *r, const struct node *n, const char *key, const char *why,
                struct err *e);

/* ---- other tools' words (foreign*.c) --------------------------------------------------------- */
enum {
    TOOL_AXOLOTL = 1,
    TOOL_FACTORY = 2,
    TOOL_TRL = 4,
    TOOL_SWIFT = 8,
    TOOL_TORCHTUNE = 16,
    TOOL_MLX = 32
};
enum foreign_kind {
    FOREIGN_SAME, /* our `to`, with `values` as in struct key_alias */
    FOREIGN_NONE, /* no effect here: `to` says why */
    FOREIGN_NEAR, /* another thing is done, which `to` says: a line of its own */
    /* What would change the result and is not here: `to` says what it changes. Off, or one of
     * `values`, it is no matter. */
    FOREIGN_OBJECTIVE,
    FOREIGN_VISION,
    FOREIGN_GPUS,
    FOREIGN_PLUGIN,
    FOREIGN_UNTRAINED, /* nothing would be trained */
    FOREIGN_OTHER
};
struct foreign {
    unsigned tools; /* 0: any */
    /* Of FOREIGN_SAME one, else any number with blanks between; dotted where it is nested;
     * "dataset.KEY": of an item of a list of data */
    const char *key;
    enum foreign_kind kind;
    const char *to, *values;
};
struct tool {
    unsigned bit;
    const char *name;
    const char *marks; /* keys that others do not have */
};
struct tool_default { /* what a tool does where its recipe says nothing, and we do otherwise */
    unsigned tools;
    const char *key, *value; /* ours */
    const char *when;        /* a key of ours that is given, and not false; NULL: always */
};
/* The next word of a list with blanks between; false: there is none. */
enum { WORD_SIZE = 200 };
bool word_next(const char **list, char word[WORD_SIZE]);
extern const struct foreign foreign_keys[], foreign_tool_keys[], foreign_items[];
#define FOREIGN_OPTIMIZERS                                                                         \
    "adamw_torch=adamw adamw_torch_fused=adamw adamw_hf=adamw adamw_apex_fused=adamw "             \
    "paged_adamw_32bit=adamw paged_adamw=adamw adamw_torch_8bit=adamw_8bit "                       \
    "adamw_torch_4bit=adamw_8bit ao_adamw_8bit=adamw_8bit ao_adamw_4bit=adamw_8bit "               \
    "adamw_bnb_8bit=adamw_8bit paged_adamw_8bit=adamw_8bit lion_32bit=lion "                       \
    "paged_lion_32bit=lion lion_pytorch=lion optimi_adamw=adamw *="
#define FOREIGN_REPORTS                                                                            \
    "none=none tensorboard=tensorboard wandb=- mlflow=- swanlab=- comet_ml=- trackio=- "           \
    "neptune=- clearml=- all=tensorboard *="
extern const struct tool foreign_tools[];
extern const struct tool_default foreign_defaults[];
const struct tool *foreign_tool(const struct node *map); /* NULL: a recipe of our own */
const struct foreign *foreign_find(const struct recipe *r, const char *key);
const struct foreign *foreign_item(const struct recipe *r, const char *key); /* "dataset.KEY" */
bool foreign_nested(const struct recipe *r, const char *key); /* are there rows of "KEY.x"? */
/* What a row that is not FOREIGN_SAME means for a value: told, or an error. */
int foreign_apply(struct recipe *r, const struct node *n, const struct foreign *f, struct err *e);
/* "!gpus": an error of that kind. */
int foreign_refuse(const struct recipe *r, const struct node *n, const char *key,
                   enum foreign_kind kind, const char *what, struct err *e);
enum foreign_kind foreign_kind_of(const char *name);
extern const char *const foreign_kind_text[];
/* Maps one value by `values`: 1 mapped (to `ours`), 0 as it is, -1 not among them. */
int foreign_value(struct arena *a, const char *values, const char *text, const char **ours,
                  struct err *e);
/* What a tool's shapes need beyond rows; before and after the keys are ours. */
int foreign_before(struct recipe *r, struct node *map, struct err *e);
/* The same for one entry, from the command line: a list of data written as a text. */
int foreign_word(struct recipe *r, struct node *n, struct err *e);
/* What DATASET_DIR/dataset_info.json says of the items of `key` (foreign_data.c). */
int foreign_dataset_info(struct recipe *r, struct node *map, const char *key, struct err *e);
int foreign_layers(struct recipe *r, struct node *map, struct err *e); /* mlx-lm's num_layers */
int foreign_after(struct recipe *r, struct node *map, struct err *e);

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
/* Another tool's spelling. `values` maps what that tool writes to ours: "theirs=ours ...", where
 * `theirs` may hold `*`. `*=` takes all others as they are, an empty right side means: as if the
 * key were absent, "-": no effect here, "~": the tokenizer's own template, ">KEY:VALUE": of another
 * key (">KEY": as it is), "!KIND": refused as that enum foreign_kind. NULL: values are the same. */
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
