/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Takeover: what Save gives is taken at the other end of its socket, checked, and handed to the application. It comes from
 * a program of ours, but maybe of another version, and maybe of a sick one: nothing is believed. Either all of it is
 * restored, or nothing, and the event has failed with the reason.
 *
 * Of what was declared nothing may be missing, and nothing may be there that was not declared.
 */

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/memfd.h"
#include "proto/message.h"
#include "proto/service-snapshot.h"
#include "proto/transfer.h"
#include "runner/runner.h"

#define SNAPSHOT_MAX (UINT64_C(256) * 1024 * 1024) /* bytes */

/* What restore() reads from. */
struct baton_restore {
        Runner *runner;
        const Baton__Handover__Service *message;
        Manifest *manifest;
        MemfdMapping state;
        char reason[RUNNER_REASON_SIZE];
};

struct Restore {
        Runner *runner;
        int socket;
        Transfer transfer;
        EndpointTask first; /* so that nothing is called back from within the event's own call */
};

/* ---- the application's side ---- */

uint32_t baton_restore_version(const struct baton_restore *restore) {
        return restore->message->version;
}

int baton_restore_is_checkpoint(const struct baton_restore *restore) {
        return restore->message->checkpoint;
}

const void *baton_restore_data(const struct baton_restore *restore, size_t *ret_size) {
        *ret_size = restore->state.size;
        return restore->state.data ? restore->state.data : (const uint8_t *) "";
}

size_t baton_restore_n_fds(const struct baton_restore *restore) {
        return restore->message->n_names;
}

const char *baton_restore_fd_name(const struct baton_restore *restore, size_t index) {
        return index < restore->message->n_names ? restore->message->names[index] : NULL;
}

static int take_fd(Manifest *manifest, size_t i) {
        char name[32];

        (void) snprintf(name, sizeof(name), "fd/%zu", i);
        return manifest_take(manifest, name);
}

int baton_restore_take_fd(struct baton_restore *restore, const char *name) {
        for (size_t i = 0; i < restore->message->n_names; i++)
                if (strcmp(restore->message->names[i], name) == 0)
                        return take_fd(restore->manifest, i);
        return -1;
}

void baton_restore_reason(struct baton_restore *restore, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        reason_set(restore->reason, format, arguments);
        va_end(arguments);
}

/* ---- checking ---- */

static int _printf_(3, 4) refuse(struct baton_restore *restore, int error, const char *format, ...) {
        va_list arguments;

        if (*restore->reason)
                return error;
        va_start(arguments, format);
        reason_set(restore->reason, format, arguments);
        va_end(arguments);
        return error;
}

/* check_names() - those of the application's descriptors are all there, once. */
static int check_names(struct baton_restore *restore) {
        const Baton__Handover__Service *message = restore->message;
        uint32_t max = restore->runner->service.functions.max_fds;
        char name[32];

        if (message->n_names > max)
                return refuse(restore, -EMFILE, "%zu descriptors were saved, and %u may be", message->n_names, max);
        for (size_t i = 0; i < message->n_names; i++) {
                (void) snprintf(name, sizeof(name), "fd/%zu", i);
                if (!*message->names[i])
                        return refuse(restore, -EPROTO, "descriptor %zu has no name", i);
                if (!manifest_has(restore->manifest, name))
                        return refuse(restore, -EPROTO, "the descriptor '%s' was declared, and is not there",
                                      message->names[i]);
        }
        return names_repeat(message->names, message->n_names, restore->reason);
}

/* check_rest() - nothing may be there that nobody declared. */
static int check_rest(struct baton_restore *restore) {
        const Manifest *manifest = restore->manifest;
        size_t n = 0;

        for (size_t i = 0; i < manifest->n; i++) {
                const char *name = manifest->entries[i]->name;
                bool named = strncmp(name, "fd/", strlen("fd/")) == 0;

                n += named;
                if (manifest->fds[i] >= 0 && !named)
                        return refuse(restore, -EPROTO, "there is a descriptor %s that was not declared", name);
        }
        if (n != restore->message->n_names)
                return refuse(restore, -EPROTO, "%zu descriptors came, and %zu were declared", n,
                              restore->message->n_names);
        return 0;
}

static int map_state(struct baton_restore *restore) {
        const struct baton_service *service = &restore->runner->service.functions;
        const Baton__Handover__Service *message = restore->message;
        _cleanup_fd_ int fd = manifest_take(restore->manifest, SERVICE_STATE_NAME);
        int r;

        if (message->version < service->version_min || message->version > service->version)
                return refuse(restore, -EPROTONOSUPPORT, "the state has version %u, and this program reads %u to %u",
                              message->version, service->version_min, service->version);
        if (fd < 0)
                return refuse(restore, -EPROTO, "the state is missing");
        if (message->state_size > service->max_state)
                return refuse(restore, -EFBIG, "the state has %llu bytes, and may have %llu",
                              (unsigned long long) message->state_size, (unsigned long long) service->max_state);
        r = memfd_map_sealed(fd, message->state_size, &restore->state);
        if (r < 0)
                return refuse(restore, -EPROTO, "the state cannot be read: %s",
                              r == -EFBIG ? "it is longer than was said" : strerror(-r));
        if (restore->state.size != message->state_size)
                return refuse(restore, -EPROTO, "the state has %zu bytes, and should have %llu", restore->state.size,
                              (unsigned long long) message->state_size);
        if (!service->restore && (message->state_size > 0 || message->n_names > 0))
                return refuse(restore, -EPROTONOSUPPORT,
                              "%llu bytes of state and %zu descriptors were saved, and this program restores none",
                              (unsigned long long) message->state_size, message->n_names);
        return 0;
}

