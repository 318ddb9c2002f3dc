/* SPDX-License-Identifier: Apache-2.0 */

#include "tests/supervisor-fixture.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "supervisor/config-internal.h"
#include "supervisor/fleet.h"

#define CHECK(_condition)          \
        do {                       \
                if (!(_condition)) \
                        abort();   \
        } while (0)

enum { TURN_US = 2000 };

static ConfigSource *make_source(const char *configuration) {
        ConfigSource *source = calloc(1, sizeof(*source));

        CHECK(source);
        source->paths = calloc(2, sizeof(*source->paths));
        CHECK(source->paths);
        source->paths[source->n_paths++] = strdup("/x");
        source->files[0] = (ConfigFile){ .name = strdup("x"), .text = strdup(configuration) };
        source->files[0].size = strlen(configuration);
        source->n = 1;
        return source;
}

static void configure(Supervisor *supervisor, const char *configuration) {
        char error[FLEET_ERROR_SIZE] = "";
        ConfigSource *source = make_source(configuration);
        ConfigErrors errors = { 0 };
        Config *config;

        CHECK(config_load(&config, source, 0, &errors) == 0);
        CHECK(fleet_apply(supervisor, config, NULL, error) == 0);
        config_unref(config);
        config_source_free(source);
        config_errors_deinit(&errors);
}

void supervisor_fixture_open(SupervisorFixture *fixture, uint32_t generation, const char *configuration) {
        SupervisorOptions options = {
                .generation = generation,
                .stop_timeout_us = USEC_PER_SEC,
                .private_fd_consume = -1,
                .handover_fd_consume = -1,
        };
        int link[2];

        log_set_level(2);
        CHECK(fd_socketpair(SOCK_SEQPACKET, link) == 0);
        options.keeper_fd_consume = link[0];
        fixture->keeper = link[1];
        CHECK(supervisor_new(&fixture->supervisor, &options) == 0);
        configure(fixture->supervisor, configuration);
}

void supervisor_fixture_close(SupervisorFixture *fixture) {
        fixture->supervisor = supervisor_free(fixture->supervisor);
        fd_close(fixture->keeper);
}

static void stop_now(LoopTimer *timer) {
        loop_stop(timer->loop);
}

void supervisor_fixture_turn(SupervisorFixture *fixture) {
        LoopTimer timer = LOOP_TIMER_NULL(stop_now);

        loop_timer_set(fixture->supervisor->loop, &timer, clock_after(clock_now(), TURN_US));
        loop_run(fixture->supervisor->loop);
        loop_timer_stop(&timer);
}
