#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A configured supervisor in this process, whose keeper answers nothing. For tests and fuzz targets: a failure of the fixture
 * itself ends the program.
 */

#include "supervisor/supervisor.h"

typedef struct SupervisorFixture {
        Supervisor *supervisor;
        int keeper; /* its other end */
} SupervisorFixture;

/* supervisor_fixture_open() - @generation of it, as @configuration (the text of a file) has it. */
void supervisor_fixture_open(SupervisorFixture *fixture, uint32_t generation, const char *configuration);
void supervisor_fixture_close(SupervisorFixture *fixture);

/* supervisor_fixture_turn() - the loop, for a moment. */
void supervisor_fixture_turn(SupervisorFixture *fixture);
