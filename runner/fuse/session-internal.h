#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* What the files of a session share: session.c, session-recover.c, worker.c. */

#include <pthread.h>

#include "runner/fuse/session.h"

typedef struct Workers Workers;
typedef struct Worker Worker;
typedef struct Job Job;

enum {
        SESSION_STOPPED = 2, /* the loop was told to end */
};

/* A request in the slot of the same number. */
struct Job {
        enum { JOB_FREE, JOB_WAITING, JOB_RUNNING } state;
        uint64_t unique;
        Transferred transferred;
};

struct Worker {
        Workers *workers;
        pthread_t thread;
        uint8_t *buffer;
};

/* Threads that wait for disks. They are started when they are needed, and kept. */
struct Workers {
        int device; /* borrowed, as the table */
        const Table *table;
        pthread_mutex_t lock;
        pthread_cond_t changed;
        bool ready, quit; /* made; ending */
        Job jobs[TABLE_SLOTS];
        Worker all[SESSION_WORKERS];
        unsigned n, n_busy;
};

struct Session {
        int device, stop_event, end_event;
        Mirror *mirror;
        uint64_t owner; /* the table's, when we loaded it last; 0: never */
        unsigned n_orphans;
        pthread_t thread;
        bool running;
        _Atomic int result; /* the thread's, at its end */
        Workers workers;
};

/* thread_start() - one that takes no signals. 0 or a negative errno. */
int thread_start(pthread_t *ret_thread, void *(*function)(void *), void *userdata);

int workers_init(Workers *workers, int device, const Table *table);

/* workers_deinit() - waits for what is being done. */
void workers_deinit(Workers *workers);

/* workers_free_slot() - one that has no job, other than @current; -1: all have. */
int workers_free_slot(Workers *workers, uint32_t current);

/* workers_give() - @transferred, which owns what it needs, moves to them. Negative: there is no thread for it. */
int workers_give(Workers *workers, uint32_t slot, uint64_t unique, Transferred *transferred);

/* workers_drain() - until all is answered. */
void workers_drain(Workers *workers);
