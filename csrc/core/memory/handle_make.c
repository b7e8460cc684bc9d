/* From a request to an object in a handle. */
#include "core/memory/handle_make.h"

#include "core/audit.h"
#include "core/errors.h"
#include "core/interrupt.h"
#include "core/memory/taken.h"

#include "posix/constants.h"
#include "posix/object/link.h"
#include "posix/object/mark.h"
#include "posix/clock.h"
#include "posix/object/size.h"
#include "posix/object/unused.h"

/* Give the object its name.  Without the GIL. */
static int
publish_new_object(const create_params *req, struct pshm_new_object *new)
{
    const struct existing *existing = &req->existing;
    if (req->deletion == DELETE_LAST) {
        (void)pshm_mark_set(new->fd);
    }
    bool unused = existing->exist_ok && existing->stale == STALE_REPLACE;
    return existing->replace || unused
               ? pshm_new_object_replace(new, req->spec.name, unused)
               : pshm_new_object_publish(new, req->spec.name);
}

/* Make the object and give its mapping to state; and if publish, give it its name
 * too, with what became of that in *publish_rc.  The mapping is counted before
 * other threads can find the object.  Returns 0, or -1 with an exception and the
 * object discarded. */
static int
make_new_object(core_state *state, const create_params *req, bool publish,
                struct pshm_new_object *new, handle_state *body,
                int *publish_rc)
{
    *publish_rc = 0;
    PyThreadState *released = PyEval_SaveThread();
    const struct pshm_interrupt interrupt = core_interrupt(&released);
    int rc = pshm_new_object_make(&req->spec, &interrupt, new);
    if (rc == 0) {
        (void)mapping_set(body->map, new->base, new->length, req->size,
                          PROT_READ | PROT_WRITE, new->id, 0);
        new->base = NULL;
        if (publish) {
            *publish_rc = publish_new_object(req, new);
        }
    }
    PyEval_RestoreThread(released);
    if (rc < 0) {
        if (new->acl_refused) {
            handle_raise_acl(state, rc, req->name, new->id);
        }
        else if (rc == -EINVAL && req->spec.populate) {
            raise_errno_words(rc, req->name,
                              "The kernel cannot populate memory: it needs "
                              "Linux 5.14 or later (populate=False)");
        }
        else if (rc == -ENOMEM && req->max_size > 0
            && (uint64_t)req->size <= pshm_memory_available()) {
            raise_no_addresses(req->name, req->max_size);
        }
        else {
            raise_no_memory(rc, req->name, -1, req->spec.size);
        }
        return -1;
    }
    return 0;
}

static void
take_rest(const create_params *req, struct pshm_new_object *new,
          handle_state *body)
{
    body->fd->fd = new->fd;
    body->fd->id = new->id;
    new->fd = -1;
    body->id = new->id;
    body->max_size = req->max_size;
    body->created = true;
    body->locked = new->locked;
    body->anonymous = req->spec.kind == PSHM_MEMFD;
    body->track = req->track;
    body->last = req->deletion == DELETE_LAST;
    if (req->spec.name != NULL) {
        body->path = *req->spec.name;
    }
}

static int
call_init(const create_params *req, handle_state *body)
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

/* Make the object of req, whose name, if it is to have one, is in
 * req->spec.name.  body has its mapping and fdref already.
 * Returns 0; 1: the name is taken; or -1 with an exception.  Unless it is 0
 * nothing is left of the object. */
