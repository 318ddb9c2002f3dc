/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Workers: each takes a job that waits, does it, answers it, and gives the slot back. There are as many threads as slots
 * besides the loop's own, so that a job that was accepted never waits for another.
 */

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

#include "runner/fuse/session-internal.h"

int thread_start(pthread_t *ret_thread, void *(*function)(void *), void *userdata) {
        sigset_t all, before;
        int r;

        (void) sigfillset(&all);
        (void) pthread_sigmask(SIG_SETMASK, &all, &before);
        r = pthread_create(ret_thread, NULL, function, userdata);
        (void) pthread_sigmask(SIG_SETMASK, &before, NULL);
        return -r;
}

int workers_init(Workers *workers, int device, const Table *table) {
        int r = pthread_mutex_init(&workers->lock, NULL);

        if (r != 0)
                return -r;
        r = pthread_cond_init(&workers->changed, NULL);
        if (r != 0) {
                (void) pthread_mutex_destroy(&workers->lock);
                return -r;
        }
        workers->device = device;
        workers->table = table;
        workers->ready = true;
        return 0;
}

/* next_job() - with the lock held. */
static Job *next_job(Workers *workers) {
        for (unsigned i = 0; i < TABLE_SLOTS; i++)
                if (workers->jobs[i].state == JOB_WAITING)
                        return &workers->jobs[i];
        return NULL;
}

static void run(Worker *worker, Job *job) {
        Workers *workers = worker->workers;
        struct fuse_in_header *header = (void *) table_slot(workers->table, (unsigned) (job - workers->jobs));
        Reply reply = { 0 };
        int r = transferred_run(&job->transferred, worker->buffer, false, &reply);

        r = request_answer(workers->device, job->unique, r, &reply);
        if (r < 0 && r != -ENOENT && r != -ENODEV)
                (void) request_answer(workers->device, job->unique, -EIO, NULL);
        transferred_end(&job->transferred);
        header->opcode = 0;
}

static void *worker_main(void *userdata) {
        Worker *worker = userdata;
        Workers *workers = worker->workers;
        Job *job;

        (void) pthread_mutex_lock(&workers->lock);
        for (;;) {
                job = next_job(workers);
                if (job) {
                        job->state = JOB_RUNNING;
                        (void) pthread_mutex_unlock(&workers->lock);
                        run(worker, job);
                        (void) pthread_mutex_lock(&workers->lock);
                        job->state = JOB_FREE;
                        workers->n_busy--;
                        (void) pthread_cond_broadcast(&workers->changed);
                } else if (workers->quit) {
                        break;
                } else {
                        (void) pthread_cond_wait(&workers->changed, &workers->lock);
                }
        }
        (void) pthread_mutex_unlock(&workers->lock);
        return NULL;
}

/* add_worker() - with the lock held. */
static int add_worker(Workers *workers) {
        Worker *worker = &workers->all[workers->n];
        int r;

        worker->workers = workers;
        worker->buffer = mmap(NULL, REQUEST_MAX_WRITE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (worker->buffer == MAP_FAILED)
                return -ENOMEM;
        r = thread_start(&worker->thread, worker_main, worker);
        if (r < 0)
                (void) munmap(worker->buffer, REQUEST_MAX_WRITE);
        else
                workers->n++;
        return r;
}

int workers_free_slot(Workers *workers, uint32_t current) {
        int slot = -1;

        (void) pthread_mutex_lock(&workers->lock);
        for (unsigned i = 0; i < TABLE_SLOTS && slot < 0; i++)
                if (i != current && workers->jobs[i].state == JOB_FREE)
                        slot = (int) i;
        (void) pthread_mutex_unlock(&workers->lock);
        return slot;
}

int workers_give(Workers *workers, uint32_t slot, uint64_t unique, Transferred *transferred) {
        int r = 0;

        (void) pthread_mutex_lock(&workers->lock);
        if (workers->n_busy == workers->n)
                r = workers->n < SESSION_WORKERS ? add_worker(workers) : -EAGAIN;
        if (r == 0) {
                workers->jobs[slot] = (Job){ .state = JOB_WAITING, .unique = unique, .transferred = *transferred };
                *transferred = TRANSFERRED_NULL;
                workers->n_busy++;
                (void) pthread_cond_broadcast(&workers->changed);
        }
        (void) pthread_mutex_unlock(&workers->lock);
        return r;
}

void workers_drain(Workers *workers) {
        (void) pthread_mutex_lock(&workers->lock);
        while (workers->n_busy > 0)
                (void) pthread_cond_wait(&workers->changed, &workers->lock);
        (void) pthread_mutex_unlock(&workers->lock);
}

void workers_deinit(Workers *workers) {
        if (!workers->ready)
                return;
        (void) pthread_mutex_lock(&workers->lock);
        workers->quit = true;
        (void) pthread_cond_broadcast(&workers->changed);
        (void) pthread_mutex_unlock(&workers->lock);
        for (unsigned i = 0; i < workers->n; i++) {
                (void) pthread_join(workers->all[i].thread, NULL);
                (void) munmap(workers->all[i].buffer, REQUEST_MAX_WRITE);
        }
        (void) pthread_cond_destroy(&workers->changed);
        (void) pthread_mutex_destroy(&workers->lock);
}
