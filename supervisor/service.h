#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The service of a native instance, driven: from the state that it is in, by events of the table of proto/service.h and no
 * others, to where somebody wants it. The runner's own word about its state is asked for first; each event has an id of its
 * own, so that one that is asked for again takes effect once.
 */

#include <stdbool.h>
#include <stdint.h>

#include "proto/baton.pb-c.h"
#include "proto/manifest.h"
#include "proto/peer.h"
#include "proto/service.h"
#include "proto/snapshot.pb-c.h"

typedef struct Instance Instance;
typedef struct Service Service;
typedef struct ServiceResult ServiceResult;

/* What is wanted. The first two, and Takeover, are one event each; the others are as many as it takes, be it none. */
typedef enum ServiceGoal {
        SERVICE_GOAL_MOUNT,
        SERVICE_GOAL_START,
        SERVICE_GOAL_TAKEOVER, /* and nothing else; what is to be taken over comes by a socket */
        SERVICE_GOAL_STOP,     /* STOPPED, with what is mounted unmounted */
        SERVICE_GOAL_EXIT,     /* STOPPED; what is mounted is left to a successor */
        SERVICE_GOAL_SERVE,    /* RUNNING */
        SERVICE_GOAL_INFO,     /* wherever it is: only what it says of itself */
        SERVICE_GOAL_HANDOVER, /* READY from RUNNING, with clients and open calls kept for a successor */
        SERVICE_GOAL_FAILOVER, /* as SERVE, but by Takeover in place of Mount; what is to be taken over comes by a socket */
        _SERVICE_GOAL_N,
} ServiceGoal;

enum { SERVICE_SENT_MAX = 3 /* events, at most, from any state to any goal */ };

/* How it ended. */
struct ServiceResult {
        Status status;
        bool local;          /* not the runner's words: it is gone, or too slow */
        const char *message; /* one line; "" with OK */
        ServiceState state;  /* as far as is known */
        unsigned n_sent;
        ServiceEvent sent[SERVICE_SENT_MAX];
        const Baton__InfoResponse *info; /* what it said of itself before; NULL: it does not know Info */
};

typedef void (*ServiceDone)(Instance *instance, const ServiceResult *result, void *userdata);

/*
 * service_goal_next() - the event that leads on from @state, when @n_sent have been sent: 1 and @ret_event; 0: it is there;
 * -EPERM: none does, and @ret_event is the one that is refused.
 */
int service_goal_next(ServiceGoal goal, ServiceState state, unsigned n_sent, ServiceEvent *ret_event);

/*
 * service_drive() - @done is called once, later, also when @instance's connection ends, unless service_cancel() comes
 * before. One drive of an instance at a time: -EBUSY. @patient: an event that is under way in the runner is waited for,
 * instead of a refusal. @timeout_us 0: no end. @socket_consume is for TAKEOVER, else -1, and taken on every path. 0;
 * -ENOTCONN: it has no connection; -ENOMEM.
 */
int service_drive(Instance *instance, ServiceGoal goal, bool patient, uint64_t timeout_us, int socket_consume,
                  ServiceDone done, void *userdata);

/*
 * service_cancel() - nobody wants to hear of it any more. service_abort() - the drive ends at once, ABORTED with @why. An
 * event that was sent takes effect all the same. Both do nothing where there is no drive.
 */
void service_cancel(Instance *instance);
void service_abort(Instance *instance, const char *why);

/* service_state() - as the runner has said last; NONE: it has no service, or no connection. */
ServiceState service_state(const Instance *instance);

/* service_goal_name() - "mount", "handover". */
const char *service_goal_name(ServiceGoal goal);

/*
 * A drive in a takeover. service_crosses() - whether there is none, or one that tells somebody who goes on in a successor
 * (service.c has a table of them). service_save() - after its peer was: @ret_message is not written where there is none;
 * a socket goes into @manifest under @socket_name. service_restore() - before peer_own(); the socket is taken on every path.
 * service_userdata() - of a drive that tells @done, else NULL.
 */
bool service_crosses(const Instance *instance);
int service_save(const Instance *instance, const char *socket_name, Manifest *manifest,
                 Baton__Snapshot__ServiceDrive **ret_message);
void service_restore(Instance *instance, const Baton__Snapshot__ServiceDrive *message, int socket_consume);
void *service_userdata(const Instance *instance, ServiceDone done);

/* control_service_driven() - of a command (control-service.c); control_service_nobody() - while nobody waits for it. */
void control_service_driven(Instance *instance, const ServiceResult *result, void *userdata);
void *control_service_nobody(const Instance *instance);
