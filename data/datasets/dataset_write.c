/* dataset_write.c: sources and an encoder to one dataset file.
 *
 * Documents are gathered into batches, tokenised in parallel, and appended in order; whole chunks
 * are compressed in parallel. The file is written as PATH.new, synced and renamed: a reader sees
 * the old dataset or the complete new one. The same sources, encoder and options give the same
 * bytes with any number of threads. */
#include "data/datasets/datasets_int.h"
#include <string.h>
#include <unistd.h>
#include <zstd.h>

enum { BATCH_BYTES = 4 << 20, BATCH_DOCUMENTS = 4096, CHUNKS_AT_ONCE = 32, FILES_NAMED = 20 };

static int add_u64(struct text *t, u64 value, struct err *e) {
    return text_add(t, &value, sizeof value, e);
}

struct writer {
    const struct dataset_job *job;
    struct source_options options; /* of the file that is read */
    struct h5_writer *h5;
    int width;             /* bytes of a token */
    i64 written;           /* chunks */
    i64 count;             /* tokens so far */
    bool masked;           /* some token is not trained */
    struct text pending;   /* little-endian tokens not yet in a chunk */
    struct text chunks;    /* u64 pairs: address and size in the file */
    struct text hashes;    /* [chunks][DATASET_HASH] */
    struct text documents; /* u64 offsets */
    struct text spans;     /* u64 pairs, trained */
    struct text sources;   /* JSON */
    struct text batch;     /* text of the pieces */
    struct spans spans_of; /* trained bytes of the pieces that are conversations */
    struct piece *pieces;
    i64 pieces_count;
    struct row_notes notes; /* of the files of one path */
    i64 nothing;            /* documents without a token */
    i64 few, twice;         /* documents of one path that are left out */
    bool checked;           /* the template's markers are tokens */
    i64 probed;             /* documents that the probe looked at */
};

/* A recipe of version 1. */
static bool old(const struct writer *w) { return w->job->options.rules.version == 1; }

/* ---- chunks ---------------------------------------------------------------------------------- */

struct packed {
    size_t size;
    u8 hash[DATASET_HASH];
    struct err err;
};
struct packing {
    const char *raw;
    struct packed *out;
    char *frames;
    size_t bound;
};

static void chunks_pack(void *arg, i64 begin, i64 end, int worker) {
    struct packing *p = arg;
    (void)worker;
    for (i64 i = begin; i < end; i++) {
        struct packed *out = &p->out[i];
        const char *raw = p->raw + i * DATASET_CHUNK;
        char hex[65], *frame = p->frames + (size_t)i * p->bound;
        if (sha256_bytes(raw, DATASET_CHUNK, hex, &out->err)) continue;
        for (int k = 0; k < DATASET_HASH; k++) sscanf(hex + 2 * k, "%2hhx", &out->hash[k]);
        out->size = ZSTD_compress(frame, p->bound, raw, DATASET_CHUNK, DATASET_LEVEL);
        if (ZSTD_isError(out->size))
            err_failed(&out->err, "zstd: %s", ZSTD_getErrorName(out->size));
    }
}

static int chunk_write(struct writer *w, const struct packed *c, const char *frame, struct err *e) {
    struct h5_piece piece;
    if (c->err.code) return *e = c->err, -1;
    return h5_append(w->h5, frame, (i64)c->size, &piece, e) ||
                   text_add(&w->chunks, &piece, sizeof piece, e) ||
                   text_add(&w->hashes, c->hash, DATASET_HASH, e)
               ? -1
               : 0;
}

/* Compresses and writes `n` chunks from the start of pending. */
static int chunks_write(struct writer *w, i64 n, struct err *e) {
    struct packing p = {w->pending.data, NULL, NULL, ZSTD_compressBound(DATASET_CHUNK)};
    p.out = mem_new_array(n, sizeof *p.out, e);
    p.frames = mem_new_array(n, (i64)p.bound, e);
    int r = p.out && p.frames ? 0 : -1;
    if (!r) pool_run(n, chunks_pack, &p);
    for (i64 i = 0; i < n && !r; i++)
        r = chunk_write(w, &p.out[i], p.frames + (size_t)i * p.bound, e);
    if (!r) {
        i64 taken = n * DATASET_CHUNK;
        w->written += n, w->pending.size -= taken;
        memmove(w->pending.data, w->pending.data + taken, (size_t)w->pending.size);
    }
    mem_free(p.out), mem_free(p.frames);
    return r;
}

