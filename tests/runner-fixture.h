#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A runner of libbaton and, in the same process, the supervisor's end of its lane: an engine peer of side 0. Both are
 * driven as parts of somebody else's loop, by their descriptors, until a condition holds; nothing sleeps.
 */

#include "baton/runner.h"
#include "proto/endpoint.h"
#include "tests/test.h"

#define FIXTURE_INSTANCE 77u
#define FIXTURE_MAX      8

/* What became of a call of the supervisor's. */
typedef struct Result {
        bool done;
        Status status;
        bool local;
        char message[256], type[64], detail_type[64], detail[64], key[64], value[64];
        uint8_t data[256];
        size_t size;
        int fds[FIXTURE_MAX];
        size_t n_fds;
} Result;

/* A record of baton.Log/Write. */
typedef struct Record {
        uint64_t seq;
        unsigned level, line;
        char text[64], target[32], file[64];
        size_t length;
} Record;

typedef struct Fixture Fixture;

/* An open call of "test.Stream": sends back what it gets, answers with how many that were (u32, native). */
typedef struct FixtureStream {
        Fixture *fixture;
        Call *call; /* NULL: free */
        uint32_t n;
} FixtureStream;

/* For fixture_has_streams(). */
typedef struct FixtureStreams {
        const Fixture *fixture;
        size_t n;
} FixtureStreams;

struct Fixture {
        char dir[128], path[160];
        int listener;
        struct baton_runner *runner;
        Endpoint *endpoint;
        Peer *peer;
        int r; /* what baton_runner_dispatch() said last */

        unsigned n_ready, n_renewed;
        bool ended;
        Status end_status;
        char end_reason[256];

        bool hold_log;           /* do not answer Log/Write */
        Call *held[FIXTURE_MAX]; /* Log/Write calls that were not answered */
        size_t n_held, n_log_calls, n_records;
        Record records[4096];

        FixtureStream streams[FIXTURE_MAX];
};

/* fixture_open() - the listener at @path (NULL: in a folder of its own), the runner with @options, the supervisor's end. */
void fixture_open_with(Fixture *fixture, const struct baton_runner_options *options);
/* fixture_open() - with default options, Hellos exchanged. */
void fixture_open(Fixture *fixture);
/* fixture_open_service() - the same, of a runner with a service, which is in INIT. */
void fixture_open_service(Fixture *fixture, const struct baton_service *service, void *userdata);
void fixture_close(Fixture *fixture);

/* fixture_listen(), fixture_unlisten() - the socket alone: in a folder of its own, gone with it. */
void fixture_listen(Fixture *fixture);
void fixture_unlisten(Fixture *fixture);
/* fixture_accept() - makes the supervisor's end from the next connection. */
void fixture_accept(Fixture *fixture);

/* fixture_until() - drives both ends until @done(@argument); fails when nothing happens for 5 s. */
void fixture_until(Fixture *fixture, bool (*done)(void *argument), void *argument);
/* fixture_turn() - one turn of both ends, without waiting. */
void fixture_turn(Fixture *fixture);
bool result_is_done(void *result);
/* fixture_has_streams() - whether so many calls of "test.Stream" are open; @streams: a FixtureStreams. */
bool fixture_has_streams(void *streams);

/* fixture_call() - calls the runner; @result is filled in when it has ended. */
Call *fixture_call(Fixture *fixture, const CallParameters *parameters, Result *result);
/* fixture_ask() - calls @method with raw bytes and waits for the answer. */
void fixture_ask(Fixture *fixture, const char *method, const char *data, Result *result);

/* fixture_add() - baton_runner_add_method() that must succeed. */
void fixture_add(Fixture *fixture, const char *method, baton_method_fn function, void *userdata);
