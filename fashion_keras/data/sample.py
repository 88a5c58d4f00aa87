"""Drawn clothing photos: a small data set of ten classes that needs no download.

Colours, patterns, sizes, tilts, backdrops and noise come from the same distributions for every
class; only shapes differ between classes.
"""

import itertools
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Array = npt.NDArray[np.floating]
Patterns = tuple[Callable[[Array, Array], Array], ...]

PHOTOS_PER_CLASS = {"train": 16, "validation": 6, "test": 6}
SUPERSAMPLING = 3

# A drawing is a label and its parts, the later covering the earlier. A part is a role, a side and
# points "x y" in percent: x counts from the garment's centre line, y from above. The side says
# what becomes of the points: "whole" joins them with their mirror image to one outline, "pair"
# draws both, "arm" is a pair that swings at the shoulder, "twice" adds a mirrored copy below and
# "single" draws them as they are. A label with several drawings gets one of them at random.
DRAWINGS = """
* dress: trim pair 8 2, 11 2, 13 20, 9 20; fabric whole 0 21, 6 16, 13 15, 15 26, 11 42, 0 43;
  fabric whole 0 42, 11 42, 22 62, 37 92, 20 97, 0 98; trim whole 0 41, 11 41, 12 46, 0 46
* dress: lining whole 0 8, 9 3, 8 12, 0 18; fabric whole 0 20, 7 14, 8 3, 14 3, 13 16, 17 25,
  12 42, 20 62, 31 96, 0 98
* hat: fabric whole 0 54, 28 53, 42 46, 46 49, 40 60, 25 69, 0 71; fabric whole 0 14, 9 10, 19 13,
  24 32, 26 56, 14 61, 0 62; trim whole 0 53, 14 52, 25 47, 26 56, 14 61, 0 62
* hat: trim single 8 48, 30 47, 50 57, 52 62, 44 63, 24 59, 4 60; fabric single -34 58, -35 42,
  -28 26, -12 17, 4 18, 18 28, 25 44, 26 57, 0 61
* longsleeve: fabric arm 19 8, 27 11, 33 22, 43 76, 34 78, 24 38, 22 28; trim arm 42 71, 44 78,
  33 80, 32 73; lining whole 0 7, 9 5, 7 11, 0 15; fabric whole 0 14, 6 11, 9 5, 22 9, 25 30,
  24 60, 25 92, 0 93; trim whole 0 14, 6 11, 9 5, 11 6, 8 13, 0 17
* outwear: fabric arm 20 8, 30 11, 38 25, 47 76, 35 79, 26 40, 24 28; fabric whole 0 -9, 11 -7,
  16 3, 14 13, 0 16; lining whole 0 7, 11 5, 16 50, 17 94, 0 94; lining whole 0 -4, 8 -2, 10 6,
  7 13, 0 15; fabric pair 9 4, 24 9, 29 30, 30 97, 9 98, 7 60, 4 34
* outwear: fabric arm 20 8, 30 11, 38 25, 47 76, 35 79, 26 40, 24 28; lining whole 0 7, 11 5,
  16 50, 17 94, 0 94; fabric pair 9 4, 24 9, 29 30, 30 97, 9 98, 7 60, 4 34; trim pair 9 3, 13 4,
  17 16, 14 19, 17 22, 6 44, 4 34; trim pair 13 64, 25 63, 25 68, 13 69
* pants: fabric whole 0 3, 16 3, 20 22, 20 55, 18 98, 7 98, 4 60, 1 30, 0 28; trim whole 0 2, 16 2,
  17 7, 0 7
* shirt: fabric arm 19 8, 27 11, 33 22, 43 76, 34 78, 24 38, 22 28; trim arm 42 71, 44 78, 33 80,
  32 73; fabric whole 0 14, 6 11, 9 5, 22 9, 25 30, 24 60, 25 86, 14 95, 0 96; lining whole 0 5,
  8 3, 7 9, 0 15; trim pair 8 0, 11 6, 13 19, 0 14, 6 7; fabric single 9 30, 19 30, 19 41, 14 44,
  9 41
* shoes: fabric twice -42 5, -44 34, 44 34, 44 27, 34 21, 18 16, 2 2, -8 2, -16 11, -32 10;
  trim twice -45 32, 45 31, 47 35, 44 40, -44 40; trim twice 28 19, 36 21, 44 27, 45 32, 25 32
* shoes: trim pair 8 12, 18 6, 30 11, 35 28, 32 55, 34 78, 28 94, 16 95, 9 80, 10 50, 5 28;
  fabric pair 9 14, 18 8, 29 13, 33 29, 30 55, 32 78, 27 91, 17 92, 11 79, 12 50, 7 29;
  lining pair 16 58, 21 54, 26 58, 28 76, 24 86, 18 86, 14 76
* shorts: fabric whole 0 20, 20 20, 27 45, 33 74, 20 79, 5 79, 2 52, 0 50; trim whole 0 19, 20 19,
  21 26, 0 26
* skirt: fabric whole 0 18, 15 18, 26 44, 40 80, 30 88, 22 84, 12 90, 5 86, 0 89; trim whole 0 16,
  15 16, 16 23, 0 23
* t-shirt: fabric arm 19 8, 26 10, 46 29, 35 42, 22 30; lining whole 0 7, 9 5, 7 11, 0 15;
  fabric whole 0 14, 6 11, 9 5, 22 9, 25 30, 24 60, 25 92, 0 93; trim whole 0 14, 6 11, 9 5, 11 6,
  8 13, 0 17
"""
LABELS: tuple[str, ...] = tuple(sorted({row.split(":")[0] for row in DRAWINGS.split("* ")[1:]}))
# A pixel of the role map holds a position in this table, and 0 where there is no garment.
ROLES = ("backdrop", "fabric", "trim", "lining", "seam")

