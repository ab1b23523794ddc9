/* serve.h: a model as a server that programs for OpenAI's HTTP interface can use. */
#ifndef HONE_SERVE_H
#define HONE_SERVE_H

#include "train/engine/engine.h"

struct serve_model { /* what is served; all of it stays the caller's */
    struct loaded *l;
    struct chat *chat;            /* NULL: there is no template, and no conversations */
    const struct ids *stops;      /* ids that end any text besides the model's own */
    const struct text_list *stop; /* texts that do */
    struct sampling usual;        /* what holds where a request says nothing of sampling; */
    struct sampling asked;        /* for what it leaves out where it says something */
    const char *name;             /* what requests call it */
    const char *base;             /* what they call it without its adapter; NULL: not served */
    const char *precision;
};
struct serve_plan {
    const char *listen;  /* HOST:PORT, [HOST]:PORT or unix:PATH; port 0: any that is free */
    const char *api_key; /* NULL: nobody is asked for one */
    i64 kv_memory;       /* bytes of states; 0: 9 tenths of what is left */
    i64 max_requests;    /* texts that are continued at once; */
    i64 max_queue;       /* that wait; */
    i64 max_seq_length;  /* their ids, prompt and answer; 0: the model's positions */
    i64 chunk;           /* ids of prompts in a step */
    i64 max_body, max_connections;
    double timeout; /* seconds that a request may take to arrive, and an answer to leave */
    double grace;   /* seconds that running answers have after SIGINT or SIGTERM */
};
/* Prints where it listens as a line on standard output, and serves until SIGINT or SIGTERM. */
int serve(const struct serve_model *m, const struct serve_plan *plan, struct err *e);

#endif
