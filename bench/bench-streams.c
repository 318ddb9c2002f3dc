/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Streams: a hundred of them from one runner to one attached client, over one connection, with items of several sizes; and
 * the same hundred beside one more whose reader has stopped. Credit is per stream, so that the second rate is the first:
 * what is measured is the ratio. The two alternate round by round, and what counts is the median of the rounds' ratios.
 * Rates are bytes of payload; the runner is baton-runner-echo, both programs are on any processor. Processor time is that
 * of both, which other work on the machine spoils less than the rates.
 *
 *         bench-streams [--rounds N] [--bytes N] [--json FILE]
 */

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <baton/client.h>

#include "bench/measure.h"
#include "common/macro.h"
#include "common/parse.h"
#include "proto/values.h"

#define STREAMS 100u
#define METHOD  "echo.Echo/ServerStream"
#define ENDLESS UINT64_C(1000000000)

typedef struct Options {
        size_t rounds, bytes; /* bytes: of all streams together, in each round */
        const char *json;
} Options;

static const size_t sizes[] = { 64, 8192, 65536 };

typedef struct Stream {
        uint64_t items, bytes;
        unsigned *open; /* NULL: its reader has stopped */
} Stream;

/* What one round says. */
typedef struct Round {
        double rate, cpu; /* MB per second; processor seconds per GB */
} Round;

static struct baton_client *client;
static struct baton_connection *connection;
static clockid_t runner_clock;

static int on_item(const struct baton_item *item, void *userdata) {
        Stream *stream = userdata;

        stream->items++;
        stream->bytes += item->size;
        return stream->open ? 0 : 1;
}

static void on_answer(const struct baton_answer *answer, void *userdata) {
        Stream *stream = userdata;

        if (answer->status != BATON_OK)
                die("a stream failed: %s", answer->message);
        if (!stream->open)
                die("a stream ended whose reader has stopped");
        --*stream->open;
}

/* start_stream() - of @count items with @size bytes. */
static struct baton_request *start_stream(Stream *stream, uint64_t count, uint64_t size) {
        Baton__Value values[2] = { BATON__VALUE__INIT, BATON__VALUE__INIT }, *pointers[] = { &values[0], &values[1] };
        Baton__Values message = BATON__VALUES__INIT;
        uint8_t request[64];
        struct baton_call_parameters parameters = { .size = sizeof(parameters),
                                                    .method = METHOD,
                                                    .type = "baton.Values",
                                                    .data = request,
                                                    .on_item = on_item };
        struct baton_request *ret;

        for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
                values[i].v_case = BATON__VALUE__V_U;
                values[i].width = 64;
        }
        values[0].u = count;
        values[1].u = size;
        message.n_values = ARRAY_SIZE(values);
        message.values = pointers;
        parameters.data_size = baton__values__pack(&message, request);
        if (baton_connection_call(connection, &parameters, on_answer, stream, &ret) < 0)
                die("a stream could not be started");
        return ret;
}

static void turn(void) {
        if (baton_client_dispatch(client, -1) < 0)
                die("the client cannot wait");
}

/* cpu() - seconds of processor time, ours and the runner's. */
static double cpu(void) {
        struct timespec ours, its;

        if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ours) < 0 || clock_gettime(runner_clock, &its) < 0)
                die("the processor time is not to be had");
        return (double) (ours.tv_sec + its.tv_sec) + (double) (ours.tv_nsec + its.tv_nsec) / 1e9;
}

/* measure() - @count items with @size bytes in each stream. */
static Round measure(uint64_t count, size_t size) {
        static Stream streams[STREAMS];
        unsigned open = STREAMS;
        double start = measure_now(), start_cpu = cpu();
        uint64_t bytes = 0;
        Round round;

        for (size_t i = 0; i < STREAMS; i++) {
                streams[i] = (Stream){ .open = &open };
                (void) start_stream(&streams[i], count, size);
        }
        while (open > 0)
                turn();
        round = (Round){ .rate = measure_now() - start, .cpu = cpu() - start_cpu };
        for (size_t i = 0; i < STREAMS; i++)
                bytes += streams[i].bytes;
        if (bytes != STREAMS * count * size)
                die("%llu bytes have come instead of %llu", (unsigned long long) bytes,
                    (unsigned long long) (STREAMS * count * size));
        return (Round){ .rate = (double) bytes / 1e6 / round.rate, .cpu = round.cpu / (double) bytes * 1e9 };
}

