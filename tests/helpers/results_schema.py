"""The JSON Schema of results.json, from the types of its nouns: `python tests/helpers/results_schema.py` prints it.

edgenet/results.schema.json is what it printed last; a test compares the two.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

from edgenet.results import SCHEMA, Artifact, Estimate, Evaluation, Explanation, Failure, Measurement
from edgenet.results.plain import FRACTIONS
from edgenet.results.records import Context
from edgenet.results.warning_codes import WARNINGS

SECTIONS = {"artifacts": Artifact, "evaluations": Evaluation, "measurements": Measurement, "estimates": Estimate,
            "explanations": Explanation, "failures": Failure}  # fmt: skip
PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}
# What Measurement.to_json writes in the place of nanoseconds, and what it derives.
IN_MS = {"samples_ns": "samples_ms", "disturbed_ns": "disturbed_ms", "load_ns": "load_ms"}
DERIVED = {"median_ms": "number", "every_run_median_ms": "number", "p90_ms": "number", "p95_ms": "number",
           "n_runs": "integer"}  # fmt: skip


def schema() -> dict[str, Any]:
    """Return the schema of results.json."""
    nouns: dict[str, Any] = {}
    sections = {name: {"type": "array", "items": of_type(noun, nouns)} for name, noun in SECTIONS.items()}
    properties = {"schema": {"const": SCHEMA}, "context": of_type(Context, nouns), **sections}
    nouns["Warning"]["properties"]["code"]["examples"] = list(WARNINGS)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "results.json of edgenet",
        "description": "Accuracies and agreement are fractions of 1; units stand in the names. Fields may be added.",
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "$defs": dict(sorted(nouns.items())),
    }


def of_type(kind: Any, nouns: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a field's type; the records that it needs are added to `nouns`."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        name = getattr(kind, "__name__", "")
        if name not in nouns:
            nouns[name] = {}  # before its fields are looked at
            nouns[name] = of_record(kind, nouns)
        return {"$ref": f"#/$defs/{name}"}
    if origin in (types.UnionType, typing.Union):
        (some,) = (a for a in args if a is not types.NoneType)
        return {"anyOf": [of_type(some, nouns), {"type": "null"}]}
    if origin is tuple and args[-1] is ...:
        return {"type": "array", "items": of_type(args[0], nouns)}
    if origin is tuple:
        row = [of_type(a, nouns) for a in args]
        return {"type": "array", "prefixItems": row, "items": False, "minItems": len(row)}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": of_type(args[1], nouns)}
    return {} if kind is Any else {"type": PLAIN[kind]}


def of_record(kind: Any, nouns: dict[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    properties, required = {}, []
    for f in dataclasses.fields(kind):
        in_ms = IN_MS.get(f.name)
        type_ = (tuple[float, ...] if f.name != "load_ns" else float) if in_ms else hints[f.name]
        properties[in_ms or f.name] = of_type(type_, nouns)
        if f.name in FRACTIONS:
            properties[f.name] = {**properties[f.name], "minimum": 0, "maximum": 1}
        if not f.metadata.get("absent"):
            required.append(in_ms or f.name)
    if kind is Measurement:
        properties |= {name: {"type": type_} for name, type_ in DERIVED.items()}
        required += DERIVED
    return {"type": "object", "properties": properties, "required": required}


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1))
