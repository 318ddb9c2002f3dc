/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Attach: makes a pair of sockets, gives one end to the runner (baton.Runner/Attach, with who the client is) and, when the
 * runner has taken it, the other end to the client. Then both ends are closed here: no byte of the client's calls comes
 * by, the end of either process is seen by the other, and there is nothing to be cleaned up.
 *
 * A runner with `recover: failover' is an exception to the last: a duplicate of its end is held until the client has gone, so
 * that it outlives the runner's process and can be given to the next (failover.c). Where the runner refuses, the client's
 * end is closed here, and by that the duplicate goes.
 *
 * So the supervisor does not know who is attached. The quota is its own, but the runner counts: it alone sees a client
 * go, and a lane that was given away cannot be taken back. A runner that does not count harms itself only.
 */

#include "supervisor/attach.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/fd.h"
#include "proto/message.h"
#include "supervisor/holder.h"
#include "supervisor/relay.h"
#include "supervisor/supervisor.h"

#define METHOD "baton.Runner/Attach"

typedef struct Attach {
        int lane; /* the client's end */
} Attach;

static Attach *attach_free(Attach *attach) {
        fd_close(attach->lane);
        free(attach);
        return NULL;
}

static void answer_client(Call *call, const Instance *instance, uint64_t client, int lane_fd_consume) {
        Baton__Control__AttachResponse response = BATON__CONTROL__ATTACH_RESPONSE__INIT;
        uint8_t packed[128]; /* a name and a few numbers */
        AnswerParameters answer = {
                .type = response.base.descriptor->name,
                .payload = packed,
                .fds_consume = &lane_fd_consume,
                .n_fds = 1,
        };

        response.name = (char *) instance->runner->name;
        response.instance = instance->id;
        response.pid = instance->pid;
        response.client = client;
        answer.size = baton__control__attach_response__pack(&response, packed);
        (void) call_answer(call, &answer);
}

/* refuse() - what the runner said, as the client is to understand it. */
static void refuse(Call *call, const Instance *instance, const Answer *answer) {
        if (answer->status == STATUS_UNIMPLEMENTED)
                (void) call_fail(call, STATUS_FAILED_PRECONDITION,
                                 "runner %s: takes no attached clients: it does not know " METHOD,
                                 instance->runner->name);
        else
                (void) call_fail(call, answer->status, "runner %s: %s", instance->runner->name, answer->message);
}

static void answered(Call *call, Instance *instance, const Answer *answer, void *userdata) {
        Attach *attach = userdata;
        _cleanup_message_ Baton__AttachResponse *response = NULL;

        if (!answer) {
                attach_free(attach);
                return;
        }
        if (answer->status == STATUS_OK)
                response = message_unpack(&baton__attach_response__descriptor, answer->payload, answer->size);
        if (answer->status != STATUS_OK)
                refuse(call, instance, answer);
        else if (!response)
                (void) call_fail(call, STATUS_INTERNAL, "runner %s: its answer to " METHOD " is no AttachResponse",
                                 instance->runner->name);
        else
                answer_client(call, instance, response->client, fd_take(&attach->lane));
        attach_free(attach);
}

/* ask() - @lane_fd_consume is the runner's end. */
static void ask(Call *call, Instance *instance, const struct ucred *client, const char *software, int lane_fd_consume,
                Attach *attach) {
        Baton__AttachRequest request = BATON__ATTACH_REQUEST__INIT;
        _cleanup_free_ uint8_t *packed = NULL;
        CallParameters parameters = {
                .channel = CHANNEL_RPC,
                .method = METHOD,
                .type = request.base.descriptor->name,
                .fds_consume = &lane_fd_consume,
                .n_fds = 1,
        };

        request.pid = client->pid;
        request.uid = client->uid;
        request.gid = client->gid;
        request.name = (char *) software;
        request.max_clients = instance->config->max_attached;
        packed = malloc(baton__attach_request__get_packed_size(&request));
        if (!packed) {
                fd_close(lane_fd_consume);
                attach_free(attach);
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "runner %s: no memory for a client",
                                 instance->runner->name);
                return;
        }
        parameters.payload = packed;
        parameters.size = baton__attach_request__pack(&request, packed);
        relay_ask(call, instance, &parameters, answered, attach);
}

void attach_call(Call *call, Instance *instance, const struct ucred *client, const char *software) {
        Attach *attach = malloc(sizeof(*attach));
        int pair[2], r = attach ? fd_socketpair(SOCK_STREAM, pair) : -ENOMEM;

        if (r < 0) {
                free(attach);
                (void) call_fail(call, status_from_errno(r), "runner %s: cannot make a lane: %s",
                                 instance->runner->name, strerror(-r));
                return;
        }
        *attach = (Attach){ .lane = pair[0] };
        if (instance->config->recover == CONFIG_RECOVER_FAILOVER)
                r = holder_attach(instance->supervisor->holder, instance->runner, client, software, pair[1]);
        if (r < 0) {
                fd_close(pair[1]);
                attach_free(attach);
                (void) call_fail(call, status_from_errno(r), "runner %s: cannot hold its lane: %s",
                                 instance->runner->name, strerror(-r));
                return;
        }
        ask(call, instance, client, software, pair[1], attach);
}

static int lane_of(const void *userdata) {
        return ((const Attach *) userdata)->lane;
}

static int restore(int lane_fd_consume, void **ret_userdata) {
        Attach *attach = malloc(sizeof(*attach));

        if (!attach) {
                fd_close(lane_fd_consume);
                return -ENOMEM;
        }
        attach->lane = lane_fd_consume;
        *ret_userdata = attach;
        return 0;
}

const RelayKind attach_relay = { .name = "Attach", .answered = answered, .lane = lane_of, .restore = restore };
