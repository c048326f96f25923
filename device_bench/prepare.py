"""`edgenet devices prepare DEVICE`: set up, once, what a device needs before anything can run or compile there."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgenet.errors import InputError


def prepare(device: str, runtimes: Sequence[str], wheels: Path | None, say: Callable[[str], None]) -> Any:
    """Set up a board (ssh:...) or the environment of rknn-toolkit2 (rknn), or complete what is there.

    Returns:
        a frozen record: device, python, packages {name: version}, and done, the steps in words.

    Raises:
        InputError: the device needs no preparing, or an option is not for it.
        DeviceError: it failed; the message says what to do.
    """
    kind, _, address = device.partition(":")
    if kind == "rknn":
        from edgenet.device_bench.rknn import environment

        return environment.prepare(wheels, say)
    if kind != "ssh":
        raise InputError(
            f"'{device}' needs no preparing: boards do, give ssh:[USER@]HOST[:PORT], and Rockchip's compiler, give rknn"
        )
    from edgenet.device_bench.ssh.connection import parse
    from edgenet.device_bench.ssh.prepare import prepare as prepare_board

    return prepare_board(parse(address), runtimes, wheels, say)
