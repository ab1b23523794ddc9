/* shim_test.h: what test programs ask of the shim, in plain C. */
#ifndef HONE_SHIM_TEST_H
#define HONE_SHIM_TEST_H

#ifdef __cplusplus
extern "C" {
#endif
extern int shim_check;         /* see shim.h */
extern unsigned shim_seed;     /* order of threads */
extern int shim_late;          /* stores are seen at the synchronisation, not before: stores.cc */
long long shim_findings(void); /* since the last call; each was printed on stderr, the first ten */
extern int shim_quiet;         /* prints none */
const char *shim_first(void);  /* the text of the first since shim_findings was called */
void shim_fault_arm(const char *spec); /* as HONE_SHIM_FAULT; NULL: none */
/* launch.cc. A kernel that nvcc does not see: its registers and static shared memory. */
void shim_kernel_add(const char *file, const char *name, int registers, int fixed);
/* What the device is from the next opening on: "sm_80", ..., or "", the shim's own. */
void shim_gpu(const char *name);
extern int shim_dry;             /* kernels and copies are counted and checked, and nothing runs;
                                  * device memory has addresses and no bytes */
const char *shim_refusal(void);  /* why the last launch was refused */
const char *shim_refused(int i); /* of those that were while shim_dry: NULL at the end */
void shim_refused_forget(void);
/* cublaslt_cuda.cu: 1: there is a library that multiplies, but knows no bias; 0: none */
extern int lt_fake;
/* Is every byte of this device memory written? For results. */
long long shim_unwritten(const void *p, long long bytes);
void shim_forget(void *p, long long bytes); /* now nobody wrote it; filled with NaN */
#ifdef __cplusplus
}
#endif
#endif
