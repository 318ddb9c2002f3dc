/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Candidate baton, as an application has it: a private supervisor, a runner that it starts (this program again, with
 * --runner), and a connection of our own to that by attach. Nothing but the public library. The supervisor and the keeper
 * are there all the time and sleep; the processor time counted is the client's and the runner's.
 *
 * Built with BUFFERS it is candidate buffer: payloads are made in place, in struct baton_buffer, which the library puts
 * where the other side can read them without a copy. The client writes every byte anew for each call, which the other
 * candidates are spared: they send the same bytes each time. The runner copies its answer from the call, where it lies.
 * Both sides look at each page of what they get, or else nobody would ever have. For payloads of which the default for
 * shared memory holds but one, there is room for a few.
 */

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <baton/client.h>
#include <baton/runner.h>

#include "bench/candidate.h"

#define METHOD         "echo.Echo/Unary"
#define FRAME_SPARE    (64u * 1024u) /* of a frame, for the Envelope, and the smallest limit that is accepted */
#define SHARED_DEFAULT ((size_t) 64 << 20)
#define SHARED_FRAMES  4u

/* shared_memory() - the limit of it for frames of @frame bytes; 0: the default. */
static size_t shared_memory(size_t frame) {
        return frame > SHARED_DEFAULT / SHARED_FRAMES ? frame * SHARED_FRAMES : 0;
}

/* ---- the runner ---- */

static size_t answer_size;

#ifdef BUFFERS
#define NAME "buffer"
#define PAGE 4096u

/* buffer_new() - of @size bytes, which are at *@ret_data. */
static struct baton_buffer *buffer_new(struct baton_connection *connection, size_t size, void **ret_data) {
        struct baton_buffer *buffer;

        if (baton_buffer_new(connection, size, &buffer) < 0)
                die("no memory for a buffer of %zu bytes", size);
        *ret_data = baton_buffer_data(buffer, &size);
        return buffer;
}

static void look_at(const void *data, size_t size) {
        for (size_t at = 0; at < size; at += PAGE)
                if (((const volatile uint8_t *) data)[at] == 0)
                        die("a byte of the payload is missing");
}

static void echo(struct baton_call *call, const uint8_t *data, size_t size) {
        struct baton_buffer *buffer;
        void *answer;

        look_at(data, size);
        size = size < answer_size ? size : answer_size;
        buffer = buffer_new(baton_call_connection(call), size, &answer);
        memcpy(answer, data, size);
        (void) baton_call_answer_buffer(call, buffer);
}
#else
#define NAME "baton"

static void echo(struct baton_call *call, const uint8_t *data, size_t size) {
        (void) baton_call_answer(call, "", data, size < answer_size ? size : answer_size);
}
#endif

static void on_echo(struct baton_call *call, void *userdata) {
        size_t size;
        const void *data = baton_call_data(call, &size);

        (void) userdata;
        echo(call, data, size);
}

/* run_runner() - CPU, bytes of an answer, bytes of a frame. */
static int run_runner(char **arguments) {
        struct baton_runner_options options = { .size = sizeof(options) };
        struct baton_runner *runner;

        measure_pin(atoi(arguments[0]));
        answer_size = strtoul(arguments[1], NULL, 10);
        options.max_frame = strtoul(arguments[2], NULL, 10);
        options.max_shared = shared_memory(options.max_frame);
        if (baton_runner_new(&runner, &options) < 0 || baton_runner_add_method(runner, METHOD, on_echo, NULL) < 0)
                return EXIT_FAILURE;
        (void) baton_runner_run(runner);
        baton_runner_free(runner);
        return EXIT_SUCCESS;
}

/* ---- the client ---- */

typedef struct Client {
        struct baton_client *client;
        struct baton_connection *connection;
        size_t *slots; /* what a call remembers; by slot */
        Exchange *exchange;
} Client;

static Client client;

static void send_call(size_t *slot);

