"""The page of an earlier run, written again."""

from pathlib import Path

from edgenet.jobs.evaluate_files import classes_in
from edgenet.results import Results


def rewrite_report(results: Results, folder: Path) -> None:
    """Write the page of an earlier run again, with the names of classes that its files hold."""
    from edgenet.export.importers.labels import class_labels
    from edgenet.report import lost_files, write_report

    lost = lost_files(results, folder)
    whole = next((a for a in results.artifacts if a.id not in lost), None)
    shape = next((a.outputs[0].shape for a in results.artifacts if a.outputs and a.outputs[0].shape), ())
    names: tuple[str, ...] = ()
    if whole is not None:
        names = classes_in(folder / whole.path)[1]
    elif shape:
        names = class_labels(shape[-1], None)[1]
    write_report(results, folder, names, lost)