/* The last chunk is filled up with zeros, as HDF5 wants it. */
static int chunks_end(struct writer *w, struct err *e) {
    static const char zeros[4096];
    while (w->pending.size % DATASET_CHUNK) {
        i64 n = i64_min((i64)sizeof zeros, DATASET_CHUNK - w->pending.size % DATASET_CHUNK);
        if (text_add(&w->pending, zeros, n, e)) return -1;
    }
    return w->pending.size ? chunks_write(w, w->pending.size / DATASET_CHUNK, e) : 0;
}

/* ---- documents ------------------------------------------------------------------------------- */

struct encoding {
    struct writer *w;
    struct err *err; /* [threads]; a worker stops at its first error, so the lowest worker's is the
                        first of all */
};

static void pieces_encode(void *arg, i64 begin, i64 end, int worker) {
    struct encoding *x = arg;
    for (i64 i = begin; i < end; i++)
        if (piece_encode(x->w->job, &x->w->pieces[i], x->w->batch.data, x->w->spans_of.item,
                         &x->err[worker]))
            return;
}

static int token_add(struct writer *w, i64 id, struct err *e) {
    u32 value = (u32)id; /* little-endian: the first two bytes are the u16 */
    w->count++;
    return text_add(&w->pending, &value, w->width, e);
}

static int span_add(struct writer *w, u64 begin, u64 end, bool trained, struct err *e) {
    if (begin == end) return 0;
    if (!trained) return w->masked = true, 0;
    u64 *last = w->spans.size ? (u64 *)(void *)(w->spans.data + w->spans.size) - 1 : NULL;
    if (last && *last == begin) return *last = end, 0;
    return add_u64(&w->spans, begin, e) || add_u64(&w->spans, end, e) ? -1 : 0;
}

static bool eos_wanted(const struct writer *w, const struct piece *p) {
    const struct encoder *c = &w->job->encoder;
    return c->eos >= 0 && (old(w) || !encoder_ended(c, &p->ids, !p->document.segments));
}

/* A conversation has its begin and end of text from its template. */
static int conversation_write(struct writer *w, const struct piece *p, struct err *e) {
    const u64 begin = (u64)w->count;
    i64 at = 0;
    if (add_u64(&w->documents, begin, e)) return -1;
    for (i64 i = 0; i < p->ids.count; i++)
        if (token_add(w, p->ids.item[i], e)) return -1;
    for (i64 i = 0; i < p->spans.count; at = p->spans.item[i++].end)
        if (span_add(w, begin + (u64)at, begin + (u64)p->spans.item[i].begin, false, e) ||
            span_add(w, begin + (u64)p->spans.item[i].begin, begin + (u64)p->spans.item[i].end,
                     true, e))
            return -1;
    if (p->document.unstopped && w->job->add_eos && eos_wanted(w, p)) {
        const u64 end = (u64)w->count;
        return token_add(w, w->job->encoder.eos, e) || span_add(w, end, end + 1, true, e) ? -1 : 0;
    }
    return span_add(w, begin + (u64)at, (u64)w->count, false, e);
}

/* Tokens in front of a text or behind it, unless they are there. */
static int around_add(struct writer *w, const struct piece *p, const u32 *id, int count, bool front,
                      struct err *e) {
    bool there = !old(w) && p->ids.count >= count;
    for (int i = 0; i < count && there; i++)
        there = p->ids.item[front ? i : p->ids.count - count + i] == id[i];
    for (int i = 0; i < count && !there; i++)
        if (token_add(w, id[i], e)) return -1;
    return 0;
}

static int front_add(struct writer *w, const struct piece *p, struct err *e) {
    const struct encoder *c = &w->job->encoder;
    const u32 bos = (u32)c->bos;
    if (w->job->add_bos && c->bos >= 0) return around_add(w, p, &bos, 1, true, e);
    return w->job->add_around ? around_add(w, p, c->before, c->before_count, true, e) : 0;
}

