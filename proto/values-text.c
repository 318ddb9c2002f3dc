/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Values as text: the command line's arguments in, printed results out, as lines or as JSON.
 *
 * Reading is strict. A value that does not fit its type is refused, never cut or wrapped, and the one line that says so
 * names the argument by number and text, because a command line is long and its author is looking for one mistake. What
 * the user wrote is shown shortened and with control characters escaped: arguments come from scripts, too.
 *
 * Each type is a row of a table: the function that reads its text. Functions below parse_one() say in Parser.reason what
 * is wrong; parse_one() puts the argument in front. Files are read to at most what a call can still carry, so that
 * `buffer:@/dev/zero` is an error and not the end of memory.
 */

#include "proto/values-text.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/parse.h"

enum {
        SHOWN_MAX = 60,  /* bytes of an argument that an error shows */
        ESCAPED_MAX = 8, /* bytes that one escaped character can take, NUL included */
        FLOAT_MAX = 32,  /* bytes of a float's text */
        READ_CHUNK = 64 * 1024,
};

typedef struct Parser {
        size_t left; /* of what a call can carry, what strings and buffers have not taken yet */
        bool stdin_taken;
        char reason[VALUES_ERROR_MAX];
} Parser;

typedef int (*ParseFn)(Parser *parser, const char *text, ValueType type, Baton__Value *value);

static int refuse(Parser *parser, int error, const char *format, ...) _printf_(3, 4);

static int refuse(Parser *parser, int error, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        (void) vsnprintf(parser->reason, sizeof(parser->reason), format, arguments);
        va_end(arguments);
        return error;
}

/* ---- escaping -------------------------------------------------------------------------------------------------- */

/* escape_one() - the first character of @text, printable, in @out; how many bytes of @text it was. */
static size_t escape_one(const char *text, size_t size, char out[ESCAPED_MAX]) {
        const uint8_t *p = (const uint8_t *) text;
        size_t n = *p < 0x80 ? 1 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : 4;

        if (*p == '\n' || *p == '\t' || *p == '\r')
                (void) snprintf(out, ESCAPED_MAX, "\\%c", *p == '\n' ? 'n' : *p == '\t' ? 't' : 'r');
        else if (*p < 0x20 || *p == 0x7f || n > size || !utf8_is_valid(text, n))
                (void) snprintf(out, ESCAPED_MAX, "\\x%02x", (unsigned) *p);
        else if (*p == 0xc2 && p[1] < 0xa0)
                (void) snprintf(out, ESCAPED_MAX, "\\u%04x", (unsigned) p[1]);
        else
                (void) snprintf(out, ESCAPED_MAX, "%.*s", (int) n, text);
        /* Of an ill-formed sequence only the first byte is gone: the next may begin a good one. */
        return out[0] == '\\' && out[1] == 'x' ? 1 : n;
}

