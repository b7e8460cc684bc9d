/* Making an object for a handle, or attaching to an existing one. */
#include "core/memory/handle_make.h"

#include "core/audit.h"
#include "core/errors.h"
#include "core/interrupt.h"
#include "core/memory/taken.h"

#include "posix/clock.h"
#include "posix/constants.h"
#include "posix/host.h"
#include "posix/object/link.h"
#include "posix/object/mark.h"
#include "posix/object/size.h"
#include "posix/object/unused.h"

/* ---- A new object ---- */

/* Without the GIL. */
static int
publish(const create_params *params, struct pshm_new_object *new)
{
    const struct existing *existing = &params->existing;
    if (params->deletion == DELETE_LAST) {
        (void)pshm_mark_set(new->fd);
    }
    bool unused = existing->exist_ok && existing->stale == STALE_REPLACE;
    return existing->replace || unused
               ? pshm_new_object_replace(new, params->spec.name, unused)
               : pshm_new_object_publish(new, params->spec.name);
}

static void
raise_make(core_state *state, int rc, const create_params *params,
           const struct pshm_new_object *new)
{
    if (new->acl_refused) {
        handle_raise_acl(state, rc, params->name, new->id);
    }
    else if (rc == -EINVAL && params->spec.populate) {
        raise_errno_words(rc, params->name,
                          "The kernel cannot populate memory: that needs Linux "
                          "5.14 or later; populate=False works without it");
    }
    else if (rc == -ENOMEM && params->spec.max_size > 0
             && (uint64_t)params->spec.size <= pshm_memory_available()) {
        raise_no_addresses(params->name,
                           (Py_ssize_t)params->spec.max_size);
    }
    else {
        raise_no_memory(rc, params->name, -1, params->spec.size);
    }
}

/* Fill the object with init or fill, and make the finalizer of delete=True.
 * Returns 0 or -1. */
static int
prepare_publish(core_state *state, const create_params *params,
                handle_state *made)
{
    if (params->init != NULL) {
        PyObject *view = PyMemoryView_FromObject((PyObject *)made->map);
        PyObject *result = view == NULL
                               ? NULL : PyObject_CallOneArg(params->init, view);
        Py_XDECREF(view);
        Py_XDECREF(result);
        if (result == NULL) {
            return -1;
        }
    }
    else if (params->fill != NULL
             && params->fill(made->map->base, params->how) < 0) {
        return -1;
    }
    if (params->deletion == DELETE_OWN) {
        made->finalizer = handle_delete_later(state, made->name, made->id,
                                              params->track);
        return made->finalizer == NULL ? -1 : 0;
    }
    return 0;
}

/* Make the object, and publish it if it has a name. *made has an empty map and
 * descriptor. The mapping is counted (region.h) before another thread can find
 * the object. The GIL is released once, unless Python code prepares the object.
 * Returns 0; 1: the name is taken; or -1 with an exception. Unless it is 0, the
 * object is discarded. */
