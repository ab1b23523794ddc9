/* cmd_doctor.c: `hone doctor`: what this build and this machine can do. */
#include "train/commands/commands.h"

#include <unistd.h>

static int cmd_doctor(int argc, char **argv, struct err *e) {
    (void)argv;
    if (argc) return err_input(e, "doctor takes no arguments");
    for (int i = 0; build_info[i]; i += 2) printf("%-18s %s\n", build_info[i], build_info[i + 1]);
    printf("%-18s", "instruction sets");
    for (int i = 0; i <= (int)isa_best(); i++)
        printf(" %s%s", isa_name[i], i == (int)isa_now() ? " (in use)" : "");
    printf("\n%-18s %d of %ld cores\n", "threads", pool_threads(), sysconf(_SC_NPROCESSORS_ONLN));
    printf("%-18s %.1f GiB free\n", "memory", (double)mem_available() / (1 << 30));
    printf("%-18s %.1f GiB free here\n", "disk", (double)disk_free(".") / (1 << 30));
    printf("%-18s %s\n", "report charts",
           path_exists("/usr/share/javascript/chart.js/chart.min.js")
               ? "Chart.js found"
               : "not available: install libjs-chart.js");
    cuda_report(stdout);
    return 0;
}

const struct command command_doctor = {
    "doctor", "doctor", "what this build and this machine can do", cmd_doctor, NULL, NULL};
