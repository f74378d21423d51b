"""The contract that every simulator fulfils, and the search that most of them share."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewbits.channel.arrivals import Arrivals
from fewbits.channel.problem import Proposal, Ratios, Target, Values, drawn, num_words_of
from fewbits.errors import Corrupt, InvalidArgument
from fewbits.random import CANDIDATES, PRIVATE, log, uniforms, words

MOST_CANDIDATES = 1 << 31  # a number fits 31 bits
_FIRST_CHUNK, _MOST_WORDS = 64, 1 << 21  # candidates looked at together; words, of all targets


class Message(NamedTuple):
    """What is sent of a batch of samples, and what finding it took.

    indices: (size,) int64 from 0, the number of the candidate; of a tree, of the node.
    offsets: (size, dim) int64, which cell the candidate is in, for hybrid coding; (size, 0) else.
    num_candidates: (size,) int64, how many were looked at. Not sent.
    capped: (size,) bool, whether the search ended at the cap, so that the sample is not exactly one of the target; with
        a fixed number of candidates only where none of them lies in the target's support. Not sent.
    """

    indices: NDArray[np.int64]
    offsets: NDArray[np.int64]
    num_candidates: NDArray[np.int64]
    capped: NDArray[np.bool_]

    @classmethod
    def of(cls, indices: NDArray[np.int64], offsets: NDArray[np.int64] | None = None) -> "Message":
        """Return a message as a decoder has it: indices (size,) and offsets (size, dim), if there are any."""
        size = len(indices)
        none = np.zeros((size, 0), np.int64)
        return cls(indices, none if offsets is None else offsets, np.zeros(size, np.int64), np.zeros(size, np.bool_))


class ChannelSimulator(ABC):
    """Sends samples of targets that only the encoder knows, by numbers of candidates of a proposal that both know.

    Laws: `decode` gives the same bits on every machine, and makes the chosen candidates alone. A message depends on
    targets, proposal, seed and stream numbers.
    """

    @abstractmethod
    def encode(self, target: Target, proposal: Proposal, *, seed: int, numbers: ArrayLike | None = None) -> Message:
        """Pick a candidate for each target.

        Args:
            target: arrays of (size, dim), or (size, states).
            proposal: arrays of (dim,), or (states,).
            seed: of the candidates, 0 … 2^64 - 1. The encoder's own noise comes of another purpose of the same seed.
            numbers: (size,) the stream of each sample, from 0 to 2^32 - 1; by default 0, 1, 2, …

        Raises:
            InvalidArgument: a target's support is not inside the proposal's, or the simulator is not for such targets.
        """

    def decode(self, message: Message, proposal: Proposal, *, seed: int, numbers: ArrayLike | None = None) -> Values:
        """Return the samples that numbers stand for, (size, dim) float64, of states (size,) int64.

        Only `indices` and `offsets` of the message are read.

        Raises:
            Corrupt: an index is beyond the cap, or an offset beyond its cells.
        """
        self.check_indices(message.indices)
        streams = stream_numbers(numbers, len(message.indices))
        return drawn(proposal, words(seed, CANDIDATES, streams, message.indices, num_words_of(proposal)))

    @property
    @abstractmethod
    def cap(self) -> int:
        """Number of candidates after which the search ends."""

    def check_indices(self, indices: NDArray[np.int64]) -> None:
        """Check that candidates have numbers below the cap.

        Raises:
            Corrupt: one has not.
            InvalidArgument: they are not one for each sample.
        """
        if indices.ndim != 1:
            raise InvalidArgument(f"samples have an index each, not {indices.shape}.")
        if indices.size and (int(indices.min()) < 0 or int(indices.max()) >= self.cap):
            raise Corrupt(f"a candidate's number is beyond the cap of {self.cap}.")


def checked_cap(cap: int) -> int:
    """Return a cap.

    Raises:
        InvalidArgument: it is not from 1 to 2^31.
    """
    if isinstance(cap, bool) or not isinstance(cap, int) or not 1 <= cap <= MOST_CANDIDATES:  # pyright: ignore
        raise InvalidArgument(f"a simulator's cap must be a whole number from 1 to 2^31, not {cap!r}.")
    return cap


def stream_numbers(numbers: ArrayLike | None, size: int) -> NDArray[np.int64]:
    """Return the streams of a batch, (size,).

    Raises:
        InvalidArgument: there are more or fewer than samples, or one is not an integer from 0 to 2^32 - 1.
    """
    given = np.arange(size) if numbers is None else np.asarray(numbers)
    if given.shape != (size,):
        raise InvalidArgument(f"{size} samples need as many streams, not {given.shape}.")
    if given.size and (given.dtype.kind not in "iu" or int(given.min()) < 0 or int(given.max()) >= 1 << 32):
        raise InvalidArgument("streams have integer numbers from 0 to 2^32 - 1.")
    return given.astype(np.int64)


def search(
    problem: Ratios,
    arrivals: Arrivals,
    cap: int,
    seed: int,
    numbers: NDArray[np.int64],
    *,
    shared: bool = False,
    fixed: bool = False,
) -> Message:
    """Pick the candidate whose arrival time divided by its ratio is least.

    It ends where no later one can have less: at the first n with least score <= T_n / greatest ratio; or at the cap.

    Args:
        shared: whether all targets have the candidates of stream 0.
        fixed: whether there are as many candidates as the cap says, so that having looked at them all is no accident.
    """
    size = problem.size
    best, index, time = np.full(size, np.inf), np.zeros(size, np.int64), np.zeros(size)
    looked_at, open_rows = np.zeros(size, np.int64), np.arange(size)
    start = 0
    while len(open_rows) and start < cap:
        count = min(cap - start, max(_FIRST_CHUNK, start), max(16, _MOST_WORDS // (problem.num_words * len(open_rows))))
        items = np.arange(start, start + count)[None, :]
        streams = numbers[open_rows][:, None]
        sources = np.zeros_like(streams) if shared else streams
        ratios = problem.log_ratios(open_rows, words(seed, CANDIDATES, sources, items, problem.num_words))
        exponentials = -log(uniforms(words(seed, PRIVATE, streams, items, 1)[..., 0]))
        times = arrivals(exponentials, time[open_rows], start)
        log_times = log(times)
        scores = log_times - ratios
        least = np.minimum(np.minimum.accumulate(scores, 1), best[open_rows][:, None])
        over = least <= log_times - problem.greatest[open_rows][:, None]
        ended = over.any(1)
        last = np.where(ended, over.argmax(1), count - 1)
        rows = np.arange(len(open_rows))
        found = np.where(np.arange(count)[None, :] <= last[:, None], scores, np.inf).argmin(1)
        better = scores[rows, found] < best[open_rows]
        index[open_rows] = np.where(better, start + found, index[open_rows])
        best[open_rows] = np.minimum(best[open_rows], scores[rows, found])
        looked_at[open_rows] = start + last + 1
        time[open_rows] = times[:, -1]
        start += count
        open_rows = open_rows[~ended]
    capped = np.zeros(size, np.bool_)
    capped[open_rows] = not fixed
    capped |= np.isinf(best)  # no candidate lies in the target's support: the first one is sent
    return Message(index, np.zeros((size, 0), np.int64), looked_at, capped)
