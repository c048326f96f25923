"""The section of the page that says how training went: the curve, what it brought, which file is returned and why.

It draws from context["training"], which `edgenet qat` and `edgenet finetune` write (docs/results.md). `context` comes
from a file, so nothing in it is trusted to be complete.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edgenet.report.files import FORMAT_NAMES, Line, grouped_table
from edgenet.report.formatting import MISSING, NBSP, counted, decibels, interval, megabytes, number, percent, points
from edgenet.report.html import View, escape, figure, section, tile
from edgenet.report.plots import curves
from edgenet.report.recommendation import Row

_ABSURD = 1e30  # what a loss that is no number is kept as
_RETURNED = '<em class="chip good">returned</em>'

Told = Mapping[str, Any]


def training(view: View) -> str:
    """The curve, before and after, and the ablation against post-training INT8."""
    t = view.results.context.get("training")
    if not isinstance(t, Mapping) or not t.get("curve"):
        return ""
    finetuned = t.get("kind") == "finetune"
    body = _curve(t, finetuned) + (_heads(t) if finetuned else _ablation(t))
    return section("training", "Training", body, escape(_lead(t, finetuned)))


def headline(view: View) -> str:
    """Return what training brought, "" where the results are not of a training."""
    t = view.results.context.get("training")
    if not isinstance(t, Mapping) or not t.get("curve"):
        return ""
    if t.get("kind") == "finetune":
        top1 = (t.get("after") or {}).get("top1")
        return "The finetuned network was not measured" if top1 is None else (
            f"The finetuned network is right on {percent(top1)} of the pictures"
        )  # fmt: skip
    before, after = ((t.get(when) or {}).get("agreement") for when in ("before", "after"))
    if t.get("kept") != "qat":
        return "Training brought nothing more: the post-training int8 file is returned"
    if before is None or after is None or after <= before:
        return f"The trained int8 file agrees with float on {percent(after)} of the pictures"
    return f"Training brought the int8 file from {percent(before)} to {percent(after)} agreement with float"


def opening(view: View) -> str:
    """Return what stands below the headline on a training's page, "" where the results are not of one."""
    if not headline(view):
        return ""
    t: Told = view.results.context["training"]
    finetuned = t.get("kind") == "finetune"
    returned = next((r for r in view.rows if r.artifact.precision == ("float32" if finetuned else "int8")), None)
    tiles = "".join(f(t, view, returned) for f in (_accuracy_tile, _size_tile, _time_tile))
    return f'<p class="verdict">{escape(verdict(t))}</p><div class="tiles">{tiles}</div>'


def _accuracy_tile(t: Told, view: View, returned: Row | None) -> str:
    e = returned.evaluation if returned else None
    if e is None:
        return tile("Accuracy", MISSING, "", None, "It was not measured.")
    if t.get("kind") == "finetune":
        n = counted(e.n_labelled, "picture")
        return tile(
            "Top-1", percent(e.top1), "", e.top1, f"Of {n} that were not trained on; 95 %: {interval(e.top1_ci95)}."
        )
    of = f"of {counted(e.n_images, 'picture')}"
    when, name = ("before", "Post-training int8") if t.get("kept") == "qat" else ("after", "The trained file")
    other = (t.get(when) or {}).get("agreement")
    sentence = f"{name} had {percent(other)}." if t.get("best_epoch") else "No epoch was better than none."
    return tile("Agreement with float32", percent(e.agreement), of, e.agreement, sentence)


def _size_tile(t: Told, view: View, returned: Row | None) -> str:
    size = returned.artifact.size_bytes if returned else None
    whole = view.baseline.artifact.size_bytes if view.baseline else None
    if t.get("kind") == "finetune" or not size or not whole:
        return tile("Size", megabytes(size), "", None, "In float32, batch norm folded; edgenet qat makes it int8.")
    return tile("Size", megabytes(size), f"of {megabytes(whole)}", size / whole, f"{t.get('weight_bits')}-bit weights.")


def _time_tile(t: Told, view: View, returned: Row | None) -> str:
    seconds, speed = t.get("seconds"), t.get("images_per_s")
    sentence = counted(len(t["curve"]) - 1, "epoch") + (f", {number(speed, 1)} pictures a second." if speed else ".")
    return tile("Training", MISSING if seconds is None else _duration(seconds), "", None, sentence)


def verdict(t: Told) -> str:
    """Return in a sentence what was returned and why."""
    last = len(t["curve"]) - 1
    best = f"after epoch {t.get('best_epoch')} of {last}"
    if t.get("kind") == "finetune":
        return f"The best network was that {best}." if t.get("best_epoch") else "No epoch was better than the new head."
    files: Sequence[Told] = t.get("files") or [t]
    kinds = {f.get("kept") for f in files}
    if len(kinds) == 1:
        file = {"qat": f"the trained file{'s' * (len(files) > 1)}, as {best}"}.get(
            str(kinds.pop()), f"the post-training file{'s' * (len(files) > 1)}"
        )
        return f"Returned {'are' if len(files) > 1 else 'is'} {file}: {files[0].get('why', '')}."
    parts = [
        f"for {_format(f)} the {'trained' if f.get('kept') == 'qat' else 'post-training'} file ({f.get('why', '')})"
        for f in files
    ]
    return f"Returned is {'; '.join(parts)}."


