"""What lies between elasticsearch-py and the search server: Elasticsearch from 7.10, OpenSearch from 2.

The client names its own version in every media type, which Elasticsearch before 7.14 and OpenSearch refuse. It takes no
answer without the header ``X-Elastic-Product``, which they do not send. A node that is asked here looks at its server
first, and then speaks plain JSON, which all of them understand.
"""

from __future__ import annotations

import json
import math
import re
import time
from typing import Any, ClassVar, Final, NamedTuple

from elastic_transport import ApiResponseMeta, HttpHeaders, NodeConfig, Urllib3HttpNode
from elastic_transport.client_utils import DEFAULT, DefaultType

from ownership.domain.errors import SettingsError

ELASTICSEARCH: Final = "Elasticsearch"
OPENSEARCH: Final = "OpenSearch"
OLDEST: Final = {ELASTICSEARCH: (7, 10), OPENSEARCH: (2, 0)}
"""The products, each with the oldest version that is supported."""
PRODUCT_HEADER: Final = "X-Elastic-Product"
_SENDS_HEADER: Final = (7, 14)
"""From this version on, Elasticsearch sends `PRODUCT_HEADER` with every answer, also with a refusal."""
_NO_ANSWER: Final = (401, 429, 500, 502, 503, 504)
"""Statuses that say nothing of the server: a wrong login, an outage."""
_VENDOR_TYPE: Final = re.compile(r"application/vnd\.elasticsearch\+([a-z.-]+)\s*;\s*compatible-with=\d+")
_VERSION: Final = re.compile(r"(\d+)\.(\d+)")


class Server(NamedTuple):
    """What a server says that it is."""

    product: str
    version: str


class Response(NamedTuple):
    """The answer of a node, as elastic_transport passes it on."""

    meta: ApiResponseMeta
    body: bytes


class SearchNode(Urllib3HttpNode):
    """The client's connections to one host, for ``Elasticsearch(…, node_class=SearchNode)``.

    :raises SettingsError: at the first request, if the server is too old, of another product, or hidden by a proxy.
    """

    look_s: ClassVar[float] = math.inf
    """Time-out of a look at the server, in seconds, where it is less than that of the call."""
    again_after_s: ClassVar[float] = math.inf
    """Seconds without an answer after which the next call begins with a look."""

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        self._heard_at = -math.inf

    def perform_request(  # type: ignore[override]  # the parent's type of an answer is not public
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: HttpHeaders | None = None,
        request_timeout: DefaultType | float | None = DEFAULT,
    ) -> Response:
        """The server's answer, with the product header. An outage met by a look is the answer."""
        plain = HttpHeaders(
            {name: _VENDOR_TYPE.sub(r"application/\1", v) for name, v in (headers or {}).items()}
        )
        if time.monotonic() - self._heard_at >= self.again_after_s:
            if (outage := self._identify(plain, self._look_timeout(request_timeout))) is not None:
                return outage
            self._heard_at = time.monotonic()
        answer = super().perform_request(method, target, body, plain, request_timeout)
        self._heard_at = time.monotonic()
        answer.meta.headers[PRODUCT_HEADER] = ELASTICSEARCH
        return Response(*answer)

    def _look_timeout(self, of_call: DefaultType | float | None) -> float | None:
        limit = self.config.request_timeout if isinstance(of_call, DefaultType) else of_call
        shortest = min(limit or math.inf, self.look_s)
        return None if math.isinf(shortest) else shortest

    def _identify(self, headers: HttpHeaders, timeout: float | None) -> Response | None:
        """Ask the server what it is: by `GET /`, and where that is not served or not allowed, by its nodes.

        Returns the answer that says nothing, None once the server is known.
        """
        refusals = []
        for target, read in (("/", from_root), ("/_nodes/_local", from_nodes)):
            answer = Response(*super().perform_request("GET", target, None, headers, timeout))
            if answer.meta.status in _NO_ANSWER:
                return answer
            has_header = answer.meta.headers.get(PRODUCT_HEADER) == ELASTICSEARCH
            server = read(answer.body) if answer.meta.status == 200 else None
            if has_header or server is not None:
                check(self.base_url, server, has_header=has_header)
                return None
            refusals.append(f"`GET {target}` answers HTTP {answer.meta.status}")
        raise SettingsError(
            f"The server at {self.base_url} does not say what it is ({', '.join(refusals)}): point Connection "
            "'elasticsearch_default' to Elasticsearch or OpenSearch, let a proxy pass `GET /`, or grant the login "
            "`cluster:monitor/main`."
        )


class OneOfSeveral(SearchNode):
    """A host that has others beside it.

    A frozen one takes connections and stays silent: a look gives it up before a call would, and the client asks another.
    """

    look_s = 3.0
    again_after_s = 2.0


def check(url: str, server: Server | None, *, has_header: bool) -> None:
    """Verify that the product can work with a server.

    `server` may be None where `has_header`: every Elasticsearch that sends the header is new enough.

    :raises SettingsError: naming product and version.
    """
    if server is None:
        return
    oldest, version = OLDEST.get(server.product), _VERSION.match(server.version)
    if oldest is None or version is None:
        raise SettingsError(
            f"The server at {url} is {server.product} {server.version}: supported are {_supported()}."
        )
    number = (int(version[1]), int(version[2]))
    if number < oldest:
        raise SettingsError(
            f"{server.product} {server.version} at {url} is too old: supported are {_supported()}."
        )
    if server.product == ELASTICSEARCH and number >= _SENDS_HEADER and not has_header:
        raise SettingsError(
            f"{server.product} {server.version} at {url} answers without its header {PRODUCT_HEADER}: a proxy in "
            "front of it strips the header; let it pass."
        )


def from_root(body: bytes) -> Server | None:
    """What the answer to `GET /` says; None if it is none of a search server."""
    answer = _object(body)
    version = answer.get("version")
    if not isinstance(version, dict) or not isinstance(version.get("number"), str):
        return None
    tagline = str(answer.get("tagline") or "")
    distribution = str(version.get("distribution") or "")
    # As 7.10 it may hide the distribution.
    if distribution == "opensearch" or "opensearch" in tagline.lower():
        product = OPENSEARCH
    elif not distribution and tagline == "You Know, for Search":
        product = ELASTICSEARCH
    else:
        product = (distribution or tagline or "an unknown product")[:100]
    return Server(product, version["number"][:50])


def from_nodes(body: bytes) -> Server | None:
    """What the answer to `GET /_nodes/_local` says; None if it is none of a search server."""
    nodes = _object(body).get("nodes")
    node = next(iter(nodes.values()), None) if isinstance(nodes, dict) else None
    if not isinstance(node, dict) or not isinstance(node.get("version"), str):
        return None
    # Elasticsearch tells its flavour here; OpenSearch has only one.
    return Server(ELASTICSEARCH if "build_flavor" in node else OPENSEARCH, node["version"][:50])


def _object(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _supported() -> str:
    return " and ".join(f"{name} from {major}.{minor}" for name, (major, minor) in OLDEST.items())
