/* Where we are: which run of which host, and which process of it. */
#ifndef PSHM_HOST_H
#define PSHM_HOST_H

#include "posix/base.h"

/* The boot id, which no object outlives: 36 characters and a NUL, as
 * PSHM_BOOT_ID has it.  Returns 0 or -errno. */
#define PSHM_BOOT_ID "/proc/sys/kernel/random/boot_id"
#define PSHM_BOOT_ID_SIZE 37
int pshm_boot_id(char out[PSHM_BOOT_ID_SIZE]);

/* This process's id; a forked child has another. */
pid_t pshm_process_id(void);

/* How many forks lie between this process and its first one; cheap.  The
 * process's own, like its id. */
static inline unsigned
pshm_forks(void)
{
    extern unsigned pshm_fork_count;
    return pshm_fork_count;
}
/* The same, and how often this process has forked: what a descriptor was opened
 * under is shared with no other process while this is as it was. */
unsigned pshm_forks_seen(void);

/* To be called once before these count. */
void pshm_forks_watch(void);

/* Which space of process ids this is: two processes of different ones may have
 * the same id.  0 where that cannot be known. */
uint32_t pshm_process_space(void);

#endif
