#include "renew.h"

#include <unistd.h>

#include "futex.h"
#include "lease.h"
#include "pause.h"

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
renew_alone(int fd, struct pshm_cell *cell, const struct pshm_cell_spec *spec,
            int64_t until)
{
    for (int tries = 0;; tries++) {
        int rc = pshm_lease_seize(fd);
        if (rc == 0) {
            rc = pshm_cell_look(cell, spec, NULL);
            return rc == -EXDEV ? pshm_cell_renew(cell, spec) : rc;
        }
        pshm_lease_release(fd);
        if (rc != -EAGAIN) {
            return rc;
        }
        rc = pshm_cell_look(cell, spec, NULL);
        if (rc != -EXDEV || pshm_now() >= until) {
            return rc;
        }
        rc = pshm_pause(pause_of(tries));
        if (rc < 0) {
            return rc;
        }
    }
}

int
pshm_renew(int fd, struct pshm_cell *cell, const struct pshm_cell_spec *spec,
           int64_t until)
{
    int rc = renew_alone(fd, cell, spec, until);
    (void)pshm_lease_take(fd);          /* as when it was attached to */
    return rc;
}
