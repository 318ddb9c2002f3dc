#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Record: what of a runner survives the supervisor, in the keeper's slot of its instance, or, where it has none
 * and its state is not what the configuration alone would lead to (it waits, has failed, shall stay down), in a slot without
 * a process. The keeper does not look at it. Moments are of CLOCK_MONOTONIC, which no supervisor's death stops, unless
 * they say "wall".
 *
 * Bytes only ever get added at the end, where zero means "not known", and the version changes only when an old meaning does:
 * so that a record can be read by the program before and after.
 */

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "common/keeper-message.h"

#define RECORD_VERSION 1u

enum {
        RECORD_RESTARTS_MAX = 8, /* of the window of restarts: the latest */
};

enum {
        RECORD_TRANSIENT = 1 << 0,
        RECORD_COMPLETED = 1 << 1, /* it has ended well since it was last started */
        RECORD_READY = 1 << 2,     /* the instance is ready */
        RECORD_TEMPLATE = 1 << 3,  /* of no runner: the slot bears the name of a template that was scaled */
        RECORD_SAVES = 1 << 4,     /* native: it can be upgraded, and checkpointed */
        RECORD_UPGRADE = 1 << 5,   /* it is one of the two of an upgrade: if it is the active one it is to serve */
        RECORD_PAST = 1 << 6,      /* it has a successor that serves, and only finishes what it has begun */
        RECORD_STALE = 1 << 7,     /* it was started with another configuration than its runner has */

        RECORD_EXIT_SUCCESS = 1 << 0,
        RECORD_EXIT_KILLED = 1 << 1,
};

typedef struct Record {
        uint8_t version;
        uint8_t desired; /* Desired */
        uint8_t state;   /* PolicyState */
        uint8_t flags;   /* RECORD_TRANSIENT, ... */
        uint8_t n_restart_times;
        uint8_t n_exits; /* 1: the last end is below */
        uint8_t exit_cause, exit_code, exit_flags;
        char place[7]; /* of its notify socket, or of its way in: the directory in `boot/'; "": none */

        uint64_t started_us, started_wall_us; /* of the instance */
        uint64_t up_us, changed_wall_us;
        uint64_t next_us; /* when it waits: of the next start */
        uint64_t n_starts, n_restarts;
        uint64_t restart_us[RECORD_RESTARTS_MAX]; /* oldest first */

        uint64_t exit_instance, exit_started_wall_us, exit_wall_us, exit_uptime_us;
        int32_t exit_status, exit_pid;
        uint32_t n_failures;
        uint32_t scaled; /* RECORD_TEMPLATE: how many instances there shall be */

        uint64_t begun_us; /* of its schedule's last run; 0: none, or not known */
        uint64_t program;  /* stamp of what the instance was started from; 0: not known */
        uint32_t n_failovers;
        uint32_t recovers; /* 1: it goes on from a checkpoint */
} Record;

static_assert(sizeof(Record) <= KEEPER_RECORD_SIZE, "it fits");
static_assert(offsetof(Record, started_us) == 16 && sizeof(Record) % 8 == 0, "no padding, by design");
static_assert(sizeof(Record) == 208, "what is added is added at the end");

/* record_pack() - into the bytes the keeper stores; the version is set, the rest of them is zero. */
void record_pack(const Record *record, uint8_t bytes[KEEPER_RECORD_SIZE]);

/*
 * record_unpack() - 0; -ENODATA: none was ever given; -EPROTO: of a version that means something else. What was written by
 * a program that knew less is zero.
 */
int record_unpack(const uint8_t bytes[KEEPER_RECORD_SIZE], Record *ret_record);
