"""Many processes: the same bits as one, whatever dies on the way."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import minitl
from minitl import layers
from minitl.data.pictures import Pictures
from minitl.models import Model

pytest.importorskip("distributed")
Image = pytest.importorskip("PIL.Image")
N, SIZE = 60, 12


def network(seed=0):
    minitl.utils.set_random_seed(seed)
    x = layers.Input((SIZE, SIZE, 3))
    y = layers.Conv2D(8, 3, activation="relu", padding="same", name="conv")(x)
    y = layers.GlobalAveragePooling2D()(layers.MaxPooling2D()(y))
    return Model(x, layers.Dense(5, activation="softmax", name="head")(y), name="tiny")


def scaled(x):
    return np.asarray(x, np.float32) / 127.5 - 1


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """N small pictures; two of them cannot be read."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    paths = [str(folder / f"{i:03d}.png") for i in range(N)]
    for i, path in enumerate(paths):
        if i == 7:
            (folder / "007.png").write_bytes(b"no picture")
        elif i != 41:
            Image.fromarray(rng.integers(0, 256, (20, 16, 3), np.uint8)).save(path)
    return paths


@pytest.fixture(scope="module")
def wanted(photos):
    """F of the readable ones, in one process."""
    rows = np.setdiff1d(np.arange(N), [7, 41])
    pictures = Pictures([photos[i] for i in rows], size=(SIZE, SIZE))
    return rows, minitl.extract_features(network(), pictures, preprocess=scaled, verbose=0)


@pytest.fixture(scope="module")
def client():
    from minitl.distributed.cluster import connected

    with connected(2) as reached:
        yield reached


HOW = {"preprocess": scaled, "part_size": 8, "verbose": 0}


def check(rows, wanted):
    kept, f = wanted
    assert rows.shape == (N, 5)
    np.testing.assert_array_equal(rows.kept, kept)
    np.testing.assert_array_equal(rows[kept], f)
    assert np.isnan(rows[[7, 41]]).all()


def test_pictures_give_the_bits_of_one_process_and_faults_are_named(
    photos, wanted, client, tmp_path
):
    with pytest.warns(UserWarning, match="2 of 60 images could not be read, their rows are NaN: "):
        rows = minitl.distributed.extract_features(
            network(), photos, out=tmp_path / "F", client=client, **HOW
        )
    check(rows, wanted)
    assert sorted(rows.faults) == [7, 41]
    assert all(photos[i] in text for i, text in rows.faults.items())
    assert "007.png" in rows.faults[7] and "041.png" in rows.faults[41]


def extract(source, folder, client, **more):
    return minitl.distributed.extract_features(
        network(), source, out=folder, client=client, **HOW | more
    )


@pytest.mark.filterwarnings("ignore:2 of 60 images")
@pytest.mark.filterwarnings("ignore:1 of 20 images")
def test_parts_of_any_size_arrays_and_dask_arrays_give_the_same(photos, wanted, client, tmp_path):
    import dask.array as da

    for i, part_size in enumerate((1, 7, 64)):
        few = photos[:20] if part_size == 1 else photos
        rows = extract(few, tmp_path / str(i), client, part_size=part_size)
        kept = wanted[0][wanted[0] < len(few)]
        # Products of other sizes may round otherwise: parts that are multiples of a batch do not.
        np.testing.assert_allclose(rows[kept], wanted[1][: len(kept)], rtol=1e-5)
    x = Pictures([photos[i] for i in wanted[0]], size=(SIZE, SIZE))[:]
    for name, source in (("array", x), ("dask", da.from_array(x, chunks=(13, 5, 12, 3)))):
        rows = extract(source, tmp_path / name, client, part_size=32)
        np.testing.assert_array_equal(rows[:], wanted[1])
    assert (rows.faults, len(rows.kept)) == ({}, N - 2)


