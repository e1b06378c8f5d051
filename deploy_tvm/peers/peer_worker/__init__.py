"""Runs the peers, as it lies: ``python deploy_tvm/peers/peer_worker RUNTIME JOB_FOLDER CORE``.

It needs nothing of this project, only NumPy and the peer's package, so that it can run in another Python environment;
its modules import each other by their bare names for that reason.
"""
