/* Atomic: a word in shared memory, as C's and C++'s atomics have it. */
#include "core/sync/atomic.h"

#include <limits.h>

#include "core/args.h"
#include "core/sync/waiting.h"

#include "posix/sync/atomics.h"

static AtomicObject *
as_atomic(PyObject *op)
{
    return (AtomicObject *)op;
}

/* ---- Opening ---- */

static int
parse_format(PyObject *value, AtomicObject *self)
{
    static const struct {
        const char *name;
        size_t width;
        bool is_signed;
    } formats[] = {{"q", 8, true}, {"Q", 8, false}, {"i", 4, true},
                   {"I", 4, false}};
    if (value != NULL && !PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "format must be a str, not %.200s",
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(formats); i++) {
        if (value == NULL
            || PyUnicode_CompareWithASCIIString(value, formats[i].name) == 0) {
            self->width = formats[i].width;
            self->is_signed = formats[i].is_signed;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError,
                 "format must be 'i', 'I', 'q' or 'Q', not %R", value);
    return -1;
}

PyDoc_STRVAR(
    at_doc,
    "at($type, /, shm, offset=0, format='q')\n--\n\n"
    "The word at an offset of a segment, whatever it contains.\n\n"
    "shm: a SharedMemory or MemoryMap; if it is read-only, load() and wait()\n"
    "work, and what writes raises PermissionError.  format: as of the\n"
    "struct module: 'i' and 'I' (4 bytes, signed and not), 'q' and 'Q' (8).\n"
    "offset: bytes, a multiple of those.\n\n"
    "Raises ValueError for a bad offset or format; PermissionError.");

static PyObject *
word_at(PyObject *type, PyObject *const *args, Py_ssize_t count,
          PyObject *kwnames)
{
    static const char *const names[] = {"shm", "offset", "format", NULL};
    static const struct signature signature = {"at", 3, 1, names};
    PyObject *values[3];
    Py_ssize_t offset = 0;
    AtomicObject word;
    bool readonly;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || (values[1] != NULL
            && arg_offset(values[1], "offset", &offset) < 0)
        || parse_format(values[2], &word) < 0) {
        return NULL;
    }
    core_state *state = core_state_of_type((PyTypeObject *)type);
    MemoryMapObject *map =
        placed_take_map(state, values[0], "Atomic", &readonly);
    if (map == NULL) {
        return NULL;
    }
    Py_ssize_t width = (Py_ssize_t)word.width, have = mapping_size(map);
    if (offset % width != 0) {
        PyErr_Format(PyExc_ValueError,
                     "offset must be a multiple of %zd, not %zd", width,
                     offset);
    }
    else if (width > have || offset > have - width) {
        PyErr_Format(PyExc_ValueError,
                     "%zd bytes at offset %zd are past the end at %zd", width,
                     offset, have);
    }
    else {
        AtomicObject *self = (AtomicObject *)placed_alloc((PyTypeObject *)type);
        if (self != NULL) {
            self->base.map = map;
            self->base.offset = offset;
            self->base.readonly = readonly;
            self->base.shm = Py_NewRef(values[0]);
            self->word = map->base + offset;
            self->width = word.width;
            self->is_signed = word.is_signed;
            return placed_complete(&self->base);
        }
    }
    Py_DECREF(map);
    return NULL;
}

/* ---- Operations ---- */

#define ORDER_DOC                                                             \
    "order: 'seq_cst', 'acq_rel', 'acquire', 'release' or 'relaxed', as in\n"\
    "C11 (stdatomic.h)"

PyDoc_STRVAR(load_doc,
             "load($self, /, order='seq_cst')\n--\n\nThe value.  " ORDER_DOC
             ";\n'seq_cst', 'acquire' or 'relaxed' here.  Raises ValueError for "
             "another.");

