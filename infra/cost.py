"""What machines cost: stated once, used by plans before a run and by reports after it."""

from pydantic import Field

from infra.settings import Settings, operational


class CostSettings(Settings):
    """Prices of what a run uses. Unset prices are left out of every sum, and the sum says so."""

    currency: str = operational("USD", pattern=r"^[A-Z]{3}$")
    """Three letters by which amounts are named."""
    gpu_hour: float | None = operational(None, ge=0)
    """Price of one GPU for an hour, the processor cores beside it included."""
    core_hour: float | None = operational(None, ge=0)
    """Price of one processor core for an hour."""
    gigabyte_month: float | None = operational(None, ge=0)
    """Price of 10^9 bytes kept for a month."""
    gigabyte_download: float | None = operational(None, ge=0)
    """Price of 10^9 bytes downloaded."""
    budget: float | None = operational(None, gt=0)
    """A run whose plan costs more is refused before it starts."""


class Cost(Settings):
    """What a run used, or will use, and the price of it where prices are stated."""

    gpu_hours: float = Field(default=0.0, ge=0)
    """Hours of all GPUs together."""
    core_hours: float = Field(default=0.0, ge=0)
    """Hours of all processor cores together."""
    stored_bytes: float = Field(default=0.0, ge=0)
    """Bytes that stay under the root."""
    downloaded_bytes: float = Field(default=0.0, ge=0)
    """Bytes that come over the network."""

    def money(self, prices: CostSettings) -> float | None:
        """The price of everything used that has one; None if nothing used has a price. Storage counts one month."""
        amounts = [
            (self.gpu_hours, prices.gpu_hour),
            (self.core_hours, prices.core_hour),
            (self.stored_bytes / 1e9, prices.gigabyte_month),
            (self.downloaded_bytes / 1e9, prices.gigabyte_download),
        ]
        known = [amount * price for amount, price in amounts if amount and price is not None]
        return sum(known) if known else None

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(**{name: getattr(self, name) + getattr(other, name) for name in type(self).model_fields})
