/* SPDX-License-Identifier: Apache-2.0 */

/* Fuzz target: arbitrary bytes as a message of the sd_notify protocol. What comes out is text and numbers that fit. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/macro.h"
#include "common/parse.h"
#include "supervisor/notify-message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *text, size_t max) {
        assert(strlen(text) <= max && utf8_is_valid(text, strlen(text)));
        for (; *text; text++)
                assert((unsigned char) *text >= ' ');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        _cleanup_free_ char *text = malloc(size + 1);
        char why[NOTIFY_WHY_SIZE];
        NotifyMessage message;

        if (!text)
                return 0;
        if (size > 0)
                memcpy(text, data, size);
        text[size] = '\0';
        if (notify_message_parse(text, size, &message, why) < 0) {
                assert(memchr(data, 0, size));
                return 0;
        }
        assert((message.status != NULL) == !!(message.words & NOTIFY_STATUS));
        if (message.status)
                check_text(message.status, NOTIFY_STATUS_MAX);
        if (message.fd_name) {
                check_text(message.fd_name, NOTIFY_FD_NAME_MAX);
                assert(*message.fd_name && !strchr(message.fd_name, ':'));
        }
        check_text(why, sizeof(why) - 1);
        assert(!(message.words & NOTIFY_MAINPID) || message.main_pid > 0);
        assert(message.error >= 0 && message.error <= 4095);
        assert(!(message.words & NOTIFY_CLOSED));
        return 0;
}
