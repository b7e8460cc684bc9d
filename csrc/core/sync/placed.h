/* Placed objects: primitives in shared memory, at an offset of a mapping.
 *
 * An object owns a reference to its mapping, so its address is valid until the
 * object is deallocated, also after the SharedMemory was closed.
 *
 * Most primitives have a header (posix/sync/primitive.h) that says what they
 * are. An Atomic is a bare word and a named semaphore is a bare sem_t, so they
 * do not have one.
 *
 * The types are made from one template: each primitive's file describes its
 * type in a struct placed_type and implements its behaviour. */
#ifndef CORE_PLACED_H
#define CORE_PLACED_H

#include "core/args.h"
#include "core/core.h"
#include "core/memory/handle_make.h"

#include "posix/sync/primitive.h"

struct placed_type;

typedef struct {
    PyObject_HEAD
    struct pshm_primitive *primitive;   /* with its header; or NULL */
    enum pshm_primitive_kind kind;      /* of the header */
    bool own;                           /* shm contains nothing else */
    bool readonly;                      /* the memory; does not change */
    atomic_bool closed;
    const struct placed_type *type;
    MemoryMapObject *map;               /* or NULL: not opened yet */
    Py_ssize_t offset;                  /* bytes */
    PyObject *shm;                      /* the SharedMemory or MemoryMap it was
                                           opened in; NULL for the lock that is
                                           a part of a condition */
    PyObject *weakrefs;
} PlacedObject;

/* The parameters of the constructor that all types share; at() has the first
 * two. */
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

/* The most parameters that a type has of its own. */
#define PLACED_OWN_MAX 3

/* A call of a constructor or of at(), or an unpickling. */
typedef struct {
    core_state *state;
    const struct placed_type *type;
    PyObject *shm;                      /* of at(), or NULL */
    PyObject *offset;                   /* of at(), or NULL */
    PyObject *name;                     /* of the constructor; NULL: None */
    PyObject *values[PLACED_OWN_MAX];   /* of the type's own parameters */
    PyObject *options[PLACED_OPTION_COUNT];
    /* Of placed_parse: */
    Py_ssize_t size, alignment;         /* bytes */
    unsigned value;                     /* for init, as the type's parse says */
    bool create;
    bool own;
    create_params object;               /* that contains nothing else */
} placed_params;

/* The file of a named primitive that another interface defines. */
struct placed_file {
    Py_ssize_t size;                    /* bytes */
    /* The file's name. Returns 0, or -1 with an exception. */
    int (*name)(PyObject *given, struct pshm_name *out);
    const char *(*plain)(const char *file);     /* and back */
    int (*init)(void *memory, unsigned value);  /* 0 or -errno */
};

struct placed_type {
    const char *name;                   /* "Lock" */
    const char *doc;
    PyMethodDef *methods;               /* with PLACED_METHODS */
    PyGetSetDef *getset;                /* with PLACED_GETSET */
    Py_ssize_t object_size;             /* of its Python object, bytes */
    size_t references[3];               /* offsets of its PyObject *fields */
    bool keeps_references;              /* until the object is deallocated */
    /* Its contents in shared memory. */
    enum pshm_primitive_kind kind;      /* PSHM_PRIMITIVE_NONE: no header, and
                                           made only by at() */
    Py_ssize_t size, alignment;         /* bytes */
    bool owned;                         /* by threads */
    uint8_t flags;                      /* of the header */
    bool reads;                         /* some methods only read, so that it
                                           can be opened in read-only memory */
    int (*init)(struct pshm_primitive *primitive, const void *value);
    const struct placed_file *file;     /* of a named one, or NULL */
    /* Its own parameters. The constructor takes the first ones by position
     * after the name, and at() those of a type without a header. */
    const char *own[PLACED_OWN_MAX + 1];
    int positional;
    bool none_is_default;               /* None for one of them is as if it was
                                           not given: NULL */
    int (*parse)(placed_params *params);            /* 0 or -1; or NULL */
    /* Set the object's own fields. Returns 0, or -1 with an exception. */
    int (*attach)(PlacedObject *self, const placed_params *params);
    void (*finalize)(PlacedObject *self);           /* or NULL */
    PyObject *(*own_values)(PlacedObject *self);    /* a dict; NULL: empty */
    PyObject *(*state)(PlacedObject *self);         /* a str, for repr() */
};

