"""What `edgenet publish` is asked for, in the way of edgenet.options."""

from dataclasses import dataclass

from edgenet.options import check_values, option


@dataclass(frozen=True)
class PublishJob:
    """What `edgenet publish` is asked for."""

    mlflow: str = option(
        "Log the run to this MLflow server.", metavar="URI", missing="a server, e.g. --mlflow http://127.0.0.1:5000"
    )
    experiment: str | None = option("Of MLflow; the model's name by default.", None, metavar="NAME")
    files: bool = option("Whether model files go along with results.json and the report.", True, off="no-files")

    def __post_init__(self) -> None:
        check_values(self)
