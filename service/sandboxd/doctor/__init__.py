"""What this machine has, lacks, and the exact command that mends each thing.

`probes` tries the real thing in forked children, `facts` collects that and what else is known of
the machine, `checks` decides: facts in, checks out, with no system call between.
"""

from __future__ import annotations

from sandboxd.doctor.checks import Check, judge
from sandboxd.doctor.facts import collect
from sandboxd.doctor.report import main

__all__ = ["Check", "main", "run_checks"]


def run_checks() -> list[Check]:
    """Every check of this machine, for this user, in the order in which to mend them."""
    return judge(collect())
