"""Opening pictures: which are refused and in which words, which are read and how they then look."""

import base64
import os
import random
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cir_vectorizer.errors import ImageError
from cir_vectorizer.pictures.images import load_reference, open_image
from cir_vectorizer.query import ImageRef
from cir_vectorizer.query.encoded import DEFAULT_LIMITS, Limits, decode_base64
from tests.support import hostile

pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Image appears to be a malformed MPO")

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = ROOT.parent / "shared" / "data" / "photos"
RED_PNG = hostile.encoded(hostile.plain(), "PNG")


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("hostile")
    return folder, hostile.hostile_pictures(folder)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[int, int, int]]]:
    folder = tmp_path_factory.mktemp("odd")
    return folder, hostile.odd_but_good_pictures(folder)


def refusal(source: bytes | Path, limits: Limits = DEFAULT_LIMITS) -> ImageError:
    with pytest.raises(ImageError) as caught:
        open_image(source, limits)
    return caught.value


def looks_like(found: object, wanted: tuple[int, int, int], tolerance: int = 4) -> bool:
    assert isinstance(found, tuple)
    return max(abs(a - b) for a, b in zip(found, wanted, strict=True)) <= tolerance


def assert_a_sentence(message: str) -> None:
    assert "; " in message, "cause and remedy are told apart by a semicolon"
    assert len(message) > 20
    assert message[0].islower()
    assert not message.endswith(".")
    assert "/tmp" not in message
    assert str(ROOT) not in message


def test_there_are_at_least_forty_hostile_files_of_every_reason(bad: tuple[Path, dict[str, str]]) -> None:
    folder, reasons = bad
    assert len(reasons) >= 40
    assert set(reasons.values()) == {"bytes", "pixels", "shape", "format", "truncated", "mode"}
    assert {file.name for file in folder.iterdir()} == set(reasons)
    assert not any(file.is_symlink() for file in folder.iterdir())


def test_hostile_files_are_refused_with_their_reason_and_a_sentence(bad: tuple[Path, dict[str, str]]) -> None:
    folder, reasons = bad
    refusals = {name: refusal(folder / name) for name in reasons}
    assert {name: error.reason for name, error in refusals.items()} == reasons
    for error in refusals.values():
        assert_a_sentence(str(error))


def test_hostile_bytes_are_refused_as_hostile_files_are(bad: tuple[Path, dict[str, str]]) -> None:
    folder, reasons = bad
    for name, reason in reasons.items():
        assert refusal((folder / name).read_bytes()).reason == reason, name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("page.jpg", "web page (HTML)"),
        ("document.jpg", "PDF"),
        ("drawing.png", "SVG"),
        ("drawing-with-prolog.png", "SVG"),
        ("archive.jpg", "ZIP"),
        ("film.jpg", "video"),
        ("text.jpg", "plain text"),
        ("latin-text.jpg", "plain text"),
        ("utf16-text.jpg", "plain text"),
        ("answer.jpg", "JSON"),
        ("pickle.jpg", "pickle"),
        ("pointer.jpg", "git lfs pull"),
        ("base64.jpg", "base64"),
        ("drawing.eps", "PostScript"),
        ("icon.png", "icon"),
        ("random.jpg", "07 00 f5 b1"),
        ("empty.jpg", "0 bytes"),
        ("gigapixel.png", "46,000 × 46,000 = 2,116 megapixels, over the limit of 64"),
        ("just-over.png", "64.008 megapixels, over the limit of 64"),
        ("too-long.jpg", "33 MiB, over the limit of 32 MiB"),
        ("strip.png", "1 × 900"),
        ("many-scans.jpg", "scans"),
        ("cut.webp", "WEBP"),
    ],
)
def test_a_refusal_names_what_was_sent(bad: tuple[Path, dict[str, str]], name: str, words: str) -> None:
    assert words in str(refusal(bad[0] / name))


def test_a_refusal_that_a_decoder_caused_keeps_its_cause(bad: tuple[Path, dict[str, str]]) -> None:
    assert isinstance(refusal(bad[0] / "cut.png").__cause__, OSError)


