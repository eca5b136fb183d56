/* The compiled scanner of kineto traces: text in, columns out.
 *
 * It takes events of any JSON layout whose fields have the usual types. At the first event that is odd in any way
 * (types, escapes, numbers, UTF-8, damage) it stops, and the Python reader, which is the authority on all of that,
 * takes a block of text from there on. No Python object is made for an event, and the interpreter lock is free while
 * text is scanned.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_scan_tables.h"

typedef struct {
    PyObject_HEAD
    uint8_t *data;
    Py_ssize_t bytes;
} Column;

typedef struct {
    PyObject_HEAD
    Scan *scan;
    Py_buffer piece;
    Place at; /* in `piece`, if that is held */
    bool busy;
} Scanner;

typedef struct {
    PyTypeObject *column;
} Module;

static void column_dealloc(Column *self)
{
    PyTypeObject *const type = Py_TYPE(self);
    free(self->data);
    type->tp_free(self);
    Py_DECREF(type);
}

static int column_buffer(Column *self, Py_buffer *view, int flags)
{
    static uint8_t nothing;
    return PyBuffer_FillInfo(view, (PyObject *)self, self->data ? self->data : &nothing, self->bytes, 0, flags);
}

static PyType_Slot column_slots[] = {
    {Py_tp_doc, "Memory of one column."},
    {Py_tp_dealloc, column_dealloc},
    {Py_bf_getbuffer, column_buffer},
    {0, NULL},
};

static PyType_Spec column_spec = {
    "pytest_atomtrace.trace._scan.Column", sizeof(Column), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, column_slots,
};

static PyObject *scanner_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"detail", NULL};
    int detail = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$p:Scanner", names, &detail)) {
        return NULL;
    }
    Scanner *const self = (Scanner *)type->tp_alloc(type, 0);
    if (!self) {
        return NULL;
    }
    self->scan = calloc(1, sizeof *self->scan);
    if (!self->scan) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    self->scan->detail = detail;
    self->scan->last_thread = -1;
    return (PyObject *)self;
}

static void scanner_release(Scanner *self)
{
    PyBuffer_Release(&self->piece);
    self->at = NULL;
}

static void scanner_dealloc(Scanner *self)
{
    PyTypeObject *const type = Py_TYPE(self);
    scanner_release(self);
    if (self->scan) {
        scan_free(self->scan);
        free(self->scan);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

/* False, with an error set, while another thread feeds. */
static bool is_free(const Scanner *self)
{
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "the scanner is at work in another thread");
    }
    return !self->busy;
}

static PyObject *scanner_feed(Scanner *self, PyObject *piece)
{
    if (!is_free(self)) {
        return NULL;
    }
    scanner_release(self);
    if (PyObject_GetBuffer(piece, &self->piece, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    static const uint8_t nothing[1] = {0};
    Place at = self->piece.len ? self->piece.buf : nothing;
    Why why = FINE;
    State state;
    self->busy = true;
    Py_BEGIN_ALLOW_THREADS
    state = scan_piece(self->scan, &at, at + self->piece.len, &why);
    Py_END_ALLOW_THREADS
    self->busy = false;
    if (why == NO_MEMORY) {
        scanner_release(self);
        return PyErr_NoMemory();
    }
    if (state == MORE) {
        scanner_release(self);
    } else {
        self->at = at;
    }
    return PyLong_FromLong(state);
}

static PyObject *scanner_rest(Scanner *self, PyObject *unused)
{
    (void)unused;
    if (!is_free(self)) {
        return NULL;
    }
    Scan *const scan = self->scan;
    const Py_ssize_t piece = self->at ? (Py_ssize_t)((Place)self->piece.buf + self->piece.len - self->at) : 0;
    /* An empty piece has a place of its own, from which no length can be told. */
    const Py_ssize_t behind = self->piece.len ? piece : 0;
    PyObject *const text = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)scan->carried + behind);
    if (!text) {
        return NULL;
    }
    char *const out = PyBytes_AS_STRING(text);
    if (scan->carried) {
        memcpy(out, scan->carry, scan->carried);
    }
    if (behind) {
        memcpy(out + scan->carried, self->at, (size_t)behind);
    }
    scan->carried = scan->carry_wanted = 0;
    scan->where = AT_START;
    scanner_release(self);
    return text;
}

