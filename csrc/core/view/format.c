#include "core/view/format.h"

#include <string.h>

#include "core/view/dlpack_abi.h"

static const struct {
    const char *name;
    enum item_kind kind;
    uint8_t size;
    uint8_t dl_code;                    /* of an opaque one */
} named[] = {
    {"bool", ITEM_BOOL, 1, 0},
    {"int8", ITEM_INT, 1, 0},
    {"int16", ITEM_INT, 2, 0},
    {"int32", ITEM_INT, 4, 0},
    {"int64", ITEM_INT, 8, 0},
    {"uint8", ITEM_UINT, 1, 0},
    {"uint16", ITEM_UINT, 2, 0},
    {"uint32", ITEM_UINT, 4, 0},
    {"uint64", ITEM_UINT, 8, 0},
    {"float16", ITEM_FLOAT, 2, 0},
    {"float32", ITEM_FLOAT, 4, 0},
    {"float64", ITEM_FLOAT, 8, 0},
    {"complex64", ITEM_COMPLEX, 8, 0},
    {"complex128", ITEM_COMPLEX, 16, 0},
    {"bfloat16", ITEM_OPAQUE, 2, DL_BFLOAT},
    {"float8_e3m4", ITEM_OPAQUE, 1, DL_FLOAT8_E3M4},
    {"float8_e4m3", ITEM_OPAQUE, 1, DL_FLOAT8_E4M3},
    {"float8_e4m3b11fnuz", ITEM_OPAQUE, 1, DL_FLOAT8_E4M3B11FNUZ},
    {"float8_e4m3fn", ITEM_OPAQUE, 1, DL_FLOAT8_E4M3FN},
    {"float8_e4m3fnuz", ITEM_OPAQUE, 1, DL_FLOAT8_E4M3FNUZ},
    {"float8_e5m2", ITEM_OPAQUE, 1, DL_FLOAT8_E5M2},
    {"float8_e5m2fnuz", ITEM_OPAQUE, 1, DL_FLOAT8_E5M2FNUZ},
    {"float8_e8m0fnu", ITEM_OPAQUE, 1, DL_FLOAT8_E8M0FNU},
};

/* ---- Scalars ---- */

static int
set_text(struct item_format *out, const char *text)
{
    out->text = PyUnicode_FromString(text);
    return out->text == NULL ? -1 : 0;
}

/* The character of a number in the struct module; 0: it has none.  standard:
 * with sizes that are the same everywhere. */
static char
number_code(enum item_kind kind, Py_ssize_t size, bool standard)
{
    static const char ints[] = "bhil", uints[] = "BHIL", floats[] = " efdg";
    int power = size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2
                : size == 8 ? 3 : size == 16 ? 4 : 5;
    if (kind == ITEM_FLOAT && power >= 1 && power <= (standard ? 3 : 4)) {
        return floats[power];
    }
    if (power > 3) {
        return 0;
    }
    if (kind == ITEM_INT) {
        return standard && power == 3 ? 'q' : ints[power];
    }
    if (kind == ITEM_UINT) {
        return standard && power == 3 ? 'Q' : uints[power];
    }
    return kind == ITEM_BOOL && power == 0 ? '?' : 0;
}

static void
set_dlpack(struct item_format *out)
{
    static const struct {
        enum item_kind kind;
        uint8_t code;
    } codes[] = {
        {ITEM_INT, DL_INT},         {ITEM_UINT, DL_UINT},
        {ITEM_FLOAT, DL_FLOAT},     {ITEM_COMPLEX, DL_COMPLEX},
        {ITEM_BOOL, DL_BOOL},
    };
    bool extended = out->kind == ITEM_FLOAT ? out->size > 8 : out->size > 16;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(codes); i++) {
        if (codes[i].kind == out->kind && !out->swapped && !extended) {
            out->dl_code = codes[i].code;
            out->dl_bits = (uint8_t)(out->size * 8);
        }
    }
}

/* Returns 1 where it is such a number, 0 where it is not, -1 with an
 * exception.  code: the character that it was called by, or 0. */
static int
set_number(struct item_format *out, enum item_kind kind, Py_ssize_t size,
           bool swapped, char code)
{
    char text[4] = {0}, *at = text;
    swapped = swapped && size > 1;
    if (swapped) {
        *at++ = PY_BIG_ENDIAN ? '<' : '>';
    }
    if (kind == ITEM_COMPLEX) {
        *at++ = 'Z';
        *at = number_code(ITEM_FLOAT, size / 2, swapped);
        if (size < 8 || size % 2 != 0) {
            return 0;
        }
    }
    else {
        *at = code != 0 && !swapped ? code
                                    : number_code(kind, size, swapped);
    }
    if (*at == 0 || set_text(out, text) < 0) {
        return *at == 0 ? 0 : -1;
    }
    out->kind = kind;
    out->size = size;
    out->swapped = swapped;
    out->in_buffers = true;
    set_dlpack(out);
    if (size > (kind == ITEM_COMPLEX ? 16 : 8)) {
        out->kind = ITEM_OPAQUE;        /* long double */
    }
    return 1;
}

