/* svd.c: the r largest singular values of a matrix with their vectors, in f64, the same bits for
 * any number of threads and any instruction set.
 *
 * Subspace iteration on G = M^T M (M: w, or its transpose where that has fewer columns) with a
 * block of b > r rows v, made faster by Chebyshev polynomials (Zhou, Saad, Tiago and Chelikowsky,
 * 2006): each round orthonormalises v, solves the eigenproblem of v G v^T (Rayleigh, Ritz) by
 * Jacobi's rotations, and applies the polynomial that is at most 1 on [0, the block's smallest
 * value], where what is not wanted lies, and grows beyond. Done when |G v - lambda v| <= 1e-10
 * lambda_1 for the first r, or after ROUNDS: what then comes is still orthonormal, and its product
 * the best that was found.
 *
 * Rejected: Lanczos (single vectors miss equal values, blocks need a basis of hundreds); the whole
 * eigenproblem of G, which costs n^3; random projection alone, as torch's svd_lowrank, whose result
 * is another each time. */
#include "base/base.h"

#include <string.h>

enum { ROUNDS = 60, DEGREE = 12 };

#define X(isa)                                                                                     \
    void svd_product_##isa(double *y, const float *w, const double *x, i64 cols, i64 b, i64 begin, \
                           i64 end);
ISA_LIST(X)
#undef X
static void (*const products[ISA_COUNT])(double *, const float *, const double *, i64, i64, i64,
                                         i64) = {
#define X(isa) svd_product_##isa,
    ISA_LIST(X)
#undef X
};

struct svd {
    i64 n, m, b, wide;       /* M is [m, n]; wide: b, a multiple of 8 */
    const float *w, *turned; /* M and its transpose */
    double *columns[2];      /* of a product: [n or m, wide] */
    double *h, *q, *value;   /* [b, b], [b, b], [b] */
    /* of the task that runs */
    const float *left;
    const double *from;
    double *to, *v;
    i64 length, pivot;
};

static double dot(const double *a, const double *c, i64 n) {
    double sum[8] = {0};
    i64 i = 0;
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++) sum[k] += a[i + k] * c[i + k];
    for (; i < n; i++) sum[i % 8] += a[i] * c[i];
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}
static double larger(double a, double b) { return a > b ? a : b; }
static void add_times(double *to, double by, const double *from, i64 n) {
    for (i64 i = 0; i < n; i++) to[i] += by * from[i];
}
static void times(double *to, double by, i64 n) {
    for (i64 i = 0; i < n; i++) to[i] *= by;
}

/* to [b, rows of left] = from [b, length]·left^T */
static void product_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct svd *s = arg;
    products[isa_now()](s->columns[1], s->left, s->columns[0], s->length, s->wide, begin, end);
    for (i64 i = begin; i < end; i++)
        for (i64 k = 0; k < s->b; k++)
            s->to[k * (s->left == s->w ? s->m : s->n) + i] = s->columns[1][i * s->wide + k];
}
static void turn_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct svd *s = arg;
    for (i64 i = begin; i < end; i++)
        for (i64 k = 0; k < s->b; k++) s->columns[0][i * s->wide + k] = s->from[k * s->length + i];
}
static void product(struct svd *s, const float *left, const double *from, double *to) {
    s->left = left, s->from = from, s->to = to, s->length = left == s->w ? s->n : s->m;
    pool_run(s->length, turn_task, s);
    pool_run(left == s->w ? s->m : s->n, product_task, s);
}

static void project_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct svd *s = arg;
    const double *by = s->v + s->pivot * s->n;
    for (i64 j = s->pivot + 1 + begin; j < s->pivot + 1 + end; j++)
        add_times(s->v + j * s->n, -dot(by, s->v + j * s->n, s->n), by, s->n);
}
/* Rows of v orthonormal, by Gram and Schmidt, twice. What vanishes becomes another random one. */
static void orthonormalise(struct svd *s, double *v, u64 *drawn) {
    const struct rng r = {0, RNG_INIT, 2, 0};
    for (int pass = 0; pass < 2; pass++) {
        for (i64 i = 0; i < s->b; i++) s->value[i] = dot(v + i * s->n, v + i * s->n, s->n);
        for (i64 i = 0; i < s->b; i++) {
            double *x = v + i * s->n, norm = dot(x, x, s->n);
            while (!(norm > 1e-24 * s->value[i])) {
                for (i64 k = 0; k < s->n; k++) x[k] = (double)rng_normal(&r, (*drawn)++);
                s->value[i] = dot(x, x, s->n);
                for (i64 k = 0; k < 2 * i; k++)
                    add_times(x, -dot(v + k % i * s->n, x, s->n), v + k % i * s->n, s->n);
                norm = dot(x, x, s->n);
            }
            times(x, 1 / __builtin_sqrt(norm), s->n);
            s->v = v, s->pivot = i;
            pool_run(s->b - i - 1, project_task, s);
        }
    }
}

