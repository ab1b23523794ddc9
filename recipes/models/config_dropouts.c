/* config_dropouts.c: the dropouts that a config.json asks for, which transformers applies in
 * training and hone does not: attention's would lie within the fused kernels, and a part of them
 * alone would be another model than either. */
#include "recipes/models/models.h"

#include <jansson.h>
#include <string.h>

static const struct {
    const char *key, *families; /* model types, each between spaces; NULL: all */
    double otherwise;           /* of the family's class, where a published file leaves it out */
} dropouts[] = {{"attention_dropout", NULL, 0},
                {"attn_pdrop", " gpt2 ", 0.1},
                {"resid_pdrop", " gpt2 ", 0.1},
                {"embd_pdrop", " gpt2 ", 0.1},
                {"resid_pdrop", " phi phi3 ", 0},
                {"embd_pdrop", " phi phi3 ", 0},
                {"hidden_dropout", " bloom falcon gpt_neox stablelm ", 0}};

int config_dropouts(const json_t *config, const struct family *f, bool published,
                    struct text *names, struct err *e) {
    const json_t *text = json_object_get(config, "text_config");
    char type[64];
    snprintf(type, sizeof type, " %.60s ", f->model_type);
    for (int i = 0; i < COUNT(dropouts); i++) {
        if (dropouts[i].families && !strstr(dropouts[i].families, type)) continue;
        const json_t *own = json_object_get(config, dropouts[i].key),
                     *value = own ? own : json_object_get(text, dropouts[i].key);
        const double x = json_is_number(value) ? json_number_value(value)
                         : !value && published ? dropouts[i].otherwise
                                               : 0;
        if (x > 0 && text_printf(names, e, "%s%s %g", names->size ? ", " : "", dropouts[i].key, x))
            return -1;
    }
    return 0;
}
