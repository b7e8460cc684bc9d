/* Making objects: create(), unlinked(), anonymous() and the constructor. */
#include "core/memory/handle_make.h"

#include <string.h>

#include "core/args.h"

/* The kernel's limit for the label of a memfd, in bytes. */
#define LABEL_MAX 249

void
create_params_init(create_params *params, enum pshm_kind kind)
{
    *params = (create_params){
        .spec = {
            .kind = kind,
            .mode = S_IRUSR | S_IWUSR,
            .uid = (uid_t)-1,
            .gid = (gid_t)-1,
            .reserve = true,
        },
        .accepted = PSHM_ACCEPT_ANY,
    };
}

/* size, and from values[0] on: max_size, reserve, populate, huge_pages. */
static int
parse_memory(create_params *params, PyObject *size, PyObject **values)
{
    struct pshm_new_object_params *spec = &params->spec;
    Py_ssize_t bytes, max_size = 0;
    if (arg_size(size, "size", &bytes) < 0
        || (values[0] != NULL && values[0] != Py_None
            && arg_size(values[0], "max_size", &max_size) < 0)
        || arg_bool(values[1], &spec->reserve) < 0
        || arg_bool(values[2], &spec->populate) < 0
        || arg_bool(values[3], &spec->huge_pages) < 0) {
        return -1;
    }
    if (max_size > 0 && max_size < bytes) {
        PyErr_Format(PyExc_ValueError,
                     "max_size must be at least size, %zd bytes, not %zd",
                     bytes, max_size);
        return -1;
    }
    spec->size = bytes;
    spec->max_size = max_size;
    return 0;
}

/* From values[0] on: mode, uid, gid. */
static int
parse_owner(create_params *params, PyObject **values)
{
    return arg_mode(values[0], &params->spec.mode) < 0
           || arg_id(values[1], "uid", &params->spec.uid) < 0
           || arg_id(values[2], "gid", &params->spec.gid) < 0 ? -1 : 0;
}

/* By default exist_ok accepts objects of this user, of root, and of the user
 * that a new object would belong to. */
static int
parse_accepted(core_state *state, create_params *params, PyObject *owner,
               PyObject *mode_at_most)
{
    struct pshm_accepted *accepted = &params->accepted;
    if (params->existing.exist_ok) {
        accepted->owners = pshm_owners_self();
    }
    if (owner == NULL && params->existing.exist_ok
        && params->spec.uid != (uid_t)-1) {
        (void)pshm_owners_add(&accepted->owners, params->spec.uid);
    }
    return arg_owners(state, owner, &accepted->owners) < 0
           || arg_mode_at_most(mode_at_most, &accepted->mode) < 0 ? -1 : 0;
}

static int
parse_name(create_params *params, PyObject *name)
{
    params->spec.name = &params->path;
    if (name == Py_None) {
        return 0;
    }
    params->name = name;
    return arg_new_name(name, &params->path);
}

PyObject *
handle_make(core_state *state, PyObject *type, create_params *params)
{
    SharedMemoryObject *self = handle_alloc(state, type);
    if (self != NULL && handle_make_into(state, params, self) < 0) {
        Py_CLEAR(self);
    }
    Py_CLEAR(params->acl);
    return (PyObject *)self;
}

#define MEMORY_DOC                                                            \
    "size: bytes, at least 1. max_size: bytes of address space to reserve,\n" \
    "so that the object can grow in place under all views. reserve: take\n"   \
    "the memory now, with " MAN(fallocate, 2) ", so that a full mount\n"      \
    "raises OSError (ENOSPC) here instead of causing a bus error later.\n"    \
    "populate: map every page now (Linux 5.14). huge_pages: ask for huge\n"   \
    "pages; a RuntimeWarning says so if the settings of the machine do not\n" \
    "allow any. The kernel also uses small pages for an object that is\n"     \
    "smaller than a huge page, and if it has no huge page left.\n"

#define OWNER_DOC                                                             \
    "mode: permissions, regardless of the umask. uid, gid: the owner and\n"   \
    "the group; None: those of the process: " MAN(fchmod, 2) ",\n"            \
    MAN(fchown, 2) ". acl: an access control list, a str as for setfacl(),\n" \
    "which is set before the object has a name; its entries for the owner,\n" \
    "the group and others override mode.\n"

