/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Successor. It builds all there is while the predecessor serves: runners and instances from the keeper's table, which is
 * told to it and told again where it changes; connections from the predecessor's partial snapshots, each of which replaces
 * what an earlier one has said of the same connection. Meanwhile the loop and the keeper's link are held, the logs are not
 * written, and every watcher is known to the kernel (a held turn of the loop after each change): nothing is left for the
 * freeze but to take up what has changed last.
 *
 * Until GO only two sockets are looked at, by poll(2). Whatever fails is a refusal, after which the keeper ends us, and
 * none of the descriptors that we share is touched: so also without a keeper nothing is ended in order.
 *
 * READY is said when the last of both has been taken up: the table's final END, and the snapshot that is not partial.
 */

#include "supervisor/successor.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "common/memfd.h"
#include "common/step.h"
#include "proto/control.pb-c.h"
#include "proto/peer-save.h"
#include "proto/transfer.h"
#include "supervisor/control.h"
#include "supervisor/daemon.h"
#include "supervisor/fault.h"
#include "supervisor/instance-internal.h"
#include "supervisor/log-store.h"
#include "supervisor/relay.h"
#include "supervisor/reload.h"
#include "supervisor/service.h"
#include "supervisor/reload.h"
#include "supervisor/service.h"
#include "supervisor/snapshot.h"
#include "supervisor/takeover.h"
#include "supervisor/unknown.h"

#define FAULT_REFUSED "the successor refuses, at a fault point"

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
};

/* refuse() - the keeper ends us. */
static void refuse(Successor *successor, const char *reason) {
        if (successor->refused)
                return;
        successor->refused = true;
        log_warning("cannot follow the supervisor: %s", reason);
        (void) keeper_link_refuse(successor->supervisor->link, reason);
}

static void _printf_(2, 3) refuse_because(Successor *successor, const char *format, ...) {
        char reason[MANIFEST_REASON_SIZE];
        va_list arguments;

        va_start(arguments, format);
        (void) vsnprintf(reason, sizeof(reason), format, arguments);
        va_end(arguments);
        refuse(successor, reason);
}

/* ---------------------------------------------------------------------------------------------------- the keeper's table */

bool successor_has_peer(const Successor *successor, uint64_t instance) {
        Waits *waits;

        HASH_FIND(hh, successor->peers, &instance, sizeof(instance), waits);
        return waits;
}

static void look_ready(Successor *successor);

/* follow() - what has changed in the table is taken up. */
static void follow(Successor *successor, bool is_final) {
        char reason[RECOVERY_REASON_SIZE];

        if (!successor->refused && daemon_follow(successor->supervisor->daemon, is_final, reason) < 0)
                refuse(successor, reason);
}

void successor_loaded(Successor *successor, bool is_final) {
        if (!successor->has_begun && fault_point(FAULT_SUCCESSOR, TAKEOVER_PHASE_COPY) < 0)
                refuse(successor, FAULT_REFUSED);
        successor->loaded = is_final;
        follow(successor, false);
        if (!successor->has_begun)
                (void) transfer_say(successor->socket, TAKEOVER_WORD_READY);
        successor->has_begun = true;
        look_ready(successor);
}

/* ----------------------------------------------------------------------------------------------------------- connections */

static uint32_t number_of(const Baton__Snapshot__Snapshot *snapshot, size_t i) {
        uint32_t number = snapshot->connections[i]->number;

        return number > 0 ? number : (uint32_t) i; /* of a version that did not number them */
}

static Control *find_client(const Successor *successor, uint32_t number) {
        Client *client;

        HASH_FIND(hh, successor->clients, &number, sizeof(number), client);
        return client ? client->control : NULL;
}

static int add_client(Successor *successor, uint32_t number, Control *control) {
        Client *client = calloc(1, sizeof(*client));

        if (!client)
                return -ENOMEM;
        *client = (Client){ .number = number, .control = control };
        HASH_ADD(hh, successor->clients, number, sizeof(client->number), client);
        if (!client->hh.tbl) {
                free(client);
                return -ENOMEM;
        }
        control_set_number(control, number);
        return 0;
}

static void forget_client(Successor *successor, uint32_t number) {
        Client *client;

        HASH_FIND(hh, successor->clients, &number, sizeof(number), client);
        if (!client)
                return;
        HASH_DELETE(hh, successor->clients, client);
        listener_discard(successor->supervisor->listener, client->control);
        free(client);
}

