/* One event of a trace: where its fields lie, and what the tables keep of it.
 *
 * `walk_event` reads an event of any layout, strictly. Most events of a trace are alike but for numbers and names,
 * so the text of an event that was walked, with those left out, is kept as a shape (see `_scan_shapes.h`).
 */

#ifndef ATOMTRACE_SCAN_EVENTS_H
#define ATOMTRACE_SCAN_EVENTS_H

#include "_scan_text.h"

/* Fields that matter; the last four are those of `args`. */
enum { PHASE, CATEGORY, NAME, PROCESS, THREAD, START, LENGTH, ARGS, STREAM, CORRELATION, EXTERNAL, KERNEL, FIELDS };
enum { OTHER_FIELD = FIELDS };

/* Tables, in the order in which the Python side knows them. */
enum { GPU, CALLS, OPS, NOTES, GPU_NOTES, TABLES, NO_TABLE = TABLES };

enum { MAX_TOKENS = 40 };

typedef struct {
    Place start, end; /* start NULL: not there */
} Span;

/* A number, or the text of a string without its quotes, that is a value. */
typedef struct {
    Place start, end;
    bool text;
} Token;

typedef struct {
    Span fields[FIELDS];
    Token tokens[MAX_TOKENS];
    unsigned token_count; /* beyond MAX_TOKENS where there are more */
} Walk;

/* What an event says; spans of names are without quotes, those of process and thread as they stand. */
typedef struct {
    uint8_t table, kind;
    bool name_escaped, kernel_escaped;
    int32_t name_entry; /* where it is known already, else -1 */
    Span name, kernel, process, thread;
    int64_t start_ns, length_ns, stream, correlation, external;
} Event;

static inline void log_token(Walk *walk, Place start, Place end, bool text)
{
    if (walk->token_count < MAX_TOKENS) {
        walk->tokens[walk->token_count] = (Token){start, end, text};
    }
    walk->token_count++;
}

/* Past the colon after a key whose opening quote is at `at`; the key is returned through `key`. */
static Place key_end(Place at, Place end, Span *key, bool *escaped, Why *why)
{
    if (at == end) {
        *why = SHORT;
        return NULL;
    }
    if (*at != '"') {
        *why = ODD;
        return NULL;
    }
    key->start = at + 1;
    at = string_end(at + 1, end, escaped, why);
    if (!at) {
        return NULL;
    }
    key->end = at;
    at = blank_end(at + 1, end);
    if (at == end) {
        *why = SHORT;
        return NULL;
    }
    if (*at != ':') {
        *why = ODD;
        return NULL;
    }
    return blank_end(at + 1, end);
}

/* Past a value that is neither object nor array. */
static inline Place plain_end(Walk *walk, Place at, Place end, Why *why)
{
    const Place start = at;
    if (*at == '"') {
        bool escaped = false;
        at = string_end(at + 1, end, &escaped, why);
        if (!at) {
            return NULL;
        }
        log_token(walk, start + 1, at, true);
        return at + 1;
    }
    if (*at == '-' || is_digit(*at)) {
        at = number_end(at, end, why);
        if (at) {
            log_token(walk, start, at, false);
        }
        return at;
    }
    if (*at == 't' || *at == 'f' || *at == 'n') {
        return word_end(at, end, why);
    }
    *why = ODD;
    return NULL;
}

