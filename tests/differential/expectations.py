"""What is known of cases in which the two stores do not do the same, and why.

A case that is in none of these tables is one where both stores are right. An entry that is out of
date is a `problem`: test_differential.py finds those on our side, and where both should be right;
``python -m tests.differential`` finds all.
"""

from typing import Dict

from .judge import Verdict

__all__ = ["NATIVE_RACES", "NATIVE_WRONG", "NOT_SERVED", "OURS_DIFFERS", "problem", "reason_of"]

_OVERWRITES = "the pull overwrites the array that was pushed"
_ENDS_SERVER = "the server ends, and workers wait for ever"
_WAITS = "it waits for ever"
_NOT_LIVE = "servers have a copy of the optimizer, which never changes"
_STATES = "the states are on the servers, and no worker can have them"
_SWALLOWED = "the exception is lost on the server"
_ONE_STORE = "a process that makes a second store waits for ever"
_UNPICKLES = "the server cannot import the class, is silent, and replaces weights by gradients"
_PARTS = "each server takes the norm of its part"
_FIRST_ROWS = "the rows pushed are written to the first rows of the value, whatever their numbers"
_NO_ROWS = "accepted, and zeros come back"
_OTHER_ROW = "another row comes back"
_COMPRESSED = "compression is refused with pushpull"

# Ours is right and MXNet's own store never is.
NATIVE_WRONG: Dict[str, str] = {
    "type_unheard_of": "whatever has `dist` in it is taken for a synchronous store",
    "async_without_optimizer": _ENDS_SERVER,
    "two_stores": _ONE_STORE,
    "pull_ignore_sparse": "`ignore_sparse=False` is refused for dense keys, too",
    "gradients_are_left_alone": _OVERWRITES,
    "view": _OVERWRITES,
    "uneven": _WAITS,
    "both_kinds_of_keys_in_a_list": "a store has keys of one kind",
    "both_kinds_of_keys_in_a_store": "a store has keys of one kind",
    "negative_key": "fails to place it on a server",
    "dtype_uint8": _ENDS_SERVER,
    "dtype_int8": _ENDS_SERVER,
    "dtype_int32": _ENDS_SERVER,
    "dtype_int64": _ENDS_SERVER,
    "dtype_bool": _ENDS_SERVER,
    "init_twice": _WAITS,
    "broadcast_twice": _WAITS,
    "push_without_init": _WAITS,
    "pull_without_init": _ENDS_SERVER,
    "push_too_small": _WAITS,
    "pull_into_other_shape": "the worker aborts",
    "pull_into_other_dtype": "the worker aborts, unless it has pushed the key",
    "pushpull_into_other_dtype": "refused, where `push` and `pull` are not",
    "no_arrays": "accepted, and nothing is pushed",
    "optimizer_group_adagrad": f"it needs rows, and servers have none; {_SWALLOWED}",
    "split_lars": _PARTS,
    "split_lamb": _PARTS,
    "split_lbsgd": _PARTS,
    "rate_changed": _NOT_LIVE,
    "rescale_changed": _NOT_LIVE,
    "momentum_and_wd_changed": _NOT_LIVE,
    "multipliers_changed": _NOT_LIVE,
    "multipliers_by_string_key": "servers know keys by number only",
    "optimizer_of_the_script": _UNPICKLES,
    "scheduler_of_the_script": _UNPICKLES,
    "optimizer_that_raises": _SWALLOWED,
    "row_ids_out_of_range": _NO_ROWS,
    "row_ids_out_of_range_later": _NO_ROWS,
    "row_ids_float16_inexact": _OTHER_ROW,
    "row_ids_float32_inexact": _OTHER_ROW,
    "row_ids_mask": "accepted, and the rows 0 and 1 come back",
    "rows_into_other_dtype": "who has not pushed the key gets other numbers (bytes of float16)",
    "row_sparse_push": _FIRST_ROWS,
    "row_sparse_push_other_rows": _FIRST_ROWS,
    "row_sparse_push_no_rows": _FIRST_ROWS,
    "row_sparse_push_devices": _FIRST_ROWS,
    "row_sparse_big": _FIRST_ROWS,
    "row_sparse_push_to_dense": _ENDS_SERVER,
    "row_sparse_sgd_to_dense": _ENDS_SERVER,
    "row_sparse_adam_to_dense": _ENDS_SERVER,
    "trainer_sparse_gradients": _ENDS_SERVER,
    "trainer_sparse_gradients_devices": _ENDS_SERVER,
    "row_sparse_pull_outs_and_rows": "rows for each output are refused",
    "states": _STATES,
    "states_and_optimizer": _STATES,
    "compression_refused": "an argument that does not exist is accepted",
    "trainer_set_learning_rate": _NOT_LIVE,
    "trainer_batch_size_changes": "the Trainer itself refuses, for what servers cannot do",
    "trainer_multipliers": "`lr_mult` and `wd_mult` of parameters do not reach the servers",
    "trainer_states_on_kvstore": _STATES,
    "trainer_grad_add": _OVERWRITES,
    "two_trainers": _ONE_STORE,
    "two_trainers_on_one_store": _WAITS,
    "trainer_uneven": _WAITS,
    "module_states": _STATES,
}

