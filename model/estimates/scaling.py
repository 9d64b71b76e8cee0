"""What loss a training may be expected to reach, by published scaling laws.

    L(N, D) = E + A / N^alpha + B / D^beta        nats for each token; N parameters, D training tokens

Two fits of the same experiments: Hoffmann et al. (arXiv:2203.15556, approach 3) and Besiroglu et al.
(arXiv:2404.10102), who found the first fit's intervals too narrow and its optimum at odds with the paper's own. Under
C = 6 N D the loss is least at N = G (C / 6)^(beta / (alpha + beta)), G = (alpha A / (beta B))^(1 / (alpha + beta)).

Text that is read again teaches less. Of U different tokens read r times more than once, Muennighoff et al.
(arXiv:2305.16264) count U + U R (1 - exp(-r / R)) tokens, with R = 15.39.

The laws were fitted to decoders of 70 M to 16 B weights, with one vocabulary, on MassiveText: another tokenizer or
other text has another loss for each token. Differences between two plans mean more than either figure.
"""

import math
from collections.abc import Iterator

from infra.settings import Settings

_REPEATS_WORTH = 15.39


class ScalingLaw(Settings):
    """A fit of the module's formula."""

    name: str
    irreducible: float
    model_scale: float
    model_exponent: float
    data_scale: float
    data_exponent: float

    def loss(self, parameters: float, tokens: float) -> float:
        """Nats for each token."""
        of_model = self.model_scale / parameters**self.model_exponent
        return self.irreducible + of_model + self.data_scale / tokens**self.data_exponent

    def optimum(self, flops: float) -> tuple[float, float]:
        """(parameters, tokens) of the least loss for so many operations."""
        both = self.model_exponent + self.data_exponent
        balance = self.model_exponent * self.model_scale / (self.data_exponent * self.data_scale)
        parameters = balance ** (1 / both) * (flops / 6) ** (self.data_exponent / both)
        return parameters, flops / 6 / parameters

    def tokens_for(self, parameters: float, loss: float) -> float | None:
        """Tokens with which a model reaches a loss; None if no number of tokens does."""
        left = loss - self.irreducible - self.model_scale / parameters**self.model_exponent
        return (self.data_scale / left) ** (1 / self.data_exponent) if left > 0 else None


HOFFMANN = ScalingLaw(
    name="Hoffmann et al. 2022",
    irreducible=1.69,
    model_scale=406.4,
    model_exponent=0.34,
    data_scale=410.7,
    data_exponent=0.28,
)
BESIROGLU = ScalingLaw(
    name="Besiroglu et al. 2024",
    irreducible=1.8172,
    model_scale=482.01,
    model_exponent=0.3478,
    data_scale=2085.43,
    data_exponent=0.3658,
)


class ExpectedLoss(Settings):
    """What one law says of a training."""

    law: str
    loss: float
    """Nats for each token."""
    best_parameters: float
    """Of the model that as many operations would train best."""
    best_tokens: float
    best_loss: float


class SameLoss(Settings):
    """Another size of model that is expected to reach the same loss."""

    parameters: float
    tokens: float
    flops: float
    """Of its training: more than at the optimum, for a model that is cheaper to run."""


class Scaling(Settings):
    """A training beside what scaling laws say."""

    parameters: float
    """All weights that a token meets."""
    tokens: float
    unique_tokens: float | None
    """Different ones among them; None where that is not known."""
    effective_tokens: float
    """Tokens that count, repeated ones less."""
    tokens_per_parameter: float
    flops: float
    """6 N D, the laws' own count."""
    expected: tuple[ExpectedLoss, ...]
    same_loss: tuple[SameLoss, ...]
    """By the newer law."""


def effective_tokens(tokens: float, unique: float | None) -> float:
    """Tokens that count where only `unique` of them differ."""
    if unique is None or tokens <= unique or unique <= 0:
        return tokens
    again = tokens / unique - 1
    return unique + unique * _REPEATS_WORTH * (1 - math.exp(-again / _REPEATS_WORTH))


def scaling(parameters: float, tokens: float, unique_tokens: float | None = None) -> Scaling:
    """Put a training of a model beside the laws."""
    flops, counted = 6.0 * parameters * tokens, effective_tokens(tokens, unique_tokens)
    return Scaling(
        parameters=parameters,
        tokens=tokens,
        unique_tokens=unique_tokens,
        effective_tokens=counted,
        tokens_per_parameter=tokens / parameters,
        flops=flops,
        expected=tuple(_expected(law, parameters, counted, flops) for law in (BESIROGLU, HOFFMANN)),
        same_loss=tuple(_same_loss(parameters, counted)),
    )


def _expected(law: ScalingLaw, parameters: float, tokens: float, flops: float) -> ExpectedLoss:
    best_parameters, best_tokens = law.optimum(flops)
    return ExpectedLoss(
        law=law.name,
        loss=law.loss(parameters, tokens),
        best_parameters=best_parameters,
        best_tokens=best_tokens,
        best_loss=law.loss(best_parameters, best_tokens),
    )


def _same_loss(parameters: float, tokens: float) -> Iterator[SameLoss]:
    loss = BESIROGLU.loss(parameters, tokens)
    for part in (0.25, 0.5, 2.0, 4.0):
        needed = BESIROGLU.tokens_for(part * parameters, loss)
        if needed is not None:
            yield SameLoss(parameters=part * parameters, tokens=needed, flops=6 * part * parameters * needed)
