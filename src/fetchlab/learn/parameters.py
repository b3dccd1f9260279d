"""Which optimizer holds which parameters: the encoder is in exactly one of the two."""

from __future__ import annotations

from torch import nn

from fetchlab.networks.agent import Agent
from fetchlab.types import PIXELS, ConfigError, Routing


def encoder_parameters(agent: Agent) -> list[nn.Parameter]:
    """Parameters of the shared encoder; empty without pixels."""
    return [] if agent.encoder is None else list(agent.encoder.parameters())


def critic_parameters(agent: Agent, routing: Routing) -> list[nn.Parameter]:
    """What the critic's optimizer holds: the critics, and the encoder where the routing says so."""
    own = list(agent.critic.parameters())
    return own + (encoder_parameters(agent) if routing.encoder_optimizer == "critic" else [])


def actor_parameters(agent: Agent, routing: Routing) -> list[nn.Parameter]:
    """What the actor's optimizer holds, log alpha apart."""
    own = list(agent.actor.parameters())
    return own + (encoder_parameters(agent) if routing.encoder_optimizer == "actor" else [])


def check_routing(agent: Agent, routing: Routing) -> None:
    """Refuse a routing that trains the encoder by a loss that sees no pixels.

    Raises:
        ConfigError: with the input list that lacks them.
    """
    if agent.encoder is None:
        return
    trains = routing.encoder_optimizer
    names = agent.critic_inputs if trains == "critic" else agent.actor_inputs
    if PIXELS not in names:
        raise ConfigError(
            f"obs.{trains}_inputs",
            list(names),
            f"{PIXELS} among them, because routing={trains} trains the encoder by that loss",
            f"add {PIXELS} to obs.{trains}_inputs or choose another routing",
        )
