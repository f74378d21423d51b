"""A training step with EPR's latents against the plain step of the same network, in turns, on one thread."""

from collections.abc import Callable, Iterator
from typing import Any

from . import Options
from .inputs import load_fewbits, need
from .recipe_runs import module_of
from .row import Figure, Row
from .timing import Action, interleaved

takes_rivals = False

REPEATS, REPEATS_SLOW = 40, 10
BATCH = 128


def rows(options: Options) -> Iterator[Row]:
    """Time Adam's steps on random images: both LeNets, a LeNet5 as narrow as its recipe starts, ResNet-20."""
    need("torch")
    import torch

    fewbits = load_fewbits("attach", "Epr", "EprConfig")
    models = module_of("models")
    digits, colours = (BATCH, 1, 28, 28), (BATCH, 3, 32, 32)
    networks: dict[str, tuple[Callable[[], Any], tuple[int, ...], float | None, int]] = {
        "LeNet-300-100": (models.LeNet300, digits, 2.5, REPEATS),
        "LeNet5-Caffe": (models.LeNet5, digits, 2.5, REPEATS_SLOW),
        "LeNet5 8-16-40": (lambda: models.LeNet5((8, 16, 40)), digits, None, REPEATS),
        "ResNet-20": (models.ResNet20, colours, 1.5, REPEATS_SLOW),
    }
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, (make, shape, most, repeats) in networks.items():
            yield _row(fewbits, name, make, shape, most, repeats, options.seed)
    finally:
        torch.set_num_threads(num_threads)


def _row(
    fewbits: Any,
    name: str,
    make: Callable[[], Any],
    shape: tuple[int, ...],
    most: float | None,
    repeats: int,
    seed: int,
) -> Row:
    import torch

    torch.manual_seed(seed)
    images, labels = torch.rand(shape), torch.randint(10, shape[:1])

    def plain() -> Callable[[Any], Any]:
        network = make()
        optimizer = torch.optim.Adam(network.parameters(), fused=True)
        return _step(network, optimizer, images, labels, None)

    def with_rate(rate: str) -> Callable[[Any], Any]:
        network = make()
        config = fewbits.EprConfig(rate=rate, first_steps={"*.weight": 0.15})
        latents = fewbits.attach(network, fewbits.Epr(config), rate_weight=1.0)
        optimizer = torch.optim.Adam(latents.parameter_groups(), fused=True)
        return _step(network, optimizer, images, labels, latents)

    actions = {"plain": Action(plain()), "epr": Action(with_rate("adaptive"))}
    if most is None or "300" in name:
        actions["deep"] = Action(with_rate("deep_factorized"))
    times = interleaved(actions, repeats)
    measured: dict[str, Any] = {
        "times_plain": times["plain"].over(times["epr"], "wall"),
        "times_plain_pairwise": times["plain"].over_pairwise(times["epr"], "wall"),
        "seconds": times["epr"].seconds("wall"),
        "plain_seconds": times["plain"].seconds("wall"),
    }
    if "deep" in times:
        measured["deep_factorized_times_plain"] = times["plain"].over(times["deep"], "wall")
    asked = () if most is None else (Figure("times_plain", "<=", most),)
    return Row(f"fewbits step {name}", measured, asked, {"batch": BATCH, "threads": 1, "repeats": repeats})


def _step(network: Any, optimizer: Any, images: Any, labels: Any, latents: Any) -> Callable[[Any], Any]:
    from torch.nn.functional import cross_entropy

    def step(_: Any) -> None:
        loss = cross_entropy(network(images), labels)
        if latents is not None:
            loss = loss + latents.rate_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step
