"""Feature files: resumed, and never used when stale, damaged or somebody else's."""

import json
import shutil
import struct
import subprocess
import sys
import time
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest

from minitl import Model, extract_features, kernels
from minitl.layers import (
    GRU,
    LSTM,
    Bidirectional,
    Conv2D,
    Dense,
    Flatten,
    Input,
    MaxPooling2D,
    TimeDistributed,
)
from minitl.models.opened import open_up
from minitl.transfer.cut import architecture
from minitl.transfer.feature_file import (
    FeatureFile,
    FeatureFileError,
    describe,
    is_feature_file,
    read_layout,
)

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)


def halved(x):
    return x / np.float32(2)


def network(seed=0, activation="relu"):
    x = Input((8, 8, 3))
    y = Conv2D(4, 3, padding="same", activation=activation, name="conv1")(x)
    y = MaxPooling2D(padding="same", name="pool")(y)  # this one the convolution does not do itself
    y = Conv2D(5, 3, padding="same", activation="relu", name="conv2")(y)
    model = Model(x, Flatten(name="flat")(y), name="net")
    rng = np.random.default_rng(seed)
    model.set_weights([rng.standard_normal(w.shape) for w in model.get_weights()])
    return model


NET = network()


def extract(
    path, images=IMAGES, model=NET, layers="conv2", pooling=None, preprocess=halved, **more
):
    settings = {"batch_size": 6, "verbose": 0} | more
    return extract_features(
        model, images, layers, pooling, preprocess=preprocess, out=path, **settings
    )


@pytest.fixture(scope="module")
def expected():
    return extract_features(NET, IMAGES, "conv2", preprocess=halved, verbose=0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("features") / "F.h5"
    extract(path)
    return path


@pytest.fixture
def batches_computed(monkeypatch):
    counts = []

    def counted(x, *args, original=kernels.conv2d):
        if x.shape[3] == 3:
            counts.append(len(x))
        return original(x, *args)

    monkeypatch.setattr(kernels, "conv2d", counted)
    return counts


def test_what_is_written_is_what_is_computed(tmp_path, expected, batches_computed):
    path = tmp_path / "deep" / "F.h5"
    found = extract(path)
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["F"][:], found)
    batches_computed.clear()
    np.testing.assert_array_equal(extract(path), found)
    assert batches_computed == []


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_resumed_without_loss_or_repetition(
    tmp_path, expected, batches_computed, stop, monkeypatch
):
    path = tmp_path / "F.h5"

    def interrupted(x, *args, original=kernels.conv2d):
        if x.shape[3] == 3 and len(batches_computed) == stop:
            raise KeyboardInterrupt
        return original(x, *args)

    with monkeypatch.context() as patch:
        patch.setattr(kernels, "conv2d", interrupted)
        with pytest.raises(KeyboardInterrupt):
            extract(path)
    assert describe(path).splitlines()[0].endswith(f"{6 * stop} of 20 rows are there")
    np.testing.assert_allclose(extract(path), expected, rtol=1e-6)
    assert batches_computed == [6, 6, 6, 2]


def test_a_process_that_is_killed(tmp_path, expected):
    """SIGKILL in the middle of writing, again and again: the file ends complete and right."""
    path = tmp_path / "F.h5"
    program = (
        "import sys, time; from tests.transfer import test_feature_file as t\n"
        "def slow(self, *a, original=t.FeatureFile.write):\n"
        "    original(self, *a); print('written', flush=True); time.sleep(0.3)\n"
        "t.FeatureFile.write = slow\n"
        f"t.extract({str(path)!r}); print('done', flush=True)\n"
    )
    written = 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
        )
        written += process.stdout.readline() == "written\n"
        process.kill()
        process.wait()
    assert written == 3
    assert describe(path).splitlines()[0].endswith("18 of 20 rows are there")
    np.testing.assert_allclose(extract(path), expected, rtol=1e-6)


def stream(images=IMAGES, size=7, labels=True):
    for start in range(0, len(images), size):
        part = images[start : start + size]
        yield (part, np.zeros(len(part))) if labels else part


