/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Keeper Link: one queue of messages, sent in order. A message that wants a DONE is sent only while fewer than
 * KEEPER_WINDOW are unanswered, since the keeper, which allocates nothing, keeps no more answers than that; what is behind
 * it waits too, as order is what the protocol lives from. A message that waits owns a duplicate of its descriptor until the
 * kernel took it.
 *
 * Unanswered requests are kept in the order they were sent, which is the order in which the keeper answers, several by one
 * DONE; one with a serial of none of them means that the two have lost each other, which ends the link. Answers from before
 * are dropped with it: without a keeper there is nothing to go on with (the supervisor dies with it).
 *
 * STARTED of several instances is one message, at the end of the turn or before whatever else is said: nothing waits for it.
 *
 * POLLOUT comes late on unix sockets (when three quarters are free), so sending is retried after each receive too.
 * ETOOMANYREFS, which only others' descriptors in flight can clear, is retried by a timer.
 */

#include "supervisor/keeper-link.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/clock.h"
#include "common/cmsg.h"
#include "common/fd.h"
#include "common/log.h"
#include "common/pace.h"
#include "common/step.h"

enum { RETRY_US = 10000 };

typedef struct LinkDone {
        KeeperLinkDone callback;
        void *userdata;
} LinkDone;

typedef struct LinkMessage LinkMessage;
struct LinkMessage {
        TAILQ_ENTRY(LinkMessage) link;
        KeeperMessage m;
        int fds[KEEPER_FDS_MAX];
        size_t n_fds;
        bool answered; /* wants a DONE */
        LinkDone done;
};
TAILQ_HEAD(LinkQueue, LinkMessage);

struct KeeperLink {
        Loop *loop;
        int fd; /* -1: closed */
        LoopIo io;
        LoopTimer retry;
        const KeeperLinkHandlers *handlers;
        void *userdata;
        struct LinkQueue queue;
        size_t n_requests; /* in the queue that want a DONE */
        uint32_t last_serial;
        uint64_t started[KEEPER_STARTED_MAX]; /* instances of which the keeper has not been told so yet */
        size_t n_started;
        LoopTask tell_started;
        struct {
                uint32_t serial;
                LinkDone done;
        } unanswered[KEEPER_WINDOW];
        size_t n_unanswered, first_unanswered;
        bool held;  /* nothing is said but what a successor has to say */
        bool packs; /* the keeper was told that we take packs */
};

static void io_ready(LoopIo *io, unsigned events);
static void retry_now(LoopTimer *timer);
static void tell_started(LoopTask *task);

static LinkMessage *message_free(LinkMessage *message) {
        if (!message)
                return NULL;
        fd_close_all(message->fds, message->n_fds);
        free(message);
        return NULL;
}

int keeper_link_new(KeeperLink **ret_link, Loop *loop, int fd_consume, const KeeperLinkHandlers *handlers,
                    void *userdata) {
        _cleanup_fd_ int fd = fd_consume;
        KeeperLink *link = calloc(1, sizeof(*link));

        if (!link)
                return -ENOMEM;
        link->loop = loop;
        link->fd = fd_take(&fd);
        link->io = LOOP_IO_NULL(io_ready);
        link->retry = LOOP_TIMER_NULL(retry_now);
        link->tell_started = LOOP_TASK_NULL(tell_started);
        link->handlers = handlers;
        link->userdata = userdata;
        TAILQ_INIT(&link->queue);
        loop_io_set(loop, &link->io, link->fd, LOOP_IN);
        *ret_link = link;
        return 0;
}

static void link_close(KeeperLink *link) {
        LinkMessage *message;

        loop_io_stop(&link->io);
        loop_timer_stop(&link->retry);
        loop_task_cancel(&link->tell_started);
        link->fd = fd_close(link->fd);
        while ((message = TAILQ_FIRST(&link->queue))) {
                TAILQ_REMOVE(&link->queue, message, link);
                message_free(message);
        }
        link->n_requests = link->n_unanswered = link->n_started = 0;
}

KeeperLink *keeper_link_free(KeeperLink *link) {
        if (!link)
                return NULL;
        link_close(link);
        free(link);
        return NULL;
}

