#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
/* open and open64 are both defined here, so neither may be a macro for the
 * other. */
#undef _FILE_OFFSET_BITS
#undef _FORTIFY_SOURCE

#include "faults.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

/* The state of a thread. Initial-exec: accessing it allocates no memory, so it
 * may be accessed inside realloc(3) and before main. */
static _Thread_local struct {
    bool armed;
    bool any;
    char call[32];
    int nth, action, err;
    int seen;
    void (*hook)(void *context);
    void *hook_context;
    size_t logged;
    char log[6000];
} fault __attribute__((tls_model("initial-exec")));

/* The address range of this file. */
static const char fault_marker;

/* Calls from [low, high) are counted. */
static _Atomic uintptr_t caller_low = 0, caller_high = UINTPTR_MAX;

/* ---- functions for tests ---- */

void
pshm_fault_arm(const char *call, int nth, int action, int err)
{
    fault.armed = false;
    fault.any = call == NULL;
    (void)snprintf(fault.call, sizeof(fault.call), "%s", call ? call : "");
    fault.nth = nth;
    fault.action = action;
    fault.err = err;
    fault.seen = 0;
    fault.logged = 0;
    fault.log[0] = '\0';
    fault.armed = true;
}

int
pshm_fault_disarm(void)
{
    fault.armed = false;
    return fault.seen;
}

const char *
pshm_fault_log(void)
{
    return fault.log;
}

void
pshm_fault_hook(void (*hook)(void *context), void *context)
{
    fault.hook = hook;
    fault.hook_context = context;
}

struct search {
    const char *text;
    uintptr_t low, high;
};

static int
visit_object(struct dl_phdr_info *info, size_t size, void *context)
{
    struct search *search = context;
    (void)size;
    if (strstr(info->dlpi_name, search->text) == NULL) {
        return 0;
    }
    search->low = UINTPTR_MAX;
    search->high = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type == PT_LOAD) {
            uintptr_t start = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
            uintptr_t end = start + info->dlpi_phdr[i].p_memsz;
            search->low = start < search->low ? start : search->low;
            search->high = end > search->high ? end : search->high;
        }
    }
    return 1;
}

int
pshm_fault_from(const char *text)
{
    struct search search = {text, 0, UINTPTR_MAX};
    if (text != NULL && dl_iterate_phdr(visit_object, &search) == 0) {
        return -1;
    }
    atomic_store(&caller_low, search.low);
    atomic_store(&caller_high, search.high);
    return 0;
}

/* ---- a call ---- */

static void
write_log(const char *name)
{
    size_t length = strlen(name);
    if (fault.logged > 0 && fault.log[fault.logged - 1] == '.') {
        return;
    }
    if (fault.logged + 1 + length + sizeof(" ...") > sizeof(fault.log)) {
        name = "...";
        length = 3;
    }
    if (fault.logged > 0) {
        fault.log[fault.logged++] = ' ';
    }
    memcpy(fault.log + fault.logged, name, length + 1);
    fault.logged += length;
}

static void
die(void)
{
    (void)raise(SIGKILL);
    for (;;) {
        (void)pause();
    }
}

static void
call_hook(void)
{
    fault.armed = false;
    fault.hook(fault.hook_context);
    fault.armed = true;
}

struct visit {
    const char *name;
    void *caller;
    bool fails;
    int after;                  /* the action to take then, or -1 */
};

/* Atomic operations match only by name, because they are many and cannot fail.
 */
bool
pshm_fault_is_armed(const char *name)
{
    return fault.armed
           && (fault.any ? strcmp(name, "atomic") != 0
                         : strcmp(fault.call, name) == 0);
}

bool
pshm_fault_is_seen(const void *caller)
{
    uintptr_t from = (uintptr_t)caller;
    return from >= atomic_load_explicit(&caller_low, memory_order_relaxed)
           && from < atomic_load_explicit(&caller_high, memory_order_relaxed);
}

/* Runs before each call. errno is that of the caller, unless the call must
 * fail. */
