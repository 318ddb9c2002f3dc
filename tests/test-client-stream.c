/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the streams of the command are made of, each by itself: lines that are read no faster than they are taken, bytes to
 * a reader that may be slow, values from JSON by a table, and the histogram of ping and bench.
 */

#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/byte-output.h"
#include "client/latency.h"
#include "client/line-input.h"
#include "client/line-output.h"
#include "client/values-json.h"
#include "common/fd.h"
#include "proto/values-text.h"

/* ---- lines ---- */

#define LINE_MAX_BYTES 100

typedef struct Reader {
        Endpoint *endpoint;
        LineInput input;
        unsigned n_changed;
} Reader;

static void on_input(LineInput *input) {
        Reader *reader = input->userdata;

        reader->n_changed++;
        endpoint_wake(reader->endpoint); /* a file is read before the wait */
}

static void reader_open(Reader *reader, int fd) {
        *reader = (Reader){ 0 };
        assert_int_equal(endpoint_new(&reader->endpoint), 0);
        line_input_open(&reader->input, reader->endpoint, fd, LINE_MAX_BYTES, on_input, reader);
}

static void reader_close(Reader *reader) {
        line_input_close(&reader->input);
        (void) endpoint_free(reader->endpoint);
}

/* next() - the next line is there, or what peek says instead, once the loop has nothing more to do. */
static int next(Reader *reader, char line[LINE_MAX_BYTES + 1]) {
        const uint8_t *data;
        size_t size;
        int r;

        while ((r = line_input_peek(&reader->input, &data, &size)) == LINE_INPUT_NONE)
                assert_int_equal(endpoint_dispatch(reader->endpoint, -1), 0);
        if (r == 0) {
                memcpy(line, data, size);
                line[size] = '\0';
        }
        return r;
}

static const struct {
        const char *text;
        const char *lines[4];
} inputs[] = {
        { "", { NULL } },
        { "a", { "a" } },
        { "a\n", { "a" } },
        { "\n", { "" } },
        { "a\n\nb", { "a", "", "b" } },
        { "one\ntwo\nthree\n", { "one", "two", "three" } },
};

static void check_lines(int fd, const char *const *lines) {
        char line[LINE_MAX_BYTES + 1];
        Reader reader;
        size_t i = 0;

        reader_open(&reader, fd);
        for (; lines[i]; i++) {
                assert_int_equal(reader.input.number, i + 1);
                assert_int_equal(next(&reader, line), 0);
                assert_string_equal(line, lines[i]);
                assert_int_equal(next(&reader, line), 0); /* seen, not taken: the same again */
                assert_string_equal(line, lines[i]);
                line_input_take(&reader.input);
        }
        assert_int_equal(next(&reader, line), LINE_INPUT_END);
        assert_int_equal(next(&reader, line), LINE_INPUT_END);
        reader_close(&reader);
}

/* From a pipe, which is waited for, and from a file, which cannot be. */
static void test_lines(void **state) {
        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(inputs); i++) {
                size_t size = strlen(inputs[i].text);
                FILE *file = tmpfile();
                int fds[2];

                assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
                assert_int_equal(write(fds[1], inputs[i].text, size), size);
                (void) fd_close(fds[1]);
                check_lines(fds[0], inputs[i].lines);
                (void) fd_close(fds[0]);

                assert_non_null(file);
                assert_int_equal(pwrite(fileno(file), inputs[i].text, size, 0), size);
                check_lines(fileno(file), inputs[i].lines);
                assert_int_equal(fclose(file), 0);
        }
}

static void test_line_in_pieces(void **state) {
        char line[LINE_MAX_BYTES + 1];
        const uint8_t *data;
        Reader reader;
        size_t size;
        int fds[2];

        (void) state;
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        reader_open(&reader, fds[0]);
        for (unsigned i = 0; i < 3; i++) {
                assert_int_equal(line_input_peek(&reader.input, &data, &size), LINE_INPUT_NONE);
                assert_int_equal(write(fds[1], &"ab\n"[i], 1), 1);
                while (reader.n_changed <= i)
                        assert_int_equal(endpoint_dispatch(reader.endpoint, -1), 0);
        }
        assert_int_equal(next(&reader, line), 0);
        assert_string_equal(line, "ab");
        line_input_take(&reader.input);
        assert_int_equal(write(fds[1], "c", 1), 1);
        (void) fd_close(fds[1]);
        assert_int_equal(next(&reader, line), 0);
        assert_string_equal(line, "c");
        reader_close(&reader);
        (void) fd_close(fds[0]);
}

