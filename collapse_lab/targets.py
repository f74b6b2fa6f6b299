"""What a prediction has to match: whose weights make it, and which estimate of E_T[F(T x)] it is.

A target t (P, N, D) is aligned with the P predictions: t[v] is what p[v] has to match. It never detaches what has a gradient:
that is the objective's stop-gradient. Passes made only for a target leave the encoder's BatchNorm statistics and
whatever watches the encoder alone.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from collapse_lab.collective import all_rows
from collapse_lab.draws import key

ROWS_AT_ONCE = 2**16


class Online(nn.Module):
    """The encoder's own weights. Views that nothing but the target needs go through a twin.

    The twin shares the encoder's parameters, and so passes gradients to them, but has buffers and hooks of its own.
    """

    uses_z = True

    def __init__(self, encoder: nn.Module, twin: bool) -> None:
        super().__init__()
        shared = {id(parameter): parameter for parameter in encoder.parameters()}
        self.twin = copy.deepcopy(encoder, dict(shared)) if twin else None

    def of_views(self, views: Tensor, z: Tensor) -> Tensor:
        """The outputs z (P, N, D) of the views, which the encoder has made already."""
        return z

    def forward(self, images: Tensor) -> Tensor:
        """The output (N, D) of images that nothing else needs."""
        if self.twin is None:
            raise RuntimeError("this target was built without a twin")
        output: Tensor = self.twin(images)
        return output

    def after_step(self, encoder: nn.Module, step: int) -> None:
        """Nothing: the weights are shared."""


class Lagged(nn.Module):
    """A copy of the encoder, without gradient: every k steps its weights become m x its own + (1 - m) x the encoder's.

    m = 0 is alternating optimisation: the targets of k steps come from the weights before them (Chen & He, 2020, section
    5.2). m > 0 with k = 1 is the momentum encoder of He et al. (2020) and Grill et al. (2020). BatchNorm uses the batch.
    """

    uses_z = False

    def __init__(self, encoder: nn.Module, momentum: float, every: int) -> None:
        super().__init__()
        self.copy = copy.deepcopy(encoder).requires_grad_(False)
        self.momentum, self.every = momentum, every

    def of_views(self, views: Tensor, z: Tensor) -> Tensor:
        """The outputs (P, N, D) of the views under the lagged weights."""
        return torch.stack([self(view) for view in views])

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """The output (N, D) of images under the lagged weights."""
        output: Tensor = self.copy(images)
        return output

    @torch.no_grad()
    def after_step(self, encoder: nn.Module, step: int) -> None:
        """Follow the encoder where ``step``, the number of updates so far, is a multiple of k."""
        if step % self.every == 0:
            own: list[Tensor] = list(self.copy.parameters())
            torch._foreach_lerp_(own, list(encoder.parameters()), 1 - self.momentum)


Network = Online | Lagged


class Target(ABC, nn.Module):
    """``target(partners, extra, z, index) -> t``.

    partners (P, N, C, H, W), the other view of each that is predicted, and their outputs z (P, N, D), which a network with
    weights of its own does not use; extra (K, N, C, H, W), views drawn for the target alone; index (N,) of the images in the
    data set; t (P, N, D).
    """

    extra_views = 0

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    @abstractmethod
    def forward(self, partners: Tensor, extra: Tensor, z: Tensor, index: Tensor) -> Tensor:
        """The target of every prediction."""

    def after_step(self, encoder: nn.Module, step: int) -> None:
        """What follows an update of the encoder, the ``step``-th."""
        self.network.after_step(encoder, step)


class OtherView(Target):
    """t_1 = z_2 and t_2 = z_1: one sample of E_T[F(T x)] for each view. Chen & He (2020), equation 10."""

    def forward(self, partners: Tensor, extra: Tensor, z: Tensor, index: Tensor) -> Tensor:
        """The outputs of the partners."""
        return self.network.of_views(partners, z)


class MeanOutput(Target):
    """The mean of F(T x) over K views of its own, for every view of the image. Chen & He (2020), equation 9.

    ``normalised``: of l2-normalised outputs, as belongs to a cosine.
    """

    def __init__(self, network: Network, views: int, normalised: bool) -> None:
        super().__init__(network)
        self.extra_views, self.normalised = views, normalised

    def forward(self, partners: Tensor, extra: Tensor, z: Tensor, index: Tensor) -> Tensor:
        """The mean, repeated for every prediction."""
        outputs = torch.stack([_scaled(self.network(view), self.normalised) for view in extra])
        return outputs.mean(0).expand(len(partners), -1, -1)


class MeanInput(Target):
    """F of the mean of K views of its own, for every view of the image. Su (2020), equation 10."""

    def __init__(self, network: Network, views: int) -> None:
        super().__init__(network)
        self.extra_views = views

    def forward(self, partners: Tensor, extra: Tensor, z: Tensor, index: Tensor) -> Tensor:
        """The output of the mean image, repeated for every prediction."""
        output: Tensor = self.network(extra.mean(0))
        return output.expand(len(partners), -1, -1)


class Memory(Target):
    """One eta for each of M images, a moving average over visits: eta <- m eta + (1 - m) x the mean output of its views.

    All views of a visit are matched with the old eta. ``start`` first-visit: the first visit matches each view with the
    other and eta begins as their mean; random: eta begins as a random unit vector. ``normalised``: outputs are l2-normalised
    before, and eta after, the average. Under several processes all keep the etas of all. An image is to stand in a batch
    once: of several visits in one step any may be kept. Chen & He (2020), section 5.2.
    """

    eta: Tensor
    seen: Tensor

    def __init__(
        self,
        network: Online,
        images: int,
        dim: int,
        *,
        momentum: float,
        start: str,
        normalised: bool,
        dtype: torch.dtype,
        seed: int,
    ) -> None:
        super().__init__(network)
        self.momentum, self.normalised = momentum, normalised
        random = start == "random"
        generator = torch.Generator().manual_seed(key(seed, 3))
        eta = torch.zeros(images, dim, dtype=dtype)
        if random:
            for rows in eta.split(ROWS_AT_ONCE):
                rows.copy_(normalize(torch.randn(rows.shape, generator=generator), dim=1))
        self.register_buffer("eta", eta)
        self.register_buffer("seen", torch.full((images,), random))

    def forward(self, partners: Tensor, extra: Tensor, z: Tensor, index: Tensor) -> Tensor:
        """The eta of each image before this visit, for every prediction; in training this visit is remembered."""
        seen = self.seen[index][:, None]
        eta = self.eta[index].float()
        scaled = _scaled(z.detach().float(), self.normalised)
        t = torch.where(seen, eta, scaled)
        if self.training:
            mean = scaled.mean(0)
            new = _scaled(torch.where(seen, eta.lerp(mean, 1 - self.momentum), mean), self.normalised)
            everywhere = all_rows(index)
            self.eta[everywhere] = all_rows(new).to(self.eta.dtype)
            self.seen.index_fill_(0, everywhere, True)
        return t


def exchanged(rows: Tensor) -> Tensor:
    """(V, ...) with neighbours exchanged: 1, 0, 3, 2, ...; raises ``ValueError`` where V is odd."""
    if len(rows) % 2:
        raise ValueError(f"found {len(rows)} views, needs pairs")
    return rows.view(-1, 2, *rows.shape[1:]).flip(1).view_as(rows)


def _scaled(rows: Tensor, normalised: bool) -> Tensor:
    return normalize(rows, dim=-1) if normalised else rows
