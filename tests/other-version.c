/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A supervisor of another version of the snapshot, by what is wrapped around one of ours. $BATON_TEST_SNAPSHOT_VERSION is
 * which: the one before ours knows nothing of runners, nor of a time before the freeze in which they are given; one after
 * ours has a field more in the snapshot and in each runner, and says whether it has come back. With $BATON_TEST_NO_WORDS it is
 * of ours, from before runners were given ahead of the freeze: it neither offers that nor takes it. Whichever it is, it says of
 * each runner whether it went, or came, before the freeze or at the end. With $BATON_TEST_SNAPSHOT_DUMP each snapshot that is
 * written goes into that file, too.
 */

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "proto/transfer.h"
#include "supervisor/fleet.h"
#include "supervisor/hooks.h"
#include "supervisor/snapshot.h"
#include "supervisor/takeover.h"

enum { LATER_FIELD = 999 };

typedef Baton__Snapshot__Snapshot Snapshot;

uint32_t __wrap_snapshot_version(void);
size_t __wrap_baton__snapshot__snapshot__get_packed_size(const Snapshot *snapshot);
size_t __real_baton__snapshot__snapshot__get_packed_size(const Snapshot *snapshot);
size_t __wrap_baton__snapshot__snapshot__pack(const Snapshot *snapshot, uint8_t *out);
size_t __real_baton__snapshot__snapshot__pack(const Snapshot *snapshot, uint8_t *out);
int __wrap_transfer_say(int socket, const char *word);
int __real_transfer_say(int socket, const char *word);
void __wrap_fleet_restore(Supervisor *supervisor, const Snapshot *snapshot);
void __real_fleet_restore(Supervisor *supervisor, const Snapshot *snapshot);

uint32_t __wrap_snapshot_version(void) {
        const char *text = getenv("BATON_TEST_SNAPSHOT_VERSION");

        return text ? (uint32_t) strtoul(text, NULL, 10) : SNAPSHOT_VERSION;
}

/* has_words() - whether it knows of runners before the end. */
static bool has_words(void) {
        return __wrap_snapshot_version() >= SNAPSHOT_VERSION && !getenv("BATON_TEST_NO_WORDS");
}

static void say_runners(const char *how, const Snapshot *snapshot) {
        for (size_t i = 0; i < snapshot->n_runners; i++)
                log_notice("%s %s: %s", how, snapshot->partial ? "before the freeze" : "at the end",
                           snapshot->runners[i]->name);
}

/* ---- what is written ---- */

int __wrap_transfer_say(int socket, const char *word) {
        if (!has_words() && strcmp(word, TAKEOVER_WORD_RUNNERS) == 0)
                return 0;
        return __real_transfer_say(socket, word);
}

static void add_field(ProtobufCMessage *message) {
        ProtobufCMessageUnknownField *field = calloc(1, sizeof(*field));

        if (message->n_unknown_fields > 0 || !field) {
                free(field);
                return;
        }
        *field = (ProtobufCMessageUnknownField){ LATER_FIELD, PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED, 6, malloc(6) };
        if (field->data)
                memcpy(field->data, "\5later", 6);
        message->unknown_fields = field;
        message->n_unknown_fields = 1;
}

size_t __wrap_baton__snapshot__snapshot__get_packed_size(const Snapshot *snapshot) {
        Snapshot *changed = (Snapshot *) snapshot;

        if (__wrap_snapshot_version() < SNAPSHOT_VERSION) {
                while (changed->n_runners > 0)
                        baton__snapshot__runner__free_unpacked(changed->runners[--changed->n_runners], NULL);
                while (changed->n_groups > 0)
                        baton__snapshot__group__free_unpacked(changed->groups[--changed->n_groups], NULL);
        } else if (__wrap_snapshot_version() > SNAPSHOT_VERSION) {
                add_field(&changed->base);
                for (size_t i = 0; i < changed->n_runners; i++)
                        add_field(&changed->runners[i]->base);
        }
        return __real_baton__snapshot__snapshot__get_packed_size(snapshot);
}

size_t __wrap_baton__snapshot__snapshot__pack(const Snapshot *snapshot, uint8_t *out) {
        size_t size = __real_baton__snapshot__snapshot__pack(snapshot, out);
        const char *path = getenv("BATON_TEST_SNAPSHOT_DUMP");
        FILE *file = path && !snapshot->partial ? fopen(path, "we") : NULL;

        say_runners("went", snapshot);
        if (file) {
                (void) fwrite(out, 1, size, file);
                (void) fclose(file);
        }
        return size;
}

/* ---- what is read ---- */

static unsigned has_field(const ProtobufCMessage *message) {
        return message->n_unknown_fields == 1 && message->unknown_fields[0].tag == LATER_FIELD;
}

void __wrap_fleet_restore(Supervisor *supervisor, const Snapshot *snapshot) {
        unsigned n = has_field(&snapshot->base);

        say_runners("came", snapshot);
        if (__wrap_snapshot_version() < SNAPSHOT_VERSION || (snapshot->partial && !has_words()))
                return;
        for (size_t i = 0; i < snapshot->n_runners; i++)
                n += has_field(&snapshot->runners[i]->base);
        log_notice("fields of a later version: %u of %zu", n, snapshot->n_runners + 1);
        __real_fleet_restore(supervisor, snapshot);
}
