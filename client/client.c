/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The client object: a loop, on which lie the connection to the supervisor and those to runners. Everything happens in the
 * thread that runs the loop; what waits runs it itself (client_wait()), so that callbacks of other calls go on, and
 * two waits never nest: the inner one would be called from a callback, and is refused.
 *
 * The supervisor's end is no end of the object: connections to runners live on as long as the runners do, which is not
 * long, and what they have sent can still be taken. What is asked of the supervisor fails from then on, saying why.
 */

#include "client/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/connect.h"
#include "common/parse.h"

/* ---- why something failed ---- */

int client_fail(Client *client, ControlFailure *failure) {
        control_failure_deinit(&client->last);
        client->last = *failure;
        *failure = (ControlFailure){ 0 };
        return (int) client->last.status;
}

int client_fail_errno(Client *client, int r) {
        ControlFailure failure = { 0 };

        if (r == -ESHUTDOWN)
                failure.message = strdup(baton_client_reason(client));
        else if (r == -EBUSY)
                failure.message = strdup("a handler cannot wait: begin it instead");
        else if (r == -EINVAL)
                failure.message = strdup("parameters without their size, neither program nor name, or no function");
        else if (r < 0)
                failure.message = strdup(strerror(-r));
        (void) client_fail(client, &failure);
        return r;
}

static struct baton_exit exit_of(const ControlExit *exit) {
        return exit ? (struct baton_exit){ (enum baton_exit_how) exit->how, exit->status }
                    : (struct baton_exit){ BATON_EXIT_UNKNOWN, 0 };
}

const struct baton_failure *baton_client_failure(struct baton_client *client) {
        const ControlFailure *last = &client->last;
        struct baton_failure *failure = &client->failure;

        *failure = (struct baton_failure){
                .status = (enum baton_status) last->status,
                .message = last->message ? last->message : "",
        };
        if (last->start) {
                failure->reason = (enum baton_start_reason) last->start->reason;
                failure->exit = exit_of(last->start->exit);
                failure->last_output = (const char *const *) last->start->last_output;
                failure->n_last_output = last->start->n_last_output;
        } else if (last->ended) {
                failure->exit = exit_of(last->ended->exit);
                failure->last_output = (const char *const *) last->ended->last_output;
                failure->n_last_output = last->ended->n_last_output;
        }
        return failure;
}

/* ---- life ---- */

static bool copy_options(const struct baton_client_options *given, struct baton_client_options *ret) {
        PeerLimits limits;

        *ret = (struct baton_client_options){ 0 };
        if (!given)
                return true;
        memcpy(ret, given, MIN(given->size, sizeof(*ret)));
        limits = HANDLE_LIMITS(ret);
        return given->size >= sizeof(given->size) && peer_limits_are_valid(&limits) &&
               (!ret->software || utf8_is_valid(ret->software, strlen(ret->software)));
}

static int take_options(Client *client, const struct baton_client_options *options) {
        client->limits = HANDLE_LIMITS(options);
        client->software = strdup(options->software ? options->software : program_invocation_short_name);
        client->baton = strdup(options->baton ? options->baton : private_default_program());
        return client->software && client->baton ? 0 : -ENOMEM;
}

static int start_private(Client *client) {
        const PrivateConfig config = {
                .program = client->baton,
                .software = client->software,
                .limits = &client->limits,
                .handler = &control_handler,
                .userdata = &client->control,
        };
        int r = private_start(&client->private, client->endpoint, &config);

        if (r == 0)
                control_attach(&client->control, private_peer(client->private));
        return r;
}

static inline void client_freep(Client **client) {
        baton_client_free(*client);
}

/* start_connected() - @fd_consume is a connection to the supervisor, and so a lane. */
static int start_connected(Client *client, int fd_consume) {
        const PeerConfig config = {
                .side = 1,
                .n_channels = 1,
                .renewal = LANE_RENEWAL_NONE,
                .objects = PEER_OBJECTS_MAP,
                .limits = &client->limits,
                .software = client->software,
        };
        int r = endpoint_add_peer(client->endpoint, &config, fd_consume, &control_handler, &client->control,
                                  &client->peer);

        if (r == 0)
                control_attach(&client->control, client->peer);
        return r;
}