static int
make_once(core_state *state, const create_params *req, SharedMemoryObject *self,
          handle_state *body, PyObject **duty)
{
    struct pshm_new_object new = PSHM_NEW_OBJECT_NONE;
    bool named = req->spec.name != NULL;
    bool staged = req->init != NULL || req->fill != NULL
                  || req->deletion == DELETE_OWN;
    int rc;
    if (make_new_object(state, req, named && !staged, &new, body, &rc) < 0) {
        return -1;
    }
    bool failed = false;
    if (named && staged) {
        if (req->init != NULL) {
            failed = call_init(req, body) < 0;
        }
        else if (req->fill != NULL) {
            failed = req->fill(body->map->base, req->how) < 0;
        }
        if (!failed && req->deletion == DELETE_OWN) {
            *duty = handle_delete_later(state, (PyObject *)self,
                                        req->spec.name, new.id, req->track);
            failed = *duty == NULL;
        }
        if (!failed) {
            Py_BEGIN_ALLOW_THREADS
            rc = publish_new_object(req, &new);
            Py_END_ALLOW_THREADS
        }
    }
    if (!failed && rc == 0) {
        take_rest(req, &new, body);
        return 0;
    }
    handle_delete_cancel(*duty);
    *duty = NULL;
    Py_BEGIN_ALLOW_THREADS
    pshm_new_object_discard(&new);
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
set_name(handle_state *body, const struct pshm_name *path)
{
    PyObject *name = PyUnicode_FromString(pshm_name_plain(path));
    Py_XSETREF(body->name, name);
    return name == NULL ? -1 : 0;
}

static int
prepare(core_state *state, handle_state *body)
{
    *body = HANDLE_STATE_NONE;
    body->map = mapping_new(state);
    if (body->map == NULL) {
        return -1;
    }
    body->fd = fdref_new();
    if (body->fd == NULL) {
        handle_state_clear(body);
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* Seconds. */
#define SIZING_MOST 1.0
#define SIZING_PAUSE 0.0002

/* exist_ok: 0 with body attached; 1: there is none; -1 with an exception. */
static int
attach_existing(core_state *state, const create_params *req, handle_state *body)
{
    const attach_params params = {
        .max_size = req->max_size,
        .accepted = req->accepted,
    };
    struct pshm_object object;
    int rc;
    /* A program that does not use this library may be about to size it. */
    double deadline = pshm_clock() + SIZING_MOST, pause = SIZING_PAUSE;
    if (audit_open(req->spec.name, false) < 0) {
        return -1;
    }
    do {
        rc = handle_attach(state, req->spec.name, &params, body, &object);
        if (rc == -ENODATA && pshm_clock() < deadline) {
            if (handle_pause(deadline, &pause) < 0) {
                return -1;
            }
            rc = -EINTR;
        }
    } while (try_again(rc));
    if (rc == -ENOENT) {
        return 1;
    }
    if (rc == -ERANGE) {
        raise_taken(req->name, req->spec.name, TAKEN_ATTACHING,
                    PyUnicode_FromFormat("The object exists, but has more "
                                         "bytes than max_size, %zd",
                                         req->max_size));
        return -1;
    }
    if (rc < 0) {
        handle_raise_attach(rc, req->name, &params, &object);
        return -1;
    }
    Py_ssize_t size = mapping_size(body->map);
    if (size < req->size) {
        handle_state_clear(body);
        raise_taken(req->name, req->spec.name, TAKEN_ATTACHING,
                    PyUnicode_FromFormat("The object exists, but has %zd "
                                         "bytes where %zd are asked for",
                                         size, req->size));
        return -1;
    }
    body->track = req->track;
    if (req->deletion == DELETE_LAST && !body->last) {
        body->last = true;
        (void)pshm_mark_set(body->fd->fd);
    }
    if (set_name(body, req->spec.name) < 0) {
        handle_state_clear(body);
        return -1;
    }
    return 0;
}

/* exist_ok: 0 with body attached; 1: a new object is to be made; -1 with an
 * exception.  That no process uses the object is proved once more when the new
 * one gets the name. */
static int
use_existing(core_state *state, const create_params *req, handle_state *body)
{
    struct pshm_unused old;
    int rc;
    if (req->existing.stale == STALE_ATTACH) {
        return attach_existing(state, req, body);
    }
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_unused_hold(req->spec.name, &old);
        if (rc == 0) {
            pshm_unused_release(&old);
        }
        Py_END_ALLOW_THREADS
    } while (try_again(rc));
    if (rc == -EINTR) {
        return -1;
    }
    if (rc < 0) {
        return rc == -ENOENT ? 1 : attach_existing(state, req, body);
    }
    if (!pshm_owners_accept(&req->accepted.owners, old.uid)) {
        raise_owner(req->name, old.uid, &req->accepted.owners);
        return -1;
    }
    if (req->existing.stale == STALE_ERROR) {
        raise_name_taken(req->name, req->spec.name, TAKEN_STALE);
        return -1;
    }
    return 1;
}

/* Fill body with what req asks for, under a name that it may choose itself.
 * Returns 0 or -1. */
static int
make_body(core_state *state, create_params *req, SharedMemoryObject *self,
          handle_state *body, PyObject **duty)
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
        if (req->existing.exist_ok) {
            rc = use_existing(state, req, body);
            if (rc <= 0) {
                return rc;
            }
        }
        if (audit_create(req->spec.name, req->size) < 0
            || prepare(state, body) < 0) {
            return -1;
        }
        if (req->spec.name != NULL && set_name(body, req->spec.name) < 0) {
            handle_state_clear(body);
            return -1;
        }
        req->spec.temporary = !state->has_proc;
        rc = make_once(state, req, self, body, duty);
        if (rc != 0) {
            handle_state_clear(body);
        }
        if (rc == 1 && !fresh_name && !req->existing.exist_ok) {
            raise_name_taken(req->name, req->spec.name,
                             req->dropin ? TAKEN_DROPIN : TAKEN_MAKING);
            return -1;
        }
        if (rc == 1 && PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
    return rc;
}

/* After the name was linked: take it back, with an exception set. */
static void
unmake(core_state *state, const create_params *req, struct pshm_identity id,
       PyObject *name, PyObject *duty)
{
    Py_BEGIN_ALLOW_THREADS
    (void)pshm_link_remove(req->spec.name, id);
    Py_END_ALLOW_THREADS
    handle_delete_cancel(duty);
    if (req->track) {
        handle_untrack(state->support, name);
    }
}

/* A signal handler that raises, now that the name is there: before the handle
 * has the object, so that nothing but the object is to be undone. */
static int
finish_linked(core_state *state, const create_params *req, PyObject *name)
{
    int rc = req->track ? handle_track(state->support, name, "register") : 0;
    return rc < 0 ? -1 : PyErr_CheckSignals();
}

int
handle_fulfil(core_state *state, create_params *req, SharedMemoryObject *self)
{
    handle_state body = HANDLE_STATE_NONE;
    PyObject *duty = NULL, *old = NULL;
    if (make_body(state, req, self, &body, &duty) < 0) {
        return -1;
    }
    bool linked = body.created && body.name != NULL;
    PyObject *name = Py_XNewRef(body.name);
    struct pshm_identity id = body.id;
    int rc = linked ? finish_linked(state, req, name) : 0;
    if (rc < 0) {
        handle_state_clear(&body);
    }
    else {
        rc = handle_install(self, &body, &old);
    }
    if (rc < 0 && linked) {
        unmake(state, req, id, name, duty);
    }
    Py_XDECREF(name);
    if (rc < 0) {
        return -1;
    }
    fields_lock(&self->fields);
    self->duty = duty;
    fields_unlock(&self->fields);
    return handle_delete_now(old);
}
