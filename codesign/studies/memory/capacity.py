"""What does a larger cache spare a training iteration? A network is a unit of work."""

import pathlib
from collections.abc import Sequence
from typing import Any

from absl import logging

from codesign.hardware import chips
from codesign.hardware.memory import MemorySpec
from codesign.records import StrPath
from codesign.studies import frame
from codesign.studies.memory import capacity_measure, paper_networks
from codesign.studies.memory.capacity_report import report
from codesign.studies.memory.capacity_result import NetworkSweep
from codesign.studies.memory.capacity_settings import PRESETS, MemoryConfig
from codesign.workload import load as networks
from codesign.workload.iteration import Program, training_iteration

__all__ = ["PRESETS", "STUDY", "MemoryConfig", "run"]

_Unit = tuple[str, str]  # a network's name, and the digest of its file
_NUM_STAGES = 6


def units(config: MemoryConfig) -> list[_Unit]:
    """Networks; one whose file has changed is another."""
    return [(name, networks.digest(name, "networks")) for name in config.networks]


def prepare(
    config: MemoryConfig, pending: Sequence[_Unit], workdir: pathlib.Path
) -> dict[str, Program]:
    """Counts the networks that are still to be measured.

    Raises:
        ValueError: For a network that cannot be read or imported, or that cannot stream
            through the smallest cache.
    """
    del workdir
    programs = {}
    for name, digest in pending:
        logging.info("counting %s", name)
        network = paper_networks.load(name, config.image_size, "networks")
        programs[name] = training_iteration(network)
        if networks.digest(name, "networks") != digest:
            raise ValueError(
                f"`networks`: the file of {name!r} changed while it was read; run again."
            )
        capacity_measure.check(config, name, programs[name])
    return programs


def measure(
    config: MemoryConfig, unit: _Unit, job: frame.Job, programs: dict[str, Program]
) -> NetworkSweep:
    """Sweeps one network; kept when it returns."""
    name, _ = unit
    label = networks.label(name)

    def on_stage(step: int, stage: str) -> None:
        job.update(step, label, now=stage)

    found = capacity_measure.measure(config, name, programs[name], on_stage)
    job.update(_NUM_STAGES, label)
    return found


def _hardware(text: str) -> dict[str, Any]:
    """Chips by the names that `hardware.chips` gives them."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if not isinstance(chips.by_name(name).spec, MemorySpec):
            raise ValueError(
                f"`chip` (={name!r}) has no cache to sweep; name `memory:A100` or another "
                "of that family."
            )
    return {"hardware": tuple(name.partition(":")[2] for name in names)}


STUDY = frame.Study(
    name="memory_sweep",
    presets=PRESETS,
    units=units,
    prepare=prepare,
    measure=measure,
    steps=lambda config, unit: _NUM_STAGES,
    report=report,
    found=NetworkSweep,
    shorthands={
        "chip": ("Chips, such as memory:A100, instead of hardware.", _hardware)
    },
)


def run(config: MemoryConfig, *, workdir: StrPath) -> list[NetworkSweep]:
    """Sweeps every network of `config`; see `frame.Study.run`.

    Returns:
        What was found, in the order of `config.networks`.
    """
    return list(STUDY.run(config, workdir=workdir).values())