bool keeper_link_idle(const KeeperLink *link) {
        return TAILQ_EMPTY(&link->queue);
}

bool keeper_link_settled(const KeeperLink *link) {
        return keeper_link_idle(link) && link->n_unanswered == 0 && link->n_started == 0;
}

/* --------------------------------------------------------------------------------------------------------- sending */

static void remember(KeeperLink *link, uint32_t serial, const LinkDone *done) {
        size_t last = (link->first_unanswered + link->n_unanswered++) % KEEPER_WINDOW;

        link->unanswered[last].serial = serial;
        link->unanswered[last].done = *done;
}

/* is_for_now() - of a link that is held: the words by which the keeper knows what becomes of us. */
static bool is_for_now(const KeeperMessage *m) {
        return m->type == KEEPER_READY || m->type == KEEPER_REFUSE || m->type == KEEPER_PONG || m->type == KEEPER_PACK;
}

/* send_now() - with nothing before it: 0, or why not. */
static int send_now(KeeperLink *link, const KeeperMessage *m, const int *fds, size_t n_fds, const LinkDone *done) {
        ssize_t n;

        if ((done && link->n_unanswered == KEEPER_WINDOW) || (link->held && !is_for_now(m)))
                return -EBUSY;
        n = cmsg_send(link->fd, m, sizeof(*m), fds, n_fds);
        if (n < 0)
                return (int) n;
        if (done)
                remember(link, m->serial, done);
        return 0;
}

/* send_first() - 0 when the kernel took the first message, else why not. */
static int send_first(KeeperLink *link) {
        LinkMessage *message = TAILQ_FIRST(&link->queue);
        const LinkDone *done = message->answered ? &message->done : NULL;
        int r = send_now(link, &message->m, message->fds, message->n_fds, done);

        if (r < 0)
                return r;
        link->n_requests -= message->answered;
        TAILQ_REMOVE(&link->queue, message, link);
        message_free(message);
        return 0;
}

/*
 * await() - what lets the first message go on, which failed with @r. A full window waits for a DONE, a full socket for room;
 * any other failure is retried by the timer, but for EPIPE, which the end of the stream, read in order, explains. 0: none
 * has failed.
 */
static void await(KeeperLink *link, int r) {
        unsigned events = LOOP_IN;

        if (r == -EAGAIN)
                events |= LOOP_OUT;
        else if (r < 0 && r != -EBUSY && r != -EPIPE && loop_timer_deadline(&link->retry) == 0)
                loop_timer_set(link->loop, &link->retry, clock_after(clock_now(), RETRY_US));
        loop_io_set(link->loop, &link->io, link->fd, events);
}

/* flush() - as much as fits. */
static void flush(KeeperLink *link) {
        int r = 0;

        if (link->fd < 0)
                return;
        while (r == 0 && !TAILQ_EMPTY(&link->queue))
                r = send_first(link);
        await(link, r);
}

/* flush_and_tell() - from the loop only. */
static void flush_and_tell(KeeperLink *link, bool was_idle) {
        flush(link);
        if (link->fd >= 0 && !was_idle && keeper_link_idle(link) && link->handlers->idle)
                link->handlers->idle(link, link->userdata);
}

static void retry_now(LoopTimer *timer) {
        KeeperLink *link = CONTAINER_OF(timer, KeeperLink, retry);

        flush_and_tell(link, keeper_link_idle(link));
}

/* enqueue() - behind what waits. It gets duplicates of @fds, which may be gone before it is its turn. */
static int enqueue(KeeperLink *link, const KeeperMessage *m, const int *fds, size_t n_fds, const LinkDone *done) {
        LinkMessage *message = calloc(1, sizeof(*message));

        if (!message)
                return -ENOMEM;
        message->m = *m;
        for (; message->n_fds < n_fds; message->n_fds++) {
                int copy = fd_dup(fds[message->n_fds]);

                if (copy < 0) {
                        message_free(message);
                        return copy;
                }
                message->fds[message->n_fds] = copy;
        }
        if (done) {
                message->answered = true;
                message->done = *done;
                link->n_requests++;
        }
        TAILQ_INSERT_TAIL(&link->queue, message, link);
        return 0;
}

