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


class ZoneTrips(Settings):
    """Trips between zones, one row a trip: counted by pair of zones, then spread like flows.

    Args:
        kind: Discriminator.
        file: Table.
        zones: Zone layer.
        origin: Origin zone identifier.
        destination: Destination zone identifier.
        person: Person identifier; without one every trip counts as a person.
    """

    kind: Literal["zone_trips"]
    file: Files
    zones: str
    origin: str
    destination: str
    person: str | None = None


class Lodes(Settings):
    """LODES origin-destination files of the US Census Bureau, `<state>_od_main_JT00_<year>.csv.gz`: home to work.

    A job counts as a person: JT01 (primary jobs) has one job a person, JT00 a few more.

    Args:
        kind: Discriminator.
        file: Files of one or several states or years. Years add up; people are those of the file with the most.
        zones: Zone layer.
        zone_digits: Digits of the 15-digit block code that name a zone: 5 county, 11 tract, 12 block group, 15 block.
        jobs: Column counted: `S000` all jobs; `SA..` by age, `SE..` by earnings, `SI..` by industry.
    """

    kind: Literal["lodes"]
    file: Files
    zones: str
    zone_digits: Annotated[int, Field(ge=2, le=15)] = 11
    jobs: Literal["S000", "SA01", "SA02", "SA03", "SE01", "SE02", "SE03", "SI01", "SI02", "SI03"] = "S000"


class UkCensusFlows(Settings):
    """Origin-destination files of the UK Census 2021: home to work (`ODWP..`) or last year's home to home (`ODMG..`).

    Args:
        kind: Discriminator.
        file: Files of one table.
        zones: Zone layer.
        place_of_work: Codes of the place of work indicator to keep (home to work only): 3 is a place of work in the
            UK that is not home.
    """

    kind: Literal["uk_census"]
    file: Files
    zones: str
    place_of_work: Annotated[list[int], Field(min_length=1)] = [3]


class Mitma(Settings):
    """Daily trips between districts or municipalities of Spain, as its Ministry of Transport publishes them.

    Trips are estimates with decimals; those of a pair's busiest day count as its people.

    Args:
        kind: Discriminator.
        file: Files of one or several days (`*_Viajes_distritos.csv.gz` since 2022, `*_maestra_1_*.txt.gz` before).
        zones: Zone layer.
    """

    kind: Literal["mitma"]
    file: Files
    zones: str


class NycTlc(Settings):
    """Trip records of New York City's Taxi and Limousine Commission: yellow, green, for-hire, high-volume for-hire.

    Files since mid-2016 have taxi zones, older ones positions; a source holds one of the two. No passenger is named:
    every trip counts as a person.

    Args:
        kind: Discriminator.
        file: Files of one service.
        zones: Zone layer of the taxi zones (`LocationID`); not needed where the files have positions.
    """

    kind: Literal["nyc_tlc"]
    file: Files
    zones: str | None = None


class Noise(Settings):
    """Calibrated noise: (epsilon, delta)-differential privacy of each person, for each source and materialisation.

    Half of epsilon goes to the counts of people, which decide what is published, half to the movements. An edge is
    published if at least `minimum_people` people made it and their noisy number passes a threshold that an edge of
    exactly `minimum_people` passes with a probability below delta over `max_edges_per_person`.

    A person is protected in visits and in trips with people; one trip in trips without; one unit of one flow in flows.
    A person in several sources, or in several materialisations of the same data, spends epsilon and delta in each.

    Args:
        epsilon: Privacy loss.
        delta: Probability that the loss is larger.
        mechanism: Laplace or Gaussian noise, discrete, drawn by OpenDP.
        max_movements_per_person: Movements of one person that count at most.
        max_edges_per_person: Edges of one person that count at most.
    """

    epsilon: Annotated[float, Field(gt=0)]
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    mechanism: Literal["laplace", "gaussian"] = "laplace"
    max_movements_per_person: Annotated[int, Field(ge=1)]
    max_edges_per_person: Annotated[int, Field(ge=1)]


MobilitySource = Annotated[
    Visits | Trips | Flows | ZoneTrips | Lodes | UkCensusFlows | Mitma | NycTlc, Field(discriminator="kind")
]


class MobilityConfig(Settings):
    """Mobility sources and rules.

    Args:
        sources: Named sources.
        minimum_people: k: an edge (for flows: a zone-to-zone flow) made by fewer people is dropped.
        noise: Calibrated noise on every edge and flow; none if not given.
        self_loops: Keep edges from a cell to itself.
        directed: Keep the direction; else both directions get the sum.
        top_fraction: Fraction of each node's edges kept for propagation, heaviest first (the paper: 0.1).
        min_edges: Edges of a node kept whatever `top_fraction` says.
    """

    sources: dict[str, MobilitySource] = {}
    minimum_people: Annotated[int, Field(ge=1)] = 5
    noise: Noise | None = None
    self_loops: bool = False
    directed: bool = True
    top_fraction: Annotated[float, Field(gt=0, le=1)] = 0.1
    min_edges: Annotated[int, Field(ge=1)] = 8
