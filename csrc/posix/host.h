/* Identifies the process, and its forks. */
#ifndef PSHM_HOST_H
#define PSHM_HOST_H

#include "posix/base.h"

/* The id of this process. A forked child has another. */
pid_t pshm_process_id(void);

/* One more than the number of forks between this process and the first one that
 * loaded the library. Like a process id, it tells a forked child from its
 * parent, but reading it costs no system call. */
static inline unsigned
pshm_forks(void)
{
    extern unsigned pshm_fork_count;
    return pshm_fork_count;
}
/* The number of times that this process has forked. If it has not changed
 * since a descriptor was opened, no other process shares the descriptor. */
unsigned pshm_forks_seen(void);

/* Start counting. Must be called once before the two functions above. */
void pshm_forks_watch(void);

/* Identifies the PID namespace: processes of two namespaces may have the same
 * id. Returns 0 if it is unknown. */
uint32_t pshm_process_space(void);

/* May this process run on several CPUs? */
bool pshm_has_cpus(void);

/* Whether descriptors have names in /proc. */
bool pshm_has_proc(void);

#endif
