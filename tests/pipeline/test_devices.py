"""The choice of the device that torch computes on."""

import pytest

from data_schemas.errors import JobError
from pipeline.devices import choose_device


@pytest.fixture
def machine(monkeypatch):
    """Says which accelerators torch finds."""

    def finds(*names):
        monkeypatch.setattr("torch.cuda.is_available", lambda: "cuda" in names)
        monkeypatch.setattr("torch.backends.mps.is_available", lambda: "mps" in names)

    return finds


@pytest.mark.parametrize(("found", "chosen"), [(("cuda", "mps"), "cuda"), (("mps",), "mps"), ((), "cpu")])
def test_auto_is_the_best_that_is_there(found, chosen, machine):
    machine(*found)
    assert choose_device("auto") == chosen
    assert choose_device("cpu") == "cpu"


def test_what_is_not_there_is_refused_with_what_is(machine):
    machine("mps")
    with pytest.raises(JobError, match=r"Device cuda is not there.*auto, mps, cpu"):
        choose_device("cuda")
    with pytest.raises(JobError, match=r"Device 'quantum'.*auto, mps, cpu"):
        choose_device("quantum")
