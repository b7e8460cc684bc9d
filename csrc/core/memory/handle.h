/* SharedMemory: a descriptor, a name and a mapping.
 *
 * Every field of a handle is read and written under the lock of its fields.  A
 * call takes what it needs out (a reference to the descriptor, to the mapping),
 * and then works without that lock, and mostly without the GIL: close() in
 * another thread takes nothing from under it. */
#ifndef CORE_HANDLE_H
#define CORE_HANDLE_H

#include "core/core.h"
#include "core/memory/fdref.h"
#include "core/fields.h"
#include "core/memory/mapping.h"

#include "posix/object/attach.h"
#include "posix/object/name.h"

/* What a handle is about: made whole, then put into the handle in one go. */
typedef struct {
    struct fdref *fd;                   /* NULL after close_fd */
    MemoryMapObject *map;
    PyObject *name;                     /* str without slash, or NULL */
    struct pshm_name path;              /* valid where name is */
    struct pshm_identity id;
    Py_ssize_t max_size;                /* bytes reserved to grow in; or 0 */
    bool readonly;
    bool created;
    bool anonymous;
    bool track;                         /* by the stdlib's resource tracker */
    bool locked;                        /* it has a use lock: use_lock.h */
    bool last;                          /* the last user removes the name */
} handle_state;

struct handle_table;

typedef struct handle_s {
    PyObject_HEAD
    fields_mutex fields;
    handle_state body;
    bool open;                          /* body.map may be used */
    bool claimed;                       /* by a thread: handle_claim */
    unsigned claimed_in;                /* ... of this process: pshm_forks */
    /* The handle's own buffer was taken.  If a consumer has released it since
     * (mapping.h), it may have kept the address together with a reference to the
     * handle: then the mapping stays for as long as the handle does. */
    bool exported;
    Py_ssize_t size;                    /* bytes, last known */
    PyObject *kept;                     /* earlier mappings, likewise: pairs */
    PyObject *duty;                     /* delete=True: handle_delete.c */
    PyObject *weakrefs;
    /* Its place in a table of handles, or NULL: handle_table.c. */
    _Atomic(struct handle_table *) table;
    struct handle_s *table_next, **table_link;
} SharedMemoryObject;

#define HANDLE_STATE_NONE ((handle_state){0})

static inline SharedMemoryObject *
as_handle(PyObject *op)
{
    return (SharedMemoryObject *)op;
}

/* ---- handle.c ---- */

/* Let go of everything a body has. */
void handle_state_clear(handle_state *body);

/* Put body into self, whatever was there before; owns what body has.
 * *duty: what the caller must then call handle_delete_now with, or NULL.
 * Returns 0, or -1 with body dropped and self as it was. */
int handle_install(SharedMemoryObject *self, handle_state *body,
                   PyObject **duty);

/* What a call needs; each raises ValueError where the handle is closed.
 * New references, or NULL. */
struct fdref *handle_take_fd(SharedMemoryObject *self);
MemoryMapObject *handle_take_map(SharedMemoryObject *self);
int handle_check_open(SharedMemoryObject *self);
void handle_raise_closed(SharedMemoryObject *self);

bool handle_has_name(SharedMemoryObject *self);

/* Did this handle make its object? */
bool handle_was_created(SharedMemoryObject *self);

/* A copy of the name for a message, or NULL if it has none; no exception. */
PyObject *handle_name_object(SharedMemoryObject *self);

/* Whether the bytes cannot be written through it: for good (body.readonly), or
 * as it is protected now. */
bool handle_is_readonly(SharedMemoryObject *self);

/* Bytes now, asking the kernel where the object grows in place; where the
 * handle is closed, the last known.  Returns whether it is open. */
bool handle_current_size(SharedMemoryObject *self, Py_ssize_t *size);

/* One thread at a time changes a handle's name or size.  A flag, for a change
 * is mostly without the GIL; a child that was forked meanwhile ignores it.
 * Returns 0, or -1 with BufferError where another thread has the claim. */
int handle_claim(SharedMemoryObject *self);
void handle_release(SharedMemoryObject *self);

/* Put map in the place of old, if that still is the handle's; owns map.
 * Returns 0, or -1 with map dropped. */
int handle_replace_map(SharedMemoryObject *self, MemoryMapObject *old,
                       MemoryMapObject *map);
void handle_raise_changed(void);

/* Another mapping of the handle's object, on which delete="last" waits too. */
void handle_share_last(SharedMemoryObject *self, MemoryMapObject *map);

int handle_getbuffer(PyObject *op, Py_buffer *view, int flags);
void handle_dealloc(PyObject *op);

/* ---- handle_open.c ---- */

/* Which objects an attach accepts, and how it maps them. */
typedef struct {
    bool readonly;
    Py_ssize_t max_size;                /* bytes to reserve, or 0 */
    bool reserve;                       /* memory for all of it, now */
    struct pshm_accepted accepted;
} attach_params;

/* Attach to path and fill body.  Returns 0 or -errno, without an exception,
 * and may return -EINTR; -ERANGE: larger than max_size.  *object: what
 * pshm_attach saw, for the message. */
int handle_attach(core_state *state, const struct pshm_name *path,
                  const attach_params *params, handle_state *body,
                  struct pshm_object *object);

/* Raise what handle_attach returned. */
PyObject *handle_raise_attach(int rc, PyObject *name,
                              const attach_params *params,
                              const struct pshm_object *object);

/* A new SharedMemory that is attached to path.  given: its name for messages.
 * Returns 0 with *out, -ENOENT without an exception, or -1 with one. */
int handle_attach_new(core_state *state, PyObject *given,
                      const struct pshm_name *path,
                      const struct pshm_accepted *accepted, PyObject **out);

