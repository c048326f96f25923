"""Results -> OUT/report.html: one file that opens with the answer, and needs neither a network nor a script.

Each section is a function View -> a record of what it shows, None where there is nothing; `SECTIONS` is the page from
top to bottom. The template of the same name in templates/ makes HTML of the record.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from edgenet import templating
from edgenet.files import atomic_write
from edgenet.report import training
from edgenet.report.charts import latency, over_time, tradeoff
from edgenet.report.classes import classes
from edgenet.report.devices import headline, picks
from edgenet.report.devices.section import Choice, choices, devices
from edgenet.report.files import estimates, files
from edgenet.report.formatting import MISSING, counted, failed, megabytes, milliseconds, percent, points
from edgenet.report.glossary import Word, new_words
from edgenet.report.pictures import pictures
from edgenet.report.pieces import TEMPLATES, Fact, Opening, Tile, facts
from edgenet.report.quantization import calibration, search
from edgenet.report.recommendation import (
    SHOWN_REASONS,
    accuracy_sentence,
    latency_sentence,
    recommend,
    size_sentence,
)
from edgenet.report.refusals import Refusal
from edgenet.report.roofline import explanations
from edgenet.report.rows import Row, by_format, rows
from edgenet.report.view import View, made_with
from edgenet.results import Results

REPORT_FILE = "report.html"

Reasons = tuple[tuple[str, str], ...]  # (file name, sentence)


@dataclass(frozen=True)
class Page:
    """The page, from top to bottom."""

    title: str
    sections: Sequence["Section"]


@dataclass(frozen=True)
class Section:
    """A section in HTML, and the words that stand in it for the first time on the page."""

    html: Markup
    words: Sequence[Word]


@dataclass(frozen=True)
class _Shown:
    """What the template of a section gets."""

    view: Any


@dataclass(frozen=True)
class WhyNot:
    """Why not each other file."""

    title: str
    shown: Reasons
    folded: Reasons
    rule: str  # that chose


@dataclass(frozen=True)
class Answer:
    """The top of the page. `alerts` are notes without which the numbers must not be used."""

    eyebrow: str
    headline: str
    alerts: tuple[str, ...]
    why_nothing: tuple[str, ...]  # is to be shipped
    verdict: str
    tiles: tuple[Tile, ...]
    devices: tuple[Choice, ...]
    why_not: WhyNot | None
    notes: tuple[str, ...]
    failed: str  # how many steps


@dataclass(frozen=True)
class ShownFailure:
    """What did not come about, and what to do."""

    what: str
    stage: str
    why: str
    remedy: str


def write_report(
    results: Results, out: Path, class_names: Sequence[str] = (), lost: Mapping[str, Refusal] | None = None
) -> Path:
    """Write OUT/report.html whole or not at all and return its path. Partial results give a page of what there is.

    Args:
        results: what results.json holds.
        out: the folder of results.json.
        class_names: the name of each class index; without, the pictures show "class 17".
        lost: what `lost_files` found.

    Raises:
        InputError: the disk is full or the place cannot be written to.
    """
    page = render(view_of(results, class_names, lost))
    path = out / REPORT_FILE
    with atomic_write(path) as tmp:
        # A file name that is not valid UTF-8 arrives with surrogates, which no encoder takes.
        tmp.write_text(page, encoding="utf-8", errors="replace")
    return path


def view_of(results: Results, class_names: Sequence[str] = (), lost: Mapping[str, Refusal] | None = None) -> View:
    """Return what the sections draw from. `lost` are files that are no longer as they were measured."""
    return View(results, by_format(rows(results)), recommend(results, lost=lost), class_names, lost or {})


def render(view: View) -> str:
    """Return the page."""
    known: set[str] = set()
    sections = []
    for name, section in SECTIONS.items():
        if shown := section(view):
            html = templating.page(f"{name}.html", _Shown(shown), TEMPLATES)
            sections.append(Section(Markup(html), new_words(html, known)))
    return templating.page("report.html", Page(_headline(view), sections), TEMPLATES)


def _headline(view: View) -> str:
    trained = training.headline(view)
    return trained or headline(view.answer, picks(view.results, view.answer, view.rows))


def answer(view: View) -> Answer:
    """The headline, three figures, which file for which device, why this file and why not each other."""
    a, failures = view.answer, view.results.failures
    models = " · ".join(dict.fromkeys(r.artifact.model for r in view.rows))
    opening = training.opening(view) or _opening(view)
    return Answer(
        eyebrow=" · ".join(s for s in ("edgenet report", models, view.results.context.created[:10]) if s),
        headline=_headline(view),
        alerts=tuple(n.text for n in a.notes if n.loud),
        why_nothing=() if opening else a.why,
        verdict=opening.verdict if opening else "",
        tiles=opening.tiles if opening else (),
        devices=choices(view),
        why_not=None if training.headline(view) else _why_not(view),
        notes=tuple(n.text for n in a.notes if not n.loud),
        failed=f"{counted(len(failures), 'step')} failed" if failures else "",
    )


def _opening(view: View) -> Opening | None:
    """Return the verdict on the file that the page is about, None where there is none."""
    chosen, base = view.chosen, view.baseline
    if chosen is None:
        return None
    tiles = (_size_tile(chosen, base), _accuracy_tile(view, chosen, base), _latency_tile(chosen, base))
    return Opening(view.answer.why[0], tiles)


def _why_not(view: View) -> WhyNot | None:
    reasons = view.answer.why_not
    if not reasons:
        return None
    title = "Why not the others" if view.chosen else "File by file"
    # One more line is shorter than a fold.
    shown = len(reasons) if len(reasons) <= SHOWN_REASONS + 1 else SHOWN_REASONS
    return WhyNot(title, reasons[:shown], reasons[shown:], view.answer.rule)


def _size_tile(r: Row, base: Row | None) -> Tile:
    size, whole = r.artifact.size_bytes, base.artifact.size_bytes if base else 0
    if r.is_baseline or not whole:
        return Tile("Size", megabytes(size), size_sentence(r, base))
    less = f"{megabytes(whole - size)} less to ship." if size < whole else f"{megabytes(size - whole)} more."
    share = f"{percent(size / whole, 0)} of float32's size, {less}"
    return Tile("Size", megabytes(size), share, f"of {megabytes(whole)}", size / whole)


def _accuracy_tile(view: View, r: Row, base: Row | None) -> Tile:
    by_labels, e = view.answer.by_labels, r.evaluation
    if view.random_weights:
        return Tile("Accuracy", MISSING, "Random weights: accuracy means nothing.")
    sentence = accuracy_sentence(r, base, by_labels)
    if e is None or r.is_baseline:
        return Tile(r.words.title, percent(e.top1 if e else None), sentence)
    if not by_labels:
        return Tile("Agreement with float32", percent(e.agreement), sentence, f"same {r.words.answer}", e.agreement)
    drop = r.drop or 0.0
    word = "gained" if points(drop).startswith("−") else "lost"
    unit = "point" if points(abs(drop)) == "1.0" else "points"
    whole = base.evaluation.top1 if base and base.evaluation else None
    share = e.top1 / whole if e.top1 is not None and whole else None
    return Tile(
        "Top-1 accuracy" if e.task == "classes" else r.words.title, f"{points(abs(drop))} {unit}", sentence, word, share
    )


def _latency_tile(r: Row, base: Row | None) -> Tile:
    m, base_m = r.measurement, base.measurement if base else None
    of = f"of {milliseconds(base_m.median_ms)}" if base_m and not r.is_baseline else ""
    share = m.median_ms / base_m.median_ms if m and base_m and base_m.median_ms else None
    return Tile("Latency", milliseconds(m.median_ms if m else None), latency_sentence(r, base), of, share)


def failures(view: View) -> tuple[ShownFailure, ...]:
    """What was asked for and did not come about, each with a remedy."""
    return tuple(ShownFailure(failed(f), f.stage, f.why, f.remedy) for f in view.results.failures)


def provenance(view: View) -> tuple[Fact, ...]:
    """How the numbers were made."""
    c = view.results.context
    evaluations = [r.evaluation for r in view.rows if r.evaluation]
    evaluated = [
        f"{counted(n, 'picture')}, {labelled} labelled{f', {skipped} skipped as unreadable' if skipped else ''}; "
        f"fingerprint {images}"
        for n, labelled, skipped, images in dict.fromkeys(
            (e.n_images, e.n_labelled, e.n_skipped, e.images) for e in evaluations
        )
    ]
    used = c.images.calibration if c.images else None
    calibrations = dict.fromkeys(r.artifact.calibration for r in view.rows if r.artifact.calibration)
    pre = next((r.artifact.preprocessing for r in view.rows if r.artifact.preprocessing), {})
    return (
        *made_with(c),
        *facts(
            *(("Evaluated on", text) for text in evaluated),
            ("Weights", ", ".join(dict.fromkeys(r.artifact.weights for r in view.rows if r.artifact.weights))),
            ("Calibrated on", f"{counted(used.n, 'other picture')}; fingerprint {used.fingerprint}" if used else ""),
            ("Calibration", ", ".join(calibrations)),
            ("Preprocessing", ", ".join(f"{k} {_joined(v)}" for k, v in pre.items())),
            *((f"sha256 of {r.name}", r.artifact.sha256) for r in view.rows),
        ),
    )


def _joined(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


# The page from top to bottom. A new section is a function, a template of its name and a line here.
SECTIONS: Mapping[str, Callable[[View], Any]] = {
    "answer": answer,
    "devices": devices,
    "tradeoff": tradeoff,
    "search": search,
    "training": training.training,
    "files": files,
    "estimates": estimates,
    "latency": latency,
    "over_time": over_time,
    "explanations": explanations,
    "classes": classes,
    "pictures": pictures,
    "calibration": calibration,
    "failures": failures,
    "provenance": provenance,
}
