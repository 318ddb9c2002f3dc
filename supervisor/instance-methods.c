/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Runner, what it may call: a table of methods on channel RPC. A record of the log is acknowledged by any answer, so that
 * one that is refused is not sent again; what came before (a runner resends after a renewal) is acknowledged and dropped
 * by its number. On the channels FILESYSTEM and DATA nothing is served yet: UNIMPLEMENTED, not silence.
 */

#include "supervisor/instance-internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "proto/message.h"
#include "supervisor/checkpoint.h"

enum {
        LOG_WRITE_RECORDS = 4096,           /* in one call: they are taken in one turn of the loop */
        LOG_WRITE_GROWTH = 4 * 1024 * 1024, /* so many and some */
        REQUEST_GROWTH = 64 * 1024,         /* of what has no parts */
};

/* note_loss() - records whose numbers were skipped are worth a line where they would have been. */
static void note_loss(Instance *instance, uint64_t n) {
        runner_log_note(instance->runner->log, LOG_LEVEL_WARNING, "%" PRIu64 " log records never arrived", n);
}

static void log_write(Instance *instance, Call *call, const ProtobufCMessage *message) {
        const Baton__LogWrite *write = (const Baton__LogWrite *) message;
        uint64_t next = instance->input.record_seq + 1;

        if (write->first_seq == 0) {
                call_fail(call, STATUS_INVALID_ARGUMENT, "log records are numbered from 1");
                return;
        }
        if (write->n_records > LOG_WRITE_RECORDS) {
                call_fail(call, STATUS_INVALID_ARGUMENT, "more than %d log records in one call", LOG_WRITE_RECORDS);
                return;
        }
        if (write->first_seq > next)
                note_loss(instance, write->first_seq - next);
        for (size_t i = 0; i < write->n_records; i++) {
                const Baton__LogRecord *record = write->records[i];
                const LogLine line = {
                        .time_us = record->time_us,
                        .level = record->level,
                        .line = record->line,
                        .target = record->target,
                        .file = record->file,
                        .text = record->text,
                        .size = strlen(record->text),
                };

                (void) log_input_record(&instance->input, write->first_seq + i, &line);
        }
        call_answer(call, &(AnswerParameters){ .status = STATUS_OK });
}

static void ping(Instance *instance, Call *call, const ProtobufCMessage *message) {
        (void) instance;
        call_answer_message(call, message);
}

static void checkpoint(Instance *instance, Call *call, const ProtobufCMessage *message) {
        (void) message;
        checkpoint_handle(instance, call);
}

static const struct {
        const char *name;
        const ProtobufCMessageDescriptor *request;
        void (*function)(Instance *instance, Call *call, const ProtobufCMessage *message);
        size_t max_growth; /* message_unpack_within() */
} methods[] = {
        { "baton.Log/Write", &baton__log_write__descriptor, log_write, LOG_WRITE_GROWTH },
        { "baton.Runner/Ping", &baton__ping__descriptor, ping, REQUEST_GROWTH },
        { "baton.Supervisor/Checkpoint", &baton__checkpoint_request__descriptor, checkpoint, REQUEST_GROWTH },
};

void instance_called(Peer *peer, Call *call) {
        Instance *instance = peer_userdata(peer);
        const char *name = call_envelope(call)->method;
        size_t size;
        const uint8_t *payload = call_payload(call, &size);

        for (size_t i = 0; call_channel(call) == CHANNEL_RPC && i < ARRAY_SIZE(methods); i++) {
                _cleanup_message_ ProtobufCMessage *message = NULL;

                if (strcmp(methods[i].name, name) != 0)
                        continue;
                message = message_unpack_within(methods[i].request, payload, size, methods[i].max_growth);
                if (message)
                        methods[i].function(instance, call, message);
                else
                        call_fail(call, STATUS_INVALID_ARGUMENT, "%s wants a %s", name, methods[i].request->name);
                return;
        }
        call_fail(call, STATUS_UNIMPLEMENTED, "the supervisor has no method %s on channel %u", name,
                  call_channel(call));
}