def test_predict_is_models_predict(photos, wanted, client):
    x = Pictures([photos[i] for i in wanted[0]], size=(SIZE, SIZE))[:]
    model = network(3)
    for outputs in (model.output, model.get_layer("conv").output):
        each = Model(model.input, outputs)
        found = minitl.distributed.predict(each, x, scaled, client=client, part_size=32, verbose=0)
        np.testing.assert_array_equal(found, each.predict(scaled(x), verbose=0))


@pytest.mark.filterwarnings("ignore:2 of 60 images")
def test_what_is_there_is_not_computed_again_and_nothing_else_is_taken_for_it(
    photos, wanted, client, tmp_path
):
    folder = tmp_path / "F"
    extract(photos, folder, client)
    times = {p: p.stat().st_mtime_ns for p in folder.glob("part-*")}
    assert len(times) == 8
    gone, damaged = sorted(times)[3], sorted(times)[0]
    gone.unlink()
    with damaged.open("r+b") as file:
        place = minitl.transfer.feature_file.read_layout(damaged).places["F"]
        file.seek(place + 3)
        file.write(b"\x55\x55")
    with pytest.warns(UserWarning, match="is damaged: the checksums of 1 of its rows"):
        check(extract(photos, folder, client), wanted)
    again = [p for p in sorted(times) if p.stat().st_mtime_ns != times[p]]
    assert again == [damaged, gone]
    # Without a cluster, as there is nothing to do.
    check(extract(photos, folder, "tcp://127.0.0.1:1"), wanted)
    for other in ([*photos[1:], photos[0]], photos[:-1]):
        with pytest.raises(ValueError, match="holds features of something else: other"):
            extract(other, folder, client)
    with pytest.raises(ValueError, match=r"other (layers|weights)"):
        minitl.distributed.extract_features(network(1), photos, out=folder, client=client, **HOW)
    gone.unlink()
    with pytest.raises(ValueError, match=r"parts of .* are missing: extract them again"):
        minitl.distributed.Rows(folder)


