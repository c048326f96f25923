"""A calibration as a record for results.json: the histogram of each activation, and the range that was chosen."""

from edgenet.calibration.gptq import MOST_IMAGES, corrected_in_parts, pictures_that_fit
from edgenet.calibration.quantize import affine
from edgenet.calibration.shared import CHANGES_GRAPH, SharedCalibration
from edgenet.export.graph import Graph
from edgenet.results.records import CalibratedTensor, CalibrationRecord

BINS = 64


def calibration_record(shared: SharedCalibration) -> CalibrationRecord:
    """Return how `shared` was calibrated, and of each activation the histogram, the range and the int8 numbers.

    `counts` are BINS equal bins over [seen_low, seen_high]; `low`, `high` is the range that int8 is laid over; `scale`
    and `zero_point` are int8's. A tensor whose numbers its operator decides (a softmax, a reshape) may be stored
    with others; the page of the file says so, not this.

    Raises:
        InputError: there were no pictures to calibrate with.
    """
    calibration = shared.calibration
    kinds = _kinds(shared.graph)
    tensors = []
    for name, o in shared.observations.items():
        low, high = calibration.ranges[name]
        seen_low, seen_high = o.range
        if name in calibration.fixed:
            scale, zero_point = calibration.fixed[name]
        else:
            q = affine(low, high, "int8")
            scale, zero_point = float(q.scale[0]), int(q.zero_point[0])
        tensors.append(
            CalibratedTensor(
                name=name,
                kind=kinds.get(name, "INPUT"),
                low=float(low),
                high=float(high),
                seen_low=seen_low,
                seen_high=seen_high,
                counts=tuple(o.histogram(BINS)[0].tolist()),
                scale=scale,
                zero_point=zero_point,
            )
        )
    corrects = bool(set(shared.recipe.corrections) - CHANGES_GRAPH)
    used = pictures_that_fit(shared.graph, MOST_IMAGES)
    return CalibrationRecord(
        shared.recipe.method,
        tuple(shared.recipe.corrections),
        calibration.n_images,
        calibration.fingerprint,
        tuple(tensors),
        used if corrects and used < min(calibration.n_images, MOST_IMAGES) else None,
        corrected_in_parts(shared.graph) if corrects else (),
    )


def _kinds(graph: Graph) -> dict[str, str]:
    """What makes each tensor, in TFLite's words: CONV_2D, ADD, ..."""
    return {name: op.kind for op in graph.ops for name in op.outputs}