def test_odd_pictures_are_read_in_their_colours(good: tuple[Path, dict[str, tuple[int, int, int]]]) -> None:
    folder, colours = good
    wrong = {}
    for name, colour in colours.items():
        picture = open_image(folder / name)
        assert picture.mode == "RGB"
        assert min(picture.size) >= 1
        found = picture.getpixel((picture.width // 4, picture.height // 4))
        if not looks_like(found, colour):
            wrong[name] = (found, colour)
    assert wrong == {}


def test_a_picture_holds_neither_its_file_nor_its_metadata(good: tuple[Path, dict[str, tuple[int, int, int]]]) -> None:
    folder, colours = good
    for name in colours:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always", ResourceWarning)
            picture = open_image(folder / name)
        assert type(picture) is Image.Image
        assert picture.info == {}
        assert not dict(picture.getexif())
        assert not [warning for warning in seen if warning.category is ResourceWarning]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("AVIF", {"quality": 95, "subsampling": "4:4:4"}),
    ],
)
def test_a_turned_photo_is_seen_upright(kind: str, options: dict[str, object], orientation: int) -> None:
    picture = open_image(hostile.stored_turned(orientation, kind, **options))
    assert picture.size == (64, 32)
    for (x, y), colour in hostile.CORNERS.items():
        assert looks_like(picture.getpixel((int(x * 64), int(y * 32))), colour, tolerance=12)


def test_dark_and_bright_halves_of_sixteen_bits_stay_apart() -> None:
    ramp = Image.frombytes("I;16", (256, 1), b"".join((256 * k + k).to_bytes(2, "little") for k in range(256)))
    read = open_image(hostile.encoded(ramp, "PNG"), Limits(max_aspect=256))
    assert [read.getpixel((x, 0)) for x in range(256)] == [(x, x, x) for x in range(256)]


def test_scaled_numbers_are_rounded() -> None:
    assert open_image(hostile.encoded(hostile.halves(0.2537, 1.0, "F"), "TIFF")).getpixel((0, 0)) == (65, 65, 65)


def test_pixel_data_that_unpacks_to_more_than_the_picture_is_cut_off() -> None:
    assert open_image(hostile.idat_bomb()).size == (10, 10)


def test_limits_are_the_callers() -> None:
    assert [field.name for field in fields(Limits)] == ["max_bytes", "max_pixels", "max_aspect"]
    assert Limits(32 * 2**20, 64_000_000, 200) == DEFAULT_LIMITS
    assert refusal(RED_PNG, Limits(max_bytes=20)).reason == "bytes"
    assert f"is {len(RED_PNG)} bytes, over the limit of 20 bytes" in str(refusal(RED_PNG, Limits(max_bytes=20)))
    assert refusal(RED_PNG, Limits(max_pixels=1599)).reason == "pixels"
    assert open_image(RED_PNG, Limits(len(RED_PNG), 1600, 1)).size == (40, 40)


def test_a_limit_above_pillows_own_does_not_open_what_pillow_refuses(bad: tuple[Path, dict[str, str]]) -> None:
    error = refusal(bad[0] / "gigapixel-frame.gif", Limits(max_pixels=10**10))
    assert error.reason == "pixels"
    assert "limit of 179 megapixels" in str(error)


def test_pillows_settings_stay_as_they_are(bad: tuple[Path, dict[str, str]]) -> None:
    before = Image.MAX_IMAGE_PIXELS
    refusal(bad[0] / "gigapixel.png")
    assert before == Image.MAX_IMAGE_PIXELS


def test_many_threads_see_the_same_pictures(
    good: tuple[Path, dict[str, tuple[int, int, int]]], bad: tuple[Path, dict[str, str]]
) -> None:
    def open_or_refuse(file: Path) -> bytes | str:
        try:
            return open_image(file).tobytes()
        except ImageError as error:
            return str(error)

    files = [good[0] / name for name in good[1]] + [bad[0] / name for name in bad[1]]
    alone = [open_or_refuse(file) for file in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(open_or_refuse, files * 2))
    assert together == alone * 2


