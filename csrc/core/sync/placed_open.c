/* Opening a primitive: at an offset, or in an object of its own. */
#include "core/sync/placed.h"

#include "core/errors.h"

#include "posix/sync/semaphore.h"

/* ---- Arguments ---- */

static bool
has_name(const placed_params *params)
{
    return params->name != NULL && params->name != Py_None;
}

static int
check_name(const placed_params *params)
{
    const struct placed_type *type = params->type;
    if (!has_name(params) || PyUnicode_Check(params->name)) {
        return 0;
    }
    if (type->positional == 0) {
        PyErr_Format(PyExc_TypeError, "name must be a str or None, not %.200s",
                     Py_TYPE(params->name)->tp_name);
    }
    else {
        PyErr_Format(PyExc_TypeError,
                     "name must be a str or None, not %.200s; without a name "
                     "write %s(%s=...)",
                     Py_TYPE(params->name)->tp_name, type->name, type->own[0]);
    }
    return -1;
}

/* An option that needs a name, and create=True. */
static int
check_option(const placed_params *params, const char *option, bool given)
{
    if (given && params->shm == NULL && !has_name(params)) {
        PyErr_Format(PyExc_ValueError,
                     "%s goes with a name: %s(name, create=True, %s=...)",
                     option, params->type->name, option);
        return -1;
    }
    if (given && !params->create) {
        PyErr_Format(PyExc_ValueError, "%s goes with create=True", option);
        return -1;
    }
    return 0;
}

/* Which objects that exist are accepted. */
static int
parse_accepted(placed_params *params)
{
    PyObject *owner = params->options[PLACED_OWNER];
    PyObject *mode = params->options[PLACED_MODE_AT_MOST];
    mode = mode == Py_None ? NULL : mode;
    if (params->create) {
        params->object.accepted.owners = pshm_owners_self();
    }
    if (params->shm == NULL && !has_name(params)
        && (owner != NULL || mode != NULL)) {
        const char *option = owner != NULL ? "owner" : "mode_at_most";
        PyErr_Format(PyExc_ValueError, "%s goes with a name: %s(name, %s=...)",
                     option, params->type->name, option);
        return -1;
    }
    struct pshm_accepted *accepted = &params->object.accepted;
    return arg_owners(params->state, owner, &accepted->owners) < 0
           || arg_mode_at_most(mode, &accepted->mode) < 0 ? -1 : 0;
}

int
placed_parse(placed_params *params)
{
    PyObject **options = params->options;
    for (int i = 0; params->type->none_is_default && i < PLACED_OWN_MAX; i++) {
        if (params->values[i] == Py_None) {
            params->values[i] = NULL;
        }
    }
    create_params *object = &params->object;
    create_params_init(object, params->shm == NULL && !has_name(params)
                                   ? PSHM_MEMFD : PSHM_NAMED);
    params->size = params->type->size;
    params->alignment = params->type->alignment;
    if (options[PLACED_ACL] == Py_None) {
        options[PLACED_ACL] = NULL;
    }
    if (check_name(params) < 0
        || arg_mode(options[PLACED_MODE], &object->spec.mode) < 0
        || arg_deletion(options[PLACED_DELETE], &object->deletion) < 0
        || arg_bool(options[PLACED_TRACK], &object->track) < 0
        || arg_bool(options[PLACED_CREATE], &params->create) < 0
        || arg_existing(options[PLACED_EXIST_OK], options[PLACED_STALE],
                        options[PLACED_REPLACE], &object->existing) < 0
        || check_option(params, "replace", object->existing.replace) < 0
        || check_option(params, "exist_ok", object->existing.exist_ok) < 0
        || check_option(params, "delete", object->deletion != DELETE_NOT) < 0
        || check_option(params, "track", object->track) < 0
        || check_option(params, "mode", options[PLACED_MODE] != NULL) < 0
        || check_option(params, "acl", options[PLACED_ACL] != NULL) < 0
        || parse_accepted(params) < 0) {
        return -1;
    }
    if (params->shm == NULL) {
        params->own = true;
        params->create = params->create || !has_name(params);
    }
    return params->type->parse == NULL ? 0 : params->type->parse(params);
}

/* ---- In memory that exists ---- */

/* The mapping that shm is or has: a new reference, or NULL. Its rights cannot
 * be removed from now on. */
