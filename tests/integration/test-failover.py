#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Failover of a native runner: its checkpoints outlive it, the supervisor, and a takeover; what takes its place goes on from
the last one, and attached clients stay. Nothing that was acknowledged after a checkpoint is lost. Short, unless BATON_SOAK is
set: then 100 kills, and 1,000 checkpoints."""

import json
import os
import signal
import subprocess

import baton_wire as wire

wire.need_protobuf()

import daemon_tests  # noqa: E402
from daemon_tests import BUILD, FACTOR, TIMEOUT, is_alive, main, owned, test, until, until_alone  # noqa: E402
from state_runner import RUNNER, call, plan, who  # noqa: E402

LONG = bool(os.environ.get("BATON_SOAK"))
KILLS = int(os.environ.get("BATON_TEST_KILLS", "100" if LONG else "10"))
CHECKPOINTS = 1000 if LONG else 100
LOAD = os.path.join(BUILD, "tests", "keep-load")
KEYS = {"restart": "always", "recover": "failover", "backoff": "{ initial: 0s }", "intensity": "{ restarts: 0 }"}


def configuration(daemon, arguments, keys):
    daemon.plan = os.path.join(daemon.folder, "plan")
    command = json.dumps([RUNNER, "--plan", daemon.plan, *map(str, arguments)])
    more = "".join(f", {key}: {value}" for key, value in {**KEYS, **keys}.items() if value is not None)
    return f"runners:\n  s: {{ command: {command}, ready: hello{more} }}\n"


def start(daemon, *arguments, **keys):
    daemon.start(configuration(daemon, arguments, keys), BATON_LOG_LEVEL="info")
    return daemon.until_state("s", "up")["pid"]


def checkpoint(daemon):
    return json.loads(daemon.baton("checkpoint", "s", "--json", timeout=3 * TIMEOUT).stdout)


def fails(daemon, code, *texts):
    done = daemon.baton("checkpoint", "s", check=False, timeout=6 * TIMEOUT)
    assert done.returncode == code and all(text in done.stderr for text in texts), (done.returncode, done.stderr)


def another(daemon, *before):
    """The pid of the next process that serves. The one before is named: that it has ended may not be known yet."""
    status = until(lambda: (s := daemon.status("s"))["state"] == "up" and s.get("pid", 0) not in (0, *before) and s, "another process",
                   3 * TIMEOUT)
    return status["pid"]


def kill(daemon, pid=None, number=signal.SIGKILL):
    """The pid of who takes its place."""
    pid = pid or daemon.pid("s")
    os.kill(pid, number)
    return another(daemon, pid)


def kill_supervisor(daemon):
    before = daemon.supervisor()
    os.kill(before, signal.SIGKILL)
    until(lambda: daemon.baton("status", check=False).returncode == 0 and daemon.supervisor() not in (0, before),
          "another supervisor")


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def held(daemon):
    supervisor = daemon.supervisor()
    until_alone(daemon)
    return descriptors(supervisor), descriptors(daemon.keeper())


def settled(daemon):
    """The same, when the clients before are gone, and the keeper, which answers in order, has done all that it was asked for."""
    daemon.baton("signal", "s", "CONT")
    supervisor = daemon.supervisor()

    def same():
        until_alone(daemon)
        before = descriptors(supervisor), descriptors(daemon.keeper())
        daemon.baton("status")
        until_alone(daemon)
        return before if (descriptors(supervisor), descriptors(daemon.keeper())) == before else None
    return until(same, "a supervisor at rest")


class Load:
    """An attached client, and what it has counted."""

    def __init__(self, daemon, n_open=8):
        self.process = subprocess.Popen([LOAD, "s", str(n_open)], stdout=subprocess.PIPE, text=True,
                                        env=daemon.environment)
        owned.add(self.process.pid)
        self.acknowledged()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def acknowledged(self):
        """Returns when calls are."""
        line = self.process.stdout.readline()
        assert line == "acknowledged\n", line

    def renewed(self):
        """The same, of calls that are begun from now on."""
        self.process.send_signal(signal.SIGUSR1)
        self.acknowledged()

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=9 * TIMEOUT)
        return json.loads(out.splitlines()[-1])


def nothing_is_lost(daemon, counted):
    assert counted["lost"] == 0 and counted["failed"] == 0 and counted["open"] == 0 and not counted["ended"], counted
    assert counted["acknowledged"] > 0 and int(call(daemon, "Get")) >= counted["highest"], counted


@test
def another_goes_on_from_the_last_checkpoint(daemon):
    before = start(daemon)
    assert "time_us" not in daemon.status("s")["checkpoint"]
    call(daemon, "Add", 41)
    kept = checkpoint(daemon)
    assert kept["outcome"] == "kept" and kept["state_size"] == 8 and kept["descriptors"] == 0, kept
    call(daemon, "Add", 1000)
    after = kill(daemon, before)
    assert call(daemon, "Get") == "41" and call(daemon, "Keep") == "42"
    status = daemon.status("s")
    assert status["pid"] == after and status["failover"] and status["failovers"] == 1 and status["restarts"] == 1, status
    made = status["checkpoint"]
    assert made["state_size"] == 8 and made["made"] == 2 and made["failed"] == 0 and "reason" not in made, made
    events = [json.loads(line) for line in daemon.baton("events", "--json").stdout.splitlines()]
    assert [e["pid"] for e in events if e["kind"] == "runner_failover"] == [after], events
    assert "Takeover: INIT -> READY" in daemon.baton("logs", "s").stdout
    metrics = daemon.baton("metrics").stdout
    assert 'baton_runner_checkpoints_total{runner="s"} 2\n' in metrics and 'failovers{runner="s"} 1\n' in metrics, metrics
    assert "failovers  1, the last start too\n" in daemon.baton("status", "s").stdout


@test
def without_one_it_begins_with_nothing(daemon):
    start(daemon)
    call(daemon, "Add", 41)
    kill(daemon)
    assert call(daemon, "Get") == "0" and "failover" not in daemon.status("s")
    assert "there is no checkpoint of it: it begins with nothing" in daemon.said()


@test
def what_is_held(daemon):
    """`baton fds' has what the checkpoint holds, and the lanes of attached clients."""
    def fds():
        return json.loads(daemon.baton("fds", "s", "--json").stdout)["fds"]

    start(daemon, "--fds", 3)
    assert fds() == []
    kept = checkpoint(daemon)
    listed = fds()
    assert {fd["kind"] for fd in listed} == {"checkpoint"} and not any("fd" in fd for fd in listed), listed
    assert {"snapshot", "state"} < {fd["name"] for fd in listed} and len(listed) == 2 + kept["descriptors"] == 5, listed
    with Load(daemon, 1):
        assert [fd["kind"] for fd in fds()] == ["checkpoint"] * 5 + ["client"]
        assert "\n   -  client " in daemon.baton("fds", "s").stdout
    until(lambda: len(fds()) == 5, "the end of the client's lane")


@test
def ten_megabytes_and_a_thousand_descriptors(daemon):
    start(daemon, "--size", 10 << 20, "--fds", 1000)
    kept = checkpoint(daemon)
    assert kept["state_size"] == (10 << 20) + 8 and kept["descriptors"] == 1000, kept
    pid = kill(daemon)
    assert who(daemon) == (pid, "state", 10 << 20, 1000)
    kill_supervisor(daemon)
    pid = kill(daemon)
    assert who(daemon) == (pid, "state", 10 << 20, 1000)


ten_megabytes_and_a_thousand_descriptors.seconds = 6 * TIMEOUT


@test
def killed_under_load(daemon):
    """What an attached client was told is kept, however often its runner dies. The connection stays."""
    pid = start(daemon)
    with Load(daemon) as load:
        for _ in range(KILLS):
            pid = kill(daemon, pid)
            load.renewed()
        counted = load.end()
    print(f"# {KILLS} kills, {counted['acknowledged']} calls acknowledged, {counted['unavailable']} ended UNAVAILABLE; "
          f"longest gap {counted['gap_us'] / 1000:.1f} ms")
    nothing_is_lost(daemon, counted)
    assert daemon.status("s")["failovers"] == KILLS


killed_under_load.seconds = (60 if LONG else 6) * TIMEOUT


def three_times(daemon, end_one, failovers=3):
    """Under load: @end_one(pid, number) is the end of a process, and returns the next one's pid. Nothing is lost."""
    pid = start(daemon)
    with Load(daemon) as load:
        for number in range(3):
            pid = end_one(pid, number)
            load.renewed()
        counted = load.end()
    nothing_is_lost(daemon, counted)
    assert daemon.status("s")["failovers"] == failovers


@test
def the_supervisor_first_then_the_runner(daemon):
    def end_one(pid, _):
        kill_supervisor(daemon)
        assert daemon.pid("s") == pid
        return kill(daemon, pid)
    three_times(daemon, end_one)


the_supervisor_first_then_the_runner.seconds = 6 * TIMEOUT


@test
def both_at_once(daemon):
    def end_one(pid, _):
        supervisor = daemon.supervisor()
        os.kill(supervisor, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        until(lambda: daemon.baton("status", check=False).returncode == 0, "another supervisor")
        return another(daemon, pid)
    three_times(daemon, end_one)


both_at_once.seconds = 6 * TIMEOUT


@test
def a_takeover_then_the_runner(daemon):
    """What waits for a checkpoint crosses, and so do the last one and the lanes."""
    def end_one(pid, number):
        daemon.baton("takeover", timeout=4 * TIMEOUT)
        assert daemon.pid("s") == pid
        if number == 1:
            daemon.baton("takeover", "--keeper", timeout=4 * TIMEOUT)
        return kill(daemon, pid)
    three_times(daemon, end_one)


a_takeover_then_the_runner.seconds = 9 * TIMEOUT


@test
def an_upgrade_then_the_runner(daemon):
    """Checkpoints wait for the upgrade, and are made of the successor then."""
    def end_one(*_):
        daemon.baton("upgrade", "s", timeout=4 * TIMEOUT)
        return kill(daemon, daemon.pid("s"))
    three_times(daemon, end_one)


an_upgrade_then_the_runner.seconds = 9 * TIMEOUT


@test
def one_that_is_asked_for_in_an_upgrade_is_of_the_successor(daemon):
    """It waits, and who asked is told when the process that serves then has made it."""
    begin = lambda *words: subprocess.Popen([daemon_tests.BATON, *words], env=daemon.environment, text=True,  # noqa: E731
                                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    before = start(daemon)
    call(daemon, "Add", 5)
    plan(daemon, "restore=wait")
    with begin("upgrade", "s") as upgrade:
        until(lambda: os.path.exists(daemon.plan + ".at"), "the successor")
        asked = begin("checkpoint", "s", "--json")
        for _ in range(5):
            status = daemon.status("s")
            assert status["pid"] == before and status["checkpoint"]["made"] == 0 and asked.poll() is None, status
        with open(daemon.plan + ".go", "w", encoding="utf-8"):
            pass
        assert upgrade.wait(3 * TIMEOUT) == 0, upgrade.stderr.read()
        out, err = asked.communicate(timeout=3 * TIMEOUT)
        assert asked.returncode == 0 and json.loads(out)["state_size"] > 0, (out, err)
    until(lambda: (s := daemon.status("s"))["pid"] != before and s["checkpoint"]["instance"] == s["instance"],
          "a checkpoint of the successor")
    kill(daemon)
    assert call(daemon, "Get") == "5"


@test
def one_that_is_frozen_is_killed_first(daemon):
    pid = start(daemon, watchdog=f"{FACTOR:g}s")
    assert call(daemon, "Keep") == "1"
    os.kill(pid, signal.SIGSTOP)
    after = another(daemon, pid)
    assert not is_alive(pid) and after != pid
    assert call(daemon, "Keep") == "2"
    status = daemon.status("s")
    assert status["last_exit"]["cause"] == "watchdog" and status["failovers"] == 1, status


one_that_is_frozen_is_killed_first.seconds = 3 * TIMEOUT


@test
def from_time_to_time(daemon):
    start(daemon, checkpoint="{ every: 50ms }")
    call(daemon, "Add", 7)
    first = until(lambda: daemon.status("s")["checkpoint"].get("time_us"), "a checkpoint")
    until(lambda: daemon.status("s")["checkpoint"]["time_us"] > first, "another checkpoint")
    until(lambda: daemon.status("s")["checkpoint"]["made"] > 3, "more checkpoints")
    kill(daemon)
    assert call(daemon, "Get") == "7"
    kill_supervisor(daemon)
    until(lambda: daemon.status("s")["checkpoint"]["made"] > 3, "checkpoints of the next supervisor")


@test
def descriptors_stay_constant(daemon):
    start(daemon, "--fds", 20)
    call(daemon, "Keep")  # what is made once is there now
    before = settled(daemon)
    for _ in range(CHECKPOINTS):
        call(daemon, "Keep")
    until(lambda: held(daemon) == before, "the end of every descriptor")
    daemon.baton("stop", "s")
    until(lambda: all(now < then - 20 for now, then in zip(held(daemon), before)), "the end of the last checkpoint")


descriptors_stay_constant.seconds = (60 if LONG else 6) * TIMEOUT


@test
def what_ends_in_order_leaves_none(daemon):
    start(daemon)
    for words in (["restart", "s"], ["stop", "s"]):
        call(daemon, "Keep")
        daemon.baton(*words)
        if words[0] == "stop":
            assert "time_us" not in daemon.status("s")["checkpoint"]
            daemon.baton("start", "s")
        assert call(daemon, "Get") == "0" and "failover" not in daemon.status("s"), words
    call(daemon, "Keep")
    daemon.configure(configuration(daemon, [], {"recover": "fresh"}))
    daemon.baton("reload")
    fails(daemon, 25, "keeps no checkpoints: that needs 'recover: failover' in its configuration")
    kill(daemon)
    assert call(daemon, "Get") == "0"


@test
def a_successor_that_fails(daemon):
    """It is named, and tried again as any start; the checkpoint stays until one can."""
    start(daemon, start_timeout="1s", backoff="{ initial: 50ms, max: 50ms }")
    call(daemon, "Add", 5)
    checkpoint(daemon)
    for what, text in (("refuse", "no restore today"), ("die", "exited with status 7 before it had taken over from its checkpoint"),
                       ("hang", "did not take over from its checkpoint within 1 s")):
        plan(daemon, f"restore={what}")
        os.kill(daemon.pid("s"), signal.SIGKILL)
        until(lambda: text in daemon.said(), f"the end of one that is to {what}", 3 * TIMEOUT)
        plan(daemon)
        daemon.until_state("s", "up", 3 * TIMEOUT)
        assert call(daemon, "Get") == "5", what


a_successor_that_fails.seconds = 6 * TIMEOUT


@test
def a_limit_of_restarts_leaves_the_checkpoint(daemon):
    start(daemon, intensity="{ restarts: 2, within: 1h }")
    call(daemon, "Add", 5)
    checkpoint(daemon)
    plan(daemon, "restore=refuse")
    with Load(daemon, 1) as load:
        os.kill(daemon.pid("s"), signal.SIGKILL)
        status = daemon.until_state("s", "failed")
        assert "no restore today" in status["reason"], status
        assert load.process.wait(TIMEOUT) == 0, "nobody waits for one that does not come"
    kill_supervisor(daemon)
    assert daemon.status("s")["state"] == "failed"
    plan(daemon)
    daemon.baton("start", "s")
    assert int(call(daemon, "Get")) >= 5 and daemon.status("s")["failover"]


@test
def a_checkpoint_that_fails_leaves_the_last(daemon):
    start(daemon)
    call(daemon, "Add", 5)
    checkpoint(daemon)
    plan(daemon, "save=refuse")
    kill(daemon)
    call(daemon, "Add", 1)
    fails(daemon, 29, "no checkpoint: Save failed in state RUNNING: no save today")
    assert "no save today" in daemon.status("s")["checkpoint"]["reason"]
    assert "checkpoint_failed" in daemon.baton("events", "--json").stdout
    plan(daemon, "save=die")
    pid = kill(daemon)
    assert call(daemon, "Get") == "5"
    fails(daemon, 30, "its process has ended")
    plan(daemon)
    another(daemon, pid)
    assert call(daemon, "Get") == "5"


@test
def one_that_takes_too_long_leaves_the_last(daemon):
    """The runner hangs in its save(): who waits is told, what it gives afterwards is nobody's, and the next one works. How long
    it may take is known to the one that is asked for after a reload, which changes nothing else."""
    start(daemon)
    call(daemon, "Add", 5)
    checkpoint(daemon)
    plan(daemon, "save=wait")
    pid = kill(daemon)
    call(daemon, "Add", 1)
    before = settled(daemon)
    daemon.configure(configuration(daemon, (), {"checkpoint": "{ timeout: 300ms }"}))
    daemon.baton("reload")
    fails(daemon, 20, "no checkpoint: it took more than 0.3 s")
    assert daemon.status("s")["checkpoint"]["failed"] == 1 and daemon.pid("s") == pid
    daemon.configure(configuration(daemon, (), {}))
    daemon.baton("reload")
    with open(daemon.plan + ".go", "w", encoding="utf-8"):
        pass
    assert call(daemon, "Get") == "6"
    until(lambda: held(daemon) == before, "the end of every descriptor")
    checkpoint(daemon)
    kill(daemon)
    assert call(daemon, "Get") == "6" and daemon.status("s")["restarts"] == 2


@test
def limits_are_the_configuration_s(daemon):
    """What has more than that is refused, with the number, and the one before stays."""
    start(daemon, "--size", 10000, "--fds", 20)
    kept = checkpoint(daemon)
    assert kept["state_size"] >= 10000 and kept["descriptors"] == 20, kept
    for limit, text in (("max_fds: 19", "20 descriptors, and it may have 19"),
                        ("max_state: 9999", "the state has more than the 9999 bytes that it may have")):
        daemon.configure(configuration(daemon, ("--size", 10000, "--fds", 20), {"checkpoint": f"{{ {limit} }}"}))
        daemon.baton("reload")
        before = settled(daemon)
        done = daemon.baton("checkpoint", "s", check=False)
        assert done.returncode > 16 and text in done.stderr, done
        status = daemon.status("s")["checkpoint"]
        assert status["descriptors"] == 20 and text in status["reason"], status
        until(lambda: held(daemon) == before, "the end of every descriptor")
    kill(daemon)
    now = who(daemon)
    assert (now.size, now.fds) == (10000, 20) and daemon.status("s")["failover"], now


@test
def by_hand(daemon):
    pid = start(daemon)
    call(daemon, "Add", 5)
    checkpoint(daemon)
    daemon.configure(configuration(daemon, [], {"service": "manual"}))
    daemon.baton("reload")
    os.kill(pid, signal.SIGKILL)
    another(daemon, pid)
    assert daemon.status("s")["service_state"] == 1
    assert daemon.baton("service", "s", "takeover").stdout == "s: READY, after Takeover\n"
    assert daemon.baton("service", "s", "start").stdout == "s: RUNNING, after Start\n"
    assert call(daemon, "Get") == "5"
    done = daemon.baton("service", "s", "takeover", check=False)
    assert done.returncode == 25 and "Takeover is refused in state RUNNING" in done.stderr, done.stderr


@test
def clients_go_when_they_want(daemon):
    start(daemon)
    call(daemon, "Keep")
    before = settled(daemon)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with Load(daemon) as load:
            load.process.send_signal(number)
            load.process.wait(TIMEOUT)
        until(lambda: held(daemon) == before, "the end of the lane")
    with Load(daemon) as load:
        daemon.baton("stop", "s", timeout=3 * TIMEOUT)
        assert load.process.wait(TIMEOUT) == 0


# A runner that gives what it should not, as its plan says.
HOSTILE = r"""
import os, socket, struct, sys, fcntl
import baton_wire as wire
F_ADD_SEALS, SEALS = 1033, 1 | 2 | 4 | 8
def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])
def field(number, value):
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)
def memory(data, seal=True, size=None):
    fd = os.memfd_create("hostile", os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    if size:
        os.ftruncate(fd, size)
    if seal:
        fcntl.fcntl(fd, F_ADD_SEALS, SEALS)
    return fd
def describe(name, fd, inode=None):
    st = os.fstat(fd)
    return (field(1, name.encode()) + field(2, 3) + field(3, st.st_dev) + field(4, inode or st.st_ino) + field(5, 2))
def message(kind, first, n):
    return struct.pack("=IIQQ512s", 0x426e7402, kind, first, n, b"")
def save(end, plan):
    state = memory(b"12345678", seal=plan != "unsealed", size=(1 << 30) + 1 if plan == "large" else None)
    fds = [("snapshot", memory(b"")), ("other" if plan == "names" else "state", state)]
    if plan == "more":
        fds.append(("fd/0", memory(b"")))
    if plan == "empty":
        fds = []
    listed = [describe(name, fd, 1 if plan == "other" and name == "state" else None) for name, fd in fds]
    if plan == "fewer":
        listed.append(describe("fd/0", state))
    manifest = memory(field(1, 99 if plan == "version" else 1) + b"".join(field(2, one) for one in listed))
    if plan == "rubbish":
        manifest = memory(b"\\xff" * 100)
    if plan == "empties":
        manifest = memory(field(1, 1) + field(2, b"") * 1000)
    if plan == "lies":
        manifest = memory(field(1, 1) + b"".join(field(2, describe(f"fd/{n}", state)) for n in range(20)))
    if plan == "heavy":
        manifest = memory(b"\\x12\\x00" * (1 << 22))
    if plan == "word":
        end.send(message(5, 0, 0))
    claimed = {"claims": 70000, "five": 7}.get(plan, len(listed))
    socket.send_fds(end, [message(1, 0, claimed)], [manifest])
    end.recv(1024)
    if fds:
        socket.send_fds(end, [message(2, 0, len(fds))], [fd for _, fd in fds])
    if plan != "fewer":
        end.recv(1024)
state = 1
def serve(call):
    global state
    method, plan = call.envelope.method, open(sys.argv[1]).read().strip()
    if method == "baton.Runner/Info":
        info = wire.baton.InfoResponse(service=True, saves=True, service_state=state, version=1, version_min=1)
        call.answer(info.SerializeToString(), type="baton.InfoResponse")
    elif method in ("baton.Runner/Mount", "baton.Runner/Start"):
        event = wire.baton.LifecycleEvent.FromString(call.payload).event
        state = 3 if method.endswith("Mount") else 2
        call.answer(wire.baton.LifecycleState(service_state=state, event=event).SerializeToString(),
                    type="baton.LifecycleState")
    elif method == "baton.Runner/Save":
        request = wire.baton.SaveRequest.FromString(call.payload)
        with socket.socket(fileno=call.fds[request.socket]) as end:
            end.setblocking(True)
            try:
                save(end, plan)
            except OSError:
                pass
        answer = wire.baton.SaveResponse(state_size=9 if plan == "size" else 8, descriptors=0)
        call.answer(answer.SerializeToString(), type="baton.SaveResponse")
    else:
        call.answer(status=wire.UNIMPLEMENTED, message="no")
lane = socket.socket(socket.AF_UNIX)
lane.connect(os.environ["BATON_BOOTSTRAP"])
peer = wire.Peer(lane, side=1, channels=3, on_call=serve, service_state=1)
while True:
    peer.turn(1000)
"""


@test
def what_is_no_checkpoint_is_refused(daemon):
    """Of a runner that is not made with libbaton, or sick: each by its name; the one before stays, and nothing else."""
    script, daemon.plan = (os.path.join(daemon.folder, name) for name in ("hostile.py", "plan"))
    with open(script, "w", encoding="utf-8") as file:
        file.write(HOSTILE)
    plan(daemon, "good")
    here = os.path.dirname(os.path.abspath(__file__))
    command = json.dumps([daemon_tests.sys.executable, "-B", script, daemon.plan])
    daemon.start(f"runners:\n  s: {{ command: {command}, ready: hello, recover: failover, start_timeout: 1min,"
                 f" channels: [filesystem, data], env: {{ PYTHONPATH: {here} }},"
                 f" checkpoint: {{ max_fds: 4 }} }}\n")
    daemon.until_state("s", "up", 6 * TIMEOUT)
    kept = checkpoint(daemon)
    assert kept["state_size"] == 8 and kept["descriptors"] == 0, kept
    made, before = daemon.status("s")["checkpoint"]["time_us"], settled(daemon)
    for what, text in (("large", "the state has more than the 1073741824 bytes that it may have"),
                       ("unsealed", "the state is no sealed memory"),
                       ("names", "descriptor 1 is called other"),
                       ("more", "1 descriptors and 8 bytes came, and the runner says that it has given 0 and 8"),
                       ("size", "0 descriptors and 8 bytes came, and the runner says that it has given 0 and 9"),
                       ("empty", "the state is missing"),
                       ("fewer", "is gone"),
                       ("other", "state is a file, but"),
                       ("version", "the state is of version 99"),
                       ("rubbish", "the manifest cannot be read"),
                       ("empties", "the manifest cannot be read"),
                       ("lies", "the manifest lists 20 descriptors, and 6 are possible"),
                       ("heavy", "the manifest is no sealed memory of at most 3584 bytes: File too large"),
                       ("claims", "69998 descriptors, and it may have 4"),
                       ("five", "5 descriptors, and it may have 4"),
                       ("word", "a word came, and none was expected")):
        plan(daemon, what)
        done = daemon.baton("checkpoint", "s", check=False, timeout=6 * TIMEOUT)
        assert done.returncode > 16 and "no checkpoint: " in done.stderr and text in done.stderr, (what, done.stderr)
        status = daemon.status("s")
        assert status["checkpoint"]["time_us"] == made and text in status["checkpoint"]["reason"], (what, status)
        until(lambda: held(daemon) == before, f"the end of every descriptor after {what}")
    plan(daemon, "good")
    checkpoint(daemon)
    assert "reason" not in daemon.status("s")["checkpoint"]


what_is_no_checkpoint_is_refused.seconds = 9 * TIMEOUT


main()
