#include "check.h"
#include "posix/object/procmaps.h"

#include <pthread.h>
#include <sys/sysmacros.h>

static void *
map_at(int fd, off_t offset, size_t length)
{
    void *base = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                      offset);
    CHECK(base != MAP_FAILED);
    return base;
}

static struct pshm_identity
identity_of_fd(int fd)
{
    struct stat st;
    CHECK(fd >= 0 && fstat(fd, &st) == 0);
    return (struct pshm_identity){st.st_dev, st.st_ino};
}

static int
find_without_proc(void *context)
{
    struct pshm_uses mapped;
    (void)context;
    if (mount_own("/proc", "size=4k") != 0) {
        return CANNOT;
    }
    int rc = pshm_uses_find(1, &mapped);
    CHECK(rc == 0 || rc == -ENOENT);
    CHECK_IS(mapped.count, 0);
    pshm_uses_free(&mapped);
    return 0;
}

static void
proc_may_be_missing(void)
{
    CHECK_IN_CHILD(find_without_proc, NULL, "cannot mount");
}

/* ---- the objects that processes use ---- */

static void
every_object_is_collected_once(void)
{
    enum { MANY = 200 };
    struct pshm_uses mapped;
    int fds[MANY];
    void *bases[MANY];
    ino_t inodes[MANY], unmapped;
    dev_t dev = 0;
    for (int i = 0; i < MANY; i++) {
        fds[i] = memfd_create("test", MFD_CLOEXEC);
        CHECK(ftruncate(fds[i], (off_t)PAGE) == 0);
        bases[i] = map_at(fds[i], 0, PAGE);
        inodes[i] = identity_of_fd(fds[i]).ino;
        dev = identity_of_fd(fds[i]).dev;
        (void)close(fds[i]);
    }
    int fd = memfd_create("test", MFD_CLOEXEC);
    unmapped = identity_of_fd(fd).ino;
    (void)close(fd);
    fd = memfd_create("test", MFD_CLOEXEC);
    CHECK_IS(pshm_uses_find(dev, &mapped), 0);
    CHECK(mapped.count >= MANY);
    for (int i = 0; i < MANY; i++) {
        CHECK(pshm_uses_has(&mapped, inodes[i]));
    }
    CHECK(!pshm_uses_has(&mapped, unmapped));
    CHECK(pshm_uses_has(&mapped, identity_of_fd(fd).ino));
    CHECK(!pshm_uses_has(&mapped, 0));
    for (size_t i = 1; i < mapped.count; i++) {
        CHECK(mapped.inodes[i - 1] <= mapped.inodes[i]);
    }
    pshm_uses_free(&mapped);
    CHECK(!pshm_uses_has(&mapped, inodes[0]));
    pshm_uses_free(&mapped);
    for (int i = 0; i < MANY; i++) {
        CHECK(munmap(bases[i], PAGE) == 0);
    }
    (void)close(fd);
}

static int
map_and_stop(void *context)
{
    int *fd = context;
    (void)map_at(*fd, 0, PAGE);
    (void)close(*fd);
    (void)raise(SIGSTOP);
    return 0;
}

static bool
is_used(struct pshm_identity id)
{
    struct pshm_uses mapped;
    CHECK_IS(pshm_uses_find(id.dev, &mapped), 0);
    bool found = pshm_uses_has(&mapped, id.ino);
    pshm_uses_free(&mapped);
    return found;
}

static void
other_processes_are_inspected(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_identity id = make_plain(&name, (off_t)PAGE, 0600, 0);
    CHECK(!is_used(id));
    int fd = open(name.path, O_RDWR | O_CLOEXEC);
    CHECK(is_used(id));
    pid_t child = child_start_stopped(map_and_stop, &fd);
    (void)close(fd);
    CHECK(is_used(id));
    child_kill(child);
    CHECK(!is_used(id));
    remove_plain(&name);
}

struct find {
    struct pshm_uses mapped;
    dev_t dev;
};

static int
find_mapped(void *context)
{
    struct find *find = context;
    int rc = pshm_uses_find(find->dev, &find->mapped);
    if (rc < 0) {
        pshm_uses_free(&find->mapped);
    }
    return rc;
}

