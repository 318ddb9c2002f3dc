/* SPDX-License-Identifier: Apache-2.0 */

/*
 * History of upgrades. What is restored may come from another version: of phases that are not known here the times are left
 * out, and a reason is what makes a failure one.
 */

#include "supervisor/upgrade-history.h"

#include <stdlib.h>
#include <string.h>

static void push(UpgradeHistory *history, const UpgradeRecord *record) {
        if (history->n == UPGRADE_RECORDS_MAX) {
                free(history->records[0].why);
                memmove(history->records, history->records + 1, sizeof(history->records) - sizeof(*history->records));
                history->n--;
        }
        history->records[history->n++] = *record;
}

/* make() - false: no memory. */
static bool make(UpgradeHistory **history) {
        if (!*history)
                *history = calloc(1, sizeof(**history));
        return *history;
}

void upgrade_history_add(UpgradeHistory **history, UpgradeRecord *record) {
        if (!make(history)) {
                free(TAKE_PTR(record->why));
                return;
        }
        (*history)->n_done += !record->check && !record->back && !record->why;
        (*history)->n_failed += !record->check && !record->back && record->why;
        push(*history, record);
}

const UpgradeRecord *upgrade_history_last(const UpgradeHistory *history) {
        for (unsigned i = history->n; i > 0; i--)
                if (!history->records[i - 1].back)
                        return &history->records[i - 1];
        return NULL;
}

UpgradeHistory *upgrade_history_free(UpgradeHistory *history) {
        for (unsigned i = 0; history && i < history->n; i++)
                free(history->records[i].why);
        free(history);
        return NULL;
}

static void save_record(Save *save, const UpgradeRecord *record, Baton__Snapshot__Upgrade *to) {
        to->begun_us = record->begun_us;
        to->pause_us = record->pause_us;
        to->from = record->from;
        to->to = record->to;
        to->phase = record->phase;
        to->check = record->check;
        to->back = record->back;
        save_text(save, &to->why, record->why);
        save_numbers(save, &to->phase_us, &to->n_phase_us, record->phase_us, ARRAY_SIZE(record->phase_us));
}

Baton__Snapshot__Upgrades *upgrade_history_save(Save *save, const UpgradeHistory *history, unsigned first) {
        Baton__Snapshot__Upgrades *message =
                history ? save_message(save, &baton__snapshot__upgrades__descriptor) : NULL;

        if (!message)
                return NULL;
        message->done = history->n_done;
        message->failed = history->n_failed;
        message->upgrades = save_array(save, history->n - first, sizeof(*message->upgrades));
        for (unsigned i = first; message->upgrades && i < history->n; i++) {
                Baton__Snapshot__Upgrade *to = save_message(save, &baton__snapshot__upgrade__descriptor);

                if (!to)
                        break;
                message->upgrades[message->n_upgrades++] = to;
                save_record(save, &history->records[i], to);
        }
        return message;
}

static void restore_record(const Baton__Snapshot__Upgrade *from, UpgradeRecord *record) {
        *record = (UpgradeRecord){
                .begun_us = from->begun_us,
                .pause_us = from->pause_us,
                .from = from->from,
                .to = from->to,
                .phase = (UpgradePhase) restored_number(from->phase, _UPGRADE_PHASE_N, UPGRADE_OVER),
                .check = from->check,
                .back = from->back,
                .why = restored_text(from->why),
        };
        for (size_t i = 0; i < from->n_phase_us && i < ARRAY_SIZE(record->phase_us); i++)
                record->phase_us[i] = from->phase_us[i];
}

void upgrade_history_restore(UpgradeHistory **history, const Baton__Snapshot__Upgrades *message) {
        if (!message || !make(history))
                return;
        (*history)->n_done = message->done;
        (*history)->n_failed = message->failed;
        for (size_t i = 0; i < message->n_upgrades; i++) {
                UpgradeRecord record;

                restore_record(message->upgrades[i], &record);
                push(*history, &record);
        }
}
