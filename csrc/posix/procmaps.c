#include "procmaps.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>
#include <unistd.h>

struct span {
    uintptr_t start, end;
    uint64_t offset;
    struct pshm_identity id;
};

/* Called for each mapping of a file; a result other than 0 ends the walk. */
typedef int (*span_visitor)(const struct span *span, void *context);

static int
walk_maps(const char *path, span_visitor visit, void *context)
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
        struct span span;
        unsigned int device[2];
        uint64_t inode;
        /* What the kernel has for a number is one, and fits. */
        /* NOLINTNEXTLINE(bugprone-unchecked-string-to-number-conversion) */
        int fields = sscanf(line,
                            "%" SCNxPTR "-%" SCNxPTR " %*s %" SCNx64
                            " %x:%x %" SCNu64,
                            &span.start, &span.end, &span.offset, &device[0],
                            &device[1], &inode);
        if (fields == 6 && inode != 0) {
            span.id = (struct pshm_identity){makedev(device[0], device[1]),
                                             (ino_t)inode};
            rc = visit(&span, context);
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

struct reach {
    struct pshm_identity id;
    uint64_t past;
    uintptr_t except, except_end;
};

static int
visit_reach(const struct span *span, void *context)
{
    const struct reach *reach = context;
    bool excepted = span->start >= reach->except
                    && span->end <= reach->except_end;
    return pshm_identity_same(span->id, reach->id) && !excepted
           && span->offset + (span->end - span->start) > reach->past;
}

int
pshm_maps_reach(struct pshm_identity id, off_t past, const void *except,
                size_t length)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    struct reach reach = {
        .id = id,
        .past = (uint64_t)past,
        .except = (uintptr_t)except,
        .except_end = ((uintptr_t)except + length + page - 1) / page * page,
    };
    return walk_maps("/proc/self/maps", visit_reach, &reach);
}

struct collection {
    dev_t dev;
    struct pshm_mapped found;
};

static int
visit_collect(const struct span *span, void *context)
{
    struct collection *collection = context;
    struct pshm_mapped *found = &collection->found;
    if (span->id.dev != collection->dev) {
        return 0;
    }
    if (found->count > 0 && found->inodes[found->count - 1] == span->id.ino) {
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
    found->inodes[found->count++] = span->id.ino;
    return 0;
}

static int
compare_inodes(const void *left, const void *right)
{
    ino_t a = *(const ino_t *)left, b = *(const ino_t *)right;
    return (a > b) - (a < b);
}

int
pshm_mapped_find(dev_t dev, struct pshm_mapped *out)
{
    struct collection collection = {dev, PSHM_MAPPED_NONE};
    *out = collection.found;
    DIR *processes = opendir("/proc");
    if (processes == NULL) {
        return -errno;
    }
    int rc = 0;
    const struct dirent *entry;
    while (rc == 0 && (errno = 0, entry = readdir(processes)) != NULL) {
        if (!isdigit((unsigned char)entry->d_name[0])) {
            continue;
        }
        char path[sizeof("/proc//maps") + sizeof(entry->d_name)];
        (void)snprintf(path, sizeof(path), "/proc/%s/maps", entry->d_name);
        int seen = walk_maps(path, visit_collect, &collection);
        /* A process that is gone, or not ours to look at, is passed over. */
        rc = seen == -ENOENT || seen == -ESRCH || seen == -EACCES
                     || seen == -EPERM ? 0 : seen;
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

bool
pshm_mapped_has(const struct pshm_mapped *mapped, ino_t ino)
{
    return mapped->count > 0
           && bsearch(&ino, mapped->inodes, mapped->count,
                      sizeof(*mapped->inodes), compare_inodes) != NULL;
}

void
pshm_mapped_free(struct pshm_mapped *mapped)
{
    free(mapped->inodes);
    *mapped = PSHM_MAPPED_NONE;
}
