"""Runs a memory sweep: checks everything, simulates, and writes what was found."""

import dataclasses
import hashlib
import json
import os
import pathlib
import time
from typing import Any

import filelock
from absl import logging

from codesign.records import workdir as folders
from codesign.records.files import jsonable
from codesign.records.metrics import MetricsLog, read_metrics
from codesign.report import Progress
from codesign.studies.memory import capacity_measure as measure
from codesign.studies.memory import capacity_report as report
from codesign.studies.memory.capacity_result import Outcome, restore
from codesign.studies.memory.capacity_settings import (
    PRESETS,
    MemoryConfig,
    preset,
)
from codesign.workload import load as networks
from codesign.workload.iteration import Program, training_iteration

__all__ = ["PRESETS", "MemoryConfig", "prepare", "preset", "run"]

StrPath = str | os.PathLike[str]
_STAGES = 6  # that `measure.measure` announces, the validation included


@dataclasses.dataclass
class Experiment:
    """A checked sweep, ready to run."""

    config: MemoryConfig
    workdir: pathlib.Path
    programs: dict[str, Program]  # of the networks that are still to be measured
    done: dict[str, tuple[Outcome, float]]  # the others, with their seconds
    lock: filelock.BaseFileLock  # held from `prepare` until `run` returns

    def run(self) -> list[Outcome]:
        """Measures every network, then writes and prints what was found."""
        try:
            self._measure()
            outcomes = [self.done[name][0] for name in self.config.networks]
            seconds = sum(self.done[name][1] for name in self.config.networks)
            report.write(
                self.config, outcomes, workdir=self.workdir, measured_s=seconds
            )
        finally:
            self.lock.release()
        return outcomes

    def _measure(self) -> None:
        if not self.programs:
            return
        total, finished = _STAGES * len(self.config.networks), len(self.done)
        with (
            MetricsLog(self.workdir / "metrics.jsonl") as metrics,
            Progress(
                total, "Memory sweep", initial_step=_STAGES * finished
            ) as progress,
        ):
            for name, program in self.programs.items():
                start, stage = time.monotonic(), _STAGES * len(self.done)

                def on_stage(what: str, name=name):
                    nonlocal stage
                    progress.update(stage, candidate=f"{name}: {what}")
                    stage += 1

                found = measure.measure(self.config, name, program, on_stage)
                taken = time.monotonic() - start
                record = {"network": name, "wall_s": taken, "outcome": found}
                metrics.append({**record, "sha256": _digest(record)})
                self.done[name] = found, taken
                progress.update(_STAGES * len(self.done), candidate=name)


def prepare(config: MemoryConfig, *, workdir: StrPath) -> Experiment:
    """Checks everything before anything long, and opens the workdir.

    Raises:
        ValueError: For a setting out of range, a network that cannot be imported or that
            cannot stream through the smallest cache, or a workdir made with other
            settings or in use.
        OSError: For a file or a workdir that cannot be read or written.
    """
    folder = pathlib.Path(workdir)
    config.checked()
    lock = folders.lock(folder)
    try:
        done = _read(config, folder)
        programs = {}
        for name in config.networks:
            if name not in done:
                logging.info("counting %s", name)
                network = networks.load(name, config.image_size)
                programs[name] = training_iteration(network)
                measure.check(config, name, programs[name])
        folders.check_settings(config, folder)
    except BaseException:
        lock.release()
        raise
    return Experiment(config, folder, programs, done, lock)


def run(config: MemoryConfig, *, workdir: StrPath) -> list[Outcome]:
    """Sweeps every network of `config` and writes tables, figures and a report.

    The workdir receives `config.json`, `metrics.jsonl` (a line for each network when it
    is done), `sweep.csv`, `results.json`, figures and `report.html`. Running it again
    measures only what is missing, and writes the same.

    Args:
        config: See `PRESETS`.
        workdir: Made if it is not there.

    Raises:
        ValueError, OSError: As `prepare`, before anything is simulated.
    """
    return prepare(config, workdir=workdir).run()


def _digest(record: dict[str, Any]) -> str:
    """Of a record as its line says it."""
    text = json.dumps(jsonable(record), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _read(
    config: MemoryConfig, folder: pathlib.Path
) -> dict[str, tuple[Outcome, float]]:
    """Networks that an earlier run finished, unless their file changed since."""
    if not (folder / "config.json").exists():
        return {}
    folders.check_settings(config, folder)
    done = {}
    for record in read_metrics(folder / "metrics.jsonl"):
        digest = record.pop("sha256", None)
        if digest != _digest(record):
            logging.warning("metrics.jsonl: skipped a record that has changed")
            continue
        try:
            outcome = restore(record["outcome"])
            seconds = float(record["wall_s"])
        except (KeyError, TypeError, ValueError):
            logging.warning("metrics.jsonl: skipped a record that is none of ours")
            continue
        if outcome.digest == networks.digest(outcome.network):
            done[outcome.network] = outcome, seconds
    return {name: done[name] for name in config.networks if name in done}
