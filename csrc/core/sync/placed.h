/* What all primitives have in common: a cell in shared memory.
 *
 * An object of theirs keeps the mapping that its cell lies in, so the address
 * is good for as long as the object lives, whatever happens to the handle. */
#ifndef CORE_PLACED_H
#define CORE_PLACED_H

#include "core/args.h"
#include "core/core.h"
#include "core/fields.h"
#include "core/memory/mapping.h"

#include "posix/object/attach.h"
#include "posix/sync/primitive.h"

typedef struct {
    PyObject_HEAD
    MemoryMapObject *map;                       /* or NULL */
    struct pshm_primitive *place;            /* NULL: memory without a header */
    enum pshm_primitive_kind kind;
    Py_ssize_t offset;                  /* bytes */
    PyObject *shm;                      /* what it was opened in, or NULL */
    bool own;                           /* shm is its own */
    bool readonly;                      /* the memory; set when it is opened */
    atomic_bool closed;
    PyObject *weakrefs;
} PlacedObject;

static inline PlacedObject *
as_placed(PyObject *op)
{
    return (PlacedObject *)op;
}

/* Where a primitive is to be: the arguments of its constructor or of at(). */
typedef struct {
    PyObject *name;                     /* the constructor's; NULL: None */
    PyObject *shm, *offset;             /* at()'s */
    PyObject **options;                 /* PLACED_OPTIONS; of at() the first two */
} placed_arguments;

/* The constructor's options, as its array of names has them. */
#define PLACED_OPTIONS                                                         \
    "create", "exist_ok", "mode", "owner", "delete", "track", "mode_at_most", \
    "acl", "stale", "replace"
enum {
    PLACED_CREATE,
    PLACED_EXIST_OK,
    PLACED_MODE,
    PLACED_OWNER,
    PLACED_DELETE,
    PLACED_TRACK,
    PLACED_MODE_AT_MOST,
    PLACED_ACL,
    PLACED_STALE,
    PLACED_REPLACE,
    PLACED_OPTION_COUNT,
};
#define PLACED_OPTIONS_SIGNATURE                                               \
    "create=False, exist_ok=False, mode=0o600,\n"                            \
    "    owner='self', delete=False, track=False, mode_at_most=None,\n"       \
    "    acl=None, stale='attach', replace=False"

/* How one is to be opened. */
typedef struct {
    core_state *state;
    PyTypeObject *type;
    const char *what;                   /* "Lock", for messages */
    const char *first;                  /* what the constructor takes after the
                                           name, or NULL; for messages */
    struct pshm_primitive_params spec;
    bool reads;                         /* has methods that only read, so it can
                                           be opened in read-only memory */
    /* Of opening_parse: */
    bool create;
    struct existing existing;
    enum deletion deletion;
    bool track;
    mode_t mode;
    PyObject *acl;                      /* a text, borrowed, or NULL */
    struct pshm_accepted accepted;      /* by exist_ok, or to open */
} placed_params;

/* Check name and options, and put them into how.  Returns 0 or -1. */
int opening_parse(placed_params *how, const placed_arguments *where);

/* A new object of how->type with its cell as how and where say: at an offset
 * of a SharedMemory or MemoryMap, in an object that has the name, or in an
 * anonymous one.  Until it is complete the collector does not show it to other
 * threads: the caller ends with placed_complete or placed_discard.  NULL with an
 * exception. */
PlacedObject *placed_open(placed_params *how, const placed_arguments *where);

/* Returns self, which is complete. */
PyObject *placed_complete(PlacedObject *self);

/* Undo placed_open, with an exception set.  Returns NULL. */
PyObject *placed_discard(PlacedObject *self);

/* A new object of that type, all zeros, that the collector does not show to
 * others before PyObject_GC_Track.  May be dropped at any time. */
PyObject *placed_alloc(PyTypeObject *type);

/* A SharedMemory of the object called path: attached to; or as how says made,
 * of size bytes, which fill makes of zeros before another process can see
 * them.  given: the name for messages.  NULL with an exception. */
PyObject *placed_open_object(const placed_params *how, PyObject *given,
                           const struct pshm_name *path, Py_ssize_t size,
                           int (*fill)(void *base, void *arg), void *arg);

/* With an exception set: if that made the object, its name goes again. */
void placed_discard_object(PyObject *shm);

/* The mapping that shm is or has: a new reference, or NULL.  Its protection does
 * not become less.  *readonly: whether it is; NULL: it must not be. */
MemoryMapObject *placed_take_map(core_state *state, PyObject *shm,
                                 const char *what, bool *readonly);

/* Before a use: is it open and nobody has written over its tag?  Returns 0, or
 * -1 with ValueError or OSError (EBADMSG). */
int placed_refuse(PlacedObject *self);            /* the slow half */

static inline int
placed_check(PlacedObject *self)
{
    return !atomic_load_explicit(&self->closed, memory_order_relaxed)
           && (self->place == NULL
               || pshm_primitive_intact(self->place, self->kind))
               ? 0 : placed_refuse(self);
}

/* Before a use that writes: also PermissionError. */
static inline int
placed_check_writable(PlacedObject *self)
{
    return self->readonly ? placed_refuse(self) : placed_check(self);
}

