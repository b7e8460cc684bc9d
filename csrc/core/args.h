/* Arguments: matching them to their names, and making C values of them.
 *
 * A converter may run Python code (__index__, __bool__), so it comes before
 * any look at an object's own fields.  Each returns 0, or -1 with an exception
 * that names the value and the rule. */
#ifndef CORE_ARGS_H
#define CORE_ARGS_H

#include "core/core.h"

#include "posix/object/attach.h"
#include "posix/object/name.h"

struct signature {
    const char *function;               /* for messages: "create" */
    int positional;                     /* how many may be given by position */
    int required;                       /* how many must be given */
    const char *const *names;           /* NULL-terminated */
};

/* Put each argument's borrowed reference, or NULL, into values, which has as
 * many places as there are names.  args[] and kwnames as METH_FASTCALL |
 * METH_KEYWORDS has them. */
int args_match(const struct signature *signature, PyObject *const *args,
               Py_ssize_t count, PyObject *kwnames, PyObject **values);

/* The same for a slot that gets a tuple and a dict. */
int args_match_dict(const struct signature *signature, PyObject *args,
                    PyObject *kwargs, PyObject **values);

/* Bytes, 1 to 2**63-1. */
int arg_size(PyObject *value, const char *what, Py_ssize_t *out);
/* Bytes, 0 to 2**63-1. */
int arg_offset(PyObject *value, const char *what, Py_ssize_t *out);
/* A number between two bounds; not a bool. */
int arg_long(PyObject *value, const char *what, long long least,
             long long most, long long *out);
/* NULL leaves *out as it is; so do the following. */
int arg_bool(PyObject *value, bool *out);
int arg_mode(PyObject *value, mode_t *out);
int arg_id(PyObject *value, const char *what, uint32_t *out);
/* Seconds, >= 0, perhaps infinite; None leaves *out as it is. */
int arg_seconds(PyObject *value, const char *what, double *out);
/* Seconds to wait; None: infinite; less than 0: 0. */
int arg_timeout(PyObject *value, double *out);

/* The argument owner=: "any", "self", a user, or a set, list or tuple of
 * users; a user is a uid or the name of a user. */
int arg_owners(PyObject *value, struct pshm_owners *out);

#define OWNER_ARGUMENT_DOC                                                    \
    "owner: whose object is accepted: 'self' (this process's user, or root),\n"\
    "'any', a uid, a user name, or a set of uids and user names.  It is\n"     \
    "checked on the open descriptor, so the name cannot change in between.\n"

/* The argument mode_at_most=; None leaves *out as it is. */
int arg_mode_at_most(PyObject *value, mode_t *out);

#define MODE_AT_MOST_DOC                                                      \
    "mode_at_most: the permissions that an accepted object may have, such as\n"\
    "0o600; None: any.  With an access control list the bits of the group are\n"\
    "its mask.\n"
/* The argument delete=: by which process the name is removed. */
enum deletion {
    DELETE_NOT,
    DELETE_OWN,                         /* True: this one, when it ends */
    DELETE_LAST,                        /* "last": the last that uses it */
};

int arg_deletion(PyObject *value, enum deletion *out);

/* The arguments exist_ok=, stale= and replace=: what is done with an object that
 * has the name of one that is to be made. */
struct existing {
    bool exist_ok;                      /* attach to it */
    enum stale { STALE_ATTACH, STALE_REPLACE, STALE_ERROR } stale;
    bool replace;
};

int arg_existing(PyObject *exist_ok, PyObject *stale, PyObject *replace,
                 struct existing *out);

#define STALE_DOC                                                            \
    "stale: what exist_ok=True does if no process uses the object, for which\n"\
    "the kernel must grant a write lease, " MAN(fcntl, 2) ": 'attach' to it;\n"\
    "'replace' it: the new object takes the name in one step; or 'error':\n"  \
    "raise FileExistsError.  If that is unknown the object counts as used.\n" \
    "replace: the new object takes the name in one step, and processes that\n"\
    "have the old one keep it.\n"

int arg_name(PyObject *value, struct pshm_name *out);

/* The same for a str that os.listdir() returned: it may have surrogates for bytes
 * that are not text. */
int arg_file_name(PyObject *value, struct pshm_name *out);
/* A name that an object is to get: not one of a POSIX semaphore, which
 * listdir() and reclaim() pass over. */
int arg_new_name(PyObject *value, struct pshm_name *out);

#endif
