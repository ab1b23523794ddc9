/* autograd_int.h: what the files of autograd/ share among themselves. */
#ifndef HONE_AUTOGRAD_INT_H
#define HONE_AUTOGRAD_INT_H

#include "autograd/autograd.h"

static inline bool is_stored(const struct view *v) {
    return v->rank > 0 && view_count(v) > 0;
} /* takes memory */
struct node *graph_node(struct graph *g);        /* appended, empty */
int node_shape(struct graph *g, struct node *n); /* fills n->call */
struct tensor *graph_step_tensor(struct graph *g, const char *name, const struct view *v);
struct tensor *graph_slot(struct graph *g,
                          const struct tensor *param); /* the parameter's next accumulator */

#endif
