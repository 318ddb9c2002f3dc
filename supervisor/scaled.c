/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Scaled: one entry and one slot for each template whose number is not that of its configuration. A record of a kind of its
 * own (RECORD_TEMPLATE) is in the slot; a program that does not know it finds no runner of that name, and cancels it.
 */

#include "supervisor/scaled.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "supervisor/fleet.h"
#include "supervisor/record.h"
#include "supervisor/supervisor.h"

static Scaled *find(const Supervisor *supervisor, const char *template) {
        Scaled *scaled;

        LIST_FOREACH (scaled, &supervisor->scaled, link)
                if (strcmp(scaled->template, template) == 0)
                        return scaled;
        return NULL;
}

static Scaled *add(Supervisor *supervisor, const char *template, uint64_t slot, uint32_t n) {
        Scaled *scaled = calloc(1, sizeof(*scaled));

        if (!scaled)
                return NULL;
        (void) snprintf(scaled->template, sizeof(scaled->template), "%s", template);
        scaled->slot = slot;
        scaled->n = n;
        LIST_INSERT_HEAD(&supervisor->scaled, scaled, link);
        return scaled;
}

static void forget(Supervisor *supervisor, Scaled *scaled) {
        (void) keeper_link_cancel(supervisor->link, scaled->slot);
        LIST_REMOVE(scaled, link);
        free(scaled);
}

void scaled_set(Supervisor *supervisor, const RunnerConfig *template, uint32_t n) {
        uint8_t bytes[KEEPER_RECORD_SIZE];
        KeeperReservation reservation = { .name = template->name, .flags = KEEPER_FLAG_KEPT, .record = bytes };
        const Record record = { .flags = RECORD_TEMPLATE, .scaled = n };
        Scaled *scaled = find(supervisor, template->name);
        int r = 0;

        if (!supervisor->followed || (scaled && scaled->n == n))
                return;
        if (n == template->instances) {
                if (scaled)
                        forget(supervisor, scaled);
                return;
        }
        record_pack(&record, bytes);
        if (scaled) {
                scaled->n = n;
                r = keeper_link_record(supervisor->link, scaled->slot, bytes);
        } else {
                scaled = add(supervisor, template->name, supervisor_next_id(supervisor), n);
                reservation.instance = scaled ? scaled->slot : 0;
                r = scaled ? keeper_link_reserve(supervisor->link, &reservation, NULL, NULL) : -ENOMEM;
        }
        if (r < 0)
                log_warning("template %s: a supervisor after this one will not know of its %u instances: %s",
                            template->name, n, strerror(-r));
}

int scaled_adopt(Supervisor *supervisor, const char *template, uint64_t slot, uint32_t n) {
        Scaled *scaled = find(supervisor, template);

        if (!scaled)
                return add(supervisor, template, slot, n) ? 0 : -ENOMEM;
        scaled->slot = slot;
        scaled->n = n;
        return 0;
}

void scaled_disown(Supervisor *supervisor, uint64_t slot) {
        Scaled *scaled;

        LIST_FOREACH (scaled, &supervisor->scaled, link)
                if (scaled->slot == slot) {
                        LIST_REMOVE(scaled, link);
                        free(scaled);
                        return;
                }
}

void scaled_forget_others(Supervisor *supervisor) {
        Scaled *scaled, *next;

        for (scaled = LIST_FIRST(&supervisor->scaled); scaled; scaled = next) {
                const RunnerConfig *config =
                        supervisor->config ? config_find(supervisor->config, scaled->template) : NULL;

                next = LIST_NEXT(scaled, link);
                if (!config || !config->is_template || config->instances == fleet_count(supervisor, scaled->template))
                        forget(supervisor, scaled);
        }
}

void scaled_free(Supervisor *supervisor) {
        Scaled *scaled;

        while ((scaled = LIST_FIRST(&supervisor->scaled))) {
                LIST_REMOVE(scaled, link);
                free(scaled);
        }
}
