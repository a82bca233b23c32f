"""The endpoint: right answers to many clients at once, and a refusal for whatever is wrong."""

import concurrent.futures
import contextlib
import csv
import io
import json
import os
import socket
import struct
import subprocess
import sys
import time
import zlib
from urllib.parse import urlparse

import httpx
import numpy as np
import pytest
from PIL import Image

from minitl import serve
from minitl.cli import main
from minitl.data.pictures import READING, read_picture
from minitl.judging.novelty import Novelty
from minitl.serve.batching import Batcher, Busy
from minitl.serve.classifier import Classifier
from minitl.transfer.solved import with_features
from tests.serve.conftest import BLUE, GREEN, NAMES, RED, Running, picture


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server.address, timeout=60) as client:
        yield client


def answered(response):
    """The only picture of a good answer."""
    assert response.status_code == 200, response.text
    (found,) = response.json()["pictures"]
    return found


# --- What is right --------------------------------------------------------------------------------


@pytest.mark.parametrize(("contents", "name"), list(zip((RED, GREEN, BLUE), NAMES, strict=True)))
def test_a_picture_is_told_its_class(client, contents, name):
    found = answered(client.post("/api/predict?name=a/b%5C%C3%A4.png", content=contents))
    assert found["class"] == name and found["name"] == "ä.png"
    assert list(found["probabilities"]) == NAMES
    assert found["probability"] == max(found["probabilities"].values()) > 0.9


def test_answers_are_what_the_model_predicts(client, model):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    x = read_picture(io.BytesIO(file.getvalue()), (24, 32), {**READING, **model.metadata})
    expected = model.predict(x[None].astype(np.float32), verbose=0)[0]
    found = answered(client.post("/api/predict", content=file.getvalue()))
    np.testing.assert_allclose(list(found["probabilities"].values()), expected, rtol=1e-6)


def test_a_picture_unlike_the_training_pictures_is_told(model):
    """Black has no direction; the training pictures were red, green and blue."""
    rng = np.random.default_rng(0)
    x = (np.eye(3)[np.arange(60) % 3] * 200 + rng.uniform(0, 40, (60, 3))).astype(np.float32)
    training = np.broadcast_to(x[:, None, None], (60, 24, 32, 3))
    f, p = with_features(model).predict(training, verbose=0)
    about = model.metadata | {"novelty": Novelty.fit(f, np.arange(60) % 3, p).to_dict()}
    classifier = Classifier(model, about, np.float32, 10**6)
    kinds = [classifier.read(c) for c in (RED, GREEN, picture("white"), picture("black"))]
    told = [each["unlike_training"] for each in classifier.classify(np.stack(kinds))]
    assert told[:2] == [False, False] and told[2:] == [True, True]


def test_several_pictures_in_a_form_one_of_them_bad(client):
    files = [("p", ("a.png", RED)), ("q", ("b.png", b"no picture")), ("p", ("c.png", BLUE))]
    response = client.post("/api/predict", files=files)
    assert response.status_code == 200
    a, b, c = response.json()["pictures"]
    assert (a["name"], a["class"]) == ("a.png", NAMES[0])
    assert b["name"] == "b.png" and "not an image" in b["error"] and "class" not in b
    assert (c["name"], c["class"]) == ("c.png", NAMES[2])


def test_a_table_is_the_one_of_the_command_line(client):
    files = [("p", ("a,b.png", RED)), ("p", ("bad.png", b"?"))]
    response = client.post("/api/predict", files=files, headers={"accept": "text/csv"})
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.reader(io.StringIO(response.text)))
    assert rows[0] == ["name", "class", *NAMES, "error"]
    assert rows[1][:2] == ["a,b.png", NAMES[0]] and float(rows[1][2]) > 0.9 and rows[1][-1] == ""
    assert rows[2][:5] == ["bad.png", "", "", "", ""] and "not an image" in rows[2][-1]


