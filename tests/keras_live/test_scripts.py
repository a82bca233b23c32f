"""What whole scripts of guides, courses and notebooks found missing: each beside Keras's."""

import numpy as np
import pytest

import minitl
from minitl.autograd import Tensor, backward
from tests.keras_live.compare import assert_close
from tests.keras_live.test_guides import IMAGES, ROWS, weighted
from tests.tolerances import SAME_FORMULA_FLOAT32

CLOSE = 10 * SAME_FORMULA_FLOAT32


def squared(x):
    return x**2


def doubled(x):
    return x * 2


OWN = {"squared": squared, "doubled": doubled}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_function_of_the_users_in_a_layer_is_found_again_by_its_name(tmp_path, suffix):
    layers, path = minitl.layers, tmp_path / f"model{suffix}"
    x = minitl.Input((4,))
    y = layers.Lambda(doubled)(layers.Dense(1, activation=squared)(x))
    model = weighted(minitl.Model(x, y))
    model.save(path)
    with pytest.raises(ValueError, match=r"unknown activation 'squared'.*custom_objects"):
        minitl.models.load_model(path)
    found = minitl.models.load_model(path, custom_objects=OWN)
    assert_close(found.predict(ROWS, verbose=0), model.predict(ROWS, verbose=0), 0)
    again = minitl.Model.from_config(model.get_config(), custom_objects=OWN)
    again.set_weights(model.get_weights())
    assert_close(again(ROWS), model(ROWS), 0)
    minitl.models.model_from_json(model.to_json(), custom_objects=OWN)
    with pytest.raises(ValueError, match="no part of minitl and cannot be saved by name"):
        layers.Dense(1, activation=lambda x: x).get_config()

    def relu(x):
        return x

    with pytest.raises(ValueError, match="no part of minitl and cannot be saved by name"):
        layers.Dense(1, activation=relu).get_config()


def test_a_layer_of_the_users_over_one_of_minitls_is_made_again(tmp_path):
    """The initializer among its settings is no layer."""

    @minitl.saving.register_keras_serializable()
    class Special(minitl.layers.Dense):
        def __init__(self, units, **kwargs):
            super().__init__(units, **kwargs)

    model = weighted(minitl.Sequential([minitl.Input((4,)), Special(2)]))
    model.save(tmp_path / "model.keras")
    found = minitl.models.load_model(tmp_path / "model.keras")
    assert_close(found(ROWS), model(ROWS), 0)


def test_the_loss_of_a_loaded_model_is_the_loss(keras, tmp_path):
    for k in (minitl, keras):
        model = k.Sequential([k.Input((4,)), k.layers.Dense(3, activation="softmax")])
        model.compile("sgd", k.losses.CategoricalCrossentropy(label_smoothing=0.25))
        model.save(tmp_path / "model.keras")
        found = minitl.models.load_model(tmp_path / "model.keras")
        assert type(found.loss) is minitl.losses.CategoricalCrossentropy
        assert found.loss.label_smoothing == 0.25


LOSSES = ["MeanSquaredError", "MeanAbsoluteError", "MeanSquaredLogarithmicError", "Huber"]
LOSSES += ["LogCosh", "CosineSimilarity", "Dice", "KLDivergence", "CategoricalCrossentropy"]
LOSSES += ["BinaryCrossentropy"]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("settings", [{}, {"from_logits": True, "label_smoothing": 0.25}])
def test_targets_that_weights_have_made_have_a_gradient(keras, name, settings):
    """A teacher's outputs, or features of a picture that is made: their gradient was lost."""
    tf = pytest.importorskip("tensorflow")
    if settings and "Crossentropy" not in name:
        pytest.skip("has no such settings")
    if settings and name == "CategoricalCrossentropy":
        pytest.skip("TensorFlow gives none for these targets")
    rng = np.random.default_rng(0)
    made, y = (rng.dirichlet(np.ones(4), 6).astype(np.float32) for _ in range(2))
    targets, predictions = tf.constant(made), tf.constant(y)
    with tf.GradientTape() as tape:
        tape.watch([targets, predictions])
        loss = getattr(keras.losses, name)(**settings)(targets, predictions)
    theirs = tape.gradient(loss, [targets, predictions])
    tensors = Tensor(made, requires_grad=True), Tensor(y, requires_grad=True)
    mine = getattr(minitl.losses, name)(**settings)(*tensors)
    assert_close(np.asarray(mine), loss.numpy(), CLOSE)
    for a, b in zip(backward(mine, tensors), theirs, strict=True):
        assert_close(a, b.numpy(), 10 * CLOSE)