int
format_named(struct item_format *out, const char *text, bool opaque_only)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(named); i++) {
        if (strcmp(text, named[i].name) != 0
            || (opaque_only && named[i].kind != ITEM_OPAQUE)) {
            continue;
        }
        if (named[i].kind != ITEM_OPAQUE) {
            return set_number(out, named[i].kind, named[i].size, false, 0);
        }
        if (set_text(out, text) < 0) {
            return -1;
        }
        out->size = named[i].size;
        out->dl_code = named[i].dl_code;
        out->dl_bits = (uint8_t)(named[i].size * 8);
        return 1;
    }
    return 0;
}

/* ---- Strings: struct's, PEP 3118's, numpy's ---- */

/* A decimal number that is all of text up to end; -1: it is none, or absurd. */
static long
decimal(const char *text, const char *end)
{
    long number = 0;
    if (text == end) {
        return -1;
    }
    for (; text < end; text++) {
        if (*text < '0' || *text > '9' || number > INT_MAX / 10) {
            return -1;
        }
        number = number * 10 + (*text - '0');
    }
    return number;
}

/* numpy's: a letter and a number, of bytes or of characters. */
static int
set_numpy_style(struct item_format *out, const char *text, bool swapped)
{
    char buffer[24];
    long number = decimal(text + 1, text + strlen(text));
    if (number <= 0) {
        return 0;
    }
    switch (text[0]) {
    case 'i':
    case 'u':
    case 'f':
    case 'c':
    case 'b':
        return set_number(out, (enum item_kind)text[0], number, swapped, 0);
    case 'S':
    case 'V':
        out->kind = ITEM_STRUCT;
        out->size = number;
        PyOS_snprintf(buffer, sizeof(buffer), "%ld%c", number,
                      text[0] == 'S' ? 's' : 'x');
        break;
    case 'U':
        out->kind = ITEM_TEXT;
        out->swapped = swapped;
        out->size = (Py_ssize_t)number * 4;
        PyOS_snprintf(buffer, sizeof(buffer), "%s%ldw",
                      !swapped ? "" : PY_BIG_ENDIAN ? "<" : ">", number);
        break;
    default:
        return 0;
    }
    out->in_buffers = true;
    return set_text(out, buffer) < 0 ? -1 : 1;
}

/* PEP 3118's: complex numbers, long double, characters of 4 bytes. */
static int
set_extended(struct item_format *out, const char *text, bool swapped)
{
    static const char letters[] = "FDG", parts[] = "fdg";
    size_t length = strlen(text);
    const char *letter = length == 1 ? strchr(letters, text[0]) : NULL;
    const char *part = length == 2 && text[0] == 'Z'
                           ? strchr(parts, text[1])
                           : NULL;
    if (letter != NULL || part != NULL) {
        Py_ssize_t size = letter != NULL ? 8 << (letter - letters)
                                         : 8 << (part - parts);
        return set_number(out, ITEM_COMPLEX, size, swapped, 0);
    }
    if (strcmp(text, "g") == 0) {
        return set_number(out, ITEM_FLOAT, 16, swapped, 0);
    }
    if (length > 1 && text[length - 1] == 'w') {
        char buffer[24];
        long number = decimal(text, text + length - 1);
        if (number > 0) {
            PyOS_snprintf(buffer, sizeof(buffer), "U%ld", number);
            return set_numpy_style(out, buffer, swapped);
        }
    }
    return 0;
}

/* A single character of the struct module that is a number. */
static int
set_struct_number(struct item_format *out, char code, bool native,
                  bool swapped)
{
    static const struct {
        char code;
        enum item_kind kind;
        uint8_t standard, native;       /* bytes; 0: not there */
    } codes[] = {
        {'?', ITEM_BOOL, 1, 1},
        {'b', ITEM_INT, 1, 1},
        {'B', ITEM_UINT, 1, 1},
        {'h', ITEM_INT, 2, sizeof(short)},
        {'H', ITEM_UINT, 2, sizeof(short)},
        {'i', ITEM_INT, 4, sizeof(int)},
        {'I', ITEM_UINT, 4, sizeof(int)},
        {'l', ITEM_INT, 4, sizeof(long)},
        {'L', ITEM_UINT, 4, sizeof(long)},
        {'q', ITEM_INT, 8, sizeof(long long)},
        {'Q', ITEM_UINT, 8, sizeof(long long)},
        {'n', ITEM_INT, 0, sizeof(Py_ssize_t)},
        {'N', ITEM_UINT, 0, sizeof(size_t)},
        {'e', ITEM_FLOAT, 2, 2},
        {'f', ITEM_FLOAT, 4, 4},
        {'d', ITEM_FLOAT, 8, 8},
    };
    for (size_t i = 0; i < Py_ARRAY_LENGTH(codes); i++) {
        if (codes[i].code == code) {
            int size = native ? codes[i].native : codes[i].standard;
            return size == 0 ? 0
                             : set_number(out, codes[i].kind, size, swapped,
                                          native ? code : 0);
        }
    }
    return 0;
}

