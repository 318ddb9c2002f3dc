#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Starting a supervisor: the one program that the keeper executes. */

#include <stdint.h>
#include <sys/types.h>

#include "supervisor/keeper/place.h"

enum {
        LAUNCH_CONFIGS_MAX = 64,
        LAUNCH_FDS = 5, /* what a supervisor may be given besides 0-2, its program among it */
};

/* Numbers for them, reserved while there are few, so that a launch costs the same when there are many. */
typedef struct LaunchStage {
        int fds[LAUNCH_FDS];
        int idle;     /* /dev/null, which they are meanwhile; -1: none are reserved */
        unsigned end; /* all of them are below */
} LaunchStage;
#define LAUNCH_STAGE_NULL ((LaunchStage){ .fds = { -1, -1, -1, -1, -1 }, .idle = -1 })

typedef struct Launch {
        int program;    /* the supervisor's program; executed by descriptor */
        int socket;     /* its end of the pair: KEEPER_SOCKET_FD there */
        int private_fd; /* KEEPER_PRIVATE_FD there, or -1 */
        int keeper;     /* pidfd of the keeper: KEEPER_PIDFD_FD there */
        int handover;   /* of a successor: KEEPER_HANDOVER_FD there, and --takeover; -1: it has no predecessor */
        uint32_t generation;
        uint64_t nofile; /* the soft limit that runners get back */
        uint64_t stop_timeout_us;
        const PlaceOptions *place; /* NULL: it has a private client */
        char *const *configs;      /* ended by NULL, at most LAUNCH_CONFIGS_MAX; may be NULL */
        const LaunchStage *stage;
} Launch;

/* launch_reserve() - 0, or a negative errno: then a launch copies the whole table of descriptors. */
int launch_reserve(LaunchStage *stage);
void launch_unreserve(LaunchStage *stage);

/*
 * launch_open_program() - baton-supervisor in $BATON_LIBEXEC, else in the configured directory. Returns a descriptor or
 * a negative errno; the path that was tried in @path.
 */
int launch_open_program(char *path, size_t size);

/*
 * launch_supervisor() - a child with the descriptors above, nothing else but 0-2, the arguments --generation=N
 * --nofile=N --stop-timeout=Nus, --private if there is a lane, else the places and configurations, default signals, and
 * SIGKILL at the keeper's death. Returns 0 once it was executed, or a negative errno with the name of the failing step in
 * @ret_step.
 */
int launch_supervisor(const Launch *launch, pid_t *ret_pid, const char **ret_step);
