"""`minitl extract, train, evaluate, predict, info` on drawn pictures; exit codes; Ctrl-C."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from minitl import callbacks
from minitl.cli import main
from minitl.layers import Dense, Input, InputLayer
from minitl.models import Model, load_model
from minitl.utils import clear_session

SMALL = ["--size", "32", "--weights", "none"]
ADAM = ["--optimizer", "adam"]


def draw(folder, each=6):
    """Dark and light pictures, 40 x 36 pixels."""
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 180)):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            pixels = rng.integers(low, low + 70, (40, 36, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("pictures") / "photos")


@pytest.fixture(scope="module")
def trained(photos):
    """A model, trained with everything on; what is behind it is deleted."""
    model = photos.parent / "model.h5"
    options = ["--epochs", "2", "--fine-tune-epochs", "1", "--unfreeze", "block5", "--head", "8"]
    more = ["--flip", "horizontal", "--copies", "1", "--validation", "0.34", "--seed", "3"]
    assert main(["train", str(photos), "-o", str(model), *SMALL, *options, *more]) == 0
    return model


def test_train_says_in_the_model_what_predict_needs(trained):
    about = load_model(trained).metadata
    assert about["class_names"] == ["dark", "light"] and about["size"] == [32, 32]
    assert about["preprocessing"] == "caffe" and about["interpolation"] == "bilinear"
    origin = about["provenance"]
    assert origin["images"] == {"training": 8, "validation": 4} and origin["seed"] == 3
    assert origin["augmentation"] == ["RandomFlip"] and not origin["interrupted"]
    assert 0 <= origin["validation"]["accuracy"] <= 1
    assert not (trained.parent / "model.h5.cache").exists()


def test_predict_agrees_with_itself_and_with_evaluate(trained, photos, capsys):
    images = sorted(map(str, photos.glob("*/*.png")))
    assert main(["predict", str(trained), "--json", *images]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["path"] for row in rows] == images
    for row in rows:
        p = row["probabilities"]
        assert sum(p.values()) == pytest.approx(1, abs=1e-5)
        assert max(p, key=p.get) == row["class"] and p[row["class"]] == row["probability"]
    assert main(["predict", str(trained), "--csv", str(photos)]) == 0
    table = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [line["class"] for line in table] == [row["class"] for row in rows]
    assert main(["predict", str(trained), images[0]]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == [images[0], rows[0]["class"]]
    assert main(["evaluate", str(trained), str(photos), "--json"]) == 0
    right = np.mean([f"/{row['class']}/" in row["path"] for row in rows])
    assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(right)


def test_a_terminal_sees_how_far_classifying_is(trained, photos, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["evaluate", str(trained), str(photos)]) == 0
    err = capsys.readouterr().err
    assert "minitl: classifying:" in err
    assert "B/s" not in err and "image/s" in err


def test_evaluate_a_folder_of_other_classes(trained, tmp_path, capsys):
    draw(tmp_path / "others", 1)
    (tmp_path / "others" / "dark").rename(tmp_path / "others" / "gray")
    assert main(["evaluate", str(trained), str(tmp_path / "others")]) == 1
    assert "['gray'], not among the classes ['dark', 'light']" in capsys.readouterr().err


def test_info_of_a_strangers_model_commands_no_terminal(tmp_path, capsys):
    inputs = Input((2,))
    model = Model(inputs, Dense(1, name="a\x1b[2Jb")(inputs))
    model.metadata = {"class_names": "c\x1b[2J"}
    for name in ("model.keras", "w.weights.h5"):
        (model.save_weights if "weights" in name else model.save)(tmp_path / name)
        assert main(["info", str(tmp_path / name)]) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out and r"\x1b[2J" in out


def test_unreadable_images_are_left_out_or_refused(trained, tmp_path, capsys):
    folder = draw(tmp_path / "photos", 2)
    broken = folder / "light" / "broken.png"
    broken.write_bytes(b"nothing")
    assert main(["evaluate", str(trained), str(folder)]) == 0
    out, err = capsys.readouterr()
    assert "4 images. Left out: 1 that cannot be read." in out and f"cannot read {broken}" in err
    assert main(["evaluate", str(trained), str(folder), "--strict"]) == 1
    assert "minitl: 1 of 5 images cannot be read" in capsys.readouterr().err
    assert main(["predict", str(trained), str(folder / "dark" / "0.png"), str(broken)]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2 and "1 of 2 images cannot be read" in err


@pytest.mark.filterwarnings("default")
def test_warnings_and_errors_are_in_the_words_of_the_command_line(
    trained, photos, tmp_path, capsys
):
    draw(tmp_path / "some", 2)
    (tmp_path / "some" / "nothing").mkdir()
    draw(tmp_path / "few", 1)
    assert main(["train", str(tmp_path / "few"), "-o", str(tmp_path / "m.h5"), *SMALL]) == 1
    assert "class 'dark', 'light' has one readable image only" in capsys.readouterr().err
    nothing = tmp_path / "few" / "light" / "0.png"
    nothing.write_bytes(b"nothing")
    assert main(["train", str(tmp_path / "few"), "-o", str(tmp_path / "m.h5"), *SMALL]) == 1
    assert "minitl: no readable image to train on of class light" in capsys.readouterr().err
    flat = str(photos / "dark")
    assert main(["train", flat, "-o", str(tmp_path / "m.h5"), *SMALL]) == 1
    expected = f"minitl: {flat} has no sub-folders: put the images of each class into one, or"
    assert capsys.readouterr().err.startswith(expected)
    one = tmp_path / "one"
    one.mkdir()
    (tmp_path / "some" / "dark").rename(one / "dark")
    assert main(["evaluate", str(trained), str(one)]) == 0  # one class may be all that is there
    assert capsys.readouterr().err == ""


def test_extract_once_and_info(photos, trained, tmp_path, capsys):
    out = tmp_path / "F.h5"
    # random weights would be others in the second call: these are kept in a file
    weights = tmp_path / "vgg.h5"
    from minitl.applications import VGG16

    VGG16(include_top=False, weights=None, input_shape=(32, 32, 3)).save_weights(weights)
    options = ["--size", "32", "--weights", str(weights), "--layers", "block4_pool,block5_pool"]
    assert main(["extract", str(photos), "-o", str(out), *options]) == 0
    assert "F (12, 1024)" in capsys.readouterr().out
    with h5py.File(out) as file:
        first = file["F"][:]
    assert main(["extract", str(photos), "-o", str(out), *options]) == 0
    with h5py.File(out) as file:
        np.testing.assert_array_equal(file["F"][:], first)
    rows = list(csv.DictReader(out.with_suffix(".csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == ["dark"] * 6 + ["light"] * 6
    capsys.readouterr()
    for file, words in (
        (out, ["a feature file", "(12, 1024)", "complete"]),
        (weights, [": weights", "block5_conv3", "14,714,688 numbers"]),
        (trained, ["a model", "class_names", "dark"]),
    ):
        assert main(["info", str(file)]) == 0
        text = capsys.readouterr().out
        assert all(word in text for word in words), text
        assert main(["info", str(file), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["file"] == str(file) and words[0].strip(": ") in told["kind"]
        key, value = {
            "a feature file": ("shape", [12, 1024]),
            "weights": ("numbers", 14_714_688),
            "a model": ("parameters", load_model(trained).count_params()),
        }[told["kind"]]
        assert told[key] == value


@pytest.mark.skipif(sys.platform != "linux", reason="names of files that are any bytes")
def test_the_table_of_extract_is_utf8_in_any_locale(photos, tmp_path):
    folder = tmp_path / "photos"
    (folder / "Äpfel").mkdir(parents=True)
    picture = (photos / "dark" / "0.png").read_bytes()
    names = ["ü.png".encode(), b"\xff.png"]  # the second is no UTF-8
    for name in names:
        Path(os.fsdecode(os.fsencode(folder / "Äpfel") + b"/" + name)).write_bytes(picture)
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    out = tmp_path / "F.h5"
    done = subprocess.run(
        [sys.executable, "-m", "minitl", "extract", os.fsencode(folder), "-o", str(out), *SMALL],
        capture_output=True,
        env=os.environ | plain,
    )
    assert done.returncode == 0, done.stderr
    rows = out.with_suffix(".csv").read_bytes().splitlines()
    assert [row.split(b",")[1].split(b"/")[-1] for row in rows[1:]] == names
    assert rows[1].endswith(",Äpfel".encode())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "m.txt"], "must end in .h5 or .keras"),
        (["-o", "nowhere/m.h5"], "there is no folder"),
        (["-o", "m.h5", "--unfreeze", "blok5"], "blok5"),
        (["-o", "m.h5", "--unfreeze", "block4,block5"], "stages go from the top down"),
        (["-o", "m.h5", "--crop", "16"], "--crop would change the size"),
    ],
)
def test_errors_come_before_the_work(photos, tmp_path, monkeypatch, capsys, options, words):
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(photos), *SMALL, *options]) == 1
    err = capsys.readouterr().err
    assert words in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("command", "file"), [("extract", "commands"), ("train", "train")])
def test_an_output_that_cannot_be_written_is_told_before_the_work(
    photos, tmp_path, monkeypatch, capsys, command, file
):
    def read(*arguments, **named):
        raise AssertionError("work was begun")

    monkeypatch.setattr(f"minitl.cli.{file}.find", read)
    (tmp_path / "folder.h5").mkdir()
    assert main([command, str(photos), "-o", str(tmp_path / "folder.h5"), *SMALL]) == 1
    assert "is a folder; the output must be the name of a file" in capsys.readouterr().err

    def refuse(*arguments, **named):  # as for a user without rights; root has them all
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert main([command, str(photos), "-o", str(tmp_path / "m.h5"), *SMALL]) == 1
    assert f"cannot be written: Permission denied in {tmp_path}" in capsys.readouterr().err


def test_wrong_usage_is_2(photos):
    for options in ([], ["-o", "m.h5", "--validation", "2"], ["-o", "m.h5", "--epochs", "0"]):
        with pytest.raises(SystemExit) as stopped:
            main(["train", str(photos), *options])
        assert stopped.value.code == 2


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_saves_the_model_so_far(photos, tmp_path):
    out = tmp_path / "model.h5"
    options = ["--epochs", "100000", "--verbose", "2", "--patience", "100000"]
    options += ADAM
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "minitl", "train", str(photos), "-o", str(out)]
        + [*SMALL, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # not ignored, as by `&`
    )
    for line in process.stdout:
        if line.startswith("Epoch 3/"):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert f"The model so far is in {out}" in err and "Traceback" not in err
    assert load_model(out).metadata["provenance"]["interrupted"]
    assert (tmp_path / "model.h5.cache" / "head.h5").exists()
    again = [sys.executable, "-u", "-m", "minitl", "train", str(photos), "-o", str(out), *SMALL]
    options[1] = "4"  # enough now
    done = subprocess.run([*again, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Going on from a backup" in done.stdout
    assert not load_model(out).metadata["provenance"]["interrupted"]


def test_ctrl_c_leaves_a_finished_model_alone(photos, tmp_path, monkeypatch):
    def interrupt(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(callbacks.EarlyStopping, "on_epoch_end", interrupt)
    out = tmp_path / "model.h5"
    out.write_bytes(b"a finished model")
    assert main(["train", str(photos), "-o", str(out), *SMALL, "--epochs", "3", *ADAM]) == 130
    assert out.read_bytes() == b"a finished model"
    assert load_model(tmp_path / "model-interrupted.h5").metadata["provenance"]["interrupted"]


@pytest.mark.parametrize("when", [1, 4, 6])  # in the head, in block5, in block4
def test_a_training_that_was_killed_goes_on_and_ends_with_the_same_bits(
    photos, tmp_path, monkeypatch, when
):
    class Killed(BaseException):
        pass

    def command(name):
        clear_session()  # as in a new process
        options = ["--epochs", "3", "--fine-tune-epochs", "2", "--unfreeze", "block5,block4"]
        options += ADAM
        return ["train", str(photos), "-o", str(tmp_path / name), *SMALL, *options, "--seed", "5"]

    epochs, end = [], callbacks.EarlyStopping.on_epoch_end

    def counted(self, epoch, logs=None):
        end(self, epoch, logs)
        epochs.append(epoch)
        if len(epochs) == when + 1:
            raise Killed

    assert main(command("whole.h5")) == 0
    monkeypatch.setattr(callbacks.EarlyStopping, "on_epoch_end", counted)
    with pytest.raises(Killed):
        main(command("killed.h5"))
    assert not (tmp_path / "killed.h5").exists()
    assert main(command("killed.h5")) == 0
    assert len(epochs) == 3 + 2 + 2 + 1  # the one that was lost is all that is trained again
    whole, killed = (load_model(tmp_path / f"{name}.h5") for name in ("whole", "killed"))
    for a, b in zip(whole.get_weights(), killed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not (tmp_path / "killed.h5.cache").exists()


@pytest.mark.parametrize("changed", [["--epochs", "4"], ["--fine-tune-epochs", "3"]])
def test_with_other_epochs_stages_that_were_killed_begin_anew(
    photos, tmp_path, monkeypatch, changed
):
    class Killed(BaseException):
        pass

    def command(name, more=()):
        clear_session()  # as in a new process
        options = ["--epochs", "2", "--fine-tune-epochs", "2", "--unfreeze", "block5", *more, *ADAM]
        return ["train", str(photos), "-o", str(tmp_path / name), *SMALL, *options, "--seed", "5"]

    epochs, end = [], callbacks.EarlyStopping.on_epoch_end

    def killing(self, epoch, logs=None):
        end(self, epoch, logs)
        epochs.append(epoch)
        if len(epochs) == 4:  # the stage's second
            raise Killed

    assert main(command("whole.h5", changed)) == 0
    monkeypatch.setattr(callbacks.EarlyStopping, "on_epoch_end", killing)
    with pytest.raises(Killed):
        main(command("killed.h5"))
    assert main(command("killed.h5", changed)) == 0
    whole, killed = (load_model(tmp_path / f"{name}.h5") for name in ("whole", "killed"))
    for a, b in zip(whole.get_weights(), killed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.weights
def test_real_weights_tell_dark_from_light(photos, tmp_path, capsys):
    out = tmp_path / "model.h5"
    options = ["--size", "32", "--epochs", "20", "--validation", "0.34"]
    assert main(["train", str(photos), "-o", str(out), *options]) == 0
    assert load_model(out).metadata["provenance"]["validation"]["accuracy"] == 1


def test_the_head_is_solved_for_and_learns_from_all_images_in_the_end(photos, tmp_path, capsys):
    out = tmp_path / "model.h5"
    assert main(["train", str(photos), "-o", str(out), *SMALL, "--seed", "2"]) == 0
    text = capsys.readouterr().out
    assert "3 times stratified folds, heads on the frozen base, 12 images:" in text
    assert "(in brackets: where the truth is in 95 of 100 cases)" in text
    model = load_model(out)
    about = model.metadata
    assert about["figures"]["validation"]["accuracy"]["value"] == 1
    folds = about["figures"]["folds"]["accuracy"]
    assert folds["low"] < folds["value"] <= folds["high"] and about["head"]["strength"] > 0
    assert main(["evaluate", str(out), str(photos), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == 1


def test_layers_and_pooling_can_be_given(photos, tmp_path, capsys):
    out = tmp_path / "model.keras"
    options = ["--layers", "block4_pool", "--pooling", "max", "--validation", "0.34"]
    assert main(["train", str(photos), "-o", str(out), *SMALL, *options]) == 0
    assert load_model(out).metadata["head"]["features"] == {"block4_pool max": 1.0}
    options[1] = "block4_pol"
    assert main(["train", str(photos), "-o", str(tmp_path / "m.h5"), *SMALL, *options]) == 1
    assert "Did you mean 'block4_pool'?" in capsys.readouterr().err


def test_fine_tuning_that_does_not_help_is_said_so_and_not_kept(
    photos, tmp_path, monkeypatch, capsys
):
    def worse(self, data, validation, *, stages, **settings):
        before = self.get_weights()
        self.set_weights([w + 1 for w in before])
        self.set_weights(before)  # as `fine_tune` does for a stage that is no better
        return []

    monkeypatch.setattr("minitl.transfer.stages.fine_tune", worse)
    names = [tmp_path / "tuned.h5", tmp_path / "plain.h5"]
    weights = tmp_path / "vgg.h5"
    from minitl.applications import VGG16

    VGG16(include_top=False, weights=None, input_shape=(32, 32, 3)).save_weights(weights)
    for name, more in zip(names, (["--unfreeze", "block5"], []), strict=True):
        options = ["--size", "32", "--weights", str(weights), *more]
        assert main(["train", str(photos), "-o", str(name), *options]) == 0
    assert "Fine-tuning block5 did not help on them: it is not kept." in capsys.readouterr().out
    for a, b in zip(*(load_model(name).get_weights() for name in names), strict=True):
        np.testing.assert_array_equal(a, b)


def test_train_writes_its_page(photos, tmp_path, capsys):
    model, page = tmp_path / "m.h5", tmp_path / "m.html"
    options = ["--validation", "0.34", "--unfreeze", "block5", "--fine-tune-epochs", "1"]
    command = ["train", str(photos), "-o", str(model), *SMALL, *options]
    assert main([*command, "--report", "none"]) == 0
    assert not page.exists() and "report" not in capsys.readouterr().out
    page.write_text("somebody's own")
    assert main(command) == 0
    assert "m.html is no report of minitl's, and stays" in capsys.readouterr().err
    assert page.read_text() == "somebody's own"
    page.unlink()
    assert main(command) == 0
    assert f"The report is in {page}." in capsys.readouterr().out
    html = page.read_text("utf-8")
    for section in ("figures", "curves", "check", "map", "made"):
        assert f'id="{section}"' in html, section
    assert "In repeated folds of all pictures" in html and "minitl train" in html
    assert main(["train", str(photos), "-o", str(model), *SMALL, "--report", "a.txt"]) == 1


def test_groups_are_held_out_whole(tmp_path, capsys):
    folder = draw(tmp_path / "photos", 8)
    for path in list(folder.glob("*/*.png")):
        path.rename(path.with_name(f"day{int(path.stem) // 2}-{path.stem}.png"))
    out = tmp_path / "model.h5"
    options = ["--group-by", r"(day\d)-", "--validation", "0.25"]
    assert main(["train", str(folder), "-o", str(out), *SMALL, *options]) == 0
    text = capsys.readouterr().out
    assert "12 images to train on, 4 to validate" in text and "3 times grouped folds" in text


@pytest.mark.parametrize(
    ("base", "layer", "width", "preprocessing"),
    [
        ("resnet50", "conv2_block3_out", 256, "caffe"),
        ("mobilenet_v2", "block_3_expand_relu", 144, "tf"),
        ("efficientnet_b0", "block3a_expand_activation", 144, "none"),
    ],
)
def test_another_base(photos, tmp_path, base, layer, width, preprocessing):
    out = tmp_path / "model.h5"
    options = ["--base", base, "--layers", layer, "--pooling", "avg"]
    assert main(["train", str(photos), "-o", str(out), *SMALL, *options]) == 0
    model = load_model(out)
    assert model.get_layer("head").kernel.shape == (width, 2)
    assert model.metadata["provenance"]["base"] == f"{base}, weights none"
    assert model.metadata["preprocessing"] == preprocessing
    assert main(["evaluate", str(out), str(photos)]) == 0


@pytest.mark.parametrize("base", ["mobilenet_v2", "efficientnet_b0"])
def test_images_are_made_as_the_base_wants_them(photos, tmp_path, monkeypatch, base):
    """What the network is given: -1 to 1, or 0 to 255."""
    seen = []
    real = InputLayer.call
    monkeypatch.setattr(
        InputLayer, "call", lambda self, x: (seen.append(x.storage.copy()), real(self, x))[1]
    )
    out = tmp_path / "F.h5"
    options = ["--base", base, "--weights", "none", "--size", "32"]
    assert main(["extract", str(photos), "-o", str(out), *options]) == 0
    low, high = min(a.min() for a in seen), max(a.max() for a in seen)
    assert (-1 <= low < -0.5 and 0.5 < high <= 1) if base == "mobilenet_v2" else high > 150


def test_a_solved_training_that_was_killed_does_not_run_the_base_again(
    photos, tmp_path, monkeypatch
):
    class Killed(BaseException):
        pass

    def kill(*arguments, **named):
        raise Killed

    weights = tmp_path / "vgg.h5"
    from minitl.applications import VGG16

    VGG16(include_top=False, weights=None, input_shape=(32, 32, 3)).save_weights(weights)
    command = ["train", str(photos), "-o", str(tmp_path / "m.h5"), "--size", "32"]
    command += ["--weights", str(weights)]
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr("minitl.cli.solving.choose_head", kill)
        main(command)
    assert (tmp_path / "m.h5.cache" / "F.h5").exists()
    monkeypatch.setattr("minitl.models.Model.predict", _only_whole_models)
    assert main(command) == 0


def _only_whole_models(self, x, *arguments, **named):
    """F is there: only the model that is judged may still predict."""
    assert self.name == "trained"
    return np.full((len(x), 2), 0.5)


@pytest.fixture(scope="module")
def solved(photos):
    """A model whose head was solved for, from photos."""
    model = photos.parent / "solved.h5"
    assert main(["train", str(photos), "-o", str(model), *SMALL, "--seed", "4"]) == 0
    return model


def test_evaluate_tells_how_many_it_has_seen_and_by_name(solved, photos, tmp_path, capsys):
    rng = np.random.default_rng(5)
    new, copies = tmp_path / "new" / "dark", tmp_path / "copies" / "dark"
    for folder in (new, copies):
        folder.mkdir(parents=True)
    for i in range(3):
        patches = Image.fromarray(rng.integers(0, 99, (6, 6, 3)).astype(np.uint8))
        patches.resize((48, 48), Image.Resampling.BICUBIC).save(new / f"{i}.png")
        (copies / f"{i}.png").write_bytes((photos / "dark" / f"{i}.png").read_bytes())
    assert main(["evaluate", str(solved), str(tmp_path / "new")]) == 0
    assert "trained on" not in capsys.readouterr().out
    assert main(["evaluate", str(solved), str(tmp_path / "copies"), "--seen"]) == 0
    out = capsys.readouterr().out
    assert "3 of 3 images were among those it was trained on: on others it may be worse." in out
    assert all(f"\n  {path}" in out for path in copies.glob("*.png"))
    assert main(["evaluate", str(solved), str(photos), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["seen"]["images"] == 12  # those held out to validate have become training images
    assert told["figures"]["accuracy"]["low"] < told["figures"]["accuracy"]["value"]


def test_predict_says_what_is_unlike_all_training_images(solved, photos, tmp_path, capsys):
    ramp = np.linspace(0, 255, 40)
    pixels = np.stack(
        [ramp[:, None] + 0 * ramp, ramp + 0 * ramp[:, None], 255 - ramp + 0 * ramp[:, None]], -1
    )
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "ramp.png")
    images = [str(tmp_path / "ramp.png"), str(photos / "dark" / "0.png")]
    assert main(["predict", str(solved), *images]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("unlike all training images") and "unlike" not in lines[2]
    assert main(["predict", str(solved), *images, "--json"]) == 0
    assert [row["unlike_training"] for row in json.loads(capsys.readouterr().out)] == [True, False]
    assert main(["predict", str(solved), *images, "--csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["unlike_training"] for row in rows] == ["1", "0"]


def test_info_does_not_print_packed_numbers(solved, capsys):
    assert main(["info", str(solved)]) == 0
    out = capsys.readouterr().out
    assert "characters)" in out and max(map(len, out.splitlines())) < 3000
