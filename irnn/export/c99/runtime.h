/* irnn_runtime.h: what every exported program needs; no library, no heap, no floating point.
 *
 * C99 leaves it to the compiler how a negative number is shifted right, so floors are written out here in operations
 * that the standard defines; compilers make one arithmetic shift of them.  Integers have exact widths, which C99 defines
 * as two's complement; nothing relies on the width of int. */
#ifndef IRNN_RUNTIME_H
#define IRNN_RUNTIME_H

#include <stdint.h>

/* What a call returns. */
#define IRNN_OK 0
#define IRNN_BAD_SIZE 1  /* steps or places below 1, or more than the program was exported for */
#define IRNN_BAD_INPUT 2 /* an input outside the range for which the program was proved */

/* floor(x / 2^n), 0 <= n < width */
static inline int32_t irnn_shift32(int32_t x, int32_t n) { return x < 0 ? ~(~x >> n) : x >> n; }
static inline int64_t irnn_shift64(int64_t x, int64_t n) { return x < 0 ? ~(~x >> n) : x >> n; }

/* floor(a / b), b > 0 */
static inline int32_t irnn_floor_div32(int32_t a, int32_t b) { return a / b - (a % b < 0 ? 1 : 0); }
static inline int64_t irnn_floor_div64(int64_t a, int64_t b) { return a / b - (a % b < 0 ? 1 : 0); }

static inline int32_t irnn_clamp32(int32_t x, int32_t low, int32_t high)
{
    return x < low ? low : x > high ? high : x;
}

static inline int64_t irnn_clamp64(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}

static inline int32_t irnn_abs32(int32_t x) { return x < 0 ? -x : x; }
static inline int64_t irnn_abs64(int64_t x) { return x < 0 ? -x : x; }

/* floor(sqrt(x)), x >= 0: one bit of the root after the other */
static inline int64_t irnn_sqrt64(int64_t x)
{
    int64_t root = 0, bit = INT64_C(1) << 62;
    while (bit > x) bit /= 4;
    while (bit != 0) {
        const int64_t with = root + bit;
        root /= 2;
        if (x >= with) {
            x -= with;
            root += bit;
        }
        bit /= 4;
    }
    return root;
}

/* how many of the ascending knots are <= x */
#define IRNN_COUNT(type, name)                                                                     \
    static inline int32_t irnn_count_##name(const type *knots, int32_t n, int32_t x)               \
    {                                                                                              \
        int32_t low = 0, high = n;                                                                 \
        while (low < high) {                                                                       \
            const int32_t middle = low + (high - low) / 2;                                         \
            if (knots[middle] <= x) low = middle + 1;                                              \
            else high = middle;                                                                    \
        }                                                                                          \
        return low;                                                                                \
    }
IRNN_COUNT(int32_t, int32)
IRNN_COUNT(int16_t, int16)
IRNN_COUNT(int8_t, int8)

/* Packed integers: field k of a row takes `bits` bits from bit `bits * k` of it on, lowest first. */
static inline int32_t irnn_field(const uint8_t *row, int32_t k, int32_t bits)
{
    const int32_t bit = k * bits, shift = bit % 8;
    uint32_t window = row[bit / 8];
    if (shift + bits > 8) window |= (uint32_t)row[bit / 8 + 1] << 8;
    return (int32_t)((window >> shift) & ((UINT32_C(1) << bits) - 1));
}

/* ... as two's complement */
static inline int32_t irnn_signed_field(const uint8_t *row, int32_t k, int32_t bits)
{
    const int32_t sign = INT32_C(1) << (bits - 1);
    return (irnn_field(row, k, bits) ^ sign) - sign;
}

/* ... of one bit: 1 or -1 */
static inline int32_t irnn_binary_field(const uint8_t *row, int32_t k) { return 2 * irnn_field(row, k, 1) - 1; }

/* sum of x[k] w[k]: an activation of 8 or 16 bits, a row of weights as they are stored.  The sum is proved to fit. */
#define IRNN_DOTS(type, name)                                                                      \
    static inline int32_t irnn_dot_##name##_int8(const type *x, const int8_t *w, int32_t n)        \
    {                                                                                              \
        int32_t k, sum = 0;                                                                        \
        for (k = 0; k < n; ++k) sum += (int32_t)x[k] * w[k];                                       \
        return sum;                                                                                \
    }                                                                                              \
    static inline int32_t irnn_dot_##name##_int16(const type *x, const int16_t *w, int32_t n)      \
    {                                                                                              \
        int32_t k, sum = 0;                                                                        \
        for (k = 0; k < n; ++k) sum += (int32_t)x[k] * w[k];                                       \
        return sum;                                                                                \
    }                                                                                              \
    static inline int32_t irnn_dot_##name##_bits4(const type *x, const uint8_t *w, int32_t n)      \
    {                                                                                              \
        const int32_t pairs = n / 2;                                                               \
        int32_t k, sum = 0;                                                                        \
        for (k = 0; k < pairs; ++k) {                                                              \
            const type *part = x + 2 * k;                                                          \
            const int32_t two = w[k];                                                              \
            sum += part[0] * (((two & 15) ^ 8) - 8) + part[1] * (((two / 16) ^ 8) - 8);            \
        }                                                                                          \
        if (n % 2 != 0) sum += x[n - 1] * irnn_signed_field(w, n - 1, 4);                          \
        return sum;                                                                                \
    }                                                                                              \
    static inline int32_t irnn_dot_##name##_bits2(const type *x, const uint8_t *w, int32_t n)      \
    {                                                                                              \
        const int32_t fours = n / 4, rest = n % 4;                                                 \
        int32_t k, sum = 0;                                                                        \
        for (k = 0; k < fours; ++k) {                                                              \
            const type *part = x + 4 * k;                                                          \
            const int32_t four = w[k];                                                             \
            sum += part[0] * (((four & 3) ^ 2) - 2) + part[1] * (((four / 4 & 3) ^ 2) - 2) +       \
                   part[2] * (((four / 16 & 3) ^ 2) - 2) + part[3] * (((four / 64) ^ 2) - 2);      \
        }                                                                                          \
        for (k = 0; k < rest; ++k) sum += x[n - rest + k] * irnn_signed_field(w, n - rest + k, 2); \
        return sum;                                                                                \
    }                                                                                              \
    static inline int32_t irnn_dot_##name##_bits(                                                  \
        const type *x, const uint8_t *w, int32_t n, int32_t bits)                                  \
    {                                                                                              \
        int32_t k, sum = 0;                                                                        \
        for (k = 0; k < n; ++k) sum += x[k] * irnn_signed_field(w, k, bits);                       \
        return sum;                                                                                \
    }                                                                                              \
    static inline int32_t irnn_dot_##name##_binary(const type *x, const uint8_t *w, int32_t n)     \
    {                                                                                              \
        int32_t k, sum = 0;                                                                        \
        for (k = 0; k < n; ++k) sum += (w[k / 8] >> k % 8) & 1 ? (int32_t)x[k] : -(int32_t)x[k];   \
        return sum;                                                                                \
    }                                                                                              \
    static inline int32_t irnn_dot_##name##_codebook(                                              \
        const type *x, const uint8_t *w, int32_t n, int32_t bits, const int16_t *values)           \
    {                                                                                              \
        int32_t k, sum = 0;                                                                        \
        for (k = 0; k < n; ++k) sum += (int32_t)x[k] * values[irnn_field(w, k, bits)];             \
        return sum;                                                                                \
    }
IRNN_DOTS(int8_t, int8)
IRNN_DOTS(int16_t, int16)

#endif
