#include "check.h"

#include <dirent.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#define MOST_COMPLAINTS 20

static int failed_checks, complaints;
static int passed, failed, skipped;
static bool test_skipped;
static const char *test_name = "";
static char about[512];

/* ---- checks and tests ---- */

/* Count and report a failed check. Returns whether the caller must print more:
 * only the first failures of a test are printed. */
static bool
complain(const char *file, int line)
{
    const char *slash = strrchr(file, '/');
    failed_checks++;
    if (++complaints > MOST_COMPLAINTS) {
        return false;
    }
    (void)printf("FAILED %s (%s:%d)%s%s: ", test_name,
                 slash ? slash + 1 : file, line, about[0] ? ", " : "", about);
    return true;
}

bool
check_that(bool holds, const char *file, int line, const char *text)
{
    if (!holds && complain(file, line)) {
        (void)printf("%s\n", text);
    }
    return holds;
}

bool
check_equal(long long actual, long long expected, const char *file, int line,
            const char *text)
{
    if (actual != expected && complain(file, line)) {
        (void)printf("%s is %lld, not %lld\n", text, actual, expected);
    }
    return actual == expected;
}

void
check_about(const char *format, ...)
{
    about[0] = '\0';
    if (format != NULL) {
        va_list rest;
        va_start(rest, format);
        (void)vsnprintf(about, sizeof(about), format, rest);
        va_end(rest);
    }
}

static void
remove_leftovers(void)
{
    for (;;) {
        struct pshm_name name = first_with(prefix());
        if (name.path[0] == '\0' || unlink(name.path) < 0) {
            return;
        }
    }
}

void
run_test(void (*test)(void), const char *name)
{
    test_name = name;
    test_skipped = false;
    complaints = 0;
    check_about(NULL);
    int before = failed_checks;
    struct census census = census_take();
    test();
    check_about("at its end");
    CHECK_NOTHING_LEFT(census);
    remove_leftovers();
    if (failed_checks > before) {
        failed++;
    }
    else if (test_skipped) {
        skipped++;
    }
    else {
        passed++;
    }
    (void)fflush(stdout);
}

static int (*test_of_child)(void *context);
static int status_of_child;

static void
run_child(void)
{
    (void)check_equal(child_run(test_of_child, NULL), status_of_child,
                      __FILE__, __LINE__, "status of the child");
}

void
run_test_in_child(int (*test)(void *context), const char *name, int status)
{
    test_of_child = test;
    status_of_child = status;
    run_test(run_child, name);
}

void
skip(const char *reason)
{
    test_skipped = true;
    (void)printf("SKIPPED %s: %s\n", test_name, reason);
}

int
finish(void)
{
    (void)printf("%d passed, %d failed, %d skipped\n", passed, failed,
                 skipped);
    return failed > 0;
}

/* ---- signals of long calls ---- */

int
count_interrupt(void *context)
{
    struct interrupts *interrupts = context;
    interrupts->calls++;
    return interrupts->raises > 0 && interrupts->calls >= interrupts->raises
               ? -EINTR : 0;
}

static int
no_interrupt(void *context)
{
    (void)context;
    return 0;
}

const struct pshm_interrupt go_on = {no_interrupt, NULL};

/* ---- names and objects ---- */

/* The whole program has a deadline as well. */
const char *
prefix(void)
{
    static char text[32];
    if (text[0] == '\0') {
        (void)snprintf(text, sizeof(text), "pshmtest.%ld.", (long)getpid());
        (void)alarm(100);
    }
    return text;
}

struct pshm_name
name_of(const char *suffix)
{
    struct pshm_name name;
    char text[PSHM_NAME_MAX + 1];
    int length = snprintf(text, sizeof(text), "%s%s", prefix(), suffix);
    CHECK(pshm_name_parse(text, (size_t)length, &name) == NULL);
    return name;
}