static struct visit
enter(const char *name, void *caller)
{
    struct visit visit = {name, caller, false, -1};
    if (!pshm_fault_is_armed(name) || !pshm_fault_is_seen(caller)) {
        return visit;
    }
    int saved = errno;
    fault.seen++;
    write_log(name);
    bool now = fault.seen == fault.nth;
    switch ((enum pshm_fault_action)fault.action) {
    case PSHM_FAULT_FAIL:
        visit.fails = now;
        break;
    case PSHM_FAULT_FAIL_ON:
        visit.fails = fault.nth > 0 && fault.seen >= fault.nth;
        break;
    case PSHM_FAULT_KILL_BEFORE:
        if (now) {
            die();
        }
        break;
    case PSHM_FAULT_STOP_BEFORE:
        if (now) {
            (void)raise(SIGSTOP);
        }
        break;
    case PSHM_FAULT_HOOK_BEFORE:
        if (now) {
            call_hook();
        }
        break;
    case PSHM_FAULT_KILL_AFTER:
    case PSHM_FAULT_STOP_AFTER:
    case PSHM_FAULT_HOOK_AFTER:
        visit.after = now ? fault.action : -1;
        break;
    }
    errno = visit.fails ? fault.err : saved;
    return visit;
}

static void
leave(struct visit visit)
{
    int saved = errno;
    switch (visit.after) {
    case PSHM_FAULT_KILL_AFTER:
        die();
        break;
    case PSHM_FAULT_STOP_AFTER:
        (void)raise(SIGSTOP);
        break;
    case PSHM_FAULT_HOOK_AFTER:
        call_hook();
        break;
    default:
        break;
    }
    errno = saved;
}

bool
pshm_fault_meet(const char *name, void *caller)
{
    struct visit visit = enter(name, caller);
    leave(visit);
    return visit.fails;
}

/* A sanitizer that is linked into the same program has its own definition. It
 * must get the call, because its realloc must get the memory of its malloc.
 * (The definition of a sanitizer that is a library is the next one anyway.) */
static void *
find_interceptor(const char *name)
{
    char text[64];
    Dl_info its, ours;
    (void)snprintf(text, sizeof(text), "__interceptor_%s", name);
    void *found = dlsym(RTLD_DEFAULT, text);
    if (found != NULL && dladdr(found, &its) != 0
        && dladdr(&fault_marker, &ours) != 0
        && its.dli_fbase == ours.dli_fbase) {
        return found;
    }
    return NULL;
}

/* The next definition of a function after ours, which is stored in *kept. */
static void *
next(_Atomic(void *) *kept, const char *name)
{
    void *found = atomic_load_explicit(kept, memory_order_relaxed);
    if (found == NULL) {
        int saved = errno;
        found = find_interceptor(name);
        if (found == NULL) {
            found = dlsym(RTLD_NEXT, name);
        }
        if (found == NULL) {
            static const char words[] = "faults: no real ";
            (void)!write(2, words, sizeof(words) - 1);
            (void)!write(2, name, strlen(name));
            (void)!write(2, "\n", 1);
            abort();
        }
        atomic_store_explicit(kept, found, memory_order_relaxed);
        errno = saved;
    }
    return found;
}

/* ---- the wrapped functions ---- */

/* NOLINTBEGIN(bugprone-macro-parentheses): types, and names with the stars of
 * their types, cannot be in parentheses. */

