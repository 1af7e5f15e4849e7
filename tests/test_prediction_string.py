"""What is said of cells in one text: read back, it is what went in."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from features_cache.errors import OptionError, SubmissionError
from heads import commands
from heads.submitting.prediction_string import (
    LEAST_CONFIDENCE,
    check_classes,
    check_least,
    chosen_classes,
    is_prediction_string,
    prediction_string,
)
from heads.submitting.settings import SubmitSettings

words = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x24F, exclude_categories=["Cc", "Zs"]), min_size=1, max_size=9
)


@st.composite
def told_cells(draw):
    classes = draw(st.lists(words, min_size=1, max_size=4, unique=True))
    masks = draw(st.lists(words, max_size=5))
    shape = len(masks), len(classes)
    return classes, masks, draw(arrays.arrays(np.float64, shape, elements=st.floats(0, 1)))


def parse(text):
    """Read it as a scorer would."""
    pieces = text.split(" ") if text else []
    assert not len(pieces) % 3
    return list(zip(pieces[::3], map(float, pieces[1::3]), pieces[2::3], strict=True))


@given(told_cells(), st.floats(0, 1))
def test_what_is_written_is_read_back_cell_by_cell_and_class_by_class(given_cells, least):
    classes, masks, confidences = given_cells
    chosen = chosen_classes(confidences, least)
    text = prediction_string(confidences, chosen, classes, masks)
    expected = [
        (name, confidences[cell, place], mask)
        for cell, mask in enumerate(masks)
        for place, name in enumerate(classes)
        if chosen[cell, place]
    ]
    found = parse(text)
    assert [(name, mask) for name, _, mask in found] == [(name, mask) for name, _, mask in expected]
    np.testing.assert_allclose([value for _, value, _ in found], [value for _, value, _ in expected], atol=5.1e-7)
    assert is_prediction_string(text)


@given(told_cells(), st.floats(0, 1))
def test_each_cell_is_told_of_all_classes_from_the_least_confidence_on_and_of_its_best_in_any_case(given_cells, least):
    _, _, confidences = given_cells
    chosen = chosen_classes(confidences, least)
    for row, told in zip(confidences, chosen, strict=True):
        assert told[row.argmax()]
        assert [place for place in np.flatnonzero(told) if place != row.argmax()] == [
            place for place in range(len(row)) if row[place] >= least and place != row.argmax()
        ]


@given(words, st.integers(0, 9), st.floats(0, 1))
def test_a_text_that_was_cut_is_no_prediction(word, n_triples, confidence):
    whole = [word, f"{confidence:.6f}", word] * n_triples
    assert is_prediction_string(" ".join(whole))
    for n_words in range(len(whole)):
        assert is_prediction_string(" ".join(whole[:n_words])) == (n_words % 3 == 0)


def test_integer_labels_stay_integers_and_confidences_have_six_digits():
    confidences = np.array([[0.1234567, 1.0], [0.5, 0.0]])
    text = prediction_string(confidences, np.array([[True, True], [True, False]]), ["0", "16"], ["eNoA=", "eNoB="])
    assert text == "0 0.123457 eNoA= 16 1.000000 eNoA= 0 0.500000 eNoB="


def test_without_cells_the_text_is_empty():
    assert prediction_string(np.zeros((0, 2)), np.zeros((0, 2), bool), ["0", "1"], []) == ""


@pytest.mark.parametrize("bad", ["nuclear speckles", "", " a", "b\n"])
def test_a_class_that_would_part_a_triple_is_an_error(bad):
    with pytest.raises(SubmissionError, match=r"hold blanks; expected one word each"):
        check_classes(["0", bad])
    check_classes(["0", "Nücleus"])


def test_the_command_s_least_confidence_is_the_library_s():
    default = inspect.signature(commands.submit).parameters["least_confidence"].default
    assert default == LEAST_CONFIDENCE == SubmitSettings.__dataclass_fields__["least_confidence"].default


@pytest.mark.parametrize("bad", [-0.1, 1.5, float("nan")])
def test_a_least_confidence_that_is_none_is_an_error(bad):
    with pytest.raises(OptionError, match=r"--least-confidence .*; expected 0 to 1, such as 0\.01"):
        check_least(bad)
