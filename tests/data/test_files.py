"""Files as data: digits of MNIST as images, texts in their languages, sound, and what is broken."""

from __future__ import annotations

import gzip
import io
import os
import wave
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from flyball.data.files import Files, is_file_table, read_file
from flyball.data.media import describe, described_texts, media_type_of
from flyball.errors import Corrupt, InvalidInput, NotFound
from flyball.storage.blobs.files import FileBlobs


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs")


def digits(shared_data: Path, count: int) -> tuple[np.ndarray, list[int]]:
    folder = shared_data / "mnist_t10k"
    (images,) = folder.glob("*images*")
    (labels,) = folder.glob("*labels*")
    raw = gzip.decompress(images.read_bytes())
    pixels = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28)
    return pixels[:count], list(np.frombuffer(gzip.decompress(labels.read_bytes()), np.uint8, offset=8)[:count])


def test_images_of_an_array_are_kept_described_and_given_back(shared_data: Path, blobs: FileBlobs) -> None:
    pixels, labels = digits(shared_data, 10_000)
    table = pl.concat(Files.of_images(pixels, labels).table(blobs))
    assert table.height == 10_000 and is_file_table(table.columns)
    assert table["label"].value_counts(sort=True)["label"][0] == "1"
    assert (table["width"] == 28).all() and (table["mode"] == "L").all() and table["problem"].is_null().all()
    assert table["brightness"].mean() == pytest.approx(33.791224 / 255, abs=1e-6)  # the reference's mean pixel
    row = table.row(4711, named=True)
    assert (np.asarray(Image.open(io.BytesIO(read_file(row, blobs)))) == pixels[4711]).all()
    assert len(list(blobs.digests())) < 5


def test_a_folder_is_described_by_what_files_hold_not_by_their_names(tmp_path: Path, blobs: FileBlobs) -> None:
    root = tmp_path / "in"
    (root / "de").mkdir(parents=True)
    (root / "en").mkdir()
    (root / "de" / "Grüße.txt").write_text("Der Flug nach Frankfurt hat leider zwei Stunden Verspätung.\n", "utf-8")
    (root / "en" / "late.txt").write_text("The flight to London is unfortunately two hours late.\n", "utf-8")
    (root / "en" / "really.txt").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (root / "en" / "empty.dat").write_bytes(b"")
    with wave.open(str(root / "beep"), "wb") as sound:
        sound.setnchannels(2)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\x00" * 8000 * 4)
    table = pl.concat(Files(root, label="folder").table(blobs))
    rows = {row["path"]: row for row in table.iter_rows(named=True)}
    german, english = rows["de/Grüße.txt"], rows["en/late.txt"]
    assert (german["language"], german["label"], german["words"]) == ("de", "de", 9)
    assert english["language"] == "en" and english["lines"] == 1
    assert (
        rows["en/really.txt"]["media_type"] == "image/png"
        and "image cannot be read" in rows["en/really.txt"]["problem"]
    )
    assert rows["en/empty.dat"]["problem"] == "the file is empty"
    assert rows["beep"]["duration_s"] == 1.0 and rows["beep"]["channels"] == 2
    assert read_file(german, blobs).decode() == (root / "de" / "Grüße.txt").read_text("utf-8")


def test_taking_a_folder_in_again_reads_only_what_has_changed(tmp_path: Path, blobs: FileBlobs) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for name in ("a", "b", "c"):
        (root / name).write_text(f"the text of file {name}, long enough to tell")
    first = pl.concat(Files(root).table(blobs))
    (root / "b").write_text("another text, of another length than before")
    a = root / "a"
    kept = a.stat()
    a.write_bytes(b"X" * kept.st_size)  # same size; with the old time back it counts as unchanged
    os.utime(a, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    second = pl.concat(Files(root).table(blobs, first.lazy()))
    changed = first.join(second, on=["path", "digest"], how="anti")["path"].to_list()
    assert changed == ["b"]
    assert second.drop("modified").filter(path="c").equals(first.drop("modified").filter(path="c"))


def test_what_is_kept_by_reference_is_checked_when_read(tmp_path: Path, blobs: FileBlobs) -> None:
    root = tmp_path / "in"
    root.mkdir()
    (root / "a.bin").write_bytes(b"\x00\x01\x02")
    (row,) = pl.concat(Files(root, keep="reference").table(blobs)).iter_rows(named=True)
    assert read_file(row, blobs) == b"\x00\x01\x02" and list(blobs.digests()) == []
    (root / "a.bin").write_bytes(b"\x00\x01\x03")
    with pytest.raises(Corrupt, match=r"a\.bin"):
        read_file(row, blobs)
    (root / "a.bin").unlink()
    with pytest.raises(NotFound, match="by reference"):
        read_file(row, blobs)


def test_equal_files_are_kept_once(tmp_path: Path, blobs: FileBlobs) -> None:
    for n in range(20):
        (tmp_path / f"f{n}.txt").write_text("one and the same text in all of these files")
    table = pl.concat(Files(tmp_path, "f*.txt").table(blobs))
    assert table["digest"].n_unique() == 1
    (blob,) = blobs.digests()
    assert len(blobs.get(blob)) == table["size_bytes"][0]


def test_texts_get_length_and_language(shared_data: Path) -> None:
    prompts = pl.scan_csv(shared_data / "llm_eval" / "prompts.csv").drop_nulls("act")
    found = described_texts(prompts, ["prompt"]).collect()
    assert found.height == 217
    assert found["prompt_language"].value_counts(sort=True)["prompt_language"][0] == "en"
    assert (found["prompt_characters"] == found["prompt"].str.len_chars()).all()
    assert found["prompt_words"].min() > 3


def test_a_small_file_that_unpacks_to_gigabytes_is_not_opened() -> None:
    out = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(out, "PNG")
    found = describe(out.getvalue())
    assert "pixels" in found["problem"] and found["width"] is None


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"\xff\xd8\xff\xe0rest", "image/jpeg"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"%PDF-1.7", "application/pdf"),
        (b'  {"a": 1}', "application/json"),
        (("x" + "ä" * 3000).encode(), "text/plain"),  # cut within a character by the look at the head
        (b"\x00\x01", "application/octet-stream"),
        (b"\xe4\xf6\xfc no utf-8 here, latin-1", "application/octet-stream"),
    ],
)
def test_a_format_is_told_by_the_first_bytes(data: bytes, word: str) -> None:
    assert media_type_of(data) == word


@pytest.mark.parametrize("pattern", ["../*", "/etc/*"])
def test_a_pattern_that_leads_out_is_refused(tmp_path: Path, blobs: FileBlobs, pattern: str) -> None:
    with pytest.raises(InvalidInput, match="leads out"):
        next(Files(tmp_path, pattern).table(blobs))


def test_wrong_arrays_folders_and_nothing_are_refused(tmp_path: Path, blobs: FileBlobs) -> None:
    with pytest.raises(InvalidInput, match="uint8"):
        Files.of_images(np.zeros((2, 3, 3)))
    with pytest.raises(InvalidInput, match="one label an image"):
        Files.of_images(np.zeros((2, 3, 3), np.uint8), [1])
    with pytest.raises(NotFound, match="no folder"):
        next(Files(tmp_path / "nothere").table(blobs))
    with pytest.raises(NotFound, match="no file matches"):
        next(Files(tmp_path, "*.png").table(blobs))
