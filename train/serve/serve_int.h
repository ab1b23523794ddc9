/* serve_int.h: what the files of train/serve share. */
#ifndef HONE_SERVE_INT_H
#define HONE_SERVE_INT_H

#include "train/serve/serve.h"

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>

/* ---- errors as clients get them (refusal.c) */
struct refusal {
    int status; /* HTTP's; 0: none */
    char param[64], message[1200];
};
/* -1. `param` (may be NULL): the field that is wrong. */
int refuse(struct refusal *r, int status, const char *param, const char *fmt, ...) PRINTF(4, 5);
/* 503 where memory ran out, 400 for bad input, else 500. */
int refuse_err(struct refusal *r, const char *param, const struct err *e);
/* In OpenAI's form. */
int refusal_json(const struct refusal *r, struct text *out, struct err *e);

/* ---- probabilities (scores.c) */
enum { SCORES_TOP = 100 };
struct score { /* of one id, given all before it */
    double own;
    int top;
    u32 id[SCORES_TOP]; /* the most likely, the lower id first among equals */
    double value[SCORES_TOP];
};
struct scores { /* of a text's ids in order. Zero-initialise, but for `top`; scores_free */
    int top;    /* how many of the most likely are kept */
    i64 count, room;
    double *own; /* [room] NAN until the id is known */
    u32 *id;     /* [room][top] */
    double *value;
};
/* log sum exp of the logits, in f64, ascending. */
double scores_norm(const float *logits, i64 vocab);
int scores_add(struct scores *s, const float *logits, i64 vocab, double norm, struct err *e);
void scores_get(const struct scores *s, i64 i, struct score *out);
void scores_free(struct scores *s);

/* ---- the thread that owns the engine (worker.c) */
enum { SERVE_SPARE = 64 << 20 }; /* bytes of the machine that no new text may take */
enum part_state { PART_WAITS, PART_RUNS, PART_ENDED };
enum part_end { END_STOP, END_LENGTH, END_CANCELLED, END_WRONG };
struct part { /* one text; the request's thread makes it, the engine's runs it */
    struct ids prompt;
    struct sampling how;
    i64 lane;    /* which engine: 0, or 1: without the adapter */
    bool scored; /* its ids get probabilities, */
    bool echoed; /* those of the prompt too */
    int top;
    /* the engine's thread: */
    struct sequence q;
    i64 asked; /* ids of the request's prompt; a text that began anew has its answer there too */
    const float *logits;
    double norm;
    struct part *next;
    /* under the worker's lock: */
    enum part_state state;
    enum part_end end;
    bool cancelled;
    struct ids out;
    struct scores scores; /* of the ids after the first of the prompt, or of the answer's */
    struct err err;
    struct job *job;
};
struct job {
    struct part *part;
    i64 count;
    pthread_cond_t news; /* under the worker's lock, as: */
    i64 changes, ended;
};
struct worker_counts {
    i64 requests, prompt_tokens, tokens, waiting, running, refused, cancelled, failed;
    struct engine_count engine;
};
struct worker {
    struct serve_plan plan;
    struct model *model;
    struct engine *engine[2];
    i64 lanes, positions; /* positions: of a text at most */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work;
    bool started, stopping;
    struct part *first, *last; /* that wait */
    struct part **running;     /* [2 max_requests] in the order in which they came */
    i64 runs;
    struct worker_counts counts;
};
int worker_start(struct worker *w, const struct serve_model *m, const struct serve_plan *plan,
                 struct err *e);
void worker_stop(struct worker *w); /* also after a failure; what still runs is cancelled */
/* Parts are filled in, their arrays the caller's until job_free. */
int job_submit(struct worker *w, struct job *j, struct refusal *r);
/* Waits, but not long, for news after `seen` changes; how many there were. */
i64 job_wait(struct worker *w, struct job *j, i64 seen);
void part_cancel(struct worker *w, struct part *p);
void job_free(struct worker *w, struct job *j); /* cancels what runs, and waits for that */
struct worker_counts worker_counted(struct worker *w);

/* ---- what a request says (request.c, messages.c) */
struct prompt {
    struct text text; /* rendered or given; of ids: none */
    struct ids ids;
};
struct request { /* zero-initialise; request_free also after a failure */
    bool chat, stream, usage, echo, scored, split;
    int top;
    i64 n, lane;
    struct sampling how;
    struct ids stops;
    struct text_list stop;
    struct prompt *prompt;
    i64 prompts;
    const char *model;
    struct arena arena;
};
/* Of a JSON object; fields that are not known or cannot be followed are refused by name. */
int request_read(struct request *q, const struct serve_model *m, i64 positions, const json_t *j,
                 bool chat, struct refusal *r);
