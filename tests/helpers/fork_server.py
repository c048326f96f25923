"""Start the command line and the runners of models by a fork, not by a new interpreter: 0.03 s of CPU and not 0.8 s.

A server that has imported edgenet, NumPy and LiteRT forks a process for each command of COMMANDS. What comes out is a
process like any other, with its own arguments, environment, folder, streams, signals and exit status; only the imports
are done, the pages' templates compiled and the tiny network fitted. The server has one thread, which is what makes a
fork safe: it never loads onnxruntime or OpenVINO.

`running` puts it behind `subprocess.Popen`, here and in the processes that it forks. Any other command, such as
`python -c` or `python -m edgenet`, starts as ever; so does all in a `with fresh_interpreters()` block. A test whose
processes load TensorFlow gives them WITH_TENSORFLOW in their environment, and a second server, started then, forks
them with that imported too.
"""

import array
import contextlib
import functools
import gc
import importlib.metadata
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HELPERS = Path(__file__).parent
_HEAD_BYTES = 4
_ORDINARY = subprocess.Popen
WITH_TENSORFLOW = {"FORKED_WITH": "tensorflow"}
_addresses: dict[str, str] = {}  # the servers' sockets by what they have imported: "", "tensorflow"; none: no forks
_set_by_imports: dict[str, str] = {}  # environment variables, in a server
_start_with_tensorflow: Callable[[], str] | None = None


class Popen(subprocess.Popen):  # type: ignore[type-arg]
    """`subprocess.Popen`, which asks the server where it has the command."""

    _answers: socket.socket | None = None

    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, close_fds: Any, *rest: Any) -> None:
        pass_fds, cwd, env, _, _, shell, read0, write0, read1, write1, read2, write2, *others = rest
        forkable = not (shell or executable or preexec_fn or pass_fds) and _target(args) is not None
        if not _addresses or not forkable:
            super()._execute_child(args, executable, preexec_fn, close_fds, *rest)  # type: ignore[misc]
            return
        variables = dict(os.environ if env is None else env)
        request = {
            "args": [os.fsdecode(a) for a in _without_flags(args)],
            "cwd": os.fsdecode(cwd or os.getcwd()),
            "env": variables,
            "session": others[5] if len(others) > 5 else False,
        }
        streams = [own if fd == -1 else fd for own, fd in enumerate((read0, write1, write2))]
        self._answers = socket.socket(socket.AF_UNIX)
        try:
            self._answers.connect(_address(variables.get("FORKED_WITH", "")))
            message = json.dumps(request).encode()
            _send(self._answers, message, streams)
            self.pid = int.from_bytes(_read(self._answers, 4), "big")
        finally:
            self._close_pipe_fds(read0, write0, read1, write1, read2, write2)  # type: ignore[attr-defined]
        self._child_created = True

    def _try_wait(self, flags: int) -> tuple[int, int]:
        if self._answers is None:
            return super()._try_wait(flags)  # type: ignore[misc,no-any-return]
        if flags == os.WNOHANG and not select.select([self._answers], [], [], 0)[0]:
            return 0, 0
        status = int.from_bytes(_read(self._answers, 4), "big")
        self._answers.close()
        return self.pid, status

    def _internal_poll(self, *args: Any, **options: Any) -> int | None:
        if self._answers is None:
            return super()._internal_poll(*args, **options)  # type: ignore[misc,no-any-return]
        if self.returncode is None:
            with self._waitpid_lock:  # type: ignore[attr-defined]
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid:
                        self._handle_exitstatus(status)  # type: ignore[attr-defined]
        return self.returncode


@contextlib.contextmanager
def running(environment: dict[str, str]) -> Iterator[None]:
    """Run a server, started with `environment`, and have `subprocess.Popen` of this process use it."""
    global _start_with_tensorflow
    with tempfile.TemporaryDirectory(prefix="forks") as folder, contextlib.ExitStack() as stack:
        base = stack.enter_context(_server(environment, f"{folder}/plain"))
        _install({"": base})
        stack.callback(_install, {})

        def start() -> str:
            added = {**environment, **WITH_TENSORFLOW}
            _addresses["tensorflow"] = stack.enter_context(_server(added, f"{folder}/tensorflow", base))
            return _addresses["tensorflow"]

        _start_with_tensorflow = start
        yield


