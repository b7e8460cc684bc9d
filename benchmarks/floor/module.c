#include "floor.h"

static int
fill_module(PyObject *module)
{
    return floor_add_objects(module) < 0 || floor_add_sync(module) < 0
                   || floor_add_raw_sync(module) < 0
                   || floor_add_memory(module) < 0
               ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, fill_module},
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "floor",
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit_floor(void);

PyMODINIT_FUNC
PyInit_floor(void)
{
    return PyModuleDef_Init(&module);
}
