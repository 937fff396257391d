from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.hashing import combine, hash_text


def test_the_hash_is_xxh64_with_seed_0():  # HP-01; the value is xxHash's own for no bytes
    assert hash_text("") == 0xEF46DB3751D8E999


def test_two_policies_are_turned_and_mixed():  # HP-01
    assert combine(None, 5) == 5
    assert combine(1 << 63, 0) == 1
    assert combine(0b10, 0b1) == 0b101


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_any_text_has_a_hash(text):
    assert 0 <= hash_text(text) < 1 << 64
    assert hash_text(text) == hash_text(text)
