/* trace_faults.h: makes system calls of a program fail, from outside of it.
 *
 * base/fault.c fails at the places that ask it; this fails every call that changes files, whoever
 * makes it: libraries, stdio, code that forgot to ask. A seccomp filter stops the program at those
 * calls only, and the tracer gives them an error in place of the kernel. Rejected: LD_PRELOAD,
 * which does not see the calls that libc makes itself, and which sanitizers do not bear. x86-64. */
#ifndef HONE_TRACE_FAULTS_H
#define HONE_TRACE_FAULTS_H

#include "base/base.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum trace_kind {
    TRACE_WRITE,
    TRACE_SYNC,
    TRACE_OPEN, /* for writing, or to create */
    TRACE_RENAME,
    TRACE_TRUNCATE,
    TRACE_MKDIR,
    TRACE_MAP,   /* of a file */
    TRACE_CLOSE, /* of a file that was written */
    TRACE_KINDS
};
static const struct {
    const char *name;
    long call[3]; /* -1: none; 0 is read */
    int error;
} trace_kind[TRACE_KINDS] = {
    [TRACE_WRITE] = {"write", {SYS_write, SYS_pwrite64, SYS_writev}, ENOSPC},
    [TRACE_SYNC] = {"sync", {SYS_fsync, SYS_fdatasync, -1}, EIO},
    [TRACE_OPEN] = {"open", {SYS_openat, SYS_open, SYS_creat}, ENOSPC},
    [TRACE_RENAME] = {"rename", {SYS_rename, SYS_renameat, SYS_renameat2}, EIO},
    [TRACE_TRUNCATE] = {"truncate", {SYS_ftruncate, SYS_truncate, SYS_fallocate}, ENOSPC},
    [TRACE_MKDIR] = {"mkdir", {SYS_mkdir, SYS_mkdirat, -1}, ENOSPC},
    [TRACE_MAP] = {"map", {SYS_mmap, -1, -1}, ENOMEM},
    [TRACE_CLOSE] = {"close", {SYS_close, -1, -1}, EIO},
};

struct trace_fault {
    enum trace_kind kind;
    int n;        /* which of the calls fails, from 1 */
    bool forever; /* and all after it */
    int error;    /* 0: that of the kind */
};
struct trace_result {
    int code;        /* exit code, or 128 + signal */
    int calls, hits; /* of the kind; made to fail */
    bool denied;     /* this system does not allow tracing */
    char path[512];  /* the file that the first failure hit */
};

static inline void trace_filter(void) {
    struct sock_filter code[4 + 2 * 3 * TRACE_KINDS];
    int n = 0;
    code[n++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int k = 0; k < TRACE_KINDS; k++)
        for (int i = 0; i < 3; i++) {
            if (trace_kind[k].call[i] < 0) continue;
            code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
                                                     (u32)trace_kind[k].call[i], 0, 1);
            code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
        }
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {(u16)n, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        _exit(77);
}

/* The path of an open file of a process; "" if it has none. */
static inline void trace_fd(pid_t pid, long fd, char path[512]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/%d/fd/%ld", pid, fd);
    const ssize_t n = readlink(link, path, 511);
    path[n > 0 ? n : 0] = 0;
}

static inline void trace_text(pid_t pid, u64 at, char path[512]) {
    char file[64];
    snprintf(file, sizeof file, "/proc/%d/mem", pid);
    const int fd = open(file, O_RDONLY);
    const ssize_t n = fd < 0 ? 0 : pread(fd, path, 511, (off_t)at);
    path[n > 0 ? n : 0] = 0;
    if (fd >= 0) close(fd);
}

static inline bool trace_writable(pid_t pid, long fd) {
    char file[64], text[256] = "";
    snprintf(file, sizeof file, "/proc/%d/fdinfo/%ld", pid, fd);
    const int info = open(file, O_RDONLY);
    if (info < 0) return false;
    if (read(info, text, sizeof text - 1) < 0) text[0] = 0;
    close(info);
    const char *flags = strstr(text, "flags:");
    return flags && (strtol(flags + 6, NULL, 8) & O_ACCMODE) != O_RDONLY;
}

