/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Candidate baton: a runner by libbaton, and a caller on one channel of it. The caller is the engine on an endpoint, as
 * libbaton's client half hosts it; the four functions under "caller" are all that knows that.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <baton/runner.h>

#include "bench/candidate.h"
#include "proto/endpoint.h"

#define METHOD      "echo.Echo/Unary"
#define FRAME_SPARE (64u * 1024u) /* of a frame, for the Envelope, and the smallest limit that is accepted */

/* ---- the runner ---- */

static size_t answer_size;

static void on_echo(struct baton_call *call, void *userdata) {
        size_t size;
        const void *data = baton_call_data(call, &size);

        (void) userdata;
        (void) baton_call_answer(call, "", data, size < answer_size ? size : answer_size);
}

static void serve(const CandidateOptions *options, const Meeting *meeting) {
        struct baton_runner_options runner_options = {
                .size = sizeof(runner_options),
                .bootstrap = meeting->path,
                .max_frame = options->size + FRAME_SPARE,
        };
        struct baton_runner *runner;

        answer_size = options->answer;
        meeting_await(meeting);
        if (baton_runner_new(&runner, &runner_options) < 0 ||
            baton_runner_add_method(runner, METHOD, on_echo, NULL) < 0)
                die("no runner");
        (void) baton_runner_run(runner);
        baton_runner_free(runner);
}

/* ---- the caller ---- */

typedef struct Caller Caller;

typedef struct SlotCall {
        Caller *caller;
        size_t slot;
} SlotCall;

struct Caller {
        Endpoint *endpoint;
        Peer *peer;
        SlotCall *calls; /* by slot */
        Exchange *exchange;
};

static Caller caller;

static void send_call(SlotCall *slot_call);

static void on_answer(Call *call, const Answer *answer, void *userdata) {
        SlotCall *slot_call = userdata;

        (void) call;
        if (answer->status != STATUS_OK)
                die("a call failed: %s", answer->message);
        exchange_answered(slot_call->caller->exchange, slot_call->slot, answer->size);
        send_call(slot_call);
}

static void send_call(SlotCall *slot_call) {
        Exchange *exchange = slot_call->caller->exchange;
        CallParameters parameters = {
                .method = METHOD,
                .payload = exchange->payload,
                .size = exchange->options->size,
        };

        if (exchange_next(exchange, slot_call->slot) &&
            call_start(slot_call->caller->peer, &parameters, on_answer, slot_call, NULL) < 0)
                die("a call could not be started");
}

static void on_ended(Peer *peer, Status status, const char *reason) {
        (void) peer;
        (void) status;
        die("the runner has gone: %s", reason);
}

static int listen_at(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        (void) strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
        if (fd < 0 || bind(fd, (struct sockaddr *) &address, sizeof(address)) < 0 || listen(fd, 1) < 0)
                die("cannot listen at %s: %s", path, strerror(errno));
        return fd;
}

static void caller_open(const CandidateOptions *options, const Meeting *meeting) {
        static const PeerHandler handler = { .ended = on_ended };
        PeerLimits limits = { .max_frame = options->size + FRAME_SPARE };
        PeerConfig config = {
                .n_channels = 3, .renewal = LANE_RENEWAL_SELF, .limits = &limits, .software = "bench", .instance = 1
        };
        int listener = listen_at(meeting->path), lane;

        meeting_announce(meeting);
        lane = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        (void) close(listener);
        if (lane < 0 || endpoint_new(&caller.endpoint) < 0 ||
            endpoint_add_peer(caller.endpoint, &config, lane, &handler, NULL, &caller.peer) < 0)
                die("no peer");
        caller.calls = calloc(options->window, sizeof(*caller.calls));
        if (!caller.calls)
                die("out of memory");
        for (size_t slot = 0; slot < options->window; slot++)
                caller.calls[slot] = (SlotCall){ &caller, slot };
}

static void caller_run(Exchange *exchange) {
        caller.exchange = exchange;
        for (size_t slot = 0; slot < exchange->options->window; slot++)
                send_call(&caller.calls[slot]);
        while (!exchange_is_over(exchange))
                if (endpoint_dispatch(caller.endpoint, -1) < 0)
                        die("the endpoint failed");
}

static void caller_close(void) {
        (void) peer_free(caller.peer);
        (void) endpoint_free(caller.endpoint);
        free(caller.calls);
}

static const char *version(void) {
        static char text[64];

        (void) snprintf(text, sizeof(text), "baton %s", baton_version());
        return text;
}

int main(int argc, char **argv) {
        static const Candidate candidate = { "baton", version, serve, caller_open, caller_run, caller_close };

        return candidate_main(&candidate, argc, argv);
}
