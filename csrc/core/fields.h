/* The lock of the fields of an object, in builds without the GIL. In other
 * builds the GIL protects them.
 *
 * While a thread holds the lock, it runs no Python code, does not wait, and
 * stays attached to the interpreter: it reads and writes fields, and at most
 * raises an exception. So when the world stops, as for a fork, no thread holds
 * such a lock, and the child finds all of them free. A critical section would
 * not have this property: CPython may pass it to a thread that then waits
 * until the world continues, and in a child that was forked meanwhile it would
 * stay locked. */
#ifndef CORE_FIELDS_H
#define CORE_FIELDS_H

#include "core/compat.h"

#include <stdatomic.h>
#include <stdbool.h>

/* All zeros: not locked. */
typedef struct {
    atomic_bool taken;
} fields_mutex;

#ifdef Py_GIL_DISABLED
/* The lock was not free at the first attempt. */
void fields_wait(fields_mutex *mutex);

static inline bool
fields_try(fields_mutex *mutex)
{
    return !atomic_exchange_explicit(&mutex->taken, true,
                                     memory_order_acquire);
}

static inline void
fields_lock(fields_mutex *mutex)
{
    if (!fields_try(mutex)) {
        fields_wait(mutex);
    }
}

static inline void
fields_unlock(fields_mutex *mutex)
{
    atomic_store_explicit(&mutex->taken, false, memory_order_release);
}

/* Lock both, in any order: a thread that waits for one does not hold the
 * other. */
static inline void
fields_lock_both(fields_mutex *one, fields_mutex *other)
{
    fields_lock(one);
    while (!fields_try(other)) {
        fields_unlock(one);
        fields_lock(other);
        fields_mutex *held = other;
        other = one;
        one = held;
    }
}
#else
static inline void
fields_lock(fields_mutex *mutex)
{
    (void)mutex;
}

static inline void
fields_unlock(fields_mutex *mutex)
{
    (void)mutex;
}

static inline void
fields_lock_both(fields_mutex *one, fields_mutex *other)
{
    (void)one;
    (void)other;
}
#endif

#endif
