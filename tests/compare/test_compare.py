"""`edgenet compare` as a user and as other programs see it: statuses, reasons, JUnit, annotations, Markdown."""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edgenet.cli import main
from edgenet.compare.github import annotations
from edgenet.compare.job import compare_runs
from edgenet.compare.junit import junit
from edgenet.compare.markdown import markdown
from edgenet.compare.nouns import Comparison, Finding, Limits, OperatorChange
from edgenet.compare.options import CompareJob
from edgenet.compare.text import headline, reason, sentence, warnings
from edgenet.errors import InputError
from edgenet.results import Artifact, Estimate, Failure, LeftOperators, OtherPrecision, Results, TensorInfo
from edgenet.results.answers import pack
from helpers.command_line import Edgenet
from helpers.hand_built import a_measurement, an_artifact, an_evaluation, some_results
from helpers.places import ROOT


def quiet(*_: Any) -> None:
    """Progress that nobody watches."""


def a_run(out: Path, *, wrong: int = 0, slower: float = 1.0, size: int = 5_000_000, **artifact: Any) -> Results:
    """A run of one int8 file on 2,000 pictures, of which the first ones are answered wrongly."""
    results = Results(some_results().context)
    a = an_artifact("int8", size, sha256=f"{wrong}{slower}{size}".ljust(64, "0"), **artifact)
    right = np.arange(2000) >= wrong + 200
    e = an_evaluation(a, float(right.mean()), None, None, n_images=2000, n_labelled=2000)
    m = a_measurement(a, 10.0 * slower, device_info={"cpu_model": "Intel Xeon", "cores": 2})
    results.put(a)
    results.put(replace(e, answers=pack(right, ~right, None)))
    results.put(m)
    return saved(results, out)


def saved(results: Results, out: Path) -> Results:
    out.mkdir(parents=True, exist_ok=True)
    results.save(out)
    return results


def compared(folder: Path, *args: str) -> Result:
    return CliRunner().invoke(main, ["compare", str(folder / "old"), str(folder / "new"), *args])


LIMITS = ("--max-accuracy-drop", "0.5", "--max-slowdown", "3%", "--max-growth", "1%")


def test_a_new_run_that_is_worse_exits_with_1_and_a_line_for_each_reason(tmp_path: Path) -> None:
    a_run(tmp_path / "old")
    a_run(tmp_path / "new", wrong=60, slower=1.5, size=5_200_000)
    done = compared(tmp_path, *LIMITS)
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert [line[:16] for line in lines[:3]] == ["edgenet: worse: "] * 3
    assert "2000 pictures that both answered: 60 lost, 0 won" in lines[0]
    assert "50.0\u00a0% slower" in lines[1]
    assert "4.0\u00a0% larger" in lines[2]
    assert lines[3].endswith("fails against " + str(tmp_path / "old") + ": 3 reasons")
    assert len(lines) == 4


def test_what_cannot_be_told_passes_with_a_note_and_fails_with_strict(tmp_path: Path) -> None:
    a_run(tmp_path / "old")
    a_run(tmp_path / "new", wrong=11, slower=1.02)
    done = compared(tmp_path, *LIMITS)
    assert done.exit_code == 0, done.stderr
    assert "more pictures would tell" in done.stdout
    assert "--remeasure times both side by side" in done.stdout
    strict = compared(tmp_path, *LIMITS, "--strict")
    assert strict.exit_code == 1
    assert strict.stderr.count("not shown to be as good") == 2


def test_without_a_limit_nothing_fails(tmp_path: Path) -> None:
    a_run(tmp_path / "old")
    a_run(tmp_path / "new", wrong=500, slower=3)
    done = compared(tmp_path)
    assert done.exit_code == 0
    assert "nothing can fail" in done.stdout


def test_json_is_all_that_stdout_has_and_github_still_gets_its_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run(tmp_path / "old")
    a_run(tmp_path / "new", wrong=60)
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    done = compared(tmp_path, *LIMITS, "--json", "--github")
    found = json.loads(done.stdout)
    assert [f["verdict"] for f in found["findings"] if f["fails"]] == ["missed"]
    assert len(found["failed"]) == 1
    assert "::error title=edgenet%3A accuracy of efficientnet-lite0_int8::worse" in done.stderr
    assert summary.read_text().startswith("before\n### edgenet compare: worse\n")


