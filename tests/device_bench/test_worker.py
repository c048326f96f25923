"""device_bench/worker.py, runner.py and bench: real child processes, killed, stopped and lied to from outside."""

import ast
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgenet.device_bench import Request, Worker, bench, machine, runner
from edgenet.device_bench.worker import Launch, describe_exit
from edgenet.errors import DeviceError, InputError
from edgenet.export import runtime
from helpers import fork_server
from helpers.processes import is_running, wait_for
from helpers.small_nets import FLOATS, PX


@pytest.fixture(autouse=True)
def _as_a_user_starts_them(request):
    with contextlib.nullcontext() if "forked" in request.fixturenames else fork_server.fresh_interpreters():
        yield


def impostor(tmp_path, body):
    """Return a command that starts a child of another mind."""
    script = tmp_path / "impostor.py"
    script.write_text(textwrap.dedent(body))
    return [sys.executable, str(script)]


# what a worker answers


def test_a_worker_predicts_what_the_same_file_predicts_in_this_process(tflite):
    with Worker(tflite, threads=2) as w:
        out = w.predict(FLOATS)
        assert out.shape == (21, 7)
        np.testing.assert_allclose(out, runtime.load(tflite).predict(FLOATS), atol=1e-6)
        np.testing.assert_array_equal(w.predict(FLOATS[::2]), out[::2])  # not contiguous
        assert w.predict(FLOATS[:0]).shape == (0, 7)
        out[:] = 0  # the caller's own


def test_all_three_runtimes_agree_through_their_workers(tflite, onnx_file, ir):
    out = {}
    for path in (tflite, onnx_file, ir):
        with Worker(path) as w:
            out[w.info.runtime] = w.predict(FLOATS)
    assert list(out) == ["litert", "onnxruntime", "openvino"]
    np.testing.assert_allclose(out["onnxruntime"], out["litert"], atol=1e-5)
    np.testing.assert_allclose(out["openvino"], out["litert"], atol=1e-5)


def test_a_worker_tells_what_it_has_loaded(tflite):
    with Worker(tflite) as w:
        assert w.info.runtime == "litert"
        assert w.info.input_shape == (1, PX, PX, 3)
        assert w.info.output_shape == (1, 7)
        assert w.info.size_px == (PX, PX)
        assert w.info.io_dtype == "float32"
        assert w.info.delegate == "XNNPACK"
        assert 0 < w.info.load_ns < 60e9
        assert w.pid != os.getpid()


def test_samples_are_nanoseconds_of_single_runs_that_fit_into_the_time_outside(tflite):
    with Worker(tflite) as w:
        w.set_input(FLOATS[:1])
        start = time.perf_counter_ns()
        burst = w.run(25)
        outside = time.perf_counter_ns() - start
        assert len(burst.samples_ns) == 25
        assert burst.lead_runs == 0
        assert all(0 < s < outside for s in burst.samples_ns)
        assert sum(burst.samples_ns) <= outside
        timed = w.run(1, time_ns=50_000_000, lead_ns=10_000_000)
        assert timed.lead_runs >= 1
        assert sum(timed.samples_ns) <= 2_000_000_000
        assert len(timed.samples_ns) > 1
        assert len(w.run(1000, limit_ns=0).samples_ns) == 1


def test_the_timer_counts_only_the_call_and_leads_in_untimed():
    now = 0
    calls = []

    def invoke():
        nonlocal now
        now += 7 if len(calls) % 2 else 5
        calls.append(now)

    def clock():
        return now

    samples, _, lead = runner.timed_runs(invoke, 3, 0, 0, 1 << 62, clock)
    assert (samples.tolist(), lead) == ([5, 7, 5], 0)
    samples, _, lead = runner.timed_runs(invoke, 1, 30, 12, 1 << 62, clock)
    assert lead == 2  # 7 + 5
    assert samples.tolist() == [7, 5, 7, 5, 7]  # 31 at last
    samples, _, _ = runner.timed_runs(invoke, 1000, 0, 0, 20, clock)
    assert sum(samples) <= 20 + 7
    assert len(samples) == 4


def test_each_run_has_the_slower_pace_of_its_two_sides_and_those_over_the_limit_do_not_count():
    now, paces = 0, iter([3, 9, 4, 4, 4, 9, 9, 9, 9, 9])

    def invoke():
        nonlocal now
        now += 5

    def clock():
        return now

    def pace(clock):
        return next(paces)

    samples, beside, _ = runner.timed_runs(invoke, 2, 0, 0, 1 << 62, clock, 4, 1000, pace)
    assert samples.tolist() == [5, 5, 5, 5]
    assert beside.tolist() == [9, 9, 4, 4]
    paces = iter([9] * 10)
    samples, beside, _ = runner.timed_runs(invoke, 2, 10, 0, 1 << 62, clock, 4, 8, pace)
    assert samples.tolist() == [5] * 4  # 10 as asked for, and 8 more in patience
    assert beside.tolist() == [9] * 4


