/* cublaslt_cuda.cu: matrix products by cuBLASLt, for fast numerics. The library is loaded when
 * first needed: a machine without it computes with our own kernels, and the program links without
 * it.
 *
 * cuBLASLt counts columns first, so C = A·B is asked for as C^T = B^T·A^T: its first operand is our
 * B. f32 sums; f32 operands are multiplied as f32, not TF32. For each shape the library's first
 * choice among the algorithms that do not add partial results of k in memory is kept: the same bits
 * every time, on one type of GPU with one version of the library. In tests (HONE_SHIM) and with a
 * toolkit that lacks the header, lt_run has no way to compute anything, and our own kernels stand
 * in. */
#include "ops/device/cuda.h"
#include "ops/gemm/gemm_cuda.h"

#if !defined(HONE_SHIM) && __has_include(<cublasLt.h>)

#include <cublasLt.h>
#include <dlfcn.h>
#include <string.h>

/* clang-format off */
#define FUNCTIONS(X)                                                                               \
    X(Create) X(Destroy) X(Matmul) X(MatmulAlgoGetHeuristic) X(MatmulDescCreate)                   \
    X(MatmulDescDestroy) X(MatmulDescSetAttribute) X(MatrixLayoutCreate) X(MatrixLayoutDestroy)    \
    X(MatmulPreferenceCreate) X(MatmulPreferenceDestroy) X(MatmulPreferenceSetAttribute)
/* clang-format on */
enum { WORKSPACE = 32 << 20, PLANS = 1024 };

struct key { /* all that a plan depends on; compared as bytes */
    i64 m, n, k, lda, ldb, ldc;
    i32 dtype, c_dtype, a_t, b_t, accumulate, bias;
    u32 align[4]; /* of a, b, c, bias, in bytes, up to 256 */
};
struct plan {
    struct key key;
    bool made, usable;
    cublasLtMatmulDesc_t what;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algo;
};

static struct {
    bool tried, ready;
    cublasLtHandle_t handle;
    void *workspace;
    struct plan plan[PLANS]; /* by hash; of two with the same place the later stays */
#define X(name) decltype(&cublasLt##name) name;
    FUNCTIONS(X)
#undef X
} lt;

