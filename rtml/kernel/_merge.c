/* What windows over an entity's tiles and records are worth: `rtml.answer` for aggregates of fixed width, compiled.
 *
 * Formats are those of rtml/online/codec.py, and which windows count what is said by rtml/gathered.py.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "what Redis holds is little endian"
#endif

#include "_families.h"

enum { COUNT, RATE, SUM, SUM_RATE, MEAN, VARIANCE, STDDEV, BEST, END };
enum { PREFIX = 5, LEAST_TIME = 4, WIDTH = 8, MOST_LANES = 255 };
enum { MOST_FAMILIES = 64, MOST_WINDOWS = 64, MOST_FEATURES = 512 };

/* One feature: what is made of which family's state in which window. */
typedef struct {
    int kind, window, family;
} Feature;

typedef struct {
    int64_t start, end;
    int settled; /* the right edge lies in the past: what was published behind it does not count */
} Window;

typedef struct {
    const char *data; /* the first record */
    Py_ssize_t count, size, time;
    int64_t base;
} Records;

typedef struct {
    PyObject_HEAD
    int families, features, windows, lanes;
    Py_ssize_t state, narrow_time; /* bytes */
    Family family[MOST_FAMILIES];
    Feature feature[MOST_FEATURES];
} Merger;

static void add_record(const Merger *self, Cell *cells, int64_t time, const char *values) {
    const char *nulls = values + WIDTH * (1 + self->lanes);
    uint64_t id = load_u64(values);
    for (int number = 0; number < self->families; number++) {
        const Family *family = &self->family[number];
        int lane = family->lane;
        if (family->kind == ROWS)
            cells[number].n++;
        else if (!(nulls[lane / 8] >> (lane % 8) & 1))
            add_value(family, &cells[number], time, id, values + WIDTH * (1 + lane));
    }
}

/* --------------------------------------------------------------------------------------- which windows count what */

/* Whether a tile counts whole as far as a window's right edge goes: also when that cuts it, but nothing is behind. */
static int whole(const Window *window, int64_t end, int64_t latest) {
    return end <= window->end || (!window->settled && latest < window->end);
}

/* Whether what covers a tile or records counts instead of them. */
static int covered(const Window *window, const int64_t *parent, int64_t latest) {
    return parent[0] >= window->start && parent[0] < window->end && whole(window, parent[1], latest);
}

static void add_tile(const Merger *self, const Window *windows, Cell *cells, const char *state, const int64_t *bounds,
                     int64_t latest) {
    for (int number = 0; number < self->windows; number++) {
        const Window *window = &windows[number];
        if (bounds[0] < window->start || bounds[0] >= window->end || !whole(window, bounds[1], latest)) continue;
        if (covered(window, bounds + 2, latest)) continue;
        for (int family = 0; family < self->families; family++)
            add_state(&self->family[family], &cells[number * self->families + family], state);
    }
}

/* `parent` bounds the tile that counts instead where it can; NULL where none does. */
static void add_records(const Merger *self, const Window *windows, Cell *cells, Records records, const int64_t *parent,
                        int64_t latest) {
    for (int number = 0; number < self->windows; number++) {
        const Window *window = &windows[number];
        if (parent && covered(window, parent, latest)) continue;
        const char *at = records.data;
        for (Py_ssize_t left = records.count; left > 0; left--, at += records.size) {
            uint32_t narrow = 0;
            int64_t time;
            if (records.time == LEAST_TIME) {
                memcpy(&narrow, at, sizeof narrow);
                time = later(records.base, narrow);
            } else
                time = later(records.base, load_u64(at));
            if (time >= window->start && time < window->end)
                add_record(self, cells + number * self->families, time, at + records.time);
        }
    }
}

/* ------------------------------------------------------------------------------------------------------- entities */

