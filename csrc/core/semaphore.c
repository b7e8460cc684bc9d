/* Semaphore: POSIX's, in a segment or by name. */
#include "semaphore.h"

#include "args.h"
#include "errors.h"
#include "waiting.h"

#include "posix/link.h"

/* How many are added with the GIL, and how many without a look at signals. */
#define AT_ONCE 100U
#define PIECE 1000000U

/* ---- Opening ---- */

static int
init_cell(struct pshm_cell *place, const void *how)
{
    return pshm_sem_init((sem_t *)(void *)place->payload,
                         *(const unsigned *)how);
}

static int
parse_value(PyObject *value, unsigned *out)
{
    long long number = 1;
    if (value != NULL
        && arg_long(value, "value", 0, pshm_sem_most(), &number) < 0) {
        return -1;
    }
    *out = (unsigned)number;
    return 0;
}

PyDoc_STRVAR(
    at_doc,
    "at($type, /, shm, offset=0, *, value=1, create=False, exist_ok=False)\n"
    "--\n\n"
    "The semaphore at an offset of a segment: " MAN(sem_init, 3) ".\n\n"
    CELL_DOC_WHERE
    "value: what a new one has, 0 to SEM_VALUE_MAX.  The sem_t is the first\n"
    "thing in the cell.\n\n" CELL_DOC_RAISES);

static PyObject *
semaphore_at(PyObject *type, PyObject *const *args, Py_ssize_t count,
             PyObject *kwnames)
{
    static const char *const names[] = {"shm", "offset", "value", "create",
                                        "exist_ok", NULL};
    static const struct signature signature = {"at", 2, 1, names};
    PyObject *values[5];
    unsigned value;
    opening how = {
        .state = core_state_of_type((PyTypeObject *)type),
        .type = (PyTypeObject *)type,
        .what = "Semaphore",
        .spec = {
            .kind = PSHM_CELL_SEMAPHORE,
            .size = sizeof(struct pshm_cell),
            .init = init_cell,
            .how = &value,
        },
    };
    if (args_match(&signature, args, count, kwnames, values) < 0
        || opening_parse(&how, values + 3) < 0
        || parse_value(values[2], &value) < 0) {
        return NULL;
    }
    cell *self = cell_open_at(&how, values[0], values[1]);
    if (self != NULL) {
        ((semaphore *)self)->sem = (sem_t *)(void *)self->place->payload;
    }
    return (PyObject *)self;
}

static PyObject *
semaphore_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"name", "value", "create", "exist_ok",
                                        "mode", NULL};
    static const struct signature signature = {"Semaphore", 2, 1, names};
    PyObject *values[5];
    unsigned value;
    mode_t mode = S_IRUSR | S_IWUSR;
    opening how = {0};
    if (args_match_dict(&signature, args, kwargs, values) < 0
        || opening_parse(&how, values + 2) < 0
        || parse_value(values[1], &value) < 0
        || arg_mode(values[4], &mode) < 0) {
        return NULL;
    }
    semaphore *self = (semaphore *)type->tp_alloc(type, 0);
    if (self != NULL
        && semaphore_open_named(self, core_state_of_type(type), values[0],
                      how.create ? &value : NULL, how.exist_ok, mode) < 0) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

/* ---- Methods ---- */

/* Returns 1; 0: none in time; or -1 with an exception. */
static int
acquire(semaphore *self, span how_long)
{
    if (cell_check(&self->base) < 0) {
        return -1;
    }
    int rc = pshm_sem_try(self->sem);
    if (rc == -EBUSY && !how_long.now) {
        do {
            Py_BEGIN_ALLOW_THREADS
            rc = pshm_sem_wait(self->sem, how_long.until);
            Py_END_ALLOW_THREADS
        } while (wait_on(rc));
    }
    if (rc == 0 || rc == -EBUSY || rc == -ETIMEDOUT) {
        return rc == 0;
    }
    return rc == -EINTR ? -1 : cell_raise(&self->base, rc);
}

PyDoc_STRVAR(
    acquire_doc,
    "acquire($self, /, blocking=True, timeout=None)\n--\n\n"
    "Decrement the value, which waits while it is 0: True; or False if it\n"
    "stayed 0: " MAN(sem_wait, 3) ".\n\n"
    "timeout: seconds, on the monotonic clock; 0 or less: do not wait, as with\n"
    "blocking=False; None: no limit.  Raises ValueError after close().");

