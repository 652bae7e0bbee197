"""Settings of duplex training on texts, and their presets."""

import dataclasses
from typing import Any

from codesign import data
from codesign.data import glue
from codesign.models.pairs import PAIRS
from codesign.models.registry import reads_images
from codesign.records.settings import setting
from codesign.studies.camel.duplex_settings import PairConfig
from codesign.studies.camel.variants import parse
from codesign.training import TrainConfig

_PAIRS = tuple(n for n, pair in PAIRS.items() if not reads_images(pair.backbone))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextDuplexConfig(PairConfig):
    """Settings of one comparison on texts."""

    pairs: tuple[str, ...] = setting(
        ("branch6-bert12",), "Branch and backbone.", one_of=_PAIRS, distinct=True
    )
    dataset: str = setting(
        *("sst2", "Task that branches learn."), one_of=data.TEXT_DATASETS, flag="data"
    )
    length: int = setting(32, "Tokens of a text; longer ones are cut.", least=5)
    vocabulary_size: int = setting(4096, "Most pieces of words.", least=6)
    copies: int = setting(
        1, "Examples made of a sentence for backbones, a word missing in each.", least=1
    )
    pretrain_text: str | None = setting(
        None, "File of one sentence a line for backbones; none for the task's own."
    )
    dropout_rate: float = setting(
        0.1, "Fraction of a backbone's values that training zeroes.", least=0, below=1
    )
    num_validation: int | None = setting(
        None, "Texts that validate; none for all.", least=1
    )

    def check(self) -> None:
        super().check()
        for name in self.variants:
            if parse(name).side_factor != 1:
                raise ValueError(
                    f"`variants`: {name!r} asks for maps of twice the side, which texts do "
                    "not have; leave `double` out."
                )

    def backbone_settings(self) -> dict[str, Any]:
        return {"dropout_rate": self.dropout_rate}

    def learnt(self, *, first: bool = False) -> str:
        text = super().learnt()
        if first:
            number = f"{self.num_pretrain:,}" if self.num_pretrain else "all"
            whose = self.pretrain_text or f"the training part of {self.dataset}"
            text = (
                f"which word is missing in {number} sentences of {whose}, unlabelled,"
            )
        elif self.dataset in glue.TASKS and glue.TASKS[self.dataset].is_regression:
            text += ", whose accuracies are correlations"
        return text


# Word prediction is far from certain, and for long no better than the commonest word.
_PRETRAIN = TrainConfig(optimizer="adam", learning_rate=1e-3, stop_at_chance=None)
_TRAIN = TrainConfig(epochs=8, optimizer="adam", learning_rate=1e-3)  # section VI-B
PRESETS = {
    "quick": TextDuplexConfig(
        preset="quick",
        length=24,
        width=1 / 16,
        dropout_rate=0.0,
        num_train=2_048,
        num_pretrain=16_384,
        num_validation=512,
        train=dataclasses.replace(_TRAIN, epochs=3, batch_size=32, learning_rate=2e-3),
        pretrain=dataclasses.replace(_PRETRAIN, epochs=1, batch_size=32),
        checkpoint_every_s=60.0,  # hundreds of small files each
    ),
    "smoke": TextDuplexConfig(
        preset="smoke",
        number_format="float32",  # compiled in a third of the time
        dataset="toy_sentences",
        length=16,
        vocabulary_size=256,
        width=1 / 32,
        copies=4,
        dropout_rate=0.0,
        train=dataclasses.replace(_TRAIN, epochs=2, batch_size=8, stop_at_chance=None),
        pretrain=dataclasses.replace(_PRETRAIN, epochs=2, batch_size=16),
        num_seeds=1,
        checkpoint_every_s=1.0,
    ),
    "paper": TextDuplexConfig(
        preset="paper",
        width=1.0,
        length=128,
        vocabulary_size=30_522,
        copies=4,
        train=dataclasses.replace(_TRAIN, learning_rate=1e-4),
        pretrain=dataclasses.replace(_PRETRAIN, epochs=10, learning_rate=1e-4),
    ),
}