def test_targets_with_a_gradient_that_a_loss_cannot_give():
    made = Tensor(np.ones((2, 3), np.float32), requires_grad=True)
    with pytest.raises(ValueError, match=r"poisson is differentiated by y_pred alone.*stop_grad"):
        minitl.losses.Poisson()(made, np.ones((2, 3), np.float32))
    loss = minitl.losses.as_loss(lambda t, y: minitl.ops.square(t - y))
    assert backward(loss(made, np.zeros((2, 3), np.float32)), [made])[0].sum() == 2


def test_what_evaluate_gives_of_several_outputs_is_in_keras_s_order(keras):
    found = []
    for k in (minitl, keras):
        x = k.Input((4,))
        names = ("b", "a", "c")
        model = k.Model(x, [k.layers.Dense(1, name=name)(x) for name in names])
        metrics = {"b": ["mae", "mse"], "c": ["mse", "mae"], "a": "mae"}
        weighted(model).compile("sgd", dict.fromkeys(names, "mse"), metrics=metrics)
        y = {name: ROWS[:, i : i + 1] for i, name in enumerate(names)}
        found.append([*model.evaluate(ROWS, y, verbose=0), *model.test_on_batch(ROWS, y)])
    assert_close(*found, CLOSE)


def test_a_clone_begins_at_other_inputs(keras):
    for k in (minitl, keras):
        x = k.Input((8, 8, 3))
        model = k.Model(x, k.layers.MaxPooling2D()(k.layers.Conv2D(2, 3)(x)))
        wide = k.models.clone_model(model, input_tensors=k.Input((12, 16, 3)))
        assert tuple(wide.output.shape) == (None, 5, 7, 2)


def test_a_constant_may_be_an_array(keras):
    """TensorFlow's tutorial on rare classes begins with the bias log(p / n), of one number."""
    for value in (np.log([0.25]), [1.0, 2.0, 3.0], 2):
        of_both = [np.asarray(k.initializers.Constant(value)((2, 3))) for k in (minitl, keras)]
        np.testing.assert_array_equal(*of_both)
    with pytest.raises(ValueError, match="value must be finite numbers"):
        minitl.initializers.Constant([np.inf])


