/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Save: how messages are made, for whoever writes down a part of the supervisor. Shortage of memory is noted once, at the
 * end.
 */

#include "supervisor/save.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/config.h"
#include "supervisor/snapshot.h"

void *save_message(Save *save, const ProtobufCMessageDescriptor *type) {
        ProtobufCMessage *message = save->error < 0 ? NULL : malloc(type->sizeof_message);

        if (message)
                protobuf_c_message_init(type, message);
        else
                save->error = -ENOMEM;
        return message;
}

void *save_array(Save *save, size_t n, size_t size) {
        void *memory = save->error < 0 || n == 0 ? NULL : calloc(n, size);

        if (!memory && n > 0)
                save->error = -ENOMEM;
        return memory;
}

void save_text(Save *save, char **to, const char *from) {
        char *copy = !from || !*from || save->error < 0 ? NULL : strdup(from);

        if (copy)
                *to = copy;
        else if (from && *from)
                save->error = -ENOMEM;
}

void save_texts(Save *save, char ***to, size_t *ret_n, const char *const *from) {
        size_t n = 0;

        while (from && from[n])
                n++;
        *to = save_array(save, n, sizeof(char *));
        for (size_t i = 0; *to && i < n; i++) {
                (*to)[i] = strdup(from[i]); /* an empty one, too: it is freed as it is found */
                if (!(*to)[i]) {
                        save->error = -ENOMEM;
                        return;
                }
                *ret_n = i + 1;
        }
}

void save_numbers(Save *save, uint64_t **to, size_t *ret_n, const uint64_t *from, size_t n) {
        *to = save_array(save, n, sizeof(*from));
        if (!*to)
                return;
        memcpy(*to, from, n * sizeof(*from));
        *ret_n = n;
}

int save_done(const Save *save, void *message, void *ret_message) {
        if (save->error == 0)
                *(void **) ret_message = message;
        else if (message)
                protobuf_c_message_free_unpacked(message, NULL);
        return save->error;
}

void window_save(Save *save, const PolicyWindow *window, Baton__Snapshot__Window **to) {
        Baton__Snapshot__Window *message;

        if (window->n == 0)
                return;
        *to = message = save_message(save, &baton__snapshot__window__descriptor);
        if (!message)
                return;
        message->max = window->max;
        message->times_us = save_array(save, window->n, sizeof(uint64_t));
        for (uint32_t i = 0; message->times_us && i < window->n; i++)
                message->times_us[message->n_times_us++] = window->times[(window->first + i) % window->max];
}

void window_restore(PolicyWindow *window, const Baton__Snapshot__Window *from) {
        policy_window_reset(window);
        if (!from || from->max > CONFIG_RESTARTS_MAX)
                return;
        for (size_t i = 0; i < from->n_times_us && i < from->max; i++)
                (void) policy_window_add(window, from->max, UINT64_MAX, from->times_us[i]);
}

char *restored_text(const char *from) {
        return from && *from ? strdup(from) : NULL;
}

uint32_t snapshot_version(void) {
        return SNAPSHOT_VERSION;
}
