"""Sections and settings of Darknet .cfg files."""

import dataclasses
import re

MOST = 1 << 24  # of any number in a file
_MOST_SECTIONS = 10_000  # the longest public one has some 400

# Settings that a section may have and that change no count.
_SILENT = (
    *("stopbackward", "onlyforward", "dontload", "dontloadscales", "dontsave"),
    *("learning_rate", "learning_rate_scale", "burnin_update", "train_only_bn"),
    *("flipped", "name", "clip", "momentum", "decay", "smooth", "batch", "noloss"),
)


@dataclasses.dataclass(eq=False)
class Section:
    """One `[kind]` with its settings, each with the line that it stands on."""

    kind: str
    where: str
    settings: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    used: set[str] = dataclasses.field(default_factory=set)

    def text(self, key: str, default: str) -> str:
        """A setting as it is written."""
        self.used.add(key)
        return self.settings.get(key, (default, ""))[0]

    def number(self, key: str, default: int, least: int = 0) -> int:
        """A setting that is one whole number, or the first of several."""
        return self.numbers(key, (default,), least)[0]

    def numbers(
        self, key: str, default: tuple[int, ...], least: int
    ) -> tuple[int, ...]:
        """A setting that lists whole numbers from `least` to `MOST`, else ValueError."""
        self.used.add(key)
        if key not in self.settings:
            return default
        text, where = self.settings[key]
        parts = [part.strip() for part in text.strip(",").split(",")]
        is_read = all(re.fullmatch("[+-]?[0-9]{1,20}", part) for part in parts)
        values = tuple(map(int, parts)) if is_read else ()
        if not values or not all(least <= value <= MOST for value in values):
            raise ValueError(
                f"{where}: `{key}` (={text!r}) must be a whole number from {least} to "
                f"{MOST}."
            )
        return values

    def check_all_used(self) -> None:
        """Raises ValueError for a setting that nobody asked for."""
        for key, (_, where) in self.settings.items():
            if key not in self.used and key not in _SILENT:
                raise ValueError(
                    f"{where}: `{key}` of [{self.kind}] is not known; remove it if it "
                    "changes no shape."
                )

    def error(self, why: str) -> ValueError:
        """The error that this section is wrong in some way."""
        return ValueError(f"{self.where}: [{self.kind}] {why}")


def sections(text: str, name: str) -> list[Section]:
    """The sections of a file's text, [net] first; ValueError names the file and line."""
    found: list[Section] = []
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"{name}, line {number}"
        line = "".join(line.partition("#")[0].partition(";")[0].split())
        if not line:
            continue
        if line.startswith("["):
            if not line.endswith("]"):
                raise ValueError(f"{where}: {line!r} must end in ].")
            if len(found) == _MOST_SECTIONS:
                raise ValueError(f"{where}: there are over {_MOST_SECTIONS} sections.")
            found.append(Section(line[1:-1].lower(), where))
            continue
        key, equals, value = line.partition("=")
        if not equals or not key or not found:
            raise ValueError(
                f"{where}: {line!r} must be `key=value`, after a [section]."
            )
        settings = found[-1].settings
        first = settings.setdefault(key, (value, where))[0]
        if first != value and found[-1].kind not in ("net", "network"):
            raise ValueError(f"{where}: `{key}` is set twice, and differently.")
    if not found or found[0].kind not in ("net", "network"):
        raise ValueError(f"{name}: the first section must be [net].")
    return found
