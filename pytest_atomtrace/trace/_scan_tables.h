/* The growing columns, and the scanner that fills them from text that arrives in pieces. */

#ifndef ATOMTRACE_SCAN_TABLES_H
#define ATOMTRACE_SCAN_TABLES_H

#include "_scan_shapes.h"

enum { COLUMN_NAME, COLUMN_START, COLUMN_LENGTH, COLUMN_WHERE, COLUMN_LINK, COLUMN_EXTRA, COLUMNS };

typedef struct {
    uint8_t *columns[COLUMNS];
    size_t count, room;
} Table;

/* Between two events: at the array's start, behind an event, behind a comma. */
typedef enum { AT_START, BEHIND_EVENT, BEHIND_COMMA } Where;

/* MORE: all was taken; ENDED: so was the array's bracket; LEFT: the next event is for the Python reader; DAMAGED: commas
 * and events do not take turns. */
typedef enum { MORE, ENDED, LEFT, DAMAGED } State;

typedef struct {
    Table tables[TABLES];
    Trail trails[TABLES]; /* of each table's names */
    Names names, threads;
    Shapes shapes;
    Shape scratch;
    Walk walk;
    bool detail, long_times;
    uint64_t events;
    int32_t last_thread;
    Where where;
    /* Text of an event that is not whole yet. It is looked at again when it has doubled, or a huge event would be
     * walked once for every piece. */
    uint8_t *carry;
    size_t carried, carry_room, carry_wanted;
} Scan;

/* 2**43 us, beyond which the Python reader needs decimal arithmetic, in ns. */
#define LONG_TIME_NS ((int64_t)1000 << 43)

static unsigned column_width(unsigned table, unsigned column)
{
    switch (column) {
    case COLUMN_START:
    case COLUMN_LENGTH:
        return 8;
    case COLUMN_LINK:
        return table == OPS ? 0 : 8;
    case COLUMN_EXTRA:
        return table == GPU ? 1 : table == CALLS ? 4 : 0;
    default:
        return 4;
    }
}

static bool has_column(const Scan *scan, unsigned table, unsigned column)
{
    return column_width(table, column) && (column != COLUMN_EXTRA || table == GPU || scan->detail);
}

static bool table_grow(Scan *scan, unsigned number)
{
    Table *const table = &scan->tables[number];
    const size_t room = table->room ? table->room * 2 : 1024;
    if (room > SIZE_MAX / 16) {
        return false;
    }
    for (unsigned column = 0; column < COLUMNS; column++) {
        if (!has_column(scan, number, column)) {
            continue;
        }
        uint8_t *const grown = realloc(table->columns[column], room * column_width(number, column));
        if (!grown) {
            return false;
        }
        table->columns[column] = grown;
    }
    table->room = room;
    return true;
}

/* Append a row; false if memory is short. */
static inline bool table_put(Scan *scan, unsigned number, int32_t name, int64_t start, int64_t length, int32_t where,
                             int64_t link, int32_t extra)
{
    Table *const table = &scan->tables[number];
    if (table->count == table->room && !table_grow(scan, number)) {
        return false;
    }
    const size_t row = table->count++;
    ((int32_t *)table->columns[COLUMN_NAME])[row] = name;
    ((int64_t *)table->columns[COLUMN_START])[row] = start;
    ((int64_t *)table->columns[COLUMN_LENGTH])[row] = length < 0 ? 0 : length;
    ((int32_t *)table->columns[COLUMN_WHERE])[row] = where;
    if (number != OPS) {
        ((int64_t *)table->columns[COLUMN_LINK])[row] = link;
    }
    if (number == GPU) {
        ((int8_t *)table->columns[COLUMN_EXTRA])[row] = (int8_t)extra;
    } else if (number == CALLS && scan->detail) {
        ((int32_t *)table->columns[COLUMN_EXTRA])[row] = extra;
    }
    if (start >= LONG_TIME_NS || start <= -LONG_TIME_NS || length >= LONG_TIME_NS || length <= -LONG_TIME_NS) {
        scan->long_times = true;
    }
    return true;
}

/* Number of a thread, known by the text of its process and its own, a comma between. */
static int32_t thread_number(Scan *scan, Span process, Span thread, Why *why)
{
    const size_t first = (size_t)(process.end - process.start), second = (size_t)(thread.end - thread.start);
    const size_t length = first + 1 + second;
    if (scan->last_thread >= 0) {
        const Name *const last = &scan->threads.entries[scan->last_thread];
        const uint8_t *const text = scan->threads.text + last->place;
        if (last->length == length && text[first] == ',' && !memcmp(text, process.start, first) &&
            !memcmp(text + first + 1, thread.start, second)) {
            return last->number;
        }
    }
    uint8_t *const key = malloc(length);
    if (!key) {
        *why = NO_MEMORY;
        return -1;
    }
    memcpy(key, process.start, first);
    key[first] = ',';
    memcpy(key + first + 1, thread.start, second);
    const int32_t entry = name_entry(&scan->threads, key, length, false, why);
    free(key);
    if (entry < 0) {
        return -1;
    }
    scan->last_thread = entry;
    return scan->threads.entries[entry].number;
}