static int take_records(const Merger *self, Records *found, PyObject *data, Py_ssize_t skip, Py_ssize_t time,
                        int64_t base) {
    if (!PyBytes_Check(data)) {
        PyErr_SetString(PyExc_TypeError, "records must be bytes");
        return -1;
    }
    found->size = time + WIDTH * (1 + self->lanes) + (self->lanes + 7) / 8;
    Py_ssize_t length = PyBytes_GET_SIZE(data) - skip;
    if (length % found->size) {
        PyErr_Format(PyExc_ValueError, "records must be %zd bytes each; got %zd in all", found->size, length);
        return -1;
    }
    found->data = PyBytes_AS_STRING(data) + skip;
    found->count = length / found->size;
    found->time = time;
    found->base = base;
    return 0;
}

/* `geometry` has for each value whether it is of the finest level, its bounds, and those of the next coarser tile. */
static int merge_values(const Merger *self, const Window *windows, Cell *cells, PyObject *values, PyObject *geometry,
                        int64_t latest) {
    Py_ssize_t count = PyList_GET_SIZE(values);
    if (PyBytes_GET_SIZE(geometry) != count * 5 * WIDTH) {
        PyErr_Format(PyExc_ValueError, "%zd tiles have a geometry of %zd bytes", count, PyBytes_GET_SIZE(geometry));
        return -1;
    }
    for (Py_ssize_t place = 0; place < count; place++) {
        PyObject *value = PyList_GET_ITEM(values, place);
        if (value == Py_None) continue;
        int64_t bounds[5];
        memcpy(bounds, PyBytes_AS_STRING(geometry) + place * sizeof bounds, sizeof bounds);
        if (!PyBytes_Check(value) || PyBytes_GET_SIZE(value) < 1) {
            PyErr_SetString(PyExc_ValueError, "a tile must be some bytes");
            return -1;
        }
        if (PyBytes_AS_STRING(value)[0] == 'R') {
            Records records;
            if (take_records(self, &records, value, 1, bounds[0] ? self->narrow_time : WIDTH, bounds[1])) return -1;
            add_records(self, windows, cells, records, bounds + 3, latest);
        } else if (PyBytes_GET_SIZE(value) == PREFIX + self->state)
            add_tile(self, windows, cells, PyBytes_AS_STRING(value) + PREFIX, bounds + 1, latest);
        else {
            PyErr_Format(PyExc_ValueError, "a state must be %zd bytes; got %zd", PREFIX + self->state,
                         PyBytes_GET_SIZE(value));
            return -1;
        }
    }
    return 0;
}

/* The raw records of finest tiles that an edge cuts: (data, the tile's start, its end). */
static int merge_edges(const Merger *self, const Window *windows, Cell *cells, PyObject *edges, int64_t latest) {
    for (Py_ssize_t number = 0; number < PyList_GET_SIZE(edges); number++) {
        PyObject *data;
        long long start, end;
        Records records;
        PyObject *edge = PyList_GetItem(edges, number);
        if (!edge || !PyArg_ParseTuple(edge, "SLL", &data, &start, &end)) return -1;
        int64_t parent[2] = {start, end};
        if (take_records(self, &records, data, 0, self->narrow_time, start)) return -1;
        add_records(self, windows, cells, records, parent, latest);
    }
    return 0;
}

/* An entity: (values, geometry, edges, late records or None, its latest event's time). */
static int merge_entity(const Merger *self, const Window *windows, Cell *cells, PyObject *entity) {
    PyObject *values, *geometry, *edges, *late;
    long long latest;
    Records records;
    if (!PyArg_ParseTuple(entity, "O!SO!OL", &PyList_Type, &values, &geometry, &PyList_Type, &edges, &late, &latest))
        return -1;
    if (merge_values(self, windows, cells, values, geometry, latest)) return -1;
    if (merge_edges(self, windows, cells, edges, latest)) return -1;
    if (late == Py_None) return 0;
    if (take_records(self, &records, late, 1, WIDTH, 0)) return -1;
    add_records(self, windows, cells, records, NULL, latest);
    return 0;
}

/* --------------------------------------------------------------------------------------------------------- values */

static PyObject *sum_of(int number, const Family *family, const Cell *cell) {
    if (family->kind == SUM_FLOAT) return PyFloat_FromDouble(total(family, cell));
    if (cell->whole > INT64_MAX || cell->whole < INT64_MIN) return PyErr_Format(PyExc_OverflowError, "%d", number);
    return PyLong_FromLongLong((int64_t)cell->whole);
}

