"""Muon: its steps against the singular value decomposition and against torch's own, one matrix at a time."""

from __future__ import annotations

import pytest
import torch

from pipeline.core.muon import Muon, orthogonal


@pytest.mark.parametrize(("rows", "columns"), [(6, 40), (40, 6), (12, 12)])
def test_orthogonal_keeps_the_singular_vectors(rows: int, columns: int) -> None:
    """In the basis of the singular vectors the result is diagonal, with values near 1."""
    torch.manual_seed(0)
    matrices = torch.randn(3, rows, columns) * torch.tensor([1e-4, 1.0, 1e3])[:, None, None]
    found = orthogonal(matrices)
    u, _, vh = torch.linalg.svd(matrices.double(), full_matrices=False)
    diagonal = u.mT @ found.double() @ vh.mT
    values = torch.diagonal(diagonal, dim1=1, dim2=2)
    assert ((values > 0.3) & (values < 1.3)).all() and (values[:, : min(rows, columns) // 2] > 0.6).all()
    torch.testing.assert_close(diagonal, torch.diag_embed(values), atol=1e-3, rtol=0)
    assert orthogonal(torch.zeros(1, rows, columns)).abs().max() == 0


def test_steps_as_the_optimizer_of_torch() -> None:
    """Several steps with momentum and weight decay; torch computes in bfloat16, hence the tolerance."""
    torch.manual_seed(0)
    start = [torch.randn(8, 20), torch.randn(8, 20), torch.randn(30, 10)]
    mine = [torch.nn.Parameter(p.clone()) for p in start]
    theirs = [torch.nn.Parameter(p.clone()) for p in start]
    optimizers = Muon(mine, 0.1, weight_decay=0.2), torch.optim.Muon(theirs, 0.1, weight_decay=0.2)
    for _ in range(4):
        for one, other in zip(mine, theirs):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other, before in zip(mine, theirs, start):
        moved = float((other - before).detach().norm())
        assert float((one - other).detach().norm()) < 0.02 * moved


@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (64, 4, 1, 1)])
def test_a_step_of_the_size_of_adam(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    kernel = torch.nn.Parameter(torch.zeros(shape).contiguous(memory_format=torch.channels_last))
    optimizer = Muon([kernel], 0.01, adam_sized=True)
    kernel.grad = torch.randn(shape)
    optimizer.step()
    assert float(kernel.detach().square().mean().sqrt()) == pytest.approx(0.2 * 0.01, rel=0.3)


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    torch.manual_seed(0)
    kernel = torch.nn.Parameter(torch.randn(4, 6))
    optimizer = Muon([kernel, torch.nn.Parameter(torch.randn(4, 6))], 0.1, weight_decay=0.1)
    kernel.grad = torch.randn(4, 6)
    optimizer.step()
    before, momentum = kernel.detach().clone(), optimizer.state[kernel]["momentum"].clone()
    kernel.grad = torch.full((4, 6), float("nan"))
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    assert torch.equal(kernel, before) and torch.equal(optimizer.state[kernel]["momentum"], momentum)
    kernel.grad, optimizer.found_inf = torch.randn(4, 6), torch.tensor(0.0)
    optimizer.step()
    assert not torch.equal(kernel, before)


def test_the_state_is_restored() -> None:
    torch.manual_seed(0)
    kernel = torch.nn.Parameter(torch.randn(4, 6))
    optimizer = Muon([kernel], 0.1)
    gradients = torch.randn(3, 4, 6)
    saved = None
    for number, gradient in enumerate(gradients):
        if number == 1:
            saved = kernel.detach().clone(), {"optimizer": optimizer.state_dict()}
            momentum = optimizer.state[kernel]["momentum"].clone()
        kernel.grad = gradient.clone()
        optimizer.step()
    assert saved is not None
    again = torch.nn.Parameter(saved[0])
    resumed = Muon([again], 0.1)
    state = saved[1]["optimizer"]
    state["state"][0]["momentum"] = momentum  # the first optimizer has changed it since
    resumed.load_state_dict(state)
    for gradient in gradients[1:]:
        again.grad = gradient.clone()
        resumed.step()
    assert torch.equal(again, kernel)
