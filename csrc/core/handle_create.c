/* The doors that make an object. */
#include "handle.h"

#include <string.h>
#include <sys/mman.h>

#include "args.h"
#include "errors.h"

#include "posix/draft.h"
#include "posix/link.h"

/* The kernel's limit for a memfd's label, bytes. */
#define LABEL_MAX 249

/* What a caller asked for. */
typedef struct {
    struct pshm_spec spec;
    struct pshm_name path;              /* what spec.name points at */
    PyObject *name;                     /* as given; NULL or None: none */
    Py_ssize_t size;
    Py_ssize_t max_size;                /* or 0 */
    PyObject *init;                     /* callable, or NULL */
    bool exist_ok;
    bool delete;
    bool track;
} request;

/* ---- Making ---- */

/* Everything up to the name, and where nothing of Python's is to come in
 * between (publish) the name too.  0, or -1 with an exception and the draft
 * abandoned; -EEXIST in *publish_rc is not an error here. */
static int
make_draft(core_state *state, const request *req, bool publish,
           struct pshm_draft *draft, int *publish_rc)
{
    int rc;
    *publish_rc = 0;
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_draft_make(&req->spec, &state->way, draft);
        if (rc == 0 && publish) {
            *publish_rc = pshm_draft_publish(draft, req->spec.name, false);
        }
        Py_END_ALLOW_THREADS
    } while (try_again(rc));
    if (rc < 0) {
        raise_no_memory(rc, req->name, draft->fd, req->spec.size);
        Py_BEGIN_ALLOW_THREADS
        pshm_draft_abandon(draft);
        Py_END_ALLOW_THREADS
        return -1;
    }
    return 0;
}

/* The mapping goes to body; the draft keeps the rest until it is published. */
static void
take_mapping(const request *req, struct pshm_draft *draft, handle_body *body)
{
    mapping_adopt(body->map, draft->base, draft->length, req->size,
                  PROT_READ | PROT_WRITE);
    draft->base = NULL;
}

static void
take_rest(const request *req, struct pshm_draft *draft, handle_body *body)
{
    body->fd->fd = draft->fd;
    draft->fd = -1;
    body->id = draft->id;
    body->max_size = req->max_size;
    body->created = true;
    body->anonymous = req->spec.kind == PSHM_MEMFD;
    body->track = req->track;
    if (req->spec.name != NULL) {
        body->path = *req->spec.name;
    }
}

static int
call_init(const request *req, handle_body *body)
{
    PyObject *view = PyMemoryView_FromObject((PyObject *)body->map);
    if (view == NULL) {
        return -1;
    }
    PyObject *result = PyObject_CallOneArg(req->init, view);
    Py_DECREF(view);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Take back a finalizer's duty: there is nothing to remove. */
static void
cancel_finalizer(PyObject *finalizer)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *info = PyObject_CallMethod(finalizer, "detach", NULL);
    if (info == NULL) {
        PyErr_Clear();
    }
    Py_XDECREF(info);
    PyErr_Restore(type, value, traceback);
}

/* Make the object of req, whose name, if it is to have one, is in
 * req->spec.name.  body has its mapping and fdref already.
 * Returns 0; 1: the name is taken; or -1 with an exception.  Unless it is 0
 * nothing is left of the object. */
static int
make_once(core_state *state, const request *req, handle *self,
          handle_body *body, PyObject **finalizer)
{
    struct pshm_draft draft = PSHM_DRAFT_NONE;
    bool named = req->spec.name != NULL;
    bool staged = req->init != NULL || req->delete;
    int rc;
    if (make_draft(state, req, named && !staged, &draft, &rc) < 0) {
        return -1;
    }
    take_mapping(req, &draft, body);
    bool failed = false;
    if (named && staged) {
        if (req->init != NULL) {
            failed = call_init(req, body) < 0;
        }
        if (!failed && req->delete) {
            *finalizer = handle_delete_later(state, (PyObject *)self,
                                             body->name, draft.id);
            failed = *finalizer == NULL;
        }
        if (!failed) {
            Py_BEGIN_ALLOW_THREADS
            rc = pshm_draft_publish(&draft, req->spec.name, false);
            Py_END_ALLOW_THREADS
        }
    }
    if (!failed && rc == 0) {
        take_rest(req, &draft, body);
        return 0;
    }
    if (*finalizer != NULL) {
        cancel_finalizer(*finalizer);
        Py_CLEAR(*finalizer);
    }
    Py_BEGIN_ALLOW_THREADS
    pshm_draft_abandon(&draft);
    Py_END_ALLOW_THREADS
    if (failed) {
        return -1;
    }
    if (rc != -EEXIST) {
        raise_no_memory(rc, req->name, -1, req->spec.size);
        return -1;
    }
    return 1;
}

static int
set_name(handle_body *body, const struct pshm_name *path)
{
    PyObject *name = PyUnicode_FromString(pshm_name_plain(path));
    Py_XSETREF(body->name, name);
    return name == NULL ? -1 : 0;
}

