/* Matching arguments to parameters, and converting them to C values.
 *
 * A converter may run Python code (__index__, __bool__), so a function
 * converts its arguments before it reads the fields of an object. Each
 * converter returns 0, or -1 with an exception that names the value and the
 * rule. */
#ifndef CORE_ARGS_H
#define CORE_ARGS_H

#include "core/core.h"

#include "posix/object/attach.h"
#include "posix/object/name.h"

struct signature {
    const char *function;               /* the name of the function, for
                                           messages */
    int positional;                     /* number of parameters that may be
                                           positional */
    int required;                       /* number of required parameters */
    const char *const *names;           /* NULL-terminated */
};

/* Store a borrowed reference to each argument, or NULL, in values, which has
 * one element for each name. args and kwnames are those of METH_FASTCALL |
 * METH_KEYWORDS. */
int args_match(const struct signature *signature, PyObject *const *args,
               Py_ssize_t count, PyObject *kwnames, PyObject **values);

/* The same for a slot that gets a tuple and a dict. */
int args_match_dict(const struct signature *signature, PyObject *args,
                    PyObject *kwargs, PyObject **values);

/* Does an optional argument have a value other than None? */
static inline bool
arg_given(PyObject *value)
{
    return value != NULL && value != Py_None;
}

/* A size in bytes, 1 to 2**63-1. */
int arg_size(PyObject *value, const char *what, Py_ssize_t *out);
/* An offset in bytes, 0 to 2**63-1. */
int arg_offset(PyObject *value, const char *what, Py_ssize_t *out);
/* An int from least to most; not a bool. */
int arg_long(PyObject *value, const char *what, long long least,
             long long most, long long *out);
/* If value is NULL, *out is not changed. This also holds for the converters
 * below. */
int arg_bool(PyObject *value, bool *out);
int arg_mode(PyObject *value, mode_t *out);
int arg_id(PyObject *value, const char *what, uint32_t *out);
/* Seconds, >= 0, may be infinite. None does not change *out. */
int arg_seconds(PyObject *value, const char *what, double *out);
/* A timeout in seconds. None: infinity; a negative number: 0. */
int arg_timeout(PyObject *value, double *out);

/* The argument owner=: "any", "self", a user, or a set, list or tuple of
 * users. A user is a uid or a user name. */
int arg_owners(core_state *state, PyObject *value, struct pshm_owners *out);

#define OWNER_ARGUMENT_DOC                                                    \
    "owner: the owner of an accepted object: 'self' (the process's effective\n"\
    "user, or root), 'any', a uid, a user name, or a set of uids and names;\n" \
    "checked on the open descriptor.\n"

/* The argument mode_at_most=. None does not change *out. */
int arg_mode_at_most(PyObject *value, mode_t *out);

#define MODE_AT_MOST_DOC                                                      \
    "mode_at_most: the permissions that an accepted object may have, such as\n"\
    "0o600; None: any.  In an access control list, the mask counts as the\n"  \
    "bits of the group.\n"
/* The argument delete=: which process removes the name. */
enum deletion {
    DELETE_NOT,
    DELETE_OWN,                         /* True: this process */
    DELETE_LAST,                        /* "last": the last process that uses
                                           it */
};

int arg_deletion(PyObject *value, enum deletion *out);

/* The arguments exist_ok=, stale= and replace=: what a function does if an
 * object has the name of the new object. */
struct existing {
    bool exist_ok;                      /* attach to that object */
    enum stale { STALE_ATTACH, STALE_REPLACE, STALE_ERROR } stale;
    bool replace;
};

int arg_existing(PyObject *exist_ok, PyObject *stale, PyObject *replace,
                 struct existing *out);

#define STALE_DOC                                                            \
    "stale: what exist_ok=True does if no process uses the object: 'attach';\n"\
    "'replace': make a new object, which takes the name in one step; or\n"    \
    "'error': raise FileExistsError.  The proof is a write lease,\n"          \
    MAN(fcntl, 2) "; an object of unknown state counts as used.\n"            \
    "replace: the new object takes the name in one step.  Processes that\n"   \
    "have the old object keep it.\n"

int arg_name(PyObject *value, struct pshm_name *out);

/* The same for a str from os.listdir(), which may contain surrogate characters
 * in place of bytes that are not UTF-8. */
int arg_file_name(PyObject *value, struct pshm_name *out);
/* A name for a new object. The names of POSIX semaphores are not allowed,
 * because listdir() and reclaim() do not list them. */
int arg_new_name(PyObject *value, struct pshm_name *out);

#endif
