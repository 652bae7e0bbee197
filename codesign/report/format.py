"""Numbers as people read them: SI prefixes, percentages, durations, placements."""

import math
import re
import unicodedata
from collections.abc import Iterable

NO_VALUE = "–"  # An en dash, where there is nothing to show.

_PREFIXES = {
    -18: "a", -15: "f", -12: "p", -9: "n", -6: "µ", -3: "m",
    0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E",
}  # fmt: skip
_SQUARE = {"m2": "m²", "m²": "m²"}  # Their prefixes are squared too: 1 mm² is 1e-6 m².
_SYMBOLS = {"bytes": "B", "bytes/s": "B/s", "bits": "bit", "ohm": "Ω", "MACs": "MAC"}
_NEVER_SMALL = {"B", "B/s", "bit", "bit/s", "MAC", "MAC/s", "FLOP", "FLOP/s", "FLOPS"}
_SCALED = {"s", "J", "W", "Hz", "m", "m²", "V", "A", "F", "Ω", "J/s", "W/m²"}
_SCALED |= _NEVER_SMALL


def si_scale(values: Iterable[float | None], unit: str) -> tuple[float, str]:
    """Finds one prefix for a whole axis or column.

    Args:
        values: Numbers in `unit`; None and non-finite ones are passed over.
        unit: SI unit, as in `Quantity.unit`; without one the factor is 1.

    Returns:
        `(factor, scaled_unit)`, such that `value * factor` is in `scaled_unit` and the
        largest magnitude lies in [1, 1000) where a prefix allows: 64e-6 s give
        `(1e6, "µs")`.
    """
    finite = [abs(v) for v in values if v is not None and math.isfinite(v)]
    exponent, step, symbol = _prefix(max(finite, default=0.0) if unit else 0.0, unit)
    return 10.0 ** (-exponent * step), _PREFIXES[exponent] + symbol


def format_si(value: float | None, unit: str, digits: int = 3) -> str:
    """Writes a quantity with an SI prefix: `format_si(6.4e-5, "s")` is "64 µs".

    Args:
        value: Number in `unit`, or None.
        unit: Unit without prefix: "s", "J", "m2", "B/s", ... Areas take squared
            prefixes; bytes, bits, MACs and "" none below one; seconds none above.
        digits: Significant digits; zeros at the end are dropped.

    Returns:
        The text; an en dash for None.
    """
    if value is None:
        return NO_VALUE
    if not math.isfinite(value):
        return f"{format_number(value)} {_SYMBOLS.get(unit, unit)}".rstrip()
    rounded = float(f"{value:.{digits - 1}e}")  # First, as 999.96 is 1 k, not 1000.
    exponent, step, symbol = _prefix(abs(rounded), unit)
    text = format_number(rounded * 10.0 ** (-exponent * step), digits)
    return f"{text} {_PREFIXES[exponent]}{symbol}".rstrip()


def format_percent(ratio: float | None, decimals: int = 1) -> str:
    """Writes a ratio as a percentage: 0.978 is "97.8%"; None is an en dash."""
    if ratio is None:
        return NO_VALUE
    if not math.isfinite(ratio):
        return format_number(ratio)
    return f"{ratio:.{decimals}%}".replace("-", "−")


def format_number(value: float | None, digits: int = 3) -> str:
    """Writes a number without a unit.

    Integers keep all their digits, grouped in threes: "11,689,512". Others are rounded
    to `digits` significant ones, and grouped too where they are large: "1.5", "12,300".
    """
    if value is None:
        return NO_VALUE
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if not -4 <= magnitude < 7:
        return f"{value:.{digits}g}".replace("-", "−")
    text = f"{float(f'{value:.{digits - 1}e}'):,.{max(digits - 1 - magnitude, 0)}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text.replace("-", "−")


def format_quantity(value: bool | int | float | None, unit: str) -> str:
    """Writes the value of a `Quantity`: "64 µs", "12 layers", "97.8%" or "yes".

    Units that take an SI prefix get one. The value of "%" is in percent already, that of
    "ratio" is made one, and an empty unit is left out.
    """
    if value is None:
        return NO_VALUE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if _SYMBOLS.get(unit, _SQUARE.get(unit, unit)) in _SCALED:
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
    """Joins the lines of `text`, without characters that could rewrite a terminal."""
    text = re.sub(r"\s+", " ", text).strip()
    return "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cf"))


def _prefix(magnitude: float, unit: str) -> tuple[int, int, str]:
    """Returns the power of ten of the prefix, the power of the unit, its symbol."""
    symbol = _SYMBOLS.get(unit, _SQUARE.get(unit, unit))
    step = 2 if unit in _SQUARE else 1
    if magnitude == 0:
        return 0, step, symbol
    # A logarithm may fall short of the -6 of 1e-6; areas read better as 0.64 mm² than
    # as 640,000 µm².
    decade = math.log10(magnitude) + (1e-12 if step == 1 else 1)
    exponent = 3 * math.floor(decade / (3 * step))
    low = 0 if not symbol or symbol in _NEVER_SMALL else -18
    high = 0 if symbol in ("s", "m", "m²") else 18
    exponent = min(exponent, high)
    return (exponent if exponent >= low else 0), step, symbol