/* ---- restoring ---- */

static int restore_content(struct baton_restore *restore) {
        const Service *service = &restore->runner->service;
        int r = map_state(restore);

        if (r == 0)
                r = check_names(restore);
        if (r == 0)
                r = attach_restore(restore->runner, restore->manifest, restore->message, restore->reason);
        if (r == 0)
                r = check_rest(restore);
        if (r == 0 && service->functions.restore)
                r = service->functions.restore(restore, service->userdata);
        if (r >= 0)
                return 0;
        attach_restore_undo(restore->runner);
        return refuse(restore, r, "%s", strerror(-r));
}

static int restore_snapshot(struct baton_restore *restore) {
        _cleanup_fd_ int fd = manifest_take(restore->manifest, SERVICE_SNAPSHOT_NAME);
        _cleanup_message_ Baton__Handover__Service *message = NULL;
        MemfdMapping mapping = { 0 };
        int r;

        if (fd < 0)
                return refuse(restore, -EPROTO, "the snapshot is missing");
        r = memfd_map_sealed(fd, SNAPSHOT_MAX, &mapping);
        if (r < 0)
                return refuse(restore, -EPROTO, "the snapshot cannot be read: %s", strerror(-r));
        message = message_unpack(&baton__handover__service__descriptor, mapping.data, mapping.size);
        memfd_unmap(&mapping);
        if (!message)
                return refuse(restore, -EPROTO, "the snapshot is none");
        restore->message = message;
        r = restore_content(restore);
        memfd_unmap(&restore->state);
        return r;
}

static Restore *restore_end(Restore *restore) {
        if (!restore)
                return NULL;
        restore->runner->restore = NULL;
        endpoint_cancel(restore->runner->endpoint, &restore->first);
        if (restore->socket >= 0)
                (void) endpoint_watch(restore->runner->endpoint, restore->socket, NULL, NULL);
        transfer_deinit(&restore->transfer);
        fd_close(restore->socket);
        free(restore);
        return NULL;
}

/* finish() - the event ends, and with it the Restore. */
static void finish(Restore *restore, int result, const char *reason) {
        Runner *runner = restore->runner;

        if (result < 0)
                baton_event_reason(&runner->life.handle, "%s", reason);
        restore_end(restore);
        lifecycle_done(runner, result);
}

static void all_is_here(Restore *restore) {
        struct baton_restore content = { .runner = restore->runner, .manifest = &restore->transfer.taken };
        int r = restore_snapshot(&content);

        finish(restore, r, content.reason);
}

static void step(int fd, void *userdata) {
        Restore *restore = userdata;
        TransferState state = transfer_step(&restore->transfer);
        unsigned events;

        (void) fd;
        if (state == TRANSFER_DONE) {
                all_is_here(restore);
                return;
        }
        if (state == TRANSFER_FAILED) {
                finish(restore, -ECONNABORTED, restore->transfer.reason);
                return;
        }
        events = PEER_IN | (transfer_events(&restore->transfer) & POLLOUT ? PEER_OUT : 0);
        if (endpoint_watch_for(restore->runner->endpoint, restore->socket, events, step, restore) < 0)
                finish(restore, -ENOMEM, "no memory to wait for the other side");
}

static void first_step(EndpointTask *task) {
        Restore *restore = CONTAINER_OF(task, Restore, first);

        step(restore->socket, restore);
}

void restore_begin(Runner *runner, int socket_consume) {
        _cleanup_fd_ int socket = socket_consume;
        Restore *restore;

        if (!fd_is_seqpacket(socket)) {
                baton_event_reason(&runner->life.handle, "there is no SOCK_SEQPACKET socket with it");
                lifecycle_done(runner, -EINVAL);
                return;
        }
        restore = calloc(1, sizeof(*restore));
        if (!restore) {
                lifecycle_done(runner, -ENOMEM);
                return;
        }
        restore->runner = runner;
        restore->socket = fd_take(&socket);
        restore->first = ENDPOINT_TASK_NULL(first_step);
        transfer_take(&restore->transfer, restore->socket, 1, SERVICE_SNAPSHOT_VERSION);
        runner->restore = restore;
        endpoint_defer(runner->endpoint, &restore->first);
}

void restore_free(Runner *runner) {
        runner->restore = restore_end(runner->restore);
}
