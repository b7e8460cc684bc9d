/* Guards of mappings: the functions behind posixshm.guard(). */
#include "core/core.h"

#include "core/errors.h"
#include "core/memory/mapping.h"

#include "posix/object/guard.h"

#define CAPSULE "posixshm.guard"

/* The context of the capsule is a reference to the mapping. */
static MemoryMapObject *
mapping_of(PyObject *capsule)
{
    return PyCapsule_GetContext(capsule);
}

/* Leave the guard, once. Returns 0 or -errno. */
static int
leave(PyObject *capsule, struct pshm_guard_lost *lost)
{
    static char left;                   /* a capsule's pointer cannot be NULL */
    MemoryMapObject *map = mapping_of(capsule);
    *lost = (struct pshm_guard_lost){0};
    fields_lock(&map->fields);
    void *guard = PyCapsule_GetPointer(capsule, CAPSULE);
    (void)PyCapsule_SetPointer(capsule, &left);
    fields_unlock(&map->fields);
    int rc = 0;
    if (guard != &left) {
        int prot = map->prot;
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_guard_leave(guard, prot, lost);
        Py_END_ALLOW_THREADS
    }
    return rc;
}

static void
guard_free(PyObject *capsule)
{
    struct pshm_guard_lost lost;
    MemoryMapObject *map = mapping_of(capsule);
    (void)leave(capsule, &lost);
    Py_DECREF(map);
}

static PyObject *
raise_enter(int rc)
{
    switch (rc) {
    case -EINVAL:
    case -EFAULT:
        return raise_errno_words(
            rc, NULL,
            "This memory cannot be guarded: the kernel cannot map memory of a "
            "device, or of a file system of huge pages, a second time");
    case -EAGAIN:
        return raise_errno_words(
            rc, NULL,
            "Pages of this memory are locked, and a guard needs as many again, "
            "more than RLIMIT_MEMLOCK (ulimit -l) allows");
    default:
        return raise_errno(rc, NULL);
    }
}

/* _guard_enter(MemoryMap): guard it for the calling thread. */
static PyObject *
guard_enter(PyObject *module, PyObject *op)
{
    core_state *state = core_state_of_module(module);
    if (!Py_IS_TYPE(op, state->mapping_type)) {
        return PyErr_Format(PyExc_TypeError,
                            "_guard_enter takes a MemoryMap, not %.200s",
                            Py_TYPE(op)->tp_name);
    }
    MemoryMapObject *map = (MemoryMapObject *)op;
    struct pshm_guard *guard;
    int rc, prot = map->prot;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_guard_enter(map->base, map->reserved, prot, &guard);
    Py_END_ALLOW_THREADS
    if (rc < 0) {
        return raise_enter(rc);
    }
    PyObject *capsule = PyCapsule_New(guard, CAPSULE, NULL);
    if (capsule == NULL) {
        struct pshm_guard_lost lost;
        (void)pshm_guard_leave(guard, prot, &lost);
        return NULL;
    }
    (void)PyCapsule_SetContext(capsule, Py_NewRef(op));
    (void)PyCapsule_SetDestructor(capsule, guard_free);
    return capsule;
}

/* _guard_leave(guard): None; or the range [start, end) of the lost bytes,
 * counted from the start of the memory. */
static PyObject *
guard_leave(PyObject *Py_UNUSED(module), PyObject *capsule)
{
    if (!PyCapsule_IsValid(capsule, CAPSULE)) {
        PyErr_SetString(PyExc_TypeError, "_guard_leave takes a guard");
        return NULL;
    }
    struct pshm_guard_lost lost;
    int rc = leave(capsule, &lost);
    if (rc < 0) {
        return raise_errno_words(
            rc, NULL,
            "The lost pages of the object cannot be mapped again: bytes %zu "
            "to %zu of this mapping are zeros from now on, and do not belong "
            "to the object; attach to the object again",
            lost.start, lost.end);
    }
    return lost.end == 0 ? Py_NewRef(Py_None)
                         : Py_BuildValue("nn", (Py_ssize_t)lost.start,
                                         (Py_ssize_t)lost.end);
}

PyMethodDef guard_methods[] = {
    {"_guard_enter", guard_enter, METH_O, NULL},
    {"_guard_leave", guard_leave, METH_O, NULL},
    {0},
};