/* note() - those of the words, as they are sent or received, that the model of a takeover has. */
static void note(const KeeperMessage *m) {
        static const char *const steps[_KEEPER_TYPE_N] = {
                [KEEPER_TAKEOVER] = "up!TAKEOVER", [KEEPER_FROZEN] = "up!FROZEN", [KEEPER_ABORT] = "up!ABORT",
                [KEEPER_READY] = "up!READY",       [KEEPER_REFUSE] = "up!REFUSE", [KEEPER_SERVING] = "up!SERVING",
                [KEEPER_GO] = "down?GO",           [KEEPER_LEAVE] = "down?LEAVE", [KEEPER_THAW] = "down?THAW",
        };

        if (m->type < _KEEPER_TYPE_N && steps[m->type])
                step_note("supervisor", steps[m->type], 0);
}

/* transmit_next() - at once, if nothing waits and the kernel takes it: nearly always. @fds are borrowed. */
static int transmit_next(KeeperLink *link, KeeperMessage *m, const int *fds, size_t n_fds, const LinkDone *done) {
        bool is_first = TAILQ_EMPTY(&link->queue) || (link->held && is_for_now(m));
        int r, why = 0;

        if (link->fd < 0)
                return -EPIPE;
        if (done && link->n_requests >= KEEPER_LINK_REQUESTS_MAX)
                return -ENOBUFS;
        note(m);
        m->version = KEEPER_VERSION;
        if (done)
                m->serial = ++link->last_serial ?: ++link->last_serial; /* never 0: nothing to answer */
        if (is_first)
                why = send_now(link, m, fds, n_fds, done);
        if (is_first && why == 0)
                return 0;
        r = enqueue(link, m, fds, n_fds, done);
        if (r == 0 && is_first)
                await(link, why);
        return r;
}

/* flush_started() - before anything else is said. What there is no memory for stays, and is tried again with the next. */
static int flush_started(KeeperLink *link) {
        KeeperMessage m = { .type = KEEPER_STARTED, .instance = link->started[0] };
        int r;

        if (link->n_started == 0)
                return 0;
        memcpy(m.record, link->started + 1, (link->n_started - 1) * sizeof(*link->started));
        r = transmit_next(link, &m, NULL, 0, NULL);
        if (r == 0)
                link->n_started = 0;
        return r;
}

static void tell_started(LoopTask *task) {
        (void) flush_started(CONTAINER_OF(task, KeeperLink, tell_started));
}

static int transmit(KeeperLink *link, KeeperMessage *m, const int *fds, size_t n_fds, const LinkDone *done) {
        int r = flush_started(link);

        return r < 0 ? r : transmit_next(link, m, fds, n_fds, done);
}

static int request(KeeperLink *link, KeeperMessage *m, int fd, KeeperLinkDone done, void *userdata) {
        return transmit(link, m, &fd, fd >= 0, &(LinkDone){ done, userdata });
}

static int state(KeeperLink *link, KeeperMessage *m) {
        return transmit(link, m, NULL, 0, NULL);
}

static int state_of(KeeperLink *link, KeeperType type, uint64_t instance) {
        return state(link, &(KeeperMessage){ .type = (uint16_t) type, .instance = instance });
}

int keeper_link_reserve(KeeperLink *link, const KeeperReservation *reservation, KeeperLinkDone done, void *userdata) {
        KeeperMessage m = {
                .type = KEEPER_RESERVE,
                .instance = reservation->instance,
                .flags = reservation->flags | (reservation->logs ? KEEPER_FLAG_LOGS : 0),
                .fd_kind = reservation->kind,
                .fd_tag = reservation->tag,
        };
        int fds[KEEPER_FDS_MAX];
        size_t n = 0;

        if (strlen(reservation->name) >= sizeof(m.name))
                return -EINVAL;
        strcpy(m.name, reservation->name);
        if (reservation->record)
                memcpy(m.record, reservation->record, sizeof(m.record));
        for (size_t i = 0; reservation->logs && i < 2; i++)
                fds[n++] = reservation->logs[i];
        if (reservation->kind != KEEPER_FD_NONE)
                fds[n++] = reservation->fd;
        return transmit(link, &m, fds, n, &(LinkDone){ done, userdata });
}

