"""The section of the page that shows how training went: the curve, what it brought, which file is returned and why.

It draws from the TrainingRecord that `edgenet qat` and `edgenet finetune` note (docs/results.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from edgenet.evaluate import wilson
from edgenet.report.formatting import (
    FORMAT_NAMES,
    MISSING,
    NBSP,
    counted,
    decibels,
    interval,
    megabytes,
    number,
    percent,
    points,
)
from edgenet.report.pieces import Cell, Chip, Figure, Line, Opening, Table, Tile, table
from edgenet.report.plots import curves
from edgenet.report.plots.axes import for_both
from edgenet.report.refusals import NO_OWN_PICTURES
from edgenet.report.rows import Row
from edgenet.report.view import View
from edgenet.results.training import (
    Epoch,
    LearnedAgain,
    Score,
    Step,
    ThenRecord,
    TrainedFile,
    TrainedStage,
    TrainingRecord,
)

_ABSURD = 1e30  # what a loss that is no number is kept as
_RETURNED, _CHOSEN = Chip("returned", "good"), Chip("chosen", "good")
_STEPS_OF_THEN = {
    "float before": "Float, the new head alone",
    "float after": "Float, after learning",
    "INT8": "INT8, post-training",
    "trained INT8": "INT8, trained",
}
# What learned, by the last stage of finetune that was tried.
_LEARNED = {
    "head": "A new head learned the classes of the folder",
    "top": "A new head, then the top layers learned the classes of the folder",
    "all": "A new head, then the top layers, then all layers learned the classes of the folder",
}


@dataclass(frozen=True)
class TrainingSection:
    """The section; `note` is on how like the trained simulation the file is, or on what was computed once."""

    lead: str
    curve: Figure | None
    scores: Table | None
    note: str = ""
    steps: Table | None = None  # of finetune --then
    confusions: Table | None = None


def training(view: View) -> TrainingSection | None:
    """The curve, before and after, and the ablation against post-training INT8."""
    t = _record(view)
    if t is None:
        return None
    if t.kind == "finetune":
        after = (_then_steps(t.then), _then_confusions(view, t.then)) if t.then else (None, None)
        return TrainingSection(_lead(t), _curve(t), _heads(t), _kept_once(t), *after)
    return TrainingSection(_lead(t), _curve(t), _ablation(t), _likeness(t))


def _record(view: View) -> TrainingRecord | None:
    t = view.results.context.training
    return t if t and t.curve else None


def headline(view: View) -> str:
    """Return what training brought, "" where the results are not of a training."""
    t = _record(view)
    if t is None:
        return ""
    if view.answer.code == NO_OWN_PICTURES:
        return view.answer.headline
    returned = _returned(t, view)
    if returned and returned.artifact.id in view.lost:
        state = "is gone" if view.lost[returned.artifact.id].code == "gone" else "was altered since it was measured"
        return f"The file that was returned {state}: {returned.name}"
    if returned and returned.evaluation and returned.evaluation.nonfinite_images:
        return f"The file that was returned answers NaN or infinity: {returned.name}"
    if t.then and (text := _then_headline(t.then)):
        return text
    if t.kind == "finetune":
        top1 = t.after.top1 if t.after else None
        if top1 is None:
            return "The finetuned network was not measured"
        return f"The finetuned network is right on {percent(top1)} of the pictures"
    name = _precision(t)
    if t.kept != "qat":
        return f"Training brought nothing more: the post-training {name} file is returned"
    if t.distillation and t.distillation.get("labels_weight") and t.before and t.after:  # labels taught it too
        old, new = t.before.top1, t.after.top1
        if old is not None and new is not None and new > old:
            return f"Training brought the {name} file from {percent(old)} to {percent(new)} of the pictures right"
    before, after = (score.agreement if score else None for score in (t.before, t.after))
    if before is None or after is None or after <= before:
        return f"The trained {name} file agrees with float on {percent(after)} of the pictures"
    return f"Training brought the {name} file from {percent(before)} to {percent(after)} agreement with float"


def _precision(t: TrainingRecord) -> str:
    """Return the precision of the files that qat made."""
    return "int4" if t.weight_bits == 4 else "int8"


def opening(view: View) -> Opening | None:
    """Return what stands below the headline on a training's page, None where the results are not of one."""
    t = _record(view)
    if t is None:
        return None
    returned = _returned(t, view)
    return Opening(verdict(t), (_accuracy_tile(t, returned), _size_tile(t, view, returned), _time_tile(t)))