static PyObject *
semaphore_acquire(PyObject *op, PyObject *const *args, Py_ssize_t count,
                  PyObject *kwnames)
{
    static const char *const names[] = {"blocking", "timeout", NULL};
    static const struct signature signature = {"acquire", 2, 0, names};
    PyObject *values[2];
    span how_long = {.until = PSHM_NEVER};
    if ((count > 0 || kwnames != NULL)
        && (args_match(&signature, args, count, kwnames, values) < 0
            || span_of_semaphore(values[0], values[1], &how_long) < 0)) {
        return NULL;
    }
    int got = acquire(as_semaphore(op), how_long);
    return got < 0 ? NULL : PyBool_FromLong(got);
}

/* Without the GIL, with a look at signals now and then.  -EINTR: a handler has
 * raised. */
static int
post_many(semaphore *self, unsigned n)
{
    int rc = pshm_sem_value(self->sem);
    if (rc >= 0 && n > pshm_sem_most() - (unsigned)rc) {
        return -EOVERFLOW;
    }
    while (rc >= 0 && n > 0) {
        unsigned piece = n < PIECE ? n : PIECE;
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_sem_post(self->sem, piece);
        Py_END_ALLOW_THREADS
        n -= piece;
        if (PyErr_CheckSignals() < 0) {
            return -EINTR;
        }
    }
    return rc;
}

static int
release(semaphore *self, unsigned n)
{
    if (cell_check(&self->base) < 0) {
        return -1;
    }
    int rc = n <= AT_ONCE ? pshm_sem_post(self->sem, n) : post_many(self, n);
    if (rc == -EOVERFLOW) {
        raise_errno_words(rc, self->name,
                          "The semaphore would be above SEM_VALUE_MAX, %u",
                          pshm_sem_most());
    }
    else if (rc < 0 && rc != -EINTR) {
        raise_errno(rc, self->name);
    }
    return rc;
}

PyDoc_STRVAR(
    release_doc,
    "release($self, /, n=1)\n--\n\n"
    "Add n, at least 1: " MAN(sem_post, 3) ".\n\n"
    "Raises OSError (EOVERFLOW) above SEM_VALUE_MAX, with nothing added;\n"
    "ValueError after close(); what a signal handler raises, where n is large\n"
    "and a part of it added.");

static PyObject *
semaphore_release(PyObject *op, PyObject *const *args, Py_ssize_t count,
                  PyObject *kwnames)
{
    static const char *const names[] = {"n", NULL};
    static const struct signature signature = {"release", 1, 0, names};
    PyObject *values[1];
    long long n = 1;
    if ((count > 0 || kwnames != NULL)
        && (args_match(&signature, args, count, kwnames, values) < 0
            || (values[0] != NULL
                && arg_long(values[0], "n", 1, pshm_sem_most(), &n) < 0))) {
        return NULL;
    }
    return release(as_semaphore(op), (unsigned)n) < 0 ? NULL
                                                      : Py_NewRef(Py_None);
}

static PyObject *
semaphore_enter(PyObject *op, PyObject *Py_UNUSED(unused))
{
    int got = acquire(as_semaphore(op), (span){.until = PSHM_NEVER});
    return got < 0 ? NULL : Py_NewRef(Py_True);
}

static PyObject *
semaphore_exit(PyObject *op, PyObject *const *Py_UNUSED(args),
               Py_ssize_t Py_UNUSED(count))
{
    return release(as_semaphore(op), 1) < 0 ? NULL : Py_NewRef(Py_None);
}

PyDoc_STRVAR(value_doc,
             "How many there are at this moment: " MAN(sem_getvalue, 3) ".\n"
             "Raises ValueError after close().");

static PyObject *
semaphore_get_value(PyObject *op, void *Py_UNUSED(closure))
{
    semaphore *self = as_semaphore(op);
    if (cell_check(&self->base) < 0) {
        return NULL;
    }
    int value = pshm_sem_value(self->sem);
    return value < 0 ? raise_errno(value, self->name) : PyLong_FromLong(value);
}

PyDoc_STRVAR(name_doc,
             "Its own name, without a slash, or None for one in a segment.");

static PyObject *
semaphore_get_name(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *name = as_semaphore(op)->name;
    return Py_NewRef(name != NULL ? name : Py_None);
}

static PyObject *
semaphore_unlink(PyObject *op, PyObject *unused)
{
    semaphore *self = as_semaphore(op);
    if (self->name == NULL) {
        return cell_unlink(op, unused);
    }
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_link_remove(&self->file, self->id);
    Py_END_ALLOW_THREADS
    if (rc == -ESTALE) {
        return raise_errno_words(-ENOENT, self->name,
                                 "This semaphore has not got the name any "
                                 "more; another one does");
    }
    return rc < 0 ? raise_errno(rc, self->name) : Py_NewRef(Py_None);
}

/* ---- The type ---- */

