"""Adapts duplex networks to texts: python -m experiments.text_duplex --data_dir=DIR

A reversible branch beside a frozen BERT, after CAMEL's Table IV: DuDNN, FI, CA and BO at
equal learnable parameters. The backbone learns first which word of a sentence is missing.
"""

from codesign.studies.camel import text_duplex
from experiments import launch

if __name__ == "__main__":
    launch.run(text_duplex.STUDY)
