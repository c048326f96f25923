"""What calibrating takes, in runs of the float network: the constants of edgenet/dry_run/times.py come from here.

    .venv/bin/python tests/dry_run/calibrating.py efficientnet-lite0 photos/ 20
    .venv/bin/python tests/dry_run/calibrating.py efficientnet-lite0 photos/ 60

Two numbers of pictures give both constants: processor time = A x pictures x run + B x million weights.
"""

import resource
import sys

from edgenet.calibration.execute import Executor
from edgenet.export import find_source
from edgenet.images import open_images
from edgenet.images.roles import divide_by_role
from edgenet.jobs.file_factory import FileFactory, Interface
from edgenet.options import Recipe
from edgenet.targets import target


def processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(model: str, folder: str, pictures: int) -> None:
    source = find_source(model, None, False)
    images = open_images(folder, source.class_ids, source.class_names, source.task)
    divided = divide_by_role(images, pictures, source.pictures, model=source.name)
    factory = FileFactory(source, divided.calibration, target("auto"), Recipe(), Interface("float32", 1, False))
    graph = factory.network.graph
    assert factory.pixels is not None
    before = processor_s()
    shared = factory.shared(Recipe())
    shared.quantized("int8", 8, {}, True)
    took = processor_s() - before
    run, x = Executor(graph, [graph.logits()], 1), next(iter(shared.inputs()))
    run(x)
    runs = []
    for _ in range(10):
        before = processor_s()
        run(x)
        runs.append(processor_s() - before)
    weights = sum(t.data.size for t in graph.tensors.values() if t.data is not None) / 1e6
    print(f"{model}: {len(factory.pixels)} pictures, {took:.1f} s of processor time, {min(runs) * 1e3:.1f} ms a run, "
          f"{weights:.1f} million weights")  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
