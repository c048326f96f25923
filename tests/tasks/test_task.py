"""What a network is asked is told from how it ends, and a wish that it cannot be is refused with what it can be."""

import pytest

from edgenet.errors import InputError
from edgenet.tasks import KINDS, Task, told_from


@pytest.mark.parametrize(
    ("ending", "n", "named", "kind"),
    [
        ("softmax", 5, False, "classes"),
        ("softmax", 2, True, "classes"),
        ("sigmoid", 1, False, "binary"),
        ("sigmoid", 5, False, "labels"),
        ("linear", 5, False, "classes"),
        ("normalised", 64, False, "embedding"),
        ("pooled", 1280, False, "embedding"),
        ("pooled", 1000, False, "classes"),  # SqueezeNet averages the scores of ImageNet's classes
        ("pooled", 5, True, "classes"),
    ],
)
def test_how_a_network_ends_tells_its_task(ending: str, n: int, named: bool, kind: str) -> None:
    assert told_from("net", ending, n, named=named) == Task(kind)


@pytest.mark.parametrize(
    ("ending", "n", "asked", "kind"),
    [("sigmoid", 5, "classes", "classes"), ("linear", 1, "binary", "binary"), ("linear", 5, "labels", "labels"),
     ("linear", 64, "embedding", "embedding")],
)  # fmt: skip
def test_the_user_has_the_last_word(ending: str, n: int, asked: str, kind: str) -> None:
    assert told_from("net", ending, n, asked=asked).kind == kind


@pytest.mark.parametrize(
    ("ending", "n", "asked", "message"),
    [
        ("linear", 1, "auto", "gives 1 number a picture and ends in no sigmoid: .* give --task binary"),
        ("softmax", 1, "auto", "a softmax of one number, which is 1 for every picture"),
        ("sigmoid", 5, "binary", "gives 5 and --task binary is for one number a picture: give classes, labels, embed"),
        ("sigmoid", 1, "labels", "gives 1 and --task labels is for two numbers or more a picture: give binary"),
        ("softmax", 5, "labels", "ends in a softmax, whose answers exclude each other"),
        ("softmax", 5, "ranking", "unknown --task 'ranking' .valid: auto, classes, binary, labels, embedding"),
    ],
)
def test_what_a_network_cannot_be_is_refused(ending: str, n: int, asked: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        told_from("net", ending, n, asked=asked)


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_comes_back_from_a_file(kind: str) -> None:
    task = Task(kind, 0.25)
    assert Task.from_json(task.to_json(("cat", "dog"))) == task
    assert Task.from_json({"kind": "else", "threshold": 1}) is None
    assert Task.from_json(None) is None


def test_one_sigmoid_has_two_names_and_gives_the_second_to_its_number() -> None:
    task = Task("binary")
    assert (task.n_names(1), task.n_outputs(2)) == (2, 1)
    assert task.output_names(("cat", "dog")) == ("dog",)
    assert task.to_json(("cat", "dog"))["negative"] == "cat"
    assert Task("embedding").output_names(()) == ()