def _returned(t: TrainingRecord, view: View) -> Row | None:
    if t.then:
        step = _then_returned(t.then)
        return next((r for r in view.rows if step and r.artifact.id == step.artifact), None)
    wanted = ("float32",) if t.kind == "finetune" else ("int8", "int4")
    return next((r for r in view.rows if r.artifact.precision in wanted), None)


def _accuracy_tile(t: TrainingRecord, returned: Row | None) -> Tile:
    e = returned.evaluation if returned else None
    if e is None:
        return Tile("Accuracy", MISSING, "It was not measured.")
    if t.kind == "finetune":
        sentence = f"Of {counted(e.n_labelled, 'picture')} that were not trained on; 95 %: {interval(e.top1_ci95)}."
        return Tile("Top-1", percent(e.top1), sentence, share=e.top1)
    other, name = (t.before, f"Post-training {_precision(t)}") if t.kept == "qat" else (t.after, "The trained file")
    had = f"{name} had {percent(other.agreement if other else None)}."
    sentence = had if t.best_epoch else "No epoch was better than none."
    of = f"of {counted(e.n_images, 'picture')}"
    return Tile("Agreement with float32", percent(e.agreement), sentence, of, e.agreement)


def _size_tile(t: TrainingRecord, view: View, returned: Row | None) -> Tile:
    size = returned.artifact.size_bytes if returned else None
    whole = view.baseline.artifact.size_bytes if view.baseline else None
    if t.then and size and whole:
        return Tile("Size", megabytes(size), "In int8.", f"of {megabytes(whole)}", size / whole)
    if t.kind == "finetune" or not size or not whole:
        return Tile("Size", megabytes(size), "In float32, batch norm folded; edgenet qat makes it int8.")
    return Tile("Size", megabytes(size), f"{t.weight_bits}-bit weights.", f"of {megabytes(whole)}", size / whole)


def _time_tile(t: TrainingRecord) -> Tile:
    speed = f", {number(t.images_per_s, 1)} pictures a second." if t.images_per_s else "."
    again = t.again or LearnedAgain()
    time = MISSING if t.seconds is None else _duration(t.seconds + (again.seconds or 0.0))
    more = f" and {again.epochs} once more" if again.epochs else ""
    return Tile("Training", time, counted(len(t.curve) - 1, "epoch") + more + speed)


def verdict(t: TrainingRecord) -> str:
    """Return in a sentence what was returned and why."""
    best = f"after epoch {t.best_epoch} of {len(t.curve) - 1}"
    if t.kind == "finetune" and t.stages:
        after = (_once_more(t.again) if t.again else "", _then_verdict(t.then) if t.then else "")
        return " ".join(filter(None, (_kept_stage(t), *after)))
    if t.kind == "finetune":
        return f"The best network was that {best}." if t.best_epoch else "No epoch was better than the new head."
    files = t.files or (TrainedFile(kept=t.kept, why=t.why),)
    if len({f.kept for f in files}) == 1:
        many = len(files) > 1
        trained = f"trained file{'s' * many}, as {best}"
        file = trained if files[0].kept == "qat" else f"post-training file{'s' * many}"
        return f"Returned {'are' if many else 'is'} the {file}: {files[0].why}."
    parts = [f"for {_format(f)} the {'trained' if f.kept == 'qat' else 'post-training'} file ({f.why})" for f in files]
    return f"Returned is {'; '.join(parts)}."


# What learned in a stage of finetune: in a table, at the start of a sentence, and after "to train".
_STAGES = {
    "head": ("New head, all else as it was", "The new head alone", "the head"),
    "top": ("Top layers too", "The network with its top layers trained", "the top layers"),
    "all": ("All layers", "The network with all layers trained", "all layers"),
}


