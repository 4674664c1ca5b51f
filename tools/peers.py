"""The same GPT in PyTorch and in keras-hub, for `tools.bench`; both are optional."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

from tools import runner

Step = Callable[[], object]


class Size(NamedTuple):
    """The arguments of `aimodels.gpt.GPT`."""

    words: int
    steps: int
    width: int
    heads: int
    depth: int

    def __str__(self) -> str:
        """Return the sizes that decide the cost."""
        return f"T={self.steps} D={self.width} L={self.depth} V={self.words}"

    def work(self, batch: int) -> float:
        """Return additions and multiplications of one forward pass over all steps."""
        blocks = self.depth * (12 * self.width**2 + 2 * self.steps * self.width)
        return 2 * batch * self.steps * (blocks + self.words * self.width)

    def products(self, batch: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Return the shapes of all matrix products of a training step, as pairs."""
        rows, wide, share = batch * self.steps, 4 * self.width, self.width // self.heads
        weights = [(self.width, self.width)] * 4 + [(self.width, wide), (wide, self.width)]
        pairs: list = []
        for one, other in [*weights * self.depth, (self.width, self.words)]:
            # Forward, the gradient of the input, the gradient of the weights.
            pairs += [((rows, one), (one, other)), ((rows, other), (other, one))]
            pairs += [((one, rows), (rows, other))]
        groups, square = (batch, self.heads), (self.steps, self.steps)
        thin, flat = (*groups, self.steps, share), (*groups, share, self.steps)
        # Scores and the gradient of the weights; then what is read and the three gradients.
        pairs += [*[(thin, flat)] * 2, *[((*groups, *square), thin)] * 4] * self.depth
        return pairs


def torch_installed() -> bool:
    """Whether PyTorch can take part."""
    return importlib.util.find_spec("torch") is not None


def keras_hub_installed() -> bool:
    """Whether keras-hub can take part."""
    return importlib.util.find_spec("keras_hub") is not None


def _backbone(size: Size) -> Any:
    import keras_hub

    return keras_hub.models.GPT2Backbone(
        vocabulary_size=size.words,
        num_layers=size.depth,
        num_heads=size.heads,
        hidden_dim=size.width,
        intermediate_dim=4 * size.width,
        dropout=0.0,
        max_sequence_length=size.steps,
    )


def hub_model(size: Size) -> Any:
    """Return keras-hub's GPT-2 as a model of ids alone, with logits as output."""
    import keras

    backbone = _backbone(size)
    ids = keras.Input((size.steps,), dtype="int32")
    hidden = backbone({"token_ids": ids, "padding_mask": keras.ops.ones_like(ids)})
    return keras.Model(ids, backbone.token_embedding(hidden, reverse=True))


def hub_fit(size: Size, ids: Any) -> Step:
    """Return Keras' own training step of it, as `fit` takes it."""
    import keras

    model = hub_model(size)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-3), loss)
    return lambda: model.train_on_batch(ids[:, :-1], ids[:, 1:])


def hub_generation(size: Size, ids: Any) -> Step:
    """Return its generation, to the last position, with its own cache."""
    import keras_hub
    import numpy as np

    model = keras_hub.models.GPT2CausalLM(backbone=_backbone(size), preprocessor=None)
    model.compile(sampler="greedy")
    start = np.zeros((len(ids), size.steps), "int32")
    start[:, : ids.shape[1]] = ids
    given = {"token_ids": start, "padding_mask": np.arange(size.steps) < ids.shape[1] + start * 0}
    return lambda: model.generate(given, stop_token_ids=None)


def _torch_model(size: Size) -> Any:
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(runner.THREADS)
    words, steps, width, heads, depth = size

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
            self.qkv, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any, cache: Any = None) -> Any:
            batch, new, _ = x.shape
            split = self.qkv(self.norms[0](x)).view(batch, new, 3, heads, width // heads)
            query, key, value = split.permute(2, 0, 3, 1, 4)
            if cache is not None:
                if cache:
                    key = torch.cat([cache[0], key], 2)
                    value = torch.cat([cache[1], value], 2)
                cache[:] = key, value
            read = functional.scaled_dot_product_attention(query, key, value, is_causal=new > 1)
            x = x + self.merge(read.transpose(1, 2).reshape(batch, new, width))
            return x + self.narrow(functional.gelu(self.widen(self.norms[1](x))))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = nn.Embedding(words, width), nn.Embedding(steps, width)
            self.blocks = nn.ModuleList(Block() for _ in range(depth))
            self.norm = nn.LayerNorm(width)

        def forward(self, ids: Any, caches: Any = None, start: int = 0) -> Any:
            x = self.tokens(ids) + self.positions(torch.arange(start, start + ids.shape[1]))
            for block, cache in zip(self.blocks, caches or [None] * depth, strict=True):
                x = block(x, cache)
            if caches is not None:
                x = x[:, -1:]
            return functional.linear(self.norm(x), self.tokens.weight)

    return Model()


def torch_training(size: Size, ids: Any) -> dict[str, Step]:
    """Return a training step with AdamW, as it is and compiled by `torch.compile`."""
    import torch
    from torch.nn import functional

    x, y = (torch.tensor(part, dtype=torch.long) for part in (ids[:, :-1], ids[:, 1:]))

    def stepped(model: Any) -> Step:
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)

        def step() -> float:
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x).view(-1, size.words), y.reshape(-1))
            loss.backward()
            optimizer.step()
            return loss.item()

        return step

    compiled = torch.compile(_torch_model(size))
    return {"PyTorch": stepped(_torch_model(size)), "PyTorch, compiled": stepped(compiled)}


def torch_products(arrays: Any) -> Step:
    """Return the products of pairs of arrays."""
    import torch

    torch.set_num_threads(runner.THREADS)
    pairs = [(torch.tensor(a.numpy()), torch.tensor(b.numpy())) for a, b in arrays]

    @torch.inference_mode()
    def step() -> Any:
        return [torch.matmul(a, b) for a, b in pairs][-1].numpy()

    return step


def torch_generation(size: Size, ids: Any, count: int) -> dict[str, Step]:
    """Return generation of the most probable tokens, keys and values appended."""
    import torch

    model = _torch_model(size).eval()
    first = torch.tensor(ids, dtype=torch.long)

    @torch.inference_mode()
    def step() -> Any:
        caches: list[list] = [[] for _ in range(size.depth)]
        new, start, made = first, 0, []
        for _ in range(count):
            logits = model(new, caches, start)
            start += new.shape[1]
            new = logits[:, -1].argmax(-1, keepdim=True)
            made.append(new)
        return torch.cat(made, 1).tolist()

    return {"PyTorch": step}
