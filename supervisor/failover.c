/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Failover. The checkpoint goes to the successor by the socket that its Takeover comes with, as fast as it takes it; what it
 * makes of it is the answer to that event, not a matter of this file. A reload may let the checkpoint go meanwhile: who gives
 * has a reference.
 *
 * A client's lane has outlived the process that served it, in the holder. The successor gets it by Attach with the number of
 * an epoch that was never used, makes fresh channels, and sends them over it. What the client had open ended when its
 * channel did. A lane that the successor does not want is let go: then the client hears of the end.
 */

#include "supervisor/failover.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/fd.h"
#include "common/log.h"
#include "proto/transfer.h"
#include "supervisor/holder.h"
#include "supervisor/instance-internal.h"

struct Give {
        Instance *instance;
        Kept *kept;
        int socket;
        LoopIo io;
        Transfer transfer;
};

/* A lane that was offered. */
struct Renewal {
        LIST_ENTRY(Renewal) link;
        Instance *instance;
        Call *call;
        uint64_t tag;
};

/* ------------------------------------------------------------------------------------------------------- the checkpoint */

bool failover_is_due(const Instance *instance) {
        return instance->config->recover == CONFIG_RECOVER_FAILOVER && instance_is_present(instance) &&
               instance->state == PROCESS_STARTING && !instance->resume &&
               service_state(instance) == SERVICE_STATE_INIT &&
               holder_kept(instance->supervisor->holder, instance->runner);
}

static Give *give_end(Give *give) {
        if (!give)
                return NULL;
        give->instance->give = NULL;
        loop_io_stop(&give->io);
        transfer_deinit(&give->transfer);
        kept_unref(give->kept);
        fd_close(give->socket);
        free(give);
        return NULL;
}

static void give_more(LoopIo *io, unsigned events) {
        Give *give = CONTAINER_OF(io, Give, io);
        TransferState state = transfer_step(&give->transfer);

        (void) events;
        if (state == TRANSFER_WAITS) {
                loop_io_set(give->instance->supervisor->loop, &give->io, give->socket,
                            LOOP_IN | (transfer_events(&give->transfer) & POLLOUT ? LOOP_OUT : 0));
                return;
        }
        /* Who says words where none are expected might do so without end. */
        if (state != TRANSFER_DONE)
                log_debug("runner %s: its checkpoint was not taken: %s", give->instance->runner->name,
                          state == TRANSFER_SAID ? "a word came" : give->transfer.reason);
        give_end(give);
}

int failover_give(Instance *instance, int *ret_socket) {
        Kept *kept = holder_kept(instance->supervisor->holder, instance->runner);
        Give *give;
        int ends[2], r;

        if (!kept)
                return -ENOENT;
        if (instance->give)
                return -EBUSY;
        give = calloc(1, sizeof(*give));
        r = give ? fd_socketpair(SOCK_SEQPACKET, ends) : -ENOMEM;
        if (r < 0) {
                free(give);
                return r;
        }
        *give = (Give){ .instance = instance, .kept = kept_ref(kept), .socket = ends[0] };
        give->io = LOOP_IO_NULL(give_more);
        transfer_give(&give->transfer, give->socket, &kept->manifest);
        loop_io_set(instance->supervisor->loop, &give->io, give->socket, LOOP_IN | LOOP_OUT);
        instance->give = give;
        *ret_socket = ends[1];
        return 0;
}

/* ---------------------------------------------------------------------------------------------------------- the clients */

static void renewed(Call *call, const Answer *answer, void *userdata) {
        Renewal *renewal = userdata;
        const Instance *instance = renewal->instance;

        (void) call;
        if (answer->status != STATUS_OK && !answer->local) {
                log_warning("runner %s: pid %d does not go on with a client that was attached: %s: %s",
                            instance->runner->name, instance->pid, status_name(answer->status), answer->message);
                holder_detach(instance->supervisor->holder, renewal->tag);
        }
        LIST_REMOVE(renewal, link);
        free(renewal);
}

/* offer() - 0, or a negative errno. */
static int offer(Renewal *renewal, const Held *lane) {
        const Instance *instance = renewal->instance;
        const BoardEntry *entry = holder_entry(instance->supervisor->holder, lane);
        Baton__AttachRequest request = BATON__ATTACH_REQUEST__INIT;
        uint8_t packed[sizeof(entry->name) + 64];
        int fd = fd_dup(holder_fd(lane));
        CallParameters parameters = {
                .channel = CHANNEL_RPC,
                .method = "baton.Runner/Attach",
                .type = request.base.descriptor->name,
                .payload = packed,
                .fds_consume = &fd,
                .n_fds = 1,
        };

        if (fd < 0)
                return fd;
        request.epoch = holder_next_epoch(lane);
        request.pid = entry->main_pid;
        request.uid = entry->uid;
        request.gid = entry->gid;
        request.name = (char *) entry->name;
        parameters.size = baton__attach_request__pack(&request, packed);
        return call_start(instance->peer, &parameters, renewed, renewal, &renewal->call);
}

void failover_renew_clients(Instance *instance) {
        const Held *lane;
        size_t n = 0;

        for (lane = holder_first_lane(instance->supervisor->holder, instance->runner); lane && instance->peer;
             lane = holder_next(lane)) {
                Renewal *renewal = calloc(1, sizeof(*renewal));
                int r = -ENOMEM;

                if (renewal) {
                        *renewal = (Renewal){ .instance = instance, .tag = holder_tag(lane) };
                        r = offer(renewal, lane);
                }
                if (r < 0) {
                        log_warning("runner %s: an attached client has to wait for another start: %s",
                                    instance->runner->name, strerror(-r));
                        free(renewal);
                        continue;
                }
                LIST_INSERT_HEAD(&instance->renewals, renewal, link);
                n++;
        }
        if (n > 0)
                log_info("runner %s: the connections of %zu attached clients are renewed", instance->runner->name, n);
}

/* ------------------------------------------------------------------------------------------------------------- both */

bool failover_is_under_way(const Instance *instance) {
        return instance->give || !LIST_EMPTY(&instance->renewals);
}

void failover_end(Instance *instance) {
        Renewal *renewal;

        give_end(instance->give);
        while ((renewal = LIST_FIRST(&instance->renewals))) {
                LIST_REMOVE(renewal, link);
                call_cancel(renewal->call);
                free(renewal);
        }
}