static Round measure_beside_stopped(uint64_t count, size_t size) {
        Stream stopped = { 0 };
        struct baton_request *request = start_stream(&stopped, ENDLESS, size);
        Round round;

        while (stopped.items == 0)
                turn();
        round = measure(count, size);
        if (stopped.items != 1)
                die("the stopped reader was shown its item again");
        baton_request_cancel(request);
        return round;
}

typedef struct Column {
        Samples free, beside, ratio;
} Column;

static void column_add(Column *column, double free, double beside) {
        samples_add(&column->free, free);
        samples_add(&column->beside, beside);
        samples_add(&column->ratio, beside / free);
}

/* column_end() - prints it, and makes an object of it. */
static json_t *column_end(Column *column, const char *name) {
        double free = samples_median(&column->free), beside = samples_median(&column->beside),
               ratio = samples_median(&column->ratio);

        (void) printf("  %-22s alone %10.2f  beside one whose reader has stopped %10.2f  ratio %5.2f\n", name, free,
                      beside, ratio);
        samples_free(&column->free);
        samples_free(&column->beside);
        samples_free(&column->ratio);
        return json_pack("{s:f, s:f, s:f}", "alone", free, "beside_stopped", beside, "ratio", ratio);
}

static json_t *run_size(size_t size, const Options *options) {
        uint64_t count = MAX(options->bytes / size / STREAMS, (size_t) 10);
        Column rates = { 0 }, times = { 0 };
        json_t *object = json_pack("{s:i, s:i}", "streams", (int) STREAMS, "item_bytes", (int) size);

        (void) measure(count / 10, size); /* memory is there when it counts */
        for (size_t i = 0; i < options->rounds; i++) {
                Round alone = measure(count, size), beside = measure_beside_stopped(count, size);

                column_add(&rates, alone.rate, beside.rate);
                column_add(&times, alone.cpu, beside.cpu);
        }
        (void) printf("%u streams, items of %zu bytes\n", STREAMS, size);
        (void) json_object_set_new(object, "mb_per_s", column_end(&rates, "MB/s"));
        (void) json_object_set_new(object, "cpu_s_per_gb", column_end(&times, "processor, s/GB"));
        return object;
}

static void open_connection(void) {
        struct baton_start_parameters start = { .size = sizeof(start), .program = "baton-runner-echo" };
        struct baton_started started = { .size = sizeof(started) };

        if (baton_client_new_private(&client, NULL) < 0)
                die("baton cannot be started; is BATON_PROGRAM right?");
        if (baton_client_start(client, &start, &started) != 0 ||
            baton_client_attach(client, started.name, 0, &connection) != 0)
                die("%s", baton_client_failure(client)->message);
        if (clock_getcpuclockid(started.pid, &runner_clock) != 0)
                die("the runner's processor time is not to be had");
}

static void parse_options(int argc, char **argv, Options *options) {
        static const struct option longs[] = {
                { "rounds", required_argument, NULL, 'r' },
                { "bytes", required_argument, NULL, 'b' },
                { "json", required_argument, NULL, 'j' },
                { NULL, 0, NULL, 0 },
        };
        uint64_t value = 0;
        int option;

        while ((option = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
                if (option == '?' || (option != 'j' && (parse_u64(optarg, UINT32_MAX, &value) < 0 || value == 0)))
                        die("usage: bench-streams [--rounds N] [--bytes N] [--json FILE]");
                if (option == 'j')
                        options->json = optarg;
                else if (option == 'r')
                        options->rounds = value;
                else
                        options->bytes = value;
        }
}

int main(int argc, char **argv) {
        Options options = { .rounds = 9, .bytes = 32 << 20 };
        json_t *results = json_array();

        parse_options(argc, argv, &options);
        open_connection();
        for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
                (void) json_array_append_new(results, run_size(sizes[i], &options));
        baton_client_free(client);
        if (options.json)
                measure_write(options.json,
                              json_pack("{s:s, s:o, s:i, s:o}", "benchmark", "streams", "environment",
                                        measure_environment(), "rounds", (int) options.rounds, "results", results));
        else
                json_decref(results);
        return EXIT_SUCCESS;
}
