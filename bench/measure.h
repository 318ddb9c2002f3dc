#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* What the benchmarks share: samples and their quantiles, processors, processor time, JSON. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Measured values, in any order. */
typedef struct Samples {
        double *values;
        size_t n, size;
} Samples;

void samples_add(Samples *samples, double value);
/* samples_quantile() - of 0..1; sorts. 0 without samples. */
double samples_quantile(Samples *samples, double q);
double samples_median(Samples *samples);
void samples_free(Samples *samples);

/* measure_now() - seconds of the monotonic clock. */
double measure_now(void);

/* measure_pin() - this process to processor @cpu (modulo how many there are); -1: to all. */
void measure_pin(int cpu);

/* measure_cpu() - processor seconds, user and system, of this process and its children that were waited for. */
double measure_cpu(void);

/* measure_environment() - what a figure depends on: kernel, processors, compiler. */
json_t *measure_environment(void);

/* measure_write() - @object into @path, indented; says so on standard error. Takes @object. */
void measure_write(const char *path, json_t *object);

/* die() - a benchmark that cannot go on says why and ends. */
void die(const char *format, ...) __attribute__((__noreturn__, __format__(__printf__, 1, 2)));

#ifdef __cplusplus
}
#endif
