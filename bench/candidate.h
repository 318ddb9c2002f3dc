#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the candidates of the comparison share. Each is a program of its own, so that none pays for the libraries of
 * another, with one command line:
 *
 *         candidate-NAME --size BYTES --window W --calls N --client-cpu A --server-cpu B [--answer BYTES]
 *         candidate-NAME --version | --help
 *
 * It forks its server, warms up, makes N calls with W of them in flight, and prints one line of JSON. Every call carries
 * --size bytes and is answered with the first --answer bytes of them (default: all).
 *
 * A candidate writes three functions for the client and one for the server, around the bookkeeping of this header:
 *
 *         for each slot below the window: if (exchange_next(exchange, slot)) send a call that remembers its slot
 *         on each answer: exchange_answered(exchange, slot, size); the slot is free for exchange_next() again
 *         until exchange_is_over(exchange)
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench/measure.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct CandidateOptions {
        size_t size, answer, window, calls;
        int client_cpu, server_cpu;
} CandidateOptions;

/* Calls to be made: the warm-up, then what is measured. */
typedef struct Exchange {
        const CandidateOptions *options;
        const uint8_t *payload; /* options->size bytes, the same for every call */
        size_t n, sent, answered;
        size_t sample_every; /* with many in flight a look at the clock per call would be most of the call */
        double *started;     /* by slot; negative: not a sample */
        Samples *latency;    /* NULL: the warm-up */
} Exchange;

/*
 * Where both sides meet: one end each of a connected socketpair, and a path in a folder of their own where nothing is
 * yet. A candidate uses what suits it.
 */
typedef struct Meeting {
        int fd;
        const char *path;
        pid_t server; /* whose processor time is counted; open() may name another than our child */
} Meeting;

typedef struct Candidate {
        const char *name;
        const char *(*version)(void);
        /* In a child, until the client ends. NULL: open() starts the server by its own means. */
        void (*serve)(const CandidateOptions *options, const Meeting *meeting);
        void (*open)(const CandidateOptions *options, Meeting *meeting);
        void (*run)(Exchange *exchange);
        void (*close)(void);
} Candidate;

/* exchange_next() - true: send one more, in @slot; its time runs. */
static inline bool exchange_next(Exchange *exchange, size_t slot) {
        if (exchange->sent == exchange->n)
                return false;
        exchange->started[slot] = exchange->sent++ % exchange->sample_every ? -1 : measure_now();
        return true;
}

/* exchange_answered() - the call in @slot has its answer of @size bytes, all of them there to be read. */
static inline void exchange_answered(Exchange *exchange, size_t slot, size_t size) {
        if (size != exchange->options->answer)
                die("an answer of %zu bytes where %zu are right", size, exchange->options->answer);
        if (exchange->latency && exchange->started[slot] >= 0)
                samples_add(exchange->latency, measure_now() - exchange->started[slot]);
        exchange->answered++;
}

static inline bool exchange_is_over(const Exchange *exchange) {
        return exchange->answered == exchange->n;
}

/* exchange_in_flight() - sent and not answered. */
static inline size_t exchange_in_flight(const Exchange *exchange) {
        return exchange->sent - exchange->answered;
}

/* For candidates that meet at the path: the server tells that it listens, the client waits for that. */
void meeting_announce(const Meeting *meeting);
void meeting_await(const Meeting *meeting);
/* meeting_await_end() - in the server, until the client has gone. */
void meeting_await_end(const Meeting *meeting);

int candidate_main(const Candidate *candidate, int argc, char **argv);

#ifdef __cplusplus
}
#endif