static void take_client(Successor *successor, Round *round, size_t i) {
        const Baton__Snapshot__Connection *connection = round->snapshot->connections[i];
        const struct ucred who = { connection->pid, connection->uid, connection->gid };
        uint32_t number = number_of(round->snapshot, i);
        Control *control = find_client(successor, number);
        char prefix[SNAPSHOT_PREFIX_SIZE];
        int r;

        snapshot_client(prefix, number);
        if (control) {
                r = control_restore_again(control, connection->peer, prefix, &round->manifest);
        } else {
                r = listener_restore(successor->supervisor->listener, &who, (Role) connection->role, connection->peer,
                                     prefix, &round->manifest, &control);
                if (r == 0)
                        r = add_client(successor, number, control);
        }
        if (r < 0)
                refuse_because(successor, "client pid %d: its connection cannot be taken over: %s", connection->pid,
                               strerror(-r));
}

/* move_fds() - those of the lane and the channels that an earlier round had brought, and nobody has taken yet. */
static int move_fds(Manifest *to, Manifest *from, const char *prefix) {
        static const char *const names[] = { "lane", "channel/0", "channel/1", "channel/2" };
        int r = 0;

        for (size_t i = 0; i < ARRAY_SIZE(names) && r == 0; i++) {
                char name[SNAPSHOT_PREFIX_SIZE + 16];
                int fd;

                (void) snprintf(name, sizeof(name), "%s/%s", prefix, names[i]);
                fd = manifest_take(from, name);
                if (fd >= 0)
                        r = manifest_give_back(to, name, fd);
        }
        return r;
}

/* take_instance() - now, if it was adopted already. */
static void take_instance(Successor *successor, Round *round, const Baton__Snapshot__Instance *message) {
        Instance *instance = supervisor_find_instance(successor->supervisor, message->id);
        char prefix[SNAPSHOT_PREFIX_SIZE];
        Waits *waits;
        int r = 0;

        HASH_FIND(hh, successor->peers, &message->id, sizeof(message->id), waits);
        snapshot_instance(prefix, message->id);
        if (waits) {
                r = move_fds(&round->manifest, &waits->round->manifest, prefix);
        } else {
                waits = calloc(1, sizeof(*waits));
                if (waits) {
                        waits->instance = message->id;
                        HASH_ADD(hh, successor->peers, instance, sizeof(waits->instance), waits);
                }
                r = waits && waits->hh.tbl ? 0 : -ENOMEM;
        }
        if (r == 0) {
                waits->round = round;
                waits->message = message;
        }
        if (r == 0 && instance)
                r = instance_restore_peer_again(instance, prefix, &round->manifest);
        if (r < 0)
                refuse_because(successor, "instance %" PRIx64 ": its connection cannot be taken over: %s", message->id,
                               strerror(-r));
}

int successor_restore_peer(Successor *successor, const Instance *instance, Peer **ret_peer,
                           const PeerLoopParameters *parameters) {
        char prefix[SNAPSHOT_PREFIX_SIZE], reason[MANIFEST_REASON_SIZE] = "no memory";
        Waits *waits;
        int r;

        HASH_FIND(hh, successor->peers, &instance->id, sizeof(instance->id), waits);
        if (!waits)
                return 0;
        snapshot_instance(prefix, instance->id);
        r = peer_loop_restore(ret_peer, parameters, waits->message->peer, prefix, &waits->round->manifest, reason);
        if (r < 0)
                log_warning("runner %s: its connection was not taken over: %s", instance->runner->name, reason);
        if (r == 0 && !waits->is_restored)
                successor->n_runners++;
        waits->is_restored |= r == 0;
        return r < 0 ? r : 1;
}

void successor_forget_peer(Successor *successor, uint64_t instance) {
        Waits *waits;

        HASH_FIND(hh, successor->peers, &instance, sizeof(instance), waits);
        if (!waits)
                return;
        successor->n_runners -= waits->is_restored;
        HASH_DELETE(hh, successor->peers, waits);
        free(waits);
}

