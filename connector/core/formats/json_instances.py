"""json_instances: `{"instances": [...]}` in, `{"predictions": [...]}` out, as TensorFlow Serving and KServe V1 speak.

https://www.tensorflow.org/tfx/serving/api_rest#predict_api, row format.
"""

from __future__ import annotations

from connector.core.formats.json_array import JsonArray
from connector.core.formats.registry import register


@register
class JsonInstances(JsonArray):
    """A JSON array with a name."""

    name = "json_instances"

    def __init__(self) -> None:
        super().__init__(b'{"instances":[', b"]}")
