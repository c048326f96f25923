"""A new recipe has every key as the command line has it, and runs; a wrong key is told with the nearest one."""

import dataclasses
import tomllib

import pytest
from click.testing import CliRunner

from edgenet import cli
from edgenet.errors import InputError
from edgenet.jobs.recipe_file import keys, read_recipe, template
from edgenet.option_fields import option_fields
from edgenet.options import Job
from helpers.command_line import Edgenet

FIELDS = {f.name for f in dataclasses.fields(Job)} - {"command"}


def invoke(*args: object):
    return CliRunner().invoke(cli.main, list(map(str, args)))


def paragraphs() -> dict[str, str]:
    """Return the comment and the line of each key of a new recipe, by the key."""
    parts = template().split("\n\n")[1:]
    return {part.splitlines()[-1].removeprefix("# ").split(" = ")[0]: part for part in parts}


def test_every_key_stands_there_with_what_it_is_for() -> None:
    found = paragraphs()
    assert list(found) == list(keys())
    assert set(found) == FIELDS
    for f in option_fields(Job):
        said = " ".join(line.removeprefix("# ") for line in found[f.name].splitlines())
        assert f.option.help in said
        if f.option.within is not None:
            assert str(f.option.within) in said


def test_what_is_not_commented_out_is_the_default_but_for_the_first_three() -> None:
    values = tomllib.loads(template())
    given = {"model": "efficientnet-lite0", "out": "OUT", "images": "sample"}
    assert {k: values.pop(k) for k in given} == given
    defaults = {f.name: list(f.default) if isinstance(f.default, tuple) else f.default for f in option_fields(Job)}
    assert values == {k: v for k, v in defaults.items() if v not in (None, []) and k not in given}


def test_what_is_commented_out_can_be_filled_in() -> None:
    fit = {"limit": "20", "weights": '"w.pth"', "max_accuracy_drop": "0.5", "min_sqnr": "20", "keep": '["a=float32"]',
           "images_test": '"d"', "preprocess": '"torch"', "labels": '"l.txt"', "output": '"o"', "max_arena": '"2MB"',
           "history": '"h.db"', "cluster": '"auto"', "allow": '["few"]'}  # fmt: skip
    open_ = [k for k, part in paragraphs().items() if part.splitlines()[-1].startswith("# ")]
    assert set(open_) == set(fit)
    lines = [
        f"{key} = {fit[key]}" if (key := line.removeprefix("# ").split(" = ")[0]) in fit else line
        for line in template().splitlines()
    ]
    assert set(tomllib.loads("\n".join(lines))) == FIELDS


def test_words_that_the_help_only_hints_at_are_listed() -> None:
    assert "moving-average" in paragraphs()["calibration_method"]
    assert "spare-channels" in paragraphs()["corrections"]


def test_lines_fit_an_editor() -> None:
    assert max(map(len, template().splitlines())) <= 120


def test_a_new_recipe_is_read_as_it_is(tmp_path) -> None:
    done = invoke("init", tmp_path / "r.toml")
    assert done.exit_code == 0
    assert "--dry-run says first what that does" in done.output
    assert read_recipe(tmp_path / "r.toml")["images"] == "sample"


def test_a_new_recipe_runs(tmp_path, tiny_folder, edgenet: Edgenet) -> None:
    recipe = tmp_path / "r.toml"
    assert edgenet("init", recipe).returncode == 0
    # The zoo's model and the sample take minutes: the tests' own stand in their place.
    recipe.write_text(
        recipe.read_text().replace('"efficientnet-lite0"', '"tiny"').replace('"sample"', f'"{tiny_folder}"')
    )
    done = edgenet("run", recipe, "--precision", "float32", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "OUT" / "tiny_float32.tflite").exists()
    plan = edgenet("run", recipe, "--dry-run", cwd=tmp_path)
    assert plan.returncode == 0, plan.stderr
    assert "is there already" in plan.stdout


def test_nothing_is_written_over(tmp_path) -> None:
    (tmp_path / "mine.toml").write_text("x = 1")
    (tmp_path / "link.toml").symlink_to(tmp_path / "nowhere.toml")
    (tmp_path / "folder.toml").mkdir()
    for name in ("mine.toml", "link.toml", "folder.toml"):
        done = invoke("init", tmp_path / name)
        assert done.exit_code == 2
        assert f"{name} is there already: give another name" in done.stderr
    assert (tmp_path / "mine.toml").read_text() == "x = 1"
    assert not (tmp_path / "nowhere.toml").exists()


@pytest.mark.parametrize(
    ("path", "says"),
    [("recipe.txt", "does not end in .toml"), ("", "is empty"), ("/proc/r.toml", "cannot write /proc/r.toml")],
)
def test_a_place_that_is_none_is_one_line(path, says, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("init", path)
    assert done.exit_code == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("precision", "precisions"), ("calibration-images", "calibration_images"),
     ("calibraton_images", "calibration_images"), ("format", "formats"), ("Out", "out"),
     ("max_accuracy", "max_accuracy_drop"), ("device", "devices")],
)  # fmt: skip
def test_a_wrong_key_is_told_with_the_nearest(key, nearest, tmp_path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(f'model = "m"\n"{key}" = 1\n')
    with pytest.raises(InputError, match=f"unknown key '{key}', did you mean '{nearest}'"):
        read_recipe(path)


def test_a_key_that_is_near_to_none_is_told_with_all(tmp_path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('model = "m"\nzzzzzz = 1\n')
    with pytest.raises(InputError, match=r"unknown key 'zzzzzz' \(valid: model, out"):
        read_recipe(path)
