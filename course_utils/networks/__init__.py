"""Layers in, networks out: the five networks of the course by name."""

import inspect
from collections.abc import Callable

from torch import nn

from course_utils.arguments import one_of
from course_utils.networks.s8 import S8Net31k, S8Net38k, S8Net46k
from course_utils.networks.s9 import S9Net85k, S9Net180k
from course_utils.networks.variants import (
    S8Net46kHe,
    S8Skeleton,
    S9Net180kActivated,
    S9Net180kPooled,
    S9Net180kUndilated,
)

NETWORKS = {network.__name__: network for network in (S8Net46k, S8Net38k, S8Net31k, S9Net180k, S9Net85k)}
VARIANTS = {
    network.__name__: network
    for network in (S8Net46kHe, S8Skeleton, S9Net180kPooled, S9Net180kActivated, S9Net180kUndilated)
}


def network_class(name: str) -> type[nn.Module]:
    """The class of the course network, or the variant of one, of that name; `ValueError` for another name."""
    known = NETWORKS | VARIANTS
    return known[one_of(name, "network", known)]


def make_network(name: str, **options) -> nn.Module:
    """The course network, or the variant of one, of that name, with the options of its class.

    Raises `ValueError` for another name.
    """
    return network_class(name)(**options)


def make_for(make: Callable[..., nn.Module], num_classes: int) -> nn.Module:
    """The network that `make` returns; it is given `num_classes` where it takes that argument."""
    try:
        inspect.signature(make).bind(num_classes=num_classes)
    except TypeError:
        return make()
    return make(num_classes=num_classes)