static PyObject *
word_load_method(PyObject *op, PyObject *const *args, Py_ssize_t count,
                   PyObject *kwnames)
{
    static const char *const names[] = {"order", NULL};
    static const struct signature signature = {"load", 1, 0, names};
    AtomicObject *self = as_atomic(op);
    PyObject *values[1] = {NULL};
    memory_order order;
    if (((count > 0 || kwnames != NULL)
         && args_match(&signature, args, count, kwnames, values) < 0)
        || word_parse_order(values[0], LOADS, &order) < 0) {
        return NULL;
    }
    return word_to_python(self,
                          pshm_atomic_load(self->word, self->width, order));
}

PyDoc_STRVAR(store_doc,
             "store($self, /, value, order='seq_cst')\n--\n\n"
             "Put value there.  " ORDER_DOC
             ";\n'seq_cst', 'release' or 'relaxed' here.  Raises OverflowError\n"
             "for a value that does not fit.");

static PyObject *
word_store_method(PyObject *op, PyObject *const *args, Py_ssize_t count,
                    PyObject *kwnames)
{
    static const char *const names[] = {"value", "order", NULL};
    static const struct signature signature = {"store", 2, 1, names};
    AtomicObject *self = as_atomic(op);
    PyObject *values[2];
    memory_order order;
    uint64_t bits;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || word_to_bits(self, "value", values[0], &bits) < 0
        || word_parse_order(values[1], STORES, &order) < 0
        || placed_check_writable(&self->base) < 0) {
        return NULL;
    }
    pshm_atomic_store(self->word, self->width, bits, order);
    Py_RETURN_NONE;
}

static PyObject *
apply(PyObject *op, PyObject *const *args, Py_ssize_t count, PyObject *kwnames,
      const char *function, enum pshm_atomic_op what)
{
    static const char *const names[] = {"value", "order", NULL};
    const struct signature signature = {function, 2, 1, names};
    AtomicObject *self = as_atomic(op);
    PyObject *values[2] = {NULL, NULL};
    memory_order order;
    uint64_t bits;
    if (count == 1 && kwnames == NULL) {
        values[0] = args[0];
    }
    else if (args_match(&signature, args, count, kwnames, values) < 0) {
        return NULL;
    }
    if (word_to_bits(self, "value", values[0], &bits) < 0
        || word_parse_order(values[1], BOTH, &order) < 0
        || placed_check_writable(&self->base) < 0) {
        return NULL;
    }
    return word_to_python(self, pshm_atomic_apply(what, self->word, self->width,
                                             bits, order));
}

#define APPLY(name, operation, text)                                          \
    PyDoc_STRVAR(                                                             \
        name##_doc,                                                           \
        #name "($self, /, value, order='seq_cst')\n--\n\n" text               \
              "  Returns what was there\nbefore.  " ORDER_DOC                 \
              ".\nRaises OverflowError for a value that does not fit.");      \
    static PyObject *word_##name(PyObject *op, PyObject *const *args,       \
                                   Py_ssize_t count, PyObject *kwnames)       \
    {                                                                         \
        return apply(op, args, count, kwnames, #name, operation);             \
    }

APPLY(exchange, PSHM_EXCHANGE, "Put value there.")
APPLY(fetch_add, PSHM_FETCH_ADD, "Add value; the sum wraps.")
APPLY(fetch_sub, PSHM_FETCH_SUB, "Subtract value; the difference wraps.")
APPLY(fetch_and, PSHM_FETCH_AND, "Put the bitwise and with value there.")
APPLY(fetch_or, PSHM_FETCH_OR, "Put the bitwise or with value there.")
APPLY(fetch_xor, PSHM_FETCH_XOR, "Put the exclusive or with value there.")

PyDoc_STRVAR(
    compare_exchange_doc,
    "compare_exchange($self, /, expected, desired, order='seq_cst',\n"
    "                 failure=None)\n--\n\n"
    "Put desired there if expected is.  Returns (done, seen): whether it did,\n"
    "and what was there.\n" ORDER_DOC ".\nfailure: that of the load where it "
    "did not; None: order without its\nrelease.  Raises OverflowError for a "
    "value that does not fit.");

static PyObject *
word_compare_exchange(PyObject *op, PyObject *const *args, Py_ssize_t count,
                        PyObject *kwnames)
{
    static const char *const names[] = {"expected", "desired", "order",
                                        "failure", NULL};
    static const struct signature signature = {"compare_exchange", 4, 2,
                                               names};
    AtomicObject *self = as_atomic(op);
    PyObject *values[4];
    memory_order order, failure;
    uint64_t expected, desired;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || word_to_bits(self, "expected", values[0], &expected) < 0
        || word_to_bits(self, "desired", values[1], &desired) < 0
        || word_parse_order(values[2], BOTH, &order) < 0
        || word_parse_order(values[3] == Py_None ? NULL : values[3], LOADS,
                       &failure) < 0
        || placed_check_writable(&self->base) < 0) {
        return NULL;
    }
    if (values[3] == NULL || values[3] == Py_None) {
        failure = order == memory_order_relaxed
                          || order == memory_order_release
                      ? memory_order_relaxed : memory_order_seq_cst;
    }
    bool done = pshm_atomic_compare_exchange(self->word, self->width,
                                             &expected, desired, order,
                                             failure);
    PyObject *seen = word_to_python(self, expected);
    return seen == NULL ? NULL : Py_BuildValue("(ON)",
                                               done ? Py_True : Py_False,
                                               seen);
}

