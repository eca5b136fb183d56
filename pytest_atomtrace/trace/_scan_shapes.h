/* Shapes: the text of an event that was walked, without its numbers and strings.
 *
 * An event whose text equals a shape's between its numbers and strings has the same structure, so it needs no walk:
 * comparing runs at the speed of memory, and is as strict. Nothing is known of any layout beforehand. Category and
 * phase stay in the text, so a shape also says which table its events belong to.
 */

#ifndef ATOMTRACE_SCAN_SHAPES_H
#define ATOMTRACE_SCAN_SHAPES_H

#include "_scan_events.h"
#include "_scan_names.h"

/* SLACK: bytes beyond a piece of text that comparing may read, in the shape and in the document. */
enum { SHAPES = 128, SHAPE_TEXT = 1024, SLACK = 16, FOLLOWERS = 4, SHORT_TEXT = 16 };

/* What is done with what stands between two pieces of a shape's text. */
typedef enum {
    SKIP_NUMBER,
    SKIP_STRING,
    TAKE_START,
    TAKE_LENGTH,
    TAKE_STREAM,
    TAKE_CORRELATION,
    TAKE_EXTERNAL,
    TAKE_PROCESS,
    TAKE_THREAD,
    TAKE_PROCESS_TEXT,
    TAKE_THREAD_TEXT,
    TAKE_NAME,
    TAKE_KERNEL
} Task;

typedef struct {
    uint16_t before; /* bytes of text in front of it */
    uint8_t task;
} Gap;

typedef struct {
    uint64_t hash;   /* of the shape that is held */
    uint64_t before; /* of one that was met once and may be held next */
    bool held;
    uint8_t table, kind;
    uint8_t gap_count;
    uint16_t after; /* bytes of text behind the last gap */
    uint8_t followers[FOLLOWERS];
    Gap gaps[MAX_TOKENS];
    uint8_t text[SHAPE_TEXT + SLACK];
} Shape;

/* Shape 0 is no shape: it stands for an event that had none, and only its followers count. */
typedef struct {
    Shape all[SHAPES];
    uint8_t last;
} Shapes;

static inline bool same(Place left, Place right, size_t length)
{
#if defined(__SSE2__)
    for (;;) {
        const __m128i one = _mm_loadu_si128((const __m128i *)left), other = _mm_loadu_si128((const __m128i *)right);
        const unsigned equal = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(one, other));
        if (length <= 16) {
            return !(~equal & ((1u << length) - 1));
        }
        if (equal != 0xFFFF) {
            return false;
        }
        left += 16;
        right += 16;
        length -= 16;
    }
#else
    return !memcmp(left, right, length);
#endif
}

/* Past a name; one that was guessed is known without being looked for. `guess` is its entry + 1, or 0. */
static inline Place name_end(const Names *names, int32_t guess, Place at, Place end, Event *event)
{
    if (guess) {
        const int32_t entry = guess - 1;
        const Name *const name = &names->entries[entry];
        if ((size_t)(end - at) > name->length && at[name->length] == '"' &&
            !memcmp(names->text + name->place, at, name->length)) {
            event->name = (Span){at, at + name->length};
            event->name_escaped = name->escaped;
            event->name_entry = entry;
            return at + name->length;
        }
    }
    Why why;
    event->name_escaped = false;
    const Place found = string_end(at, end, &event->name_escaped, &why);
    event->name = (Span){at, found};
    return found;
}

/* Past the event at `at` if it has this shape, else NULL. */
static Place shape_end(const Shape *shape, const Names *names, int32_t guess, Place at, Place end, Event *event)
{
    Place text = shape->text;
    Place start;
    int64_t number;
    Why why;
    bool escaped = false;
    event->table = shape->table;
    event->kind = shape->kind;
    event->name_entry = -1;
    event->kernel = (Span){NULL, NULL};
    event->kernel_escaped = false;
    event->correlation = event->external = event->stream = -1;
    for (const Gap *gap = shape->gaps, *const last = gap + shape->gap_count; gap < last; gap++) {
        if ((size_t)(end - at) < (size_t)gap->before + SLACK || !same(text, at, gap->before)) {
            return NULL;
        }
        text += gap->before;
        at += gap->before;
        start = at;
        switch ((Task)gap->task) {
        case SKIP_NUMBER:
            at = number_end(at, end, &why);
            break;
        case SKIP_STRING:
            at = string_end(at, end, &escaped, &why);
            break;
        case TAKE_START:
            at = time_end(at, end, &event->start_ns);
            break;
        case TAKE_LENGTH:
            at = time_end(at, end, &event->length_ns);
            break;
        case TAKE_STREAM:
            at = integer_end(at, end, &event->stream);
            if (at && !fits_stream(event->stream)) {
                return NULL;
            }
            break;
        case TAKE_CORRELATION:
            at = integer_end(at, end, &event->correlation);
            break;
        case TAKE_EXTERNAL:
            at = integer_end(at, end, &event->external);
            break;
        case TAKE_PROCESS:
            at = integer_end(at, end, &number);
            event->process = (Span){start, at};
            break;
        case TAKE_THREAD:
            at = integer_end(at, end, &number);
            event->thread = (Span){start, at};
            break;
        case TAKE_PROCESS_TEXT:
        case TAKE_THREAD_TEXT:
            escaped = false;
            at = string_end(at, end, &escaped, &why);
            if (!at || escaped || !is_utf8(start, at)) {
                return NULL;
            }
            *(gap->task == TAKE_PROCESS_TEXT ? &event->process : &event->thread) = (Span){start - 1, at + 1};
            break;
        case TAKE_NAME:
            at = name_end(names, guess, at, end, event);
            break;
        case TAKE_KERNEL:
            at = string_end(at, end, &event->kernel_escaped, &why);
            event->kernel = (Span){start, at};
            break;
        }
        if (!at) {
            return NULL;
        }
    }
    if ((size_t)(end - at) < (size_t)shape->after + SLACK || !same(text, at, shape->after)) {
        return NULL;
    }
    return at + shape->after;
}