static MemoryMapObject *
map_of(const placed_params *params, PyObject *shm, bool *readonly)
{
    MemoryMapObject *map;
    const char *type = params->type->name;
    if (PyObject_TypeCheck(shm, params->state->handle_type)) {
        Py_ssize_t size;
        (void)handle_current_size((SharedMemoryObject *)shm, &size);
        map = handle_take_map((SharedMemoryObject *)shm);
    }
    else if (Py_IS_TYPE(shm, params->state->mapping_type)) {
        map = (MemoryMapObject *)Py_NewRef(shm);
    }
    else {
        PyErr_Format(PyExc_TypeError,
                     "shm must be a SharedMemory or a MemoryMap, not %.200s",
                     Py_TYPE(shm)->tp_name);
        return NULL;
    }
    if (map != NULL && mapping_grant(map, readonly) < 0) {
        Py_CLEAR(map);
    }
    if (map != NULL && *readonly && (params->create || !params->type->reads)) {
        raise_errno_words(-EACCES, NULL,
                          "%s %s needs memory that can be written, and this "
                          "memory is read-only; open the SharedMemory without "
                          "readonly=True", placed_article(type), type);
        Py_CLEAR(map);
    }
    return map;
}

/* The position for messages. */
static PyObject *
describe_position(const PlacedObject *self, PyObject *name)
{
    return name == NULL ? PyUnicode_FromFormat("at offset %zd", self->offset)
           : self->own  ? PyUnicode_FromFormat("in the object %R", name)
                        : PyUnicode_FromFormat("at offset %zd of %R",
                                               self->offset, name);
}

static int
check_range(const placed_params *params, const PlacedObject *self,
            PyObject *position)
{
    const char *type = params->type->name;
    Py_ssize_t have = mapping_size(self->map), offset = self->offset;
    if (offset % params->alignment != 0) {
        PyErr_Format(PyExc_ValueError,
                     "offset must be a multiple of %zd, not %zd",
                     params->alignment, offset);
        return -1;
    }
    if (params->size > have || offset > have - params->size) {
        PyErr_Format(PyExc_ValueError,
                     "%s %s %U takes %zd bytes, past the end at %zd",
                     placed_article(type), type, position, params->size, have);
        return -1;
    }
    return 0;
}

/* A named primitive whose object is what another interface defines. */
static bool
is_file(const placed_params *params, PyObject *name)
{
    return params->own && params->type->file != NULL && name != NULL;
}

static int
check_file(const placed_params *params, PlacedObject *self, PyObject *name)
{
    const Py_ssize_t have = mapping_size(self->map);
    if (have >= params->type->file->size) {
        return 0;
    }
    raise_errno_words(-EINVAL, name,
                      "The object is not a %s: it has %zd bytes, and a %s has "
                      "%zd", params->type->name, have, params->type->name,
                      params->type->file->size);
    return -1;
}

/* Find the primitive in the memory of self, or make it. Returns 0 or -1. */
static int
open_memory(const placed_params *params, PlacedObject *self, PyObject *shm)
{
    int rc;
    PyObject *name =
        Py_IS_TYPE(shm, params->state->mapping_type)
            ? NULL : handle_name_object((SharedMemoryObject *)shm);
    if (is_file(params, name)) {
        rc = check_file(params, self, name);
    }
    else {
        PyObject *position = describe_position(self, name);
        rc = position == NULL ? -1 : check_range(params, self, position);
        if (rc == 0 && params->type->kind != PSHM_PRIMITIVE_NONE) {
            rc = placed_open_header(params, self, shm, position);
        }
        Py_XDECREF(position);
    }
    Py_XDECREF(name);
    return rc;
}

PyObject *
placed_open_in(const placed_params *params, PyObject *shm)
{
    const struct placed_type *type = params->type;
    Py_ssize_t offset = 0;
    if (params->offset != NULL
        && arg_offset(params->offset, "offset", &offset) < 0) {
        return NULL;
    }
    PlacedObject *self = as_placed(
        placed_alloc(placed_python_type(params->state, type)));
    if (self == NULL) {
        return NULL;
    }
    self->type = type;
    self->offset = offset;
    self->own = params->own;
    self->shm = Py_NewRef(shm);
    self->map = map_of(params, shm, &self->readonly);
    if (self->map == NULL || open_memory(params, self, shm) < 0
        || (type->attach != NULL && type->attach(self, params) < 0)) {
        Py_DECREF(self);
        return NULL;
    }
    return placed_complete(self);
}