/* Returns the number of names that start with the text, and the first one. */
static int
find_names(const char *text, struct pshm_name *first)
{
    int count = 0;
    DIR *dir = opendir(PSHM_DIR);
    const struct dirent *entry;
    first->path[0] = '\0';
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (strncmp(entry->d_name, text, strlen(text)) == 0) {
            (void)snprintf(first->path, sizeof(first->path), "%s/%s",
                           PSHM_DIR, entry->d_name);
            count++;
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    return count;
}

int
names_with(const char *text)
{
    struct pshm_name first;
    return find_names(text, &first);
}

struct pshm_name
first_with(const char *text)
{
    struct pshm_name first;
    (void)find_names(text, &first);
    return first;
}

struct pshm_identity
make_plain(const struct pshm_name *name, off_t size, mode_t mode, char fill)
{
    int fd = open(name->path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (!CHECK(fd >= 0)) {
        return (struct pshm_identity){0};
    }
    CHECK(ftruncate(fd, size) == 0);
    if (fill != 0) {
        char *bytes = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE,
                           MAP_SHARED, fd, 0);
        if (CHECK(bytes != MAP_FAILED)) {
            memset(bytes, fill, (size_t)size);
            CHECK(munmap(bytes, (size_t)size) == 0);
        }
    }
    CHECK(fchmod(fd, mode) == 0);
    CHECK(close(fd) == 0);
    return identity_of(name);
}

void
remove_plain(const struct pshm_name *name)
{
    (void)unlink(name->path);
}

int
memory_file(off_t size)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    CHECK(fd >= 0);
    CHECK(ftruncate(fd, size) == 0);
    return fd;
}

struct pshm_identity
identity_of(const struct pshm_name *name)
{
    struct stat st;
    if (lstat(name->path, &st) < 0) {
        return (struct pshm_identity){0};
    }
    return (struct pshm_identity){st.st_dev, st.st_ino};
}

/* ---- leftovers ---- */

static int
count_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

static int
count_mappings(void)
{
    int count = 0;
    FILE *file = fopen("/proc/self/maps", "re");
    char line[1024];
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        count += strstr(line, PSHM_DIR "/") != NULL
                 || strstr(line, "/memfd:") != NULL;
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return count;
}

struct census
census_take(void)
{
    return (struct census){
        .descriptors = count_descriptors(),
        .mappings = count_mappings(),
        .names = names_with(prefix()),
    };
}

void
census_compare(struct census before, const char *file, int line)
{
    struct census now = census_take();
    check_equal(now.descriptors, before.descriptors, file, line,
                "the number of descriptors");
    check_equal(now.mappings, before.mappings, file, line,
                "the number of mappings");
    if (!check_equal(now.names, before.names, file, line,
                     "the number of names")) {
        (void)printf("    one of them: %s\n", first_with(prefix()).path);
    }
}

/* ---- children ---- */

/* _exit(2) writes no counters: run --coverage. */
static void
keep_counts(void)
{
#ifdef COUNTERS
    void __gcov_dump(void);
    end_limit(RLIMIT_FSIZE);
    end_limit(RLIMIT_NOFILE);
    __gcov_dump();
#endif
}

pid_t
child_start(int (*function)(void *context), void *context)
{
    (void)prefix();
    (void)fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        (void)alarm(60);
        failed_checks = 0;
        int status = function(context);
        (void)fflush(stdout);
        keep_counts();
        _exit(failed_checks > 0 ? 1 : status);
    }
    CHECK(pid > 0);
    return pid;
}

int
child_wait(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            return -1;
        }
    }
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

int
child_run(int (*function)(void *context), void *context)
{
    return child_wait(child_start(function, context));
}

void
check_in_child(int (*function)(void *context), void *context,
               const char *reason, const char *file, int line)
{
    int status = child_run(function, context);
    if (status == CANNOT) {
        skip(reason);
    }
    else {
        (void)check_equal(status, 0, file, line, "status of the child");
    }
}

void
child_kill(pid_t pid)
{
    CHECK(kill(pid, SIGKILL) == 0);
    CHECK_IS(child_wait(pid), -SIGKILL);
}

struct killing {
    int nth, action;
    int (*function)(void *context);
    void *context;
};

static int
be_killed(void *context)
{
    const struct killing *killing = context;
    pshm_fault_arm(NULL, killing->nth, killing->action, 0);
    int rc = killing->function(killing->context);
    (void)pshm_fault_disarm();
    CHECK_IS(rc, 0);
    return 0;
}

bool
child_killed_at(int nth, int action, int (*function)(void *context),
                void *context)
{
    struct killing killing = {nth, action, function, context};
    int status = child_run(be_killed, &killing);
    CHECK(status == 0 || status == -SIGKILL);
    return status == -SIGKILL;
}

void
child_wait_stopped(pid_t pid)
{
    int status = 0;
    CHECK(waitpid(pid, &status, WUNTRACED) == pid);
    CHECK(WIFSTOPPED(status));
}

