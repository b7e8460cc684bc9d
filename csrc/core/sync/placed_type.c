/* The template of the types: constructor, at(), pickling, repr(), memory
 * management and registration. */
#include "core/sync/placed.h"

#include "core/memory/handle.h"

#include "posix/sync/semaphore.h"

/* In the order of core_state.placed_types. */
static const struct placed_type *const types[] = {
    &lock_type,      &rlock_type, &semaphore_type, &condition_type,
    &event_type,     &barrier_type, &rwlock_type,  &atomic_type,
};

_Static_assert(Py_ARRAY_LENGTH(types)
                   == Py_ARRAY_LENGTH(((core_state *)0)->placed_types),
               "each type has an entry in the state");

static const char *const option_names[] = {
    "create", "exist_ok", "mode", "owner", "delete", "track", "mode_at_most",
    "acl", "stale", "replace",
};

_Static_assert(Py_ARRAY_LENGTH(option_names) == PLACED_OPTION_COUNT,
               "each option has a name");

/* Returns NULL with TypeError for any other Python type. */
static const struct placed_type *
find_type(core_state *state, PyObject *type)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(types); i++) {
        if ((PyObject *)state->placed_types[i] == type) {
            return types[i];
        }
    }
    PyErr_SetString(PyExc_TypeError, "not a type of posixshm's primitives");
    return NULL;
}

PyTypeObject *
placed_python_type(core_state *state, const struct placed_type *type)
{
    size_t i = 0;
    while (types[i] != type) {
        i++;
    }
    return state->placed_types[i];
}

/* ---- Names, for messages ---- */

const char *
placed_article(const char *type_name)
{
    return strchr("AEIOR", type_name[0]) != NULL ? "an" : "a";
}

const char *
placed_kind_name(enum pshm_primitive_kind kind)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(types); i++) {
        if (types[i]->kind == kind && kind != PSHM_PRIMITIVE_NONE) {
            return types[i]->name;
        }
    }
    return NULL;
}

/* ---- The constructor and at() ---- */

/* Room for each parameter and the NULL that ends the names. */
#define PARAMETERS_MAX (2 + PLACED_OWN_MAX + PLACED_OPTION_COUNT + 1)

/* Append the type's own parameters and the first options to the names.
 * Returns how many are its own. */
static int
append_names(const struct placed_type *type, const char **names, int options)
{
    int own = 0;
    while (type->own[own] != NULL) {
        names[own] = type->own[own];
        own++;
    }
    for (int i = 0; i < options; i++) {
        names[own + i] = option_names[i];
    }
    names[own + options] = NULL;
    return own;
}

static PyObject *
open_with(placed_params *params, PyObject **values, int own, int options)
{
    for (int i = 0; i < own; i++) {
        params->values[i] = values[i];
    }
    for (int i = 0; i < options; i++) {
        params->options[i] = values[own + i];
    }
    return placed_parse(params) < 0 ? NULL : placed_open(params);
}

static PyObject *
placed_new(PyTypeObject *python_type, PyObject *args, PyObject *kwargs)
{
    core_state *state = core_state_of_type(python_type);
    const struct placed_type *type = find_type(state, (PyObject *)python_type);
    if (type == NULL) {
        return NULL;
    }
    const char *names[PARAMETERS_MAX] = {"name"};
    PyObject *values[PARAMETERS_MAX];
    int own = append_names(type, names + 1, PLACED_OPTION_COUNT);
    const struct signature signature = {type->name, 1 + type->positional, 0,
                                        names};
    if (args_match_dict(&signature, args, kwargs, values) < 0) {
        return NULL;
    }
    placed_params params = {.state = state, .type = type, .name = values[0]};
    return open_with(&params, values + 1, own, PLACED_OPTION_COUNT);
}

PyObject *
placed_at(PyObject *python_type, PyObject *const *args, Py_ssize_t count,
          PyObject *kwnames)
{
    core_state *state = core_state_of_type((PyTypeObject *)python_type);
    const struct placed_type *type = find_type(state, python_type);
    if (type == NULL) {
        return NULL;
    }
    const bool header = type->kind != PSHM_PRIMITIVE_NONE;
    const int options = header ? PLACED_EXIST_OK + 1 : 0;
    const char *names[PARAMETERS_MAX] = {"shm", "offset"};
    PyObject *values[PARAMETERS_MAX];
    int own = append_names(type, names + 2, options);
    const struct signature signature = {
        "at", 2 + (header ? 0 : type->positional), 1, names};
    if (args_match(&signature, args, count, kwnames, values) < 0) {
        return NULL;
    }
    placed_params params = {.state = state, .type = type, .shm = values[0],
                            .offset = values[1]};
    return open_with(&params, values + 2, own, options);
}

