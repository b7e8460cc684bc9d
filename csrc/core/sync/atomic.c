/* Atomic: a word in shared memory, as C11's _Atomic. */
#include "core/sync/placed.h"

#include <limits.h>

#include "core/errors.h"
#include "core/sync/waiting.h"

#include "posix/sync/atomics.h"

struct format {
    const char *name;
    size_t width;                       /* 4 or 8 bytes */
    long long least, most;              /* values; "Q" has more */
};

typedef struct {
    PlacedObject base;
    char *word;
    struct format format;
} AtomicObject;

static AtomicObject *
as_atomic(PyObject *op)
{
    return (AtomicObject *)op;
}

/* ---- Opening ---- */

static const struct format formats[] = {
    {"q", 8, INT64_MIN, INT64_MAX},
    {"Q", 8, 0, INT64_MAX},
    {"i", 4, INT32_MIN, INT32_MAX},
    {"I", 4, 0, UINT32_MAX},
};

/* format; params->value: its index in formats. */
static int
atomic_parse(placed_params *params)
{
    PyObject *format = params->values[0];
    if (format != NULL && !PyUnicode_Check(format)) {
        PyErr_Format(PyExc_TypeError, "format must be a str, not %.200s",
                     Py_TYPE(format)->tp_name);
        return -1;
    }
    for (unsigned i = 0; i < Py_ARRAY_LENGTH(formats); i++) {
        if (format == NULL
            || PyUnicode_CompareWithASCIIString(format, formats[i].name)
                   == 0) {
            params->value = i;
            params->size = params->alignment = (Py_ssize_t)formats[i].width;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError,
                 "format must be 'i', 'I', 'q' or 'Q', not %R", format);
    return -1;
}

static int
atomic_attach(PlacedObject *base, const placed_params *params)
{
    AtomicObject *self = (AtomicObject *)base;
    self->word = placed_memory(base);
    self->format = formats[params->value];
    return 0;
}

/* ---- Values and memory orders ---- */

/* The value of bits, of which a word of 4 bytes is the lower half. */
static inline PyObject *
value_of(const AtomicObject *self, uint64_t bits)
{
    bool is_signed = self->format.least < 0;
    if (self->format.width == 4) {
        bits = is_signed ? (uint64_t)(int32_t)bits : (uint32_t)bits;
    }
    /* The conversion of a signed value is cheaper. */
    return is_signed || bits <= INT64_MAX ? PyLong_FromLongLong((int64_t)bits)
                                          : PyLong_FromUnsignedLongLong(bits);
}

/* Put the bits of a value into *bits. Returns 0, or -1 with TypeError, or
 * OverflowError if the value does not fit. */
static Py_NO_INLINE int
parse_value(const AtomicObject *self, const char *name, PyObject *value,
            uint64_t *bits)
{
    if (PyBool_Check(value) || !PyIndex_Check(value)) {
        PyErr_Format(PyExc_TypeError, "%s must be an int, not %.200s", name,
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    PyObject *number = PyNumber_Index(value);
    if (number == NULL) {
        return -1;
    }
    int overflow;
    long long small = PyLong_AsLongLongAndOverflow(number, &overflow);
    bool fits = overflow == 0 && small >= self->format.least
                && small <= self->format.most;
    *bits = (uint64_t)small;
    if (overflow > 0 && self->format.width == 8 && self->format.least == 0) {
        *bits = PyLong_AsUnsignedLongLong(number);
        fits = !PyErr_Occurred();
    }
    if (!fits) {
        PyErr_Format(PyExc_OverflowError,
                     "%s must fit %s integer of %zu bytes, not %R", name,
                     self->format.least < 0 ? "a signed" : "an unsigned",
                     self->format.width, number);
    }
    Py_DECREF(number);
    return fits ? 0 : -1;
}

enum { LOADS = 1, STORES = 2, BOTH = 3 };

/* Check the order of an operation that does this; NULL: seq_cst. All operations
 * are sequentially consistent, which satisfies every order. Returns 0, or -1
 * with TypeError or ValueError. */
static int
check_order(PyObject *value, int does)
{
    static const struct {
        const char *name;
        int allowed;                    /* LOADS, STORES; BOTH allows all */
    } orders[] = {{"seq_cst", BOTH}, {"relaxed", BOTH}, {"acquire", LOADS},
                  {"release", STORES}, {"acq_rel", 0}};
    if (value == NULL) {
        return 0;
    }
    if (!PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "order must be a str, not %.200s",
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(orders); i++) {
        if (PyUnicode_CompareWithASCIIString(value, orders[i].name) != 0) {
            continue;
        }
        if (does != BOTH && (orders[i].allowed & does) == 0) {
            PyErr_Format(PyExc_ValueError,
                         "order of a %s must be 'relaxed', '%s' or 'seq_cst', "
                         "not %R", does == LOADS ? "load" : "store",
                         does == LOADS ? "acquire" : "release", value);
            return -1;
        }
        return 0;
    }
    PyErr_Format(PyExc_ValueError,
                 "order must be 'relaxed', 'acquire', 'release', 'acq_rel' or "
                 "'seq_cst', not %R", value);
    return -1;
}

/* ---- Operations ---- */

#define ORDER_DOC                                                             \
    "order: 'seq_cst', 'acq_rel', 'acquire', 'release' or 'relaxed', as in\n"\
    "C11 (stdatomic.h)"

PARAMETERS(load, 1, 0, "order");
PARAMETERS(store, 2, 1, "value", "order");
PARAMETERS(compare_exchange, 4, 2, "expected", "desired", "order", "failure");
PARAMETERS(wait, 2, 1, "expected", "timeout");
PARAMETERS(notify, 1, 0, "n");

PyDoc_STRVAR(word_load_doc,
             "load($self, /, order='seq_cst')\n--\n\n"
             "Return the value.\n\n" ORDER_DOC ";\n'seq_cst', 'acquire' or "
             "'relaxed' here. Raises ValueError for another\norder.");

static PyObject *
word_load(PyObject *op, PyObject *const *args, Py_ssize_t count,
          PyObject *kwnames)
{
    AtomicObject *self = as_atomic(op);
    PyObject *order = NULL;
    if ((count > 0 || kwnames != NULL)
        && (args_match(&load_signature, args, count, kwnames, &order) < 0
            || check_order(order, LOADS) < 0)) {
        return NULL;
    }
    return value_of(self, pshm_atomic_load(self->word, self->format.width));
}

static Py_NO_INLINE int
parse_slowly(AtomicObject *self, PyObject *const *args, Py_ssize_t count,
             PyObject *kwnames, const struct signature *signature, int does,
             uint64_t *bits)
{
    PyObject *values[2];
    return args_match(signature, args, count, kwnames, values) < 0
                   || parse_value(self, "value", values[0], bits) < 0
                   || check_order(values[1], does) < 0
                   || placed_check_writable(&self->base) < 0
               ? -1 : 0;
}

/* The arguments of an operation with a value and an order. A single int that
 * fits needs nothing else. Returns 0 or -1. */
static inline int
parse_operand(AtomicObject *self, PyObject *const *args, Py_ssize_t count,
              PyObject *kwnames, const struct signature *signature, int does,
              uint64_t *bits)
{
    int overflow = 1;
    long long number = 0;
    if (count == 1 && kwnames == NULL && PyLong_CheckExact(args[0])
        && !self->base.readonly) {
        number = PyLong_AsLongLongAndOverflow(args[0], &overflow);
    }
    *bits = (uint64_t)number;
    return overflow == 0 && number >= self->format.least
                   && number <= self->format.most
               ? 0 : parse_slowly(self, args, count, kwnames, signature, does,
                                  bits);
}

PyDoc_STRVAR(word_store_doc,
             "store($self, /, value, order='seq_cst')\n--\n\n"
             "Store value.\n\n" ORDER_DOC ";\n'seq_cst', 'release' or "
             "'relaxed' here. Raises ValueError for another\norder; "
             "OverflowError if value does not fit.");

static PyObject *
word_store(PyObject *op, PyObject *const *args, Py_ssize_t count,
           PyObject *kwnames)
{
    AtomicObject *self = as_atomic(op);
    uint64_t bits;
    if (parse_operand(self, args, count, kwnames, &store_signature, STORES,
                      &bits) < 0) {
        return NULL;
    }
    pshm_atomic_store(self->word, self->format.width, bits);
    Py_RETURN_NONE;
}

/* Inline, so that the operation is constant. */
static inline PyObject *
apply(PyObject *op, PyObject *const *args, Py_ssize_t count, PyObject *kwnames,
      const struct signature *signature, enum pshm_atomic_op operation)
{
    AtomicObject *self = as_atomic(op);
    uint64_t bits;
    if (parse_operand(self, args, count, kwnames, signature, BOTH,
                      &bits) < 0) {
        return NULL;
    }
    return value_of(self, pshm_atomic_apply(operation, self->word,
                                            self->format.width, bits));
}

#define APPLY(method, operation, summary)                                     \
    PARAMETERS(method, 2, 1, "value", "order");                               \
    PyDoc_STRVAR(                                                             \
        word_##method##_doc,                                                  \
        #method "($self, /, value, order='seq_cst')\n--\n\n" summary          \
                "\n\nReturns the previous value.\n" ORDER_DOC                 \
                ".\nRaises OverflowError if value does not fit.");            \
    static PyObject *word_##method(PyObject *op, PyObject *const *args,       \
                                   Py_ssize_t count, PyObject *kwnames)       \
    {                                                                         \
        return apply(op, args, count, kwnames, &method##_signature,           \
                     operation);                                              \
    }

APPLY(exchange, PSHM_EXCHANGE, "Store value.")
APPLY(fetch_add, PSHM_FETCH_ADD, "Add value; the sum wraps around.")
APPLY(fetch_sub, PSHM_FETCH_SUB, "Subtract value; the difference wraps around.")
APPLY(fetch_and, PSHM_FETCH_AND, "Store the bitwise AND with value.")
APPLY(fetch_or, PSHM_FETCH_OR, "Store the bitwise OR with value.")
APPLY(fetch_xor, PSHM_FETCH_XOR, "Store the bitwise exclusive OR with value.")

PyDoc_STRVAR(
    word_compare_exchange_doc,
    "compare_exchange($self, /, expected, desired, order='seq_cst',\n"
    "                 failure=None)\n--\n\n"
    "Store desired if the value equals expected.\n\n"
    "Returns (done, previous): whether desired was stored, and the previous\n"
    "value.\n" ORDER_DOC ".\n"
    "failure: the order of the load if the value differs; None: order without\n"
    "its release. Raises OverflowError if a value does not fit.");

static PyObject *
word_compare_exchange(PyObject *op, PyObject *const *args, Py_ssize_t count,
                      PyObject *kwnames)
{
    AtomicObject *self = as_atomic(op);
    PyObject *values[4];
    uint64_t expected, desired;
    if (args_match(&compare_exchange_signature, args, count, kwnames, values)
            < 0
        || parse_value(self, "expected", values[0], &expected) < 0
        || parse_value(self, "desired", values[1], &desired) < 0
        || check_order(values[2], BOTH) < 0
        || check_order(values[3] == Py_None ? NULL : values[3], LOADS) < 0
        || placed_check_writable(&self->base) < 0) {
        return NULL;
    }
    bool done = pshm_atomic_compare_exchange(self->word, self->format.width,
                                             &expected, desired);
    return Py_BuildValue("(ON)", done ? Py_True : Py_False,
                         value_of(self, expected));
}

PyDoc_STRVAR(
    word_wait_doc,
    "wait($self, /, expected, timeout=None)\n--\n\n"
    "Wait while the value equals expected: " MAN(futex, 2) ".\n\n"
    "The writer calls notify() after a change. Of a word of 8 bytes the\n"
    "kernel compares the lower half. " WAIT_TIMEOUT_DOC
    "Returns True, or False if the value did not change in time. Raises\n"
    "OverflowError if expected does not fit.");

static PyObject *
word_wait(PyObject *op, PyObject *const *args, Py_ssize_t count,
          PyObject *kwnames)
{
    AtomicObject *self = as_atomic(op);
    PyObject *values[2];
    uint64_t expected;
    wait_timeout timeout;
    if (args_match(&wait_signature, args, count, kwnames, values) < 0
        || parse_value(self, "expected", values[0], &expected) < 0
        || timeout_of_wait(values[1], &timeout) < 0) {
        return NULL;
    }
    int rc;
    WAIT_WITHOUT_GIL(rc, pshm_atomic_wait(self->word, self->format.width,
                                          expected, timeout.deadline));
    if (rc == 0 || rc == -ETIMEDOUT) {
        return PyBool_FromLong(rc == 0);
    }
    return raise_errno(rc, NULL);
}

PyDoc_STRVAR(
    word_notify_doc,
    "notify($self, /, n=None)\n--\n\n"
    "Wake at most n waiters, n at least 1; None: all: " MAN(futex, 2) ".\n\n"
    "Returns how many were woken. Raises ValueError for another n.");

static PyObject *
word_notify(PyObject *op, PyObject *const *args, Py_ssize_t count,
            PyObject *kwnames)
{
    AtomicObject *self = as_atomic(op);
    PyObject *value;
    long long n = INT_MAX;
    if (args_match(&notify_signature, args, count, kwnames, &value) < 0
        || (value != NULL && value != Py_None
            && arg_long(value, "n", 1, INT_MAX, &n) < 0)) {
        return NULL;
    }
    int woken = pshm_atomic_notify(self->word, self->format.width, (int)n);
    return woken < 0 ? raise_errno(woken, NULL) : PyLong_FromLong(woken);
}

/* ---- The type ---- */

PyDoc_STRVAR(word_format_doc, "Format of the word: 'i', 'I', 'q' or 'Q'.");

static PyObject *
word_get_format(PyObject *op, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(as_atomic(op)->format.name);
}

static PyObject *
atomic_own_values(PlacedObject *self)
{
    return Py_BuildValue("{ss}", "format", ((AtomicObject *)self)->format.name);
}

static PyObject *
atomic_state(PlacedObject *base)
{
    AtomicObject *self = (AtomicObject *)base;
    PyObject *value =
        value_of(self, pshm_atomic_load(self->word, self->format.width));
    PyObject *state = value == NULL
                          ? NULL : PyUnicode_FromFormat("value=%S", value);
    Py_XDECREF(value);
    return state;
}

PyDoc_STRVAR(
    atomic_at_doc,
    "at($type, /, shm, offset=0, format='q')\n--\n\n"
    "Open the word at an offset of shared memory, whatever its value is.\n\n"
    "shm: a SharedMemory or MemoryMap; if it is read-only, load() and wait()\n"
    "work, and methods that write raise PermissionError. format: as in the\n"
    "struct module, 'i' or 'I' (4 bytes, signed or not), 'q' or 'Q' (8\n"
    "bytes). offset: bytes, a multiple of the size of the word.\n\n"
    "Raises ValueError for a bad offset or format; PermissionError.");

PyDoc_STRVAR(
    atomic_doc,
    "A word in shared memory, opened by Atomic.at().\n\n"
    "C programs share it as an _Atomic integer, and C++ programs as a\n"
    "std::atomic. It does not have a header, so its first value is what the\n"
    "bytes say: 0 in a new object.");

static PyMethodDef atomic_methods[] = {
    KEYWORD_METHOD(word, load),
    KEYWORD_METHOD(word, store),
    KEYWORD_METHOD(word, exchange),
    KEYWORD_METHOD(word, compare_exchange),
    KEYWORD_METHOD(word, fetch_add),
    KEYWORD_METHOD(word, fetch_sub),
    KEYWORD_METHOD(word, fetch_and),
    KEYWORD_METHOD(word, fetch_or),
    KEYWORD_METHOD(word, fetch_xor),
    KEYWORD_METHOD(word, wait),
    KEYWORD_METHOD(word, notify),
    PLACED_AT(atomic_at_doc),
    PLACED_REDUCE,
    {0},
};

static PyGetSetDef atomic_getset[] = {
    ATTRIBUTE(word, format),
    ATTRIBUTE(placed, shm),
    {0},
};

const struct placed_type atomic_type = {
    .name = "Atomic",
    .doc = atomic_doc,
    .methods = atomic_methods,
    .getset = atomic_getset,
    .object_size = sizeof(AtomicObject),
    .kind = PSHM_PRIMITIVE_NONE,
    .size = 8,
    .alignment = 8,
    .reads = true,
    .own = {"format"},
    .positional = 1,
    .parse = atomic_parse,
    .attach = atomic_attach,
    .own_values = atomic_own_values,
    .state = atomic_state,
};