static int
prepare(core_state *state, handle_body *body)
{
    *body = HANDLE_BODY_NONE;
    body->map = mapping_new(state);
    if (body->map == NULL) {
        return -1;
    }
    body->fd = fdref_new();
    if (body->fd == NULL) {
        handle_body_drop(body);
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* exist_ok: 0 with body attached; 1: there is none; -1 with an exception. */
static int
attach_existing(core_state *state, const request *req, handle_body *body)
{
    mode_t mode;
    int rc;
    do {
        rc = handle_attach(state, req->spec.name, false, req->max_size, body,
                           &mode);
    } while (try_again(rc));
    if (rc == -ENOENT) {
        return 1;
    }
    if (rc < 0) {
        raise_attach(rc == -ERANGE ? -EEXIST : rc, req->name, mode);
        return -1;
    }
    Py_ssize_t size = mapping_size(body->map);
    if (size < req->size) {
        raise_errno_words(-EEXIST, req->name,
                          "The object exists, but has %zd bytes where %zd "
                          "are asked for", size, req->size);
        handle_body_drop(body);
        return -1;
    }
    body->track = req->track;
    if (set_name(body, req->spec.name) < 0) {
        handle_body_drop(body);
        return -1;
    }
    return 0;
}

/* Fill body with what req asks for, under a name that it may choose itself.
 * Returns 0 or -1. */
static int
make_body(core_state *state, request *req, handle *self, handle_body *body,
          PyObject **finalizer)
{
    bool fresh_name = req->spec.kind == PSHM_NAMED && req->name == NULL;
    int rc = 1;
    while (rc == 1) {
        if (fresh_name) {
            int random = pshm_name_random(&req->path);
            if (random < 0) {
                raise_errno(random, NULL);
                return -1;
            }
        }
        if (req->exist_ok) {
            rc = attach_existing(state, req, body);
            if (rc <= 0) {
                return rc;
            }
        }
        if (prepare(state, body) < 0) {
            return -1;
        }
        if (req->spec.name != NULL && set_name(body, req->spec.name) < 0) {
            handle_body_drop(body);
            return -1;
        }
        rc = make_once(state, req, self, body, finalizer);
        if (rc != 0) {
            handle_body_drop(body);
        }
        if (rc == 1 && !fresh_name && !req->exist_ok) {
            raise_errno(-EEXIST, req->name);
            return -1;
        }
        if (rc == 1 && PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
    return rc;
}

/* After the name was linked: take it back. */
static int
unmake(handle_body *body)
{
    Py_BEGIN_ALLOW_THREADS
    (void)pshm_link_remove(&body->path, body->id);
    Py_END_ALLOW_THREADS
    handle_body_drop(body);
    return -1;
}

static int
fulfil(core_state *state, request *req, handle *self)
{
    handle_body body = HANDLE_BODY_NONE;
    PyObject *finalizer = NULL, *old = NULL;
    if (make_body(state, req, self, &body, &finalizer) < 0) {
        return -1;
    }
    if (req->track && body.created
        && handle_track(body.name, "register") < 0) {
        return unmake(&body);
    }
    bool linked = body.created && body.name != NULL;
    struct pshm_name path = body.path;
    struct pshm_identity id = body.id;
    if (handle_install(self, &body, &old) < 0) {
        if (linked) {
            (void)pshm_link_remove(&path, id);
        }
        Py_XDECREF(finalizer);
        return -1;
    }
    Py_BEGIN_CRITICAL_SECTION(self);
    self->finalizer = finalizer;
    Py_END_CRITICAL_SECTION();
    return handle_finish(old);
}

/* ---- Arguments ---- */

static void
request_init(request *req, enum pshm_kind kind)
{
    *req = (request){
        .spec = {
            .kind = kind,
            .mode = S_IRUSR | S_IWUSR,
            .uid = (uid_t)-1,
            .gid = (gid_t)-1,
            .reserve = true,
        },
    };
}

/* size; and max_size, reserve, populate, huge_pages from values[0] on. */
static int
parse_memory(request *req, PyObject *size, PyObject **values)
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
    req->spec.size = req->size;
    req->spec.length = (size_t)(req->max_size > 0 ? req->max_size : req->size);
    return 0;
}

/* mode, uid, gid from values[0] on. */
static int
parse_owner(request *req, PyObject **values)
{
    return arg_mode(values[0], &req->spec.mode) < 0
           || arg_id(values[1], "uid", &req->spec.uid) < 0
           || arg_id(values[2], "gid", &req->spec.gid) < 0 ? -1 : 0;
}

static int
parse_name(request *req, PyObject *name)
{
    req->spec.name = &req->path;
    if (name == Py_None) {
        return 0;
    }
    req->name = name;
    return arg_name(name, &req->path);
}

static PyObject *
make_handle(core_state *state, PyObject *type, request *req)
{
    handle *self = handle_alloc(state, type);
    if (self != NULL && fulfil(state, req, self) < 0) {
        Py_CLEAR(self);
    }
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
    "the process's own: " MAN(fchmod, 2) ", " MAN(fchown, 2) ".\n"

const char handle_create_doc[] =
    "create($type, /, name, size, *, mode=0o600, uid=None, gid=None,\n"
    "       max_size=None, reserve=True, populate=False, huge_pages=False,\n"
    "       init=None, exist_ok=False, delete=False, track=False)\n--\n\n"
    "Make an object, and only when it is complete give it its name.\n\n"
    "name: a str, see " MAN(shm_open, 3) "; None: a fresh one.\n"
    MEMORY_DOC OWNER_DOC
    "init: called with a writable memoryview of all bytes before anyone else\n"
    "can see them; if it raises, there is no object.  exist_ok: attach to an\n"
    "object of that name, if it has at least size bytes; see .created.\n"
    "delete: this process removes the name when the handle is closed or\n"
    "goes, or the interpreter ends.  track: the standard library's resource\n"
    "tracker does when this process and those it started have ended.\n\n"
    "Raises FileExistsError; ValueError for a bad name or size; OSError:\n"
    "ENOSPC (it says how many bytes are free), EFBIG (RLIMIT_FSIZE), ENOMEM,\n"
    "EMFILE, EPERM; and what init raises.";

PyObject *
handle_create(PyObject *type, PyObject *const *args, Py_ssize_t count,
              PyObject *kwnames)
{
    static const char *const names[] = {
        "name", "size", "mode", "uid", "gid", "max_size", "reserve",
        "populate", "huge_pages", "init", "exist_ok", "delete", "track",
        NULL};
    static const struct signature signature = {"create", 2, 2, names};
    PyObject *values[13];
    request req;
    request_init(&req, PSHM_NAMED);
    if (args_match(&signature, args, count, kwnames, values) < 0
        || parse_name(&req, values[0]) < 0
        || parse_memory(&req, values[1], values + 5) < 0
        || parse_owner(&req, values + 2) < 0
        || arg_bool(values[10], &req.exist_ok) < 0
        || arg_bool(values[11], &req.delete) < 0
        || arg_bool(values[12], &req.track) < 0) {
        return NULL;
    }
    if (values[9] != NULL && values[9] != Py_None) {
        if (!PyCallable_Check(values[9])) {
            return PyErr_Format(PyExc_TypeError,
                                "init must be callable, not %.200s",
                                Py_TYPE(values[9])->tp_name);
        }
        req.init = values[9];
    }
    if (req.name == NULL && req.exist_ok) {
        PyErr_SetString(PyExc_ValueError,
                        "exist_ok needs a name that can exist");
        return NULL;
    }
    return make_handle(core_state_of_type((PyTypeObject *)type), type, &req);
}

const char handle_unnamed_doc[] =
    "unnamed($type, /, size, *, mode=0o600, uid=None, gid=None,\n"
    "        max_size=None, reserve=True, populate=False, huge_pages=False)\n"
    "--\n\n"
    "Make an object without a name, which link() can give it later.\n\n"
    MEMORY_DOC OWNER_DOC
    "Without a link it leaves nothing behind.  See " MAN(open, 2) ", O_TMPFILE.\n"
    "\n"
    "Raises as create() does; OSError (EOPNOTSUPP) where the file system\n"
    "cannot make such objects.";

PyObject *
handle_unnamed(PyObject *type, PyObject *const *args, Py_ssize_t count,
               PyObject *kwnames)
{
    static const char *const names[] = {
        "size", "mode", "uid", "gid", "max_size", "reserve", "populate",
        "huge_pages", NULL};
    static const struct signature signature = {"unnamed", 1, 1, names};
    core_state *state = core_state_of_type((PyTypeObject *)type);
    PyObject *values[8];
    request req;
    request_init(&req, PSHM_UNNAMED);
    if (args_match(&signature, args, count, kwnames, values) < 0
        || parse_memory(&req, values[0], values + 4) < 0
        || parse_owner(&req, values + 1) < 0
        || handle_make_passable(state, type) < 0) {
        return NULL;
    }
    return make_handle(state, type, &req);
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
parse_label(request *req, PyObject *value)
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
    request req;
    request_init(&req, PSHM_MEMFD);
    req.spec.label = "posixshm";
    if (args_match(&signature, args, count, kwnames, values) < 0
        || parse_memory(&req, values[0], values + 2) < 0) {
        return NULL;
    }
    if ((values[1] != NULL && parse_label(&req, values[1]) < 0)
        || handle_make_passable(state, type) < 0) {
        return NULL;
    }
    return make_handle(state, type, &req);
}

int
handle_create_into(core_state *state, handle *self, PyObject *name,
                   PyObject *size, bool track)
{
    static PyObject *const none[4];
    request req;
    request_init(&req, PSHM_NAMED);
    req.track = track;
    return parse_name(&req, name) < 0
           || parse_memory(&req, size, (PyObject **)none) < 0
           || fulfil(state, &req, self) < 0 ? -1 : 0;
}