/* Past any value. */
static Place value_end(Walk *walk, Place at, Place end, Why *why)
{
    uint64_t objects = 0; /* for every open bracket whether it is a brace, the innermost one lowest */
    unsigned depth = 0;
    Span key;
    for (;;) {
        bool opened = false;
        if (at == end) {
            *why = SHORT;
            return NULL;
        }
        if (*at == '{' || *at == '[') {
            if (depth == MAX_DEPTH) {
                *why = ODD;
                return NULL;
            }
            objects = objects << 1 | (*at == '{');
            depth++;
            opened = true;
            at++;
        } else {
            at = plain_end(walk, at, end, why);
            if (!at) {
                return NULL;
            }
        }
        while (depth) {
            at = blank_end(at, end);
            if (at == end) {
                *why = SHORT;
                return NULL;
            }
            if (*at == ((objects & 1) ? '}' : ']')) {
                objects >>= 1;
                depth--;
                opened = false;
                at++;
                continue;
            }
            if (!opened) {
                if (*at != ',') {
                    *why = ODD;
                    return NULL;
                }
                at = blank_end(at + 1, end);
            }
            if (objects & 1) {
                bool escaped = false;
                at = key_end(at, end, &key, &escaped, why);
                if (!at) {
                    return NULL;
                }
            }
            break;
        }
        if (!depth) {
            return at;
        }
    }
}

static inline bool says(Span span, const char *text, size_t length)
{
    return (size_t)(span.end - span.start) == length && !memcmp(span.start, text, length);
}

#define SAYS(span, text) says(span, text, sizeof(text) - 1)

static unsigned event_field(Span key)
{
    switch (key.end - key.start) {
    case 2:
        return SAYS(key, "ph") ? PHASE : SAYS(key, "ts") ? START : OTHER_FIELD;
    case 3:
        return SAYS(key, "cat")   ? CATEGORY
               : SAYS(key, "pid") ? PROCESS
               : SAYS(key, "tid") ? THREAD
               : SAYS(key, "dur") ? LENGTH
                                  : OTHER_FIELD;
    case 4:
        return SAYS(key, "name") ? NAME : SAYS(key, "args") ? ARGS : OTHER_FIELD;
    default:
        return OTHER_FIELD;
    }
}

static unsigned argument_field(Span key)
{
    switch (key.end - key.start) {
    case 6:
        return SAYS(key, "stream") ? STREAM : SAYS(key, "kernel") ? KERNEL : OTHER_FIELD;
    case 11:
        return SAYS(key, "correlation") ? CORRELATION : SAYS(key, "External id") ? EXTERNAL : OTHER_FIELD;
    default:
        return OTHER_FIELD;
    }
}

/* Past the object that opens at `at`, an event or its arguments; fields that matter are noted. */
static Place object_end(Walk *walk, Place at, Place end, bool arguments, Why *why)
{
    at = blank_end(at + 1, end);
    if (at < end && *at == '}') {
        return at + 1;
    }
    for (;;) {
        Span key;
        bool escaped = false;
        at = key_end(at, end, &key, &escaped, why);
        if (!at) {
            return NULL;
        }
        if (at == end) {
            *why = SHORT;
            return NULL;
        }
        const unsigned field = arguments ? argument_field(key) : event_field(key);
        /* Which of two equal keys counts is the Python reader's business, and what an escaped one says. */
        if (escaped || (field < FIELDS && walk->fields[field].start)) {
            *why = ODD;
            return NULL;
        }
        const Place start = at;
        at = field == ARGS && *at == '{' ? object_end(walk, at, end, true, why) : value_end(walk, at, end, why);
        if (!at) {
            return NULL;
        }
        if (field < FIELDS) {
            walk->fields[field] = (Span){start, at};
        }
        at = blank_end(at, end);
        if (at == end) {
            *why = SHORT;
            return NULL;
        }
        if (*at == '}') {
            return at + 1;
        }
        if (*at != ',') {
            *why = ODD;
            return NULL;
        }
        at = blank_end(at + 1, end);
    }
}

/* Past the event that opens at `at`. */
static Place walk_event(Walk *walk, Place at, Place end, Why *why)
{
    memset(walk->fields, 0, sizeof walk->fields);
    walk->token_count = 0;
    return object_end(walk, at, end, false, why);
}

/* Text of a string value without its quotes; false if it is none. */
static bool text_of(Span span, Span *text, bool *escaped)
{
    if (!span.start || *span.start != '"') {
        return false;
    }
    *text = (Span){span.start + 1, span.end - 1};
    *escaped = memchr(text->start, '\\', (size_t)(text->end - text->start)) != NULL;
    return true;
}

