"""What a prediction has to match: one target t (V, N, D) for the predictions of V views.

A target is a callable module ``target(views, z, index, encoder) -> t``. It is given the views (V, N, C, H, W), their
outputs z (V, N, D), the data-set index (N,) of each image and the encoder, and returns t aligned with p: t[v] is what
p[v] has to match. It never detaches: that is the objective's stop-gradient.
"""

from __future__ import annotations

from torch import Tensor, nn


class OtherView(nn.Module):
    """t_1 = z_2 and t_2 = z_1: one sample of E_T[F(T x)] for each view. Chen & He (2020), equation 10."""

    def forward(self, views: Tensor, z: Tensor, index: Tensor, encoder: nn.Module) -> Tensor:
        """Outputs of the two views, exchanged; raises ``ValueError`` unless there are two."""
        if len(z) != 2:
            raise ValueError(f"OtherView: found {len(z)} views, needs 2")
        return z.flip(0)
