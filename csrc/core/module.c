/* The module posixshm._core, and the functions shm_open, shm_unlink and
 * exists. */
#include "core/core.h"

#include "core/args.h"
#include "core/audit.h"
#include "core/sync/placed.h"
#include "core/errors.h"
#include "core/memory/handle_table.h"
#include "core/view/view.h"

#include "posix/object/attach.h"
#include "posix/constants.h"
#include "posix/host.h"
#include "posix/object/link.h"
#include "posix/object/map.h"
#include "posix/object/size.h"

core_state *
core_state_of_type(PyTypeObject *type)
{
    return core_state_of_module(PyType_GetModuleByDef(type, &core_module));
}

PyObject *
core_find(core_state *state, PyObject **slot, const char *module,
          const char *attribute)
{
    fields_lock(&state->fields);
    PyObject *found = Py_XNewRef(*slot);
    fields_unlock(&state->fields);
    if (found != NULL) {
        return found;
    }
    found = PyImport_ImportModule(module);
    if (found != NULL && attribute != NULL) {
        Py_SETREF(found, PyObject_GetAttrString(found, attribute));
    }
    if (found == NULL) {
        return NULL;
    }
    fields_lock(&state->fields);
    if (*slot == NULL) {
        *slot = Py_NewRef(found);
    }
    fields_unlock(&state->fields);
    return found;
}

/* ---- shm_open, shm_unlink, exists ---- */

PyDoc_STRVAR(
    shm_open_doc,
    "shm_open(name, flags, mode=0o600)\n--\n\n"
    "Open an object, or create one with os.O_CREAT: " MAN(shm_open, 3) ".\n\n"
    "flags: os.O_RDONLY or os.O_RDWR, with os.O_CREAT, os.O_EXCL, os.O_TRUNC.\n"
    "mode: the permissions of a new object, which the umask reduces.\n\n"
    "A new object has a size of 0 bytes; os.ftruncate() and\n"
    "os.posix_fallocate() change it.\n\n"
    "Returns a descriptor, an int, which is close-on-exec and above 2, with\n"
    "O_NONBLOCK, which has no effect on objects.  Raises FileNotFoundError;\n"
    "FileExistsError; PermissionError; OSError with errno EINVAL, EISDIR or\n"
    "ELOOP for a file that is not a regular file; ValueError for a bad name.");

static PyObject *
core_shm_open(PyObject *Py_UNUSED(module), PyObject *const *args,
              Py_ssize_t count, PyObject *kwnames)
{
    static const char *const names[] = {"name", "flags", "mode", NULL};
    static const struct signature signature = {"shm_open", 3, 2, names};
    PyObject *values[3];
    struct pshm_name name;
    long long flags;
    mode_t mode = S_IRUSR | S_IWUSR;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || arg_name(values[0], &name) < 0
        || arg_long(values[1], "flags", 0, INT_MAX, &flags) < 0
        || arg_mode(values[2], &mode) < 0) {
        return NULL;
    }
    int audited = flags & O_CREAT
                      ? audit_create(&name, 0)
                      : audit_open(&name, (flags & O_ACCMODE) == O_RDONLY);
    if (audited < 0) {
        return NULL;
    }
    mode_t kind;
    int rc;
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_open_raw(&name, (int)flags, mode, &kind);
        Py_END_ALLOW_THREADS
    } while (try_again(rc));
    return rc < 0 ? raise_attach(rc, values[0], kind) : PyLong_FromLong(rc);
}

PyDoc_STRVAR(
    shm_unlink_doc,
    "shm_unlink(name)\n--\n\n"
    "Remove a name, whichever object has it: " MAN(shm_unlink, 3) ".\n\n"
    "Raises FileNotFoundError; PermissionError; OSError; ValueError for a bad\n"
    "name.");

static PyObject *
core_shm_unlink(PyObject *Py_UNUSED(module), PyObject *const *args,
                Py_ssize_t count, PyObject *kwnames)
{
    static const char *const names[] = {"name", NULL};
    static const struct signature signature = {"shm_unlink", 1, 1, names};
    PyObject *values[1];
    struct pshm_name name;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || arg_name(values[0], &name) < 0 || audit_unlink(&name) < 0) {
        return NULL;
    }
    int rc;
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_link_drop(&name);
        Py_END_ALLOW_THREADS
    } while (try_again(rc));
    return rc < 0 ? raise_errno(rc, values[0]) : Py_NewRef(Py_None);
}

PyDoc_STRVAR(
    exists_doc,
    "exists(name)\n--\n\n"
    "Return whether a shared memory object has this name.\n\n"
    "Raises ValueError for a bad name; OSError if /dev/shm cannot be read.");

static PyObject *
core_exists(PyObject *Py_UNUSED(module), PyObject *const *args,
            Py_ssize_t count, PyObject *kwnames)
{
    static const char *const names[] = {"name", NULL};
    static const struct signature signature = {"exists", 1, 1, names};
    PyObject *values[1];
    struct pshm_name name;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || arg_name(values[0], &name) < 0) {
        return NULL;
    }
    int rc;
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_exists(&name);
    Py_END_ALLOW_THREADS
    return rc < 0 ? raise_errno(rc, values[0]) : PyBool_FromLong(rc);
}

/* _check_room(fd, size, name): raise the OSError of a creation if the file
 * system of a new object, or the machine, has fewer than size bytes free. */
