#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the files of the successor share, and nobody else includes: successor.c (what it is told, and when it is ready),
 * successor-connections.c (those that the predecessor gives), successor-calls.c (those that go on), successor-resume.c (from
 * GO on).
 */

#include "proto/snapshot.pb-c.h"
#include "proto/transfer.h"
#include "supervisor/control.h"
#include "supervisor/successor.h"

#define SUCCESSOR_FAULT_REFUSED "the successor refuses, at a fault point"

typedef struct Client Client;
typedef struct Round Round;
typedef struct Waits Waits;

/* What was given together. It stays until the end: what is in it is taken up when its time comes. */
struct Round {
        SLIST_ENTRY(Round) link;
        Manifest manifest;
        Baton__Snapshot__Snapshot *snapshot;
};

/* A connection that was restored. */
struct Client {
        UT_hash_handle hh;
        uint32_t number;
        Control *control;
};

/* The latest that is known of an instance's peer. */
struct Waits {
        UT_hash_handle hh;
        uint64_t instance;
        Round *round;
        const Baton__Snapshot__Instance *message;
        bool is_restored;
};

struct Successor {
        Supervisor *supervisor;
        int socket;
        Transfer transfer;
        SLIST_HEAD(, Round) rounds;
        const Baton__Snapshot__Snapshot *last; /* NULL: it has not come yet */
        Client *clients;
        Waits *peers;
        Call **waiting; /* those of @last, by their order; NULL: none yet */
        bool has_begun; /* the table was told once */
        bool loaded;    /* its end was final */
        bool deaf;      /* nothing more is to come from the predecessor */
        bool refused, goes;
        uint64_t last_event, ready_us; /* when READY was said */
        uint32_t n_calls, n_runners;
        LoopTimer tidy; /* when it serves: frees what is left, a little at a time */
};

/* ---- successor.c ---- */
/* successor_refuse() - the keeper ends us. */
void successor_refuse(Successor *successor, const char *reason);
void successor_refuse_because(Successor *successor, const char *format, ...) _printf_(2, 3);
/* successor_free_round() - nobody refers to what it had any more. Returns NULL. */
Round *successor_free_round(Successor *successor, Round *round);

/* ---- successor-connections.c ---- */
/* successor_take_client() - the connection @i of @round's snapshot. successor_forget_client() - it is gone. */
void successor_take_client(Successor *successor, Round *round, size_t i);
void successor_forget_client(Successor *successor, uint32_t number);
/* successor_find_client() - by the number that its predecessor knows it by, or NULL. */
Control *successor_find_client(const Successor *successor, uint32_t number);
/* successor_take_instance() - the connection of an instance: now, if that was adopted already. */
void successor_take_instance(Successor *successor, Round *round, const Baton__Snapshot__Instance *message);
/* successor_forget_connections() - that they came from somebody: of at most @max. False: nothing was left of that. */
bool successor_forget_connections(Successor *successor, unsigned max);

/* ---- successor-calls.c ---- */
/* successor_take_calls() - those of the last snapshot, when runners and connections are what they were. */
void successor_take_calls(Successor *successor, Manifest *manifest);

/* ---- successor-resume.c ---- */
/* successor_resume() - everything is ours. */
void successor_resume(Successor *successor);
