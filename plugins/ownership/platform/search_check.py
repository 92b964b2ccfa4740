"""What the search index must be before a run relies on it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any, Final

from elasticsearch import ApiError, Elasticsearch, NotFoundError

from ownership.domain.errors import SettingsError, Unavailable
from ownership.platform.search_answers import ask, index_errors, shortened
from ownership.platform.search_documents import OWNERS

_SET_THE_INDEX: Final = "set 'es.course_batch.index' to the platform's course batches"


def check_index(es: Elasticsearch, index: str) -> None:
    """Verify that `index` is there, is one, can be searched by owner, and shows whole documents.

    :raises SettingsError: saying what is wrong and what to set.
    :raises Unavailable: if it does not answer.
    """
    try:
        with index_errors(
            "index", NotFoundError, advice="is the host of Connection 'elasticsearch_default' right?"
        ):
            found = ask(es.indices.get, index=index).body
            problems = {name: _problem(index, name, it) for name, it in sorted(found.items())}
    except NotFoundError:
        raise SettingsError(
            f"Elasticsearch has no index '{index}': {_SET_THE_INDEX}, "
            "or point Connection 'elasticsearch_default' to the platform's cluster."
        ) from None
    if len(problems) != 1:
        names = ", ".join(map(shortened, [*problems][:5])) or "no index"
        raise SettingsError(f"'{index}' stands for {names}: {_SET_THE_INDEX}, one index.")
    (problem,) = problems.values()
    if problem:
        raise SettingsError(problem)
    if hidden := _hidden_by_roles(es, index):
        raise SettingsError(
            f"The role of Connection 'elasticsearch_default' sees a part of the documents of '{index}' only, but the "
            f"job proves by all of them, and writes each whole: take its {hidden} away."
        )


def _problem(index: str, name: str, description: Mapping[str, Any]) -> str | None:
    """What is wrong with the index `name`, which the setting calls `index`; None if nothing is."""
    alias = description.get("aliases", {}).get(index, {})
    if odd := [key for key in alias if key != "is_hidden" and alias[key] not in (None, True)]:
        return (
            f"Alias '{index}' of index '{shortened(name)}' has {', '.join(map(shortened, odd))}, so it does not show "
            "or take every document: set 'es.course_batch.index' to the index itself."
        )
    fields = description["mappings"].get("properties", {})
    if unsearchable := [f for f in OWNERS if "raw" not in fields.get(f, {}).get("fields", {})]:
        return (
            f"Index '{shortened(name)}' has no sub-field '{unsearchable[0]}.raw', so nothing can be proven by it: "
            f"{_SET_THE_INDEX}."
        )
    if not _keeps_source(description):
        return (
            f"Index '{shortened(name)}' does not keep documents as they were written (mapping `_source`), and the job "
            "writes them whole, as it reads them: reindex into one whose `_source` is stored without exceptions."
        )
    return None


def _keeps_source(index: Mapping[str, Any]) -> bool:
    """True if the index shows each document as it was written: none, a part or a rebuilt one would be written back."""
    mapping = index["mappings"].get("_source", {})
    mode = index.get("settings", {}).get("index", {}).get("mapping", {}).get("source", {}).get("mode")
    left_out = mapping.get("includes") or mapping.get("excludes")
    modes = {mapping.get("mode"), mode} - {None, "stored"}
    return str(mapping.get("enabled", True)).lower() == "true" and not left_out and not modes


def _hidden_by_roles(es: Elasticsearch, index: str) -> str:
    """By what all roles of the login hide fields or documents; empty if none does so."""
    # Not every server has this call.
    with suppress(ApiError, Unavailable), index_errors("privileges", ApiError):
        of_roles = es.security.get_user_privileges()["indices"]
        ours = [r for r in of_roles if any(fnmatchcase(index, n) for n in r["names"])]
        kinds = {"field_security": "field security", "query": "query for documents"}
        return next((words for kind, words in kinds.items() if ours and all(r.get(kind) for r in ours)), "")
    return ""