pid_t
child_start_stopped(int (*function)(void *context), void *context)
{
    pid_t pid = child_start(function, context);
    child_wait_stopped(pid);
    return pid;
}

int
stop_itself(void *context)
{
    (void)context;
    (void)raise(SIGSTOP);
    return 0;
}

void *
shared_memory(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        (void)printf("no memory to share with children\n");
        exit(2);
    }
    return memory;
}

static bool
write_line(const char *path, const char *format, unsigned int id)
{
    FILE *file = fopen(path, "we");
    bool written = file != NULL && fprintf(file, format, id) > 0;
    return file != NULL && fclose(file) == 0 && written;
}

/* A user other than root becomes root in a user namespace. */
static bool
become_root_of_a_namespace(void)
{
    unsigned int uid = geteuid(), gid = getegid();
    return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0
           && write_line("/proc/self/uid_map", "0 %u 1\n", uid)
           && write_line("/proc/self/setgroups", "deny\n", 0)
           && write_line("/proc/self/gid_map", "0 %u 1\n", gid);
}

int
mount_own(const char *where, const char *options)
{
    if ((unshare(CLONE_NEWNS) < 0 && !become_root_of_a_namespace())
        || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0
        || mount("pshmtest", where, "tmpfs", 0, options) < 0) {
        return CANNOT;
    }
    return 0;
}

void
make_folder(const char *path)
{
    CHECK(mkdir(path, 0755) == 0);
}

void
write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");
    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

int
forbid(long number, int err)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)err),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {COUNT(code), code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0
                   || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0
               ? CANNOT : 0;
}

int
become_nobody(void)
{
    if (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0
        || setresuid(NOBODY, NOBODY, NOBODY) < 0) {
        return CANNOT;
    }
    /* Otherwise /proc/self would belong to root. */
    return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0 ? CANNOT : 0;
}

void
limit_to(int resource, rlim_t most)
{
    struct rlimit limit;
    CHECK(getrlimit(resource, &limit) == 0);
    limit.rlim_cur = most;
    CHECK(setrlimit(resource, &limit) == 0);
}

void
end_limit(int resource)
{
    struct rlimit limit;
    CHECK(getrlimit(resource, &limit) == 0);
    limit_to(resource, limit.rlim_max);
}

void
use_up_memory(void)
{
    limit_to(RLIMIT_DATA, 1);           /* 0 does not limit everything */
    static struct piece {
        struct piece *next;
    } *pieces;
    for (size_t size = (size_t)1 << 20; size >= sizeof(*pieces); size /= 2) {
        struct piece *piece;
        while ((piece = malloc(size)) != NULL) {
            piece->next = pieces;
            pieces = piece;
        }
    }
}

/* ---- faults ---- */

