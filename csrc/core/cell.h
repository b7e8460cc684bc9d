/* What all primitives have in common: a cell in shared memory.
 *
 * An object of theirs keeps the mapping that its cell lies in, so the address
 * is good for as long as the object lives, whatever happens to the handle. */
#ifndef CORE_CELL_H
#define CORE_CELL_H

#include "args.h"
#include "core.h"
#include "fields.h"
#include "mapping.h"

#include "posix/attach.h"
#include "posix/cell.h"

typedef struct {
    PyObject_HEAD
    mapping *map;                       /* or NULL */
    struct pshm_cell *place;            /* NULL: memory without a header */
    enum pshm_cell_kind kind;
    Py_ssize_t offset;                  /* bytes */
    PyObject *shm;                      /* what it was opened in, or NULL */
    bool own;                           /* shm is its own */
    bool readonly;                      /* the memory; set when it is opened */
    atomic_bool closed;
    PyObject *weakrefs;
} cell;

static inline cell *
as_cell(PyObject *op)
{
    return (cell *)op;
}

/* Where a primitive is to be: the arguments of its constructor or of at(). */
typedef struct {
    PyObject *name;                     /* the constructor's; NULL: None */
    PyObject *shm, *offset;             /* at()'s */
    PyObject **options;                 /* CELL_OPTIONS; of at() the first two */
} placement;

/* The constructor's options, as its array of names has them. */
#define CELL_OPTIONS                                                         \
    "create", "exist_ok", "mode", "owner", "delete", "track", "mode_at_most", \
    "acl", "stale", "replace"
enum {
    CELL_CREATE, CELL_EXIST_OK, CELL_MODE, CELL_OWNER, CELL_DELETE, CELL_TRACK,
    CELL_MODE_AT_MOST, CELL_ACL, CELL_STALE, CELL_REPLACE, CELL_OPTION_COUNT,
};
#define CELL_OPTIONS_SIGNATURE                                               \
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
    struct pshm_cell_spec spec;
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
} opening;

/* Check name and options, and put them into how.  Returns 0 or -1. */
int opening_parse(opening *how, const placement *where);

/* A new object of how->type with its cell as how and where say: at an offset
 * of a SharedMemory or MemoryMap, in an object that has the name, or in an
 * anonymous one.  Until it is complete the collector does not show it to other
 * threads: the caller ends with cell_complete or cell_discard.  NULL with an
 * exception. */
cell *cell_open(opening *how, const placement *where);

/* Returns self, which is complete. */
PyObject *cell_complete(cell *self);

/* Undo cell_open, with an exception set.  Returns NULL. */
PyObject *cell_discard(cell *self);

/* A new object of that type, all zeros, that the collector does not show to
 * others before PyObject_GC_Track.  May be dropped at any time. */
PyObject *cell_alloc(PyTypeObject *type);

/* A SharedMemory of the object called path: attached to; or as how says made,
 * of size bytes, which fill makes of zeros before another process can see
 * them.  given: the name for messages.  NULL with an exception. */
PyObject *cell_open_object(const opening *how, PyObject *given,
                           const struct pshm_name *path, Py_ssize_t size,
                           int (*fill)(void *base, void *arg), void *arg);

/* With an exception set: if that made the object, its name goes again. */
void cell_discard_object(PyObject *shm);

/* The mapping that shm is or has: a new reference, or NULL.  Its protection does
 * not become less.  *readonly: whether it is; NULL: it must not be. */
mapping *cell_take_map(core_state *state, PyObject *shm, const char *what,
                       bool *readonly);

/* Before a use: is it open and nobody has written over its tag?  Returns 0, or
 * -1 with ValueError or OSError (EBADMSG). */
int cell_refuse(cell *self);            /* the slow half */

static inline int
cell_check(cell *self)
{
    return !atomic_load_explicit(&self->closed, memory_order_relaxed)
           && (self->place == NULL
               || pshm_cell_intact(self->place, self->kind))
               ? 0 : cell_refuse(self);
}

/* Before a use that writes: also PermissionError. */
static inline int
cell_check_writable(cell *self)
{
    return self->readonly ? cell_refuse(self) : cell_check(self);
}

/* Raise what a use returned: -EBADMSG, or -errno.  Returns -1. */
int cell_raise(cell *self, int rc);

/* The same in words of our own, in which "%U" is cell_describe().  Returns
 * -1. */
