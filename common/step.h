#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Steps of a takeover, told as they are taken, by builds with fault points (step-file.c) into the file that $BATON_STEPS
 * names: `PID WHO STEP SUBJECT', a line each (SUBJECT: the process that it is about, or 0), in the order in which they were
 * taken by all processes. What is to be sent is told before, what was received after. tests/steps.py holds the order
 * against that of tests/model/takeover.pml, whose words these are. Any other build tells nothing (step.c).
 */

#include <sys/types.h>

/* step_note() - @who: "keeper", "supervisor". @subject: 0: it is about no other process. */
void step_note(const char *who, const char *step, pid_t subject);
