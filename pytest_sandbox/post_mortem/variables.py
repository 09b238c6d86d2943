"""What `sandboxctl` tells the pytest that it runs, in the environment. PYTEST_DONT_REWRITE"""

from typing import Final

STATE: Final = "SANDBOX_POST_MORTEM"
"""The directory of the kept state."""
NETWORK: Final = "SANDBOX_POST_MORTEM_NETWORK"
"""A process of the sandbox that the test is in, by its pid outside: containers join its network."""
