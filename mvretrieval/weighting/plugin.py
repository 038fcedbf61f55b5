"""View weightings of other packages, and weightings that are given as objects.

A plug-in of the group `weightings` is a function of the dimension of a view vector and the number of views. It returns an untrained
`torch.nn.Module` that is a `ViewPooling`, with an attribute `fingerprint`: a text that changes with what the module computes from
the same parameters.

    def make(dim: int, n_views: int) -> nn.Module
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from mvrender import plugins
from mvretrieval.errors import AdapterError

_TOLERANCE = 1e-4


def make_weighting(name: str, dim: int, n_views: int) -> nn.Module:
    """Make the untrained module of a plug-in, and check it.

    Args:
        name: of the plug-in.
        dim: K of the view vectors.
        n_views: V of the training views.

    Raises:
        AdapterError: no such plug-in (`unknown_pooling`), or it breaks the contract of `ViewPooling` (`bad_plugin_weighting`).
        PluginError: it cannot be imported.
    """
    make = plugins.find("weightings", name)
    if make is None:
        raise AdapterError(
            f"view weighting '{name}' is of another package or program: install the package, or call "
            f"mvretrieval.register('weightings', '{name}', ...) first",
            code="unknown_pooling",
        )
    module = make(dim, n_views)
    _check(module, name, dim, n_views)
    checked: nn.Module = module
    return checked


def register_module(weighting: nn.Module) -> str:
    """Register a module object for this process, under the name of its class.

    Args:
        weighting: untrained; it is copied for each style.

    Returns:
        The name.
    """
    name = f"object:{type(weighting).__qualname__}"
    untrained = deepcopy(weighting)
    plugins.register("weightings", name, lambda dim, n_views: deepcopy(untrained))
    return name


def fingerprint_of(module: nn.Module) -> str:
    """The attribute `fingerprint` of a weighting; empty for a built-in one."""
    return str(getattr(module, "fingerprint", ""))


def _check(module: object, name: str, dim: int, n_views: int) -> None:
    if not isinstance(module, nn.Module):
        raise _error(name, f"is a {type(module).__name__}, not a torch.nn.Module")
    if not fingerprint_of(module).strip():
        raise _error(name, "has no attribute fingerprint, a text that changes with what it computes")
    generator = torch.Generator().manual_seed(0)
    views = nn.functional.normalize(torch.randn(3, n_views, dim, generator=generator), dim=2)
    mask = torch.ones(3, n_views, dtype=torch.bool)
    mask[1, n_views // 2 + 1 :] = False
    directions = nn.functional.normalize(torch.randn(3, n_views, 3, generator=generator), dim=2)
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            vectors, weights = module(views, mask, directions)
            # Masked views may hold anything, and images of a query have no directions.
            hidden = torch.where(mask[..., None], views, torch.nan)
            again, _ = module(hidden, mask, directions)
            unknown, _ = module(views[:, :1], mask[:, :1], None)
    except Exception as error:
        raise _error(name, f"fails on views (3, {n_views}, {dim}) ({type(error).__name__}: {error})") from error
    finally:
        module.train(was_training)
    if vectors.shape != (3, dim) or weights.shape != (3, n_views) or unknown.shape != (3, dim):
        raise _error(
            name,
            f"returned vectors {tuple(vectors.shape)} and weights {tuple(weights.shape)}, not {(3, dim)} and {(3, n_views)}",
        )
    if not torch.allclose(vectors.norm(dim=1), torch.ones(3), atol=_TOLERANCE):
        raise _error(name, f"returned vectors of norm {vectors.norm(dim=1).tolist()}, which must be 1")
    rows = weights.sum(dim=1)
    if not torch.allclose(rows, torch.ones(3), atol=_TOLERANCE) or bool((weights[~mask] != 0).any()):
        raise _error(name, "returned weights that do not sum to 1 over the views, or are not 0 where a view is masked")
    if not torch.allclose(again, vectors, atol=_TOLERANCE):
        raise _error(name, "uses masked views")


def _error(name: str, problem: str) -> AdapterError:
    return AdapterError(
        f"view weighting '{name}' {problem}: see ViewPooling for the contract", code="bad_plugin_weighting"
    )
