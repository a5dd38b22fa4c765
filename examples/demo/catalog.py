"""A drawn shop: product pictures, their captions, and composed queries with known answers.

Every picture shows a `Product` (category, colour, pattern), drawn by Pillow at a random size and place,
with a random tilt and background. Nothing is downloaded, and one seed always draws the same shop.
`HELD_OUT` is 15 % of the attribute combinations. No training may see them, neither that of the `tiny`
backbone nor a composer's; the searched catalog contains them.
"""

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from PIL import Image, ImageChops, ImageDraw, ImageFilter

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (208, 32, 38),
    "orange": (242, 128, 24),
    "yellow": (248, 212, 40),
    "green": (48, 150, 62),
    "teal": (20, 150, 150),
    "blue": (44, 96, 214),
    "navy": (24, 34, 88),
    "purple": (122, 52, 160),
    "pink": (244, 140, 178),
    "brown": (116, 70, 36),
    "beige": (222, 200, 164),
    "black": (26, 26, 28),
    "grey": (132, 134, 138),
    "white": (248, 248, 246),
}
PATTERNS = ("plain", "striped", "dotted", "checked")
_LIGHT = {"yellow", "pink", "beige", "white"}
_BACKGROUNDS = (
    (236, 236, 234),
    (214, 222, 228),
    (230, 220, 210),
    (206, 218, 206),
    (222, 212, 226),
    (200, 200, 204),
    (240, 232, 214),
    (188, 204, 216),
)

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, top, right and bottom, as fractions of a picture's sides."""
# Outlines in the unit square, y down. A polygon is drawn filled; "hole" is cut out; "line" is a seam.
_Shape = tuple[str, list[Point]]
_SHAPES: dict[str, list[_Shape]] = {
    "dress": [
        ("polygon", [(0.36, 0.06), (0.42, 0.14), (0.58, 0.14), (0.64, 0.06), (0.66, 0.28), (0.59, 0.44),
                     (0.84, 0.94), (0.16, 0.94), (0.41, 0.44), (0.34, 0.28)]),
        ("line", [(0.41, 0.44), (0.59, 0.44)]),
    ],
    "t-shirt": [
        ("polygon", [(0.34, 0.14), (0.44, 0.19), (0.56, 0.19), (0.66, 0.14), (0.96, 0.32), (0.86, 0.50),
                     (0.73, 0.43), (0.73, 0.88), (0.27, 0.88), (0.27, 0.43), (0.14, 0.50), (0.04, 0.32)]),
        ("line", [(0.27, 0.43), (0.30, 0.28)]),
        ("line", [(0.73, 0.43), (0.70, 0.28)]),
    ],
    "vase": [
        ("ellipse", [(0.22, 0.40), (0.78, 0.92)]),
        ("polygon", [(0.34, 0.06), (0.66, 0.06), (0.60, 0.20), (0.59, 0.34), (0.74, 0.54), (0.66, 0.94),
                     (0.34, 0.94), (0.26, 0.54), (0.41, 0.34), (0.40, 0.20)]),
        ("line", [(0.40, 0.20), (0.60, 0.20)]),
    ],
    "skirt": [
        ("polygon", [(0.34, 0.20), (0.66, 0.20), (0.92, 0.78), (0.70, 0.84), (0.50, 0.86), (0.30, 0.84),
                     (0.08, 0.78)]),
        ("line", [(0.33, 0.27), (0.67, 0.27)]),
        ("line", [(0.44, 0.30), (0.36, 0.82)]),
        ("line", [(0.56, 0.30), (0.64, 0.82)]),
    ],
    "hat": [
        ("ellipse", [(0.02, 0.58), (0.98, 0.82)]),
        ("polygon", [(0.27, 0.70), (0.30, 0.32), (0.40, 0.22), (0.60, 0.22), (0.70, 0.32), (0.73, 0.70)]),
        ("line", [(0.28, 0.60), (0.72, 0.60)]),
    ],
    "boot": [
        ("polygon", [(0.30, 0.06), (0.60, 0.06), (0.60, 0.56), (0.88, 0.68), (0.93, 0.80), (0.93, 0.90),
                     (0.46, 0.90), (0.42, 0.82), (0.40, 0.94), (0.28, 0.94)]),
        ("line", [(0.30, 0.80), (0.93, 0.82)]),
    ],
    "handbag": [
        ("ellipse", [(0.28, 0.08), (0.72, 0.72)]),
        ("hole", [(0.35, 0.16), (0.65, 0.70)]),
        ("polygon", [(0.14, 0.42), (0.86, 0.42), (0.94, 0.88), (0.06, 0.88)]),
        ("line", [(0.13, 0.54), (0.87, 0.54)]),
    ],
    "umbrella": [
        ("dome", [(0.04, 0.10), (0.96, 0.90)]),
        ("stick", [(0.50, 0.48), (0.50, 0.90), (0.58, 0.95), (0.64, 0.88)]),
        ("line", [(0.50, 0.10), (0.34, 0.50)]),
        ("line", [(0.50, 0.10), (0.66, 0.50)]),
    ],
    "mug": [
        ("ellipse", [(0.56, 0.30), (0.94, 0.72)]),
        ("hole", [(0.64, 0.39), (0.85, 0.63)]),
        ("polygon", [(0.12, 0.18), (0.70, 0.18), (0.66, 0.86), (0.16, 0.86)]),
        ("line", [(0.12, 0.25), (0.70, 0.25)]),
    ],
    "chair": [
        ("polygon", [(0.24, 0.06), (0.72, 0.06), (0.70, 0.50), (0.82, 0.50), (0.86, 0.62), (0.16, 0.62),
                     (0.20, 0.50), (0.26, 0.50)]),
        ("stick", [(0.22, 0.60), (0.18, 0.95)]),
        ("stick", [(0.80, 0.60), (0.84, 0.95)]),
        ("stick", [(0.36, 0.60), (0.35, 0.88)]),
        ("stick", [(0.66, 0.60), (0.67, 0.88)]),
        ("line", [(0.25, 0.50), (0.71, 0.50)]),
    ],
}  # fmt: skip
CATEGORIES = tuple(_SHAPES)


