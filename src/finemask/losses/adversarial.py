"""What a critic and the network that it judges tell each other."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def gan_value(real: Float[Tensor, "..."], fake: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """``log D(x, y) + log(1 - D(x, S(x)))``, the mean over every verdict.

    The critic raises it, the network lowers it. At most 0, where the critic is sure and
    right; ``2 log 0.5 = -1.386`` where it cannot tell.

    Paper: dsnet Eq. (17), dsnet Eq. (18)

    Args:
        real: Logits of D for what is true.
        fake: Logits of D for what the network made.

    Example:
        >>> import torch
        >>> gan_value(torch.zeros(1, 1), torch.zeros(1, 1))
        tensor(-1.3863)
    """
    return F.logsigmoid(real.float()).mean() + F.logsigmoid(-fake.float()).mean()


def critic_loss(real: Float[Tensor, "..."], fake: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Half of the negative ``gan_value``: halved, the critic learns no faster than the network.

    Example:
        >>> import torch
        >>> critic_loss(torch.zeros(1, 1), torch.zeros(1, 1))
        tensor(0.6931)
    """
    return -gan_value(real, fake) / 2


def generator_loss(fake: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """``-log D(x, S(x))``, the mean over every verdict.

    The network's side of ``gan_value``, ``log(1 - D)``, is flat where the critic is sure
    that it sees a fake. This has its minimum at the same place and is steep there.

    Example:
        >>> import torch
        >>> generator_loss(torch.zeros(1, 1))
        tensor(0.6931)
    """
    return F.softplus(-fake.float()).mean()
