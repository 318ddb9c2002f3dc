#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* What runners are at, as messages: for Status, and for whatever else tells of one. */

#include "proto/control.pb-c.h"
#include "supervisor/runner.h"
#include "supervisor/upgrade.h"

typedef struct RunnerStatusMessage RunnerStatusMessage;

enum {
        RUNNER_STATUS_LAST_LINES = 10,
        RUNNER_STATUS_LAST_BYTES = 4096,
        RUNNER_STATUS_WAITS_FOR_MAX = 8, /* names of what it waits for; the rest is not told */
        RUNNER_STATUS_WORDS_MAX = 32,    /* of its command; likewise */
        RUNNER_STATUS_WORDS_BYTES = 4096,
};

/* What to tell besides the rest. */
typedef enum RunnerStatusDetail {
        RUNNER_STATUS_WITH_HISTORY = 1 << 0,
        RUNNER_STATUS_WITH_OUTPUT = 1 << 1,
        RUNNER_STATUS_WITH_OUTLOOK = 1 << 2, /* a stat() */
} RunnerStatusDetail;

/* One runner's; its strings are the runner's and its instance's, and it does not outlive this turn. */
struct RunnerStatusMessage {
        Baton__Control__RunnerStatus status;
        Baton__Control__ExitRecord records[RUNNER_EXITS_MAX], *pointers[RUNNER_EXITS_MAX];
        Baton__Control__Exit exits[RUNNER_EXITS_MAX];
        Baton__Control__UpgradeRecord upgrades[UPGRADE_RECORDS_MAX], *upgrade_pointers[UPGRADE_RECORDS_MAX];
        Baton__Control__UpgradeOutlook outlook;
        Baton__Control__CheckpointStatus checkpoint;
        char *waits_for[RUNNER_STATUS_WAITS_FOR_MAX];
        ProtobufCBinaryData command[RUNNER_STATUS_WORDS_MAX];
        char **last_output; /* owned */
};

/* runner_status_fill() - all of @ret_message; to be given to runner_status_clear(). @now_us: monotonic. */
void runner_status_fill(RunnerStatusMessage *ret_message, const Runner *runner, unsigned details, uint64_t now_us);
void runner_status_clear(RunnerStatusMessage *message);

/* runner_status_upgrade() - one upgrade; its reason and times are @record's. */
void runner_status_upgrade(const UpgradeRecord *record, Baton__Control__UpgradeRecord *ret_message);

/* runner_status_record() - one end; @exit is part of the result, which lives as long. */
void runner_status_record(const RunnerExit *from, Baton__Control__ExitRecord *ret_record, Baton__Control__Exit *exit);