def _kept_stage(t: TrainingRecord) -> str:
    """Return which stage of finetune is returned, or was chosen to be learned once more, and why that one."""
    names = [s.layers for s in t.stages]
    kept = t.stages[names.index(t.kept)] if t.kept in names else t.stages[0]
    state = "was chosen" if _taught_all(t) else "is returned"
    loss, text = "the loss of the held-back pictures", f"{_STAGES[kept.layers][1]} {state}"
    if kept.gain is not None:
        before = None if kept.held_back_loss is None else kept.held_back_loss + kept.gain
        epoch = f"epoch {t.best_epoch} of {len(t.curve) - 1}"
        text += f", as after {epoch}: {loss} fell from {number(before, 3)} to {_loss(kept)}"
        loss = "it"
    last = t.stages[-1]
    if last is kept:
        return f"{text}." if kept.gain is not None else f"{text}: nothing else was to learn."
    did = f"did not lower {loss}"
    if last.gain is not None and last.gain > 0:
        did = f"lowered {loss} by no more than noise ({_loss(kept)} to {_loss(last)})"
    return f"{text}. To train {_STAGES[last.layers][2]} too {did}."


def _taught_all(t: TrainingRecord) -> bool:
    """Whether the network that is returned learned from the held-back pictures too, in the end."""
    return t.again is not None and t.again.kept


def _once_more(again: LearnedAgain) -> str:
    """Return how the network of finetune learned once more from all pictures, and what that says of the figures."""
    pictures = counted(again.pictures, "picture")
    if again.kept:
        epochs = f" for {counted(again.epochs, 'epoch')}" if again.epochs else ""
        return (
            f"What is returned learned once more from all {pictures}{epochs}, with what the held-back ones had chosen: "
            "the held-back figures are those of the network before, and no measure of it."
        )
    return {
        "time": f"No time was left to learn once more from all {pictures}.",
        "loss": f"It learned once more from all {pictures}, and that is not returned: the loss of the held-back ones, "
        "which it had learned, was no lower than before.",
    }.get(again.why, f"It learned once more from all {pictures}, and that is not returned: the loss was no number.")


def _loss(stage: TrainedStage) -> str:
    return number(stage.held_back_loss, 3)


def _lead(t: TrainingRecord) -> str:
    pictures = t.pictures
    learned = counted(pictures.train + (pictures.calibration or 0), "picture")
    epochs, asked = counted(len(t.curve) - 1, "epoch"), t.settings.get("epochs")
    what = "The integers learned to answer as the float network does"
    if t.kind == "finetune":
        what = _LEARNED[t.stages[-1].layers] if t.stages else "All layers learned the classes of the folder"
    text = f"{what} from {learned}" + (f" in {epochs}" if len(t.curve) > 1 else "")
    if t.stopped_early and asked and not t.stages:  # finetune's number is that of each stage
        text += f" of {asked}, stopped early"
    if t.seconds is not None and len(t.curve) > 1:
        text += f": {_duration(t.seconds)}"
        text += f" at {number(t.images_per_s, 1)} pictures a second" if t.images_per_s else ""
    if pictures.held_back and len(t.curve) > 1:
        text += f". {counted(pictures.held_back, 'other picture')} decided which epoch was the best"
        text += ", and taught in the end" * _taught_all(t)
    return text + (f"; {counted(pictures.evaluation, 'other')} measured." if pictures.evaluation else ".")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f}{NBSP}s"
    return f"{seconds // 60:.0f}{NBSP}min {seconds % 60:.0f}{NBSP}s"


def _curve(t: TrainingRecord) -> Figure | None:
    rows, finetuned = t.curve, t.kind == "finetune"
    if finetuned and len(rows) == 1:
        return None
    right = "held_back_accuracy" if finetuned else "held_back_agreement"
    start = "new head alone" if finetuned else "post-training"
    held_back, training = _values(rows, "held_back_loss"), _values(rows, "loss")
    panels = (
        curves.Panel(
            "Loss" if finetuned else "Divergence from float",
            (curves.Curve("held back", held_back, "chosen"), curves.Curve("training", training, "other")),
            _first(_values(rows[:1], "held_back_loss")),
            start,
        ),
        curves.Panel(
            f"{'Right' if finetuned else 'Agreement with float'}, held back, %",
            (curves.Curve("held back", _values(rows, right, 100), "chosen", _band(t, right)),),
            _first(_values(rows[:1], right, 100)),
            start,
            most=100,
        ),
        curves.Panel(
            "Held-back pictures since the stage began",
            (
                curves.Curve("learned", _values(rows, "held_back_learned"), "chosen"),
                curves.Curve("forgotten", _values(rows, "held_back_forgotten"), "other"),
            ),
        ),
    )
    drawn = [p for p in panels if any(c.values for c in p.curves)]
    if not drawn:
        return None
    best, epochs = t.best_epoch, len(rows) - 1
    alt = f"Training curve, {counted(epochs, 'epoch')}, the best is {best}: " + "; ".join(
        f"{p.title}: {c.label} from {c.values[0][1]:.3g} to {c.values[-1][1]:.3g}"
        for p in drawn
        for c in p.curves
        if c.values
    )
    caption = (
        "Epoch 0 is before training; the upright line is the epoch that was kept. Held-back pictures are "
        f"{'not trained on in these epochs' if _taught_all(t) else 'never trained on'} and see the averaged weights; "
        "the training loss is that of augmented pictures."
    )
    if panels[1].curves[0].band:
        caption += f" The shaded band is the 95 % interval of {counted(t.pictures.held_back, 'held-back picture')}."
    return Figure(for_both(lambda px: curves.curves(drawn, best, epochs, px, alt)), caption)