static int back_add(struct writer *w, const struct piece *p, struct err *e) {
    const struct encoder *c = &w->job->encoder;
    const bool ends = c->after_count && c->after[c->after_count - 1] == c->eos;
    if (w->job->add_around && around_add(w, p, c->after, c->after_count, false, e)) return -1;
    if (w->job->add_around && ends) return 0;
    return w->job->add_eos && eos_wanted(w, p) ? token_add(w, c->eos, e) : 0;
}

static int piece_write(struct writer *w, const struct piece *p, struct err *e) {
    if (!p->ids.count) return w->nothing++, 0;
    if (p->probed) piece_count(w->job->probe, p);
    if (!p->document.segments) return conversation_write(w, p, e);
    const struct segment *segment = p->document.segment;
    u64 begin = (u64)w->count;
    if (add_u64(&w->documents, begin, e)) return -1;
    if (front_add(w, p, e)) return -1;
    u64 border = (u64)(w->count + p->border);
    for (i64 i = 0; i < p->ids.count; i++)
        if (token_add(w, p->ids.item[i], e)) return -1;
    if (back_add(w, p, e)) return -1;
    if (p->document.segments == 1)
        border = begin;
    else if (span_add(w, begin, border, segment[0].trained, e))
        return -1;
    return span_add(w, border, (u64)w->count, segment[p->document.segments - 1].trained, e);
}

static u64 *span_last(const struct writer *w, i64 spans) {
    return spans ? (u64 *)(void *)(w->spans.data + spans) - 1 : NULL;
}

static int piece_keep(struct writer *w, const struct piece *p, struct err *e) {
    const u64 *last = span_last(w, w->spans.size);
    const struct mark m = {w->count,      w->pending.size,  w->documents.size,
                           w->spans.size, last ? *last : 0, w->masked};
    if (piece_write(w, p, e)) return -1;
    if (w->count == m.count || (w->job->min_tokens <= 1 && !w->job->seen)) return 0;
    const bool few = w->count - m.count < w->job->min_tokens;
    const int twice =
        few || !w->job->seen ? 0 : seen_document(w->job->seen, &w->pending, &w->spans, &m, e);
    if (twice < 0 || (!few && !twice)) return twice;
    w->few += few, w->twice += twice;
    w->count = m.count, w->pending.size = m.pending, w->documents.size = m.documents;
    w->spans.size = m.spans, w->masked = m.masked;
    if (m.spans) *span_last(w, m.spans) = m.last;
    return 0;
}

static int batch_write(struct writer *w, struct err *e) {
    struct encoding x = {w, mem_new_array(pool_threads(), sizeof *x.err, e)};
    int r = x.err ? 0 : -1;
    if (!r) pool_run(w->pieces_count, pieces_encode, &x);
    for (int i = 0; i < pool_threads() && !r; i++)
        if (x.err[i].code) *e = x.err[i], r = -1;
    mem_free(x.err);
    for (i64 i = 0; i < w->pieces_count; i++) {
        if (!r) r = piece_keep(w, &w->pieces[i], e);
        if (!r && w->pending.size >= (i64)CHUNKS_AT_ONCE * DATASET_CHUNK)
            r = chunks_write(w, CHUNKS_AT_ONCE, e);
        piece_free(&w->pieces[i]);
    }
    w->pieces_count = 0, w->batch.size = w->spans_of.count = 0;
    return r;
}

/* The next piece of the batch. */
static int piece_take(struct writer *w, const struct document *d, struct err *e) {
    struct piece *p = &w->pieces[w->pieces_count];
    *p = (struct piece){.at = w->batch.size, .document = *d, .span_at = w->spans_of.count};
    p->probed = w->job->probe && !d->ids && w->probed < PROBE_DOCUMENTS;
    w->probed += p->probed;
    if (p->probed && d->parts) {
        if (!(p->part = mem_new_array(d->parts, sizeof *p->part, e))) return -1;
        memcpy(p->part, d->part, (size_t)d->parts * sizeof *p->part);
        p->parts = d->parts;
    }
    w->pieces_count++;
    int rc = text_add(&w->batch, d->text, d->size, e);
    for (i64 i = 0; !rc && i < d->spans; i++)
        rc = spans_add(&w->spans_of, d->span[i].begin, d->span[i].end, e);
    return rc;
}