/* Whether a stopped call is of this kind and concerns a file under `folder`. */
static inline bool trace_is(pid_t pid, enum trace_kind kind, const struct user_regs_struct *r,
                            const char *folder, char path[512]) {
    const long nr = (long)r->orig_rax;
    bool is = false, by_fd = false;
    for (int i = 0; i < 3; i++) is |= trace_kind[kind].call[i] == nr;
    if (!is) return false;
    path[0] = 0;
    if (kind == TRACE_MAP)
        by_fd = true, trace_fd(pid, (long)(int)r->r8, path);
    else if (kind == TRACE_WRITE || kind == TRACE_SYNC || kind == TRACE_CLOSE ||
             nr == SYS_ftruncate || nr == SYS_fallocate)
        by_fd = true, trace_fd(pid, (long)r->rdi, path);
    else
        trace_text(pid,
                   nr == SYS_openat || nr == SYS_mkdirat || nr == SYS_renameat ||
                           nr == SYS_renameat2
                       ? r->rsi
                       : r->rdi,
                   path);
    if (kind == TRACE_OPEN) {
        const u64 flags = nr == SYS_openat ? r->rdx : r->rsi;
        if (nr != SYS_creat && (flags & O_ACCMODE) == O_RDONLY && !(flags & O_CREAT)) return false;
    }
    if (kind == TRACE_CLOSE && !trace_writable(pid, (long)r->rdi)) return false;
    if (by_fd || path[0] == '/') return !strncmp(path, folder, strlen(folder));
    return true; /* relative: to the folder in which the program runs */
}

static inline void trace_child(const char *folder, const char *script, const char *err) {
    const int null = open("/dev/null", O_RDWR), to = open(err, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    dup2(null, 0), dup2(null, 1), dup2(to, 2);
    if (chdir(folder) || ptrace(PTRACE_TRACEME, 0, NULL, NULL)) _exit(77);
    raise(SIGSTOP);
    trace_filter();
    execl("/bin/sh", "sh", "-c", script, (char *)NULL);
    _exit(126);
}

/* The call fails: it is not made, but for close, which always closes. */
static inline void trace_inject(pid_t pid, struct user_regs_struct *r, int error) {
    int status;
    if ((long)r->orig_rax == SYS_close) {
        ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
        if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status)) return;
        ptrace(PTRACE_GETREGS, pid, NULL, r);
    } else {
        r->orig_rax = (u64)-1;
    }
    r->rax = (u64)-error;
    ptrace(PTRACE_SETREGS, pid, NULL, r);
}

/* Runs shell text in `folder` with standard error to the file `err`, and makes calls fail. */
static inline struct trace_result trace_run(const char *folder, const char *script, const char *err,
                                            const struct trace_fault *fault) {
    struct trace_result result = {.code = -1};
    struct user_regs_struct regs;
    char path[512];
    int status = 0;
    const pid_t child = fork();
    if (!child) trace_child(folder, script, err);
    if (child < 0 || waitpid(child, &status, __WALL) != child || !WIFSTOPPED(status) ||
        ptrace(PTRACE_SETOPTIONS, child, NULL,
               PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
                   PTRACE_O_TRACEVFORK | PTRACE_O_EXITKILL))
        return result.denied = true, result;
    ptrace(PTRACE_CONT, child, NULL, NULL);
    for (pid_t pid; (pid = waitpid(-1, &status, __WALL)) > 0;) {
        if (!WIFSTOPPED(status)) {
            if (pid != child) continue;
            result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            result.denied = result.code == 77;
            break;
        }
        const int number = WSTOPSIG(status), event = status >> 16;
        if (event == PTRACE_EVENT_SECCOMP && !ptrace(PTRACE_GETREGS, pid, NULL, &regs) &&
            trace_is(pid, fault->kind, &regs, folder, path)) {
            result.calls++;
            if (result.calls == fault->n || (fault->forever && result.calls > fault->n)) {
                if (!result.hits++) memcpy(result.path, path, sizeof path);
                trace_inject(pid, &regs,
                             fault->error ? fault->error : trace_kind[fault->kind].error);
            }
        }
        /* A new thread's or process' first stop is not for it. */
        ptrace(PTRACE_CONT, pid, NULL,
               (void *)(uintptr_t)(event || number == SIGTRAP || number == SIGSTOP ? 0 : number));
    }
    return result;
}

#endif