def _lead(t: Told, finetuned: bool) -> str:
    pictures: Told = t.get("pictures") or {}
    settings: Told = t.get("settings") or {}
    learned = int(pictures.get("train") or 0) + int(pictures.get("calibration") or 0)
    epochs, asked = len(t["curve"]) - 1, settings.get("epochs")
    what = "All layers learned the classes of the folder" if finetuned else (
        "The integers learned to answer as the float network does"
    )  # fmt: skip
    text = f"{what} from {counted(learned, 'picture')} in {counted(epochs, 'epoch')}"
    if t.get("stopped_early") and asked:
        text += f" of {asked}, stopped early"
    seconds, speed = t.get("seconds"), t.get("images_per_s")
    if seconds is not None:
        text += f": {_duration(float(seconds))}"
        text += f" at {number(float(speed), 1)} pictures a second" if speed else ""
    held = pictures.get("held_back")
    text += f". {counted(int(held), 'other picture')} decided which epoch was the best" if held else ""
    measured = pictures.get("evaluation")
    return text + (f"; {counted(int(measured), 'other')} measured." if measured else ".")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f}{NBSP}s"
    return f"{seconds // 60:.0f}{NBSP}min {seconds % 60:.0f}{NBSP}s"


def _curve(t: Told, finetuned: bool) -> str:
    rows: Sequence[Told] = t["curve"]
    right = "accuracy" if finetuned else "agreement"
    best, epochs = int(t.get("best_epoch") or 0), len(rows) - 1
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


def _values(rows: Sequence[Told], name: str, times: float = 1) -> tuple[tuple[float, float], ...]:
    found = ((float(r.get("epoch", i)), r.get(name)) for i, r in enumerate(rows))
    numbers = ((x, float(y) * times) for x, y in found if isinstance(y, int | float) and not isinstance(y, bool))
    return tuple((x, y) for x, y in numbers if math.isfinite(y) and abs(y) < _ABSURD)


def _start(rows: Sequence[Told], name: str) -> float | None:
    first = _values(rows[:1], name, 100)
    return first[0][1] if first else None


def _ablation(t: Told) -> str:
    files: Sequence[Told] = t.get("files") or []
    labelled = any((f.get(when) or {}).get("top1") is not None for f in files for when in ("before", "after"))
    titles = ["File", "Agreement with float", "Difference", *(["Top-1"] if labelled else []), "SQNR", "Pictures"]
    groups: dict[str, list[Line]] = {}
    for f in files:
        before: Told = f.get("before") or {}
        lines: list[Line] = []
        for when, kind, name in (("before", "ptq", "Post-training INT8"), ("after", "qat", "After training")):
            e: Told = f.get(when) or {}
            if not e and when == "after":
                continue
            kept = f.get("kept") == kind
            agreement, base = e.get("agreement"), before.get("agreement")
            change = agreement - base if when == "after" and agreement is not None and base is not None else None
            ci = e.get("agreement_ci95")
            cells = [
                f"{name} {_RETURNED if kept else ''}",
                percent(agreement) + (f"<small>{interval((ci[0], ci[1]))}</small>" if ci else ""),
                points(change),
                *([percent(e.get("top1"))] if labelled else []),
                decibels(e.get("sqnr_db")),
                number(e.get("n_images"), 0),
            ]
            lines.append((kept, cells))
        groups[_format(f)] = lines
    if not groups:
        return ""
    caption = "The ablation: the same calibration, the same pictures, with and without training; difference in points."
    same: Told = t.get("simulated_like_file") or {}
    like = [percent(same.get(when)) for when in ("before", "after")]
    note = (
        f'<p class="rule">The simulation that was trained and the file have one first answer on {like[0]} of the '
        f"held-back pictures before training, on {like[1]} after.</p>"
        if same
        else ""
    )
    return grouped_table(caption, titles, groups) + note


def _heads(t: Told) -> str:
    head = (t.get("before") or {}).get("held_back_accuracy_of_the_new_head")
    rows: Sequence[Told] = t["curve"]
    best = int(t.get("best_epoch") or 0)
    after = rows[best].get("held_back_accuracy") if best < len(rows) else None
    lines: list[Line] = [
        (best == 0, [f"New head, all else as it was {_RETURNED if best == 0 else ''}", percent(head)]),
        (best > 0, [f"All layers {_RETURNED if best else ''}", percent(after if best else None)]),
    ]
    return grouped_table("First the head alone, then all layers.", ["Trained", "Right, held back"], {"": lines})


def _format(f: Told) -> str:
    return FORMAT_NAMES.get(str(f.get("format")), str(f.get("format", "")))
