/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Keeper Link: one queue of messages, sent in order. A message that wants a DONE is sent only while fewer than
 * KEEPER_WINDOW are unanswered, since the keeper, which allocates nothing, keeps no more answers than that; what is behind
 * it waits too, as order is what the protocol lives from. A queued message owns its descriptor until the kernel took it.
 *
 * Unanswered requests are kept in the order they were sent, which is the order in which the keeper answers; a DONE with
 * another serial means that the two have lost each other, which ends the link. Answers from before are dropped with it:
 * without a keeper there is nothing to go on with (the supervisor dies with it).
 *
 * POLLOUT comes late on unix sockets (when three quarters are free), so sending is retried after each receive too.
 * ETOOMANYREFS, which only others' descriptors in flight can clear, is retried by a timer.
 */

#include "supervisor/keeper-link.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/queue.h>

#include "common/clock.h"
#include "common/cmsg.h"
#include "common/fd.h"
#include "common/log.h"

enum { RETRY_US = 10000 };

typedef struct LinkDone {
        KeeperLinkDone callback;
        void *userdata;
} LinkDone;

typedef struct LinkMessage LinkMessage;
struct LinkMessage {
        TAILQ_ENTRY(LinkMessage) link;
        KeeperMessage m;
        int fd;
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
        struct {
                uint32_t serial;
                LinkDone done;
        } unanswered[KEEPER_WINDOW];
        size_t n_unanswered, first_unanswered;
};

static void io_ready(LoopIo *io, unsigned events);
static void retry_now(LoopTimer *timer);

