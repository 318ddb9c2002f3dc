#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Tests of libbaton's client half with the built programs: a private echo runner, and a connection of our own to it. */

#include <stddef.h>
#include <stdint.h>

#include "client/client.h"
#include "proto/values.h"

typedef struct AttachFixture AttachFixture;
typedef struct AttachNumber AttachNumber;

struct AttachFixture {
        struct baton_client *client;
        struct baton_started started;
        struct baton_connection *connection;
};

/* A request of baton.Values with one number; @data is the caller's to free. */
struct AttachNumber {
        uint8_t *data;
        size_t size;
};

/* attach_program() - the echo runner. */
const char *attach_program(void);
struct baton_start_parameters attach_parameters(void);

/* attach_start() - a private supervisor and a runner; attach_set_up() - the echo runner, and connected to it. */
void attach_start(AttachFixture *f, const struct baton_start_parameters *parameters);
void attach_set_up(AttachFixture *f);
void attach_tear_down(AttachFixture *f);

struct baton_call_parameters attach_call(const char *method, const void *data, size_t size);
AttachNumber attach_number(ValueType type, uint64_t n);
struct baton_call_parameters attach_call_with(const char *method, AttachNumber request);

/* attach_ask() - one call, waited for; the answer is the caller's to free. */
struct baton_answer *attach_ask(struct baton_connection *connection, const char *method, const char *data);
void attach_assert_echo(struct baton_connection *connection, const char *data);
