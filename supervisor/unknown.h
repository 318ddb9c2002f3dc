#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* Fields of messages that a later version has written: kept here, and given on. */

#include <protobuf-c/protobuf-c.h>

typedef struct Unknown Unknown;

/*
 * unknown_keep() - those of @from; NULL: there are none, or no memory. unknown_add() - they are @to's, which is freed as
 * one that was unpacked; 0 or -ENOMEM. unknown_free() - accepts NULL, returns NULL.
 */
Unknown *unknown_keep(const ProtobufCMessage *from);
int unknown_add(const Unknown *unknown, ProtobufCMessage *to);
Unknown *unknown_free(Unknown *unknown);
