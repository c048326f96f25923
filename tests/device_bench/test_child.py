"""child.py: another program ends, and its output too, whatever it does."""

import subprocess
import sys
import tempfile
import time

import pytest

from edgenet.device_bench import child


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_what_a_program_printed_and_how_it_ended_is_returned() -> None:
    done = child.run(python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"), 60)
    assert (done.status, done.out, done.err) == (3, b"out\n", b"err\n")
    done = child.run(python("import sys; print('out', flush=True); print('err', file=sys.stderr)"), 60, merged=True)
    assert (done.status, done.out, done.err) == (0, b"out\nerr\n", b"")


def test_it_reads_what_it_is_given_or_nothing() -> None:
    echo = python("import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())")
    assert child.run(echo, 60, stdin=b"x" * 1_000_000).out == b"x" * 1_000_000
    assert child.run(echo, 60).out == b""
    with tempfile.TemporaryFile() as f:
        f.write(b"from a file")
        f.seek(0)
        assert child.run(echo, 60, stdin=f).out == b"from a file"
    assert child.run(python("pass"), 60, stdin=b"x" * 1_000_000).status == 0  # which nobody reads


def test_only_the_beginning_of_an_endless_output_is_kept_and_the_deadline_holds() -> None:
    endless = python("import sys\nwhile True: sys.stdout.buffer.write(bytes(100_000))")
    start = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        child.run(endless, 1.0, limit_bytes=1000)
    assert time.monotonic() - start < 30
    much = python("import sys; sys.stdout.buffer.write(bytes(10_000_000))")
    assert child.run(much, 60, limit_bytes=1000).out == bytes(1000)


def test_a_daemon_that_holds_the_pipes_is_not_waited_for() -> None:
    sleep = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(40)'])"
    daemon = f"import subprocess, sys; {sleep}; print('done')"
    start = time.monotonic()
    assert child.run(python(daemon), 60).out == b"done\n"
    assert time.monotonic() - start < 30


def test_children_of_a_script_end_with_it(tmp_path) -> None:
    late = f"import time; time.sleep(3); open({str(tmp_path / 'x')!r}, 'w')"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {late!r}])"
    with pytest.raises(subprocess.TimeoutExpired):
        child.run(python(script), 1.0, own_session=True)
    time.sleep(3)
    assert not (tmp_path / "x").exists()


def test_a_program_that_is_not_there_is_an_oserror() -> None:
    with pytest.raises(OSError, match="No such file"):
        child.run(["/nowhere/program"], 5)
