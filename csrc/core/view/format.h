/* The format of a view's items, as posixshm._view describes it. */
#ifndef CORE_FORMAT_H
#define CORE_FORMAT_H

#include "core/core.h"

typedef struct {
    PyObject *record;                   /* the tuple from parse();
                                           owned, and owns the objects below */
    PyObject *text;                     /* View.format, a str */
    PyObject *key;                      /* equal for items that may be copied
                                           as bytes */
    PyObject *argument;                 /* what view() takes to make it */
    PyObject *decode, *encode;          /* between an item's bytes and its
                                           value; NULL: memoryview does it */
    Py_ssize_t size;                    /* bytes of an item, > 0 */
    bool in_buffers;                    /* text is a format of PEP 3118 */
    uint8_t dl_code, dl_bits;           /* the type in DLPack; 0 bits: DLPack
                                           does not have it */
} item_format;

/* Parse value, a format or anything that numpy.dtype() takes.  Returns 0; the
 * caller then owns out->record.  Or returns -1 with ValueError, TypeError, or
 * an exception from numpy. */
int format_parse(core_state *state, PyObject *value, item_format *out);

/* Call a function of posixshm._view.  args: a tuple, of which this takes the
 * reference; NULL: an exception is set already.  Returns a new reference, or
 * NULL with an exception. */
PyObject *view_call(core_state *state, const char *function, PyObject *args);

#endif
