"""What users tell a study, checked before it is written down."""

import json
import math
import operator
from collections.abc import Mapping
from typing import Any, SupportsIndex

import jax
import numpy as np


def checked_int(name: str, value: int, least: int) -> int:
    """`value` as an int.

    Raises:
        ValueError: If it is not an integer, or below `least`.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, SupportsIndex):
        raise ValueError(f"`{name}` must be an integer, got {value!r}.")
    number = operator.index(value)
    if number < least:
        raise ValueError(f"`{name}` must be at least {least}, got {number}.")
    return number


def checked_value(value: float) -> float:
    """`value` as a float.

    Raises:
        ValueError: If it is not one finite number.
    """
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`value` must be one number, got {value!r}.") from error
    if not math.isfinite(number):
        raise ValueError(
            f"`value` must be finite, got {number}; report a failed evaluation with "
            "`fail`."
        )
    return number


def checked_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """`metrics` as JSON will give them back.

    Raises:
        ValueError: If JSON cannot hold them.
    """
    try:
        return json.loads(json.dumps(_plain(metrics), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`metrics` must be what JSON can hold ({error}), got {metrics!r}; use str "
            "keys, finite numbers, None, lists and dicts."
        ) from error


def _plain(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        for key in tree:
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is not a str")
        return {key: _plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(value) for value in tree]
    if isinstance(tree, np.ndarray | np.generic | jax.Array):
        return np.asarray(tree).tolist()
    return tree
