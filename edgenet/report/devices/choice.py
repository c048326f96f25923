"""Results -> which file is for which device, and why: what was measured, or what compilers and emulators say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgenet.report.formatting import NBSP, counted, interval, megabytes, milliseconds, percent
from edgenet.report.recommendation import CHIPS_ONLY, Recommendation, best_of
from edgenet.report.refusals import Refusal, flipped
from edgenet.report.rows import Row, is_of, main_condition
from edgenet.results import Artifact, Estimate, Evaluation, Measurement, Results
from edgenet.targets import not_for, target_of
from edgenet.tasks.words import WORDS

MAX_DISAGREEMENT = 0.03  # with float32, as far as the pictures that were emulated can tell
# Refusals of a file that hold wherever it runs; the others say what was not done on this machine.
_LOST = ("gone", "altered")
_EVERYWHERE = (*_LOST, "not-finite", "not-comparable", "over-limit", "over-budget", "no-own-pictures")


@dataclass(frozen=True)
class Pick:
    """The file for one device, and why, in sentences. `artifact` is None where there is none."""

    device: str
    artifact: str | None
    name: str
    why: tuple[str, ...]


@dataclass(frozen=True)
class Known:
    """What is known of one file on one device. `measured` is None on chips, `estimated` on computers and phones."""

    measured: Measurement | None = None
    estimated: Estimate | None = None
    emulated: Evaluation | None = None


def devices_of(results: Results) -> list[str]:
    """Return the devices that the results know, computers and phones first."""
    found = dict.fromkeys(
        [
            *(m.device for m in results.measurements if m.samples_ns),
            *(e.device for e in results.estimates),
            *(e.device for e in results.evaluations if e.emulated),
            *(f.device for f in results.failures if f.device and not f.artifact),
        ]
    )
    return sorted(found, key=lambda d: target_of(d) is not None)


def known_of(results: Results, a: Artifact, device: str) -> Known:
    """Return what is known of a file on a device; what is of other bytes is left out."""
    condition = main_condition(results)
    ms = [m for m in results.measurements if m.device == device and m.samples_ns and is_of(m, a)]
    ms.sort(key=lambda m: (m.device, m.threads) != condition)
    estimates = [e for e in results.estimates if e.device == device and is_of(e, a)]
    emulated = [e for e in results.evaluations if e.device == device and e.emulated and is_of(e, a)]
    return Known(next(iter(ms), None), next(iter(estimates), None), next(iter(emulated), None))


def ranked_on(results: Results, device: str) -> list[Artifact]:
    """Return the files that a chip's compiler took, the one to ship first.

    The more operators the accelerator takes the better; of equals the chip's first format, then the form that the chip
    asked for, then the faster by the estimate, then the one that needs less memory. Left out is what is not for the
    chip, and what runs on the CPU alone.
    """
    t = target_of(device)
    formats = t.formats if t else ()
    taken = [a for a in results.artifacts if not not_for(device, a.format, a.precision)]
    found = [(a, e) for a in taken if (e := known_of(results, a, device).estimated) and e.n_accelerated]

    def key(pair: tuple[Artifact, Estimate]) -> tuple[float, ...]:
        a, e = pair
        format = formats.index(a.format) if a.format in formats else len(formats)
        ms = math.inf if e.inference_ms is None else e.inference_ms
        memory = sum(b or 0 for b in (e.sram_bytes, e.dram_bytes, e.flash_bytes))
        asked_for = device not in a.made_for
        taken = e.n_accelerated / max(e.n_operators, 1)
        return -taken, format, asked_for, ms, memory, e.compiled_bytes or 0, a.size_bytes

    return [a for a, _ in sorted(found, key=key)]


def picks(results: Results, answer: Recommendation, table: Sequence[Row]) -> tuple[Pick, ...]:
    """Return the file for each device; nothing where one computer is all there is, which the headline is about."""
    devices = devices_of(results)
    if len(devices) < 2 and not any(target_of(d) for d in devices):
        return ()
    return tuple(
        _on_chip(results, answer, d) if target_of(d) else _on_machine(results, answer, table, d) for d in devices
    )


def headline(answer: Recommendation, found: Sequence[Pick]) -> str:
    """Return the headline: of a run for chips alone which file they get, else what is recommended."""
    names = dict.fromkeys(p.name for p in found if p.artifact)
    if answer.code != CHIPS_ONLY or not found:
        return answer.headline
    served = [p for p in found if p.artifact]
    if not served:
        return f"No file for {found[0].device}" if len(found) == 1 else f"No file for any of the {len(found)} chips"
    if len(found) == 1:
        return f"Ship {served[0].name} to {found[0].device}"
    chips = f"the {len(found)} chips" if len(served) == len(found) else f"{len(served)} of {len(found)} chips"
    return f"Ship {next(iter(names))} to {chips}" if len(names) == 1 else f"Ship {len(names)} files to {chips}"


def _on_machine(results: Results, answer: Recommendation, table: Sequence[Row], device: str) -> Pick:
    """The rule of the headline, by the times of this device."""
    fit = []
    for r in table:
        m = known_of(results, r.artifact, device).measured
        if m and not r.artifact.made_for and not _refused(answer.refused, r.artifact):
            fit.append(replace(r, measurement=m))
    main = main_condition(results)
    if main and main[0] == device:  # the very file of the headline
        fit = [r for r in fit if r.artifact.id == answer.artifact]
    best = best_of(fit)
    if best is None or best.measurement is None:
        return _none(results, device, "no file was measured there that is within the limit")
    m = best.measurement
    said = f"{milliseconds(m.median_ms)} a picture, measured there ({counted(m.threads, 'thread')}, {m.runtime})."
    return Pick(device, best.artifact.id, best.name, (said,))


def _on_chip(results: Results, answer: Recommendation, device: str) -> Pick:
    against = ""
    for a in ranked_on(results, device):
        known = known_of(results, a, device)
        against = against or _against(answer.refused, a, known.emulated)
        if not _against(answer.refused, a, known.emulated):
            return Pick(device, a.id, a.path, tuple(_sentences(known, _timed(results, a, device))))
    return _none(results, device, against or _left(results, device))


def _left(results: Results, device: str) -> str:
    """Return why a chip runs no operator, by the file that it asked for."""
    found = [(a, e) for a in results.artifacts if (e := known_of(results, a, device).estimated) and e.left]
    a, e = next((p for p in found if device in p[0].made_for), next(iter(found), (None, None)))
    return f"no operator of {a.path} runs on it: {e.left[0].why}" if a and e else "its compiler took no file"


def _timed(results: Results, a: Artifact, device: str) -> str:
    """Return in a sentence the time that is estimated of another file of the same integers, "" where none is."""
    for other in ranked_on(results, device):
        e = known_of(results, other, device).estimated
        if other is not a and (other.precision, other.io_dtype) == (a.precision, a.io_dtype) and e and e.inference_ms:
            return f"Of {other.path}, the same integers, {_time(e)}."
    return ""


def _time(e: Estimate) -> str:
    bounds = e.inference_bounds_ms
    around = f" ({milliseconds(bounds[0])} to {milliseconds(bounds[1])})" if bounds else ""
    return f"{milliseconds(e.inference_ms)}{around} a picture by the compiler's estimate, not measured"


def _against(refused: Mapping[str, Refusal], a: Artifact, e: Evaluation | None) -> str:
    """Return what speaks against a file on a chip, "" where nothing does."""
    if e and e.nonfinite_images:
        return f"no file: {a.path} answers NaN or infinity there on {counted(e.nonfinite_images, 'picture')}"
    if e and (differ := flipped(e.agreement_ci95)) and differ[0] > MAX_DISAGREEMENT:
        return (
            f"no file: {a.path} answers otherwise than float32 there on {percent(differ[0])} of the pictures at least"
        )
    # What it answers there counts more than what it answers here, where other kernels may even saturate.
    no = refused.get(a.id)
    return f"no file for it: {a.path} is refused. {no.why}" if no and no.code in (_LOST if e else _EVERYWHERE) else ""


def _refused(refused: Mapping[str, Refusal], a: Artifact) -> bool:
    return a.id in refused and refused[a.id].code in _EVERYWHERE


def _none(results: Results, device: str, why: str) -> Pick:
    failed = next((f for f in results.failures if f.device == device), None)
    said = f"no file: it failed at {failed.stage}, see below" if failed else why
    return Pick(device, None, "", (f"{said[:1].upper()}{said[1:]}.",))


def _sentences(known: Known, timed: str) -> list[str]:
    e = known.estimated
    assert e is not None
    n, taken = e.n_operators, e.n_accelerated
    said = [
        f"All {n} operators run on it." if taken == n else f"{taken} of {n} operators run on it, the rest on the CPU."
    ]
    said.append(emulated_sentence(known.emulated) if known.emulated else "Its answers there were not emulated.")
    if e.inference_ms is not None:
        said.append(f"{_time(e)}.")
    else:
        said.append(timed or "No time: nothing estimates one, and nothing was measured.")
    memory = [f"{megabytes(b)} {what}" for what, b in _memory(e) if b]
    return [*said, f"{', '.join(memory)}."] if memory else said


def _memory(e: Estimate) -> tuple[tuple[str, int | None], ...]:
    return (
        ("compiled", e.compiled_bytes),
        ("of RAM", e.sram_bytes),
        ("of DRAM", e.dram_bytes),
        ("of flash", e.flash_bytes),
    )


def emulated_sentence(e: Evaluation) -> str:
    """Return in a sentence how an emulator's answers agree with float32's, and with those of the same file here."""
    answer = "answer" if e.task == "classes" else WORDS[e.task].answer
    if e.agreement is None:
        return (
            f"Answers of {counted(e.n_images, 'picture')} emulated by {e.emulated}, with nothing to compare them with."
        )
    ci = f" (95{NBSP}% interval {interval(e.agreement_ci95)})" if e.agreement_ci95 else ""
    of = "this machine" if e.reference == e.artifact else "float32"
    text = f"Same {answer} as {of} on {percent(e.agreement)} of {counted(e.n_images, 'picture')}{ci}"
    if e.agreement_here is not None:
        text += f", and as the same file on this machine on {percent(e.agreement_here)}"
    if e.outputs_differing == 0:
        text += ", bit for bit"
    return f"{text}: emulated by {e.emulated}."
