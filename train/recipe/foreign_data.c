/* foreign_data.c: what other tools' recipes say by files beside them.
 *
 * LLaMA-Factory's names of data sets: DATASET_DIR/dataset_info.json says of each which file it is,
 * how its columns and roles are called, and how many rows are taken. Where there is no such file, a
 * name is a path like any other. mlx-lm's num_layers: the last layers, of as many as the model's
 * config.json says. */
#include "train/recipe/recipe_int.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static int put_item(struct recipe *r, struct node *item, const char *key, const char *text,
                    struct err *e) {
    struct node *n = text ? node_scalar(&r->arena, text, item->where, e) : NULL;
    if (!n) return -1;
    n->key = key, n->quoted = true;
    return node_put(&r->arena, item, n, e);
}

/* {"messages": "conversations"} as "messages=conversations", behind what `list` has. */
static int put_columns(struct recipe *r, struct node *list, const json_t *of, struct err *e) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)of, key, value) {
        if (!json_is_string(value)) continue;
        const char *text = arena_printf(&r->arena, e, "%s=%s", key, json_string_value(value));
        struct node *n = text ? node_scalar(&r->arena, text, list->where, e) : NULL;
        if (!n || node_append(&r->arena, list, n, e)) return -1;
    }
    return 0;
}

static int refuse(struct recipe *r, const struct node *item, const char *name,
                  enum foreign_kind kind, const char *what, struct err *e) {
    struct node n = *item;
    n.kind = NODE_SCALAR, n.text = name, n.child = NULL;
    foreign_refuse(r, &n, "dataset", kind, what, e);
    return recipe_problem(r, "dataset", e);
}

static int item_info(struct recipe *r, struct node *item, const char *name, const char *dir,
                     const json_t *info, struct err *e) {
    static const char *const seen[] = {"images", "videos", "audios"};
    const json_t *columns = json_object_get(info, "columns");
    const char *file = json_string_value(json_object_get(info, "file_name")),
               *hub = json_string_value(json_object_get(info, "hf_hub_url"));
    for (int i = 0; i < COUNT(seen); i++)
        if (json_object_get(columns, seen[i]))
            return refuse(r, item, name, FOREIGN_VISION, "its rows have images or sound", e);
    if (json_is_true(json_object_get(info, "ranking")) || json_object_get(columns, "kto_tag"))
        return refuse(r, item, name, FOREIGN_OBJECTIVE, "its rows are preferences", e);
    const char *path = file  ? arena_printf(&r->arena, e, "%s/%s", dir, file)
                       : hub ? arena_text(&r->arena, hub, e)
                             : name;
    if (!path || put_item(r, item, "path", path, e)) return -1;
    const json_t *rows = json_object_get(info, "num_samples");
    if (json_is_integer(rows) &&
        put_item(r, item, "rows",
                 arena_printf(&r->arena, e, "[:%lld]", (long long)json_integer_value(rows)), e))
        return -1;
    struct node *list = node_new(&r->arena, NODE_LIST, item->where, e);
    if (!list || put_columns(r, list, columns, e) ||
        put_columns(r, list, json_object_get(info, "tags"), e))
        return -1;
    list->key = "columns";
    return list->child ? node_append(&r->arena, item, list, e) : 0;
}

int foreign_dataset_info(struct recipe *r, struct node *map, const char *key, struct err *e) {
    const struct node *given = node_find(map, "dataset_dir"), *list = node_find(map, key);
    const char *dir = given && given->kind == NODE_SCALAR && *given->text ? given->text : "data";
    char *path = path_join(&r->arena, dir, "dataset_info.json", e);
    if (!path) return -1;
    if (!list || list->kind != NODE_LIST || !path_exists(path)) return 0;
    json_t *all = json_open(path, e);
    int rc = all ? 0 : -1;
    for (struct node *item = list->child; !rc && item; item = item->next) {
        const struct node *name = item->kind == NODE_MAP ? node_find(item, "path") : NULL;
        const json_t *info = name ? json_object_get(all, name->text) : NULL;
        if (json_is_object(info)) rc = item_info(r, item, name->text, dir, info, e);
    }
    json_decref(all);
    return rc;
}

/* How many layers the model has; 0: it is not here. */
static i64 layers_of(struct recipe *r, const struct node *map, struct err *e) {
    const struct node *model = node_find(map, "model");
    if (!model || model->kind != NODE_SCALAR) return 0;
    char *path = path_join(&r->arena, model->text, "config.json", e);
    if (!path || !path_exists(path)) return path ? 0 : -1;
    json_t *config = json_open(path, e);
    const i64 layers = json_integer_value(json_object_get(config, "num_hidden_layers"));
    json_decref(config);
    return config ? layers : -1;
}

int foreign_layers(struct recipe *r, struct node *map, struct err *e) {
    const struct node *given = node_find(map, "num_layers"),
                      *type = node_find(map, "fine_tune_type");
    const bool full = type && type->kind == NODE_SCALAR && !strcmp(type->text, "full");
    const i64 wanted = given && given->kind == NODE_SCALAR && !node_is_null(given)
                           ? atoll(given->text)
                           : 16,
              layers = wanted < 0 ? 0 : layers_of(r, map, e);
    struct node none = {.kind = NODE_SCALAR, .where = map->where, .text = "16"};
    struct node **at = &map->child;
    while (*at && *at != given) at = &(*at)->next;
    if (given) *at = given->next;
    if (layers < 0) return -1;
    if (wanted < 0 || (layers && wanted >= layers)) return 0;
    if (!layers || full) {
        foreign_refuse(r, given ? given : &none, "num_layers",
                       full ? FOREIGN_OBJECTIVE : FOREIGN_OTHER,
                       full ? "only the last layers would be trained"
                            : "only the last layers would have an adapter, and the model, which "
                              "says how many there are, is not here",
                       e);
        err_hint(e, "in the file: model: FOLDER, or num_layers: -1 for all of them");
        return recipe_problem(r, "num_layers", e);
    }
    struct node *list = node_new(&r->arena, NODE_LIST, given ? given->where : map->where, e);
    for (i64 i = layers - wanted; list && i < layers; i++) {
        const char *text = arena_printf(&r->arena, e, "%lld", (long long)i);
        struct node *n = text ? node_scalar(&r->arena, text, list->where, e) : NULL;
        if (!n || node_append(&r->arena, list, n, e)) return -1;
    }
    if (!list) return -1;
    list->key = "lora_layers_to_transform";
    return node_append(&r->arena, map, list, e);
}
