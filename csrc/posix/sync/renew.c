#include "posix/sync/renew.h"

#include <unistd.h>

#include "posix/sync/futex.h"
#include "posix/object/use_lock.h"
#include "posix/clock.h"

/* Between two attempts, seconds: of several processes that try none may keep
 * the others out by coming back at the same moment each time. */
static double
pause_of(int tries)
{
    unsigned mixed = ((unsigned)pshm_process_id() + (unsigned)tries * 7)
                     * 2654435761U;
    return 0.0002 + (mixed >> 20) * (0.003 / 4096);
}

/* One that fails has no lease for a moment, so that another that tries may
 * succeed. */
static int
renew_alone(int fd, struct pshm_primitive *primitive,
            const struct pshm_primitive_params *spec, int64_t deadline)
{
    for (int tries = 0;; tries++) {
        int rc = pshm_use_lock_try_exclusive(fd);
        if (rc == 0) {
            rc = pshm_primitive_check(primitive, spec, NULL);
            return rc == -EXDEV ? pshm_primitive_renew(primitive, spec) : rc;
        }
        pshm_use_lock_release(fd);
        if (rc != -EAGAIN) {
            return rc;
        }
        rc = pshm_primitive_check(primitive, spec, NULL);
        if (rc != -EXDEV || pshm_now() >= deadline) {
            return rc;
        }
        rc = pshm_sleep(pause_of(tries));
        if (rc < 0) {
            return rc;
        }
    }
}

int
pshm_renew(int fd, struct pshm_primitive *primitive,
           const struct pshm_primitive_params *spec, int64_t deadline)
{
    int rc = renew_alone(fd, primitive, spec, deadline);
    (void)pshm_use_lock_take(fd);          /* as when it was attached to */
    return rc;
}
