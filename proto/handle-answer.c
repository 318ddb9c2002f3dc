/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Answers: what is read from them, and copies that outlive the callback, descriptors taken, for who waits for an answer
 * rather than being told. A copy is built as the callback's answer is, so that the same functions read both.
 */

#include "proto/handle-internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "baton/client.h"
#include "common/fd.h"
#include "proto/message.h"

typedef struct AnswerCopy {
        AnswerView view;
        Baton__Envelope *envelope; /* details and metadata */
        char bytes[];
} AnswerCopy;

const void *baton_answer_metadata(const struct baton_answer *answer, const char *key, size_t *ret_size) {
        const AnswerView *view = CONTAINER_OF(answer, AnswerView, public);

        return envelope_find_pair(view->envelope, key, ret_size);
}

const void *baton_answer_detail(const struct baton_answer *answer, const char *type, size_t *ret_size) {
        const AnswerView *view = CONTAINER_OF(answer, AnswerView, public);

        for (size_t i = 0; i < view->envelope->n_details; i++)
                if (strcmp(view->envelope->details[i]->type, type) == 0)
                        return bytes_value(&view->envelope->details[i]->value, ret_size);
        *ret_size = 0;
        return NULL;
}

/* copy_envelope() - what of it an answer is read for. NULL: no memory. */
static Baton__Envelope *copy_envelope(const Baton__Envelope *envelope) {
        Baton__Envelope some = BATON__ENVELOPE__INIT;
        _cleanup_free_ uint8_t *packed = NULL;
        size_t size;

        some.details = envelope->details;
        some.n_details = envelope->n_details;
        some.metadata = envelope->metadata;
        some.n_metadata = envelope->n_metadata;
        size = baton__envelope__get_packed_size(&some);
        packed = malloc(size + 1);
        if (!packed)
                return NULL;
        (void) baton__envelope__pack(&some, packed);
        return message_unpack(&baton__envelope__descriptor, packed, size);
}

/* put() - copies @size bytes to *@end, which moves behind them. */
static char *put(char **end, const void *bytes, size_t size) {
        char *copy = *end;

        if (size > 0)
                memcpy(copy, bytes, size);
        *end += size;
        return copy;
}

int answer_copy(const struct baton_answer *answer, struct baton_answer **ret_answer) {
        const AnswerView *from = CONTAINER_OF(answer, AnswerView, public);
        size_t message = strlen(answer->message) + 1, type = strlen(answer->type) + 1;
        AnswerCopy *copy = malloc(sizeof(*copy) + message + type + answer->size + 1);
        char *end = copy ? copy->bytes : NULL;

        if (!copy)
                return -ENOMEM;
        copy->view.public = *answer;
        copy->view.public.fds = calloc(answer->n_fds + 1, sizeof(int));
        copy->view.envelope = copy->envelope = copy_envelope(from->envelope);
        if (!copy->view.public.fds || !copy->envelope) {
                free(copy->view.public.fds);
                message_free(copy->envelope);
                free(copy);
                return -ENOMEM;
        }
        copy->view.public.message = put(&end, answer->message, message);
        copy->view.public.type = put(&end, answer->type, type);
        copy->view.public.data = put(&end, answer->data, answer->size);
        for (size_t i = 0; i < answer->n_fds; i++)
                copy->view.public.fds[i] = fd_take(&answer->fds[i]);
        *ret_answer = &copy->view.public;
        return 0;
}

void baton_answer_free(struct baton_answer *answer) {
        AnswerCopy *copy;

        if (!answer)
                return;
        copy = CONTAINER_OF(CONTAINER_OF(answer, AnswerView, public), AnswerCopy, view);
        fd_close_all(answer->fds, answer->n_fds);
        free(answer->fds);
        message_free(copy->envelope);
        free(copy);
}