static int
make_object(core_state *state, const create_params *params,
            handle_state *made)
{
    struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
    bool named = params->spec.name != NULL;
    bool prepares = params->init != NULL || params->fill != NULL
                    || params->deletion == DELETE_OWN;
    PyThreadState *released = PyEval_SaveThread();
    const struct pshm_interrupt interrupt = core_interrupt(&released);
    int rc = pshm_new_object_make(&params->spec, &interrupt, &new);
    int publish_rc = 0;
    if (rc == 0) {
        (void)mapping_set(made->map, new.base, new.length,
                          (Py_ssize_t)params->spec.size,
                          PROT_READ | PROT_WRITE, new.id, 0);
        new.base = NULL;
        publish_rc = named && !prepares ? publish(params, &new) : 0;
    }
    PyEval_RestoreThread(released);
    if (rc < 0) {
        raise_make(state, rc, params, &new);
        return -1;
    }
    made->id = new.id;
    if (named && prepares) {
        rc = prepare_publish(state, params, made);
        if (rc == 0) {
            Py_BEGIN_ALLOW_THREADS
            publish_rc = publish(params, &new);
            Py_END_ALLOW_THREADS
        }
    }
    if (rc < 0 || publish_rc < 0) {
        Py_BEGIN_ALLOW_THREADS
        pshm_new_object_discard(&new);
        Py_END_ALLOW_THREADS
        if (rc == 0 && publish_rc != -EEXIST) {
            raise_no_memory(publish_rc, params->name, -1, params->spec.size);
            return -1;
        }
        return rc == 0 ? 1 : -1;
    }
    made->fd->fd = new.fd;
    made->fd->id = new.id;
    made->max_size = (Py_ssize_t)params->spec.max_size;
    made->created = true;
    made->locked = new.locked;
    made->anonymous = params->spec.kind == PSHM_MEMFD;
    made->track = params->track;
    made->last = params->deletion == DELETE_LAST;
    handle_delete_only(made->finalizer, made->name);
    return 0;
}

/* ---- An existing object ---- */

/* Seconds for which exist_ok waits until another program has set the size. */
#define SIZING_TIMEOUT 1.0
#define SIZING_PAUSE 0.0002

/* Returns 0 with *out attached; 1: the name is free; or -1 with an exception.
 */
static int
attach_existing(core_state *state, const create_params *params,
                handle_state *out)
{
    const attach_params attach = {
        .max_size = (Py_ssize_t)params->spec.max_size,
        .accepted = params->accepted,
    };
    const struct pshm_name *path = params->spec.name;
    struct pshm_object object;
    double deadline = pshm_clock() + SIZING_TIMEOUT, pause = SIZING_PAUSE;
    if (audit_open(path, false) < 0) {
        return -1;
    }
    int rc = handle_attach(state, params->name, path, -1, &attach, out,
                           &object);
    while (rc == -ENODATA && pshm_clock() < deadline) {
        if (handle_pause(deadline, &pause) < 0) {
            return -1;
        }
        rc = handle_attach(state, params->name, path, -1, &attach, out,
                           &object);
    }
    if (rc == -ENOENT) {
        return 1;
    }
    if (rc == -ERANGE) {
        raise_taken(state, params->name, path, "exist_ok",
                    PyUnicode_FromFormat("The object exists, but has more "
                                         "bytes than max_size, %zd",
                                         (Py_ssize_t)params->spec.max_size));
        return -1;
    }
    if (rc < 0) {
        handle_raise_attach(rc, params->name, &attach, &object);
        return -1;
    }
    Py_ssize_t size = mapping_size(out->map);
    if (size < params->spec.size) {
        handle_state_clear(out);
        raise_taken(state, params->name, path, "exist_ok",
                    PyUnicode_FromFormat("The object exists, but has %zd "
                                         "bytes, fewer than size, %zd",
                                         size,
                                         (Py_ssize_t)params->spec.size));
        return -1;
    }
    out->track = params->track;
    if (params->deletion == DELETE_LAST && !out->last) {
        out->last = true;
        (void)pshm_mark_set(out->fd->fd);
    }
    return 0;
}

/* exist_ok: returns 0 with *out attached; 1: make a new object; or -1 with an
 * exception. A new object that replaces an unused one proves once more that no
 * process uses it, when it takes the name. */
static int
use_existing(core_state *state, const create_params *params,
             handle_state *out)
{
    struct pshm_unused old;
    int rc;
    if (params->existing.stale == STALE_ATTACH) {
        return attach_existing(state, params, out);
    }
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_unused_hold(params->spec.name, &old);
        if (rc == 0) {
            pshm_unused_release(&old);
        }
        Py_END_ALLOW_THREADS
    } while (try_again(rc));
    if (rc < 0) {
        return rc == -EINTR    ? -1
               : rc == -ENOENT ? 1
                               : attach_existing(state, params, out);
    }
    if (!pshm_owners_accept(&params->accepted.owners, old.uid)) {
        raise_owner(params->name, old.uid, &params->accepted.owners);
        return -1;
    }
    if (params->existing.stale == STALE_ERROR) {
        raise_name_taken(state, params->name, params->spec.name,
                         "stale");
        return -1;
    }
    return 1;
}

