"""SI units: constants to write down, `1.6 * units.PJ`, and numbers as people read them."""

import math
from collections.abc import Iterable

KILO, MEGA, GIGA, TERA = 1e3, 1e6, 1e9, 1e12
KIB, MIB, GIB = 2**10, 2**20, 2**30  # bytes

NS, US, MS = 1e-9, 1e-6, 1e-3  # seconds
PJ, NJ, UJ = 1e-12, 1e-9, 1e-6  # joules
MW = 1e-3  # watts; a milliwatt
MHZ, GHZ = 1e6, 1e9  # hertz
GB_PER_S = 1e9  # bytes per second, decimal
UM2, MM2 = 1e-12, 1e-6  # square metres

NO_VALUE = "–"  # An en dash, where there is nothing to show.

_PREFIXES = {
    -18: "a", -15: "f", -12: "p", -9: "n", -6: "µ", -3: "m",
    0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E",
}  # fmt: skip
_SQUARE = {"m2": "m²", "m²": "m²"}  # Their prefixes are squared too: 1 mm² is 1e-6 m².
_SYMBOLS = {"bytes": "B", "bytes/s": "B/s", "bits": "bit", "ohm": "Ω", "MACs": "MAC"}
_NEVER_SMALL = {"B", "B/s", "bit", "bit/s", "MAC", "MAC/s", "FLOP", "FLOP/s", "FLOPS"}
_SCALED = {"s", "J", "W", "Hz", "m", "m²", "V", "A", "F", "Ω", "J/s", "W/m²", "J/B"}
_SCALED |= _NEVER_SMALL
_ENDINGS = {  # of names, longest first
    **{"_bytes_per_s": "B/s", "_m2_per_byte": "m²/B", "_j_per_byte": "J/B"},
    **{"_macs_per_s": "MAC/s", "_per_s": "1/s", "_bytes": "B", "_hz": "Hz"},
    **{"_m2": "m2", "_s": "s", "_j": "J", "_w": "W", "_c": "°C"},
}


def of_name(name: str) -> str:
    """SI unit that a name ends in, as `latency_s` in "s"; nothing of a plain number."""
    return next((u for end, u in _ENDINGS.items() if name.endswith(end)), "")


def takes_prefix(unit: str) -> bool:
    """Whether people put prefixes before it, as before "s" and not before "°C"."""
    return _SYMBOLS.get(unit, _SQUARE.get(unit, unit)) in _SCALED


def si(value: float | None, unit: str, digits: int = 3) -> str:
    """Writes a quantity with an SI prefix: `si(6.4e-5, "s")` is "64 µs".

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
        return f"{number(value)} {_SYMBOLS.get(unit, unit)}".rstrip()
    rounded = float(f"{value:.{digits - 1}e}")  # First, as 999.96 is 1 k, not 1000.
    exponent, step, symbol = _prefix(abs(rounded), unit)
    text = number(rounded * 10.0 ** (-exponent * step), digits)
    return f"{text} {_PREFIXES[exponent]}{symbol}".rstrip()


def quantity(value: float, unit: str) -> str:
    """Writes a quantity in any unit, with a prefix only where people put one."""
    if unit and not takes_prefix(unit):
        return f"{number(value)} {unit}"
    return si(value, unit)


def number(value: float | None, digits: int = 3) -> str:
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