static void on_answer(const struct baton_answer *answer, void *userdata) {
        size_t *slot = userdata;

        if (answer->status != BATON_OK)
                die("a call failed: %s", answer->message);
#ifdef BUFFERS
        look_at(answer->data, answer->size);
#endif
        exchange_answered(client.exchange, *slot, answer->size);
        send_call(slot);
}

static void send_call(size_t *slot) {
        Exchange *exchange = client.exchange;
        struct baton_call_parameters parameters = {
                .size = sizeof(parameters),
                .method = METHOD,
                .data = exchange->payload,
                .data_size = exchange->options->size,
        };

#ifdef BUFFERS
        void *data;
#endif

        if (!exchange_next(exchange, *slot))
                return;
#ifdef BUFFERS
        parameters.data = NULL;
        parameters.data_size = 0;
        parameters.buffer = buffer_new(client.connection, exchange->options->size, &data);
        memset(data, 1 + (int) (exchange->sent % 255), exchange->options->size);
#endif
        if (baton_connection_call(client.connection, &parameters, on_answer, slot, NULL) < 0)
                die("a call could not be started");
}

/* start_runner() - this very program; the supervisor accepts frames of any size we make. */
static void start_runner(const CandidateOptions *options, struct baton_started *ret_started) {
        char program[PATH_MAX] = "", cpu[24], answer[24], frame[24];
        const char *arguments[] = { "--runner", cpu, answer, frame, NULL };
        struct baton_start_parameters start = {
                .size = sizeof(start),
                .program = program,
                .arguments = arguments,
                .max_frame = options->size + FRAME_SPARE,
        };

        (void) snprintf(cpu, sizeof(cpu), "%d", options->server_cpu);
        (void) snprintf(answer, sizeof(answer), "%zu", options->answer);
        (void) snprintf(frame, sizeof(frame), "%zu", options->size + FRAME_SPARE);
        if (readlink("/proc/self/exe", program, sizeof(program) - 1) < 0)
                die("this program's path is unknown");
        if (baton_client_start(client.client, &start, ret_started) != 0)
                die("the runner did not start: %s", baton_client_failure(client.client)->message);
}

static void client_open(const CandidateOptions *options, Meeting *meeting) {
        struct baton_client_options client_options = {
                .size = sizeof(client_options),
                .max_frame = options->size + FRAME_SPARE,
                .max_shared = shared_memory(options->size + FRAME_SPARE),
        };
        struct baton_started started = { .size = sizeof(started) };
        int r = baton_client_new_private(&client.client, &client_options);

        if (r < 0)
                die("baton cannot be started: %s; is BATON_PROGRAM right?", strerror(-r));
        start_runner(options, &started);
        if (baton_client_attach(client.client, started.name, 0, &client.connection) != 0)
                die("cannot attach: %s", baton_client_failure(client.client)->message);
        meeting->server = started.pid;
        client.slots = calloc(options->window, sizeof(*client.slots));
        if (!client.slots)
                die("out of memory");
        for (size_t slot = 0; slot < options->window; slot++)
                client.slots[slot] = slot;
}

static void client_run(Exchange *exchange) {
        client.exchange = exchange;
        for (size_t slot = 0; slot < exchange->options->window; slot++)
                send_call(&client.slots[slot]);
        while (!exchange_is_over(exchange))
                if (baton_client_dispatch(client.client, -1) < 0)
                        die("the client cannot wait");
}

static void client_close(void) {
        baton_client_free(client.client);
        free(client.slots);
}

static const char *version(void) {
        static char text[64];

        (void) snprintf(text, sizeof(text), "baton %s", baton_version());
        return text;
}

int main(int argc, char **argv) {
        static const Candidate candidate = { NAME, version, NULL, client_open, client_run, client_close };

        if (argc == 5 && strcmp(argv[1], "--runner") == 0)
                return run_runner(argv + 2);
        return candidate_main(&candidate, argc, argv);
}
