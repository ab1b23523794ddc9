/* microhttpd.c: the functions of libmicrohttpd that are called, found at run time. */
#include "train/serve/microhttpd.h"

#include <dlfcn.h>

struct mhd mhd;

static int missing(struct err *e) {
    const char *why = dlerror();
    err_failed(e, "libmicrohttpd, which the server needs, cannot be loaded");
    err_detail(e, "%s", why ? why : "unknown reason");
    return err_hint(e, "on Debian: apt-get install libmicrohttpd12");
}

int mhd_load(struct err *e) {
    void *library = dlopen("libmicrohttpd.so.12", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!library) return missing(e);
#define X(name)                                                                                    \
    if (!(*(void **)(void *)&mhd.name = dlsym(library, "MHD_" #name))) return missing(e);
    MHD_FUNCTIONS(X)
#undef X
    return 0;
}
