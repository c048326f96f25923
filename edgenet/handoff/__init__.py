"""The hand-over of a .tflite classifier to an Android team."""

from edgenet.handoff.deployed import Deployed, read_deployed
from edgenet.handoff.write import MANIFEST, hand_over, read_manifest

__all__ = ["MANIFEST", "Deployed", "hand_over", "read_deployed", "read_manifest"]