MEASURE = """
import sys
from pathlib import Path
from cir_vectorizer.errors import ImageError
from cir_vectorizer.pictures.images import open_image

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

assert "torch" not in sys.modules
before = peak()
for file in sorted(Path(sys.argv[1]).iterdir()):
    try:
        open_image(file)
    except ImageError:
        pass
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_refusing_every_bomb_takes_little_memory(tmp_path: Path) -> None:
    reasons = hostile.hostile_pictures(tmp_path)
    (tmp_path / "unpacks-to-much.png").write_bytes(hostile.idat_bomb())
    assert reasons
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path], capture_output=True, text=True, check=True, cwd=ROOT
    )
    lying_headers_within_the_limit = 4_000 * 4_000 * 4
    assert int(run.stdout) * 1024 < lying_headers_within_the_limit + 64 * 2**20


def test_real_photos_open() -> None:
    if not PHOTOS.is_dir():
        pytest.skip(f"no folder {PHOTOS.name} beside the checkout")
    photos = sorted(PHOTOS.rglob("*.jpg"))
    assert photos
    for photo in photos:
        with Image.open(photo) as reference:
            assert open_image(photo).size == reference.size


SEEDS = {kind: hostile.encoded(hostile.noise(), kind) for kind in ("JPEG", "PNG", "WEBP")}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(SEEDS)), st.integers(0, 2**32), st.sampled_from(["flip", "cut", "insert", "swap"]))
def test_a_corrupted_picture_opens_or_is_refused_and_nothing_else(kind: str, seed: int, how: str) -> None:
    draw, data = random.Random(seed), bytearray(SEEDS[kind])
    near_the_header = draw.random() < 0.5
    for _ in range(draw.randint(1, 8)):
        at = draw.randrange(min(len(data), 200) if near_the_header else len(data))
        if how == "flip":
            data[at] ^= 1 << draw.randrange(8)
        elif how == "cut":
            del data[at : at + draw.randint(1, 40)]
        elif how == "insert":
            data[at:at] = draw.randbytes(draw.randint(1, 40))
        else:
            data[at] = draw.randrange(256)
        if len(data) < 20:
            break
    try:
        picture = open_image(bytes(data), Limits(max_pixels=1_000_000))
    except ImageError as error:
        assert_a_sentence(str(error))
    else:
        assert picture.mode == "RGB"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(SEEDS)), st.binary(max_size=300))
def test_bytes_behind_a_pictures_signature_open_or_are_refused_and_nothing_else(kind: str, tail: bytes) -> None:
    try:
        open_image(SEEDS[kind][:16] + tail, Limits(max_pixels=1_000_000))
    except ImageError as error:
        assert_a_sentence(str(error))


class TestBase64:
    @pytest.mark.parametrize(
        "text",
        [
            base64.b64encode(RED_PNG).decode(),
            base64.b64encode(RED_PNG).decode().rstrip("="),
            base64.urlsafe_b64encode(RED_PNG).decode(),
            base64.encodebytes(RED_PNG).decode(),
            " \r\n" + base64.b64encode(RED_PNG).decode() + "\n",
            "data:image/png;base64," + base64.b64encode(RED_PNG).decode(),
            "data:;base64, " + base64.b64encode(RED_PNG).decode(),
            "\nDATA:image/png;charset=utf-8;BASE64," + base64.b64encode(RED_PNG).decode(),
        ],
        ids=["bare", "no padding", "URL-safe", "lines", "white space", "data URI", "no type", "capitals"],
    )
    def test_is_read_in_every_usual_writing(self, text: str) -> None:
        assert decode_base64(text) == RED_PNG

    @given(st.binary(min_size=1, max_size=200))
    def test_gives_back_what_was_encoded(self, data: bytes) -> None:
        assert decode_base64(base64.b64encode(data).decode()) == data
        assert decode_base64(base64.urlsafe_b64encode(data).decode().rstrip("=")) == data

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("dress.jpg", "'.'"),
            ("abc%2Babc", "'%'"),
            ("äbcd", "'ä'"),
            ("\ud800bcd", "\\ud800"),
            ("abc\0", "\\x00"),
            ("abcd=abcd", "'='"),
            ("abcde", "cut short"),
            ("", "empty"),
            (" \n=", "empty"),
            ("data:image/png;base64", "empty"),
            ("data:image/png;base64,", "empty"),
            ("data:image/png,abcd", "not base64"),
            ("data:image/svg+xml;utf8,<svg/>", "not base64"),
        ],
    )
    def test_refuses_wrong_text_with_a_hint(self, text: str, words: str) -> None:
        with pytest.raises(ImageError) as caught:
            decode_base64(text)
        assert caught.value.reason == "base64"
        assert words in str(caught.value)
        assert_a_sentence(str(caught.value))

    def test_is_measured_before_it_is_decoded(self) -> None:
        limits = Limits(max_bytes=300)
        assert len(decode_base64("A" * 400, limits)) == 300
        assert len(decode_base64(" " * 10_000 + "AAAA", limits)) == 3
        for text in ("A" * 404, "A" * 10_000, "data:image/png;base64," + "A" * 404, " A" * 10_000):
            with pytest.raises(ImageError, match="over the limit of 300 bytes") as caught:
                decode_base64(text, limits)
            assert caught.value.reason == "bytes"


class TestReferences:
    @pytest.mark.parametrize(
        "ref", [ImageRef(base64=base64.b64encode(RED_PNG).decode()), ImageRef(data=RED_PNG)], ids=["base64", "bytes"]
    )
    def test_to_encoded_pictures_are_opened(self, ref: ImageRef) -> None:
        assert open_image(RED_PNG).tobytes() == load_reference(ref).tobytes()

    def test_to_a_path_are_opened_only_where_paths_are_allowed(self, tmp_path: Path) -> None:
        (tmp_path / "red.png").write_bytes(RED_PNG)
        ref = ImageRef(path=tmp_path / "red.png")
        assert load_reference(ref, DEFAULT_LIMITS, True).size == (40, 40)
        for load in (load_reference, lambda ref: load_reference(ref, DEFAULT_LIMITS, False)):
            with pytest.raises(ImageError, match="send the picture as base64") as caught:
                load(ref)
            assert caught.value.reason == "path"
            assert_a_sentence(str(caught.value))

    def test_obey_the_limits(self) -> None:
        with pytest.raises(ImageError, match="over the limit"):
            load_reference(ImageRef(data=RED_PNG), Limits(max_pixels=10))

    @pytest.mark.parametrize(
        ("ref", "reason", "words"),
        [
            (ImageRef(url="https://example.org/a.jpg"), "url", "pictures by URL are not fetched here"),
            (ImageRef(vector=[1.0, 0.0]), "missing", "vector"),
            (ImageRef(id=7), "missing", "id"),
        ],
    )
    def test_that_hold_no_picture_say_so(self, ref: ImageRef, reason: str, words: str) -> None:
        with pytest.raises(ImageError, match=words) as caught:
            load_reference(ref, DEFAULT_LIMITS, True)
        assert caught.value.reason == reason
        assert_a_sentence(str(caught.value))


class TestPaths:
    def refused(self, path: Path, words: str) -> None:
        error = refusal(path)
        assert error.reason == "path"
        assert words in str(error)
        assert_a_sentence(str(error))

    def test_that_lead_nowhere_are_refused(self, tmp_path: Path) -> None:
        self.refused(tmp_path / "nothing.jpg", "does not exist")
        (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
        self.refused(tmp_path / "gone.jpg", "does not exist")

    def test_to_a_folder_are_refused(self, tmp_path: Path) -> None:
        self.refused(tmp_path, "folder")

    def test_through_a_file_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "red.png").write_bytes(RED_PNG)
        self.refused(tmp_path / "red.png" / "red.png", "not a directory")

    @pytest.mark.parametrize("name", ["a\0b.jpg", "x" * 5000])
    def test_that_no_file_can_have_are_refused(self, name: str) -> None:
        self.refused(Path(name), "cannot be read")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
    def test_to_what_is_no_ordinary_file_are_refused_without_waiting(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.jpg")
        self.refused(tmp_path / "pipe.jpg", "not an ordinary file")
        if Path("/dev/zero").exists():
            self.refused(Path("/dev/zero"), "not an ordinary file")

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
    def test_to_a_file_of_someone_else_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "secret.png").write_bytes(RED_PNG)
        (tmp_path / "secret.png").chmod(0)
        self.refused(tmp_path / "secret.png", "permission denied")


class TestHeif:
    """Pictures of phones, read where pillow-heif is installed."""

    def test_are_read_with_pillow_heif(self, tmp_path: Path) -> None:
        heif = pytest.importorskip(
            "pillow_heif", reason="pillow-heif is not installed (pip install 'cir-vectorizer[heif]')"
        )
        upright = Image.new("RGB", (64, 32), "red")
        upright.paste("blue", (32, 0, 64, 32))
        heif.from_pillow(upright).save(tmp_path / "phone.heic", quality=90)
        for source in (tmp_path / "phone.heic", (tmp_path / "phone.heic").read_bytes()):
            read = open_image(source)
            assert (read.mode, read.size, read.info) == ("RGB", (64, 32), {})
            assert all(abs(a - b) < 12 for a, b in zip(read.getpixel((8, 16)), (255, 0, 0), strict=True))
            assert all(abs(a - b) < 12 for a, b in zip(read.getpixel((56, 16)), (0, 0, 255), strict=True))
        assert "HEIF" not in Image.OPEN

    def test_are_checked_as_others_are(self, tmp_path: Path) -> None:
        heif = pytest.importorskip(
            "pillow_heif", reason="pillow-heif is not installed (pip install 'cir-vectorizer[heif]')"
        )
        heif.from_pillow(Image.new("RGB", (64, 32), "red")).save(tmp_path / "phone.heic")
        with pytest.raises(ImageError, match="over the limit") as refused:
            open_image(tmp_path / "phone.heic", Limits(max_pixels=1000))
        assert refused.value.reason == "pixels"
        with pytest.raises(ImageError, match="cut short, damaged") as refused:
            open_image((tmp_path / "phone.heic").read_bytes()[:300])
        assert refused.value.reason == "truncated"

    def test_are_read_with_pi_heif_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        heif = pytest.importorskip(
            "pillow_heif", reason="pillow-heif is not installed (pip install 'cir-vectorizer[heif]')"
        )
        heif.from_pillow(Image.new("RGB", (64, 32), "red")).save(tmp_path / "phone.heic")
        monkeypatch.setitem(sys.modules, "pi_heif", heif)  # a fake of pi-heif, which has the same interface
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        assert open_image(tmp_path / "phone.heic").size == (64, 32)

    def test_without_it_the_sentence_has_the_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        monkeypatch.setitem(sys.modules, "pi_heif", None)
        with pytest.raises(ImageError, match=r"pip install 'cir-vectorizer\[heif\]'") as refused:
            open_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
        assert refused.value.reason == "format"


class TestJpegWithoutItsEnd:
    """A JPEG without its end is read if no more than its last row of blocks is missing."""

    @pytest.fixture(params=[{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}], ids=str)
    def jpeg(self, request: pytest.FixtureRequest) -> bytes:
        noise = np.random.default_rng(0).integers(0, 256, (100, 150, 3), dtype=np.uint8)
        stream = BytesIO()
        Image.fromarray(noise).save(stream, "JPEG", **request.param)
        return stream.getvalue()

    @pytest.mark.parametrize("tail", [b"", b"\xff", b"SEFT" * 100])
    def test_is_read(self, jpeg: bytes, tail: bytes) -> None:
        assert open_image(jpeg[:-2] + tail).tobytes() == open_image(jpeg).tobytes()

    @pytest.mark.parametrize("turn", [1, 6])
    @pytest.mark.parametrize("missing", [3, 20, 200])
    def test_is_read_if_pixels_of_the_last_row_of_blocks_are_missing(self, missing: int, turn: int) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8)
        stream, exif = BytesIO(), Image.Exif()
        exif[0x0112] = turn
        Image.fromarray(noise).save(stream, "JPEG", exif=exif)
        whole, cut = (np.asarray(open_image(data)) for data in (stream.getvalue(), stream.getvalue()[:-missing]))
        there = (slice(0, 79), slice(None)) if turn == 1 else (slice(None), slice(17, None))
        assert (whole[there] == cut[there]).all()
        assert (whole != cut).any()

    @pytest.mark.parametrize("part", [0.5, 0.75])
    def test_is_refused_if_pixels_are_missing(self, jpeg: bytes, part: float) -> None:
        with pytest.raises(ImageError, match="is a cut short, damaged or oddly coded JPEG file") as refused:
            open_image(jpeg[: int(len(jpeg) * part)])
        assert refused.value.reason == "truncated"