/* take_events() - those that came since the last time. */
static void take_events(Successor *successor, const Baton__Snapshot__Snapshot *snapshot) {
        Events *events = successor->supervisor->events;

        if (successor->last_event == 0)
                events_clear(events); /* that runners and configuration are there was told before */
        for (size_t i = 0; i < snapshot->n_events; i++) {
                const Baton__Snapshot__Event *e = snapshot->events[i];
                const Event event = {
                        .kind = (EventKind) MIN(e->kind, (uint32_t) _EVENT_KIND_N - 1),
                        .runner = *e->runner ? e->runner : NULL,
                        .instance = e->instance,
                        .pid = e->pid,
                        .state = (PolicyState) MIN(e->state, (uint32_t) _POLICY_STATE_N - 1),
                        .previous = (PolicyState) MIN(e->previous, (uint32_t) _POLICY_STATE_N - 1),
                        .exit = { .how = e->how, .status = e->status },
                        .cause = e->cause,
                        .uptime_us = e->uptime_us,
                        .number = e->number,
                        .text = *e->text ? e->text : NULL,
                        .seq = e->seq,
                        .time_us = e->time_us,
                        .monotonic_us = e->monotonic_us,
                };

                if (e->seq <= successor->last_event)
                        continue;
                successor->last_event = e->seq;
                events_restore(events, &event);
        }
        if (snapshot->events_next > successor->last_event)
                events_set_next(events, snapshot->events_next);
}

/* find_instance() - one that is over, too, if it is its runner's last. */
static Instance *find_instance(const Supervisor *supervisor, uint64_t id) {
        Instance *instance = supervisor_find_instance(supervisor, id);

        for (Runner *runner = runner_first(supervisor); !instance && runner; runner = runner_next(runner))
                if (runner->instance && runner->instance->id == id)
                        instance = runner->instance;
        return instance;
}

static void take_relay(Successor *successor, const Baton__Snapshot__Relay *relay, Manifest *manifest) {
        const Control *control = find_client(successor, relay->connection);
        Instance *instance = find_instance(successor->supervisor, relay->instance);
        RelayCrossing crossing = {
                .outer = control ? peer_restored_call(control_peer(control), relay->outer) : NULL,
                .inner = relay->inner && instance && instance->peer ? peer_restored_call(instance->peer, relay->inner)
                                                                    : NULL,
                .reason = relay->reason,
                .deadline_us = relay->deadline_us,
                .kind = relay->kind,
                .lane = *relay->lane ? manifest_take(manifest, relay->lane) : -1,
        };
        bool whole = crossing.outer && instance && (crossing.inner || !relay->inner);

        /* Half of one is ended by peer_own(), or runs out without being heard. */
        if (!whole || (*relay->lane && crossing.lane < 0)) {
                fd_close(crossing.lane);
                return;
        }
        if (relay_restore(instance, &crossing) < 0)
                (void) call_fail(crossing.outer, STATUS_RESOURCE_EXHAUSTED, "no memory to go on with the call");
        else
                successor->n_calls++;
}

/* take_own_calls() - those that are ours, to an instance. */
static void take_own_calls(const Successor *successor, const Baton__Snapshot__Instance *message, Manifest *manifest) {
        Instance *instance = supervisor_find_instance(successor->supervisor, message->id);
        Call *ping = instance && instance->peer ? peer_restored_call(instance->peer, message->ping) : NULL;
        char name[SNAPSHOT_PREFIX_SIZE];

        if (ping)
                instance_restore_ping(instance, ping);
        snapshot_service(name, message->id);
        if (message->drive && instance)
                service_restore(instance, message->drive, manifest_take(manifest, name));
}

/* make_runners() - those that the configuration has not led to, before what they have is adopted. */
static void make_runners(const Successor *successor) {
        Supervisor *supervisor = successor->supervisor;

        hooks_restore(supervisor->hooks, successor->last);
        fleet_restore(supervisor, successor->last);
}

/* take_runners() - when it is: each is what it was, with what belongs to several of them. */
static void take_runners(Successor *successor, Manifest *manifest) {
        const Baton__Snapshot__Snapshot *last = successor->last;
        Supervisor *supervisor = successor->supervisor;

        hooks_restore_crossed(supervisor->hooks, manifest);
        fleet_restore_crossed(supervisor, manifest);
        for (size_t i = 0; i < last->n_groups; i++)
                group_restore(supervisor, last->groups[i]);
        for (size_t i = 0; i < last->n_instances; i++)
                take_own_calls(successor, last->instances[i], manifest);
        reload_adopt_metrics(supervisor, last->metrics, manifest_take(manifest, SNAPSHOT_METRICS));
        supervisor->unknown = unknown_keep(&last->base);
        if (last->configured_us)
                supervisor->configured_us = last->configured_us;
}

