"""What every method keeps to, whatever its paper: a new one is tested by being listed."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from finemask.deploy.graph import example_inputs, write_graph
from finemask.methods import METHODS, Method, Segmenter, create, default_recipe
from finemask.nn.blocks import ConvBlock
from finemask.pairs.batches import Batch, guided
from finemask.recipe import Recipe, Task

TINY = {
    "width": 4,
    "depth": 3,
    "sr_width": 4,
    "channel": 4,
    "encoder": "resnet18",
    "encoder_width": 4,
    "lossnet_width": 2,
    "lossnet_size": 16,
    "teacher_width": 4,
    "teacher_blocks": 2,
    "teacher_kernel": 3,
    "critic_width": 4,
    "blocks": 2,
    "content_width": 2,
    "content_level": 3,
}
"""Applied where a method has the option."""
TINY_OF = {
    "pfseg": {"width": 12, "msres": "none"},
    "unet3d": {"width": 12},
    "san": {"width": 2},
    **{name: {"width": 8} for name in ("vnet", "resunet3d", "resunet3d_up", "hdresunet")},
}
"""What one method takes instead: a norm before the last convolution leaves few maps little to
say; kernels of seven voxels take long (`tests/methods/test_pfseg.py` has them)."""
COMPARED = {"vnet", "unet3d", "resunet3d", "resunet3d_up", "hdresunet", "san"}
"""Comparison models of one family, whose task is built in one place: two kinds of it are enough."""
SEGMENTING = {name: method for name, method in METHODS.items() if method.needs_masks}
"""Those that answer with masks; what restores images has tests of its own."""
SIDES = {2: (12, 16), 3: (8, 8, 12)}


@dataclass(frozen=True)
class Setup:
    """One method on one kind of task."""

    name: str
    dims: int
    channels: int = 1
    classes: int = 2
    scale: tuple[int, ...] = (2,)

    def __str__(self) -> str:
        scale = "x".join(map(str, self.scale))
        return f"{self.name}-{self.dims}d-{self.channels}ch-{self.classes}cl-x{scale}"


def setups() -> Iterator[Setup]:
    for name, method in SEGMENTING.items():
        for dims in method.dims:
            for channels in (1, 3):
                for classes in (2, 3):
                    if name not in COMPARED or (channels == 3) == (classes == 3):
                        yield Setup(name, dims, channels, classes)
        if 3 in method.dims and (name not in COMPARED or name == "hdresunet"):
            yield Setup(name, 3, scale=(1, 2, 2))
        if 2 in method.dims:
            yield Setup(name, 2, scale=(1, 1))
            yield Setup(name, 2, scale=(4, 4))


def tiny(recipe: Recipe) -> Recipe:
    values = TINY | TINY_OF.get(recipe.method, {})
    options = {k: values.get(k, value) for k, value in recipe.config.items() if value != "plain"}
    return dataclasses.replace(recipe, config=options)


def build(setup: Setup, seed: int = 0) -> Method:
    torch.manual_seed(seed)
    task = Task(setup.dims, setup.channels, setup.classes, setup.scale)
    return create(tiny(default_recipe(setup.name, task)))


def blobs(method: Method, sides: tuple[int, ...], samples: int = 2) -> Batch:
    """Bright balls, one a class, on a noisy ground; the LR image is the mean of HR blocks."""
    task = method.task
    generator = torch.Generator().manual_seed(7)
    hr = [n * s for n, s in zip(sides, task.scale, strict=True)]
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in hr), indexing="ij")
    maps = []
    for k in range(task.foreground):
        centre = -0.4 + 0.9 * k
        maps.append((sum((x - centre) ** 2 for x in axes) < 0.3).float())
    target = torch.stack(maps).expand(samples, -1, *hr)
    ground = 0.1 * torch.randn(samples, task.channels, *hr, generator=generator)
    heights = torch.arange(1.0, 1 + task.foreground).reshape(1, -1, *[1] * task.dims)
    image_hr = ground + (heights * target).sum(1, keepdim=True)
    pool = {2: nn.functional.avg_pool2d, 3: nn.functional.avg_pool3d}[task.dims]
    batch = Batch(pool(image_hr, task.scale), image_hr, target)
    guide = method.guide
    return batch if guide is None else guided(batch, [guide(image.numpy()) for image in image_hr])


def shown(method: Method, batch: Batch) -> Tensor:
    """The image on the grid that the shipped network reads."""
    return batch.image_lr if method.deploy().task.scale == method.task.scale else batch.image_hr


def cancelled_biases(module: nn.Module) -> set[int]:
    """Biases in front of a norm, which subtracts them again: they are there for released weights,
    and their gradient is zero but for rounding."""
    return {
        id(block.conv.bias)
        for block in module.modules()
        if isinstance(block, ConvBlock) and not isinstance(block.norm, nn.Identity)
    }


def total_loss(method: Method, batch: Batch, player: str) -> Tensor:
    weights, parts = method.weights(), method.losses(batch, player)
    return torch.stack([weights[name] * part for name, part in parts.items()]).sum()


def sides_for(method: Method) -> tuple[int, ...]:
    """LR sides at which even the coarsest level has several voxels: batch norm needs them."""
    segmenter = method.deploy()
    finer = [n // own for n, own in zip(method.task.scale, segmenter.task.scale, strict=True)]
    stride = segmenter.stride // max(finer)
    return tuple(max(side, side * stride // 5) for side in SIDES[method.task.dims])


@pytest.fixture(params=list(setups()), ids=str)
def setup(request: pytest.FixtureRequest) -> Setup:
    return request.param


@pytest.fixture
def method(setup: Setup) -> Method:
    return build(setup)


@pytest.fixture
def batch(method: Method) -> Batch:
    return blobs(method, sides_for(method))


def test_losses_are_named_scalars_with_weights(method: Method, batch: Batch) -> None:
    named = set()
    for player in method.players:
        for name, part in method.losses(batch, player).items():
            assert part.shape == ()
            assert part.dtype == torch.float32
            assert bool(part.isfinite()), name
            named.add(name)
    assert named == set(method.weights())


def test_every_weight_learns(method: Method, batch: Batch) -> None:
    grouped, idle = [], cancelled_biases(method)
    for player in method.players:
        method.zero_grad()
        total_loss(method, batch, player).backward()
        mine = {id(p) for group in method.parameter_groups(player) for p in group.parameters}
        for name, p in method.named_parameters():
            if id(p) in mine:
                assert p.grad is not None, name
                assert bool(p.grad.isfinite().all()), name
                assert float(p.grad.abs().sum()) > 0 or id(p) in idle, name
        grouped += sorted(mine)
    learnt = sorted(id(p) for p in method.parameters() if p.requires_grad)
    assert sorted(grouped) == learnt, "every weight has one player and one group"


def test_bf16_is_finite(method: Method, batch: Batch) -> None:
    for player in method.players:
        with torch.autocast("cpu", torch.bfloat16):
            loss = total_loss(method, batch, player)
        loss.backward()
        assert bool(loss.isfinite())
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in method.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert bool(method.deploy().probs(shown(method, batch), batch.guidance).isfinite().all())


def test_the_deployed_network_answers_on_the_hr_grid(method: Method, batch: Batch) -> None:
    segmenter, task = method.deploy().eval(), method.task
    with torch.no_grad():
        logits = segmenter(shown(method, batch), batch.guidance)
        probs = segmenter.probs(shown(method, batch), batch.guidance)
    grid = batch.target.shape[2:]
    assert logits.shape == (2, task.classes if task.classes > 2 else 1, *grid)
    assert probs.shape == (2, task.foreground, *grid)
    assert float(probs.min()) >= 0
    assert float(probs.sum(1).max()) <= 1 + 1e-6


def test_the_deployed_network_is_the_trained_one(method: Method, batch: Batch) -> None:
    """Its logits occur, bit for bit, among what the losses were computed from."""
    method.eval()
    segmenter = method.deploy()
    seen: list[Tensor] = []
    for module in method.modules():
        module.register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.no_grad():
        method.losses(batch)
        trained, seen = seen, []
        learnt = segmenter.network
        if hasattr(learnt, "enlarge"):  # a fixed rule behind what was learnt
            learnt = learnt[:-1]
        logits = Segmenter(learnt, segmenter.task)(shown(method, batch), batch.guidance)
    assert any(isinstance(x, Tensor) and torch.equal(x, logits) for x in trained)


def test_only_what_inference_needs_is_deployed(method: Method, batch: Batch) -> None:
    segmenter = method.deploy()
    whole = {id(p) for p in method.parameters()}
    shipped = {id(p) for p in segmenter.parameters()}
    assert shipped <= whole, "weights are shared, not copied"
    assert (shipped == whole) == (method.dropped == "nothing")
    segmenter(shown(method, batch), batch.guidance).square().sum().backward()
    idle = cancelled_biases(segmenter)
    for name, p in segmenter.named_parameters():
        if not p.requires_grad:  # a teacher's
            continue
        assert p.grad is not None, f"{name} ships but plays no part"
        assert float(p.grad.abs().sum()) > 0 or id(p) in idle, f"{name} ships but plays no part"


def test_weights_survive_saving(setup: Setup, method: Method, batch: Batch) -> None:
    other = build(setup, seed=1)

    def answer(segmenter: Segmenter) -> Tensor:
        with torch.no_grad():
            return segmenter.eval()(shown(method, batch), batch.guidance)

    assert not torch.equal(answer(method.deploy()), answer(other.deploy()))
    other.load_state_dict(method.state_dict())
    assert torch.equal(answer(method.deploy()), answer(other.deploy()))
    slim = build(setup, seed=2).deploy()
    slim.load_state_dict(method.deploy().state_dict())
    assert torch.equal(answer(method.deploy()), answer(slim))


def test_a_seed_decides_everything(setup: Setup, batch: Batch) -> None:
    first, second = build(setup), build(setup)
    torch.manual_seed(0)
    here = total_loss(first, batch, first.players[0])
    torch.manual_seed(0)
    there = total_loss(second, batch, second.players[0])
    assert torch.equal(here, there)


def test_copies_are_whole(method: Method, batch: Batch) -> None:
    """An averaged model is a deep copy: it must not share weights or refer back."""
    twin = copy.deepcopy(method).eval()
    for p in method.parameters():
        p.data.zero_()
    with torch.no_grad():
        assert float(twin.deploy()(shown(twin, batch), batch.guidance).std()) > 0


def test_super_resolution_lies_on_the_hr_grid(method: Method, batch: Batch) -> None:
    with torch.no_grad():
        image = method.eval().super_resolve(batch.image_lr, batch.guidance)
    assert (image is not None) == method.makes_image()
    assert image is None or image.shape == batch.image_hr.shape


ODD = {2: [(9, 11), (5, 16)], 3: [(5, 7, 6)]}


@pytest.mark.parametrize("name", SEGMENTING)
def test_odd_sizes_are_learnt_and_answered(name: str) -> None:
    for dims in METHODS[name].dims:
        method = build(Setup(name, dims))
        for sides in ODD[dims]:
            batch = blobs(method, sides)
            assert bool(total_loss(method, batch, method.players[0]).isfinite())
            out = method.deploy()(shown(method, batch), batch.guidance)
            assert out.shape[2:] == batch.target.shape[2:]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    ("name", "dims"), [(name, dims) for name, method in SEGMENTING.items() for dims in method.dims]
)
def test_thirty_steps_learn_one_image_by_heart(name: str, dims: int, classes: int) -> None:
    torch.manual_seed(0)
    recipe = default_recipe(name, Task(dims, 1, classes, (2,)))
    method = create(tiny(recipe))
    batch = blobs(method, sides_for(method), samples=1)
    optimisers = {
        player: torch.optim.Adam(
            [p for group in method.parameter_groups(player) for p in group.parameters], 1e-2
        )
        for player in method.players
    }
    course = []
    for _ in range(30):
        for player, optimiser in optimisers.items():
            optimiser.zero_grad()
            loss = total_loss(method, batch, player)
            loss.backward()
            optimiser.step()
            if player == method.players[0]:
                course.append(loss.item())
    with torch.no_grad():
        for _ in range(20):  # batch norm's averages catch up with the last weights
            total_loss(method, batch, method.players[0])
    found = method.deploy().eval().probs(shown(method, batch), batch.guidance) > 0.5
    truth = batch.target > 0.5
    both, sizes = (found & truth).flatten(2).sum(2), (found.long() + truth).flatten(2).sum(2)
    assert course[-1] < course[0] / 2
    assert float((2 * both / sizes).min()) > 0.8


SHIPPED = [
    Setup(name, dims)
    for name, method in METHODS.items()
    if method.needs_masks
    for dims in method.dims
]


@pytest.mark.parametrize("setup", SHIPPED, ids=str)
def test_what_ships_can_be_written_as_a_graph_of_any_size(setup: Setup, tmp_path: Path) -> None:
    """Traced at one size, run by another library at another, in a batch of another number."""
    runtime = pytest.importorskip("onnxruntime")
    method = build(setup).eval()
    shipped = method.deploy().eval()

    # Sizes are tensors while a network is traced, which the checks of annotations refuse.
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        examples = example_inputs(shipped, method.guide)
        write_graph(shipped, examples, tmp_path, "onnx")
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    given = [torch.cat([x, x], 2)[:1] for x in examples]
    if method.guide is not None:
        given[1] = torch.randn(
            1, setup.channels, *method.guide.size([2 * n for n in given[0].shape[2:]])
        )
    names = [entry.name for entry in session.get_inputs()]
    assert names == ["image", "guidance"][: len(given)]
    (found,) = session.run(None, {n: t.numpy() for n, t in zip(names, given, strict=True)})
    with torch.inference_mode():
        expected = shipped(*given).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-4 * max(1.0, float(expected.std())))
