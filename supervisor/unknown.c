/* SPDX-License-Identifier: Apache-2.0 */

/* Unknown: a copy of a message's unknown fields, and copies of that for other messages. */

#include "supervisor/unknown.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct Unknown {
        unsigned n;
        ProtobufCMessageUnknownField *fields;
};

static void free_fields(ProtobufCMessageUnknownField *fields, unsigned n) {
        for (unsigned i = 0; i < n; i++)
                free(fields[i].data);
        free(fields);
}

/* copy_fields() - NULL: no memory. */
static ProtobufCMessageUnknownField *copy_fields(const ProtobufCMessageUnknownField *from, unsigned n) {
        ProtobufCMessageUnknownField *to = calloc(n, sizeof(*to));

        for (unsigned i = 0; to && i < n; i++) {
                to[i] = from[i];
                to[i].data = malloc(from[i].len + 1);
                if (!to[i].data) {
                        free_fields(to, i);
                        return NULL;
                }
                memcpy(to[i].data, from[i].data, from[i].len);
        }
        return to;
}

Unknown *unknown_keep(const ProtobufCMessage *from) {
        Unknown *unknown = from->n_unknown_fields > 0 ? malloc(sizeof(*unknown)) : NULL;

        if (!unknown)
                return NULL;
        unknown->n = from->n_unknown_fields;
        unknown->fields = copy_fields(from->unknown_fields, unknown->n);
        if (unknown->fields)
                return unknown;
        free(unknown);
        return NULL;
}

int unknown_add(const Unknown *unknown, ProtobufCMessage *to) {
        if (!unknown)
                return 0;
        to->unknown_fields = copy_fields(unknown->fields, unknown->n);
        to->n_unknown_fields = to->unknown_fields ? unknown->n : 0;
        return to->unknown_fields ? 0 : -ENOMEM;
}

Unknown *unknown_free(Unknown *unknown) {
        if (!unknown)
                return NULL;
        free_fields(unknown->fields, unknown->n);
        free(unknown);
        return NULL;
}
