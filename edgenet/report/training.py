"""The section of the page that says how training went: the curve, what it brought, which file is returned and why.

It draws from the TrainingRecord that `edgenet qat` and `edgenet finetune` note (docs/results.md).
"""

from collections.abc import Sequence

from edgenet.records import Epoch, Score, TrainedFile, TrainingRecord
from edgenet.report.files import FORMAT_NAMES, Line, grouped_table
from edgenet.report.formatting import MISSING, NBSP, counted, decibels, interval, megabytes, number, percent, points
from edgenet.report.html import View, escape, figure, section, tile
from edgenet.report.plots import curves
from edgenet.report.recommendation import Row

_ABSURD = 1e30  # what a loss that is no number is kept as
_RETURNED = '<em class="chip good">returned</em>'


def training(view: View) -> str:
    """The curve, before and after, and the ablation against post-training INT8."""
    t = view.results.context.training
    if t is None or not t.curve:
        return ""
    finetuned = t.kind == "finetune"
    body = _curve(t, finetuned) + (_heads(t) if finetuned else _ablation(t))
    return section("training", "Training", body, escape(_lead(t, finetuned)))


def headline(view: View) -> str:
    """Return what training brought, "" where the results are not of a training."""
    t = view.results.context.training
    if t is None or not t.curve:
        return ""
    if t.kind == "finetune":
        top1 = t.after.top1 if t.after else None
        return "The finetuned network was not measured" if top1 is None else (
            f"The finetuned network is right on {percent(top1)} of the pictures"
        )  # fmt: skip
    before, after = (score.agreement if score else None for score in (t.before, t.after))
    if t.kept != "qat":
        return "Training brought nothing more: the post-training int8 file is returned"
    if before is None or after is None or after <= before:
        return f"The trained int8 file agrees with float on {percent(after)} of the pictures"
    return f"Training brought the int8 file from {percent(before)} to {percent(after)} agreement with float"


def opening(view: View) -> str:
    """Return what stands below the headline on a training's page, "" where the results are not of one."""
    t = view.results.context.training
    if t is None or not headline(view):
        return ""
    finetuned = t.kind == "finetune"
    returned = next((r for r in view.rows if r.artifact.precision == ("float32" if finetuned else "int8")), None)
    tiles = "".join(f(t, view, returned) for f in (_accuracy_tile, _size_tile, _time_tile))
    return f'<p class="verdict">{escape(verdict(t))}</p><div class="tiles">{tiles}</div>'


def _accuracy_tile(t: TrainingRecord, view: View, returned: Row | None) -> str:
    e = returned.evaluation if returned else None
    if e is None:
        return tile("Accuracy", MISSING, "", None, "It was not measured.")
    if t.kind == "finetune":
        n = counted(e.n_labelled, "picture")
        return tile(
            "Top-1", percent(e.top1), "", e.top1, f"Of {n} that were not trained on; 95 %: {interval(e.top1_ci95)}."
        )
    of = f"of {counted(e.n_images, 'picture')}"
    other, name = (t.before, "Post-training int8") if t.kept == "qat" else (t.after, "The trained file")
    sentence = (
        f"{name} had {percent(other.agreement if other else None)}."
        if t.best_epoch
        else "No epoch was better than none."
    )
    return tile("Agreement with float32", percent(e.agreement), of, e.agreement, sentence)


def _size_tile(t: TrainingRecord, view: View, returned: Row | None) -> str:
    size = returned.artifact.size_bytes if returned else None
    whole = view.baseline.artifact.size_bytes if view.baseline else None
    if t.kind == "finetune" or not size or not whole:
        return tile("Size", megabytes(size), "", None, "In float32, batch norm folded; edgenet qat makes it int8.")
    return tile("Size", megabytes(size), f"of {megabytes(whole)}", size / whole, f"{t.weight_bits}-bit weights.")


def _time_tile(t: TrainingRecord, view: View, returned: Row | None) -> str:
    seconds, speed = t.seconds, t.images_per_s
    sentence = counted(len(t.curve) - 1, "epoch") + (f", {number(speed, 1)} pictures a second." if speed else ".")
    return tile("Training", MISSING if seconds is None else _duration(seconds), "", None, sentence)


def verdict(t: TrainingRecord) -> str:
    """Return in a sentence what was returned and why."""
    last = len(t.curve) - 1
    best = f"after epoch {t.best_epoch} of {last}"
    if t.kind == "finetune":
        return f"The best network was that {best}." if t.best_epoch else "No epoch was better than the new head."
    files = t.files or (TrainedFile(kept=t.kept, why=t.why),)
    kinds = {f.kept for f in files}
    if len(kinds) == 1:
        file = {"qat": f"the trained file{'s' * (len(files) > 1)}, as {best}"}.get(
            kinds.pop(), f"the post-training file{'s' * (len(files) > 1)}"
        )
        return f"Returned {'are' if len(files) > 1 else 'is'} {file}: {files[0].why}."
    parts = [f"for {_format(f)} the {'trained' if f.kept == 'qat' else 'post-training'} file ({f.why})" for f in files]
    return f"Returned is {'; '.join(parts)}."


