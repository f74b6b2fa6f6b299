"""Where the gradient goes: the theorems behind the one stop-gradient switch, on every named method."""

import pytest
import torch

from collapse_lab.config import build
from collapse_lab.errors import InputError
from collapse_lab.methods import METHODS, method
from collapse_lab.objective import Objective, build_objective
from collapse_lab.settings import Config
from collapse_lab.targets import exchanged


def objective(**overrides: object) -> Objective:
    return made(build("test", {"network.width": 4, **{key.replace("__", "."): v for key, v in overrides.items()}}))


def made(config: Config) -> Objective:
    return build_objective(config, torch.tensor([0.5]), torch.tensor([0.3]), 8, 64).double()


def views(count: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 16, 1, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradients(model: Objective) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of encoder and predictor of one batch, flat; parameters without one count as zeros."""
    model.zero_grad()
    model(views(model.views), torch.arange(16)).backward()
    flat = [
        torch.cat(
            [torch.zeros(0).double()] + [(w.grad if w.grad is not None else 0 * w).flatten() for w in part.parameters()]
        )
        for part in (model.encoder, model.predictor)
    ]
    return flat[0], flat[1]


@pytest.mark.parametrize("loss", ["negative-cosine", "mse"])
def test_the_two_stop_gradients_add_up_to_none(loss):
    encoder, predictor = zip(
        *(
            gradients(objective(objective__stop_gradient=s, objective__loss=loss))
            for s in ("target", "prediction", "none")
        ),
        strict=True,
    )
    torch.testing.assert_close(encoder[0] + encoder[1], encoder[2], rtol=1e-9, atol=1e-12)
    assert encoder[0].norm() > 0
    assert encoder[1].norm() > 0
    # The predictor learns by the same equation whatever is stopped.
    torch.testing.assert_close(predictor[0], predictor[2], rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(predictor[1], predictor[2], rtol=1e-9, atol=1e-14)


def test_without_predictor_the_stop_gradient_halves_the_gradient():
    stopped = gradients(objective(network__predictor="identity"))[0]
    through = gradients(objective(network__predictor="identity", objective__stop_gradient="none"))[0]
    torch.testing.assert_close(2 * stopped, through, rtol=1e-9, atol=1e-12)


def test_the_loss_is_the_papers_symmetrised_equation():
    model = objective()
    x = views()
    z1, z2 = model.encoder(x[0]), model.encoder(x[1])
    p1, p2 = model.predictor(z1), model.predictor(z2)
    cosine = torch.nn.functional.cosine_similarity
    by_hand = -(cosine(p1, z2).mean() + cosine(p2, z1).mean()) / 2
    # The loss itself is computed in float32.
    torch.testing.assert_close(model(x, torch.arange(16)), by_hand.float(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", METHODS)
def test_exactly_the_parts_that_should_learn_get_a_gradient(name):
    config = build(name, method(name).settings)
    encoder, predictor = gradients(made(config))
    assert encoder.norm() > 0
    trained = config.network.predictor in ("mlp", "linear", "bias") and not config.network.predictor_frozen
    assert (predictor.norm() > 0) == trained


def test_arms_of_one_seed_start_from_the_same_encoder_and_other_seeds_from_others():
    rows = [made(build(name, method(name).settings)).encoder.state_dict() for name in METHODS]
    for row in rows[1:]:
        assert all(torch.equal(row[key], rows[0][key]) for key in row)
    other = objective(train__seed=1).encoder.state_dict()
    assert not torch.equal(other["projector.0.weight"], objective().encoder.state_dict()["projector.0.weight"])


def test_building_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    objective()
    assert torch.equal(before, torch.get_rng_state())


def test_batchnorm_statistics_are_those_of_each_view_on_its_own():
    model, x = objective(), views()
    alone = [objective().encoder(view) for view in x]
    z: list[torch.Tensor] = []
    model.encoder.register_forward_hook(lambda module, inputs, output: z.append(output))
    model(x, torch.arange(16))
    assert len(z) == 2
    torch.testing.assert_close(torch.stack(z), torch.stack(alone))


def test_views_without_a_partner_are_refused():
    with pytest.raises(ValueError, match="found 3 views, needs pairs"):
        exchanged(torch.zeros(3, 1))


def test_an_unknown_method_is_refused_with_the_names_there_are():
    with pytest.raises(InputError, match="unknown method 'simsam'; the methods are simsiam, no-stop-gradient"):
        method("simsam")