def test_where_it_looked(client, model):
    half = Image.new("RGB", (40, 30), "lime")
    half.paste((255, 0, 0), (0, 0, 20, 30))
    file = io.BytesIO()
    half.save(file, "PNG")
    response = client.post(f"/api/explain?class={NAMES[0]}", content=file.getvalue())
    assert response.headers["content-type"] == "image/png"
    heat = np.asarray(Image.open(io.BytesIO(response.content)))
    assert heat.shape == (24, 32, 4)
    assert heat[:, :12, 3].min() > 100 and heat[:, 20:, 3].max() == 0
    response = client.post("/api/explain?class=blue", content=file.getvalue())
    assert response.status_code == 422 and "no class 'blue'" in response.json()["error"]


def test_the_description_names_every_address_and_what_it_answers(client):
    about = client.get("/openapi.json").json()
    assert set(about["paths"]) == {"/api/model", "/api/predict", "/api/explain"}
    required = about["components"]["schemas"]["Model"]["required"]
    model = client.get("/api/model").json()
    assert sorted(model) == sorted(required)
    assert model["classes"] == NAMES and model["size"] == [24, 32]
    known = about["components"]["schemas"]["Answer"]["properties"]
    assert set(answered(client.post("/api/predict", content=RED))) <= set(known)