def test_images_from_anywhere(tmp_path, expected):
    raw = tmp_path / "raw"
    IMAGES.tofile(raw)
    mapped = np.memmap(raw, np.uint8, "r", shape=IMAGES.shape)
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["x"] = IMAGES
        sources = {
            "memory map": mapped,
            "HDF5": file["x"],
            "generator": stream(),
            "batches": stream(size=1, labels=False),
            "large batches": stream(size=19, labels=False),
        }
        for name, images in sources.items():
            path = tmp_path / f"{name}.h5"
            np.testing.assert_allclose(extract(path, images), expected, rtol=1e-6, err_msg=name)
            assert "20 of" not in describe(path)
            assert extract(path).shape == (20, 80)  # the same file as of the array
            found = extract(tmp_path / f"{name} again.h5", IMAGES)
            np.testing.assert_array_equal(found, extract(path))


def test_a_stream_is_resumed(tmp_path, batches_computed, expected):
    path = tmp_path / "F.h5"

    def broken():
        yield from stream(IMAGES[:14])
        raise OSError("the camera is off")

    with pytest.raises(OSError, match="the camera is off"):
        extract(path, broken())
    assert "12 rows are there, more may come" in describe(path)
    batches_computed.clear()
    np.testing.assert_allclose(extract(path, stream()), expected, rtol=1e-6)
    assert sum(batches_computed) == 8
    with pytest.raises(FeatureFileError, match=r"the features of 20 images, and now there are 13"):
        extract(path, stream(IMAGES[:13]))
    with pytest.raises(
        FeatureFileError, match=r"the features of 20 images, and now there are more"
    ):
        extract(path, stream(np.concatenate([IMAGES, IMAGES])))
    np.testing.assert_allclose(extract(path), expected, rtol=1e-6)


def test_a_long_stream_makes_the_file_grow(tmp_path):
    path = tmp_path / "F.h5"
    with FeatureFile(path, 2, "float32", {"kind": "test"}, room=3) as file:
        for i in range(0, 50, 5):
            rows = np.arange(10, dtype=np.float32).reshape(5, 2) + i
            file.write(i, rows, np.full((5, 16), i, np.uint8))
        file.finish(50)
    with FeatureFile(path, 2, "float32", {"kind": "test"}, rows=50) as file:
        assert file.there.all()
        assert file.images[:, 0].tolist() == [i - i % 5 for i in range(50)]
        assert file.mapped()[:, 0].tolist() == [i - i % 5 + 2 * (i % 5) for i in range(50)]


def test_images_in_a_new_order_every_time_are_refused(tmp_path):
    class Shuffled(list):
        shuffle = True

    with pytest.raises(ValueError, match="make the data set with shuffle=False"):
        extract(tmp_path / "F.h5", Shuffled(IMAGES))


# --- Stale ---------------------------------------------------------------------------------------


def changed(index, by=1):
    images = IMAGES.copy()
    images[index].flat[5] += by
    return images


OTHER = {
    "weights": {"model": network(seed=1)},
    "architecture, weights": {"model": network(activation="tanh")},
    "layers": {"layers": "pool"},
    "pooling": {"pooling": "avg"},
    "preprocessing": {"preprocess": lambda x: x / np.float32(3)},
    "images, first number 17": {"images": changed(17)},
    "images, first number 0": {"images": IMAGES[::-1]},
    "number of images (20, now 19)": {"images": IMAGES[:19]},
}


@pytest.mark.parametrize("what", OTHER)
def test_stale_files_are_refused_and_left_as_they_are(finished, what):
    before = finished.read_bytes()
    with pytest.raises(FeatureFileError, match="holds features of something else") as caught:
        extract(finished, **OTHER[what])
    first = what.split(",")[0].split(" (")[0]
    assert first in str(caught.value), caught.value
    assert finished.read_bytes() == before


def test_what_does_not_matter(finished, expected):
    again = network()
    again.trainable = False
    again.get_layer("conv1").name = "renamed"
    for settings in ({"batch_size": 3}, {"model": again}):
        np.testing.assert_allclose(extract(finished, **settings), expected, rtol=1e-6)


def test_keys_of_older_files_are_still_the_same():
    """The digest was made by the first version that wrote feature files, where layers stood in
    other files of minitl."""
    pixels, first = Input((8, 8, 3)), Input((2, 8, 8, 3))
    y = MaxPooling2D()(Conv2D(2, 3, activation="relu")(pixels))
    each = TimeDistributed(Model(pixels, Flatten()(y)))(first)
    y = GRU(2)(Bidirectional(LSTM(3, return_sequences=True))(each))
    model = Model(first, Dense(2, activation="softmax")(y))
    digest = "7a748cce7b34d8b407d0bf591b6162b83beeb393fe1f27a619ac9d8e14492671"
    assert architecture(open_up(model)) == digest


