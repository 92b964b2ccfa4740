"""Asking the search index, and reading its answers: what goes wrong, in the job's words.

An answer that is not what it should be is an outage, never an empty one: nothing is proven by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import stamina
from elastic_transport import SerializationError, TransportError
from elasticsearch import ApiError, AuthenticationException, AuthorizationException

from ownership.domain.errors import SettingsError, Unavailable
from ownership.platform.search_documents import is_key

PART: Final = "Elasticsearch"
"""What errors call the index, also where OpenSearch holds it: so is its Connection named."""
TRIES: Final = 4
"""Of a call, or of an item of a bulk, that an overloaded index pushes back."""
FIRST_PAUSE_S: Final = 0.5
"""Before the second try; doubled before each further one."""
OVERLOADED: Final = (429, 502, 503, 504)
"""Statuses, of a call or of an item, that end by themselves when less is asked."""
_MAX_REASON: Final = 300
"""Limit on the index's own words in an error: a proxy answers with a page."""
Version = tuple[int, int]
"""Sequence number and primary term: as long as a document has them, it is as it was written."""


def _is_pushed_back(error: Exception) -> bool:
    return isinstance(error, ApiError) and error.meta.status in OVERLOADED


ask = stamina.RetryingCaller(
    attempts=TRIES, timeout=None, wait_initial=FIRST_PAUSE_S, wait_jitter=FIRST_PAUSE_S, wait_max=60
).on(_is_pushed_back)
"""Calls the client; an overloaded index is asked again, a few times, ever later."""


@contextmanager
def index_errors(what: str, *wanted: type[Exception], advice: str = "") -> Iterator[None]:
    """Translate what goes wrong while the index is asked, and while its answer is read.

    An answer without the parts that it should have is an outage: a proxy's, or another product's. `wanted` are errors
    that tell the caller something.

    :raises Unavailable: for any other error, with `advice`.
    :raises SettingsError: if the index refuses access.
    """
    more = f"; {advice}" if advice else ""
    try:
        yield
    except wanted:
        raise
    except (AuthenticationException, AuthorizationException) as e:
        if "cluster_block_exception" in str(e.message):  # read-only, by an operator or a full disk: it ends
            raise Unavailable(PART, own_words(e)) from None
        raise SettingsError(
            f"Elasticsearch refuses access: {own_words(e)}. Check login and grants of Connection 'elasticsearch_default'."
        ) from None
    except ApiError as e:
        raise Unavailable(PART, f"HTTP {e.meta.status} {own_words(e)}{more}") from None
    except SerializationError:  # its text is the whole answer
        raise Unavailable(PART, f"answers with something that is no JSON{more}") from None
    except TransportError as e:
        raise Unavailable(PART, f"{type(e).__name__}: {shortened(e)}{more}") from None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError) as e:
        raise Unavailable(PART, f"a {what} answer out of contract ({type(e).__name__}){more}") from None


def whole_number(value: Any) -> int:
    """:raises TypeError: if it is no whole number."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("no whole number")
    return value


def key_text(value: Any) -> str:
    """:raises TypeError: if it is no text that the other store can hold."""
    if not is_key(value):
        raise TypeError("no text")
    return value


def own_words(error: ApiError) -> str:
    """The index's own word for an error. Of anything else that answers in its place, no text is repeated."""
    body = error.body
    return shortened(error.message) if isinstance(body, Mapping) and "error" in body else "without a reason"


def shortened(words: object) -> str:
    """The first words of a reason, without the piece of the document that some end with."""
    return str(words).split("Preview of field's value", 1)[0].strip()[:_MAX_REASON]


def reason_of(error: Any) -> str:
    """What an item's error says: its kind, and the index's own words, cut."""
    if not isinstance(error, Mapping):
        return "no reason given"
    return f"{shortened(error.get('type'))}: {shortened(error.get('reason'))}"


def hit_count(answer: Any) -> int:
    """How many hits a search has."""
    return whole_number(answer["hits"]["total"]["value"])


def hits_of(answer: Any) -> list[Any]:
    """The hits that a search shows.

    :raises Unavailable: if it timed out or lost a shard: then it shows a part only, and proves nothing.
    """
    if answer.get("timed_out") or whole_number(answer["_shards"]["failed"]):
        raise Unavailable(PART, "answered a search from a part of its shards only")
    return list(answer["hits"]["hits"])


def version_of(doc: Mapping[str, Any]) -> Version:
    """The version that a hit, or an item of a bulk, shows."""
    return whole_number(doc["_seq_no"]), whole_number(doc["_primary_term"])
