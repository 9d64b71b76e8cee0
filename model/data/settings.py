"""Which text a model is trained on, and how it is laid out in samples."""

from typing import Literal, Self

from pydantic import Field, model_validator

from infra.settings import Settings, operational


class Source(Settings):
    """A dataset in a blend: its name and either its weight or its epochs."""

    dataset: str = Field(min_length=1)
    """Name of the dataset."""
    version: str | None = None
    """Its version; unset takes the newest, which the run then keeps to."""
    weight: float | None = Field(default=None, gt=0)
    """Share of the samples, in proportion to the other weights."""
    epochs: float | None = Field(default=None, gt=0)
    """Times that the dataset is passed over while the others are passed over as often as theirs say."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.weight is None) == (self.epochs is None):
            raise ValueError(f"give exactly one of weight and epochs for dataset {self.dataset}")
        return self


class DataSettings(Settings):
    """Samples of a training run."""

    packing: Literal["cut", "best-fit"] = "cut"
    """cut joins shuffled documents and cuts them every sequence_length tokens, which pads nothing; best-fit cuts only
    documents that are longer than a sample and fits the pieces into samples (arXiv:2404.10830), padding the rest."""
    attend_across_documents: bool = True
    """Whether documents that share a sample see one another, as in GPT-3 (arXiv:2005.14165) and DeepSeek-V3
    (arXiv:2412.19437). Llama 3 (arXiv:2407.21783) forbids it and finds little difference but for very long sequences;
    arXiv:2402.13991 finds gains. Without it attention on GPUs is slower where documents are long."""
    blend: tuple[Source, ...] = ()
    """Datasets to train on, the run's own among them, all by weight or all by epochs; empty for the run's own alone."""
    prefetch: int = operational(2, ge=0)
    """Steps whose samples a thread reads ahead; 0 reads each when it is due."""

    @model_validator(mode="after")
    def _weights_or_epochs(self) -> Self:
        if len({source.weight is None for source in self.blend}) > 1:
            raise ValueError("a blend is either by weight or by epochs: give all its datasets the same of the two")
        names = [(source.dataset, source.version) for source in self.blend]
        if len(set(names)) < len(names):
            raise ValueError("a blend names each dataset, or each version of it, once")
        return self
