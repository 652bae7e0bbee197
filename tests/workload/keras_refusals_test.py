"""What the Keras importer refuses, and the way out that it names."""

import os

import jax
import pytest

from codesign import workload
from codesign.workload import keras as importer

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras")
layers = keras.layers


pytestmark = pytest.mark.usefixtures("any_ranks")


class _Mine(layers.Layer):
    def build(self, shape):
        self.matrix = self.add_weight(shape=(shape[-1], 7))

    def call(self, x):
        return keras.ops.matmul(x, self.matrix)


@pytest.mark.parametrize(
    ("make", "macs"),
    [
        (lambda: _Mine(), 6 * 4 * 7),
        (lambda: layers.LSTM(5), 6 * 4 * (4 + 5) * 5),
        (lambda: layers.GRU(5), 6 * 3 * (4 + 5) * 5),
        (lambda: layers.TimeDistributed(layers.Dense(5)), 6 * 4 * 5),
        (lambda: layers.EinsumDense("abc,bcd->abd", (6, 5)), 6 * 4 * 5),
        (lambda: layers.Dense(5, activation=lambda x: x + 1), 6 * 4 * 5),
    ],
)
def test_refusals_name_a_way_that_counts(make, macs):
    x = keras.Input((6, 4))
    model = keras.Model(x, make()(x))
    with pytest.raises(ValueError, match=r"workload.trace\(model.stateless_call"):
        importer.from_model(model)
    weights, state = (
        [variable.value for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    )
    example = jax.ShapeDtypeStruct((1, 6, 4), "float32")
    ops = workload.trace(model.stateless_call, weights, state, example, inputs=(2,))
    assert ops.total_macs == macs


def test_refuses():
    class Mine(layers.Layer):
        def call(self, x):
            return x

    x = keras.Input((8, 8, 3))

    def refuses(message, y, inputs=x):
        with pytest.raises(ValueError, match=message):
            importer.from_model(keras.Model(inputs, y))

    refuses(r"'own' \(Mine\).*graph.build", Mine(name="own")(x))
    refuses(r"\(Lambda\).*no layer", layers.Lambda(lambda x: x)(x))
    custom = layers.Activation(lambda x: x, name="odd")
    refuses("'odd'.*not one of keras.activations", custom(x))
    steps = keras.Input((5, 4))
    refuses("'memory'.*loops over time", layers.LSTM(3, name="memory")(steps), steps)
    wide = keras.Input((None, None, 3))
    refuses("input is open", layers.Conv2D(3, 1)(wide), wide)
    first = layers.Conv2D(3, 1, data_format="channels_first", name="first")
    refuses("'first'.*channels first", first(x))
    with pytest.raises(ValueError, match="must be a keras.Model"):
        importer.from_model(layers.Dense(3))
    with pytest.raises(ValueError, match="no graph of layers"):
        importer.from_model(keras.Sequential([layers.Dense(3)]))
    with pytest.raises(ValueError, match="'ResNet51'.*'ResNet50'"):
        importer.from_application("ResNet51")
