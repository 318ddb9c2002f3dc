/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Endpoint: peers on an epoll set. One turn is: run the queued tasks (a peer's flush is one), wait, hand out what is
 * ready, run the tasks again. A peer that reads a batch and answers it costs three system calls: wait, read, write.
 *
 * Deadlines. A wait of our own takes the earliest deadline as its time-out, which costs nothing. Only who waits elsewhere
 * (endpoint_fd() was asked for) needs the timerfd. It is armed when a deadline is earlier than what it is armed for, and
 * not touched when deadlines go or move back: an expiry that comes too early is one idle turn, a system call for every
 * call with a deadline would be a tenth of its cost.
 *
 * Wake-ups. Tasks queued during a turn are run at its end. Those that are queued outside of one are run before the next
 * wait of ours, or, when somebody else waits, written to the eventfd, once.
 *
 * Who calls dispatch waits for callbacks to change something. So a turn that has called back before its wait, from such a
 * task, looks at the descriptors and does not block: its caller may have what it waited for.
 *
 * A callback may free its own peer, or stop any descriptor, while events of it are still in the batch: stopping one
 * blanks its events in the rest of the batch, so that no event ever meets a freed or renewed source.
 *
 * Busy polling, off unless asked for: a sleeping process on another processor is woken in tens of microseconds, an
 * answer in the cache takes less than one. So a wait may ask for a while before it blocks. It adapts: each spin in vain
 * halves the next down to none, an event that comes soon after blocking brings it back.
 *
 * The epoll set holds duplicates of nothing: whoever owns a descriptor stops it here before closing it.
 */

#include "proto/endpoint.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"

#define BATCH         64
#define SPIN_LIMIT_US 1000 /* longer than a wake-up can take by far */
#define MAX_ROUNDS    8    /* of tasks that queue tasks, before descriptors have their turn again */

typedef struct Source Source;
typedef struct Slot Slot;
typedef struct Host Host;
typedef struct Extra Extra;

/* One descriptor in the epoll set; what an event's pointer points to. */
struct Source {
        void (*ready)(Source *source, unsigned events);
        unsigned events; /* registered: PEER_IN, PEER_OUT; 0: not in the set */
        int fd;
};

struct Slot {
        Source source;
        Host *host;
};

/* One peer's place here. */
struct Host {
        Endpoint *endpoint;
        Peer *peer;
        EndpointTask flush;
        LIST_ENTRY(Host) link;
        int error; /* of epoll_ctl(): the peer is closed at its next flush */
        Slot slots[_PEER_SLOT_N];
};

struct Extra {
        Source source;
        void (*callback)(int fd, void *userdata);
        void *userdata;
        LIST_ENTRY(Extra) link;
};

struct Endpoint {
        Source timer, event;
        int epoll;
        bool foreign;                  /* somebody else waits on our descriptor */
        bool dispatching;              /* in a turn: its end runs the tasks */
        bool told;                     /* tasks may have called back */
        bool signalled;                /* the eventfd tells of queued tasks */
        uint64_t spin_us, spin_max_us; /* how long to ask before blocking: now, and at most; 0: not */
        uint64_t armed;                /* what the timerfd is set to; USEC_INFINITY: not */
        TAILQ_HEAD(, EndpointTask) tasks;
        EndpointTask *on_wake; /* NULL: none */
        LIST_HEAD(, Host) hosts;
        LIST_HEAD(, Extra) extras;
        int n_events, next_event;
        struct epoll_event events[BATCH];
};

/* ---- the epoll set ---- */

/* blank_events() - what is left of the batch must not reach @source. */
static void blank_events(Endpoint *endpoint, const Source *source) {
        for (int i = endpoint->next_event; i < endpoint->n_events; i++)
                if (endpoint->events[i].data.ptr == source)
                        endpoint->events[i].data.ptr = NULL;
}

/* source_set() - watches @fd for @events, 0 stops; no system call where nothing changes. 0 or -errno. */
static int source_set(Endpoint *endpoint, Source *source, int fd, unsigned events) {
        struct epoll_event event = { .data = { .ptr = source } };
        int operation = !source->events ? EPOLL_CTL_ADD : events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;

        if (source->events == events && (!events || source->fd == fd))
                return 0;
        assert(!source->events || source->fd == fd);
        if (events & PEER_IN)
                event.events |= EPOLLIN;
        if (events & PEER_OUT)
                event.events |= EPOLLOUT;
        if (!events)
                blank_events(endpoint, source);
        source->fd = fd;
        source->events = events;
        if (epoll_ctl(endpoint->epoll, operation, fd, &event) < 0) {
                if (operation == EPOLL_CTL_ADD)
                        source->events = 0;
                return -errno;
        }
        return 0;
}

/* from_epoll() - an error or a hang-up makes ready whatever is waited for: the read or write then says what it is. */
static unsigned from_epoll(uint32_t ready, unsigned wanted) {
        unsigned events = 0;

        if (ready & (EPOLLIN | EPOLLERR | EPOLLHUP))
                events |= PEER_IN;
        if (ready & (EPOLLOUT | EPOLLERR | EPOLLHUP))
                events |= PEER_OUT;
        return events & wanted;
}

/* ---- tasks ---- */

static void signal_event(const Endpoint *endpoint) {
        uint64_t one = 1;

        /* Full is as good as written: it is readable either way. */
        while (write(endpoint->event.fd, &one, sizeof(one)) < 0 && errno == EINTR)
                ;
}

/* announce_tasks() - somebody else waits, and there is work. */
static void announce_tasks(Endpoint *endpoint) {
        if (endpoint->signalled)
                return;
        endpoint->signalled = true;
        signal_event(endpoint);
}

void endpoint_defer(Endpoint *endpoint, EndpointTask *task) {
        if (task->queued)
                return;
        task->queued = true;
        TAILQ_INSERT_TAIL(&endpoint->tasks, task, link);
        if (endpoint->foreign && !endpoint->dispatching)
                announce_tasks(endpoint);
}

void endpoint_cancel(Endpoint *endpoint, EndpointTask *task) {
        if (!task->queued)
                return;
        task->queued = false;
        TAILQ_REMOVE(&endpoint->tasks, task, link);
}

static void host_flush(EndpointTask *task);

/* will_tell() - whether @task may call back: all do, but for flushes that only write. */
static bool will_tell(const EndpointTask *task) {
        const Host *host = CONTAINER_OF(task, Host, flush);

        return task->run != host_flush || host->error || peer_will_tell(host->peer);
}

/* run_tasks() - all that are queued, and those that they queue, unless there is no end of it. */
static void run_tasks(Endpoint *endpoint) {
        for (unsigned round = 0; round < MAX_ROUNDS && !TAILQ_EMPTY(&endpoint->tasks); round++) {
                /* The mark is where this round ends; tasks may remove one another, but not it. */
                EndpointTask mark = { .queued = true }, *task;

                TAILQ_INSERT_TAIL(&endpoint->tasks, &mark, link);
                while ((task = TAILQ_FIRST(&endpoint->tasks)) != &mark) {
                        endpoint_cancel(endpoint, task);
                        endpoint->told |= will_tell(task);
                        task->run(task);
                }
                endpoint_cancel(endpoint, &mark);
        }
}

/* ---- the host of a peer ---- */

static void slot_ready(Source *source, unsigned events) {
        Slot *slot = CONTAINER_OF(source, Slot, source);

        peer_dispatch(slot->host->peer, (unsigned) (slot - slot->host->slots), events);
}

static void host_watch(void *userdata, unsigned slot, int fd, unsigned events) {
        Host *host = userdata;
        int r = source_set(host->endpoint, &host->slots[slot].source, fd, events);

        if (r < 0 && !host->error) {
                host->error = r;
                endpoint_defer(host->endpoint, &host->flush);
        }
}

static void host_wake(void *userdata) {
        Host *host = userdata;

        endpoint_defer(host->endpoint, &host->flush);
}

static void host_flush(EndpointTask *task) {
        Host *host = CONTAINER_OF(task, Host, flush);

        if (host->error)
                peer_close(host->peer, STATUS_RESOURCE_EXHAUSTED, "cannot watch a descriptor: %s",
                           strerror(-host->error));
        else
                peer_flush(host->peer);
}

/* host_release() - the peer stopped its slots before; what it could not stop is closed by now. */
static void host_release(void *userdata) {
        Host *host = userdata;

        for (unsigned i = 0; i < _PEER_SLOT_N; i++)
                blank_events(host->endpoint, &host->slots[i].source);
        endpoint_cancel(host->endpoint, &host->flush);
        LIST_REMOVE(host, link);
        free(host);
}

static const PeerHost host_functions = { .watch = host_watch, .wake = host_wake, .release = host_release };

/* host_new() - NULL: no memory. */
static Host *host_new(Endpoint *endpoint) {
        Host *host = calloc(1, sizeof(*host));

        if (!host)
                return NULL;
        host->endpoint = endpoint;
        host->flush = ENDPOINT_TASK_NULL(host_flush);
        for (unsigned i = 0; i < _PEER_SLOT_N; i++)
                host->slots[i] = (Slot){ .source = { .ready = slot_ready, .fd = -1 }, .host = host };
        LIST_INSERT_HEAD(&endpoint->hosts, host, link);
        return host;
}

int endpoint_restore_peer(Endpoint *endpoint, const PeerConfig *config, const Baton__Handover__Peer *state,
                          const char *prefix, Manifest *manifest, const PeerHandler *handler, void *userdata,
                          Peer **ret_peer, char reason[MANIFEST_REASON_SIZE]) {
        Host *host = host_new(endpoint);
        int r;

        assert(config->at_rest);
        if (!host) {
                (void) snprintf(reason, MANIFEST_REASON_SIZE, "%s: no memory", prefix);
                return -ENOMEM;
        }
        r = peer_restore(&host->peer, state, prefix, manifest, config, &host_functions, host, handler, userdata,
                         reason);
        if (r < 0) {
                host_release(host);
                return r;
        }
        *ret_peer = host->peer;
        return 0;
}

int endpoint_add_peer(Endpoint *endpoint, const PeerConfig *config, int lane_fd_consume, const PeerHandler *handler,
                      void *userdata, Peer **ret_peer) {
        Host *host = host_new(endpoint);
        int r;

        if (!host) {
                fd_close(lane_fd_consume);
                return -ENOMEM;
        }
        r = peer_new(&host->peer, config, lane_fd_consume, &host_functions, host, handler, userdata);
        if (r < 0) {
                host_release(host);
                return r;
        }
        *ret_peer = host->peer;
        return 0;
}

/* ---- other descriptors ---- */

static void extra_ready(Source *source, unsigned events) {
        Extra *extra = CONTAINER_OF(source, Extra, source);

        (void) events;
        extra->callback(source->fd, extra->userdata);
}

static void extra_free(Endpoint *endpoint, Extra *extra) {
        (void) source_set(endpoint, &extra->source, extra->source.fd, 0);
        LIST_REMOVE(extra, link);
        free(extra);
}

int endpoint_watch(Endpoint *endpoint, int fd, void (*callback)(int fd, void *userdata), void *userdata) {
        return endpoint_watch_for(endpoint, fd, PEER_IN, callback, userdata);
}

int endpoint_watch_for(Endpoint *endpoint, int fd, unsigned events, void (*callback)(int fd, void *userdata),
                       void *userdata) {
        Extra *extra;
        int r;

        LIST_FOREACH (extra, &endpoint->extras, link)
                if (extra->source.fd == fd)
                        break;
        if (!callback) {
                if (extra)
                        extra_free(endpoint, extra);
                return 0;
        }
        if (!extra) {
                extra = calloc(1, sizeof(*extra));
                if (!extra)
                        return -ENOMEM;
                extra->source = (Source){ .ready = extra_ready, .fd = fd };
                LIST_INSERT_HEAD(&endpoint->extras, extra, link);
        }
        extra->callback = callback;
        extra->userdata = userdata;
        r = source_set(endpoint, &extra->source, fd, events);
        if (r < 0)
                extra_free(endpoint, extra);
        return r;
}

/* ---- time ---- */

static uint64_t earliest_deadline(const Endpoint *endpoint) {
        uint64_t earliest = USEC_INFINITY;
        const Host *host;

        LIST_FOREACH (host, &endpoint->hosts, link) {
                uint64_t deadline = peer_deadline(host->peer);

                earliest = MIN(earliest, deadline);
        }
        return earliest;
}

/* next_expired() - a peer whose deadline has come; the clock is read at most once. */
static Host *next_expired(const Endpoint *endpoint, uint64_t *now) {
        Host *host;

        LIST_FOREACH (host, &endpoint->hosts, link) {
                uint64_t deadline = peer_deadline(host->peer);

                if (deadline == USEC_INFINITY)
                        continue;
                if (!*now)
                        *now = clock_now();
                if (deadline <= *now)
                        break;
        }
        return host;
}

/* expire() - one after another, looked for anew: each may free any of the others. What is left has the next turn. */
static void expire(Endpoint *endpoint) {
        uint64_t now = 0;
        Host *host;

        for (unsigned i = 0; i < BATCH && (host = next_expired(endpoint, &now)); i++)
                peer_expire(host->peer);
}

/* wait_ms() - @timeout_ms, or what is left until the earliest deadline, rounded up: never a turn too early. */
static int wait_ms(const Endpoint *endpoint, int timeout_ms) {
        uint64_t deadline, now, left;

        if (!TAILQ_EMPTY(&endpoint->tasks) || timeout_ms == 0)
                return 0;
        deadline = earliest_deadline(endpoint);
        if (deadline == USEC_INFINITY)
                return timeout_ms;
        now = clock_now();
        if (deadline <= now)
                return 0;
        left = (deadline - now + USEC_PER_MSEC - 1) / USEC_PER_MSEC;
        if (timeout_ms > 0)
                left = MIN(left, (uint64_t) timeout_ms);
        return (int) MIN(left, (uint64_t) INT_MAX);
}

static void timer_ready(Source *source, unsigned events) {
        Endpoint *endpoint = CONTAINER_OF(source, Endpoint, timer);
        uint64_t n;

        (void) events;
        endpoint->armed = USEC_INFINITY;
        (void) !read(source->fd, &n, sizeof(n));
}

/* arm_timer() - for a wait elsewhere. */
static void arm_timer(Endpoint *endpoint) {
        uint64_t deadline = earliest_deadline(endpoint);
        struct itimerspec when = { 0 };

        if (deadline >= endpoint->armed)
                return;
        /* A moment of 0 would disarm. */
        deadline = MAX(deadline, UINT64_C(1));
        when.it_value.tv_sec = (time_t) (deadline / USEC_PER_SEC);
        when.it_value.tv_nsec = (long) (deadline % USEC_PER_SEC * NSEC_PER_USEC);
        if (timerfd_settime(endpoint->timer.fd, TFD_TIMER_ABSTIME, &when, NULL) == 0)
                endpoint->armed = deadline;
}

/* ---- the endpoint ---- */

static void event_ready(Source *source, unsigned events) {
        Endpoint *endpoint = CONTAINER_OF(source, Endpoint, event);
        uint64_t n;

        (void) events;
        endpoint->signalled = false;
        (void) !read(source->fd, &n, sizeof(n));
        if (endpoint->on_wake)
                endpoint_defer(endpoint, endpoint->on_wake);
}

int endpoint_new(Endpoint **ret_endpoint) {
        _cleanup_(endpoint_freep) Endpoint *endpoint = calloc(1, sizeof(*endpoint));
        int r;

        if (!endpoint)
                return -ENOMEM;
        TAILQ_INIT(&endpoint->tasks);
        LIST_INIT(&endpoint->hosts);
        LIST_INIT(&endpoint->extras);
        endpoint->timer = (Source){ .ready = timer_ready, .fd = -1 };
        endpoint->event = (Source){ .ready = event_ready, .fd = -1 };
        endpoint->armed = USEC_INFINITY;
        endpoint->epoll = epoll_create1(EPOLL_CLOEXEC);
        if (endpoint->epoll < 0)
                return -errno;
        endpoint->timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        if (endpoint->timer.fd < 0)
                return -errno;
        endpoint->event.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (endpoint->event.fd < 0)
                return -errno;
        r = source_set(endpoint, &endpoint->timer, endpoint->timer.fd, PEER_IN);
        if (r == 0)
                r = source_set(endpoint, &endpoint->event, endpoint->event.fd, PEER_IN);
        if (r < 0)
                return r;
        *ret_endpoint = TAKE_PTR(endpoint);
        return 0;
}

Endpoint *endpoint_free(Endpoint *endpoint) {
        Extra *extra;

        if (!endpoint)
                return NULL;
        assert(LIST_EMPTY(&endpoint->hosts) && !endpoint->dispatching);
        while ((extra = LIST_FIRST(&endpoint->extras)))
                extra_free(endpoint, extra);
        fd_close(endpoint->event.fd);
        fd_close(endpoint->timer.fd);
        fd_close(endpoint->epoll);
        free(endpoint);
        return NULL;
}

int endpoint_fd(Endpoint *endpoint) {
        if (!endpoint->foreign) {
                endpoint->foreign = true;
                if (!endpoint->dispatching) {
                        if (!TAILQ_EMPTY(&endpoint->tasks))
                                announce_tasks(endpoint);
                        arm_timer(endpoint);
                }
        }
        return endpoint->epoll;
}

/* hand_out() - the batch, from which callbacks may blank events. */
static void hand_out(Endpoint *endpoint) {
        while (endpoint->next_event < endpoint->n_events) {
                struct epoll_event *event = &endpoint->events[endpoint->next_event++];
                Source *source = event->data.ptr;
                unsigned events = source ? from_epoll(event->events, source->events) : 0;

                if (events)
                        source->ready(source, events);
        }
        endpoint->n_events = endpoint->next_event = 0;
}

/* spin() - asks again and again for as long as it has paid lately; the events, 0: none came, or -1 with errno. */
static int spin(Endpoint *endpoint) {
        uint64_t start = clock_now(), now = start;
        int n;

        do {
                n = epoll_wait(endpoint->epoll, endpoint->events, BATCH, 0);
                now = clock_now();
        } while (n == 0 && now - start < endpoint->spin_us);
        if (n != 0)
                endpoint->spin_us = endpoint->spin_max_us;
        else
                endpoint->spin_us /= 2;
        return n;
}

/* wait_events() - blocks, after spinning if that is wanted. One that blocked for no longer than a spin makes it try again. */
static int wait_events(Endpoint *endpoint, int timeout_ms) {
        uint64_t start;
        int n;

        if (!endpoint->spin_max_us || timeout_ms == 0)
                return epoll_wait(endpoint->epoll, endpoint->events, BATCH, timeout_ms);
        n = endpoint->spin_us ? spin(endpoint) : 0;
        if (n != 0)
                return n;
        start = clock_now();
        n = epoll_wait(endpoint->epoll, endpoint->events, BATCH, timeout_ms);
        if (n > 0 && clock_now() - start < endpoint->spin_max_us)
                endpoint->spin_us = endpoint->spin_max_us;
        return n;
}

void endpoint_set_busy_poll(Endpoint *endpoint, uint64_t max_us) {
        cpu_set_t processors;

        /* With one processor the other side cannot answer while we spin. */
        if (sched_getaffinity(0, sizeof(processors), &processors) == 0 && CPU_COUNT(&processors) < 2)
                max_us = 0;
        endpoint->spin_max_us = endpoint->spin_us = MIN(max_us, (uint64_t) SPIN_LIMIT_US);
}

static int turn(Endpoint *endpoint, int timeout_ms) {
        int n;

        endpoint->told = false;
        run_tasks(endpoint);
        n = wait_events(endpoint, endpoint->told ? 0 : wait_ms(endpoint, timeout_ms));
        if (n < 0 && errno != EINTR)
                return -errno;
        endpoint->n_events = MAX(n, 0);
        hand_out(endpoint);
        expire(endpoint);
        run_tasks(endpoint);
        return 0;
}

int endpoint_dispatch(Endpoint *endpoint, int timeout_ms) {
        int r;

        if (endpoint->dispatching)
                return -EBUSY;
        endpoint->dispatching = true;
        r = turn(endpoint, timeout_ms);
        endpoint->dispatching = false;
        if (endpoint->foreign) {
                if (!TAILQ_EMPTY(&endpoint->tasks))
                        announce_tasks(endpoint);
                arm_timer(endpoint);
        }
        return r;
}

bool endpoint_is_dispatching(const Endpoint *endpoint) {
        return endpoint->dispatching;
}

void endpoint_on_wake(Endpoint *endpoint, EndpointTask *task) {
        endpoint->on_wake = task;
}

void endpoint_wake(Endpoint *endpoint) {
        int error = errno;

        signal_event(endpoint);
        errno = error;
}