/* ---- Either ---- */

/* Returns 0, or -1 if a filter turns the warning into an exception. */
static int
warn_of_huge_pages(core_state *state, const create_params *params)
{
    if (!params->spec.huge_pages) {
        return 0;
    }
    PyObject *result = PyObject_CallMethod(
        state->support, "warn_of_huge_pages", "O",
        params->spec.kind == PSHM_MEMFD ? Py_True : Py_False);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Returns 0; 1: try again, because another process took or removed the name; or
 * -1 with an exception. */
static int
make_or_attach(core_state *state, create_params *params, handle_state *out)
{
    bool random_name = params->spec.kind == PSHM_NAMED && params->name == NULL;
    int rc = random_name ? pshm_name_random(&params->path) : 0;
    if (rc < 0) {
        raise_errno(rc, NULL);
        return -1;
    }
    if (params->existing.exist_ok) {
        rc = use_existing(state, params, out);
        if (rc <= 0) {
            return rc;
        }
    }
    if (warn_of_huge_pages(state, params) < 0
        || audit_create(params->spec.name, (Py_ssize_t)params->spec.size) < 0) {
        return -1;
    }
    if (handle_prepare(state, out) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    if (params->spec.name != NULL) {
        out->name = handle_name_of(params->spec.name, params->name);
        if (out->name == NULL) {
            handle_state_clear(out);
            return -1;
        }
    }
    rc = make_object(state, params, out);
    if (rc != 0) {
        handle_state_clear(out);
    }
    if (rc == 1 && !random_name && !params->existing.exist_ok) {
        raise_name_taken(state, params->name, params->spec.name,
                         params->dropin ? "constructor" : "create");
        return -1;
    }
    return rc == 1 && PyErr_CheckSignals() < 0 ? -1 : rc;
}

/* Remove the name of an object that was published, with an exception set. */
static void
undo(core_state *state, const create_params *params, struct pshm_identity id,
     PyObject *name)
{
    Py_BEGIN_ALLOW_THREADS
    (void)pshm_link_remove(params->spec.name, id);
    Py_END_ALLOW_THREADS
    if (params->track) {
        handle_untrack(state->support, name);
    }
}

/* Register a published object, and let a signal handler raise before the handle
 * has the object, so that only the object must be undone. */
static int
finish(core_state *state, const create_params *params, PyObject *name)
{
    int rc = params->track ? handle_track(state->support, name, "register")
                           : 0;
    return rc < 0 ? -1 : PyErr_CheckSignals();
}

static bool
has_proc(core_state *state)
{
    int proc = atomic_load_explicit(&state->proc, memory_order_relaxed);
    if (proc == 0) {
        proc = pshm_has_proc() ? 1 : -1;
        atomic_store_explicit(&state->proc, proc, memory_order_relaxed);
    }
    return proc > 0;
}

int
handle_make_into(core_state *state, create_params *params,
                 SharedMemoryObject *self)
{
    handle_state made = HANDLE_STATE_NONE;
    int rc;
    params->spec.temporary = !has_proc(state);
    do {
        rc = make_or_attach(state, params, &made);
    } while (rc == 1);
    if (rc < 0) {
        return -1;
    }
    bool published = made.created && made.name != NULL;
    PyObject *name = Py_XNewRef(made.name);
    struct pshm_identity id = made.id;
    rc = published ? finish(state, params, name) : 0;
    if (rc < 0) {
        handle_state_clear(&made);
    }
    else {
        rc = handle_install(self, &made);
    }
    if (rc < 0 && published) {
        undo(state, params, id, name);
    }
    Py_XDECREF(name);
    return rc == 0 ? 0 : -1;
}
