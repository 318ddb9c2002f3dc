#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the files of the instance share, with what saves and restores it, and nobody else includes: instance.c (its life),
 * instance-start.c, instance-adopt.c (taken over from a supervisor before), instance-ready.c (when it is ready, and that it
 * lives), instance-service.c, instance-stop.c, instance-methods.c (what it may call).
 */

#include "supervisor/instance.h"
#include "supervisor/service.h"
#include "supervisor/supervisor.h"

/* What of a runner the keeper holds a duplicate of. */
typedef enum InstanceStored {
        INSTANCE_STORED_LANE,
        INSTANCE_STORED_LISTENER,
        INSTANCE_STORED_STDOUT,
        INSTANCE_STORED_STDERR,
        INSTANCE_STORED_NOTIFY, /* the socket or pipe by which it says that it is ready */
        _INSTANCE_STORED_N,
} InstanceStored;

/* ---- instance.c ---- */
extern const PeerHandler instance_peer_handler;
/* instance_raise() - an event of the process; handled now, or, from within an action, after it. */
void instance_raise(Instance *instance, ProcessEvent event);
/* instance_name_stored() - @fd, which stays ours, is stored with the reservation. */
void instance_name_stored(InstanceStored what, int fd, KeeperReservation *reservation);

/* instance_store() - PUT; @fd stays ours. A refusal dooms the runner. 0 or a negative errno. */
int instance_store(Instance *instance, InstanceStored what, int fd);
/* instance_drop() - @fd_consume, which is watched no more, is closed when the keeper has closed its duplicate. */
void instance_drop(Instance *instance, InstanceStored what, int fd_consume);
/* instance_fail() - why the start failed; the first reason stays. "at exec(x): text", or ": text". */
void instance_fail(Instance *instance, InstanceFailure failure, const char *format, ...) _printf_(3, 4);
/* instance_doom() - it has to go for @cause, of which the first counts; @event of the process follows. */
void instance_doom(Instance *instance, RunnerCause cause, ProcessEvent event);

/* ---- instance-start.c ---- */
void instance_prepare(Instance *instance);
/* instance_make_peer() - without a lane (-1), or with that of a runner that was adopted. 0 or a negative errno. */
int instance_make_peer(Instance *instance, uint32_t epoch, int lane_fd_consume);
/* instance_restore_peer() - the one that the predecessor had, if it had one: 1; 0: there is none; or as peer_restore(). */
int instance_restore_peer(Instance *instance);
/* instance_adopt_way_in() - of one that has not come in yet: @path of its socket, and the listener, taken on every path. */
int instance_adopt_way_in(Instance *instance, const char *path, int listener_fd_consume);
/* instance_connected() - the runner has come in by its bootstrap socket. */
void instance_connected(Bootstrap *bootstrap, int lane_fd_consume);
/* instance_close_bootstrap() - the way in goes, whatever is left of it. */
void instance_close_bootstrap(Instance *instance);

/* ---- instance-ready.c ---- */
/* instance_open_ready() - what a runner that is no native one says its readiness by. 0 or a negative errno. */
int instance_open_ready(Instance *instance, const char **ret_step);
/* instance_adopt_ready() - @fd_consume is that of one that was adopted; @path of its socket, NULL: a pipe. */
int instance_adopt_ready(Instance *instance, const char *path, int fd_consume);
/* instance_close_ready() - and it goes. */
void instance_close_ready(Instance *instance);
/* instance_ready_variables() - what it is told about that, from number @n on; to be freed. Returns how many there are. */
enum { INSTANCE_VARIABLES_MAX = 8 };
size_t instance_ready_variables(const Instance *instance, char *variables[INSTANCE_VARIABLES_MAX], size_t n);
/* instance_watch_over() - signs of life are expected from now on, if its configuration wants them. */
void instance_watch_over(Instance *instance);
/* instance_restore_ping() - @call, restored, is a Ping that it has not answered. Before peer_own(). */
void instance_restore_ping(Instance *instance, Call *call);
/* instance_check_alive() - the time for one has come. */
void instance_check_alive(Instance *instance);

/* instance_note_said() - what it says of itself, where the next supervisor finds it. */
void instance_note_said(const Instance *instance);

/* ---- instance-main.c ---- */
/*
 * instance_set_main() - it says that @pid, which is its own, is the main process of it. -ESRCH: there is no such process any
 * more; another negative errno: it cannot be followed.
 */
int instance_set_main(Instance *instance, pid_t pid);
/* instance_adopt_main() - the one that a supervisor before was told of, if any. */
void instance_adopt_main(Instance *instance, Recovered *slot);
/* instance_settle_main() - of one that has crossed: a main process that the predecessor had not any more is none. */
void instance_settle_main(Instance *instance);
/* instance_forget_main() - here alone: the keeper goes on with it. */
void instance_forget_main(Instance *instance);

/* ---- instance-service.c ---- */
/* instance_said_hello() - it is ready; or, where it has a service, that is led to RUNNING first. */
void instance_said_hello(Instance *instance);
/*
 * instance_ask_save() - by which what it gives comes out at the other end of @end_consume; @checkpoint: it serves on. As
 * call_start().
 */
int instance_ask_save(Instance *instance, bool checkpoint, int end_consume, CallDone done, void *userdata,
                      Call **ret_call);
/* instance_serve() - its service is led to RUNNING; then it is ready. */
void instance_serve(Instance *instance);
/* instance_service_served() - the drive of its service that is begun by that is over. */
void instance_service_served(Instance *instance, const ServiceResult *result, void *userdata);

/* ---- instance-stop.c ---- */
void instance_ask(Instance *instance);
void instance_leave(Instance *instance);
void instance_escalate(Instance *instance);
void instance_kill(Instance *instance);
/* instance_extend_stop() - it has asked for more time, up to extended_us. */
void instance_extend_stop(Instance *instance);
/* instance_service_stopped() - the drive of its service that is asked for by that is over: it shall leave. */
void instance_service_stopped(Instance *instance, const ServiceResult *result, void *userdata);

/* ---- instance-methods.c ---- */
/* instance_called() - a call of the runner's to us. */
void instance_called(Peer *peer, Call *call);

/*
 * instance_enter_cgroup() - the cgroup of one that has limits; what SpawnParameters want of it is the caller's to free, NULL:
 * it has none. False: the start has failed.
 */
bool instance_enter_cgroup(Instance *instance, char **ret_procs);
/* instance_leave_cgroup() - at its end: kills what is left in it, and removes it; sees whether memory was what it died of. */
void instance_leave_cgroup(Instance *instance);
