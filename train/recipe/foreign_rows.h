/* foreign_rows.h: short forms of the rows of foreign_keys.c and foreign_tools.c. */
#ifndef HONE_FOREIGN_ROWS_H
#define HONE_FOREIGN_ROWS_H

#include "train/recipe/recipe_int.h"

#define AX TOOL_AXOLOTL
#define LF TOOL_FACTORY
#define TR TOOL_TRL
#define SW TOOL_SWIFT
#define TT TOOL_TORCHTUNE
#define MX TOOL_MLX
#define SAME(tools, key, to, values)                                                               \
    { tools, key, FOREIGN_SAME, to, values }
#define NONE(tools, key, why)                                                                      \
    { tools, key, FOREIGN_NONE, why, NULL }
#define NEAR(tools, key, says)                                                                     \
    { tools, key, FOREIGN_NEAR, says, NULL }
#define REFUSE(tools, key, kind, what, values)                                                     \
    { tools, key, FOREIGN_##kind, what, values }

#define SPEED  "speed and memory only"
#define LOGS   "the log is on the disk: log.jsonl, TensorBoard, csv"
#define HUB    "nothing is down- or uploaded"
#define LOADER "reading needs no workers and no cache"
#define READ   "the model's files say it"
#define RANKS  "several processes are not started"
#define EVAL   "an evaluation has micro_batch_size, and the same loss for any"

#endif