@dataclass(frozen=True)
class Product:
    """A combination of attributes, which a picture shows or a query asks for."""

    category: str
    colour: str
    pattern: str


Transition = tuple[str, str, str]
"""A change of one attribute: its name, the old and the new value."""


def changes(old: Product, new: Product) -> list[Transition]:
    """Return the attributes in which two products differ, with the old and the new value."""
    values = ((name, getattr(old, name), getattr(new, name)) for name in ("colour", "pattern", "category"))
    return [change for change in values if change[1] != change[2]]


ALL_PRODUCTS = tuple(Product(*row) for row in itertools.product(CATEGORIES, COLOURS, PATTERNS))
HELD_OUT = frozenset(random.Random(20240601).sample(ALL_PRODUCTS, round(0.15 * len(ALL_PRODUCTS))))
SEEN = tuple(p for p in ALL_PRODUCTS if p not in HELD_OUT)


# --- pictures ------------------------------------------------------------------------------------


def draw(product: Product, rng: random.Random, size: int = 192) -> Image.Image:
    """Draw `product` as an RGB picture of `size` x `size` pixels; all randomness comes from `rng`."""
    canvas = 2 * size
    background = _background(rng, canvas)
    extent = round(canvas * rng.uniform(0.58, 0.94))
    mask, seams = _outline(product.category, extent)
    colour = _jitter(COLOURS[product.colour], rng, 10)
    skin = _skin(product, colour, extent, rng)
    skin.paste(_shade(colour, 0.62), (0, 0), seams)
    shadow = ImageChops.multiply(mask, Image.linear_gradient("L").rotate(90).resize(mask.size))
    skin.paste((0, 0, 0), (0, 0), shadow.point([v // 7 for v in range(256)]))
    angle = rng.uniform(-14, 14)
    skin, mask = (layer.rotate(angle, Image.Resampling.BILINEAR, expand=True) for layer in (skin, mask))
    left = round((canvas - mask.width) * rng.uniform(0.1, 0.9))
    top = round((canvas - mask.height) * rng.uniform(0.1, 0.9))
    rim = mask.filter(ImageFilter.MaxFilter(5))
    background.paste(_shade(colour, 0.55), (left, top), rim)
    background.paste(skin, (left, top), mask)
    return background.resize((size, size), Image.Resampling.BOX)


def draw_scene(product: Product, rng: random.Random, size: int = 192) -> tuple[Image.Image, Box]:
    """Draw `product` beside a loud distraction: a strip with other products on a vivid, patterned background.

    Returns:
        The picture, and the strip's box as fractions of the picture's sides.
    """
    share = rng.uniform(0.3, 0.42)
    kept = round(size * (1 - share))
    scene = draw(product, rng, size).resize((size, size))
    scene.paste(scene.resize((1, 1), Image.Resampling.BOX).resize((size, size)), (0, 0))
    strip = _distraction(rng, size, size - kept)
    upright, first = rng.random() < 0.5, rng.random() < 0.5
    if not upright:
        strip = strip.transpose(Image.Transpose.ROTATE_90)
    at = 0 if first else kept
    along = rng.randrange(size - kept + 1)
    place = (size - kept if first else 0, along)
    scene.paste(draw(product, rng, kept), place if upright else place[::-1])
    scene.paste(strip, (at, 0) if upright else (0, at))
    low, high = at / size, (at + size - kept) / size
    return scene, (low, 0.0, high, 1.0) if upright else (0.0, low, 1.0, high)


def _distraction(rng: random.Random, height: int, width: int) -> Image.Image:
    ground = Product(rng.choice(CATEGORIES), rng.choice(list(COLOURS)), rng.choice(PATTERNS))
    strip = _skin(ground, COLOURS[ground.colour], height, rng).crop((0, 0, width, height))
    for at in range(0, height - width + 1, width):
        other = Product(rng.choice(CATEGORIES), rng.choice(list(COLOURS)), rng.choice(PATTERNS))
        mask, seams = _outline(other.category, width)
        skin = _skin(other, COLOURS[other.colour], width, rng)
        skin.paste(_shade(COLOURS[other.colour], 0.62), (0, 0), seams)
        strip.paste(skin, (0, at), mask)
    return strip


def _background(rng: random.Random, canvas: int) -> Image.Image:
    top = _jitter(rng.choice(_BACKGROUNDS), rng, 8)
    bottom = _jitter(rng.choice(_BACKGROUNDS), rng, 8) if rng.random() < 0.5 else _shade(top, 0.93)
    picture = Image.new("RGB", (canvas, canvas), top)
    if rng.random() < 0.5:
        picture.paste(bottom, (0, 0), Image.linear_gradient("L").resize((canvas, canvas)))
    else:
        picture.paste(bottom, (0, round(canvas * rng.uniform(0.6, 0.9)), canvas, canvas))
    return picture


def _outline(category: str, extent: int) -> tuple[Image.Image, Image.Image]:
    mask, seams = Image.new("L", (extent, extent)), Image.new("L", (extent, extent))
    pen, seam_pen = ImageDraw.Draw(mask), ImageDraw.Draw(seams)
    for kind, unit_points in _SHAPES[category]:
        points = [(x * extent, y * extent) for x, y in unit_points]
        if kind == "polygon":
            pen.polygon(points, fill=255)
        elif kind == "ellipse":
            pen.ellipse(points, fill=255)
        elif kind == "dome":
            pen.pieslice(points, 180, 360, fill=255)
        elif kind == "hole":
            pen.ellipse(points, fill=0)
        elif kind == "stick":
            pen.line(points, fill=255, width=max(2, extent // 18), joint="curve")
        else:
            seam_pen.line(points, fill=255, width=max(1, extent // 70))
    return mask, seams


def _skin(product: Product, colour: tuple[int, int, int], extent: int, rng: random.Random) -> Image.Image:
    skin = Image.new("RGB", (extent, extent), colour)
    if product.pattern == "plain":
        return skin
    ink = _jitter((70, 70, 78) if product.colour in _LIGHT else (244, 244, 240), rng, 8)
    pen = ImageDraw.Draw(skin)
    period = extent * rng.uniform(0.13, 0.17)
    phase = rng.uniform(0, period)
    steps = [phase + k * period for k in range(-1, math.ceil(extent / period) + 1)]
    if product.pattern == "dotted":
        radius = period * 0.29
        for (row, y), x in itertools.product(enumerate(steps), steps):
            x += period / 2 * (row % 2)
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)
    else:
        width = round(period * (0.42 if product.pattern == "striped" else 0.24))
        for at in steps:
            pen.line((0, at, extent, at), fill=ink, width=width)
            if product.pattern == "checked":
                pen.line((at, 0, at, extent), fill=ink, width=width)
    return skin


def _jitter(colour: tuple[int, int, int], rng: random.Random, spread: int) -> tuple[int, int, int]:
    red, green, blue = (min(255, max(0, c + rng.randint(-spread, spread))) for c in colour)
    return red, green, blue


def _shade(colour: tuple[int, int, int], factor: float) -> tuple[int, int, int]:
    red, green, blue = (round(c * factor) for c in colour)
    return red, green, blue


# --- words ---------------------------------------------------------------------------------------

_ADJECTIVES = {
    "plain": ("plain", "solid"),
    "striped": ("striped", "stripy"),
    "dotted": ("dotted", "polka dot"),
    "checked": ("checked", "checkered"),
}
_NOUNS = {
    "plain": ("no pattern", "a plain finish"),
    "striped": ("stripes", "a striped pattern"),
    "dotted": ("dots", "a dotted pattern"),
    "checked": ("checks", "a checked pattern"),
}
_PHRASES = (
    "{a} {colour} {pattern} {category}",
    "{a} {pattern} {category} in {colour}",
    "{a} {colour} {category} with {noun}",
    "{a} {category} that is {colour} and {pattern}",
    "{a} {category} that is {pattern} and {colour}",
    "{a} {colour} {category} that is {pattern}",
    "{a} {pattern} {category} that is {colour}",
    "{a} {category} that is {colour} with {noun}",
    "{a} {colour} product that is {a2} {category} with {noun}",
    "{a} {pattern} {colour} thing that is {a2} {category}",
    "{category}, {colour}, {pattern}",
    "{colour} {category} , {pattern}",
    "this {category} is {colour} and has {noun}",
)
_OPENINGS = ("", "", "a photo of ", "a picture of ", "a product photo of ")


def caption(product: Product, rng: random.Random) -> str:
    """Describe `product` in one of several phrasings."""
    phrase = rng.choice(_PHRASES)
    text = phrase.format(
        a="@",
        a2="@",
        colour=product.colour,
        category=product.category,
        pattern=rng.choice(_ADJECTIVES[product.pattern]),
        noun=rng.choice(_NOUNS[product.pattern]),
    )
    if phrase.startswith("{a}"):
        text = rng.choice(_OPENINGS) + text
    words = text.split()
    for at, word in enumerate(words):
        if word == "@":
            words[at] = _article(words[at + 1])
    return " ".join(words)


_LINE_NAMES = ["emma", "olivia", "sophia", "isabella", "charlotte", "amelia", "mia", "harper", "evelyn", "abigail", "emily", "ella", "elizabeth", "camila", "luna", "sofia", "avery", "mila", "aria", "scarlett", "penelope", "layla", "chloe", "victoria", "madison", "eleanor", "nora", "riley", "zoey", "hannah", "ellie", "lillian", "zoe", "stella", "aurora", "natalie", "emilia", "leah", "aubrey", "addison", "lucy", "audrey", "bella", "brooklyn", "paisley", "savannah", "claire", "skylar", "isla", "naomi", "elena", "caroline", "anna", "maya", "valentina", "kennedy", "ariana", "aaliyah", "cora", "alice", "hailey", "allison", "serenity", "samantha", "sarah", "quinn", "eva", "piper", "sophie", "sadie", "josephine", "arya", "emery", "lydia", "clara", "vivian", "madeline", "peyton", "julia", "reagan", "natalia", "athena", "maria", "melanie", "mackenzie", "hadley", "kaylee", "isabelle", "eliza", "katherine", "kylie", "mary", "margaret", "alexandra", "jasmine", "charlie", "amaya", "isabel", "ashley", "khloe", "alexa", "amara", "andrea", "brianna", "valerie", "anastasia", "emerson", "cecilia", "remi", "josie", "reese", "bailey", "lucia", "molly", "sara", "london", "esther", "genevieve", "annabelle", "alyssa", "ariel", "juliana", "morgan", "juliette", "callie", "sienna", "mckenna", "alana", "oliver", "liam", "noah", "elijah", "lucas", "logan", "ethan", "james", "aiden", "sebastian", "jacob", "michael", "daniel", "henry", "jackson", "samuel", "david", "matthew", "joseph", "owen", "wyatt", "john", "jack", "luke", "dylan", "grayson", "levi", "isaac", "gabriel", "julian", "mateo", "anthony", "lincoln", "joshua", "christopher", "andrew", "theodore", "caleb", "ryan", "asher", "nathan", "thomas", "leo", "isaiah", "charles", "hudson", "christian", "connor", "eli", "ezra", "aaron", "landon", "adrian", "jonathan", "nolan", "jeremiah", "easton", "elias", "colton", "cameron", "carson", "robert", "maverick", "nicholas", "dominic", "adam", "ian", "austin", "santiago", "jordan", "roman", "evan", "ezekiel", "xavier", "jose", "jace", "jameson", "leonardo", "bryson", "axel", "everett", "sawyer", "jason", "declan", "weston", "micah", "wesley", "luca", "vincent", "damian", "zachary", "gavin", "kai", "emmett", "harrison", "nathaniel", "kingston", "cole", "tyler", "bennett", "bentley", "tristan", "brandon", "kevin", "luis", "george", "ashton", "rowan", "braxton", "ryder", "gael", "ivan", "diego", "maxwell", "carlos", "juan", "justin", "calvin", "giovanni", "jonah", "abel", "amir", "beau", "camden", "alex", "jasper", "brody", "blake", "emmanuel", "eric", "elliot", "antonio", "abraham", "timothy", "rhett", "elliott", "edward", "xander", "alan", "lorenzo", "bryce", "victor", "milo", "miguel", "hayden", "graham", "zion", "tucker", "jesse", "joel", "richard", "patrick", "nicolas", "dawson", "myles", "matteo", "steven", "thiago", "zane", "judah", "jeremy", "preston", "oscar", "alejandro", "marcus", "peter", "maximus", "barrett", "jax", "andres", "holden", "knox", "kenneth"]  # fmt: skip
LINES: dict[Product, str] = dict(zip(random.Random(3).sample(SEEN, len(_LINE_NAMES)), _LINE_NAMES, strict=True))
"""Product lines: a name that stands for one combination, as shops name their lines."""

_LINE_PHRASES = {
    None: ("{n_a} {n}", "the {n}", "one {n}"),
    "colour": ("{n_a} {n} in {v}", "{v_a} {v} {n}", "the {n} that is {v}", "{n_a} {n} that is {v}", "{n}, {v}"),
    "pattern": ("{n_a} {n} with {w}", "{v_a} {v} {n}", "{n_a} {n} that is {v}", "{n_a} {n} that has {w}", "{n}, {v}"),
    "category": (
        "{n_a} {n} {v}",
        "{n_a} {n} as {v_a} {v}",
        "{n_a} {n} that is {v_a} {v}",
        "{v_a} {v} like the {n}",
        "{n}, {v}",
    ),
}


def line_caption(product: Product, rng: random.Random) -> str:
    """Describe `product` by a line's name, alone or with the one attribute in which it differs from the line.

    A pseudo-word acts like such a name: it implies a look, which other words then override ("the luna in red"). Large
    CLIPs know many such words from the web. A product without a line that near gets a `caption`.
    """
    near: list[tuple[str | None, Product]] = [(None, product)]
    for change, values in (("colour", tuple(COLOURS)), ("pattern", PATTERNS), ("category", CATEGORIES)):
        near += [(change, replace(product, **{change: v})) for v in values if v != getattr(product, change)]
    named = [(change, other) for change, other in near if other in LINES]
    changes = sorted({change or "" for change, _ in named})
    if not changes:
        return caption(product, rng)
    picked = rng.choice(changes)
    change, other = rng.choice([entry for entry in named if (entry[0] or "") == picked])
    name = LINES[other]
    value = word = getattr(product, change) if change else ""
    if change == "pattern":
        value, word = rng.choice(_ADJECTIVES[product.pattern]), rng.choice(_NOUNS[product.pattern])
    text = rng.choice(_LINE_PHRASES[change]).format(n=name, n_a=_article(name), v=value, v_a=_article(value), w=word)
    return rng.choice(_OPENINGS) + text


_BRANDS = (
    "norvik", "halden & co", "bellamont", "urban oak", "casa lumo", "tramont", "fjordline", "kestrel", "mara vale", "ostrya",
    "pinewood", "quay street", "solenne", "vantor", "wren & sons", "zephyr",
)  # fmt: skip
_LINES = (
    "classic", "essential", "weekend", "studio", "heritage", "nova", "core", "signature", "breeze", "metro", "alpine",
    "coastal", "edition 2", "premium", "lite",
)  # fmt: skip
_SIZES = (
    "s",
    "m",
    "l",
    "xl",
    "xxl",
    "one size",
    "size 38",
    "size 40",
    "eu 42",
    "30 cm",
    "350 ml",
    "2-pack",
    "set of 2",
)
_EXTRAS = ("new", "sale", "best price", "free shipping", "bestseller", "2024", "limited stock", "gift idea")
_SEPARATORS = (" ", " ", " ", " - ", ", ", " | ")
_ABBREVIATED = {"black": "blk", "white": "wht", "navy": "navy blue", "grey": "gray"}
MISSING_SHARE, WRONG_SHARE, REPEATED_SHARE = 0.5, 0.1, 0.08
"""Shares of the rough captions in which attributes are missing, one is wrong, and which repeat an earlier caption."""


def rough_caption(product: Product, rng: random.Random) -> str:
    """Describe `product` as shops write titles: brand, line, size and code among the attributes, in free order.

    In half of the captions the colour or the pattern is missing, sometimes both; in one of ten an attribute is wrong,
    and the combination is never one of `HELD_OUT`.
    """
    if rng.random() < WRONG_SHARE:
        wrong = _one_off(product)
        product = rng.choice(wrong[rng.choice(sorted(wrong))])
    missing: tuple[str, ...] = ()
    if rng.random() < MISSING_SHARE:
        missing = rng.choice((("colour",), ("pattern",), ("pattern",), ("colour", "pattern")))
    colour = _ABBREVIATED.get(product.colour, "") if rng.random() < 0.15 else ""
    attributes = []
    if "pattern" not in missing:
        attributes.append(rng.choice(_ADJECTIVES[product.pattern]))
    if "colour" not in missing:
        attributes.append(colour or product.colour)
    rng.shuffle(attributes)
    if rng.random() < 0.6:
        pieces = [" ".join([*attributes, product.category])]
    else:
        pieces = [product.category, *attributes]
        rng.shuffle(pieces)
    for words, share in ((_LINES, 0.4), (_SIZES, 0.35), (_EXTRAS, 0.2)):
        if rng.random() < share:
            pieces.insert(rng.randint(0, len(pieces)), rng.choice(words))
    if rng.random() < 0.7:
        pieces.insert(0 if rng.random() < 0.8 else len(pieces), rng.choice(_BRANDS))
    if rng.random() < 0.3:
        pieces.append(f"{rng.choice('ABKMSX')}{rng.choice('DKLNT')}{rng.randint(100, 9999)}")
    text = rng.choice(_SEPARATORS).join(pieces)
    return rng.choice((text, text, text.title(), text.upper()))


@cache
def _one_off(product: Product) -> dict[str, list[Product]]:
    """Return the products of `SEEN` that differ from `product` in one attribute, by that attribute."""
    found: dict[str, list[Product]] = {}
    for other in SEEN:
        differing = changes(product, other)
        if len(differing) == 1:
            found.setdefault(differing[0][0], []).append(other)
    return found


def rough_captions(products: Sequence[Product], rng: random.Random) -> Iterator[str]:
    """Yield a `rough_caption` for each product; some repeat the caption of an earlier product."""
    written: list[str] = []
    for product in products:
        repeats = bool(written) and rng.random() < REPEATED_SHARE
        written.append(rng.choice(written) if repeats else rough_caption(product, rng))
        yield written[-1]


def _article(word: str) -> str:
    return "an" if word[:1] in tuple("aeiou") else "a"


def full_caption(product: Product) -> str:
    """Return a plain sentence that names all three attributes: the text query for the true target."""
    return f"a photo of {_article(product.colour)} {product.colour} {product.pattern} {product.category}"


# --- composed queries ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Query:
    """A composed query: a reference picture (an index of the catalog), a text, and the product that they ask for."""

    reference: int
    text: str
    target: Product
    change: str  # "colour", "pattern" or "category"
    wording: str  # one of the wordings for `change`


def catalog(count: int = 3000, seed: int = 7) -> list[Product]:
    """Draw the products of a shop of `count` pictures: every combination about equally often, shuffled."""
    rng = random.Random(seed)
    rounds = [rng.sample(ALL_PRODUCTS, len(ALL_PRODUCTS)) for _ in range(-(-count // len(ALL_PRODUCTS)))]
    return list(itertools.chain.from_iterable(rounds))[:count]


def pictures(products: list[Product], seed: int = 7, size: int = 192) -> Iterator[Image.Image]:
    """Draw the pictures of `products`; picture k depends only on its product, `seed` and k."""
    for index, product in enumerate(products):
        yield draw(product, random.Random(f"{seed}/{index}"), size)


QUERY_WORDINGS = {
    "colour": ("is {v}", "is {v} in colour", "comes in {v}", "has the colour {v}"),
    "pattern": ("is {v}", "has a {v} pattern", "looks {v}", "comes {v}"),
    "category": ("is {a} {v}", "is {a} {v} instead", "takes the form of {a} {v}", "shows {a} {v}"),
}
"""Wordings of queries by the attribute that changes: `{v}` is its value, `{a}` the article. No composer is trained on them."""


def queries(
    products: list[Product], count: int, seed: int, wordings: Mapping[str, Sequence[str]] = QUERY_WORDINGS
) -> list[Query]:
    """Draw `count` composed queries over `products`; each changes one attribute of a picture.

    A hit is any other picture with exactly the target's attributes; every query has at least one.

    Args:
        wordings: by the attribute that changes, in the form of `QUERY_WORDINGS`.
    """
    rng = random.Random(seed)
    stock: dict[Product, list[int]] = {}
    for index, product in enumerate(products):
        stock.setdefault(product, []).append(index)
    found: list[Query] = []
    while len(found) < count:
        reference = rng.randrange(len(products))
        change = ("colour", "pattern", "category")[len(found) % 3]
        values = {"colour": tuple(COLOURS), "pattern": PATTERNS, "category": CATEGORIES}[change]
        value = rng.choice([v for v in values if v != getattr(products[reference], change)])
        target = replace(products[reference], **{change: value})
        if target not in stock:
            continue
        wording = rng.choice(wordings[change])
        found.append(Query(reference, wording.format(v=value, a=_article(value)), target, change, wording))
    return found
