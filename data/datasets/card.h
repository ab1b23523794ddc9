/* card.h: what files.c, card.c and folder.c share: files of a folder, and what its README.md says
 * of them. */
#ifndef HONE_CARD_H
#define HONE_CARD_H

#include "data/datasets/datasets_int.h"

/* ---- folder.c */
int data_file_add(struct data_files *f, const char *folder, const char *name, struct err *e);
const char *glob_mark(const char *path); /* its first *, ? or [, or NULL */
/* Adds the files that a path with such marks means, in order; none is an error. */
int glob_files(struct data_files *f, const char *path, struct err *e);
/* Adds the files of a folder: by their kind, and by words of their names those of a split. */
int folder_files(struct data_files *f, const char *folder, const char *split, struct err *e);
/* Adds the files that a pattern (a file, a folder, a glob) names in a folder; perhaps none. */
int pattern_files(struct data_files *f, const char *folder, const char *pattern, struct err *e);

/* ---- card.c */
enum { CARD_NONE = 1 }; /* the folder's README.md says nothing of data files */
int card_files(struct data_files *f, const char *folder, const char *config, const char *split,
               struct err *e);

#endif