/* shorten() - @text, escaped, in @out of at least SHOWN_MAX + ESCAPED_MAX + 4 bytes; a long one is cut and ends in "...". */
static void shorten(const char *text, char *out) {
        size_t left = strlen(text), length = 0;

        out[0] = '\0';
        while (left > 0) {
                char escaped[ESCAPED_MAX];
                size_t n = escape_one(text, left, escaped);

                if (length + strlen(escaped) > SHOWN_MAX) {
                        memcpy(out + length, "...", sizeof("..."));
                        return;
                }
                memcpy(out + length, escaped, strlen(escaped) + 1);
                length += strlen(escaped);
                text += n;
                left -= n;
        }
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static int parse_signed(Parser *parser, const char *text, ValueType type, Baton__Value *value) {
        int64_t min = value_type_min(type), max = (int64_t) value_type_max(type);
        int r = parse_i64(text, min, max, &value->i);

        return r < 0 ? refuse(parser, r, "not a number from %" PRId64 " to %" PRId64, min, max) : 0;
}

static int parse_unsigned(Parser *parser, const char *text, ValueType type, Baton__Value *value) {
        uint64_t max = value_type_max(type);
        int r = parse_u64(text, max, &value->u);

        return r < 0 ? refuse(parser, r, "not a number from 0 to %" PRIu64, max) : 0;
}

/*
 * parse_float() - parse_double() judges the text; the number is then read at its own width, since rounding twice can be
 * off by one. What is too small for full precision is rounded like every other number; what would become 0 is refused.
 */
static int parse_float(Parser *parser, const char *text, ValueType type, Baton__Value *value) {
        double number;
        int r = parse_double(text, &number);

        if (r == -EINVAL)
                return refuse(parser, r, "not a number");
        errno = 0;
        if (type == VALUE_F32)
                number = value->f = strtof(text, NULL);
        else
                number = value->d = strtod(text, NULL);
        if (errno == ERANGE && (isinf(number) || fpclassify(number) == FP_ZERO))
                return refuse(parser, -ERANGE, "outside the range of %s", value_type_name(type));
        return 0;
}

/* take_room() - @size bytes more of what a call can carry. */
static int take_room(Parser *parser, size_t size) {
        if (size > parser->left)
                return refuse(parser, -E2BIG, "larger than the %zu bytes that a call can still carry", parser->left);
        parser->left -= size;
        return 0;
}

static int parse_string(Parser *parser, const char *text, _unused_ ValueType type, Baton__Value *value) {
        size_t length = strlen(text);

        if (!utf8_is_valid(text, length))
                return refuse(parser, -EINVAL, "not UTF-8");
        value->s = strdup(text);
        if (!value->s)
                return refuse(parser, -ENOMEM, "no memory for it");
        return take_room(parser, length);
}

/* parse_hex_buffer() - the memory is given to @value also on failure, which frees it. */
static int parse_hex_buffer(Parser *parser, const char *text, Baton__Value *value) {
        size_t size = strlen(text) / 2;
        int r = take_room(parser, size);

        if (r < 0)
                return r;
        value->b.data = malloc(MAX(size, (size_t) 1));
        if (!value->b.data)
                return refuse(parser, -ENOMEM, "no memory for it");
        r = parse_hex(text, value->b.data, size, &value->b.len);
        return r < 0 ? refuse(parser, r, "not pairs of hexadecimal digits") : 0;
}

/* grow() - room for READ_CHUNK bytes more, at least doubling. */
static int grow(uint8_t **data, size_t *capacity, size_t length) {
        size_t wanted = MAX(length + READ_CHUNK, *capacity * 2);
        uint8_t *grown;

        if (*capacity - length >= READ_CHUNK)
                return 0;
        grown = realloc(*data, wanted);
        if (!grown)
                return -ENOMEM;
        *data = grown;
        *capacity = wanted;
        return 0;
}

static int read_buffer(Parser *parser, int fd, Baton__Value *value) {
        size_t capacity = 0;

        while (value->b.len <= parser->left) {
                ssize_t n;

                if (grow(&value->b.data, &capacity, value->b.len) < 0)
                        return refuse(parser, -ENOMEM, "no memory for it");
                n = read(fd, value->b.data + value->b.len, READ_CHUNK);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return refuse(parser, -errno, "cannot read it: %s", strerror(errno));
                if (n == 0)
                        break;
                value->b.len += (size_t) n;
        }
        return take_room(parser, value->b.len);
}

static int parse_buffer(Parser *parser, const char *text, _unused_ ValueType type, Baton__Value *value) {
        _cleanup_fd_ int fd = -1;

        if (strncmp(text, "hex:", 4) == 0)
                return parse_hex_buffer(parser, text + 4, value);
        if (strcmp(text, "-") == 0) {
                if (parser->stdin_taken)
                        return refuse(parser, -EINVAL, "standard input can be only one of the arguments");
                parser->stdin_taken = true;
                return read_buffer(parser, STDIN_FILENO, value);
        }
        if (text[0] != '@')
                return refuse(parser, -EINVAL, "give buffer:@FILE, buffer:hex:DIGITS or buffer:- (standard input)");
        fd = open(text + 1, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        if (fd < 0)
                return refuse(parser, -errno, "cannot open it: %s", strerror(errno));
        return read_buffer(parser, fd, value);
}

static int parse_out(Parser *parser, const char *text, _unused_ ValueType type, Baton__Value *value) {
        int r = parse_size(text, SIZE_MAX, &value->u);

        return r < 0 ? refuse(parser, r, "not a size in bytes (a suffix K, M or G is allowed)") : 0;
}

static const ParseFn parse_fns[] = {
        [VALUE_I8] = parse_signed,    [VALUE_I16] = parse_signed,    [VALUE_I32] = parse_signed,
        [VALUE_I64] = parse_signed,   [VALUE_U8] = parse_unsigned,   [VALUE_U16] = parse_unsigned,
        [VALUE_U32] = parse_unsigned, [VALUE_U64] = parse_unsigned,  [VALUE_F32] = parse_float,
        [VALUE_F64] = parse_float,    [VALUE_STRING] = parse_string, [VALUE_BUFFER] = parse_buffer,
        [VALUE_OUT] = parse_out,
};
static_assert(ARRAY_SIZE(parse_fns) == _VALUE_N, "every type of value can be read");

static int parse_one(Parser *parser, const char *text, Baton__Values *values) {
        const char *colon = strchr(text, ':');
        Baton__Value *value;
        ValueType type;
        int r;

        if (!colon || value_type_parse(text, (size_t) (colon - text), &type) < 0)
                return refuse(
                        parser, -EINVAL,
                        "not TYPE:VALUE with TYPE one of i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 string buffer out");
        r = values_add(values, type, &value);
        if (r == -E2BIG)
                return refuse(parser, r, "one more than the %d values that a call can have", VALUES_MAX);
        if (r < 0)
                return refuse(parser, r, "no memory for it");
        return parse_fns[type](parser, colon + 1, type, value);
}

int values_parse(char *const *texts, size_t n, size_t max_bytes, Baton__Values **ret_values, char *error) {
        _cleanup_(values_freep) Baton__Values *values = values_new();
        Parser parser = { .left = max_bytes };
        size_t packed;

        if (!values) {
                (void) snprintf(error, VALUES_ERROR_MAX, "no memory");
                return -ENOMEM;
        }
        for (size_t i = 0; i < n; i++) {
                char shown[SHOWN_MAX + ESCAPED_MAX + 4];
                int r = parse_one(&parser, texts[i], values);

                if (r < 0) {
                        shorten(texts[i], shown);
                        (void) snprintf(error, VALUES_ERROR_MAX, "argument %zu (%s): %.400s", i + 1, shown,
                                        parser.reason);
                        return r;
                }
        }
        packed = baton__values__get_packed_size(values);
        if (packed > max_bytes) {
                (void) snprintf(error, VALUES_ERROR_MAX,
                                "all arguments together: %zu bytes, more than the %zu of a call", packed, max_bytes);
                return -E2BIG;
        }
        *ret_values = TAKE_PTR(values);
        return 0;
}

/* ---- printing -------------------------------------------------------------------------------------------------- */

/*
 * format_float() - the fewest digits that give the same number again, in @out of at least FLOAT_MAX bytes; with all
 * digits of a whole number instead of an exponent where they are no more than the type's precision: 1330, not 1.33e+03.
 */
static void format_float(const Baton__Value *value, char *out) {
        bool is_single = value->v_case == BATON__VALUE__V_F;
        double number = is_single ? (double) value->f : value->d;
        int max_digits = is_single ? FLT_DECIMAL_DIG : DBL_DECIMAL_DIG;

        out[0] = '\0';
        for (int digits = 1; digits <= max_digits; digits++) {
                char text[FLOAT_MAX];
                double again;

                (void) snprintf(text, sizeof(text), "%.*g", digits, number);
                again = is_single ? (double) strtof(text, NULL) : strtod(text, NULL);
                if (memcmp(&again, &number, sizeof(number)) != 0 && !isnan(number))
                        continue;
                if (out[0] == '\0' || !strchr(text, 'e'))
                        memcpy(out, text, sizeof(text));
                if (!strchr(text, 'e'))
                        return;
        }
}

static void write_hex(FILE *file, const ProtobufCBinaryData *bytes) {
        static const char digits[] = "0123456789abcdef";

        for (size_t i = 0; i < bytes->len; i++) {
                (void) fputc(digits[bytes->data[i] >> 4], file);
                (void) fputc(digits[bytes->data[i] & 0xf], file);
        }
}

static void write_escaped(FILE *file, const char *text) {
        for (size_t left = strlen(text); left > 0;) {
                char escaped[ESCAPED_MAX];
                size_t n = escape_one(text, left, escaped);

                (void) fputs(escaped, file);
                text += n;
                left -= n;
        }
}

static void write_value(FILE *file, const Baton__Value *value) {
        char number[FLOAT_MAX];

        switch (value->v_case) {
        case BATON__VALUE__V_I:
                (void) fprintf(file, "%" PRId64, value->i);
                break;
        case BATON__VALUE__V_U:
                (void) fprintf(file, "%" PRIu64, value->u);
                break;
        case BATON__VALUE__V_F:
        case BATON__VALUE__V_D:
                format_float(value, number);
                (void) fputs(number, file);
                break;
        case BATON__VALUE__V_S:
                write_escaped(file, value->s ? value->s : "");
                break;
        case BATON__VALUE__V_B:
                write_hex(file, &value->b);
                break;
        default:
                (void) fputs("null", file);
        }
}

int values_format(const Baton__Values *values, char **ret_text) {
        char *text = NULL;
        size_t size = 0;
        FILE *file = open_memstream(&text, &size);
        bool failed;

        if (!file)
                return -ENOMEM;
        for (size_t i = 0; i < values->n_values; i++) {
                write_value(file, values->values[i]);
                (void) fputc('\n', file);
        }
        failed = ferror(file) != 0;
        failed |= fclose(file) != 0;
        if (failed) {
                free(text);
                return -ENOMEM;
        }
        *ret_text = text;
        return 0;
}

static json_t *json_hex(const ProtobufCBinaryData *bytes) {
        _cleanup_free_ char *text = NULL;
        size_t size = 0;
        FILE *file = open_memstream(&text, &size);

        if (!file)
                return NULL;
        write_hex(file, bytes);
        if (fclose(file) != 0)
                return NULL;
        return json_stringn_nocheck(text, size);
}

static json_t *json_float(const Baton__Value *value) {
        double number = value->v_case == BATON__VALUE__V_F ? (double) value->f : value->d;

        if (isfinite(number))
                return json_real(number);
        return json_string(isnan(number) ? "nan" : number < 0 ? "-inf" : "inf");
}

static json_t *json_value(const Baton__Value *value) {
        switch (value->v_case) {
        case BATON__VALUE__V_I:
                return json_integer(value->i);
        case BATON__VALUE__V_U:
                return value->u > INT64_MAX ? json_sprintf("%" PRIu64, value->u) : json_integer((json_int_t) value->u);
        case BATON__VALUE__V_F:
        case BATON__VALUE__V_D:
                return json_float(value);
        case BATON__VALUE__V_S:
                return json_string(value->s ? value->s : "");
        case BATON__VALUE__V_B:
                return json_hex(&value->b);
        default:
                return json_null();
        }
}

int values_to_json(const Baton__Values *values, json_t **ret_json) {
        json_t *array = json_array();

        for (size_t i = 0; array && i < values->n_values; i++) {
                const Baton__Value *value = values->values[i];
                /* The "o" format takes the value's reference also when it fails, and fails for NULL. */
                json_t *object = json_pack("{s:s, s:o}", "type", value_type_name(value_type(value)), "value",
                                           json_value(value));

                if (json_array_append_new(array, object) < 0) {
                        json_decref(array);
                        return -ENOMEM;
                }
        }
        if (!array)
                return -ENOMEM;
        *ret_json = array;
        return 0;
}
