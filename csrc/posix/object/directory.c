#include "posix/object/directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define SEMAPHORE_PREFIX "sem."

int
pshm_names_add(struct pshm_names *names, const char *name)
{
    size_t size = strlen(name) + 1;
    if (size > names->room - names->length) {
        size_t room = names->room * 2 + 4096;
        char *text = realloc(names->text, room);
        if (text == NULL) {
            return -ENOMEM;
        }
        names->text = text;
        names->room = room;
    }
    memcpy(names->text + names->length, name, size);
    names->length += size;
    return 0;
}

/* Returns 1, 0 or -errno. Returns 0 if the name was removed since it was
 * listed. */
static int
is_object(int dir, const struct dirent *entry)
{
    const char *name = entry->d_name;
    struct stat st;
    if (strncmp(name, SEMAPHORE_PREFIX, strlen(SEMAPHORE_PREFIX)) == 0) {
        return 0;
    }
    /* This saves a system call for each object. */
    if (entry->d_type != DT_UNKNOWN) {
        return entry->d_type == DT_REG;
    }
    /* An open stream has a descriptor. */
    /* NOLINTNEXTLINE(clang-analyzer-unix.StdCLibraryFunctions) */
    int rc = pshm_result(fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW));
    return rc == 0 ? S_ISREG(st.st_mode) : rc == -ENOENT ? 0 : rc;
}

int
pshm_names_list(const char *prefix, struct pshm_names *out)
{
    *out = PSHM_NAMES_NONE;
    DIR *dir = opendir(PSHM_DIR);
    if (dir == NULL) {
        return -errno;
    }
    int rc = 0;
    const struct dirent *entry;
    while (rc == 0 && (errno = 0, entry = readdir(dir)) != NULL) {
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0) {
            rc = is_object(dirfd(dir), entry);
            rc = rc == 1 ? pshm_names_add(out, entry->d_name) : rc;
        }
    }
    if (rc == 0) {
        rc = -errno;
    }
    (void)closedir(dir);
    return rc;
}

void
pshm_names_free(struct pshm_names *names)
{
    free(names->text);
    *names = PSHM_NAMES_NONE;
}

int
pshm_directory_device(dev_t *dev)
{
    struct stat st;
    int rc = pshm_result(stat(PSHM_DIR, &st));
    if (rc == 0) {
        *dev = st.st_dev;
    }
    return rc;
}
