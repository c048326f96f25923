"""Which hand-over is for which device: an Android module by default, which Snapdragons' NPUs are added to."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgenet.device_bench.registry import parse
from edgenet.errors import InputError
from edgenet.handoff import Deployed, hand_over, micro, npu, rknn
from edgenet.handoff import verify as android
from edgenet.handoff.verify import Check
from edgenet.handoff.write import read_manifest

# Of one device and no other: a firmware, a board's programs. kind -> (file, folder, device) -> what was handed over
ALONE: dict[str, Callable[[Path, Path, str], Deployed]] = {
    micro.DEVICE: lambda path, out, device: micro.hand_over(path, out),
    rknn.KIND: rknn.hand_over,
}
_FORMS = "micro, rknn:CHIP, qnn:SOC"
VERIFY: dict[str, Callable[[Path, dict[str, Any]], list[Check]]] = {micro.DEVICE: micro.verify, rknn.KIND: rknn.verify}


def hand_over_for(devices: Sequence[str], path: Path, out: Path) -> Deployed:
    """Write the hand-over of a file for these devices to `out`; for Android where there are none.

    Raises:
        InputError: nothing can be handed over for a device, or not together; or as the device's `hand_over` does.
    """
    kinds = [device.partition(":")[0] for device in devices]
    for device, kind in zip(devices, kinds, strict=True):
        if kind not in (*ALONE, npu.KIND):
            raise InputError(f"no hand-over for '{device}' (valid: {_FORMS}; Android's where --device is left out)")
        if kind in ALONE and len(devices) > 1:
            raise InputError(f"a hand-over for {device} stands alone: leave the other --device out")
        parse(device)
    if kinds and kinds[0] in ALONE:
        return ALONE[kinds[0]](path, out, devices[0])
    return hand_over(path, out, devices)


def verify_folder(folder: Path) -> list[Check]:
    """Replay the golden test of a hand-over of any kind. Raises InputError, MissingDependency."""
    manifest = read_manifest(folder)
    replay = VERIFY.get(str(manifest.get("device", "")).partition(":")[0])
    return replay(folder, manifest) if replay else android.verify(folder)
