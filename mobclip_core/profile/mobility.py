"""Settings of mobility.

Belongs here: options of mobility sources, privacy and the graph. Does not belong here: reading them.
"""

from typing import Annotated, Literal

from pydantic import Field

from mobclip_core.profile.base import Files, Settings


class Visits(Settings):
    """Visits: person, time, position. Consecutive visits of a person within `window_hours` are a movement.

    Args:
        kind: Discriminator.
        file: Table.
        person: Person identifier (a pseudonym).
        time: Timestamp.
        lon: Longitude.
        lat: Latitude.
        window_hours: Longest time between two visits that still count as one movement.
    """

    kind: Literal["visits"]
    file: Files
    person: str
    time: str
    lon: str
    lat: str
    window_hours: Annotated[float, Field(gt=0)] = 24.0


class Trips(Settings):
    """Trips: origin and destination positions, one row a trip.

    Args:
        kind: Discriminator.
        file: Table.
        origin_lon: Longitude of the origin.
        origin_lat: Latitude of the origin.
        destination_lon: Longitude of the destination.
        destination_lat: Latitude of the destination.
        person: Person identifier; without one every trip counts as a person.
    """

    kind: Literal["trips"]
    file: Files
    origin_lon: str
    origin_lat: str
    destination_lon: str
    destination_lat: str
    person: str | None = None


class Flows(Settings):
    """Zone-to-zone flows, spread over the zones' cells by population.

    Args:
        kind: Discriminator.
        file: Table.
        zones: Zone layer.
        origin: Origin zone identifier.
        destination: Destination zone identifier.
        count: People or movements of the flow.
    """

    kind: Literal["flows"]
    file: Files
    zones: str
    origin: str
    destination: str
    count: str


class MobilityConfig(Settings):
    """Mobility sources and rules.

    Args:
        sources: Named sources.
        minimum_people: k: an edge (for flows: a zone-to-zone flow) made by fewer people is dropped.
        self_loops: Keep edges from a cell to itself.
        directed: Keep the direction; else both directions get the sum.
        top_fraction: Fraction of each node's edges kept for propagation, heaviest first (the paper: 0.1).
        min_edges: Edges of a node kept whatever `top_fraction` says.
    """

    sources: dict[str, Annotated[Visits | Trips | Flows, Field(discriminator="kind")]] = {}
    minimum_people: Annotated[int, Field(ge=1)] = 5
    self_loops: bool = False
    directed: bool = True
    top_fraction: Annotated[float, Field(gt=0, le=1)] = 0.1
    min_edges: Annotated[int, Field(ge=1)] = 8