int cell_raise_words(cell *self, int rc, const char *format);

/* Which primitive it is, as repr() says it: "Lock 'jobs'", "Lock at offset
 * 64".  A new str, or NULL. */
PyObject *cell_describe(cell *self);

/* Slots.  A type with fields of its own calls these from its slots. */
int cell_traverse(cell *self, visitproc visit, void *arg);
int cell_clear(cell *self);
void cell_end(cell *self);              /* first of all: nobody finds it now */
void cell_free(cell *self);             /* last of all */

/* repr(): <posixshm.Lock 'jobs': state>.  Owns state, a str, or NULL with an
 * exception; "closed" takes its place. */
PyObject *cell_repr(PyObject *op, PyObject *state);

/* (opener, (type, shm, offset, own, options)): pickling by reference.
 * Owns options, a dict, or NULL. */
PyObject *cell_reduce(cell *self, PyObject *options);
extern PyMethodDef cell_functions[];    /* the opener */

/* Methods and attributes of all. */
PyObject *cell_close(PyObject *op, PyObject *unused);
PyObject *cell_unlink(PyObject *op, PyObject *unused);
PyObject *cell_stat(PyObject *op, PyObject *unused);
PyObject *cell_get_name(PyObject *op, void *closure);
PyObject *cell_get_offset(PyObject *op, void *closure);
PyObject *cell_get_closed(PyObject *op, void *closure);
PyObject *cell_get_shm(PyObject *op, void *closure);
PyObject *cell_get_uid(PyObject *op, void *closure);
extern const char cell_close_doc[], cell_unlink_doc[], cell_stat_doc[],
    cell_name_doc[], cell_offset_doc[], cell_closed_doc[], cell_shm_doc[],
    cell_uid_doc[], cell_reduce_doc[];

#define CELL_CAST(function) (PyCFunction)(void (*)(void))(function)

#define CELL_METHODS                                                         \
    {"close", cell_close, METH_NOARGS, cell_close_doc},                      \
    {"unlink", cell_unlink, METH_NOARGS, cell_unlink_doc},                   \
    {"stat", cell_stat, METH_NOARGS, cell_stat_doc}

#define CELL_GETSET                                                          \
    {"name", cell_get_name, NULL, cell_name_doc, NULL},                      \
    {"offset", cell_get_offset, NULL, cell_offset_doc, NULL},                \
    {"closed", cell_get_closed, NULL, cell_closed_doc, NULL},                \
    {"shm", cell_get_shm, NULL, cell_shm_doc, NULL},                         \
    {"uid", cell_get_uid, NULL, cell_uid_doc, NULL}

#define CELL_MEMBERS(type)                                                   \
    {"__weaklistoffset__", Py_T_PYSSIZET, offsetof(type, base.weakrefs),     \
     Py_READONLY, NULL}

#define CELL_DOC_AT                                                          \
    "shm: a SharedMemory or MemoryMap that can be written.  offset: bytes, a\n"\
    "multiple of .alignment; it takes .nbytes bytes.  create: make it, of\n" \
    "bytes that are all zero; exist_ok: or open the one that is there.\n"
#define CELL_DOC_READS                                                       \
    "In read-only memory it can be read; what writes raises PermissionError.\n"
#define CELL_DOC_NAME                                                        \
    "name: it lies in an object of its own that has this name; None: in an\n"\
    "anonymous one, which is new, for this process and those that get it\n" \
    "through multiprocessing.\n"
#define CELL_DOC_OPTIONS                                                     \
    "create: make it; exist_ok: or open the one that exists.  mode:\n"       \
    "permissions, whatever the umask is.  owner, delete, track, acl,\n"     \
    "mode_at_most, stale and replace: as for SharedMemory.create(); owner and\n"\
    "mode_at_most also without create.\n"
#define CELL_DOC_RAISES                                                      \
    "Raises FileNotFoundError: there is none; FileExistsError; ValueError:\n"\
    "something else is there, or a bad name or offset; PermissionError;\n"   \
    "OSError: EXDEV (made in another PID namespace, see exist_ok), ENOEXEC\n"\
    "(by another C library or word size), ENOSPC, EMFILE.\n"

#define CELL_TYPE_FLAGS                                                      \
    (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE)

/* Add a type to the module, with size and alignment.  Returns it, or NULL. */
PyTypeObject *cell_add_type(PyObject *module, PyType_Spec *spec,
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
