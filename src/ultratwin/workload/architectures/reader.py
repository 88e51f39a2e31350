"""Reading sizes out of a config.json: every fault is noted, none stops the reading, all are reported at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ultratwin.errors import ModelError
from ultratwin.workload.model import Attention

# Far above any model that exists; a size beyond is a typing error, and would only overflow later
MOST_LAYERS: Final = 10_000
MOST_WIDTH: Final = 10_000_000
MOST_ENTRIES: Final = 2_000_000_000


class Reader:
    """The keys of one config.json, by any of their spellings.

    A key that is null counts as absent. A faulty size is noted and read as 1, so that reading goes on.
    """

    def __init__(self, config: Mapping[str, object], *, model_id: str, where: str) -> None:
        self.config = config
        self.model_id = model_id
        self.where = where
        self.faults: list[str] = []
        self.notes: list[str] = []

    def has(self, *keys: str) -> bool:
        """Whether any of the keys is there and not null."""
        return any(self.config.get(key) is not None for key in keys)

    def size(self, *keys: str, default: int | None = None, at_least: int = 1, at_most: int = MOST_WIDTH) -> int:
        """A whole number under the first of the keys that is there; required unless there is a default."""
        for key in keys:
            value = self.config.get(key)
            if value is not None:
                return self._checked(key, value, at_least, at_most)
        if default is None:
            self.faults.append(f"{_spellings(keys)} is missing")
            return at_least
        return default

    def layers(self, *keys: str) -> int:
        """The number of layers."""
        return self.size(*keys, at_most=MOST_LAYERS)

    def flag(self, *keys: str, default: bool) -> bool:
        """A true or false under the first of the keys that is there."""
        for key in keys:
            value = self.config.get(key)
            if isinstance(value, bool):
                return value
            if value is not None:
                self.faults.append(f"{key} = {shown(value)} is neither true nor false")
                return default
        return default

    def text(self, key: str, default: str = "") -> str:
        """A text, or the default where there is none."""
        value = self.config.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            self.faults.append(f"{key} = {shown(value)} is not a text")
            return default
        return value

    def element_bytes(self, *keys: str, default: int) -> int:
        """Bytes of a number in the format that the first of the keys names."""
        for key in keys:
            if self.has(key):
                name = self.text(key)
                for found, size in (("float32", 4), ("float16", 2), ("bfloat16", 2)):
                    if name == found:
                        return size
                return default
        return default

    def indices(self, key: str) -> frozenset[int]:
        """A list of layer numbers; empty where there is none."""
        value = self.config.get(key)
        if value is None:
            return frozenset()
        if not isinstance(value, list) or not all(isinstance(each, int) for each in value):
            self.faults.append(f"{key} = {shown(value)} is not a list of layer numbers")
            return frozenset()
        return frozenset(value)

    def sparse_layers(self, key: str, count: int) -> list[bool]:
        """Which layers have experts: every n-th from the first on, or a 1 for each in a list."""
        value = self.config.get(key)
        if isinstance(value, list):
            if len(value) < count or not all(each in (0, 1) for each in value):
                self.faults.append(f"{key} = {shown(value)} is not a list of 0 or 1 for each of {count} layers")
                return [True] * count
            return [bool(each) for each in value[:count]]
        period = self.size(key, default=1)
        return [index % period == 0 for index in range(count)]

    def choices(self, key: str, count: int) -> tuple[str, ...]:
        """A list with one text for each of `count` layers; empty where there is none."""
        value = self.config.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            self.faults.append(f"{key} = {shown(value)} is not a list of texts")
            return ()
        if len(value) < count:
            self.faults.append(f"{key} has {len(value)} entries for {count} layers")
            return ()
        return tuple(value)

    def part(self, key: str) -> Reader:
        """A table inside the config, reporting to the same lists; empty where there is none."""
        value = self.config.get(key)
        if value is not None and not isinstance(value, dict):
            self.faults.append(f"{key} = {shown(value)} is not an object")
        return self.inner(value if isinstance(value, dict) else {})

    def inner(self, config: Mapping[str, object]) -> Reader:
        """A reader of another table that reports to the same lists."""
        inner = Reader(config, model_id=self.model_id, where=self.where)
        inner.faults, inner.notes = self.faults, self.notes
        return inner

    def defaulting(self, defaults: Mapping[str, object]) -> Reader:
        """The same config with defaults for absent keys, reporting to the same lists."""
        given = {key: value for key, value in self.config.items() if value is not None}
        return self.inner({**defaults, **given})

    @property
    def names(self) -> frozenset[str]:
        """What the config calls itself: its model type and class names."""
        return frozenset(names_of(self.config))

    def attention(
        self,
        hidden_size: int,
        *,
        heads: tuple[str, ...] = ("num_attention_heads",),
        kv_heads: tuple[str, ...] = ("num_key_value_heads",),
        head_dim: tuple[str, ...] = ("head_dim",),
    ) -> Attention:
        """Heads, key/value heads (as many as heads where not said) and head size (hidden size over heads), checked."""
        before = len(self.faults)
        num_heads = self.size(*heads)
        num_kv_heads = self.size(*kv_heads, default=num_heads)
        sound = len(self.faults) == before
        if sound and num_heads % num_kv_heads:
            self.faults.append(f"{heads[0]} = {num_heads} is not a multiple of {kv_heads[0]} = {num_kv_heads}")
        if self.has(*head_dim):
            size = self.size(*head_dim)
        else:
            size = max(1, hidden_size // num_heads)
            if sound and hidden_size > 1 and hidden_size % num_heads:  # 1 stands for a faulty hidden size
                self.faults.append(f"the hidden size {hidden_size} is not a multiple of {heads[0]} = {num_heads}")
        return Attention(num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=size)

    def experts(self, *keys: str, per_token: tuple[str, ...], default_per_token: int | None = None) -> tuple[int, int]:
        """Experts of a layer, and how many of them a token uses, checked against each other."""
        before = len(self.faults)
        num_experts = self.size(*keys)
        used = self.size(*per_token, default=default_per_token)
        if len(self.faults) == before and used > num_experts:
            self.faults.append(f"{per_token[0]} = {used} is more than {keys[0]} = {num_experts}")
        return num_experts, used

    def raise_faults(self) -> None:
        """Raises: ModelError with all faults, if there are any"""
        if self.faults:
            raise ModelError(
                f"the model cannot be read: {'; '.join(dict.fromkeys(self.faults))}",
                where=self.where,
                allowed=f"whole numbers of 1 or more, widths to {MOST_WIDTH:,}, layers to {MOST_LAYERS:,}",
                hint="compare with the config.json of the model's page on the hub",
            )

    def _checked(self, key: str, value: object, at_least: int, at_most: int) -> int:
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not isinstance(value, int | float) or not whole:
            self.faults.append(f"{key} = {shown(value)} is not a whole number")
        elif value < at_least:
            self.faults.append(f"{key} = {shown(value)} is below {at_least}")
        elif value > at_most:
            self.faults.append(f"{key} = {shown(value)} is above {at_most:,}")
        else:
            return int(value)
        return at_least


def names_of(config: Mapping[str, object]) -> list[str]:
    """Model type and class names of a config, in that order."""
    classes = config.get("architectures")
    candidates = [config.get("model_type"), *(classes if isinstance(classes, list) else [])]
    return [each for each in candidates if isinstance(each, str) and each]


def shown(value: object) -> str:
    """A value as short text for a message."""
    if isinstance(value, dict | list):
        return f"a {'table' if isinstance(value, dict) else 'list'} of {len(value)}"
    if isinstance(value, int) and abs(value) > 10**30:
        return "a number of more than 30 digits"  # Python refuses to print the longest
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _spellings(keys: tuple[str, ...]) -> str:
    return keys[0] if len(keys) == 1 else f"{keys[0]} (or {', '.join(keys[1:])})"