/* take_waiting() - the calls that go on when we serve. */
static void take_waiting(Successor *successor) {
        const Baton__Snapshot__Snapshot *last = successor->last;

        successor->waiting = calloc(last->n_waiting + 1, sizeof(Call *));
        for (size_t i = 0; successor->waiting && i < last->n_waiting; i++) {
                const Control *control = find_client(successor, last->waiting[i]->connection);

                if (control)
                        successor->waiting[i] = peer_restored_call(control_peer(control), last->waiting[i]->call);
        }
        if (!successor->waiting)
                refuse(successor, "no memory for the calls that wait");
}

/* ------------------------------------------------------------------------------------------------------- the predecessor */

/* lacks() - whether a message in it is not there at all. */
static bool lacks(const Baton__Snapshot__Snapshot *snapshot) {
        for (size_t i = 0; i < snapshot->n_connections; i++)
                if (!snapshot->connections[i]->peer || snapshot->connections[i]->role >= _ROLE_N)
                        return true;
        for (size_t i = 0; i < snapshot->n_instances; i++)
                if (!snapshot->instances[i]->peer)
                        return true;
        return false;
}

static void take_up(Successor *successor, Round *round) {
        const Baton__Snapshot__Snapshot *snapshot = round->snapshot;

        if (!snapshot->partial && fault_point(FAULT_SUCCESSOR, TAKEOVER_PHASE_DELTA) < 0) {
                refuse(successor, FAULT_REFUSED);
                return;
        }
        for (size_t i = 0; i < snapshot->n_gone; i++)
                forget_client(successor, snapshot->gone[i]);
        for (size_t i = 0; i < snapshot->n_connections; i++)
                take_client(successor, round, i);
        for (size_t i = 0; i < snapshot->n_instances; i++)
                take_instance(successor, round, snapshot->instances[i]);
        take_events(successor, snapshot);
        if (snapshot->partial) {
                follow(successor, false); /* some may have waited for their connection */
                return;
        }
        successor->last = snapshot;
        (void) transfer_say(successor->socket, TAKEOVER_WORD_TAKEN);
        look_ready(successor);
}

static Round *round_free(Round *round) {
        manifest_deinit(&round->manifest);
        if (round->snapshot)
                baton__snapshot__snapshot__free_unpacked(round->snapshot, NULL);
        free(round);
        return NULL;
}

static void unpack(Round *round) {
        _cleanup_fd_ int fd = manifest_take(&round->manifest, SNAPSHOT_NAME);
        MemfdMapping mapping;

        if (fd < 0 || memfd_map_sealed(fd, SNAPSHOT_SIZE_MAX, &mapping) < 0)
                return;
        round->snapshot = baton__snapshot__snapshot__unpack(NULL, mapping.size, mapping.data);
        memfd_unmap(&mapping);
}

/* take_round() - what has arrived; the next one may come. */
static void take_round(Successor *successor) {
        Round *round = calloc(1, sizeof(*round));

        if (!round) {
                refuse(successor, "no memory for its snapshot");
                return;
        }
        round->manifest = successor->transfer.taken;
        successor->transfer.taken = MANIFEST_NULL;
        SLIST_INSERT_HEAD(&successor->rounds, round, link);
        transfer_deinit(&successor->transfer);
        transfer_take(&successor->transfer, successor->socket, SNAPSHOT_VERSION_MIN, SNAPSHOT_VERSION_MAX);
        unpack(round);
        if (round->snapshot && !lacks(round->snapshot))
                take_up(successor, round);
        else
                refuse(successor, "its snapshot is missing or broken");
}

/* hear() - as much as has come. What follows the last of it is the predecessor's end; when that was the keeper knows. */
static void hear(Successor *successor) {
        TransferState state;

        do {
                state = transfer_step(&successor->transfer);
                if (state == TRANSFER_DONE)
                        take_round(successor);
        } while (state == TRANSFER_SAID || (state == TRANSFER_DONE && !successor->last && !successor->refused));
        if (state == TRANSFER_FAILED && !successor->last)
                refuse(successor, successor->transfer.reason);
        successor->deaf = state == TRANSFER_FAILED || successor->last || successor->refused;
}