def test_a_worker_tells_the_pace_beside_each_run(tflite):
    with Worker(tflite) as w:
        w.set_input(FLOATS[:1])
        burst = w.run(20, pace_limit_ns=0)
        assert w.run(20).pace_ns == ()
    assert len(burst.pace_ns) == len(burst.samples_ns) >= 20
    assert all(100 < p < 1_000_000_000 for p in burst.pace_ns)


def test_the_peak_of_memory_is_more_than_what_was_there_before_the_model(tflite):
    with Worker(tflite) as w:
        before = w.memory()
        assert 10e6 < before.baseline_rss_bytes < before.peak_rss_bytes < 4e9
        w.predict(np.repeat(FLOATS, 200, axis=0))  # 50 MB of pictures
        assert w.memory().peak_rss_bytes > before.peak_rss_bytes + 40e6
        assert w.memory().baseline_rss_bytes == before.baseline_rss_bytes


# what goes wrong


def test_a_batch_of_the_wrong_size_is_an_input_error_and_the_worker_lives(tflite):
    with Worker(tflite) as w:
        with pytest.raises(InputError, match="takes images of 32 x 32 x 3"):
            w.predict(FLOATS[:, 1:])
        assert w.predict(FLOATS[:1]).shape == (1, 7)


@pytest.mark.parametrize("suffix", [".tflite", ".onnx", ".xml"])
def test_a_file_that_is_no_model_is_an_input_error(tmp_path, suffix):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(b"no model")
    with pytest.raises(InputError, match="broken") as e:
        Worker(path)
    assert "\n" not in str(e.value)


def test_a_killed_process_is_a_device_error_with_the_signal(tflite):
    with Worker(tflite) as w:
        os.kill(w.pid, signal.SIGSEGV)
        with pytest.raises(DeviceError, match="SIGSEGV"):
            w.predict(FLOATS)
        with pytest.raises(DeviceError, match="has ended"):
            w.run(1)
        assert w.stderr() == ""


def test_a_process_killed_in_the_middle_of_a_request_is_a_device_error(tflite):
    with Worker(tflite) as w:
        w.set_input(FLOATS[:1])
        timer = threading.Timer(0.5, os.kill, (w.pid, signal.SIGABRT))
        timer.start()
        start = time.monotonic()
        with pytest.raises(DeviceError, match="SIGABRT"):
            w.run(1, time_ns=60_000_000_000)
        assert time.monotonic() - start < 20
        timer.join()


def test_a_process_that_hangs_is_ended_after_the_timeout(tflite):
    with Worker(tflite, timeout_s=0.5) as w:
        pid = w.pid
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(DeviceError, match=r"no answer to 'predict' in 0\.5 s"):
            w.predict(np.repeat(FLOATS, 50, axis=0))  # more than a pipe holds: writing must not hang either
        assert not is_running(pid)


def test_the_last_words_of_a_process_are_told(tmp_path):
    command = impostor(
        tmp_path, 'import os, sys\nprint("first\\nassertion failed: x > 0", file=sys.stderr, flush=True)\nos.abort()'
    )
    with pytest.raises(DeviceError, match=r"SIGABRT.*assertion failed: x > 0"):
        Worker("model.tflite", launch=Launch(command))


def test_a_process_that_ends_by_itself_is_told_with_its_status(tmp_path):
    with pytest.raises(DeviceError, match="exit status 3"):
        Worker("model.tflite", launch=Launch(impostor(tmp_path, "raise SystemExit(3)")))


def test_garbage_for_an_answer_is_a_device_error(tmp_path):
    command = impostor(tmp_path, 'import sys\nwhile True: sys.stdout.write("garbage " * 1000)')
    with pytest.raises(DeviceError, match="not edgenet's protocol"):
        Worker("model.tflite", launch=Launch(command))


def test_a_greeting_before_the_first_answer_is_skipped(tflite, tmp_path):
    command = impostor(
        tmp_path,
        f"""
        import os, sys
        os.write(1, b"Welcome to the board!\\nedgenet is not yet\\n" * 30)
        os.execv(sys.executable, [sys.executable, {runner.__file__!r}, "--runtime", {runtime.__file__!r}])
        """,
    )
    with Worker(tflite, launch=Launch(command)) as w:
        assert w.predict(FLOATS[:1]).shape == (1, 7)