/* ---- Pickling ---- */

const char placed_reduce_doc[] =
    "__reduce__($self, /)\n--\n\n"
    "Pickle by reference, together with the object that contains it.\n\n"
    "After close(), only a primitive with a name can be pickled. Raises\n"
    "TypeError if it was opened in a MemoryMap.";

PyObject *
placed_reduce(PyObject *op, PyObject *Py_UNUSED(unused))
{
    PlacedObject *self = as_placed(op);
    const struct placed_type *type = self->type;
    core_state *state = core_state_of_type(Py_TYPE(op));
    if (self->shm == NULL) {
        return PyErr_Format(PyExc_TypeError,
                            "a condition's own lock cannot be pickled; pickle "
                            "the condition");
    }
    if (Py_IS_TYPE(self->shm, state->mapping_type)) {
        return PyErr_Format(PyExc_TypeError,
                            "%s %s that was opened in a MemoryMap cannot be "
                            "pickled; open it in a SharedMemory",
                            placed_article(type->name), type->name);
    }
    PyObject *own = type->own_values == NULL ? PyDict_New()
                                             : type->own_values(self);
    return own == NULL
               ? NULL
               : Py_BuildValue("O(OOnON)", state->open_placed_function,
                               Py_TYPE(op), self->shm, self->offset,
                               self->own ? Py_True : Py_False, own);
}

/* _open_placed(type, shm, offset, own, values): a pickle calls it. */
static PyObject *
open_placed(PyObject *module, PyObject *args)
{
    core_state *state = core_state_of_module(module);
    PyObject *python_type, *pickled, *result = NULL;
    placed_params params = {.state = state};
    int own;
    if (!PyArg_ParseTuple(args, "O!OOpO!:_open_placed", &PyType_Type,
                          &python_type, &params.shm, &params.offset, &own,
                          &PyDict_Type, &pickled)) {
        return NULL;
    }
    params.type = find_type(state, python_type);
    if (params.type == NULL) {
        return NULL;
    }
    params.own = own && params.type->kind != PSHM_PRIMITIVE_NONE
                 && PyObject_TypeCheck(params.shm, state->handle_type);
    const struct signature signature = {params.type->name, 0, 0,
                                        params.type->own};
    /* A parser of arguments may run Python code, which may change the dict. */
    PyObject *none = PyTuple_New(0), *values = PyDict_Copy(pickled);
    if (none != NULL && values != NULL
        && args_match_dict(&signature, none, values, params.values) == 0
        && placed_parse(&params) == 0) {
        result = placed_open_in(&params, params.shm);
    }
    Py_XDECREF(none);
    Py_XDECREF(values);
    return result;
}

static PyMethodDef functions[] = {
    {"_open_placed", open_placed, METH_VARARGS, NULL},
    {0},
};

/* ---- Slots ---- */

PyObject *
placed_alloc(PyTypeObject *type)
{
    PyObject *op = type->tp_alloc(type, 0);
    if (op != NULL) {
        PyObject_GC_UnTrack(op);
    }
    return op;
}

PyObject *
placed_complete(PlacedObject *self)
{
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

/* A member of the object that is a reference. */
static PyObject **
member_at(PlacedObject *self, size_t offset)
{
    return (PyObject **)(void *)((char *)self + offset);
}

static int
placed_traverse(PyObject *op, visitproc visit, void *arg)
{
    PlacedObject *self = as_placed(op);
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->shm);
    for (const size_t *at = self->type->references; *at != 0; at++) {
        Py_VISIT(*member_at(self, *at));
    }
    return 0;
}

static void
clear_references(PlacedObject *self)
{
    for (const size_t *at = self->type->references; *at != 0; at++) {
        Py_CLEAR(*member_at(self, *at));
    }
}

