/* SPDX-License-Identifier: Apache-2.0 */

/* Takeovers: the history, for whoever asks. */

#include "supervisor/control-internal.h"

#include <assert.h>
#include <stdlib.h>

static_assert(_TAKEOVER_OUTCOME_N == BATON__CONTROL__TAKEOVER_RECORD__OUTCOME__WENT_BACK + 1 &&
                      _TAKEOVER_PHASE_N == BATON__CONTROL__TAKEOVER_RECORD__PHASE__RESUME + 1,
              "the numbers are on the wire");

bool takeover_message_fill(TakeoverMessage *message, const Takeovers *takeovers, size_t i) {
        Baton__Control__TakeoverRecord *record = &message->record;
        TakeoverEntry *entry = &message->entry;
        uint64_t end;

        if (!takeovers_copy(takeovers, i, entry))
                return false;
        baton__control__takeover_record__init(record);
        end = entry->outcome == TAKEOVER_UNDER_WAY ? clock_now() : entry->ended_us;
        record->number = entry->number;
        record->time_us = entry->time_us;
        record->outcome = (Baton__Control__TakeoverRecord__Outcome) entry->outcome;
        record->phase = (Baton__Control__TakeoverRecord__Phase) entry->phase;
        record->former_generation = entry->former_generation;
        record->generation = entry->generation;
        record->former_pid = entry->former_pid;
        record->pid = entry->pid;
        for (unsigned phase = 0; phase < _TAKEOVER_PHASE_N && entry->phase_us[0] > 0; phase++)
                message->phases_us[record->n_phases_us++] = takeover_phase_us(entry, (TakeoverPhase) phase);
        record->phases_us = message->phases_us;
        record->total_us = entry->begun_us > 0 && end > entry->begun_us ? end - entry->begun_us : 0;
        record->pause_us = entry->pause_us;
        record->connections = entry->connections;
        record->runners = entry->runners;
        record->calls = entry->calls;
        record->reason = entry->reason;
        record->program = entry->program;
        record->check = entry->check;
        return true;
}

void control_takeovers(Control *control, Call *call, const ProtobufCMessage *message) {
        const Takeovers *takeovers = control->supervisor->takeovers;
        Baton__Control__TakeoversResponse response = BATON__CONTROL__TAKEOVERS_RESPONSE__INIT;
        _cleanup_free_ TakeoverMessage *messages = calloc(TAKEOVERS_KEPT, sizeof(*messages));
        Baton__Control__TakeoverRecord *pointers[TAKEOVERS_KEPT];
        TakeoverCounts counts = takeovers_counts(takeovers);

        (void) message;
        if (!messages) {
                (void) call_fail(call, STATUS_RESOURCE_EXHAUSTED, "no memory for the answer");
                return;
        }
        for (size_t i = TAKEOVERS_KEPT; i-- > 0;)
                if (takeover_message_fill(&messages[i], takeovers, i))
                        pointers[response.n_records++] = &messages[i].record;
        response.records = pointers;
        response.counts = counts.outcomes;
        response.n_counts = _TAKEOVER_OUTCOME_N;
        (void) call_answer_message(call, &response.base);
}