def test_a_results_file_by_any_name_is_a_run(tmp_path: Path) -> None:
    a_run(tmp_path / "old")
    a_run(tmp_path / "new")
    (tmp_path / "old" / "results.json").rename(tmp_path / "shipped.json")
    done = CliRunner().invoke(main, ["compare", str(tmp_path / "shipped.json"), str(tmp_path / "new")])
    assert done.exit_code == 0, done.stderr
    for name in ("nothing.json", "nothing"):
        done = CliRunner().invoke(main, ["compare", str(tmp_path / name), str(tmp_path / "new")])
        assert done.exit_code == 2
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "another"}, "the other of 'another'"),
        ({"outputs": (TensorInfo("out", (1, 10), "float32"),)}, "1000 classes, the other 10"),
        ({"options": {"labels": "1"}}, "classes have other names"),
        ({"id": "another"}, "no file is in both"),
    ],
)
def test_runs_that_cannot_be_compared_say_why(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    outputs = (TensorInfo("out", (1, 1000), "float32"),)
    a_run(tmp_path / "old", outputs=outputs, options={"labels": "0"})
    a_run(tmp_path / "new", **{"outputs": outputs, "options": {"labels": "0"}, **change})
    done = compared(tmp_path, *LIMITS)
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
    assert said in done.stderr


def test_another_task_is_another_thing(tmp_path: Path) -> None:
    a_run(tmp_path / "old")
    new = a_run(tmp_path / "new")
    new.evaluations = [replace(e, task="embedding") for e in new.evaluations]
    saved(new, tmp_path / "new")
    assert "evaluated as 'classes', the other as 'embedding'" in compared(tmp_path).stderr


def test_files_picks_by_name_by_pattern_and_by_pair(tmp_path: Path) -> None:
    saved(some_results(), tmp_path / "old")
    new = some_results()
    renamed = {"efficientnet-lite0_int8": "v2_int8"}
    models = {"efficientnet-lite0_int8": "v2"}
    new.artifacts = [replace(a, id=renamed.get(a.id, a.id), model=models.get(a.id, a.model)) for a in new.artifacts]
    new.evaluations = [replace(e, artifact=renamed.get(e.artifact, e.artifact)) for e in new.evaluations]
    new.measurements = [replace(m, artifact=renamed.get(m.artifact, m.artifact)) for m in new.measurements]
    saved(new, tmp_path / "new")

    def files(*wanted: str) -> set[str]:
        found = compare_runs(tmp_path / "old", tmp_path / "new", CompareJob(files=wanted), quiet)
        return {f.file for f in found.findings}

    assert files("efficientnet-lite0_float32") == {"efficientnet-lite0_float32"}
    assert files("*_float*") == {"efficientnet-lite0_float32", "efficientnet-lite0_float16"}
    assert files("efficientnet-lite0_int8=v2_int8") == {"v2_int8"}
    for wrong in ("*_int4", "nothing=v2_int8", "efficientnet-lite0_int8=nothing"):
        with pytest.raises(InputError, match="--files"):
            files(wrong)
    alone = compare_runs(tmp_path / "old", tmp_path / "new", CompareJob(), quiet)
    assert (alone.only_old, alone.only_new) == (("efficientnet-lite0_int8",), ("v2_int8",))
    assert len([w for w in warnings(alone) if w.startswith("only in")]) == 2


def test_a_file_that_the_new_run_failed_to_make_or_to_run_fails(tmp_path: Path) -> None:
    a_run(tmp_path / "old")
    for stage in ("export", "evaluate"):
        new = a_run(tmp_path / "new")
        id = new.artifacts[0].id
        new.evaluations = []
        if stage == "export":
            new.artifacts, new.measurements = [], []
            new.put(an_artifact("float32", 9))
            old = Results.load(tmp_path / "old")
            old.put(an_artifact("float32", 9))
            saved(old, tmp_path / "old")
        new.put(Failure(stage, id, why="the weights are {broken}"))
        saved(new, tmp_path / "new")
        done = compared(tmp_path, *LIMITS)
        assert done.exit_code == 1
        assert f"failed at {stage}: the weights are {{broken}}" in done.stderr


def test_operators_that_changed_precision_or_left_the_accelerator_are_named(tmp_path: Path) -> None:
    kept = OtherPrecision("SOFTMAX", "float32", "output", ("probabilities",), 0.0)
    more = OtherPrecision("CONV_2D", "float32", "kept", ("head", "stem"), 0.1)
    old, new = a_run(tmp_path / "old", other_precisions=(kept,)), a_run(tmp_path / "new", other_precisions=(kept, more))
    for results, left in ((old, ()), (new, (LeftOperators("MEAN", 3, "no kernel"),))):
        results.put(Estimate(results.artifacts[0].id, "ethos-u:55", "vela", "", 10, 10 - sum(o.n for o in left), left))
        saved(results, tmp_path / results.context.host)
    saved(old, tmp_path / "old")
    saved(new, tmp_path / "new")
    done = compared(tmp_path, "--max-growth", "1%")
    assert done.exit_code == 0
    assert "2 CONV_2Ds in float32, before in int8" in done.stdout
    assert "3 MEANs left the accelerator for the CPU" in done.stdout
    assert "SOFTMAX" not in done.stdout
    strict = compared(tmp_path, "--max-growth", "1%", "--strict")
    assert strict.exit_code == 1
    assert "3 MEANs left" in strict.stderr
    a_run(tmp_path / "old")  # as an older edgenet wrote it, or with every operator in int8
    assert "1 SOFTMAX in float32, before in int8, or not noted" in compared(tmp_path).stdout


@pytest.mark.parametrize(
    "args",
    [
        ("--strict",),
        ("--max-slowdown", "3"),
        ("--max-slowdown", "-3%"),
        ("--max-growth", "99999%"),
        ("--max-growth", "1e3%"),
        ("--max-accuracy-drop", "101"),
        ("--max-accuracy-drop", "nan"),
        ("--time", "1h"),
        ("--time", "0s"),
        ("--remeasure", "--device", "nowhere:1"),
        ("--junit", "."),
    ],
)
def test_options_that_make_no_sense_are_refused_in_one_line(tmp_path: Path, args: tuple[str, ...]) -> None:
    a_run(tmp_path / "old")
    a_run(tmp_path / "new", size=6)
    done = compared(tmp_path, *args)
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1), done.output


