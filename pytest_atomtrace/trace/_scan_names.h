/* Names numbered in the order of their first sight, found by their text as it stands in the file.
 *
 * A text with escapes is an entry of its own that has the number of what it says, so `A` and `\u0041` are one name.
 */

#ifndef ATOMTRACE_SCAN_NAMES_H
#define ATOMTRACE_SCAN_NAMES_H

#include <stdlib.h>

#include "_scan_text.h"

typedef struct {
    uint64_t hash;
    size_t place, length; /* in `text` */
    int32_t number;
    bool escaped;
} Name;

typedef struct {
    Name *entries;
    size_t count, room;
    int32_t *slots; /* entry + 1; 0: empty */
    size_t width;   /* a power of two */
    uint8_t *text;
    size_t used, capacity;
    int32_t numbers;
    int32_t *by_number; /* the entry whose text is the name itself; as long as `entries` */
} Names;

/* A graph's kernels follow each other as they did in the step before, so the next name can be guessed from those
 * before it: six, for a layer repeats short runs of kernels (one tells the next in 77 of 100 cases, two in 86, six in
 * 95). */
enum { GUESS_BITS = 13, ENTRY_BITS = 10 };

typedef struct {
    uint64_t past; /* the lowest bits of the last six entries */
    int32_t guesses[1 << GUESS_BITS]; /* entry + 1 that once followed such a past; 0: none */
} Trail;

static inline int32_t *trail_guess(Trail *trail)
{
    return &trail->guesses[trail->past * 0x9E3779B97F4A7C15u >> (64 - GUESS_BITS)];
}

static inline void trail_follow(Trail *trail, int32_t entry)
{
    *trail_guess(trail) = entry + 1;
    trail->past = trail->past << ENTRY_BITS ^ (uint64_t)(uint32_t)entry;
}

static void names_free(Names *names)
{
    free(names->entries);
    free(names->slots);
    free(names->text);
    free(names->by_number);
    memset(names, 0, sizeof *names);
}

static uint64_t text_hash(Place at, size_t length, uint64_t seed)
{
    uint64_t hash = seed ^ length * 0x9E3779B97F4A7C15u;
    while (length >= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        hash = (hash ^ word) * 0xD6E8FEB86659FD93u;
        hash ^= hash >> 32;
        at += 8;
        length -= 8;
    }
    uint64_t last = 0;
    memcpy(&last, at, length);
    hash = (hash ^ last) * 0xD6E8FEB86659FD93u;
    return hash ^ hash >> 29;
}

static int32_t *names_slot(const Names *names, uint64_t hash, Place at, size_t length, bool escaped)
{
    size_t slot = (size_t)hash & (names->width - 1);
    for (;; slot = (slot + 1) & (names->width - 1)) {
        int32_t *const found = &names->slots[slot];
        if (!*found) {
            return found;
        }
        const Name *const name = &names->entries[*found - 1];
        if (name->hash == hash && name->length == length && name->escaped == escaped &&
            !memcmp(names->text + name->place, at, length)) {
            return found;
        }
    }
}

static bool names_grow(Names *names)
{
    const size_t room = names->room ? names->room * 2 : 256;
    if (room > INT32_MAX / 4) {
        return false;
    }
    Name *const entries = realloc(names->entries, room * sizeof *entries);
    if (!entries) {
        return false;
    }
    names->entries = entries;
    int32_t *const by_number = realloc(names->by_number, room * sizeof *by_number);
    if (!by_number) {
        return false;
    }
    names->by_number = by_number;
    int32_t *const slots = calloc(room * 4, sizeof *slots);
    if (!slots) {
        return false;
    }
    free(names->slots);
    names->slots = slots;
    names->width = room * 4;
    names->room = room;
    for (size_t entry = 0; entry < names->count; entry++) {
        const Name *const name = &entries[entry];
        *names_slot(names, name->hash, names->text + name->place, name->length, name->escaped) = (int32_t)entry + 1;
    }
    return true;
}

/* Room for `length` more bytes of text. */
static bool names_reserve(Names *names, size_t length)
{
    if (names->capacity - names->used >= length) {
        return true;
    }
    size_t capacity = names->capacity ? names->capacity : 1 << 14;
    while (capacity - names->used < length) {
        if (capacity > SIZE_MAX / 4) {
            return false;
        }
        capacity *= 2;
    }
    uint8_t *const text = realloc(names->text, capacity);
    if (!text) {
        return false;
    }
    names->text = text;
    names->capacity = capacity;
    return true;
}

static int32_t name_entry(Names *names, Place at, size_t length, bool escaped, Why *why);

static int32_t name_number(Names *names, Place at, size_t length, Why *why)
{
    uint8_t *const plain = malloc(length ? length : 1);
    if (!plain) {
        *why = NO_MEMORY;
        return -1;
    }
    int32_t entry = -1;
    const ptrdiff_t plain_length = unescaped(at, at + length, plain);
    if (plain_length < 0) {
        *why = ODD;
    } else {
        entry = name_entry(names, plain, (size_t)plain_length, false, why);
    }
    free(plain);
    return entry < 0 ? -1 : names->entries[entry].number;
}

/* The entry of a text, a new one if need be; -1 where it is no UTF-8, has surrogates, or memory is short. */
static int32_t name_entry(Names *names, Place at, size_t length, bool escaped, Why *why)
{
    const uint64_t hash = text_hash(at, length, escaped ? 0x5851F42D4C957F2Du : 0);
    if (names->width) {
        const int32_t found = *names_slot(names, hash, at, length, escaped);
        if (found) {
            return found - 1;
        }
    }
    if (!is_utf8(at, at + length)) {
        *why = ODD;
        return -1;
    }
    int32_t number = -1;
    if (escaped && (number = name_number(names, at, length, why)) < 0) {
        return -1;
    }
    if ((names->count == names->room && !names_grow(names)) || !names_reserve(names, length + 1)) {
        *why = NO_MEMORY;
        return -1;
    }
    const int32_t entry = (int32_t)names->count;
    if (!escaped) {
        number = names->numbers++;
        names->by_number[number] = entry;
    }
    memcpy(names->text + names->used, at, length);
    names->entries[entry] = (Name){hash, names->used, length, number, escaped};
    names->used += length;
    names->count++;
    *names_slot(names, hash, at, length, escaped) = entry + 1;
    return entry;
}

#endif
