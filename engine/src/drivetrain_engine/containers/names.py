"""Names of containers: the rules, and random ones such as ``brisk_curie``."""

from __future__ import annotations

import random
import re

from drivetrain.errors import InvalidArgument

_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]*")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ADJECTIVES = _words("""
able agile airy alert amber ample apt bold brave breezy bright brisk calm candid careful cheery
civil clear clever cosy crisp curious daring deft eager earnest easy fair fine firm fleet fond
frank fresh gentle glad golden grand happy hardy hearty honest humble jolly keen kind lively
lucid lucky mellow merry mild modest neat nimble noble patient plucky polite prompt proud quick
quiet ready robust rosy sage serene sharp shiny silent sleek smart snug sober solid spry stable
steady sunny sure swift tidy trusty upbeat vivid warm wise witty
""")
_SURNAMES = _words("""
abel agnesi alhazen ampere babbage banach bernoulli bohr boole bose boyle brahe cantor carson
cauchy cavendish church clarke conway copernicus coulomb crick curie darwin davy dirac einstein
elion euclid euler faraday fermat fermi feynman fibonacci fourier franklin galileo galois gauss
germain goedel goodall halley hamilton hertz hilbert hodgkin hooke hopper hubble huygens hypatia
joule kepler khayyam kovalevskaya lagrange laplace lavoisier leavitt leibniz linnaeus lovelace
lovell maxwell mcclintock meitner mendel mirzakhani newton noether nobel ohm pascal pasteur
pauli planck poincare ptolemy ramanujan riemann rubin rutherford sagan shannon snow somerville
tesla thales torvalds turing volta wallace watt wiles wu yalow zuse
""")


def check_name(name: str) -> str:
    """Return a name without its slash.

    Raises:
        InvalidArgument: it cannot be one.
    """
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    return name.lstrip("/")


def random_name(attempt: int = 0) -> str:
    """Return an adjective and a surname; from the third attempt on with a number behind."""
    name = f"{random.choice(_ADJECTIVES)}_{random.choice(_SURNAMES)}"
    return f"{name}{random.randrange(10**attempt)}" if attempt > 1 else name
