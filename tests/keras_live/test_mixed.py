"""What is Keras's and given to minitl is recognised; names that Keras has are answered in words."""

from pathlib import Path

import numpy as np
import pytest

import minitl
from minitl import keras_names, layers

LINE = "is Keras's, not minitl's: was an import line forgotten"


def model():
    return minitl.Sequential([minitl.Input((4,)), layers.Dense(1)])


def own_layer_around(keras):
    class Own(minitl.Layer):
        def __init__(self):
            super().__init__()
            self.inner = [keras.layers.Dense(2)]

    return Own()


GIVEN = {
    "a layer on a tensor": lambda k: layers.Dense(2)(k.Input((4,))),
    "a layer on two tensors": lambda k: layers.Add()([minitl.Input((4,)), k.Input((4,))]),
    "arithmetic": lambda k: minitl.Input((4,)) + k.Input((4,)),
    "inputs of a model": lambda k: minitl.Model(k.Input((4,)), k.Input((4,))),
    "a layer of a Sequential": lambda k: minitl.Sequential([k.layers.Dense(2)]),
    "a model in a Sequential": lambda k: minitl.Sequential([k.Sequential([k.Input((4,))])]),
    "a layer in a wrapper": lambda k: layers.TimeDistributed(k.layers.Dense(2)),
    "a layer in one of the user's": own_layer_around,
    "an optimizer": lambda k: model().compile(k.optimizers.Adam(), "mse"),
    "a loss": lambda k: model().compile("adam", k.losses.MeanSquaredError()),
    "a function as loss": lambda k: model().compile("adam", k.losses.mean_squared_error),
    "a metric": lambda k: model().compile("adam", "mse", metrics=[k.metrics.AUC()]),
    "an initializer": lambda k: layers.Dense(2, kernel_initializer=k.initializers.HeNormal()),
    "a regularizer": lambda k: layers.Dense(2, kernel_regularizer=k.regularizers.L2(0.1)),
    "an activation": lambda k: layers.Dense(2, activation=k.activations.relu),
}


@pytest.mark.parametrize("what", GIVEN)
def test_what_is_keras_s_is_recognised(keras, what):
    with pytest.raises(TypeError, match=LINE):
        GIVEN[what](keras)


def test_numbers_of_keras_s_are_numbers(keras):
    x = keras.ops.ones((2, 4))
    np.testing.assert_array_equal(layers.Flatten()(x).numpy(), np.ones((2, 4)))


def test_no_attribute_of_keras_s_is_unknown(keras):
    built = minitl.Sequential([layers.Dense(2, input_shape=(3,))])
    pairs = [
        (built, keras.Sequential([keras.layers.Dense(2, input_shape=(3,))])),
        (minitl.optimizers.Adam(), keras.optimizers.Adam()),
        (minitl.metrics.AUC(), keras.metrics.AUC()),
        (minitl.losses.MeanSquaredError(), keras.losses.MeanSquaredError()),
    ]
    for ours, theirs in pairs:
        for name in dir(type(theirs)):
            if name.startswith("_") or hasattr(ours, name):
                continue
            with pytest.raises(NotImplementedError, match=f"{name}', which Keras's has: "):
                getattr(ours, name)
    with pytest.raises(AttributeError, match="Did you mean 'trainable'") as error:
        _ = built.trainabel
    assert not isinstance(error.value, NotImplementedError)


def test_no_setting_of_keras_s_is_unknown(keras):
    for place in ("config", "saving"):
        for name in dir(getattr(keras, place)):
            try:
                getattr(getattr(minitl, place), name)
            except NotImplementedError as error:
                assert "which Keras has" in str(error)
            except AttributeError:
                assert name.startswith("_")
    assert minitl.config.image_data_format() == keras.config.image_data_format()
    assert minitl.config.epsilon() == keras.config.epsilon()


FIRST = {
    "Dense": ((2,), {"input_shape": (4,)}),
    "Conv2D": ((2, 3), {"input_shape": (8, 8, 3)}),
    "LSTM": ((2,), {"input_shape": (5, 3)}),
    "Flatten": ((), {"input_shape": (2, 2)}),
    "Rescaling": ((0.1,), {"input_shape": (8, 8, 3)}),
    "RandomFlip": ((), {"input_shape": (8, 8, 3)}),
    "BatchNormalization": ((), {"input_shape": (4,)}),
}


@pytest.mark.parametrize("name", FIRST)
def test_a_first_layer_says_the_shape(keras, name):
    args, shape = FIRST[name]
    ours, theirs = (
        k.Sequential([getattr(k.layers, name)(*args, **shape)]) for k in (minitl, keras)
    )
    assert ours.built
    assert (ours.input_shape, ours.output_shape) == (theirs.input_shape, theirs.output_shape)
    with pytest.raises(TypeError, match="no argument 'input_shap'"):
        getattr(layers, name)(*args, input_shap=(4,))


def test_a_clone_has_the_layers_and_other_weights():
    x = minitl.Input((4,))
    shared = layers.Dense(4, name="shared")
    a = shared(x)
    both = layers.Concatenate()([a, shared(a), x * 2 - 1])
    first = minitl.Model(x, [both, layers.Dense(2, name="last")(both)])
    second = minitl.models.clone_model(first)
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    assert first.get_layer("shared") is not second.get_layer("shared")
    assert not np.allclose(first.get_weights()[0], second.get_weights()[0])
    second.set_weights(first.get_weights())
    values = np.ones((3, 4))
    for one, other in zip(first.predict(values), second.predict(values), strict=True):
        np.testing.assert_array_equal(one, other)

    def wider(layer):
        config = layer.get_config()
        return type(layer).from_config(config | {"units": 3} if "units" in config else config)

    assert minitl.models.clone_model(model(), clone_function=wider).output_shape == (None, 3)


def test_what_docs_say_is_not_there_is_in_the_code_s_list():
    text = (Path(__file__).parents[2] / "docs" / "keras.md").read_text("utf-8")
    names = {name for _, name in keras_names.not_here()}
    names |= {name for room, name in keras_names.not_here() if room == "arguments"}
    row = {
        "mixed precision": "mixed_precision",
        "quantization": "quantizers",
        "LoRA": "lora_rank",
        "several devices": "distribution",
        "TensorBoard": "TensorBoard",
        "JAX": "JaxLayer",
        "volumes": "Conv3D",
        "transposed convolutions of sequences": "Conv1DTranspose",
        "attention": "MultiHeadAttention",
        "constraints of weights": "kernel_constraint",
        "activity regularizers": "activity_regularizer",
        "averages of weights": "use_ema",
        "text": "TextVectorization",
        "networks beyond": "EfficientNetB1",
    }
    for words, name in row.items():
        assert words in text, words
        assert name in names, name
