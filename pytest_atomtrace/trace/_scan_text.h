/* JSON text, byte by byte: where strings, numbers and whole values end.
 *
 * Strict: what passes here passes in any JSON decoder. Every function takes the end of the text and reads nothing
 * at or beyond it. A place of NULL means that there is no such thing; `Why` then tells whether more text may help.
 */

#ifndef ATOMTRACE_SCAN_TEXT_H
#define ATOMTRACE_SCAN_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

typedef const uint8_t *Place;

/* SHORT: the text ends too early; ODD: no JSON, or JSON that is left to the Python reader; NO_MEMORY. */
typedef enum { FINE, SHORT, ODD, NO_MEMORY } Why;

enum { MAX_DEPTH = 64 };

/* Longer times do not fit 64 bits in ns; the Python reader counts them as odd. */
#define LIMIT_US UINT64_C(9000000000000000)

/* First quote, backslash or control character, or the end. */
static inline Place string_stop(Place at, Place end)
{
#if defined(__SSE2__)
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), control = _mm_set1_epi8(0x1f);
    while (end - at >= 16) {
        const __m128i text = _mm_loadu_si128((const __m128i *)at);
        const __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(text, control), text);
        const __m128i marks = _mm_or_si128(_mm_cmpeq_epi8(text, quote), _mm_cmpeq_epi8(text, backslash));
        const unsigned mask = (unsigned)_mm_movemask_epi8(_mm_or_si128(marks, low));
        if (mask) {
            return at + __builtin_ctz(mask);
        }
        at += 16;
    }
#endif
    while (at < end && *at != '"' && *at != '\\' && *at >= 0x20) {
        at++;
    }
    return at;
}

static inline int hex_digit(uint8_t byte)
{
    if (byte >= '0' && byte <= '9') {
        return byte - '0';
    }
    byte |= 0x20;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

/* The closing quote of the string whose text starts at `at`. */
static Place string_end(Place at, Place end, bool *escaped, Why *why)
{
    for (;;) {
        at = string_stop(at, end);
        if (at == end) {
            *why = SHORT;
            return NULL;
        }
        if (*at == '"') {
            return at;
        }
        if (*at != '\\') {
            *why = ODD;
            return NULL;
        }
        *escaped = true;
        if (end - at < 2) {
            *why = SHORT;
            return NULL;
        }
        if (at[1] != 'u') {
            if (!memchr("\"\\/bfnrt", at[1], 8)) {
                *why = ODD;
                return NULL;
            }
            at += 2;
            continue;
        }
        for (int number = 2; number < 6; number++) {
            if (end - at <= number) {
                *why = SHORT;
                return NULL;
            }
            if (hex_digit(at[number]) < 0) {
                *why = ODD;
                return NULL;
            }
        }
        at += 6;
    }
}

static inline bool is_digit(uint8_t byte)
{
    return byte >= '0' && byte <= '9';
}


/* Past the digits at `at`. */
static inline Place digits_skip(Place at, Place end)
{
    while (at < end && is_digit(*at)) {
        at++;
    }
    return at;
}

/* Past the digits at `at`; `value` wraps round beyond 19 of them, so `count` must be looked at. */
static inline Place digits_end(Place at, Place end, uint64_t *value, size_t *count)
{
    const Place start = at;
    uint64_t sum = 0;
    while (at < end && is_digit(*at)) {
        sum = sum * 10 + (uint64_t)(*at++ - '0');
    }
    *value = sum;
    *count = (size_t)(at - start);
    return at;
}

/* Past the number at `at`. */
static inline Place number_end(Place at, Place end, Why *why)
{
    *why = ODD;
    if (at < end && *at == '-') {
        at++;
    }
    Place first = at;
    at = digits_skip(at, end);
    if (at == end) {
        *why = SHORT; /* the number may go on */
        return NULL;
    }
    if (at == first || (*first == '0' && at - first > 1)) {
        return NULL;
    }
    if (*at == '.') {
        first = ++at;
        at = digits_skip(at, end);
        if (at == end) {
            *why = SHORT;
            return NULL;
        }
        if (at == first) {
            return NULL;
        }
    }
    if (*at == 'e' || *at == 'E') {
        at++;
        if (at < end && (*at == '+' || *at == '-')) {
            at++;
        }
        first = at;
        at = digits_skip(at, end);
        if (at == end) {
            *why = SHORT;
            return NULL;
        }
        if (at == first) {
            return NULL;
        }
    }
    return at;
}

/* Past an integer of at most 18 digits that something other than a number's rest follows. */
static inline Place integer_end(Place at, Place end, int64_t *value)
{
    uint64_t sum;
    size_t count;
    const bool negative = at < end && *at == '-';
    at += negative;
    const Place first = at;
    at = digits_end(at, end, &sum, &count);
    if (at == end || !count || count > 18 || (*first == '0' && (count > 1 || negative)) || *at == '.' ||
        (*at | 0x20) == 'e') {
        return NULL;
    }
    *value = negative ? -(int64_t)sum : (int64_t)sum;
    return at;
}

/* Past a time in us, of which ns are made; digits beyond the third decimal must be zeros. */
static inline Place time_end(Place at, Place end, int64_t *ns)
{
    uint64_t whole, part = 0;
    size_t count;
    const bool negative = at < end && *at == '-';
    at += negative;
    const Place first = at;
    at = digits_end(at, end, &whole, &count);
    if (at == end || !count || count > 16 || whole >= LIMIT_US || (*first == '0' && count > 1)) {
        return NULL;
    }
    if (*at == '.') {
        const Place decimals = ++at;
        at = digits_end(at, end, &part, &count);
        if (at == end || !count) {
            return NULL;
        }
        if (count != 3) {
            part = 0;
            for (size_t place = 0; place < 3; place++) {
                part = part * 10 + (place < count ? (uint64_t)(decimals[place] - '0') : 0);
            }
            for (Place more = decimals + 3; more < at; more++) {
                if (*more != '0') {
                    return NULL;
                }
            }
        }
    }
    if ((*at | 0x20) == 'e') {
        return NULL;
    }
    const int64_t found = (int64_t)(whole * 1000 + part);
    *ns = negative ? -found : found;
    return at;
}

static inline Place blank_end(Place at, Place end)
{
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')) {
        at++;
    }
    return at;
}

