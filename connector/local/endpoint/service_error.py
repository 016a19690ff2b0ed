"""ServiceError: an error of the SageMaker runtime API as it goes over the wire, and the rules whose breach gives one.

Types, members and statuses are those of botocore's service model sagemaker-runtime 2017-05-13, protocol rest-json.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connector.local.endpoint.faults import Fault
    from connector.local.endpoint.model import ModelFailure

ACCOUNT = "123456789012"
MAX_BODY = 6 << 20
HEADER = "X-Amzn-SageMaker-"

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[\w/+=.-]+/(?P<date>\d{8})/(?P<region>[a-z0-9-]+)/(?P<service>[a-z0-9-]+)"
    r"/aws4_request, ?SignedHeaders=[a-z0-9;-]+, ?Signature=[0-9a-f]{64}"
)
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
_PRINTABLE = re.compile(r"[!-~][ -~]*")
_ASCII = re.compile(r"[\x00-\x7f]*")
# Header, the member's name in the service's sentences, its greatest length, and its pattern.
_RULES = (
    ("X-Amzn-SageMaker-Inference-Id", "inferenceId", 64, _PRINTABLE),
    ("X-Amzn-SageMaker-Custom-Attributes", "customAttributes", 1024, _ASCII),
    ("X-Amzn-SageMaker-Target-Model", "targetModel", 1024, _PRINTABLE),
    ("X-Amzn-SageMaker-Target-Variant", "targetVariant", 63, _NAME),
    ("X-Amzn-SageMaker-Target-Container-Hostname", "targetContainerHostname", 63, _NAME),
    ("X-Amzn-SageMaker-Enable-Explanations", "enableExplanations", 64, re.compile(r".+")),
    ("X-Amzn-SageMaker-Inference-Component", "inferenceComponentName", 63, _NAME),
    ("X-Amzn-SageMaker-Session-Id", "sessionId", 256, re.compile(r"NEW_SESSION|[a-zA-Z0-9](-*[a-zA-Z0-9])*")),
)


class ServiceError(Exception):
    """An answer that is not 2xx: its status, its type (None for none), and the members of its body."""

    def __init__(self, status: int, kind: str | None, **members: object) -> None:
        super().__init__(kind)
        self.status = status
        self.kind = kind
        self.body = orjson.dumps(members)

    @property
    def headers(self) -> dict[str, str]:
        """The response's headers."""
        headers = {"Content-Type": "application/json"}
        if self.kind is not None:
            headers["x-amzn-ErrorType"] = self.kind
        return headers


def validation(message: str) -> ServiceError:
    """A ValidationError."""
    return ServiceError(400, "ValidationError", Message=message)


def endpoint_not_found(name: str) -> ServiceError:
    """What the service says of an endpoint that it does not have."""
    return validation(f"Endpoint {name} of account {ACCOUNT} not found.")


def model_error(failure: ModelFailure, endpoint: str, variant: str) -> ServiceError:
    """A ModelError for what a container answered."""
    side = "client" if 400 <= failure.status < 500 else "server"
    return ServiceError(
        424,
        "ModelError",
        ErrorCode=f"{side.upper()}_ERROR_FROM_MODEL",
        Message=f'Received {side} error ({failure.status}) from {variant} with message "{failure.message[:1024]}".',
        OriginalStatusCode=failure.status,
        OriginalMessage=failure.message[:2048],
        LogStreamArn=f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/sagemaker/Endpoints/{endpoint}"
        f":log-stream:{variant}/i-local",
    )


def scripted(fault: Fault, endpoint: str) -> ServiceError | None:
    """The error that a fault asks for; None for faults that are no answers of the service, and for model_error."""
    match fault.kind:
        case "throttle":
            return ServiceError(400, "ThrottlingException", message=None)
        case "throttle_untyped":
            return ServiceError(400, None, message=None)
        case "too_many_requests":
            return ServiceError(429, None, message="Too Many Requests")
        case "model_not_ready":
            return ServiceError(429, "ModelNotReadyException", Message="The model is not ready yet.")
        case "service_unavailable":
            return ServiceError(503, "ServiceUnavailable", Message="The service is unavailable. Try again later.")
        case "internal_failure":
            return ServiceError(500, "InternalFailure", Message="An internal failure occurred.")
        case "internal_dependency":
            return ServiceError(530, "InternalDependencyException", Message="A dependency of the service failed.")
        case "validation":
            return validation(fault.message)
        case "access_denied":
            return ServiceError(
                403,
                "AccessDeniedException",
                Message=f"User: arn:aws:iam::{ACCOUNT}:user/local is not authorized to perform: "
                f"sagemaker:InvokeEndpoint on resource: arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/{endpoint} "
                "because no identity-based policy allows the sagemaker:InvokeEndpoint action",
            )
        case "expired_token":
            return ServiceError(
                403, "ExpiredTokenException", message="The security token included in the request is expired"
            )
        case "endpoint_not_found":
            return endpoint_not_found(endpoint)
    return None


def check_signature(headers: Mapping[str, str]) -> None:
    """Raise ServiceError when Signature Version 4 is absent or misshapen; the signature itself is not verified."""
    authorization = headers.get("Authorization")
    if authorization is None:
        raise ServiceError(403, "MissingAuthenticationTokenException", message="Missing Authentication Token")
    found = _AUTHORIZATION.fullmatch(authorization)
    if found is None or "X-Amz-Date" not in headers:
        raise ServiceError(
            403,
            "IncompleteSignatureException",
            message="Authorization header requires Credential, SignedHeaders and Signature parameters "
            "and the existence of either a 'X-Amz-Date' or a 'Date' header.",
        )
    if found["service"] != "sagemaker":
        message = "Credential should be scoped to correct service: 'sagemaker'."
        raise ServiceError(403, "InvalidSignatureException", message=message)


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise ServiceError for a member that breaks its rule."""
    for header, member, longest, pattern in _RULES:
        value = headers.get(header)
        if value is None:
            continue
        if len(value) > longest:
            constraint = f"Member must have length less than or equal to {longest}"
        elif not pattern.fullmatch(value):
            constraint = f"Member must satisfy regular expression pattern: {pattern.pattern}"
        else:
            continue
        raise validation(
            f"1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: {constraint}"
        )


def check_size(body: bytes) -> None:
    """Raise ServiceError for a body that the service's front end refuses."""
    if len(body) > MAX_BODY:
        raise ServiceError(413, None, message=f"Request size limit exceeded: {len(body)} > {MAX_BODY} bytes")
