"""Numbers as people read them: SI prefixes, percentages, durations, placements."""

import math
import re
import unicodedata
from collections.abc import Iterable

from codesign.units import NO_VALUE, takes_prefix
from codesign.units import number as format_number
from codesign.units import si as format_si
from codesign.units import si_scale as si_scale


def format_percent(ratio: float | None, decimals: int = 1) -> str:
    """Writes a ratio as a percentage: 0.978 is "97.8%"; None is an en dash."""
    if ratio is None:
        return NO_VALUE
    if not math.isfinite(ratio):
        return format_number(ratio)
    return f"{ratio:.{decimals}%}".replace("-", "−")


def format_quantity(value: bool | int | float | None, unit: str) -> str:
    """Writes the value of a `Quantity`: "64 µs", "12 layers", "97.8%" or "yes".

    Units that take an SI prefix get one. The value of "%" is in percent already, that of
    "ratio" is made one, and an empty unit is left out.
    """
    if value is None:
        return NO_VALUE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if takes_prefix(unit):
        return format_si(value, unit)
    if unit == "ratio":
        return format_percent(value)
    if unit in ("", "1"):
        return format_number(value)
    return f"{format_number(value)}{'' if unit in ('%', '×') else ' '}{unit}"


def format_duration(duration_s: float | None) -> str:
    """Writes a duration in at most two units: "48 s", "3 min 20 s", "2 d 4 h"."""
    if duration_s is None or not math.isfinite(duration_s):
        return NO_VALUE
    if duration_s < 1:
        return format_si(duration_s, "s", 2)
    total = round(duration_s)
    for large, large_unit, small, small_unit in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if total >= large:
            rest = total % large // small
            return f"{total // large} {large_unit}" + (
                f" {rest} {small_unit}" if rest else ""
            )
    return f"{total} s"


def format_mask(mask: Iterable[float]) -> str:
    """Draws a 0/1 placement as one circle per site: [1, 0, 0, 1] is "●○○●".

    An entry strictly between 0 and 1, as in a relaxed mask, is drawn as "◐".
    """
    return "".join("●" if m >= 1 else "○" if m <= 0 else "◐" for m in mask)


def one_line(text: str) -> str:
    """Joins the lines of `text`, without characters that could rewrite a terminal.

    What no encoding can hold, as of a file's name that is not UTF-8, is escaped.
    """
    text = re.sub(r"\s+", " ", text).strip()
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cf"))
    return text.encode(errors="backslashreplace").decode()