/* The errors of each call. */
static const struct {
    const char *call;
    int errnos[8];
} plausible[] = {
    {"open", {EINTR, EACCES, EMFILE, ENFILE, ENOSPC, ENOMEM, EIO}},
    {"shm_open", {EINTR, EACCES, EMFILE, ENFILE, ENOMEM, EIO}},
    {"shm_unlink", {EACCES, ENOENT, EIO}},
    {"memfd_create", {EMFILE, ENFILE, ENOMEM}},
    {"fstat", {ENOMEM, EIO, EOVERFLOW}},
    {"lstat", {EACCES, ENOMEM, EIO}},
    {"stat", {EACCES, ENOMEM, EIO}},
    {"fstatat", {EACCES, ENOMEM}},
    {"fcntl", {EINTR, EMFILE, ENOLCK, EPERM, EBUSY}},
    {"flock", {EINTR, ENOLCK}},
    {"fchmod", {EINTR, EPERM, EIO}},
    {"fchown", {EINTR, EPERM, EIO, EDQUOT}},
    {"fgetxattr", {ENOMEM, EIO}},
    {"fsetxattr", {EPERM, ENOSPC, EIO, EDQUOT}},
    {"ftruncate", {EINTR, EPERM, EIO, EFBIG}},
    {"fallocate", {EINTR, ENOSPC, EIO, EPERM, EFBIG}},
    {"getrlimit", {EPERM}},
    {"fstatvfs", {EIO, EINTR}},
    {"fstatfs", {EIO, EINTR}},
    {"statvfs", {EIO, EINTR}},
    {"mmap", {ENOMEM, EACCES, EAGAIN, EPERM}},
    {"munmap", {ENOMEM}},
    {"mprotect", {ENOMEM, EACCES}},
    {"madvise", {EINTR, ENOMEM, EIO, EAGAIN}},
    {"msync", {EBUSY, EIO, ENOMEM}},
    {"mlock", {EAGAIN, ENOMEM, EPERM}},
    {"munlock", {EAGAIN, ENOMEM}},
    {"mremap", {ENOMEM, EAGAIN}},
    {"sigaction", {EINVAL}},
    {"mincore", {EAGAIN, ENOMEM}},
    {"linkat", {EEXIST, EMLINK, ENOSPC, EDQUOT, EPERM, EIO, EXDEV}},
    {"link", {EEXIST, EMLINK, ENOSPC, EPERM, EIO}},
    {"rename", {ENOSPC, EPERM, EACCES, EIO, EBUSY}},
    {"renameat2", {EEXIST, ENOSPC, EPERM, EACCES, EIO}},
    {"unlink", {EPERM, EACCES, EIO, EBUSY}},
    {"rmdir", {EPERM, EACCES, EIO, EBUSY}},
    {"access", {EACCES, ENOENT}},
    {"getrandom", {EINTR, EAGAIN}},
    {"opendir", {EACCES, EMFILE, ENFILE, ENOMEM}},
    {"readdir", {EIO, ENOMEM}},
    {"fdopen", {ENOMEM}},
    {"getline", {ENOMEM, EIO}},
    {"realloc", {ENOMEM}},
    {"pipe2", {EMFILE, ENFILE}},
    {"writev", {EFAULT, EINTR, EIO, ENOMEM}},
    {"read", {EINTR, EIO}},
    {"pread", {EIO}},
    {"clock_nanosleep", {EINTR}},
    {"pthread_mutex_init", {ENOTSUP, ENOMEM}},
    {"pthread_mutexattr_setrobust", {ENOSYS}},
    {"close", {EINTR, EIO}},
};

static const int *
errnos_of(const char *call)
{
    for (size_t i = 0; i < COUNT(plausible); i++) {
        if (strcmp(plausible[i].call, call) == 0) {
            return plausible[i].errnos;
        }
    }
    CHECK(!"a call that is not in the table of plausible errors");
    return NULL;
}

static bool
contains_word(const char *words, const char *word)
{
    char spaced[64];
    (void)snprintf(spaced, sizeof(spaced), " %s ", word);
    return words != NULL && strstr(words, spaced) != NULL;
}

static int
act(const struct operation *op)
{
    int rc = op->act(op->context);
    for (int i = 0; rc == -EINTR && op->resumes && i < 1000; i++) {
        rc = op->act(op->context);
    }
    return rc;
}

/* One failure: the nth call, of the function `call`, fails with err. */
static void
fail_once(const struct operation *op, int nth, const char *call, int err)
{
    check_about("%s with call %d, %s, failing with errno %d", op->name, nth,
                call, err);
    struct census before = census_take();
    pshm_fault_arm(NULL, nth, PSHM_FAULT_FAIL, err);
    int rc = act(op);
    CHECK(pshm_fault_disarm() >= nth);
    bool overcome = contains_word(op->overcomes, call)
                    || (err == EINTR && op->resumes);
    if (rc < 0 || !overcome) {
        CHECK_IS(rc, -err);
    }
    if (rc >= 0) {
        op->undo(op->context);
    }
    CHECK_NOTHING_LEFT(before);
}

int
fail_each(const struct operation *op)
{
    check_about("%s with no failure", op->name);
    struct census before = census_take();
    pshm_fault_arm(NULL, 0, PSHM_FAULT_FAIL, 0);
    int rc = act(op);
    int calls = pshm_fault_disarm();
    char log[6000];
    (void)snprintf(log, sizeof(log), "%s", pshm_fault_log());
    CHECK(rc >= 0);
    op->undo(op->context);
    CHECK_NOTHING_LEFT(before);

    char *rest = log;
    for (int nth = 1; nth <= calls; nth++) {
        const char *call = strsep(&rest, " ");
        const int *errnos = errnos_of(call);
        for (; errnos != NULL && *errnos != 0; errnos++) {
            fail_once(op, nth, call, *errnos);
        }
    }
    check_about(NULL);
    return calls;
}
