"""What all tests share: hypothesis without deadlines, because the machines that run them are busy."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("connector", deadline=None)
settings.load_profile("connector")