/* `several`: it is one of them; `said`: and one of the first. */
static int source_write(struct writer *w, const struct data_file *file, bool several, bool said,
                        struct err *e) {
    const char *path = file->path;
    struct source *s = source_open(path, &w->options, e);
    struct document d;
    int r = s ? 1 : -1;
    while (r > 0 && (r = source_next(s, &d, e)) > 0) {
        int failed = piece_take(w, &d, e);
        if (!failed && !w->checked && source_facts(s)->conversations)
            w->checked = true,
            failed = !old(w) && markers_check(&w->job->encoder, w->job->options.chat, e);
        if (failed)
            r = -1;
        else if (w->pieces_count == BATCH_DOCUMENTS || w->batch.size >= BATCH_BYTES) {
            r = batch_write(w, e) ? -1 : 1;
            progress_line("tokenising %s: %lld documents, %lld tokens", path,
                          (long long)source_facts(s)->documents, (long long)w->count);
        }
    }
    if (!r && w->pieces_count) r = batch_write(w, e);
    if (!r) r = source_record(&w->sources, file->name, &w->options, source_facts(s), e);
    if (!r && w->job->notes && said) r = source_note(w->job->notes, file->name, source_facts(s), e);
    if (s) row_notes_add(&w->notes, source_notes(s), several ? file->name : NULL);
    if (!r) w->options.first_row += source_facts(s)->rows;
    if (!r && w->job->probe) {
        w->job->probe->rows += source_facts(s)->rows;
        w->job->probe->skipped += source_facts(s)->skipped;
    }
    source_close(s);
    return r ? -1 : 0;
}

/* The files that one path means. Their rows are counted on, so that the split of many small files
 * is that of their rows. */
static int sources_write(struct writer *w, const char *path, struct err *e) {
    const struct dataset_job *job = w->job;
    struct data_files files;
    int r = data_files_find(&files, path, job->config, job->file_split, e);
    w->options = job->options, w->options.first_row = 0, w->options.parts = job->probe != NULL;
    w->options.vocab_size = job->encoder.vocab_size;
    if (!r && job->file_split && !files.named && w->options.split == SPLIT_ALL) {
        r = err_input(e, "'%s' has no files of a split '%s'", path, job->file_split);
        err_hint(e, "a part can be cut off: --validation 0.05 --validation-output FILE.h5");
    }
    if (files.has_split) w->options.split = SPLIT_ALL;
    if (!r && job->notes && files.note.size)
        r = text_add(job->notes, files.note.data, files.note.size, e);
    const bool several = files.count > 1;
    const char *of = files.count == 1 ? files.item->path : path;
    for (i64 i = 0; i < files.count && !r; i++)
        r = source_write(w, &files.item[i], several, several && i < FILES_NAMED, e);
    if (!r && job->notes && several)
        r = text_printf(job->notes, e, "note: %s: %lld files, %lld rows\n", path,
                        (long long)files.count, (long long)w->options.first_row);
    if (job->notes && row_notes_text(&w->notes, of, job->notes, e)) r = -1;
    if (left_out_note(job, of, w->few, w->twice, e)) r = -1;
    w->few = w->twice = 0;
    if (!r && w->options.split != SPLIT_VALIDATION) /* which may be few */
        r = row_columns_had(&w->notes, job->options.rules.columns, of, e);
    row_notes_free(&w->notes), data_files_free(&files);
    return r ? -1 : 0;
}

/* ---- the file -------------------------------------------------------------------------------- */

static int writer_begin(struct writer *w, const char *path, struct err *e) {
    w->width = w->job->encoder.vocab_size <= 65536 ? 2 : 4;
    w->pieces = mem_new_array(BATCH_DOCUMENTS, sizeof *w->pieces, e);
    if (!w->pieces || text_printf(&w->sources, e, "[")) return -1;
    w->h5 = h5_create(path, e);
    return w->h5 ? 0 : -1;
}

static int put_tokens(struct writer *w, struct err *e) {
    const struct h5_array a = {.name = "tokens",
                               .type = w->width == 2 ? H5_U16 : H5_U32,
                               .rank = 1,
                               .dim = {w->count},
                               .chunked = true,
                               .level = DATASET_LEVEL,
                               .chunk = {DATASET_CHUNK / w->width},
                               .piece = (const struct h5_piece *)(void *)w->chunks.data,
                               .pieces = w->written};
    return h5_add(w->h5, &a, e);
}