/* While a line waits nothing more is read: what comes stays in the pipe, whose writer then waits. */
static void test_lines_do_not_run_ahead(void **state) {
        char line[LINE_MAX_BYTES + 1];
        Reader reader;
        int fds[2], left;

        (void) state;
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        reader_open(&reader, fds[0]);
        assert_int_equal(write(fds[1], "one\n", 4), 4);
        assert_int_equal(next(&reader, line), 0);
        assert_int_equal(write(fds[1], "two\n", 4), 4);
        assert_int_equal(next(&reader, line), 0);
        assert_string_equal(line, "one");
        assert_int_equal(endpoint_dispatch(reader.endpoint, 0), 0);
        assert_int_equal(ioctl(fds[0], FIONREAD, &left), 0);
        assert_int_equal(left, 4);
        line_input_take(&reader.input);
        assert_int_equal(next(&reader, line), 0);
        assert_string_equal(line, "two");
        reader_close(&reader);
        (void) fd_close(fds[0]);
        (void) fd_close(fds[1]);
}

static void test_line_too_long(void **state) {
        char text[LINE_MAX_BYTES + 2], line[LINE_MAX_BYTES + 1];

        (void) state;
        memset(text, 'x', sizeof(text));
        for (size_t size = LINE_MAX_BYTES; size <= LINE_MAX_BYTES + 1; size++) {
                Reader reader;
                int fds[2];

                text[size] = '\n';
                assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
                reader_open(&reader, fds[0]);
                assert_int_equal(write(fds[1], text, size + (size == LINE_MAX_BYTES)),
                                 size + (size == LINE_MAX_BYTES));
                assert_int_equal(next(&reader, line), size > LINE_MAX_BYTES ? -E2BIG : 0);
                reader_close(&reader);
                (void) fd_close(fds[0]);
                (void) fd_close(fds[1]);
                text[size] = 'x';
        }
}

static void test_input_that_cannot_be_read(void **state) {
        _cleanup_fd_ int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        char line[LINE_MAX_BYTES + 1];
        Reader reader;

        (void) state;
        reader_open(&reader, fd);
        assert_int_equal(next(&reader, line), -EISDIR);
        reader_close(&reader);
}

/* ---- bytes ---- */

typedef struct Writer {
        Endpoint *endpoint;
        ByteOutput output;
        unsigned n_changed;
} Writer;

static void on_output(ByteOutput *output) {
        Writer *writer = output->userdata;

        writer->n_changed++;
}

static void writer_open(Writer *writer, int fd) {
        *writer = (Writer){ 0 };
        assert_int_equal(endpoint_new(&writer->endpoint), 0);
        assert_int_equal(byte_output_open(&writer->output, writer->endpoint, fd, on_output, writer), 0);
}

static void writer_close(Writer *writer) {
        byte_output_close(&writer->output);
        (void) endpoint_free(writer->endpoint);
}

#define CHUNK 1000
#define TOTAL (4u * 1024 * 1024)

static uint8_t byte_at(size_t n) {
        return (uint8_t) (n * 7 + n / 251);
}

static void append_chunk(Writer *writer, size_t at) {
        uint8_t chunk[CHUNK];

        for (size_t i = 0; i < CHUNK; i++)
                chunk[i] = byte_at(at + i);
        assert_int_equal(byte_output_append(&writer->output, chunk, CHUNK), 0);
}

/* read_some() - what is there, checked; how much it was. */
static size_t read_some(int fd, size_t at) {
        uint8_t data[8192];
        ssize_t n = read(fd, data, sizeof(data));

        for (ssize_t i = 0; i < n; i++)
                assert_int_equal(data[i], byte_at(at + (size_t) i));
        return n > 0 ? (size_t) n : 0;
}

