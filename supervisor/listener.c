/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Listener: accepts connections to the control socket, gives each its role, and keeps them. The socket is the keeper's, who
 * made it and keeps it while no supervisor runs; this process has a duplicate, which lives as long as it does.
 *
 * Connections are counted: all of them, those of a user that is not admin, and some are kept for admins, so that nobody
 * can lock them out. Whoever is one too many is told so in a CLOSE, at once, and costs nothing afterwards. Whoever connects
 * and says nothing is ended by its peer's time-out for Hello. Without descriptors accepting rests for a moment: the kernel
 * keeps those that wait.
 */

#include "supervisor/listener.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "supervisor/control.h"
#include "supervisor/supervisor.h"

#define RETRY_US      (100 * USEC_PER_MSEC)
#define TELL_EVERY_US (10 * USEC_PER_SEC) /* at most, of those that are refused */

enum { ACCEPT_BATCH = 16 }; /* in one turn, so that nobody else waits for a crowd */

typedef struct ListenerClient Client;
typedef struct User User;

/* Who has how many connections. */
struct User {
        UT_hash_handle hh;
        uid_t uid;
        uint32_t n;
};

struct ListenerClient {
        LIST_ENTRY(ListenerClient) link;
        Listener *listener;
        Control *control;
        User *user;
};

struct Listener {
        Supervisor *supervisor;
        int fd;
        LoopIo io;
        LoopTimer retry;
        RolePolicy policy;
        LIST_HEAD(, ListenerClient) clients;
        User *users; /* uthash by uid */
        ListenerCounts counts;
        uint64_t told_us; /* when it was last said that some are refused; 0: never */
};

/* ------------------------------------------------------------------------------------------------------------- the users */

/* user_ref() - NULL: no memory. */
static User *user_ref(Listener *listener, uid_t uid) {
        User *user;

        HASH_FIND(hh, listener->users, &uid, sizeof(uid), user);
        if (!user) {
                user = calloc(1, sizeof(*user));
                if (!user)
                        return NULL;
                user->uid = uid;
                HASH_ADD(hh, listener->users, uid, sizeof(uid), user);
                if (!user->hh.tbl) {
                        free(user);
                        return NULL;
                }
        }
        user->n++;
        return user;
}

static void user_unref(Listener *listener, User *user) {
        if (--user->n > 0)
                return;
        HASH_DELETE(hh, listener->users, user);
        free(user);
}

/* ----------------------------------------------------------------------------------------------------------- the clients */

static void client_free(Client *client) {
        Listener *listener = client->listener;

        client->control = control_free(client->control);
        user_unref(listener, client->user);
        LIST_REMOVE(client, link);
        listener->counts.clients--;
        free(client);
}

static void client_ended(Control *control, void *userdata) {
        (void) control;
        client_free(userdata);
}

/* has_room() - for one more; else it is told that there is none. Takes @fd_consume if it says no. */
static bool has_room(Listener *listener, const struct ucred *who, Role role, int fd_consume) {
        uint32_t max = LISTENER_CLIENTS_MAX - (role == ROLE_ADMIN ? 0 : LISTENER_RESERVED);
        User *user;

        HASH_FIND(hh, listener->users, &who->uid, sizeof(who->uid), user);
        if (listener->counts.clients >= max)
                control_refuse(listener->supervisor, fd_consume, STATUS_RESOURCE_EXHAUSTED,
                               "%u clients are connected, which is as many as may be", listener->counts.clients);
        else if (role != ROLE_ADMIN && user && user->n >= LISTENER_CLIENTS_PER_USER)
                control_refuse(listener->supervisor, fd_consume, STATUS_RESOURCE_EXHAUSTED,
                               "uid %u has %u connections, which is as many as a user may have", who->uid, user->n);
        else
                return true;
        if (listener->told_us == 0 || clock_now() - listener->told_us >= TELL_EVERY_US) {
                log_warning("client uid %u, pid %d: refused: %u clients are connected, %u of this user", who->uid,
                            who->pid, listener->counts.clients, user ? user->n : 0);
                listener->told_us = clock_now();
        }
        return false;
}

/* client_add() - counted, and without a connection yet. NULL: no memory. */
static Client *client_add(Listener *listener, uid_t uid) {
        Client *client = calloc(1, sizeof(*client));

        if (!client)
                return NULL;
        client->listener = listener;
        client->user = user_ref(listener, uid);
        if (!client->user) {
                free(client);
                return NULL;
        }
        LIST_INSERT_HEAD(&listener->clients, client, link);
        listener->counts.clients++;
        return client;
}

