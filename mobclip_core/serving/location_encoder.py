"""A place's vector from its longitude and latitude: the whole model, in PyTorch alone.

This file lies beside `location_encoder.safetensors` and `location_encoder.json`; copy the three wherever torch runs:

    from location_encoder import LocationEncoder
    vectors = LocationEncoder.load("folder")(lon=torch.tensor([-73.98]), lat=torch.tensor([40.75]))
"""

import json
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import grid_sample


class LocationEncoder(nn.Module):
    """Harmonics of the sphere and grids over a window, read between their nodes, through an MLP.

    Args:
        window: West, south, east, north in degrees; east may lie beyond 180.
        grids: Rows and columns of each grid, the coarsest first.
        features: Numbers a node.
        degrees: Degrees of the harmonics.
        hidden: Width of the MLP.
        dimensions: Length of a vector, d.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self, window: list[float], grids: list[list[int]], features: int, degrees: int, hidden: int, dimensions: int
    ) -> None:
        super().__init__()
        self.window, self.degrees, self.hidden, self.features = window, degrees, hidden, features
        self.grids = nn.ParameterList([nn.Parameter(torch.zeros(1, features, *shape)) for shape in grids])
        width = degrees**2 + features * len(grids)
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, dimensions)
        )
        self.register_buffer("mean", torch.zeros(dimensions))
        self.register_buffer("scale", torch.ones(1))

    def forward(self, lon: torch.Tensor, lat: torch.Tensor) -> torch.Tensor:
        """Vectors of places: float32 (n,) longitudes and (n,) latitudes in degrees to (n, d)."""
        west, south, east, north = self.window
        x = torch.remainder(lon - west + 180, 360) - 180
        x = torch.where(x < 0, torch.where(x + 360 <= east - west, x + 360, x), x) / (east - west)
        y = (lat - south) / (north - south)
        place = torch.stack([2 * x - 1, 2 * y - 1], -1)[None, :, None]
        parts = [harmonics(lon, lat, self.degrees)]
        for grid in self.grids:
            parts.append(
                grid_sample(grid, place, padding_mode="border", align_corners=True)[0, :, :, 0].transpose(0, 1)
            )
        vectors: torch.Tensor = self.layers(torch.cat(parts, -1)) * self.scale + self.mean
        return vectors

    @classmethod
    def load(cls, folder: str | Path) -> "LocationEncoder":
        """The model in a folder."""
        from safetensors.torch import load_file

        options = json.loads((Path(folder) / "location_encoder.json").read_text())["model"]
        model = cls(**options)
        model.load_state_dict(load_file(Path(folder) / "location_encoder.safetensors"))
        return model.eval()


def harmonics(lon: torch.Tensor, lat: torch.Tensor, degrees: int) -> torch.Tensor:
    """Real spherical harmonics of degree below `degrees` by the stable recurrence of Holmes and Featherstone 2002."""
    longitude, latitude = lon * (torch.pi / 180), lat * (torch.pi / 180)
    x, y = torch.sin(latitude), torch.cos(latitude)
    columns = [torch.zeros_like(x)] * degrees**2
    sectoral = torch.full_like(x, (4 * torch.pi) ** -0.5)
    for order in range(degrees):
        sectoral = sectoral * y * ((2 * order + 1) / (2 * order)) ** 0.5 if order else sectoral
        before, now = torch.zeros_like(x), sectoral
        for degree in range(order, degrees):
            if degree > order:
                scale = ((4 * degree**2 - 1) / (degree**2 - order**2)) ** 0.5
                back = (
                    (((degree - 1) ** 2 - order**2) / (4 * (degree - 1) ** 2 - 1)) ** 0.5 if degree - 1 > order else 0.0
                )
                before, now = now, scale * (x * now - back * before)
            middle = degree * (degree + 1)
            columns[middle + order] = now * 2**0.5 * torch.cos(order * longitude) if order else now
            if order:
                columns[middle - order] = now * 2**0.5 * torch.sin(order * longitude)
    return torch.stack(columns, -1)
