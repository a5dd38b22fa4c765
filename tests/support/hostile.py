"""Drawn files for the tests of `cir_vectorizer.pictures.images`: hostile ones with a reason, odd but good ones with a colour.

Every file is small on disk (2.1 MB at most) and drawn by code, the same each time; none is a link.
"""

import io
import json
import pickle
import random
import struct
import wave
import zipfile
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
PNG_START = b"\x89PNG\r\n\x1a\n"
DEFLATE = 8


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def noise(width: int = 48, height: int = 32) -> Image.Image:
    """A picture that compresses badly, so that half of the file holds half of the pixels."""
    return Image.frombytes("RGB", (width, height), random.Random(7).randbytes(width * height * 3))


def halves(left: Any, right: Any, mode: str = "RGB") -> Image.Image:
    picture = Image.new(mode, (40, 40), right)
    picture.paste(left, (0, 0, 20, 40))
    return picture


def plain(colour: Any = RED, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (40, 40), colour)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, pixels: bytes, depth: int = 8, colour: int = 2, before: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return PNG_START + header + before + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def deflated_zeros(count: int) -> bytes:
    """Return `count` zeros deflated about 1 to 1000, without holding them all in memory."""
    press = zlib.compressobj(9)
    block = bytes(2**20)
    whole = b"".join(press.compress(block) for _ in range(count // len(block)))
    return whole + press.compress(bytes(count % len(block))) + press.flush()


def idat_bomb() -> bytes:
    """A PNG of 10 × 10 pixels whose pixel data unpacks to 256 MiB."""
    return png(10, 10, deflated_zeros(2**28))


def tiff(tags: dict[int, tuple[int, int]], data: bytes) -> bytes:
    """A little-endian TIFF of one directory; `tags` maps a number to (type, value), None stands for the offset of the data."""
    start = 8 + 2 + 12 * len(tags) + 4
    entries = (
        struct.pack("<HHII", tag, kind, 1, start if value < 0 else value) for tag, (kind, value) in sorted(tags.items())
    )
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(entries) + bytes(4) + data


def gray_tiff(width: int, height: int, data: bytes, **more: int) -> bytes:
    tags = {256: (4, width), 257: (4, height), 258: (3, 8), 259: (3, 1), 262: (3, 1), 277: (3, 1)}
    strip = {273: (4, -1), 278: (4, height), 279: (4, len(data))}
    return tiff(tags | strip | {int(tag[1:]): (4, value) for tag, value in more.items()}, data)


def tile_bomb() -> bytes:
    """A TIFF of 100 × 100 pixels in one tile of 9,000 × 9,000."""
    data = deflated_zeros(9000 * 9000)
    tags = {256: (4, 100), 257: (4, 100), 258: (3, 8), 259: (3, DEFLATE), 262: (3, 1), 277: (3, 1)}
    return tiff(tags | {322: (4, 9000), 323: (4, 9000), 324: (4, -1), 325: (4, len(data))}, data)


def bmp(width: int, height: int, colours: int = 0, bits: int = 24) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, 0, 0, 0, colours, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54) + header + bytes(64)


def patched(data: bytes, after: bytes, skip: int, new: bytes) -> bytes:
    """`data` with `new` written `skip` bytes after the end of the first `after`."""
    at = data.index(after) + len(after) + skip
    return data[:at] + new + data[at + len(new) :]


def gif_with(extension: bytes) -> bytes:
    data = encoded(plain(mode="P", colour=1), "GIF")
    start = 13 + (3 << (data[10] & 7) + 1)
    return data[:start] + extension + data[start:]


def jpeg_with(segment: bytes) -> bytes:
    data = encoded(plain(), "JPEG")
    return data[:2] + segment + data[2:]


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 255, marker, len(data) + 2) + data


def many_scans(before: bytes = b"") -> bytes:
    """A progressive JPEG that refines the same pixels 200 times."""
    data = encoded(plain(), "JPEG", progressive=True)
    return data[:2] + before + data[2:-2] + data[data.rindex(b"\xff\xda") : -2] * 200 + b"\xff\xd9"


def broken_apng(frame: int) -> bytes:
    """An animated PNG of which one frame, counted from 0, claims to be 9,000 × 9,000."""
    data = _in_frames("PNG", duration=50)
    at = -1
    for _ in range(frame + 1):
        at = data.index(b"fcTL", at + 1)
    control = data[at + 4 : at + 30]
    return (
        data[: at - 4] + chunk(b"fcTL", control[:4] + struct.pack(">II", 9000, 9000) + control[12:]) + data[at + 34 :]
    )