/* ---- In an object of its own ---- */

/* With an exception set: unlink the object if this call created it. */
static void
discard_object(PyObject *shm)
{
    if (handle_was_created((SharedMemoryObject *)shm)) {
        PyObject *error = core_take_error();
        Py_XDECREF(handle_unlink(shm, NULL));
        PyErr_Clear();
        core_set_error(error);
    }
}

/* A named semaphore and another primitive can have the same name. Does the
 * object of the other sort exist, and what does it contain? */
static bool
find_other(const placed_params *params, enum pshm_primitive_kind *found)
{
    struct pshm_name name, other;
    int rc = arg_name(params->name, &other);
    if (rc == 0 && params->type->file == NULL) {
        name = other;
        rc = pshm_sem_name(&name, &other);
    }
    if (rc == 0) {
        Py_BEGIN_ALLOW_THREADS
        rc = pshm_primitive_named(&other, found);
        Py_END_ALLOW_THREADS
    }
    PyErr_Clear();
    return rc > 0;
}

static void
raise_absent(const placed_params *params)
{
    const bool file = params->type->file != NULL;
    const char *wanted = file ? "named semaphore" : params->type->name;
    const char *other = "named semaphore", *opener = "Semaphore";
    enum pshm_primitive_kind found = PSHM_PRIMITIVE_NONE;
    if (!find_other(params, &found)) {
        raise_errno_words(-ENOENT, params->name,
                          "No object has this name; %s(name, create=True) "
                          "creates one", params->type->name);
        return;
    }
    if (file) {
        other = opener = placed_kind_name(found);
        if (other == NULL || found == PSHM_PRIMITIVE_SEMAPHORE) {
            other = "shared memory object";
            opener = "SharedMemory.open";
        }
    }
    raise_errno_words(-ENOENT, params->name,
                      "There is %s %s of this name, which %s(name) opens, but "
                      "no %s; %s(name, create=True) creates one beside it, "
                      "because the object of a named semaphore is called "
                      "'sem.' and the name",
                      placed_article(other), other, opener, wanted,
                      params->type->name);
}

/* Called before another process can open the object. */
static int
fill_object(void *memory, void *context)
{
    const placed_params *params = context;
    int rc = params->type->file != NULL
                 ? params->type->file->init(memory, params->value)
                 : placed_make_header(params, memory);
    if (rc < 0) {
        raise_errno(rc, NULL);
        return -1;
    }
    return 0;
}

static PyObject *
create_object(placed_params *params, Py_ssize_t size)
{
    core_state *state = params->state;
    create_params *object = &params->object;
    object->spec.size = size;
    return create_params_set_acl(object, state, params->options[PLACED_ACL]) < 0
               ? NULL
               : handle_make(state, (PyObject *)state->handle_type, object);
}

static PyObject *
create_anonymous(placed_params *params)
{
    params->object.spec.label = "posixshm";
    return create_object(params, params->size);
}

static PyObject *
open_named(placed_params *params)
{
    const struct placed_file *file = params->type->file;
    create_params *object = &params->object;
    if ((file != NULL     ? file->name(params->name, &object->path)
         : params->create ? arg_new_name(params->name, &object->path)
                          : arg_name(params->name, &object->path)) < 0) {
        return NULL;
    }
    if (params->create) {
        object->name = params->name;
        object->spec.name = &object->path;
        object->fill = fill_object;
        object->how = params;
        return create_object(params, file != NULL ? file->size : params->size);
    }
    const attach_params attach = {.accepted = object->accepted};
    PyObject *shm = handle_attach_new(
        params->state, (PyObject *)params->state->handle_type, params->name,
        &object->path, &attach, 0);
    if (shm == NULL && PyErr_ExceptionMatches(PyExc_FileNotFoundError)) {
        PyErr_Clear();
        raise_absent(params);
    }
    return shm;
}

PyObject *
placed_open(placed_params *params)
{
    if (params->shm != NULL) {
        return placed_open_in(params, params->shm);
    }
    bool named = has_name(params);
    PyObject *shm = named ? open_named(params) : create_anonymous(params);
    if (shm == NULL) {
        return NULL;
    }
    params->create = !named;            /* else fill_object made it */
    PyObject *self = placed_open_in(params, shm);
    if (self == NULL) {
        discard_object(shm);
    }
    Py_DECREF(shm);
    return self;
}
