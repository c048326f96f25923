"""Whatever a results.json that is let in holds, each format is written from it, and the card stays one."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from edgenet.errors import InputError
from edgenet.history.kept import content_of
from edgenet.publish.attestation import attestation
from edgenet.publish.benchmark_json import benchmark_json
from edgenet.publish.dvc import dvc_metrics
from edgenet.publish.model_card import model_card
from edgenet.publish.node_data import missing, node_data
from edgenet.publish.trace import trace
from edgenet.results import Explanation, Layer, Results
from helpers.hand_built import some_results
from helpers.hand_built_runs import a_calibration, a_search, over_time

ODD = (None, "", 0, -1, 1e300, -0.0, True, 10**18, [], {}, "x\n---\n`|<b>", "\u202e", "a" * 3000, [1, 2, 3], {"a": 1},
       "x/y.tflite", "\x1b[31m", "\u2028")  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*at, key)
        yield from places(each, (*at, key))


def damaged(plain: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    data = copy.deepcopy(plain)
    *way, last = rng.choice(list(places(data)))
    inner: Any = data
    for key in way:
        inner = inner[key]
    if isinstance(inner, dict) and rng.random() < 0.2:
        del inner[last]
    else:
        inner[last] = rng.choice(ODD)
    return data


@pytest.mark.parametrize("seed", range(2))
def test_a_value_that_is_let_in_is_written_in_every_format(seed: int) -> None:
    pictures = {"root": "photos", "evaluation": {"n": 5, "fingerprint": "e" * 64}}
    run = over_time(some_results(calibration=a_calibration(3), search={"tflite": a_search()}, images=pictures))
    layer = Layer("layer0", "CONV_2D", "int8", "XNNPACK", 12.5, 10**6, 10**4)
    run.put(Explanation(run.artifacts[3].id, "local", "litert", 1, "int8", 9.8, 9.7, "", (layer,), {}, (), ()))
    plain, rng, let_in = run.to_json(), random.Random(seed), 0
    for _ in range(60):
        try:
            results = Results.from_json(damaged(plain, rng))
            content_of(results)
        except (ValueError, InputError, RecursionError):
            continue
        let_in += 1
        for made in (benchmark_json(results), dvc_metrics(results), trace(results), node_data(results),
                     attestation(results, {"a.tflite": "0" * 64}, "1" * 64)):  # fmt: skip
            json.loads(json.dumps(made))
        assert all(missing(results))
        card = model_card(results)
        assert card.startswith("---\nlibrary_name: ")
        body = card.split("\n---\n", 1)[1]
        assert not {"\x1b", "\u202e", "\u2028"} & {*card}
        assert "\n---\n" not in body
    assert let_in > 10
