#include "core/audit.h"

static PyObject *
truth(bool value)
{
    return value ? Py_True : Py_False;
}

int
audit_create(const struct pshm_name *name, Py_ssize_t size)
{
    return PySys_Audit("posixshm.create", "zn",
                       name == NULL ? NULL : pshm_name_plain(name), size);
}

int
audit_open(const struct pshm_name *name, bool readonly)
{
    return PySys_Audit("posixshm.open", "sO", pshm_name_plain(name),
                       truth(readonly));
}

int
audit_unlink(const struct pshm_name *name)
{
    return PySys_Audit("posixshm.unlink", "s", pshm_name_plain(name));
}

int
audit_link(const struct pshm_name *name, bool replace)
{
    return PySys_Audit("posixshm.link", "sO", pshm_name_plain(name),
                       truth(replace));
}

int
audit_rename(const struct pshm_name *from, const struct pshm_name *to,
             bool replace)
{
    return PySys_Audit("posixshm.rename", "ssO", pshm_name_plain(from),
                       pshm_name_plain(to), truth(replace));
}

int
audit_reclaim(const char *prefix, double older_than, bool force)
{
    PyObject *age = older_than < 0 ? Py_NewRef(Py_None)
                                   : PyFloat_FromDouble(older_than);
    if (age == NULL) {
        return -1;
    }
    int rc = PySys_Audit("posixshm.reclaim", "sOO", prefix, age,
                         truth(force));
    Py_DECREF(age);
    return rc;
}