static PyObject *scanner_name(Scanner *self, PyObject *name)
{
    Py_ssize_t length;
    if (!is_free(self)) {
        return NULL;
    }
    const char *const text = PyUnicode_AsUTF8AndSize(name, &length);
    if (!text) {
        return NULL;
    }
    Why why = FINE;
    const int32_t entry = name_entry(&self->scan->names, (Place)text, (size_t)length, false, &why);
    return entry < 0 ? PyErr_NoMemory() : PyLong_FromLong(self->scan->names.entries[entry].number);
}

static PyObject *scanner_thread(Scanner *self, PyObject *token)
{
    char *text;
    Py_ssize_t length;
    if (!is_free(self) || PyBytes_AsStringAndSize(token, &text, &length) < 0) {
        return NULL;
    }
    Why why = FINE;
    const int32_t entry = name_entry(&self->scan->threads, (Place)text, (size_t)length, false, &why);
    if (entry < 0 && why == ODD) {
        PyErr_SetString(PyExc_ValueError, "a thread's text is no UTF-8");
        return NULL;
    }
    return entry < 0 ? PyErr_NoMemory() : PyLong_FromLong(self->scan->threads.entries[entry].number);
}

static PyObject *scanner_add(Scanner *self, PyObject *args)
{
    unsigned int table;
    int name, where, extra;
    long long start, length, link;
    if (!is_free(self) || !PyArg_ParseTuple(args, "IiLLiLi:add", &table, &name, &start, &length, &where, &link, &extra)) {
        return NULL;
    }
    if (table >= TABLES) {
        PyErr_SetString(PyExc_ValueError, "there is no such table");
        return NULL;
    }
    if (!table_put(self->scan, table, name, start, length, where, link, extra)) {
        return PyErr_NoMemory();
    }
    Py_RETURN_NONE;
}

static PyObject *texts(const Names *names, PyObject *(*make)(const char *, Py_ssize_t))
{
    PyObject *const list = PyList_New(names->numbers);
    for (int32_t number = 0; list && number < names->numbers; number++) {
        const Name *const name = &names->entries[names->by_number[number]];
        PyObject *const text = make((const char *)names->text + name->place, (Py_ssize_t)name->length);
        if (!text) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, number, text);
    }
    return list;
}

static PyObject *decoded(const char *text, Py_ssize_t length)
{
    return PyUnicode_DecodeUTF8(text, length, "strict");
}

static PyObject *scanner_names(Scanner *self, PyObject *unused)
{
    (void)unused;
    return is_free(self) ? texts(&self->scan->names, decoded) : NULL;
}

static PyObject *scanner_threads(Scanner *self, PyObject *unused)
{
    (void)unused;
    return is_free(self) ? texts(&self->scan->threads, PyBytes_FromStringAndSize) : NULL;
}

static PyObject *scanner_columns(Scanner *self, PyObject *argument)
{
    const unsigned long table = PyLong_AsUnsignedLong(argument);
    if (!is_free(self) || (table == (unsigned long)-1 && PyErr_Occurred())) {
        return NULL;
    }
    if (table >= TABLES) {
        PyErr_SetString(PyExc_ValueError, "there is no such table");
        return NULL;
    }
    Table *const taken = &self->scan->tables[table];
    PyTypeObject *const type = ((Module *)PyType_GetModuleState(Py_TYPE(self)))->column;
    PyObject *const columns = PyTuple_New(COLUMNS);
    for (unsigned number = 0; columns && number < COLUMNS; number++) {
        if (!taken->count || !taken->columns[number]) {
            PyTuple_SET_ITEM(columns, number, Py_NewRef(Py_None));
            continue;
        }
        Column *const column = PyObject_New(Column, type);
        if (!column) {
            Py_DECREF(columns);
            return NULL;
        }
        const size_t bytes = taken->count * column_width((unsigned)table, number);
        uint8_t *const fitting = realloc(taken->columns[number], bytes);
        column->data = fitting ? fitting : taken->columns[number];
        column->bytes = (Py_ssize_t)bytes;
        taken->columns[number] = NULL;
        PyTuple_SET_ITEM(columns, number, (PyObject *)column);
    }
    if (columns) {
        for (unsigned number = 0; number < COLUMNS; number++) {
            free(taken->columns[number]);
            taken->columns[number] = NULL;
        }
        taken->count = taken->room = 0;
    }
    return columns;
}