static bool table_of(Span category, uint8_t *table, uint8_t *kind)
{
    *kind = 0;
    *table = NO_TABLE;
    if (SAYS(category, "kernel")) {
        *table = GPU;
    } else if (SAYS(category, "gpu_memcpy")) {
        *table = GPU;
        *kind = 1;
    } else if (SAYS(category, "gpu_memset")) {
        *table = GPU;
        *kind = 2;
    } else if (SAYS(category, "cuda_runtime") || SAYS(category, "cuda_driver")) {
        *table = CALLS;
    } else if (SAYS(category, "cpu_op")) {
        *table = OPS;
    } else if (SAYS(category, "user_annotation")) {
        *table = NOTES;
    } else if (SAYS(category, "gpu_user_annotation")) {
        *table = GPU_NOTES;
    }
    return *table != NO_TABLE;
}

static bool integer_of(Span span, int64_t *value)
{
    return span.start && integer_end(span.start, span.end + 1, value) == span.end;
}

/* A process or thread: an integer as it stands, or a string without escapes. */
static bool is_place(Span span)
{
    Span text;
    bool escaped;
    int64_t number;
    if (!span.start) {
        return false;
    }
    return text_of(span, &text, &escaped) ? !escaped && is_utf8(text.start, text.end) : integer_of(span, &number);
}

/* Phases of Chrome's trace format that the Python reader knows too. */
static bool is_phase(Span phase)
{
    return phase.end - phase.start == 1 && memchr("XBEiICbneSTpFstfPNODMVvRc(,)", *phase.start, 28) != NULL;
}

static inline bool fits_stream(int64_t stream)
{
    /* The lowest one means "no stream" to the Python reader. */
    return stream > INT32_MIN && stream <= INT32_MAX;
}

static bool read_arguments(const Walk *walk, bool detail, Event *event)
{
    const Span *const fields = walk->fields;
    const Span args = fields[ARGS];
    if (args.start && *args.start != '{') {
        return event->table == OPS;
    }
    if (event->table == GPU && !(integer_of(fields[STREAM], &event->stream) && fits_stream(event->stream))) {
        return false;
    }
    if (event->table <= CALLS && fields[CORRELATION].start && !integer_of(fields[CORRELATION], &event->correlation)) {
        return false;
    }
    if (event->table >= NOTES && fields[EXTERNAL].start && *fields[EXTERNAL].start != 'n' &&
        !integer_of(fields[EXTERNAL], &event->external)) {
        return false;
    }
    if (event->table == CALLS && detail && fields[KERNEL].start) {
        return text_of(fields[KERNEL], &event->kernel, &event->kernel_escaped);
    }
    return true;
}

/* What a walked event says; false if that is left to the Python reader. */
static bool read_event(const Walk *walk, bool detail, Event *event)
{
    const Span *const fields = walk->fields;
    Span phase, category;
    bool escaped;
    if (!text_of(fields[PHASE], &phase, &escaped) || !is_phase(phase)) {
        return false;
    }
    event->table = NO_TABLE;
    if (*phase.start != 'X' || !fields[CATEGORY].start) {
        return true;
    }
    if (!text_of(fields[CATEGORY], &category, &escaped) || escaped) {
        return false;
    }
    if (!table_of(category, &event->table, &event->kind)) {
        return true;
    }
    event->name_entry = -1;
    event->kernel = (Span){NULL, NULL};
    event->kernel_escaped = false;
    event->correlation = event->external = event->stream = -1;
    event->process = fields[PROCESS];
    event->thread = fields[THREAD];
    return text_of(fields[NAME], &event->name, &event->name_escaped) && is_place(event->process) &&
           is_place(event->thread) && fields[START].start && fields[LENGTH].start &&
           time_end(fields[START].start, fields[START].end + 1, &event->start_ns) == fields[START].end &&
           time_end(fields[LENGTH].start, fields[LENGTH].end + 1, &event->length_ns) == fields[LENGTH].end &&
           read_arguments(walk, detail, event);
}

#endif
