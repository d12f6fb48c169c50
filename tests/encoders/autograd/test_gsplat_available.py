"""What keeps gsplat from running is found out and said before anything is compiled, and no other engine steps in."""

import importlib
import importlib.metadata
import importlib.util
import shutil

import pytest
import torch

from data_schemas.errors import JobError
from data_schemas.splats import OVER
from encoders.autograd import gsplat_available
from encoders.autograd.gsplat_available import load_gsplat, missing_for_gsplat
from encoders.base import FitSettings
from encoders.engines import create_encoder


@pytest.fixture
def machine(monkeypatch):
    """A machine that has everything, as far as can be seen; each test takes something away."""
    found = importlib.util.find_spec
    version = importlib.metadata.version
    there = {"gsplat": "1.5.3", "packaging": "24", "gsplat.csrc": None, "nvcc": "nvcc", "c++": "c++", "ninja": True}

    def find_spec(name, package=None):
        if name in ("packaging", "gsplat.csrc"):
            return there[name]
        return found(name, package)

    def version_of(name):
        if name != "gsplat":
            return version(name)
        if there["gsplat"] is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return there["gsplat"]

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(importlib.metadata, "version", version_of)
    monkeypatch.setattr(shutil, "which", lambda name: there.get(name))
    monkeypatch.setattr("torch.utils.cpp_extension.CUDA_HOME", None)
    monkeypatch.setattr("torch.utils.cpp_extension.is_ninja_available", lambda: there["ninja"])
    monkeypatch.delenv("CXX", raising=False)
    return there


def test_nothing_is_missing_where_everything_is_there(machine):
    assert missing_for_gsplat() is None
    assert create_encoder("gsplat", FitSettings(gaussians=3, codec=OVER)).name == "gsplat"
    assert create_encoder("auto", FitSettings(gaussians=3, codec=OVER)).name == "gsplat"


@pytest.mark.parametrize(
    ("what", "value", "said", "advice"),
    [
        ("gsplat", None, "the package gsplat", r"splatspace\[gpu\]"),
        ("gsplat", "1.4.0", "gsplat 1.5 or newer; this is 1.4.0", "pip install"),
        ("packaging", None, "the package packaging", "pip install packaging"),
        ("nvcc", None, "nvcc of the CUDA toolkit", "CUDA toolkit 13.0"),
        ("c++", None, r"a C\+\+ compiler", r"g\+\+"),
        ("ninja", False, "ninja", "pip install ninja"),
    ],
)
def test_the_error_names_what_is_missing_and_what_to_install(machine, what, value, said, advice):
    machine[what] = value
    with pytest.raises(JobError, match=rf"(?s)Engine 'gsplat' needs {said}.*{advice}.*--engine reference"):
        create_encoder("gsplat", FitSettings(gaussians=3, codec=OVER))


def test_compiled_kernels_need_no_toolkit(machine):
    machine.update({"gsplat.csrc": "a spec", "nvcc": None, "c++": None, "ninja": False})
    assert missing_for_gsplat() is None


def test_without_a_card_that_is_what_is_said(machine, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(JobError, match="an NVIDIA GPU"):
        create_encoder("gsplat", FitSettings(gaussians=3, codec=OVER))
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(JobError, match="a torch built for CUDA"):
        create_encoder("gsplat", FitSettings(gaussians=3, codec=OVER))


def test_to_look_is_not_to_import(machine, monkeypatch):
    def refuse(name):
        raise AssertionError(f"{name} was imported")

    monkeypatch.setattr(importlib, "import_module", refuse)
    machine["nvcc"] = None
    assert missing_for_gsplat() is not None


@pytest.mark.parametrize("failure", [ImportError("gsplat_cuda.so: cannot open\nmore"), AttributeError("'NoneType'")])
def test_kernels_that_do_not_compile_are_an_error_of_the_machine(machine, monkeypatch, failure):
    def fail(name):
        raise failure

    monkeypatch.setattr(gsplat_available.importlib, "import_module", fail)
    with pytest.raises(JobError, match=rf"cannot compile or load.*{type(failure).__name__}") as caught:
        load_gsplat()
    assert "more" not in caught.value.got


def test_a_toolkit_that_gsplat_does_not_find_is_an_error(machine, monkeypatch):
    backend = type("Backend", (), {"_C": None})
    monkeypatch.setattr(gsplat_available.importlib, "import_module", lambda name: backend)
    with pytest.raises(JobError, match="found no CUDA toolkit"):
        load_gsplat()
