/* SPDX-License-Identifier: Apache-2.0 */

#include "tests/test.h"

#include "tests/attach-fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *attach_program(void) {
        static char path[4096];

        (void) snprintf(path, sizeof(path), "%s/baton-runner-echo", getenv("BATON_LIBEXEC"));
        return path;
}

struct baton_start_parameters attach_parameters(void) {
        return (struct baton_start_parameters){ .size = sizeof(struct baton_start_parameters),
                                                .program = attach_program() };
}

void attach_start(AttachFixture *f, const struct baton_start_parameters *parameters) {
        *f = (AttachFixture){ .started = { .size = sizeof(f->started) } };
        assert_int_equal(baton_client_new_private(&f->client, NULL), 0);
        assert_int_equal(baton_client_start(f->client, parameters, &f->started), 0);
}

void attach_set_up(AttachFixture *f) {
        struct baton_start_parameters parameters = attach_parameters();

        attach_start(f, &parameters);
        assert_int_equal(baton_client_attach(f->client, f->started.name, 0, &f->connection), 0);
}

void attach_tear_down(AttachFixture *f) {
        baton_client_free(f->client);
}

struct baton_call_parameters attach_call(const char *method, const void *data, size_t size) {
        return (struct baton_call_parameters){
                .size = sizeof(struct baton_call_parameters),
                .method = method,
                .data = data,
                .data_size = size,
        };
}

struct baton_answer *attach_ask(struct baton_connection *connection, const char *method, const char *data) {
        struct baton_call_parameters call = attach_call(method, data, strlen(data));
        struct baton_answer *answer = NULL;

        assert_int_equal(baton_connection_call_wait(connection, &call, &answer), 0);
        return answer;
}

void attach_assert_echo(struct baton_connection *connection, const char *data) {
        struct baton_answer *answer = attach_ask(connection, "echo.Echo/Unary", data);

        assert_int_equal(answer->status, BATON_OK);
        assert_int_equal(answer->size, strlen(data));
        assert_memory_equal(answer->data, data, answer->size);
        baton_answer_free(answer);
}

AttachNumber attach_number(ValueType type, uint64_t n) {
        Baton__Values *values = values_new();
        Baton__Value *value;
        AttachNumber result;

        assert_non_null(values);
        assert_int_equal(values_add(values, type, &value), 0);
        if (type == VALUE_U64)
                value->u = n;
        else
                value->i = (int64_t) n;
        assert_int_equal(values_pack(values, &result.data, &result.size), 0);
        (void) values_free(values);
        return result;
}

struct baton_call_parameters attach_call_with(const char *method, AttachNumber request) {
        struct baton_call_parameters call = attach_call(method, request.data, request.size);

        call.type = VALUES_TYPE;
        return call;
}
