"""Which optimizer holds which parameters, and which of them each loss moves.

There are always two optimizers and the encoder is in exactly one of them, whatever trains it.
"""

from __future__ import annotations

from torch import nn

from fetchlab.entries import PIXELS, Routing
from fetchlab.errors import ConfigError, require
from fetchlab.networks.agent import Agent


def encoder_parameters(agent: Agent) -> list[nn.Parameter]:
    """Parameters of the shared encoder; empty without pixels."""
    return [] if agent.encoder is None else list(agent.encoder.parameters())


def head_parameters(agent: Agent) -> list[nn.Parameter]:
    """Parameters of the goal-prediction head; empty without it."""
    return [] if agent.goal_head is None else list(agent.goal_head.parameters())


def critic_parameters(agent: Agent, routing: Routing) -> list[nn.Parameter]:
    """What the critic's optimizer holds: the critics, and the encoder where the routing says so."""
    own = list(agent.critic.parameters())
    return own + (_representation(agent) if routing.encoder_optimizer == "critic" else [])


def actor_parameters(agent: Agent, routing: Routing) -> list[nn.Parameter]:
    """What the actor's optimizer holds, log alpha apart."""
    own = list(agent.actor.parameters())
    return own + (_representation(agent) if routing.encoder_optimizer == "actor" else [])


def _representation(agent: Agent) -> list[nn.Parameter]:
    return encoder_parameters(agent) + head_parameters(agent)


class Trained:
    """For each of the two losses: optimizer -> those of its parameters that the loss moves.

    Args:
        agent: the networks.
        routing: which losses train the encoder.
        log_alpha: of the entropy coefficient.
        learn_entropy: whether the actor's loss moves it.

    Attributes:
        by_critic: of the critic's loss, with goal prediction where the critic's optimizer has it.
        by_actor: of the actor's loss likewise.
        encodes_again: the actor's loss needs features of the weights after the critic's step.
    """

    def __init__(
        self, agent: Agent, routing: Routing, log_alpha: nn.Parameter, learn_entropy: bool
    ) -> None:
        encoder = [p for p in encoder_parameters(agent) if p.requires_grad]
        moved = head_parameters(agent) + (encoder if routing.trained_by else [])
        critic, actor = list(agent.critic.parameters()), list(agent.actor.parameters())
        actor += [log_alpha] if learn_entropy else []
        self.encodes_again = bool(encoder) and (
            routing.encoder_optimizer == "critic" and "actor" in routing.trained_by
        )
        if routing.encoder_optimizer == "critic":
            self.by_critic, self.by_actor = {"critic": critic + moved}, {"actor": actor}
            if self.encodes_again:
                self.by_actor = {"actor": actor, "critic": encoder}
        else:
            self.by_critic, self.by_actor = {"critic": critic}, {"actor": actor + moved}


def check_routing(agent: Agent, routing: Routing) -> None:
    """Refuse a routing that trains the encoder by a loss that cannot reach it.

    Raises:
        ConfigError: with what is missing.
    """
    if agent.encoder is None:
        return
    trained_by, holder = routing.trained_by, routing.encoder_optimizer
    require(
        trained_by != {"auxiliary"} or agent.goal_head is not None,
        "algo.goal_prediction.weight",
        0,
        "above 0, because routing=auxiliary trains the encoder by goal prediction alone",
        "use algo.goal_prediction.weight=1 or choose another routing",
    )
    require(
        not (holder == "actor" and "critic" in trained_by),
        "routing",
        type(routing).__name__,
        "the critic's optimizer to hold an encoder that the critic's loss trains",
        "set encoder_optimizer = 'critic'",
    )
    for loss, names in (("critic", agent.critic_inputs), ("actor", agent.actor_inputs)):
        if loss in trained_by and PIXELS not in names:
            raise ConfigError(
                f"obs.{loss}_inputs",
                list(names),
                f"{PIXELS} among them, because this routing trains the encoder by that loss",
                f"add {PIXELS} to obs.{loss}_inputs or choose another routing "
                f"({'actor' if loss == 'critic' else 'critic'}, auxiliary, frozen)",
            )