/* Eigenvalues of h, descending, and its eigenvectors as rows of q. */
static void rotate(double *a, double *c, double cosine, double sine, i64 n, i64 step) {
    for (i64 k = 0; k < n; k++) {
        const double x = a[k * step], y = c[k * step];
        a[k * step] = cosine * x - sine * y, c[k * step] = sine * x + cosine * y;
    }
}
static void eigen(struct svd *s) {
    const i64 b = s->b;
    double *h = s->h, *q = s->q, most = 0;
    memset(q, 0, (size_t)(b * b) * sizeof *q);
    for (i64 i = 0; i < b; i++) q[i * b + i] = 1;
    for (i64 i = 0; i < b; i++) most = larger(most, h[i * b + i]);
    for (int sweep = 0, moved = 1; moved && sweep < 60; sweep++)
        for (i64 i = moved = 0; i < b; i++)
            for (i64 j = i + 1; j < b; j++) {
                const double off = h[i * b + j], apart = h[j * b + j] - h[i * b + i];
                if (!(__builtin_fabs(off) > 1e-15 * most)) continue;
                const double t =
                    2 * off /
                    (__builtin_fabs(apart) + __builtin_sqrt(apart * apart + 4 * off * off));
                const double tangent = apart < 0 ? -t : t,
                             cosine = 1 / __builtin_sqrt(1 + tangent * tangent);
                rotate(h + i * b, h + j * b, cosine, tangent * cosine, b, 1);
                rotate(h + i, h + j, cosine, tangent * cosine, b, b);
                rotate(q + i * b, q + j * b, cosine, tangent * cosine, b, 1);
                moved = 1;
            }
    for (i64 i = 0; i < b; i++) { /* by selection */
        i64 top = i;
        for (i64 j = i + 1; j < b; j++)
            if (h[j * b + j] > h[top * b + top]) top = j;
        s->value[i] = larger(0, h[top * b + top]), h[top * b + top] = h[i * b + i];
        for (i64 k = 0; k < b && top != i; k++) {
            const double x = q[i * b + k];
            q[i * b + k] = q[top * b + k], q[top * b + k] = x;
        }
    }
}

static void gram_task(void *arg, i64 begin, i64 end, int worker) {
    (void)worker;
    const struct svd *s = arg;
    for (i64 i = begin; i < end; i++)
        for (i64 j = 0; j < s->b; j++)
            s->h[i * s->b + j] = i <= j ? dot(s->from + i * s->m, s->from + j * s->m, s->m)
                                        : dot(s->from + j * s->m, s->from + i * s->m, s->m);
}
static void mix_task(void *arg, i64 begin, i64 end, int worker) { /* to = q·from */
    (void)worker;
    const struct svd *s = arg;
    memset(s->to + begin * s->length, 0, (size_t)((end - begin) * s->length) * sizeof *s->to);
    for (i64 i = begin; i < end; i++)
        for (i64 j = 0; j < s->b; j++)
            add_times(s->to + i * s->length, s->q[i * s->b + j], s->from + j * s->length,
                      s->length);
}
static void mix(struct svd *s, const double *from, double *to, i64 length) {
    s->from = from, s->to = to, s->length = length;
    pool_run(s->b, mix_task, s);
}

/* The rows of `v` filtered, of which `next` is G times them; `old` is room. The result is in one
 * of the three. */