static PyObject *
core_check_room(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *name;
    Py_ssize_t size;
    int fd, rc;
    if (!PyArg_ParseTuple(args, "inO:_check_room", &fd, &size, &name)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    rc = pshm_size_room(fd, size);
    Py_END_ALLOW_THREADS
    return rc < 0 ? raise_no_memory(rc, name == Py_None ? NULL : name, fd,
                                    size)
                  : Py_NewRef(Py_None);
}

static PyMethodDef raw_methods[] = {
    {"_check_room", core_check_room, METH_VARARGS, NULL},
    {"exists", (PyCFunction)(void (*)(void))core_exists,
     METH_FASTCALL | METH_KEYWORDS, exists_doc},
    {"shm_open", (PyCFunction)(void (*)(void))core_shm_open,
     METH_FASTCALL | METH_KEYWORDS, shm_open_doc},
    {"shm_unlink", (PyCFunction)(void (*)(void))core_shm_unlink,
     METH_FASTCALL | METH_KEYWORDS, shm_unlink_doc},
    {0},
};

static PyMethodDef *const functions[] = {
    raw_methods,   directory_methods, inspect_methods,
    array_methods, pickle_methods,    create_methods,
    delete_methods, guard_methods,
};

/* ---- The module ---- */

#define CONSTANT(name) {#name, name}

static const struct {
    const char *name;
    int value;
} constants[] = {
    CONSTANT(PROT_NONE),        CONSTANT(PROT_READ),
    CONSTANT(PROT_WRITE),       CONSTANT(MS_ASYNC),
    CONSTANT(MS_SYNC),          CONSTANT(MS_INVALIDATE),
    CONSTANT(MADV_NORMAL),      CONSTANT(MADV_RANDOM),
    CONSTANT(MADV_SEQUENTIAL),  CONSTANT(MADV_WILLNEED),
    CONSTANT(MADV_DONTNEED),    CONSTANT(MADV_DOFORK),
    CONSTANT(MADV_HUGEPAGE),    CONSTANT(MADV_NOHUGEPAGE),
    CONSTANT(MADV_DONTDUMP),    CONSTANT(MADV_DODUMP),
    CONSTANT(MADV_COLD),        CONSTANT(MADV_PAGEOUT),
    CONSTANT(MADV_POPULATE_READ), CONSTANT(MADV_POPULATE_WRITE),
    CONSTANT(MADV_COLLAPSE),    CONSTANT(F_SEAL_SEAL),
    CONSTANT(F_SEAL_SHRINK),    CONSTANT(F_SEAL_GROW),
    CONSTANT(F_SEAL_WRITE),     CONSTANT(F_SEAL_FUTURE_WRITE),
    CONSTANT(F_SEAL_EXEC),      {"NAME_MAX", PSHM_NAME_MAX},
};

static int
add_constants(PyObject *module, core_state *state)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(constants); i++) {
        if (PyModule_AddIntConstant(module, constants[i].name,
                                    constants[i].value) < 0) {
            return -1;
        }
    }
    state->page_size = (Py_ssize_t)pshm_page_size();
    return PyModule_AddIntConstant(module, "PAGESIZE", (long)state->page_size);
}

static PyTypeObject *
add_type(PyObject *module, PyType_Spec *spec)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type != NULL && PyModule_AddType(module, (PyTypeObject *)type) < 0) {
        Py_CLEAR(type);
    }
    return (PyTypeObject *)type;
}

static int
core_exec(PyObject *module)
{
    core_state *state = core_state_of_module(module);
    pshm_forks_watch();
    for (size_t i = 0; i < Py_ARRAY_LENGTH(functions); i++) {
        if (PyModule_AddFunctions(module, functions[i]) < 0) {
            return -1;
        }
    }
    if (add_constants(module, state) < 0) {
        return -1;
    }
    state->mapping_type = add_type(module, &mapping_spec);
    state->handle_type = add_type(module, &handle_spec);
    state->view_type = add_type(module, &view_spec);
    if (state->mapping_type == NULL || state->handle_type == NULL
        || state->view_type == NULL
        || directory_add_types(module, state) < 0) {
        return -1;
    }
    state->reduction_name =
        PyUnicode_InternFromString("multiprocessing.reduction");
    state->known_handles = handle_table_new();
    if (state->known_handles == NULL) {
        (void)PyErr_NoMemory();
    }
    return state->reduction_name == NULL
           || state->known_handles == NULL
           || placed_add_types(module, state) < 0 ? -1 : 0;
}

static int
core_traverse(PyObject *module, visitproc visit, void *arg)
{
    core_state *state = core_state_of_module(module);
    for (size_t i = 0; i < CORE_OBJECTS; i++) {
        Py_VISIT(state->objects[i]);
    }
    return 0;
}

static int
core_clear(PyObject *module)
{
    core_state *state = core_state_of_module(module);
    for (size_t i = 0; i < CORE_OBJECTS; i++) {
        Py_CLEAR(state->objects[i]);
    }
    return 0;
}

static void
core_free(void *module)
{
    (void)core_clear(module);
    handle_table_drop(core_state_of_module(module)->known_handles);
}

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, core_exec},
    CORE_SLOT_INTERPRETERS
    CORE_SLOT_GIL
    {0, NULL},
};

struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "posixshm._core",
    .m_doc = PyDoc_STR("The C implementation of posixshm."),
    .m_size = sizeof(core_state),
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&core_module);
}
