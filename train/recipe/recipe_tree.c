/* recipe_tree.c: a recipe's text as a tree of values that know where they were written.
 *
 * libyaml parses; we copy its document into an arena because its nodes share aliased values
 * (`*name`), may even contain themselves, and know no file. The copy is bounded in depth and count,
 * so that neither a cycle nor a bomb of aliases can grow without end. Rejected: binding straight
 * from parser events, because overrides, includes and aliases all want to change values before they
 * are bound. */
#include "train/recipe/recipe_int.h"

#include <yaml.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 16, NODES_MAX = 10000, BYTES_MAX = 1 << 20, DIRECTIVES_MAX = 1000 };

struct node *node_new(struct arena *a, enum node_kind kind, const char *where, struct err *e) {
    struct node *n = arena_new(a, sizeof *n, e);
    if (n) n->kind = kind, n->where = where;
    return n;
}

struct node *node_scalar(struct arena *a, const char *text, const char *where, struct err *e) {
    struct node *n = node_new(a, NODE_SCALAR, where, e);
    if (n) n->text = text;
    return n;
}

/* ---- many entries ---------------------------------------------------------------------------- */
/* Where the value of a key is, or belongs, in a table of `slots`, a power of two. */
static struct node **key_slot(struct node **table, size_t slots, const char *key) {
    u64 hash = 14695981039346656037u; /* FNV-1a */
    for (const char *k = key; *k; k++) hash = (hash ^ (u8)*k) * 1099511628211u;
    while (table[hash & (slots - 1)] && strcmp(table[hash & (slots - 1)]->key, key)) hash++;
    return &table[hash & (slots - 1)];
}

/* The index with room for one more; each time it is full it doubles. */
static int index_grow(struct arena *a, struct node *n, struct err *e) {
    struct node_index *x = n->index;
    if (x->count < x->capacity) return 0;
    const i64 capacity = i64_max(16, 2 * x->capacity);
    struct node **item = arena_new(a, capacity * (i64)sizeof *item, e), **slot = NULL;
    const size_t slots = n->kind == NODE_MAP ? 2 * (size_t)capacity : 0;
    if (!item || (slots && !(slot = arena_new(a, (i64)(slots * sizeof *slot), e)))) return -1;
    for (i64 i = 0; i < x->count; i++) {
        item[i] = x->item[i];
        if (slots) *key_slot(slot, slots, item[i]->key) = item[i];
    }
    x->item = item, x->capacity = capacity, x->slot = slot, x->slots = slots;
    return 0;
}

static int index_add(struct arena *a, struct node *n, struct node *child, struct err *e) {
    if (index_grow(a, n, e)) return -1;
    struct node_index *x = n->index;
    x->item[x->count++] = child;
    if (x->slot) *key_slot(x->slot, x->slots, child->key) = child;
    return 0;
}

int node_prepare(struct arena *a, struct node *n, struct err *e) {
    if (n->index || n->kind == NODE_SCALAR) return 0;
    if (!(n->index = arena_new(a, sizeof *n->index, e))) return -1;
    for (struct node *c = n->child; c; c = c->next)
        if (index_add(a, n, c, e)) return -1;
    return 0;
}

struct node *node_find(const struct node *map, const char *key) {
    const struct node_index *x = map->index;
    if (x) return x->count ? *key_slot(x->slot, x->slots, key) : NULL;
    for (struct node *c = map->child; c; c = c->next)
        if (c->key && !strcmp(c->key, key)) return c;
    return NULL;
}

int node_append(struct arena *a, struct node *parent, struct node *child, struct err *e) {
    const struct node_index *x = parent->index;
    struct node **end = x && x->count ? &x->item[x->count - 1]->next : &parent->child;
    while (*end) end = &(*end)->next;
    *end = child, child->next = NULL;
    return x ? index_add(a, parent, child, e) : 0;
}

int node_put(struct arena *a, struct node *map, struct node *child, struct err *e) {
    struct node *old = node_find(map, child->key), *next = old ? old->next : NULL;
    if (!old) return node_append(a, map, child, e);
    *old = *child, old->next = next;
    return 0;
}

bool node_is_null(const struct node *n) {
    return n->kind == NODE_SCALAR && !n->quoted &&
           (!*n->text || !strcmp(n->text, "~") || !strcasecmp(n->text, "null"));
}

/* ---- YAML ------------------------------------------------------------------------------------ */
struct copy {
    struct arena *a;
    yaml_document_t *doc;
    const char *name;
    i64 count;
    struct err *e;
};

static struct node *copy_node(struct copy *c, int id, int depth);

static struct node *copy_scalar(struct copy *c, const yaml_node_t *y, const char *where) {
    const char *text = (const char *)y->data.scalar.value;
    if (strlen(text) != y->data.scalar.length)
        return err_input(c->e, "%s: a value holds a zero byte", where), NULL;
    struct node *n = node_new(c->a, NODE_SCALAR, where, c->e);
    if (!n || !(n->text = arena_text(c->a, text, c->e))) return NULL;
    n->quoted = y->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    return n;
}