static int put(KeeperLink *link, KeeperMessage m, int fd, KeeperLinkDone done, void *userdata) {
        m.type = KEEPER_PUT;
        return request(link, &m, fd, done, userdata);
}

int keeper_link_put(KeeperLink *link, uint64_t instance, KeeperFdKind kind, uint64_t tag, int fd, KeeperLinkDone done,
                    void *userdata) {
        return put(link, (KeeperMessage){ .instance = instance, .fd_kind = kind, .fd_tag = tag }, fd, done, userdata);
}

int keeper_link_replace(KeeperLink *link, uint64_t instance, KeeperFdKind kind, uint64_t tag, int fd,
                        KeeperLinkDone done, void *userdata) {
        const KeeperMessage m = { .instance = instance, .flags = KEEPER_FLAG_REPLACE, .fd_kind = kind, .fd_tag = tag };

        return put(link, m, fd, done, userdata);
}

int keeper_link_drop(KeeperLink *link, uint64_t instance, KeeperFdKind kind, uint64_t tag, KeeperLinkDone done,
                     void *userdata) {
        KeeperMessage m = { .type = KEEPER_DROP, .instance = instance, .fd_kind = kind, .fd_tag = tag };

        return request(link, &m, -1, done, userdata);
}

int keeper_link_signal(KeeperLink *link, uint64_t instance, int signal, KeeperLinkDone done, void *userdata) {
        KeeperMessage m = { .type = KEEPER_SIGNAL, .instance = instance, .result = signal };

        return request(link, &m, -1, done, userdata);
}

int keeper_link_started(KeeperLink *link, uint64_t instance) {
        int r = link->n_started == KEEPER_STARTED_MAX ? flush_started(link) : 0;

        if (link->fd < 0)
                return -EPIPE;
        if (r < 0)
                return r;
        link->started[link->n_started++] = instance;
        loop_task_queue(link->loop, &link->tell_started);
        return 0;
}

int keeper_link_cancel(KeeperLink *link, uint64_t instance) {
        return state_of(link, KEEPER_CANCEL, instance);
}

int keeper_link_spawned(KeeperLink *link, uint64_t instance, const SpawnResult *result) {
        return result->born ? keeper_link_started(link, instance) : keeper_link_cancel(link, instance);
}

int keeper_link_ack(KeeperLink *link, uint64_t instance) {
        return state_of(link, KEEPER_ACK, instance);
}

int keeper_link_keep(KeeperLink *link, uint64_t instance) {
        return state(link, &(KeeperMessage){ .type = KEEPER_ACK, .instance = instance, .flags = KEEPER_FLAG_KEPT });
}

int keeper_link_record(KeeperLink *link, uint64_t instance, const void *record) {
        KeeperMessage m = { .type = KEEPER_RECORD, .instance = instance };

        memcpy(m.record, record, sizeof(m.record));
        return state(link, &m);
}

int keeper_link_active(KeeperLink *link, uint64_t instance) {
        return state_of(link, KEEPER_ACTIVE, instance);
}

/* One line: what follows a line break would be taken for another assignment. */
int keeper_link_notify(KeeperLink *link, KeeperNotify what, const char *text) {
        KeeperMessage m = { .type = KEEPER_NOTIFY, .result = (int32_t) what };

        (void) snprintf((char *) m.record, sizeof(m.record), "%.*s", text ? (int) strcspn(text, "\n") : 0,
                        text ? text : "");
        return state(link, &m);
}

int keeper_link_serving(KeeperLink *link) {
        return state_of(link, KEEPER_SERVING, 0);
}

int keeper_link_shutdown(KeeperLink *link, int status) {
        return state(link, &(KeeperMessage){ .type = KEEPER_SHUTDOWN, .result = status });
}

static int give(KeeperLink *link, KeeperType type, int fd, KeeperLinkDone done, void *userdata) {
        KeeperMessage m = { .type = (uint16_t) type };

        return request(link, &m, fd, done, userdata);
}