PyDoc_STRVAR(
    wait_doc,
    "wait($self, /, expected, timeout=None)\n--\n\n"
    "Wait while the value equals expected: True; or False if it did not change\n"
    "in time: " MAN(futex, 2) ".  The writer calls notify() after a change.  Of\n"
    "a word of 8 bytes, the kernel compares the lower half.\n\n"
    "timeout: seconds, on the monotonic clock; 0 or less: do not wait; None: no\n"
    "limit.  "
    "Raises OverflowError for an expected value that does not fit.");

static PyObject *
word_wait(PyObject *op, PyObject *const *args, Py_ssize_t count,
            PyObject *kwnames)
{
    static const char *const names[] = {"expected", "timeout", NULL};
    static const struct signature signature = {"wait", 2, 1, names};
    AtomicObject *self = as_atomic(op);
    PyObject *values[2];
    uint64_t expected;
    wait_timeout how_long;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || word_to_bits(self, "expected", values[0], &expected) < 0
        || timeout_of_wait(values[1], &how_long) < 0) {
        return NULL;
    }
    int rc;
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_atomic_wait(self->word, self->width, expected,
                              how_long.deadline);
        Py_END_ALLOW_THREADS
    } while (wait_on(rc));
    if (rc == 0 || rc == -ETIMEDOUT) {
        return PyBool_FromLong(rc == 0);
    }
    (void)placed_raise(&self->base, rc);
    return NULL;
}

PyDoc_STRVAR(
    notify_doc,
    "notify($self, /, n=None)\n--\n\n"
    "Wake at most n, at least 1, of those who wait, None: all: " MAN(futex, 2)
    ".\nReturns how many that were.  Raises ValueError for another n.");

static PyObject *
word_notify(PyObject *op, PyObject *const *args, Py_ssize_t count,
              PyObject *kwnames)
{
    static const char *const names[] = {"n", NULL};
    static const struct signature signature = {"notify", 1, 0, names};
    AtomicObject *self = as_atomic(op);
    PyObject *values[1];
    long long n = INT_MAX;
    if (args_match(&signature, args, count, kwnames, values) < 0
        || (values[0] != NULL && values[0] != Py_None
            && arg_long(values[0], "n", 1, INT_MAX, &n) < 0)) {
        return NULL;
    }
    int woken = pshm_atomic_notify(self->word, self->width, (int)n);
    if (woken < 0) {
        (void)placed_raise(&self->base, woken);
        return NULL;
    }
    return PyLong_FromLong(woken);
}

/* ---- The type ---- */

static const char *
format_of(AtomicObject *self)
{
    return self->width == 8 ? (self->is_signed ? "q" : "Q")
                            : (self->is_signed ? "i" : "I");
}