/* Raise what a use returned: -EBADMSG, or -errno.  Returns -1. */
int placed_raise(PlacedObject *self, int rc);

/* The same in words of our own, in which "%U" is placed_describe().  Returns
 * -1. */
int placed_raise_words(PlacedObject *self, int rc, const char *format);

/* Which primitive it is, as repr() says it: "Lock 'jobs'", "Lock at offset
 * 64".  A new str, or NULL. */
PyObject *placed_describe(PlacedObject *self);

/* Slots.  A type with fields of its own calls these from its slots. */
int placed_traverse(PlacedObject *self, visitproc visit, void *arg);
int placed_clear(PlacedObject *self);
void placed_end(PlacedObject *self);              /* first of all: nobody finds it now */
void placed_free(PlacedObject *self);             /* last of all */

/* repr(): <posixshm.Lock 'jobs': state>.  Owns state, a str, or NULL with an
 * exception; "closed" takes its place. */
PyObject *placed_repr(PyObject *op, PyObject *state);

/* (opener, (type, shm, offset, own, options)): pickling by reference.
 * Owns options, a dict, or NULL. */
PyObject *placed_reduce(PlacedObject *self, PyObject *options);
extern PyMethodDef placed_functions[];    /* the opener */

/* Methods and attributes of all. */
PyObject *placed_close(PyObject *op, PyObject *unused);
PyObject *placed_unlink(PyObject *op, PyObject *unused);
PyObject *placed_stat(PyObject *op, PyObject *unused);
PyObject *placed_get_name(PyObject *op, void *closure);
PyObject *placed_get_offset(PyObject *op, void *closure);
PyObject *placed_get_closed(PyObject *op, void *closure);
PyObject *placed_get_shm(PyObject *op, void *closure);
PyObject *placed_get_uid(PyObject *op, void *closure);
extern const char placed_close_doc[], placed_unlink_doc[], placed_stat_doc[],
    placed_name_doc[], placed_offset_doc[], placed_closed_doc[],
    placed_shm_doc[], placed_uid_doc[], placed_reduce_doc[];

#define PLACED_CAST(function) (PyCFunction)(void (*)(void))(function)

#define PLACED_METHODS                                                         \
    {"close", placed_close, METH_NOARGS, placed_close_doc},                      \
    {"unlink", placed_unlink, METH_NOARGS, placed_unlink_doc},                   \
    {"stat", placed_stat, METH_NOARGS, placed_stat_doc}

#define PLACED_GETSET                                                          \
    {"name", placed_get_name, NULL, placed_name_doc, NULL},                      \
    {"offset", placed_get_offset, NULL, placed_offset_doc, NULL},                \
    {"closed", placed_get_closed, NULL, placed_closed_doc, NULL},                \
    {"shm", placed_get_shm, NULL, placed_shm_doc, NULL},                         \
    {"uid", placed_get_uid, NULL, placed_uid_doc, NULL}

#define PLACED_MEMBERS(type)                                                   \
    {"__weaklistoffset__", Py_T_PYSSIZET, offsetof(type, base.weakrefs),     \
     Py_READONLY, NULL}

#define PLACED_DOC_AT                                                          \
    "shm: a SharedMemory or MemoryMap that can be written.  offset: bytes, a\n"\
    "multiple of .alignment; it takes .nbytes bytes.  create: make it, of\n" \
    "bytes that are all zero; exist_ok: or open the one that is there.\n"
#define PLACED_DOC_READS                                                       \
    "In read-only memory it can be read; what writes raises PermissionError.\n"
#define PLACED_DOC_NAME                                                        \
    "name: it lies in an object of its own that has this name; None: in an\n"\
    "anonymous one, which is new, for this process and those that get it\n" \
    "through multiprocessing.\n"
#define PLACED_DOC_OPTIONS                                                     \
    "create: make it; exist_ok: or open the one that exists.  mode:\n"       \
    "permissions, whatever the umask is.  owner, delete, track, acl,\n"     \
    "mode_at_most, stale and replace: as for SharedMemory.create(); owner and\n"\
    "mode_at_most also without create.\n"
#define PLACED_DOC_RAISES                                                      \
    "Raises FileNotFoundError: there is none; FileExistsError; ValueError:\n"\
    "something else is there, or a bad name or offset; PermissionError;\n"   \
    "OSError: EXDEV (made in another PID namespace, see exist_ok), ENOEXEC\n"\
    "(by another C library or word size), ENOSPC, EMFILE.\n"

#define PLACED_TYPE_FLAGS                                                      \
    (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE)

/* Add a type to the module, with size and alignment.  Returns it, or NULL. */
PyTypeObject *placed_add_type(PyObject *module, PyType_Spec *spec,
                            Py_ssize_t size, Py_ssize_t alignment);

/* Each primitive's file: add its types.  Returns 0 or -1. */
int lock_add_types(PyObject *module, core_state *state);
int semaphore_add_type(PyObject *module, core_state *state);
int condition_add_type(PyObject *module, core_state *state);
int event_add_type(PyObject *module, core_state *state);
int barrier_add_type(PyObject *module, core_state *state);
int rwlock_add_types(PyObject *module, core_state *state);
int atomic_add_type(PyObject *module, core_state *state);

#endif