/* A list that cannot be read must not count as empty. But a process whose maps
 * cannot be read is skipped: it may have ended, or belong to another user. */
static void
free_mapped(void *context)
{
    struct find *find = context;
    pshm_uses_free(&find->mapped);
}

static void
failed_calls_of_collecting_are_errors(void)
{
    static const struct {
        const char *call;
        int err;
    } faults[] = {{"opendir", EMFILE}, {"opendir", EACCES},
                  {"readdir", EIO},    {"readdir", ENOMEM},
                  {"open", EMFILE},    {"open", ENFILE},
                  {"fdopen", ENOMEM},  {"getline", ENOMEM},
                  {"realloc", ENOMEM}};
    int fd = memfd_create("test", MFD_CLOEXEC);
    CHECK(ftruncate(fd, (off_t)PAGE) == 0);
    struct find find = {.dev = identity_of_fd(fd).dev};
    void *base = map_at(fd, 0, PAGE);
    struct census before = census_take();
    for (size_t i = 0; i < COUNT(faults); i++) {
        check_about("%s failing with errno %d", faults[i].call, faults[i].err);
        pshm_fault_arm(faults[i].call, 1, PSHM_FAULT_FAIL, faults[i].err);
        CHECK_IS(find_mapped(&find), -faults[i].err);
        CHECK(pshm_fault_disarm() >= 1);
        CHECK_NOTHING_LEFT(before);
    }
    /* a process that cannot be inspected, or has just ended */
    static const int errnos[] = {EACCES, ENOENT, ESRCH, EPERM};
    for (size_t i = 0; i < COUNT(errnos); i++) {
        pshm_fault_arm("open", 1, PSHM_FAULT_FAIL, errnos[i]);
        CHECK_IS(find_mapped(&find), 0);
        CHECK(pshm_fault_disarm() >= 1);
        pshm_uses_free(&find.mapped);
        pshm_fault_arm("getline", 2, PSHM_FAULT_FAIL, ESRCH);
        CHECK_IS(find_mapped(&find), 0);
        CHECK(pshm_fault_disarm() >= 1);
        pshm_uses_free(&find.mapped);
        CHECK_NOTHING_LEFT(before);
    }
    CHECK(munmap(base, PAGE) == 0);
    (void)close(fd);
}

/* Another thread maps and unmaps at the same time. */
static void *
map_and_unmap(void *context)
{
    const volatile bool *stop = context;
    int fd = memfd_create("test", MFD_CLOEXEC);
    (void)ftruncate(fd, (off_t)PAGE);
    while (!__atomic_load_n(stop, __ATOMIC_RELAXED)) {
        void *base = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
        (void)munmap(base, PAGE);
    }
    (void)close(fd);
    return NULL;
}

