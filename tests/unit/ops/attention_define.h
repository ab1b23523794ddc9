/* attention_define.h: attention and its gradients as attention.c defines them, as plain loops over
 * single numbers; problems to compute; shared by test_attention.c. */
#ifndef HONE_ATTENTION_DEFINE_H
#define HONE_ATTENTION_DEFINE_H

#include "ops/ops.h"

enum { DO, Q, K, V, O, LSE, BEGIN, LAST, SLOPES, SINKS, DQ, DK, DV, DSINK, PAGES, SEQUENCE, VIEWS };
struct problem {
    struct attention_attr attr;
    struct view view[VIEWS]; /* up to SLOPES in the order of attention_back's inputs */
};
static inline i64 value_dim(const struct problem *p) {
    return p->attr.value_dim ? p->attr.value_dim : p->attr.head_dim;
}

float get(const struct view *v, i64 i);
static inline i32 *ints(const struct view *v) { return v->data; }
/* Zero or, if it is of floats, random by `stream`. */
void view_make(struct view *v, enum dtype d, int rank, i64 rows, i64 cols, u32 stream);
/* Documents of the given length, the training form; for caches, begin and last are set after. */
struct problem problem_make(struct attention_attr a, enum dtype d, i64 queries, i64 keys,
                            i64 document);
/* Sinks in the problem's dtype (2: in f32), and slopes. */
void problem_extend(struct problem *p, int sinks, bool slopes);
void problem_free(struct problem *p);
void define_forward(struct problem *p);  /* O and LSE */
void define_backward(struct problem *p); /* the gradients, from O and LSE */

#endif