/* Pause for *pause seconds, which is longer each time, but not past the
 * deadline.  Returns 0, or -1 if a signal handler raised. */
int handle_pause(double deadline, double *pause);

/* A new handle of type, or of a subclass, that has no body yet. */
SharedMemoryObject *handle_alloc(core_state *state, PyObject *type);

int handle_tp_init(PyObject *op, PyObject *args, PyObject *kwargs);

/* ---- handle_create.c ---- */

/* As create(name, size, mode=mode, track=track), into a handle that is there.
 * Returns 0 or -1. */
int handle_create_into(core_state *state, SharedMemoryObject *self,
                       PyObject *name, PyObject *size, mode_t mode, bool track,
                       bool reserve);

/* ---- handle_track.c ---- */

/* Tell the standard library's resource tracker; support: the state's.
 * Returns 0 or -1. */
int handle_track(PyObject *support, PyObject *name, const char *function);

/* The same of what was done already: leaves an exception that is set as it is,
 * and sets none. */
void handle_untrack(PyObject *support, PyObject *name);

/* ---- handle_acl.c ---- */

/* Raise what it means that the list of the object id could not be read or set:
 * rc is -errno. */
void handle_raise_acl(core_state *state, int rc, PyObject *name,
                      struct pshm_identity id);

/* ---- handle_delete.c ---- */

/* delete=True: the duty of this process to remove path, if it is that
 * object's, when the handle self goes or the process ends.  Returns it, for
 * the handle to keep, or NULL with an exception. */
PyObject *handle_delete_later(core_state *state, PyObject *self,
                              const struct pshm_name *path,
                              struct pshm_identity id, bool track);

/* Raise the audit event of the name that closing self would remove, if it
 * would remove one.  Returns 0, or -1 with the exception of a hook. */
int handle_delete_audit(SharedMemoryObject *self);

/* Do it at once, unless it is done, without an audit event; owns it, or NULL.
 * Returns 0, or -1 where a signal handler raised. */
int handle_delete_now(PyObject *op);

/* The same of a handle that is on its way out, with an audit event: leaves an
 * exception that is set as it is, and sets none.  The exception of a hook is
 * reported by sys.unraisablehook, and the name stays. */
void handle_delete_last(PyObject *op);

/* Forget it; owns it, or NULL. */
void handle_delete_cancel(PyObject *op);

/* Around a renaming: the duty, or NULL, is about that name as well; and then
 * about that one only.  Where it was done in between, it is done again. */
void handle_delete_also(PyObject *op, const struct pshm_name *path);
void handle_delete_only(PyObject *op, const struct pshm_name *path);

/* ---- handle_pickle.c ---- */

/* Let the picklers of multiprocessing, if that is imported, pass handles
 * without a name.  Returns 0 or -1. */
int handle_register(core_state *state);

/* ---- The methods and attributes, by file ----
 *
 * Each is a function handle_NAME and a text handle_NAME_doc; the type's tables
 * are made from this list (handle_type.c). */

#define HANDLE_CLASS_METHODS(X)                                              \
    X(create) X(anonymous) X(unlinked)                /* handle_create.c */   \
    X(open) X(from_fd)                               /* handle_open.c */

#define HANDLE_KEYWORD_METHODS(X)                                            \
    X(link) X(rename)                                /* handle_names.c */    \
    X(resize)                                        /* handle_resize.c */   \
    X(map) X(view)                                   /* handle_memory.c */   \
    X(advise) X(sync) X(lock_pages) X(unlock_pages) X(populate)              \
    X(chown)                                         /* handle_status.c */   \
    X(getfacl)                                       /* handle_acl.c */

#define HANDLE_PLAIN_METHODS(X)                                              \
    X(close) X(close_fd) X(detach) X(fileno)         /* handle_close.c */    \
    X(unlink) X(is_linked)                           /* handle_names.c */    \
    X(refresh)                                       /* handle_resize.c */   \
    X(stat)                                          /* handle_status.c */

#define HANDLE_ONE_METHODS(X)                                                \
    X(protect)                                       /* handle_memory.c */   \
    X(chmod) X(add_seals)                            /* handle_status.c */   \
    X(setfacl)                                       /* handle_acl.c */

#define HANDLE_ATTRIBUTES(X)                                                 \
    X(buf)                                           /* handle.c */          \
    X(path)                                                                  \
    X(name) X(size) X(readonly)                      /* handle_attributes.c */ \
    X(closed) X(created) X(max_size) X(holds_use_lock)                                         \
    X(resident)                                      /* handle_memory.c */   \
    X(mode) X(uid) X(gid) X(seals)                   /* handle_status.c */

#define DECLARE_DOC(name) extern const char handle_##name##_doc[];
#define DECLARE_KEYWORD(name) \
    PyObject *handle_##name(PyObject *, PyObject *const *, Py_ssize_t, \
                            PyObject *); \
    DECLARE_DOC(name)
#define DECLARE_PLAIN(name) \
    PyObject *handle_##name(PyObject *, PyObject *); \
    DECLARE_DOC(name)
#define DECLARE_ATTRIBUTE(name) \
    PyObject *handle_get_##name(PyObject *, void *); \
    extern const char handle_get_##name##_doc[];

HANDLE_CLASS_METHODS(DECLARE_KEYWORD)
HANDLE_KEYWORD_METHODS(DECLARE_KEYWORD)
HANDLE_PLAIN_METHODS(DECLARE_PLAIN)
HANDLE_ONE_METHODS(DECLARE_PLAIN)
HANDLE_ATTRIBUTES(DECLARE_ATTRIBUTE)
DECLARE_PLAIN(fspath)                                /* handle_names.c */
DECLARE_PLAIN(reduce)                                /* handle_pickle.c */

#endif
