"""Scaling laws, held against what their papers say of them."""

import pytest

from model.estimates.scaling import BESIROGLU, HOFFMANN, effective_tokens, scaling


def test_the_optimum_is_the_least_loss_for_its_operations():
    for law in (HOFFMANN, BESIROGLU):
        parameters, tokens = law.optimum(5.76e23)  # Gopher's budget
        assert 6 * parameters * tokens == pytest.approx(5.76e23)
        best = law.loss(parameters, tokens)
        assert all(law.loss(parameters * times, tokens / times) > best for times in (0.8, 0.95, 1.05, 1.25))


def test_the_newer_fit_agrees_with_twenty_tokens_for_each_weight():
    """As Besiroglu et al. say of their fit, and Hoffmann et al. of their other two approaches, but not of the third."""
    parameters, tokens = BESIROGLU.optimum(5.76e23)
    assert 15 < tokens / parameters < 30
    parameters, tokens = HOFFMANN.optimum(5.76e23)
    assert tokens / parameters > 60


def test_chinchilla_is_expected_to_be_better_than_gopher():
    gopher, chinchilla = scaling(280e9, 300e9), scaling(70e9, 1.4e12)
    assert gopher.flops == pytest.approx(chinchilla.flops, rel=0.2)
    assert all(ours.loss < theirs.loss for ours, theirs in zip(chinchilla.expected, gopher.expected, strict=True))


def test_four_readings_are_nearly_as_good_as_new_text_and_forty_are_not():
    assert effective_tokens(4e9, 1e9) == pytest.approx(4e9, rel=0.1)
    assert effective_tokens(40e9, 1e9) < 16.4e9
    assert effective_tokens(1e9, 4e9) == 1e9
    assert effective_tokens(1e9, None) == 1e9


def test_smaller_models_need_more_tokens_for_the_same_loss():
    found = scaling(1e9, 20e9)
    for each in found.same_loss:
        assert BESIROGLU.loss(each.parameters, each.tokens) == pytest.approx(found.expected[0].loss)
    assert [each.tokens for each in found.same_loss] == sorted((each.tokens for each in found.same_loss), reverse=True)
    assert BESIROGLU.tokens_for(1e6, 2.0) is None
