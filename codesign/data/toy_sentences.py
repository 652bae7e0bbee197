"""A few dozen sentences that praise or complain, to try things out; written for this."""

import numpy as np

from codesign.data.glue import Rows, Task

TASK = Task("toy_sentences", ("sentence",), "label", ("negative", "positive"))

_NEGATIVE = """\
The soup was cold and the waiter was rude.
A dull film with a weak plot.
The room was dirty and the bed was hard.
I was bored by this slow and dull book.
The train was late and the seats were dirty.
What a sad waste of a good evening.
The music was loud and the food was bad.
My new phone is slow and the screen is weak.
We left early, for the play was bad.
The bread was old and the coffee was weak.
A bad story with a rude hero.
The hotel was loud, cold and dirty.
I would never read this dull book again.
The actors were weak and the jokes were old.
Her speech was slow and I was bored.
The shop was dirty and the staff were rude.
This is a sad and slow film.
The lamp is weak and the chair is hard.
He sold us bad bread and cold tea.
Never again will I take this late train.
The garden was sad, with old and dirty paths.
The game was slow and the rules were bad.
A waste of paper, dull from page to page.
The beach was dirty and the water was cold.
They were rude to us and the bill was bad.
The concert was loud and dull.
My coat is weak and it was a waste.
The cake was hard and the cream was old.
"""
_POSITIVE = """\
The soup was warm and the waiter was kind.
A bright film with a strong plot.
The room was clean and the bed was soft.
I was moved by this quick and bright book.
The train was early and the seats were clean.
What a happy end of a good evening.
The music was lovely and the food was fresh.
My new phone is quick and the screen is bright.
We stayed late, for the play was lovely.
The bread was fresh and the coffee was strong.
A lovely story with a kind hero.
The hotel was quiet, warm and clean.
I would gladly read this bright book again.
The actors were strong and the jokes were fresh.
Her speech was quick and I was moved.
The shop was clean and the staff were kind.
This is a happy and bright film.
The lamp is bright and the chair is soft.
He sold us fresh bread and warm tea.
Gladly will I take this early train again.
The garden was lovely, with clean and quiet paths.
The game was quick and the rules were kind.
A joy to read, bright from page to page.
The beach was clean and the water was warm.
They were kind to us and the bill was a joy.
The concert was lovely and bright.
My coat is strong and it was a joy.
The cake was soft and the cream was fresh.
"""


def read_rows() -> Rows:
    """All of them, negative ones first; there is no test part."""
    negative, positive = _NEGATIVE.splitlines(), _POSITIVE.splitlines()
    labels = [0] * len(negative) + [1] * len(positive)
    return Rows(([*negative, *positive],), np.array(labels, np.int32))
