import torch

from engine.generation.strategies import contrastive_scores, sample, unit


def test_sampling_follows_the_distribution() -> None:
    probabilities = torch.tensor([0.5, 0.0, 0.3, 0.2])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.tensor([sample(probabilities, generator) for _ in range(4000)])
    frequencies = torch.bincount(drawn, minlength=4) / 4000
    assert frequencies[1] == 0
    torch.testing.assert_close(frequencies, probabilities, atol=0.03, rtol=0)


def test_same_seed_same_draws() -> None:
    probabilities = torch.rand(100, generator=torch.Generator().manual_seed(1)).softmax(0)
    draws = [[sample(probabilities, g) for _ in range(20)] for g in (torch.Generator().manual_seed(5),) * 1]
    again = torch.Generator().manual_seed(5)
    assert draws[0] == [sample(probabilities, again) for _ in range(20)]


def test_contrastive_score_weighs_confidence_against_similarity() -> None:
    context = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    candidates = torch.tensor([[3.0, 0.0], [1.0, -1.0]])
    scores, similarity = contrastive_scores(torch.tensor([0.9, 0.1]), candidates, context, alpha=0.5)
    torch.testing.assert_close(similarity, torch.tensor([1.0, 0.5**0.5]))
    torch.testing.assert_close(scores, torch.tensor([0.45 - 0.5, 0.05 - 0.5 * 0.5**0.5]))
    torch.testing.assert_close(unit(candidates).norm(dim=1), torch.ones(2))
