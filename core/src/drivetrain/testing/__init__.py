"""The conformance kit: what every driver of a family must do, as pytest checks.

One module per family, to be subclassed; see :mod:`drivetrain.testing.base`. Also distributions
for tests of the registry (:mod:`drivetrain.testing.distributions`) and a root file system
(:mod:`drivetrain.testing.rootfs`). Needs the extra ``drivetrain-core[testing]``.
"""

import sys

if "pytest" in sys.modules:  # the checks' asserts explain themselves, as those of test files do
    sys.modules["pytest"].register_assert_rewrite(
        "drivetrain.testing.log", "drivetrain.testing.storage"
    )