/* Whatever else the struct module takes. */
static int
set_struct(struct item_format *out, PyObject *text)
{
    PyObject *module = PyImport_ImportModule("struct");
    PyObject *size = module == NULL ? NULL
                                    : PyObject_CallMethod(module, "calcsize",
                                                          "O", text);
    Py_XDECREF(module);
    if (size == NULL) {
        return -1;
    }
    out->size = PyLong_AsSsize_t(size);
    Py_DECREF(size);
    if (out->size < 0) {
        return -1;
    }
    if (out->size == 0) {
        PyErr_Format(PyExc_ValueError, "items of format %R have no bytes",
                     text);
        return -1;
    }
    out->kind = ITEM_STRUCT;
    out->in_buffers = true;
    out->text = PyUnicode_FromObject(text);     /* not one of a subclass */
    return out->text == NULL ? -1 : 1;
}

static int
raise_format(PyObject *value)
{
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_Exception)
            || PyErr_ExceptionMatches(PyExc_ImportError)
            || PyErr_ExceptionMatches(PyExc_MemoryError)
            || PyErr_ExceptionMatches(PyExc_RecursionError)) {
            return -1;
        }
        PyErr_Clear();
    }
    PyErr_Format(PyExc_ValueError,
                 "bad format %R: it must be one of the struct module, such as "
                 "'f' or '<hh', a dtype of numbers, bytes or text, such as "
                 "'<f4' or 'float32', one that DLPack has, such as "
                 "'bfloat16', or, once numpy is imported, what numpy.dtype() "
                 "takes",
                 value);
    return -1;
}

int
format_text(PyObject *value, struct item_format *out)
{
    Py_ssize_t length;
    const char *text = PyUnicode_AsUTF8AndSize(value, &length);
    if (text == NULL || length == 0 || strlen(text) != (size_t)length) {
        return raise_format(value);
    }
    int rc = format_is_time(text)
                 ? format_dtype(out, value)
                 : format_named(out, text, false);
    if (rc != 0) {
        return rc < 0 ? raise_format(value) : rc;
    }
    char prefix = strchr("@=<>!|", text[0]) != NULL ? text[0] : 0;
    const char *rest = prefix != 0 ? text + 1 : text;
    bool native = prefix == 0 || prefix == '@';
    bool swapped = PY_BIG_ENDIAN ? prefix == '<'
                                 : prefix == '>' || prefix == '!';
    if (prefix != '@' && prefix != '!') {
        rc = set_numpy_style(out, rest, swapped);
    }
    if (rc == 0 && prefix != '|') {
        rc = set_extended(out, rest, swapped);
    }
    if (rc == 0 && prefix != '|' && strlen(rest) == 1) {
        rc = set_struct_number(out, rest[0], native, swapped);
    }
    if (rc == 0) {
        rc = set_struct(out, value);
    }
    return rc < 0 ? raise_format(value) : rc;
}

/* A str that format_text raised ValueError for, by numpy if it is imported.
 * Returns as format_dtype, or with that error. */
static int
format_by_numpy(struct item_format *out, PyObject *value)
{
    PyObject *type, *error, *trace, *name, *numpy;
    PyErr_Fetch(&type, &error, &trace);
    name = PyUnicode_FromString("numpy");
    numpy = name == NULL ? NULL : PyImport_GetModule(name);
    Py_XDECREF(name);
    PyObject *dtype = numpy == NULL ? NULL
                                    : PyObject_CallMethod(numpy, "dtype",
                                                          "(O)", value);
    Py_XDECREF(numpy);
    if (dtype == NULL) {
        bool refused = !PyErr_Occurred()
                       || PyErr_ExceptionMatches(PyExc_TypeError)
                       || PyErr_ExceptionMatches(PyExc_ValueError);
        if (refused) {
            PyErr_Restore(type, error, trace);
            return -1;
        }
    }
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(trace);
    int rc = dtype == NULL ? -1 : format_dtype(out, dtype);
    Py_XDECREF(dtype);
    return rc;
}

int
format_parse(PyObject *value, struct item_format *out)
{
    struct item_format format = {0};
    if (value == Py_None) {             /* which numpy takes for float64 */
        PyErr_SetString(PyExc_TypeError,
                        "format must be a str or a dtype, not None");
        return -1;
    }
    int rc = PyUnicode_Check(value) ? format_text(value, &format)
                                    : format_dtype(&format, value);
    if (rc < 0 && PyUnicode_Check(value)
        && PyErr_ExceptionMatches(PyExc_ValueError)) {
        rc = format_by_numpy(&format, value);
    }
    if (rc < 0) {
        return -1;
    }
    *out = format;
    return 0;
}