static bool is_at(Span field, const Token *token)
{
    return field.start && field.start == token->start - token->text;
}

/* What to do with a token of an event of a table; false: its text belongs to the shape. */
static bool token_task(const Walk *walk, const Token *token, uint8_t table, bool detail, uint8_t *task)
{
    const Span *const fields = walk->fields;
    if (is_at(fields[PHASE], token) || is_at(fields[CATEGORY], token)) {
        return false;
    }
    *task = token->text ? SKIP_STRING : SKIP_NUMBER;
    /* Short strings are most often the same ones again, which is told quicker than where another one ends. */
    if (token->text && token->end - token->start <= SHORT_TEXT && !is_at(fields[NAME], token) &&
        !is_at(fields[KERNEL], token) && !is_at(fields[PROCESS], token) && !is_at(fields[THREAD], token)) {
        return false;
    }
    if (table == NO_TABLE) {
        return true;
    }
    if (is_at(fields[NAME], token)) {
        *task = TAKE_NAME;
    } else if (is_at(fields[START], token)) {
        *task = TAKE_START;
    } else if (is_at(fields[LENGTH], token)) {
        *task = TAKE_LENGTH;
    } else if (is_at(fields[PROCESS], token)) {
        *task = token->text ? TAKE_PROCESS_TEXT : TAKE_PROCESS;
    } else if (is_at(fields[THREAD], token)) {
        *task = token->text ? TAKE_THREAD_TEXT : TAKE_THREAD;
    } else if (table == GPU && is_at(fields[STREAM], token)) {
        *task = TAKE_STREAM;
    } else if (table <= CALLS && is_at(fields[CORRELATION], token)) {
        *task = TAKE_CORRELATION;
    } else if (table >= NOTES && is_at(fields[EXTERNAL], token)) {
        *task = TAKE_EXTERNAL;
    } else if (table == CALLS && detail && is_at(fields[KERNEL], token)) {
        *task = TAKE_KERNEL;
    }
    return true;
}

/* Make a shape of a walked event; false if it is too large for one. */
static bool make_shape(Shape *shape, const Walk *walk, const Event *event, bool detail, Place start, Place end)
{
    if (walk->token_count > MAX_TOKENS) {
        return false;
    }
    size_t used = 0;
    Place done = start;
    shape->gap_count = 0;
    for (unsigned number = 0; number <= walk->token_count; number++) {
        const bool at_end = number == walk->token_count;
        const Token *const token = &walk->tokens[number];
        uint8_t task = 0;
        if (!at_end && !token_task(walk, token, event->table, detail, &task)) {
            continue;
        }
        const size_t length = (size_t)((at_end ? end : token->start) - done);
        if (used + length > SHAPE_TEXT) {
            return false;
        }
        memcpy(shape->text + used, done, length);
        used += length;
        if (at_end) {
            shape->after = (uint16_t)length;
        } else {
            shape->gaps[shape->gap_count++] = (Gap){(uint16_t)length, task};
            done = token->end;
        }
    }
    shape->table = event->table;
    shape->kind = event->table == NO_TABLE ? 0 : event->kind;
    memset(shape->text + used, 0, SLACK);
    shape->hash = text_hash(shape->text, used, shape->gap_count);
    return true;
}

static inline void shapes_follow(Shapes *shapes, uint8_t found)
{
    uint8_t *const followers = shapes->all[shapes->last].followers;
    shapes->last = found;
    if (followers[0] == found) {
        return;
    }
    unsigned place = 1;
    while (place < FOLLOWERS - 1 && followers[place] != found) {
        place++;
    }
    memmove(followers + 1, followers, place);
    followers[0] = found;
}

/* Past the event at `at` if one of the shapes that are likely fits it, else NULL. */
static inline Place shapes_end(Shapes *shapes, const Names *names, Trail *trails, Place at, Place end, Event *event)
{
    const uint8_t *const followers = shapes->all[shapes->last].followers;
    for (unsigned number = 0; number < FOLLOWERS; number++) {
        const uint8_t likely = followers[number];
        const Shape *const shape = &shapes->all[likely];
        if (!shape->held) {
            continue;
        }
        const int32_t guess = shape->table == NO_TABLE ? 0 : *trail_guess(&trails[shape->table]);
        const Place found = shape_end(shape, names, guess, at, end, event);
        if (found) {
            shapes_follow(shapes, likely);
            return found;
        }
    }
    return NULL;
}

/* Remember a walked event; only a shape that is met twice takes a place. */
static void shapes_learn(Shapes *shapes, Shape *scratch, const Walk *walk, const Event *event, bool detail,
                         Place start, Place end)
{
    if (!make_shape(scratch, walk, event, detail, start, end)) {
        shapes->last = 0;
        return;
    }
    const uint8_t number = (uint8_t)(1 + scratch->hash % (SHAPES - 1));
    Shape *const place = &shapes->all[number];
    if (!place->held || place->hash != scratch->hash) {
        if (place->before != scratch->hash) {
            place->before = scratch->hash;
            shapes->last = 0;
            return;
        }
        memcpy(scratch->followers, place->followers, sizeof place->followers);
        scratch->before = 0;
        scratch->held = true;
        *place = *scratch;
    }
    shapes_follow(shapes, number);
}

#endif