# A pattern maps positions, in widths of the photo, to the share of a second colour.
FABRICS: Patterns = (
    lambda across, down: across * 0,
    lambda across, down: down,
    lambda across, down: np.round(across * 14 % 1),
    lambda across, down: np.round(down * 12 % 1),
    lambda across, down: np.round(across * 9 % 1) / 2 + np.round(down * 9 % 1) / 2,
    lambda across, down: 1.0 * (np.hypot(across * 13 % 1 - 0.5, down * 13 % 1 - 0.5) < 0.25),
)
BACKDROPS: Patterns = (
    lambda across, down: across * 0,
    lambda across, down: across * 0.3 + down * 0.3,
    lambda across, down: 0.4 * (down > 0.95),
    lambda across, down: np.where(down * 5 % 1 < 0.06, 0.7, 0.3 * np.sin(np.floor(down * 5) * 9)),
    lambda across, down: np.sin(across * 190) * np.sin(down * 190) * 0.15,
)


def draw_photo(
    label: str, generator: np.random.Generator, width: int = 240, height: int = 320
) -> Image.Image:
    """Draw one photo of a garment of a class in `LABELS`; `generator` decides what varies."""
    tilt = generator.normal(0, 0.08)
    roles = _draw_roles(label, generator, (width, height), tilt)
    colours = _choose_colours(generator)
    garment, soft = _cover(roles, 1), _cover(roles, 1, blur=width / 40)
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1) / width
    pixels = _paint(generator, BACKDROPS, colours[0], grid)
    pixels *= 1 - 0.4 * np.roll(soft, width // 60, axis=(0, 1))
    fabric = _paint(generator, FABRICS, colours[1], grid @ _rotation(-tilt))
    pixels += (fabric - pixels) * garment
    # With black for backdrop and fabric, the other colours come out times their cover.
    details = Image.frombytes("P", roles.size, roles.tobytes())
    details.putpalette([0] * 6 + colours[2:].clip(0, 255).astype(int).ravel().tolist())
    pixels *= 1 - _cover(roles, 2)
    pixels += np.asarray(details.convert("RGB").reduce(SUPERSAMPLING))
    # Cloth looks round where it darkens towards its edges.
    pixels *= 1 - 0.25 * (1 - soft) * garment
    pixels += generator.normal(0, generator.uniform(1, 6), pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def draw_sample(
    folder: Path, photos_per_class: Mapping[str, int] = PHOTOS_PER_CLASS, seed: int = 1
) -> Path:
    """Write the sample as folder/split/label/number.jpg, and return the folder.

    Args:
        folder: Where the sample goes.
        photos_per_class: How many photos of each class every split has.
        seed: 0 or more; it decides the photos. Asking for more photos keeps the first ones.
    """

    def draw(split: str, label: str) -> None:
        (folder / split / label).mkdir(parents=True)
        for number in range(photos_per_class[split]):
            name = f"{split}/{label}/{number:03}.jpg"
            generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
            draw_photo(label, generator).save(folder / name, quality=90)

    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda both: draw(*both), itertools.product(photos_per_class, LABELS)))
    return folder


