#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The relay between engine peers in one process, on one loop: a client calls, the supervisor's end of its connection
 * relays, a runner's peer answers. The keeper is a socket that nobody reads.
 */

#include "common/loop.h"
#include "proto/peer.h"
#include "supervisor/instance-internal.h"
#include "supervisor/supervisor.h"
#include "tests/test.h"

enum { ANSWERS_MAX = 4 };

typedef struct Heard {
        unsigned n;
        Status status;
        bool local;
        char message[256], type[64], payload[64], detail[64], key[16];
        size_t size, n_fds;
        bool shared; /* the payload was not inline */
        int fd;
        ExitStatus exit;
} Heard;

typedef struct Fixture {
        Supervisor *supervisor;
        Loop *loop;
        int keeper; /* the other end; nobody reads it */
        Instance *instance;
        Peer *client, *control;     /* the two ends of the client's connection */
        Peer *program;              /* the runner's end of its own */
        Call *held;                 /* by the program */
        bool heard_shared;          /* the program: the payload was not inline */
        void (*stream)(Call *call); /* serves method "stream" */
        unsigned n_cancelled;
        uint64_t left;        /* time left, as the program sees it */
        unsigned fail_calloc; /* in the relay */
        Heard heard[ANSWERS_MAX];
} Fixture;

/* fixture_open(), fixture_close() - one at a time. @limits of the runner's own end; NULL: all defaults. */
void fixture_open(Fixture *f, const PeerLimits *limits);
/* fixture_open_objects() - the same; what the client does with sealed objects. */
void fixture_open_objects(Fixture *f, const PeerLimits *limits, PeerObjects client);
void fixture_close(Fixture *f);

/* fixture_call() - a call of the client's; what it hears goes to f->heard[n]. */
Call *fixture_call(Fixture *f, unsigned n, const char *method, uint64_t timeout_us, int fd_consume);
/* fixture_start() - the same, as @parameters say. */
Call *fixture_start(Fixture *f, unsigned n, const CallParameters *parameters);
/* fixture_answer() - what call @n was answered, once it was. */
const Heard *fixture_answer(Fixture *f, unsigned n);
/* fixture_until_held() - until the program holds a call. */
void fixture_until_held(Fixture *f);
void fixture_run_for(Fixture *f, uint64_t us);
/* fixture_drop_program() - the runner's end of the connection goes, with what it holds. */
void fixture_drop_program(Fixture *f);
/* fixture_die() - the keeper's report: SIGSEGV. */
void fixture_die(Fixture *f);
