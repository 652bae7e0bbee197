"""How well does a duplex network adapt to a task of texts? As `duplex_training` asks.

There are no published weights here, so that a backbone learns first which word is missing
in a sentence: in sentences of the task's own training part, without their labels, or in
those of a file.
"""

import functools

from codesign import data
from codesign.data.cloze import cloze
from codesign.data.sentences import load_sentences
from codesign.records import StrPath
from codesign.studies import frame
from codesign.studies.camel import duplex_training
from codesign.studies.camel.duplex_result import DuplexRun
from codesign.studies.camel.text_duplex_settings import PRESETS, TextDuplexConfig

__all__ = ["PRESETS", "STUDY", "TextDuplexConfig", "run"]


def load(
    config: TextDuplexConfig, data_dir: str | None
) -> tuple[data.TextDataset, data.TextDataset]:
    """Sentences with a word missing for backbones, and labelled texts for branches."""
    load_task = functools.partial(
        data.load_text,
        config.dataset,
        data_dir=data_dir,
        length=config.length,
        num_validation=config.num_validation,
    )
    if config.pretrain_text is None:
        sentences = load_task(
            vocabulary=config.vocabulary_size, num_train=config.num_pretrain
        )
    else:
        sentences = load_sentences(
            config.pretrain_text,
            length=config.length,
            vocabulary_size=config.vocabulary_size,
            num_train=config.num_pretrain,
        )
    labelled = load_task(vocabulary=sentences.vocabulary, num_train=config.num_train)
    return cloze(sentences, copies=config.copies), labelled


STUDY = frame.Study(
    name="text_duplex",
    presets=PRESETS,
    units=duplex_training.units,
    prepare=functools.partial(duplex_training.prepare, load=load),
    measure=duplex_training.measure,
    steps=duplex_training.steps,
    report=duplex_training.report,
    found=DuplexRun,
    given={"data_dir": "Where data sets lie; else $CODESIGN_DATA."},
)


def run(
    config: TextDuplexConfig, *, workdir: StrPath, data_dir: str | None = None
) -> frame.Found[DuplexRun]:
    """Trains what `workdir` does not hold yet; see `frame.Study.run`."""
    return STUDY.run(config, workdir=workdir, data_dir=data_dir)
