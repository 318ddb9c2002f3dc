#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* baton.Control from the client's side: typed calls, each with a helper that runs the endpoint until the answer is there. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "proto/control.pb-c.h"
#include "proto/endpoint.h"

typedef Baton__Control__Exit ControlExit;
typedef Baton__Control__StartRequest ControlStart;
typedef Baton__Control__StartResponse ControlStarted;
typedef Baton__Control__StopResponse ControlStopped;
typedef Baton__Control__AttachResponse ControlAttached;
typedef Baton__Control__LogLine ControlLogLine;
typedef Baton__Control__LogsResponse ControlLogs;
typedef Baton__Control__StartFailure ControlStartFailure;
typedef Baton__Control__RunnerEnded ControlRunnerEnded;

/* Outcomes of the waiting helpers, besides 0 and a negative errno. */
enum {
        CONTROL_REFUSED = 1, /* the call ended with a status other than OK: see the ControlFailure */
};

/* Why a call did not succeed. Null value: zeroed. */
typedef struct ControlFailure {
        Status status;
        char *message;              /* one line; may be NULL when there was no memory for it */
        ControlStartFailure *start; /* details, or NULL */
        ControlRunnerEnded *ended;
        Baton__Control__ConfigErrors *errors;
} ControlFailure;

void control_failure_deinit(ControlFailure *failure);

/* A connection to a supervisor. It does not own endpoint and peer. */
typedef struct Control {
        Endpoint *endpoint;
        Peer *peer; /* NULL before control_attach() */
        bool ready; /* Hellos were exchanged */
        bool ended; /* the peer has ended ... */
        Status end_status;
        char *end_reason; /* ... and said why; may be NULL */
        bool interrupted; /* waits return -EINTR */
} Control;

/* One call. Null value: zeroed. It must not move while it runs. */
typedef struct ControlCall ControlCall;
struct ControlCall {
        Endpoint *endpoint;
        Call *call; /* while it runs */
        bool done;
        void (*told)(ControlCall *call); /* NULL, or set after control_begin...(): `done' has become true */
        ControlFailure failure;          /* status OK: none */
        Baton__Envelope *envelope;       /* of the answer: type, metadata; NULL: there is none */
        uint8_t *payload;                /* never NULL with status OK */
        size_t size;
        int *fds; /* of the answer; -1: taken out */
        size_t n_fds;
};

/* control_handler - for the peer that will be attached; its userdata is the Control. */
extern const PeerHandler control_handler;

void control_init(Control *control, Endpoint *endpoint);
void control_attach(Control *control, Peer *peer);
void control_deinit(Control *control);

/* control_interrupt() - the running wait, and every later one, returns -EINTR; from callbacks of the endpoint. */
void control_interrupt(Control *control);

/*
 * control_begin() - starts `baton.Control/@method` with @request; @timeout_us 0: no deadline. Nothing is returned: what
 * fails at once is found in @call like what fails later.
 */
void control_begin(Control *control, ControlCall *call, const char *method, const ProtobufCMessage *request,
                   uint64_t timeout_us);

/*
 * control_begin_supervised() - calls the runner @name through the supervisor: the answer is the runner's. Functions of
 * @parameters that take items get @call as their userdata.
 */
void control_begin_supervised(Control *control, ControlCall *call, const char *name, const CallParameters *parameters);

/* control_begin_at() - the same over @lane, a lane of our own to the runner; NULL: as above. */
void control_begin_at(Control *control, ControlCall *call, Peer *lane, const char *name,
                      const CallParameters *parameters);

/* control_call_begin() - calls whoever @peer is, which @endpoint hosts, a runner over a lane of our own. */
void control_call_begin(ControlCall *call, Endpoint *endpoint, Peer *peer, const CallParameters *parameters);

/* control_call_type() - full name of the answer's message; "": raw bytes. */
const char *control_call_type(const ControlCall *call);

/* control_bytes() - @text, or NULL for none, as a field of a request: borrowed. */
static inline ProtobufCBinaryData control_bytes(const char *text) {
        return (ProtobufCBinaryData){ .len = text ? strlen(text) : 0, .data = (uint8_t *) text };
}

/* control_bytes_array() - @n of them: an array from malloc(), NULL: out of memory. The strings stay borrowed. */
ProtobufCBinaryData *control_bytes_array(char *const *texts, size_t n);

/* control_wait() - until @call is done: 0, whatever its status; -EINTR; or an errno of the endpoint. */
int control_wait(Control *control, ControlCall *call);

/*
 * control_wait_until() - until @moment, of the monotonic clock, or until *@open, which may be NULL, is 0. 0, whichever came
 * first; -EINTR; or an errno of the endpoint.
 */
int control_wait_until(const Control *control, uint64_t moment, const size_t *open);

/* control_call_deinit() - cancels the call if it still runs, and frees what it holds. The result is its null value. */
void control_call_deinit(ControlCall *call);

/*
 * control_unpack() - the answer of a call that is done with OK as a message of this type, for
 * message_free(); NULL: it is none.
 */
void *control_unpack(const ControlCall *call, const ProtobufCMessageDescriptor *type);

/*
 * The calls. 0; CONTROL_REFUSED with @ret_failure, which is the caller's to deinit; -EINTR (the call is cancelled then);
 * -ENOMEM. Messages in @ret_... are the caller's, to be freed by message_free().
 */
int control_start(Control *control, const ControlStart *request, ControlStarted **ret_started,
                  ControlFailure *ret_failure);
/* control_start_on() - the same, on the terminal @terminal_fd_consume. */
int control_start_on(Control *control, ControlStart *request, int terminal_fd_consume, ControlStarted **ret_started,
                     ControlFailure *ret_failure);
int control_stop(Control *control, const char *name, uint64_t timeout_us, ControlStopped **ret_stopped,
                 ControlFailure *ret_failure);
int control_signal(Control *control, const char *name, int signal, ControlFailure *ret_failure);

/* control_begin_...() - the same without waiting. */
void control_begin_stop(Control *control, ControlCall *call, const char *name, uint64_t timeout_us);
void control_begin_signal(Control *control, ControlCall *call, const char *name, int signal);
void control_begin_logs(Control *control, ControlCall *call, const char *name, uint64_t from_seq, bool wait);
/* control_begin_attach() - the answer, a ControlAttached, has the lane among its descriptors. @timeout_us 0: none. */
void control_begin_attach(Control *control, ControlCall *call, const char *name, uint64_t timeout_us);