static void
changing_maps_are_read_completely(void)
{
    bool stop = false;
    pthread_t thread;
    struct pshm_name name = name_of("object");
    (void)make_plain(&name, (off_t)PAGE, 0600, 0);
    int fd = open(name.path, O_RDWR | O_CLOEXEC);
    void *base = map_at(fd, 0, PAGE);
    CHECK(pthread_create(&thread, NULL, map_and_unmap, &stop) == 0);
    for (int i = 0; i < (SANITIZED ? 100 : 500); i++) {
        CHECK_IS(pshm_maps_share((unsigned)getpid(), base), 1);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(munmap(base, PAGE) == 0);
    (void)close(fd);
    remove_plain(&name);
}

/* ---- the mappings of another process ---- */

static int
check_shared(void *context)
{
    CHECK_IS(pshm_maps_share((unsigned)getppid(), context), 1);
    CHECK(munmap(context, PAGE) == 0);
    (void)raise(SIGSTOP);
    return 0;
}

static void
process_shares_only_its_mappings(void)
{
    void *base = shared_memory(PAGE), *other = malloc(PAGE);
    CHECK_IS(pshm_maps_share((unsigned)getpid(), base), 1);
    pid_t child = child_start_stopped(check_shared, base);
    CHECK_IS(pshm_maps_share((unsigned)child, base), 0);
    CHECK_IS(pshm_maps_share((unsigned)child, other), 0);       /* private */
    pshm_fault_arm("open", 1, PSHM_FAULT_FAIL, EMFILE);
    CHECK_IS(pshm_maps_share((unsigned)child, base), -EMFILE);
    (void)pshm_fault_disarm();
    CHECK(kill(child, SIGCONT) == 0);
    CHECK_IS(child_wait(child), 0);
    CHECK_IS(pshm_maps_share((unsigned)child, base), -ENOENT);
    CHECK(munmap(base, PAGE) == 0);
    free(other);
}

/* ---- the object behind an address ---- */

struct found {
    struct pshm_mapped mapped;
    int rc;
};

static struct found
find(const void *address)
{
    struct found found;
    found.rc = pshm_maps_find(address, &found.mapped);
    return found;
}

static bool
is_object(int fd, struct pshm_identity id)
{
    return fd >= 0 && pshm_identity_same(identity_of_fd(fd), id);
}

static void
close_found(struct found *found)
{
    if (found->mapped.object >= 0) {
        (void)close(found->mapped.object);
    }
    if (found->mapped.folder >= 0) {
        (void)close(found->mapped.folder);
    }
}

/* The object is found by its name, by another name in its folder, or by a
 * descriptor. */
static void
object_behind_an_address_is_found(void)
{
    struct pshm_name name = name_of("object"), other = name_of("other");
    struct pshm_identity id = make_plain(&name, 3 * (off_t)PAGE, 0600, 0);
    int fd = open(name.path, O_RDWR | O_CLOEXEC);
    char *base = map_at(fd, (off_t)PAGE, 2 * PAGE);
    struct found found = find(base + PAGE + 5);
    CHECK_IS(found.rc, 0);
    CHECK(is_object(found.mapped.object, id));
    CHECK_IS(found.mapped.offset, 2 * PAGE + 5);
    close_found(&found);
    /* The kernel shows the name by which the object was opened. */
    CHECK(link(name.path, other.path) == 0 && unlink(name.path) == 0);
    found = find(base);
    CHECK(is_object(found.mapped.object, id));
    close_found(&found);
    (void)close(fd);
    found = find(base);
    CHECK(is_object(found.mapped.object, id));
    CHECK(found.mapped.folder >= 0);
    close_found(&found);
    /* The kernel adds " (deleted)" to a removed name, which may be the name of
     * another object. */
    struct pshm_name deleted = name_of("object (deleted)");
    (void)make_plain(&deleted, 1, 0600, 0);
    found = find(base);
    CHECK(is_object(found.mapped.object, id));
    close_found(&found);
    remove_plain(&deleted);
    remove_plain(&other);
    found = find(base);
    CHECK(found.rc == 0 && found.mapped.object == -1);
    CHECK(found.mapped.folder >= 0);
    close_found(&found);
    CHECK(munmap(base, 2 * PAGE) == 0);
}

static void
memory_without_an_object_is_an_error(void)
{
    int on_the_stack = 0;
    struct found found = find(NULL);
    CHECK_IS(found.rc, -ENOENT);
    found = find(&on_the_stack);
    CHECK(found.rc == -ENOENT && found.mapped.object == -1
          && found.mapped.folder == -1);
    pshm_fault_arm("open", 1, PSHM_FAULT_FAIL, EMFILE);
    found = find(&on_the_stack);
    (void)pshm_fault_disarm();
    CHECK(found.rc == -EMFILE && found.mapped.object == -1
          && found.mapped.folder == -1);
}

static void
object_in_a_removed_folder_is_not_found(void)
{
    char folder[60], path[80];
    (void)snprintf(folder, sizeof(folder), "%s/%sfolder", PSHM_DIR, prefix());
    (void)snprintf(path, sizeof(path), "%s/object", folder);
    make_folder(folder);
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)PAGE) == 0);
    char *base = map_at(fd, 0, PAGE);
    (void)close(fd);
    CHECK(unlink(path) == 0 && rmdir(folder) == 0);
    struct found found = find(base);
    CHECK(found.rc == 0 && found.mapped.object == -1
          && found.mapped.folder == -1);
    CHECK(munmap(base, PAGE) == 0);
}