static struct node *copy_pair(struct copy *c, struct node **table, size_t slots,
                              const yaml_node_pair_t *pair, int depth) {
    struct node *key = copy_node(c, pair->key, depth + 1);
    if (!key) return NULL;
    if (key->kind != NODE_SCALAR)
        return err_input(c->e, "%s: a key must be a plain word", key->where), NULL;
    struct node **slot = key_slot(table, slots, key->text);
    if (*slot)
        return err_input(c->e, "%s: duplicate key '%s', already given at %s", key->where, key->text,
                         (*slot)->where),
               NULL;
    struct node *value = copy_node(c, pair->value, depth + 1);
    if (!value) return NULL;
    value->key = key->text, value->where = key->where;
    return *slot = value;
}

static int copy_map(struct copy *c, struct node *map, const yaml_node_t *y, int depth) {
    const yaml_node_pair_t *p = y->data.mapping.pairs.start, *end = y->data.mapping.pairs.top;
    struct node **last = &map->child;
    size_t slots = 4;
    while (slots < 2 * (size_t)(end - p)) slots *= 2;
    struct node **table = mem_new_array((i64)slots, sizeof(struct node *), c->e);
    for (; table && p < end; p++, last = &(*last)->next)
        if (!(*last = copy_pair(c, table, slots, p, depth))) break;
    mem_free(table);
    return table && p == end ? 0 : -1;
}

static struct node *copy_node(struct copy *c, int id, int depth) {
    const yaml_node_t *y = yaml_document_get_node(c->doc, id);
    const char *where = arena_printf(c->a, c->e, "%s:%zu", c->name, y->start_mark.line + 1);
    if (!where) return NULL;
    if (++c->count > NODES_MAX || depth > DEPTH_MAX) {
        err_input(c->e, "%s: too many or too deeply nested values", where);
        return err_detail(c->e, "at most %d values, %d levels deep", NODES_MAX, DEPTH_MAX), NULL;
    }
    if (y->type == YAML_SCALAR_NODE) return copy_scalar(c, y, where);
    struct node *n =
        node_new(c->a, y->type == YAML_MAPPING_NODE ? NODE_MAP : NODE_LIST, where, c->e);
    if (!n) return NULL;
    if (y->type == YAML_MAPPING_NODE) return copy_map(c, n, y, depth) ? NULL : n;
    const yaml_node_item_t *p = y->data.sequence.items.start, *end = y->data.sequence.items.top;
    for (struct node **last = &n->child; p < end; p++, last = &(*last)->next)
        if (!(*last = copy_node(c, *p, depth + 1))) return NULL;
    return n;
}

static int yaml_error(const yaml_parser_t *p, const char *name, struct err *e) {
    if (p->error == YAML_MEMORY_ERROR) return err_memory(e, "%s: out of memory", name);
    if (p->error == YAML_READER_ERROR)
        return err_input(e, "%s: byte %zu: %s", name, p->problem_offset, p->problem);
    return err_input(e, "%s:%zu:%zu: %s%s%s", name, p->problem_mark.line + 1,
                     p->problem_mark.column + 1, p->problem ? p->problem : "malformed YAML",
                     p->context ? ", " : "", p->context ? p->context : "");
}

/* Goes over the events first. libyaml looks at every open bracket for every token, compares every
 * anchor with all before it, and every %TAG line too, so its document would cost a power of its
 * size before we saw it. Its events come one by one: we stop at the first that is too much. */
static int yaml_bounded(const char *data, i64 size, const char *name, struct err *e) {
    i64 count = 0, depth = 0, directives = 0;
    for (i64 i = 0; i < size; i++)
        if (data[i] == '%' && (!i || data[i - 1] == '\n') && ++directives > DIRECTIVES_MAX)
            return err_input(e, "%s: more than %d lines that begin with %%", name, DIRECTIVES_MAX);
    yaml_parser_t parser;
    yaml_event_t event;
    if (!yaml_parser_initialize(&parser)) return err_memory(e, "%s: out of memory", name);
    yaml_parser_set_input_string(&parser, (const unsigned char *)data, (size_t)size);
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    bool going = true;
    while (going && yaml_parser_parse(&parser, &event)) {
        const yaml_event_type_t type = event.type;
        const bool opens = type == YAML_SEQUENCE_START_EVENT || type == YAML_MAPPING_START_EVENT;
        if (type == YAML_SEQUENCE_END_EVENT || type == YAML_MAPPING_END_EVENT) depth--;
        if (opens) depth++;
        if (opens || type == YAML_SCALAR_EVENT || type == YAML_ALIAS_EVENT) count++;
        if (count > NODES_MAX || depth > DEPTH_MAX + 1) {
            err_input(e, "%s:%zu: too many or too deeply nested values", name,
                      event.start_mark.line + 1);
            err_detail(e, "at most %d values, %d levels deep", NODES_MAX, DEPTH_MAX);
        }
        going = type != YAML_STREAM_END_EVENT && !e->code;
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser); /* what is malformed, the loader says */
    return e->code ? -1 : 0;
}

