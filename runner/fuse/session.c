/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Session: one thread reads requests, does them and answers, one after the other; it alone changes the table. What may
 * wait for a disk (a read of what is not cached, a sync) is handed with its buffer to one of a few others, so that nobody
 * waits for somebody else's disk. Were all of them busy, the thread does it itself.
 *
 * A request is read into the table, at the slot that its header calls current. Its opcode there is not 0 from the moment
 * it is taken until it is answered. So a process that follows knows what was taken, even without a kernel that sends it
 * again (session-recover.c).
 *
 * The mount's own users must never be waited for in this process: no descriptor of the mount is ever opened here.
 */

#include "runner/fuse/session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/fd.h"
#include "runner/fuse/session-internal.h"

int session_new(Session **ret_session, int device_consume, Mirror *mirror_consume) {
        _cleanup_(session_freep) Session *session = calloc(1, sizeof(*session));
        int r;

        if (!session) {
                fd_close(device_consume);
                mirror_free(mirror_consume);
                return -ENOMEM;
        }
        session->device = device_consume;
        session->mirror = mirror_consume;
        session->stop_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        session->end_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        r = workers_init(&session->workers, session->device, &mirror_consume->table);
        if (r < 0)
                return r;
        if (session->stop_event < 0 || session->end_event < 0 ||
            fcntl(session->device, F_SETFL, fcntl(session->device, F_GETFL) | O_NONBLOCK) < 0)
                return -errno;
        *ret_session = TAKE_PTR(session);
        return 0;
}

Session *session_free(Session *session) {
        if (!session)
                return NULL;
        (void) session_stop(session);
        workers_deinit(&session->workers);
        fd_close(session->stop_event);
        fd_close(session->end_event);
        fd_close(session->device);
        mirror_free(session->mirror);
        free(session);
        return NULL;
}

int session_device(const Session *session) {
        return session->device;
}

Mirror *session_mirror(Session *session) {
        return session->mirror;
}

int session_event_fd(const Session *session) {
        return session->end_event;
}

static struct fuse_in_header *slot_header(const Session *session, unsigned i) {
        return (void *) table_slot(&session->mirror->table, i);
}

/* answer() - 0; -ENOENT: nobody waits for it any more; or another errno: the connection is broken. */
static int answer(Session *session, uint64_t unique, int error, const Reply *reply) {
        int r = request_answer(session->device, unique, error, reply);

        if (r < 0 && r != -ENOENT && r != -ENODEV)
                r = request_answer(session->device, unique, -EIO, NULL); /* what the kernel does not take */
        return r;
}

/* hand_over() - to a worker, with the slot. False: none is free. */
static bool hand_over(Session *session, uint64_t unique, Transferred *transferred) {
        TableHeader *header = session->mirror->table.header;
        int next = workers_free_slot(&session->workers, header->current);

        if (next < 0 || transferred_own(transferred) < 0)
                return false;
        if (workers_give(&session->workers, header->current, unique, transferred) < 0)
                return false;
        table_slot_present(&session->mirror->table, (unsigned) next);
        slot_header(session, (unsigned) next)->opcode = 0;
        header->current = (uint32_t) next;
        return true;
}

/* transfer() - here or elsewhere. MIRROR_TRANSFER: it will be answered by another thread. */
static int transfer(Session *session, uint64_t unique, Transferred *transferred, Reply *reply) {
        bool slow = transferred_is_slow(transferred);
        int r = -EAGAIN;

        if (slow)
                r = transferred_run(transferred, session->mirror->buffer, true, reply);
        if (slow && r == -EAGAIN && hand_over(session, unique, transferred))
                return MIRROR_TRANSFER;
        if (r == -EAGAIN)
                r = transferred_run(transferred, session->mirror->buffer, false, reply);
        transferred_end(transferred);
        return r;
}

