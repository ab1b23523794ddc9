/* shim_int.h: between the files of the shim. */
#ifndef HONE_SHIM_INT_H
#define HONE_SHIM_INT_H

#include "tests/shim/shim.h"
#include "tests/shim/shim_test.h"

struct shim_copy { /* an asynchronous copy under way */
    void *to;
    const void *from; /* NULL: zeros */
    int group;
};
enum { SHIM_THREADS = 1024, SHIM_WARPS = SHIM_THREADS / 32 };
/* Who is running, for the checks. */
extern struct shim_place {
    const char *kernel;
    u32 block, thread;
    u32 phase, block_phase, launch_phase; /* check.cc: now, and the first of block and launch */
    u64 me;                               /* check.cc: the stamp of an access */
    unsigned char *stack, *shared;
    bool entered; /* its arguments are its own */
    bool late;    /* stores.cc, in this launch */
    size_t stack_size;
} shim_place;

/* runtime.cc */
void shim_open(void), shim_shut(void);      /* the host may touch device memory between the two */
int shim_queue(std::function<void()> work); /* runs it, or records it; a cudaError_t */
bool shim_fault(const char *kind);          /* is the machine to have this? */
void *shim_region(size_t bytes);            /* checked memory that is no device allocation */
/* stores.cc; what is done while the launch is not late is nothing */
void shim_store(void *p, size_t bytes, bool shared); /* about to happen */
void shim_stores_of(int fiber);                      /* it goes on now; -1: none */
void shim_stores_warp();                             /* __syncwarp: the running fiber's warp */
void shim_stores_phase(int threads), shim_stores_block(int threads); /* one ends, all stand */
void shim_stores_launch(bool begin);
/* launch.cc */
int shim_launch_check(const void *kernel, dim3 grid, dim3 block, size_t dynamic); /* cudaError_t */
size_t shim_kernel_fixed(const void *kernel); /* bytes of static shared memory */
void shim_gpu_describe(cudaDeviceProp *p);
/* check.cc */
void shim_kernel_begin(), shim_kernel_end();
void shim_block_begin(u32 number), shim_phase_begin();
void shim_shared_limit(size_t bytes, bool begin);
void shim_access(const void *p, size_t bytes, bool write);
void shim_poison(void *p, size_t bytes); /* now nobody wrote it */
void shim_written(void *p, size_t bytes);
void shim_track(void *p, size_t bytes), shim_untrack(void *p);
void shim_finding(const char *fmt, ...) PRINTF(1, 2);
void shim_complain(const char *what); /* with the running kernel, block and thread */

#endif
