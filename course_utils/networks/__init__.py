"""Layers in, networks out: the five networks of the course by name."""

from torch import nn

from course_utils.checks import one_of
from course_utils.networks.s8 import S8Net31k, S8Net38k, S8Net46k
from course_utils.networks.s9 import S9Net85k, S9Net180k

NETWORKS = {network.__name__: network for network in (S8Net46k, S8Net38k, S8Net31k, S9Net180k, S9Net85k)}


def make_network(name: str, **options) -> nn.Module:
    """The course network of that name, with the options of its class; `ValueError` for another name."""
    return NETWORKS[one_of(name, "network", NETWORKS)](**options)
