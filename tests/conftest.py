"""What all tests share: leaks are failures, and hypothesis has no deadlines, because the machines that run it are busy."""

from __future__ import annotations

from hypothesis import settings

# Every run draws other examples; a claim that needs more of them in one run says so itself.
settings.register_profile("connector", deadline=None, max_examples=50)
settings.load_profile("connector")

pytest_plugins = ["tests.kafka", "tests.leaks"]
