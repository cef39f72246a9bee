"""What clients of a relay may take, as its configuration says."""

from queuerelay.config import RelayConfig
from queuerelay.http.connections import ClientLimits
from queuerelay.http.head import HeadLimits


def client_limits(config: RelayConfig) -> ClientLimits:
    """The limits that `config` sets."""
    return ClientLimits(
        head=HeadLimits(
            max_line=config.max_line,
            max_header=config.max_header,
            max_fields=config.max_fields,
        ),
        max_body=config.max_body,
        header_time=config.header_time,
        body_time=config.body_time,
        idle=config.idle,
        max_connections=config.max_connections,
        client_share=config.client_share,
        half_close=config.half_close == "wait",
    )
