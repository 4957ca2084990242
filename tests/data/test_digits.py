import hashlib
from importlib.resources import files

import numpy as np

from regrow.data.digits import read_digits
from regrow.data.table import Pixels

SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


def test_digits_come_with_the_package() -> None:
    raw = read_digits()
    assert isinstance(raw.features, Pixels)
    assert raw.features.values.shape == (1797, 64)
    assert raw.features.values.dtype == np.uint8
    assert raw.features.values.max() == raw.features.peak == 16
    assert raw.features.shape == (8, 8)
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.bincount(raw.target.values.astype(int)).tolist() == counts
    # Of the pixels and labels, not of the archive: zlib may compress otherwise elsewhere.
    content = raw.features.values.tobytes() + raw.target.values.astype(np.uint8).tobytes()
    assert hashlib.sha256(content).hexdigest() == SHA256


def test_digits_name_their_authors_and_licence() -> None:
    text = (files("regrow.data") / "_embedded" / "digits.txt").read_text(encoding="utf-8")
    for words in ("E. Alpaydin and C. Kaynak", "UCI", "CC BY 4.0"):
        assert words in text
        assert words in read_digits().notes[0].replace("UCI Machine Learning Repository", "UCI")
