#include "posix/object/procmaps.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

struct range {
    uintptr_t start, end;
    uint64_t offset;
    struct pshm_identity id;
    char *path;                         /* as the kernel shows it */
};

/* Called for each mapping of a file; a result other than 0 ends the walk. */
typedef int (*range_visitor)(const struct range *range, void *context);

/* "START-END rwxp OFFSET MAJOR:MINOR INODE      PATH", proc(5); sscanf(3) would
 * take most of the time of a search through all processes. */
static void
parse_line(char *line, struct range *range)
{
    char *at;
    range->start = strtoull(line, &at, 16);
    range->end = strtoull(at + 1, &at, 16);
    range->offset = strtoull(at + strlen(" rwxp"), &at, 16);
    unsigned int major = (unsigned int)strtoul(at, &at, 16);
    unsigned int minor = (unsigned int)strtoul(at + 1, &at, 16);
    range->id = (struct pshm_identity){makedev(major, minor),
                                       (ino_t)strtoull(at, &at, 10)};
    range->path = at + strspn(at, " ");
    range->path[strcspn(range->path, "\n")] = '\0';
}

static int
walk_maps(const char *path, range_visitor visit, void *context)
{
    int fd = pshm_result(open(path, O_RDONLY | O_CLOEXEC));
    if (fd < 0) {
        return fd;
    }
    FILE *file = fdopen(fd, "r");
    if (file == NULL) {
        int rc = -errno;
        (void)close(fd);
        return rc;
    }
    char *line = NULL;
    size_t room = 0;
    int rc = 0;
    errno = 0;
    while (rc == 0 && getline(&line, &room, file) > 0) {
        struct range range;
        parse_line(line, &range);
        if (range.id.ino != 0) {
            rc = visit(&range, context);
        }
        errno = 0;
    }
    if (rc == 0) {
        rc = -errno;                    /* 0 at the end of the file */
    }
    free(line);
    (void)fclose(file);
    return rc;
}

struct shared {
    struct pshm_identity id;
    uintptr_t address;
};

/* Find the identity that the kernel shows for the mapping at an address: on
 * btrfs and overlayfs the device differs from that of fstat(2). */
static int
visit_own(const struct range *range, void *context)
{
    struct shared *shared = context;
    bool found = range->start <= shared->address
                 && shared->address < range->end;
    if (found) {
        shared->id = range->id;
    }
    return found;
}

static int
visit_same(const struct range *range, void *context)
{
    const struct shared *shared = context;
    return pshm_identity_same(range->id, shared->id);
}

int
pshm_maps_share(unsigned thread, const void *address)
{
    char path[40];
    struct shared shared = {.address = (uintptr_t)address};
    (void)snprintf(path, sizeof(path), "/proc/%u/maps", thread);
    int rc = walk_maps("/proc/self/maps", visit_own, &shared);
    return rc <= 0 ? rc : walk_maps(path, visit_same, &shared);
}

/* A descriptor of what has the path, if it is of that device, and with ino != 0
 * that object; or -1. */
static int
open_known(int folder, const char *path, struct pshm_identity id)
{
    struct stat st;
    int fd = openat(folder, path, O_PATH | O_CLOEXEC);
    if (fd >= 0
        && (fstat(fd, &st) < 0 || st.st_dev != id.dev
            || (id.ino != 0 && st.st_ino != id.ino))) {
        (void)close(fd);
        fd = -1;
    }
    return fd;
}

/* The same of what any entry of a folder leads to.  links: the entries are
 * links, whose own numbers do not tell. */
static int
open_listed(const char *path, bool links, struct pshm_identity id)
{
    DIR *folder = opendir(path);
    if (folder == NULL) {
        return -1;
    }
    int fd = -1, at = dirfd(folder);
    const struct dirent *entry;
    while (fd < 0 && at >= 0 && (entry = readdir(folder)) != NULL) {
        if (links || entry->d_ino == id.ino) {
            fd = open_known(at, entry->d_name, id);
        }
    }
    (void)closedir(folder);
    return fd;
}

struct place {
    uintptr_t address;
    struct pshm_mapped mapped;
};

/* The path is the one that the object had when it was opened: none, if it was
 * made without a name and got it later. */
static int
visit_place(const struct range *range, void *context)
{
    struct place *place = context;
    if (place->address < range->start || place->address >= range->end) {
        return 0;
    }
    struct pshm_mapped *mapped = &place->mapped;
    mapped->offset = (off_t)(range->offset + (place->address - range->start));
    mapped->object = open_known(AT_FDCWD, range->path, range->id);
    if (mapped->object < 0) {
        mapped->object = open_listed("/proc/self/fd", true, range->id);
    }
    size_t folder = strlen(range->path);
    while (folder > 0 && range->path[folder] != '/') {
        folder--;
    }
    if (mapped->object >= 0 || folder == 0) {
        return 1;
    }
    range->path[folder] = '\0';
    mapped->folder = open_known(AT_FDCWD, range->path,
                                (struct pshm_identity){.dev = range->id.dev});
    if (mapped->folder >= 0) {
        mapped->object = open_listed(range->path, false, range->id);
    }
    return 1;
}