int keeper_link_program(KeeperLink *link, int fd, KeeperLinkDone done, void *userdata) {
        return give(link, KEEPER_PROGRAM, fd, done, userdata);
}

int keeper_link_replace_keeper(KeeperLink *link, int fd, bool check, KeeperLinkDone done, void *userdata) {
        KeeperMessage m = { .type = KEEPER_REPLACE, .flags = check ? KEEPER_FLAG_CHECK : 0 };

        return request(link, &m, fd, done, userdata);
}

int keeper_link_takeover(KeeperLink *link, int fd, KeeperLinkDone done, void *userdata) {
        return give(link, KEEPER_TAKEOVER, fd, done, userdata);
}

int keeper_link_frozen(KeeperLink *link) {
        return state_of(link, KEEPER_FROZEN, 0);
}

int keeper_link_abort(KeeperLink *link) {
        return state_of(link, KEEPER_ABORT, 0);
}

int keeper_link_ready(KeeperLink *link) {
        return state_of(link, KEEPER_READY, 0);
}

int keeper_link_refuse(KeeperLink *link, const char *why) {
        KeeperMessage m = { .type = KEEPER_REFUSE };

        (void) snprintf((char *) m.record, sizeof(m.record), "%s", why);
        return state(link, &m);
}

int keeper_link_fd(const KeeperLink *link) {
        return link->fd;
}

/* is_later() - nothing there, or no memory for it just now: it stays in the socket, which says so again. */
static bool is_later(ssize_t n) {
        return n == -EAGAIN || n == -ENOMEM || n == -ENOBUFS;
}

int keeper_link_hear(KeeperLink *link, KeeperMessage *ret_message) {
        CmsgInfo info;
        int fd = -1;
        ssize_t n;

        flush(link);
        n = cmsg_receive(link->fd, ret_message, sizeof(*ret_message), &fd, 1, &info);
        fd_close(fd);
        if (is_later(n))
                return -EAGAIN;
        if (n != sizeof(*ret_message))
                return -EPIPE;
        note(ret_message);
        if (ret_message->type == KEEPER_PING)
                (void) state_of(link, KEEPER_PONG, 0);
        return 0;
}

void keeper_link_hold(KeeperLink *link) {
        link->held = true;
}

void keeper_link_release(KeeperLink *link) {
        link->held = false;
        flush(link);
}

void keeper_link_forget(KeeperLink *link, const void *userdata) {
        LinkMessage *message;

        TAILQ_FOREACH (message, &link->queue, link)
                if (message->done.userdata == userdata)
                        message->done = (LinkDone){ 0 };
        for (size_t i = 0; i < link->n_unanswered; i++) {
                LinkDone *done = &link->unanswered[(link->first_unanswered + i) % KEEPER_WINDOW].done;

                if (done->userdata == userdata)
                        *done = (LinkDone){ 0 };
        }
}

/* ------------------------------------------------------------------------------------------------------- receiving */

/* Each: false ends the link. What takes the descriptor leaves -1. */
typedef bool LinkHandler(KeeperLink *link, const KeeperMessage *m, int *fd);

/* is_unanswered() - whether a request of this serial is. */
static bool is_unanswered(const KeeperLink *link, uint32_t serial) {
        for (size_t i = 0; i < link->n_unanswered; i++)
                if (link->unanswered[(link->first_unanswered + i) % KEEPER_WINDOW].serial == serial)
                        return true;
        return false;
}

/* on_done() - of those before it as well, which succeeded. False: it is an answer to nothing. */
static bool on_done(KeeperLink *link, const KeeperMessage *m, int *fd) {
        bool last = false;

        (void) fd;
        if (!is_unanswered(link, m->serial))
                return false;
        while (!last && link->n_unanswered > 0) {
                size_t first = link->first_unanswered;
                LinkDone done = link->unanswered[first].done;

                last = link->unanswered[first].serial == m->serial;
                link->first_unanswered = (first + 1) % KEEPER_WINDOW;
                link->n_unanswered--;
                if (done.callback)
                        done.callback(link, last ? m->result : 0, done.userdata);
        }
        return true;
}