# --- what other programs read ----------------------------------------------------------------------------------------

HOSTILE = "x\n::error::y\x1b[31m\x00%0A,:|`<img src=x>@team **b** ]]>&amp;\ud800\u202e"


def hostile() -> Comparison:
    changes = (OperatorChange("CONV\n2D|", 2, "int8", "float32"),)
    return Comparison(
        HOSTILE, "new|`",
        (
            Finding(HOSTILE, "accuracy", "missed", "failed", said=("a", "b", "run", HOSTILE), limit=0.0, fails=True),
            Finding(HOSTILE, "latency", "refused", "other-machine", said=(HOSTILE, "y"), limit=0.0),
            Finding(HOSTILE, "operators", "shown", "precision", changes=changes),
        ),
        Limits(0.0, 0.0),
        only_old=(HOSTILE,),
    )  # fmt: skip


def test_junit_is_xml_whatever_a_file_is_called() -> None:
    root = ET.fromstring(junit(hostile()))
    suite = root.find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped"), suite.get("errors")) == (
        "3",
        "1",
        "1",
        "0",
    )
    cases = suite.findall("testcase")
    assert [[child.tag for child in case] for case in cases] == [
        ["failure", "system-out"],
        ["skipped", "system-out"],
        ["system-out"],
    ]
    assert {case.get("classname") for case in cases} == {cases[0].get("classname")}
    failure = cases[0].find("failure")
    assert failure is not None
    assert (failure.get("message") or "").startswith("worse: x ::error::y\\x1b[31m")


