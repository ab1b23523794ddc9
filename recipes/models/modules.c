/* modules.c: finding a module in the list. */
#include "recipes/models/models_int.h"

struct module *model_module(const struct model *m, i64 layer, const struct module_type *type) {
    const struct module_range r = m->range[layer + 1];
    for (i64 i = r.first; i < r.first + r.count; i++)
        if (m->module[i].type == type) return &m->module[i];
    return NULL;
}
