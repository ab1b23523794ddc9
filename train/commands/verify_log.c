/* verify_log.c: what `hone verify` reads in a run's log, and where it writes what it found. */
#include "train/commands/verify_int.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Steps only rise (log.c). */
const struct log_row *row_of(const struct verification *v, i64 step) {
    i64 low = 0, high = v->log.count;
    while (low < high) {
        const i64 middle = (low + high) / 2;
        if (v->log.row[middle].step < step)
            low = middle + 1;
        else
            high = middle;
    }
    const struct log_row *row = &v->log.row[low];
    return low < v->log.count && row->step == step && (row->trained || !step) ? row : NULL;
}

i64 last_step(const struct verification *v) {
    for (i64 i = v->log.count; i-- > 0;)
        if (v->log.row[i].trained) return v->log.row[i].step;
    return 0;
}

int verify_note(const struct verification *v, const char *what, const char *result, struct err *e) {
    char when[32], *path = mem_printf(e, "%s/verify.jsonl", v->run);
    struct text line = {0};
    const time_t now = time(NULL);
    struct tm utc;
    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S UTC", gmtime_r(&now, &utc));
    if (!path) return -1;
    if (!quiet) printf("%-8s %s\n", what, result);
    fflush(stdout);
    struct stat st; /* a link in somebody else's run would lead to a file of ours */
    if (!lstat(path, &st) && !S_ISREG(st.st_mode)) {
        err_input(e, "%s is not a regular file", path);
        err_hint(e, "remove it: the results of checks are noted there");
        return mem_free(path), -1;
    }
    const bool there = path_exists(path);
    const int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0 && (errno == EROFS || errno == EACCES || errno == EPERM)) {
        if (!quiet && !strcmp(what, "files"))
            fprintf(stderr, "note: %s cannot be written (%s): results are only shown\n", path,
                    strerror(errno));
        mem_free(path);
        return 0; /* somebody else's run, or a medium that is read-only */
    }
    int rc = fd < 0 ? err_system(e, "open", path) : 0;
    const off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    rc = rc ||
         text_printf(&line, e,
                     "{\"time\": \"%s\", \"check\": \"%s\", \"ok\": true, \"result\": ", when,
                     what) ||
         json_text_add(&line, result, (i64)strlen(result), e) ||
         text_printf(&line, e, ", \"isa\": \"%s\", \"threads\": %d}\n", isa_name[isa_now()],
                     pool_threads()) ||
         file_write_all(fd, line.data, line.size, path, e);
    if (fd >= 0 && rc && !there)
        unlink(path);
    else if (fd >= 0 && rc && ftruncate(fd, size)) /* no half line */
        err_detail(e, "%s may end with half a line", path);
    if (fd >= 0 && close(fd) && !rc) rc = err_system(e, "write", path);
    text_free(&line), mem_free(path);
    return rc ? -1 : 0;
}