/* A reader that reads nothing, and then slowly: all comes in order, little is kept, and the turn never blocks. */
static void check_slow_reader(int in, int out, bool must_poll) {
        size_t written = 0, got = 0;
        Writer writer;

        assert_int_equal(fcntl(in, F_SETFL, O_NONBLOCK), 0);
        writer_open(&writer, out);
        writer.output.must_poll = must_poll;
        while (got < TOTAL) {
                unsigned before = writer.n_changed;

                for (; written < TOTAL && byte_output_has_room(&writer.output); written += CHUNK)
                        append_chunk(&writer, written);
                assert_true(writer.output.size - writer.output.begin < 128 * 1024);
                assert_int_equal(endpoint_dispatch(writer.endpoint, 0), 0);
                got += read_some(in, got);
                assert_true(writer.n_changed == before || byte_output_has_room(&writer.output));
                if (written >= TOTAL && byte_output_is_empty(&writer.output) && got >= written)
                        break;
        }
        assert_true(writer.n_changed > 10);
        assert_int_equal(writer.output.error, 0);
        assert_true(writer.output.capacity <= 256 * 1024);
        writer_close(&writer);
}

static void test_slow_pipe(void **state) {
        (void) state;
        for (int i = 0; i < 4; i++) {
                bool must_poll = i & 1, is_nonblocking = i & 2; /* the latter by somebody else */
                int fds[2];

                assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
                if (is_nonblocking)
                        assert_int_equal(fcntl(fds[1], F_SETFL, O_NONBLOCK), 0);
                check_slow_reader(fds[0], fds[1], must_poll);
                (void) fd_close(fds[0]);
                (void) fd_close(fds[1]);
        }
}

static void test_slow_socket(void **state) {
        int fds[2];

        (void) state;
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        check_slow_reader(fds[0], fds[1], false);
        (void) fd_close(fds[0]);
        (void) fd_close(fds[1]);
}

/* A stream of stdio: what its reader does not take stays, what was flushed is offered at once. */
static void test_line_output(void **state) {
        LineOutput output = LINE_OUTPUT_NULL;
        size_t written = 0, got = 0;
        Endpoint *endpoint;
        char data[4096];
        int fds[2];

        (void) state;
        line_output_close(&output);
        assert_int_equal(pipe2(fds, O_CLOEXEC | O_DIRECT), 0); /* each write is read by itself */
        assert_int_equal(endpoint_new(&endpoint), 0);
        assert_int_equal(line_output_open(&output, endpoint, fds[1]), 0);
        assert_true(line_output_is_empty(&output));
        while (line_output_has_room(&output)) {
                written += (size_t) fprintf(output.file, "%zu is a number\n", written);
                assert_int_equal(line_output_flush(&output), 0);
        }
        assert_true(written > 64 * 1024); /* the pipe is full, and the output */
        while (got < written) {
                ssize_t n = read(fds[0], data, sizeof(data));

                assert_true(n > 0);
                assert_int_equal(data[n - 1], '\n'); /* another writer may come here */
                got += (size_t) n;
                assert_int_equal(endpoint_dispatch(endpoint, 0), 0);
        }
        assert_true(line_output_is_empty(&output) && line_output_has_room(&output));
        assert_int_equal(got, written);
        assert_int_equal(output.bytes.written, written);
        (void) fd_close(fds[0]);
        (void) signal(SIGPIPE, SIG_IGN);
        assert_true(fputs("nobody reads\n", output.file) >= 0);
        assert_int_equal(line_output_flush(&output), -EPIPE);
        line_output_close(&output);
        line_output_close(&output);
        (void) fd_close(fds[1]);
        (void) endpoint_free(endpoint);
}

static void test_output_to_a_file(void **state) {
        FILE *file = tmpfile();
        Writer writer;

        (void) state;
        assert_non_null(file);
        writer_open(&writer, fileno(file));
        for (size_t at = 0; at < 100 * CHUNK; at += CHUNK)
                append_chunk(&writer, at);
        assert_false(byte_output_has_room(&writer.output));
        assert_int_equal(endpoint_dispatch(writer.endpoint, 0), 0);
        assert_true(byte_output_is_empty(&writer.output));
        assert_int_equal(writer.n_changed, 1);
        assert_int_equal(lseek(fileno(file), 0, SEEK_CUR), 100 * CHUNK);
        writer_close(&writer);
        assert_int_equal(fclose(file), 0);
}

