"""Trains in number formats side by side: python -m experiments.number_formats

float32, bfloat16, block floating point of several widths and the MX formats, on real
images; accuracy over epochs, error by layer, operand statistics.
"""

from codesign.studies.camel import number_formats
from experiments import launch

if __name__ == "__main__":
    launch.run(number_formats.STUDY)
