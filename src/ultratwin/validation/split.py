"""Which rows constants may be fitted to: half of the configurations, by a hash, so that nobody chooses."""

from __future__ import annotations

import hashlib


def is_fitted_half(config_id: str) -> bool:
    """Whether a configuration belongs to the half that constants are fitted to; the other half only scores them.

    Example:
        >>> is_fitted_half("fdb8c8a4f3"), is_fitted_half("10798078db"), is_fitted_half("a")
        (True, True, True)
    """
    return hashlib.sha1(config_id.encode()).digest()[0] % 2 == 0