static KeeperExit read_exit(const KeeperMessage *m) {
        return (KeeperExit){ m->instance, m->pid, m->wait_code, m->wait_status };
}

static bool on_exit_report(KeeperLink *link, const KeeperMessage *m, int *fd) {
        KeeperExit exit = read_exit(m);

        (void) fd;
        link->handlers->exited(link, &exit, link->userdata);
        return true;
}

static bool on_slot(KeeperLink *link, const KeeperMessage *m, int *fd) {
        const KeeperSlot slot = {
                .instance = m->instance,
                .name = m->name,
                .state = (KeeperSlotState) m->result,
                .flags = m->flags,
                .exit = read_exit(m),
                .pid = m->pid,
                .record = m->record,
        };

        if (!memchr(m->name, '\0', sizeof(m->name)) || m->result < 0 || m->result >= _KEEPER_SLOT_STATE_N)
                return false;
        if (link->handlers->slot)
                link->handlers->slot(link, &slot, fd_take(fd), link->userdata);
        return true;
}

static bool on_stored(KeeperLink *link, const KeeperMessage *m, int *fd) {
        if (*fd < 0) /* our own limit: what it belongs to cannot go on */
                log_error("cannot take over a descriptor of instance %" PRIx64 ": too many are open", m->instance);
        if (link->handlers->stored)
                link->handlers->stored(link, m->instance, (KeeperFdKind) m->fd_kind, m->fd_tag, fd_take(fd),
                                       link->userdata);
        return true;
}

static bool on_died(KeeperLink *link, const KeeperMessage *m, int *fd) {
        const KeeperDeath death = {
                .generation = (uint32_t) m->instance,
                .pid = m->pid,
                .time_us = m->fd_tag,
                .how = (const char *) m->record,
                .went_back = m->flags & KEEPER_FLAG_WENT_BACK,
        };

        (void) fd;
        if (!memchr(m->record, '\0', sizeof(m->record)))
                return false;
        if (link->handlers->died)
                link->handlers->died(link, &death, link->userdata);
        return true;
}

static bool on_gone(KeeperLink *link, const KeeperMessage *m, int *fd) {
        (void) fd;
        if (link->handlers->gone)
                link->handlers->gone(link, m->instance, (KeeperFdKind) m->fd_kind, m->fd_tag, link->userdata);
        return true;
}

static bool on_end(KeeperLink *link, const KeeperMessage *m, int *fd) {
        (void) fd;
        if (link->handlers->loaded)
                link->handlers->loaded(link, m->flags & KEEPER_FLAG_FINAL, link->userdata);
        return true;
}

static bool on_reload(KeeperLink *link, const KeeperMessage *m, int *fd) {
        (void) fd;
        (void) m;
        if (link->handlers->reload)
                link->handlers->reload(link, link->userdata);
        return true;
}

static bool on_go(KeeperLink *link, const KeeperMessage *m, int *fd) {
        (void) fd;
        (void) m;
        if (link->handlers->go)
                link->handlers->go(link, link->userdata);
        return true;
}

static bool on_replaced(KeeperLink *link, const KeeperMessage *m, int *fd) {
        char text[KEEPER_RECORD_SIZE];

        (void) fd;
        (void) snprintf(text, sizeof(text), "%.*s", (int) sizeof(m->record) - 1, (const char *) m->record);
        if (link->handlers->replaced)
                link->handlers->replaced(link, m->result, text, link->userdata);
        return true;
}

static bool on_ping(KeeperLink *link, const KeeperMessage *m, int *fd) {
        (void) fd;
        (void) m;
        (void) state_of(link, KEEPER_PONG, 0);
        return true;
}

static bool handle(KeeperLink *link, const KeeperMessage *m, int *fd) {
        static LinkHandler *const handlers[_KEEPER_TYPE_N] = {
                [KEEPER_DONE] = on_done,         [KEEPER_EXIT] = on_exit_report,
                [KEEPER_SLOT] = on_slot,         [KEEPER_STORED] = on_stored,
                [KEEPER_END] = on_end,           [KEEPER_RELOAD] = on_reload,
                [KEEPER_PING] = on_ping,         [KEEPER_GO] = on_go,
                [KEEPER_REPLACED] = on_replaced, [KEEPER_DIED] = on_died,
                [KEEPER_GONE] = on_gone,
        };

        note(m);
        if (m->version == KEEPER_VERSION && m->type < _KEEPER_TYPE_N && handlers[m->type] &&
            handlers[m->type](link, m, fd))
                return true;
        log_error("keeper sent an unexpected message (version %u, type %u, serial %u)", m->version, m->type,
                  m->serial);
        return false;
}