static void check_error(int fd, int error) {
        Writer writer;

        writer_open(&writer, fd);
        append_chunk(&writer, 0);
        assert_int_equal(endpoint_dispatch(writer.endpoint, 0), 0);
        assert_int_equal(writer.output.error, error);
        assert_int_equal(writer.n_changed, 1);
        assert_false(byte_output_has_room(&writer.output));
        writer_close(&writer);
}

static void test_output_errors(void **state) {
        _cleanup_fd_ int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
        int fds[2];

        (void) state;
        (void) signal(SIGPIPE, SIG_IGN);
        check_error(full, -ENOSPC);
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        (void) fd_close(fds[0]);
        check_error(fds[1], -EPIPE);
        (void) fd_close(fds[1]);
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        (void) fd_close(fds[0]);
        check_error(fds[1], -EPIPE);
        (void) fd_close(fds[1]);
}

/* ---- values from JSON ---- */

static const struct {
        const char *json;
        int result;
        const char *text; /* as values_format() has it; or what the error contains */
} documents[] = {
        { "[]", 0, "" },
        { "[{'type': 'u8', 'value': 255}]", 0, "255\n" },
        { "{'type': 'i8', 'value': -128}", 0, "-128\n" },
        { "[{'type': 'u64', 'value': '18446744073709551615'}]", 0, "18446744073709551615\n" },
        { "[{'type': 'i64', 'value': -9223372036854775808}]", 0, "-9223372036854775808\n" },
        { "[{'type': 'f64', 'value': 5}, {'type': 'f32', 'value': 0.5}]", 0, "5\n0.5\n" },
        { "[{'type': 'f64', 'value': 'nan'}, {'type': 'f32', 'value': '-inf'}]", 0, "nan\n-inf\n" },
        { "[{'type': 'string', 'value': 'h\303\251'}]", 0, "h\303\251\n" },
        { "[{'type': 'buffer', 'value': '00fF'}, {'type': 'buffer', 'value': ''}]", 0, "00ff\n\n" },
        { "[{'type': 'null', 'value': null}]", 0, "null\n" },
        { "[{'type': 'out', 'value': 4096}]", 0, "4096\n" },
        { "[{'type': 'u8', 'value': 256}]", -ERANGE, "value 1: outside the range of u8" },
        { "[{'type': 'u8', 'value': 1}, {'type': 'u16', 'value': -1}]", -ERANGE, "value 2: outside" },
        { "[{'type': 'i32', 'value': 2147483648}]", -ERANGE, "range of i32" },
        { "[{'type': 'u64', 'value': '18446744073709551616'}]", -ERANGE, "range of u64" },
        { "[{'type': 'f32', 'value': 1e39}]", -ERANGE, "range of f32" },
        { "[{'type': 'u8', 'value': 1.0}]", -EINVAL, "a whole number" },
        { "[{'type': 'u8', 'value': true}]", -EINVAL, "a whole number" },
        { "[{'type': 'i64', 'value': '1'}]", -EINVAL, "a whole number" },
        { "[{'type': 'f64', 'value': '1'}]", -EINVAL, "needs a number" },
        { "[{'type': 'f64', 'value': null}]", -EINVAL, "needs a number" },
        { "[{'type': 'string', 'value': 1}]", -EINVAL, "needs a string" },
        { "[{'type': 'buffer', 'value': '0'}]", -EINVAL, "hexadecimal" },
        { "[{'type': 'buffer', 'value': '0g'}]", -EINVAL, "hexadecimal" },
        { "[{'type': 'buffer', 'value': 7}]", -EINVAL, "hexadecimal" },
        { "[{'type': 'null', 'value': 0}]", -EINVAL, "needs null" },
        { "[{'type': 'blob', 'value': 0}]", -EINVAL, "not an object with \"type\"" },
        { "[{'type': 'u8'}]", -EINVAL, "not an object" },
        { "[{'value': 1}]", -EINVAL, "not an object" },
        { "[1]", -EINVAL, "value 1: not an object" },
        { "[[]]", -EINVAL, "value 1: not an object" },
        { "{}", -EINVAL, "value 1: not an object" },
};

