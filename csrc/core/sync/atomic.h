/* Atomic: its words, and what they are in Python. */
#ifndef CORE_ATOMIC_H
#define CORE_ATOMIC_H

#include "core/sync/placed.h"

typedef struct {
    PlacedObject base;                          /* without a place: it has no tag */
    char *word;
    size_t width;                       /* 4 or 8 bytes */
    bool is_signed;
} AtomicObject;

/* The value of bits, of which a word of 4 bytes has the lower half. */
PyObject *word_to_python(AtomicObject *self, uint64_t bits);

/* And back.  Returns 0, or -1 with TypeError, or OverflowError for a value that
 * does not fit. */
int word_to_bits(AtomicObject *self, const char *what, PyObject *value,
                 uint64_t *bits);

/* order: what may be asked of an operation that only loads, or only stores;
 * NULL: the strongest.  Returns 0, or -1 with TypeError or ValueError. */
enum { LOADS = 1, STORES = 2, BOTH = 3 };
int word_parse_order(PyObject *value, int does, memory_order *order);

#endif
