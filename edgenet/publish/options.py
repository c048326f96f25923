"""What `edgenet publish` is asked for, in the way of edgenet.options."""

# ruff: noqa: RUF009 (`option` returns fields, not values)

from dataclasses import dataclass, fields
from pathlib import Path

from edgenet.errors import InputError
from edgenet.option_fields import check_values, option

_SERVER = ("mlflow", "experiment", "files")


@dataclass(frozen=True)
class PublishJob:
    """What `edgenet publish` is asked for: a server, files to write, or both."""

    mlflow: str | None = option("Log the run to this MLflow server.", None, metavar="URI")
    experiment: str | None = option("Of MLflow; the model's name by default.", None, metavar="NAME")
    files: bool = option("Whether model files go along to MLflow.", True, off="no-files")
    model_card: Path | None = option("Write a model card for the Hugging Face Hub.", None, metavar="FILE")
    node_data: Path | None = option(
        "Write node data for Model Explorer: times, precisions and SQNR of operators, a file each; or the only one "
        "there is as a .json file.",
        None,
        metavar="DIR|FILE",
    )
    benchmark_json: Path | None = option("Write figures for github-action-benchmark.", None, metavar="FILE")
    dvc: Path | None = option("Write figures as metrics of DVC.", None, metavar="FILE")
    trace: Path | None = option("Write rounds and operators as a trace for Perfetto.", None, metavar="FILE")
    attestation: Path | None = option(
        "Write how the files were made, with their sha256, as an in-toto statement.", None, metavar="FILE"
    )

    def __post_init__(self) -> None:
        check_values(self)
        if self.mlflow is None and not self.places:
            names = ", ".join(f"--{f.name.replace('_', '-')}" for f in fields(self) if f.name not in _SERVER)
            raise InputError(f"nothing is asked for: give --mlflow URI, or a place for a file: {names}")
        if self.mlflow is None and (self.experiment is not None or not self.files):
            given = "--experiment" if self.experiment is not None else "--no-files"
            raise InputError(f"{given} is of MLflow: add --mlflow URI, or leave it out")

    @property
    def places(self) -> dict[str, Path]:
        """What is to be written where, by the name of the option."""
        named = {f.name.replace("_", "-"): getattr(self, f.name) for f in fields(self) if f.name not in _SERVER}
        return {name: path for name, path in named.items() if path is not None}
