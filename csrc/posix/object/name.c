#include "posix/object/name.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define DIGITS 16

const char *
pshm_name_parse(const char *text, size_t len, struct pshm_name *out)
{
    if (len > 0 && text[0] == '/') {
        text++;
        len--;
    }
    if (len == 0) {
        return "it must have at least one character besides the slash";
    }
    if (memchr(text, '\0', len) != NULL) {
        return "it must not contain a null character";
    }
    if (memchr(text, '/', len) != NULL) {
        return "it must not contain a slash, except one at its start";
    }
    if (len > PSHM_NAME_MAX) {
        return "it must not be longer than 255 bytes";
    }
    if ((len == 1 && text[0] == '.')
        || (len == 2 && text[0] == '.' && text[1] == '.')) {
        return "it must not be '.' or '..'";
    }
    memcpy(out->path, PSHM_DIR "/", sizeof(PSHM_DIR));
    memcpy(out->path + sizeof(PSHM_DIR), text, len);
    out->path[sizeof(PSHM_DIR) + len] = '\0';
    return NULL;
}

/* Write path[0..keep), mark and 16 random digits. */
static int
with_digits(const char *path, size_t keep, const char *mark,
            struct pshm_name *out)
{
    uint64_t random;
    /* The kernel never returns fewer than eight bytes; EINTR only occurs
     * before the random pool is ready. */
    int rc = pshm_result((int)getrandom(&random, sizeof(random), 0));
    if (rc < 0) {
        return rc;
    }
    (void)snprintf(out->path, sizeof(out->path), "%.*s%s%016llx", (int)keep,
                   path, mark, (unsigned long long)random);
    return 0;
}

int
pshm_name_random(struct pshm_name *out)
{
    return with_digits(PSHM_DIR "/", sizeof(PSHM_DIR), "psm_", out);
}

int
pshm_name_beside(const struct pshm_name *name, struct pshm_name *out)
{
    size_t keep = strlen(name->path);
    size_t most = sizeof(PSHM_DIR) + PSHM_NAME_MAX - DIGITS - 1;
    if (keep > most) {
        /* Do not cut a UTF-8 character, which has up to three bytes after its
         * first. */
        for (keep = most; most - keep < 3; keep--) {
            if (((unsigned char)name->path[keep] & 0xC0) != 0x80) {
                break;
            }
        }
    }
    return with_digits(name->path, keep, "~", out);
}
