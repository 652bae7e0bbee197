"""What all studies share: settings, a workdir, resume, progress, results and a page.

A study names its presets, cuts its work into units, measures one, and reports on all:

    STUDY = frame.Study(name="capacity", presets=PRESETS, found=Curves,
                        units=lambda config: config.networks, measure=measure,
                        report=report)
    found = STUDY.run(PRESETS["quick"], workdir="runs/capacity")
    found.figures["traffic"].drawn  # Matplotlib's figure; `found` shows its tables

`run` checks every setting before anything starts, keeps each unit on disk when it is
done, and goes on where it was killed. The workdir then holds `config.json`,
`finished.jsonl`, `metrics.jsonl`, figures, `results.json` and `report.html`.
"""

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from absl import logging

from codesign import report as reports
from codesign.records import MetricsLog, StrPath, html, settings, write_atomic
from codesign.records import workdir as folders
from codesign.records.finished import Finished
from codesign.records.settings import setting
from codesign.report import (
    Card,
    Figure,
    Progress,
    Quantities,
    Quantity,
    Section,
    Table,
    comparison,
    terminal,
)

SEEDS = 2**32  # random keys are made of 32 bits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings that every study has; each subclass adds its own."""

    preset: str = setting("", "Name that the results carry.")
    seed: int = setting(0, "Root of every random key.", least=0, below=SEEDS)

    def checked(self):
        """Checks types, ranges and what `check` adds; returns `settings.checked`'s.

        Raises:
            ValueError: Names the setting, its value, the rule and the way out.
        """
        config = settings.checked(self)
        most = "max_seeds" if hasattr(config, "max_seeds") else "num_seeds"
        if config.seed + getattr(config, most, 1) > SEEDS:
            raise ValueError(
                f"`seed` must lie in 0..2**32 - `{most}`, got {config.seed}; runs "
                "take the seeds that follow it."
            )
        config.check()
        return config

    def check(self) -> None:
        """Checks what several settings together must keep to; for subclasses."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What a study says about what it found.

    Attributes:
        title: Heading of the page.
        summary: The answer in a paragraph.
        sections: Tables and figures of the page; empty ones are left out.
        quantities: Every number, published ones among them; becomes `Quantities`.
        cards: Headline numbers.
        shown: Tables for the terminal.
        compared: Title of the comparison with published numbers, and its footnotes.
        warnings: What went wrong.
        files: Texts to be written into the workdir, by name.
        extras: Further keys of results.json.
    """

    title: str
    summary: str
    sections: Sequence[Section] = ()
    quantities: Sequence[Quantity] = ()
    cards: Sequence[Card] = ()
    shown: Sequence[Table] = ()
    compared: Sequence[str] = ("Published numbers and ours",)
    warnings: Sequence[str | Table] = ()
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    extras: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "quantities", Quantities(self.quantities))

    @property
    def tables(self) -> list[Table]:
        """For terminal and notebook: `shown`, and the comparison if there is one."""
        title, *footnotes = self.compared
        compared = comparison.table(self.quantities, title, footnotes)
        return [*self.shown, *([compared] if compared.rows else [])]

    @property
    def figures(self) -> dict[str, Figure]:
        """All figures of the page, by name."""
        items = [item for section in self.sections for item in section.body]
        return {item.name: item for item in items if isinstance(item, Figure)}

    def _repr_html_(self) -> str:
        tables = [table.to_html() for table in self.tables]
        shown = ", ".join(self.figures)
        return html.notebook(
            html.title(self.title), self.summary, *tables,
            *([f"Figures: {shown}"] if shown else []),
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Job:
    """What `measure` may use while it works on one unit."""

    workdir: pathlib.Path
    metrics: MetricsLog
    progress: Progress
    first_step: int  # of the unit among those of the whole job
    when_kept: list[Callable[[], None]] = dataclasses.field(default_factory=list)
    """Called once the unit is recorded, as what its checkpoints are kept for."""

    def update(self, step: int, about: str, **facts: object) -> None:
        """Says how far this unit is; see `Progress.update`."""
        self.progress.update(self.first_step + step, about, **facts)


_Config = TypeVar("_Config", bound=Config)
_Found = TypeVar("_Found")


class Found(dict[Any, _Found]):
    """What a study found, by unit; in a notebook it shows what the study says of it.

    Attributes:
        report: Tables, quantities and all else that the page holds.
    """

    def __init__(self, found: Mapping[Any, _Found], report: Report):
        super().__init__(found)
        self.report = report

    @property
    def figures(self) -> dict[str, Figure]:
        """By name; each shows itself, and has Matplotlib's own figure as `drawn`."""
        return self.report.figures

    def _repr_html_(self) -> str:
        return self.report._repr_html_()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study(Generic[_Config, _Found]):
    """One question, answered the same way as every other.

    Attributes:
        name: Of the launcher and in results.json.
        presets: Settings by name; the first is the default.
        units: Pieces of work that `config` asks for, as JSON can hold them.
        measure: `measure(config, unit, job)`, or with `prepare`
            `measure(config, unit, job, prepared)`.
        report: `report(config, found)`, `found` by unit.
        found: Dataclass of what `measure` returns, so that it can be kept; None for one
            that keeps its own state in the workdir.
        prepare: `prepare(config, pending_units, workdir, **given)`: checks that need
            data, before anything is written; what it returns reaches `measure`.
        steps: Steps of progress of a unit.
        given: Names and help of what `run` passes on to `prepare` and a launcher takes
            as text, such as a folder of data.
        brought: Names of objects that `run` passes on likewise, and no launcher.
        shorthands: Flags that stand for several settings: help, and text to changes.
        formerly: Files of earlier versions, which are not gone on with.
    """

    name: str
    presets: Mapping[str, _Config]
    units: Callable[[_Config], Sequence[Any]]
    measure: Callable[..., _Found]
    report: Callable[[_Config, dict[Any, _Found]], Report]
    found: type[_Found] | None = None
    prepare: Callable[..., Any] | None = None
    steps: Callable[[_Config, Any], int] = lambda config, unit: 1
    given: Mapping[str, str] = dataclasses.field(default_factory=dict)
    brought: Sequence[str] = ()
    shorthands: Mapping[str, tuple[str, Callable[[str], dict[str, Any]]]] = (
        dataclasses.field(default_factory=dict)
    )
    formerly: Sequence[str] = ()

    def preset(self, name: str) -> _Config:
        """One of `presets`.

        Raises:
            ValueError: If there is none of that name.
        """
        if name not in self.presets:
            raise ValueError(
                f"`preset` (={name!r}) must be one of {list(self.presets)}."
            )
        return self.presets[name]

    def run(self, config: _Config, *, workdir: StrPath, **given: Any) -> Found[_Found]:
        """Measures what the workdir does not hold yet; writes results and a page.

        Args:
            config: One of `presets`, or settings like it.
            workdir: Folder, made if it is not there.
            **given: Passed on to `prepare`.

        Returns:
            What was found, by unit, with its report and figures.

        Raises:
            ValueError: Before any work: a setting out of range, or a workdir that is in
                use, of another study, made with other settings, or holds files of
                unknown origin.
            OSError: For data or a workdir that cannot be read or written.
        """
        config = config.checked()
        start = time.monotonic()
        if unknown := given.keys() - self.given.keys() - {*self.brought}:
            raise TypeError(f"{self.name} takes no {sorted(unknown)}.")
        folder = folders.checked(workdir)
        record = folder / "finished.jsonl"
        with contextlib.ExitStack() as held:

            @functools.cache
            def lock() -> None:
                folders.lock(folder, held)
                self._check_folder(config, folder)

            if folder.exists():
                lock()
            # A folder that is not there yet stays away until all checks have passed.
            units = list(self.units(config))
            kept = self._kept(config, record) if record.exists() else None
            pending = [unit for unit in units if kept is None or unit not in kept]
            prepared = self.prepare and self.prepare(config, pending, folder, **given)
            lock()
            kept = kept or self._kept(config, record)
            folders.write_settings(self.name, config, folder)
            found = self._measure(config, units, kept, folder, prepared)
            return Found(found, self._write(config, found, folder, start))

    def _check_folder(self, config: _Config, folder: pathlib.Path) -> None:
        record = folder / "finished.jsonl"
        folders.check(self.name, config, folder, record, self.formerly)
        if self.found and not record.exists() and (folder / "results.json").exists():
            logging.warning(
                "%s: results.json is there, but finished.jsonl is gone; everything is "
                "measured again.",
                folder,
            )

    def _kept(self, config: _Config, record: pathlib.Path) -> Finished[_Found] | None:
        kind: Any = self.found or dict
        identity = {"experiment": self.name, **settings.identity(config)}
        kept = Finished(record, identity, kind)
        return kept if self.found else None

    def _measure(self, config, units, kept, folder, prepared) -> dict[Any, _Found]:
        steps = {unit: self.steps(config, unit) for unit in units}
        done = sum(steps[unit] for unit in units if kept and unit in kept)
        found = {}
        with (
            MetricsLog(folder / "metrics.jsonl") as metrics,
            Progress(sum(steps.values()), self.name, initial_step=done) as progress,
        ):
            for unit in units:
                if kept is None or unit not in kept:
                    start = time.monotonic()
                    job = Job(folder, metrics, progress, done)
                    extra = () if self.prepare is None else (prepared,)
                    found[unit] = self.measure(config, unit, job, *extra)
                    done += steps[unit]
                    if kept is not None:
                        seconds = time.monotonic() - start
                        metrics.append({"unit": unit, "seconds": seconds})
                        kept.keep(unit, found[unit], seconds)
                        for call in job.when_kept:
                            call()
                if kept is not None:  # As a resumed run will read it.
                    found[unit] = kept[unit]
        return found

    def _write(self, config, found, folder: pathlib.Path, start: float) -> Report:
        made = self.report(config, found)
        for name, text in made.files.items():
            write_atomic(folder / name, text)
        sections = [section for section in made.sections if section.body]
        for name, figure in made.figures.items():
            write_atomic(folder / f"{name}.png", figure.png)
        results = reports.Results(
            experiment=self.name, preset=config.preset, seed=config.seed,
            environment=reports.environment(),
            wall_s=time.monotonic() - start,
            quantities=made.quantities, extras=made.extras,
            figures=[f"{name}.png" for name in made.figures],
        )  # fmt: skip
        page = reports.render_page(
            made.title, made.summary, cards=made.cards, sections=sections,
            results=results, config=config, warnings=made.warnings,
        )  # fmt: skip
        write_atomic(folder / "report.html", page)
        results.write(folder / "results.json")
        terminal.show(made.tables, made.summary, f"Report: {folder / 'report.html'}")
        return made