def test_what_native_code_prints_on_standard_output_does_not_reach_the_protocol(tflite, tmp_path):
    noisy = tmp_path / "runtime.py"
    noise = "import os, sys\nos.write(1, b'printf from native code\\n')\nprint('print from python', flush=True)\n"
    source = Path(runtime.__file__).read_text()
    noisy.write_text(source.replace("import os\nimport queue\n", noise + "import os\nimport queue\n", 1))
    with Worker(tflite, launch=Launch([sys.executable, runner.__file__, "--runtime", str(noisy)])) as w:
        assert w.predict(FLOATS[:1]).shape == (1, 7)
        assert "printf from native code" in w.stderr()
        assert "print from python" in w.stderr()


def test_a_missing_runtime_is_a_device_error_that_names_what_to_install(onnx_file, tmp_path):
    blocked = tmp_path / "runtime.py"
    source = Path(runtime.__file__).read_text()
    blocked.write_text(source.replace("        import onnxruntime\n", "        raise ImportError\n", 1))
    with pytest.raises(DeviceError, match=r"pip install 'edgenet\[onnx\]'"):
        Worker(onnx_file, launch=Launch([sys.executable, runner.__file__, "--runtime", str(blocked)]))


def test_a_program_that_does_not_exist_is_a_device_error():
    with pytest.raises(DeviceError, match="cannot start /no/such/python"):
        Worker("model.tflite", launch=Launch(["/no/such/python"]))


def test_less_than_one_thread_is_refused(tflite):
    with pytest.raises(InputError, match="threads"):
        Worker(tflite, threads=0)
    with pytest.raises(InputError, match="threads"):
        bench([("a", tflite)], Request(threads=0))


def test_exit_statuses_are_told_in_words():
    assert describe_exit(-11) == "was killed by SIGSEGV"
    assert describe_exit(134) == "was killed by SIGABRT"
    assert describe_exit(-9) == "was killed by SIGKILL (out of memory?)"
    assert describe_exit(1) == "ended with exit status 1"
    assert describe_exit(255) == "was killed by signal 127"


# the life of the child


def test_the_child_ends_with_the_worker(tflite):
    with Worker(tflite) as w:
        pid = w.pid
        assert is_running(pid)
    assert not is_running(pid)
    w.close()


@pytest.mark.parametrize("where", ["main", "thread"])
def test_the_child_ends_when_its_parent_is_killed(tflite, where):
    code = f"""
        import threading, time
        from edgenet.device_bench import Worker
        def go():
            w = Worker({str(tflite)!r})
            print(w.pid, flush=True)
            time.sleep(100)
        go() if {where == "main"} else threading.Thread(target=go).start()
        """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    try:
        pid = int(parent.stdout.readline())
        assert is_running(pid)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    wait_for(lambda: not is_running(pid))


def test_a_worker_made_in_a_thread_outlives_that_thread(tflite):
    made = []
    thread = threading.Thread(target=lambda: made.append(Worker(tflite)))
    thread.start()
    thread.join()
    time.sleep(0.2)
    with made[0] as w:
        assert w.predict(FLOATS[:1]).shape == (1, 7)


def test_ctrl_c_is_left_to_the_parent(tflite):
    with Worker(tflite) as w:
        os.kill(w.pid, signal.SIGINT)
        assert w.predict(FLOATS[:1]).shape == (1, 7)


def test_the_two_files_run_from_any_folder_without_edgenet(tflite, tmp_path):
    for source in (runner.__file__, runtime.__file__):
        shutil.copy(source, tmp_path)
    (tmp_path / "json.py").write_text("raise SystemExit('a neighbour stood in for the standard library')")
    with Worker(tflite, launch=Launch([sys.executable, str(tmp_path / "runner.py")])) as w:
        assert w.predict(FLOATS[:1]).shape == (1, 7)
    tree = ast.parse(Path(runner.__file__).read_text(), feature_version=(3, 9))
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert {n.partition(".")[0] for n in names} - {"numpy", "__future__"} <= set(sys.stdlib_module_names)


def test_the_work_of_our_own_children_is_not_that_of_others(tflite):
    with Worker(tflite) as w:
        w.set_input(FLOATS[:1])
        before = machine._own_and_children([w.pid])
        enough_ns = w.cpu_ns() + 200_000_000
        while w.cpu_ns() < enough_ns:  # however busy the machine is
            w.run(1, time_ns=20_000_000)
        used = machine._own_and_children([w.pid]) - before
    assert used >= 0.2 * os.sysconf("SC_CLK_TCK") * 0.5