# Ours is right; MXNet's own store is not always, because it does not keep rounds apart, or because
# a worker reads an array that the store writes.
NATIVE_RACES: Dict[str, str] = dict.fromkeys(
    (
        "pushes_before_a_pull",
        "pushpull_ahead",
        "many_keys_ahead",
        "optimizer_push_then_pull",
    ),
    "a push that another one follows may be lost, or belong to its round",
)
NATIVE_RACES["push_other_dtype"] = "the push is refused, and then its thread may end or wait"
NATIVE_RACES.update(
    dict.fromkeys(
        (
            "trainer_on_workers",
            "trainer_allreduce",
            "trainer_stale_ignored",
            "trainer_states_on_workers",
            "trainer_loads_parameters",
        ),
        "with `update_on_kvstore=False` a weight may be overwritten in the first step",
    )
)

# Ours does something else, on purpose.
_EXACT = "nothing is compressed where nothing is sent, on one host, nor are arrays this small"
OURS_DIFFERS: Dict[str, str] = {
    "command": "a command that no server knows is a mistake",
    "compression": _EXACT,
    "compression_threshold": _EXACT,
    "compression_pushpull": f"{_EXACT}; natively {_COMPRESSED}",
    "trainer_compression": f"{_EXACT}; natively {_COMPRESSED}",
    "compression_of_half_precision": _EXACT,
    "get_num_dead_node": "no store of 1.9.1 has it, and scripts for older ones ask for it",
    "row_sparse_pull_not_ignored": "MXNet's own refuses it, and there is no reason to",
    "row_sparse_pushpull": "MXNet's own refuses it, and there is no reason to",
    "profile_of_servers": "servers are Python processes, which MXNet's profiler does not look into",
    "bool_key": "True as a key is a mistake more often than it is the key 1",
}

# Ours is not right yet.
NOT_SERVED: Dict[str, str] = {}


def problem(name: str, verdict: Verdict) -> str:
    """What is not as these tables have it, or an empty string."""
    if name in NOT_SERVED:
        return "it is served by now: take it out of NOT_SERVED" if verdict.ours else ""
    if name in OURS_DIFFERS:
        return "ours is right: take it out of OURS_DIFFERS" if verdict.ours else ""
    if not verdict.ours:
        return "ours is wrong"
    if name in NATIVE_WRONG:
        return "both are right: take it out of NATIVE_WRONG" if verdict.native else ""
    if name in NATIVE_RACES:
        return ""
    if not verdict.native:
        return "a reason is missing in NATIVE_WRONG"
    return "" if verdict.same else "both are right, and yet not the same"


def reason_of(name: str) -> str:
    """Why not both stores are right in a case, or an empty string."""
    for table in (NATIVE_WRONG, NATIVE_RACES, OURS_DIFFERS, NOT_SERVED):
        if name in table:
            return table[name]
    return ""