static int writer_tables(struct writer *w, struct err *e) {
    struct h5_writer *h = w->h5;
    const struct encoder *c = &w->job->encoder;
    i64 documents = w->documents.size / 8, spans = w->masked ? w->spans.size / 16 : 0;
    char identity[65], source[65];
    if (!w->count) {
        err_input(e, "no documents: '%s'%s%s", w->job->sources[0],
                  w->job->sources_count > 1 ? " and others give" : " gives",
                  w->job->options.split == SPLIT_VALIDATION ? " none to the validation split"
                  : w->job->options.split == SPLIT_TRAIN    ? " none to the training split"
                                                         : " none that is not empty or left out");
        return err_hint(e, "check the file, its type and validation_fraction");
    }
    if (w->masked && !spans) return err_input(e, "no token of '%s' is trained", w->job->sources[0]);
    if (chunks_end(w, e) || add_u64(&w->documents, (u64)w->count, e) ||
        text_printf(&w->sources, e, "]") ||
        sha256_bytes(w->sources.data, w->sources.size, source, e) ||
        dataset_identity((const u8 *)w->hashes.data, w->written,
                         (const u64 *)(void *)w->documents.data, documents,
                         (const u64 *)(void *)w->spans.data, spans, identity, e))
        return -1;
    return put_tokens(w, e) ||
           h5_put_array(w->h5, "documents", H5_U64, documents + 1, 1, w->documents.data, e) ||
           (spans && h5_put_array(w->h5, "labels_spans", H5_U64, spans, 2, w->spans.data, e)) ||
           h5_put_array(w->h5, "chunks", H5_U64, w->written, 2, w->chunks.data, e) ||
           h5_put_array(w->h5, "chunk_sha256", H5_U8, w->written, DATASET_HASH, w->hashes.data,
                        e) ||
           h5_put_array(w->h5, "source", H5_U8, w->sources.size, 1, w->sources.data, e) ||
           h5_put_i64(h, "pipeline_version", DATASET_PIPELINE, e) ||
           h5_put_text(h, "sha256", identity, e) || h5_put_text(h, "source_sha256", source, e) ||
           h5_put_text(h, "tokenizer_sha256", c->sha256, e) ||
           h5_put_i64(h, "vocab_size", c->vocab_size, e) ||
           h5_put_i64(h, "bos_token_id", c->bos, e) || h5_put_i64(h, "eos_token_id", c->eos, e);
}

static void writer_free(struct writer *w) {
    for (i64 i = 0; i < w->pieces_count; i++) piece_free(&w->pieces[i]);
    spans_free(&w->spans_of);
    struct text *const texts[] = {&w->pending, &w->chunks,  &w->hashes, &w->documents,
                                  &w->spans,   &w->sources, &w->batch};
    for (i64 i = 0; i < COUNT(texts); i++) text_free(texts[i]);
    mem_free(w->pieces);
}

int dataset_build(const struct dataset_job *job, struct err *e) {
    struct writer w = {.job = job};
    char *path = mem_printf(e, "%s.new", job->path), *folder = mem_text(job->path, e);
    int r = path && folder ? writer_begin(&w, path, e) : -1;
    for (i64 i = 0; i < job->sources_count && !r; i++) r = sources_write(&w, job->sources[i], e);
    progress_end();
    if (!r && w.nothing && job->notes)
        r = text_printf(job->notes, e, "note: %lld document%s of the text gave no tokens\n",
                        (long long)w.nothing, w.nothing == 1 ? "" : "s");
    if (!r) r = writer_tables(&w, e);
    if (w.h5 && h5_finish(w.h5, !r, e)) r = -1;
    if (!r) {
        char *slash = strrchr(folder, '/');
        if (slash) slash[slash == folder] = 0;
        r = path_rename(path, job->path, e) || dir_sync(slash ? folder : ".", e) ? -1 : 0;
    }
    if (r) {
        if (path) unlink(path);
        err_frame(e, "while writing the dataset '%s'", job->path);
    }
    writer_free(&w);
    mem_free(path), mem_free(folder);
    return r ? -1 : 0;
}