extern const struct placed_type lock_type, rlock_type, semaphore_type,
    condition_type, event_type, barrier_type, rwlock_type, atomic_type;

static inline PlacedObject *
as_placed(PyObject *op)
{
    return (PlacedObject *)op;
}

/* ---- Opening: placed_open.c, placed_header.c ---- */

/* Check the arguments of a call. Returns 0, or -1 with an exception. */
int placed_parse(placed_params *params);

/* A new object: at an offset of a SharedMemory or MemoryMap, in an object that
 * has the name, or in an anonymous one. NULL with an exception. */
PyObject *placed_open(placed_params *params);

/* The same for the primitive that shm contains. */
PyObject *placed_open_in(const placed_params *params, PyObject *shm);

/* Make the header and payload at self, or check them. position: for messages,
 * a str. Returns 0, or -1 with an exception. */
int placed_open_header(const placed_params *params, PlacedObject *self,
                       PyObject *shm, PyObject *position);

/* Make the header and payload in a new object that no other process can open
 * yet. Returns 0 or -errno; -EINTR with an exception. */
int placed_make_header(const placed_params *params, void *memory);

/* ---- The template: placed_type.c ---- */

/* A new object of the type or of another one with its layout, all zeros, that
 * the collector does not track yet. NULL with an exception. */
PyObject *placed_alloc(PyTypeObject *type);

/* Another thread can find the object from now on. Returns self. */
PyObject *placed_complete(PlacedObject *self);

/* The type of a kind, as a message names it: "a Lock". */
const char *placed_article(const char *type_name);
const char *placed_kind_name(enum pshm_primitive_kind kind);

PyObject *placed_at(PyObject *type, PyObject *const *args, Py_ssize_t count,
                    PyObject *kwnames);
PyObject *placed_reduce(PyObject *op, PyObject *unused);

/* The Python type of a placed type. */
PyTypeObject *placed_python_type(core_state *state,
                                 const struct placed_type *type);

/* Add all types, and what belongs to them. Returns 0 or -1. */
int placed_add_types(PyObject *module, core_state *state);
int recovery_add_type(PyObject *module, core_state *state);
int rwlock_add_context_type(PyObject *module, core_state *state);
extern PyMethodDef semaphore_functions[];       /* sem_unlink */

/* ---- The object: placed.c ---- */

/* Before a use: is it open, and is its header intact? Returns 0, or -1 with
 * ValueError or OSError (EBADMSG). */
int placed_raise_unusable(PlacedObject *self);

static inline int
placed_check(PlacedObject *self)
{
    return !atomic_load_explicit(&self->closed, memory_order_relaxed)
           && (self->primitive == NULL
               || pshm_primitive_intact(self->primitive, self->kind))
               ? 0 : placed_raise_unusable(self);
}

/* Before a use that writes: also PermissionError. */
static inline int
placed_check_writable(PlacedObject *self)
{
    return self->readonly ? placed_raise_unusable(self) : placed_check(self);
}

/* The first byte of the primitive, its payload. */
static inline void *
placed_memory(PlacedObject *self)
{
    return self->map->base + self->offset;
}

/* Raise what a use returned, -errno. Returns -1. */
int placed_raise(PlacedObject *self, int rc);

/* The same with a message in which "%U" is placed_describe(). Returns -1. */
int placed_raise_words(PlacedObject *self, int rc, const char *format);

/* "Lock 'jobs'", "Lock at offset 64" or "Lock without a name": a new str, or
 * NULL. */
PyObject *placed_describe(PlacedObject *self);

/* The name without a slash, or None: a new reference, or NULL. */
PyObject *placed_get_name(PyObject *op, void *closure);

