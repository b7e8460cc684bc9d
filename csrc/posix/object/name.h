/* Names of objects: what is a valid one, and where it lies. */
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

/* "name", as people write it. */
static inline const char *
pshm_name_plain(const struct pshm_name *name)
{
    return name->path + sizeof(PSHM_DIR);
}

/* Check text[0..len) and lay it out.  One leading slash is dropped.  Makes no
 * system call.  Returns NULL, or the rule that text breaks, in words. */
const char *pshm_name_parse(const char *text, size_t len,
                            struct pshm_name *out);

/* A fresh name "psm_" and 16 hexadecimal digits.  Returns 0 or -errno. */
int pshm_name_random(struct pshm_name *out);

/* A fresh name next to name: it, "~" and 16 hexadecimal digits, so that who
 * looks for name's prefix finds it too.  A long name loses its end.
 * Returns 0 or -errno. */
int pshm_name_beside(const struct pshm_name *name, struct pshm_name *out);

#endif
