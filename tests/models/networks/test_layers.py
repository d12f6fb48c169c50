"""Norms, attention, gates and embeddings: each against its definition."""

from __future__ import annotations

import pytest
import torch

from models.networks.layers import (
    Attention,
    ConditionEmbedding,
    Modulation,
    RMSNorm,
    SwiGLU,
    fourier_features,
    modulate,
    time_features,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_the_norm_divides_by_the_root_mean_square() -> None:
    norm = RMSNorm(6)
    assert norm.weight is not None
    torch.nn.init.normal_(norm.weight)
    value = torch.randn(2, 3, 6)
    expected = value / value.square().mean(-1, keepdim=True).sqrt() * norm.weight
    torch.testing.assert_close(norm(value), expected, atol=1e-5, rtol=1e-5)


def test_the_norm_keeps_bfloat16_and_has_no_weight_where_it_is_modulated() -> None:
    assert RMSNorm(6)(torch.randn(2, 6).bfloat16()).dtype == torch.bfloat16
    assert list(RMSNorm(6, scaled=False).parameters()) == []


def test_the_feed_forward_net_gates_and_is_8_3_as_wide_inside() -> None:
    feed = SwiGLU(96)
    assert feed.leave.in_features == 256
    assert SwiGLU(512).leave.in_features == 1344
    assert SwiGLU(512, 1312).leave.in_features == 1312
    value = torch.randn(2, 96)
    gate, content = (value @ feed.enter.weight.T).split(256, dim=-1)
    expected = (gate * torch.sigmoid(gate) * content) @ feed.leave.weight.T
    torch.testing.assert_close(feed(value), expected, atol=1e-5, rtol=1e-4)


def test_attention_is_a_softmax_over_normalised_queries_and_keys() -> None:
    attention = Attention(8, 2)
    tokens, context = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    query = attention.query(tokens).view(3, 2, 4).transpose(0, 1)
    key, value = (part.view(5, 2, 4).transpose(0, 1) for part in attention.key_value(context)[0].chunk(2, dim=-1))
    query, key = attention.query_norm(query), attention.key_norm(key)
    weights = (query @ key.transpose(1, 2) / 2.0).softmax(dim=-1)
    expected = attention.leave((weights @ value).transpose(0, 1).reshape(3, 8))
    torch.testing.assert_close(attention(tokens, context)[0], expected, atol=1e-5, rtol=1e-4)


def test_no_input_is_large_enough_to_make_attention_run_away() -> None:
    attention = Attention(8, 2)
    tokens = torch.randn(1, 4, 8)
    torch.testing.assert_close(attention(1e4 * tokens), 1e4 * attention(tokens), rtol=1e-2, atol=1e-1)


def test_what_is_masked_is_not_seen() -> None:
    attention = Attention(8, 2)
    tokens = torch.randn(2, 4, 8)
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    answer = attention(tokens, mask=mask)
    torch.testing.assert_close(answer[:1, :2], attention(tokens[:1, :2]))
    torch.testing.assert_close(answer[1:], attention(tokens[1:]))


def test_a_row_with_nothing_to_see_is_no_nan() -> None:
    answer = Attention(8, 2)(torch.randn(1, 4, 8), mask=torch.zeros(1, 4, dtype=torch.bool))
    assert answer.isfinite().all()


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="3 heads do not divide a width of 8"):
        Attention(8, 3)


def test_a_modulation_starts_as_the_identity() -> None:
    shift, scale = Modulation(8, 2)(torch.randn(2, 1, 8)).chunk(2, dim=-1)
    value = torch.randn(2, 3, 8)
    assert torch.equal(modulate(value, shift, scale), value)


def test_fourier_features_are_sines_and_cosines_at_octaves() -> None:
    features = fourier_features(torch.tensor([[0.5, -1.0]]), 2)
    angles = torch.pi / 2 * torch.tensor([0.5, 1.0, -1.0, -2.0])
    expected = torch.stack([angles[0].sin(), angles[1].sin(), angles[0].cos(), angles[1].cos()])
    torch.testing.assert_close(features[0, :4], expected)
    torch.testing.assert_close(features[0, 4:6], angles[2:].sin())
    assert features.shape == (1, 8)


def test_neighbouring_times_of_a_sampler_look_different() -> None:
    times = torch.linspace(0, 1, 1001)
    features = torch.nn.functional.normalize(time_features(times, 128), dim=-1)
    likeness = (features[1:] * features[:-1]).sum(-1)
    assert likeness.max() < 0.99
    likeness = (features[100:] * features[:-100]).sum(-1)
    assert likeness.max() < 0.9


def test_a_condition_per_gaussian_is_that_per_sample_where_all_times_agree() -> None:
    embedding = ConditionEmbedding(16, groups=2, classes=3)
    time = torch.tensor([0.2, 0.9])
    spread = time[:, None, None, None].expand(-1, 5, 3, 2)
    label = torch.tensor([0, 2])
    torch.testing.assert_close(embedding(time, label).expand(-1, 5, -1), embedding(spread, label))


def test_no_label_is_the_last_entry_of_the_table() -> None:
    embedding = ConditionEmbedding(16, groups=1, classes=3)
    time = torch.tensor([0.2])
    assert torch.equal(embedding(time, None), embedding(time, torch.tensor([3])))
    assert not torch.allclose(embedding(time, None), embedding(time, torch.tensor([0])))


def test_a_label_is_heard_from_the_first_step() -> None:
    embedding = ConditionEmbedding(64, groups=2, classes=10)
    times = torch.linspace(0, 1, 50)
    of_times = embedding(times, None)[:, 0].std(dim=0).mean()
    of_labels = embedding(torch.full((10,), 0.5), torch.arange(10))[:, 0].std(dim=0).mean()
    assert of_labels > of_times
    assert torch.equal(embedding(times, torch.full((50,), 10)), embedding(times, None))
    assert not embedding.table.weight[10].any()
