/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Sealed objects with one peer: a payload in a memfd of its own, which travels as the last descriptor of its frame and is
 * mapped by the receiver. Its content can never change again, so that it may be parsed where it lies, and outlives its
 * sender; it costs a few system calls and fresh pages, so that arenas are better for what comes often.
 *
 * What goes so: a buffer that was made in one (peer_buffer_new()), and any payload that neither a frame nor the window of
 * its stream can hold. The sender goes by the receiver's Hello; the receiver checks what it gets, and bounds the sum of
 * what it has mapped. An object is mapped before its frame is judged, and goes with it, like a block.
 *
 * A relay maps nothing: it passes the descriptor on, and whoever reads the object checks it.
 */

#include "proto/peer-internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "common/memfd.h"

#define NAME     "baton-object"
#define BUILT_IN "baton." /* methods whose requests are small messages */

/* ---- sending ---- */

int object_buffer_new(PeerBuffer *buffer, size_t size) {
        void *memory = NULL;
        int r = memfd_draft(NAME, size, &buffer->fd, &memory);

        if (r < 0)
                return r;
        buffer->memory = memory;
        buffer->mapped = size;
        return 0;
}

void object_buffer_free(PeerBuffer *buffer) {
        (void) munmap(buffer->memory, buffer->mapped);
        fd_close(buffer->fd);
}

int object_make(PeerBuffer *buffer, const void *payload, size_t size, int *ret_fd) {
        if (buffer && buffer->fd >= 0 &&
            memfd_draft_seal(buffer->fd, buffer->memory, buffer->mapped, buffer->size) == 0) {
                *ret_fd = fd_take(&buffer->fd);
                return 0;
        }
        return memfd_sealed(NAME, payload, size, ret_fd);
}

/* ---- receiving ---- */

static const char *object_error(int error) {
        switch (error) {
        case -EDQUOT:
        case -ENOBUFS:
                return "more than is accepted together with those that are held";
        case -EINVAL:
                return "not a memfd";
        case -EPERM:
                return "not sealed against every change";
        case -ERANGE:
                return "the memfd has another size";
        default:
                return strerror(-error);
        }
}

/* refuse() - what ends the call, and why. */
_printf_(3, 4) static Status refuse(Peer *peer, Status status, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        (void) vsnprintf(peer->fault, sizeof(peer->fault), format, arguments);
        va_end(arguments);
        return status;
}

/* check_frame() - what can be said before the descriptor is looked at. */
static Status check_frame(Peer *peer, const Baton__Envelope *envelope, size_t n_fds, size_t payload) {
        uint64_t max = peer->objects_use == PEER_OBJECTS_NONE ? 0 : peer->limits.max_object;

        if (envelope->object > max)
                return refuse(peer, STATUS_RESOURCE_EXHAUSTED, "an object of %" PRIu64 " bytes, accepted are %" PRIu64,
                              envelope->object, max);
        if (n_fds == 0)
                return refuse(peer, STATUS_INVALID_ARGUMENT, "an object without a descriptor");
        if (payload > 0 || envelope->n_blocks > 0)
                return refuse(peer, STATUS_INVALID_ARGUMENT, "an object beside a payload or a block");
        if (envelope->kind == BATON__KIND__CALL && strncmp(envelope->method, BUILT_IN, strlen(BUILT_IN)) == 0)
                return refuse(peer, STATUS_INVALID_ARGUMENT, "an object for a method of baton's own");
        return STATUS_OK;
}

static int map_object(Peer *peer, int fd, uint64_t size, ArenaView *ret_view) {
        ArenaMapLimits limits = { .max_bytes = peer->limits.max_object, .max_arenas = UINT32_MAX };
        int r = peer->objects ? 0 : arena_map_new(&peer->objects, &limits);

        return r < 0 ? r : arena_map_object(peer->objects, fd, size, ret_view);
}

Status object_claim(Peer *peer, const Baton__Envelope *envelope, int *fds, size_t *n_fds, size_t payload,
                    ArenaView *ret_view) {
        Status status = check_frame(peer, envelope, *n_fds, payload);
        bool limit;
        int r;

        if (status != STATUS_OK || peer->objects_use == PEER_OBJECTS_PASS)
                return status;
        r = map_object(peer, fds[*n_fds - 1], envelope->object, ret_view);
        fds[*n_fds - 1] = fd_close(fds[*n_fds - 1]);
        (*n_fds)--;
        if (r == 0)
                return STATUS_OK;
        limit = r == -EDQUOT || r == -ENOBUFS || r == -ENOMEM;
        return refuse(peer, limit ? STATUS_RESOURCE_EXHAUSTED : STATUS_INVALID_ARGUMENT,
                      "an object of %" PRIu64 " bytes: %s", envelope->object, object_error(r));
}
