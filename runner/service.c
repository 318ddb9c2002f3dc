/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The application's service: what it has registered, what an event shows it, and what is told of it. What events there are,
 * and when, is lifecycle.c's.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/parse.h"
#include "proto/message.h"
#include "runner/runner.h"

#define MAX_STATE (UINT64_C(1) << 30)
#define MAX_FDS   65536u

static bool is_valid(const struct baton_service *service) {
        return !service->save == !service->restore && service->version_min <= service->version &&
               (!service->description || utf8_is_valid(service->description, strlen(service->description)));
}

int baton_runner_set_service(struct baton_runner *runner, const struct baton_service *given, void *userdata) {
        struct baton_service service = { 0 };
        char *description;

        if (runner->service.registered)
                return -EEXIST;
        if (runner->dispatched)
                return -EBUSY;
        if (!given || given->size < sizeof(given->size))
                return -EINVAL;
        memcpy(&service, given, MIN(given->size, sizeof(service)));
        service.version = service.version ? service.version : 1;
        service.version_min = service.version_min ? service.version_min : 1;
        service.max_state = service.max_state ? service.max_state : MAX_STATE;
        service.max_fds = service.max_fds ? service.max_fds : MAX_FDS;
        if (!is_valid(&service))
                return -EINVAL;
        description = strdup(service.description ? service.description : "");
        if (!description)
                return -ENOMEM;
        runner->service = (Service){
                .registered = true,
                .functions = service,
                .userdata = userdata,
                .description = description,
        };
        runner->life.state = SERVICE_STATE_INIT;
        peer_set_service(connection_peer(runner->supervisor), SERVICE_STATE_INIT, 0);
        return 0;
}

void service_free(Runner *runner) {
        free(runner->service.description);
}

/* ---- what both sides of an upgrade judge ---- */

static int compare_names(const void *a, const void *b) {
        return strcmp(*(char *const *) a, *(char *const *) b);
}

int names_repeat(char *const *names, size_t n, char reason[RUNNER_REASON_SIZE]) {
        _cleanup_free_ char **sorted = n > 1 ? malloc(n * sizeof(*sorted)) : NULL;

        if (n <= 1)
                return 0;
        if (!sorted)
                return -ENOMEM;
        memcpy(sorted, names, n * sizeof(*sorted));
        qsort(sorted, n, sizeof(*sorted), compare_names);
        for (size_t i = 1; i < n; i++)
                if (strcmp(sorted[i - 1], sorted[i]) == 0) {
                        (void) snprintf(reason, RUNNER_REASON_SIZE, "two descriptors are called '%s'", sorted[i]);
                        return -EPROTO;
                }
        return 0;
}

static const struct {
        int error;
        Status status;
} statuses[] = {
        { EPROTO, STATUS_DATA_LOSS },         { EPROTONOSUPPORT, STATUS_FAILED_PRECONDITION },
        { EFBIG, STATUS_RESOURCE_EXHAUSTED }, { ENOBUFS, STATUS_RESOURCE_EXHAUSTED },
        { ECONNABORTED, STATUS_ABORTED },
};

Status service_status(int error) {
        Status status = status_from_errno(error);

        for (size_t i = 0; i < ARRAY_SIZE(statuses); i++)
                if (statuses[i].error == -error)
                        return statuses[i].status;
        return status == STATUS_UNKNOWN || status == STATUS_OK ? STATUS_INTERNAL : status;
}

/* ---- events ---- */

void reason_set(char reason[RUNNER_REASON_SIZE], const char *format, va_list arguments) {
        (void) vsnprintf(reason, RUNNER_REASON_SIZE, format, arguments);
        /* Where it was cut, or is no UTF-8, it is made ASCII; a line is one line. */
        if (!utf8_is_valid(reason, strlen(reason)))
                for (char *p = reason; *p; p++)
                        *p = (char) (*p & 0x80 ? '?' : *p);
        for (char *p = reason; *p; p++)
                if ((unsigned char) *p < ' ' || *p == 0x7f)
                        *p = '?';
}

struct baton_runner *baton_event_runner(struct baton_event *event) {
        return event->runner;
}

int baton_event_is_handover(struct baton_event *event) {
        return event->handover;
}

void baton_event_reason(struct baton_event *event, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        reason_set(event->reason, format, arguments);
        va_end(arguments);
}

void baton_event_done(struct baton_event *event, int result) {
        if (event->later)
                lifecycle_done(event->runner, MIN(result, 0));
}

/* ---- what is told of it ---- */

void service_info(Runner *runner, Call *call) {
        const Service *service = &runner->service;
        struct baton_event asked = { .runner = runner };
        Baton__InfoResponse response = BATON__INFO_RESPONSE__INIT;

        if (service->functions.info)
                (void) service->functions.info(&asked, service->userdata);
        response.service = service->registered;
        response.service_state = runner->life.state;
        response.last_event = runner->life.last_event;
        response.software = runner->software;
        response.description = *asked.reason ? asked.reason : service->registered ? service->description : (char *) "";
        response.saves = service->registered;
        response.version = service->functions.version;
        response.version_min = service->functions.version_min;
        response.clients = runner->n_clients;
        response.calls = (uint32_t) handles_open_calls(runner->handles);
        response.under_way = (char *) (runner->life.pending ? service_event_name(runner->life.event) : "");
        (void) call_answer_message(call, &response.base);
}
