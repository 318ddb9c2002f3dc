/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Save: the application's state and descriptors, and for a successor the attached clients, given by manifest to whoever has
 * the other end of a socket. All of it is collected at once, in the loop's thread, between two turns; sending it takes as
 * many turns as the other side needs. One is under way at a time.
 *
 * The descriptors are duplicates: what the application does with its own meanwhile, or afterwards, is its own affair, and
 * when the Save is over, however it ended, none is left.
 */

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/memfd.h"
#include "common/parse.h"
#include "proto/message.h"
#include "proto/service-snapshot.h"
#include "proto/transfer.h"
#include "runner/runner.h"

#define NAME_MAX_BYTES 200u

/* What save() writes into. */
struct baton_save {
        Runner *runner;
        bool checkpoint;
        MemfdWriter state;
        Baton__Handover__Service message;
        int *fds; /* as many as message.n_names */
        size_t room;
        int error; /* the first of what could not be written */
        char reason[RUNNER_REASON_SIZE];
};

struct Save {
        Runner *runner;
        Call *call; /* NULL: gone */
        int socket;
        struct baton_save content;
        Manifest manifest;
        Transfer transfer;
        int state_fd, snapshot_fd;
        uint32_t n_calls; /* that end here */
};

/* ---- the application's side ---- */

int baton_save_is_checkpoint(const struct baton_save *save) {
        return save->checkpoint;
}

void baton_save_reason(struct baton_save *save, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        reason_set(save->reason, format, arguments);
        va_end(arguments);
}

/* note_error() - what could not be written is missing: the Save fails, whatever the application makes of it. */
static int note_error(struct baton_save *save, int error) {
        if (error < 0 && save->error == 0)
                save->error = error;
        return error;
}

int baton_save_write(struct baton_save *save, const void *data, size_t size) {
        uint64_t max = save->runner->service.functions.max_state;

        if (save->error < 0)
                return save->error;
        if (size > max - save->state.size) {
                baton_save_reason(save, "the state has more than the %llu bytes that it may have",
                                  (unsigned long long) max);
                return note_error(save, -EFBIG);
        }
        return size > 0 ? note_error(save, memfd_writer_add(&save->state, data, size)) : 0;
}

/* make_room() - for one more descriptor. */
static int make_room(struct baton_save *save) {
        size_t room = save->room ? save->room * 2 : 16;
        char **names;
        int *fds;

        if (save->message.n_names < save->room)
                return 0;
        names = realloc(save->message.names, room * sizeof(*names));
        if (names)
                save->message.names = names;
        fds = realloc(save->fds, room * sizeof(*fds));
        if (fds)
                save->fds = fds;
        if (!names || !fds)
                return -ENOMEM;
        save->room = room;
        return 0;
}

int baton_save_fd(struct baton_save *save, const char *name, int fd) {
        uint32_t max = save->runner->service.functions.max_fds;
        size_t length = name ? strlen(name) : 0, n = save->message.n_names;
        int copy, r;

        if (length == 0 || length > NAME_MAX_BYTES || !utf8_is_valid(name, length))
                return -EINVAL;
        if (n >= max) {
                baton_save_reason(save, "more descriptors than the %u that may be saved", max);
                return note_error(save, -EMFILE);
        }
        r = make_room(save);
        if (r < 0)
                return note_error(save, r);
        copy = fd_dup(fd);
        if (copy < 0)
                return copy == -EBADF ? copy : note_error(save, copy);
        save->message.names[n] = strdup(name);
        if (!save->message.names[n]) {
                fd_close(copy);
                return note_error(save, -ENOMEM);
        }
        save->fds[n] = copy;
        save->message.n_names++;
        return 0;
}

static void content_deinit(struct baton_save *save) {
        for (size_t i = 0; i < save->message.n_names; i++)
                fd_close(save->fds[i]);
        free(save->fds);
        memfd_writer_close(&save->state);
        for (size_t i = 0; i < save->message.n_names; i++)
                free(save->message.names[i]);
        free(save->message.names);
        attach_save_free(save->runner, &save->message);
}

