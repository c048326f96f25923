"""`edgenet publish`: a run in the formats that other tools read, each written from its results.json.

`job` does what the command is asked for, and `options` has what the command line takes. One module a format, each a
pure function of `Results`: `model_card` for the Hugging Face Hub, `node_data` for Model Explorer, `benchmark_json` for
github-action-benchmark, `dvc` for DVC's metrics, `trace` for Perfetto, `attestation` for in-toto. `mlflow` logs a run
to a server.
"""
