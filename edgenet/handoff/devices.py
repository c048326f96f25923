"""Which hand-over is for which device: Android's by default."""

from collections.abc import Callable
from pathlib import Path

from edgenet.errors import InputError
from edgenet.handoff import Deployed, hand_over, micro
from edgenet.handoff import verify as android
from edgenet.handoff.verify import Check
from edgenet.handoff.write import read_manifest

HAND_OVERS: dict[str, Callable[[Path, Path], Deployed]] = {micro.DEVICE: micro.hand_over}


def hand_over_for(device: str | None, path: Path, out: Path) -> Deployed:
    """Write the hand-over of a .tflite file for a device to `out`; None is Android.

    Raises:
        InputError: nothing can be handed over for this device; or as the device's `hand_over` does.
    """
    if device is None:
        return hand_over(path, out)
    if device not in HAND_OVERS:
        raise InputError(
            f"no hand-over for '{device}' (valid: {', '.join(HAND_OVERS)}; Android's where --device is left out)"
        )
    return HAND_OVERS[device](path, out)


def verify_folder(folder: Path) -> list[Check]:
    """Replay the golden test of a hand-over of any kind. Raises InputError, MissingDependency."""
    manifest = read_manifest(folder)
    return micro.verify(folder, manifest) if manifest.get("device") == micro.DEVICE else android.verify(folder)