/* load() - JSON with quotes that are easier to read in C. */
static json_t *load(const char *text) {
        char quoted[256];
        json_t *json;

        (void) snprintf(quoted, sizeof(quoted), "%s", text);
        for (char *p = quoted; (p = strchr(p, '\''));)
                *p = '"';
        json = json_loads(quoted, 0, NULL);
        assert_non_null(json);
        return json;
}

static void test_values_from_json(void **state) {
        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(documents); i++) {
                _cleanup_(values_freep) Baton__Values *values = NULL, *again = NULL;
                json_auto_t *json = load(documents[i].json), *back = NULL;
                char error[VALUES_ERROR_MAX] = "";
                _cleanup_free_ char *text = NULL;

                assert_int_equal(values_from_json(json, &values, error), documents[i].result);
                if (documents[i].result < 0) {
                        assert_non_null(strstr(error, documents[i].text));
                        continue;
                }
                assert_int_equal(values_format(values, &text), 0);
                assert_string_equal(text, documents[i].text);
                /* What is written can be read, and means the same. */
                assert_int_equal(values_to_json(values, &back), 0);
                assert_int_equal(values_from_json(back, &again, error), 0);
                assert_int_equal(again->n_values, values->n_values);
                for (size_t n = 0; n < values->n_values; n++)
                        assert_int_equal(value_type(again->values[n]), value_type(values->values[n]));
        }
}

static void test_values_from_json_too_many(void **state) {
        _cleanup_(values_freep) Baton__Values *values = NULL;
        json_auto_t *json = json_array();
        char error[VALUES_ERROR_MAX];

        (void) state;
        for (int i = 0; i <= VALUES_MAX; i++)
                assert_int_equal(json_array_append_new(json, load("{'type': 'u8', 'value': 1}")), 0);
        assert_int_equal(values_from_json(json, &values, error), -E2BIG);
        assert_non_null(strstr(error, "value 4097: one more"));
}

/* ---- latency ---- */

static void test_latency(void **state) {
        Latency *latency = calloc(1, sizeof(*latency));

        (void) state;
        assert_non_null(latency);
        assert_int_equal(latency_quantile(latency, 0.5), 0);
        for (uint64_t i = 1; i <= 1000; i++)
                latency_add(latency, i * 1000);
        assert_int_equal(latency_quantile(latency, 0), 1000);
        assert_int_equal(latency_quantile(latency, 1), 1000000);
        for (unsigned percent = 1; percent < 100; percent++) {
                double exact = percent * 10000.0, found = (double) latency_quantile(latency, percent / 100.0);

                assert_true(found > exact * 0.99 && found < exact * 1.01);
        }
        free(latency);
}

/* Each number, small or huge, comes back within 1 %, and exactly as far as it is the least and the most. */
static void test_latency_range(void **state) {
        Latency *latency = malloc(sizeof(*latency));

        (void) state;
        assert_non_null(latency);
        for (unsigned bit = 0; bit < 64; bit++)
                for (int off = -1; off <= 1; off++) {
                        uint64_t ns = (UINT64_C(1) << bit) + (uint64_t) off;

                        memset(latency, 0, sizeof(*latency));
                        latency_add(latency, 0);
                        latency_add(latency, ns);
                        latency_add(latency, ns);
                        latency_add(latency, UINT64_MAX);
                        assert_int_equal(latency_quantile(latency, 0), 0);
                        assert_int_equal(latency_quantile(latency, 1), UINT64_MAX);
                        assert_true((double) latency_quantile(latency, 0.6) <= (double) ns * 1.01);
                        assert_true((double) latency_quantile(latency, 0.6) >= (double) ns * 0.99);
                }
        free(latency);
}

static const struct CMUnitTest tests[] = {
        TEST(test_lines),
        TEST(test_line_in_pieces),
        TEST(test_lines_do_not_run_ahead),
        TEST(test_line_too_long),
        TEST(test_input_that_cannot_be_read),
        TEST(test_slow_pipe),
        TEST(test_slow_socket),
        TEST(test_line_output),
        TEST(test_output_to_a_file),
        TEST(test_output_errors),
        TEST(test_values_from_json),
        TEST(test_values_from_json_too_many),
        TEST(test_latency),
        TEST(test_latency_range),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}