static PyObject *value_of(const Merger *self, const Window *windows, const Cell *cells, int number) {
    const Feature *feature = &self->feature[number];
    const Family *family = &self->family[feature->family];
    const Window *window = &windows[feature->window];
    const Cell *cell = &cells[feature->window * self->families + feature->family];
    double seconds = (double)(window->end - window->start) / 1e6;
    if (feature->kind == COUNT) return PyLong_FromLongLong(cell->n);
    if (feature->kind == RATE) return PyFloat_FromDouble((double)cell->n / seconds);
    int spread = feature->kind == VARIANCE || feature->kind == STDDEV;
    if (cell->n <= spread) Py_RETURN_NONE;
    double variance = cell->m2 / (double)(cell->n - 1);
    switch (feature->kind) {
    case SUM: return sum_of(number, family, cell);
    case SUM_RATE: return PyFloat_FromDouble(total(family, cell) / seconds);
    case MEAN: return PyFloat_FromDouble(total(family, cell) / (double)cell->n);
    case VARIANCE: return PyFloat_FromDouble(variance);
    case STDDEV: return PyFloat_FromDouble(sqrt(variance));
    default: return number_of(family, cell);
    }
}

static int take_windows(const Merger *self, PyObject *given, Window *windows) {
    if (PyList_GET_SIZE(given) != self->windows) {
        PyErr_Format(PyExc_ValueError, "there are %d windows; got %zd", self->windows, PyList_GET_SIZE(given));
        return -1;
    }
    for (int number = 0; number < self->windows; number++) {
        long long start, end;
        PyObject *window = PyList_GetItem(given, number);
        if (!window || !PyArg_ParseTuple(window, "LLp", &start, &end, &windows[number].settled)) return -1;
        windows[number].start = start;
        windows[number].end = end;
    }
    return 0;
}

static PyObject *empty_columns(int features, Py_ssize_t rows) {
    PyObject *columns = PyList_New(features);
    for (int number = 0; columns && number < features; number++) {
        PyObject *column = PyList_New(rows);
        if (!column) Py_CLEAR(columns);
        else PyList_SET_ITEM(columns, number, column);
    }
    return columns;
}

static PyObject *merge(Merger *self, PyObject *arguments) {
    PyObject *entities, *given;
    int salts;
    Window windows[MOST_WINDOWS];
    size_t room = sizeof(Cell) * self->windows * self->families;
    if (!PyArg_ParseTuple(arguments, "O!O!i", &PyList_Type, &entities, &PyList_Type, &given, &salts)) return NULL;
    if (take_windows(self, given, windows)) return NULL;
    if (salts < 1) return PyErr_Format(PyExc_ValueError, "there must be at least one partial state; got %d", salts);
    Py_ssize_t rows = PyList_GET_SIZE(entities) / salts;
    PyObject *columns = empty_columns(self->features, rows);
    Cell *cells = PyMem_Malloc(room);
    if (!columns || !cells) {
        PyErr_NoMemory();
        goto failed;
    }
    for (Py_ssize_t row = 0; row < rows; row++) {
        memset(cells, 0, room);
        for (int salt = 0; salt < salts; salt++) {
            PyObject *entity = PyList_GetItem(entities, row * salts + salt);
            if (!entity || merge_entity(self, windows, cells, entity)) goto failed;
        }
        for (int number = 0; number < self->features; number++) {
            PyObject *value = value_of(self, windows, cells, number);
            if (!value) goto failed;
            PyList_SET_ITEM(PyList_GET_ITEM(columns, number), row, value);
        }
    }
    PyMem_Free(cells);
    return columns;
failed:
    PyMem_Free(cells);
    Py_XDECREF(columns);
    return NULL;
}

/* -------------------------------------------------------------------------------------------------------- the type */

