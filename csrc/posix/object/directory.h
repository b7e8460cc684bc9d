/* Listing PSHM_DIR. */
#ifndef PSHM_DIRECTORY_H
#define PSHM_DIRECTORY_H

#include "posix/base.h"

struct pshm_names {
    char *text;                         /* names, each with a NUL */
    size_t length, room;                /* bytes */
};

#define PSHM_NAMES_NONE ((struct pshm_names){0})

/* The names of the regular files in PSHM_DIR that start with prefix, except
 * the files of POSIX semaphores (sem.NAME), in no particular order. The caller
 * frees the result, also after an error. Returns 0 or -errno. */
int pshm_names_list(const char *prefix, struct pshm_names *out);

/* Add a name.  Returns 0 or -ENOMEM. */
int pshm_names_add(struct pshm_names *names, const char *name);
void pshm_names_free(struct pshm_names *names);

/* The device number of PSHM_DIR. Returns 0 or -errno. */
int pshm_directory_device(dev_t *dev);

#endif