def _lead(t: TrainingRecord, finetuned: bool) -> str:
    pictures = t.pictures
    learned = pictures.train + (pictures.calibration or 0)
    epochs, asked = len(t.curve) - 1, t.settings.get("epochs")
    what = "All layers learned the classes of the folder" if finetuned else (
        "The integers learned to answer as the float network does"
    )  # fmt: skip
    text = f"{what} from {counted(learned, 'picture')} in {counted(epochs, 'epoch')}"
    if t.stopped_early and asked:
        text += f" of {asked}, stopped early"
    if t.seconds is not None:
        text += f": {_duration(t.seconds)}"
        text += f" at {number(t.images_per_s, 1)} pictures a second" if t.images_per_s else ""
    held, measured = pictures.held_back, pictures.evaluation
    text += f". {counted(held, 'other picture')} decided which epoch was the best" if held else ""
    return text + (f"; {counted(measured, 'other')} measured." if measured else ".")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f}{NBSP}s"
    return f"{seconds // 60:.0f}{NBSP}min {seconds % 60:.0f}{NBSP}s"


def _curve(t: TrainingRecord, finetuned: bool) -> str:
    rows = t.curve
    right = "accuracy" if finetuned else "agreement"
    best, epochs = t.best_epoch, len(rows) - 1
    loss = "loss" if finetuned else "divergence from float"
    first = _values(rows[:1], "held_back_loss")
    panels = [
        curves.Panel(
            loss[0].upper() + loss[1:],
            (
                curves.Curve("held back", _values(rows, "held_back_loss"), "chosen"),
                curves.Curve("training", _values(rows, "loss"), "other"),
            ),
            first[0][1] if first else None,
            "new head alone" if finetuned else "post-training",
        ),
        curves.Panel(
            f"{'Right' if finetuned else 'Agreement with float'}, held back, %",
            (curves.Curve("held back", _values(rows, f"held_back_{right}", 100), "chosen"),),
            _start(rows, f"held_back_{right}"),
            "new head alone" if finetuned else "post-training",
            most=100,
        ),
    ]
    panels = [p for p in panels if any(c.values for c in p.curves)]
    if not panels:
        return ""
    alt = f"Training curve, {counted(epochs, 'epoch')}, the best is {best}: " + "; ".join(
        f"{p.title}: {c.label} from {c.values[0][1]:.3g} to {c.values[-1][1]:.3g}"
        for p in panels
        for c in p.curves
        if c.values
    )
    svg = "".join(curves.curves(panels, best, epochs, width, alt) for width in (1160, 350))
    caption = (
        "Epoch 0 is before training; the upright line is the epoch that was kept. Held-back pictures are never trained "
        "on and see the averaged weights; the training loss is that of augmented pictures."
    )
    return figure(svg, caption)


def _values(rows: Sequence[Epoch], name: str, times: float = 1) -> tuple[tuple[float, float], ...]:
    found = ((float(row.epoch), getattr(row, name)) for row in rows)
    return tuple((x, y * times) for x, y in found if y is not None and abs(y) < _ABSURD)


def _start(rows: Sequence[Epoch], name: str) -> float | None:
    first = _values(rows[:1], name, 100)
    return first[0][1] if first else None


def _ablation(t: TrainingRecord) -> str:
    labelled = any(e is not None and e.top1 is not None for f in t.files for e in (f.before, f.after))
    titles = ["File", "Agreement with float", "Difference", *(["Top-1"] if labelled else []), "SQNR", "Pictures"]
    groups: dict[str, list[Line]] = {}
    for f in t.files:
        before = f.before or Score()
        lines: list[Line] = [_measured(f, "ptq", "Post-training INT8", before, None, labelled)]
        if f.after:
            lines.append(_measured(f, "qat", "After training", f.after, before.agreement, labelled))
        groups[_format(f)] = lines
    if not groups:
        return ""
    caption = "The ablation: the same calibration, the same pictures, with and without training; difference in points."
    same = t.simulated_like_file
    note = (
        f'<p class="rule">The simulation that was trained and the file have one first answer on '
        f"{percent(same.before)} of the held-back pictures before training, on {percent(same.after)} after.</p>"
        if same
        else ""
    )
    return grouped_table(caption, titles, groups) + note


def _measured(f: TrainedFile, kind: str, name: str, e: Score, base: float | None, labelled: bool) -> Line:
    """Return a line of the ablation: one file's score, and how many points it is above `base`."""
    kept = f.kept == kind
    change = e.agreement - base if e.agreement is not None and base is not None else None
    ci = e.agreement_ci95
    return kept, [
        f"{name} {_RETURNED if kept else ''}",
        percent(e.agreement) + (f"<small>{interval(ci)}</small>" if ci else ""),
        points(change),
        *([percent(e.top1)] if labelled else []),
        decibels(e.sqnr_db),
        number(e.n_images, 0),
    ]


def _heads(t: TrainingRecord) -> str:
    head = t.before.held_back_accuracy_of_the_new_head if t.before else None
    best = t.best_epoch
    after = t.curve[best].held_back_accuracy if best < len(t.curve) else None
    lines: list[Line] = [
        (best == 0, [f"New head, all else as it was {_RETURNED if best == 0 else ''}", percent(head)]),
        (best > 0, [f"All layers {_RETURNED if best else ''}", percent(after if best else None)]),
    ]
    return grouped_table("First the head alone, then all layers.", ["Trained", "Right, held back"], {"": lines})


def _format(f: TrainedFile) -> str:
    return FORMAT_NAMES.get(f.format, f.format)