static int take_families(Merger *self, PyObject *given) {
    for (int number = 0; number < self->families; number++) {
        Family *family = &self->family[number];
        if (!PyArg_ParseTuple(PyList_GET_ITEM(given, number), "innii", &family->kind, &family->at, &family->weight,
                              &family->lane, &family->as))
            return -1;
        int is_in_state = family->at >= 0 && family->at <= self->state - columns_of(family->kind) * WIDTH &&
                          family->weight >= 0 && family->weight <= self->state - WIDTH;
        int is_in_record = family->lane >= 0 && (family->kind == ROWS || family->lane < self->lanes);
        if (!is_in_state || !is_in_record) {
            PyErr_Format(PyExc_ValueError, "family %d lies outside of its state or its record", number);
            return -1;
        }
    }
    return 0;
}

static int take_features(Merger *self, PyObject *given) {
    for (int number = 0; number < self->features; number++) {
        Feature *feature = &self->feature[number];
        if (!PyArg_ParseTuple(PyList_GET_ITEM(given, number), "iii", &feature->kind, &feature->window,
                              &feature->family))
            return -1;
        if (feature->window < 0 || feature->window >= self->windows || feature->family < 0 ||
            feature->family >= self->families) {
            PyErr_Format(PyExc_ValueError, "feature %d is of no window or no family", number);
            return -1;
        }
    }
    return 0;
}

/* Nothing is left of a layout that is refused: a merger of no windows merges nothing. */
static int init(Merger *self, PyObject *arguments, PyObject *keywords) {
    PyObject *families, *features;
    Py_ssize_t state, narrow_time;
    int windows, lanes;
    self->families = self->features = self->windows = 0;
    if (keywords && PyDict_GET_SIZE(keywords)) {
        PyErr_SetString(PyExc_TypeError, "Merger takes no keywords");
        return -1;
    }
    if (!PyArg_ParseTuple(arguments, "O!O!inni", &PyList_Type, &families, &PyList_Type, &features, &windows, &state,
                          &narrow_time, &lanes))
        return -1;
    if (PyList_GET_SIZE(families) > MOST_FAMILIES || PyList_GET_SIZE(features) > MOST_FEATURES || windows < 1 ||
        windows > MOST_WINDOWS || state < 0 || lanes < 0 || lanes > MOST_LANES ||
        (narrow_time != LEAST_TIME && narrow_time != WIDTH)) {
        PyErr_SetString(PyExc_ValueError, "there is no room for such a layout");
        return -1;
    }
    self->families = (int)PyList_GET_SIZE(families);
    self->features = (int)PyList_GET_SIZE(features);
    self->windows = windows;
    self->lanes = lanes;
    self->state = state;
    self->narrow_time = narrow_time;
    if (take_families(self, families) || take_features(self, features)) {
        self->families = self->features = self->windows = 0;
        return -1;
    }
    return 0;
}

static PyMethodDef methods[] = {
    {"merge", (PyCFunction)merge, METH_VARARGS, "Return a list of values for each feature, one for each entity."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject merger_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "rtml.kernel._merge.Merger",
    .tp_basicsize = sizeof(Merger),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "Merges what was read of entities, for the features of one plan.",
    .tp_methods = methods,
    .tp_init = (initproc)init,
    .tp_new = PyType_GenericNew,
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_merge", "See rtml.kernel.", -1, NULL};

PyMODINIT_FUNC PyInit__merge(void) {
    if (PyType_Ready(&merger_type) < 0) return NULL;
    PyObject *made = PyModule_Create(&module);
    if (!made || PyModule_AddObjectRef(made, "Merger", (PyObject *)&merger_type) < 0 ||
        PyModule_AddIntConstant(made, "MOST_FAMILIES", MOST_FAMILIES) < 0 ||
        PyModule_AddIntConstant(made, "MOST_WINDOWS", MOST_WINDOWS) < 0 ||
        PyModule_AddIntConstant(made, "MOST_FEATURES", MOST_FEATURES) < 0 ||
        PyModule_AddIntConstant(made, "MOST_LANES", MOST_LANES) < 0) {
        Py_XDECREF(made);
        return NULL;
    }
    return made;
}
