"""Runs a study from the command line: flags are made from its settings.

    python -m experiments.NAME --preset=quick --workdir=runs/quick --seed=1

Every setting is a flag of the same name; `--help` lists them with the preset's values.
"""

import contextlib
import dataclasses
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
import rich.console
import rich.table
from absl import app, flags, logging

from codesign.records import settings
from codesign.records.settings import Rule, fields
from codesign.studies.frame import Study

_HELP = {"--help", "-help", "-h", "--helpshort", "-helpshort"}
_OWN = ("workdir", "preset")
_STOPPED = (
    "\nStopped. What was finished is kept in the workdir; the same command goes on from "
    "there.\n"
)


class _Parser(flags.ArgumentParser):
    """Reads a setting of any type from text."""

    def __init__(self, kind: Any):
        self.kind, self.syntactic_help = kind, ""

    def parse(self, argument: Any) -> Any:
        return (
            settings.read(self.kind, argument)
            if isinstance(argument, str)
            else argument
        )


def run(study: Study) -> None:
    """Runs `study` with the settings on the command line; does not return."""
    _stop_on_ctrl_c()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a letter
    flags.DEFINE_string("workdir", f"runs/{study.name}", "Where everything is written.")
    flags.DEFINE_string(
        "preset", next(iter(study.presets)), f"One of {', '.join(study.presets)}."
    )
    for name, kind, rule, _ in _settings(next(iter(study.presets.values()))):
        if kind is bool:
            flags.DEFINE_boolean(name, None, rule.help)
        else:
            flags.DEFINE(_Parser(kind), name, None, rule.help)
        if rule.flag:
            flags.DEFINE_alias(rule.flag, name)
    texts = {**study.given, **{n: text for n, (text, _) in study.shorthands.items()}}
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text)
    if any(each.startswith(("--jax_", "--flagfile")) for each in sys.argv):
        jax.config.config_with_absl()
    app.run(lambda argv: _main(study, texts, argv), flags_parser=_parsed)


def _parsed(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS([each for each in argv if each not in _HELP])
    except flags.Error as error:
        raise SystemExit(f"error: {error}\nSee --help.") from None


def _settings(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Rule, Any]]:
    """Name, type, rule and value of what text can hold; nested dataclasses' as well.

    The `flag` of a nested dataclass stands in front of the names of its fields.
    """
    for name, kind, rule in fields(config):
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            yield from _settings(value, _prefix(prefix, rule))
        elif name != "preset" and rule.flag is not None and settings.is_text(kind):
            flag = rule.flag and prefix + rule.flag
            yield prefix + name, kind, dataclasses.replace(rule, flag=flag), value


def _prefix(prefix: str, rule: Rule) -> str:
    return f"{prefix}{rule.flag}_" if rule.flag else prefix


def _configured(study: Study) -> Any:
    """The preset, with the flags that were given in place of its fields."""
    config = study.preset(str(flags.FLAGS.preset))
    names = [*study.shorthands, *(name for name, *_ in _settings(config))]
    given = {n: flags.FLAGS[n].value for n in names if flags.FLAGS[n].present}
    for name, (_, read) in study.shorthands.items():
        if name in given:
            given = read(str(given.pop(name))) | given
    return _changed(config, given)


def _changed(config: Any, given: dict[str, Any], prefix: str = "") -> Any:
    changes = {}
    for name, _, rule in fields(config):
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            changes[name] = _changed(value, given, _prefix(prefix, rule))
        elif prefix + name in given:
            changes[name] = given[prefix + name]
    return dataclasses.replace(config, **changes)


def _main(study: Study, texts: dict[str, str], argv: list[str]) -> None:
    given = {name: flags.FLAGS[name].value for name in study.given}
    workdir = str(flags.FLAGS.workdir)
    try:
        if len(argv) > 1:
            raise ValueError(f"Unexpected arguments: {argv[1:]}; flags begin with --.")
        if "" in given.values():
            raise ValueError(f"One of {list(given)} is empty; name a folder.")
        config = _configured(study)
        if not _HELP.isdisjoint(sys.argv):
            return _print_help(study, config, texts)
        config = config.checked()
        about = (study.name, config.preset, config.seed, workdir, jax.devices()[0])
        logging.info("%s, preset %s, seed %d, in %s on %s", *about)
        study.run(config, workdir=workdir, **given)
    except BrokenPipeError:  # nobody reads the tables, but all is written
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        _stop()


def _stop_on_ctrl_c() -> None:
    """Lets Ctrl-C interrupt Python, and a second one end the process at once.

    The second is waited for in a thread: Python runs handlers between its instructions,
    and so not while XLA compiles, and what an interrupt raises can be lost, as in a
    callback or in `__del__`. What is on disk is whole at any moment.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGINT, lambda *_: None)  # the next is the thread's
        raise KeyboardInterrupt

    def heard() -> None:
        while os.read(reader, 1)[0] != signal.SIGINT:
            pass

    def wait() -> None:
        heard()
        _say("\nStopping; Ctrl-C again stops at once.\n")
        heard()
        _stop()

    signal.signal(signal.SIGINT, interrupt)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=wait, daemon=True).start()


def _stop() -> None:
    """Ends the process without what others do at its end, which a Ctrl-C would break."""
    _say("\x1b[?25h" * os.isatty(2) + _STOPPED)  # the cursor may be hidden
    os._exit(130)


def _say(text: str) -> None:
    """Writes to the terminal, past streams that another thread may be writing to."""
    with contextlib.suppress(OSError):  # nobody reads
        os.write(2, text.encode())


def _print_help(study: Study, config: Any, texts: dict[str, str]) -> None:
    """Our flags with their values, and nobody else's."""
    rows = [(name, flags.FLAGS[name].value, flags.FLAGS[name].help) for name in _OWN]
    for name, _, rule, value in _settings(config):
        text = rule.help + (f" Also --{rule.flag}." if rule.flag else "")
        if rule.one_of and not any(each in text for each in rule.one_of):
            text += f" One of {', '.join(rule.one_of)}."
        rows.append((name, value, text))
    rows += [(name, None, text) for name, text in texts.items()]
    made = rich.table.Table.grid(padding=(0, 2, 0, 0))
    for name, value, text in rows:
        value = ", ".join(map(str, value)) if isinstance(value, tuple) else value
        made.add_row(f"--{name}", "" if value is None else str(value), text)
    console = rich.console.Console(highlight=False)
    for paragraph in (sys.modules["__main__"].__doc__ or "").split("\n\n"):
        console.print(" ".join(paragraph.split()), end="\n\n", markup=False)
    console.print(f"Settings of preset {flags.FLAGS.preset}:", markup=False)
    console.print(made)