def test_preprocessing_that_looks_the_same_and_does_something_else(finished):
    table = {"by": np.float32(2)}

    def divided(x):
        return x / table["by"]

    path = finished.with_name("table.h5")
    extract(path, preprocess=divided)
    table["by"] = np.float32(3)
    with pytest.raises(FeatureFileError, match="other preprocessing"):
        extract(path, preprocess=divided)


# --- Damaged -------------------------------------------------------------------------------------


def use(path, expected):
    """Extract with the file that is there. Returns what was said; F must be right, or refused."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = extract(path)
        except FeatureFileError as error:
            return str(error)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    return " ".join(str(w.message) for w in said)


def flip(path, place, bit):
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0] ^ (1 << bit)
        file.seek(place)
        file.write(bytes([byte]))


def regions(path):
    """Where each part of the file lies: (first, last + 1) by name; the rest is HDF5's own."""
    layout = read_layout(path)
    n = layout.shape[0]
    return {name: (at, at + n * layout.size(name)) for name, at in layout.places.items()}


@pytest.mark.parametrize("name", ["F", "images", "checksums"])
def test_a_flipped_bit_in_a_row_is_found_and_named(finished, tmp_path, expected, name):
    rng = np.random.default_rng(1)
    first, last = regions(finished)[name]
    for _ in range(25):
        path = tmp_path / "F.h5"
        shutil.copy(finished, path)
        place = int(rng.integers(first, last))
        flip(path, place, int(rng.integers(8)))
        row = (place - first) * 20 // (last - first)
        said = use(path, expected)
        assert f"the checksums of 1 of its rows do not fit (rows {row})" in said
        assert use(path, expected) == ""  # it was mended


def test_a_flipped_bit_anywhere_else_is_found_or_does_not_matter(finished, tmp_path, expected):
    inside = regions(finished)
    size = finished.stat().st_size
    others = [
        i for i in range(size) if not any(first <= i < last for first, last in inside.values())
    ]
    rng = np.random.default_rng(2)
    silent = []
    path = tmp_path / "F.h5"
    for place in rng.choice(others, 150, replace=False):
        shutil.copy(finished, path)
        flip(path, int(place), int(rng.integers(8)))
        if not use(path, expected):
            silent.append(int(place))
    # What is not found are bytes that belong to nothing: zeros between HDF5's structures.
    data = finished.read_bytes()
    assert all(data[place] == 0 for place in silent)


def test_a_truncated_file_is_refused(finished, tmp_path, expected):
    data = finished.read_bytes()
    path = tmp_path / "F.h5"
    for length in [0, 1, 7, 100, *np.linspace(200, len(data) - 1, 30).astype(int)]:
        path.write_bytes(data[:length])
        assert "is not a feature file, or is damaged" in use(path, expected)
        assert path.read_bytes() == data[:length]


def test_other_files_are_refused(tmp_path, expected, finished):
    path = tmp_path / "F.h5"
    NET.save_weights(path)
    assert "is not a feature file that this version of minitl has written" in use(path, expected)
    for content in (b"text", b"\x89HDF\r\n\x1a\n" + bytes(500), RNG.bytes(3000)):
        path.write_bytes(content)
        assert "is not a feature file, or is damaged" in use(path, expected)
    path.unlink()
    path.mkdir()
    with pytest.raises((FeatureFileError, OSError)):
        extract(path)


@pytest.mark.parametrize("how", ["link", "virtual", "chunked", "dtype", "short", "key", "list"])
def test_files_that_only_look_like_ours(finished, tmp_path, expected, how):
    path = tmp_path / "F.h5"
    shutil.copy(finished, path)
    with h5py.File(path, "r+") as file:
        if how == "link":
            del file["F"]
            file["F"] = h5py.ExternalLink(str(finished), "F")
        elif how == "virtual":
            layout = h5py.VirtualLayout((20, 80), "float32")
            layout[:] = h5py.VirtualSource(str(finished), "F", (20, 80))
            del file["F"]
            file.create_virtual_dataset("F", layout)
        elif how in ("chunked", "dtype", "short"):
            data = file["F"][:]
            del file["F"]
            if how == "chunked":
                file.create_dataset("F", data=data, chunks=(5, 80))
            else:
                file["F"] = data.astype(">f4") if how == "dtype" else data[:19]
        elif how == "key":
            file.attrs["key"] = np.bytes_(json.dumps({"format": "minitl features 2"}))
        else:
            file.attrs["key"] = np.bytes_("[1, 2]")
    said = use(path, expected)
    assert "damaged" in said or "something else" in said


