#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* What the files of baton-runner-echo share: echo.c, echo-arguments.c (baton.Values in and out), echo-stream.c (streams). */

#include <sys/queue.h>

#include "baton/runner.h"
#include "proto/values.h"

typedef struct Sleeper Sleeper;
typedef struct Stream Stream;

typedef struct Echo {
        struct baton_runner *runner;
        int timer_fd;
        LIST_HEAD(, Sleeper) sleepers;
        LIST_HEAD(, Stream) streams;
} Echo;

/* ---- echo-arguments.c ---- */

/* arguments_unpack() - the arguments of @call; NULL: it has been failed. */
Baton__Values *arguments_unpack(struct baton_call *call);
/* argument_optional() - argument @index, counted from 0, if there is one of that kind. */
const Baton__Value *argument_optional(const Baton__Values *values, size_t index, Baton__Value__VCase kind);
/* argument_needed() - the same; NULL: there is none, and the call has been failed, saying @what is expected. */
const Baton__Value *argument_needed(struct baton_call *call, const Baton__Values *values, size_t index,
                                    Baton__Value__VCase kind, const char *what);
/* answer_numbers() - ends @call with @n u64. */
void answer_numbers(struct baton_call *call, const uint64_t *numbers, size_t n);
/* answer_nothing() - ends @call with no value. */
void answer_nothing(struct baton_call *call);

/* ---- echo-stream.c ---- */

/* Methods; @userdata is the Echo. */
void echo_server_stream(struct baton_call *call, void *userdata);
void echo_client_stream(struct baton_call *call, void *userdata);
void echo_bidi(struct baton_call *call, void *userdata);
/* streams_free() - those that are open; their calls are gone. */
void streams_free(Echo *echo);
