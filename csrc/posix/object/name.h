/* Names of objects: which are valid, and their paths. */
#ifndef PSHM_NAME_H
#define PSHM_NAME_H

#include "posix/base.h"

#define PSHM_NAME_MAX 255               /* bytes, without the slash */

struct pshm_name {
    /* PSHM_DIR "/" name, NUL-terminated. */
    char path[sizeof(PSHM_DIR) + PSHM_NAME_MAX + 1];
};

/* "/name", as shm_open(3) takes it. */
static inline const char *
pshm_name_posix(const struct pshm_name *name)
{
    return name->path + sizeof(PSHM_DIR) - 1;
}

/* "name", without a slash. */
static inline const char *
pshm_name_plain(const struct pshm_name *name)
{
    return name->path + sizeof(PSHM_DIR);
}

/* Check text[0..len) and store the path. One leading slash is dropped. Makes
 * no system call. Returns NULL, or a text that states the rule which the name
 * breaks. */
const char *pshm_name_parse(const char *text, size_t len,
                            struct pshm_name *out);

/* A random name: "psm_" and 16 hexadecimal digits. Returns 0 or -errno. */
int pshm_name_random(struct pshm_name *out);

/* A random name: name, "~" and 16 hexadecimal digits, so that a search for the
 * prefix of name finds it too. A long name is cut. Returns 0 or -errno. */
int pshm_name_beside(const struct pshm_name *name, struct pshm_name *out);

#endif
