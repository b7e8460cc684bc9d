#include "open.h"

#include <sys/mman.h>

#include "fd.h"

int
pshm_open_raw(const struct pshm_name *name, int flags, mode_t mode)
{
    return pshm_fd_settle(
        pshm_result(shm_open(pshm_name_posix(name), flags, mode)));
}