static PyObject *scanner_events(Scanner *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(self->scan->events);
}

static PyObject *scanner_long_times(Scanner *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(self->scan->long_times);
}

static PyMethodDef scanner_methods[] = {
    {"feed", (PyCFunction)scanner_feed, METH_O,
     "Scan a piece of text; an empty one says that no more follows. Returns MORE, ENDED, LEFT or DAMAGED."},
    {"rest", (PyCFunction)scanner_rest, METH_NOARGS,
     "The text that was fed and not taken; the next piece starts between two events."},
    {"name", (PyCFunction)scanner_name, METH_O, "Number of a name."},
    {"thread", (PyCFunction)scanner_thread, METH_O, "Number of a thread, given as JSON of process, comma, thread."},
    {"add", (PyCFunction)scanner_add, METH_VARARGS,
     "Append a row to a table: name, start_ns, dur_ns, where, link, extra."},
    {"names", (PyCFunction)scanner_names, METH_NOARGS, "All names by number."},
    {"threads", (PyCFunction)scanner_threads, METH_NOARGS, "All threads by number, as given to `thread`."},
    {"columns", (PyCFunction)scanner_columns, METH_O,
     "Take the columns of a table away: name, start_ns, dur_ns, where, link, extra; None where there is none."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef scanner_properties[] = {
    {"events", (getter)scanner_events, NULL, "How many events were taken from text.", NULL},
    {"long_times", (getter)scanner_long_times, NULL, "Whether a table holds a time of 2**43 us or more.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot scanner_slots[] = {
    {Py_tp_doc, "Scanner(*, detail=False): the tables of one trace while its events are read."},
    {Py_tp_new, scanner_new},
    {Py_tp_dealloc, scanner_dealloc},
    {Py_tp_methods, scanner_methods},
    {Py_tp_getset, scanner_properties},
    {0, NULL},
};

static PyType_Spec scanner_spec = {
    "pytest_atomtrace.trace._scan.Scanner", sizeof(Scanner), 0, Py_TPFLAGS_DEFAULT, scanner_slots,
};

static int module_exec(PyObject *module)
{
    Module *const state = PyModule_GetState(module);
    state->column = (PyTypeObject *)PyType_FromModuleAndSpec(module, &column_spec, NULL);
    PyObject *const scanner = PyType_FromModuleAndSpec(module, &scanner_spec, NULL);
    const int failed = !state->column || !scanner || PyModule_AddObjectRef(module, "Scanner", scanner) < 0 ||
                       PyModule_AddIntConstant(module, "MORE", MORE) < 0 ||
                       PyModule_AddIntConstant(module, "ENDED", ENDED) < 0 ||
                       PyModule_AddIntConstant(module, "LEFT", LEFT) < 0 ||
                       PyModule_AddIntConstant(module, "DAMAGED", DAMAGED) < 0 ||
                       /* Raised with every change that the Python side must know of. */
                       PyModule_AddIntConstant(module, "VERSION", 1) < 0;
    Py_XDECREF(scanner);
    return failed ? -1 : 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    Module *const state = PyModule_GetState(module);
    Py_VISIT(state->column);
    return 0;
}

static int module_clear(PyObject *module)
{
    Module *const state = PyModule_GetState(module);
    Py_CLEAR(state->column);
    return 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "_scan",      "The compiled scanner of kineto traces.", sizeof(Module), NULL,
    module_slots,          module_traverse, module_clear,                          NULL,
};

PyMODINIT_FUNC PyInit__scan(void)
{
    return PyModuleDef_Init(&module_def);
}
