/* The doors that make an object. */
#include "core/memory/handle_make.h"

#include <string.h>

#include "core/args.h"

/* The kernel's limit for a memfd's label, bytes. */
#define LABEL_MAX 249

void
request_init(create_params *req, enum pshm_kind kind)
{
    *req = (create_params){
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

void
request_set_size(create_params *req, Py_ssize_t size)
{
    req->size = size;
    req->spec.size = size;
    req->spec.length = (size_t)size;
}

/* size; and max_size, reserve, populate, huge_pages from values[0] on. */
static int
parse_memory(create_params *req, PyObject *size, PyObject **values)
{
    if (arg_size(size, "size", &req->size) < 0
        || (values[0] != NULL && values[0] != Py_None
            && arg_size(values[0], "max_size", &req->max_size) < 0)
        || arg_bool(values[1], &req->spec.reserve) < 0
        || arg_bool(values[2], &req->spec.populate) < 0
        || arg_bool(values[3], &req->spec.huge_pages) < 0) {
        return -1;
    }
    if (req->max_size > 0 && req->max_size < req->size) {
        PyErr_Format(PyExc_ValueError,
                     "max_size must be at least size, %zd bytes, not %zd",
                     req->size, req->max_size);
        return -1;
    }
    request_set_size(req, req->size);
    if (req->max_size > 0) {
        req->spec.length = (size_t)req->max_size;
    }
    return 0;
}

/* mode, uid, gid from values[0] on. */
static int
parse_owner(create_params *req, PyObject **values)
{
    return arg_mode(values[0], &req->spec.mode) < 0
           || arg_id(values[1], "uid", &req->spec.uid) < 0
           || arg_id(values[2], "gid", &req->spec.gid) < 0 ? -1 : 0;
}

/* Without a value this user, root, and the user that a new object would belong
 * to; if nothing is attached to, no owner matters. */
static int
parse_accepted(create_params *req, PyObject *owner, PyObject *mode_at_most)
{
    struct pshm_accepted *accepted = &req->accepted;
    if (req->existing.exist_ok) {
        accepted->owners = pshm_owners_self();
    }
    if (owner == NULL && req->existing.exist_ok && req->spec.uid != (uid_t)-1) {
        (void)pshm_owners_add(&accepted->owners, req->spec.uid);
    }
    return arg_owners(owner, &accepted->owners) < 0
           || arg_mode_at_most(mode_at_most, &accepted->mode) < 0 ? -1 : 0;
}

static int
parse_name(create_params *req, PyObject *name)
{
    req->spec.name = &req->path;
    if (name == Py_None) {
        return 0;
    }
    req->name = name;
    return arg_new_name(name, &req->path);
}

PyObject *
handle_make(core_state *state, PyObject *type, create_params *req)
{
    SharedMemoryObject *self = handle_alloc(state, type);
    if (self != NULL && handle_fulfil(state, req, self) < 0) {
        Py_CLEAR(self);
    }
    Py_CLEAR(req->acl);
    return (PyObject *)self;
}

#define MEMORY_DOC                                                            \
    "size: bytes, at least 1.  max_size: bytes of address space to reserve,\n"\
    "so that the object can grow in place under every view.  reserve: take\n" \
    "the memory now, with " MAN(fallocate, 2) ", so that a full mount is an\n"\
    "OSError (ENOSPC) here and not a bus error later.  populate: map every\n" \
    "page now.  huge_pages: ask for huge pages, which the kernel may ignore.\n"

#define OWNER_DOC                                                             \
    "mode: permissions, whatever the umask is.  uid, gid: owner, or None for\n"\
    "the process's own: " MAN(fchmod, 2) ", " MAN(fchown, 2) ".  acl: an access\n" \
    "control list, a str as for setfacl(), set before the object has a name;\n" \
    "its entries for the owner, the group and others override mode.\n"

const char handle_create_doc[] =
    "create($type, /, name, size, *, mode=0o600, uid=None, gid=None,\n"
    "       acl=None, max_size=None, reserve=True, populate=False,\n"
    "       huge_pages=False, init=None, exist_ok=False, delete=False,\n"
    "       track=False, owner='self', mode_at_most=None, stale='attach',\n"
    "       replace=False)\n--\n\n"
    "Make an object, and only when it is complete give it its name.\n\n"
    "name: a str, see " MAN(shm_open, 3) "; None: a fresh name, as the\n"
    "standard library's constructor chooses one (anonymous() makes an object\n"
    "without a name).  A name must not begin with 'sem.', as those of POSIX\n"
    "semaphores do.\n"
    MEMORY_DOC OWNER_DOC
    "init: called with a writable memoryview of all bytes before anyone else\n"
    "can see them; if it raises, there is no object.  exist_ok: attach to an\n"
    "object of that name, if it has at least size bytes; see .created.\n"
    OWNER_ARGUMENT_DOC MODE_AT_MOST_DOC STALE_DOC
    "delete: this process removes the name when the handle is closed or\n"
    "collected, or the interpreter or a worker of multiprocessing ends, but\n"
    "not if the process ends by os._exit(), by SIGTERM without a handler or by\n"
    "SIGKILL.  delete='last': the last process that uses the object removes\n"
    "the name when its handles and views are gone, or when it ends, likewise;\n"
    "so do processes that attach with open().  After a SIGKILL reclaim() or\n"
    "stale='replace' does.  track: the resource tracker of the standard\n"
    "library removes the name when this process and those that it started\n"
    "have ended, in whatever way.\n\n"
    "Raises FileExistsError; PermissionError if exist_ok finds an object of\n"
    "another owner or mode; ValueError for a bad name, size or list;\n"
    "LookupError for an unknown user or group in a list; OSError:\n"
    "ENOSPC (it says how many bytes are free), EFBIG (RLIMIT_FSIZE), ENOMEM,\n"
    "EMFILE, EPERM, EOPNOTSUPP (no access control lists on this file system);\n"
    "and what init raises.";

/* The arguments of create().  Returns 0 or -1; the caller clears req->acl. */
static int
parse_create(core_state *state, create_params *req, PyObject *const *args,
             Py_ssize_t count, PyObject *kwnames)
{
    static const char *const names[] = {
        "name", "size", "mode", "uid", "gid", "max_size", "reserve",
        "populate", "huge_pages", "init", "exist_ok", "delete", "track",
        "owner", "mode_at_most", "acl", "stale", "replace", NULL};
    static const struct signature signature = {"create", 2, 2, names};
    PyObject *values[18];
    request_init(req, PSHM_NAMED);
    if (args_match(&signature, args, count, kwnames, values) < 0
        || parse_name(req, values[0]) < 0
        || parse_memory(req, values[1], values + 5) < 0
        || parse_owner(req, values + 2) < 0
        || arg_existing(values[10], values[16], values[17], &req->existing)
               < 0
        || arg_deletion(values[11], &req->deletion) < 0
        || arg_bool(values[12], &req->track) < 0
        || parse_accepted(req, values[13], values[14]) < 0) {
        return -1;
    }
    if (values[9] != NULL && values[9] != Py_None) {
        if (!PyCallable_Check(values[9])) {
            PyErr_Format(PyExc_TypeError, "init must be callable, not %.200s",
                         Py_TYPE(values[9])->tp_name);
            return -1;
        }
        req->init = values[9];
    }
    if (req->name == NULL
        && (req->existing.exist_ok || req->existing.replace)) {
        PyErr_Format(PyExc_ValueError, "%s needs a name that can exist",
                     req->existing.exist_ok ? "exist_ok" : "replace");
        return -1;
    }
    return request_set_acl(req, state, values[15]);
}

PyObject *
handle_create(PyObject *type, PyObject *const *args, Py_ssize_t count,
              PyObject *kwnames)
{
    core_state *state = core_state_of_type((PyTypeObject *)type);
    create_params req;
    return parse_create(state, &req, args, count, kwnames) < 0
               ? NULL : handle_make(state, type, &req);
}

/* _create_in(handle, name, size, ...): what create() does, in a handle that its
 * caller has already, so that it can undo it if a signal handler raises after
 * the call has returned. */
static PyObject *
create_in(PyObject *module, PyObject *const *args, Py_ssize_t count,
          PyObject *kwnames)
{
    core_state *state = core_state_of_module(module);
    create_params req;
    if (count < 1 || !PyObject_TypeCheck(args[0], state->handle_type)) {
        PyErr_SetString(PyExc_TypeError, "_create_in takes a SharedMemory");
        return NULL;
    }
    if (parse_create(state, &req, args + 1, count - 1, kwnames) < 0) {
        return NULL;
    }
    int rc = handle_fulfil(state, &req, as_handle(args[0]));
    Py_CLEAR(req.acl);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

const char handle_unlinked_doc[] =
    "unlinked($type, /, size, *, mode=0o600, uid=None, gid=None, acl=None,\n"
    "        max_size=None, reserve=True, populate=False, huge_pages=False)\n"
    "--\n\n"
    "Make an object without a name, which link() can give it later.\n\n"
    MEMORY_DOC OWNER_DOC
    "Without a link it leaves nothing behind.  See " MAN(open, 2) ", O_TMPFILE.\n"
    "\n"
    "Raises as create() does; OSError (EOPNOTSUPP) where the file system\n"
    "cannot make such objects.";

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
    create_params req;
    request_init(&req, PSHM_UNNAMED);
    if (args_match(&signature, args, count, kwnames, values) < 0
        || parse_memory(&req, values[0], values + 4) < 0
        || parse_owner(&req, values + 1) < 0
        || handle_register(state) < 0
        || request_set_acl(&req, state, values[8]) < 0) {
        return NULL;
    }
    return handle_make(state, type, &req);
}

const char handle_anonymous_doc[] =
    "anonymous($type, /, size, *, name='posixshm', max_size=None,\n"
    "          reserve=True, populate=False, huge_pages=False)\n--\n\n"
    "Make an object that never has a name: " MAN(memfd_create, 2) ".\n\n"
    "It is passed on by its descriptor, or pickled through multiprocessing,\n"
    "and leaves nothing behind.  It is sealed against shrinking.\n"
    MEMORY_DOC
    "name: a label that /proc shows, at most 249 bytes.  No mount limits it.\n"
    "\n"
    "Raises ValueError; OSError: EFBIG, ENOMEM, EMFILE.";

static int
parse_label(create_params *req, PyObject *value)
{
    Py_ssize_t length;
    if (!PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "name must be a str, not %.200s",
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    req->spec.label = PyUnicode_AsUTF8AndSize(value, &length);
    if (req->spec.label == NULL || length > LABEL_MAX
        || strlen(req->spec.label) != (size_t)length) {
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
    create_params req;
    request_init(&req, PSHM_MEMFD);
    req.spec.label = "posixshm";
    if (args_match(&signature, args, count, kwnames, values) < 0
        || parse_memory(&req, values[0], values + 2) < 0) {
        return NULL;
    }
    if ((values[1] != NULL && parse_label(&req, values[1]) < 0)
        || handle_register(state) < 0) {
        return NULL;
    }
    return handle_make(state, type, &req);
}

int
handle_create_into(core_state *state, SharedMemoryObject *self, PyObject *name,
                   PyObject *size, mode_t mode, bool track, bool reserve)
{
    static PyObject *const none[4];
    create_params req;
    request_init(&req, PSHM_NAMED);
    req.spec.mode = mode;
    req.spec.reserve = reserve;
    req.track = track;
    req.dropin = true;
    return parse_name(&req, name) < 0
           || parse_memory(&req, size, (PyObject **)none) < 0
           || handle_fulfil(state, &req, self) < 0 ? -1 : 0;
}

/* _create(handle, name, size, mode, track, reserve): its constructor, with a
 * mode. */
static PyObject *
create_with_mode(PyObject *module, PyObject *args)
{
    core_state *state = core_state_of_module(module);
    PyObject *self, *name, *size, *mode_value;
    mode_t mode;
    int track, reserve;
    if (!PyArg_ParseTuple(args, "O!OOOpp:_create", state->handle_type, &self,
                          &name, &size, &mode_value, &track, &reserve)
        || arg_mode(mode_value, &mode) < 0
        || handle_create_into(state, as_handle(self), name, size, mode, track,
                              reserve) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyMethodDef create_methods[] = {
    {"_create", create_with_mode, METH_VARARGS, NULL},
    {"_create_in", (PyCFunction)(void (*)(void))create_in,
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {0},
};
