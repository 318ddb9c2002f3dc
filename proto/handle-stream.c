/* SPDX-License-Identifier: Apache-2.0 */

/* Items of both directions, between the engine's form and the application's. */

#include <errno.h>

#include "proto/handle-internal.h"

bool handle_item(Handle *handle, const Item *item) {
        struct baton_item given = {
                .type = item->envelope->type,
                .data = item->payload ? (const void *) item->payload : "",
                .size = item->size,
                .fds = item->fds,
                .n_fds = item->n_fds,
                .end = item->end,
        };

        return handle->on_item(&given, handle->item_userdata) == 0;
}

void handle_writable(Handle *handle) {
        if (handle->on_writable)
                handle->on_writable(handle->writable_userdata);
}

int handle_send(Handle *handle, const ItemParameters *parameters, unsigned flags) {
        (void) flags;
        return handle->call ? call_send(handle->call, parameters) : -ECANCELED;
}
