"""HostedEndpoint: what the emulator serves under one endpoint name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from connector.local.endpoint.service_error import HEADER, validation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connector.local.endpoint.model import Container, Model


@dataclass(frozen=True, slots=True)
class HostedEndpoint:
    """An endpoint: its variants take turns; `models` are those of a multi-model endpoint, by TargetModel.

    `containers` and `components` are what TargetContainerHostname and InferenceComponentName choose.
    """

    name: str
    variants: Mapping[str, Model | Container]
    models: Mapping[str, Model | Container] = field(default_factory=dict)
    containers: Mapping[str, Model | Container] = field(default_factory=dict)
    components: Mapping[str, Model | Container] = field(default_factory=dict)

    def choose(self, headers: Mapping[str, str], turn: int) -> tuple[str, Model | Container]:
        """The variant and the model that the headers of a call name; call number `turn` says whose turn it is.

        Raises ServiceError.
        """
        variant = headers.get(f"{HEADER}Target-Variant")
        if variant is None:
            variant = list(self.variants)[turn % len(self.variants)]
        elif variant not in self.variants:
            raise validation(f"Variant {variant} of endpoint {self.name} was not found.")
        model = self.variants[variant]
        target = headers.get(f"{HEADER}Target-Model")
        if target is not None and not self.models:
            raise validation(f"Endpoint {self.name} is not a multi-model endpoint and does not support TargetModel.")
        if target is None and self.models:
            raise validation(f"Endpoint {self.name} is a multi-model endpoint: TargetModel must be specified.")
        chosen = (
            ("model", target, self.models),
            ("container", headers.get(f"{HEADER}Target-Container-Hostname"), self.containers),
            ("inference component", headers.get(f"{HEADER}Inference-Component"), self.components),
        )
        for kind, name, known in chosen:
            if name is not None:
                if name not in known:
                    raise validation(f"The {kind} {name} of endpoint {self.name} was not found.")
                model = known[name]
        return variant, model