/* Define a whole function: symbol(parameters), counted as name. */
#define WRAP_AS(type, failure, name, symbol, parameters, arguments)          \
    type symbol parameters;                                                  \
    type symbol parameters                                                   \
    {                                                                        \
        static _Atomic(void *) kept;                                         \
        type(*real) parameters =                                             \
            (type(*) parameters)(uintptr_t)next(&kept, #symbol);             \
        struct visit visit = enter(name, __builtin_return_address(0));       \
        if (visit.fails) {                                                   \
            return failure;                                                  \
        }                                                                    \
        type result = real arguments;                                        \
        leave(visit);                                                        \
        return result;                                                       \
    }

/* NOLINTEND(bugprone-macro-parentheses) */

#define WRAP(type, failure, symbol, parameters, arguments)                   \
    WRAP_AS(type, failure, #symbol, symbol, parameters, arguments)

/* The same for a function and its twin with a 64-bit off_t. */
#ifdef __GLIBC__
#define WRAP_64(type, failure, symbol, parameters, arguments)                \
    WRAP_AS(type, failure, #symbol, symbol, parameters, arguments)           \
    WRAP_AS(type, failure, #symbol, symbol##64, parameters, arguments)
#else
#define WRAP_64 WRAP
#endif

/* open(2), whose third argument exists only with some flags. */
#define WRAP_OPEN(symbol)                                                    \
    int symbol(const char *path, int flags, ...)                             \
    {                                                                        \
        static _Atomic(void *) kept;                                         \
        int (*real)(const char *, int, ...) =                                \
            (int (*)(const char *, int, ...))(uintptr_t)next(&kept,          \
                                                             #symbol);       \
        mode_t mode = 0;                                                     \
        if ((flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE) {    \
            va_list rest;                                                    \
            va_start(rest, flags);                                           \
            mode = (mode_t)va_arg(rest, int);                                \
            va_end(rest);                                                    \
        }                                                                    \
        struct visit visit = enter("open", __builtin_return_address(0));     \
        if (visit.fails) {                                                   \
            return -1;                                                       \
        }                                                                    \
        int result = real(path, flags, mode);                                \
        leave(visit);                                                        \
        return result;                                                       \
    }

/* fcntl(2): its argument, an int or a pointer, is passed on as it is. */
#define WRAP_FCNTL(symbol)                                                   \
    int symbol(int fd, int command, ...)                                     \
    {                                                                        \
        static _Atomic(void *) kept;                                         \
        int (*real)(int, int, ...) =                                         \
            (int (*)(int, int, ...))(uintptr_t)next(&kept, #symbol);         \
        va_list rest;                                                        \
        va_start(rest, command);                                             \
        void *argument = va_arg(rest, void *);                               \
        va_end(rest);                                                        \
        struct visit visit = enter("fcntl", __builtin_return_address(0));    \
        if (visit.fails) {                                                   \
            return -1;                                                       \
        }                                                                    \
        int result = real(fd, command, argument);                            \
        leave(visit);                                                        \
        return result;                                                       \
    }

/* mremap(2), whose fifth argument exists only with some flags. */
void *
mremap(void *old, size_t old_size, size_t size, int flags, ...)
{
    static _Atomic(void *) kept;
    void *(*real)(void *, size_t, size_t, int, ...)
        = (void *(*)(void *, size_t, size_t, int, ...))(uintptr_t)next(
            &kept, "mremap");
    void *fixed = NULL;
    if ((flags & MREMAP_FIXED) != 0) {
        va_list rest;
        va_start(rest, flags);
        fixed = va_arg(rest, void *);
        va_end(rest);
    }
    struct visit visit = enter("mremap", __builtin_return_address(0));
    if (visit.fails) {
        return MAP_FAILED;
    }
    void *result = real(old, old_size, size, flags, fixed);
    leave(visit);
    return result;
}

WRAP_OPEN(open)
WRAP_FCNTL(fcntl)
#ifdef __GLIBC__
WRAP_OPEN(open64)
WRAP_FCNTL(fcntl64)
/* The functions that _FORTIFY_SOURCE calls for open and read. */
WRAP_AS(int, -1, "open", __open_2, (const char *path, int flags),
        (path, flags))
WRAP_AS(int, -1, "open", __open64_2, (const char *path, int flags),
        (path, flags))
WRAP_AS(ssize_t, -1, "read", __read_chk,
        (int fd, void *buffer, size_t size, size_t room),
        (fd, buffer, size, room))
#endif

WRAP(int, -1, shm_open, (const char *name, int flags, mode_t mode),
     (name, flags, mode))
WRAP(int, -1, shm_unlink, (const char *name), (name))
WRAP(int, -1, memfd_create, (const char *label, unsigned int flags),
     (label, flags))
WRAP(int, -1, dup, (int fd), (fd))
WRAP(int, -1, pipe2, (int ends[2], int flags), (ends, flags))
WRAP(ssize_t, -1, read, (int fd, void *buffer, size_t size),
     (fd, buffer, size))
WRAP(ssize_t, -1, writev, (int fd, const struct iovec *parts, int count),
     (fd, parts, count))
WRAP(ssize_t, -1, getrandom, (void *buffer, size_t size, unsigned int flags),
     (buffer, size, flags))

WRAP(int, -1, access, (const char *path, int mode), (path, mode))
WRAP(int, -1, flock, (int fd, int operation), (fd, operation))
WRAP(int, -1, fchmod, (int fd, mode_t mode), (fd, mode))
WRAP(int, -1, fchown, (int fd, uid_t uid, gid_t gid), (fd, uid, gid))
WRAP(ssize_t, -1, fgetxattr,
     (int fd, const char *name, void *value, size_t size),
     (fd, name, value, size))
WRAP(int, -1, fsetxattr,
     (int fd, const char *name, const void *value, size_t size, int flags),
     (fd, name, value, size, flags))
WRAP(int, -1, fremovexattr, (int fd, const char *name), (fd, name))

WRAP(int, -1, link, (const char *from, const char *to), (from, to))
WRAP(int, -1, linkat,
     (int from_dir, const char *from, int to_dir, const char *to, int flags),
     (from_dir, from, to_dir, to, flags))
WRAP(int, -1, rename, (const char *from, const char *to), (from, to))
WRAP(int, -1, unlink, (const char *path), (path))
WRAP(int, -1, rmdir, (const char *path), (path))

WRAP_64(ssize_t, -1, pread, (int fd, void *buffer, size_t size, off_t offset),
        (fd, buffer, size, offset))
WRAP_64(int, -1, ftruncate, (int fd, off_t size), (fd, size))
WRAP_64(int, -1, fallocate, (int fd, int mode, off_t offset, off_t length),
        (fd, mode, offset, length))
WRAP(int, -1, munmap, (void *base, size_t length), (base, length))
WRAP_64(void *, MAP_FAILED, mmap,
        (void *hint, size_t length, int prot, int flags, int fd, off_t offset),
        (hint, length, prot, flags, fd, offset))
WRAP(int, -1, mprotect, (void *base, size_t length, int prot),
     (base, length, prot))
WRAP(int, -1, madvise, (void *base, size_t length, int advice),
     (base, length, advice))
WRAP(int, -1, msync, (void *base, size_t length, int flags),
     (base, length, flags))
WRAP(int, -1, mlock, (const void *base, size_t length), (base, length))
WRAP(int, -1, sigaction,
     (int number, const struct sigaction *action, struct sigaction *old),
     (number, action, old))
WRAP(int, -1, munlock, (const void *base, size_t length), (base, length))
WRAP(int, -1, mincore, (void *base, size_t length, unsigned char *pages),
     (base, length, pages))

WRAP(DIR *, NULL, opendir, (const char *path), (path))
WRAP_AS(struct dirent *, NULL, "readdir", readdir, (DIR * dir), (dir))
WRAP(FILE *, NULL, fdopen, (int fd, const char *mode), (fd, mode))
WRAP(ssize_t, -1, getline, (char **line, size_t *room, FILE *file),
     (line, room, file))

#ifdef __GLIBC__
/* The function that an optimizing compiler calls for getline. */
WRAP_AS(ssize_t, -1, "getline", __getdelim,
        (char **line, size_t *room, int delimiter, FILE *file),
        (line, room, delimiter, file))
#endif

/* glibc before 2.33 has these under other names, for inline functions. */
#ifdef __GLIBC__
#define STAT_BY_NAME __GLIBC_PREREQ(2, 33)
#else
#define STAT_BY_NAME 1
#endif
#if STAT_BY_NAME
WRAP(int, -1, fstat, (int fd, struct stat *out), (fd, out))
WRAP(int, -1, lstat, (const char *path, struct stat *out), (path, out))
WRAP(int, -1, stat, (const char *path, struct stat *out), (path, out))
WRAP(int, -1, fstatat,
     (int dir, const char *path, struct stat *out, int flags),
     (dir, path, out, flags))
#define WRAP_STAT_64(symbol, parameters, arguments)                          \
    WRAP_AS(int, -1, #symbol, symbol##64, parameters, arguments)
#ifdef __GLIBC__
WRAP_STAT_64(fstat, (int fd, struct stat64 *out), (fd, out))
WRAP_STAT_64(lstat, (const char *path, struct stat64 *out), (path, out))
WRAP_STAT_64(stat, (const char *path, struct stat64 *out), (path, out))
WRAP_STAT_64(fstatat,
             (int dir, const char *path, struct stat64 *out, int flags),
             (dir, path, out, flags))
/* Functions that a program calls if it was built with glibc before 2.33. Later
 * versions still have them, but dlsym does not find them, so the calls are
 * passed on to their successors, which fill in the same structure. */
/* NOLINTBEGIN(bugprone-macro-parentheses): as above. */
#define WRAP_OLD(name, symbol, successor, parameters, its, arguments)        \
    int symbol parameters;                                                   \
    int symbol parameters                                                    \
    {                                                                        \
        static _Atomic(void *) kept;                                         \
        int(*real) its = (int(*) its)(uintptr_t)next(&kept, #successor);     \
        struct visit visit = enter(name, __builtin_return_address(0));       \
        (void)version;                                                       \
        if (visit.fails) {                                                   \
            return -1;                                                       \
        }                                                                    \
        int result = real arguments;                                         \
        leave(visit);                                                        \
        return result;                                                       \
    }
/* NOLINTEND(bugprone-macro-parentheses) */
#define WRAP_OLD_STAT(name, symbol, successor, type)                         \
    WRAP_OLD(name, symbol, successor,                                        \
             (int version, type where, struct stat64 *out),                  \
             (type, struct stat64 *), (where, out))
#define WRAP_OLD_STATAT(symbol)                                              \
    WRAP_OLD("fstatat", symbol, fstatat64,                                   \
             (int version, int dir, const char *path, struct stat64 *out,    \
              int flags),                                                    \
             (int, const char *, struct stat64 *, int),                      \
             (dir, path, out, flags))
#if __WORDSIZE == 64
WRAP_OLD_STAT("fstat", __fxstat, fstat64, int)
WRAP_OLD_STAT("fstat", __fxstat64, fstat64, int)
WRAP_OLD_STAT("lstat", __lxstat, lstat64, const char *)
WRAP_OLD_STAT("lstat", __lxstat64, lstat64, const char *)
WRAP_OLD_STAT("stat", __xstat, stat64, const char *)
WRAP_OLD_STAT("stat", __xstat64, stat64, const char *)
WRAP_OLD_STATAT(__fxstatat)
WRAP_OLD_STATAT(__fxstatat64)
#endif
#endif
#else
#define WRAP_XSTAT(name, symbol, type)                                       \
    WRAP_AS(int, -1, name, symbol,                                           \
            (int version, type where, struct stat *out),                     \
            (version, where, out))
WRAP_XSTAT("fstat", __fxstat, int)
WRAP_XSTAT("lstat", __lxstat, const char *)
WRAP_XSTAT("stat", __xstat, const char *)
WRAP_AS(int, -1, "fstatat", __fxstatat,
        (int version, int dir, const char *path, struct stat *out, int flags),
        (version, dir, path, out, flags))
#define WRAP_XSTAT_64(name, symbol, type)                                    \
    WRAP_AS(int, -1, name, symbol,                                           \
            (int version, type where, struct stat64 *out),                   \
            (version, where, out))
WRAP_XSTAT_64("fstat", __fxstat64, int)
WRAP_XSTAT_64("lstat", __lxstat64, const char *)
WRAP_XSTAT_64("stat", __xstat64, const char *)
WRAP_AS(int, -1, "fstatat", __fxstatat64,
        (int version, int dir, const char *path, struct stat64 *out,
         int flags),
        (version, dir, path, out, flags))
#endif

#ifdef __GLIBC__
typedef __rlimit_resource_t limited_resource;
WRAP_AS(struct dirent64 *, NULL, "readdir", readdir64, (DIR * dir), (dir))
WRAP_AS(int, -1, "getrlimit", getrlimit64,
        (limited_resource resource, struct rlimit64 *out), (resource, out))
WRAP_AS(int, -1, "fstatfs", fstatfs64, (int fd, struct statfs64 *out),
        (fd, out))
WRAP_AS(int, -1, "statvfs", statvfs64,
        (const char *path, struct statvfs64 *out), (path, out))
WRAP_AS(int, -1, "fstatvfs", fstatvfs64, (int fd, struct statvfs64 *out),
        (fd, out))
#else
typedef int limited_resource;
#endif
WRAP(int, -1, getrlimit, (limited_resource resource, struct rlimit *out),
     (resource, out))
WRAP(int, -1, fstatfs, (int fd, struct statfs *out), (fd, out))
WRAP(int, -1, statvfs, (const char *path, struct statvfs *out), (path, out))
WRAP(int, -1, fstatvfs, (int fd, struct statvfs *out), (fd, out))

/* These return their error. */
WRAP(int, fault.err, pthread_mutex_init,
     (pthread_mutex_t * mutex, const pthread_mutexattr_t *attributes),
     (mutex, attributes))
WRAP(int, fault.err, pthread_mutexattr_setrobust,
     (pthread_mutexattr_t * attributes, int robustness),
     (attributes, robustness))
WRAP(int, fault.err, clock_nanosleep,
     (clockid_t clock, int flags, const struct timespec *span,
      struct timespec *left),
     (clock, flags, span, left))

/* Linux closes the descriptor regardless of what close(2) returns. */
int
close(int fd)
{
    static _Atomic(void *) kept;
    int (*real)(int) = (int (*)(int))(uintptr_t)next(&kept, "close");
    struct visit visit = enter("close", __builtin_return_address(0));
    int wanted = errno;
    int result = real(fd);
    if (visit.fails) {
        errno = wanted;
        return -1;
    }
    leave(visit);
    return result;
}

WRAP(void *, NULL, realloc, (void *memory, size_t size), (memory, size))

/* Called by atomic_calls.h, which cannot be used with a preloaded library. */
void pshm_fault_atomic(void);
void
pshm_fault_atomic(void)
{
    leave(enter("atomic", __builtin_return_address(0)));
}

static const char *
syscall_name(long number)
{
    switch (number) {
    case SYS_renameat2:
        return "renameat2";
    case SYS_memfd_create:
        return "memfd_create";
    case SYS_process_madvise:
        return "process_madvise";
    case SYS_futex:
        return "futex";
    case SYS_get_robust_list:
        return "get_robust_list";
    default:
        return "syscall";
    }
}

long
syscall(long number, ...)
{
    static _Atomic(void *) kept;
    long (*real)(long, ...) =
        (long (*)(long, ...))(uintptr_t)next(&kept, "syscall");
    va_list rest;
    va_start(rest, number);
    long a = va_arg(rest, long), b = va_arg(rest, long);
    long c = va_arg(rest, long), d = va_arg(rest, long);
    long e = va_arg(rest, long), f = va_arg(rest, long);
    va_end(rest);
    struct visit visit =
        enter(syscall_name(number), __builtin_return_address(0));
    if (visit.fails) {
        return -1;
    }
    long result = real(number, a, b, c, d, e, f);
    leave(visit);
    return result;
}
