"""A study in sixty lines: python tests/studies/toy.py --workdir=runs/toy --numbers=2,3"""

import dataclasses
import itertools
import time

from codesign.records.settings import setting
from codesign.report import Column, Table, plots
from codesign.studies import frame
from codesign.studies.published import Published


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyConfig(frame.Config):
    numbers: tuple[int, ...] = setting((2, 3), "To be raised.", least=0, free=True)
    power: int = setting(2, "Exponent.", least=1, most=9, flag="exponent")
    num_repeats: int = setting(1, "Runs of each.", least=1, grows=True)
    pause_s: float = setting(0.0, "Of each unit.", least=0, free=True)


@dataclasses.dataclass(frozen=True)
class Power:
    value: int


def measure(config, unit, job):
    time.sleep(config.pause_s)
    job.update(0, f"{unit[0]} to the power of {config.power}", run=unit[1])
    return Power(unit[0] ** config.power)


THREE = Published(
    name="power", of={"number": "3"}, value=9, source="Euclid", kind="derived",
    title="three, raised",
    ours=lambda found: found[3, 0].value if (3, 0) in found else None,
)  # fmt: skip


def report(config, found):
    rows = [(number, each.value) for (number, _), each in found.items()]
    table = Table("Powers", ["Number", Column("Power")], rows)
    line = {"ours": tuple(zip(*rows, strict=True))}
    curve = plots.curves(line, x_label="Number", y_label="Power")
    return frame.Report(
        title="Powers", summary=f"{len(found)} powers.", shown=[table],
        sections=[frame.Section("All", [table, frame.Figure("powers", curve, "Rise.")])],
        quantities=[THREE.quantity(found)],
    )  # fmt: skip


STUDY = frame.Study(
    name="toy", presets={"quick": ToyConfig(preset="quick")}, found=Power,
    units=lambda config: [*itertools.product(config.numbers, range(config.num_repeats))],
    measure=measure, report=report,
)  # fmt: skip

if __name__ == "__main__":
    from experiments import launch

    launch.run(STUDY)
