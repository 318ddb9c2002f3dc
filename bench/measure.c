/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Measuring: quantiles rather than means, since a pause of the machine hits one sample and not the figure; processor
 * time beside wall time, since a wake-up on another core costs more than the work.
 */

#include "bench/measure.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "common/clock.h"

void die(const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        (void) fputs("bench: ", stderr);
        (void) vfprintf(stderr, format, arguments);
        (void) fputc('\n', stderr);
        va_end(arguments);
        exit(EXIT_FAILURE);
}

void samples_add(Samples *samples, double value) {
        if (samples->n == samples->size) {
                samples->size = samples->size ? samples->size * 2 : 1024;
                samples->values = realloc(samples->values, samples->size * sizeof(double));
                if (!samples->values)
                        die("out of memory for %zu samples", samples->size);
        }
        samples->values[samples->n++] = value;
}

static int compare(const void *a, const void *b) {
        double x = *(const double *) a, y = *(const double *) b;

        return x < y ? -1 : x > y;
}

double samples_quantile(Samples *samples, double q) {
        if (samples->n == 0)
                return 0;
        qsort(samples->values, samples->n, sizeof(double), compare);
        return samples->values[(size_t) (q * (double) (samples->n - 1) + .5)];
}

double samples_median(Samples *samples) {
        return samples_quantile(samples, .5);
}

void samples_free(Samples *samples) {
        free(samples->values);
        *samples = (Samples){ 0 };
}

double measure_now(void) {
        struct timespec now;

        (void) clock_gettime(CLOCK_MONOTONIC, &now);
        return (double) now.tv_sec + (double) now.tv_nsec / 1e9;
}

void measure_pin(int cpu) {
        long n = sysconf(_SC_NPROCESSORS_ONLN);
        cpu_set_t set;

        CPU_ZERO(&set);
        for (int i = 0; i < n; i++)
                if (cpu < 0 || i == cpu % n)
                        CPU_SET((size_t) i, &set);
        if (sched_setaffinity(0, sizeof(set), &set) < 0)
                die("cannot pin this process to processor %d", cpu);
}

static double seconds(const struct rusage *usage) {
        return (double) (usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) +
               (double) (usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) / 1e6;
}

double measure_cpu(void) {
        struct rusage self, children;

        (void) getrusage(RUSAGE_SELF, &self);
        (void) getrusage(RUSAGE_CHILDREN, &children);
        return seconds(&self) + seconds(&children);
}

json_t *measure_environment(void) {
        struct utsname name;

        (void) uname(&name);
        return json_pack("{s:s, s:s, s:I, s:s}", "kernel", name.release, "machine", name.machine, "processors",
                         (json_int_t) sysconf(_SC_NPROCESSORS_ONLN), "compiler", __VERSION__);
}

void measure_write(const char *path, json_t *object) {
        if (json_dump_file(object, path, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) < 0)
                die("cannot write %s", path);
        json_decref(object);
        (void) fprintf(stderr, "written: %s\n", path);
}