def _draw_roles(
    label: str, generator: np.random.Generator, size: tuple[int, int], tilt: float
) -> Image.Image:
    """Draw a random garment of a class as a supersampled map of roles."""
    drawings = [text.split(":")[1] for text in DRAWINGS.split("* ") if text.startswith(f"{label}:")]
    parts = generator.choice(drawings).split(";")
    swing = generator.uniform(-0.05, 0.35)
    shapes = [shape for part in parts for shape in _outlines(part, swing)]
    joined, scale = _place(np.concatenate([points for _, points in shapes]), generator, size, tilt)
    roles = Image.new("L", (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING))
    draw, line = ImageDraw.Draw(roles), max(1, round(scale * 0.009))
    ends = np.cumsum([len(points) for _, points in shapes])
    for (role, _), points in zip(shapes, np.split(joined, ends[:-1]), strict=True):
        corners = [(float(across), float(down)) for across, down in points]
        draw.polygon(corners, ROLES.index(role))
        draw.line([*corners, corners[0]], ROLES.index("seam"), line)
    return roles


def _outlines(part: str, swing: float) -> list[tuple[str, Array]]:
    """Turn a part of a drawing into one or two shapes, each a role and its points."""
    role, side, text = part.split(maxsplit=2)
    points = np.array(text.replace(",", " ").split(), dtype=float).reshape(-1, 2) / 100
    if side == "arm":
        points = (points - (0.22, 0.1)) @ _rotation(-swing) + (0.22, 0.1)
    mirrored = points * (-1, 1)
    if side == "whole":
        return [(role, np.concatenate([points, mirrored[::-1]]))]
    copies = {"single": [], "twice": [mirrored + (0.05, 0.5)]}.get(side, [mirrored])
    return [(role, shape) for shape in (points, *copies)]


def _place(
    points: Array, generator: np.random.Generator, size: tuple[int, int], tilt: float
) -> tuple[Array, float]:
    """Deform, tilt, scale and move a garment into the photo; also return the scale."""
    waves = np.sin(points[:, ::-1] * 6 + generator.uniform(0, 6, 2))
    points = (points * generator.uniform(0.92, 1.08, 2) + 0.012 * waves) @ _rotation(tilt)
    points -= (points.min(axis=0) + points.max(axis=0)) / 2
    extent, photo = np.ptp(points, axis=0), np.array(size) * SUPERSAMPLING
    # Not the height but the area is drawn, because classes must not differ in area.
    scale = np.sqrt(generator.uniform(0.36, 0.64) * photo.prod() / extent.prod())
    scale = min(scale, *(0.95 * photo / extent))
    slack = 0.98 * photo - scale * extent
    return points * scale + photo / 2 + slack * generator.uniform(-0.5, 0.5, 2), scale


def _rotation(angle: float) -> Array:
    """Return the matrix that turns rows of points by an angle in radians."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _choose_colours(generator: np.random.Generator) -> Array:
    """Draw a colour for every role."""
    level = generator.uniform(25, 230)
    # Going round the scale keeps garment and backdrop apart without favouring dark or light.
    backdrop = 20 + (level - 20 + generator.uniform(60, 155)) % 215
    trim, seam = level + generator.choice([-35, 35]), level + (-50 if level > 80 else 35)
    levels = np.array([backdrop, level, trim, level * 0.45, seam])
    return levels[:, None] + generator.normal(0, 28, (2, 3))[[0, 1, 1, 1, 1]]


def _paint(generator: np.random.Generator, patterns: Patterns, colour: Array, grid: Array) -> Array:
    """Fill a photo with a colour, a random pattern of a second one, and soft light and shade."""
    across, down = np.moveaxis(grid * generator.uniform(0.8, 1.25), -1, 0)
    share = patterns[generator.integers(len(patterns))](across, down)[..., None]
    clouds = Image.fromarray(generator.normal(1, 0.07, (7, 5)).astype(np.float32))
    light = clouds.resize(across.shape[::-1], Image.Resampling.BICUBIC)
    return (colour + share * generator.normal(0, 40, 3)) * np.asarray(light)[..., None]


def _cover(roles: Image.Image, first: int, blur: float = 0) -> Array:
    """Return the share of every pixel of the photo that has the first wanted role or a later."""
    mask = roles.point([255 * (role >= first) for role in range(256)]).reduce(SUPERSAMPLING)
    return np.asarray(mask.filter(ImageFilter.GaussianBlur(blur)), dtype=float)[..., None] / 255
