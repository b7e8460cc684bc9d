/* What the items of a view are: the formats of the struct module and of the
 * buffer protocol (PEP 3118), numpy's, and those that only DLPack knows. */
#ifndef CORE_FORMAT_H
#define CORE_FORMAT_H

#include "core/core.h"

enum item_kind {
    ITEM_INT = 'i',
    ITEM_UINT = 'u',
    ITEM_FLOAT = 'f',
    ITEM_COMPLEX = 'c',
    ITEM_BOOL = 'b',
    ITEM_TEXT = 'w',                    /* characters of 4 bytes */
    ITEM_STRUCT = 's',                  /* what struct.unpack makes of it */
    ITEM_OPAQUE = 0,                    /* for others to read */
};

struct item_format {
    PyObject *text;                     /* owned */
    Py_ssize_t size;                    /* bytes, > 0 */
    enum item_kind kind;
    bool swapped;                       /* not in the machine's byte order */
    bool in_buffers;                    /* the buffer protocol has a word for
                                           it, which text is */
    uint8_t dl_code, dl_bits;           /* of DLPack; no bits: has none */
};

/* value: a format, a dtype's name, or what numpy.dtype() takes; a str that is
 * none of these formats only once numpy is imported.  Returns 0, or -1 with
 * ValueError or TypeError, or what numpy raised; out is set only if it returns
 * 0, and then owns text. */
int format_parse(PyObject *value, struct item_format *out);

/* The numpy dtype of what has no buffer format: numpy's times, and from ml_dtypes
 * what only DLPack has; a new reference, or NULL with an exception. */
PyObject *format_extension_dtype(const struct item_format *format);

/* ---- Between format.c and format_dtype.c ----
 *
 * Each fills out, zeroed before, and returns 1; 0 where it is no such word; -1
 * with an exception. */

/* A word for a type; opaque_only: that only DLPack has. */
int format_named(struct item_format *out, const char *text, bool opaque_only);
int format_text(PyObject *value, struct item_format *out);
int format_dtype(struct item_format *out, PyObject *value);

/* Is it one of numpy's times, which the buffer protocol has no word for? */
bool format_is_time(const char *text);

/* ---- format_items.c ---- */

/* One item that a memoryview cannot read; the address need not be aligned.
 * NULL or -1 with an exception: NotImplementedError for what is opaque,
 * TypeError and ValueError for a value that cannot be an item of that format,
 * ValueError for bytes that are not a character. */
PyObject *format_get(core_state *state, const struct item_format *format,
                     const char *item);
int format_set(core_state *state, const struct item_format *format,
               char *item, PyObject *value);

#endif