static LinkMessage *message_free(LinkMessage *message) {
        if (!message)
                return NULL;
        fd_close(message->fd);
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
        link->fd = fd_close(link->fd);
        while ((message = TAILQ_FIRST(&link->queue))) {
                TAILQ_REMOVE(&link->queue, message, link);
                message_free(message);
        }
        link->n_requests = link->n_unanswered = 0;
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

/* --------------------------------------------------------------------------------------------------------- sending */

static void remember(KeeperLink *link, const LinkMessage *message) {
        size_t last = (link->first_unanswered + link->n_unanswered++) % KEEPER_WINDOW;

        link->unanswered[last].serial = message->m.serial;
        link->unanswered[last].done = message->done;
        link->n_requests--;
}

/* send_first() - 0 when the kernel took the first message, else why not. */
static int send_first(KeeperLink *link) {
        LinkMessage *message = TAILQ_FIRST(&link->queue);
        ssize_t n;

        if (message->answered && link->n_unanswered == KEEPER_WINDOW)
                return -EBUSY;
        n = cmsg_send(link->fd, &message->m, sizeof(message->m), &message->fd, message->fd >= 0);
        if (n < 0)
                return (int) n;
        if (message->answered)
                remember(link, message);
        TAILQ_REMOVE(&link->queue, message, link);
        message_free(message);
        return 0;
}

/*
 * flush() - as much as fits. A full window waits for a DONE, a full socket for room; any other failure is retried by the
 * timer, but for EPIPE, which the end of the stream, read in order, explains.
 */
static void flush(KeeperLink *link) {
        unsigned events = LOOP_IN;
        int r = 0;

        if (link->fd < 0)
                return;
        while (r == 0 && !TAILQ_EMPTY(&link->queue))
                r = send_first(link);
        if (r == -EAGAIN)
                events |= LOOP_OUT;
        else if (r < 0 && r != -EBUSY && r != -EPIPE && !link->retry.armed)
                loop_timer_set(link->loop, &link->retry, clock_after(clock_now(), RETRY_US));
        loop_io_set(link->loop, &link->io, link->fd, events);
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

/* enqueue() - @fd_consume is taken on every path. */
static int enqueue(KeeperLink *link, const KeeperMessage *m, int fd_consume, const LinkDone *done) {
        _cleanup_fd_ int fd = fd_consume;
        LinkMessage *message;

        if (link->fd < 0)
                return -EPIPE;
        if (done && link->n_requests >= KEEPER_LINK_REQUESTS_MAX)
                return -ENOBUFS;
        message = calloc(1, sizeof(*message));
        if (!message)
                return -ENOMEM;
        message->m = *m;
        message->m.version = KEEPER_VERSION;
        message->fd = fd_take(&fd);
        if (done) {
                message->answered = true;
                message->done = *done;
                message->m.serial = ++link->last_serial ?: ++link->last_serial; /* never 0: nothing to answer */
                link->n_requests++;
        }
        TAILQ_INSERT_TAIL(&link->queue, message, link);
        flush(link);
        return 0;
}

static int request(KeeperLink *link, const KeeperMessage *m, int fd_consume, KeeperLinkDone done, void *userdata) {
        return enqueue(link, m, fd_consume, &(LinkDone){ done, userdata });
}

static int state(KeeperLink *link, KeeperType type, uint64_t instance, int result) {
        return enqueue(link, &(KeeperMessage){ .type = (uint16_t) type, .instance = instance, .result = result }, -1,
                       NULL);
}

int keeper_link_reserve(KeeperLink *link, uint64_t instance, const char *name, uint32_t flags, KeeperLinkDone done,
                        void *userdata) {
        KeeperMessage m = { .type = KEEPER_RESERVE, .instance = instance, .flags = flags };

        if (strlen(name) >= sizeof(m.name))
                return -EINVAL;
        strcpy(m.name, name);
        return request(link, &m, -1, done, userdata);
}

int keeper_link_put(KeeperLink *link, uint64_t instance, KeeperFdKind kind, uint64_t tag, int fd, KeeperLinkDone done,
                    void *userdata) {
        KeeperMessage m = { .type = KEEPER_PUT, .instance = instance, .fd_kind = kind, .fd_tag = tag };
        int copy = fd_dup(fd);

        return copy < 0 ? copy : request(link, &m, copy, done, userdata);
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
        return state(link, KEEPER_STARTED, instance, 0);
}

int keeper_link_cancel(KeeperLink *link, uint64_t instance) {
        return state(link, KEEPER_CANCEL, instance, 0);
}

int keeper_link_spawned(KeeperLink *link, uint64_t instance, const SpawnResult *result) {
        return result->born ? keeper_link_started(link, instance) : keeper_link_cancel(link, instance);
}

int keeper_link_ack(KeeperLink *link, uint64_t instance) {
        return state(link, KEEPER_ACK, instance, 0);
}

int keeper_link_shutdown(KeeperLink *link, int status) {
        return state(link, KEEPER_SHUTDOWN, 0, status);
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

/* on_done() - false: it is not the answer that comes next. */
static bool on_done(KeeperLink *link, const KeeperMessage *m) {
        size_t first = link->first_unanswered;
        LinkDone done = link->unanswered[first].done;

        if (link->n_unanswered == 0 || link->unanswered[first].serial != m->serial)
                return false;
        link->first_unanswered = (first + 1) % KEEPER_WINDOW;
        link->n_unanswered--;
        if (done.callback)
                done.callback(link, m->result, done.userdata);
        return true;
}

static bool on_exit_report(KeeperLink *link, const KeeperMessage *m) {
        KeeperExit exit = { m->instance, m->pid, m->wait_code, m->wait_status };

        link->handlers->exited(link, &exit, link->userdata);
        return true;
}

static bool handle(KeeperLink *link, const KeeperMessage *m) {
        static bool (*const handlers[_KEEPER_TYPE_N])(KeeperLink *, const KeeperMessage *) = {
                [KEEPER_DONE] = on_done,
                [KEEPER_EXIT] = on_exit_report,
        };

        if (m->version == KEEPER_VERSION && m->type < _KEEPER_TYPE_N && handlers[m->type] &&
            handlers[m->type](link, m))
                return true;
        log_error("keeper sent an unexpected message (version %u, type %u, serial %u)", m->version, m->type,
                  m->serial);
        return false;
}

static void end(KeeperLink *link) {
        link_close(link);
        link->handlers->closed(link, link->userdata);
}

/* receive() - one message. True: there may be more. */
static bool receive(KeeperLink *link) {
        struct {
                KeeperMessage m;
                char surplus; /* a longer message would otherwise look right */
        } buffer;
        CmsgInfo info;
        ssize_t n;
        int fd = -1;

        n = cmsg_receive(link->fd, &buffer, sizeof(buffer.m) + 1, &fd, 1, &info);
        if (n == -EAGAIN)
                return false;
        if (n >= 0 && info.n_fds > 0)
                fd_close(fd); /* nothing brings one yet */
        if (n > 0 && n != sizeof(buffer.m))
                log_error("keeper sent a message of %zd bytes instead of %zu", n, sizeof(buffer.m));
        if (n != sizeof(buffer.m) || !handle(link, &buffer.m)) {
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