def test_a_reader_of_junit_that_is_not_ours_finds_every_case(tmp_path: Path) -> None:
    """junitparser, which CI tools use: https://pypi.org/project/junitparser/"""
    junitparser = pytest.importorskip("junitparser")
    a_run(tmp_path / "old")
    a_run(tmp_path / "new", wrong=100, slower=1.5)
    done = compared(tmp_path, *LIMITS, "--junit", str(tmp_path / "found.xml"), "--json")
    assert done.exit_code == 1
    findings = json.loads(done.stdout)["findings"]
    whole = junitparser.JUnitXml.fromfile(str(tmp_path / "found.xml"))
    cases = [case for suite in whole for case in suite]
    failed = [c for c in cases if any(isinstance(r, junitparser.Failure) for r in c.result)]
    assert [(c.classname, c.name) for c in cases] == [(f["file"], f["aspect"]) for f in findings]
    assert {c.name for c in failed} == {f["aspect"] for f in findings if f["fails"]} == {"accuracy", "latency"}
    assert all(c.result[0].message.startswith("worse: ") for c in failed)
    assert all(c.system_out for c in cases)
    suite = next(iter(whole))
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (len(cases), 2, 0, 0)
    names = [c for s in junitparser.JUnitXml.fromstring(junit(hostile()).encode()) for c in s]
    assert [[type(r).__name__ for r in c.result] for c in names] == [["Failure"], ["Skipped"], []]


def test_the_first_command_of_the_page_is_one_that_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    command = re.findall(r"^    (edgenet compare .*)$", page, re.MULTILINE)[0].split()[1:]
    a_run(tmp_path / "shipped")
    a_run(tmp_path / "OUT")
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, command).exit_code == 0
    a_run(tmp_path / "OUT", wrong=100)
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1
    assert "worse: efficientnet-lite0_int8: accuracy" in done.stderr


def read_as_the_runner_does(line: str) -> tuple[str, dict[str, str], str]:
    """Return (command, properties, message) of a line, as GitHub's runner does (ActionCommand.cs, TryParseV2)."""
    found = re.fullmatch(r"::(\w+)(?: (.*?))?::(.*)", line)
    assert found, line

    def data(text: str) -> str:
        return text.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")

    def value(text: str) -> str:
        return data(text.replace("%3A", ":").replace("%2C", ","))

    properties = dict(pair.split("=", 1) for pair in (found[2] or "").split(",") if pair)
    return found[1], {name: value(text) for name, text in properties.items()}, data(found[3])


def test_an_annotation_is_one_command_whatever_a_file_is_called() -> None:
    c = hostile()
    lines = annotations(c)
    assert not [line for line in lines if "\n" in line or "\r" in line]
    read = [read_as_the_runner_does(line) for line in lines]
    assert [command for command, _, _ in read] == ["error", "warning", "warning", "warning"]
    assert {tuple(properties) for _, properties, _ in read} == {("title",)}
    assert "%0A,:|" in read[0][2]  # what the name holds is what is shown, not a line's end


def test_markdown_holds_no_markup_of_a_files_name() -> None:
    text = markdown(hostile())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert {row.count("|") for row in rows} == {9}
    assert "<img" not in text
    assert not re.search(r"(?<!&#64;)@", text)
    assert "`" not in text


@pytest.mark.parametrize("verdict", ["met", "missed", "cannot tell", "shown"])
@pytest.mark.parametrize("how", ["paired", "intervals", "rounds", "two-runs", "bytes", "same-file"])
def test_every_finding_is_a_sentence(how: str, verdict: str) -> None:
    aspect = {"rounds": "latency", "two-runs": "latency", "bytes": "size"}.get(how, "accuracy")
    figures = {
        "old": 0.5,
        "new": 0.4,
        "change": 0.1,
        "low": 0.05,
        "high": None,
        "limit": 0.1,
        "n": 9,
        "lost": 3,
        "won": 1,
    }
    confidence = 0.95 if how not in ("bytes", "same-file") else None
    f = Finding("file", aspect, verdict, how, confidence=confidence, **figures)  # type: ignore[arg-type]
    assert sentence(f).startswith(f"file: {aspect}")
    assert sentence(f) in reason(f)
    assert not re.search(r"None|nan|\{|\}", sentence(f))


def test_the_headline_counts_what_cannot_be_told() -> None:
    assert "1 of 2 answers cannot tell" in headline(
        Comparison("old", "new", (Finding("a", "accuracy", "refused", "no-labels", limit=0.0),
                                  Finding("a", "size", "met", "bytes", limit=0.0)), Limits(0.0, None, 0.0))
    )  # fmt: skip


# --- the whole way ---------------------------------------------------------------------------------------------------