def _values(rows: Sequence[Epoch], name: str, times: float = 1) -> tuple[tuple[float, float], ...]:
    found = ((float(row.epoch), getattr(row, name)) for row in rows)
    return tuple((x, y * times) for x, y in found if y is not None and abs(y) < _ABSURD)


def _band(t: TrainingRecord, name: str) -> tuple[tuple[float, float, float], ...]:
    """Return the 95 % interval of a part of the held-back pictures, epoch by epoch, in %; of finetune alone."""
    n = t.pictures.held_back
    if t.kind != "finetune" or not n:
        return ()
    found = ((float(row.epoch), wilson(round(y * n), n)) for row in t.curve if (y := getattr(row, name)) is not None)
    return tuple((x, 100 * low, 100 * high) for x, (low, high) in found)


def _first(values: Sequence[tuple[float, float]]) -> float | None:
    return values[0][1] if values else None


def _ablation(t: TrainingRecord) -> Table | None:
    if not t.files:
        return None
    labelled = any(e is not None and e.top1 is not None for f in t.files for e in (f.before, f.after))
    titles = ("File", "Agreement with float", "Difference", *(["Top-1"] if labelled else []), "SQNR", "Pictures")
    groups: dict[str, list[Line]] = {}
    for f in t.files:
        before = f.before or Score()
        groups[_format(f)] = [_measured(f, "ptq", f"Post-training {_precision(t).upper()}", before, None, labelled)]
        if f.after:
            groups[_format(f)].append(_measured(f, "qat", "After training", f.after, before.agreement, labelled))
    caption = "The ablation: the same calibration, the same pictures, with and without training; difference in points."
    return Table(caption, titles, groups)


def _measured(f: TrainedFile, kind: str, name: str, e: Score, base: float | None, labelled: bool) -> Line:
    """Return a line of the ablation: one file's score, and how many points it is above `base`."""
    kept = f.kept == kind
    change = e.agreement - base if e.agreement is not None and base is not None else None
    cells = (
        Cell(name, chip=_RETURNED if kept else None),
        Cell(percent(e.agreement), interval(e.agreement_ci95) if e.agreement_ci95 else ""),
        Cell(points(change)),
        *([Cell(percent(e.top1))] if labelled else []),
        Cell(decibels(e.sqnr_db)),
        Cell(number(e.n_images, 0)),
    )
    return Line(cells, kept)


def _likeness(t: TrainingRecord) -> str:
    same = t.simulated_like_file
    if not t.files or not same:
        return ""
    return (
        f"The simulation that was trained and the file have one first answer on {percent(same.before)} of the "
        f"held-back pictures before training, on {percent(same.after)} after."
    )


def _kept_once(t: TrainingRecord) -> str:
    """Return what was computed once and read in every epoch of the head and the top layers."""
    kept = t.activations
    if kept is None:
        return ""
    saved = f"so that {percent(kept.work_saved)} of the network was not computed again" if len(t.stages) > 1 else ""
    return (
        f"Computed once and read from disk: {counted(kept.views, 'view')} of {counted(kept.pictures, 'picture')} at "
        f"{kept.at}, {megabytes(kept.size_bytes)}" + (f", {saved} while the top layers learned." if saved else ".")
    )


