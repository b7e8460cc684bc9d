#include "core/fields.h"

#ifdef Py_GIL_DISABLED
#include "posix/clock.h"

#define SPINS 100
#define PAUSE 0.00002                   /* seconds */

/* The owner was preempted. Detaching from the interpreter allows the world to
 * stop meanwhile. The lock is acquired afterwards, it is not handed over. */
void
fields_wait(fields_mutex *mutex)
{
    for (int spins = 0; !fields_try(mutex); spins++) {
        if (spins >= SPINS) {
            Py_BEGIN_ALLOW_THREADS
            (void)pshm_sleep(PAUSE);
            Py_END_ALLOW_THREADS
        }
    }
}
#endif