struct node *node_yaml(struct arena *a, const char *data, i64 size, const char *name,
                       struct err *e) {
    if (size > BYTES_MAX)
        return err_input(e, "%s: %lld bytes are no recipe: at most %d", name, (long long)size,
                         BYTES_MAX),
               NULL;
    if (yaml_bounded(data, size, name, e)) return NULL;
    yaml_parser_t parser;
    yaml_document_t doc, more;
    struct node *n = NULL;
    if (!yaml_parser_initialize(&parser)) return err_memory(e, "%s: out of memory", name), NULL;
    yaml_parser_set_input_string(&parser, (const unsigned char *)data, (size_t)size);
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    if (!yaml_parser_load(&parser, &doc)) {
        yaml_error(&parser, name, e);
        yaml_parser_delete(&parser);
        return NULL;
    }
    struct copy c = {.a = a, .doc = &doc, .name = name, .e = e};
    if (yaml_document_get_root_node(&doc)) {
        n = copy_node(&c, 1, 0);
        if (n && !yaml_parser_load(&parser, &more)) {
            yaml_error(&parser, name, e), n = NULL;
        } else if (n) {
            const yaml_node_t *second = yaml_document_get_root_node(&more);
            if (second) {
                err_input(e, "%s:%zu: a second YAML document", name, second->start_mark.line + 1);
                err_detail(e, "a recipe is one document"), n = NULL;
            }
            yaml_document_delete(&more);
        }
    } else {
        err_input(e, "%s: empty", name);
    }
    yaml_document_delete(&doc);
    yaml_parser_delete(&parser);
    return n;
}

/* ---- JSON ------------------------------------------------------------------------------------ */
/* [+-]digits[.digits][e[+-]digits]: 1 for an integer, 2 for another number, 0 for neither. */
static int number_kind(const char *s) {
    int kind = 1, digits = 0;
    if (*s == '+' || *s == '-') s++;
    for (; *s >= '0' && *s <= '9'; s++) digits++;
    if (*s == '.') {
        kind = 2;
        for (s++; *s >= '0' && *s <= '9'; s++) digits++;
    }
    if (!digits) return 0;
    if (*s == 'e' || *s == 'E') {
        kind = 2, s++;
        if (*s == '+' || *s == '-') s++;
        if (*s < '0' || *s > '9') return 0;
        while (*s >= '0' && *s <= '9') s++;
    }
    return *s ? 0 : kind;
}

static json_t *scalar_json(const struct node *n, struct err *e) {
    if (n->quoted) return json_string(n->text);
    if (node_is_null(n)) return json_null();
    if (!strcasecmp(n->text, "true")) return json_true();
    if (!strcasecmp(n->text, "false")) return json_false();
    int kind = number_kind(n->text);
    if (!kind) return json_string(n->text);
    errno = 0;
    long long i = kind == 1 ? strtoll(n->text, NULL, 10) : 0;
    json_t *j = kind == 1 && !errno ? json_integer(i) : json_real(strtod(n->text, NULL));
    if (!j) err_input(e, "%s: '%s' is too large a number", n->where, n->text);
    return j;
}

json_t *node_json(const struct node *n, struct err *e) {
    json_t *j = n->kind == NODE_SCALAR ? scalar_json(n, e)
                : n->kind == NODE_MAP  ? json_object()
                                       : json_array();
    if (!j) return err_input(e, "%s: not UTF-8, or out of memory", n->where), NULL;
    for (const struct node *c = n->child; c; c = c->next) {
        json_t *value = node_json(c, e);
        if (!value || (n->kind == NODE_MAP ? json_object_set_new(j, c->key, value)
                                           : json_array_append_new(j, value))) {
            err_input(e, "%s: not UTF-8, or out of memory", c->where);
            return json_decref(j), NULL;
        }
    }
    return j;
}

struct node *node_of_json(struct arena *a, const json_t *j, const char *name, struct err *e) {
    struct node *n = node_new(a,
                              json_is_object(j)  ? NODE_MAP
                              : json_is_array(j) ? NODE_LIST
                                                 : NODE_SCALAR,
                              name, e);
    if (!n) return NULL;
    struct node **last = &n->child;
    size_t i;
    const char *key;
    json_t *value;
    if (json_is_object(j)) {
        json_object_foreach((json_t *)j, key, value) {
            struct node *c = node_of_json(a, value, name, e);
            if (!c || !(c->key = arena_text(a, key, e))) return NULL;
            *last = c, last = &c->next;
        }
    } else if (json_is_array(j)) {
        json_array_foreach(j, i, value) {
            struct node *c = node_of_json(a, value, name, e);
            if (!c) return NULL;
            *last = c, last = &c->next;
        }
    } else {
        n->quoted = json_is_string(j);
        n->text = json_is_string(j) ? arena_text(a, json_string_value(j), e)
                  : json_is_integer(j)
                      ? arena_printf(a, e, "%lld", (long long)json_integer_value(j))
                  : json_is_real(j)  ? arena_printf(a, e, "%.17g", json_real_value(j))
                  : json_is_true(j)  ? "true"
                  : json_is_false(j) ? "false"
                                     : "";
        if (!n->text) return NULL;
    }
    return n;
}