/* look_ready() - the last of both: what the connections need is there before what refers to them. */
static void look_ready(Successor *successor) {
        const Baton__Snapshot__Snapshot *last = successor->last;
        Manifest *manifest = last ? &SLIST_FIRST(&successor->rounds)->manifest : NULL; /* the latest came with it */

        if (!successor->loaded || !last || successor->refused || successor->waiting)
                return;
        make_runners(successor);
        follow(successor, true);
        if (successor->refused)
                return;
        take_runners(successor, manifest);
        for (size_t i = 0; i < last->n_relays; i++)
                take_relay(successor, last->relays[i], manifest);
        take_waiting(successor);
        listener_set_counts(successor->supervisor->listener, last->accepted, last->refused);
        loop_turn(successor->supervisor->loop);
        if (successor->refused)
                return;
        successor->ready_us = clock_now();
        (void) keeper_link_ready(successor->supervisor->link);
        if (fault_point(FAULT_SUCCESSOR, TAKEOVER_PHASE_COMMIT) < 0) /* GO may be on its way: it holds */
                (void) keeper_link_refuse(successor->supervisor->link, FAULT_REFUSED);
}

/* ---------------------------------------------------------------------------------------------------------- going on */

static void record(Takeovers *takeovers, const Baton__Control__TakeoverResponse *response) {
        TakeoverEntry *entry = takeovers_current(takeovers);

        if (!entry)
                return;
        entry->generation = response->generation;
        entry->pid = response->pid;
        entry->pause_us = response->pause_us;
        entry->connections = response->connections;
        entry->runners = response->runners;
        entry->calls = response->calls;
        takeovers_end(takeovers, TAKEOVER_DONE, NULL);
}

/* tell() - whoever asked for the takeover, and everybody by an event. */
static void tell(Successor *successor, Call *asker) {
        const Baton__Snapshot__Snapshot *snapshot = successor->last;
        Supervisor *supervisor = successor->supervisor;
        Baton__Control__TakeoverResponse response = BATON__CONTROL__TAKEOVER_RESPONSE__INIT;
        uint64_t now = clock_now();

        events_publish(supervisor->events,
                       &(Event){ .kind = EVENT_SUPERVISOR_STARTED, .number = supervisor->generation });
        response.generation = supervisor->generation;
        response.pid = getpid();
        response.former_generation = snapshot->generation;
        response.former_pid = snapshot->pid;
        response.total_us = now - MIN(now, snapshot->begun_us);
        response.pause_us = now - MIN(now, snapshot->frozen_us);
        response.connections = HASH_COUNT(successor->clients);
        response.runners = successor->n_runners;
        response.calls = successor->n_calls;
        record(supervisor->takeovers, &response);
        if (asker)
                (void) call_answer_message(asker, &response.base);
}

/* own_calls() - the connections that somebody waits on; the others are ours with their first event. */
static void own_calls(const Successor *successor) {
        const Baton__Snapshot__Snapshot *last = successor->last;

        for (size_t i = 0; i < last->n_instances; i++) {
                const Baton__Snapshot__Instance *message = last->instances[i];
                const Instance *instance = supervisor_find_instance(successor->supervisor, message->id);

                /* One that does not know us yet, and one that we wait for. */
                if (instance && instance->peer &&
                    (message->ping || message->drive || message->peer->state != BATON__HANDOVER__PEER__STATE__READY))
                        peer_own(instance->peer);
        }
        for (size_t i = 0; i < last->n_relays; i++) {
                const Control *control = find_client(successor, last->relays[i]->connection);
                const Instance *instance = supervisor_find_instance(successor->supervisor, last->relays[i]->instance);

                if (control)
                        peer_own(control_peer(control));
                if (instance && instance->peer)
                        peer_own(instance->peer);
        }
        for (size_t i = 0; i < last->n_waiting; i++)
                if (successor->waiting[i])
                        peer_own(call_peer(successor->waiting[i]));
}

