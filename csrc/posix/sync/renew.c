#include "posix/sync/renew.h"

#include <unistd.h>

#include "posix/sync/futex.h"
#include "posix/object/use_lock.h"
#include "posix/clock.h"

/* Seconds between two attempts. They differ between processes and attempts, so
 * that several processes do not keep each other out by retrying at the same
 * time. */
static double
retry_interval(int tries)
{
    unsigned mixed = ((unsigned)pshm_process_id() + (unsigned)tries * 7)
                     * 2654435761U;
    return 0.0002 + (mixed >> 20) * (0.003 / 4096);
}

/* After a failed attempt this process has no use lock for a short time, so
 * that another process can succeed. */
static int
renew_alone(int fd, struct pshm_primitive *primitive,
            const struct pshm_primitive_params *params, int64_t deadline)
{
    for (int tries = 0;; tries++) {
        int rc = pshm_use_lock_try_exclusive(fd);
        if (rc == 0) {
            rc = pshm_primitive_check(primitive, params, NULL);
            return rc == -EXDEV ? pshm_primitive_renew(primitive, params) : rc;
        }
        pshm_use_lock_release(fd);
        if (rc != -EAGAIN) {
            return rc;
        }
        rc = pshm_primitive_check(primitive, params, NULL);
        if (rc != -EXDEV || pshm_now() >= deadline) {
            return rc;
        }
        rc = pshm_sleep(retry_interval(tries));
        if (rc < 0) {
            return rc;
        }
    }
}

int
pshm_renew(int fd, struct pshm_primitive *primitive,
           const struct pshm_primitive_params *params, int64_t deadline)
{
    int rc = renew_alone(fd, primitive, params, deadline);
    (void)pshm_use_lock_take(fd);          /* as after attaching */
    return rc;
}
