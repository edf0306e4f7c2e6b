"""The log of renders (journal): one line for each change of state, as an observer."""

import logging

from serve_app.jobs.records import Claim
from serve_app.observers import Loss, Observer, Outcome

logger = logging.getLogger("ray.serve.wan")


class RenderLog(Observer):
    """Logs the states of renders, but never their prompts. The access log has a line for the POST of each request."""

    def started(self, claim: Claim) -> None:
        """Log that an attempt began."""
        logger.info("render %s begins: attempt %d, after %.1f s", _name(claim), claim.attempt, claim.waited_s)

    def ended(self, claim: Claim, outcome: Outcome) -> None:
        """Log how an attempt ended."""
        took = "" if outcome.replica_s is None else f" in {outcome.replica_s:.1f} s"
        why = "" if outcome.error is None else f": {outcome.error.code}: {outcome.error.message}"
        logger.info("render %s %s%s%s", _name(claim), outcome.end.value, took, why)

    def lost(self, model: str, loss: Loss, attempts: int) -> None:
        """Log that attempts ended without a word."""
        logger.warning("%d attempts of %s were lost: %s", attempts, model, _LOSSES[loss])


_LOSSES = {Loss.CALL: "the call to the replica failed", Loss.LEASE: "the lease ran out"}


def _name(claim: Claim) -> str:
    return f"{claim.index} of request {claim.request_id}"
