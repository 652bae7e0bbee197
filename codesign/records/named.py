"""Things by name, where a name that is not there is answered with the nearest ones."""

import difflib
from collections.abc import Iterable
from typing import TypeVar

_Thing = TypeVar("_Thing")


class Named(dict[str, _Thing]):
    """A dictionary whose KeyError says which names are near, and all that there are."""

    def __missing__(self, name: object) -> _Thing:
        raise KeyError(f"no {name!r}; {nearest(name, self)}")


def nearest(name: object, names: Iterable[str]) -> str:
    """What an error says to a name that is none of `names`, whatever its case.

    nearest("a10", ["A100", "H100"])  # "did you mean `A100`? There are `A100`, `H100`."
    """
    folded = {each.casefold(): each for each in names}
    close = difflib.get_close_matches(str(name).casefold(), folded, n=3)
    hint = ", ".join(f"`{folded[each]}`" for each in close)
    known = ", ".join(f"`{each}`" for each in folded.values())
    return f"did you mean {hint}? There are {known}." if hint else f"there are {known}."