const char handle_create_doc[] =
    "create($type, /, name, size, *, mode=0o600, uid=None, gid=None,\n"
    "       acl=None, max_size=None, reserve=True, populate=False,\n"
    "       huge_pages=False, init=None, exist_ok=False, delete=False,\n"
    "       track=False, owner='self', mode_at_most=None, stale='attach',\n"
    "       replace=False)\n--\n\n"
    "Create an object, and give it its name in the last step.\n\n"
    "name: a str, see " MAN(shm_open, 3) "; it must not begin with 'sem.',\n"
    "as the names of POSIX semaphores do. None: a random name, as the\n"
    "standard library's constructor chooses it (anonymous() makes an object\n"
    "without a name).\n"
    MEMORY_DOC OWNER_DOC
    "init: a callable that is called with a writable memoryview of all bytes,\n"
    "before other processes can see them. If it raises, the object is\n"
    "discarded. exist_ok: if an object has the name and at least size bytes,\n"
    "attach to it; see .created.\n"
    OWNER_ARGUMENT_DOC MODE_AT_MOST_DOC STALE_DOC
    "delete: this process removes the name when the handle is closed or\n"
    "deallocated, or when the interpreter or a worker of multiprocessing\n"
    "ends, but not if the process ends by os._exit(), by SIGTERM without a\n"
    "handler or by SIGKILL. delete='last': the last process that uses the\n"
    "object removes the name, when its handles and views are deallocated or\n"
    "when it ends; processes that attach with open() take part. After a\n"
    "SIGKILL reclaim() or stale='replace' removes it. track: the resource\n"
    "tracker of the standard library removes the name after this process and\n"
    "its children have ended, in any way.\n\n"
    "Raises FileExistsError; PermissionError if exist_ok finds an object with\n"
    "another owner or mode; ValueError for a bad name, size or list;\n"
    "LookupError for an unknown user or group in a list; OSError: ENOSPC (the\n"
    "message states the free bytes), EFBIG (RLIMIT_FSIZE), ENOMEM, EMFILE,\n"
    "EPERM, EOPNOTSUPP (the file system has no access control lists); and any\n"
    "exception of init.";

/* The arguments of create(). Returns 0 or -1; the caller releases params->acl.
 */
static int
parse_create(core_state *state, create_params *params, PyObject *const *args,
             Py_ssize_t count, PyObject *kwnames)
{
    static const char *const names[] = {
        "name", "size", "mode", "uid", "gid", "max_size", "reserve",
        "populate", "huge_pages", "init", "exist_ok", "delete", "track",
        "owner", "mode_at_most", "acl", "stale", "replace", NULL};
    static const struct signature signature = {"create", 2, 2, names};
    PyObject *values[18];
    create_params_init(params, PSHM_NAMED);
    if (args_match(&signature, args, count, kwnames, values) < 0
        || parse_name(params, values[0]) < 0
        || parse_memory(params, values[1], values + 5) < 0
        || parse_owner(params, values + 2) < 0
        || arg_existing(values[10], values[16], values[17], &params->existing)
               < 0
        || arg_deletion(values[11], &params->deletion) < 0
        || arg_bool(values[12], &params->track) < 0
        || parse_accepted(state, params, values[13], values[14]) < 0) {
        return -1;
    }
    if (values[9] != NULL && values[9] != Py_None) {
        if (!PyCallable_Check(values[9])) {
            PyErr_Format(PyExc_TypeError, "init must be callable, not %.200s",
                         Py_TYPE(values[9])->tp_name);
            return -1;
        }
        params->init = values[9];
    }
    if (params->name == NULL
        && (params->existing.exist_ok || params->existing.replace)) {
        PyErr_Format(PyExc_ValueError,
                     "%s needs a name: a random one cannot exist already",
                     params->existing.exist_ok ? "exist_ok" : "replace");
        return -1;
    }
    return create_params_set_acl(params, state, values[15]);
}

PyObject *
handle_create(PyObject *type, PyObject *const *args, Py_ssize_t count,
              PyObject *kwnames)
{
    core_state *state = core_state_of_type((PyTypeObject *)type);
    create_params params;
    return parse_create(state, &params, args, count, kwnames) < 0
               ? NULL : handle_make(state, type, &params);
}

/* _create_in(handle, name, size, ...): the standard library's constructor with
 * the arguments of create(), in a handle that the caller has already. So the
 * caller can undo it if a signal handler raises after the call has returned. */