/* heed() - requests that are sent again come before all others: the first other one says that none is left. */
static void heed(Session *session, const Request *request) {
        if (session->n_orphans > 0 && !request->resent && request_has_answer(request->header->opcode)) {
                mirror_forget_orphans(session->mirror);
                session->n_orphans = 0;
        }
}

/* serve() - the request in the current slot. 0, or a negative errno: the connection is broken. */
static int serve(Session *session, size_t size) {
        struct fuse_in_header *header = slot_header(session, session->mirror->table.header->current);
        Transferred transferred = TRANSFERRED_NULL;
        Request request;
        Reply reply = { 0 };
        uint64_t unique;
        int r = request_parse(header, size, &request);

        if (r == -EPROTO)
                return r;
        unique = header->unique;
        heed(session, &request);
        if (r == 0)
                r = mirror_serve(session->mirror, &request, &reply, &transferred);
        if (r == MIRROR_TRANSFER)
                r = transfer(session, unique, &transferred, &reply);
        if (r == MIRROR_TRANSFER)
                return 0;
        if (request_has_answer(header->opcode)) {
                r = answer(session, unique, r, &reply);
                if (r < 0)
                        mirror_unserved(session->mirror);
        } else {
                r = 0;
        }
        header->opcode =
                0; /* before its record goes: what has none and was taken is done, and a FORGET must not be twice */
        journal_end(session->mirror);
        return r == -ENOENT ? 0 : r;
}

/* take() - one request into the current slot. Its bytes; 0: none is there; or a negative errno. */
static ssize_t take(Session *session) {
        ssize_t n =
                read(session->device, slot_header(session, session->mirror->table.header->current), REQUEST_SIZE_MAX);

        if (n > 0)
                return n;
        if (n == 0)
                return -ENODEV; /* a test's socket */
        /* ENOENT: it was interrupted before it could be read. */
        return errno == EINTR || errno == EAGAIN || errno == ENOENT ? 0 : -errno;
}

static int serve_all(Session *session) {
        struct pollfd fds[] = { { .fd = session->device, .events = POLLIN },
                                { .fd = session->stop_event, .events = POLLIN } };

        for (;;) {
                ssize_t n;
                int r;

                if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
                        return -errno;
                if (fds[1].revents)
                        return SESSION_STOPPED;
                n = take(session);
                if (n < 0)
                        return (int) n;
                if (n == 0)
                        continue;
                r = serve(session, (size_t) n);
                if (r < 0)
                        return r;
        }
}

static void *thread_main(void *userdata) {
        Session *session = userdata;
        uint64_t one = 1;
        int r = mirror_prepare_thread(session->mirror);

        if (r == 0)
                r = serve_all(session);
        session->result = r == -ENODEV ? 0 : r;
        if (r != SESSION_STOPPED)
                (void) write(session->end_event, &one, sizeof(one));
        return NULL;
}

int session_run(Session *session) {
        uint64_t ignored;
        int r;

        if (session->running)
                return 0;
        (void) read(session->stop_event, &ignored, sizeof(ignored));
        (void) read(session->end_event, &ignored, sizeof(ignored));
        session->mirror->table.header->clean = 0;
        r = thread_start(&session->thread, thread_main, session);
        session->running = r == 0;
        return r;
}

int session_stop(Session *session) {
        uint64_t one = 1;

        if (!session->running)
                return 0;
        (void) write(session->stop_event, &one, sizeof(one));
        (void) pthread_join(session->thread, NULL);
        session->running = false;
        workers_drain(&session->workers);
        if (session->result == SESSION_STOPPED) {
                mirror_keep_open(session->mirror);
                session->mirror->table.header->clean = 1;
        }
        return session->result == SESSION_STOPPED ? 0 : session->result;
}

bool session_ended(Session *session, int *ret_result) {
        struct pollfd fd = { .fd = session->end_event, .events = POLLIN };

        if (!session->running || poll(&fd, 1, 0) != 1)
                return false;
        *ret_result = session->result;
        return true;
}