static Why keep_event(Scan *scan, const Event *event)
{
    Why why = FINE;
    const unsigned table = event->table;
    const Span name = event->name;
    Names *const names = &scan->names;
    int32_t entry = event->name_entry;
    if (entry < 0) {
        entry = name_entry(names, name.start, (size_t)(name.end - name.start), event->name_escaped, &why);
        if (entry < 0) {
            return why;
        }
    }
    int32_t extra = event->kind;
    if (table == CALLS && scan->detail) {
        const Span kernel = event->kernel.start ? event->kernel : (Span){name.start, name.start};
        const int32_t found =
            name_entry(names, kernel.start, (size_t)(kernel.end - kernel.start), event->kernel_escaped, &why);
        if (found < 0) {
            return why;
        }
        extra = names->entries[found].number;
    }
    int32_t where = (int32_t)event->stream;
    if (table != GPU && (where = thread_number(scan, event->process, event->thread, &why)) < 0) {
        return why;
    }
    trail_follow(&scan->trails[table], entry);
    const int64_t link = table <= CALLS ? event->correlation : event->external;
    const int32_t number = names->entries[entry].number;
    return table_put(scan, table, number, event->start_ns, event->length_ns, where, link, extra) ? FINE : NO_MEMORY;
}

/* Past the event at `at`, which the tables then have. */
static Place take_event(Scan *scan, Place at, Place end, Why *why)
{
    Event event;
    Place found = shapes_end(&scan->shapes, &scan->names, scan->trails, at, end, &event);
    const bool walked = !found;
    if (walked) {
        found = walk_event(&scan->walk, at, end, why);
        if (!found) {
            return NULL;
        }
        if (!read_event(&scan->walk, scan->detail, &event)) {
            *why = ODD;
            return NULL;
        }
    }
    *why = event.table == NO_TABLE ? FINE : keep_event(scan, &event);
    if (*why != FINE) {
        return NULL;
    }
    if (walked) {
        shapes_learn(&scan->shapes, &scan->scratch, &scan->walk, &event, scan->detail, at, found);
    }
    scan->events++;
    return found;
}

/* Take events from `at` on; returns where the first one starts that was not taken. */
static Place scan_text(Scan *scan, Place at, Place end, State *state, Why *why)
{
    for (;;) {
        at = blank_end(at, end);
        if (at == end) {
            /* Blanks are not carried: there may be any number of them. */
            *state = MORE;
            return at;
        }
        if (scan->where == BEHIND_EVENT && *at == ',') {
            scan->where = BEHIND_COMMA;
            at++;
            continue;
        }
        if (scan->where != BEHIND_COMMA && *at == ']') {
            *state = ENDED;
            return at + 1;
        }
        if (scan->where == BEHIND_EVENT || *at == ']') {
            *state = DAMAGED;
            return at;
        }
        if (*at != '{') {
            *state = LEFT;
            return at;
        }
        const Place found = take_event(scan, at, end, why);
        if (!found) {
            *state = *why == SHORT ? MORE : LEFT;
            return at;
        }
        at = found;
        scan->where = BEHIND_EVENT;
    }
}

static bool carry_more(Scan *scan, Place at, size_t length)
{
    if (length > SIZE_MAX / 4 - scan->carried) {
        return false;
    }
    if (scan->carry_room < scan->carried + length) {
        const size_t room = (scan->carried + length) * 2 + 4096;
        uint8_t *const grown = realloc(scan->carry, room);
        if (!grown) {
            return false;
        }
        scan->carry = grown;
        scan->carry_room = room;
    }
    memcpy(scan->carry + scan->carried, at, length);
    scan->carried += length;
    return true;
}

/* Finish the event that an earlier piece began; `at` moves on in this one, and the carried text shrinks. */
static State scan_carried(Scan *scan, Place *at, Place end, bool last, Why *why)
{
    State state = MORE;
    while (scan->carried) {
        size_t length = scan->carried < 4096 ? 4096 : scan->carried;
        length = (size_t)(end - *at) < length ? (size_t)(end - *at) : length;
        if (!carry_more(scan, *at, length)) {
            *why = NO_MEMORY;
            return LEFT;
        }
        *at += length;
        if (scan->carried < scan->carry_wanted && !last) {
            return MORE;
        }
        const Place rest = scan_text(scan, scan->carry, scan->carry + scan->carried, &state, why);
        const size_t left = (size_t)(scan->carry + scan->carried - rest);
        if (left <= length) {
            /* What is left came from this piece, where scanning goes on without copies. */
            *at -= left;
            scan->carried = 0;
        } else {
            memmove(scan->carry, rest, left);
            scan->carried = left;
            scan->carry_wanted = left * 2;
        }
        if (state != MORE || (scan->carried && *at == end)) {
            return state;
        }
    }
    return MORE;
}

/* Take the events of a piece of text. An empty one says that no more follows. `at` is left behind what was taken;
 * what is carried comes before it. */
static State scan_piece(Scan *scan, Place *at, Place end, Why *why)
{
    const bool last = *at == end;
    State state = MORE;
    if (scan->carried) {
        state = scan_carried(scan, at, end, last, why);
        if (state != MORE || scan->carried) {
            return state;
        }
    }
    *at = scan_text(scan, *at, end, &state, why);
    if (state == MORE && *at < end) {
        scan->carry_wanted = 2 * (size_t)(end - *at);
        if (!carry_more(scan, *at, (size_t)(end - *at))) {
            *why = NO_MEMORY;
            return LEFT;
        }
        *at = end;
    }
    return state;
}

static void scan_free(Scan *scan)
{
    for (unsigned table = 0; table < TABLES; table++) {
        for (unsigned column = 0; column < COLUMNS; column++) {
            free(scan->tables[table].columns[column]);
        }
    }
    names_free(&scan->names);
    names_free(&scan->threads);
    free(scan->carry);
}

#endif
