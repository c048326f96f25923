"""`edgenet publish`: a run in the systems that a team looks at. `mlflow` logs it to an MLflow server."""
