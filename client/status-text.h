#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Runners and their ends, in words and as JSON: for status and events. */

#include <stdint.h>

#include "client/control.h"

typedef struct json_t json_t;

enum {
        STATUS_JSON_VERSION = 1, /* one higher when a member goes or changes its meaning; new ones come at any time */
        STATUS_TEXT_MAX = 160,
};

/* status_state_name() - "up", "backoff", ...; "unknown" of a number that a newer supervisor has. */
const char *status_state_name(int state);
/* status_cause_name() - "itself", "start_timeout", ... */
const char *status_cause_name(int cause);

/* status_exit_describe() - "exited with status 3", "did not stop in time, killed by signal 9 (SIGKILL)". */
void status_exit_describe(const Baton__Control__ExitRecord *record, char text[STATUS_TEXT_MAX]);

/* status_duration_text() - two units at most: "3d 4h", "12s", "0.2s". status_time_text() - RFC 3339, UTC. */
void status_duration_text(uint64_t us, char text[STATUS_TEXT_MAX]);
void status_time_text(uint64_t time_us, char text[STATUS_TEXT_MAX]);

/*
 * Of a takeover: "rolled_back", "copy"; and why it came to its outcome, where there is a reason: "in copy: the successor was
 * killed", "pid 12 was killed".
 */
const char *status_takeover_outcome(int outcome);
const char *status_takeover_phase(int phase);
void status_takeover_reason(const Baton__Control__TakeoverRecord *record, char *text, size_t size);

/* status_..._json() - NULL: no memory. docs/status.md has the schema. */
json_t *status_exit_json(const Baton__Control__ExitRecord *record);
json_t *status_upgrade_json(const Baton__Control__UpgradeRecord *record);
/* status_leftovers_json() - of @n texts "PID NAME" an array of objects; NULL: no memory. */
json_t *status_leftovers_json(char *const *texts, size_t n);
json_t *status_runner_json(const Baton__Control__RunnerStatus *runner);
json_t *status_takeover_json(const Baton__Control__TakeoverRecord *record);
json_t *status_supervisor_json(const Baton__Control__SupervisorStatus *supervisor);