static void end(KeeperLink *link) {
        link_close(link);
        link->handlers->closed(link, link->userdata);
}

/* ask_for_packs() - once, where the keeper has them. */
static void ask_for_packs(KeeperLink *link, const KeeperMessage *m) {
        bool can = m->type == KEEPER_SLOT || m->type == KEEPER_STORED || m->type == KEEPER_GONE;

        if (link->packs || !can || !(m->flags & KEEPER_FLAG_PACKS))
                return;
        link->packs = true;
        (void) state_of(link, KEEPER_PACK, 0);
}

/*
 * handle_pack() - one message or several, with the descriptors of all. Of those that our own limit has lost the kernel has
 * lost the last. False: the link is to end.
 */
static bool handle_pack(KeeperLink *link, const KeeperMessage *messages, size_t n, int *fds, size_t n_fds) {
        bool fine = n > 0;
        size_t taken = 0;

        for (size_t i = 0; fine && link->fd >= 0 && i < n; i++) {
                bool has_fd = n == 1 || messages[i].flags & KEEPER_FLAG_FD;
                _cleanup_fd_ int fd = has_fd && taken < n_fds ? fds[taken++] : -1;

                ask_for_packs(link, &messages[i]);
                fine = handle(link, &messages[i], &fd);
        }
        fd_close_all(fds + taken, n_fds - taken);
        return fine;
}

/* receive() - one message, or pack. True: there may be more. */
static bool receive(KeeperLink *link) {
        struct {
                KeeperMessage m[KEEPER_PACK_MAX];
                char surplus; /* a longer one would otherwise look right */
        } buffer;
        int fds[KEEPER_PACK_MAX];
        CmsgInfo info;
        bool whole;
        ssize_t n;

        n = cmsg_receive(link->fd, &buffer, sizeof(buffer.m) + 1, fds, ARRAY_SIZE(fds), &info);
        if (is_later(n))
                return false;
        whole = n >= 0 && (size_t) n <= sizeof(buffer.m) && (size_t) n % sizeof(*buffer.m) == 0;
        if (n > 0 && !whole)
                log_error("keeper sent a message of %zd bytes instead of %zu", n, sizeof(*buffer.m));
        if (!handle_pack(link, buffer.m, whole ? (size_t) n / sizeof(*buffer.m) : 0, fds, n >= 0 ? info.n_fds : 0)) {
                end(link);
                return false;
        }
        return link->fd >= 0;
}

static void io_ready(LoopIo *io, unsigned events) {
        KeeperLink *link = CONTAINER_OF(io, KeeperLink, io);
        bool was_idle = keeper_link_idle(link);

        (void) events;
        flush(link);
        while (receive(link)) {
                was_idle &= keeper_link_idle(link);
                flush(link);
        }
        flush_and_tell(link, was_idle);
}

void keeper_link_read(KeeperLink *link) {
        while (link->held && receive(link))
                (void) pace_keep();
}

int keeper_link_settle(KeeperLink *link, uint64_t deadline_us) {
        uint64_t now;

        loop_task_cancel(&link->tell_started);
        tell_started(&link->tell_started);
        while (link->fd >= 0 && !keeper_link_settled(link)) {
                struct pollfd answer = { .fd = link->fd, .events = POLLIN };

                io_ready(&link->io, LOOP_IN);
                now = clock_now();
                if (link->fd < 0 || keeper_link_settled(link))
                        break;
                if (now >= deadline_us)
                        return -EAGAIN;
                (void) poll(&answer, 1, (int) MIN((deadline_us - now) / USEC_PER_MSEC + 1, (uint64_t) 1000));
        }
        return link->fd < 0 ? -EPIPE : 0;
}
