"""Tests of how Ray is begun, and how machines are shared out among workers."""

import importlib.util
import re
import sys

import pytest

from fashion_keras.config import InputError
from fashion_keras.predict.ray_cluster import Plan, import_ray, plan, running


@pytest.mark.parametrize(
    ("cpus", "asked", "expected"),
    [
        ([2], None, Plan(workers=1, threads=2, cpus=1, gpus=0)),
        ([2], 2, Plan(workers=2, threads=1, cpus=0.5, gpus=0)),
        ([2], 4, Plan(workers=4, threads=1, cpus=0.25, gpus=0)),
        ([1], None, Plan(workers=1, threads=1, cpus=0, gpus=0)),
        ([16], None, Plan(workers=8, threads=2, cpus=1.8, gpus=0)),
        ([16], 3, Plan(workers=3, threads=5, cpus=4.5, gpus=0)),
        # Three places of ten CPUs would leave the third worker without one.
        ([16, 16], 3, Plan(workers=3, threads=8, cpus=7.2, gpus=0)),
        ([8, 3], None, Plan(workers=6, threads=1, cpus=0.875, gpus=0)),
    ],
)
def test_every_worker_finds_a_place(cpus: list[int], asked: int | None, expected: Plan) -> None:
    found = plan([{"CPU": float(count)} for count in cpus], asked)
    assert found == expected
    free = [count - found.cpus * found.workers for count in cpus]
    assert len(cpus) > 1 or free[0] >= 1  # For reading and writing.


def test_each_graphics_card_has_a_worker() -> None:
    machines = [{"CPU": 64.0}, {"CPU": 16.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 1.0}]
    assert plan(machines, None) == Plan(workers=3, threads=8, cpus=7.2, gpus=1)
    assert plan(machines, 2).workers == 2
    with pytest.raises(InputError, match="Ray has 3 graphics cards.* Received: --workers 4"):
        plan(machines, 4)


def test_machines_without_cpus_are_refused() -> None:
    with pytest.raises(InputError, match="Ray has no machine with CPUs"):
        plan([{"memory": 1e9}], None)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(InputError, match=r"needs Ray Data: `pip install 'fashion_keras\[ray\]'`"):
        import_ray()


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra `ray`")
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://[::1]:1", "nonsense"])
def test_a_cluster_that_does_not_answer_is_an_error(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match=f"^No cluster of Ray at RAY_ADDRESS={re.escape(address)}"):
        with running():
            raise AssertionError("there is no such cluster")
