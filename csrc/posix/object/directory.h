/* What is in PSHM_DIR. */
#ifndef PSHM_DIRECTORY_H
#define PSHM_DIRECTORY_H

#include "posix/base.h"

struct pshm_names {
    char *text;                         /* names, each with its NUL */
    size_t length, room;                /* bytes */
};

#define PSHM_NAMES_NONE ((struct pshm_names){0})

/* The names of the regular files in PSHM_DIR that start with prefix, but for
 * POSIX semaphores (sem.NAME), in no order.  The caller frees the result, also
 * on failure.  Returns 0 or -errno. */
int pshm_names_list(const char *prefix, struct pshm_names *out);

/* Add a name.  Returns 0 or -ENOMEM. */
int pshm_names_add(struct pshm_names *names, const char *name);
void pshm_names_free(struct pshm_names *names);

/* The device that PSHM_DIR is; 0 or -errno. */
int pshm_directory_device(dev_t *dev);

#endif
