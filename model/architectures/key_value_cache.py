"""What attention remembers of the positions it has read, so that each new token is read alone.

Rows of a batch have read different numbers of positions, and each goes on at its own: the beginnings are read together,
padded at their ends, where padding is after everything and so unseen; what a row reads then takes the place of its
padding. So a row's positions, and what it computes, do not depend on the rows beside it.
"""

import torch


class KeyValueCache:
    """Keys and values in every layer of a chunk; layers are handed it in the place of a mask.

    First `begin` and a pass over the padded beginnings, which are 1 position or more; then `go_on` and a pass over one
    token of each row, again and again.
    """

    def __init__(self, rows: int, capacity: int, device: torch.device) -> None:
        self.places = torch.zeros(rows, dtype=torch.int64, device=device)
        """Position that each row reads next, or last during a pass; int64 [rows]."""
        self._rows = torch.arange(rows, device=device)
        self._capacity = capacity
        self._reach = 0
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._visible: dict[int | None, torch.Tensor] = {}

    def go_on(self, places: torch.Tensor, furthest: int) -> None:
        """Let the next pass read one token of each row, at these positions, of which none is after `furthest`."""
        self.places = places
        # Few different lengths, because a GPU's kernels are chosen anew for each.
        self._reach = furthest + 1 if places.device.type == "cpu" else min((furthest // 64 + 1) * 64, self._capacity)
        self._visible.clear()

    def keep(self, rows: torch.Tensor) -> None:
        """Forget all rows but these, int64 [rows]."""
        self.places, self._rows = self.places[rows], self._rows[: len(rows)]
        self._layers = {layer: (keys[rows], values[rows]) for layer, (keys, values) in self._layers.items()}

    def begin(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Remember a layer's first positions; key and value [positions, rows, groups, width]."""
        kept = []
        for new in (key, value):
            positions, rows, groups, width = new.shape
            memory = new.new_zeros(rows, groups, self._capacity, width)  # what is not seen must not be NaN either
            memory[:, :, :positions] = new.permute(1, 2, 0, 3)
            kept.append(memory)
        self._layers[layer] = (kept[0], kept[1])

    def add(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Remember one position of each row, [1, rows, groups, width]; all as [rows, groups, positions, width]."""
        keys, values = self._layers[layer]
        keys[self._rows, :, self.places] = key[0]
        values[self._rows, :, self.places] = value[0]
        return keys[:, :, : self._reach], values[:, :, : self._reach]

    @property
    def is_empty(self) -> bool:
        """Whether the beginnings are still to be read."""
        return self._reach == 0

    def visible(self, window: int | None) -> torch.Tensor:
        """Which positions each row sees, up to its own; bool [rows, 1, 1, positions]."""
        if window not in self._visible:
            distance = self.places[:, None] - torch.arange(self._reach, device=self.places.device)
            seen = distance >= 0 if window is None else (distance >= 0) & (distance <= window)
            self._visible[window] = seen[:, None, None]
        return self._visible[window]