PyDoc_STRVAR(format_doc, "Its format: 'i', 'I', 'q' or 'Q'.");

static PyObject *
word_get_format(PyObject *op, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(format_of(as_atomic(op)));
}

static PyObject *
word_reduce(PyObject *op, PyObject *Py_UNUSED(unused))
{
    return placed_reduce(as_placed(op),
                       Py_BuildValue("{ss}", "format",
                                     format_of(as_atomic(op))));
}

static PyObject *
word_repr(PyObject *op)
{
    AtomicObject *self = as_atomic(op);
    PyObject *value = word_to_python(
        self, pshm_atomic_load(self->word, self->width, memory_order_relaxed));
    PyObject *state = value == NULL
                          ? NULL : PyUnicode_FromFormat("value=%S", value);
    Py_XDECREF(value);
    return placed_repr(op, state);
}

static int
word_traverse(PyObject *op, visitproc visit, void *arg)
{
    return placed_traverse(as_placed(op), visit, arg);
}

static int
word_clear(PyObject *op)
{
    return placed_clear(as_placed(op));
}

static void
word_dealloc(PyObject *op)
{
    placed_end(as_placed(op));
    placed_free(as_placed(op));
}

PyDoc_STRVAR(
    atomic_doc,
    "A word in shared memory, to be shared with C's _Atomic and C++'s\n"
    "std::atomic: made by Atomic.at().  It is the bare word, without a tag,\n"
    "so what it starts with is what the bytes say: 0 in a new object.");

#define ATOMIC_METHOD(name, function)                                        \
    {#name, PLACED_CAST(function), METH_FASTCALL | METH_KEYWORDS, name##_doc}

static PyMethodDef atomic_methods[] = {
    {"at", PLACED_CAST(word_at), METH_CLASS | METH_FASTCALL | METH_KEYWORDS,
     at_doc},
    ATOMIC_METHOD(load, word_load_method),
    ATOMIC_METHOD(store, word_store_method),
    ATOMIC_METHOD(exchange, word_exchange),
    ATOMIC_METHOD(compare_exchange, word_compare_exchange),
    ATOMIC_METHOD(fetch_add, word_fetch_add),
    ATOMIC_METHOD(fetch_sub, word_fetch_sub),
    ATOMIC_METHOD(fetch_and, word_fetch_and),
    ATOMIC_METHOD(fetch_or, word_fetch_or),
    ATOMIC_METHOD(fetch_xor, word_fetch_xor),
    ATOMIC_METHOD(wait, word_wait),
    ATOMIC_METHOD(notify, word_notify),
    {"__reduce__", word_reduce, METH_NOARGS, placed_reduce_doc},
    {0},
};

static PyGetSetDef atomic_getset[] = {
    {"format", word_get_format, NULL, format_doc, NULL},
    {"offset", placed_get_offset, NULL, placed_offset_doc, NULL},
    {"shm", placed_get_shm, NULL, placed_shm_doc, NULL},
    {0},
};

static PyMemberDef atomic_members[] = {
    PLACED_MEMBERS(AtomicObject),
    {0},
};

static PyType_Slot atomic_slots[] = {
    {Py_tp_doc, (void *)atomic_doc},
    {Py_tp_dealloc, word_dealloc},
    {Py_tp_traverse, word_traverse},
    {Py_tp_clear, word_clear},
    {Py_tp_repr, word_repr},
    {Py_tp_methods, atomic_methods},
    {Py_tp_getset, atomic_getset},
    {Py_tp_members, atomic_members},
    {0, NULL},
};

static PyType_Spec atomic_spec = {
    .name = "posixshm.Atomic",
    .basicsize = sizeof(AtomicObject),
    .flags = PLACED_TYPE_FLAGS
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = atomic_slots,
};

int
atomic_add_type(PyObject *module, core_state *state)
{
    state->atomic_type = placed_add_type(module, &atomic_spec, 8, 8);
    return state->atomic_type == NULL ? -1 : 0;
}
