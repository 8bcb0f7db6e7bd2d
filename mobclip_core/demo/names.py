"""Names of POIs: words that say what a place is, how rich its street is, and which community feels at home there.

Belongs here: word lists and how they are drawn. Does not belong here: where POIs are (see `poi`).
"""

from collections.abc import Sequence

import numpy as np

from mobclip_core.demo.factors import sigmoid
from mobclip_core.demo.world import World

_GRAND = ("Royal", "Grand", "Golden")
_PLAIN = ("Corner", "Old", "New")
_CHEAP = ("Budget", "Bargain", "Penny")
_COMMUNITIES = (
    ("Anselm", "Brava", "Corvina", "Duarte"),
    ("Fjeld", "Grimsa", "Hallund", "Ingvar"),
    ("Laoghe", "Maelwyn", "Niamor", "Oisean"),
    ("Market", "Station", "River", "Garden"),
)
_NOUNS: dict[str, tuple[str, ...]] = {
    "restaurant": ("Grill", "Kitchen"),
    "cafe": ("Coffee", "Tea Room"),
    "bar": ("Tavern", "Taproom"),
    "nightclub": ("Club", "Disco"),
    "hotel": ("Hotel", "Inn"),
    "viewpoint": ("Lookout", "Panorama"),
    "supermarket": ("Foods", "Supermarket"),
    "fashion_shop": ("Fashion", "Clothing"),
    "jeweller": ("Jewellers", "Watches"),
    "discount_store": ("Discount", "Outlet"),
    "bank": ("Bank", "Savings"),
    "office": ("Partners", "Consulting"),
    "factory": ("Works", "Metal"),
    "warehouse": ("Logistics", "Storage"),
    "farm": ("Farm", "Dairy"),
    "alpine_hut": ("Hut", "Shelter"),
    "playground": ("Playground", "Play Park"),
    "care_home": ("Care Home", "Residence"),
    "clinic": ("Clinic", "Health Centre"),
    "school": ("School", "Academy"),
}


def _pick(rng: np.random.Generator, words: np.ndarray, group: np.ndarray) -> np.ndarray:
    """One word of the row `group` of a table of words, for each group."""
    return np.asarray(words[group, rng.integers(0, words.shape[1], len(group))])


def draw_names(
    rng: np.random.Generator, world: World, kinds: Sequence[str], kind: np.ndarray, point: np.ndarray
) -> np.ndarray:
    """Names of POIs.

    Args:
        rng: Random numbers.
        world: The world.
        kinds: Categories.
        kind: Index of each POI's category, shape (n,).
        point: Index of each POI's lattice point on land, shape (n,).

    Returns:
        Strings of the form "<how rich> <community> <what>", shape (n,).
    """
    wealth = world.on_land(world.factors.wealth)[point]
    grand, cheap = sigmoid(1.1 * wealth - 1.2), sigmoid(-1.1 * wealth - 1.2)
    draw = rng.random(len(point))
    tier = np.where(draw < grand, 0, np.where(draw > 1 - cheap, 2, 1))
    appeal = [0.9 * world.on_land(field)[point] for field in world.factors.culture] + [np.full(len(point), 0.8)]
    # Gumbel noise makes the largest a draw from the softmax
    community = np.argmax(np.stack(appeal) + rng.gumbel(size=(len(appeal), len(point))), axis=0)
    words = [
        _pick(rng, np.array([_GRAND, _PLAIN, _CHEAP]), tier),
        _pick(rng, np.array(_COMMUNITIES), community),
        _pick(rng, np.array([_NOUNS[name] for name in kinds]), kind),
    ]
    return np.char.add(np.char.add(np.char.add(np.char.add(words[0], " "), words[1]), " "), words[2])
