#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What all that write down a part of the supervisor for a successor share: messages as baton__snapshot__*__free_unpacked()
 * frees them. A part is written by its X_save(), and read by its X_restore(), which takes nothing for granted: it may come
 * from another version, or from a sick process, and where a value cannot be it is the nearest one that can, or left out.
 */

#include <stdbool.h>
#include <stddef.h>

#include "common/macro.h"
#include "proto/snapshot.pb-c.h"
#include "supervisor/policy.h"

/* A message under way. Null value: all zero. */
typedef struct Save {
        int error; /* the first: -ENOMEM; nothing more is done after it */
} Save;

/* save_message() - an initialised one; NULL: no memory, and noted. */
void *save_message(Save *save, const ProtobufCMessageDescriptor *type);

/* save_array() - @n zeroes of @size; NULL where there are none, or no memory. */
void *save_array(Save *save, size_t n, size_t size);

/* save_text() - NULL stays the empty text. save_texts() - @from is ended by NULL, or is NULL: none. */
void save_text(Save *save, char **to, const char *from);
void save_texts(Save *save, char ***to, size_t *ret_n, const char *const *from);

/* save_numbers() - */
void save_numbers(Save *save, uint64_t **to, size_t *ret_n, const uint64_t *from, size_t n);

/* save_done() - @message (NULL: none) is @ret_message's, or, after an error, freed. Returns the error. */
int save_done(const Save *save, void *message, void *ret_message);

/* window_save(), window_restore() - of restarts; NULL where there are none. */
void window_save(Save *save, const PolicyWindow *window, Baton__Snapshot__Window **to);
void window_restore(PolicyWindow *window, const Baton__Snapshot__Window *from);

/* restored_text() - a copy, the caller's to free; NULL of an empty one, or without memory. */
char *restored_text(const char *from);
/* restored_number() - @value, if it is below @limit, else @otherwise. */
static inline unsigned restored_number(uint32_t value, unsigned limit, unsigned otherwise) {
        return value < limit ? (unsigned) value : otherwise;
}