def _heads(t: TrainingRecord) -> Table:
    if t.stages:
        chip = _CHOSEN if _taught_all(t) else _RETURNED
        lines = [
            Line(
                (
                    Cell(_STAGES[s.layers][0], chip=chip if s.layers == t.kept else None),
                    Cell(percent(s.held_back_accuracy)),
                    Cell(_loss(s)),
                    Cell(MISSING if s.gain is None else f"{number(s.gain, 3)} ± {number(s.gain_error, 3)}"),
                    Cell(MISSING if s.learned is None else f"{s.learned} / {s.forgotten}"),
                    Cell(str(s.epochs)),
                    Cell(MISSING if s.seconds is None else _duration(s.seconds / max(1, s.epochs))),
                ),
                s.layers == t.kept,
            )
            for s in t.stages
        ]
        caption = (
            "One stage after another, each kept where it lowers the held-back loss by more than noise. Learned are "
            "held-back pictures that are right since the stage, forgotten those that were right before it."
        )
        titles = (
            "Trained", "Right, held back", "Loss, held back", "Fell by", "Learned / forgotten", "Epochs",
            "Time an epoch",
        )  # fmt: skip
        return table(caption, titles, lines)
    head = t.before.held_back_accuracy_of_the_new_head if t.before else None
    best = t.best_epoch
    after = t.curve[best].held_back_accuracy if 0 < best < len(t.curve) else None
    lines = [
        Line((Cell(name, chip=_RETURNED if kept else None), Cell(percent(right))), kept)
        for name, right, kept in ((_STAGES["head"][0], head, best == 0), (_STAGES["all"][0], after, best > 0))
    ]
    return table("First the head alone, then all layers.", ("Trained", "Right, held back"), lines)


def _then_returned(then: ThenRecord) -> Step | None:
    """Return the step whose file is to be shipped: the trained one where it was kept."""
    wanted = "trained INT8" if then.kept == "qat" else "INT8"
    return next((s for s in then.steps if s.name == wanted), None)


def _then_headline(then: ThenRecord) -> str:
    """Return what came of it, "" where nothing was measured."""
    step, base = _then_returned(then), next((s for s in then.steps if s.name == "float after"), None)
    if step is None or step.top1 is None:
        return ""
    beside = f"; in float it was {percent(base.top1)}" if base and base.top1 is not None else ""
    return f"The finetuned int8 file is right on {percent(step.top1)} of the pictures{beside}"


def _then_verdict(then: ThenRecord) -> str:
    """Return which int8 file is returned and why."""
    if then.what == "int8":
        return "Its int8 file is the post-training one: --then qat would have trained it too."
    return f"Returned is the {'trained' if then.kept == 'qat' else 'post-training'} int8 file: {then.why}."


def _then_steps(then: ThenRecord) -> Table:
    """Float before and after, int8 before and after, on the same pictures."""
    kept = _then_returned(then)
    base = next((s for s in then.steps if s.name == "float after"), None)
    lines = []
    for s in then.steps:
        change = s.top1 - base.top1 if base and s is not base and s.top1 is not None and base.top1 is not None else None
        cells = (
            Cell(_STEPS_OF_THEN.get(s.name, s.name), chip=_RETURNED if s is kept else None),
            Cell(percent(s.top1), interval(s.top1_ci95) if s.top1_ci95 else ""),
            Cell(points(change)),
            Cell(MISSING if s.agreement is None else percent(s.agreement)),
            Cell(megabytes(s.size_bytes)),
        )
        lines.append(Line(cells, s is kept))
    titles = ("File", "Top-1", "Beside float after", "Agreement with float after", "Size")
    return table("Step by step, on the same pictures; in small print the 95 % interval.", titles, lines)


def _then_confusions(view: View, then: ThenRecord) -> Table | None:
    """The wrong answers whose number changed from step to step."""
    if not then.confusions:
        return None
    lines = [
        Line((Cell(view.label_name(c.label)), Cell(view.class_name(c.answer)), *(Cell(number(n, 0)) for n in c.n)))
        for c in then.confusions
    ]
    titles = ("Is", "Taken for", *(_STEPS_OF_THEN.get(s.name, s.name) for s in then.steps))
    shown, whole = len(then.confusions), then.n_confusions
    some = f"the {shown} that changed most of {whole}" if shown < whole else "all of them"
    return table(f"Mistakes whose number changed, {some}: pictures, step by step.", titles, lines)


def _format(f: TrainedFile) -> str:
    return FORMAT_NAMES.get(f.format, f.format)
