/* SharedMemory: a descriptor, a name and a mapping.
 *
 * Every field of a handle is read and written under the lock of its fields. A
 * method takes what it works with out of the handle, all at once
 * (handle_acquire), and then works without that lock, and mostly without the
 * GIL. So close() in another thread does not disturb it. */
#ifndef CORE_HANDLE_H
#define CORE_HANDLE_H

#include "core/core.h"
#include "core/fields.h"
#include "core/memory/fdref.h"
#include "core/memory/mapping.h"

#include "posix/object/attach.h"
#include "posix/object/name.h"

/* The object of a handle. It is made as a whole, and then put into the handle
 * at once. */
typedef struct {
    struct fdref *fd;                   /* NULL after close_fd() */
    MemoryMapObject *map;
    PyObject *name;                     /* str without a slash, or NULL; its
                                           UTF-8 is cached */
    struct pshm_identity id;
    Py_ssize_t max_size;                /* bytes reserved to grow in, or 0 */
    bool readonly;
    bool created;
    bool anonymous;
    bool track;                         /* with the stdlib's resource tracker */
    bool locked;                        /* has a use lock (use_lock.h) */
    bool last;                          /* the last user removes the name */
    struct finalizer *finalizer;        /* of delete=True: handle_delete.c */
} handle_state;

#define HANDLE_STATE_NONE ((handle_state){0})

struct handle_table;

typedef struct handle_s {
    PyObject_HEAD
    fields_mutex fields;
    handle_state state;
    bool open;                          /* state.map may be used */
    bool claimed;                       /* by a thread that changes it */
    unsigned claimed_in;                /* ... of this process: pshm_forks */
    /* The handle itself was exported as a buffer. A consumer that has released
     * the buffer may use its address for as long as it has a reference to the
     * handle, as numpy.ndarray(buffer=handle) does. So the handle keeps the
     * mapping. */
    bool has_exports;
    Py_ssize_t size;                    /* bytes, last known */
    PyObject *old_maps;                 /* that it keeps: (map, old_maps) */
    PyObject *weakrefs;
    /* The position in a table of handles, or NULL (handle_table.c). */
    _Atomic(struct handle_table *) table;
    struct handle_s *table_next, **table_link;
} SharedMemoryObject;

static inline SharedMemoryObject *
as_handle(PyObject *op)
{
    return (SharedMemoryObject *)op;
}

/* ---- handle.c ---- */

/* The name of a state, as a str: given, if that is a str without a slash of
 * the same name, or else a new one. given may be NULL. Returns a new
 * reference, or NULL with MemoryError. */
PyObject *handle_name_of(const struct pshm_name *path, PyObject *given);

/* The path of the name of a handle. */
struct pshm_name handle_path(PyObject *name);

/* Release everything that state has, and cancel its finalizer. */
void handle_state_clear(handle_state *state);

/* Put state into self, in place of any earlier one, whose finalizer is run;
 * steals what state has. Returns 0; -1 with state released and self unchanged;
 * or 1 if a signal handler raised afterwards. */
int handle_install(SharedMemoryObject *self, handle_state *state);

/* The needs of a method. */
enum {
    HANDLE_FD = 1,                      /* a checked descriptor */
    HANDLE_MAP = 2,
    HANDLE_CLAIM = 4,                   /* to change its name or its size */
};

/* Copy the state of self to *now, with references to the name and to what needs
 * names; the other pointers are NULL. If needs is 0, self may be closed. Until
 * handle_release no other thread can claim a handle that is claimed here.
 * Returns 0; or -1 with ValueError (closed, or no descriptor), OSError (EBADF:
 * the descriptor was closed by other code) or BufferError (claimed). */
int handle_acquire(SharedMemoryObject *self, int needs, handle_state *now);
void handle_release(SharedMemoryObject *self, int needs, handle_state *now);

/* The same for a descriptor or a map alone: a new reference, or NULL. */
struct fdref *handle_take_fd(SharedMemoryObject *self);
MemoryMapObject *handle_take_map(SharedMemoryObject *self);

int handle_check_open(SharedMemoryObject *self);
void handle_raise_closed(SharedMemoryObject *self);

/* A new reference to the name, or NULL without an exception. */
PyObject *handle_name_object(SharedMemoryObject *self);
bool handle_has_name(SharedMemoryObject *self);
bool handle_was_created(SharedMemoryObject *self);

/* Read the size, from the kernel if the object grows in place. Returns whether
 * the handle is open; if not, *size is the last one known. */
bool handle_current_size(SharedMemoryObject *self, Py_ssize_t *size);

/* Put map in place of old; steals map. Returns 0; or -1 with ValueError, and
 * map released, if the handle has another map by now. */
int handle_replace_map(SharedMemoryObject *self, MemoryMapObject *old,
                       MemoryMapObject *map);

int handle_getbuffer(PyObject *op, Py_buffer *view, int flags);
void handle_dealloc(PyObject *op);

/* ---- handle_attach.c ---- */

/* The objects that an attach accepts, and how it maps them. */
typedef struct {
    bool readonly;
    Py_ssize_t max_size;                /* bytes to reserve, or 0 */
    bool reserve;                       /* take all of the memory now */
    struct pshm_accepted accepted;
} attach_params;