static int
semaphore_traverse(PyObject *op, visitproc visit, void *arg)
{
    return cell_traverse(as_cell(op), visit, arg);
}

static int
semaphore_clear(PyObject *op)
{
    return cell_clear(as_cell(op));
}

static void
semaphore_dealloc(PyObject *op)
{
    semaphore *self = as_semaphore(op);
    cell_end(&self->base);
    if (self->name != NULL && self->sem != NULL) {
        sem_t *sem = self->sem;
        Py_BEGIN_ALLOW_THREADS
        pshm_sem_close(sem);
        Py_END_ALLOW_THREADS
    }
    Py_CLEAR(self->name);
    cell_free(&self->base, false);
}

PyDoc_STRVAR(
    semaphore_doc,
    "Semaphore(name, value=1, *, create=False, exist_ok=False, mode=0o600)\n"
    "--\n\n"
    "A POSIX semaphore: " MAN(sem_overview, 7) ".  Named, as sem_open has it,\n"
    "so that any program can open it; or at() an offset of a segment.\n\n"
    "create: make it, with that value (0 to SEM_VALUE_MAX) and mode\n"
    "(permissions, whatever the umask is); exist_ok: or take the one there\n"
    "is.  A semaphore does not know who took from it: what a process that\n"
    "dies had taken stays away.  A Lock knows.\n\n"
    "Raises FileNotFoundError, FileExistsError, PermissionError, other\n"
    "OSErrors; ValueError for a bad name, or one over 251 bytes.");

static PyMethodDef semaphore_methods[] = {
    {"at", CELL_CAST(semaphore_at), METH_CLASS | METH_FASTCALL | METH_KEYWORDS,
     at_doc},
    {"acquire", CELL_CAST(semaphore_acquire), METH_FASTCALL | METH_KEYWORDS,
     acquire_doc},
    {"release", CELL_CAST(semaphore_release), METH_FASTCALL | METH_KEYWORDS,
     release_doc},
    {"__enter__", semaphore_enter, METH_NOARGS, NULL},
    {"__exit__", CELL_CAST(semaphore_exit), METH_FASTCALL, NULL},
    {"__reduce__", semaphore_reduce, METH_NOARGS, semaphore_reduce_doc},
    {"close", cell_close, METH_NOARGS, cell_close_doc},
    {"unlink", semaphore_unlink, METH_NOARGS, cell_unlink_doc},
    {0},
};

static PyGetSetDef semaphore_getset[] = {
    {"value", semaphore_get_value, NULL, value_doc, NULL},
    {"name", semaphore_get_name, NULL, name_doc, NULL},
    {"offset", cell_get_offset, NULL, cell_offset_doc, NULL},
    {"closed", cell_get_closed, NULL, cell_closed_doc, NULL},
    {0},
};

static PyMemberDef semaphore_members[] = {
    CELL_MEMBERS(semaphore),
    {0},
};

static PyObject *
semaphore_repr(PyObject *op)
{
    PyObject *name = as_semaphore(op)->name;
    return name == NULL
               ? cell_repr(op)
               : PyUnicode_FromFormat(
                     "Semaphore(%R)%s", name,
                     atomic_load(&as_cell(op)->closed) ? " (closed)" : "");
}

static PyType_Slot semaphore_slots[] = {
    {Py_tp_doc, (void *)semaphore_doc},
    {Py_tp_new, semaphore_tp_new},
    {Py_tp_dealloc, semaphore_dealloc},
    {Py_tp_traverse, semaphore_traverse},
    {Py_tp_clear, semaphore_clear},
    {Py_tp_repr, semaphore_repr},
    {Py_tp_methods, semaphore_methods},
    {Py_tp_getset, semaphore_getset},
    {Py_tp_members, semaphore_members},
    {0, NULL},
};

static PyType_Spec semaphore_spec = {
    .name = "posixshm.Semaphore",
    .basicsize = sizeof(semaphore),
    .flags = CELL_TYPE_FLAGS,
    .slots = semaphore_slots,
};

int
semaphore_add_type(PyObject *module, core_state *state)
{
    if (PyModule_AddFunctions(module, semaphore_functions) < 0
        || PyModule_AddIntConstant(module, "SEM_VALUE_MAX",
                                   (long)pshm_sem_most()) < 0) {
        return -1;
    }
    state->open_semaphore_function = PyObject_GetAttrString(module,
                                                            "_open_semaphore");
    state->semaphore_type = cell_add_type(module, &semaphore_spec,
                                          sizeof(struct pshm_cell),
                                          PSHM_CELL_ALIGNMENT);
    return state->open_semaphore_function == NULL
           || state->semaphore_type == NULL ? -1 : 0;
}