def test_two_real_runs_compare_picture_by_picture_and_side_by_side(
    edgenet: Edgenet, tiny_folder: Path, tmp_path: Path
) -> None:
    for name, calibration in (("old", 10), ("new", 15)):
        done = edgenet("run", "tiny", "--images", tiny_folder, "--calibration-images", calibration, "--precision",
                       "float32", "--precision", "int8", "--out", tmp_path / name)  # fmt: skip
        assert done.returncode == 0, done.stderr
    done = edgenet("compare", tmp_path / "old", tmp_path / "new", "--remeasure", "--time", "1s", "--max-accuracy-drop",
                   50, "--max-slowdown", "900%", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {(f["file"], f["aspect"]): f for f in json.loads(done.stdout)["findings"]}
    assert found["tiny_int8.tflite", "accuracy"]["how"] == "paired"
    assert found["tiny_int8.tflite", "accuracy"]["n"] == 25  # of the 30 and 25 that measured, those of both
    assert found["tiny_int8.tflite", "latency"]["how"] == "rounds"
    assert found["tiny_float32.tflite", "latency"]["how"] == "same-file"
    (tmp_path / "new" / "tiny_int8.tflite").unlink()
    done = edgenet("compare", tmp_path / "old", tmp_path / "new", "--remeasure")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "is gone" in done.stderr


def test_artifacts_of_two_forms_are_not_needed_for_figures_alone(tmp_path: Path) -> None:
    run = a_run(tmp_path / "old")
    run.artifacts = []
    saved(run, tmp_path / "old")
    saved(run, tmp_path / "new")
    assert compared(tmp_path, "--max-accuracy-drop", "1").exit_code == 0
    done = compared(tmp_path, "--remeasure")
    assert (done.exit_code, "only its figures" in done.stderr) == (2, True)


LEAVES = (
    None,
    -1,
    0,
    1e308,
    -1e308,
    10**30,
    "",
    "x" * 5000,
    "\x00\x1b[2J\n::error::",
    [],
    {},
    True,
    [1e308] * 9,
    "AAAA",
)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where each value of a JSON document stands; of a list the first two and the last."""
    yield at
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from places(inner, (*at, name))
    elif isinstance(value, list):
        for i in sorted({0, 1, len(value) - 1} & set(range(len(value)))):
            yield from places(value[i], (*at, i))


def test_results_of_a_stranger_end_in_a_table_or_in_one_line(tmp_path: Path) -> None:
    a_run(tmp_path / "old")
    good = a_run(tmp_path / "new", wrong=30, slower=1.2).to_json()
    rng = random.Random(0)
    where = [place for place in places(good) if place]
    statuses = Counter[int]()
    for _ in range(250):
        data = json.loads(json.dumps(good))
        *way, last = rng.choice(where)
        inner = data
        for step in way:
            inner = inner[step]
        inner[last] = rng.choice(LEAVES)
        (tmp_path / "new" / "results.json").write_text(json.dumps(data))
        done = compared(tmp_path, *LIMITS, "--junit", str(tmp_path / "j.xml"), "--github")
        assert done.exit_code in (0, 1, 2), (way, last, inner[last], done.output)
        assert "a fault of edgenet's" not in done.stderr, (way, last, inner[last], done.stderr)
        if done.exit_code == 2:
            assert len(done.stderr.splitlines()) == 1
        elif (tmp_path / "j.xml").exists():
            ET.parse(tmp_path / "j.xml")
        assert "\x1b" not in done.output
        statuses[done.exit_code] += 1
    assert set(statuses) == {1, 2}  # the rest of the run is still worse


def test_nothing_but_the_command_line_chooses_where_files_are_timed(tmp_path: Path) -> None:
    from edgenet.compare.pairs import open_run
    from edgenet.compare.remeasure import _places

    new = a_run(tmp_path / "new")
    new.measurements = [replace(m, device="ssh:evil", threads=10**6, runtime="evil") for m in new.measurements]
    saved(new, tmp_path / "new")
    ((device, request),) = _places(open_run(tmp_path / "new"), new.artifacts[0].id, ("local",), 60.0)
    assert (device, request.threads, request.runtime) == ("local", 1, None)


def test_an_artifact_of_no_size_is_not_compared(tmp_path: Path) -> None:
    a_run(tmp_path / "old", size=0)
    a_run(tmp_path / "new")
    assert compared(tmp_path, "--max-growth", "1%").exit_code == 0
    assert isinstance(Results.load(tmp_path / "old").artifacts[0], Artifact)
