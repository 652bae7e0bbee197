import os
import subprocess
import sys

import pytest

from codesign.search import worker


def test_this_process_lives():
    me = worker.this_worker()
    assert me["pid"] == os.getpid()
    assert not worker.is_dead(me)


def test_a_process_that_ended_is_dead_also_before_it_is_waited_for():
    program = "import sys; sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    status = worker._status(child.pid)
    start = status[1] if status else ""
    theirs = {**worker.this_worker(), "pid": child.pid, "start": start}
    assert not worker.is_dead(theirs)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    if status:
        assert worker.is_dead(theirs)
    child.communicate()
    assert worker.is_dead(theirs)


def test_a_later_process_with_the_same_id_is_another():
    assert worker.is_dead({**worker.this_worker(), "start": "1"})


def test_a_restarted_host_has_lost_its_processes():
    assert worker.is_dead({**worker.this_worker(), "boot": "another"})


@pytest.mark.parametrize("key", ["host", "namespace"])
def test_other_hosts_and_containers_cannot_be_seen(key):
    elsewhere = {**worker.this_worker(), key: "another", "start": "1", "boot": "x"}
    assert not worker.is_dead(elsewhere)


def test_without_proc_the_process_id_decides(monkeypatch):
    monkeypatch.setattr(worker, "_text", lambda path: "")
    me = worker.this_worker()
    assert me["start"] == ""
    assert not worker.is_dead(me)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert worker.is_dead({**me, "pid": child.pid})
    assert not worker.is_dead({**me, "pid": 1})