/* Without a name and a descriptor, or if /proc/self/fd cannot be read, only
 * the offset in the object is known. */
static void
object_that_cannot_be_opened_is_not_found(void)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    struct pshm_identity id = identity_of_fd(fd);
    CHECK(ftruncate(fd, (off_t)PAGE) == 0);
    char *base = map_at(fd, 0, PAGE);
    struct found found = find(base);
    CHECK(is_object(found.mapped.object, id));
    close_found(&found);
    pshm_fault_arm("fstat", 1, PSHM_FAULT_FAIL_ON, EIO);
    found = find(base);
    (void)pshm_fault_disarm();
    CHECK(found.rc == 0 && found.mapped.object == -1);
    close_found(&found);
    pshm_fault_arm("opendir", 1, PSHM_FAULT_FAIL_ON, EMFILE);
    found = find(base);
    (void)pshm_fault_disarm();
    CHECK(found.rc == 0 && found.mapped.object == -1);
    close_found(&found);
    (void)close(fd);
    found = find(base + 7);
    CHECK(found.rc == 0 && found.mapped.object == -1);
    CHECK_IS(found.mapped.offset, 7);
    close_found(&found);
    CHECK(munmap(base, PAGE) == 0);
}

/* A simulated /proc has one process, with one mapping and some open files. */
static int
find_in_simulated_proc(void *context)
{
    struct find find = {0};
    struct stat st;
    char maps[100];
    (void)context;
    if (mount_own("/proc", "mode=755") != 0) {
        return CANNOT;
    }
    make_folder("/proc/7");
    make_folder("/proc/7/fd");
    write_file("/proc/7/fd/3", "");
    write_file("/proc/7/fd/4", "");
    write_file("/proc/version", "");    /* not a process */
    CHECK(lstat("/proc/7/fd/3", &st) == 0);
    CHECK_IS(pshm_uses_find_others(st.st_dev, &find.mapped), -ENOENT);
    find.dev = st.st_dev;
    (void)snprintf(maps, sizeof(maps),
                   "not a mapping\n1000-2000 rw-s 00000000 %02x:%02x 999 x\n",
                   major(st.st_dev), minor(st.st_dev));
    struct operation op = {
        .name = "find", .act = find_mapped, .undo = free_mapped,
        .context = &find,
#ifdef __GLIBC__
        .overcomes = " close open opendir fstatat "};
#else                                   /* getline allocates less */
        .overcomes = " close open opendir fstatat realloc "};
#endif
    for (int mapped = 0; mapped < 2; mapped++) {
        write_file("/proc/7/maps", mapped ? maps : "not a mapping\n");
        CHECK(fail_each(&op) > 15);
    }
    CHECK_IS(find_mapped(&find), 0);
    CHECK_IS(find.mapped.count, 3);
    CHECK(pshm_uses_has(&find.mapped, 999));
    CHECK(pshm_uses_has(&find.mapped, st.st_ino));
    pshm_uses_free(&find.mapped);
    /* A descriptor that is closed while it is inspected does not count. */
    pshm_fault_arm("fstatat", 1, PSHM_FAULT_FAIL, ENOENT);
    CHECK_IS(find_mapped(&find), 0);
    CHECK_IS(pshm_fault_disarm() > 0, true);
    CHECK_IS(find.mapped.count, 2);
    pshm_uses_free(&find.mapped);
    return 0;
}

static void
each_failure_of_collecting_is_returned(void)
{
    CHECK_IN_CHILD(find_in_simulated_proc, NULL, "cannot mount a tmpfs");
}

int
main(void)
{
    RUN(proc_may_be_missing);
    RUN(every_object_is_collected_once);
    RUN(other_processes_are_inspected);
    RUN(process_shares_only_its_mappings);
    RUN(object_behind_an_address_is_found);
    RUN(memory_without_an_object_is_an_error);
    RUN(object_in_a_removed_folder_is_not_found);
    RUN(object_that_cannot_be_opened_is_not_found);
    RUN(changing_maps_are_read_completely);
    RUN(failed_calls_of_collecting_are_errors);
    RUN(each_failure_of_collecting_is_returned);
    return finish();
}