static Place word_end(Place at, Place end, Why *why)
{
    const char *word = *at == 't' ? "true" : *at == 'f' ? "false" : "null";
    for (; *word; word++, at++) {
        if (at == end) {
            *why = SHORT;
            return NULL;
        }
        if (*at != (uint8_t)*word) {
            *why = ODD;
            return NULL;
        }
    }
    return at;
}

/* Length of a UTF-8 sequence that is valid as Python's strict decoder has it, 0 otherwise. */
static size_t utf8_length(Place at, Place end)
{
    const uint8_t first = *at;
    const size_t length = first < 0x80 ? 1 : first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
    if (!length || (size_t)(end - at) < length) {
        return 0;
    }
    for (size_t number = 1; number < length; number++) {
        if ((at[number] & 0xC0) != 0x80) {
            return 0;
        }
    }
    if ((first == 0xE0 && at[1] < 0xA0) || (first == 0xED && at[1] > 0x9F) || (first == 0xF0 && at[1] < 0x90) ||
        (first == 0xF4 && at[1] > 0x8F)) {
        return 0;
    }
    return length;
}

static bool is_utf8(Place at, Place end)
{
    while (at < end) {
        const size_t length = utf8_length(at, end);
        if (!length) {
            return false;
        }
        at += length;
    }
    return true;
}

/* Text of a string without its escapes, written to `out`, which has room for as many bytes; its length, or -1 for
 * surrogates, which the Python reader knows how to treat. The string has passed `string_end`. */
static ptrdiff_t unescaped(Place at, Place end, uint8_t *out)
{
    uint8_t *const start = out;
    while (at < end) {
        if (*at != '\\') {
            *out++ = *at++;
            continue;
        }
        const uint8_t letter = at[1];
        at += 2;
        if (letter != 'u') {
            const char *const letters = "bfnrt", *const found = memchr(letters, letter, 5);
            *out++ = found ? (uint8_t)"\b\f\n\r\t"[found - letters] : letter;
            continue;
        }
        unsigned code = 0;
        for (int number = 0; number < 4; number++) {
            code = code << 4 | (unsigned)hex_digit(*at++);
        }
        if (code >= 0xD800 && code < 0xE000) {
            return -1;
        }
        if (code >= 0x800) {
            *out++ = (uint8_t)(0xE0 | code >> 12);
            *out++ = (uint8_t)(0x80 | (code >> 6 & 0x3F));
            *out++ = (uint8_t)(0x80 | (code & 0x3F));
        } else if (code >= 0x80) {
            *out++ = (uint8_t)(0xC0 | code >> 6);
            *out++ = (uint8_t)(0x80 | (code & 0x3F));
        } else {
            *out++ = (uint8_t)code;
        }
    }
    return out - start;
}

#endif
