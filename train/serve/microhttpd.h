/* microhttpd.h: libmicrohttpd, loaded when a server starts and not with the program: it brings
 * GnuTLS along, whose own start takes memory, and where there is none left ends the program before
 * it has begun. */
#ifndef HONE_MICROHTTPD_H
#define HONE_MICROHTTPD_H

#include <microhttpd.h>
#include "base/base.h"

#define MHD_FUNCTIONS(X)                                                                           \
    X(add_response_header)                                                                         \
    X(create_response_from_buffer) X(create_response_from_callback) X(destroy_response)            \
        X(get_connection_info) X(lookup_connection_value) X(queue_response) X(quiesce_daemon)      \
            X(start_daemon) X(stop_daemon)
struct mhd { /* MHD_NAME as mhd.NAME */
#define X(name) __typeof__(&MHD_##name) name;
    MHD_FUNCTIONS(X)
#undef X
};
extern struct mhd mhd;
int mhd_load(struct err *e); /* before anything of mhd is called */

#endif