PyObject *placed_close(PyObject *op, PyObject *unused);
PyObject *placed_unlink(PyObject *op, PyObject *unused);
PyObject *placed_stat(PyObject *op, PyObject *unused);
PyObject *placed_get_closed(PyObject *op, void *closure);
PyObject *placed_get_shm(PyObject *op, void *closure);
PyObject *placed_get_uid(PyObject *op, void *closure);

/* ---- Tables and docstrings ---- */

extern const char placed_close_doc[], placed_unlink_doc[], placed_stat_doc[],
    placed_name_doc[], placed_offset_doc[], placed_closed_doc[],
    placed_shm_doc[], placed_uid_doc[], placed_reduce_doc[];

/* The parameters of a method, as args_match takes them. */
#define PARAMETERS(method, positional, required, ...)                         \
    static const struct signature method##_signature = {                      \
        #method, positional, required,                                        \
        (const char *const[]){__VA_ARGS__, NULL}}

/* An entry for type_method(), which has parameters, or for a method that does
 * not have any; the docstring is type_method_doc. */
#define KEYWORD_METHOD(type, method)                                          \
    {#method, (PyCFunction)(void (*)(void))type##_##method,                   \
     METH_FASTCALL | METH_KEYWORDS, type##_##method##_doc}
#define PLAIN_METHOD(type, method)                                            \
    {#method, type##_##method, METH_NOARGS, type##_##method##_doc}
#define WITH_METHODS(type)                                                    \
    {"__enter__", type##_enter, METH_NOARGS, NULL},                           \
    {"__exit__", (PyCFunction)(void (*)(void))type##_exit, METH_FASTCALL, NULL}
#define ATTRIBUTE(type, attribute)                                            \
    {#attribute, type##_get_##attribute, NULL, type##_##attribute##_doc, NULL}

#define PLACED_AT(doc)                                                        \
    {"at", (PyCFunction)(void (*)(void))placed_at,                            \
     METH_CLASS | METH_FASTCALL | METH_KEYWORDS, doc}
#define PLACED_REDUCE                                                         \
    {"__reduce__", placed_reduce, METH_NOARGS, placed_reduce_doc}
#define PLACED_METHODS(at_doc)                                                \
    PLACED_AT(at_doc), PLACED_REDUCE, PLAIN_METHOD(placed, close),            \
    PLAIN_METHOD(placed, unlink), PLAIN_METHOD(placed, stat)
#define PLACED_GETSET                                                         \
    ATTRIBUTE(placed, name), ATTRIBUTE(placed, closed),                       \
    ATTRIBUTE(placed, shm), ATTRIBUTE(placed, uid)

#define PLACED_OPTIONS_SIGNATURE                                              \
    "create=False, exist_ok=False, mode=0o600,\n"                             \
    "    owner='self', delete=False, track=False, mode_at_most=None,\n"       \
    "    acl=None, stale='attach', replace=False"
#define PLACED_DOC_AT                                                         \
    "shm: a SharedMemory or MemoryMap. offset: bytes, a multiple of\n"       \
    ".alignment; the primitive takes .nbytes bytes. create: create it in\n"  \
    "bytes that are all zero; with exist_ok, open it if it exists.\n"
#define PLACED_DOC_READS                                                      \
    "In read-only memory, methods that write raise PermissionError.\n"
#define PLACED_DOC_NAME                                                       \
    "name: the name of a shared memory object of its own; None: a new\n"      \
    "anonymous object, for this process and the processes that receive the\n" \
    "primitive through multiprocessing.\n"
#define PLACED_DOC_OPTIONS                                                    \
    "create: create it; with exist_ok, open it if it exists. mode:\n"        \
    "permissions, regardless of the umask. owner, delete, track, acl,\n"     \
    "mode_at_most, stale and replace: as for SharedMemory.create(); owner\n"  \
    "and mode_at_most also apply without create.\n"
#define PLACED_DOC_RAISES                                                     \
    "Raises FileNotFoundError if it does not exist; FileExistsError;\n"       \
    "ValueError if the memory contains something else, or for a bad name or\n"\
    "offset; PermissionError; OSError: EXDEV (created in another PID\n"       \
    "namespace, see exist_ok), ENOEXEC (created with another C library or\n"  \
    "word size), ENOSPC, EMFILE."

#endif
