/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Log store: made when the first runner says something, so that a supervisor of silent ones has neither scratch nor rings.
 * A ring is used only when the keeper has answered that it stores it: before that, a SIGKILL would take it along with what
 * the pipes had already given. Answers come in order, so the ring's says that of scratch, too. Where the keeper refuses
 * (full), the log goes on all the same, and that its last lines would not outlive a crash is said once.
 *
 * There is one timer for all logs that want to be looked at again: those that are parked, and those whose file cannot be
 * written. None of them, no timer.
 */

#include "supervisor/log-store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "supervisor/runner-log-internal.h"

static void look(LoopTimer *timer);

int log_store_new(LogStore **ret_store, Loop *loop, KeeperLink *link) {
        LogStore *store = calloc(1, sizeof(*store));

        if (!store)
                return -ENOMEM;
        *store = (LogStore){ .loop = loop, .link = link, .look = LOOP_TIMER_NULL(look) };
        store->follow_us = LOG_FOLLOW_US;
        store->last_id = clock_wall(); /* those of a supervisor before us must not mean ours */
        TAILQ_INIT(&store->logs);
        for (unsigned i = 0; i < LOG_SCRATCH_FDS; i++)
                store->fds[i] = -1;
        *ret_store = store;
        return 0;
}

LogStore *log_store_free(LogStore *store) {
        if (!store)
                return NULL;
        loop_timer_stop(&store->look);
        for (size_t i = 0; i < store->n_found; i++)
                log_ring_free(store->found[i]);
        free(store->found);
        fd_close_all(store->fds, LOG_SCRATCH_FDS);
        log_scratch_free(store->scratch);
        free(store->buffer);
        free(store);
        return NULL;
}

/* ---------------------------------------------------------------------------------------------- rings, and the keeper */

static void ring_stored(KeeperLink *link, int result, void *userdata) {
        (void) link;
        runner_log_stored(userdata, result);
}

static int put(const LogStore *store, KeeperFdKind kind, uint64_t tag, int fd, KeeperLinkDone done, void *userdata) {
        return keeper_link_put(store->link, 0, kind, tag, fd, done, userdata);
}

/* make_scratch() - in the place of what the keeper may have of one that could not be used. */
static int make_scratch(LogStore *store) {
        _cleanup_(log_scratch_freep) LogScratch *scratch = NULL;
        int r;

        if (store->scratch)
                return 0;
        r = log_scratch_new(&scratch);
        for (unsigned i = 0; r == 0 && store->link && i < LOG_SCRATCH_FDS; i++)
                r = keeper_link_replace(store->link, 0, KEEPER_FD_SCRATCH, i, log_scratch_fd(scratch, i), NULL, NULL);
        if (r == 0)
                store->scratch = TAKE_PTR(scratch);
        return r;
}

int log_store_prepare(LogStore *store, RunnerLog *log) {
        _cleanup_(log_ring_freep) LogRing *ring = NULL;
        uint64_t size = log->config->ring_size ? log->config->ring_size : LOG_RING_SIZE_DEFAULT;
        int r;

        r = make_scratch(store);
        if (r == 0)
                r = log_ring_new(&ring, log->name, store->last_id + 1,
                                 MIN(MAX(size, (uint64_t) LOG_RING_SIZE_MIN), (uint64_t) LOG_RING_SIZE_MAX));
        if (r == 0 && store->link) {
                r = put(store, KEEPER_FD_RING, log_ring_id(ring), log_ring_fd(ring), ring_stored, log);
                log->storing = r == 0;
        }
        if (r < 0)
                return r;
        store->last_id++;
        log->ring = TAKE_PTR(ring);
        log_store_add(store, log);
        return 0;
}

void log_store_trust_follower(LogStore *store) {
        store->follow_us = USEC_INFINITY;
}

void log_store_on_dropped(LogStore *store, LogDropped *function, void *userdata) {
        store->dropped = function;
        store->dropped_userdata = userdata;
}

void log_store_add(LogStore *store, RunnerLog *log) {
        log->look_us = USEC_INFINITY;
        TAILQ_INSERT_TAIL(&store->logs, log, link);
}

void log_store_remove(LogStore *store, RunnerLog *log) {
        if (!log->ring)
                return;
        TAILQ_REMOVE(&store->logs, log, link);
        if (store->link) {
                keeper_link_forget(store->link, log);
                (void) keeper_link_drop(store->link, 0, KEEPER_FD_RING, log_ring_id(log->ring), NULL, NULL);
        }
        log->ring = log_ring_free(log->ring);
}

/* ------------------------------------------------------------------------------------------------------ looking again */

static void set_timer(LogStore *store) {
        uint64_t earliest = USEC_INFINITY;
        RunnerLog *log;

        TAILQ_FOREACH (log, &store->logs, link)
                earliest = MIN(earliest, log->look_us);
        loop_timer_set(store->loop, &store->look, earliest);
}

/* The timer is never later than the earliest look, and may be earlier: then it is set anew when it comes. */
void log_store_look(LogStore *store, RunnerLog *log, uint64_t deadline_us) {
        uint64_t timer_us = loop_timer_deadline(&store->look);

        if (log->look_us == deadline_us)
                return;
        log->look_us = deadline_us;
        if (deadline_us != USEC_INFINITY && (timer_us == 0 || deadline_us < timer_us))
                loop_timer_set(store->loop, &store->look, deadline_us);
}

static void look(LoopTimer *timer) {
        LogStore *store = CONTAINER_OF(timer, LogStore, look);
        uint64_t now = clock_now();
        RunnerLog *log;

        TAILQ_FOREACH (log, &store->logs, link)
                if (log->look_us <= now) {
                        log->look_us = USEC_INFINITY;
                        runner_log_look(log);
                }
        set_timer(store);
}

