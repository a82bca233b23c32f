"""Modules that stood elsewhere before minitl had rooms: scripts of then find them."""

import importlib

import pytest


@pytest.mark.parametrize(
    ("module", "name", "now"),
    [
        ("explain", "grad_cam", "judging.grad_cam"),
        ("onnx", "read_initializers", "applications.onnx"),
        ("files", "replacing", "storage.atomic"),
        ("files", "locked", "storage.atomic"),
        ("datasets.idx", "read_idx", "datasets.mnist"),
    ],
)
def test_the_old_place_has_the_same(module, name, now):
    here = importlib.import_module(f"minitl.{now}")
    assert getattr(importlib.import_module(f"minitl.{module}"), name) is getattr(here, name)
