/* Families of rtml/algebra: how states and single values are merged into a cell, and what that is worth.
 *
 * Variance merges by Chan, Golub and LeVeque (1979); sums of floats are compensated by Neumaier (1974).
 */

enum {
    ROWS,
    SUM_FLOAT,
    SUM_INTEGER,
    SPREAD,
    LEAST_FLOAT,
    LEAST_INTEGER,
    GREATEST_FLOAT,
    GREATEST_INTEGER,
    FIRST,
    LAST
};
enum { AS_FLOAT, AS_INTEGER, AS_HASH };

/* How one family is merged: where its columns are in a packed state, and where in a record the value is. */
typedef struct {
    int kind;
    Py_ssize_t at;     /* in a state: its first column */
    Py_ssize_t weight; /* in a state: how many values there were */
    int lane;          /* in a record: which value */
    int as;
} Family;

/* The state of one family in one window. */
typedef struct {
    int64_t n;
    __int128 whole;
    double sum, mean, m2;
    double low; /* what the sum or the mean lost by rounding */
    int64_t time;
    uint64_t id, bits;
} Cell;

static int64_t load_i64(const char *at) { int64_t v; memcpy(&v, at, sizeof v); return v; }
static uint64_t load_u64(const char *at) { uint64_t v; memcpy(&v, at, sizeof v); return v; }
/* Of damaged bytes it may be any time: what wraps around is outside of all windows, or counts as what it says. */
static int64_t later(int64_t base, uint64_t more) { return (int64_t)((uint64_t)base + more); }
static double load_f64(const char *at) { double v; memcpy(&v, at, sizeof v); return v; }

static void add_float(Cell *cell, double value) {
    double sum = cell->sum + value;
    cell->low += fabs(cell->sum) >= fabs(value) ? (cell->sum - sum) + value : (value - sum) + cell->sum;
    cell->sum = sum;
}

/* The mean is kept in two words: beside a large one, what a small spread is measured by would be rounded away. */
static void add_spread(Cell *cell, int64_t before, int64_t weight, double mean, double m2) {
    if (before == 0) {
        cell->mean = mean;
        cell->m2 = m2;
        return;
    }
    double share = (double)weight / (double)(before + weight), delta = (mean - cell->mean) - cell->low;
    cell->m2 += m2 + delta * delta * (double)before * share;
    double step = cell->low + delta * share, moved = cell->mean + step, taken = moved - cell->mean;
    cell->low = (cell->mean - (moved - taken)) + (step - taken);
    cell->mean = moved;
}

/* As numpy's: NaN beats everything. */
static void keep_float(Cell *cell, int64_t before, double value, int greatest) {
    if (before == 0 || isnan(value) || (greatest ? value > cell->sum : value < cell->sum)) {
        if (before == 0 || !isnan(cell->sum)) cell->sum = value;
    }
}

static void keep_integer(Cell *cell, int64_t before, int64_t value, int greatest) {
    if (before == 0 || (greatest ? value > cell->time : value < cell->time)) cell->time = value;
}

static void keep_end(Cell *cell, int64_t time, uint64_t id, uint64_t bits, int last) {
    int later = time > cell->time || (time == cell->time && id > cell->id);
    if (cell->n == 0 || later == last) {
        cell->n = 1;
        cell->time = time;
        cell->id = id;
        cell->bits = bits;
    }
}

static void add_state(const Family *family, Cell *cell, const char *state) {
    const char *at = state + family->at;
    if (family->kind == ROWS) {
        cell->n += load_i64(at);
        return;
    }
    if (family->kind == FIRST || family->kind == LAST) {
        int64_t time = load_i64(at);
        if (time != (family->kind == LAST ? INT64_MIN : INT64_MAX))
            keep_end(cell, time, load_u64(at + 8), load_u64(at + 16), family->kind == LAST);
        return;
    }
    int64_t weight = load_i64(state + family->weight), before = cell->n;
    if (weight == 0) return;
    cell->n += weight;
    switch (family->kind) {
    case SUM_FLOAT: add_float(cell, load_f64(at)); break;
    case SUM_INTEGER: cell->whole += (__int128)load_i64(at) * ((__int128)1 << 32) + load_i64(at + 8); break;
    case SPREAD: add_spread(cell, before, weight, load_f64(at), load_f64(at + 8)); break;
    case LEAST_FLOAT: keep_float(cell, before, load_f64(at), 0); break;
    case GREATEST_FLOAT: keep_float(cell, before, load_f64(at), 1); break;
    case LEAST_INTEGER: keep_integer(cell, before, load_i64(at), 0); break;
    case GREATEST_INTEGER: keep_integer(cell, before, load_i64(at), 1); break;
    }
}

static void add_value(const Family *family, Cell *cell, int64_t time, uint64_t id, const char *at) {
    if (family->kind == FIRST || family->kind == LAST) {
        keep_end(cell, time, id, load_u64(at), family->kind == LAST);
        return;
    }
    int64_t before = cell->n++;
    double value = family->as == AS_FLOAT ? load_f64(at) : (double)load_i64(at);
    switch (family->kind) {
    case SUM_FLOAT: add_float(cell, value); break;
    case SUM_INTEGER: cell->whole += load_i64(at); break;
    case SPREAD: add_spread(cell, before, 1, value, 0.0); break;
    case LEAST_FLOAT: keep_float(cell, before, value, 0); break;
    case GREATEST_FLOAT: keep_float(cell, before, value, 1); break;
    case LEAST_INTEGER: keep_integer(cell, before, load_i64(at), 0); break;
    case GREATEST_INTEGER: keep_integer(cell, before, load_i64(at), 1); break;
    }
}

/* How many columns of eight bytes a family has in a state. */
static Py_ssize_t columns_of(int kind) {
    if (kind == FIRST || kind == LAST) return 3;
    return kind == SUM_INTEGER || kind == SPREAD ? 2 : 1;
}

static double total(const Family *family, const Cell *cell) {
    if (family->kind == SUM_INTEGER)
        return (double)(int64_t)(cell->whole >> 32) * 4294967296.0 + (double)(int64_t)(cell->whole & 0xffffffff);
    double sum = cell->sum + cell->low;
    return isfinite(sum) ? sum : cell->sum;
}

static PyObject *number_of(const Family *family, const Cell *cell) {
    if (family->kind == FIRST || family->kind == LAST) {
        double value;
        memcpy(&value, &cell->bits, sizeof value);
        if (family->as == AS_FLOAT) return PyFloat_FromDouble(value);
        if (family->as == AS_HASH) return PyLong_FromUnsignedLongLong(cell->bits);
        return PyLong_FromLongLong((int64_t)cell->bits);
    }
    return family->as == AS_FLOAT ? PyFloat_FromDouble(cell->sum) : PyLong_FromLongLong(cell->time);
}
