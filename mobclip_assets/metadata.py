"""Metadata: what the UI shows of a materialisation.

Belongs here: turning a step's result and a table's contract into Dagster metadata. Does not belong here: making
pictures or tables (see `mobclip_core.plots` and `mobclip_core.preview`).
"""

import base64
from collections.abc import Mapping
from typing import Any

import dagster as dg

from mobclip_core.contracts import CONTRACTS
from mobclip_core.deployment import Count, Deployment, StepResult
from mobclip_core.preview import first_rows
from mobclip_core.table_contract import TableContract


def table_schema(contract: TableContract) -> dg.TableSchema:
    """A contract as Dagster's table schema."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=str(column.type),
                description=column.description + (f" [{column.unit}]" if column.unit else ""),
                constraints=dg.TableColumnConstraints(
                    nullable=column.nullable, unique=contract.keys == (column.name,), other=_ranges(column)
                ),
            )
            for column in contract.columns
        ]
    )


def _ranges(column: Any) -> list[str]:
    low = [f">= {column.minimum:g}"] if column.minimum is not None else []
    high = [f"<= {column.maximum:g}"] if column.maximum is not None else []
    return low + high


def picture(png: bytes) -> dg.MarkdownMetadataValue:
    """A PNG image inside Markdown, as the UI shows it."""
    return dg.MetadataValue.md(f"![picture](data:image/png;base64,{base64.b64encode(png).decode()})")


def numbers(counts: Mapping[str, Count]) -> dict[str, Any]:
    """Counts as metadata values."""
    return {name: float(value) if isinstance(value, float) else value for name, value in counts.items()}


def pictures_metadata(pictures: Mapping[str, bytes]) -> dict[str, Any]:
    """PNG images by title as metadata values."""
    return {title: picture(png) for title, png in pictures.items()}


def result_metadata(deployment: Deployment, result: StepResult) -> dict[str, Any]:
    """All metadata of one materialisation: size, counts, first rows, tables, pictures."""
    written = result.written
    metadata: dict[str, Any] = {"bytes": written.bytes, **numbers(result.counts)}
    if written.ref.table in CONTRACTS:
        metadata["dagster/row_count"] = written.rows
        metadata["first_rows"] = dg.MetadataValue.md(first_rows(deployment.store, written.ref))
    metadata |= {title: dg.MetadataValue.md(text) for title, text in result.markdown.items()}
    return metadata | pictures_metadata(result.pictures)
