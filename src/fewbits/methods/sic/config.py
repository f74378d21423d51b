"""What can be set."""

from dataclasses import dataclass

from fewbits.method import MethodConfig


@dataclass(frozen=True)
class SicConfig(MethodConfig):
    """Settings of calibrated quantisation; with all but `column_models` off it is weighted rounding.

    feedback: take a column's error off the columns after it. column_steps: give each column the step at which its
    errors count alike; else all have one, as in GPTQ. column_models: give columns and rows of different scale models of
    their own; else all have one. row_weights: let rows that the outputs feel more have finer steps. trellis: let two
    quantisers take turns. row_feedback: where it is known how errors of rows meet, and rows have weights, take what
    they add up to off the rows to come. blockwise: let weights that were quantised in blocks before be coded as such.
    """

    feedback: bool = True
    column_steps: bool = True
    column_models: bool = True
    row_weights: bool = True
    trellis: bool = True
    row_feedback: bool = True
    blockwise: bool = True