/* A state with a map and a descriptor that are empty. Returns 0, or -ENOMEM
 * without an exception. */
int handle_prepare(core_state *state, handle_state *out);

/* Attach to path and fill *out, with the name (given: as for handle_name_of);
 * or if path is NULL, to the object of fd, which belongs to *out then. Returns
 * 0 or -errno without an exception, but -EINTR if a signal handler has raised;
 * -ERANGE: larger than max_size. *object: as it was seen, for the message. */
int handle_attach(core_state *state, PyObject *given,
                  const struct pshm_name *path, int fd,
                  const attach_params *params, handle_state *out,
                  struct pshm_object *object);

/* Raise the error that handle_attach returned. */
PyObject *handle_raise_attach(int rc, PyObject *name,
                              const attach_params *params,
                              const struct pshm_object *object);

/* A new handle of type that is attached to path. given: the name for messages.
 * timeout: seconds to wait for an object that is accepted. Returns NULL with an
 * exception: FileNotFoundError if timeout is 0 and no object has the name. */
PyObject *handle_attach_new(core_state *state, PyObject *type, PyObject *given,
                            const struct pshm_name *path,
                            const attach_params *params, double timeout);

/* Attach into self, as the standard library's constructor does. Returns 0 or
 * -1. */
int handle_attach_into(core_state *state, SharedMemoryObject *self,
                       PyObject *name, bool track);

/* Sleep for *pause seconds, which is doubled for the next time, but not past
 * the deadline. Returns 0, or -1 if a signal handler raised. */
int handle_pause(double deadline, double *pause);

/* A new handle of type, which is SharedMemory or a subclass, without an
 * object. */
SharedMemoryObject *handle_alloc(core_state *state, PyObject *type);

/* Put state into the new handle self. Returns self, or NULL. */
PyObject *handle_finish(SharedMemoryObject *self, handle_state *state);

/* ---- handle_acl.c ---- */

/* Raise the error of reading or setting the access control list of an object.
 */
void handle_raise_acl(core_state *state, int rc, PyObject *name,
                      struct pshm_identity id);

/* ---- handle_delete.c ---- */

/* Call a function of posixshm._track with a name. support: that of the module's
 * state. Returns 0 or -1. */
int handle_track(PyObject *support, PyObject *name, const char *function);

/* Unregister a name. Leaves an exception that is set, and sets none. */
void handle_untrack(PyObject *support, PyObject *name);

/* delete=True: a finalizer, by which this process removes name if it is that of
 * the object id, when its handle is closed or deallocated, or when the process
 * ends. Returns NULL with an exception. */
struct finalizer *handle_delete_later(core_state *state, PyObject *name,
                                      struct pshm_identity id, bool track);

/* The finalizer of self for a call, or NULL. */
struct finalizer *handle_take_finalizer(SharedMemoryObject *self);
void handle_drop_finalizer(struct finalizer *);

/* Raise the audit event of the name that closing self would remove, if any.
 * Returns 0, or -1 with the exception of a hook. */
int handle_delete_audit(SharedMemoryObject *self);

/* The functions below accept NULL, and do nothing. */

/* Run a finalizer, without an audit event; steals it. Returns 0, or -1 if a
 * signal handler raised. */
int handle_delete_now(struct finalizer *);

/* Run the finalizer of a handle that is being deallocated, with an audit event;
 * steals it. Leaves an exception that is set, and sets none: that of a hook is
 * reported by sys.unraisablehook, and the name stays. */
void handle_delete_last(struct finalizer *);

/* Cancel a finalizer; steals it. */
void handle_delete_cancel(struct finalizer *);

/* Around a rename: the finalizer also removes name, and then only name. If it
 * has run in between, it runs again. The second also after a new object got its
 * name, which the process may end before. */
void handle_delete_also(struct finalizer *, PyObject *name);
void handle_delete_only(struct finalizer *, PyObject *name);

/* ---- handle_pickle.c ---- */

/* Let multiprocessing, if it is imported, pickle handles without a name.
 * Returns 0 or -1. */
int handle_register(core_state *state);

/* ---- Methods and attributes ----
 *
 * Each is a function handle_NAME with a docstring handle_NAME_doc, in the file
 * that the comment names. handle_type.c makes the tables of the type. */

#define HANDLE_CLASS_METHODS(X)                                              \
    X(create) X(anonymous) X(unlinked)                /* handle_create.c */   \
    X(open)                                          /* handle_attach.c */   \
    X(from_fd)                                       /* handle_from_fd.c */

#define HANDLE_KEYWORD_METHODS(X)                                            \
    X(link) X(rename)                                /* handle_names.c */    \
    X(resize)                                        /* handle_resize.c */   \
    X(map) X(view)                                   /* handle_memory.c */   \
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
    X(path)                                          /* handle_names.c */    \
    X(name) X(size) X(readonly)                      /* handle_status.c */   \
    X(closed) X(created) X(max_size) X(holds_use_lock)                       \
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
int handle_tp_init(PyObject *op, PyObject *args, PyObject *kwargs);
                                                     /* handle_create.c */

#endif