/* ---- collecting ---- */

/* give_up() - one line in the reason, and the error. */
static int _printf_(3, 4) give_up(Save *save, int error, const char *format, ...) {
        va_list arguments;

        if (*save->content.reason)
                return error;
        va_start(arguments, format);
        reason_set(save->content.reason, format, arguments);
        va_end(arguments);
        return error;
}

/* ask_application() - 0, or why there is no state. */
static int ask_application(Save *save) {
        const Service *service = &save->runner->service;
        int r = memfd_writer_open("baton-state", &save->content.state);

        if (r < 0)
                return give_up(save, r, "no memory for the state: %s", strerror(-r));
        if (service->functions.save)
                r = service->functions.save(&save->content, service->userdata);
        r = MIN(r, save->content.error);
        if (r == 0)
                r = names_repeat(save->content.message.names, save->content.message.n_names, save->content.reason);
        if (r < 0)
                return give_up(save, r, "%s", strerror(-r));
        save->content.message.version = service->functions.version;
        save->content.message.checkpoint = save->content.checkpoint;
        save->content.message.state_size = save->content.state.size;
        return memfd_writer_finish(&save->content.state, &save->state_fd);
}

static int pack(const ProtobufCMessage *message, int *ret_fd) {
        size_t size = protobuf_c_message_get_packed_size(message);
        _cleanup_free_ uint8_t *packed = malloc(size + 1);

        if (!packed)
                return -ENOMEM;
        protobuf_c_message_pack(message, packed);
        return memfd_sealed("baton-snapshot", packed, size, ret_fd);
}

static int list(Save *save) {
        Manifest *manifest = &save->manifest;
        char name[32];
        int r;

        r = pack(&save->content.message.base, &save->snapshot_fd);
        if (r == 0)
                r = manifest_add(manifest, SERVICE_SNAPSHOT_NAME, save->snapshot_fd);
        if (r == 0)
                r = manifest_add(manifest, SERVICE_STATE_NAME, save->state_fd);
        for (size_t i = 0; r == 0 && i < save->content.message.n_names; i++) {
                (void) snprintf(name, sizeof(name), "fd/%zu", i);
                r = manifest_add(manifest, name, save->content.fds[i]);
        }
        return r;
}

static int collect(Save *save) {
        int r = ask_application(save);

        save->manifest.version = SERVICE_SNAPSHOT_VERSION;
        if (r == 0 && !save->content.checkpoint)
                r = attach_save(save->runner, &save->manifest, &save->content.message, &save->n_calls);
        if (r == 0)
                r = list(save);
        return r < 0 ? give_up(save, r, "%s", strerror(-r)) : 0;
}

/* ---- sending ---- */

static Save *save_end(Save *save) {
        if (!save)
                return NULL;
        if (save->call)
                call_on_cancel(save->call, NULL, NULL);
        if (save->socket >= 0)
                (void) endpoint_watch(save->runner->endpoint, save->socket, NULL, NULL);
        save->runner->save = NULL;
        transfer_deinit(&save->transfer);
        manifest_deinit(&save->manifest);
        content_deinit(&save->content);
        fd_close(save->state_fd);
        fd_close(save->snapshot_fd);
        fd_close(save->socket);
        free(save);
        return NULL;
}

/* succeed(), fail() - the Save is gone. */
static void succeed(Save *save) {
        Baton__SaveResponse response = BATON__SAVE_RESPONSE__INIT;
        Call *call = save->call;

        response.state_size = save->content.message.state_size;
        response.descriptors = (uint32_t) save->content.message.n_names;
        response.clients = (uint32_t) save->content.message.n_clients;
        response.calls = save->n_calls;
        save_end(save);
        (void) call_answer_message(call, &response.base);
}

static void fail(Save *save, Status status, const char *reason) {
        Call *call = save->call;

        (void) call_fail(call, status, "Save failed in state %s: %s", service_state_name(save->runner->life.state),
                         reason);
        save->call = NULL;
        save_end(save);
}

