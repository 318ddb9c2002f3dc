#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What a runner's Save gives and its Takeover takes (baton.handover.Service): the version of the manifest, the names in it,
 * and the order of an upgrade, as both halves see it:
 *
 *         supervisor                               predecessor A                successor B
 *         starts B                                                              Hello: INIT
 *         Stop(handover) to A                      READY; clients are frozen
 *         a SOCK_SEQPACKET pair; Save(one end)
 *         to A and Takeover(other end) to B        gives; answers when B has    takes, restores; READY; has not touched
 *                                                  accepted every descriptor    a client
 *         both answered: ACTIVE(name, B)
 *         Start to B                                                            RUNNING; the clients live here
 *         Exit to A                                open calls go on over the
 *                                                  links; STOPPED, answered,
 *                                                  when they have ended
 *
 * Before ACTIVE any failure: B is killed, Start to A: its clients go on as if nothing had been. A's Exit is answered when
 * its calls have ended; who does not want to wait signals it. What a supervisor keeps of a checkpoint is the manifest, by
 * manifest_pack(), and the descriptors in its order; transfer_give() gives it to a Takeover.
 *
 * A runner whose Hello says INIT and which is no successor gets Mount and Start; one that says RUNNING (or 0) has no
 * service.
 */

#define SERVICE_SNAPSHOT_VERSION 1u
#define SERVICE_SNAPSHOT_NAME    "snapshot"
#define SERVICE_STATE_NAME       "state"