/* ------------------------------------------------------------------------------------------------------- after a crash */

static int adopt_ring(LogStore *store, int fd_consume) {
        LogRing **found;
        LogRing *ring;
        int r;

        r = log_ring_open(&ring, fd_consume);
        if (r < 0)
                return r;
        found = reallocarray(store->found, store->n_found + 1, sizeof(*found));
        if (!found) {
                log_ring_free(ring);
                return -ENOMEM;
        }
        store->found = found;
        store->found[store->n_found++] = ring;
        store->last_id = MAX(store->last_id, log_ring_id(ring));
        return 0;
}

int log_store_adopt(LogStore *store, KeeperFdKind kind, uint64_t tag, int fd_consume) {
        _cleanup_fd_ int fd = fd_consume;

        if (kind == KEEPER_FD_RING)
                return adopt_ring(store, fd_take(&fd));
        if (kind != KEEPER_FD_SCRATCH || tag >= LOG_SCRATCH_FDS || store->fds[tag] >= 0)
                return -EINVAL;
        store->fds[tag] = fd_take(&fd);
        return 0;
}

/* replace_scratch() - there is none that can be used, or not all of it. Logs that have their rings already want one. */
static int replace_scratch(LogStore *store) {
        fd_close_all(store->fds, LOG_SCRATCH_FDS);
        return store->n_found > 0 ? make_scratch(store) : 0;
}

static bool has_scratch(const LogStore *store) {
        for (unsigned i = 0; i < LOG_SCRATCH_FDS; i++)
                if (store->fds[i] < 0)
                        return false;
        return true;
}

int log_store_recover(LogStore *store) {
        int r = has_scratch(store) ? log_scratch_open(&store->scratch, store->fds) : -ENOENT;

        if (r < 0)
                return replace_scratch(store);
        log_scratch_recover(store->scratch, store->found, store->n_found);
        return 0;
}

LogRing *log_store_take_found(LogStore *store, const char *name) {
        for (size_t i = 0; i < store->n_found; i++)
                if (strcmp(log_ring_name(store->found[i]), name) == 0) {
                        LogRing *ring = store->found[i];

                        store->found[i] = store->found[--store->n_found];
                        return ring;
                }
        return NULL;
}

/* end_orphans() - streams of instances that nobody has adopted. */
static void end_orphans(RunnerLog *log) {
        for (int i = 0; i < LOG_RING_STREAMS; i++) {
                const LogRingStream *stream = &log_ring_state(log->ring)->streams[i];
                const LogInput *input;

                if (stream->instance == 0)
                        continue;
                LIST_FOREACH (input, &log->inputs, link)
                        if (input->instance == stream->instance)
                                break;
                if (!input)
                        log_ring_end(log->ring, i);
                runner_log_frame(log, i);
        }
        runner_log_came(log);
}

void log_store_settle(LogStore *store) {
        RunnerLog *log;

        for (size_t i = 0; i < store->n_found; i++) {
                if (store->link)
                        (void) keeper_link_drop(store->link, 0, KEEPER_FD_RING, log_ring_id(store->found[i]), NULL,
                                                NULL);
                log_ring_free(store->found[i]);
        }
        free(store->found);
        store->found = NULL;
        store->n_found = 0;
        TAILQ_FOREACH (log, &store->logs, link)
                end_orphans(log);
}

/* ---------------------------------------------------------------------------------------------------------- a successor */

void log_store_hold(LogStore *store) {
        store->held = true;
}

int log_store_follow(LogStore *store) {
        return !store->scratch && has_scratch(store) ? log_scratch_open(&store->scratch, store->fds) : 0;
}

const char *log_store_next_found(const LogStore *store, size_t *cursor) {
        return *cursor < store->n_found ? log_ring_name(store->found[(*cursor)++]) : NULL;
}

void log_store_forget(LogStore *store, uint64_t id) {
        RunnerLog *log;

        for (size_t i = 0; i < store->n_found; i++)
                if (log_ring_id(store->found[i]) == id) {
                        log_ring_free(store->found[i]);
                        store->found[i] = store->found[--store->n_found];
                        return;
                }
        TAILQ_FOREACH (log, &store->logs, link)
                if (log_ring_id(log->ring) == id) {
                        TAILQ_REMOVE(&store->logs, log, link);
                        log->ring = log_ring_free(log->ring);
                        return;
                }
}

/* resume() - lines that the predecessor had parked wait on, or have room now. Nothing else would look at them again. */
static void resume(RunnerLog *log) {
        for (int i = 0; i < LOG_RING_STREAMS; i++)
                if (log_ring_state(log->ring)->streams[i].instance != 0)
                        runner_log_frame(log, i);
}

/* Its writer was at rest when it stopped, and nothing is left half done; what has been dropped meanwhile it has told of. */
void log_store_release(LogStore *store) {
        RunnerLog *log;

        store->held = false;
        for (size_t i = 0; i < store->n_found; i++) {
                if (store->link)
                        (void) keeper_link_drop(store->link, 0, KEEPER_FD_RING, log_ring_id(store->found[i]), NULL,
                                                NULL);
                log_ring_free(store->found[i]);
        }
        free(store->found);
        store->found = NULL;
        store->n_found = 0;
        TAILQ_FOREACH (log, &store->logs, link) {
                const LogRingState *state = log_ring_state(log->ring);

                log->told = state->dropped;
                resume(log);
                if (state->file.wanted && state->file.position != state->head)
                        runner_log_came(log);
        }
}