static void step(int fd, void *userdata);

static void wait_for(Save *save) {
        unsigned events = PEER_IN | (transfer_events(&save->transfer) & POLLOUT ? PEER_OUT : 0);
        int r = endpoint_watch_for(save->runner->endpoint, save->socket, events, step, save);

        if (r < 0)
                fail(save, STATUS_RESOURCE_EXHAUSTED, "no memory to wait for the other side");
}

static void step(int fd, void *userdata) {
        Save *save = userdata;

        (void) fd;
        switch (transfer_step(&save->transfer)) {
        case TRANSFER_DONE:
                succeed(save);
                return;
        case TRANSFER_FAILED:
                fail(save, STATUS_ABORTED, save->transfer.reason);
                return;
        default:
                wait_for(save);
        }
}

static void cancelled(Call *call, void *userdata) {
        Save *save = userdata;

        save->call = NULL;
        save_end(save);
        (void) call_fail(call, STATUS_CANCELLED, "cancelled");
}

/* begin() - @call is answered, now or later. */
static void begin(Runner *runner, Call *call, bool checkpoint, int socket_consume) {
        _cleanup_fd_ int socket = socket_consume;
        Save *save = calloc(1, sizeof(*save));
        int r;

        if (!save) {
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "no memory for a Save");
                return;
        }
        *save = (Save){ .runner = runner, .call = call, .socket = -1, .state_fd = -1, .snapshot_fd = -1 };
        save->content = (struct baton_save){
                .runner = runner,
                .checkpoint = checkpoint,
                .state = MEMFD_WRITER_NULL,
                .message = BATON__HANDOVER__SERVICE__INIT,
        };
        runner->save = save;
        r = collect(save);
        if (r < 0) {
                fail(save, service_status(r), save->content.reason);
                return;
        }
        save->socket = fd_take(&socket);
        call_on_cancel(call, cancelled, save);
        transfer_give(&save->transfer, save->socket, &save->manifest);
        step(save->socket, save);
}

/* refuse() - whether it cannot be in this state; then it is answered. */
static bool refuse(const Runner *runner, Call *call, bool checkpoint) {
        const Lifecycle *life = &runner->life;
        const char *state = service_state_name(life->state);

        if (!runner->service.registered)
                (void) call_fail(call, STATUS_FAILED_PRECONDITION,
                                 "the runner has registered no service: it keeps its state to itself, and can be "
                                 "neither upgraded nor checkpointed");
        else if (life->pending)
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "Save is refused: %s is under way in state %s",
                                 service_event_name(life->event), state);
        else if (runner->save)
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "Save is refused: another is under way in state %s",
                                 state);
        else if (life->state != SERVICE_STATE_READY && !(checkpoint && life->state == SERVICE_STATE_RUNNING))
                (void) call_fail(call, STATUS_FAILED_PRECONDITION, "Save%s is refused in state %s",
                                 checkpoint ? " of a checkpoint" : " for a successor", state);
        else
                return false;
        return true;
}

void save_handle(Runner *runner, Call *call) {
        _cleanup_message_ Baton__SaveRequest *request = builtin_unpack(call, &baton__save_request__descriptor);
        size_t n;
        int *fds = call_fds(call, &n);

        if (!request || refuse(runner, call, request->checkpoint))
                return;
        if (request->socket >= n || !fd_is_seqpacket(fds[request->socket]))
                (void) call_fail(call, STATUS_INVALID_ARGUMENT, "descriptor %u of %zu is no SOCK_SEQPACKET socket",
                                 request->socket, n);
        else
                begin(runner, call, request->checkpoint, fd_take(&fds[request->socket]));
}

void save_free(Runner *runner) {
        Save *save = runner->save;

        if (!save)
                return;
        (void) call_fail(TAKE_PTR(save->call), STATUS_UNAVAILABLE, "the runner has ended");
        save_end(save);
}
