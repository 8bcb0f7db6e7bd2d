"""Image encoders: from patches to vectors, behind one interface.

Belongs here: `ImageEncoder` and its default implementation, fitting, saving, loading, fingerprints. Does not belong
here: reading rasters (see `patches`), timm's models (see `timm_encoder`), tables (see `steps`).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import safetensors.numpy
import torch
from torch.nn import functional

from mobclip_core.encoder.device import one_thread
from mobclip_core.errors import MobclipError
from mobclip_core.workers import ahead

_WHITENING_SAMPLES = 100_000
_REGULARISATION = 1e-3
_ACTIVATIONS_AT_A_TIME = {"cpu": 1 << 18, "cuda": 1 << 26}
"""What a CPU's cache holds (8 times as fast as 64 MiB at a time), and what keeps a GPU busy."""
_TENSORS, _CONFIG = "filters.safetensors", "encoder.json"


class ImageEncoder(Protocol):
    """Anything that turns image patches into vectors."""

    @property
    def dimensions(self) -> int:
        """Length of a vector."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the vectors, hexadecimal."""

    @property
    def batch_size(self) -> int:
        """Images that are best encoded at a time."""

    def encode_stream(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Vectors of batches of patches, in order, as of `encode`."""

    def encode(self, patches: np.ndarray) -> np.ndarray:
        """Vectors of patches.

        Args:
            patches: uint8 or float32, shape (n, bands, rows, columns).

        Returns:
            float32, shape (n, dimensions).
        """


def fill_invalid(patches: np.ndarray, valid_fraction: np.ndarray) -> np.ndarray:
    """Give pixels without data the mean of their patch's other pixels, so that an edge of the data is not seen as one.

    Args:
        patches: Shape (n, bands, rows, columns); pixels without data are 0 in all bands.
        valid_fraction: Shape (n,): only patches with a fraction below 1 (and above 0) are touched.

    Returns:
        Patches of the same type; the input itself where there is nothing to fill.
    """
    partly = np.flatnonzero((valid_fraction > 0) & (valid_fraction < 1))
    if not len(partly):
        return patches
    chosen = patches[partly].astype(np.float32)
    empty = (chosen == 0).all(axis=1, keepdims=True)
    total, count = chosen.sum(axis=(2, 3), keepdims=True), (~empty).sum(axis=(2, 3), keepdims=True)
    filled = np.where(empty, total / np.maximum(count, 1), chosen)
    result = patches.copy()
    result[partly] = np.rint(filled) if patches.dtype == np.uint8 else filled
    return result


def zca_whitening(samples: np.ndarray, regularisation: float) -> tuple[np.ndarray, np.ndarray]:
    r"""ZCA whitening: the symmetric matrix that gives samples the identity covariance.

    .. math:: W = V (\Lambda + \epsilon \bar\lambda I)^{-1/2} V^\top, \quad \Sigma = V \Lambda V^\top

    Args:
        samples: Shape (n, d).
        regularisation: epsilon, relative to the mean eigenvalue of the covariance.

    Returns:
        The mean, float64 of shape (d,), and W, float64 of shape (d, d): `(samples - mean) @ W` is white.
    """
    samples = np.asarray(samples, dtype=np.float64)
    mean = samples.mean(axis=0)
    centred = samples - mean
    eigenvalues, vectors = np.linalg.eigh(centred.T @ centred / len(samples))
    floor = regularisation * eigenvalues.mean() + 1e-12
    scale = 1.0 / np.sqrt(np.maximum(eigenvalues, 0.0) + floor)
    return mean, (vectors * scale) @ vectors.T


class RandomConvolutionalEncoder:
    r"""Random convolutional features (MOSAIKS: Rolf et al. 2021, Nature Communications 12:4392, Methods).

    K filters are drawn from the images themselves. With :math:`x` a window of the image, normalised by band, and
    :math:`W, \mu` the ZCA whitening of such windows, filter k responds with

    .. math:: z_k(x) = \langle W (x - \mu),\; f_k \rangle, \quad f_k = W (p_k - \mu) / \lVert W (p_k - \mu) \rVert

    and the features of an image are the means over all windows of :math:`\max(z_k - b, 0)` and
    :math:`\max(-z_k - b, 0)`. Filters have unit length, so a response has unit variance over the sample and the bias b
    is in standard deviations (the authors normalise the windows before whitening instead).

    Args:
        band_mean: Mean of each band over the sample, float32, shape (bands,).
        band_std: Standard deviation of each band, shape (bands,).
        weight: Filters with the whitening folded in, shape (K, bands, side, side).
        offset: Response's constant -<W mu, f_k>, shape (K,).
        bias: b.
        device: Where to compute.
    """

    batch_size = 1024

    def __init__(
        self,
        band_mean: np.ndarray,
        band_std: np.ndarray,
        weight: np.ndarray,
        offset: np.ndarray,
        bias: float,
        device: torch.device | str = "cpu",
    ) -> None:
        self.bias = float(bias)
        self.device = torch.device(device)
        named = {"band_mean": band_mean, "band_std": band_std, "weight": weight, "offset": offset}
        self._arrays = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in named.items()}
        self._tensors = {name: torch.from_numpy(array).to(self.device) for name, array in self._arrays.items()}

    @classmethod
    def fit(
        cls,
        patches: np.ndarray,
        *,
        features: int,
        filter_pixels: int,
        bias: float,
        seed: int,
        regularisation: float = _REGULARISATION,
        device: torch.device | str = "cpu",
    ) -> "RandomConvolutionalEncoder":
        """Draw filters from patches and whiten them.

        Args:
            patches: A sample of patches without invalid pixels, shape (n, bands, rows, columns).
            features: Length of the feature vector: two a filter.
            filter_pixels: Side of a filter.
            bias: Bias inside the rectifiers, in standard deviations of a response.
            seed: Seed of the draw.
            regularisation: See `zca_whitening`.
            device: Where the encoder computes afterwards.

        Raises:
            MobclipError: If the filters are larger than the patches.
        """
        if filter_pixels > min(patches.shape[2:]):
            raise MobclipError(
                f"imagery.encoder.filter_pixels is {filter_pixels}, larger than the patches ({patches.shape[2]} pixels)"
            )
        band_mean = patches.mean(axis=(0, 2, 3), dtype=np.float64)
        band_std = patches.std(axis=(0, 2, 3), dtype=np.float64)
        band_std[band_std == 0] = 1.0
        generator = np.random.default_rng(seed)
        windows = _sample_windows(patches, filter_pixels, generator)
        windows = (windows - band_mean[:, None, None]) / band_std[:, None, None]
        flat = windows.reshape(len(windows), -1)
        mean, whitening = zca_whitening(flat, regularisation)
        filters = features // 2
        drawn = generator.choice(len(flat), filters, replace=filters > len(flat))
        white = (flat[drawn] - mean) @ whitening
        white /= np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-12)
        weight = white @ whitening  # W is symmetric: <W x, f> = <x, W f>
        return cls(band_mean, band_std, weight.reshape(filters, *windows.shape[1:]), -weight @ mean, bias, device)

    @property
    def bands(self) -> int:
        """Bands of the images that the encoder was fitted to."""
        return int(self._arrays["weight"].shape[1])

    @property
    def dimensions(self) -> int:
        """Length of a vector: two values a filter, positive parts first."""
        return 2 * int(self._arrays["weight"].shape[0])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the bias and all arrays."""
        return fingerprint_of("random_convolutional", {**self._arrays, "bias": np.array(self.bias)})

    def encode(self, patches: np.ndarray) -> np.ndarray:
        """Features of patches of shape (n, bands, rows, columns): float32, shape (n, dimensions).

        Raises:
            MobclipError: If the patches have another number of bands than those the encoder was fitted to.
        """
        if patches.shape[1] != self.bands:
            raise MobclipError(
                f"the image encoder was fitted to {self.bands} bands, the patches have {patches.shape[1]}; "
                "materialise imagery_encoder and imagery_patches again"
            )
        filters, _, side, _ = self._arrays["weight"].shape
        positions = (patches.shape[2] - side + 1) * (patches.shape[3] - side + 1)
        batch = max(1, _ACTIVATIONS_AT_A_TIME[self.device.type] // (filters * positions))
        result = np.empty((len(patches), self.dimensions), dtype=np.float32)
        with torch.inference_mode(), one_thread(self.device):
            for start in range(0, len(patches), batch):
                images = torch.from_numpy(np.array(patches[start : start + batch])).to(self.device, torch.float32)
                result[start : start + batch] = self._features(images).cpu().numpy()
        return result

    def encode_stream(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Features of batches of patches, in order; the next is made ready in a thread."""
        return map(self.encode, ahead(batches))

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        tensors = self._tensors
        images = (images - tensors["band_mean"][:, None, None]) / tensors["band_std"][:, None, None]
        response = functional.conv2d(images, tensors["weight"], tensors["offset"])
        positive = torch.relu(response - self.bias).mean(dim=(2, 3))
        negative = torch.relu(-response - self.bias).mean(dim=(2, 3))
        return torch.cat([positive, negative], dim=1)

    def save(self, directory: Path) -> None:
        """Write the arrays (safetensors) and the configuration (JSON)."""
        safetensors.numpy.save_file(self._arrays, str(directory / _TENSORS))
        config = {"kind": "random_convolutional", "bias": self.bias, "fingerprint": self.fingerprint}
        (directory / _CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, device: torch.device | str = "cpu") -> "RandomConvolutionalEncoder":
        """Read what `save` wrote."""
        config = json.loads((directory / _CONFIG).read_text(encoding="utf-8"))
        return cls(**safetensors.numpy.load_file(str(directory / _TENSORS)), bias=config["bias"], device=device)


def _sample_windows(patches: np.ndarray, side: int, generator: np.random.Generator) -> np.ndarray:
    """Random windows of patches, shape (m, bands, side, side): all of them where that is not too many."""
    views = np.lib.stride_tricks.sliding_window_view(patches, (side, side), axis=(2, 3))
    n, _, rows, columns = views.shape[:4]
    total = n * rows * columns
    drawn = np.arange(total)
    if total > _WHITENING_SAMPLES:
        drawn = np.sort(generator.choice(total, _WHITENING_SAMPLES, replace=False))
    patch, position = np.divmod(drawn, rows * columns)
    return views[patch, :, position // columns, position % columns].astype(np.float64)


def fingerprint_of(name: str, arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of a name and of named arrays: types, shapes and values, hexadecimal."""
    digest = hashlib.sha256(name.encode())
    for key in sorted(arrays):
        array = np.ascontiguousarray(arrays[key])
        digest.update(f"{key}:{array.dtype.str}:{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