static PyObject *
create_in(PyObject *module, PyObject *const *args, Py_ssize_t count,
          PyObject *kwnames)
{
    core_state *state = core_state_of_module(module);
    create_params params;
    if (count < 1 || !PyObject_TypeCheck(args[0], state->handle_type)) {
        PyErr_SetString(PyExc_TypeError, "_create_in takes a SharedMemory");
        return NULL;
    }
    if (parse_create(state, &params, args + 1, count - 1, kwnames) < 0) {
        return NULL;
    }
    params.dropin = true;
    int rc = handle_make_into(state, &params, as_handle(args[0]));
    Py_CLEAR(params.acl);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

const char handle_unlinked_doc[] =
    "unlinked($type, /, size, *, mode=0o600, uid=None, gid=None, acl=None,\n"
    "        max_size=None, reserve=True, populate=False, huge_pages=False)\n"
    "--\n\n"
    "Create an object without a name, which link() can give it later.\n\n"
    MEMORY_DOC OWNER_DOC
    "Without a link the object does not outlive the processes that use it.\n"
    "See " MAN(open, 2) ", O_TMPFILE.\n\n"
    "Raises as create() does; OSError: EOPNOTSUPP if the file system cannot\n"
    "make such objects.";

PyObject *
handle_unlinked(PyObject *type, PyObject *const *args, Py_ssize_t count,
               PyObject *kwnames)
{
    static const char *const names[] = {
        "size", "mode", "uid", "gid", "max_size", "reserve", "populate",
        "huge_pages", "acl", NULL};
    static const struct signature signature = {"unlinked", 1, 1, names};
    core_state *state = core_state_of_type((PyTypeObject *)type);
    PyObject *values[9];
    create_params params;
    create_params_init(&params, PSHM_UNNAMED);
    if (args_match(&signature, args, count, kwnames, values) < 0
        || parse_memory(&params, values[0], values + 4) < 0
        || parse_owner(&params, values + 1) < 0
        || handle_register(state) < 0
        || create_params_set_acl(&params, state, values[8]) < 0) {
        return NULL;
    }
    return handle_make(state, type, &params);
}

const char handle_anonymous_doc[] =
    "anonymous($type, /, size, *, name='posixshm', max_size=None,\n"
    "          reserve=True, populate=False, huge_pages=False)\n--\n\n"
    "Create an object that cannot have a name: " MAN(memfd_create, 2) ".\n\n"
    "Other processes receive its descriptor, or unpickle it through\n"
    "multiprocessing. It does not outlive the processes that use it, and is\n"
    "sealed against shrinking. The size of a mount does not limit it.\n"
    MEMORY_DOC
    "name: a label for /proc, at most 249 bytes.\n\n"
    "Raises ValueError; OSError: EFBIG, ENOMEM, EMFILE.";

static int
parse_label(create_params *params, PyObject *value)
{
    Py_ssize_t length;
    if (!PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "name must be a str, not %.200s",
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    params->spec.label = PyUnicode_AsUTF8AndSize(value, &length);
    if (params->spec.label == NULL || length > LABEL_MAX
        || strlen(params->spec.label) != (size_t)length) {
        PyErr_Format(PyExc_ValueError,
                     "bad name %A: it must have at most %d bytes, no null "
                     "character and no surrogate",
                     value, LABEL_MAX);
        return -1;
    }
    return 0;
}

PyObject *
handle_anonymous(PyObject *type, PyObject *const *args, Py_ssize_t count,
                 PyObject *kwnames)
{
    static const char *const names[] = {"size", "name", "max_size", "reserve",
                                        "populate", "huge_pages", NULL};
    static const struct signature signature = {"anonymous", 1, 1, names};
    core_state *state = core_state_of_type((PyTypeObject *)type);
    PyObject *values[6];
    create_params params;
    create_params_init(&params, PSHM_MEMFD);
    params.spec.label = "posixshm";
    if (args_match(&signature, args, count, kwnames, values) < 0
        || parse_memory(&params, values[0], values + 2) < 0) {
        return NULL;
    }
    if ((values[1] != NULL && parse_label(&params, values[1]) < 0)
        || handle_register(state) < 0) {
        return NULL;
    }
    return handle_make(state, type, &params);
}

int
handle_tp_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"name", "create", "size", "track",
                                        NULL};
    static const struct signature signature = {"SharedMemory", 3, 0, names};
    core_state *state = core_state_of_type(Py_TYPE(op));
    PyObject *values[4];
    bool create = false, track = false;
    if (args_match_dict(&signature, args, kwargs, values) < 0
        || arg_bool(values[1], &create) < 0
        || arg_bool(values[3], &track) < 0
        || handle_delete_audit(as_handle(op)) < 0) {
        return -1;
    }
    PyObject *name = values[0] == NULL ? Py_None : values[0];
    if (create) {
        PyObject *none[4] = {NULL};
        create_params params;
        if (values[2] == NULL) {
            PyErr_SetString(PyExc_ValueError,
                            "create=True needs a size, in bytes");
            return -1;
        }
        create_params_init(&params, PSHM_NAMED);
        params.track = track;
        params.dropin = true;
        return parse_name(&params, name) < 0
               || parse_memory(&params, values[2], none) < 0
                   ? -1 : handle_make_into(state, &params, as_handle(op));
    }
    Py_ssize_t ignored;
    if (values[2] != NULL && arg_offset(values[2], "size", &ignored) < 0) {
        return -1;
    }
    if (name == Py_None) {
        PyErr_SetString(PyExc_ValueError,
                        "name can be None only together with create=True");
        return -1;
    }
    return handle_attach_into(state, as_handle(op), name, track);
}

PyMethodDef create_methods[] = {
    {"_create_in", (PyCFunction)(void (*)(void))create_in,
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {0},
};