def test_lists_are_tensors_of_keras_s_dtypes(keras):
    for x in ([1.0, 2.0], [1, 2], [[1.5], [2]], (True, False), 3.0, [np.float64(1)], np.ones(2)):
        mine, theirs = (k.ops.convert_to_tensor(x) for k in (minitl, keras))
        kinds = [np.dtype(getattr(each.dtype, "name", each.dtype)) for each in (mine, theirs)]
        assert kinds[0] == kinds[1], x
    parts = [k.ops.meshgrid([1, 2, 3], [4, 5]) for k in (minitl, keras)]
    for a, b in zip(*parts, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    for label in (2, np.int64(1), 7, -1, [1, 9]):
        rows = [np.asarray(k.ops.one_hot(label, 5)) for k in (minitl, keras)]
        np.testing.assert_array_equal(*rows)


def test_images_are_resized_by_a_function(keras):
    for size, how in (((7, 9), "bilinear"), ((24, 5), "nearest")):
        of_both = [k.ops.image.resize(IMAGES, size, interpolation=how) for k in (minitl, keras)]
        assert_close(*map(np.asarray, of_both), 1e-5)
    x = minitl.Input((12, 12, 3))
    assert minitl.Model(x, minitl.ops.image.resize(x, (6, 4))).output_shape == (None, 6, 4, 3)


def test_names_of_tensorflow_s(keras):
    import minitl as mine

    theirs = pytest.importorskip("tensorflow")
    grads = [ROWS, ROWS[:3] * 5]

    def found(tf):
        clipped, norm = tf.clip_by_global_norm([tf.constant(g) for g in grads], 2.0)
        yield from (*clipped, norm)
        yield tf.add_n([tf.constant(ROWS)] * 3)
        yield tf.nn.l2_loss(tf.constant(ROWS))
        yield tf.math.l2_normalize(tf.constant(ROWS), axis=1)
        yield tf.math.l2_normalize(tf.constant(ROWS))
        yield tf.image.resize(IMAGES, (5, 20))
        yield tf.cast(tf.math.confusion_matrix([0, 2, 2, 1], [0, 2, 1, 1]), "float32")
        yield tf.keras.losses.mae(ROWS, ROWS * 2)
        yield tf.keras.metrics.Mean()(3.0)

    for a, b in zip(found(mine), found(theirs), strict=True):
        assert_close(np.asarray(a), b.numpy(), 1e-5)
    with pytest.raises(AttributeError, match="of TensorFlow minitl has what scripts take"):
        minitl.image.decode_jpeg  # noqa: B018
    for name in ("Mean", "BinaryAccuracy", "AUC", "Precision", "F1Score"):
        metric = getattr(minitl.metrics, name)(
            **({"average": "micro"} if name == "F1Score" else {})
        )
        metric.update_state(*([[[1.0, 0.0]]] * (1 if name == "Mean" else 2)))
        assert type(metric.result().numpy()) is float


def test_data_sets_as_tensorflow_s():
    tf = pytest.importorskip("tensorflow")

    def found(Dataset):
        dicts = Dataset.from_tensor_slices(({"a": ROWS, "b": ROWS[:, :1]}, np.arange(12)))
        for x, y in dicts.batch(5):
            yield from (x["a"], x["b"], y)
        pairs = Dataset.zip(
            (Dataset.from_tensor_slices(ROWS), Dataset.from_tensor_slices(ROWS[:5]))
        )
        yield from (np.stack([np.asarray(each) for each in pair]) for pair in pairs)
        yield np.asarray(pairs.cardinality())
        twice = pairs.concatenate(pairs.take(pairs.cardinality() // 2))
        yield np.asarray(twice.cardinality())
        yield from twice.batch(3).as_numpy_iterator().next()
        yield pairs.cardinality().numpy()

    for a, b in zip(found(minitl.data.Dataset), found(tf.data.Dataset), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    with pytest.raises(ValueError, match=r"tensors must be of one length"):
        minitl.data.Dataset.from_tensor_slices((ROWS, ROWS[:3]))


def test_three_inputs_for_a_train_step_of_ones_own():
    """Anchor, positive and negative: not x, y and sample weights."""

    class Triplets(minitl.Model):
        def __init__(self, network):
            super().__init__()
            self.network = network
            self.tracker = minitl.metrics.Mean(name="loss")

        def call(self, inputs):
            return self.network(inputs)

        def train_step(self, data):
            with minitl.GradientTape(persistent=True) as tape:
                near, far = self.network(data)
                loss = minitl.ops.mean(minitl.ops.maximum(near - far + 0.5, 0.0))
            gradients = tape.gradient(loss, self.network.trainable_weights)
            self.optimizer.apply(gradients, self.network.trainable_weights)
            self.tracker.update_state(loss)
            return {"loss": self.tracker.result()}

    three = [minitl.Input((4, 3)) for _ in range(3)]
    dense = minitl.layers.Dense(2)
    a, b, c = (dense(minitl.layers.Flatten()(x)) for x in three)
    square = minitl.ops.square
    outputs = [minitl.ops.sum(square(a - b), -1), minitl.ops.sum(square(a - c), -1)]
    model = Triplets(minitl.Model(three, outputs))
    model.compile("sgd")
    x = np.random.default_rng(0).standard_normal((3, 6, 4, 3)).astype(np.float32)
    before = dense.get_weights()[0].copy()
    data = minitl.data.Dataset.from_tensor_slices(tuple(x)).batch(3)
    assert list(model.fit(data, verbose=0).history) == ["loss"]
    assert (dense.get_weights()[0] != before).any()


def test_no_metric_is_none(keras):
    assert minitl.metrics.get(None) is keras.metrics.get(None) is None


def test_generators_of_images_are_refused_in_words():
    with pytest.raises(NotImplementedError, match=r"ImageDataGenerator.*image_dataset_from_dir"):
        from minitl.preprocessing.image import ImageDataGenerator  # noqa: F401
