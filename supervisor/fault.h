#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Fault points: places in a takeover where one of the two can be made to fail, so that whoever operates baton can see what
 * becomes of it, and the tests can see to it that nothing does. `baton takeover --fault POINT' sets one, for one takeover:
 *
 *     PHASE[@SIDE]:FAULT          SIDE: predecessor (where none is named), successor
 *
 *     kill      the process is killed by SIGKILL
 *     refuse    it does not want to go on, and says so
 *     hang      it does nothing any more
 *     emfile    it gets no new descriptor, until the takeover is over
 *     CALL=ERRNO[,N]   the Nth call of CALL from there on fails, in the builds of the tests
 *
 * Only a program that was configured with --enable-fault-points has them (fault-points.c); any other refuses to be asked
 * (fault.c), and pays a call of an empty function for each phase.
 */

#include "supervisor/takeovers.h"

typedef enum FaultSide {
        FAULT_PREDECESSOR,
        FAULT_SUCCESSOR,
        _FAULT_SIDE_N,
} FaultSide;

enum {
        FAULT_TEXT_SIZE = 128, /* of a POINT, with its NUL */
        FAULT_REASON_SIZE = 256,
};

/*
 * fault_set() - in this process, which is @own, for one takeover. 0; 1: it is a point of the other side, which is to be
 * told @text; -EOPNOTSUPP, -EINVAL: with one line in @reason.
 */
int fault_set(const char *text, FaultSide own, char reason[FAULT_REASON_SIZE]);

/* fault_point() - it has come to this. 0; -ECANCELED: it is to refuse. */
int fault_point(FaultSide own, TakeoverPhase phase);

/* fault_end() - of the takeover: there is none, and what it had taken away is given back. */
void fault_end(void);