static double *filtered(struct svd *s, double *v, double *next, double *old, double *y) {
    const i64 all = s->b * s->n;
    const double half = s->value[s->b - 1] / 2, x = half > 0 ? s->value[0] / half - 1 : 1e30;
    double grown = x, before = 1; /* of the largest: T_k(x) */
    if (!(half > 1e-20 * s->value[0])) return next;
    for (i64 i = 0; i < all; i++) next[i] = next[i] / half - v[i];
    for (int k = 1; k < DEGREE && grown < 1e6; k++) {
        product(s, s->w, next, y), product(s, s->turned, y, old);
        for (i64 i = 0; i < all; i++) old[i] = 2 * (old[i] / half - next[i]) - v[i];
        double *const was = v;
        v = next, next = old, old = was;
        const double more = 2 * x * grown - before;
        before = grown, grown = more;
    }
    return next;
}

static void iterate(struct svd *s, i64 r, double *block[3], double *y[2]) {
    double *v = block[0], *next = block[1], *old = block[2];
    u64 drawn = 0;
    memset(v, 0, (size_t)(s->b * s->n) * sizeof *v);
    for (int round = 0;; round++) {
        orthonormalise(s, v, &drawn);
        product(s, s->w, v, y[0]);
        s->from = y[0];
        pool_run(s->b, gram_task, s);
        eigen(s);
        mix(s, v, next, s->n), mix(s, y[0], y[1], s->m);
        double *const mixed = next;
        next = v, v = mixed;
        product(s, s->turned, y[1], next);
        double worst = 0;
        for (i64 i = 0; i < r; i++) {
            memcpy(old, next + i * s->n, (size_t)s->n * sizeof *old);
            add_times(old, -s->value[i], v + i * s->n, s->n);
            worst = larger(worst, dot(old, old, s->n));
        }
        if (s->b == s->n || round == ROUNDS || worst <= 1e-20 * s->value[0] * s->value[0]) break;
        double *const to = filtered(s, v, next, old, y[0]);
        double *const rest[] = {v, next, old};
        for (int i = 0, k = 1; i < 3; i++)
            if (rest[i] != to) *(k++ == 1 ? &next : &old) = rest[i];
        v = to;
    }
    for (int i = 0; i < 3; i++)
        if (block[i] == v) block[i] = block[0];
    block[0] = v;
}

int svd_top(const float *w, i64 rows, i64 cols, i64 r, double *values, double *u, double *v,
            struct err *e) {
    const bool turned = rows < cols;
    struct svd s = {.n = turned ? rows : cols, .m = turned ? cols : rows};
    s.b = i64_min(round_up(r + i64_max(r / 2, 16), 8), s.n);
    const i64 wide = s.wide = round_up(s.b, 8), n = s.n, m = s.m;
    double *block[3] = {0}, *y[2] = {0};
    float *copy = mem_new_array(rows * cols, sizeof *copy, e);
    int rc = copy ? 0 : -1;
    const i64 sizes[] = {n, n, n, m, m, m, m, wide, wide, 1};
    double **const to[] = {block,     block + 1,     block + 2, y,    y + 1,
                           s.columns, s.columns + 1, &s.h,      &s.q, &s.value};
    for (int i = 0; i < COUNT(to) && !rc; i++)
        rc = (*to[i] = mem_new_array(sizes[i] * wide, sizeof **to, e)) ? 0 : -1;
    if (!rc) {
        for (i64 i = 0; i < rows; i++)
            for (i64 k = 0; k < cols; k++) copy[k * rows + i] = w[i * cols + k];
        s.w = turned ? copy : w, s.turned = turned ? w : copy;
        iterate(&s, r, block, y);
        for (i64 i = 0; i < r; i++) {
            values[i] = __builtin_sqrt(s.value[i]);
            double *const right = (turned ? u : v) + i * n, *const left = (turned ? v : u) + i * m;
            memcpy(right, block[0] + i * n, (size_t)n * sizeof *right);
            memcpy(left, y[1] + i * m, (size_t)m * sizeof *left);
            times(left, values[i] > 0 ? 1 / values[i] : 0, m);
        }
    }
    for (int i = 0; i < COUNT(to); i++) mem_free(*to[i]);
    mem_free(copy);
    return rc ? err_detail(e, "for the singular values of a weight [%lld, %lld]", (long long)rows,
                           (long long)cols)
              : 0;
}