/* resume() - everything is ours. */
static void resume(Successor *successor) {
        const Baton__Snapshot__Snapshot *last = successor->last;
        Supervisor *supervisor = successor->supervisor;
        Call *asker = NULL;

        takeovers_phase_at(supervisor->takeovers, TAKEOVER_PHASE_COMMIT, successor->ready_us);
        takeovers_phase(supervisor->takeovers, TAKEOVER_PHASE_RESUME);
        if (fault_point(FAULT_SUCCESSOR, TAKEOVER_PHASE_RESUME) < 0)
                _exit(EXIT_FAILURE); /* too late to refuse */
        step_note("supervisor", "active", 0);
        events_release(supervisor->events);
        own_calls(successor);
        daemon_followed(supervisor->daemon);
        for (size_t i = 0; i < last->n_waiting; i++) {
                const Baton__Snapshot__Waiting *waiting = last->waiting[i];
                Call *call = successor->waiting[i];

                if (!call)
                        continue;
                successor->n_calls++;
                if (!*waiting->method)
                        asker = call;
                else if (!control_go_on(find_client(successor, waiting->connection), call, waiting->method,
                                        waiting->begun, waiting->request.data, waiting->request.len))
                        (void) call_fail(call, STATUS_UNAVAILABLE, "the supervisor was replaced");
        }
        tell(successor, asker);
        supervisor->successor = successor_free(successor);
        loop_release(supervisor->loop);
}

void successor_go(Successor *successor) {
        if (!successor->waiting)
                return; /* nobody has heard READY of us */
        successor->goes = true;
        keeper_link_release(successor->supervisor->link);
}

void successor_wait(Successor *successor) {
        Supervisor *supervisor = successor->supervisor;

        while (!successor->goes) {
                struct pollfd fds[] = {
                        { .fd = keeper_link_fd(supervisor->link), .events = POLLIN },
                        { .fd = successor->has_begun && !successor->deaf ? successor->socket : -1,
                          .events = transfer_events(&successor->transfer) },
                };

                (void) poll(fds, ARRAY_SIZE(fds), -1);
                if (fds[0].revents)
                        keeper_link_read(supervisor->link);
                if (keeper_link_fd(supervisor->link) < 0)
                        _exit(EXIT_FAILURE);
                if (!successor->goes && fds[1].revents)
                        hear(successor);
                if (!successor->goes)
                        loop_turn(supervisor->loop);
        }
        resume(successor);
}

/* begin() - the predecessor may have left word of a fault point. */
static void begin(Successor *successor) {
        char word[TRANSFER_WORD_SIZE], reason[FAULT_REASON_SIZE];
        bool arms = transfer_hear(successor->socket, word) == 0 &&
                    strncmp(word, TAKEOVER_WORD_FAULT, strlen(TAKEOVER_WORD_FAULT)) == 0 &&
                    fault_set(word + strlen(TAKEOVER_WORD_FAULT), FAULT_SUCCESSOR, reason) == 0;

        if (fault_point(FAULT_SUCCESSOR, TAKEOVER_PHASE_START) < 0)
                refuse(successor, FAULT_REFUSED);
        else
                (void) transfer_say(successor->socket, arms ? TAKEOVER_WORD_ARMED : TAKEOVER_WORD_HERE);
}

int successor_new(Successor **ret_successor, Supervisor *supervisor, int handover_fd_consume) {
        Successor *successor = calloc(1, sizeof(*successor));

        if (!successor) {
                fd_close(handover_fd_consume);
                return -ENOMEM;
        }
        *successor = (Successor){ .supervisor = supervisor, .socket = handover_fd_consume };
        SLIST_INIT(&successor->rounds);
        loop_hold(supervisor->loop);
        keeper_link_hold(supervisor->link);
        log_store_hold(supervisor->logs);
        events_hold(supervisor->events);
        transfer_take(&successor->transfer, successor->socket, SNAPSHOT_VERSION_MIN, SNAPSHOT_VERSION_MAX);
        begin(successor);
        *ret_successor = successor;
        return 0;
}

Successor *successor_free(Successor *successor) {
        Client *client, *next_client;
        Waits *waits, *next_waits;
        Round *round;

        if (!successor)
                return NULL;
        fault_end();
        HASH_ITER (hh, successor->clients, client, next_client) {
                HASH_DELETE(hh, successor->clients, client);
                free(client);
        }
        HASH_ITER (hh, successor->peers, waits, next_waits) {
                HASH_DELETE(hh, successor->peers, waits);
                free(waits);
        }
        while ((round = SLIST_FIRST(&successor->rounds))) {
                SLIST_REMOVE_HEAD(&successor->rounds, link);
                round_free(round);
        }
        transfer_deinit(&successor->transfer);
        fd_close(successor->socket);
        free(successor->waiting);
        free(successor);
        return NULL;
}