@contextlib.contextmanager
def _server(environment: dict[str, str], *addresses: str) -> Iterator[str]:
    command = [sys.executable, __file__, *addresses]
    server = _ORDINARY(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    assert server.stdin is not None
    assert server.stdout is not None
    assert server.stdout.read(1) == b"+", "the server of forks does not start"
    yield addresses[0]
    server.stdin.close()
    server.wait()
    server.stdout.close()


@contextlib.contextmanager
def fresh_interpreters() -> Iterator[None]:
    """Fork nothing in this block: every process starts as a user starts it."""
    addresses = _addresses
    _install({})
    try:
        yield
    finally:
        _install(addresses)


def _install(addresses: dict[str, str]) -> None:
    global _addresses
    _addresses = addresses
    subprocess.Popen = Popen if addresses else _ORDINARY  # type: ignore[misc]


def _address(imported: str) -> str:
    if imported == "tensorflow" and imported not in _addresses and _start_with_tensorflow is not None:
        return _start_with_tensorflow()
    return _addresses.get(imported, _addresses[""])


def _target(args: Any) -> Callable[[], None] | None:
    """Return the program of COMMANDS that `args` starts, None where that is another."""
    if isinstance(args, (str, bytes, os.PathLike)) or len(args) < 2 or args[0] != sys.executable:
        return None
    args = _without_flags(args)
    name = str(args[2] if args[1] == "-m" and len(args) > 2 else args[1])
    return next((program for end, program in COMMANDS.items() if name.endswith(end)), None)


def _without_flags(args: Any) -> list[Any]:
    """Return a command without the flag that says where Python looks for modules: a fork has them already."""
    return [args[0], *(args[2:] if args[1] in ("-P", "-I") else args[1:])]


def _send(to: socket.socket, message: bytes, fds: list[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
    to.sendmsg([len(message).to_bytes(_HEAD_BYTES, "big")], rights)
    to.sendall(message)


def _read(stream: socket.socket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        chunk = stream.recv(n - len(data))
        if not chunk:
            raise EOFError("the server of forks has ended")
        data += chunk
    return data


def _cli() -> None:
    from helpers import tiny

    tiny.main()


def _paper() -> None:
    from helpers import paper_tiny

    paper_tiny.main()


def _runner() -> None:
    from edgenet.device_bench import runner

    loaded, load = sys.modules["edgenet_runtime"], runner._module
    runner._module = lambda path, *name: loaded if path == loaded.__file__ else load(path, *name)
    if "--parent" in sys.argv:  # the kernel would watch the server; the child ends when its standard input does
        at = sys.argv.index("--parent")
        del sys.argv[at : at + 2]
    runner.main()


def _reader() -> None:
    """Read a stranger's file; what holds this process holds it as ever: it has one thread."""
    from edgenet.sandbox import child

    if "--parent" in sys.argv:  # the kernel would watch the server
        del sys.argv[sys.argv.index("--parent") :]
    child.main()


def _profiler() -> None:
    """Profile a file in a tenth of the time that a user's takes."""
    from edgenet.device_bench.roofline import limits, operator_times

    operator_times._MIN_S, limits._COPY_S = 0.1, 0.004
    limits.fastest_us.__defaults__ = (0.025, 20)
    del sys.argv[0]  # -m
    operator_times.main()


COMMANDS = {
    "/helpers/tiny.py": _cli,
    "/helpers/paper_tiny.py": _paper,
    "/device_bench/runner.py": _runner,
    "/sandbox/child.py": _reader,
    "edgenet.device_bench.roofline.operator_times": _profiler,
}


def _serve(address: str) -> list[str] | None:
    """Fork for each request until standard input ends; returns None then, and in each forked process its arguments."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    os.write(1, b"+")
    running: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([listener, woken, 0], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _tell_ends(running)
        if listener in ready:
            client, _ = listener.accept()
            head, fds, _, _ = socket.recv_fds(client, _HEAD_BYTES, 3)
            request = json.loads(_read(client, int.from_bytes(head, "big")))
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for end in (listener, client, *running.values()):
                    end.close()
                os.close(woken)
                os.close(wake)
                return _become(request, fds)
            for fd in fds:
                os.close(fd)
            running[pid] = client
            with contextlib.suppress(BrokenPipeError):
                client.sendall(pid.to_bytes(4, "big"))
        if 0 in ready and not os.read(0, 1):
            for end in (listener, *running.values()):
                end.close()
            return None


def _tell_ends(running: dict[int, socket.socket]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with running.pop(pid) as client, contextlib.suppress(BrokenPipeError):
            client.sendall(status.to_bytes(4, "big"))


def _become(request: dict[str, Any], fds: list[int]) -> list[str]:
    """Make of the forked process what the request asks for, as `exec` would."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request["session"]:
        os.setsid()
    for own, fd in enumerate(fds):
        os.dup2(fd, own)
        os.close(fd)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update({**_set_by_imports, **request["env"]})
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", buffering=1 if os.isatty(1) else -1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    args: list[str] = request["args"][1:]
    return args


def main() -> None:
    sys.path[0] = str(HELPERS.parent)
    from helpers import fork_server as ours  # not __main__: one module holds the addresses

    ours._main(*sys.argv[1:])


def _main(address: str, base: str = "") -> None:
    before = dict(os.environ)
    if os.environ.get("FORKED_WITH") == "tensorflow":
        from edgenet.frameworks import keras

        keras()  # first: after LiteRT it would print what it was told not to
    _set_by_imports.update({k: v for k, v in os.environ.items() if before.get(k) != v})
    # Each command asks some thirty times; cached before anyone has imported it by name.
    importlib.metadata.version = functools.cache(importlib.metadata.version)
    import ai_edge_litert.interpreter  # noqa: F401  (so that no fork has to)

    from edgenet.device_bench import runner
    from edgenet.export import runtime
    from helpers import paper_tiny, tiny  # noqa: F401

    runner._module(str(runtime.__file__))
    _prepare()
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be forked"
    gc.collect()
    gc.freeze()
    args = _serve(address)
    if args is None:
        return
    sys.argv[:] = args
    _install({"": base or address})
    program = _target([sys.executable, *args])
    assert program is not None
    program()


def _prepare() -> None:
    """Do once what each forked command would do again: late imports, the templates' compilation, the tiny network."""
    import rich._emoji_codes
    import rich.cells
    import rich.console
    import rich.progress
    import rich.table
    from PIL import Image

    from edgenet import pipeline, templating  # noqa: F401
    from edgenet.calibration import image_checks, sensitivity, summary  # noqa: F401
    from edgenet.device_bench.roofline import operator_times  # noqa: F401
    from edgenet.export.foreign import readers  # noqa: F401
    from edgenet.jobs import bench, qat  # noqa: F401
    from edgenet.paper import page
    from edgenet.report.pieces import TEMPLATES
    from helpers import tiny

    Image.init()
    rich.cells.cell_len("a width that loads the tables \u2014")
    tiny.trained()
    for folders in ((TEMPLATES,), (page._TEMPLATES, TEMPLATES)):
        pages = templating._environment(True, folders)
        for name in pages.list_templates(["html"]):
            pages.get_template(name)


if __name__ == "__main__":
    main()