def test_nothing_is_asked_of_others_and_nothing_kept(client):
    for path in ("/", "/api/model", "/page.js"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


# --- Many at once ---------------------------------------------------------------------------------


def test_64_clients_at_once_get_their_own_answers(server):
    def ask(i):
        with httpx.Client(base_url=server.address, timeout=120) as client:
            found = [
                client.post("/api/predict", content=(RED, GREEN, BLUE)[(i + k) % 3])
                for k in range(3)
            ]
        return [answered(each)["class"] == NAMES[(i + k) % 3] for k, each in enumerate(found)]

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        assert all(map(all, pool.map(ask, range(64))))


def test_pictures_of_several_clients_go_through_the_network_together():
    import asyncio

    sizes = []

    def classify(images):
        time.sleep(0.05)
        sizes.append(len(images))
        return [int(each[0, 0, 0]) for each in images]

    async def work():
        async with Batcher(classify, 8, 64) as batcher:
            asked = [batcher.ask(np.full((1, 1, 3), i)) for i in range(17)]
            return await asyncio.gather(*asked)

    assert asyncio.run(work()) == list(range(17))
    assert sum(sizes) == 17 and len(sizes) <= 4 and max(sizes) == 8


def test_an_error_of_the_network_reaches_those_who_asked_and_the_next_are_served():
    import asyncio

    def classify(images):
        if (images < 0).any():
            raise ArithmeticError("negative")
        return [0] * len(images)

    async def work():
        async with Batcher(classify, 1, 2) as batcher:
            with pytest.raises(ArithmeticError, match="negative"):
                await batcher.ask(np.full((1, 1, 3), -1))
            return await batcher.ask(np.zeros((1, 1, 3)))

    assert asyncio.run(work()) == 0


def test_more_than_may_wait_is_refused_at_once():
    import asyncio

    async def work():
        async with Batcher(lambda x: [time.sleep(0.2)] * len(x), 1, 2) as batcher:
            asked = [asyncio.ensure_future(batcher.ask(np.zeros((1, 1, 3)))) for _ in range(5)]
            return await asyncio.gather(*asked, return_exceptions=True)

    refused = [isinstance(each, Busy) for each in asyncio.run(work())]
    assert refused == [False, False, True, True, True]


def test_a_client_that_goes_away_harms_nobody(server, client, caplog):
    place = urlparse(server.address)
    for sent in (b"POST /api/predict HT", b"\r\n\r\n", RED[:20], RED):
        head = b"POST /api/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d" % len(RED)
        with socket.create_connection((place.hostname, place.port)) as raw:
            raw.sendall(head + (b"\r\n\r\n" if sent in RED else b"") + sent)
    assert answered(client.post("/api/predict", content=GREEN))["class"] == NAMES[1]
    assert caplog.records == []  # nor is it an error of the server's


# --- What is refused ------------------------------------------------------------------------------


def bomb(width, height):
    """A small PNG file that claims, and has, so many pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1 + 3 * width) * min(height, 64), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


BAD = {
    "nothing": b"",
    "text": b"hello",
    "html": b"<html><script>alert(1)</script>",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
    "pdf": b"%PDF-1.7\n",
    "zip": b"PK\x03\x04" + bytes(100),
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "truncated": picture("red", (400, 300), "JPEG")[:700],
    "half a header": RED[:20],
    "bomb": bomb(60_000, 60_000),
    "wide": bomb(2**31 - 1, 1),
    "no pixels": bomb(0, 0),
    "random": np.random.default_rng(0).bytes(5000),
    "jpeg and then nothing": b"\xff\xd8\xff\xe0" + bytes(10),
    "tiff of loops": b"II*\0\x08\0\0\0\x01\0" + bytes(12) + b"\x08\0\0\0",
    "gif of nothing": b"GIF89a\xff\xff\xff\xff\xf7\0\0",
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("address", ["/api/predict", "/api/explain"])
def test_no_picture_is_an_answer(client, kind, address):
    response = client.post(address, content=BAD[kind], headers={"content-type": "image/png"})
    assert response.status_code == 422, response.text
    assert len(response.json()["error"]) > 10


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=", b"x"),
        ("multipart/form-data; boundary=b", b"--c\r\n\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"a: b\r\n" * 20_000),
        ("multipart/form-data; boundary=b", b"--b--\r\n"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\nx\r\n--b--',
        ),
        ("multipart/form-data; boundary=" + "b" * 5000, b"x"),
        ("multipart/mixed; boundary=b", b"--b\r\n\r\nx\r\n--b--"),
    ],
)
def test_a_broken_form_is_an_answer(client, content_type, body):
    response = client.post("/api/predict", content=body, headers={"content-type": content_type})
    assert response.status_code in (400, 422), response.text
    assert response.json()["error"]


def test_too_many_files_and_too_long_names(client, server):
    files = [("p", (f"{i}.png", RED)) for i in range(server.limits.files + 1)]
    response = client.post("/api/predict", files=files)
    assert response.status_code == 400 and "files" in response.json()["error"]
    found = answered(
        client.post("/api/predict", files={"p": ("../" * 50 + "x" * 900 + ".png", RED)})
    )
    assert "/" not in found["name"] and len(found["name"]) <= 200


def test_sizes_are_counted_and_not_believed(model):
    limits = {"file_bytes": 2000, "request_bytes": 5000, "pixels": 2000}
    with Running(model, **limits) as small, httpx.Client(base_url=small.address) as client:
        large = picture("red", (400, 300), "BMP")
        assert client.post("/api/predict", content=large).status_code == 413
        assert client.post("/api/predict", files={"p": large}).status_code == 413

        def unsaid():  # in chunks, without a length
            yield from (large[i : i + 700] for i in range(0, len(large), 700))

        # The answer may come, and the connection be closed, before all was sent.
        with contextlib.suppress(httpx.WriteError):
            assert client.post("/api/predict", content=unsaid()).status_code == 413
        bad = client.post("/api/predict", content=picture("red", (60, 50)))
        assert bad.status_code == 422 and "3,000 pixels" not in bad.text
        assert "60 x 50 pixels, and 2,000 are the most" in bad.json()["error"]
        padded = RED + bytes(2500 - len(RED))
        bad = client.post("/api/predict", files={"p": padded})
        assert bad.status_code == 422 and "2,000 at most" in bad.json()["error"]
        assert answered(client.post("/api/predict", content=RED))["class"] == NAMES[0]


def raw_answer(server, *parts, pause=0.0):
    """What a server sends back on one connection, until it closes it."""
    place, found = urlparse(server.address), b""
    with socket.create_connection((place.hostname, place.port), timeout=30) as raw:
        for part in parts:
            try:
                raw.sendall(part)
            except OSError:
                break
            time.sleep(pause)
        try:
            while more := raw.recv(65536):
                found += more
                if b"\r\n\r\n" in found and pause == 0:
                    break
        except OSError:
            pass
    return found


def test_who_sends_slowly_is_told_so_and_others_are_served_meanwhile(model):
    with Running(model, seconds=1) as hurried:
        head = b"POST /api/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 500\r\n\r\n"
        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            slow = [
                pool.submit(raw_answer, hurried, head, *[b"x"] * 3, pause=0.6) for _ in range(20)
            ]
            slow += [
                pool.submit(raw_answer, hurried, b"GET / HT", b"TP", b"/", pause=0.6)
                for _ in range(20)
            ]
            with httpx.Client(base_url=hurried.address, timeout=60) as client:
                assert answered(client.post("/api/predict", content=RED))["class"] == NAMES[0]
            assert all(each.result().startswith(b"HTTP/1.1 408 ") for each in slow)


POST = b"POST /api/predict HTTP/1.1\r\nhost: localhost\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx: " + b"y" * 20_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nhost: attacker.example\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nhost: 127.0.0.1.attacker.example:80\r\n\r\n", b"400"),
        (b"GET /../../etc/passwd HTTP/1.1\r\nhost: localhost\r\n\r\n", b"404"),
        (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nhost: localhost\r\n\r\n", b"404"),
        (b"GET /api/predict HTTP/1.1\r\nhost: localhost\r\n\r\n", b"405"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", b"400"),
        (POST + b"content-length: -5\r\n\r\n", b"400"),
        (POST + b"content-length: 99999999999999\r\n\r\n", b"413"),
        (POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n", b"400"),
    ],
)
def test_what_is_no_request_is_refused(server, client, request_, status):
    assert raw_answer(server, request_).split()[1] == status
    assert client.get("/api/model").status_code == 200


def test_another_sites_page_may_not_use_it(client):
    for origin in ("https://attacker.example", "null", "http://127.0.0.1:1"):
        refused = client.post("/api/predict", content=RED, headers={"origin": origin})
        assert refused.status_code == 403
    own = str(client.base_url).rstrip("/")
    assert client.post("/api/predict", content=RED, headers={"origin": own}).status_code == 200


def test_what_is_held_of_all_clients_is_bounded(model):
    with Running(model, held_bytes=1000, seconds=2) as small:
        place = urlparse(small.address)
        head = b"POST /api/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 2000\r\n\r\n"
        with socket.create_connection((place.hostname, place.port)) as holding:
            holding.sendall(head + bytes(950))
            time.sleep(0.3)
            with httpx.Client(base_url=small.address, timeout=60) as client:
                refused = client.post("/api/predict", content=RED)
                assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
        with httpx.Client(base_url=small.address, timeout=60) as client:
            deadline = time.monotonic() + 20
            while client.post("/api/predict", content=RED).status_code == 503:
                assert time.monotonic() < deadline  # it went away: what it held is free again
                time.sleep(0.1)


@pytest.mark.parametrize("value", [0, -1, True, "many", float("nan")])
def test_limits_that_are_none(value):
    with pytest.raises(ValueError, match="Limits: files must be at least 1"):
        serve.Limits(files=value)


def test_a_model_that_does_not_say_its_classes(model):
    with pytest.raises(ValueError, match=r"does not say its class_names: set model.metadata"):
        serve.create_app(model, {"size": [24, 32]}, lambda x: x)


# --- The command ----------------------------------------------------------------------------------


def test_the_command_serves_and_ends(model, tmp_path):
    path = tmp_path / "m.h5"
    model.metadata = {**model.metadata, "preprocessing": "none"}
    model.save(path)
    command = [sys.executable, "-m", "minitl", "serve", path, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        address = line.removeprefix("The page is at ").split()[0]
        assert answered(httpx.post(address + "api/predict", content=BLUE))["class"] == NAMES[2]
        process.send_signal(2)
        assert process.wait(30) == 130


def test_a_port_that_is_taken(model, tmp_path, capsys):
    path = tmp_path / "m.h5"
    model.metadata = {**model.metadata, "preprocessing": "none"}
    model.save(path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", os.fspath(path), "--port", str(port)]) == 1
    assert f"cannot listen at 127.0.0.1, port {port}" in capsys.readouterr().err


def test_without_starlette_it_says_what_to_install(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    with pytest.raises(ImportError, match=r"pip install 'minitl\[serve\]'"):
        serve.create_app(model, model.metadata, lambda x: x)
    json.dumps(model.metadata)
