"""What users tell a study, checked before it is written down."""

import json
import math
import operator
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

_MOST_LEVELS = 100  # of metrics, far below what a reader of JSON takes
_MOST_SHOWN = 100  # characters of a value in a message


def checked_int(name: str, value: int, least: int) -> int:
    """`value` as an int.

    Raises:
        ValueError: If it is not an integer, or below `least`.
    """
    try:
        number = operator.index(value)
    except TypeError:  # of an array, too
        number = None
    if number is None or isinstance(value, bool | np.bool_):
        raise ValueError(f"`{name}` must be an integer, got {shown(value)}.")
    if number < least:
        raise ValueError(f"`{name}` must be at least {least}, got {shown(number)}.")
    return number


def checked_float(name: str, value: float) -> float:
    """`value` as a float, which may be NaN or infinite.

    Raises:
        ValueError: If it is not one number, or too large an integer.
    """
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(
            f"`{name}` must be at most 1.8e308 in size, got {shown(value)}; use another "
            "unit."
        ) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"`{name}` must be one number, got {shown(value)}.") from error


def checked_value(value: float) -> float:
    """`value` as a float.

    Raises:
        ValueError: If it is not one finite number.
    """
    number = checked_float("value", value)
    if not math.isfinite(number):
        raise ValueError(
            f"`value` must be finite, got {number}; report a failed evaluation with "
            "`fail`."
        )
    return number


def checked_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """`metrics` as JSON will give them back.

    Raises:
        ValueError: If JSON cannot hold them, or they nest more than 100 deep.
    """
    try:
        plain = _plain(metrics, _MOST_LEVELS)
        return json.loads(json.dumps(plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`metrics` must be what JSON can hold ({error}), got {shown(metrics)}; use "
            "str keys, finite numbers, None, lists and dicts."
        ) from error


def shown(value: object) -> str:
    """`value` for a message: its beginning where it is long, deep or a huge number."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "..."


def _plain(tree: Any, num_levels: int) -> Any:
    if num_levels < 0:
        raise ValueError(f"they nest more than {_MOST_LEVELS} deep")
    if isinstance(tree, Mapping):
        for key in tree:
            if not isinstance(key, str):
                raise TypeError(f"the key {shown(key)} is not a str")
        return {key: _plain(value, num_levels - 1) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(value, num_levels - 1) for value in tree]
    if isinstance(tree, np.ndarray | np.generic | jax.Array):
        return np.asarray(tree).tolist()
    return tree
