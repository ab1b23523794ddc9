/* models_int.h: what the files of recipes/models share among themselves. */
#ifndef HONE_MODELS_INT_H
#define HONE_MODELS_INT_H

#include "recipes/models/models.h"

struct param *param_new(struct model *m, const char *name, int rank, const i64 *dim, struct err *e);
void param_free(struct param *p); /* its memory */
void param_set(struct param *p, i64 i, float x);
float param_get(const struct param *p, i64 i);
int param_load(struct param *p, const struct stored *s, const char *where, struct err *e);

#endif
