/* Where we are: which run of which host, and which process of it. */
#ifndef PSHM_HOST_H
#define PSHM_HOST_H

#include "base.h"

/* The boot id, which no object outlives: 36 characters and a NUL, as
 * /proc/sys/kernel/random/boot_id has it.  Returns 0 or -errno. */
#define PSHM_BOOT_ID_SIZE 37
int pshm_boot_id(char out[PSHM_BOOT_ID_SIZE]);

/* This process's id; a forked child has another. */
pid_t pshm_process_id(void);

#endif
