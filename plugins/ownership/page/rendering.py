"""Templates and static files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ownership.domain.compare import LABELS
from ownership.ledger.reads.lists import Filters
from ownership.page.views import formats, links

HERE = Path(__file__).parent
STATIC = {f.name: f.read_bytes() for f in sorted((HERE / "static").iterdir()) if f.is_file()}
"""The style sheet, the script and the icons, by name."""

templates = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
templates.globals |= {
    "version": hashlib.sha256(b"".join(STATIC.values())).hexdigest()[:10],
    "short": formats.short,
    "number": formats.number,
    "moment": formats.moment,
    "run_label": links.run_label,
    "state_names": formats.STATE_NAMES,
    "detail_href": links.detail_href,
    "batch_href": links.batch_href,
    "user_href": links.user_href,
    "find_href": links.find_href,
    "import_href": links.import_href,
    "kind_names": LABELS,
    "transfers_href": lambda user: links.list_href(Filters(user=user)),
    "course_href": lambda course: links.list_href(Filters(course_id=course)),
}


def rendered(name: str, code: int = 200, **values: Any) -> HTMLResponse:
    """A template as an answer."""
    return HTMLResponse(templates.get_template(name).render(**values), status_code=code)
