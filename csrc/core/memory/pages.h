/* The pages of a mapping: the methods that MemoryMap and SharedMemory share. */
#ifndef CORE_PAGES_H
#define CORE_PAGES_H

#include "core/core.h"

typedef PyObject *pages_method(PyObject *op, PyObject *const *args,
                               Py_ssize_t count, PyObject *kwnames);
pages_method pages_advise, pages_sync, pages_lock, pages_unlock,
    pages_populate;
extern const char pages_advise_doc[], pages_sync_doc[], pages_lock_doc[],
    pages_unlock_doc[], pages_populate_doc[], pages_resident_doc[];

PyObject *pages_get_resident(PyObject *op, void *closure);

#define PAGES_METHOD(name, function)                          \
    {name, (PyCFunction)(void (*)(void))pages_##function,     \
     METH_FASTCALL | METH_KEYWORDS, pages_##function##_doc}

#define PAGES_METHODS                                                        \
    PAGES_METHOD("advise", advise), PAGES_METHOD("sync", sync),              \
        PAGES_METHOD("lock_pages", lock),                                    \
        PAGES_METHOD("unlock_pages", unlock),                                \
        PAGES_METHOD("populate", populate)

#define PAGES_GETSET \
    {"resident", pages_get_resident, NULL, pages_resident_doc, NULL}

#endif
