"""Native code is kept quiet, and nobody else is."""

import os
import threading

import pytest

from edgenet.frameworks import quiet


def test_stderr_is_back_when_the_quiet_blocks_of_two_threads_overlap(capfd: pytest.CaptureFixture[str]) -> None:
    within, leave = threading.Event(), threading.Event()

    def other() -> None:
        with quiet():
            within.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with quiet():
        thread.start()
        assert within.wait(10)
        os.write(2, b"unheard\n")
    os.write(2, b"unheard, as the other thread is quiet still\n")
    leave.set()
    thread.join()
    os.write(2, b"heard\n")
    assert capfd.readouterr().err == "heard\n"
