"""Running code that a model wrote, and judging it from outside (DESIGN §10).

Owns: the enclosure (uid, rlimits, namespaces), its limits, and every verdict on untrusted code.
Does not know: samples, benchmarks or services. Curator and evaluator use it; it imports no torch.

A pass is always computed on this side, by comparing plain values that came out with expected values that never
went in. What runs inside can see everything inside (the per-run nonce too, if it digs through the frames): the nonce
keeps prints from being taken for results, the absent expected values are what makes a forged result useless.
"""

from jupiter.sandbox.enclosure import SandboxUnavailable
from jupiter.sandbox.limits import Limits
from jupiter.sandbox.runs import Example, Outcome, SandboxResult, Session
from jupiter.sandbox.sandbox import Sandbox, available

__all__ = ["Example", "Limits", "Outcome", "Sandbox", "SandboxResult", "SandboxUnavailable", "Session", "available"]