/* client_new() - all but the supervisor. */
static int client_new(Client **ret_client, const struct baton_client_options *options) {
        _cleanup_(client_freep) Client *client = NULL;
        struct baton_client_options given;
        int r;

        if (!copy_options(options, &given))
                return -EINVAL;
        client = calloc(1, sizeof(*client));
        if (!client)
                return -ENOMEM;
        r = take_options(client, &given);
        if (r == 0)
                r = endpoint_new(&client->endpoint);
        if (r < 0)
                return r;
        endpoint_set_busy_poll(client->endpoint, given.busy_poll_us);
        control_init(&client->control, client->endpoint);
        r = handles_new(&client->handles, client->endpoint, NULL, NULL);
        if (r < 0)
                return r;
        *ret_client = TAKE_PTR(client);
        return 0;
}

int baton_client_new_private(struct baton_client **ret_client, const struct baton_client_options *options) {
        _cleanup_(client_freep) Client *client = NULL;
        int r;

        *ret_client = NULL;
        r = client_new(&client, options);
        if (r == 0)
                r = start_private(client);
        if (r < 0)
                return r;
        *ret_client = TAKE_PTR(client);
        return 0;
}

int baton_client_new_connected(struct baton_client **ret_client, const char *path,
                               const struct baton_client_options *options) {
        _cleanup_(client_freep) Client *client = NULL;
        char socket[PLACES_PATH_MAX];
        int r, fd = -1;

        *ret_client = NULL;
        r = client_new(&client, options);
        if (r == 0)
                r = connect_path(path, socket);
        if (r == 0)
                r = connect_supervisor(socket, &fd, NULL);
        if (r == 0)
                r = start_connected(client, fd);
        if (r < 0)
                return r;
        *ret_client = TAKE_PTR(client);
        return 0;
}

void baton_client_free(struct baton_client *client) {
        if (!client)
                return;
        if (client->handles)
                handles_close(client->handles);
        operation_free_all(client);
        attached_free_all(client);
        client->private = private_free(client->private);
        if (client->peer)
                peer_close(client->peer, STATUS_OK, "done");
        client->peer = peer_free(client->peer);
        control_deinit(&client->control);
        control_failure_deinit(&client->last);
        methods_deinit(&client->methods);
        handles_free(client->handles);
        endpoint_free(client->endpoint);
        free(client->software);
        free(client->baton);
        free(client);
}

/* ---- the loop ---- */

int baton_client_fd(struct baton_client *client) {
        return endpoint_fd(client->endpoint);
}

int baton_client_dispatch(struct baton_client *client, int timeout_ms) {
        int r = handles_dispatch(client->handles, timeout_ms);

        atomic_store(&client->interrupted, false);
        return r;
}

void baton_client_interrupt(struct baton_client *client) {
        atomic_store(&client->interrupted, true);
        endpoint_wake(client->endpoint);
}

int client_may_wait(const Client *client) {
        return endpoint_is_dispatching(client->endpoint) ? -EBUSY : 0;
}

int client_wait(Client *client, const bool *done) {
        int r = 0;

        while (!*done && r == 0)
                r = atomic_exchange(&client->interrupted, false) ? -EINTR : handles_dispatch(client->handles, -1);
        return r;
}

const char *baton_client_reason(struct baton_client *client) {
        if (!client->control.ended)
                return "";
        return client->control.end_reason ? client->control.end_reason : "the supervisor is gone";
}

/* ---- methods ---- */

int baton_client_add_method(struct baton_client *client, const char *name, baton_method_fn function, void *userdata) {
        return methods_add(&client->methods, name, function, userdata);
}

int baton_client_describe_method(struct baton_client *client, const char *name, const char *request_type,
                                 const char *response_type, unsigned flags) {
        return methods_describe(&client->methods, name, request_type, response_type, flags);
}

int baton_client_set_health(struct baton_client *client, const char *service, int serving) {
        return methods_set_health(&client->methods, service, serving);
}

void baton_client_set_default(struct baton_client *client, baton_method_fn function, void *userdata) {
        client->methods.fallback = function;
        client->methods.fallback_userdata = userdata;
}
