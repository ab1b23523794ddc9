/* foreign_fixture.h: what the tests of other tools' recipes share: reading one, what was told of it
 * and what was refused. */
#ifndef HONE_FOREIGN_FIXTURE_H
#define HONE_FOREIGN_FIXTURE_H

#include "train/recipe/recipe.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include "tests/folder.h"

static char file[128]; /* that was read */

static inline void read_text(struct recipe *r, const char *text, char **words, i64 count) {
    struct err e = {0};
    snprintf(file, sizeof file, "%s/r.yaml", folder);
    if (file_write(file, text, (i64)strlen(text), &e) || recipe_read(r, file, words, count, &e))
        fail_msg("%s", e.primary);
}

/* Loads without a problem. */
static inline void expect(struct recipe *r, const char *text) {
    read_text(r, text, NULL, 0);
    if (r->problem) fail_msg("%s", r->problem->err.primary);
}

static inline const char *told(const struct recipe *r, const char *key) {
    for (const struct told *t = r->told; t; t = t->next)
        if (!strcmp(t->key, key)) return t->why;
    return NULL;
}

static inline bool refused(const struct recipe *r, const char *words) {
    for (const struct problem *p = r->problem; p; p = p->next)
        if (strstr(p->err.primary, words)) return true;
    return false;
}

#define AXOLOTL                                                                                    \
    "base_model: some/model\nmodel_type: LlamaForCausalLM\nload_in_8bit: false\nload_in_4bit: "    \
    "true\nadapter: qlora\nsequence_len: 4096\nsample_packing: true\nlora_r: 32\nlora_alpha: "     \
    "16\nlora_target_linear: true\nlora_model_dir:\nwandb_project:\nwandb_watch:\nvalu:\n"         \
    "num_epochs: 4\nmicro_batch_size: 2\nlearning_rate: 0.0002\ntf32: true\nbf16: auto\n"          \
    "attn_implementation: flash_attention_2\ngradient_checkpointing: offload\n"

#endif
