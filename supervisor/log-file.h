#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The file of one log: the lines of its ring, written in batches, rotated by size and age. */

#include "supervisor/log-config.h"
#include "supervisor/log-ring.h"

typedef struct LogFile LogFile;

enum { LOG_FILE_BUFFER_SIZE = 64 * 1024 + LOG_WRITTEN_MAX };

#define LOG_FILE_RETRY_US (1 * USEC_PER_SEC) /* after a failure */

/* log_file_new() - @name, of the runner, @path and @config stay the caller's. Opens nothing yet. 0 or -ENOMEM. */
int log_file_new(LogFile **ret_file, const char *name, const char *path, const LogConfig *config);
LogFile *log_file_free(LogFile *file);
DEFINE_CLEANUP(LogFile *, log_file_free);

/*
 * log_file_write() - all lines of @ring that the file has not got, through @buffer of LOG_FILE_BUFFER_SIZE. 0, or a
 * negative errno: it lacks some, and is tried again by the first call after LOG_FILE_RETRY_US.
 */
int log_file_write(LogFile *file, LogRing *ring, char *buffer);

/* log_file_error() - the negative errno of the last attempt; 0: all is well. log_file_retry() - when to call again. */
int log_file_error(const LogFile *file);
uint64_t log_file_retry(const LogFile *file);