static int client_new(Listener *listener, const struct ucred *who, Role role, int fd_consume) {
        ControlClient parameters = { .credentials = *who, .role = role, .ended = client_ended };
        _cleanup_fd_ int fd = fd_consume;
        Client *client = client_add(listener, who->uid);
        int r;

        if (!client)
                return -ENOMEM;
        parameters.userdata = client;
        r = control_new(&client->control, listener->supervisor, fd_take(&fd), &parameters);
        if (r < 0)
                client_free(client);
        return r;
}

int listener_restore(Listener *listener, const struct ucred *who, Role role, const Baton__Handover__Peer *state,
                     const char *prefix, Manifest *manifest, Control **ret_control) {
        ControlClient parameters = { .credentials = *who, .role = role, .ended = client_ended };
        Client *client = client_add(listener, who->uid);
        int r;

        if (!client)
                return -ENOMEM;
        parameters.userdata = client;
        r = control_restore(&client->control, listener->supervisor, &parameters, state, prefix, manifest);
        if (r < 0)
                client_free(client);
        else
                *ret_control = client->control;
        return r;
}

void listener_discard(Listener *listener, const Control *control) {
        Client *client;

        LIST_FOREACH (client, &listener->clients, link)
                if (client->control == control) {
                        client_free(client);
                        return;
                }
}

static void take_in(Listener *listener, int fd_consume) {
        struct ucred who;
        Role role = role_of_socket(&listener->policy, fd_consume, &who);
        int r = 0;

        if (!has_room(listener, &who, role, fd_consume)) {
                listener->counts.refused++;
                return;
        }
        r = client_new(listener, &who, role, fd_consume);
        if (r < 0) {
                listener->counts.refused++;
                log_warning("client uid %u, pid %d: cannot take it in: %s", who.uid, who.pid, strerror(-r));
                return;
        }
        listener->counts.accepted++;
}

/* ------------------------------------------------------------------------------------------------------------- accepting */

static void accept_some(LoopIo *io, unsigned events) {
        Listener *listener = CONTAINER_OF(io, Listener, io);

        (void) events;
        for (unsigned i = 0; i < ACCEPT_BATCH; i++) {
                int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

                if (fd >= 0) {
                        take_in(listener, fd);
                        continue;
                }
                if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                        log_warning("control socket: cannot accept a client for now: %s", strerror(errno));
                        loop_io_set(listener->supervisor->loop, &listener->io, listener->fd, 0);
                        loop_timer_set(listener->supervisor->loop, &listener->retry,
                                       clock_after(clock_now(), RETRY_US));
                }
                return;
        }
}

static void accept_again(LoopTimer *timer) {
        Listener *listener = CONTAINER_OF(timer, Listener, retry);

        loop_io_set(listener->supervisor->loop, &listener->io, listener->fd, LOOP_IN);
}

int listener_new(Listener **ret_listener, Supervisor *supervisor, int fd_consume) {
        Listener *listener = calloc(1, sizeof(*listener));

        if (!listener) {
                fd_close(fd_consume);
                return -ENOMEM;
        }
        *listener = (Listener){
                .supervisor = supervisor,
                .fd = fd_consume,
                .io = LOOP_IO_NULL(accept_some),
                .retry = LOOP_TIMER_NULL(accept_again),
                .policy = { .owner = geteuid() },
        };
        LIST_INIT(&listener->clients);
        loop_io_set(supervisor->loop, &listener->io, listener->fd, LOOP_IN);
        *ret_listener = listener;
        return 0;
}

Listener *listener_free(Listener *listener) {
        Client *client;

        if (!listener)
                return NULL;
        while ((client = LIST_FIRST(&listener->clients)))
                client_free(client);
        loop_io_stop(&listener->io);
        loop_timer_stop(&listener->retry);
        fd_close(listener->fd);
        free(listener);
        return NULL;
}

void listener_set_policy(Listener *listener, const RolePolicy *policy) {
        listener->policy = *policy;
}

ListenerCounts listener_counts(const Listener *listener) {
        return listener ? listener->counts : (ListenerCounts){ 0 };
}

void listener_set_counts(Listener *listener, uint64_t accepted, uint64_t refused) {
        listener->counts.accepted = accepted;
        listener->counts.refused = refused;
}

ListenerClient *listener_next_client(const Listener *listener, const ListenerClient *client) {
        return client ? LIST_NEXT(client, link) : LIST_FIRST(&listener->clients);
}

Control *listener_client_control(const ListenerClient *client) {
        return client->control;
}
