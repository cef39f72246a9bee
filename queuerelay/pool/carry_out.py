"""Orders of operators, carried out on the pools of this process."""

from collections.abc import Mapping

from queuerelay.pool.pool import Pool
from queuerelay.pool.resident import Residents
from queuerelay.wire.order import Order, Report


def obey(
    order: Order, pools: Mapping[str, Pool | Residents], *, node: str, stopping: bool = False
) -> Report:
    """Do what `order` says, and tell what became of it; `node` is this process, which may be
    `stopping`: then only scripts can be stopped.
    """
    if order.action == "stop":
        done = any(
            pool.stop_job(order.message, kill=order.kill)
            for pool in pools.values()
            if isinstance(pool, Pool)
        )
        how = "killed" if order.kill else "told to end"
        return Report(node=node, done=done, text=f"its script was {how}" if done else "not here")
    pool = pools.get(order.pool)
    if pool is None:
        return Report(node=node, done=False, text="no such pool here")
    if stopping:
        return Report(node=node, done=False, text="this process is stopping")
    return _told(order, pool, node)


def _told(order: Order, pool: Pool | Residents, node: str) -> Report:
    done, text = True, ""
    lowest, highest = pool.config.min, pool.config.max
    match order.action, pool:
        case "size", Pool() if lowest != highest and not lowest <= order.size <= highest:
            # It would be undone within a second.
            done, text = False, f"it follows its backlog, between {lowest} and {highest} slots"
        case "size", _:
            text = f"{pool.size} slots before, {order.size} now"
            pool.set_size(order.size)
        case "drain", Pool():
            text = f"takes no more messages; {pool.busy} are being worked on"
            pool.drain()
        case "resume", Pool():
            text = "takes messages again"
            pool.resume()
        case "restart", Residents():
            text = f"{pool.size} processes are replaced, one by one"
            pool.roll().addErrback(lambda _: None)
        case "restart", _:
            done, text = False, "each message has a new process: there is nothing to restart"
        case _:
            done, text = False, "its processes take messages by themselves: set its size instead"
    return Report(node=node, done=done, text=text)