int
pshm_maps_find(const void *address, struct pshm_mapped *out)
{
    struct place place = {(uintptr_t)address, {0, -1, -1}};
    int rc = walk_maps("/proc/self/maps", visit_place, &place);
    *out = place.mapped;
    return rc < 0 ? rc : rc == 0 ? -ENOENT : 0;
}

struct collection {
    dev_t dev;
    struct pshm_uses found;
};

static int
collect(struct collection *collection, struct pshm_identity id)
{
    struct pshm_uses *found = &collection->found;
    if (id.dev != collection->dev) {
        return 0;
    }
    if (found->count > 0 && found->inodes[found->count - 1] == id.ino) {
        return 0;
    }
    if (found->count == found->room) {
        size_t room = found->room == 0 ? 64 : found->room * 2;
        ino_t *inodes = realloc(found->inodes, room * sizeof(*inodes));
        if (inodes == NULL) {
            return -ENOMEM;
        }
        found->inodes = inodes;
        found->room = room;
    }
    found->inodes[found->count++] = id.ino;
    return 0;
}

static int
visit_collect(const struct range *range, void *context)
{
    return collect(context, range->id);
}

static int
compare_inodes(const void *left, const void *right)
{
    ino_t a = *(const ino_t *)left, b = *(const ino_t *)right;
    return (a > b) - (a < b);
}

/* The files that a process has open; path: its directory fd in /proc. */
static int
walk_descriptors(const char *path, struct collection *collection)
{
    DIR *descriptors = opendir(path);
    if (descriptors == NULL) {
        return -errno;
    }
    int rc = 0;
    const struct dirent *entry;
    while (rc == 0 && (errno = 0, entry = readdir(descriptors)) != NULL) {
        struct stat st;
        if (isdigit((unsigned char)entry->d_name[0])
            /* An open stream has a descriptor. */
            /* NOLINTNEXTLINE(clang-analyzer-unix.StdCLibraryFunctions) */
            && fstatat(dirfd(descriptors), entry->d_name, &st, 0) == 0) {
            rc = collect(collection,
                         (struct pshm_identity){st.st_dev, st.st_ino});
        }
    }
    if (rc == 0) {
        rc = -errno;
    }
    (void)closedir(descriptors);
    return rc;
}

static int
inspect_process(const char *pid, struct collection *collection)
{
    char path[sizeof("/proc//maps") + NAME_MAX];
    (void)snprintf(path, sizeof(path), "/proc/%s/maps", pid);
    int rc = walk_maps(path, visit_collect, collection);
    if (rc == 0) {
        (void)snprintf(path, sizeof(path), "/proc/%s/fd", pid);
        rc = walk_descriptors(path, collection);
    }
    return rc;
}

/* except: the name in /proc of a process that is not inspected, or "". */
static int
find_uses(dev_t dev, const char *except, struct pshm_uses *out)
{
    struct collection collection = {dev, PSHM_USES_NONE};
    *out = collection.found;
    DIR *processes = opendir("/proc");
    if (processes == NULL) {
        return -errno;
    }
    int rc = 0;
    const struct dirent *entry;
    while (rc == 0 && (errno = 0, entry = readdir(processes)) != NULL) {
        if (!isdigit((unsigned char)entry->d_name[0])
            || strcmp(entry->d_name, except) == 0) {
            continue;
        }
        rc = inspect_process(entry->d_name, &collection);
        if (rc == -EACCES || rc == -EPERM) {
            collection.found.uninspected++;
            rc = 0;
        }
        else if (rc == -ENOENT || rc == -ESRCH) {
            rc = 0;                     /* it has ended */
        }
    }
    if (rc == 0) {
        rc = -errno;
    }
    (void)closedir(processes);
    *out = collection.found;
    if (out->count > 0) {
        qsort(out->inodes, out->count, sizeof(*out->inodes), compare_inodes);
    }
    return rc;
}

int
pshm_uses_find(dev_t dev, struct pshm_uses *out)
{
    return find_uses(dev, "", out);
}

int
pshm_uses_find_others(dev_t dev, struct pshm_uses *out)
{
    char self[32];
    *out = PSHM_USES_NONE;
    int length = pshm_result(
        (int)readlink("/proc/self", self, sizeof(self) - 1));
    if (length < 0) {
        return length;
    }
    self[length] = '\0';
    return find_uses(dev, self, out);
}

bool
pshm_uses_has(const struct pshm_uses *uses, ino_t ino)
{
    return uses->count > 0
           && bsearch(&ino, uses->inodes, uses->count, sizeof(*uses->inodes),
                      compare_inodes) != NULL;
}

void
pshm_uses_free(struct pshm_uses *uses)
{
    free(uses->inodes);
    *uses = PSHM_USES_NONE;
}
