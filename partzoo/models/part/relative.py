"""PART's relative encoders, which predict the translation of every pair of patches, or of selected pairs.

All take tokens ``(B, N, d)`` and pairs ``(B, S, 2)`` int64 of (reference, target), or None for all N * N, ordered by
reference. They return ``(B, S, outputs)``: x, y and, with four outputs, relative width and height.

Source: Ayoughi et al., "How PARTs assemble into wholes" (PART), section 4, "Relative encoder architecture",
and section 5.3, "Impact of relative encoder".
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from partzoo.errors import ShapeError, UsageError

NAMES = ("cross-attention", "pairwise-mlp", "mlp")


def build_relative_encoder(
    name: str, dim: int, *, heads: int, patches: int, outputs: int = 2, projections: bool = True
) -> nn.Module:
    """Build a relative encoder by its name.

    Args:
        name: one of :data:`NAMES`.
        dim: channels d of the tokens.
        heads: number of attention heads, if the attention has projections.
        patches: number of patches N, which is fixed for ``"mlp"``.
        outputs: 2 for x and y, 4 for relative width and height as well, 1 for signals.
        projections: whether the attention has learned projections.

    Raises:
        UsageError: the name is unknown.
    """
    if name == "cross-attention":
        return CrossAttentionRelativeEncoder(dim, heads, projections, outputs)
    if name == "pairwise-mlp":
        return PairwiseRelativeEncoder(dim, outputs)
    if name == "mlp":
        return FullRelativeEncoder(dim, patches, outputs)
    raise UsageError(f"Unknown relative encoder {name!r}: choose one of {', '.join(NAMES)}.")


class CrossAttentionRelativeEncoder(nn.Module):
    """A relative encoder in which every pair of tokens attends to all tokens.

    The query of a pair is ``Linear(2d -> d)`` of both tokens, keys and values are the tokens, and a last
    ``Linear(d -> outputs)`` gives the translation (PART, section 4). Every step from tokens to logits and from values
    to translations is linear, so the terms of a query and the output of each value are computed before pairs are
    formed: all N * N pairs cost ``outputs + 1`` products of N x N matrices per head, and no pair needs a separate
    vector.
    """

    def __init__(self, dim: int, heads: int, projections: bool = True, outputs: int = 2) -> None:
        super().__init__()
        self.heads = heads if projections else 1
        self.pair = nn.Linear(2 * dim, dim)
        self.query = nn.Linear(dim, dim) if projections else nn.Identity()
        self.key = nn.Linear(dim, dim) if projections else nn.Identity()
        self.value = nn.Linear(dim, dim) if projections else nn.Identity()
        self.out = nn.Linear(dim, dim) if projections else nn.Identity()
        self.head = nn.Linear(dim, outputs)

    def forward(self, tokens: Tensor, pairs: Tensor | None = None) -> Tensor:
        """Compute translations from reference to target, in patches; see the module's docstring.

        Source: PART, section 4, "Relative encoder architecture".
        """
        reference_weight, target_weight = self.pair.weight.chunk(2, dim=1)
        reference = self.query(nn.functional.linear(tokens, reference_weight, self.pair.bias))
        target = nn.functional.linear(tokens, target_weight)
        if isinstance(self.query, nn.Linear):
            target = nn.functional.linear(target, self.query.weight)
        split = "b n (h c) -> b h n c"
        keys = rearrange(self.key(tokens), split, h=self.heads).mT * (tokens.shape[-1] // self.heads) ** -0.5
        from_reference = rearrange(reference, split, h=self.heads) @ keys
        from_target = rearrange(target, split, h=self.heads) @ keys
        readout, bias = self._readout()
        values = rearrange(self.value(tokens), split, h=self.heads)
        values = torch.einsum("bhnc,ohc->bhon", values, rearrange(readout, "o (h c) -> o h c", h=self.heads))
        found = _attend_to_sums(from_reference, from_target, values).to(tokens.dtype) + bias
        return _choose(found, pairs, tokens.shape[1])

    def _readout(self) -> tuple[Tensor, Tensor]:
        """Combine the output projection and the head into one weight ``(outputs, d)`` and bias ``(outputs,)``."""
        if isinstance(self.out, nn.Identity):
            return self.head.weight, self.head.bias
        return self.head.weight @ self.out.weight, self.head.weight @ self.out.bias + self.head.bias


class PairwiseRelativeEncoder(nn.Module):
    """A relative encoder that uses only a pair's two tokens: ``Linear(2d -> outputs)``, ``2 * d * outputs`` weights.

    Source: PART, section 5.3 ("pairwise MLP").
    """

    def __init__(self, dim: int, outputs: int = 2) -> None:
        super().__init__()
        self.pair = nn.Linear(2 * dim, outputs, bias=False)

    def forward(self, tokens: Tensor, pairs: Tensor | None = None) -> Tensor:
        """Compute translations from reference to target, in patches; see the module's docstring."""
        reference, target = (nn.functional.linear(tokens, weight) for weight in self.pair.weight.chunk(2, dim=1))
        return _choose((reference[:, :, None] + target[:, None]).flatten(1, 2), pairs, tokens.shape[1])