def _wav() -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as sound:
        sound.setparams((1, 1, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(100))
    return stream.getvalue()


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("picture.png", encoded(plain(), "PNG"))
    return stream.getvalue()


def _metadata_bomb(kind: bytes, start: bytes) -> bytes:
    return png(1, 1, zlib.compress(bytes(4)), before=chunk(kind, start + deflated_zeros(2**24)))


def _format_files() -> dict[str, bytes]:
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'
    ftyp = b"\0\0\0\x18ftyp"
    return {
        "text.jpg": "Ein rotes Kleid mit Ärmeln.\n".encode() * 9,
        "latin-text.jpg": "Ein rotes Kleid mit Ärmeln.\n".encode("latin-1"),
        "utf16-text.jpg": "Ein rotes Kleid".encode("utf-16"),
        "page.jpg": b"\xef\xbb\xbf\r\n <!DOCTYPE html>\n<html><svg></svg><body>Please log in</body></html>",
        "drawing.png": svg,
        "drawing-with-prolog.png": b'<?xml version="1.0"?>\n<!-- made by hand -->\n' + svg,
        "error.jpg": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        "answer.jpg": json.dumps({"error": "not found"}).encode(),
        "list.jpg": b"[]",
        "pointer.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
        "base64.jpg": b"/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkS",
        "document.jpg": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n",
        "drawing.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (w) file\n",
        "drawing-with-preview.eps": b"\xc5\xd0\xd3\xc6" + bytes(28),
        "metafile.jpg": b"\xd7\xcd\xc6\x9a" + bytes(60),
        "layers.jpg": b"8BPS\0\1" + bytes(60),
        "icon.png": encoded(plain(), "ICO"),
        "targa.png": encoded(plain(), "TGA"),
        "archive.jpg": _zip(),
        "gzip.jpg": b"\x1f\x8b\x08" + bytes(30),
        "film.jpg": ftyp + b"isom\0\0\2\0isomiso2mp41" + bytes(99),
        "film-without-sound.jpg": b"\x1a\x45\xdf\xa3" + bytes(60),
        "sound.jpg": _wav(),
        "new-format.jpg": b"\xff\x0a" + bytes(60),
        "pickle.jpg": pickle.dumps({"picture": bytes(60)}),
        "random.jpg": b"\x07\x00" + random.Random(1).randbytes(3000),
        "zeros.jpg": bytes(3000),
        "slow.ppm": b"P6 840 840 254\n" + bytes(840 * 840 * 3),
        **({} if find_spec("pillow_heif") else {"phone.jpg": ftyp + b"heic\0\0\0\0mif1heic" + bytes(99)}),
    }


def _pixel_files() -> dict[str, bytes]:
    jpeg2000 = encoded(plain(), "JPEG2000", no_jp2=True)
    webp = encoded(plain(), "WEBP", lossless=True)
    return {
        "gigapixel-header.png": png(46_000, 46_000, b"x"),
        "gigapixel.png": png(46_000, 46_000, deflated_zeros(46_000 * 5751), depth=1, colour=0),
        "just-over.png": png(8_000, 8_001, b"x"),
        "gigapixel.jpg": patched(encoded(plain(), "JPEG"), b"\xff\xc0", 3, struct.pack(">HH", 65_000, 65_000)),
        "gigapixel.gif": patched(encoded(plain(mode="P", colour=1), "GIF"), b"GIF87a", 0, b"\xff\xff\xff\xff"),
        "gigapixel-frame.gif": patched(gif_with(b""), b",", 4, b"\xff\xff\xff\xff"),
        "over.webp": patched(webp, b"VP8L", 5, struct.pack("<I", 9_999 | 9_999 << 14)),
        "gigapixel.webp": patched(webp, b"VP8L", 5, struct.pack("<I", 16_382 | 16_382 << 14)),
        "gigapixel.tif": gray_tiff(60_000, 60_000, bytes(16)),
        "gigapixel-tile.tif": tile_bomb(),
        "gigapixel.bmp": bmp(60_000, -60_000),
        "gigapixel.ppm": b"P6 60000 60000 255\n" + bytes(64),
        "gigapixel.jp2": patched(jpeg2000, b"\xff\x51", 4, struct.pack(">II", 60_000, 60_000)),
    }


def _damaged_files() -> dict[str, bytes]:
    cut = {
        f"cut.{kind.lower()}": data[: len(data) * 2 // 3]
        for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000", "AVIF", "PPM")
        for data in [encoded(noise(), kind)]
    }
    jpeg, one_pixel = encoded(plain(), "JPEG"), zlib.compress(bytes(4))
    inverted = bytes(255 - byte for byte in encoded(noise(), "PNG")[60:])
    return {
        **cut,
        "empty.jpg": b"",
        "start-only.jpg": b"\xff\xd8\xff",
        "start-only.png": PNG_START,
        "start-only.webp": b"RIFF\0\0\0\0WEBP",
        "start-only.avif": b"\0\0\0\x18ftypavif\0\0\0\0mif1avif",
        "header-only.jpg": jpeg[: jpeg.index(b"\xff\xda")],
        "no-frame.gif": b"GIF89a\x10\0\x10\0\0\0\0;",
        "zero-size.png": png(0, 0, one_pixel),
        "zero-width.bmp": bmp(0, 9),
        "zero-height.gif": b"GIF89a\x10\0\0\0\0\0\0,\0\0\0\0\x10\0\0\0\0\2\0;",
        "broken-header-sum.png": patched(png(1, 1, one_pixel), b"IHDR", 13, b"\0\0\0\0"),
        "broken-pixels.png": encoded(noise(), "PNG")[:60] + inverted,
        "no-palette-size.bmp": bmp(4, 4, colours=2**30, bits=8),
        "unknown-coding.bmp": patched(bmp(4, 4), b"BM", 28, struct.pack("<I", 99)),
        "lying-size.bmp": bmp(4_000, 4_000),
        "lying-size.tif": gray_tiff(4_000, 4_000, bytes(64)),
        "lying-strip.tif": gray_tiff(40, 40, bytes(64), t279=2**31),
        "lying-size.png": png(4_000, 4_000, one_pixel),
        "lying-size.jp2": patched(encoded(plain(), "JPEG2000"), b"ihdr", 0, struct.pack(">II", 4_000, 4_000)),
        "loop.tif": b"II*\0" + struct.pack("<I", 8) + bytes(2) + struct.pack("<I", 8),
        "broken-first-frame.png": broken_apng(0),
        "no-colour-type.png": png(1, 1, one_pixel, colour=7),
    }


def _heavy_files() -> dict[str, bytes]:
    return {
        "text-bomb.png": _metadata_bomb(b"zTXt", b"Comment\0\0"),
        "international-text-bomb.png": _metadata_bomb(b"iTXt", b"Comment\0\1\0\0\0"),
        "profile-bomb.png": _metadata_bomb(b"iCCP", b"sRGB\0\0"),
        "many-texts.png": png(1, 1, zlib.compress(bytes(4)), before=chunk(b"tEXt", b"k\0v") * 2_000),
        "many-scans.jpg": many_scans(),
        "many-scans-behind-a-thumbnail.jpg": many_scans(segment(0xE1, b"\xff\xd8\xff\xd9")),
        "many-segments.jpg": jpeg_with(segment(0xE1, b"Exif\0\0" + bytes(90)) * 2_000),
        "long-comment.gif": gif_with(b"!\xfe" + (b"\xff" + b"a" * 255) * 2_000 + b"\0"),
    }


def hostile_pictures(folder: Path) -> dict[str, str]:
    """Write files that must be refused; return each file's name and the reason of its refusal."""
    groups: dict[str, dict[str, bytes]] = {
        "format": _format_files(),
        "pixels": _pixel_files(),
        "truncated": _damaged_files(),
        "bytes": _heavy_files(),
        "shape": {
            "strip.png": encoded(Image.new("L", (1, 900)), "PNG"),
            "band.jpg": encoded(Image.new("RGB", (2_100, 10)), "JPEG"),
        },
        "mode": {"not-a-number.tif": encoded(plain(float("nan"), "F"), "TIFF")},
    }
    for files in groups.values():
        for name, data in files.items():
            (folder / name).write_bytes(data)
    with (folder / "too-long.jpg").open("wb") as stream:
        stream.truncate(33 * 2**20)
    return {name: reason for reason, files in groups.items() for name in files} | {"too-long.jpg": "bytes"}


_INVERSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}

CORNERS = {(0.25, 0.25): RED, (0.75, 0.25): (0, 160, 0), (0.25, 0.75): BLUE, (0.75, 0.75): (240, 220, 0)}
"""Colours of an upright picture of `stored_turned`, by position as shares of width and height."""


def stored_turned(orientation: int, kind: str, **options: Any) -> bytes:
    """A 64 × 32 picture of four coloured quarters, stored so that EXIF `orientation` makes it upright."""
    picture = Image.new("RGB", (64, 32))
    for (x, y), colour in CORNERS.items():
        left, top = (32 if x > 0.5 else 0), (16 if y > 0.5 else 0)
        picture.paste(colour, (left, top, left + 32, top + 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = picture.transpose(_INVERSE[orientation]) if orientation in _INVERSE else picture
    return encoded(turned, kind, exif=exif.tobytes() if kind != "TIFF" else exif, **options)


def _with_transparent_colour(picture: Image.Image, value: Any) -> bytes:
    return encoded(picture, "PNG", transparency=value)


def _palette_with_alpha() -> bytes:
    picture = Image.new("P", (40, 40), 1)
    picture.putpalette([0, 0, 0, 255, 0, 0])
    return encoded(picture, "PNG", transparency=bytes([255, 128]))


def _premultiplied_tiff() -> bytes:
    data = encoded(plain((128, 0, 0, 128), "RGBA"), "TIFF")
    return data.replace(struct.pack("<HHI", 338, 3, 1) + b"\2", struct.pack("<HHI", 338, 3, 1) + b"\1")


def _in_frames(kind: str, **options: Any) -> bytes:
    return encoded(plain(RED), kind, save_all=True, append_images=[plain(BLUE), plain(WHITE)], **options)


def _commented_png() -> bytes:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Comment", "a dress, seen from the front", zip=True)
    return encoded(plain(), "PNG", pnginfo=notes)


_ODD: dict[str, tuple[Callable[[], bytes], tuple[int, int, int]]] = {
    "cmyk.jpg": (lambda: encoded(plain((0, 255, 255, 0), "CMYK"), "JPEG", quality=95), RED),
    "cmyk.tif": (lambda: encoded(plain((0, 255, 255, 0), "CMYK"), "TIFF"), RED),
    "gray.jpg": (lambda: encoded(plain(77, "L"), "JPEG"), (77, 77, 77)),
    "gray16.png": (lambda: encoded(plain(0x8080, "I;16"), "PNG"), (128, 128, 128)),
    "gray16-dark.png": (lambda: encoded(plain(255, "I;16"), "PNG"), (1, 1, 1)),
    "gray16.tif": (lambda: encoded(plain(0x4040, "I;16"), "TIFF"), (64, 64, 64)),
    "gray16-big-endian.tif": (lambda: encoded(plain(0x4040, "I;16B"), "TIFF"), (64, 64, 64)),
    "gray16.pgm": (lambda: b"P5 40 40 65535\n" + b"\x40\x40" * 1600, (64, 64, 64)),
    "gray16.jp2": (lambda: encoded(plain(0x4040, "I;16"), "JPEG2000"), (64, 64, 64)),
    "int32.tif": (lambda: encoded(plain(0x4040, "I"), "TIFF"), (64, 64, 64)),
    "int32-of-bytes.tif": (lambda: encoded(plain(64, "I"), "TIFF"), (64, 64, 64)),
    "int32-wide.tif": (lambda: encoded(halves(2**30, -(2**30), "I"), "TIFF"), WHITE),
    "float-of-shares.tif": (lambda: encoded(halves(0.25, 0.5, "F"), "TIFF"), (64, 64, 64)),
    "float-of-bytes.tif": (lambda: encoded(halves(64.0, 200.0, "F"), "TIFF"), (64, 64, 64)),
    "float-wide.tif": (lambda: encoded(halves(-50.0, -100.0, "F"), "TIFF"), WHITE),
    "lab.tif": (lambda: encoded(plain((138, 209, 198), "LAB"), "TIFF"), (251, 5, 4)),
    "gray-alpha.png": (lambda: encoded(plain((0, 128), "LA"), "PNG"), (127, 127, 127)),
    "alpha.png": (lambda: encoded(plain((255, 0, 0, 128), "RGBA"), "PNG"), (255, 127, 127)),
    "invisible.png": (lambda: encoded(plain((0, 0, 0, 0), "RGBA"), "PNG"), WHITE),
    "alpha.webp": (lambda: encoded(plain((255, 0, 0, 128), "RGBA"), "WEBP", lossless=True), (255, 127, 127)),
    "premultiplied.tif": (_premultiplied_tiff, (255, 127, 127)),
    "palette-alpha.png": (_palette_with_alpha, (255, 127, 127)),
    "transparent-colour.png": (lambda: _with_transparent_colour(halves((1, 2, 3), RED), (1, 2, 3)), WHITE),
    "transparent-gray.png": (lambda: _with_transparent_colour(plain(9, "L"), 9), WHITE),
    "transparent.gif": (lambda: encoded(plain(1, "P"), "GIF", transparency=1), WHITE),
    "one-bit.png": (lambda: encoded(plain(1, "1"), "PNG"), WHITE),
    "one-bit.tif": (lambda: encoded(plain(0, "1"), "TIFF", compression="group4"), (0, 0, 0)),
    "one-bit.pbm": (lambda: encoded(plain(0, "1"), "PPM"), (0, 0, 0)),
    "one-pixel.png": (lambda: encoded(Image.new("RGB", (1, 1), RED), "PNG"), RED),
    "widest.png": (lambda: encoded(Image.new("RGB", (200, 1), RED), "PNG"), RED),
    "animated.gif": (lambda: _in_frames("GIF", duration=50), RED),
    "animated.webp": (lambda: _in_frames("WEBP", duration=50, lossless=True), RED),
    "animated.png": (lambda: _in_frames("PNG", duration=50), RED),
    "broken-second-frame.png": (lambda: broken_apng(1), RED),
    "pages.tif": (lambda: _in_frames("TIFF"), RED),
    "several.mpo": (lambda: _in_frames("MPO"), RED),
    "progressive.jpg": (lambda: encoded(plain(), "JPEG", progressive=True), RED),
    "more-after-the-end.jpg": (lambda: encoded(plain(), "JPEG") + b"\xff\xda\0\2" * 50_000, RED),
    "scans-in-metadata.jpg": (lambda: jpeg_with(segment(0xE5, b"\xff\xda\0\2" * 5_000)), RED),
    "several-fill-bytes.jpg": (lambda: jpeg_with(b"\xff" * 9), RED),
    "malformed-exif.jpg": (lambda: jpeg_with(segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff")), RED),
    "malformed-exif-entry.jpg": (
        lambda: jpeg_with(segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12\0\x02\0\0\xff\xff\xff\0")),
        RED,
    ),
    "malformed-exif.png": (lambda: encoded(plain(), "PNG", exif=b"Exif\0\0not exif at all"), RED),
    "malformed-exif.webp": (lambda: encoded(plain(), "WEBP", exif=b"MM\0*\xff\xff\xff\xff"), RED),
    "orientation-9.jpg": (lambda: stored_turned(9, "JPEG", quality=95, subsampling=0), RED),
    "orientation-9.tif": (lambda: gray_tiff(40, 40, b"\x40" * 1600, t274=9), (64, 64, 64)),
    "malformed-profile.jpg": (lambda: encoded(plain(), "JPEG", icc_profile=b"no profile"), RED),
    "commented.png": (_commented_png, RED),
    "photo.avif": (lambda: encoded(plain(), "AVIF", quality=90), RED),
    "alpha.avif": (lambda: encoded(plain((255, 0, 0, 0), "RGBA"), "AVIF", quality=90), WHITE),
    "photo.jp2": (lambda: encoded(plain(), "JPEG2000"), RED),
    "photo.j2k": (lambda: encoded(plain(), "JPEG2000", no_jp2=True), RED),
    "photo.bmp": (lambda: encoded(plain(), "BMP"), RED),
    "photo.ppm": (lambda: encoded(plain(), "PPM"), RED),
    "photo-with-comment.ppm": (lambda: b"P6\n# by hand\n4 4 255\n" + bytes(RED) * 16, RED),
    "lzw.tif": (lambda: encoded(plain(), "TIFF", compression="tiff_lzw"), RED),
    "jpeg-inside.tif": (lambda: encoded(plain(), "TIFF", compression="jpeg"), RED),
    "big.tif": (lambda: encoded(plain(), "TIFF", big_tiff=True), RED),
    "png-in-truth.jpg": (lambda: encoded(plain(), "PNG"), RED),
    "no-suffix": (lambda: encoded(plain(), "JPEG"), RED),
}


def odd_but_good_pictures(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Write files that must be read; return each file's name and its colour a quarter in from the top left."""
    for name, (draw, _) in _ODD.items():
        (folder / name).write_bytes(draw())
    for orientation in range(1, 9):
        (folder / f"orientation-{orientation}.jpg").write_bytes(
            stored_turned(orientation, "JPEG", quality=95, subsampling=0)
        )
    return {name: colour for name, (_, colour) in _ODD.items()} | {f"orientation-{n}.jpg": RED for n in range(1, 9)}
