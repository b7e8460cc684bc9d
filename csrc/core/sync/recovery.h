/* Recovery of a lock whose owner has died: what Lock, RLock, Condition and
 * RWLock share. */
#ifndef CORE_RECOVERY_H
#define CORE_RECOVERY_H

#include "core/sync/placed.h"

struct recovery {
    PyObject *callback;                 /* on_owner_died; or NULL */
    atomic_bool recovered;              /* by the last acquire of this object */
    atomic_uint running;                /* the callback runs, in the process of
                                           pshm_forks() + 1; else 0 */
};

/* on_owner_died=: a callable or NULL. Returns 0, or -1 with TypeError. */
int recovery_check(PyObject *callback);

/* {"on_owner_died": callback}: a new dict, or NULL. */
PyObject *recovery_values(const struct recovery *recovery);

/* placed_type.parse if on_owner_died is the type's first own parameter. */
int recovery_parse(placed_params *params);

/* Call the callback with the lock, which this thread holds. Returns 0, or -1
 * with an exception. */
int recovery_call(struct recovery *recovery, PyObject *lock);

/* Before the last release by this thread. Returns 0, or -1 with RuntimeError
 * while the callback runs. */
int recovery_check_release(const struct recovery *recovery);

/* Raise OwnerDiedError for rc: -EOWNERDEAD; or -EINPROGRESS: the lock cannot be
 * recovered yet. Returns -1. */
int recovery_raise(PlacedObject *self, int rc);

/* Raise RuntimeError: this thread does not hold the lock. Returns -1. */
int recovery_raise_not_held(void);

/* .recovered; closure: the offset of a struct recovery in the object. */
PyObject *recovery_get(PyObject *op, void *closure);
extern const char recovery_doc[];

#define RECOVERED_ATTRIBUTE(object_type)                                      \
    {"recovered", recovery_get, NULL, recovery_doc,                           \
     (void *)offsetof(object_type, recovery)}

#define RECOVERY_DOC                                                          \
    "on_owner_died: a callable. If the last owner died, acquire() calls it\n"\
    "with the acquired lock. If it returns, the lock is consistent again;\n" \
    "if it raises, acquire() raises that and releases the lock.\n"
#define RECOVER_DOC                                                           \
    "recover: acquire the lock also if its last owner died, see .recovered;\n"\
    "the caller then repairs what the lock protects.\n"

#endif
