"""The report: one HTML page about a deployment's vectors, for people without the Dagster UI.

Belongs here: what the page shows, and the page. Does not belong here: scoring, drawing, the command that writes it.
"""

import base64
import html
from typing import Any

from markdown_it import MarkdownIt

from mobclip_core.catalog import country_map
from mobclip_core.deployment import Deployment
from mobclip_core.encoder.checkpoint import TrainedEncoder
from mobclip_core.evaluation.predictions import out_of_sample
from mobclip_core.evaluation.scores import read_scores, shown
from mobclip_core.plots import cell_map
from mobclip_core.store import TableRef

FILE = "report.html"

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 1080px; margin: 2.5rem auto; padding: 0 1.2rem }
h1 { margin-bottom: 0 } h2 { margin-top: 2.6rem; border-bottom: 1px solid #e3e6ea; padding-bottom: .3rem }
.quiet { color: #6b7785 } img { max-width: 100%; height: auto } figure { margin: 1rem 0 }
.maps { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 1rem }
.table { overflow-x: auto } table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #e3e6ea; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
"""


def build_report(deployment: Deployment) -> str:
    """Write the page at the root of the lake; its path or URL.

    Raises:
        MissingTableError: If scores, embeddings or encoder are not materialised.
    """
    profile, store = deployment.profile, deployment.store
    rows = read_scores(deployment)
    pictures, tables = shown(rows, profile)
    encoder = TrainedEncoder.load(store.bundle("encoder"))
    cells = sum(store.read(TableRef("embeddings", region), ["cell"]).num_rows for region in profile.regions.region_keys)
    tasks = [
        f"| {code} | {task.title} | {task.source} | {task.unit} | {', '.join(task.overlaps)} |"
        for code, task in sorted(profile.tasks.items())
        if code in {row["task"] for row in rows}
    ]
    head = ["| task | what | source | unit | overlaps with |", "| --- | --- | --- | --- | --- |"]
    parts = [
        f"<h1>{html.escape(profile.name)}</h1>",
        f'<p class="quiet">{html.escape(profile.description or "")}</p>',
        f"<p>{cells:,} cells in {len(profile.regions.region_keys)} regions, {profile.encoder.dimensions} "
        f"numbers each; encoder <code>{encoder.fingerprint[:12]}</code>.</p>",
        _figure(country_map(store, profile), "Cells coloured by the first three principal components of their vectors"),
        "<h2>Scores</h2>",
        _figure(pictures["Scores"], "R² out of sample") if "Scores" in pictures else "<p>No task was scored.</p>",
        *(f"<h3>{html.escape(title)}</h3>{_table(text)}" for title, text in tables.items() if title.startswith("R2, ")),
        "<p class=quiet>* an input of the method overlaps with the label.</p>",
    ]
    for title, text in tables.items():
        if not title.startswith("R2, "):
            drawn = pictures.get(title) or (pictures.get("Few labels") if "few" in title else None)
            parts += [f"<h2>{html.escape(title)}</h2>", _figure(drawn, title) if drawn else "", _table(text)]
    maps = [
        _figure(
            cell_map(one.cells, one.residual[one.unit], one.task, "label less prediction, standard deviations"),
            f"Residuals of {one.task}",
        )
        for one in out_of_sample(deployment)
        if one.scale == "cell"
    ]
    if maps:
        parts += ["<h2>Where the embeddings are wrong</h2>", f'<div class="maps">{"".join(maps)}</div>']
    parts += ["<h2>Tasks</h2>", _table("\n".join([*head, *tasks]))]
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(profile.name)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        + "\n".join(parts)
        + "</body></html>\n"
    )
    return store.publish(FILE, page.encode())


def _figure(png: bytes, alt: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<figure><img alt="{html.escape(alt)}" src="data:image/png;base64,{data}"></figure>'


def _table(markdown: str) -> str:
    rendered: Any = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    return f'<div class="table">{rendered}</div>'
