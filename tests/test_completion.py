"""What shells complete: in real ones, and what the command line says to any."""

import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete

from edgenet.cli import main
from edgenet.models.zoo import MODELS
from edgenet.options import DEVICES, PRECISIONS
from helpers.shells import SHELLS, completed, needs


def words(line: str) -> list[str]:
    """Return what the command line offers for the last word of a line."""
    *before, last = line.split(" ")[1:]
    return [c.value for c in ShellComplete(main, {}, "edgenet", "_EDGENET_COMPLETE").get_completions(before, last)]


def kinds(line: str) -> list[str]:
    *before, last = line.split(" ")[1:]
    return [c.type for c in ShellComplete(main, {}, "edgenet", "_EDGENET_COMPLETE").get_completions(before, last)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("edgenet ", sorted(main.commands)),
        ("edgenet ru", ["run"]),
        ("edgenet run --cal", ["--calibration-images", "--calibration-method"]),
        ("edgenet run --dry", ["--dry-run"]),
        ("edgenet run ", list(MODELS)),
        ("edgenet run efficientnet-b7", ["efficientnet-b7"]),
        ("edgenet qat efficientnet-lite4", ["efficientnet-lite4"]),
        ("edgenet run m --precision ", list(PRECISIONS)),
        ("edgenet run m --precision int8 --precision int1", ["int16x8"]),
        ("edgenet run m --device ", list(DEVICES)),
        ("edgenet bench f.tflite --device et", ["ethos-u:"]),
        ("edgenet run m --format o", ["onnx", "openvino"]),
        ("edgenet run m --io u", ["uint8"]),
        ("edgenet run m --target pixel-8", ["pixel-8"]),
        ("edgenet run m --corrections bias-correction,sp", ["bias-correction,spare-channels"]),
        ("edgenet finetune m --layers t", ["top"]),
        ("edgenet paper --table l", ["lite", "ladder"]),
    ],
)  # fmt: skip
def test_the_command_line_offers_what_may_stand_there(line, expected) -> None:
    assert sorted(words(line)) == sorted(expected)


@pytest.mark.parametrize(
    ("line", "kind"),
    [("edgenet run ./mi", "file"), ("edgenet run my-mod", "file"), ("edgenet inspect ", "file"),
     ("edgenet run m --images photos", "dir"), ("edgenet run m --labels ", "file")],
)  # fmt: skip
def test_the_shell_completes_paths_itself(line, kind) -> None:
    assert kinds(line) == [kind]


def test_the_words_are_those_that_the_commands_take() -> None:
    from edgenet.device_bench.registry import KINDS

    assert {f"{name}:" if kind.address else name for name, kind in KINDS.items()} == set(DEVICES)


def test_a_word_loads_no_framework_and_no_numpy() -> None:
    code = (
        "import sys\nfrom click.shell_completion import ShellComplete\nfrom edgenet.cli import main\n"
        "ask = ShellComplete(main, {}, 'edgenet', '_EDGENET_COMPLETE').get_completions\n"
        "assert ask([], 'ru') and ask(['run'], 'eff') and ask(['run', 'm', '--device'], '')\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'numpy', 'PIL', 'rich', 'tensorflow', 'onnx', "
        "'openvino', 'ai_edge_litert', 'onnxruntime'}))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.slow
@pytest.mark.parametrize("shell", [pytest.param(s, marks=needs(s)) for s in SHELLS])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("edgenet hist", ["history"]),
        ("edgenet run --max-a", ["--max-accuracy-drop", "--max-arena"]),
        ("edgenet run efficientnet-lite", [f"efficientnet-lite{i}" for i in range(5)]),
        ("edgenet run efficientnet-b0 --precision int", ["int8", "int16x8"]),
        ("edgenet run efficientnet-b0 --device e", ["ethos-u:", "edgetpu"]),
        ("edgenet inspect my_", ["my_model.tflite"]),
    ],
    ids=["command", "option", "model", "precision", "device", "file"],
)
def test_a_real_shell_completes(shell, line, expected, tmp_path) -> None:
    (tmp_path / "my_model.tflite").write_bytes(b"x")
    shown = completed(shell, line, expected, tmp_path)
    assert [word for word in expected if word not in shown] == [], shown