static int
placed_clear(PyObject *op)
{
    PlacedObject *self = as_placed(op);
    if (!self->type->keeps_references) {
        clear_references(self);
    }
    self->own = false;
    Py_CLEAR(self->shm);
    return 0;
}

static void
placed_dealloc(PyObject *op)
{
    PlacedObject *self = as_placed(op);
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    if (self->type->finalize != NULL) {
        self->type->finalize(self);
    }
    clear_references(self);
    (void)placed_clear(op);
    Py_CLEAR(self->map);
    type->tp_free(op);
    Py_DECREF(type);
}

/* <posixshm.Lock 'jobs': unlocked> */
static PyObject *
placed_repr(PyObject *op)
{
    PlacedObject *self = as_placed(op);
    PyObject *state = self->type->state(self);
    PyObject *description = state == NULL ? NULL : placed_describe(self);
    PyObject *result = NULL;
    if (description != NULL) {
        result = atomic_load(&self->closed)
                     ? PyUnicode_FromFormat("<posixshm.%U: closed>",
                                            description)
                     : PyUnicode_FromFormat("<posixshm.%U: %U>", description,
                                            state);
    }
    Py_XDECREF(description);
    Py_XDECREF(state);
    return result;
}

/* ---- Registration ---- */

static PyMemberDef members[] = {
    {"__weaklistoffset__", Py_T_PYSSIZET, offsetof(PlacedObject, weakrefs),
     Py_READONLY, NULL},
    {"offset", Py_T_PYSSIZET, offsetof(PlacedObject, offset), Py_READONLY,
     placed_offset_doc},
    {0},
};

/* The type is immutable, so its numbers go into its dict, before any other
 * thread can use the type. */
static int
set_number(PyTypeObject *type, const char *name, Py_ssize_t value)
{
    PyObject *number = PyLong_FromSsize_t(value);
    int rc = number == NULL ? -1 : PyDict_SetItemString(type->tp_dict, name,
                                                        number);
    Py_XDECREF(number);
    return rc;
}

static PyTypeObject *
add_type(PyObject *module, const struct placed_type *type)
{
    /* An empty slot ends the list. */
    const bool constructor = type->kind != PSHM_PRIMITIVE_NONE;
    PyType_Slot slots[] = {
        {Py_tp_doc, (void *)(uintptr_t)type->doc},
        {Py_tp_dealloc, placed_dealloc},
        {Py_tp_traverse, placed_traverse},
        {Py_tp_clear, placed_clear},
        {Py_tp_repr, placed_repr},
        {Py_tp_methods, type->methods},
        {Py_tp_getset, type->getset},
        {Py_tp_members, members},
        {constructor ? Py_tp_new : 0, constructor ? placed_new : NULL},
        {0, NULL},
    };
    char full_name[32];
    (void)PyOS_snprintf(full_name, sizeof(full_name), "posixshm.%s",
                        type->name);
    PyType_Spec spec = {
        .name = full_name,
        .basicsize = (int)type->object_size,
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC
                 | Py_TPFLAGS_IMMUTABLETYPE
                 | (constructor ? 0 : Py_TPFLAGS_DISALLOW_INSTANTIATION),
        .slots = slots,
    };
    PyTypeObject *made =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    if (made == NULL || set_number(made, "nbytes", type->size) < 0
        || set_number(made, "alignment", type->alignment) < 0) {
        Py_XDECREF(made);
        return NULL;
    }
    PyType_Modified(made);
    if (PyModule_AddType(module, made) < 0) {
        Py_CLEAR(made);
    }
    return made;
}

int
placed_add_types(PyObject *module, core_state *state)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(types); i++) {
        state->placed_types[i] = add_type(module, types[i]);
        if (state->placed_types[i] == NULL) {
            return -1;
        }
    }
    if (recovery_add_type(module, state) < 0
        || rwlock_add_context_type(module, state) < 0
        || PyModule_AddFunctions(module, functions) < 0
        || PyModule_AddFunctions(module, semaphore_functions) < 0
        || PyModule_AddIntConstant(module, "SEM_VALUE_MAX",
                                   (long)SEM_VALUE_MAX) < 0) {
        return -1;
    }
    state->open_placed_function = PyObject_GetAttrString(module,
                                                         "_open_placed");
    return state->open_placed_function == NULL ? -1 : 0;
}