static bool lt_load(void) {
    struct err unused = {};
    void *library = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
    if (!library) library = dlopen("libcublasLt.so.12", RTLD_NOW | RTLD_LOCAL);
    if (!library) return false;
#define X(name)                                                                                    \
    lt.name = (decltype(&cublasLt##name))dlsym(library, "cublasLt" #name);                         \
    if (!lt.name) return false;
    FUNCTIONS(X)
#undef X
    if (lt.Create(&lt.handle) != CUBLAS_STATUS_SUCCESS) return false;
    lt.workspace = device_new(WORKSPACE, &unused);
    if (!lt.workspace) lt.Destroy(lt.handle);
    return lt.workspace != NULL;
}
/* The first product of a process is never one that is being recorded: a graph's first run is not.
 */
bool lt_ready(void) {
    if (!lt.tried) lt.tried = true, lt.ready = lt_load();
    return lt.ready;
}

static void plan_free(struct plan *p) {
    if (p->what) lt.MatmulDescDestroy(p->what);
    if (p->a) lt.MatrixLayoutDestroy(p->a);
    if (p->b) lt.MatrixLayoutDestroy(p->b);
    if (p->c) lt.MatrixLayoutDestroy(p->c);
    memset(p, 0, sizeof *p);
}
void lt_close(void) {
    for (int i = 0; lt.ready && i < PLANS; i++) plan_free(&lt.plan[i]);
    if (lt.ready) lt.Destroy(lt.handle), device_free(lt.workspace);
    lt.tried = lt.ready = false;
}

/* The attribute functions' common form; 0 if it went well. */
#define SET(function, object, attribute, value)                                                    \
    lt.function(object, attribute, &(value), sizeof(value))

static cudaDataType_t type_of(i32 dtype) { return dtype == BF16 ? CUDA_R_16BF : CUDA_R_32F; }

static int layout_make(cublasLtMatrixLayout_t *l, i32 dtype, i64 inner, i64 outer, i64 ld) {
    return lt.MatrixLayoutCreate(l, type_of(dtype), (u64)inner, (u64)outer, ld);
}
/* The bias's address belongs to what algorithms are chosen by: they ask for its alignment. */
static int description_make(struct plan *p, const struct key *k, const void *bias_at) {
    const cublasOperation_t turned = CUBLAS_OP_T, plain = CUBLAS_OP_N;
    const cublasLtEpilogue_t bias = CUBLASLT_EPILOGUE_BIAS;
    const cudaDataType_t bias_type = type_of(k->dtype);
    return lt.MatmulDescCreate(&p->what, CUBLAS_COMPUTE_32F, CUDA_R_32F) ||
           SET(MatmulDescSetAttribute, p->what, CUBLASLT_MATMUL_DESC_TRANSA,
               k->b_t ? turned : plain) ||
           SET(MatmulDescSetAttribute, p->what, CUBLASLT_MATMUL_DESC_TRANSB,
               k->a_t ? turned : plain) ||
           (k->bias &&
            (SET(MatmulDescSetAttribute, p->what, CUBLASLT_MATMUL_DESC_EPILOGUE, bias) ||
             SET(MatmulDescSetAttribute, p->what, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, bias_type) ||
             SET(MatmulDescSetAttribute, p->what, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias_at)));
}
static int algorithm_choose(struct plan *p, const struct key *k) {
    const u32 reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
    const u64 workspace = WORKSPACE;
    cublasLtMatmulPreference_t prefer = NULL;
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    if (lt.MatmulPreferenceCreate(&prefer)) return -1;
    const int rc = SET(MatmulPreferenceSetAttribute, prefer,
                       CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reduction) ||
                   SET(MatmulPreferenceSetAttribute, prefer,
                       CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace) ||
                   SET(MatmulPreferenceSetAttribute, prefer,
                       CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, k->align[1]) ||
                   SET(MatmulPreferenceSetAttribute, prefer,
                       CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, k->align[0]) ||
                   SET(MatmulPreferenceSetAttribute, prefer,
                       CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, k->align[2]) ||
                   SET(MatmulPreferenceSetAttribute, prefer,
                       CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, k->align[2]) ||
                   lt.MatmulAlgoGetHeuristic(lt.handle, p->what, p->a, p->b, p->c, p->c, prefer, 1,
                                             &found, &count) ||
                   !count || found.state;
    lt.MatmulPreferenceDestroy(prefer);
    if (!rc) p->algo = found.algo;
    return rc;
}
static void plan_make(struct plan *p, const struct key *k, const void *bias) {
    plan_free(p);
    p->key = *k, p->made = true;
    p->usable = !layout_make(&p->a, k->dtype, k->b_t ? k->k : k->n, k->b_t ? k->n : k->k, k->ldb) &&
                !layout_make(&p->b, k->dtype, k->a_t ? k->m : k->k, k->a_t ? k->k : k->m, k->lda) &&
                !layout_make(&p->c, k->c_dtype, k->n, k->m, k->ldc) &&
                !description_make(p, k, bias) && !algorithm_choose(p, k);
}

static u32 alignment(const void *p) { return (u32)(((uintptr_t)p | 256) & -((uintptr_t)p | 256)); }
static struct plan *plan_of(const struct gemm *g) {
    struct key k;
    memset(&k, 0, sizeof k);
    k.m = g->m, k.n = g->n, k.k = g->k, k.lda = g->lda, k.ldb = g->ldb, k.ldc = g->ldc;
    k.dtype = g->dtype, k.c_dtype = g->c_dtype, k.a_t = g->a_t, k.b_t = g->b_t;
    k.accumulate = g->accumulate, k.bias = g->bias != NULL;
    k.align[0] = alignment(g->a), k.align[1] = alignment(g->b), k.align[2] = alignment(g->c);
    k.align[3] = g->bias ? alignment(g->bias) : 0;
    u64 hash = 1;
    for (size_t i = 0; i < sizeof k / 8; i++)
        hash = (hash ^ ((const u64 *)&k)[i]) * 0x9e3779b97f4a7c15u, hash ^= hash >> 29;
    struct plan *p = &lt.plan[hash % PLANS];
    if (!p->made || memcmp(&p->key, &k, sizeof k)) plan_make(p, &k, g->bias);
    return p;
}

int lt_run(const struct gemm *given, struct err *e) {
    struct gemm g = *given;
    if (g.t) { /* scale * T·U^T alone */
        g.a = g.t, g.lda = g.rank, g.a_t = false, g.k = g.rank;
        g.b = g.u, g.ldb = g.u_t ? g.n : g.rank, g.b_t = !g.u_t;
    }
    const float alpha = g.t ? g.scale : 1, beta = g.accumulate ? 1 : 0;
    if (g.k < 1) return 1;
    struct plan *p = plan_of(&g);
    if (!p->usable) return 1;
    if (g.bias && SET(MatmulDescSetAttribute, p->what, CUBLASLT_MATMUL_DESC_BIAS_POINTER, g.bias))
        return 1;
    const cublasStatus_t status =
        lt.Matmul(lt.handle, p->what, &alpha, g.b, p->a, g.a, p->b, &beta, g.c, p->c, g.c, p->c,
                  &p->algo, lt.workspace, WORKSPACE, cuda_stream);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED) return p->usable = false, 1;
    if (status == CUBLAS_STATUS_SUCCESS) return 0;
    err_failed(e, "CUDA: a product of cuBLASLt, %lld x %lld x %lld: status %d", (long long)g.m,
               (long long)g.n, (long long)g.k, (int)status);
    return err_hint(e, "numerics: portable uses no library; the last checkpoint is intact");
}

#else

#ifdef HONE_SHIM
bool lt_ready(void) { return true; }
extern "C" {
int lt_fake; /* tests (shim_test.h): a library that multiplies but knows no bias */
}
int lt_run(const struct gemm *g, struct err *e) {
    if (!lt_fake || g->bias) return 1;
    numerics_now = NUMERICS_PORTABLE;
    const int rc = gemm_cuda(g, e);
    return numerics_now = NUMERICS_FAST, rc;
}
#else
bool lt_ready(void) { return false; }
int lt_run(const struct gemm *g, struct err *e) { return (void)g, (void)e, 1; }
#endif
void lt_close(void) {}

#endif