class FullRelativeEncoder(nn.Module):
    """A relative encoder for exactly N tokens, which is a single ``Linear(N * d -> N * N * outputs)``.

    Source: PART, section 5.3 ("MLP", N * d * N^2 * 2 parameters).
    """

    def __init__(self, dim: int, patches: int, outputs: int = 2) -> None:
        super().__init__()
        self.patches = patches
        self.all = nn.Linear(patches * dim, patches**2 * outputs, bias=False)

    def forward(self, tokens: Tensor, pairs: Tensor | None = None) -> Tensor:
        """Compute translations from reference to target, in patches; see the module's docstring.

        Raises:
            ShapeError: the number of tokens is not N.
        """
        if tokens.shape[1] != self.patches:
            raise ShapeError(
                f"The relative encoder 'mlp' takes {self.patches} patches, not {tokens.shape[1]}: "
                "only 'cross-attention' and 'pairwise-mlp' take any number."
            )
        found = self.all(tokens.flatten(1)).unflatten(1, (self.patches**2, -1))
        return _choose(found, pairs, self.patches)


def _choose(found: Tensor, pairs: Tensor | None, count: int) -> Tensor:
    """Select the given pairs from the translations of all pairs, ``(B, N * N, outputs)``."""
    if pairs is None:
        return found
    chosen = pairs[..., 0] * count + pairs[..., 1]
    return found.gather(1, chosen[..., None].expand(-1, -1, found.shape[-1]))


def _attend_to_sums(first: Tensor, second: Tensor, values: Tensor) -> Tensor:
    """Compute ``sum_h softmax_n(first[i, n] + second[j, n]) . values[n]`` for all i, j, without forming the pairs.

    The exponential of a sum is a product, so numerator and denominator of the softmax are products of N x N matrices.
    They are computed in float64, because in float32 terms with distant maxima would underflow.

    Args:
        first, second: ``(B, H, N, N)`` logits.
        values: ``(B, H, outputs, N)``.

    Returns:
        ``(B, N * N, outputs)`` float64, ordered by i.
    """
    with torch.autocast(first.device.type, enabled=False):
        first = (first - first.amax(-1, keepdim=True).detach()).double().exp()
        second = (second - second.amax(-1, keepdim=True).detach()).double().exp()
        weighted = torch.cat([first[:, :, None] * values[:, :, :, None], first[:, :, None]], dim=2)
        sums = (weighted.flatten(2, 3) @ second.mT).unflatten(2, (values.shape[2] + 1, -1))
        return (sums[:, :, :-1] / sums[:, :, -1:]).sum(1).flatten(2).mT
