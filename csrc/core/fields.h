/* The lock of an object's fields, in builds without the GIL; elsewhere the GIL
 * is that.
 *
 * Who has it runs no Python code, waits for nothing, and never lets go of the
 * interpreter: it reads and writes fields, and raises at most.  So when the
 * world stops, as it does for a fork, nobody has one, and a child finds all of
 * them free.  A critical section would not do: CPython may hand it over to a
 * thread that still has to wait for the world to go on, and in a child that is
 * forked then it would stay locked for ever. */
#ifndef CORE_FIELDS_H
#define CORE_FIELDS_H

#include "core/compat.h"

#include <stdatomic.h>
#include <stdbool.h>

/* All zeros is free. */
typedef struct {
    atomic_bool taken;
} fields_mutex;

#ifdef Py_GIL_DISABLED
/* When it was not free at once. */
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

/* Both of them, in whatever order: who waits for one has none. */
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