void request_free(struct request *q);
/* The prompt of "messages", "tools", "chat_template_kwargs" of j. */
int messages_render(const struct serve_model *m, const json_t *j, bool prompt, struct text *out,
                    struct refusal *r);
/* Refuses keys of j that are not among `known` (ends with NULL). */
int keys_known(const json_t *j, const char *const *known, struct refusal *r);

/* ---- thoughts (thought.c) */
struct thought {    /* parts of an answer, of which nothing will change */
    i64 begin, end; /* what was thought */
    i64 said_begin, said_end;
};
/* `inside`: the prompt ended within <think>; `whole`: nothing follows. */
struct thought thought_of(const char *text, i64 size, bool inside, bool whole);
bool thought_open(const char *prompt, i64 size);

/* ---- answers (answer.c, logprobs.c, answer_json.c) */
struct teller { /* the text of a part, as its ids come */
    struct part *part;
    const struct prompt *prompt;
    struct stream stream;
    struct ids ids;           /* of the answer */
    i64 taken;                /* that the stream has */
    bool ended, told, inside; /* told: a streamed answer has said that it ended */
    const char *finish;
    i64 sent, thought_sent, scores_sent, offset; /* of a streamed answer */
    struct err e;
};
struct answer {
    struct worker *w;
    const struct serve_model *m;
    const char *fingerprint;
    struct request q;
    struct job job;
    struct teller *teller;
    i64 seen, created, ended;
    char id[48];
    struct text out; /* a streamed answer: what is to be sent */
    i64 out_sent;
    bool begun, done;
};
int answer_begin(struct answer *a, struct refusal *r); /* after request_read */
/* Takes what came; waits for it if there is nothing. 1: all has ended; -1: a text went wrong. */
int answer_more(struct answer *a, struct refusal *r);
void answer_free(struct answer *a);
int answer_json(struct answer *a, struct text *out, struct err *e);
/* Appends events to a->out: after answer_more said `more` (its result). */
int answer_events(struct answer *a, int more, const struct refusal *r, struct err *e);
/* "logprobs" of ids [from, to) of the whole text in the form of chat or completions. */
int logprobs_add(struct answer *a, struct teller *t, i64 from, i64 to, struct text *out,
                 struct err *e);

/* ---- other endpoints (little.c), and what names the answers' origin (fingerprint.c) */
int tokenize_json(const struct serve_model *m, i64 positions, const json_t *j, struct text *out,
                  struct refusal *r);
int detokenize_json(const struct serve_model *m, const json_t *j, struct text *out,
                    struct refusal *r);
int template_json(const struct serve_model *m, const json_t *j, struct text *out,
                  struct refusal *r);
int models_json(const struct serve_model *m, i64 positions, i64 created, struct text *out,
                struct err *e);
int metrics_text(struct worker *w, struct text *out, struct err *e);
struct fingerprint { /* a thread reads the files while the server starts */
    const struct serve_model *m;
    pthread_t thread;
    bool started, joined;
    pthread_mutex_t lock;
    char text[2][48]; /* of each lane */
    struct err err;
};
int fingerprint_start(struct fingerprint *f, const struct serve_model *m, struct err *e);
const char *fingerprint_wait(struct fingerprint *f, i64 lane); /* NULL: a file could not be read */
void fingerprint_stop(struct fingerprint *f);

/* ---- HTTP (http.c, listen.c, page_parts.c) */
extern const char page_html[], page_style[], page_script[]; /* zero-terminated */
struct address {
    char where[256]; /* as a URL */
    char path[108];  /* of a unix socket; "": none */
    bool loopback;
    int fd;
};
int address_listen(struct address *a, const char *text, i64 backlog, struct err *e);
void address_close(struct address *a);
enum link_state { LINK_READS, LINK_WORKS, LINK_SENDS };
struct link { /* a connection */
    int fd;
    enum link_state state;
    double since;
    struct link *next, *before;
};
struct server {
    const struct serve_model *m;
    struct serve_plan plan;
    struct worker worker;
    struct fingerprint fingerprint;
    struct address at;
    struct MHD_Daemon *daemon;
    pthread_mutex_t lock;
    struct link links;            /* a ring */
    i64 created, answers, bodies; /* bodies: bytes of requests that are held */
    bool quiesced;
    atomic_bool stopping;
};
int http_start(struct server *s, struct err *e);
void http_quiet(struct server *s); /* takes no new connections */
void http_stop(struct server *s);
/* ---- connections (links.c) */
struct link *link_new(struct server *s, int fd); /* NULL: no memory */
void link_free(struct server *s, struct link *l);
void link_is(struct server *s, struct link *l, enum link_state state); /* from now on */
bool link_gone(const struct link *l); /* has the client closed it? */
i64 http_busy(struct server *s);      /* on how many something is answered */
void http_overdue(struct server *s);  /* closes those that take too long */

#endif