@pytest.mark.parametrize("about", ["[1]", "3", "[" * 20_000, '{"a": ' + "9" * 9_000 + "}"])
def test_descriptions_that_are_none(finished, tmp_path, about):
    path = tmp_path / "F.h5"
    shutil.copy(finished, path)
    with h5py.File(path, "r+") as file:
        file.attrs["about"] = np.bytes_(about)
    with pytest.raises(FeatureFileError, match="is damaged"):
        describe(path)


def test_a_description_cannot_command_the_terminal(finished, tmp_path):
    path = tmp_path / "F.h5"
    shutil.copy(finished, path)
    with h5py.File(path, "r+") as file:
        file.attrs["about"] = np.bytes_(json.dumps({"a\x1b[2J\ud800": "\u00e4\nb"}))
    assert describe(path).splitlines()[1] == r"a\x1b[2J\ud800: \u00e4\nb".replace(
        r"\u00e4", "\u00e4"
    )


def test_strings_that_lie_on_one_place(finished, tmp_path):
    """4,000 references to one string of 1 MB: the HDF5 library takes 8 GB and 20 s for it."""
    path = tmp_path / "F.h5"
    with h5py.File(path, "w") as file:
        file.attrs["format"] = ["y" * 1_000_000] + ["q"] * 3999
    raw = bytearray(path.read_bytes())
    first = raw.find(struct.pack("<I", 1_000_000))
    while raw[first + 16 : first + 20] != struct.pack("<I", 1):
        first = raw.find(struct.pack("<I", 1_000_000), first + 1)
    raw[first : first + 16 * 4000] = bytes(raw[first : first + 16]) * 4000
    path.write_bytes(raw)
    assert not is_feature_file(path)
    with pytest.raises(FeatureFileError, match="leads around"):
        describe(path)


def test_rows_of_another_file_do_not_fit(finished, tmp_path, expected):
    """Rows, digests and checksums of other weights under this key: the checksums cover it."""
    foreign, path = tmp_path / "foreign.h5", tmp_path / "F.h5"
    extract(foreign, model=network(seed=1))
    shutil.copy(finished, path)
    with h5py.File(foreign) as source, h5py.File(path, "r+") as target:
        for name in ("F", "images", "checksums"):
            target[name][:] = source[name][:]
    assert "the checksums of 20 of its rows do not fit" in use(path, expected)
    # And rows in another order, each with its own checksum.
    shutil.copy(finished, path)
    with h5py.File(path, "r+") as file:
        for name in ("F", "images", "checksums"):
            file[name][:] = file[name][:][::-1]
    assert "the checksums of 20 of its rows do not fit" in use(path, expected)


# --- Telling -------------------------------------------------------------------------------------


def test_describe(finished, tmp_path):
    lines = describe(finished).splitlines()
    assert lines[0] == "F (20, 80) float32, 0.0 MB: complete"
    told = dict(line.split(": ", 1) for line in lines[1:])
    assert told["model"] == "net"
    assert told["images"] == "(8, 8, 3) uint8"
    assert told["preprocess"] == "halved"
    assert told["layers"] == "conv2"
    assert told["pooling"] == "None"
    assert len(told["weights"]) == 64
    other = tmp_path / "other.h5"
    NET.save_weights(other)
    with pytest.raises(FeatureFileError, match="is not a feature file"):
        describe(other)


def test_two_processes_take_turns(tmp_path, capfd):
    path = tmp_path / "F.h5"
    program = f"from tests.transfer import test_feature_file as t; t.extract({str(path)!r})"
    with FeatureFile(path, 80, "float32", {"kind": "test"}):
        process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
        time.sleep(2.5)
        assert process.poll() is None
    assert b"another process is writing" in process.stderr.readline()
    process.wait()
    process.stderr.close()


def test_it_lies_where_it_was_asked_for(finished):
    assert sorted(p.name for p in Path(finished).parent.iterdir() if "table" not in p.name) == [
        ".F.h5.lock",
        "F.h5",
    ]
