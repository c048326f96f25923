"""A SavedModel that draws numbers or changes itself when it is asked is refused, with what to give instead."""

from pathlib import Path

import pytest

from edgenet.errors import InputError
from edgenet.export.foreign.saved_operators import refuse_operators


def test_a_network_that_keeps_a_count_of_its_random_numbers_is_told_of_random_layers(tmp_path: Path) -> None:
    import tensorflow as tf

    class Counting(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drawn = tf.Variable(0.0)

        @tf.function(input_signature=[tf.TensorSpec([1, 4], tf.float32)])
        def __call__(self, x: tf.Tensor) -> tf.Tensor:
            self.drawn.assign(self.drawn + 1.0)
            return x * 2.0

    model = Counting()
    tf.saved_model.save(model, str(tmp_path), signatures={"serving_default": model.__call__})
    data = (tmp_path / "saved_model.pb").read_bytes()
    with pytest.raises(InputError, match=r"AssignVariableOp, .*: a random layer .* give the \.keras or \.h5 file"):
        refuse_operators(tmp_path, data, "serving_default")