def test_an_address_is_read_by_fsspec_and_a_failing_one_is_named(client, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    Image.new("RGB", (30, 30), "red").save(tmp_path / "red.png")
    address = f"file://{tmp_path}/red.png"
    assert fsspec.core.url_to_fs(address)[0].exists(f"{tmp_path}/red.png")
    paths = [address, str(tmp_path / "red.png"), f"file://{tmp_path}/none.png", "nosuch://x/y.png"]
    with pytest.warns(UserWarning, match="2 of 4 images could not be read"):
        rows = extract(paths, tmp_path / "F", client)
    np.testing.assert_array_equal(rows[0], rows[1])
    assert sorted(rows.faults) == [2, 3]
    assert f"cannot read file://{tmp_path}/none.png" in rows.faults[2]
    assert "cannot read nosuch://x/y.png" in rows.faults[3]


def workers_pids(client):
    return [nanny.pid for nanny in client.cluster.workers.values() if nanny.pid]


class Slow:
    """Preprocessing that takes its time."""

    def __call__(self, x):
        time.sleep(0.05)
        return scaled(x)


@pytest.mark.filterwarnings("ignore:2 of 60 images")
def test_workers_that_are_killed_change_nothing(photos, wanted, client, tmp_path):
    rng = np.random.default_rng(0)
    done = threading.Event()

    def kill():
        while not done.wait(rng.uniform(0.2, 0.6)) and len(killed) < 3:
            pids = workers_pids(client)
            if pids:
                os.kill(rng.choice(pids), signal.SIGKILL)
                killed.append(pids)

    killed = []
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        rows = extract(photos, tmp_path / "F", client, preprocess=Slow(), part_size=2)
    finally:
        done.set()
        killer.join()
    assert killed
    calm = extract(photos, tmp_path / "calm", client, part_size=2)
    np.testing.assert_array_equal(rows[:], calm[:])


PROGRAM = """
import sys
from tests.distributed.test_distributed import Slow, network
from minitl.distributed import extract_features

if __name__ == "__main__":
    out, *paths = sys.argv[1:]
    extract_features(network(), paths, preprocess=Slow(), out=out, client=2, part_size=4, verbose=0)
"""


@pytest.mark.filterwarnings("ignore:2 of 60 images")
def test_a_client_that_is_killed_goes_on_where_it_was(photos, wanted, client, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    out = tmp_path / "F"
    command = [sys.executable, str(tmp_path / "program.py"), str(out), *photos]
    root = str(minitl.__path__[0]).removesuffix("minitl")
    environment = {**os.environ, "PYTHONPATH": root}
    run = subprocess.Popen(command, env=environment, start_new_session=True)
    while run.poll() is None and len(list(out.glob("part-*"))) < 3:
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    times = {p: p.stat().st_mtime_ns for p in out.glob("part-*")}
    assert 3 <= len(times) < N / 4
    rows = extract(photos, out, client, preprocess=Slow(), part_size=4)
    assert all(p.stat().st_mtime_ns == t for p, t in times.items())
    np.testing.assert_array_equal(rows[:], extract(photos, tmp_path / "G", client, part_size=4)[:])
    assert not list(out.glob(".*.lock"))


@pytest.fixture(scope="module")
def features(photos, client, tmp_path_factory):
    """(Rows, labels): 400 rows that a head can learn from."""
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (400, SIZE, SIZE, 3)).astype(np.uint8)
    y = np.arange(400) % 3
    x[..., 0] //= (y + 1)[:, None, None].astype(np.uint8)
    folder = tmp_path_factory.mktemp("rows") / "F"
    return extract(x, folder, client, layers="conv", pooling="avg", part_size=64), y


def test_rows_are_an_array_that_is_read_when_it_is_used(features):
    rows, _ = features
    f = rows[:]
    assert (rows.shape, rows.ndim, len(rows)) == (f.shape, 2, 400)
    where = np.random.default_rng(0).permutation(400)[:50].reshape(5, 10)
    for key in (3, -1, slice(60, 70), slice(None, None, -7), where, f[:, 0] > 0.1, [], [-400, 399]):
        np.testing.assert_array_equal(rows[key], f[key])
    half = rows.part(np.arange(1, 400, 2))
    np.testing.assert_array_equal(half[[3, -1]], f[1::2][[3, -1]])
    np.testing.assert_array_equal(half.dask().compute(), f[1::2])
    assert len(half.kept) == 200
    with pytest.raises(IndexError, match="rows 400 to 400 of 400"):
        rows[400]


def test_a_head_trains_on_the_parts_as_on_an_array(features):
    rows, y = features

    def trained(f, epochs=3):
        minitl.utils.set_random_seed(5)
        x = layers.Input((8,))
        model = Model(x, layers.Dense(3, activation="softmax")(x))
        model.compile("adam", "sparse_categorical_crossentropy")
        history = model.fit(f, y, batch_size=32, epochs=epochs, verbose=0)
        return [*model.get_weights(), np.array(history.history["loss"])]

    for a, b in zip(trained(rows), trained(rows[:]), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("l2", [1e-1, 1e-3, 1e-6])
def test_the_optimum_on_the_parts_is_that_of_solve_head(features, client, l2):
    from minitl.transfer.optimum import head_loss, solve_head

    rows, y = features
    weights = np.linspace(0.5, 1.5, 400)
    best = solve_head(rows[:], y, l2, weights)
    for given, how in ((rows, {"client": client} if l2 == 1e-3 else {}), (rows[:], {})):
        found = minitl.distributed.solve_head(given, y, l2, weights, **how)
        assert abs(found.loss - best.loss) <= 1e-8 * best.loss
        loss = head_loss(rows[:], y, found.kernel, found.bias, l2, weights)
        assert abs(loss - found.loss) <= 1e-12 + 1e-10 * loss
